//! The traits that the engine sees. Everything that touches the world is behind one of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::model::{
    AttemptId, BmcTarget, BootMode, BootTable, Brake, CheckReport, CommitId, Evidence, Fact, HandoffName, HandoffUse, MachineName,
    Observation, ProbeAnswer, Progress, Record, RetryClass, SecretName, SecretSource, Snapshot, Timestamp,
};
use crate::trust::{Commits, Signers};

/// Why the newest commit can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What, where and what to do next.
    pub message: String,
    /// What trying again would do.
    pub class: RetryClass,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The fleet repository.
#[async_trait]
pub trait Source: Send + Sync {
    /// Fetches, and gives the newest commit of the branch. `in_force` is the commit that the controller now follows: a commit
    /// that does not descend from it is refused unless `allow_force_push`.
    ///
    /// # Errors
    /// The repository is gone, empty, unreadable, or its history was rewritten. The caller keeps what it has.
    async fn latest(&self, in_force: Option<CommitId>, allow_force_push: bool) -> Result<Snapshot, SourceError>;

    /// One commit that is in our clone already, for a restart on the last good one.
    ///
    /// # Errors
    /// It is not there.
    async fn at(&self, id: CommitId) -> Result<Snapshot, SourceError>;

    /// Shows the commits that `tip` reaches and `base` does not to `look`, which runs where it may wait. Without a base it is the tip
    /// alone. Both must be in our clone.
    ///
    /// # Errors
    /// They are not, or can't be read; then `look` was not called.
    async fn examine(&self, base: Option<CommitId>, tip: CommitId, look: Examiner) -> Result<(), SourceError> {
        drop(look);
        let message = format!("the commits from {base:?} to {tip} can't be shown by this source");
        Err(SourceError { message, class: RetryClass::Stalled, source: None })
    }

    /// Who must have signed where the fleet does not say: from the controller's configuration. `None`: nobody.
    fn root_of_trust(&self) -> Option<Arc<Signers>> {
        None
    }

    /// Returns when the repository may have changed: a hint, never data.
    async fn changed(&self);
}

/// What looks at a range of commits.
pub type Examiner = Box<dyn FnOnce(&dyn Commits) + Send>;

/// Why a BMC could not be asked or told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BmcError {
    /// What happened, with address and resource.
    pub message: String,
    /// The same as a gap in an observation.
    pub unknown: crate::model::Unknown,
    /// What trying again would do.
    pub class: RetryClass,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What to do to a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerCommand {
    /// Switch on; no error when it is on.
    On,
    /// Ask the operating system to shut down; where the BMC can't, the same as `ForceOff`.
    GracefulOff,
    /// Switch off; no error when it is off.
    ForceOff,
}

/// All BMCs. One session for each target, kept and reused; calls to one BMC are serialised.
#[async_trait]
pub trait Bmc: Send + Sync {
    /// Asks everything that an [`Observation`] holds. Never fails as a whole: a gap says why.
    async fn observe(&self, target: &BmcTarget, now: Timestamp) -> Observation;

    /// Changes power. Returns when the BMC took the order; the caller observes what follows.
    ///
    /// # Errors
    /// The BMC could not be asked or refused.
    async fn power(&self, target: &BmcTarget, command: PowerCommand) -> Result<(), BmcError>;

    /// Sets the next boot, and only that, to the network, and reads it back.
    ///
    /// # Errors
    /// The BMC could not be asked, refused, or reads back something else.
    async fn boot_from_network(&self, target: &BmcTarget, mode: BootMode) -> Result<(), BmcError>;

    /// Takes back a boot override, and reads that it is gone.
    ///
    /// # Errors
    /// The BMC could not be asked, refused, or still shows one.
    async fn clear_boot_override(&self, target: &BmcTarget) -> Result<(), BmcError>;

    /// Logs out of every session. Called once at the end.
    async fn close(&self);
}

