//! Public keys of OpenPGP and what they sign (RFC 9580, sections 5.2 and 5.5). Version 4, as GnuPG writes it.

use ring::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    signature::{self, RsaPublicKeyComponents, UnparsedPublicKey},
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::packet::{number, subpackets, uint16};
use crate::trust::bytes::{Reader, widened};

const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// A primary key or a subkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    /// Its body, of which signatures over it are made.
    pub(super) body: Vec<u8>,
    /// When it was made, in seconds since 1970.
    pub(super) created: i64,
    pub(super) fingerprint: [u8; 20],
    /// `None`: it is of no use here, for example because it only encrypts.
    material: Option<Material>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.byte()? != 4 {
            return None;
        }
        let created = i64::from(reader.uint32()?);
        let algorithm = reader.byte()?;
        let length = u16::try_from(body.len()).ok()?;
        let hashed = [&[0x99][..], &length.to_be_bytes(), body].concat();
        // SHA-1 names a key of version 4 and proves nothing: whether two keys are the same is told by their bytes.
        let fingerprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref().try_into().ok()?;
        Some(Self { body: body.to_vec(), created, fingerprint, material: material(algorithm, reader) })
    }

    /// As signatures over it have it.
    pub(super) fn hashed(&self) -> Vec<u8> {
        let length = u16::try_from(self.body.len()).unwrap_or(u16::MAX);
        [&[0x99][..], &length.to_be_bytes(), &self.body].concat()
    }

    pub(super) fn can_sign(&self) -> bool {
        self.material.is_some()
    }

    /// Whether `signature` is by this key, over `data` and what the signature says of itself.
    pub(super) fn verifies(&self, signature: &Signature, data: &[u8]) -> bool {
        let length = u32::try_from(signature.hashed.len()).unwrap_or(u32::MAX);
        let message = [data, &signature.hashed, &[4, 0xff], &length.to_be_bytes()].concat();
        self.material.as_ref().is_some_and(|material| verifies(material, signature, &message).is_some())
    }
}

fn material(algorithm: u8, mut reader: Reader<'_>) -> Option<Material> {
    let found = match algorithm {
        1 | 3 => {
            let (n, e) = (number(&mut reader)?.to_vec(), number(&mut reader)?.to_vec());
            // What is shorter can be broken; what is longer takes too long.
            (256..=1024).contains(&n.len()).then_some(Material::Rsa { n, e })?
        }
        19 | 22 => {
            let length = usize::from(reader.byte()?);
            let curve = reader.take(length)?;
            let point = number(&mut reader)?;
            match (algorithm, curve, point.split_first()?) {
                (19, P256, (4, rest)) if rest.len() == 64 => Material::P256(point.to_vec()),
                (19, P384, (4, rest)) if rest.len() == 96 => Material::P384(point.to_vec()),
                (22, ED25519, (0x40, rest)) if rest.len() == 32 => Material::Ed25519(rest.to_vec()),
                _ => return None,
            }
        }
        27 => Material::Ed25519(reader.take(32)?.to_vec()),
        _ => return None,
    };
    reader.end()?;
    Some(found)
}

/// Hashes that still prove something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// A signature of version 4.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    pub(super) kind: u8,
    /// `None`: one that proves nothing any more, such as SHA-1.
    pub(super) hash: Option<Hash>,
    /// What it says of itself and signs.
    hashed: Vec<u8>,
    algorithm: u8,
    numbers: Vec<u8>,
    /// When it was made, in seconds since 1970.
    pub(super) created: i64,
    /// Seconds from its making until it expires.
    pub(super) lasts: Option<i64>,
    /// Seconds from a key's making until that expires.
    pub(super) key_lasts: Option<i64>,
    /// What a key is for.
    pub(super) flags: Option<u8>,
    /// The end of the fingerprint of the key that it says it is by: a hint, never proof.
    pub(super) issuer: Option<[u8; 8]>,
    /// A signature in it, by the subkey that it binds.
    pub(super) back: Option<Vec<u8>>,
    /// Whether it has a part in it that must be understood, and is not.
    pub(super) strange: bool,
}

