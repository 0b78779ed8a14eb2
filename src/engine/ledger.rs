//! The journal and what follows from it, kept in step.
//!
//! Whoever has something to write waits in a queue, and decides when its turn comes. Requests about different machines take their turn
//! together, so that one transaction holds them all; two about one machine never do: the second decides on what the first wrote.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    known::{Decided, GoesOn, Known, Owed, begins, ends, named},
    source::chain,
};
use crate::{
    model::{AttemptId, CommitId, Fact, History, MachineName, Record, RetryClass, SignedDuration, Timestamp},
    ports::{Journal, JournalError},
};

/// The key under which the journal keeps the id of the commit in force.
const IN_FORCE: &str = "commit-in-force";

/// The key under which the journal keeps the commits whose last note is not written yet.
const OWED: &str = "notes-owed";

/// The key under which the journal keeps whose rollouts the commit in force goes on with.
const GOES_ON: &str = "rollouts-gone-on-with";

/// The key under which the journal keeps its last trouble.
const TROUBLE: &str = "journal-trouble";

/// Pauses between two tries to write a journal that can't be written: the first, and the longest. A full disk is made room on by a
/// person, who then should not wait long.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Most commits that are remembered for their last note. Where notes can't be pushed for longer than that, the oldest go without.
const MOST_OWED: usize = 1000;

/// The journal with its [`History`] in memory. A fact is in the journal before it is in the history.
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    journal: Arc<dyn Journal>,
    known: Mutex<Known>,
    queue: Mutex<VecDeque<Request>>,
    /// Held from the decision until what was decided is in the history.
    turn: tokio::sync::Mutex<()>,
    /// Why the last write failed.
    trouble: Mutex<Option<Trouble>>,
}

struct Trouble {
    why: String,
    pause: Duration,
    next: Instant,
}

type Decide = Box<dyn FnOnce(&Known) -> Option<(CommitId, Vec<Fact>)> + Send>;
type Reply = oneshot::Sender<Result<Vec<Record>, JournalError>>;

/// Something to write.
struct Request {
    at: Timestamp,
    /// The machines that it may be about.
    about: Vec<MachineName>,
    /// Whether it may begin an attempt.
    begins: bool,
    decide: Decide,
    reply: Reply,
}

