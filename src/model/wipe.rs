//! Taking a machine out of service: what its manifest's `decommission` says, which disks that means, and what proves that it was done.
//!
//! A wipe is what disks *should hold*, as an install is: it has a [`Generation`] of its own, and it is an attempt with a ticket.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, DiskHint, Disks, Generation, ObservedDisk};

/// What a machine's manifest says under `decommission`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wipe {
    /// One hash over method, disks and `rebuild`.
    pub generation: Generation,
    /// How.
    pub method: WipeMethod,
    /// Which disks.
    pub disks: WipeDisks,
    /// The machine's `rebuild` counter: raising it wipes once more.
    pub rebuild: u64,
}

impl Wipe {
    /// A wipe with its generation.
    pub fn new(method: WipeMethod, disks: WipeDisks, rebuild: u64) -> Self {
        Self { generation: Generation::of_wipe(method.name(), &disks.canonical(), rebuild), method, disks, rebuild }
    }

    /// What the ticket of a machine with these disks says; `None` when the manifest does not name the disk that is meant.
    pub fn order(&self, disks: &Disks) -> Option<WipeOrder> {
        let stated = |hint: &DiskHint| *hint != DiskHint::default();
        let targets = match &self.disks {
            WipeDisks::All => Targets::All,
            WipeDisks::System => Targets::Each(vec![disks.system.clone()?]),
            WipeDisks::These(hints) => Targets::Each(hints.clone()),
        };
        let whole = match &targets {
            Targets::All => true,
            Targets::Each(hints) => !hints.is_empty() && hints.iter().all(stated),
        };
        whole.then_some(WipeOrder { generation: self.generation, method: self.method, targets })
    }
}

/// How a disk is wiped. docs/decommission.md says what each removes and what it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum WipeMethod {
    /// Partition tables and the signatures of file systems, RAID and LVM: nothing starts from it or is found on it. The data stays.
    Signatures,
    /// The disk is told that all its sectors are unused, and must then read as zero.
    Discard,
    /// The drive's own command: ATA SECURITY ERASE UNIT, or NVMe Format with secure erase. A drive that has none is not touched.
    SecureErase,
    /// Zeros over all that can be addressed, all of it read back.
    Zero,
}

impl WipeMethod {
    /// As a manifest writes it.
    pub fn name(self) -> &'static str {
        match self {
            WipeMethod::Signatures => "signatures",
            WipeMethod::Discard => "discard",
            WipeMethod::SecureErase => "secureErase",
            WipeMethod::Zero => "zero",
        }
    }
}

impl fmt::Display for WipeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which disks a manifest means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WipeDisks {
    /// The one that `disks.system` names.
    System,
    /// All that the agent sees, but those to keep.
    All,
    /// These, each of which must be exactly one disk.
    These(Vec<DiskHint>),
}

impl WipeDisks {
    /// As bytes that differ whenever the manifests differ: each part is preceded by its length.
    fn canonical(&self) -> Vec<u8> {
        let hints = match self {
            WipeDisks::System => return b"system".to_vec(),
            WipeDisks::All => return b"all".to_vec(),
            WipeDisks::These(hints) => hints,
        };
        let mut bytes = b"these".to_vec();
        for hint in hints {
            let texts = [&hint.serial, &hint.wwn, &hint.model, &hint.path].map(|text| text.as_deref().map(str::to_owned));
            let sizes = [hint.min_size, hint.max_size].map(|size| size.map(|size| size.to_string()));
            for part in texts.into_iter().chain(sizes) {
                bytes.push(u8::from(part.is_some()));
                let part = part.unwrap_or_default();
                bytes.extend((part.len() as u64).to_be_bytes());
                bytes.extend(part.as_bytes());
            }
        }
        bytes
    }

    /// For people, with the hints of `disks`.
    pub fn told(&self, disks: &Disks) -> String {
        let join = |hints: &[DiskHint], with: &str| hints.iter().map(ToString::to_string).collect::<Vec<_>>().join(with);
        match self {
            WipeDisks::System => match &disks.system {
                Some(hint) => format!("the disk with {hint}"),
                None => "no disk that is stated".to_owned(),
            },
            WipeDisks::These(hints) => format!("each disk with {}", join(hints, "; with ")),
            WipeDisks::All if disks.keep.is_empty() => "ALL disks".to_owned(),
            WipeDisks::All => format!("ALL disks but those with {}", join(&disks.keep, "; with ")),
        }
    }
}

/// What a ticket orders: a wipe with the hints of the disks that it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WipeOrder {
    /// What the disks are called once it is done.
    pub generation: Generation,
    /// How.
    pub method: WipeMethod,
    /// Which.
    pub targets: Targets,
}

/// The disks of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Targets {
    /// All but those to keep.
    All,
    /// Exactly one for each hint.
    Each(Vec<DiskHint>),
}

/// What was read of one disk after it was wiped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskProof {
    /// The disk.
    pub disk: ObservedDisk,
    /// What was done to it, such as `NVMe Format NVM, secure erase 1`.
    pub by: String,
    /// How many places were read.
    pub places: u64,
    /// Bytes that were read.
    pub read: u64,
    /// How many of these are zero.
    pub zero: u64,
    /// Places that hold the same as before, and not one byte repeated: what was not wiped.
    pub same: u64,
    /// Bytes that the disk has.
    pub size: u64,
    /// SHA-256 over all that was read, in order of place.
    pub digest: Digest,
}