impl Signature {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.byte()? != 4 {
            return None;
        }
        let (kind, algorithm, hash) = (reader.byte()?, reader.byte()?, reader.byte()?);
        let length = usize::from(uint16(&mut reader)?);
        let own = reader.take(length)?;
        let length = usize::from(uint16(&mut reader)?);
        let others = reader.take(length)?;
        // The first bytes of the digest, for whoever is in a hurry.
        reader.take(2)?;
        let hash = match hash {
            8 => Some(Hash::Sha256),
            9 => Some(Hash::Sha384),
            10 => Some(Hash::Sha512),
            _ => None,
        };
        let mut read = Self {
            kind,
            hash,
            hashed: body[..6 + own.len()].to_vec(),
            algorithm,
            numbers: reader.0.to_vec(),
            created: i64::MAX,
            lasts: None,
            key_lasts: None,
            flags: None,
            issuer: None,
            back: None,
            strange: false,
        };
        for (kind, critical, body) in subpackets(own)? {
            read.take_in(kind, critical, body)?;
        }
        // What is not signed is read only for what is a hint, or proves itself.
        for (kind, _, body) in subpackets(others)?.into_iter().filter(|(kind, ..)| matches!(kind, 16 | 32 | 33)) {
            read.take_in(kind, false, body)?;
        }
        Some(read)
    }

    fn take_in(&mut self, kind: u8, critical: bool, body: &[u8]) -> Option<()> {
        let seconds = || body.try_into().ok().map(|bytes| i64::from(u32::from_be_bytes(bytes)));
        match kind {
            2 => self.created = seconds()?,
            3 => self.lasts = seconds().map(|lasts| (lasts > 0).then_some(lasts))?,
            9 => self.key_lasts = seconds().map(|lasts| (lasts > 0).then_some(lasts))?,
            16 => self.issuer = Some(body.try_into().ok()?),
            27 => self.flags = Some(body.first().copied().unwrap_or(0)),
            32 => self.back = Some(body.to_vec()),
            33 if body.len() == 21 && body[0] == 4 => self.issuer = body[13..].try_into().ok(),
            // Preferences, notations that are not critical, and who it was for, change nothing here.
            _ => self.strange |= critical && !matches!(kind, 4..=7 | 10..=12 | 21..=26 | 28..=31 | 33 | 34),
        }
        Some(())
    }
}

fn verifies(material: &Material, signature: &Signature, message: &[u8]) -> Option<()> {
    let mut reader = Reader(&signature.numbers);
    let hash = signature.hash?;
    match (material, signature.algorithm) {
        (Material::Rsa { n, e }, 1 | 3) => {
            let number = number(&mut reader)?;
            reader.end()?;
            let parameters = match hash {
                Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            };
            RsaPublicKeyComponents { n, e }.verify(parameters, message, &widened(number, n.len())?).ok()
        }
        (Material::P256(point), 19) if hash == Hash::Sha256 => {
            check(&signature::ECDSA_P256_SHA256_FIXED, point, message, &two(reader, 32)?)
        }
        (Material::P384(point), 19) if hash == Hash::Sha384 => {
            check(&signature::ECDSA_P384_SHA384_FIXED, point, message, &two(reader, 48)?)
        }
        (Material::Ed25519(key), 22) => check(&signature::ED25519, key, &digest_of(hash, message), &two(reader, 32)?),
        (Material::Ed25519(key), 27) => {
            let bytes = reader.take(64)?;
            reader.end()?;
            check(&signature::ED25519, key, &digest_of(hash, message), bytes)
        }
        _ => None,
    }
}

fn check(algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).ok()
}

fn two(mut reader: Reader<'_>, width: usize) -> Option<Vec<u8>> {
    let (r, s) = (number(&mut reader)?, number(&mut reader)?);
    reader.end()?;
    Some([widened(r, width)?, widened(s, width)?].concat())
}

/// EdDSA signs the digest as its message.
fn digest_of(hash: Hash, message: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha256 => Sha256::digest(message).to_vec(),
        Hash::Sha384 => Sha384::digest(message).to_vec(),
        Hash::Sha512 => Sha512::digest(message).to_vec(),
    }
}
