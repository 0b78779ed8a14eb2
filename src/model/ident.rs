//! Identifiers that hardware, Git and hashes give to things.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Why a text is not the identifier that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct BadIdent {
    /// What was wanted, with an example.
    pub what: &'static str,
    /// The text as it was written.
    pub text: String,
}

macro_rules! text_serde {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = BadIdent;
            fn try_from(text: String) -> Result<Self, BadIdent> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

/// An Ethernet hardware address (EUI-48). Reads `aa:bb:…`, `aa-bb-…` and `aabb.ccdd.eeff`; prints lower-case with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = BadIdent;
    fn from_str(text: &str) -> Result<Self, BadIdent> {
        let bad = || BadIdent { what: "a MAC address such as \"52:54:00:12:34:56\"", text: text.to_owned() };
        let (separator, group) = if text.contains('.') {
            ('.', 4)
        } else if text.contains('-') {
            ('-', 2)
        } else {
            (':', 2)
        };
        let groups: Vec<&str> = text.split(separator).collect();
        if groups.len() != 12 / group || groups.iter().any(|g| g.len() != group) {
            return Err(bad());
        }
        let bytes = hex::decode(groups.concat()).map_err(|_| bad())?;
        bytes.try_into().map(Mac).map_err(|_| bad())
    }
}

text_serde!(Mac);

/// A SHA-256 digest, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first twelve hexadecimal digits: enough for people, never for a decision.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl FromStr for Digest {
    type Err = BadIdent;
    fn from_str(text: &str) -> Result<Self, BadIdent> {
        let bad = || BadIdent { what: "a digest: \"sha256:\" and 64 hexadecimal digits", text: text.to_owned() };
        let digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
        let bytes = hex::decode(digits).map_err(|_| bad())?;
        bytes.try_into().map(Digest).map_err(|_| bad())
    }
}

text_serde!(Digest);

/// The SHA-256 fingerprint of a TLS certificate (its DER bytes). Reads `sha256:HEX`, bare `HEX`, and `AA:BB:…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = BadIdent;
    fn from_str(text: &str) -> Result<Self, BadIdent> {
        let bad = || BadIdent { what: "a certificate fingerprint: \"sha256:\" and 64 hexadecimal digits", text: text.to_owned() };
        let digits = text.strip_prefix("sha256:").unwrap_or(text).replace(':', "");
        let bytes = hex::decode(digits).map_err(|_| bad())?;
        bytes.try_into().map(Fingerprint).map_err(|_| bad())
    }
}

text_serde!(Fingerprint);

/// The UUID that AMI's firmware has when the board's maker set none (HARDWARE, PXE row 31).
const UNSET: [u8; 16] = [3, 0, 2, 0, 4, 0, 5, 0, 0, 6, 0, 7, 0, 8, 0, 9];

/// Whether two SMBIOS UUIDs are one: equal, or equal after the first three fields of one are read in the other byte order. SMBIOS before
/// 2.6 did not say that they are little-endian, so BMC, firmware and operating system often disagree (DSP0134 3.6, section 7.2.1).
///
/// A placeholder is the same as nothing, itself included. A text that is no UUID is compared as text.
pub fn same_uuid(one: &str, other: &str) -> bool {
    if is_placeholder_uuid(one) || is_placeholder_uuid(other) {
        return false;
    }
    match (uuid_bytes(one), uuid_bytes(other)) {
        (Some(one), Some(other)) => one == other || one == other_byte_order(other),
        _ => one.trim().eq_ignore_ascii_case(other.trim()),
    }
}

/// Whether a UUID says nothing: empty, one byte repeated (SMBIOS reserves all zeros and all ones, DSP0134 3.6 section 7.2.1), or what
/// firmware shows when nobody set one.
pub fn is_placeholder_uuid(text: &str) -> bool {
    match uuid_bytes(text) {
        Some(bytes) => bytes.iter().all(|byte| *byte == bytes[0]) || bytes == UNSET || bytes == other_byte_order(UNSET),
        None => text.trim().is_empty(),
    }
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    hex::decode(text.trim().replace('-', "")).ok()?.try_into().ok()
}

