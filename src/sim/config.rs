//! The simulator's YAML file.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize};

use super::fault::ArmedFault;
use crate::model::{BootMode, Mac, MachineName, PowerState, SignedDuration};

/// What `rackwright sim --file sim.yaml` reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where the machines' firmware finds DHCP and TFTP. `None`: no machine can boot from the network.
    #[serde(default)]
    pub boot_server: Option<BootServer>,
    /// The BMCs' administrator.
    pub credentials: Credentials,
    /// A second account that may read but change nothing.
    #[serde(default)]
    pub read_only: Option<Credentials>,
    /// Disk files, their accounts, and the BMCs' certificate. Made if it is not there.
    pub state_dir: PathBuf,
    /// How slow things are.
    #[serde(default)]
    pub pace: Pace,
    /// Most sessions at a time on one BMC (iDRAC: 8, XCC: 16).
    #[serde(default = "default_sessions")]
    pub max_sessions: usize,
    /// Where the control endpoint listens: plain HTTP without authentication, so loopback only. `None`: none.
    #[serde(default)]
    pub control: Option<SocketAddr>,
    /// The machines.
    pub machines: Vec<MachineConfig>,
}

fn default_sessions() -> usize {
    8
}

/// Where the machines' firmware finds its boot server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootServer {
    /// The DHCP server. Clients speak to it as a relay agent would (RFC 2131 section 4.1, RFC 8357), so no port below 1024 and no
    /// broadcast is needed.
    pub dhcp: SocketAddr,
    /// The port that the machines' DHCP packets come from. 0: any, which needs a server that knows RFC 8357, as Rackwright's does;
    /// others answer a relay agent on their own port only.
    #[serde(default)]
    pub relay_port: u16,
    /// The TFTP server, when it is not port 69 of the server that DHCP names.
    #[serde(default)]
    pub tftp: Option<SocketAddr>,
}

/// User name and password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password, in the file.
    #[serde(default, skip_serializing)]
    pub password: Option<String>,
    /// Name of the environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How slow things are. Real machines take minutes; the order of events is the same.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pace {
    /// From a power order to the state that it asks for.
    pub power_lag: SignedDuration,
    /// From power to the first boot device.
    pub post: SignedDuration,
    /// How long an operating system takes to shut down when asked.
    pub shutdown: SignedDuration,
    /// How long an installed system takes from its loader to its first word.
    pub os_boot: SignedDuration,
    /// How long firmware waits for a DHCP answer, in all.
    pub dhcp_timeout: SignedDuration,
    /// Added to each write of a disk that has the fault `disk-slow`.
    pub slow_write: SignedDuration,
    /// After so long without an answer the agent gives up. Real agents wait for 12 hours.
    pub agent_give_up: SignedDuration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            power_lag: SignedDuration::from_millis(300),
            post: SignedDuration::from_millis(500),
            shutdown: SignedDuration::from_millis(500),
            os_boot: SignedDuration::from_millis(500),
            dhcp_timeout: SignedDuration::from_secs(4),
            slow_write: SignedDuration::from_millis(200),
            agent_give_up: SignedDuration::from_hours(12),
        }
    }
}

/// A duration of the file as the clock's; a negative one is none.
pub(crate) fn std_duration(duration: SignedDuration) -> Duration {
    duration.try_into().unwrap_or(Duration::ZERO)
}

/// One machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineConfig {
    /// Its name, also its system's id in Redfish.
    pub name: MachineName,
    /// The BMC's address, on loopback; also where the machine's firmware and agent send from.
    pub address: Ipv4Addr,
    /// The BMC's port; 0 lets the kernel choose.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Serial number.
    pub serial: String,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Hardware address of the first interface: the one that boots.
    pub mac: Mac,
    /// Further interfaces.
    #[serde(default)]
    pub nics: Vec<Mac>,
    /// Firmware interface.
    #[serde(default)]
    pub mode: BootMode,
    /// Its disks; the first is the one that it boots from.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// Power state at the start, `On` or `Off`. A machine that is On at the start runs what its disk holds.
    #[serde(default = "default_power")]
    pub power: PowerState,
    /// What it boots without an override, in this order.
    #[serde(default = "default_boot_order")]
    pub boot_order: Vec<BootDevice>,
    /// Manufacturer.
    #[serde(default = "default_manufacturer")]
    pub manufacturer: String,
    /// Model.
    #[serde(default = "default_model")]
    pub model: String,
    /// Whether a PATCH of the system needs `If-Match`, as on Lenovo XCC (428 without).
    #[serde(default)]
    pub require_if_match: bool,
    /// Faults that it begins with.
    #[serde(default)]
    pub faults: Vec<ArmedFault>,
    /// The page that a system which was installed serves, on `address`: for health gates.
    #[serde(default)]
    pub page: Option<PageConfig>,
    /// Checks that such a system reports, one after another.
    #[serde(default)]
    pub checks: Vec<CheckConfig>,
    /// A real virtual machine behind this BMC, instead of a simulated one.
    #[serde(default)]
    pub vm: Option<VmConfig>,
}

