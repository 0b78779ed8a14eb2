//! One conversation with a remote: who it must be, and who we are.

use std::{cell::RefCell, path::PathBuf};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, ProxyOptions, Remote,
    RemoteCallbacks, Repository, cert::Cert,
};

use crate::model::RetryClass;

use super::{
    Config, GitError,
    known_hosts::{self, Verdict},
    url::Kind,
};

/// Refs of a remote.
pub(super) type Heads = Vec<(String, Oid)>;

/// Connects by the configuration, and explains what goes wrong in its terms.
pub(super) struct Session<'a> {
    config: &'a Config,
    /// What one of our callbacks refused with. libgit2 keeps only a short text of it, and not always.
    refused: RefCell<Option<GitError>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, refused: RefCell::new(None) }
    }

    /// The remote, not yet connected.
    pub(super) fn remote<'r>(&self, repository: &'r Repository) -> Result<Remote<'r>, GitError> {
        let url = &self.config.url;
        let text = url.for_libgit2().map_err(|source| GitError::caused(RetryClass::Stalled, format!("can't use {url}"), source))?;
        repository.remote_anonymous(&text).map_err(|source| GitError::remote(url.as_str(), source))
    }

    /// Lists the remote's refs, and then, on the same connection, fetches the refspecs that `want` names after seeing them.
    pub(super) fn list_then_fetch(&self, remote: &mut Remote<'_>, want: impl FnOnce(&Heads) -> Vec<String>) -> Result<Heads, GitError> {
        let explain = |source| self.explain(source);
        let mut connection = remote.connect_auth(Direction::Fetch, Some(self.callbacks()), Some(self.proxy())).map_err(explain)?;
        let heads: Heads = connection.list().map_err(explain)?.iter().map(|head| (head.name().to_owned(), head.oid())).collect();
        let specs = want(&heads);
        if !specs.is_empty() {
            let mut options = FetchOptions::new();
            options.remote_callbacks(self.callbacks()).proxy_options(self.proxy());
            options.download_tags(AutotagOption::None).update_fetchhead(false);
            connection.remote().fetch(&specs, Some(&mut options), None).map_err(explain)?;
        }
        Ok(heads)
    }

    /// Says what went wrong: our own refusal where there was one.
    pub(super) fn explain(&self, source: git2::Error) -> GitError {
        self.refused.borrow_mut().take().unwrap_or_else(|| GitError::remote(self.config.url.as_str(), source))
    }

    pub(super) fn proxy(&self) -> ProxyOptions<'static> {
        let mut proxy = ProxyOptions::new();
        if matches!(self.config.url.kind(), Kind::Https { .. }) {
            proxy.auto();
        }
        proxy
    }

    /// Callbacks for one connection. Each kind of credential is offered once: libgit2 asks again for as long as it gets one.
    pub(super) fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        let mut offered = CredentialType::empty();
        callbacks.credentials(move |_, user, allowed| {
            self.credential(user, allowed, &mut offered).map_err(|error| self.refuse(ErrorCode::Auth, error))
        });
        callbacks.certificate_check(move |cert, _| self.certificate(cert).map_err(|error| self.refuse(ErrorCode::Certificate, error)));
        callbacks
    }

    fn refuse(&self, code: ErrorCode, error: GitError) -> git2::Error {
        let short = git2::Error::new(code, ErrorClass::Callback, &error.message);
        *self.refused.borrow_mut() = Some(error);
        short
    }

    fn credential(&self, user: Option<&str>, allowed: CredentialType, offered: &mut CredentialType) -> Result<Cred, GitError> {
        let url = &self.config.url;
        let can = |kind: CredentialType| allowed.contains(kind);
        let (kind, made) = match url.kind() {
            Kind::Ssh { .. } if can(CredentialType::USERNAME) => (CredentialType::USERNAME, Cred::username(user.unwrap_or("git"))),
            Kind::Ssh { user: configured, .. } if can(CredentialType::SSH_KEY) => {
                let user = user.or(configured.as_deref()).unwrap_or("git");
                let made = match &self.config.ssh_key {
                    Some(key) => Cred::ssh_key(user, None, readable(key)?, None),
                    None => Cred::ssh_key_from_agent(user),
                };
                (CredentialType::SSH_KEY, made)
            }
            Kind::Https { .. } if can(CredentialType::USER_PASS_PLAINTEXT) => {
                let password = self.password()?;
                let user = self.config.username.as_deref().or(user).unwrap_or("git");
                (CredentialType::USER_PASS_PLAINTEXT, Cred::userpass_plaintext(user, &password))
            }
            _ => return Err(GitError::new(RetryClass::Stalled, format!("{url} asks for a kind of credential that is not supported"))),
        };
        if offered.contains(kind) {
            let which = match url.kind() {
                Kind::Ssh { .. } => "our ssh key: check `sshKey`, and that the key may read the repository",
                _ => "our user or password: check `username`, `passwordFile` or `tokenEnv`",
            };
            return Err(GitError::new(RetryClass::Stalled, format!("{url} refuses {which}")));
        }
        offered.insert(kind);
        made.map_err(|source| GitError::caused(RetryClass::Stalled, format!("can't use the credentials for {url}"), source))
    }

    fn password(&self) -> Result<String, GitError> {
        let stalled = |message: String| GitError::new(RetryClass::Stalled, message);
        if let Some(file) = &self.config.password_file {
            let text = std::fs::read_to_string(file)
                .map_err(|source| GitError::caused(RetryClass::Stalled, format!("can't read passwordFile {}", file.display()), source))?;
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        if let Some(name) = &self.config.token_env {
            return std::env::var(name).map_err(|_| stalled(format!("tokenEnv names {name}, which is not set in the environment")));
        }
        Err(stalled(format!("{} asks for a password; set `passwordFile` or `tokenEnv`", self.config.url)))
    }

    fn certificate(&self, cert: &Cert<'_>) -> Result<CertificateCheckStatus, GitError> {
        let Some(key) = cert.as_hostkey() else {
            // https: libgit2 has checked the chain and the name, and its word counts. Answering "ok" here would overrule it.
            return Ok(CertificateCheckStatus::CertificatePassthrough);
        };
        let Kind::Ssh { host, port, .. } = self.config.url.kind() else {
            return Err(GitError::new(RetryClass::Stalled, "a host key outside ssh"));
        };
        let key = key.hostkey().ok_or_else(|| GitError::new(RetryClass::Stalled, format!("{host} shows no host key")))?;
        let (files, text) = self.known_hosts()?;
        let kind = known_hosts::key_type(key).unwrap_or("unknown");
        let why = match known_hosts::verdict(&text, host, *port, key) {
            Verdict::Known => return Ok(CertificateCheckStatus::CertificateOk),
            Verdict::Unknown => {
                format!("is not in {files}. Compare its key with one that you trust, then add it: ssh-keyscan -p {port} {host}")
            }
            Verdict::Changed => {
                format!(
                    "shows a {kind} key other than the one in {files}. Someone may be in between, or the host was set up anew: find out which"
                )
            }
            Verdict::Revoked => format!("shows a key that {files} marks as revoked"),
            Verdict::OtherTypes(types) => {
                let types = types.join(", ");
                format!("shows a {kind} key, and {files} has only {types}. Add the missing one: ssh-keyscan -t {kind} -p {port} {host}")
            }
        };
        Err(GitError::new(RetryClass::Stalled, format!("the ssh host {host} (port {port}) {why}")))
    }

    fn known_hosts(&self) -> Result<(String, String), GitError> {
        if let Some(file) = &self.config.known_hosts {
            let text = std::fs::read_to_string(file)
                .map_err(|source| GitError::caused(RetryClass::Stalled, format!("can't read knownHosts {}", file.display()), source))?;
            return Ok((file.display().to_string(), text));
        }
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"));
        let files: Vec<PathBuf> = home.into_iter().chain(["/etc/ssh/ssh_known_hosts".into()]).collect();
        // Either may be missing; a host that is in none is refused.
        let text = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n");
        Ok((files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" or "), text))
    }
}

fn readable(key: &std::path::Path) -> Result<&std::path::Path, GitError> {
    let opened = std::fs::File::open(key);
    opened.map(|_| key).map_err(|source| GitError::caused(RetryClass::Stalled, format!("can't read sshKey {}", key.display()), source))
}
