//! Tokens that are derived, not stored: HMAC-SHA256 (RFC 2104) of an attempt's id under a key of our own.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};

use crate::model::AttemptId;

/// Derives and checks tokens. Prints nothing of its key.
pub struct Tokens {
    key: hmac::Key,
}

impl Tokens {
    /// Tokens under a known key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Tokens under the key in `path`, which is made if it is not there (mode 0600).
    ///
    /// # Errors
    /// The file can't be read or written, is not 32 bytes, or others may read it.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::File::open(path) {
            Ok(mut file) => {
                if file.metadata()?.permissions().mode() & 0o077 != 0 {
                    return Err(io::Error::other("others than its owner may read it: chmod 600"));
                }
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                let key: [u8; 32] = bytes.try_into().map_err(|_| io::Error::other("it is not 32 bytes"))?;
                Ok(Self::new(&key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("no randomness from the system"))?;
                write_private(path, &key)?;
                Ok(Self::new(&key))
            }
            Err(error) => Err(error),
        }
    }

    /// The token that an attempt's agent proves itself with: 64 hexadecimal digits.
    pub fn agent(&self, attempt: &AttemptId) -> String {
        self.derive("agent", attempt)
    }

    /// The token in an attempt's call-home URL: 64 hexadecimal digits.
    pub fn call_home(&self, attempt: &AttemptId) -> String {
        self.derive("callhome", attempt)
    }

    /// The token in the URL at which an attempt's system publishes values: 64 hexadecimal digits. It never goes over plain HTTP.
    pub fn handoff(&self, attempt: &AttemptId) -> String {
        self.derive("handoff", attempt)
    }

    /// Whether `token` is the agent token of `attempt`; takes the same time for any wrong one.
    pub fn is_agent(&self, attempt: &AttemptId, token: &str) -> bool {
        self.verify("agent", attempt, token)
    }

    /// Whether `token` is the call-home token of `attempt`; takes the same time for any wrong one.
    pub fn is_call_home(&self, attempt: &AttemptId, token: &str) -> bool {
        self.verify("callhome", attempt, token)
    }

    /// Whether `token` is the handoff token of `attempt`; takes the same time for any wrong one.
    pub fn is_handoff(&self, attempt: &AttemptId, token: &str) -> bool {
        self.verify("handoff", attempt, token)
    }

    fn derive(&self, purpose: &str, attempt: &AttemptId) -> String {
        hex::encode(hmac::sign(&self.key, format!("{purpose}\0{attempt}").as_bytes()))
    }

    fn verify(&self, purpose: &str, attempt: &AttemptId, token: &str) -> bool {
        let Ok(tag) = hex::decode(token) else { return false };
        hmac::verify(&self.key, format!("{purpose}\0{attempt}").as_bytes(), &tag).is_ok()
    }
}

/// Writes a file that only its owner may read, whole or not at all, and durable.
///
/// # Errors
/// What the file system says.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(text: &str) -> AttemptId {
        text.parse().unwrap()
    }

    #[test]
    fn tokens_do_not_change_between_releases() {
        // Do not change these values: running agents and installed systems hold such tokens.
        let tokens = Tokens::new(&[7; 32]);
        let expected = |text: &[u8]| hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), text));
        assert_eq!(tokens.agent(&attempt("web-01#3")), expected(b"agent\0web-01#3"));
        assert_eq!(tokens.call_home(&attempt("web-01#3")), expected(b"callhome\0web-01#3"));
        assert_eq!(tokens.handoff(&attempt("web-01#3")), expected(b"handoff\0web-01#3"));
    }

    #[test]
    fn a_token_is_good_for_one_attempt_and_one_purpose() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.agent(&attempt("web-01#3"));
        assert_eq!(token.len(), 64);
        assert!(tokens.is_agent(&attempt("web-01#3"), &token));
        assert!(!tokens.is_agent(&attempt("web-01#4"), &token));
        assert!(!tokens.is_call_home(&attempt("web-01#3"), &token));
        for wrong in ["", "zz", &token[..62], &format!("{token}00")] {
            assert!(!tokens.is_agent(&attempt("web-01#3"), wrong));
        }
    }

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot.key");
        let token = Tokens::open(&path).unwrap().agent(&attempt("web-01#3"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Tokens::open(&path).unwrap().agent(&attempt("web-01#3")), token);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Tokens::open(&path).is_err());
    }
}
