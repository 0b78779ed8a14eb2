//! What one more line of the journal says of a machine.

use std::collections::BTreeMap;

use super::{
    Action, Attempt, AttemptEnd, AttemptId, Basis, CommitId, Damping, Evidence, Fact, Generation, MachineHistory, Outcome, Reason,
    RetryClass, Rung, Step, Timestamp,
};

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

impl MachineHistory {
    pub(super) fn apply(&mut self, seq: u64, at: Timestamp, commit: CommitId, fact: &Fact) {
        match fact {
            Fact::Claimed { installed, hardware, basis, .. } => {
                self.claimed = Some(at);
                self.holds(*installed, *basis);
                self.hardware.clone_from(hardware);
            }
            Fact::HardwareChanged { hardware, .. } => self.hardware.clone_from(hardware),
            Fact::ConfigurationNoted { installed, basis, deferred, .. } => {
                if self.installed == Some(*installed) {
                    self.basis = Some(*basis);
                }
                self.deferred = deferred.map(|deferred| (*installed, deferred)).or(self.deferred);
            }
            Fact::Intended { step } => {
                self.corrected(at, step);
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
            Fact::Began { attempt, generation, basis } => self.attempts.push(Attempt {
                id: attempt.clone(),
                commit,
                generation: *generation,
                basis: *basis,
                began: at,
                seq,
                evidence: Vec::new(),
                reported: None,
                checks: BTreeMap::new(),
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
            Fact::Checked { attempt, check, ok, message } => self.checked(at, attempt, check, *ok, message),
            Fact::Concluded { attempt, end } => {
                if let Some(attempt) = self.attempt_mut(attempt) {
                    attempt.end = Some((at, end.clone()));
                }
            }
            Fact::Published { attempt, names, .. } => self.published(seq, at, attempt, names),
            Fact::ValuesLost { attempt, names, .. } => self.values_lost(at, attempt, names),
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
        let (generation, basis) = (attempt.generation, attempt.basis);
        match evidence.rung() {
            Rung::Writing if !written => {
                self.holds(None, None);
                self.published.clear();
            }
            Rung::Written if self.installed != Some(generation) => self.holds(Some(generation), basis),
            _ => {}
        }
    }

    /// A step that puts drift right, or tries to. What a commit or an install asked for is none.
    fn corrected(&mut self, at: Timestamp, step: &Step) {
        if !matches!(step.reason, Reason::PowerDrift { .. } | Reason::BootDrift { .. }) {
            return;
        }
        self.corrections.push((at, step.action.clone()));
        let same = |(_, action): &(Timestamp, Action)| *action == step.action;
        if self.corrections.iter().filter(|known| same(known)).count() > Damping::MOST as usize
            && let Some(oldest) = self.corrections.iter().position(same)
        {
            self.corrections.remove(oldest);
        }
    }

    /// Its disk holds something else now.
    fn holds(&mut self, installed: Option<Generation>, basis: Option<Basis>) {
        (self.installed, self.basis) = (installed, basis);
    }

    fn checked(&mut self, at: Timestamp, attempt: &AttemptId, check: &str, ok: bool, message: &str) {
        if let Some(attempt) = self.attempt_mut(attempt) {
            attempt.checked(at, check, ok, message);
        }
    }

    fn attempt_mut(&mut self, id: &AttemptId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.id == *id)
    }
}
