//! Everything one commit says, parsed and resolved: profiles merged, templates rendered, references followed.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{
    After, Digest, DriftPolicies, Freeze, Generation, ImageName, Machine, MachineName, NetworkName, RolloutName, SecretName, Signatures,
    SignedDuration, Window,
};

/// Everything one commit says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// The repository's own settings.
    pub settings: FleetSettings,
    /// Machines by name. One whose manifest says the same in two commits is shared between their fleets.
    #[serde(with = "shared")]
    pub machines: BTreeMap<MachineName, Arc<Machine>>,
    /// Networks by name.
    pub networks: BTreeMap<NetworkName, Network>,
    /// Rollouts by name. A machine belongs to the first, in order of name, whose selector matches it.
    pub rollouts: BTreeMap<RolloutName, Rollout>,
    /// Where secrets come from, by name.
    pub secrets: BTreeMap<SecretName, SecretSource>,
}

/// Machines are written one by one, whoever shares them.
mod shared {
    use std::{collections::BTreeMap, sync::Arc};

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Machine, MachineName};

    pub(super) fn serialize<S: Serializer>(machines: &BTreeMap<MachineName, Arc<Machine>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(machines.iter().map(|(name, machine)| (name, machine.as_ref())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<MachineName, Arc<Machine>>, D::Error> {
        let machines = BTreeMap::<MachineName, Machine>::deserialize(deserializer)?;
        Ok(machines.into_iter().map(|(name, machine)| (name, Arc::new(machine))).collect())
    }
}

/// The repository's own settings (kind `Fleet`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetSettings {
    /// Whether history may be rewritten (law: refused unless the Fleet allows it).
    pub allow_force_push: bool,
    /// Addresses of authors whose commits may approve what exceeds a budget.
    pub approvers: Vec<String>,
    /// What to do about each class of drift.
    pub drift: DriftPolicies,
    /// Budgets of machines that no rollout selects, and the default of rollouts that state none.
    pub budgets: Budgets,
    /// When machines that no rollout selects may be taken in hand, and the default of rollouts that state none. Empty: at any time.
    pub windows: Vec<Window>,
    /// Nothing is begun anywhere.
    pub freeze: Option<Freeze>,
    /// Who may sign commits. Without it, whoever may push may change the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signatures: Option<Signatures>,
}

/// What to do when observation differs from the manifest. Nothing that would destroy data can be corrected by drift (law 1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum DriftPolicy {
    /// Show it in plans and status; the machine stays Ready.
    #[serde(alias = "observe")]
    Observe,
    /// Show it, and count the machine as Stalled.
    #[serde(alias = "alert")]
    Alert,
    /// Put it right.
    #[default]
    #[serde(alias = "correct")]
    Correct,
}

/// How much may be destroyed or be away at a time (law 7: always there).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// Most machines of the group that may be unavailable at a time because of us.
    pub max_unavailable: Amount,
    /// Most machines of one rack that may be unavailable at a time because of us; `None` is no limit of its own.
    pub max_unavailable_rack: Option<Amount>,
    /// Most machines with the same value of a label, of all groups, that may be unavailable at a time because of us.
    pub max_unavailable_per: Vec<PerLabel>,
    /// Most machines of the group that one commit may reinstall.
    pub max_destructive: Destructive,
    /// Failures in the group under one commit after which nothing new is started.
    pub breaker_failures: u32,
    /// Per cent of a wave, 1 to 100, after whose failure for good nothing new is started. `None`: half of it where there are waves.
    pub breaker_share: Option<u8>,
}

impl Default for Budgets {
    /// One machine of ten at a time (at least one), at most a quarter of the group and never more than 20 by one commit, and
    /// the second failure stops: a wrong image then costs two machines, and a wrong edit cannot take a site.
    fn default() -> Self {
        Self {
            max_unavailable: Amount::Percent(10),
            max_unavailable_rack: None,
            max_unavailable_per: Vec::new(),
            max_destructive: Destructive { count: 20, share: 25 },
            breaker_failures: 2,
            breaker_share: None,
        }
    }
}

