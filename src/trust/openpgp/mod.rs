//! OpenPGP, as far as commits need it: keys of version 4 as GnuPG makes them, and detached signatures by them.
//!
//! A key vouches for its own user IDs and subkeys; that it stands in the fleet repository is all the trust there is. Any revocation counts,
//! whatever time it names: what a thief signs can carry any time.

mod certificate;
mod key;
mod packet;

pub(super) use certificate::{Certificate, Found, certificates};

use super::sshsig::BadSignature;
use key::Signature;
use packet::{SIGNATURE, dearmor, packets};

/// A detached signature over a commit, read and not verified.
#[derive(Debug)]
pub(super) struct PgpSignature(Signature);

/// The type of a signature over bytes as they are.
const BINARY: u8 = 0;

impl PgpSignature {
    pub(super) fn parse(armored: &[u8]) -> Result<Self, BadSignature> {
        let malformed = |what| BadSignature::Malformed(what);
        let text = std::str::from_utf8(armored).map_err(|_| malformed("it is not text"))?;
        let blocks = dearmor(text, "SIGNATURE").ok_or(malformed("its armor is not as GnuPG writes it"))?;
        let [block] = blocks.as_slice() else { return Err(malformed("it is not one armored block")) };
        let packets = packets(block).ok_or(malformed("its packets end too early, or too late"))?;
        let [packet] = packets.as_slice() else { return Err(malformed("it is not one signature")) };
        if packet.tag != SIGNATURE {
            return Err(malformed("it is not one signature"));
        }
        let signature = Signature::parse(packet.body).ok_or(malformed("it is not of version 4"))?;
        if signature.kind != BINARY || signature.strange || signature.created == i64::MAX {
            return Err(malformed("it is not one that GnuPG makes of a commit"));
        }
        if signature.hash.is_none() {
            return Err(malformed("its hash is none of SHA-256, SHA-384 and SHA-512"));
        }
        Ok(Self(signature))
    }

    /// The key that it says it is by, as the end of a fingerprint.
    pub(super) fn claimed(&self) -> String {
        self.0.issuer.map_or_else(|| "that it does not name".to_owned(), hex::encode_upper)
    }
}
