//! The first layer: documents as they are written. These types decode the YAML and generate `schemas/`.
//!
//! Texts stay texts here. Whether `52:54:…` is a MAC is decided when the document is resolved, so that one document can show all
//! its problems at once and not only the first.

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use super::{
    decommission::Decommission,
    gates::Gate,
    raw_rollout::{Breaker, Budgets, MaxDestructive, MaxUnavailable, PerLabel, RolloutSpec, Window},
    scalars::{AmountText, Freeze, Labels, SizeText, Text},
    signatures::SignaturesSpec,
};
use crate::model::{BootMode, DhcpMode, DriftPolicy, ImageFormat, OnClaim, OnConfigChange, PowerIntent};

/// The one version of the documents' shape that this program reads.
pub(crate) const API_VERSION: &str = "rackwright.dev/v1alpha1";

/// What a document describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Fleet,
    Machine,
    Profile,
    Image,
    Network,
    Rollout,
    Secret,
}

impl Kind {
    /// All of them, in the order of the manual.
    pub(crate) const ALL: [Kind; 7] = [Kind::Fleet, Kind::Machine, Kind::Profile, Kind::Image, Kind::Network, Kind::Rollout, Kind::Secret];

    /// As it is written after `kind:`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Fleet => "Fleet",
            Kind::Machine => "Machine",
            Kind::Profile => "Profile",
            Kind::Image => "Image",
            Kind::Network => "Network",
            Kind::Rollout => "Rollout",
            Kind::Secret => "Secret",
        }
    }

    /// In the middle of a sentence.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Fleet => "fleet",
            Kind::Machine => "machine",
            Kind::Profile => "profile",
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Rollout => "rollout",
            Kind::Secret => "secret",
        }
    }

    /// The kind that is written `text`.
    pub(crate) fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == text)
    }
}

/// What a document is about.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Metadata {
    /// Its name: 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit. Unique within its kind.
    #[schemars(extend("pattern" = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"))]
    pub(crate) name: String,
    /// Free labels, for selectors and templates. `rack` also says in which rack a machine stands.
    #[serde(default)]
    pub(crate) labels: Labels,
}

/// The repository's own settings.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FleetSpec {
    /// Whether the branch may be rewritten. Without it a force-push is refused, and the last good commit stays in force.
    #[serde(default)]
    pub(crate) allow_force_push: bool,
    /// Author addresses of those who may approve what exceeds a budget, with a trailer such as `Rackwright-Approve: destroy=40`.
    #[serde(default)]
    pub(crate) approvers: Vec<String>,
    /// What to do when hardware differs from its manifest, by class of field.
    #[serde(default)]
    pub(crate) drift: Drift,
    /// Budgets of machines that no rollout selects, and what a rollout uses where it states none.
    #[serde(default)]
    pub(crate) budgets: Budgets,
    /// When machines may be reinstalled or switched off: of machines that no rollout selects, and of rollouts that state none.
    pub(crate) windows: Option<Vec<Window>>,
    /// What has to hold of a machine after an install before it counts as healthy: of machines that no rollout selects, and of rollouts
    /// that state none.
    pub(crate) gates: Option<Vec<Gate>>,
    /// Nothing is begun anywhere: `true`, or until when and why.
    pub(crate) freeze: Option<Freeze>,
    /// Who may sign commits. Without it, whoever may push may change the fleet.
    pub(crate) signatures: Option<SignaturesSpec>,
}

/// What to do when hardware differs from its manifest, by class of field. A disk is never written because of drift.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Drift {
    /// Power state of machines that state `power`. Correct where not stated.
    pub(crate) power: Option<DriftPolicy>,
    /// A boot override that somebody left. Correct takes back one for each boot, and one that our own install left. Observe where not stated.
    pub(crate) boot: Option<DriftPolicy>,
    /// Firmware versions of machines that state `firmware`: Observe or Alert.
    pub(crate) firmware: Option<DriftPolicy>,
    /// Disks that `disks` names and that are not there, or twice: Observe or Alert.
    pub(crate) storage: Option<DriftPolicy>,
    /// What the installed system says that it is: Observe or Alert.
    pub(crate) os_image: Option<DriftPolicy>,
    /// When correcting ends and alerting begins.
    pub(crate) damping: Option<Damping>,
}

/// How often one thing on one machine is put right within a time, before it is left alone until that time is over.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Damping {
    /// So many corrections, 1 to 20; 3 where not stated.
    #[schemars(range(min = 1, max = 20))]
    pub(crate) corrections: Option<u32>,
    /// Within so long, such as `1h`, which it is where not stated.
    pub(crate) within: Option<String>,
}

