//! What a manifest says about keeping a machine, beside what it should be: none of this ends on a disk.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{BadIdent, Digest, Install};

/// What a manifest says about keeping a machine. None of it is part of a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upkeep {
    /// What to do when only its configuration is another.
    #[serde(default)]
    pub on_config_change: OnConfigChange,
    /// Firmware versions that it should have, by the name that its BMC gives to them. Compared, never changed.
    #[serde(default)]
    pub firmware: BTreeMap<String, String>,
}

/// What to do when only the configuration that goes with the image is another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum OnConfigChange {
    /// It is baked into the disk, so the machine is installed anew.
    #[default]
    #[serde(alias = "reinstall")]
    Reinstall,
    /// The machine stays as it is, and the next install brings it: another image, a raised `rebuild`, or a failed install.
    #[serde(alias = "nextInstall")]
    NextInstall,
}

/// What of a generation counts where configuration alone does not: image digest and `rebuild` counter, as one hash.
///
/// Versioned (`b1:`) like [`super::Generation`], and for the same reason.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Basis(pub [u8; 16]);

impl Basis {
    /// Hashes image and counter. Both have a fixed length, so no two inputs run into each other.
    pub fn of(image: Digest, rebuild: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"rackwright basis 1\0");
        hash.update(image.0);
        hash.update(rebuild.to_be_bytes());
        let full: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&full[..16]);
        Self(half)
    }
}

impl Install {
    /// What of its generation counts where configuration alone does not.
    pub fn basis(&self) -> Basis {
        Basis::of(self.image.digest, self.rebuild)
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b1:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Basis {
    type Err = BadIdent;
    fn from_str(text: &str) -> Result<Self, BadIdent> {
        let bad = || BadIdent { what: "a basis: \"b1:\" and 32 hexadecimal digits", text: text.to_owned() };
        let digits = text.strip_prefix("b1:").ok_or_else(bad)?;
        let bytes = hex::decode(digits).map_err(|_| bad())?;
        bytes.try_into().map(Basis).map_err(|_| bad())
    }
}

impl TryFrom<String> for Basis {
    type Error = BadIdent;
    fn try_from(text: String) -> Result<Self, BadIdent> {
        text.parse()
    }
}

impl From<Basis> for String {
    fn from(value: Basis) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basis_does_not_change_between_releases() {
        // Do not change this value: journals hold it (law 11).
        let image = Digest::of(b"image");
        assert_eq!(Basis::of(image, 3).to_string(), "b1:ca12c4de83707fdbf5978244657f3485");
        assert_ne!(Basis::of(image, 3), Basis::of(image, 4));
        assert_ne!(Basis::of(image, 3), Basis::of(Digest::of(b"other"), 3));
        assert_eq!(Basis::of(image, 3).to_string().parse::<Basis>().unwrap(), Basis::of(image, 3));
        assert!("g1:e575e3261827e70cfb57f66e30185a81".parse::<Basis>().is_err());
    }
}
