//! The thread that owns the connection.
//!
//! Requests that wait while a transaction is being made durable go into the next one together: a hundred machines that
//! report at once cost a few syncs, not a hundred. When that transaction fails, each request is tried alone, so that one bad
//! request fails by itself.

use std::sync::mpsc::Receiver;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::{
    model::{CommitId, Fact, Record, RetryClass, Timestamp},
    ports::JournalError,
};

use super::{
    failure::journal_error,
    lock::Lock,
    mark::Mark,
    reader::{self, End},
    schema,
    sum::Columns,
};

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

/// Connection, the last durable record, its mark beside the journal, and the lock, dropped in this order.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) end: End,
    pub(super) mark: Option<Mark>,
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
        let mut end = self.end;
        let mut written = Vec::new();
        for write in writes {
            written.push(match write {
                Write::Append { at, commit, facts } => append(&transaction, &mut end, *at, *commit, facts)?,
                Write::Put { key, value } => schema::put(&transaction, key, value).map(|()| Vec::new()).map_err(failed)?,
            });
        }
        transaction.commit().map_err(failed)?;
        if end != self.end
            && let Some(mark) = &mut self.mark
        {
            mark.set(end);
        }
        self.end = end;
        Ok(written)
    }
}

fn append(to: &Transaction<'_>, end: &mut End, at: Timestamp, commit: CommitId, facts: &[Fact]) -> Result<Vec<Record>, JournalError> {
    let failed = |source| journal_error("write", source);
    let (when, under) = (at.to_string(), commit.to_string());
    let mut records = Vec::with_capacity(facts.len());
    for fact in facts {
        let json = serde_json::to_string(fact).map_err(|source| JournalError {
            message: format!("can't write a fact about {} as JSON", fact.machine()),
            class: RetryClass::Failed,
            source: Some(Box::new(source)),
        })?;
        let (seq, machine) = (end.0 + 1, fact.machine().as_str());
        let columns = Columns { seq, at: &when, commit: &under, machine, kind: kind(&json), fact: &json };
        *end = (seq, schema::insert(to, &end.1, &columns).map_err(failed)?);
        records.push(Record { seq: seq.unsigned_abs(), at, commit, fact: fact.clone() });
    }
    Ok(records)
}

/// The fact's tag, for people who query the file. The tag comes first in what serde writes for an enum tagged inside.
fn kind(json: &str) -> &str {
    json.strip_prefix(r#"{"fact":""#).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}
