//! The journal and what follows from it, kept in step.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use super::source::chain;
use crate::{
    model::{CommitId, Fact, History, MachineName, Record, RetryClass, Timestamp},
    ports::{Journal, JournalError},
};

/// The key under which the journal keeps its last trouble.
const TROUBLE: &str = "journal-trouble";

/// The journal with its [`History`] in memory. A fact is in the journal before it is in the history.
pub struct Ledger {
    journal: Arc<dyn Journal>,
    known: Arc<Mutex<Known>>,
    /// Serialises appends, so that the history is applied in the order of the journal.
    order: Arc<tokio::sync::Mutex<()>>,
    /// Why the last write failed.
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct Known {
    history: History,
    /// Number of the last record about each machine, under each name that it had.
    newest: BTreeMap<MachineName, u64>,
}

impl Known {
    fn apply(&mut self, record: &Record) {
        self.history.apply(record);
        for machine in named(&record.fact) {
            self.newest.insert(machine.clone(), record.seq);
        }
    }
}

/// The machines that a fact is about.
fn named(fact: &Fact) -> impl Iterator<Item = &MachineName> {
    let former = match fact {
        Fact::Renamed { from, .. } => Some(from),
        _ => None,
    };
    former.into_iter().chain([fact.machine()])
}

impl Ledger {
    /// Reads the journal.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(journal: Arc<dyn Journal>) -> Result<Self, JournalError> {
        let mut known = Known::default();
        journal.records().await?.iter().for_each(|record| known.apply(record));
        Ok(Self { journal, known: Arc::new(Mutex::new(known)), order: Arc::default(), trouble: Mutex::default() })
    }

    /// Reads the history. Don't hold it across an await.
    pub fn with<T>(&self, read: impl FnOnce(&History) -> T) -> T {
        read(&lock(&self.known).history)
    }

    /// Notes that there was a journal before this empty one: nothing is installed on claim then.
    pub fn mark_lost(&self) {
        lock(&self.known).history.lost = true;
    }

    /// Appends `facts` as one transaction and applies them.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing happened.
    pub async fn append(&self, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, JournalError> {
        let turn = self.order.clone().lock_owned().await;
        self.append_in_turn(turn, at, commit, facts).await
    }

    /// Appends what was decided on the history as it was at record `since`, except for machines of which something newer is known
    /// by now: for them it has to be decided anew.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing happened.
    pub async fn append_decided(
        &self,
        at: Timestamp,
        commit: CommitId,
        since: u64,
        mut facts: Vec<Fact>,
    ) -> Result<Vec<Record>, JournalError> {
        let turn = self.order.clone().lock_owned().await;
        {
            let known = lock(&self.known);
            let unchanged = |machine: &MachineName| known.newest.get(machine).is_none_or(|newest| *newest <= since);
            facts.retain(|fact| named(fact).all(unchanged));
        }
        if facts.is_empty() {
            return Ok(Vec::new());
        }
        self.append_in_turn(turn, at, commit, facts).await
    }

    /// Decides on the history and appends what was decided, with nothing in between.
    ///
    /// # Errors
    /// What `decide` refuses, or the journal's error turned into it.
    pub async fn decide<E: From<JournalError>>(
        &self,
        at: Timestamp,
        decide: impl FnOnce(&History) -> Result<Option<(CommitId, Fact)>, E>,
    ) -> Result<bool, E> {
        let turn = self.order.clone().lock_owned().await;
        let Some((commit, fact)) = self.with(decide)? else { return Ok(false) };
        self.append_in_turn(turn, at, commit, vec![fact]).await?;
        Ok(true)
    }

    /// In a task of its own: a client that hangs up drops the future that waits here, and what is in the journal must be in the
    /// history too.
    async fn append_in_turn(
        &self,
        turn: OwnedMutexGuard<()>,
        at: Timestamp,
        commit: CommitId,
        facts: Vec<Fact>,
    ) -> Result<Vec<Record>, JournalError> {
        let (journal, known) = (self.journal.clone(), self.known.clone());
        let append = async move {
            let records = journal.append(at, commit, facts).await?;
            let mut known = lock(&known);
            records.iter().for_each(|record| known.apply(record));
            drop((known, turn));
            Ok(records)
        };
        let appended = tokio::spawn(append).await.unwrap_or_else(|error| {
            let message = "the journal's task ended; restart the controller".to_owned();
            Err(JournalError { message, class: RetryClass::Failed, source: Some(Box::new(error)) })
        });
        self.remember(appended.as_ref().err());
        appended
    }

    /// Why the journal can't be written; `None` when the last write succeeded.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a write that failed, finds out whether another succeeds: there may be nothing else to write for a long time.
    pub(super) async fn try_again(&self) {
        if let Some(trouble) = self.trouble() {
            // Whether it succeeded is remembered, and there is nothing else to do about it here.
            let _ = self.put(TROUBLE, &trouble).await;
        }
    }

    /// Keeps a small value beside the facts.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn put(&self, key: &str, value: &str) -> Result<(), JournalError> {
        let written = self.journal.put(key, value).await;
        self.remember(written.as_ref().err());
        written
    }

