//! The journal that the engine sees.

use std::{path::Path, sync::mpsc, thread::JoinHandle};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    model::{CommitId, Fact, Record, Timestamp},
    ports::{Journal, JournalError},
};

use super::{
    JournalReader, OpenError,
    failure::stopped,
    lock::Lock,
    mark::Mark,
    schema,
    writer::{Reply, Request, Write, Writer},
};

/// The journal in one SQLite file.
///
/// What was acknowledged survives SIGKILL at any instant; against a power cut it is as safe as the disk's own flush. A future
/// that is dropped while it waits does not take its request back: the records may be there.
#[derive(Debug)]
pub struct SqliteJournal {
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteJournal {
    /// Opens or makes the journal at `path`, for this process alone. `holder` says who this is to a second controller that
    /// tries, for example `rackwright run --config /etc/rackwright.yaml`; process, host and time are added.
    ///
    /// # Errors
    /// [`OpenError`]: another controller holds it, it is damaged, of a newer release, or not ours. Then nothing was changed.
    pub fn open(path: &Path, holder: &str) -> Result<Self, OpenError> {
        let lock = Lock::take(path, holder)?;
        let connection = Connection::open(path).map_err(|source| OpenError::of(path, source))?;
        Self::start(connection, path, Some(lock))
    }

    /// A journal in memory, by the same code, for tests of whoever needs a journal.
    ///
    /// # Errors
    /// [`OpenError::Sqlite`].
    pub fn in_memory() -> Result<Self, OpenError> {
        let path = Path::new(":memory:");
        let connection = Connection::open_in_memory().map_err(|source| OpenError::of(path, source))?;
        Self::start(connection, path, None)
    }

    /// Opens the journal at `path` for reading, without its lock, while a controller may be running.
    ///
    /// # Errors
    /// As [`JournalReader::open`].
    pub fn read_only(path: &Path) -> Result<JournalReader, OpenError> {
        JournalReader::open(path)
    }

    fn start(mut connection: Connection, path: &Path, lock: Option<Lock>) -> Result<Self, OpenError> {
        let end = schema::prepare(&mut connection, path)?;
        let mark = match &lock {
            Some(_) => Some(Mark::check(&connection, path, end)?),
            None => None,
        };
        let writer = Writer { connection, end, mark, _lock: lock };
        let (requests, receiver) = mpsc::channel();
        let name = "journal".to_owned();
        let spawned = std::thread::Builder::new().name(name).spawn(move || writer.run(&receiver));
        let thread = spawned.map_err(|source| OpenError::Lock { path: path.into(), source })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request + Send) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send(request(reply)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for SqliteJournal {
    /// Waits for the last request, so that the lock is free when this returns.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was printed there, and there is nothing to save here.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, JournalError> {
        if facts.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(|reply| Request::Write(Write::Append { at, commit, facts }, reply)).await
    }

    async fn records(&self) -> Result<Vec<Record>, JournalError> {
        self.ask(Request::Records).await
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), JournalError> {
        let write = Write::Put { key: key.to_owned(), value: value.to_owned() };
        self.ask(|reply| Request::Write(write, reply)).await.map(|_| ())
    }

    async fn get(&self, key: &str) -> Result<Option<String>, JournalError> {
        let key = key.to_owned();
        self.ask(|reply| Request::Get(key, reply)).await
    }
}