impl Ledger {
    /// Reads the journal.
    ///
    /// # Errors
    /// [`JournalError`], also when it can't say which commit was in force: without that a rewritten history could be followed.
    pub async fn open(journal: Arc<dyn Journal>) -> Result<Self, JournalError> {
        let mut known = Known { in_force: read_in_force(journal.as_ref()).await?, ..Known::default() };
        journal.records().await?.iter().for_each(|record| known.apply(record));
        if let Some((commit, goes_on)) = read_goes_on(journal.as_ref()).await?.filter(|(commit, _)| Some(*commit) == known.in_force) {
            known.goes_on = Some((commit, goes_on.clone()));
            known.history.goes_on = goes_on;
        }
        if let Some(owed) = journal.get(OWED).await? {
            known.owed = serde_json::from_str(&owed).unwrap_or_else(|error| {
                tracing::warn!(%error, "the journal's list of notes to write can't be read; some commits go without a last note");
                Vec::new()
            });
        }
        let shared = Shared {
            journal,
            known: Mutex::new(known),
            queue: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Reads the history. Don't hold it across an await.
    pub fn with<T>(&self, read: impl FnOnce(&History) -> T) -> T {
        read(&lock(&self.shared.known).history)
    }

    /// Notes whether there was a journal before this empty one: nothing is installed on claim then.
    pub fn mark_lost(&self, lost: bool) {
        lock(&self.shared.known).history.lost = lost;
    }

    /// The clock was set by so much.
    pub(super) fn shift(&self, by: SignedDuration) {
        lock(&self.shared.known).history.shift(by);
    }

    /// Moves what is known out of the future; gives by how much.
    pub(super) fn not_after(&self, now: Timestamp) -> Option<SignedDuration> {
        lock(&self.shared.known).history.not_after(now)
    }

    /// Appends `facts` as one transaction and applies them.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing happened.
    pub async fn append(&self, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, JournalError> {
        let about = facts.iter().flat_map(named).cloned().collect();
        self.ask(at, about, facts.iter().any(begins), move |_| Some((commit, facts))).await
    }

    /// Appends what was decided earlier, except for what would be decided anew by now: nothing once another commit is in force, nothing
    /// about machines of which something newer is known, and no beginning of an attempt after another one failed or ended.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing happened.
    pub async fn append_decided(&self, at: Timestamp, decided: Decided, mut facts: Vec<Fact>) -> Result<Vec<Record>, JournalError> {
        let about = facts.iter().flat_map(named).cloned().collect();
        let decide = move |known: &Known| {
            facts.retain(|fact| known.allows(decided, fact));
            Some((decided.commit, facts))
        };
        self.ask(at, about, true, decide).await
    }

    /// Decides on the history of `machine`, and on the attempts that the commit in force [wants](Self::want), and appends what was decided,
    /// with nothing about it in between. What other machines' histories say may change meanwhile.
    ///
    /// # Errors
    /// What `decide` refuses, or the journal's error turned into it.
    pub async fn decide<E: From<JournalError> + Send + 'static>(
        &self,
        at: Timestamp,
        machine: &MachineName,
        decide: impl FnOnce(&History, &BTreeSet<AttemptId>) -> Result<Option<(CommitId, Fact)>, E> + Send + 'static,
    ) -> Result<bool, E> {
        let (refuse, refused) = oneshot::channel();
        let decide = move |known: &Known| match decide(&known.history, &known.wanted) {
            Ok(decided) => decided.map(|(commit, fact)| (commit, vec![fact])),
            Err(error) => {
                let _ = refuse.send(error);
                None
            }
        };
        let written = self.ask(at, vec![machine.clone()], false, decide).await?;
        // Its other end is gone by now, with or without a word.
        refused.await.map_or_else(|_| Ok(!written.is_empty()), Err)
    }

    /// Waits for the turn of a request. In a task of its own: a client that hangs up drops the future that waits here, and what is in the
    /// journal must be in the history too.
    async fn ask(
        &self,
        at: Timestamp,
        about: Vec<MachineName>,
        begins: bool,
        decide: impl FnOnce(&Known) -> Option<(CommitId, Vec<Fact>)> + Send + 'static,
    ) -> Result<Vec<Record>, JournalError> {
        let (reply, answer) = oneshot::channel();
        lock(&self.shared.queue).push_back(Request { at, about, begins, decide: Box::new(decide), reply });
        // One for each request, and each takes one at least: nobody waits for a turn that does not come.
        tokio::spawn(Shared::take_turn(self.shared.clone()));
        answer.await.unwrap_or_else(|error| {
            let message = "the journal's task ended; restart the controller".to_owned();
            Err(JournalError { message, class: RetryClass::Failed, source: Some(Box::new(error)) })
        })
    }

    /// The commit that the journal says is in force.
    pub fn in_force(&self) -> Option<CommitId> {
        lock(&self.shared.known).in_force
    }

    /// Puts `commit` into force, once that is durable. What was decided under another one is not begun any more. Those that it supersedes
    /// are owed a last note.
    ///
    /// # Errors
    /// [`JournalError`]; then the commit before is in force.
    pub async fn adopt(&self, commit: CommitId, superseded: Vec<Owed>) -> Result<(), JournalError> {
        let _turn = self.shared.turn.lock().await;
        if !superseded.is_empty() {
            let mut owed = self.owed();
            owed.retain(|known| superseded.iter().all(|new| new.commit != known.commit));
            owed.extend(superseded);
            owed.drain(..owed.len().saturating_sub(MOST_OWED));
            self.put_owed(owed).await?;
        }
        self.put(IN_FORCE, &commit.to_string()).await?;
        let mut known = lock(&self.shared.known);
        known.in_force = Some(commit);
        known.wanted.clear();
        known.history.goes_on = match &known.goes_on {
            Some((noted, goes_on)) if *noted == commit => goes_on.clone(),
            Some(_) | None => GoesOn::new(),
        };
        Ok(())
    }

    /// Notes whose rollouts `commit` goes on with once it is in force.
    ///
    /// # Errors
    /// [`JournalError`]; then it goes on with none.
    pub async fn will_go_on(&self, commit: CommitId, goes_on: GoesOn) -> Result<(), JournalError> {
        let _turn = self.shared.turn.lock().await;
        let json = serde_json::to_string(&(commit, &goes_on)).expect("names and ids are always JSON");
        self.put(GOES_ON, &json).await?;
        lock(&self.shared.known).goes_on = Some((commit, goes_on));
        Ok(())
    }

    /// Notes which open attempts go on by a plan under `commit`; nothing, if another one is in force by now.
    pub(super) fn want(&self, commit: CommitId, attempts: BTreeSet<AttemptId>) {
        let mut known = lock(&self.shared.known);
        if known.in_force == Some(commit) {
            known.wanted = attempts;
        }
    }

    /// Commits whose last note is not written yet, oldest first.
    pub fn owed(&self) -> Vec<Owed> {
        lock(&self.shared.known).owed.clone()
    }

    /// Notes that these commits have their last note.
    pub(super) async fn pay(&self, commits: &BTreeSet<CommitId>) -> Result<(), JournalError> {
        let _turn = self.shared.turn.lock().await;
        let before = self.owed();
        let rest: Vec<Owed> = before.iter().filter(|owed| !commits.contains(&owed.commit)).cloned().collect();
        if rest == before { Ok(()) } else { self.put_owed(rest).await }
    }

    async fn put_owed(&self, owed: Vec<Owed>) -> Result<(), JournalError> {
        let json = serde_json::to_string(&owed).expect("ids and flags are always JSON");
        self.put(OWED, &json).await?;
        lock(&self.shared.known).owed = owed;
        Ok(())
    }

    /// Why the journal can't be written; `None` when the last write succeeded.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).as_ref().map(|trouble| trouble.why.clone())
    }

    /// After a write that failed, finds out whether another succeeds, at growing intervals. Nothing else may be waiting to be written: as
    /// long as there is trouble, nothing is begun.
    pub(super) async fn try_again(&self) {
        let due = lock(&self.shared.trouble).as_ref().filter(|trouble| Instant::now() >= trouble.next).map(|trouble| trouble.why.clone());
        if let Some(why) = due {
            // Whether it succeeded is remembered, and there is nothing else to do about it here.
            let _ = self.put(TROUBLE, &why).await;
        }
    }

    /// Keeps a small value beside the facts.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn put(&self, key: &str, value: &str) -> Result<(), JournalError> {
        let written = self.shared.journal.put(key, value).await;
        self.shared.remember(written.as_ref().err());
        written
    }

