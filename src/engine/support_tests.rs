//! Ports for this module's tests: each does what it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, watch};

use super::{Live, Ports};
use crate::{
    journal::SqliteJournal,
    manifest,
    model::{
        AttemptId, BmcTarget, BootMode, Brake, Commit, CommitId, Evidence, Fact, FileEntry, FileKind, Files, Fleet, Hold, HoldScope,
        MachineName, Observation, ProbeAnswer, Record, RetryClass, SecretName, Snapshot, Timestamp, Unknown,
    },
    ports::{
        Bmc, BmcError, BrakeLever, Clock, Credential, Journal, JournalError, Notes, NotesError, PowerCommand, Probe, SecretError, Secrets,
        Source, SourceError,
    },
};

pub const AT: Timestamp = Timestamp::UNIX_EPOCH;
pub const LIMIT: Duration = Duration::from_secs(60);

pub fn id(number: u8) -> CommitId {
    CommitId([number; 20])
}

pub fn commit(number: u8) -> Commit {
    Commit { id: id(number), subject: String::new(), author: String::new(), time: AT, approvals: Vec::new() }
}

pub fn name() -> MachineName {
    "web-01".parse().unwrap()
}

pub fn attempt() -> AttemptId {
    AttemptId { machine: name(), number: 1 }
}

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A commit that an earlier release took, and this one would not.
pub const EARLIER: u8 = 200;

/// A fleet of one machine, `web-01`.
pub fn files(rebuild: u8) -> Files {
    let bmc = if rebuild == EARLIER { "http://10.0.0.1\"" } else { "https://10.0.0.1\", insecure: true" };
    let machine = format!(
        "apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata: {{name: web-01}}\nspec:\n  image: a\n  rebuild: {rebuild}\n  \
         identity: {{serial: s}}\n  nics: [{{name: lan0, mac: \"52:54:00:00:00:01\"}}]\n  disks: {{system: {{serial: d}}}}\n  bmc: {{address: \"{bmc}}}\n"
    );
    let image = format!(
        "apiVersion: rackwright.dev/v1alpha1\nkind: Image\nmetadata: {{name: a}}\nspec:\n  digest: sha256:{DIGEST}\n  \
         format: raw\n  url: a.raw\n"
    );
    let entry = |text: String| FileEntry {
        id: crate::model::Digest::of(text.as_bytes()).0[..20].try_into().unwrap(),
        kind: FileKind::Regular,
        bytes: text.into_bytes().into(),
    };
    [("machines/a.yaml".to_owned(), entry(machine)), ("images/a.yaml".to_owned(), entry(image))].into()
}

pub fn fleet(rebuild: u8) -> Arc<Fleet> {
    let loaded = manifest::load(&files(rebuild), &mut manifest::Cache::default());
    assert!(loaded.is_usable(), "{:?}", loaded.problems);
    Arc::new(loaded.fleet)
}

/// What was said that `web-01` writes under commit 1.
pub fn claimed() -> Fact {
    Fact::Claimed {
        machine: name(),
        installed: None,
        hardware: vec!["serial:s".to_owned(), "mac:52:54:00:00:00:01".to_owned()],
        basis: None,
    }
}

pub fn began() -> Fact {
    Fact::Began { attempt: attempt(), generation: fleet(1).machines[&name()].generation().unwrap(), basis: None }
}

pub fn saw(evidence: Evidence) -> Fact {
    Fact::Saw { attempt: attempt(), evidence }
}

/// A clock that stands where it was set.
#[derive(Default)]
pub struct Stands(pub Mutex<Timestamp>);

impl Clock for Stands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A brake that is moved by hand.
#[derive(Default)]
pub struct Lever(Mutex<Brake>);

impl Lever {
    pub fn pull(&self) {
        let hold = Hold { scope: HoldScope::All, by: "test".to_owned(), at: AT, reason: String::new() };
        self.0.lock().unwrap().holds.push(hold);
    }

    pub fn release(&self) {
        self.0.lock().unwrap().holds.clear();
    }
}

impl BrakeLever for Lever {
    fn position(&self) -> Brake {
        self.0.lock().unwrap().clone()
    }
}

/// A journal in memory that counts writes, and refuses them when told.
pub struct Full {
    pub journal: SqliteJournal,
    pub refuses: AtomicBool,
    pub tries: AtomicUsize,
}

impl Full {
    pub fn new() -> Arc<Self> {
        let journal = SqliteJournal::in_memory().unwrap();
        Arc::new(Self { journal, refuses: AtomicBool::default(), tries: AtomicUsize::default() })
    }

    fn may_write(&self) -> Result<(), JournalError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let full = || JournalError { message: "the disk is full".to_owned(), class: RetryClass::Wait, source: None };
        if self.refuses.load(Ordering::SeqCst) { Err(full()) } else { Ok(()) }
    }
}

