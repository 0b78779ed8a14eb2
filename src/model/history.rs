//! What the journal holds: facts, in order, and what follows from them. No phase is stored; a fold over facts gives it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AttemptEnd, AttemptId, CommitId, DiskProof, Evidence, Generation, MachineName, Outcome, RetryClass, Rung, Step, Timestamp};

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
    /// An attempt ended.
    Concluded {
        /// The attempt.
        attempt: AttemptId,
        /// How.
        end: AttemptEnd,
    },
}

impl Fact {
    /// The machine that it is about.
    pub fn machine(&self) -> &MachineName {
        match self {
            Fact::Claimed { machine, .. }
            | Fact::Released { machine }
            | Fact::HardwareChanged { machine, .. }
            | Fact::Ended { machine, .. } => machine,
            Fact::Renamed { to, .. } => to,
            Fact::Intended { step } => &step.machine,
            Fact::Began { attempt, .. } | Fact::Saw { attempt, .. } | Fact::Reported { attempt, .. } | Fact::Concluded { attempt, .. } => {
                &attempt.machine
            }
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
    /// True when the journal is empty although notes of ours exist.
    pub lost: bool,
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
    /// Attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// The step that was begun and whose end is not recorded, with the number of its intention.
    pub pending: Option<(u64, Timestamp, Step)>,
    /// The last step that ended, when, and how.
    pub last: Option<(Timestamp, Step, Outcome)>,
    /// When its power was last changed by us.
    pub power_changed: Option<Timestamp>,
    /// The last step that changed its power, and when.
    pub switched: Option<(Timestamp, Step)>,
    /// Later steps that may have changed its power, the last of each kind, and when they were begun: their end was not recorded, or the
    /// BMC did not answer in time.
    pub unsure: Vec<(Timestamp, Step)>,
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
    /// When it began.
    pub began: Timestamp,
    /// Evidence, in order.
    pub evidence: Vec<(Timestamp, Evidence)>,
    /// A failure that the agent or a step reported.
    pub reported: Option<(Timestamp, AttemptEnd)>,
    /// How it ended, and when.
    pub end: Option<(Timestamp, AttemptEnd)>,
}

/// Whether another attempt at the same generation may go better after a failure that an agent or a step reported.
///
/// What lies in the machine or in the image is the same the next time; what lies between them may not be. A failure that nobody here
/// knows is tried again only while the disk is untouched.
fn retry_may_help(code: &str, wrote: bool) -> bool {
    match code {
        "disk-write" | "disk-read" | "disk-open" | "disk-list" | "verify-failed" | "wrong-digest" | "image-corrupt" | "no-disk-matches"
        | "two-disks-match" | "disk-kept" | "disk-too-small" | "disk-sector-size" | "identity" | "agent-refused" | "no-seed-partition"
        | "seed-too-large" | "two-hints-one-disk" | "keep-unclear" | "disk-read-only" | "disk-remote" | "disk-size"
        | "wipe-unsupported" | "wipe-shared" | "disk-frozen" | "disk-locked" | "erase-failed" | "not-wiped" => false,
        "image-unavailable" | "image-changed" | "network" | "stream" | "timeout" | "restarted-while-writing" => true,
        _ => !wrote,
    }
}

impl Attempt {
    /// When `rung` was first reached.
    pub fn reached(&self, rung: Rung) -> Option<Timestamp> {
        self.evidence.iter().find(|(_, evidence)| evidence.rung() == rung).map(|(at, _)| *at)
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

impl MachineHistory {
    fn apply(&mut self, seq: u64, at: Timestamp, commit: CommitId, fact: &Fact) {
        match fact {
            Fact::Claimed { installed, hardware, .. } => {
                self.claimed = Some(at);
                self.installed = *installed;
                self.hardware.clone_from(hardware);
            }
            Fact::HardwareChanged { hardware, .. } => self.hardware.clone_from(hardware),
            Fact::Intended { step } => {
                if let Some((_, at, forgotten)) = self.pending.replace((seq, at, step.clone())) {
                    self.is_unsure(at, forgotten);
                }
            }
            Fact::Ended { intention, outcome, .. } => {
                let ended = self.pending.take_if(|(pending, _, _)| pending == intention);
                if let Some((_, begun, step)) = ended {
                    self.ended(at, begun, &step, outcome);
                    self.last = Some((at, step, outcome.clone()));
                }
            }
            Fact::Began { attempt, generation } => self.attempts.push(Attempt {
                id: attempt.clone(),
                commit,
                generation: *generation,
                began: at,
                evidence: Vec::new(),
                reported: None,
                end: None,
            }),
            Fact::Saw { attempt, evidence } => self.saw(at, attempt, evidence),
            Fact::Reported { attempt, code, why, wrote } => {
                if let Some(attempt) = self.attempt_mut(attempt) {
                    let retry = retry_may_help(code, *wrote);
                    let end = AttemptEnd::Failed { code: code.clone(), why: why.clone(), retry };
                    attempt.reported.get_or_insert((at, end));
                }
            }
            Fact::Concluded { attempt, end } => {
                if let Some(attempt) = self.attempt_mut(attempt) {
                    attempt.end = Some((at, end.clone()));
                }
            }
            Fact::Released { .. } | Fact::Renamed { .. } => {}
        }
    }

    fn ended(&mut self, at: Timestamp, begun: Timestamp, step: &Step, outcome: &Outcome) {
        match outcome {
            _ if !step.action.changes_power() => {}
            Outcome::Done => {
                self.power_changed = Some(at);
                self.switched = Some((at, step.clone()));
                self.unsure.clear();
            }
            // A BMC that did not answer in time may have heard.
            Outcome::Failed { class: RetryClass::Wait, .. } => self.is_unsure(begun, step.clone()),
            Outcome::Failed { .. } | Outcome::Blocked { .. } | Outcome::Waiting { .. } => {}
        }
    }

    fn is_unsure(&mut self, begun: Timestamp, step: Step) {
        if step.action.changes_power() {
            self.unsure.retain(|(_, known)| known.action != step.action);
            self.unsure.push((begun, step));
        }
    }

    fn saw(&mut self, at: Timestamp, id: &AttemptId, evidence: &Evidence) {
        let Some(attempt) = self.attempt_mut(id) else { return };
        // A word that comes again says nothing new of the disk.
        let written = attempt.reached(Rung::Written).is_some();
        attempt.evidence.push((at, evidence.clone()));
        let generation = attempt.generation;
        match evidence.rung() {
            Rung::Writing if !written => self.installed = None,
            Rung::Written => self.installed = Some(generation),
            _ => {}
        }
    }

    fn attempt_mut(&mut self, id: &AttemptId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.id == *id)
    }
}