impl DiskProof {
    /// What of it does not prove that `disk` was wiped by `method`. The boot server asks: an agent's word is not taken for it.
    pub fn gap(&self, disk: &ObservedDisk, method: WipeMethod) -> Option<&'static str> {
        let gaps = [
            (self.disk != *disk, "it is of another disk"),
            (disk.size.is_some_and(|size| size != self.size), "the disk has another size"),
            (self.places == 0 || self.read == 0, "nothing was read back"),
            (self.same > 0, "what was there before is there still"),
            (method == WipeMethod::Zero && self.read != self.size, "not all of it was read back"),
            (method != WipeMethod::SecureErase && self.zero != self.read, "it does not read as zero"),
        ];
        gaps.iter().find(|(open, _)| *open).map(|(_, gap)| *gap)
    }
}

impl fmt::Display for DiskProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disk, by, places, read, zero, size, digest, .. } = self;
        let serial = disk.serial.as_deref().unwrap_or("not reported");
        write!(f, "{} (serial {serial}): {by}; ", disk.name)?;
        if read == size {
            write!(f, "all {size} bytes were read back")?;
        } else {
            write!(f, "{read} of {size} bytes were read back at {places} places")?;
        }
        if zero == read {
            write!(f, ", all zero, ")?
        } else {
            write!(f, ", {zero} of them zero, none as before, ")?
        }
        write!(f, "digest {}", digest.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(text: &str) -> DiskHint {
        DiskHint { serial: Some(text.to_owned()), ..DiskHint::default() }
    }

    #[test]
    fn the_generation_of_a_wipe_does_not_change_between_releases() {
        // Do not change these values: machines in the field were wiped under them (law 11).
        let wipe = |method, disks, rebuild| Wipe::new(method, disks, rebuild).generation.to_string();
        assert_eq!(wipe(WipeMethod::Zero, WipeDisks::All, 0), "w1:2d1f440c5ee2791a359b799c5809a08d");
        assert_eq!(wipe(WipeMethod::Signatures, WipeDisks::System, 2), "w1:276dffe58ed346050849d8fd873fdaf3");
        assert_eq!(wipe(WipeMethod::Discard, WipeDisks::These(vec![serial("A"), serial("B")]), 0), "w1:e22ab1c97c036570f13706f5ea93b599");
    }

    #[test]
    fn the_generation_of_a_wipe_depends_on_each_of_its_inputs() {
        let model = DiskHint { model: Some("A".to_owned()), ..DiskHint::default() };
        let of = |method, disks: &WipeDisks, rebuild| Wipe::new(method, disks.clone(), rebuild).generation;
        let disks = [
            WipeDisks::System,
            WipeDisks::All,
            WipeDisks::These(vec![serial("A")]),
            WipeDisks::These(vec![model]),
            WipeDisks::These(vec![serial("A"), serial("B")]),
            WipeDisks::These(vec![serial("AB")]),
        ];
        let mut all = Vec::new();
        for method in [WipeMethod::Signatures, WipeMethod::Discard, WipeMethod::SecureErase, WipeMethod::Zero] {
            for disks in &disks {
                all.extend([of(method, disks, 0), of(method, disks, 1)]);
            }
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(Generation::is_wipe));
    }

    #[test]
    fn an_order_needs_the_disk_that_it_means() {
        let wipe = |disks| Wipe::new(WipeMethod::Zero, disks, 0);
        let none = Disks::default();
        let system = Disks { system: Some(serial("A")), keep: Vec::new() };
        assert_eq!(wipe(WipeDisks::System).order(&none), None);
        assert_eq!(wipe(WipeDisks::System).order(&system).unwrap().targets, Targets::Each(vec![serial("A")]));
        assert_eq!(wipe(WipeDisks::These(Vec::new())).order(&system), None);
        assert_eq!(wipe(WipeDisks::These(vec![serial("B"), DiskHint::default()])).order(&system), None, "a hint that says nothing");
        assert_eq!(wipe(WipeDisks::All).order(&none).unwrap().targets, Targets::All);
    }

    #[test]
    fn a_proof_with_a_gap_is_none() {
        let disk = ObservedDisk { name: "/dev/sda".to_owned(), size: Some(100), ..ObservedDisk::default() };
        let digest = Digest::of(b"");
        let whole = DiskProof { disk: disk.clone(), by: String::new(), places: 1, read: 100, zero: 100, same: 0, size: 100, digest };
        assert_eq!(whole.gap(&disk, WipeMethod::Zero), None);
        let gap = |change: fn(&mut DiskProof), method| {
            let mut proof = whole.clone();
            change(&mut proof);
            proof.gap(&disk, method).is_some()
        };
        for method in [WipeMethod::Signatures, WipeMethod::Discard, WipeMethod::SecureErase, WipeMethod::Zero] {
            assert!(gap(|proof| proof.disk.name = "/dev/sdb".to_owned(), method));
            assert!(gap(|proof| proof.size = 99, method));
            assert!(gap(|proof| (proof.read, proof.zero) = (0, 0), method));
            assert!(gap(|proof| proof.places = 0, method));
            assert!(gap(|proof| proof.same = 1, method));
            assert_eq!(gap(|proof| (proof.read, proof.zero) = (50, 50), method), method == WipeMethod::Zero);
            assert_eq!(gap(|proof| proof.zero = 99, method), method != WipeMethod::SecureErase);
        }
    }
}