    /// The journal itself, for reading small values.
    pub fn journal(&self) -> &dyn Journal {
        self.shared.journal.as_ref()
    }
}

/// What is to be written in one turn.
#[derive(Default)]
struct Turn {
    writes: Vec<(Timestamp, CommitId, Vec<Fact>)>,
    replies: Vec<Reply>,
}

impl Shared {
    /// Writes what waits first in the queue, as much of it as does not rest on each other.
    async fn take_turn(self: Arc<Self>) {
        let _turn = self.turn.lock().await;
        let Turn { writes, replies } = self.decide();
        let appends = writes.into_iter().map(|(at, commit, facts)| self.journal.append(at, commit, facts));
        let written = futures_util::future::join_all(appends).await;
        // Some may have failed alone; those that are there are applied in the journal's order.
        let mut records: Vec<&Record> = written.iter().flatten().flatten().collect();
        records.sort_by_key(|record| record.seq);
        {
            let mut known = lock(&self.known);
            records.into_iter().for_each(|record| known.apply(record));
        }
        if !written.is_empty() {
            self.remember(written.iter().find_map(|written| written.as_ref().err()));
        }
        // Who stopped waiting needs no answer.
        replies.into_iter().zip(written).for_each(|(reply, written)| drop(reply.send(written)));
    }

