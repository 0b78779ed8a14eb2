//! What the journal holds: facts, in order, and what follows from them. No phase is stored; a fold over facts gives it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Action, AttemptEnd, AttemptId, Basis, Checked, CommitId, DiskProof, Evidence, Generation, HandoffName, MachineName, Outcome, Published,
    Rung, Step, Timestamp,
};

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The commit that was in force.
    pub commit: CommitId,
    /// What happened.
    pub fact: Fact,
}

/// What happened. Written before it has any effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "fact", rename_all_fields = "camelCase")]
pub enum Fact {
    /// A machine became ours.
    Claimed {
        /// The machine.
        machine: MachineName,
        /// What its disk was taken to hold; `None`: to be installed first.
        installed: Option<Generation>,
        /// Its hardware, so that a rename can be told from a replacement (law 4).
        hardware: Vec<String>,
        /// What of `installed` is not configuration; not known of what earlier releases claimed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<Basis>,
    },
    /// A machine left the fleet.
    Released {
        /// The machine.
        machine: MachineName,
    },
    /// A machine has another name.
    Renamed {
        /// The earlier name.
        from: MachineName,
        /// The name now.
        to: MachineName,
    },
    /// A machine's manifest states its hardware anew.
    HardwareChanged {
        /// The machine.
        machine: MachineName,
        /// Its hardware now.
        hardware: Vec<String>,
    },
    /// What is known of a machine's configuration where that alone does not reinstall it.
    ConfigurationNoted {
        /// The machine.
        machine: MachineName,
        /// What its disk holds, or is being written with.
        installed: Generation,
        /// What of that is not configuration.
        basis: Basis,
        /// The generation whose configuration comes with the next install.
        deferred: Option<Generation>,
    },
    /// A step is about to be executed.
    Intended {
        /// The step.
        step: Step,
    },
    /// The step whose intention has this number ended.
    Ended {
        /// The machine.
        machine: MachineName,
        /// `seq` of the intention.
        intention: u64,
        /// How.
        outcome: Outcome,
    },
    /// An attempt began.
    Began {
        /// The attempt.
        attempt: AttemptId,
        /// What it installs.
        generation: Generation,
        /// What of that is not configuration; not known of attempts of earlier releases.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<Basis>,
    },
    /// Evidence of an attempt.
    Saw {
        /// The attempt.
        attempt: AttemptId,
        /// The evidence.
        evidence: Evidence,
    },
    /// The agent, or a step, reported that an attempt can't succeed.
    Reported {
        /// The attempt.
        attempt: AttemptId,
        /// Whether the disk's old content may be gone.
        wrote: bool,
        /// A stable name of the failure.
        code: String,
        /// Why.
        why: String,
    },
    /// The installed system reported a check of its own. The last word on each check counts.
    Checked {
        /// The attempt that installed it.
        attempt: AttemptId,
        /// The check's name.
        check: String,
        /// Whether it passed.
        ok: bool,
        /// What it found.
        message: String,
    },
    /// An attempt ended.
    Concluded {
        /// The attempt.
        attempt: AttemptId,
        /// How.
        end: AttemptEnd,
    },
    /// An installed system published values for others. They are kept elsewhere; only their names are here (law 14).
    Published {
        /// The machine.
        machine: MachineName,
        /// The attempt that installed that system.
        attempt: AttemptId,
        /// What was published.
        names: BTreeSet<HandoffName>,
    },
    /// Published values are not there any more, although nobody withdrew them.
    ValuesLost {
        /// The machine.
        machine: MachineName,
        /// The attempt whose system published them.
        attempt: AttemptId,
        /// Which.
        names: BTreeSet<HandoffName>,
    },
}