/// One machine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MachineSpec {
    /// The profile that it follows.
    pub(crate) profile: Option<String>,
    /// The image for its system disk, instead of the profile's.
    pub(crate) image: Option<String>,
    /// What the machine must prove to be before anything disruptive.
    #[serde(default)]
    pub(crate) identity: Identity,
    /// Where it stands.
    #[serde(default)]
    pub(crate) place: Place,
    /// How its management controller is reached.
    pub(crate) bmc: Bmc,
    /// Its network interfaces.
    #[serde(default)]
    pub(crate) nics: Vec<Nic>,
    /// Which disk may be written and which never.
    pub(crate) disks: Option<Disks>,
    /// The power state that it should have. Unmanaged if neither it nor its profile says so.
    pub(crate) power: Option<PowerIntent>,
    /// What to do when it is first seen: Adopt touches nothing, Install writes its disk.
    #[serde(default)]
    pub(crate) on_claim: OnClaim,
    /// Raise it to wipe and rebuild.
    #[serde(default)]
    pub(crate) rebuild: u64,
    /// Wipe it, prove that, and switch it off for good.
    pub(crate) decommission: Option<Decommission>,
    /// True: observe only.
    #[serde(default)]
    pub(crate) suspend: bool,
    /// How it boots.
    pub(crate) boot: Option<Boot>,
    /// What is put on the disk beside the image, instead of the profile's.
    pub(crate) configuration: Option<Configuration>,
    /// Names of values that the installed system may publish, for templates that say `handoff("machine", "name")`.
    pub(crate) publishes: Option<Vec<String>>,
    /// What to do when only the configuration is another: Reinstall, or leave it to the NextInstall. Instead of the profile's.
    pub(crate) on_config_change: Option<OnConfigChange>,
    /// Firmware versions that it should have, by the BMC's name for them. Adds to its profile's. Compared, never changed.
    #[serde(default)]
    pub(crate) firmware: Labels,
}

/// What the machine must prove to be before anything disruptive. State at least one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Identity {
    /// Serial number (on Dell machines: the service tag).
    pub(crate) serial: Option<Text>,
    /// SMBIOS UUID.
    #[schemars(extend("pattern" = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"))]
    pub(crate) uuid: Option<String>,
}

/// Where it stands.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Place {
    /// Site or data hall.
    pub(crate) site: Option<Text>,
    /// Rack; budgets count by it. The label `rack` is used where this is absent.
    pub(crate) rack: Option<Text>,
    /// Slot or height unit.
    pub(crate) slot: Option<Text>,
}

/// How its management controller is reached.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Bmc {
    /// `https://` and a host, with an optional port; only where it has several systems, the path of one: `/redfish/v1/Systems/1`.
    #[schemars(extend("pattern" = "^https?://[^/@]+(/redfish/v1/[^?#@]+|/)?$"))]
    pub(crate) address: String,
    /// The Secret that holds user name and password.
    pub(crate) credentials: Option<String>,
    /// The SHA-256 fingerprint of its certificate. Without it the certificate must chain to a CA that the controller knows.
    #[schemars(extend("pattern" = "^(sha256:)?([0-9A-Fa-f]{2}:?){32}$"))]
    pub(crate) fingerprint: Option<String>,
    /// True: any certificate will do. For laboratories only.
    #[serde(default)]
    pub(crate) insecure: bool,
}

/// One network interface.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Nic {
    /// Its name here, such as `lan0`.
    pub(crate) name: String,
    /// Its hardware address.
    #[schemars(extend("pattern" = "^(([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}|([0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}|([0-9A-Fa-f]{4}\\.){2}[0-9A-Fa-f]{4})$"))]
    pub(crate) mac: String,
    /// The Network that it is on.
    pub(crate) network: Option<String>,
    /// Its IPv4 address, reserved in DHCP; a prefix length is allowed and must be the network's.
    #[schemars(extend("pattern" = r"^([0-9]{1,3}\.){3}[0-9]{1,3}(/[0-9]{1,2})?$"))]
    pub(crate) address: Option<String>,
    /// Whether the machine boots from it. Without any, the first one is it.
    #[serde(default)]
    pub(crate) boot: bool,
}

/// Which disk may be written and which never.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Disks {
    /// The disk that the image goes to. No match, or two: nothing is written.
    pub(crate) system: Option<DiskHint>,
    /// Disks that are never written, whatever `system` matches. A machine's list adds to its profile's.
    #[serde(default)]
    pub(crate) keep: Vec<DiskHint>,
}

