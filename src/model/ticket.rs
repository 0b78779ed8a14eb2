//! What the boot server may tell whom: a pure function of commit and journal, remade each turn.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    AgentCommand, AgentHello, BadIdent, CommitId, DhcpMode, DiskHint, Evidence, Generation, HandoffTable, Install, Mac, MachineName,
    Network, NetworkName, ObservedDisk, Rung, Timestamp, WipeOrder, same_uuid,
};

/// One attempt at installing one machine: the machine's name and a number that only grows, as `web-01#3`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId {
    /// The machine.
    pub machine: MachineName,
    /// From 1, over the machine's whole life in the journal.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.machine, self.number)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AttemptId {
    type Err = BadIdent;
    fn from_str(text: &str) -> Result<Self, BadIdent> {
        let bad = || BadIdent { what: "an attempt such as \"web-01#3\"", text: text.to_owned() };
        let (machine, number) = text.split_once('#').ok_or_else(bad)?;
        Ok(Self { machine: machine.parse().map_err(|_| bad())?, number: number.parse().map_err(|_| bad())? })
    }
}

impl TryFrom<String> for AttemptId {
    type Error = BadIdent;
    fn try_from(text: String) -> Result<Self, BadIdent> {
        text.parse()
    }
}

impl From<AttemptId> for String {
    fn from(id: AttemptId) -> String {
        id.to_string()
    }
}

/// What an attempt does, and to which disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Work {
    /// Installs a system.
    Install {
        /// What to write.
        install: Box<Install>,
        /// The disk to write.
        system: DiskHint,
    },
    /// Wipes disks.
    Wipe(WipeOrder),
}

impl Work {
    /// What the disks are called once it is done.
    pub fn generation(&self) -> Generation {
        match self {
            Work::Install { install, .. } => install.generation,
            Work::Wipe(order) => order.generation,
        }
    }

    /// What it installs, if it does.
    pub fn install(&self) -> Option<&Install> {
        match self {
            Work::Install { install, .. } => Some(install),
            Work::Wipe(_) => None,
        }
    }
}

/// Permission for one machine to be installed, or wiped, once (law 9). Holds no secret: the boot server derives the agent's token
/// from its own key and the attempt's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The attempt.
    pub attempt: AttemptId,
    /// The commit that wants it.
    pub commit: CommitId,
    /// After this it is worth nothing.
    pub expires: Timestamp,
    /// The interface that boots.
    pub mac: Mac,
    /// Serial that the agent must report, if declared.
    pub serial: Option<String>,
    /// UUID that the agent must report, if declared.
    pub uuid: Option<String>,
    /// Disks never to write.
    pub keep: Vec<DiskHint>,
    /// What to do, and to which disks.
    pub work: Work,
    /// What was journaled of this attempt so far, in order.
    pub evidence: Vec<Evidence>,
}

impl Ticket {
    /// Whether `rung` was reached.
    pub fn reached(&self, rung: Rung) -> bool {
        self.evidence.iter().any(|evidence| evidence.rung() == rung)
    }

    /// The start of the agent that began to write, and the disks that it was given leave for.
    pub fn writing(&self) -> Option<(&str, &[ObservedDisk])> {
        self.evidence.iter().find_map(Evidence::leave)
    }

    /// What the boot server tells an agent that presents this ticket. Pure and idempotent: the same agent start gets the same
    /// answer however often it asks; another start gets leave to write only while no byte was written.
    pub fn answer(&self, hello: &AgentHello, now: Timestamp, call_home: &str) -> AgentCommand {
        if let Some(refusal) = self.refusal(&hello.boot_id, hello.serial.as_deref(), hello.uuid.as_deref(), now) {
            return AgentCommand::Refuse { why: refusal.to_string() };
        }
        if self.reached(Rung::Written) {
            return if self.work.install().is_some() { AgentCommand::BootFromDisk } else { AgentCommand::SwitchOff };
        }
        let (attempt, keep) = (self.attempt.clone(), self.keep.clone());
        match self.work.clone() {
            Work::Install { install, system } => {
                AgentCommand::Install { attempt, install, system, keep, call_home: call_home.to_owned(), handoff: None }
            }
            Work::Wipe(order) => AgentCommand::Wipe { attempt, method: order.method, targets: order.targets, keep },
        }
    }

