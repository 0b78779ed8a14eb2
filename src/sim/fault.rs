//! What goes wrong on request: which machine, what, and how often.

use std::{fmt, str::FromStr, sync::Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Writing to a disk fails after 1 MiB of an install. Used up by each install that it stops.
    DiskWrite,
    /// Each write to a disk takes longer. Never used up.
    DiskSlow,
    /// Power is cut after 1 MiB of an install was written; the machine stays off. Used up by each cut.
    ResetDuringWrite,
    /// The agent's kernel is loaded, and then nothing is heard from it. Used up by each start.
    AgentNeverCalls,
    /// Firmware ignores a boot override to the network, and uses it up. Used up by each boot.
    BootsDiskInstead,
    /// Firmware's DHCP packets are lost. Used up by each network boot.
    NoDhcp,
    /// The BMC refuses connections. Never used up.
    BmcUnreachable,
    /// The BMC answers 503 for so many seconds, counted from the first request that meets it.
    Bmc503 {
        /// How long, in seconds.
        seconds: u64,
    },
    /// The BMC answers what is not JSON. Used up by each answer.
    BmcGarbage,
    /// The BMC takes requests and never answers. Used up by each request.
    BmcHang,
    /// The BMC presents another certificate. Never used up.
    BmcWrongCertificate,
    /// Power orders are taken and have no effect. Used up by each order.
    PowerStuck,
    /// The machine reports a serial number that is not its own, through BMC and agent. Never used up.
    SerialMismatch,
    /// The agent finds another serial number in SMBIOS than the BMC reports, as after a board was replaced. Never used up.
    SmbiosMismatch,
    /// Firmware asks for the size of its loader, aborts the transfer, and never fetches it. Used up by each network boot.
    TftpAbort,
}

/// Why a text is not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a fault: write NODE=FAULT or NODE=FAULT:COUNT, with FAULT one of {}", NAMES.join(", "))]
pub struct BadFault {
    /// The text as it was written.
    pub text: String,
}

const NAMES: [&str; 15] = [
    "disk-write",
    "disk-slow",
    "reset-during-write",
    "agent-never-calls",
    "boots-disk-instead",
    "no-dhcp",
    "bmc-unreachable",
    "bmc-503",
    "bmc-garbage",
    "bmc-hang",
    "bmc-wrong-certificate",
    "power-stuck",
    "serial-mismatch",
    "smbios-mismatch",
    "tftp-abort",
];

/// How long `bmc-503` lasts when nothing is said.
const BUSY_SECONDS: u64 = 60;

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::DiskWrite => "disk-write",
            Fault::DiskSlow => "disk-slow",
            Fault::ResetDuringWrite => "reset-during-write",
            Fault::AgentNeverCalls => "agent-never-calls",
            Fault::BootsDiskInstead => "boots-disk-instead",
            Fault::NoDhcp => "no-dhcp",
            Fault::BmcUnreachable => "bmc-unreachable",
            Fault::Bmc503 { .. } => "bmc-503",
            Fault::BmcGarbage => "bmc-garbage",
            Fault::BmcHang => "bmc-hang",
            Fault::BmcWrongCertificate => "bmc-wrong-certificate",
            Fault::PowerStuck => "power-stuck",
            Fault::SerialMismatch => "serial-mismatch",
            Fault::SmbiosMismatch => "smbios-mismatch",
            Fault::TftpAbort => "tftp-abort",
        }
    }

    fn named(name: &str, number: Option<u64>) -> Option<Fault> {
        Some(match name {
            "disk-write" => Fault::DiskWrite,
            "disk-slow" => Fault::DiskSlow,
            "reset-during-write" => Fault::ResetDuringWrite,
            "agent-never-calls" => Fault::AgentNeverCalls,
            "boots-disk-instead" => Fault::BootsDiskInstead,
            "no-dhcp" => Fault::NoDhcp,
            "bmc-unreachable" => Fault::BmcUnreachable,
            "bmc-503" => Fault::Bmc503 { seconds: number.unwrap_or(BUSY_SECONDS) },
            "bmc-garbage" => Fault::BmcGarbage,
            "bmc-hang" => Fault::BmcHang,
            "bmc-wrong-certificate" => Fault::BmcWrongCertificate,
            "power-stuck" => Fault::PowerStuck,
            "serial-mismatch" => Fault::SerialMismatch,
            "smbios-mismatch" => Fault::SmbiosMismatch,
            "tftp-abort" => Fault::TftpAbort,
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Bmc503 { seconds } => write!(f, "bmc-503:{seconds}"),
            other => f.write_str(other.name()),
        }
    }
}

/// A fault, and how often it still happens. Written `disk-write`, `disk-write:2`, `bmc-503:60`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArmedFault {
    /// What.
    pub fault: Fault,
    /// How often; `None` is always.
    pub count: Option<u32>,
}