/// What a disk must be like. All stated fields must match; state at least one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct DiskHint {
    /// Serial number.
    pub(crate) serial: Option<Text>,
    /// World-wide name, such as `0x5002538e00a1b2c3`.
    pub(crate) wwn: Option<Text>,
    /// A part of the model's name.
    pub(crate) model: Option<Text>,
    /// Bus path as in /dev/disk/by-path.
    pub(crate) path: Option<Text>,
    /// Least size.
    pub(crate) min_size: Option<SizeText>,
    /// Greatest size.
    pub(crate) max_size: Option<SizeText>,
}

/// How it boots.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Boot {
    /// Firmware interface. UEFI if neither machine nor profile says so.
    pub(crate) mode: Option<BootMode>,
    /// Secure Boot. This version can't switch it on; only `false` is accepted.
    #[schemars(extend("const" = false))]
    pub(crate) secure_boot: Option<bool>,
}

/// What is put on the disk beside the image.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Configuration {
    /// A NoCloud seed for cloud-init.
    pub(crate) cloud_init: Option<CloudInit>,
}

/// A NoCloud seed for cloud-init.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CloudInit {
    /// The path, in this repository, of the template that makes the user-data. It may use `machine`, `profile` and `network`.
    pub(crate) user_data: Option<String>,
}

/// What a role is. Profiles extend profiles.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProfileSpec {
    /// Profiles that this one begins with, in order; a later one wins over an earlier one, and this one over all of them.
    #[serde(default)]
    pub(crate) extends: Vec<String>,
    /// The image for the system disk.
    pub(crate) image: Option<String>,
    /// How machines boot.
    pub(crate) boot: Option<Boot>,
    /// The power state that machines should have.
    pub(crate) power: Option<PowerIntent>,
    /// Which disk may be written and which never.
    pub(crate) disks: Option<Disks>,
    /// What is put on the disk beside the image.
    pub(crate) configuration: Option<Configuration>,
    /// Names of values that the installed system may publish, for templates that say `handoff("machine", "name")`.
    pub(crate) publishes: Option<Vec<String>>,
    /// What to do when only the configuration is another: Reinstall, or leave it to the NextInstall (another image, a raised `rebuild`, a
    /// failed install). Reinstall if neither machine nor profile says so. Changing it reinstalls nothing.
    pub(crate) on_config_change: Option<OnConfigChange>,
    /// Firmware versions that machines should have, by the BMC's name for them, such as `BIOS: "2.19.1"`. Compared, never changed.
    #[serde(default)]
    pub(crate) firmware: Labels,
}

/// An image that can be put on a disk. Changing the digest is what reimages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ImageSpec {
    /// Digest of the file as it is served: `sha256:` and what `sha256sum` prints.
    #[schemars(extend("pattern" = "^sha256:[0-9A-Fa-f]{64}$"))]
    pub(crate) digest: String,
    /// Format of the file.
    pub(crate) format: ImageFormat,
    /// `http://` or `https://`, or a path relative to the boot server's image folder.
    pub(crate) url: String,
    /// Size on the disk; checked against the disk before the first write.
    pub(crate) size: Option<SizeText>,
}

/// A network that machines are on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NetworkSpec {
    /// Its addresses, such as `10.0.4.0/24`.
    #[schemars(extend("pattern" = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$"))]
    pub(crate) subnet: String,
    /// VLAN id, 1 to 4094.
    #[schemars(range(min = 1, max = 4094))]
    pub(crate) vlan: Option<u32>,
    /// Default gateway.
    pub(crate) gateway: Option<String>,
    /// Name servers.
    #[serde(default)]
    pub(crate) dns: Vec<String>,
    /// Time servers, as addresses.
    #[serde(default)]
    pub(crate) ntp: Vec<String>,
    /// What our DHCP server does on it: Authoritative gives addresses and boot files, Proxy only boot files, Off nothing.
    #[serde(default)]
    pub(crate) dhcp: DhcpMode,
}

/// Where a secret comes from. Never its value.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SecretSpec {
    /// User name that goes with it.
    pub(crate) username: Option<Text>,
    /// Where the controller finds the value.
    pub(crate) from: SecretFrom,
}

/// Where the controller finds the value: exactly one of them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct SecretFrom {
    /// A file on the controller; a final line break is not part of the secret.
    pub(crate) file: Option<String>,
    /// A variable in the controller's environment.
    #[schemars(extend("pattern" = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub(crate) env: Option<String>,
}

/// The `spec` of a document.
#[derive(Debug, Clone)]
pub(crate) enum Spec {
    Fleet(FleetSpec),
    Machine(Box<MachineSpec>),
    Profile(Box<ProfileSpec>),
    Image(ImageSpec),
    Network(NetworkSpec),
    Rollout(RolloutSpec),
    Secret(SecretSpec),
}