    /// Takes requests from the queue, in order, until one may rest on another that was taken: on the same machine, or, to begin an attempt,
    /// on how others ended.
    fn decide(&self) -> Turn {
        let (mut queue, known) = (lock(&self.queue), lock(&self.known));
        let (mut turn, mut about, mut ended) = (Turn::default(), BTreeSet::new(), false);
        let rests = |next: &Request, about: &BTreeSet<MachineName>, ended| {
            (ended && next.begins) || next.about.iter().any(|machine| about.contains(machine))
        };
        while queue.front().is_some_and(|next| !rests(next, &about, ended))
            && let Some(next) = queue.pop_front()
        {
            let facts = (next.decide)(&known).filter(|(_, facts)| !facts.is_empty());
            let Some((commit, facts)) = facts else {
                let _ = next.reply.send(Ok(Vec::new()));
                continue;
            };
            ended |= facts.iter().any(ends);
            about.extend(next.about);
            turn.writes.push((next.at, commit, facts));
            turn.replies.push(next.reply);
        }
        turn
    }

    fn remember(&self, error: Option<&JournalError>) {
        let (mut trouble, now) = (lock(&self.trouble), Instant::now());
        *trouble = error.map(|error| {
            let why = chain(error);
            match trouble.as_ref() {
                // Others write too, at their own pace; they don't lengthen ours.
                Some(before) if now < before.next => Trouble { why, ..*before },
                before => {
                    let pause = before.map_or(PAUSES.0, |before| (before.pause * 2).min(PAUSES.1));
                    Trouble { why, pause, next: now + pause }
                }
            }
        });
    }
}

/// What can't be read costs a canary, and nothing else.
async fn read_goes_on(journal: &dyn Journal) -> Result<Option<(CommitId, GoesOn)>, JournalError> {
    let Some(text) = journal.get(GOES_ON).await? else { return Ok(None) };
    let read = serde_json::from_str(&text);
    Ok(read.inspect_err(|error| tracing::warn!(%error, "which rollouts go on can't be read; they begin anew")).ok())
}