impl FromStr for ArmedFault {
    type Err = BadFault;
    fn from_str(text: &str) -> Result<Self, BadFault> {
        let bad = || BadFault { text: text.to_owned() };
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number.parse::<u64>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let fault = Fault::named(name, number).ok_or_else(bad)?;
        let count = match (fault, number) {
            (Fault::Bmc503 { .. }, _) => Some(1),
            (_, Some(number)) => Some(u32::try_from(number).map_err(|_| bad())?),
            (_, None) => None,
        };
        Ok(Self { fault, count })
    }
}

impl fmt::Display for ArmedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fault, self.count) {
            (Fault::Bmc503 { .. }, _) | (_, None) => write!(f, "{}", self.fault),
            (fault, Some(count)) => write!(f, "{fault}:{count}"),
        }
    }
}

impl TryFrom<String> for ArmedFault {
    type Error = BadFault;
    fn try_from(text: String) -> Result<Self, BadFault> {
        text.parse()
    }
}

impl From<ArmedFault> for String {
    fn from(fault: ArmedFault) -> String {
        fault.to_string()
    }
}

/// Reads what follows `--fault`: `node-3=disk-write`, or with a count `node-3=disk-write:1`.
///
/// # Errors
/// [`BadFault`], which lists the faults that there are.
pub fn parse_fault(text: &str) -> Result<(String, ArmedFault), BadFault> {
    let bad = || BadFault { text: text.to_owned() };
    let (machine, fault) = text.split_once('=').ok_or_else(bad)?;
    if machine.is_empty() {
        return Err(bad());
    }
    Ok((machine.to_owned(), fault.parse().map_err(|_| bad())?))
}

/// The faults of one machine. Set from outside while it runs, used up by it.
#[derive(Debug)]
pub(crate) struct Faults {
    armed: Mutex<Vec<ArmedFault>>,
    version: watch::Sender<u64>,
}

impl Faults {
    pub(crate) fn new(armed: Vec<ArmedFault>) -> Self {
        Self { armed: Mutex::new(armed), version: watch::Sender::new(0) }
    }

    /// Adds one; the same fault again replaces its count.
    pub(crate) fn arm(&self, fault: ArmedFault) {
        self.change(|armed| {
            armed.retain(|old| old.fault.name() != fault.fault.name());
            armed.push(fault);
        });
    }

    pub(crate) fn clear(&self) {
        self.change(Vec::clear);
    }

    pub(crate) fn list(&self) -> Vec<ArmedFault> {
        self.lock().clone()
    }

    /// Whether it is armed. Uses nothing up.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.lock().iter().any(|armed| armed.fault == fault)
    }

    /// Whether it happens now; one use fewer is left.
    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        self.has(fault) && self.change(|armed| use_up(armed, |armed| armed.fault == fault).is_some())
    }

    /// Seconds of `bmc-503`, if it begins now.
    pub(crate) fn busy_begins(&self) -> Option<u64> {
        let is_busy = |armed: &ArmedFault| matches!(armed.fault, Fault::Bmc503 { .. });
        if !self.lock().iter().any(is_busy) {
            return None;
        }
        match self.change(|armed| use_up(armed, is_busy)) {
            Some(Fault::Bmc503 { seconds }) => Some(seconds),
            _ => None,
        }
    }

    /// Told of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<ArmedFault>) -> T) -> T {
        let result = change(&mut self.lock());
        self.version.send_modify(|version| *version += 1);
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ArmedFault>> {
        self.armed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn use_up(armed: &mut Vec<ArmedFault>, which: impl Fn(&ArmedFault) -> bool) -> Option<Fault> {
    let index = armed.iter().position(which)?;
    let fault = armed[index].fault;
    match &mut armed[index].count {
        None => {}
        Some(0) => {
            armed.remove(index);
            return None;
        }
        Some(count) => {
            *count -= 1;
            if *count == 0 {
                armed.remove(index);
            }
        }
    }
    Some(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_with_its_machine_and_count() {
        assert_eq!(parse_fault("node-3=disk-write").unwrap(), ("node-3".into(), ArmedFault { fault: Fault::DiskWrite, count: None }));
        assert_eq!(parse_fault("node-3=disk-write:1").unwrap().1.count, Some(1));
        assert_eq!(parse_fault("n=bmc-503:7").unwrap().1.fault, Fault::Bmc503 { seconds: 7 });
        for text in ["node-3", "=disk-write", "node-3=disk-wrote", "node-3=disk-write:x", ""] {
            assert!(parse_fault(text).unwrap_err().to_string().contains("reset-during-write"), "{text}");
        }
        for name in NAMES {
            assert_eq!(name.parse::<ArmedFault>().unwrap().fault.name(), name);
        }
    }

    #[test]
    fn a_counted_fault_is_used_up() {
        let faults = Faults::new(vec!["disk-write:2".parse().unwrap(), "no-dhcp".parse().unwrap()]);
        assert!(faults.strikes(Fault::DiskWrite));
        assert!(faults.strikes(Fault::DiskWrite));
        assert!(!faults.strikes(Fault::DiskWrite));
        assert!((0..9).all(|_| faults.strikes(Fault::NoDhcp)));
        faults.arm("bmc-503:5".parse().unwrap());
        assert_eq!((faults.busy_begins(), faults.busy_begins()), (Some(5), None));
    }
}
