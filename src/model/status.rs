//! The roll-up of a turn: per machine, per group, for the fleet. Worst wins.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Brake, Commit, Generation, MachineName, Problem, Progress, Rung, SiteName, Timestamp};

/// State of a machine, a group or the fleet. Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
pub enum State {
    /// As declared.
    Ready,
    /// On its way to what is declared.
    Reconciling,
    /// Stands still until a person does something.
    Stalled,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Ready => "Ready",
            State::Reconciling => "Reconciling",
            State::Stalled => "Stalled",
        })
    }
}

/// The state of everything at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The controller's site.
    pub site: SiteName,
    /// The commit in force.
    pub commit: Commit,
    /// When it was made.
    pub at: Timestamp,
    /// Worst of all.
    pub state: State,
    /// Machines that are Ready.
    pub ready: u32,
    /// Machines.
    pub total: u32,
    /// Machines by name.
    pub machines: BTreeMap<MachineName, MachineStatus>,
    /// Why a newer commit is not in force, or why the repository can't be read.
    pub source_problem: Option<String>,
    /// Why the journal can't be written. Nothing is done to any machine then.
    #[serde(default)]
    pub journal_problem: Option<String>,
    /// Why notes can't be pushed. Machines are not affected.
    #[serde(default)]
    pub notes_problem: Option<String>,
    /// What is wrong in the newest commit.
    pub problems: Vec<Problem>,
    /// What somebody on the controller's host stopped by hand.
    #[serde(default, skip_serializing_if = "Brake::is_off")]
    pub brake: Brake,
}

impl MachineStatus {
    /// The reason of a machine that was wiped and is off for good.
    pub const DECOMMISSIONED: &str = "Decommissioned";

    /// Whether people who look at the fleet are told of it: what is not Ready, and what was wiped and waits for its manifest to go.
    pub fn is_told(&self) -> bool {
        self.state != State::Ready || self.reason == Self::DECOMMISSIONED
    }
}

/// The state of one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// Its state.
    pub state: State,
    /// A stable name of the reason, in CamelCase, such as `Quarantined` or `PowerDrift`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Its group, or `default`.
    pub group: String,
    /// Power as last seen, `On`, `Off`, or `unknown`.
    pub power: String,
    /// The name of the image that it should have.
    pub image: Option<String>,
    /// The generation that its disk is known to have.
    pub generation: Option<Generation>,
    /// The last rung reached, while an install is on its way.
    pub rung: Option<Rung>,
    /// How far the agent is, while it works.
    pub progress: Option<Progress>,
    /// How often its disk was written by us, as far as the journal knows.
    pub writes: u32,
}
