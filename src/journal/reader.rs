//! Reading records, also while a controller writes them.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use crate::{
    model::{Fact, MachineName, Record, RetryClass},
    ports::JournalError,
};

use super::{OpenError, failure::journal_error, schema};

/// A journal opened for reading only: `rackwright history` while the controller runs. Takes no lock and sees each record as
/// soon as it is durable.
#[derive(Debug)]
pub struct JournalReader {
    connection: Connection,
    path: PathBuf,
}

impl JournalReader {
    /// Opens the journal at `path`.
    ///
    /// # Errors
    /// [`OpenError`]: it is not there, not a journal, or of a newer release.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing { path: path.into() });
        }
        let failed = |source| OpenError::of(path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
        schema::check(&connection, path)?;
        Ok(Self { connection, path: path.into() })
    }

    /// The journal's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records whose number is greater than `seq`, oldest first. With 0: all of them.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn records_after(&self, seq: u64) -> Result<Vec<Record>, JournalError> {
        records_after(&self.connection, seq)
    }

    /// Records about the machine that has this name, or had it last, under each of its names, oldest first.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn records_of(&self, machine: &MachineName) -> Result<Vec<Record>, JournalError> {
        let mut records = trail(self.records_after(0)?, machine);
        records.reverse();
        Ok(records)
    }

    /// A value by its key.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn get(&self, key: &str) -> Result<Option<String>, JournalError> {
        get(&self.connection, key)
    }
}

/// Follows a machine back through its names, newest record first. A name that was given on to another machine is followed for one of
/// them only: the one that had it last.
fn trail(records: Vec<Record>, machine: &MachineName) -> Vec<Record> {
    let (mut name, mut found) = (machine.clone(), Vec::new());
    for record in records.into_iter().rev() {
        match &record.fact {
            Fact::Renamed { from, to } if *to == name => name = from.clone(),
            Fact::Renamed { from, .. } if *from == name && found.is_empty() => {}
            Fact::Renamed { from, .. } if *from == name => break,
            fact if *fact.machine() == name => {}
            _ => continue,
        }
        found.push(record);
    }
    found
}

pub(super) fn records_after(connection: &Connection, seq: u64) -> Result<Vec<Record>, JournalError> {
    let failed = |source| journal_error("read", source);
    let mut statement =
        connection.prepare_cached(r#"SELECT seq, at, "commit", fact FROM record WHERE seq > ? ORDER BY seq"#).map_err(failed)?;
    let rows = statement.query_map(params![i64::try_from(seq).unwrap_or(i64::MAX)], raw).map_err(failed)?;
    rows.map(|row| parse(row.map_err(failed)?)).collect()
}

pub(super) fn get(connection: &Connection, key: &str) -> Result<Option<String>, JournalError> {
    let value = connection.query_row("SELECT value FROM kv WHERE key = ?", [key], |row| row.get(0));
    value.optional().map_err(|source| journal_error("read", source))
}

struct Raw {
    seq: i64,
    at: String,
    commit: String,
    fact: String,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw { seq: row.get(0)?, at: row.get(1)?, commit: row.get(2)?, fact: row.get(3)? })
}

/// One record that can't be read stops everything: a history with a hole in it could repeat a destructive step.
fn parse(raw: Raw) -> Result<Record, JournalError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| JournalError {
        message: format!("record {} of the journal can't be read: it is damaged, or a newer release wrote it", raw.seq),
        class: RetryClass::Failed,
        source: Some(source),
    };
    Ok(Record {
        seq: raw.seq.unsigned_abs(),
        at: raw.at.parse().map_err(|source| unreadable(Box::new(source)))?,
        commit: raw.commit.parse().map_err(|source| unreadable(Box::new(source)))?,
        fact: serde_json::from_str(&raw.fact).map_err(|source| unreadable(Box::new(source)))?,
    })
}