#[async_trait]
impl Journal for Full {
    async fn append(&self, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, JournalError> {
        self.may_write()?;
        self.journal.append(at, commit, facts).await
    }

    async fn records(&self) -> Result<Vec<Record>, JournalError> {
        self.journal.records().await
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), JournalError> {
        self.may_write()?;
        self.journal.put(key, value).await
    }

    async fn get(&self, key: &str) -> Result<Option<String>, JournalError> {
        self.journal.get(key).await
    }
}

/// A repository in which commit `n` is the fleet with `rebuild: n`. Those that are gone can't be had.
pub struct Commits {
    pub newest: watch::Sender<Option<u8>>,
    pub gone: Mutex<BTreeSet<u8>>,
    changed: Notify,
}

impl Commits {
    pub fn new(newest: Option<u8>, gone: &[u8]) -> Arc<Self> {
        Arc::new(Self { newest: watch::Sender::new(newest), gone: Mutex::new(gone.iter().copied().collect()), changed: Notify::new() })
    }

    /// Something came back, and whoever follows is told to look.
    pub fn restore(&self, number: u8) {
        self.gone.lock().unwrap().remove(&number);
        self.changed.notify_one();
    }
}

#[async_trait]
impl Source for Commits {
    async fn latest(&self, _: Option<CommitId>, _: bool) -> Result<Snapshot, SourceError> {
        let newest = self.newest.subscribe().wait_for(Option::is_some).await.unwrap().unwrap();
        self.at(id(newest)).await
    }

    async fn at(&self, id: CommitId) -> Result<Snapshot, SourceError> {
        let number = id.0[0];
        if self.gone.lock().unwrap().contains(&number) {
            return Err(SourceError { message: format!("commit {id} is gone"), class: RetryClass::Failed, source: None });
        }
        Ok(Snapshot { commit: commit(number), files: Arc::new(files(number)), skipped: Vec::new() })
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A BMC that takes orders and answers when it may.
#[derive(Default)]
pub struct Slow {
    pub orders: Mutex<Vec<PowerCommand>>,
    pub answers: Option<Semaphore>,
}

#[async_trait]
impl Bmc for Slow {
    async fn observe(&self, target: &BmcTarget, now: Timestamp) -> Observation {
        Observation::blank(now, target.address.clone(), &Unknown::NotReported)
    }

    async fn power(&self, _: &BmcTarget, command: PowerCommand) -> Result<(), BmcError> {
        self.orders.lock().unwrap().push(command);
        if let Some(answers) = &self.answers {
            answers.acquire().await.unwrap().forget();
        }
        Ok(())
    }

    async fn boot_from_network(&self, _: &BmcTarget, _: BootMode) -> Result<(), BmcError> {
        Ok(())
    }

    async fn clear_boot_override(&self, _: &BmcTarget) -> Result<(), BmcError> {
        Ok(())
    }

    async fn close(&self) {}
}

/// Notes that are kept in memory, or refused.
#[derive(Default)]
pub struct Kept {
    pub written: Mutex<BTreeMap<CommitId, String>>,
    /// Whether the remote has notes; `None`: it can't be asked or written to.
    pub remote: Mutex<Option<bool>>,
    pub traces: AtomicBool,
}

impl Kept {
    fn answer(&self) -> Result<bool, NotesError> {
        let away = || NotesError { message: "no route to host".to_owned(), class: RetryClass::Wait, source: None };
        self.remote.lock().unwrap().ok_or_else(away)
    }
}

#[async_trait]
impl Notes for Kept {
    async fn write(&self, notes: Vec<(CommitId, String)>) -> Result<(), NotesError> {
        self.answer()?;
        self.written.lock().unwrap().extend(notes);
        Ok(())
    }

    async fn exist(&self) -> Result<bool, NotesError> {
        self.answer()
    }

    async fn traces(&self) -> Result<bool, NotesError> {
        Ok(self.traces.load(Ordering::SeqCst))
    }
}

struct NoSecrets;

impl Secrets for NoSecrets {
    fn credential(&self, name: &SecretName) -> Result<Credential, SecretError> {
        Err(SecretError { message: format!("there is no secret {name}") })
    }
}

/// Nobody answers it.
struct Silent;

#[async_trait]
impl Probe for Silent {
    async fn ask(&self, _: &str) -> ProbeAnswer {
        ProbeAnswer::Failed("nobody answers".to_owned())
    }
}

/// Ports of which a test replaces what it is about.
pub fn ports() -> Ports {
    Ports {
        source: Commits::new(None, &[]),
        bmc: Arc::new(Slow::default()),
        boot: None,
        notes: None,
        secrets: Arc::new(NoSecrets),
        probe: Arc::new(Silent),
        clock: Arc::new(Stands::default()),
    }
}

pub async fn live(journal: Arc<dyn Journal>) -> Arc<Live> {
    Live::open(journal, Arc::new(Lever::default()), Arc::new(Stands::default()), LIMIT).await.unwrap()
}

pub async fn empty() -> Arc<Live> {
    live(Arc::new(SqliteJournal::in_memory().unwrap())).await
}

/// Waits until it holds; every task gets its turn meanwhile. Panics when that does not come.
pub async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not come");
}