fn default_port() -> u16 {
    8443
}

fn default_power() -> PowerState {
    PowerState::Off
}

fn default_boot_order() -> Vec<BootDevice> {
    vec![BootDevice::Disk, BootDevice::Network]
}

fn default_manufacturer() -> String {
    "Rackwright".to_owned()
}

fn default_model() -> String {
    "Simulated Server".to_owned()
}

/// A page that an installed system serves from its call home on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageConfig {
    /// Its port, whatever the path.
    pub port: u16,
    /// What it answers.
    #[serde(default = "default_status")]
    pub status: u16,
    /// Until so long after the call home it answers 503.
    #[serde(default)]
    pub after: SignedDuration,
}

fn default_status() -> u16 {
    200
}

/// A check that an installed system reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckConfig {
    /// Its name.
    pub check: String,
    /// Whether it passed.
    #[serde(default = "default_ok")]
    pub ok: bool,
    /// What it found.
    #[serde(default)]
    pub message: String,
    /// So long after the call home, or after the one before it.
    #[serde(default)]
    pub after: SignedDuration,
}

fn default_ok() -> bool {
    true
}

/// Something to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootDevice {
    /// The first disk.
    Disk,
    /// The first interface.
    Network,
}

/// One disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskConfig {
    /// Serial number.
    pub serial: String,
    /// Size in bytes, or such as `2GiB`.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// World-wide name.
    #[serde(default)]
    pub wwn: Option<String>,
    /// Model.
    #[serde(default = "default_disk_model")]
    pub model: String,
    /// What is on it before anything was written by an install. Without a word: a system on the first disk of a machine that is
    /// On, nothing elsewhere.
    #[serde(default)]
    pub holds: Option<Holds>,
}

/// What a new disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holds {
    /// Zeros.
    Nothing,
    /// A system that somebody else installed: it boots and says nothing.
    System,
}

fn default_disk_model() -> String {
    "Simulated SSD".to_owned()
}

/// A QEMU virtual machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VmConfig {
    /// Name of the network namespace that it runs in (`ip netns exec`). `None`: ours.
    #[serde(default)]
    pub netns: Option<String>,
    /// The tap device of its first interface. `None`: QEMU's user network.
    #[serde(default)]
    pub tap: Option<String>,
    /// Memory in MiB.
    #[serde(default = "default_memory")]
    pub memory: u32,
    /// Virtual processors.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Its disk's file, raw. `None`: one in the state folder, of the first disk's size.
    #[serde(default)]
    pub disk: Option<PathBuf>,
    /// Where the serial console is appended to. `None`: `<name>.serial` in the state folder.
    #[serde(default)]
    pub serial_log: Option<PathBuf>,
    /// Accelerator.
    #[serde(default)]
    pub accel: Accel,
    /// OVMF's code, for UEFI. A copy of the variables beside it (`_VARS` for `_CODE`) is kept in the state folder.
    #[serde(default = "default_ovmf")]
    pub ovmf_code: PathBuf,
    /// Further arguments for QEMU.
    #[serde(default)]
    pub extra_args: Vec<String>,
}

/// How QEMU runs the guest's instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// In software; works everywhere.
    #[default]
    Tcg,
    /// On the processor. Only where a guest was seen to run: /dev/kvm can be there and useless.
    Kvm,
}

fn default_memory() -> u32 {
    512
}

fn default_cpus() -> u32 {
    1
}

fn default_ovmf() -> PathBuf {
    PathBuf::from("/usr/share/OVMF/OVMF_CODE_4M.fd")
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => parse_size(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a size such as \"2GiB\""))),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_the_least_that_is_needed_is_read() {
        let text = "
credentials: {username: admin, password: secret}
stateDir: /tmp/sim
pace: {powerLag: 10ms}
machines:
  - name: node-1
    address: 127.77.0.11
    serial: SIM0001
    uuid: 00000000-0000-4000-8000-000000000001
    mac: 52:54:00:77:00:01
    disks: [{serial: D1, size: 2 GiB}, {serial: D2, size: 1048576}]
    faults: ['disk-write:1']
";
        let config: Config = serde_yaml::from_str(text).unwrap();
        let machine = &config.machines[0];
        assert_eq!((machine.disks[0].size, machine.disks[1].size), (2 << 30, 1 << 20));
        assert_eq!(machine.boot_order, [BootDevice::Disk, BootDevice::Network]);
        assert_eq!(std_duration(config.pace.power_lag), Duration::from_millis(10));
        assert!(!format!("{config:?}").contains("secret"), "law 14");
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let text = "{credentials: {username: a, password: b}, stateDir: /tmp, machines: [], speed: fast}";
        assert!(serde_yaml::from_str::<Config>(text).unwrap_err().to_string().contains("speed"));
    }

    #[test]
    fn a_size_needs_a_known_unit() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("2 TB"), Some(2_000_000_000_000));
        for text in ["", "GiB", "2 XB", "-1", "99999999999 TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
