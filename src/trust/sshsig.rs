//! Detached signatures of SSH (OpenSSH, PROTOCOL.sshsig).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256, Sha512};

use super::{
    bytes::{Reader, put},
    key::{BadKey, SshKey},
};

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";

/// The namespace in which Git signs commits and tags.
pub const GIT: &str = "git";

/// Why a signature is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// Not as ssh-keygen writes it.
    #[error("its signature is damaged: {0}")]
    Malformed(&'static str),
    /// Made for something else, such as a file.
    #[error("its signature was made for the namespace `{0}`, not for `git`")]
    Namespace(String),
    /// The key in it can't be used.
    #[error("its signature is by a key that can't be used: {0}")]
    Key(#[from] BadKey),
    /// It is not of this commit.
    #[error("its signature does not fit what the commit says: one of them was changed, or the signature is another commit's")]
    Wrong(String),
}

/// A signature that was read, and not yet verified.
#[derive(Debug)]
pub struct SshSignature {
    key: SshKey,
    reserved: Vec<u8>,
    hash: Hash,
    signature: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Hash {
    Sha256,
    Sha512,
}

impl SshSignature {
    /// Reads the armored form, for namespace `git`.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn parse(armored: &[u8]) -> Result<Self, BadSignature> {
        let text = std::str::from_utf8(armored).map_err(|_| BadSignature::Malformed("it is not text"))?;
        let body = text.trim_end().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let body = body.ok_or(BadSignature::Malformed("it does not begin and end as one of ssh-keygen does"))?;
        let base64: String = body.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        let bytes = STANDARD.decode(base64).map_err(|_| BadSignature::Malformed("it is not base64"))?;
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadSignature> {
        let cut = || BadSignature::Malformed("it ends too early, or too late");
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len()) != Some(MAGIC) {
            return Err(BadSignature::Malformed("it has no SSHSIG in front"));
        }
        if reader.uint32() != Some(1) {
            return Err(BadSignature::Malformed("it is not of version 1"));
        }
        let key = reader.string().ok_or_else(cut)?;
        let namespace = reader.string().ok_or_else(cut)?;
        let reserved = reader.string().ok_or_else(cut)?.to_vec();
        let hash = match reader.string().ok_or_else(cut)? {
            b"sha256" => Hash::Sha256,
            b"sha512" => Hash::Sha512,
            _ => return Err(BadSignature::Malformed("its hash is neither sha256 nor sha512")),
        };
        let signature = reader.string().ok_or_else(cut)?.to_vec();
        reader.end().ok_or_else(cut)?;
        if namespace != GIT.as_bytes() {
            let shown: String = String::from_utf8_lossy(namespace).chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(BadSignature::Namespace(shown));
        }
        Ok(Self { key: SshKey::from_blob(key)?, reserved, hash, signature })
    }

    /// The key that made it, if it verifies: it is as good as whoever sent it until then.
    ///
    /// # Errors
    /// [`BadSignature::Wrong`].
    pub fn verify(self, payload: &[u8]) -> Result<SshKey, BadSignature> {
        let (name, digest) = match self.hash {
            Hash::Sha256 => ("sha256", Sha256::digest(payload).to_vec()),
            Hash::Sha512 => ("sha512", Sha512::digest(payload).to_vec()),
        };
        let mut signed = MAGIC.to_vec();
        for part in [GIT.as_bytes(), &self.reserved, name.as_bytes(), &digest] {
            put(&mut signed, part);
        }
        if self.key.verifies(&self.signature, &signed) { Ok(self.key) } else { Err(BadSignature::Wrong(self.key.fingerprint())) }
    }
}
