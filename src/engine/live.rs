//! What the engine knows now, shared with the boot server (which tells it evidence) and the API (which reads it).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use super::{Ledger, observe::Observations};
use crate::{
    model::{AttemptId, Evidence, Fact, History, MachineName, Plan, Progress, Status, Timestamp},
    ports::{Clock, Journal, JournalError, Witness, WitnessError},
};

/// What a turn found: the plan that it executed and the status after it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The status.
    pub status: Arc<Status>,
}

/// Everything that lives longer than a turn.
pub struct Live {
    /// Journal and history.
    pub ledger: Ledger,
    /// What was last seen of each machine.
    pub seen: Observations,
    pub(super) wake: Notify,
    pub(super) view: watch::Sender<Option<View>>,
    progress: Mutex<BTreeMap<AttemptId, (Timestamp, Progress)>>,
    clock: Arc<dyn Clock>,
}

impl Live {
    /// Reads the journal.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, JournalError> {
        Ok(Arc::new(Self {
            ledger: Ledger::open(journal).await?,
            seen: Observations::default(),
            wake: Notify::new(),
            view: watch::Sender::new(None),
            progress: Mutex::default(),
            clock,
        }))
    }

    /// What the last turn found; `None` before the first.
    pub fn view(&self) -> watch::Receiver<Option<View>> {
        self.view.subscribe()
    }

    /// The last progress of each open attempt.
    pub fn progress_now(&self) -> BTreeMap<AttemptId, (Timestamp, Progress)> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last turn's status with what agents told since.
    pub fn status_now(&self) -> Option<Arc<Status>> {
        let View { plan, status } = self.view.borrow().clone()?;
        let progress = self.progress_now();
        if progress.is_empty() {
            return Some(status);
        }
        let mut status = status.as_ref().clone();
        for (name, machine) in &mut status.machines {
            let attempt = plan.machines.get(name).and_then(|planned| planned.attempt.as_ref());
            if let (Some((_, progress)), Some(_)) = (attempt.and_then(|attempt| progress.get(attempt)), machine.rung) {
                machine.progress = Some(*progress);
            }
        }
        Some(Arc::new(status))
    }

    pub(super) fn forget_progress(&self, keep: impl Fn(&AttemptId) -> bool) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).retain(|attempt, _| keep(attempt));
    }
}

impl From<JournalError> for WitnessError {
    fn from(error: JournalError) -> Self {
        WitnessError::Journal(error)
    }
}

/// Whether `evidence` is to be written down for `attempt`: `Ok(false)` when the same was written before.
fn is_new(history: &History, attempt: &AttemptId, evidence: &Evidence) -> Result<bool, WitnessError> {
    let not_open = || WitnessError::NotOpen { attempt: attempt.clone() };
    let machine = history.machines.get(&attempt.machine).ok_or_else(not_open)?;
    let open = machine.open_attempt().filter(|open| open.id.number == attempt.number).ok_or_else(not_open)?;
    let same_rung = open.evidence.iter().filter(|(_, known)| known.rung() == evidence.rung());
    for (_, known) in same_rung {
        match (known, evidence) {
            // A machine that restarts asks for everything again; the ladder keeps the first time of each rung.
            (Evidence::AgentUp { boot_id: known, .. }, Evidence::AgentUp { boot_id, .. }) if known != boot_id => {}
            // Two starts of one machine must never both write (law 10).
            // Nor one start to two disks, nor any after a failure was reported: its answer may only have been lost on the way.
            (Evidence::Writing { .. }, Evidence::Writing { .. }) if known != evidence || open.reported.is_some() => return Err(not_open()),
            _ => return Ok(false),
        }
    }
    // After a failure was reported nothing may begin to write under this attempt.
    if open.reported.is_some() { Err(not_open()) } else { Ok(true) }
}

#[async_trait]
impl Witness for Live {
    async fn saw(&self, attempt: &AttemptId, evidence: Evidence) -> Result<(), WitnessError> {
        let rung = evidence.rung();
        let now = self.clock.now();
        let written = self
            .ledger
            .decide::<WitnessError>(now, |history| {
                if !is_new(history, attempt, &evidence)? {
                    return Ok(None);
                }
                let commit = commit_of(history, attempt)?;
                Ok(Some((commit, Fact::Saw { attempt: attempt.clone(), evidence })))
            })
            .await?;
        if written {
            tracing::info!(%attempt, %rung, "evidence");
            self.wake.notify_one();
        }
        Ok(())
    }

    async fn failed(&self, attempt: &AttemptId, wrote: bool, code: &str, why: &str) -> Result<(), WitnessError> {
        let now = self.clock.now();
        let written = self
            .ledger
            .decide::<WitnessError>(now, |history| {
                let commit = commit_of(history, attempt)?;
                let open = history.machines.get(&attempt.machine).and_then(|machine| machine.open_attempt());
                if open.is_none_or(|open| open.id.number != attempt.number) {
                    return Err(WitnessError::NotOpen { attempt: attempt.clone() });
                }
                if open.is_some_and(|open| open.reported.is_some()) {
                    return Ok(None);
                }
                let fact = Fact::Reported { attempt: attempt.clone(), wrote, code: code.to_owned(), why: why.to_owned() };
                Ok(Some((commit, fact)))
            })
            .await?;
        if written {
            tracing::warn!(%attempt, wrote, code, why, "install failed");
            self.wake.notify_one();
        }
        Ok(())
    }

    fn progress(&self, attempt: &AttemptId, progress: Progress) {
        let now = self.clock.now();
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt.clone(), (now, progress));
    }

    fn refused(&self, machine: Option<&MachineName>, what: &str) {
        tracing::info!(machine = machine.map(tracing::field::display), what, "network boot refused");
    }
}

fn commit_of(history: &History, attempt: &AttemptId) -> Result<crate::model::CommitId, WitnessError> {
    history
        .machines
        .get(&attempt.machine)
        .and_then(|machine| machine.attempts.iter().find(|known| known.id.number == attempt.number))
        .map(|known| known.commit)
        .ok_or_else(|| WitnessError::NotOpen { attempt: attempt.clone() })
}
