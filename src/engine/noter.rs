//! When a note is written: on edges of the status, at most every so often, and a last word for each commit. A note that
//! can't be pushed never holds up a turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    Live, Owed,
    note::{self, Last},
    source::chain,
};
use crate::{
    model::{CommitId, MachineName, SiteName, State, Status, Timestamp},
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

/// A note that is to be written.
#[derive(Clone)]
struct Note {
    text: String,
    /// Whether it is the last one of its commit, so that nothing is owed to that then.
    is_last: bool,
}

/// Hands notes to a writer in the background.
pub struct Noter {
    site: SiteName,
    queue: mpsc::UnboundedSender<(CommitId, Note)>,
    last: Option<Edge>,
    last_status: Option<Arc<Status>>,
    trouble: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Noter {
    /// Begins with the last notes that an earlier process, or this one before it could write any, was owing.
    pub(super) fn start(site: SiteName, live: Arc<Live>, notes: Arc<dyn Notes>, every: Duration, now: Timestamp) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (troubles, trouble) = watch::channel(None);
        let (owed, in_force) = (live.ledger.owed(), live.ledger.in_force());
        let task = tokio::spawn(write_all(notes, live, waiting, troubles, every));
        let noter = Self { site, queue, last: None, last_status: None, trouble, task };
        // One that is in force has its last note still before it.
        for Owed { commit, by, was_in_force } in owed.into_iter().filter(|owed| Some(owed.commit) != in_force) {
            noter.last_word(commit, by, if was_in_force { Last::Unknown } else { Last::Never }, now);
        }
        noter
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
    pub(super) fn superseded(&mut self, before: Option<CommitId>, skipped: &[CommitId], by: CommitId, at: Timestamp) {
        for commit in skipped.iter().filter(|commit| Some(**commit) != before) {
            self.last_word(*commit, by, Last::Never, at);
        }
        if let Some(before) = before {
            let last = self.last_status.as_deref().filter(|status| status.commit.id == before);
            self.last_word(before, by, last.map_or(Last::Unknown, Last::Known), at);
        }
    }

    fn last_word(&self, commit: CommitId, by: CommitId, last: Last<'_>, at: Timestamp) {
        self.queue_note(commit, Note { text: note::superseded(&self.site, by, last, at), is_last: true });
    }

    /// Writes any other note.
    pub(super) fn send(&self, commit: CommitId, text: String) {
        self.queue_note(commit, Note { text, is_last: false });
    }

    fn queue_note(&self, commit: CommitId, note: Note) {
        // The receiver lives as long as the task, which ends only with this sender.
        let _ = self.queue.send((commit, note));
    }

    /// Writes what is waiting, then ends.
    pub(super) async fn stop(mut self, patience: Duration) {
        drop(self.queue);
        if tokio::time::timeout(patience, &mut self.task).await.is_err() {
            // It holds the journal, which may be opened again.
            self.task.abort();
            tracing::warn!("the last notes could not be pushed in time; they are written at the next start");
        }
    }
}

async fn write_all(
    notes: Arc<dyn Notes>,
    live: Arc<Live>,
    mut waiting: mpsc::UnboundedReceiver<(CommitId, Note)>,
    troubles: watch::Sender<Option<String>>,
    every: Duration,
) {
    // One note a commit: a later text replaces an earlier one that was not pushed yet.
    let mut pending: BTreeMap<CommitId, Note> = BTreeMap::new();
    let mut pause = Duration::from_secs(1);
    let mut open = true;
    let mut next = Instant::now();
    while open || !pending.is_empty() {
        tokio::select! {
            note = waiting.recv(), if open => match note {
                Some((commit, note)) => { pending.insert(commit, note); }
                None => open = false,
            },
            () = tokio::time::sleep_until(if open { next } else { Instant::now() }), if !pending.is_empty() => {
                let batch = std::mem::take(&mut pending);
                let texts = batch.iter().map(|(commit, note)| (*commit, note.text.clone()));
                match notes.write(texts.collect()).await {
                    Ok(()) => {
                        pay(&live, &batch).await;
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
                        for (commit, note) in batch { pending.entry(commit).or_insert(note); }
                        next = Instant::now() + pause;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }
}

/// Nothing is owed any more to those that have their last note.
async fn pay(live: &Live, written: &BTreeMap<CommitId, Note>) {
    let last: BTreeSet<CommitId> = written.iter().filter(|(_, note)| note.is_last).map(|(commit, _)| *commit).collect();
    if let Err(error) = live.ledger.pay(&last).await {
        tracing::debug!(why = chain(&error), "last notes are written a second time after a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::support_tests::{self as testing, AT, Kept, id, until};

    /// Killed between the commit that took its place and the push.
    #[tokio::test]
    async fn a_last_note_that_was_not_pushed_is_written_after_a_restart() {
        let live = testing::empty().await;
        live.ledger.adopt(id(1), Vec::new()).await.unwrap();
        let owed = |number, was_in_force| Owed { commit: id(number), by: id(3), was_in_force };
        live.ledger.adopt(id(3), vec![owed(2, false), owed(1, true)]).await.unwrap();

        let notes = Arc::new(Kept::default());
        *notes.remote.lock().unwrap() = Some(true);
        let noter = Noter::start("lab".parse().unwrap(), live.clone(), notes.clone(), Duration::ZERO, AT);
        until(|| live.ledger.owed().is_empty()).await;
        let written = notes.written.lock().unwrap().clone();
        assert!(written[&id(1)].contains("It was in force here") && written[&id(2)].contains("It was never in force"), "{written:?}");
        assert!(written.values().all(|note| note.contains(&format!("Rackwright-Superseded-By: {}\n", id(3)))), "{written:?}");
        noter.stop(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn only_a_last_note_that_was_pushed_is_not_owed_any_more() {
        let live = testing::empty().await;
        live.ledger.adopt(id(1), Vec::new()).await.unwrap();
        let notes = Arc::new(Kept::default());
        let mut noter = Noter::start("lab".parse().unwrap(), live.clone(), notes.clone(), Duration::ZERO, AT);
        noter.send(id(1), "two of three".to_owned());
        let owed = Owed { commit: id(1), by: id(2), was_in_force: true };
        live.ledger.adopt(id(2), vec![owed.clone()]).await.unwrap();
        until(|| noter.trouble().is_some()).await;
        assert_eq!(live.ledger.owed(), [owed], "not pushed");
        *notes.remote.lock().unwrap() = Some(true);
        until(|| noter.trouble().is_none()).await;
        assert_eq!(notes.written.lock().unwrap()[&id(1)], "two of three");
        assert_eq!(live.ledger.owed().len(), 1, "that was not the last one");
        noter.superseded(Some(id(1)), &[], id(2), AT);
        until(|| live.ledger.owed().is_empty()).await;
        assert!(notes.written.lock().unwrap()[&id(1)].contains("Superseded"));
    }
}