fn other_byte_order(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// The id of a Git commit: 40 hexadecimal digits (SHA-1 repositories).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(pub [u8; 20]);

impl CommitId {
    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for CommitId {
    type Err = BadIdent;
    fn from_str(text: &str) -> Result<Self, BadIdent> {
        let bad = || BadIdent { what: "a commit id of 40 hexadecimal digits", text: text.to_owned() };
        let bytes = hex::decode(text).map_err(|_| bad())?;
        bytes.try_into().map(CommitId).map_err(|_| bad())
    }
}

text_serde!(CommitId);

/// What a disk should hold, as one hash: image digest, baked configuration, `rebuild` counter; or that it is wiped, and how.
///
/// Versioned (`g1:`, of a wipe `w1:`), so that a new release can hash differently without calling old disks different (law 11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Generation {
    wipe: bool,
    hash: [u8; 16],
}

impl Generation {
    /// Hashes what the user wrote that ends on the disk. Each part is preceded by its length, so that no two inputs collide
    /// by running into each other.
    pub fn of(image: Digest, configuration: Option<&str>, rebuild: u64) -> Self {
        let mut hash = Sha256::new();
        let configuration = configuration.map(str::as_bytes);
        hash.update(b"rackwright generation 1\0");
        hash.update(image.0);
        hash.update([u8::from(configuration.is_some())]);
        hash.update((configuration.map_or(0, <[u8]>::len) as u64).to_be_bytes());
        hash.update(configuration.unwrap_or_default());
        hash.update(rebuild.to_be_bytes());
        Self { wipe: false, hash: half(hash) }
    }

    /// The same for a wipe: its method, its disks in a form that is theirs alone, and the `rebuild` counter.
    pub fn of_wipe(method: &str, disks: &[u8], rebuild: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"rackwright wipe 1\0");
        for part in [method.as_bytes(), disks] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(rebuild.to_be_bytes());
        Self { wipe: true, hash: half(hash) }
    }

    /// Whether it says that disks are wiped, and not what they hold.
    pub fn is_wipe(&self) -> bool {
        self.wipe
    }

    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.hash[..4])
    }
}

fn half(hash: Sha256) -> [u8; 16] {
    let full: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&full[..16]);
    half
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.wipe { "w1" } else { "g1" }, hex::encode(self.hash))
    }
}

impl FromStr for Generation {
    type Err = BadIdent;
    fn from_str(text: &str) -> Result<Self, BadIdent> {
        let bad = || BadIdent { what: "a generation: \"g1:\" or \"w1:\" and 32 hexadecimal digits", text: text.to_owned() };
        let (kind, digits) = text.split_once(':').filter(|(kind, _)| matches!(*kind, "g1" | "w1")).ok_or_else(bad)?;
        let bytes = hex::decode(digits).map_err(|_| bad())?;
        bytes.try_into().map(|hash| Generation { wipe: kind == "w1", hash }).map_err(|_| bad())
    }
}

text_serde!(Generation);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_in_each_common_form_and_printed_in_one() {
        for text in ["52:54:00:12:34:56", "52-54-00-12-34-56", "5254.0012.3456", "52:54:00:12:34:56"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "52:54:00:12:34:56");
        }
        for text in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "5:254:00:12:34:56", "zz:54:00:12:34:56"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_generation_does_not_change_between_releases() {
        // Do not change these values: machines in the field were installed under them (law 11).
        let image = Digest::of(b"image");
        assert_eq!(Generation::of(image, None, 0).to_string(), "g1:e575e3261827e70cfb57f66e30185a81");
        assert_eq!(Generation::of(image, Some("#cloud-config\n"), 3).to_string(), "g1:aca43f5f663afa011e630fe1de97c224");
    }

    #[test]
    fn a_generation_depends_on_each_of_its_inputs() {
        let image = Digest::of(b"image");
        let base = Generation::of(image, Some("a"), 0);
        assert_ne!(base, Generation::of(Digest::of(b"other"), Some("a"), 0));
        assert_ne!(base, Generation::of(image, Some("b"), 0));
        assert_ne!(base, Generation::of(image, Some("a"), 1));
        assert_ne!(Generation::of(image, None, 0), Generation::of(image, Some(""), 0));
    }

    #[test]
    fn a_uuid_is_the_same_in_either_byte_order() {
        let declared = "00112233-4455-6677-8899-aabbccddeeff";
        assert!(same_uuid(declared, " 00112233-4455-6677-8899-AABBCCDDEEFF\n"));
        assert!(same_uuid(declared, "33221100-5544-7766-8899-aabbccddeeff"));
        assert!(same_uuid("33221100-5544-7766-8899-aabbccddeeff", declared));
        assert!(!same_uuid(declared, "33221100-5544-7766-9988-aabbccddeeff"));
        assert!(!same_uuid(declared, ""));
        assert!(same_uuid("not a UUID", "Not a uuid"));
    }

    #[test]
    fn a_placeholder_is_the_uuid_of_no_machine() {
        for text in [
            "",
            " ",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "fefefefe-fefe-fefe-fefe-fefefefefefe",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
        ] {
            assert!(is_placeholder_uuid(text) && !same_uuid(text, text), "{text}");
        }
        assert!(!is_placeholder_uuid("4c4c4544-0035-3410-8050-c6c04f314733"));
    }
}