/// Asks web pages, for health gates.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Asks once, within a bounded time, and follows no redirect. Never fails as a whole: what went wrong is an answer, in words.
    async fn ask(&self, url: &str) -> ProbeAnswer;
}

/// The boot server.
#[async_trait]
pub trait Boot: Send + Sync {
    /// From now on it answers from this table and from nothing else.
    async fn publish(&self, table: Arc<BootTable>);
}

/// Why a sighting was not taken. The one who saw it must not go on.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The attempt is not open (any more).
    #[error("{attempt} is not open")]
    NotOpen {
        /// The attempt.
        attempt: AttemptId,
    },
    /// It may go on later, or never: the machine may be switched off at any moment, or a new commit has not been looked at yet.
    #[error("{attempt} can't begin to write now, {why}; ask again")]
    NotNow {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        why: &'static str,
    },
    /// No more of this is taken for the attempt.
    #[error("no more words on checks are taken for {attempt}: {why}")]
    TooMany {
        /// The attempt.
        attempt: AttemptId,
        /// What there is too much of.
        why: &'static str,
    },
    /// It could not be written to the journal.
    #[error("the journal could not be written")]
    Journal(#[source] JournalError),
    /// The engine is stopping.
    #[error("the controller is stopping")]
    Stopping,
}

/// What the boot server and the agent's reports are told to. Implemented by the engine.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Takes evidence. Returns after it is in the journal, so the caller may act on it. A rung that was reached already by the
    /// same evidence is taken again without a second record.
    ///
    /// # Errors
    /// [`WitnessError`]: the caller must not act.
    async fn saw(&self, attempt: &AttemptId, evidence: Evidence) -> Result<(), WitnessError>;

    /// Takes an agent's word that an attempt can't succeed.
    ///
    /// # Errors
    /// [`WitnessError`].
    async fn failed(&self, attempt: &AttemptId, wrote: bool, code: &str, why: &str) -> Result<(), WitnessError>;

    /// Takes what an installed system reports of a check of its own. Returns after it is in the journal. The same word again is taken
    /// without a second record.
    ///
    /// # Errors
    /// [`WitnessError`]: the attempt is not open, or has not called home; or there were too many words already.
    async fn checked(&self, attempt: &AttemptId, report: CheckReport) -> Result<(), WitnessError>;

    /// Takes note that the system that `attempt` installed on `machine` published values. Returns after it is in the journal. A witness
    /// without a journal takes none.
    ///
    /// # Errors
    /// [`WitnessError`]; `NotOpen` when that system is not the one on the disk any more.
    async fn published(&self, _machine: &MachineName, attempt: &AttemptId, _names: &BTreeSet<HandoffName>) -> Result<(), WitnessError> {
        Err(WitnessError::NotOpen { attempt: attempt.clone() })
    }

    /// Takes note that published values are not there any more.
    ///
    /// # Errors
    /// [`WitnessError`].
    async fn values_lost(&self, _machine: &MachineName, attempt: &AttemptId, _names: &BTreeSet<HandoffName>) -> Result<(), WitnessError> {
        Err(WitnessError::NotOpen { attempt: attempt.clone() })
    }

    /// Takes progress. Not journaled; shown live, and proof that the agent is alive.
    fn progress(&self, attempt: &AttemptId, progress: Progress);

    /// Takes note that somebody without a ticket asked (law 9). Logged by the boot server itself; shown on the machine.
    fn refused(&self, machine: Option<&MachineName>, what: &str);
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct JournalError {
    /// What, where and what to do next.
    pub message: String,
    /// What trying again would do: `Wait` for a full disk.
    pub class: RetryClass,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The embedded store. One controller at a time.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends facts as one transaction, durable when it returns, and gives them their numbers.
    ///
    /// # Errors
    /// [`JournalError`]; then none of them is there.
    async fn append(&self, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, JournalError>;

    /// All records, oldest first.
    ///
    /// # Errors
    /// [`JournalError`].
    async fn records(&self) -> Result<Vec<Record>, JournalError>;

    /// Keeps a small value under a key, such as the commit in force; durable when it returns.
    ///
    /// # Errors
    /// [`JournalError`].
    async fn put(&self, key: &str, value: &str) -> Result<(), JournalError>;

    /// A value that [`Journal::put`] kept.
    ///
    /// # Errors
    /// [`JournalError`].
    async fn get(&self, key: &str) -> Result<Option<String>, JournalError>;
}

/// Why a note was not written.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NotesError {
    /// What, where and what to do next.
    pub message: String,
    /// What trying again would do.
    pub class: RetryClass,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Status notes on commits.
#[async_trait]
pub trait Notes: Send + Sync {
    /// Writes the notes of these commits as one commit of the notes ref and pushes it.
    ///
    /// # Errors
    /// [`NotesError`]; a failed note never fails a turn.
    async fn write(&self, notes: Vec<(CommitId, String)>) -> Result<(), NotesError>;

    /// Whether the remote's ref for this site exists already.
    ///
    /// # Errors
    /// [`NotesError`].
    async fn exist(&self) -> Result<bool, NotesError>;

    /// Whether our own clone shows that a controller of this site worked with it: its notes, pushed or not, or the commit that was in force.
    ///
    /// # Errors
    /// [`NotesError`].
    async fn traces(&self) -> Result<bool, NotesError>;
}

/// User name and password. Has no `Debug` and no `Display` on purpose (law 14).
#[derive(Clone)]
pub struct Credential {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// A value that one machine hands to others. Has no `Debug` and no `Display` on purpose (law 14).
#[derive(Clone)]
pub struct HandoffValue(String);

/// Why a text can't be handed on. Never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// It is empty, or too long.
    #[error("a value has 1 to {} bytes", HandoffUse::LONGEST)]
    Length,
    /// It could mean something where it is put: in YAML, in a shell, in a URL.
    #[error("a value is made of A-Z, a-z, 0-9 and . _ : / + = -; write anything else in Base64")]
    Character,
}

impl HandoffValue {
    /// Checks `text`: 1 to 4096 bytes of letters, digits and `. _ : / + = -`. One machine's word goes into other machines' configuration, so
    /// it must not be able to say more there than a value.
    ///
    /// # Errors
    /// [`BadValue`].
    pub fn new(text: String) -> Result<Self, BadValue> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+=-".contains(&byte);
        match text.len() {
            1..=HandoffUse::LONGEST if text.bytes().all(plain) => Ok(Self(text)),
            1..=HandoffUse::LONGEST => Err(BadValue::Character),
            _ => Err(BadValue::Length),
        }
    }

    /// The value, for whoever puts it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Why a secret can't be had. Never holds any of its value.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SecretError {
    /// What, where and what to do next.
    pub message: String,
}

/// Where secrets' values come from. Asked each time, so that a changed password is seen.
pub trait Secrets: Send + Sync {
    /// User name and password of a secret.
    ///
    /// # Errors
    /// [`SecretError`]: no such secret, or its source can't be read.
    fn credential(&self, name: &SecretName) -> Result<Credential, SecretError>;

    /// From now on the fleet says that secrets come from here. Nothing to do for stores that have their own list.
    fn follow(&self, _sources: &std::collections::BTreeMap<SecretName, SecretSource>) {}
}

/// The local brake (law 12). Asked at the last moment before anything is begun, so it must be cheap.
pub trait BrakeLever: Send + Sync {
    /// Its position now. What can't be read is [`Brake::unreadable`], never "off" (law 2).
    fn position(&self) -> Brake;
}

/// Time, so that it can be an argument everywhere else.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Time since some moment, by a clock that nobody can set: shows that the other one was set. `None`: there is none, and nobody looks.
    fn steady(&self) -> Option<Duration> {
        None
    }
}
