//! The local brake: what somebody on the controller's host stopped by hand. It can only stop things (law 12).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Held, MachineName, RolloutName, Timestamp};

/// The group of machines that no rollout selects.
const DEFAULT_GROUP: &str = "default";

/// What a hold stops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HoldScope {
    /// Every machine, also one that is new.
    All,
    /// The machines that a rollout selects under the commit in force; `default`: those that none selects.
    Group(RolloutName),
    /// A machine, by its name in the fleet or, until a rename is written down, by the one before.
    Machine(MachineName),
}

/// Who stopped what, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    /// What is stopped.
    pub scope: HoldScope,
    /// Who said so: a name on the controller's host. A note for people, not a proof.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why; may be empty.
    pub reason: String,
}

/// All holds. The default holds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Brake {
    /// The holds, oldest first; at most one of each scope.
    pub holds: Vec<Hold>,
    /// Why nobody can say what is held. Then everything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

impl Brake {
    /// Whether nothing is held.
    pub fn is_off(&self) -> bool {
        self.holds.is_empty() && self.unreadable.is_none()
    }

    /// Whether a machine is held by this very name, or may be.
    pub fn names(&self, machine: &MachineName) -> bool {
        self.unreadable.is_some() || self.holds.iter().any(|hold| matches!(&hold.scope, HoldScope::Machine(held) if held == machine))
    }

    /// What holds a machine of this name and group, the widest first.
    pub fn on(&self, machine: &MachineName, group: Option<&RolloutName>) -> Option<Held> {
        if let Some(why) = &self.unreadable {
            return Some(Held::BrakeUnreadable { why: why.clone() });
        }
        let holds = self.holds.iter().filter(|hold| match &hold.scope {
            HoldScope::All => true,
            HoldScope::Group(held) => group.map_or(held.as_str() == DEFAULT_GROUP, |group| group == held),
            HoldScope::Machine(held) => held == machine,
        });
        holds.min_by(|one, other| one.scope.cmp(&other.scope)).map(|hold| Held::OnHold { hold: hold.clone() })
    }
}

impl HoldScope {
    /// As `rackwright hold` and `rackwright unhold` take it.
    pub fn as_arguments(&self) -> String {
        match self {
            HoldScope::All => "--all".to_owned(),
            HoldScope::Group(group) => format!("--group {group}"),
            HoldScope::Machine(machine) => machine.to_string(),
        }
    }
}

impl fmt::Display for HoldScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HoldScope::All => f.write_str("all machines"),
            HoldScope::Group(group) => write!(f, "group {group}"),
            HoldScope::Machine(machine) => write!(f, "{machine}"),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} held by {} since {:.0}", self.scope, self.by, self.at)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}