    /// Why the start `boot_id` of an agent on a machine that says it is `serial` and `uuid` must do nothing.
    pub fn refusal(&self, boot_id: &str, serial: Option<&str>, uuid: Option<&str>, now: Timestamp) -> Option<Refusal> {
        if now >= self.expires {
            return Some(Refusal::Expired(self.expires));
        }
        let same_serial = |declared: &str, seen: &str| declared.trim().eq_ignore_ascii_case(seen.trim());
        let mismatch = differs("serial", self.serial.as_deref(), serial, same_serial);
        let mismatch = mismatch.or_else(|| differs("uuid", self.uuid.as_deref(), uuid, same_uuid));
        if mismatch.is_some() {
            return mismatch;
        }
        let another = self.writing().is_some_and(|(writer, _)| writer != boot_id);
        (another && !self.reached(Rung::Written)).then_some(Refusal::Restarted)
    }
}

fn differs(what: &'static str, declared: Option<&str>, seen: Option<&str>, same: fn(&str, &str) -> bool) -> Option<Refusal> {
    let declared = declared?;
    if seen.is_some_and(|seen| same(declared, seen)) {
        return None;
    }
    Some(Refusal::Identity { what, declared: declared.to_owned(), seen: seen.unwrap_or("not reported").to_owned() })
}

/// Why an agent must do nothing to the machine that it runs on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ticket is worth nothing any more.
    #[error("the ticket expired at {0}")]
    Expired(Timestamp),
    /// It is not the machine that the manifest means (law 8).
    #[error("{what} is {seen}, the manifest says {declared}")]
    Identity {
        /// `serial` or `uuid`.
        what: &'static str,
        /// What the manifest says.
        declared: String,
        /// What the machine says.
        seen: String,
    },
    /// The machine lost power, or was reset, while an earlier start of the agent wrote. That one may even write still, for all that
    /// is known here, so this attempt is over.
    #[error("an earlier start of this machine began to write and did not finish; a new attempt is needed")]
    Restarted,
}

impl Refusal {
    /// The stable name under which it fails the attempt. An expired ticket is the engine's to close.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Refusal::Expired(_) => None,
            Refusal::Identity { .. } => Some("agent-refused"),
            Refusal::Restarted => Some("restarted-while-writing"),
        }
    }
}

/// Who has which address and boots from which interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The machine.
    pub machine: MachineName,
    /// The interface.
    pub mac: Mac,
    /// Its address. `None`: it can only be served by proxyDHCP.
    pub address: Option<Ipv4Addr>,
    /// The network it is on.
    pub network: Option<NetworkName>,
    /// Whether the machine boots from this interface: only then it gets boot options.
    pub boot: bool,
}

/// Everything that the boot server answers from. Replaced as a whole each turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BootTable {
    /// Networks by name.
    pub networks: BTreeMap<NetworkName, Network>,
    /// Reservations by MAC.
    pub reservations: BTreeMap<Mac, Reservation>,
    /// Open tickets by the MAC that boots.
    pub tickets: BTreeMap<Mac, Ticket>,
    /// Installed generations by attempt, for call-homes of systems whose ticket is gone.
    pub installed: BTreeMap<AttemptId, Generation>,
    /// Who may publish values, and whose values go to whom.
    #[serde(default)]
    pub handoffs: HandoffTable,
}

impl BootTable {
    /// The network of `reservation`, when our DHCP server does something on it.
    pub fn served_network(&self, reservation: &Reservation) -> Option<&Network> {
        let network = self.networks.get(reservation.network.as_ref()?)?;
        (network.dhcp != DhcpMode::Off).then_some(network)
    }

    /// The open ticket of an attempt.
    pub fn ticket(&self, attempt: &AttemptId) -> Option<&Ticket> {
        self.tickets.values().find(|ticket| ticket.attempt == *attempt)
    }
}
