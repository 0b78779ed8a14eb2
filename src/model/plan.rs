//! A plan: every step, its reason, its risk, its order, and every step that was not allowed, with why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    AttemptId, Commit, DriftClass, Generation, Held, ImageName, MachineName, Problem, Reason, RolloutName, SignedDuration, Step, Ticket,
    Timestamp, WipeMethod,
};

/// An immutable value. Executing it takes no decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The commit whose fleet it makes true.
    pub commit: Commit,
    /// When it was made.
    pub at: Timestamp,
    /// One entry for each machine of the fleet and each that the journal still knows. Nobody is simply absent.
    pub machines: BTreeMap<MachineName, MachinePlan>,
    /// What is wrong with the repository.
    pub problems: Vec<Problem>,
    /// Groups, with what their budgets allow and use.
    pub groups: Vec<GroupPlan>,
    /// Racks, and values of labels by which budgets count, in which the commit asks for reinstalls.
    #[serde(default)]
    pub domains: Vec<DomainPlan>,
    /// How long the reinstalls may take, if the journal knows of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

/// How long the reinstalls of a plan may take, from the journal's own history: if none fails and no window, hold or approval is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Machines whose last finished install it rests on.
    pub installs: u32,
    /// The quickest of these.
    pub quickest: SignedDuration,
    /// Their median.
    pub median: SignedDuration,
    /// The slowest of these.
    pub slowest: SignedDuration,
    /// What is still to be done.
    pub waves: Vec<WaveTime>,
    /// Until the last machine is done; groups that do not wait for each other go on side by side.
    pub in_all: SignedDuration,
}

/// How long one wave may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveTime {
    /// The group.
    pub group: String,
    /// The wave, from 1.
    pub wave: u32,
    /// How many the group has.
    pub of: u32,
    /// Machines that it still has to do.
    pub machines: u32,
    /// For these.
    pub lasts: SignedDuration,
    /// Until the next wave begins; zero if none does.
    pub soaks: SignedDuration,
}

impl Plan {
    /// All steps, in the order of machines.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.machines.values().flat_map(|machine| &machine.steps)
    }

    /// Whether nothing is to be done, not even to be noted such as a release, and nothing is held.
    pub fn is_empty(&self) -> bool {
        self.machines.values().all(|machine| machine.steps.is_empty() && machine.held.is_empty())
    }
}

/// What one machine goes through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachinePlan {
    /// The machine.
    pub name: MachineName,
    /// Its group, if a rollout selects it.
    pub group: Option<RolloutName>,
    /// Where its manifest stands; empty for a machine that left.
    pub source: String,
    /// Field by field, desired against observed.
    pub drift: Vec<Drift>,
    /// What to do now. Executed in order; the next turn plans the rest.
    pub steps: Vec<Step>,
    /// What is not done, and why.
    pub held: Vec<Held>,
    /// What it waits for, if an install is on its way or a correction is settling.
    pub waiting: Option<Waiting>,
    /// The install that is on its way, or the last one.
    pub attempt: Option<AttemptId>,
    /// The generation that its disk should have.
    pub desired: Option<Generation>,
    /// The generation that its disk is known to have.
    pub installed: Option<Generation>,
    /// Its disk holds another configuration than declared, and no install comes for that alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub next_install: bool,
    /// The ticket that the boot server should serve.
    pub ticket: Option<Box<Ticket>>,
    /// For a reviewer: the reinstall or wipe that this commit means for the machine, begun or not.
    pub reimage: Option<Box<Reimaging>>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What a reinstall or a wipe would do to a machine, for a reviewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reimaging {
    /// Why.
    pub reason: Reason,
    /// The image it gets; `None` for a wipe.
    pub image: Option<ImageName>,
    /// How it is wiped, for a wipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<WipeMethod>,
    /// The disk that loses its data, as the manifest's hint says it; for a wipe, the disks in words.
    pub disk: String,
}

/// A wait that is in order, and its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For what.
    pub why: String,
    /// After this it counts as failed. `None`: it may wait for ever, and `why` says why.
    pub until: Option<Timestamp>,
}

/// One field that is not as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Its class, which has a policy; `None` for identity, and for a disk that is to be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<DriftClass>,
    /// The manifest's path, such as `spec.power`.
    pub field: String,
    /// What the manifest says.
    pub desired: String,
    /// What was seen, or why it is unknown.
    pub observed: String,
    /// Where it was seen: a BMC's address, `agent`, `call-home`.
    pub source: String,
    /// How old the observation was when the plan was made.
    pub age: SignedDuration,
}

/// What a group's budgets allow and use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// The group; machines that no rollout selects are `default`.
    pub name: String,
    /// Machines in it.
    pub total: u32,
    /// Machines with what they should have, and available.
    pub ready: u32,
    /// Unavailable because of us, now.
    pub unavailable: u32,
    /// Most that may be unavailable.
    pub unavailable_allowed: u32,
    /// Reinstalls that this commit asks for in all, done ones included.
    pub destructive: u32,
    /// Most that one commit may ask for.
    pub destructive_allowed: u32,
    /// Who approved that the commit asks for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Failures under this commit.
    pub failures: u32,
    /// Where it stands, if its rollout has waves and this commit began one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<WavePlan>,
}

/// What the budgets of a rack, or of a value of a label, allow and use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainPlan {
    /// `rack a`, or `feed=a1`.
    pub name: String,
    /// Machines in it.
    pub total: u32,
    /// Unavailable because of us, now.
    pub unavailable: u32,
    /// Most that may be unavailable, if a budget counts by it.
    pub unavailable_allowed: Option<u32>,
    /// Reinstalls that this commit asks for in all, done ones included.
    pub destructive: u32,
}

/// Where a group stands in its waves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WavePlan {
    /// The wave of the machine that was begun last, from 1.
    pub wave: u32,
    /// How many there are, the rest of the group included.
    pub of: u32,
    /// Machines that this commit began.
    pub begun: u32,
}
