//! Reading records, also while a controller writes them.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};

use crate::{
    model::{Fact, MachineName, Record, RetryClass},
    ports::JournalError,
};

use super::{
    OpenError,
    failure::journal_error,
    schema,
    sum::{self, Columns, FIRST, Sum},
};

/// A journal opened for reading only: `rackwright history` while the controller runs. Takes no lock and sees each record as
/// soon as it is durable.
#[derive(Debug)]
pub struct JournalReader {
    pub(super) connection: Connection,
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

/// What is wrong with a row. Its history can't be trusted from there on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// SQLite can't read on.
    #[error("the file can't be read on after record {after}")]
    Sqlite {
        after: i64,
        #[source]
        source: rusqlite::Error,
    },
    /// A record is not where it should be.
    #[error("record {wanted} is missing")]
    Missing { wanted: i64 },
    /// A bit flipped, or somebody changed it.
    #[error("record {seq} does not match its checksum")]
    Changed { seq: i64 },
    /// It matches, and still makes no sense.
    #[error("record {seq} can't be read: a newer release wrote it, or it is damaged")]
    Unreadable {
        seq: i64,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A small value.
    #[error("the value {key:?} does not match its checksum")]
    Value { key: String },
}

impl Fault {
    /// The same while a journal is opened.
    pub(super) fn into_open(self, path: &Path) -> OpenError {
        match self {
            Fault::Sqlite { source, .. } => OpenError::of(path, source),
            fault => OpenError::Damaged { path: path.into(), what: fault.to_string() },
        }
    }
}

impl From<Fault> for JournalError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sqlite { source, .. } => journal_error("read", source),
            fault => JournalError {
                message: format!("can't trust the journal: {fault}. Nothing is done on it; see `rackwright journal verify`"),
                class: RetryClass::Failed,
                source: match fault {
                    Fault::Unreadable { source, .. } => Some(source),
                    _ => None,
                },
            },
        }
    }
}

/// The last record and its sum.
pub(super) type End = (i64, Sum);

/// Reads the records from number `from` on, and checks that none is missing or changed. Gives the last one: 0 for an empty journal.
pub(super) fn walk(
    connection: &Connection,
    from: i64,
    mut each: impl FnMut(&Columns<'_>, &Sum) -> Result<(), Fault>,
) -> Result<End, Fault> {
    let summed = schema::version(connection).map_err(|source| Fault::Sqlite { after: 0, source })? > 1;
    let sum = if summed { "sum" } else { "NULL" };
    let sql = format!(r#"SELECT seq, at, "commit", machine, kind, fact, {sum} FROM record WHERE seq >= ? ORDER BY seq"#);
    // The one before gives the sum that the first one rests on.
    let start = (from - 1).max(0);
    let mut end = (start, FIRST);
    let failed = |after: i64| move |source| Fault::Sqlite { after, source };
    let mut statement = connection.prepare_cached(&sql).map_err(failed(start))?;
    let mut rows = statement.query([start]).map_err(failed(start))?;
    while let Some(row) = rows.next().map_err(failed(end.0))? {
        let seq: i64 = row.get(0).map_err(failed(end.0))?;
        // What is not even text any more was changed.
        let text = |column| row.get_ref(column).map_err(failed(end.0))?.as_str().map_err(|_| Fault::Changed { seq });
        let columns = Columns { seq, at: text(1)?, commit: text(2)?, machine: text(3)?, kind: text(4)?, fact: text(5)? };
        let stored: Option<Sum> = row.get(6).ok();
        if seq == start && start > 0 {
            end.1 = stored.unwrap_or(FIRST);
            continue;
        }
        if seq != end.0 + 1 {
            return Err(Fault::Missing { wanted: end.0 + 1 });
        }
        let sum = sum::of_record(&end.1, &columns);
        if summed && stored != Some(sum) {
            return Err(Fault::Changed { seq });
        }
        each(&columns, &sum)?;
        end = (seq, sum);
    }
    Ok(end)
}

pub(super) fn records_after(connection: &Connection, seq: u64) -> Result<Vec<Record>, JournalError> {
    let mut records = Vec::new();
    let from = i64::try_from(seq).unwrap_or(i64::MAX).saturating_add(1);
    walk(connection, from, |columns, _| {
        records.push(parse(columns)?);
        Ok(())
    })?;
    Ok(records)
}

pub(super) fn get(connection: &Connection, key: &str) -> Result<Option<String>, JournalError> {
    Ok(value(connection, key)?)
}

/// A small value.
pub(super) fn value(connection: &Connection, key: &str) -> Result<Option<String>, Fault> {
    let failed = |source| Fault::Sqlite { after: 0, source };
    let summed = schema::version(connection).map_err(failed)? > 1;
    let sql = format!("SELECT value, {} FROM kv WHERE key = ?", if summed { "sum" } else { "NULL" });
    let row = |row: &Row<'_>| Ok((row.get_ref(0)?.as_bytes()?.to_vec(), row.get::<_, Sum>(1).ok()));
    let Some((value, stored)) = connection.query_row(&sql, [key], row).optional().map_err(failed)? else { return Ok(None) };
    let changed = || Fault::Value { key: key.to_owned() };
    let value = String::from_utf8(value).map_err(|_| changed())?;
    if summed && stored != Some(sum::of_value(key, &value)) {
        return Err(changed());
    }
    Ok(Some(value))
}

/// Looks through all small values.
pub(super) fn values(connection: &Connection) -> Result<(), Fault> {
    let failed = |source| Fault::Sqlite { after: 0, source };
    let mut statement = connection.prepare("SELECT key FROM kv").map_err(failed)?;
    let keys = statement.query_map([], |row| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned())).map_err(failed)?;
    for key in keys {
        let key = key.map_err(failed)?;
        if value(connection, &key)?.is_none() {
            return Err(Fault::Value { key });
        }
    }
    Ok(())
}

/// One record that can't be read stops everything: a history with a hole in it could repeat a destructive step.
pub(super) fn parse(columns: &Columns<'_>) -> Result<Record, Fault> {
    let seq = columns.seq;
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| Fault::Unreadable { seq, source };
    Ok(Record {
        seq: seq.unsigned_abs(),
        at: columns.at.parse().map_err(|source| unreadable(Box::new(source)))?,
        commit: columns.commit.parse().map_err(|source| unreadable(Box::new(source)))?,
        fact: serde_json::from_str(columns.fact).map_err(|source| unreadable(Box::new(source)))?,
    })
}
