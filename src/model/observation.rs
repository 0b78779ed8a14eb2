//! What hardware told us, with time and source. A gap is explicit: [`Seen::Unknown`] is not "empty" (law 2).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Mac, Timestamp};

/// Known, or unknown and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Seen<T> {
    /// It was told.
    Known(T),
    /// It was not, and this is why.
    Unknown(Unknown),
}

impl<T> Seen<T> {
    /// The value, if known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Seen::Known(value) => Some(value),
            Seen::Unknown(_) => None,
        }
    }

    /// Why it is unknown, if it is.
    pub fn unknown(&self) -> Option<&Unknown> {
        match self {
            Seen::Known(_) => None,
            Seen::Unknown(why) => Some(why),
        }
    }
}

/// Why something is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", tag = "why", content = "detail")]
pub enum Unknown {
    /// Nobody has asked yet.
    NotAsked,
    /// The hardware does not say.
    NotReported,
    /// No connection: refused, no route, reset, name not found.
    Unreachable(String),
    /// No answer in time.
    TimedOut(String),
    /// The BMC refuses our credentials.
    Unauthorized(String),
    /// The certificate is not the pinned one, or no CA that we trust signed it.
    CertificateChanged(String),
    /// The BMC is there and says that it can't answer now (503, for example).
    Busy(String),
    /// What came back makes no sense.
    Garbage(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::NotAsked => write!(f, "not asked yet"),
            Unknown::NotReported => write!(f, "not reported by the hardware"),
            Unknown::Unreachable(detail) => write!(f, "BMC unreachable: {detail}"),
            Unknown::TimedOut(detail) => write!(f, "BMC did not answer in time: {detail}"),
            Unknown::Unauthorized(detail) => write!(f, "BMC refuses our credentials: {detail}"),
            Unknown::CertificateChanged(detail) => write!(f, "BMC certificate is not trusted: {detail}"),
            Unknown::Busy(detail) => write!(f, "BMC is busy: {detail}"),
            Unknown::Garbage(detail) => write!(f, "BMC answered with something unreadable: {detail}"),
        }
    }
}

/// What one BMC told us at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// When it was asked.
    pub at: Timestamp,
    /// Whom: the BMC's address.
    pub source: String,
    /// Power state of the host.
    pub power: Seen<PowerState>,
    /// The boot override now in force.
    pub boot_override: Seen<BootOverride>,
    /// What the host says it is.
    pub identity: Seen<ObservedIdentity>,
    /// Network interfaces.
    pub nics: Seen<Vec<ObservedNic>>,
    /// Disks.
    pub disks: Seen<Vec<ObservedDisk>>,
    /// Firmware versions, sorted by name.
    pub firmware: Seen<Vec<FirmwareVersion>>,
    /// Health, as the BMC rolls it up.
    pub health: Seen<Health>,
}

impl Observation {
    /// An observation in which everything is unknown for one reason.
    pub fn blank(at: Timestamp, source: impl Into<String>, why: &Unknown) -> Self {
        fn gap<T>(why: &Unknown) -> Seen<T> {
            Seen::Unknown(why.clone())
        }
        Self {
            at,
            source: source.into(),
            power: gap(why),
            boot_override: gap(why),
            identity: gap(why),
            nics: gap(why),
            disks: gap(why),
            firmware: gap(why),
            health: gap(why),
        }
    }
}

/// Power state (Redfish `ComputerSystem.PowerState`, DSP0268).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// On its way on: not yet On.
    PoweringOn,
    /// On its way off: not yet Off.
    PoweringOff,
    /// Paused, or in reset: neither On nor Off. Wait.
    Paused,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The boot override in force (Redfish `ComputerSystem.Boot`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BootOverride {
    /// `BootSourceOverrideTarget`: `None`, `Pxe`, `Hdd`, … as the BMC says it.
    pub target: String,
    /// `BootSourceOverrideEnabled`: `Disabled`, `Once`, `Continuous`.
    pub enabled: String,
    /// `BootSourceOverrideMode`, where the BMC has it: `UEFI` or `Legacy`.
    pub mode: Option<String>,
}

/// What a host says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ObservedIdentity {
    /// The serial number that people read on the machine (on Dell the SKU, that is the service tag).
    pub serial: Option<String>,
    /// SMBIOS UUID, lower-case with dashes.
    pub uuid: Option<String>,
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Model.
    pub model: Option<String>,
}

/// A network interface as the BMC reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ObservedNic {
    /// The BMC's name for it.
    pub name: String,
    /// Hardware address.
    pub mac: Mac,
    /// Whether the link is up, where the BMC says so.
    pub link_up: Option<bool>,
}

/// A disk, as a BMC or the agent reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ObservedDisk {
    /// Its name there: `/dev/sda`, or the BMC's id.
    pub name: String,
    /// Serial number.
    pub serial: Option<String>,
    /// World-wide name.
    pub wwn: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Path as in /dev/disk/by-path.
    pub path: Option<String>,
    /// Size in bytes.
    pub size: Option<u64>,
}

/// One piece of firmware.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub struct FirmwareVersion {
    /// What it is the firmware of.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Health (Redfish `Status.HealthRollup`, else `Status.Health`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum Health {
    /// Nothing to do.
    OK,
    /// Needs attention.
    Warning,
    /// Needs attention now.
    Critical,
}