impl Fact {
    /// The machine that it is about.
    pub fn machine(&self) -> &MachineName {
        match self {
            Fact::Claimed { machine, .. }
            | Fact::Released { machine }
            | Fact::HardwareChanged { machine, .. }
            | Fact::Published { machine, .. }
            | Fact::ValuesLost { machine, .. }
            | Fact::ConfigurationNoted { machine, .. }
            | Fact::Ended { machine, .. } => machine,
            Fact::Renamed { to, .. } => to,
            Fact::Intended { step } => &step.machine,
            Fact::Began { attempt, .. }
            | Fact::Saw { attempt, .. }
            | Fact::Reported { attempt, .. }
            | Fact::Checked { attempt, .. }
            | Fact::Concluded { attempt, .. } => &attempt.machine,
        }
    }
}

/// What follows from the journal: per machine, what is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Machines that are ours, or were. A released machine is gone from here.
    pub machines: BTreeMap<MachineName, MachineHistory>,
    /// For each name that belonged to another machine before: the highest number of an attempt under it. An attempt's tokens follow
    /// from its name and number, so a number never comes a second time.
    pub numbers: BTreeMap<MachineName, u32>,
    /// `seq` of the last record.
    pub seq: u64,
    /// When the last record was written, by the clock as it is set now.
    pub at: Option<Timestamp>,
    /// True when the journal is empty although notes of ours exist.
    pub lost: bool,
    /// By group (a rollout's name, empty for machines without one): earlier commits whose rollout the commit in force goes on with, so that
    /// what they began counts in its waves. Kept beside the facts.
    pub goes_on: BTreeMap<String, BTreeSet<CommitId>>,
}

/// What is known of one machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MachineHistory {
    /// When it became ours.
    pub claimed: Option<Timestamp>,
    /// Serial, UUID and MACs as its manifest stated them last, as `serial:…`, `uuid:…`, `mac:…`.
    pub hardware: Vec<String>,
    /// The highest number of an attempt of another machine that had this name before.
    pub before: u32,
    /// What its disk is known to hold. `None`: never installed, or an install began to write and did not finish.
    pub installed: Option<Generation>,
    /// What of that is not configuration, if that is known.
    pub basis: Option<Basis>,
    /// A generation, and the one that was declared while the disk held it or was being written with it, and differs from it in
    /// configuration alone: that comes with the next install.
    pub deferred: Option<(Generation, Generation)>,
    /// Attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// The step that was begun and whose end is not recorded, with the number of its intention.
    pub pending: Option<(u64, Timestamp, Step)>,
    /// The last step that ended, when, and how.
    pub last: Option<(Timestamp, Step, Outcome)>,
    /// When its power was last changed by us.
    pub power_changed: Option<Timestamp>,
    /// Corrections of drift, oldest first: when each was begun, and what it was. At most [`Damping::MOST`] of each kind.
    pub corrections: Vec<(Timestamp, Action)>,
    /// The last step that changed its power, and when.
    pub switched: Option<(Timestamp, Step)>,
    /// Later steps that may have changed its power, the last of each kind, and when they were begun: their end was not recorded, or the
    /// BMC did not answer in time.
    pub unsure: Vec<(Timestamp, Step)>,
    /// Values that the system on its disk published. Gone with that system.
    pub published: BTreeMap<HandoffName, Published>,
}

/// One attempt at an install or a wipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The commit that wanted it.
    pub commit: CommitId,
    /// What it installs.
    pub generation: Generation,
    /// What of that is not configuration, if that is known.
    pub basis: Option<Basis>,
    /// When it began.
    pub began: Timestamp,
    /// Number of the record that says so.
    pub seq: u64,
    /// Evidence, in order.
    pub evidence: Vec<(Timestamp, Evidence)>,
    /// A failure that the agent or a step reported.
    pub reported: Option<(Timestamp, AttemptEnd)>,
    /// What the installed system said of its own checks last, by name.
    pub checks: BTreeMap<String, Checked>,
    /// How it ended, and when.
    pub end: Option<(Timestamp, AttemptEnd)>,
}

