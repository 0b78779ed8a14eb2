//! One machine as its manifest says it, resolved.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{
    Fingerprint, Gate, Generation, Handoffs, Install, Mac, MachineName, NetworkName, ProfileName, SecretName, SourceRef, Upkeep, Wipe, Work,
};

/// One machine, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: MachineName,
    /// Labels, for selectors and templates.
    pub labels: BTreeMap<String, String>,
    /// Where its manifest stands.
    pub source: SourceRef,
    /// What it must prove to be before anything disruptive (law 8).
    pub identity: Identity,
    /// Site, rack and slot.
    pub place: Place,
    /// How its BMC is reached.
    pub bmc: BmcTarget,
    /// Its network interfaces.
    pub nics: Vec<Nic>,
    /// Which disk may be written and which never.
    pub disks: Disks,
    /// The power state that it should have.
    pub power: PowerIntent,
    /// The profile that it follows, if any.
    pub profile: Option<ProfileName>,
    /// What its system disk should hold. `None`: Rackwright never installs this machine.
    pub install: Option<Install>,
    /// That it is to be wiped and switched off for good; then `install` is `None`, and `power` is Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decommission: Option<Wipe>,
    /// How it boots.
    pub boot: BootSettings,
    /// What to do when it is first seen.
    pub on_claim: OnClaim,
    /// True: observe only.
    pub suspend: bool,
    /// What has to hold after an install of it before it counts as healthy: the gates of its rollout, with what it states filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// How it is kept.
    #[serde(default)]
    pub upkeep: Upkeep,
    /// Values that it publishes, and that it uses of others.
    #[serde(default)]
    pub handoffs: Handoffs,
}

impl Machine {
    /// The interface that it boots from: the one marked `boot`, else the first.
    pub fn boot_nic(&self) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.boot).or_else(|| self.nics.first())
    }

    /// The generation that its disk should have, or that its disks should be wiped.
    pub fn generation(&self) -> Option<Generation> {
        let wipe = self.decommission.as_ref().map(|wipe| wipe.generation);
        wipe.or_else(|| self.install.as_ref().map(|install| install.generation))
    }

    /// What an attempt at it is to do; `None` when the manifest does not say what, or on which disk.
    pub fn work(&self) -> Option<Work> {
        match (&self.decommission, &self.install) {
            (Some(wipe), _) => wipe.order(&self.disks).map(Work::Wipe),
            (None, Some(install)) => {
                let system = self.disks.system.clone()?;
                Some(Work::Install { install: Box::new(install.clone()), system })
            }
            (None, None) => None,
        }
    }
}

/// Identity as declared. An empty one matches anything, so `validate` warns about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Serial number (on Dell: the service tag, which Redfish reports as SKU).
    pub serial: Option<String>,
    /// SMBIOS UUID, lower-case with dashes.
    pub uuid: Option<String>,
}

/// Where a machine stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Site or data hall.
    pub site: Option<String>,
    /// Rack; budgets can count by it.
    pub rack: Option<String>,
    /// Slot or height unit.
    pub slot: Option<String>,
}

/// How a BMC is reached. Also the key under which its one session is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BmcTarget {
    /// `https://` or `http://`, host, optional port.
    pub address: String,
    /// The secret that holds user name and password; `None` sends no credentials.
    pub credentials: Option<SecretName>,
    /// How its certificate is trusted.
    pub trust: Trust,
}

/// How a TLS certificate is trusted. There is no "trust on first use".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Trust {
    /// A chain to a CA that the controller's configuration names.
    Ca,
    /// Exactly this certificate.
    Pinned(Fingerprint),
    /// Any certificate. Only for `observe --insecure` and laboratories.
    Insecure,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its name in the manifest.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// The network it is on.
    pub network: Option<NetworkName>,
    /// Its address, reserved in DHCP.
    pub address: Option<Ipv4Addr>,
    /// Whether the machine boots from it.
    pub boot: bool,
}

/// Which disk may be written and which never (law 6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disks {
    /// The disk that the image goes to. `None`: nothing can be written.
    pub system: Option<DiskHint>,
    /// Disks that are never written, whatever `system` matches.
    pub keep: Vec<DiskHint>,
}

/// What a disk must be like. All stated fields must match; at least one is stated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskHint {
    /// Serial number, compared without surrounding blanks and without regard to case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World-wide name, compared without regard to case and a leading `0x`, `naa.`, `eui.` or `nvme.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Model, a part of which must be this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Bus path as in /dev/disk/by-path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Least size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// Greatest size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
}

impl fmt::Display for DiskHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [("serial", &self.serial), ("wwn", &self.wwn), ("model", &self.model), ("path", &self.path)];
        let sizes = [("minSize", self.min_size), ("maxSize", self.max_size)];
        let parts = texts.iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key} {value}")));
        let parts = parts.chain(sizes.iter().filter_map(|(key, value)| value.map(|value| format!("{key} {value}"))));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// The power state that a machine should have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum PowerIntent {
    /// Running.
    On,
    /// Switched off.
    Off,
    /// None of our business.
    #[default]
    Unmanaged,
}

/// What to do with a machine that is seen for the first time (law 5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum OnClaim {
    /// It already is what it should be: touch nothing.
    #[default]
    Adopt,
    /// Install it.
    Install,
}

/// How a machine boots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSettings {
    /// Firmware interface.
    pub mode: BootMode,
}

/// Firmware interface that a machine boots with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum BootMode {
    /// UEFI.
    #[default]
    UEFI,
    /// BIOS, also called legacy or CSM.
    BIOS,
}
