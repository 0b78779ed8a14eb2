//! The thread that owns the connection.
//!
//! Requests that wait while a transaction is being made durable go into the next one together: a hundred machines that
//! report at once cost a few syncs, not a hundred. When that transaction fails, each request is tried alone, so that one bad
//! request fails by itself.

use std::sync::mpsc::Receiver;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::{
    model::{CommitId, Fact, Record, RetryClass, Timestamp},
    ports::JournalError,
};

use super::{failure::journal_error, lock::Lock, reader};

/// How many requests share a transaction at most; bounds how long the first of them waits.
const GROUP: usize = 256;

pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// What the thread is asked.
pub(super) enum Request {
    Write(Write, Reply<Vec<Record>>),
    Records(Reply<Vec<Record>>),
    Get(String, Reply<Option<String>>),
}

/// What changes the journal.
pub(super) enum Write {
    Append { at: Timestamp, commit: CommitId, facts: Vec<Fact> },
    Put { key: String, value: String },
}

/// Connection, the number of the last durable record, and the lock, dropped in this order.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) last: u64,
    pub(super) _lock: Option<Lock>,
}

impl Writer {
    /// Answers until every sender is gone.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut writes = Vec::new();
            let mut next = Some(first);
            while let Some(request) = next {
                // A receiver that is gone has stopped waiting; there is nobody to tell.
                match request {
                    Request::Records(reply) => drop(reply.send(reader::records_after(&self.connection, 0))),
                    Request::Get(key, reply) => drop(reply.send(reader::get(&self.connection, &key))),
                    Request::Write(write, reply) => writes.push((write, reply)),
                }
                next = if writes.len() < GROUP { requests.try_recv().ok() } else { None };
            }
            self.write_all(writes);
        }
    }

    fn write_all(&mut self, mut writes: Vec<(Write, Reply<Vec<Record>>)>) {
        if writes.len() > 1 {
            let together = self.transaction(writes.iter().map(|(write, _)| write));
            if let Ok(written) = together {
                writes.into_iter().zip(written).for_each(|((_, reply), records)| drop(reply.send(Ok(records))));
                return;
            }
        }
        for (write, reply) in writes.drain(..) {
            let written = self.transaction(std::iter::once(&write));
            drop(reply.send(written.map(|records| records.into_iter().flatten().collect())));
        }
    }

    /// One transaction for all of them. On an error nothing of it is there, and the connection is usable.
    fn transaction<'a>(&mut self, writes: impl Iterator<Item = &'a Write>) -> Result<Vec<Vec<Record>>, JournalError> {
        let failed = |source| journal_error("write", source);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut last = self.last;
        let mut written = Vec::new();
        for write in writes {
            written.push(match write {
                Write::Append { at, commit, facts } => append(&transaction, &mut last, *at, *commit, facts)?,
                Write::Put { key, value } => put(&transaction, key, value).map(|()| Vec::new()).map_err(failed)?,
            });
        }
        transaction.commit().map_err(failed)?;
        self.last = last;
        Ok(written)
    }
}

fn append(to: &Transaction<'_>, last: &mut u64, at: Timestamp, commit: CommitId, facts: &[Fact]) -> Result<Vec<Record>, JournalError> {
    let failed = |source| journal_error("write", source);
    let sql = r#"INSERT INTO record (seq, at, "commit", machine, kind, fact) VALUES (?, ?, ?, ?, ?, ?)"#;
    let mut statement = to.prepare_cached(sql).map_err(failed)?;
    let mut records = Vec::with_capacity(facts.len());
    for fact in facts {
        *last += 1;
        let json = serde_json::to_string(fact).map_err(|source| JournalError {
            message: format!("can't write a fact about {} as JSON", fact.machine()),
            class: RetryClass::Failed,
            source: Some(Box::new(source)),
        })?;
        let seq = i64::try_from(*last).unwrap_or(i64::MAX);
        let row = params![seq, at.to_string(), commit.to_string(), fact.machine().as_str(), kind(&json), json];
        statement.execute(row).map_err(failed)?;
        records.push(Record { seq: *last, at, commit, fact: fact.clone() });
    }
    Ok(records)
}

fn put(to: &Transaction<'_>, key: &str, value: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO kv (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    to.prepare_cached(sql)?.execute([key, value]).map(|_| ())
}

/// The fact's tag, for people who query the file. The tag comes first in what serde writes for an enum tagged inside.
fn kind(json: &str) -> &str {
    json.strip_prefix(r#"{"fact":""#).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}