impl Attempt {
    /// When `rung` was first reached.
    pub fn reached(&self, rung: Rung) -> Option<Timestamp> {
        self.evidence.iter().find(|(_, evidence)| evidence.rung() == rung).map(|(at, _)| *at)
    }

    pub(super) fn checked(&mut self, at: Timestamp, check: &str, ok: bool, message: &str) {
        let before = self.checks.get(check);
        let words = before.map_or(0, |before| before.words).saturating_add(1);
        let passed = if ok { Some(at) } else { before.and_then(|before| before.passed) };
        self.checks.insert(check.to_owned(), Checked { at, ok, message: message.to_owned(), passed, words });
    }

    /// Whether the disk's old content may be gone.
    pub fn wrote(&self) -> bool {
        self.reached(Rung::Writing).is_some()
    }
}

impl MachineHistory {
    /// The last attempt that wiped its disks for `generation` and proved it, if that is what they are since.
    pub fn wiped(&self, generation: Generation) -> Option<(&Attempt, Timestamp, &[DiskProof])> {
        let own = self.attempts.iter().rev().filter(|attempt| attempt.generation == generation && self.installed == Some(generation));
        let mut proofs = own.flat_map(|attempt| attempt.evidence.iter().map(move |(at, evidence)| (attempt, *at, evidence)));
        proofs.find_map(|(attempt, at, evidence)| match evidence {
            Evidence::Wiped { proof } => Some((attempt, at, proof.as_slice())),
            _ => None,
        })
    }

    /// The attempt that has not ended.
    pub fn open_attempt(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|attempt| attempt.end.is_none())
    }

    /// Steps that may have changed its power, or may yet, after the last that is known to have, newest first: when each was begun.
    pub fn unsure_power(&self) -> impl Iterator<Item = (Timestamp, &Step)> {
        let pending = self.pending.iter().filter(|(_, _, step)| step.action.changes_power()).map(|(_, at, step)| (*at, step));
        pending.chain(self.unsure.iter().rev().map(|(at, step)| (*at, step)))
    }

    /// The number of the next attempt.
    pub fn next_attempt(&self) -> u32 {
        self.attempts.last().map_or(self.before, |attempt| attempt.id.number.max(self.before)).saturating_add(1)
    }
}

impl History {
    /// What follows from all records, oldest first.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut history = Self::default();
        for record in records {
            history.apply(record);
        }
        history
    }

    /// Adds one record.
    pub fn apply(&mut self, record: &Record) {
        self.seq = record.seq;
        let at = record.at;
        // Written after the others, and before them by the clock: it was set back in between.
        self.not_after(at);
        self.at = self.at.max(Some(at));
        match &record.fact {
            Fact::Released { machine } => {
                self.leave(machine);
            }
            Fact::Renamed { from, to } => {
                if let Some(machine) = self.leave(from) {
                    self.leave(to);
                    let before = machine.before.max(self.before(to));
                    self.machines.insert(to.clone(), MachineHistory { before, ..machine });
                }
            }
            fact => {
                let name = fact.machine();
                // Only a claim makes a machine ours: a late word on an attempt, under a name that is another's now, does not.
                if let Fact::Claimed { .. } = fact {
                    let before = self.before(name);
                    self.machines.entry(name.clone()).or_insert_with(|| MachineHistory { before, ..MachineHistory::default() });
                }
                if let Some(machine) = self.machines.get_mut(name) {
                    machine.apply(record.seq, at, record.commit, fact);
                }
            }
        }
    }

    /// Takes a machine from its name, and keeps the highest number that was used under it.
    fn leave(&mut self, name: &MachineName) -> Option<MachineHistory> {
        let machine = self.machines.remove(name)?;
        let last = machine.next_attempt() - 1;
        if last > 0 {
            let kept = self.numbers.entry(name.clone()).or_default();
            *kept = last.max(*kept);
        }
        Some(machine)
    }

    fn before(&self, name: &MachineName) -> u32 {
        self.numbers.get(name).copied().unwrap_or(0)
    }
}