    fn remember(&self, error: Option<&JournalError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = error.map(|error| chain(error));
    }

    /// The journal itself, for reading small values.
    pub fn journal(&self) -> &dyn Journal {
        self.journal.as_ref()
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        journal::SqliteJournal,
        model::{AttemptEnd, AttemptId, Evidence, Generation, ObservedDisk},
    };

    const AT: Timestamp = Timestamp::UNIX_EPOCH;
    const COMMIT: CommitId = CommitId([1; 20]);

    fn claimed(name: &str) -> Fact {
        Fact::Claimed { machine: name.parse().unwrap(), installed: None, hardware: Vec::new() }
    }

    fn attempt(name: &str) -> AttemptId {
        AttemptId { machine: name.parse().unwrap(), number: 1 }
    }

    async fn ledger() -> Ledger {
        let ledger = Ledger::open(Arc::new(SqliteJournal::in_memory().unwrap())).await.unwrap();
        let generation: Generation = "g1:e575e3261827e70cfb57f66e30185a81".parse().unwrap();
        let began = |name| Fact::Began { attempt: attempt(name), generation };
        ledger.append(AT, COMMIT, vec![claimed("a"), began("a"), claimed("b"), began("b")]).await.unwrap();
        ledger
    }

    /// A plan gives up an attempt; before that is written down its agent asks whether it may write, and may.
    #[tokio::test]
    async fn what_was_decided_before_newer_evidence_is_not_written() {
        let ledger = ledger().await;
        let since = ledger.with(|history| history.seq);
        let writing = Evidence::Writing { boot_id: "8d1b".to_owned(), disk: ObservedDisk::default() };
        let writing = Fact::Saw { attempt: attempt("a"), evidence: writing };
        ledger.append(AT, COMMIT, vec![writing]).await.unwrap();
        let end = |name| Fact::Concluded { attempt: attempt(name), end: AttemptEnd::Superseded };
        let written = ledger.append_decided(AT, COMMIT, since, vec![end("a"), end("b")]).await.unwrap();
        assert_eq!(written.into_iter().map(|record| record.fact).collect::<Vec<_>>(), [end("b")]);
        assert!(ledger.with(|history| history.machines[&"a".parse().unwrap()].open_attempt().is_some()));
    }

    #[tokio::test]
    async fn a_rename_is_decided_anew_when_either_name_has_something_newer() {
        let ledger = ledger().await;
        let since = ledger.with(|history| history.seq);
        ledger.append(AT, COMMIT, vec![Fact::Concluded { attempt: attempt("a"), end: AttemptEnd::Done }]).await.unwrap();
        let rename = Fact::Renamed { from: "a".parse().unwrap(), to: "c".parse().unwrap() };
        assert_eq!(ledger.append_decided(AT, COMMIT, since, vec![rename]).await.unwrap(), []);
    }

    /// Takes its time between the disk and the answer.
    struct Slow(SqliteJournal);

    #[async_trait]
    impl Journal for Slow {
        async fn append(&self, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, JournalError> {
            let records = self.0.append(at, commit, facts).await;
            tokio::task::yield_now().await;
            records
        }

        async fn records(&self) -> Result<Vec<Record>, JournalError> {
            self.0.records().await
        }

        async fn put(&self, key: &str, value: &str) -> Result<(), JournalError> {
            self.0.put(key, value).await
        }

        async fn get(&self, key: &str) -> Result<Option<String>, JournalError> {
            self.0.get(key).await
        }
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_journal_and_history_alike() {
        let ledger = Ledger::open(Arc::new(Slow(SqliteJournal::in_memory().unwrap()))).await.unwrap();
        let names: Vec<String> = (0..20).map(|number| format!("m-{number}")).collect();
        for (polls, name) in names.iter().enumerate() {
            let append = ledger.append(AT, COMMIT, vec![claimed(name)]);
            tokio::select! {
                biased;
                _ = append => {}
                () = async { for _ in 0..polls { tokio::task::yield_now().await } } => {}
            }
        }
        ledger.append(AT, COMMIT, vec![claimed("last")]).await.unwrap();
        let written = History::of(&ledger.journal().records().await.unwrap());
        assert_eq!(ledger.with(History::clone), written);
    }
}