async fn read_in_force(journal: &dyn Journal) -> Result<Option<CommitId>, JournalError> {
    let Some(text) = journal.get(IN_FORCE).await? else { return Ok(None) };
    text.parse().map(Some).map_err(|source| JournalError {
        message: format!("the journal says that the commit in force is {text:?}, which is no commit: it is damaged, restore it"),
        class: RetryClass::Failed,
        source: Some(Box::new(source)),
    })
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        journal::SqliteJournal,
        model::{AttemptEnd, Evidence, Generation, ObservedDisk},
    };

    const AT: Timestamp = Timestamp::UNIX_EPOCH;
    const COMMIT: CommitId = CommitId([1; 20]);

    fn claimed(name: &str) -> Fact {
        Fact::Claimed { machine: name.parse().unwrap(), installed: None, hardware: Vec::new(), basis: None }
    }

    fn attempt(name: &str) -> AttemptId {
        AttemptId { machine: name.parse().unwrap(), number: 1 }
    }

    const OTHER: CommitId = CommitId([2; 20]);

    fn began(name: &str) -> Fact {
        let generation: Generation = "g1:e575e3261827e70cfb57f66e30185a81".parse().unwrap();
        Fact::Began { attempt: attempt(name), generation, basis: None }
    }

    fn now(ledger: &Ledger) -> Decided {
        Decided { commit: COMMIT, since: ledger.with(|history| history.seq) }
    }

    fn facts(written: Vec<Record>) -> Vec<Fact> {
        written.into_iter().map(|record| record.fact).collect()
    }

    /// `a` and `b` with an attempt each, under the commit in force.
    async fn ledger() -> Ledger {
        let ledger = Ledger::open(Arc::new(SqliteJournal::in_memory().unwrap())).await.unwrap();
        ledger.adopt(COMMIT, Vec::new()).await.unwrap();
        ledger.append(AT, COMMIT, vec![claimed("a"), began("a"), claimed("b"), began("b")]).await.unwrap();
        ledger
    }

    /// A plan gives up an attempt; before that is written down its agent asks whether it may write, and may.
    #[tokio::test]
    async fn what_was_decided_before_newer_evidence_is_not_written() {
        let ledger = ledger().await;
        let decided = now(&ledger);
        let writing = Evidence::Writing { boot_id: "8d1b".to_owned(), disk: ObservedDisk::default() };
        let writing = Fact::Saw { attempt: attempt("a"), evidence: writing };
        ledger.append(AT, COMMIT, vec![writing]).await.unwrap();
        let end = |name| Fact::Concluded { attempt: attempt(name), end: AttemptEnd::Superseded };
        let written = ledger.append_decided(AT, decided, vec![end("a"), end("b")]).await.unwrap();
        assert_eq!(facts(written), [end("b")]);
        assert!(ledger.with(|history| history.machines[&"a".parse().unwrap()].open_attempt().is_some()));
    }

    #[tokio::test]
    async fn a_rename_is_decided_anew_when_either_name_has_something_newer() {
        let ledger = ledger().await;
        let decided = now(&ledger);
        ledger.append(AT, COMMIT, vec![Fact::Concluded { attempt: attempt("a"), end: AttemptEnd::Done }]).await.unwrap();
        let rename = Fact::Renamed { from: "a".parse().unwrap(), to: "c".parse().unwrap() };
        assert_eq!(ledger.append_decided(AT, decided, vec![rename]).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_was_decided_under_a_commit_that_is_superseded_is_not_written() {
        let ledger = ledger().await;
        let decided = now(&ledger);
        let owed = Owed { commit: COMMIT, by: OTHER, was_in_force: true };
        ledger.adopt(OTHER, vec![owed.clone()]).await.unwrap();
        assert_eq!(ledger.append_decided(AT, decided, vec![claimed("c")]).await.unwrap(), []);
        let decided = Decided { commit: OTHER, ..decided };
        assert_eq!(facts(ledger.append_decided(AT, decided, vec![claimed("c")]).await.unwrap()), [claimed("c")]);

        // All of it is there after a restart.
        let again = Ledger::open(ledger.shared.journal.clone()).await.unwrap();
        assert_eq!((again.in_force(), again.owed()), (Some(OTHER), vec![owed]));
        again.pay(&[COMMIT].into()).await.unwrap();
        assert_eq!(Ledger::open(ledger.shared.journal.clone()).await.unwrap().owed(), []);
    }

    #[tokio::test]
    async fn a_rollout_goes_on_under_the_commit_that_goes_on_with_it_and_no_other() {
        let ledger = ledger().await;
        let goes_on: GoesOn = [("web".to_owned(), [COMMIT].into())].into();
        ledger.will_go_on(OTHER, goes_on.clone()).await.unwrap();
        let known = |ledger: &Ledger| ledger.with(|history| history.goes_on.clone());
        assert_eq!(known(&ledger), GoesOn::new(), "not in force yet");
        let died_between = Ledger::open(ledger.shared.journal.clone()).await.unwrap();
        assert_eq!(known(&died_between), GoesOn::new());
        ledger.adopt(OTHER, Vec::new()).await.unwrap();
        assert_eq!(known(&ledger), goes_on);
        let again = Ledger::open(ledger.shared.journal.clone()).await.unwrap();
        assert_eq!(known(&again), goes_on);
        again.adopt(OTHER, Vec::new()).await.unwrap();
        assert_eq!(known(&again), goes_on, "a restart puts the same commit into force");
        again.adopt(CommitId([3; 20]), Vec::new()).await.unwrap();
        assert_eq!(known(&again), GoesOn::new());
        again.put(GOES_ON, "?").await.unwrap();
        assert_eq!(known(&Ledger::open(again.shared.journal.clone()).await.unwrap()), GoesOn::new(), "begins anew");
    }

    /// The failure may be the one that opens the breaker.
    #[tokio::test]
    async fn no_attempt_begins_on_a_count_from_before_another_one_failed() {
        let ledger = ledger().await;
        let decided = now(&ledger);
        let failed = Fact::Reported { attempt: attempt("a"), wrote: true, code: "disk-write".to_owned(), why: String::new() };
        ledger.append(AT, COMMIT, vec![failed]).await.unwrap();
        let written = ledger.append_decided(AT, decided, vec![claimed("c"), began("c")]).await.unwrap();
        assert_eq!(facts(written), [claimed("c")]);
        assert_eq!(facts(ledger.append_decided(AT, now(&ledger), vec![began("c")]).await.unwrap()), [began("c")]);
    }

    /// What waits in the queue together is decided as if it had come one by one.
    #[tokio::test]
    async fn two_decisions_about_one_machine_that_wait_together_know_of_each_other() {
        let ledger = ledger().await;
        let held = ledger.shared.turn.lock().await;
        let end = |id: &AttemptId| {
            let id = id.clone();
            move |history: &History, _: &BTreeSet<AttemptId>| {
                let open = history.machines[&id.machine].open_attempt().is_some();
                Ok::<_, JournalError>(open.then_some((COMMIT, Fact::Concluded { attempt: id, end: AttemptEnd::Done })))
            }
        };
        let (a, b) = (attempt("a"), attempt("b"));
        let begin = ledger.append_decided(AT, now(&ledger), vec![began("c")]);
        let together = async {
            tokio::join!(
                ledger.decide(AT, &a.machine, end(&a)),
                begin,
                ledger.decide(AT, &a.machine, end(&a)),
                ledger.decide(AT, &b.machine, end(&b)),
            )
        };
        let release = async {
            while lock(&ledger.shared.queue).len() < 4 {
                tokio::task::yield_now().await;
            }
            drop(held);
        };
        let ((first, begun, second, _), ()) = tokio::join!(together, release);
        assert_eq!((first.unwrap(), second.unwrap()), (true, false));
        assert_eq!(begun.unwrap(), [], "another attempt ended after this was decided");
        let journal = ledger.journal().records().await.unwrap();
        assert_eq!(ledger.with(History::clone), History::of(&journal));
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

    /// Without it a rewritten history could be followed.
    #[tokio::test]
    async fn a_journal_that_cannot_say_which_commit_was_in_force_is_refused() {
        let journal = SqliteJournal::in_memory().unwrap();
        journal.put(IN_FORCE, "gone").await.unwrap();
        let refused = Ledger::open(Arc::new(journal)).await.err().unwrap();
        assert!(refused.message.contains("\"gone\""), "{refused}");
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

    /// Prints what a rack that reports at once costs; asserts only that nothing is lost and that the history is the journal's.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_machines_that_report_at_once_share_transactions() {
        const TASKS: usize = 64;
        const EACH: usize = 40;
        let folder = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(&folder.path().join("journal.db"), "test").unwrap();
        let ledger = Arc::new(Ledger::open(Arc::new(journal)).await.unwrap());
        let begun = std::time::Instant::now();
        let tasks = (0..TASKS).map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    ledger.append(AT, COMMIT, vec![claimed(&format!("m-{task}"))]).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!("{TASKS} tasks: {:.0} facts a second", (TASKS * EACH) as f64 / seconds);
        let records = ledger.journal().records().await.unwrap();
        assert_eq!(records.len(), TASKS * EACH);
        assert_eq!(ledger.with(History::clone), History::of(&records));
    }
}
