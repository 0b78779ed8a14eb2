//! Public keys of SSH, and what they prove.

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};

use super::bytes::{Reader, widened};

/// Bits of an RSA key: below, it can be broken; above, one verification takes so long that a thousand would hold the controller.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The flag of a security key that says that somebody touched it (FIDO2, authenticator data).
const TOUCHED: u8 = 1;

/// A public key, as it stands on the wire (RFC 4253, section 6.6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SshKey {
    blob: Vec<u8>,
}

impl std::fmt::Debug for SshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// Why a key can't be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The bytes are no key.
    #[error("this is not a public key of SSH")]
    NotAKey,
    /// The word in front of it names another type.
    #[error("the key says that it is `{0}`, and the word in front of it says something else")]
    Mismatch(String),
    /// A type that this release can't verify.
    #[error("signatures by keys of type `{0}` can't be verified")]
    Unsupported(String),
    /// A certificate.
    #[error("this is a certificate, and certificates are not supported")]
    Certificate,
    /// Too short, or so long that it costs too much.
    #[error("an RSA key must have 2048 to 8192 bits, and this one has {0}")]
    RsaBits(usize),
}

enum Kind<'a> {
    Ed25519(&'a [u8]),
    Ecdsa { curve: Curve, point: &'a [u8] },
    Rsa { n: &'a [u8], e: &'a [u8] },
    SkEd25519 { key: &'a [u8], application: &'a [u8] },
    SkEcdsa { point: &'a [u8], application: &'a [u8] },
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

impl SshKey {
    /// Reads the bytes on the wire.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn from_blob(blob: &[u8]) -> Result<Self, BadKey> {
        kind(blob)?;
        Ok(Self { blob: blob.to_vec() })
    }

    /// Reads `type base64`, as in a `.pub` file.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn parse(kind: &str, base64: &str) -> Result<Self, BadKey> {
        let blob = STANDARD.decode(base64).map_err(|_| BadKey::NotAKey)?;
        let key = Self::from_blob(&blob)?;
        let own = key.kind_name();
        if own == kind { Ok(key) } else { Err(BadKey::Mismatch(own)) }
    }

    /// The name of its type, such as `ssh-ed25519`.
    pub fn kind_name(&self) -> String {
        String::from_utf8_lossy(Reader(&self.blob).string().unwrap_or_default()).into_owned()
    }

    /// `SHA256:` and its digest, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }

    /// Whether `signature` (on the wire: type, bytes, and what a security key adds) is of `message` by this key.
    pub(super) fn verifies(&self, signature: &[u8], message: &[u8]) -> bool {
        let Ok(kind) = kind(&self.blob) else { return false };
        verifies(&kind, signature, message).is_some()
    }
}

fn kind(blob: &[u8]) -> Result<Kind<'_>, BadKey> {
    let mut reader = Reader(blob);
    let name = reader.string().ok_or(BadKey::NotAKey)?;
    let name = std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic())).ok_or(BadKey::NotAKey)?;
    if name.contains("-cert-v0") {
        return Err(BadKey::Certificate);
    }
    let mut read = || -> Option<Option<Kind<'_>>> {
        let kind = match name {
            "ssh-ed25519" => Kind::Ed25519(reader.string().filter(|key| key.len() == 32)?),
            "ecdsa-sha2-nistp256" => Kind::Ecdsa { curve: Curve::P256, point: point(&mut reader, b"nistp256", 65)? },
            "ecdsa-sha2-nistp384" => Kind::Ecdsa { curve: Curve::P384, point: point(&mut reader, b"nistp384", 97)? },
            "ssh-rsa" => {
                let (e, n) = (reader.number()?, reader.number()?);
                Kind::Rsa { n, e }
            }
            "sk-ssh-ed25519@openssh.com" => {
                let key = reader.string().filter(|key| key.len() == 32)?;
                Kind::SkEd25519 { key, application: reader.string()? }
            }
            "sk-ecdsa-sha2-nistp256@openssh.com" => {
                let point = point(&mut reader, b"nistp256", 65)?;
                Kind::SkEcdsa { point, application: reader.string()? }
            }
            _ => return Some(None),
        };
        reader.end()?;
        Some(Some(kind))
    };
    match read() {
        None => Err(BadKey::NotAKey),
        Some(None) => Err(BadKey::Unsupported(name.to_owned())),
        Some(Some(Kind::Rsa { n, .. })) if !RSA_BITS.contains(&bits(n)) => Err(BadKey::RsaBits(bits(n))),
        Some(Some(kind)) => Ok(kind),
    }
}

fn point<'a>(reader: &mut Reader<'a>, curve: &[u8], length: usize) -> Option<&'a [u8]> {
    let named = reader.string()?;
    // 4: both coordinates are there (SEC 1, section 2.3.3).
    reader.string().filter(|point| named == curve && point.len() == length && point[0] == 4)
}

fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn verifies(kind: &Kind<'_>, signature: &[u8], message: &[u8]) -> Option<()> {
    let mut reader = Reader(signature);
    let (algorithm, bytes) = (reader.string()?, reader.string()?);
    match kind {
        Kind::Ed25519(key) if algorithm == b"ssh-ed25519" => {
            reader.end()?;
            check(&signature::ED25519, key, message, bytes)
        }
        Kind::Ecdsa { curve: Curve::P256, point } if algorithm == b"ecdsa-sha2-nistp256" => {
            reader.end()?;
            check(&signature::ECDSA_P256_SHA256_FIXED, point, message, &fixed(bytes, 32)?)
        }
        Kind::Ecdsa { curve: Curve::P384, point } if algorithm == b"ecdsa-sha2-nistp384" => {
            reader.end()?;
            check(&signature::ECDSA_P384_SHA384_FIXED, point, message, &fixed(bytes, 48)?)
        }
        Kind::Rsa { n, e } => {
            reader.end()?;
            // `ssh-rsa` as the type of a signature means SHA-1, which proves nothing any more.
            let parameters = match algorithm {
                b"rsa-sha2-256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                b"rsa-sha2-512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                _ => return None,
            };
            RsaPublicKeyComponents { n, e }.verify(parameters, message, &widened(bytes, n.len())?).ok()
        }
        Kind::SkEd25519 { key, application } if algorithm == b"sk-ssh-ed25519@openssh.com" => {
            let told = told(reader, application, message)?;
            check(&signature::ED25519, key, &told, bytes)
        }
        Kind::SkEcdsa { point, application } if algorithm == b"sk-ecdsa-sha2-nistp256@openssh.com" => {
            let told = told(reader, application, message)?;
            check(&signature::ECDSA_P256_SHA256_FIXED, point, &told, &fixed(bytes, 32)?)
        }
        _ => None,
    }
}

fn check(algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).ok()
}

/// The two numbers of an ECDSA signature (RFC 5656, section 3.1.2), side by side.
fn fixed(bytes: &[u8], width: usize) -> Option<Vec<u8>> {
    let mut reader = Reader(bytes);
    let (r, s) = (reader.number()?, reader.number()?);
    reader.end()?;
    Some([widened(r, width)?, widened(s, width)?].concat())
}

/// What a security key signs instead of the message (OpenSSH, PROTOCOL.u2f, "SSH U2F Signatures"). It must have been touched.
fn told(mut rest: Reader<'_>, application: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let (flags, counter) = (rest.byte()?, rest.take(4)?);
    rest.end()?;
    let touched = flags & TOUCHED != 0;
    touched.then(|| [Sha256::digest(application).as_slice(), &[flags], counter, Sha256::digest(message).as_slice()].concat())
}