/// A budget for each value of a label: a failure domain, such as a power feed, a row or a storage pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerLabel {
    /// The label. Machines without it are in no domain.
    pub label: String,
    /// Most machines with the same value; a share is of these.
    pub most: Amount,
}

/// A count, or a share of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// So many machines.
    Count(u32),
    /// Per cent of the group, 0 to 100; rounded down, but at least one unless it is zero.
    Percent(u8),
}

impl Amount {
    /// The number of machines that it means in a group of `total`.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Amount::Count(count) => count,
            Amount::Percent(0) => 0,
            Amount::Percent(percent) => (u64::from(total) * u64::from(percent) / 100).max(1) as u32,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// How many machines of a group one commit may reinstall: the smaller of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destructive {
    /// So many machines.
    pub count: u32,
    /// Per cent of the group, 0 to 100; at least one machine unless it is zero.
    pub share: u8,
}

impl Destructive {
    /// The number of machines that it means in a group of `total`.
    pub fn of(self, total: u32) -> u32 {
        self.count.min(Amount::Percent(self.share).of(total))
    }
}

/// A group of machines, and how a change reaches them (kind `Rollout`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its name.
    pub name: RolloutName,
    /// Labels that a machine must have, all of them.
    pub selector: BTreeMap<String, String>,
    /// What has to hold of other groups before this one begins.
    pub after: Vec<After>,
    /// How much at a time and in all.
    pub budgets: Budgets,
    /// How many machines a commit begins before it waits for them, ascending; percentages are of the group. After the last come all others.
    pub waves: Vec<Amount>,
    /// How long the last machine of a wave has to be healthy before the next wave begins.
    pub soak: Span,
    /// When. Empty: at any time.
    pub windows: Vec<Window>,
    /// Nothing of it is begun for a time.
    pub freeze: Option<Freeze>,
    /// Nothing of it is begun until a commit says otherwise.
    pub paused: bool,
}

/// What a system disk should hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Install {
    /// One hash over all that ends on the disk.
    pub generation: Generation,
    /// The image.
    pub image: Image,
    /// NoCloud user-data, rendered for this machine. `None`: no seed is written.
    pub user_data: Option<String>,
    /// The `rebuild` counter.
    pub rebuild: u64,
}

/// An image that can be put on a disk (kind `Image`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its name.
    pub name: ImageName,
    /// Digest of the file as it is served, that is compressed when `format` is: what `sha256sum` prints.
    pub digest: Digest,
    /// Format of the file.
    pub format: ImageFormat,
    /// `http://` or `https://`, or a path relative to the boot server's image folder.
    pub url: String,
    /// Size in bytes on the disk, if stated; checked against the disk before the first write.
    pub size: Option<u64>,
}

/// Format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum ImageFormat {
    /// The bytes of the disk.
    #[serde(rename = "raw")]
    Raw,
    /// The same, compressed with Zstandard (RFC 8878).
    #[serde(rename = "raw.zst")]
    RawZst,
    /// The same, compressed with gzip (RFC 1952).
    #[serde(rename = "raw.gz")]
    RawGz,
}

/// A network that machines are on (kind `Network`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// Addresses.
    pub subnet: Ipv4Net,
    /// VLAN id, 1 to 4094.
    pub vlan: Option<u16>,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Time servers.
    pub ntp: Vec<IpAddr>,
    /// What our DHCP server does on it.
    pub dhcp: DhcpMode,
}

/// What our DHCP server does on a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum DhcpMode {
    /// Gives addresses (reservations from the manifests) and boot files; direct or through a relay.
    #[default]
    Authoritative,
    /// Gives boot files only, beside another server that gives addresses (PXE 2.1, proxyDHCP).
    Proxy,
    /// Silent.
    Off,
}

/// Where a secret comes from (kind `Secret`); never the value (law 14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSource {
    /// Its name.
    pub name: SecretName,
    /// User name that goes with it, for credentials.
    pub username: Option<String>,
    /// Where the controller finds the value.
    pub from: SecretFrom,
}

/// Where the controller finds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretFrom {
    /// A file on the controller; a final line break is not part of the secret.
    File(String),
    /// A variable in the controller's environment.
    Env(String),
}

/// A time that a manifest states, such as `30m`.
pub type Span = SignedDuration;
