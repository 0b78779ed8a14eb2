//! What a fleet says about who may sign its commits. Names files of the repository; `trust` reads them.

use serde::{Deserialize, Serialize};

/// Who may sign commits: the Fleet's `signatures`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signatures {
    /// The file that states it, inside the repository.
    pub stated_in: String,
    /// Path of the file of allowed signers, in OpenSSH's format.
    pub allowed_signers: Option<String>,
    /// Path of the list of revoked keys.
    pub revoked_keys: Option<String>,
    /// Paths of OpenPGP public keys.
    pub openpgp_keys: Vec<String>,
    /// Principals whose signature is good for merges that anybody could make alike, and for nothing else.
    pub merge_only: Vec<String>,
    /// Who must sign what changes these paths.
    pub paths: Vec<PathRule>,
}

impl Signatures {
    /// The files that say whose signature counts.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let keys = self.allowed_signers.iter().chain(&self.revoked_keys).chain(&self.openpgp_keys);
        keys.map(String::as_str)
    }
}

/// Who must sign a commit that changes some paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRule {
    /// The paths, with `*` and `**`.
    pub paths: Vec<String>,
    /// Patterns of principals.
    pub signers: Vec<String>,
}

/// Whose signature a commit was found to carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Names of the signer, as the file of allowed signers has them.
    pub principals: Vec<String>,
    /// The key's fingerprint.
    pub key: String,
}

impl Signer {
    /// The first of its names.
    pub fn name(&self) -> &str {
        self.principals.first().map_or(self.key.as_str(), String::as_str)
    }
}
