//! What rackwright.yaml says about the fleet repository.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::SignedDuration;

use super::RemoteUrl;

/// Where the fleet repository is and how to get at it. Names files and variables that hold secrets, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// A path, `file://…`, `ssh://user@host:port/path`, `user@host:path` or `https://host/path`.
    pub url: RemoteUrl,
    /// The branch that says what should be.
    #[serde(default = "main_branch")]
    pub branch: String,
    /// How often the repository is asked when nothing else woke us.
    #[serde(default = "half_a_minute")]
    pub poll: SignedDuration,
    /// Private key for ssh, without a passphrase. Without it the ssh agent is asked.
    #[serde(default)]
    pub ssh_key: Option<PathBuf>,
    /// Host keys to trust for ssh, in OpenSSH's format. Without it: `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`.
    #[serde(default)]
    pub known_hosts: Option<PathBuf>,
    /// User name for https. Forges ignore it when the password is a token.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password or token for https. Read each time, so that a changed one is seen.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Environment variable with the password or token for https.
    #[serde(default)]
    pub token_env: Option<String>,
    /// Certificates (PEM) of authorities to trust for https, besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Who must have signed the first commit that is followed, and all others as long as the fleet itself does not say who may sign:
    /// a file of this host, in OpenSSH's format (`man ssh-keygen`, ALLOWED SIGNERS).
    #[serde(default)]
    pub allowed_signers: Option<PathBuf>,
    /// The status notes.
    #[serde(default)]
    pub notes: NotesConfig,
}

/// How status notes are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NotesConfig {
    /// Whether they are pushed. Without it they stay in the controller's own clone.
    pub push: bool,
    /// Author of the commits on the notes ref.
    pub name: String,
    /// Mail address of that author.
    pub email: String,
}

impl Default for NotesConfig {
    fn default() -> Self {
        Self { push: true, name: "Rackwright".into(), email: "rackwright@localhost".into() }
    }
}

impl Config {
    /// A configuration with nothing but the remote said.
    pub fn new(url: RemoteUrl) -> Self {
        Self {
            url,
            branch: main_branch(),
            poll: half_a_minute(),
            ssh_key: None,
            known_hosts: None,
            username: None,
            password_file: None,
            token_env: None,
            ca_file: None,
            allowed_signers: None,
            notes: NotesConfig::default(),
        }
    }
}

fn main_branch() -> String {
    "main".into()
}

fn half_a_minute() -> SignedDuration {
    SignedDuration::from_secs(30)
}
