//! When a note is written: on edges of the status, at most every so often, and a last word for each commit. A note that
//! can't be pushed never holds up a turn.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{note, source::chain};
use crate::{
    model::{Commit, CommitId, MachineName, State, Status, Timestamp},
    ports::Notes,
};

/// Longest pause between two tries of a push that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What has to change for a note to be worth a push.
#[derive(PartialEq)]
struct Edge {
    commit: CommitId,
    state: State,
    trouble: bool,
    exceptions: Vec<(MachineName, State, String)>,
}

impl Edge {
    fn of(status: &Status) -> Self {
        let exceptions = status.machines.iter().filter(|(_, machine)| machine.state != State::Ready);
        Self {
            commit: status.commit.id,
            state: status.state,
            trouble: status.source_problem.is_some(),
            exceptions: exceptions.map(|(name, machine)| (name.clone(), machine.state, machine.reason.clone())).collect(),
        }
    }
}

/// Hands notes to a writer in the background.
pub struct Noter {
    queue: mpsc::UnboundedSender<(CommitId, String)>,
    last: Option<Edge>,
    last_status: Option<Arc<Status>>,
    trouble: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Noter {
    pub(super) fn start(notes: Arc<dyn Notes>, every: Duration) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (troubles, trouble) = watch::channel(None);
        let task = tokio::spawn(write_all(notes, waiting, troubles, every));
        Self { queue, last: None, last_status: None, trouble, task }
    }

    /// Why notes can't be pushed now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Writes the status if it is worth it.
    pub(super) fn status(&mut self, status: &Arc<Status>) {
        let edge = Edge::of(status);
        if self.last.as_ref() != Some(&edge) {
            self.send(status.commit.id, note::of_status(status));
            self.last = Some(edge);
        }
        self.last_status = Some(status.clone());
    }

    /// Gives `before` and `skipped` their last word.
    pub(super) fn superseded(&mut self, before: Option<CommitId>, skipped: &[CommitId], by: &Commit, status: &Status, at: Timestamp) {
        for commit in skipped.iter().filter(|commit| Some(**commit) != before) {
            self.send(*commit, note::superseded(&status.site, by, None, at));
        }
        if let Some(before) = before {
            let last = self.last_status.as_deref().filter(|status| status.commit.id == before);
            self.send(before, note::superseded(&status.site, by, last.or(Some(status)), at));
        }
    }

    /// Writes any other note.
    pub(super) fn send(&self, commit: CommitId, text: String) {
        // The receiver lives as long as the task, which ends only with this sender.
        let _ = self.queue.send((commit, text));
    }

    /// Writes what is waiting, then ends.
    pub(super) async fn stop(self, patience: Duration) {
        drop(self.queue);
        if tokio::time::timeout(patience, self.task).await.is_err() {
            tracing::warn!("the last notes could not be pushed in time; they are written at the next start");
        }
    }
}

async fn write_all(
    notes: Arc<dyn Notes>,
    mut waiting: mpsc::UnboundedReceiver<(CommitId, String)>,
    troubles: watch::Sender<Option<String>>,
    every: Duration,
) {
    // One note a commit: a later text replaces an earlier one that was not pushed yet.
    let mut pending: BTreeMap<CommitId, String> = BTreeMap::new();
    let mut pause = Duration::from_secs(1);
    let mut open = true;
    let mut next = Instant::now();
    while open || !pending.is_empty() {
        tokio::select! {
            note = waiting.recv(), if open => match note {
                Some((commit, text)) => { pending.insert(commit, text); }
                None => open = false,
            },
            () = tokio::time::sleep_until(if open { next } else { Instant::now() }), if !pending.is_empty() => {
                let batch = std::mem::take(&mut pending);
                match notes.write(batch.clone().into_iter().collect()).await {
                    Ok(()) => {
                        troubles.send_replace(None);
                        pause = Duration::from_secs(1);
                        next = Instant::now() + every;
                    }
                    Err(error) => {
                        let text = chain(&error);
                        if troubles.send_replace(Some(text.clone())).as_ref() != Some(&text) {
                            tracing::warn!(why = text, class = ?error.class, "notes can't be pushed; machines are not affected");
                        }
                        if !open { return; }
                        // Newer texts win over those that could not be written.
                        for (commit, text) in batch { pending.entry(commit).or_insert(text); }
                        next = Instant::now() + pause;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }
}
