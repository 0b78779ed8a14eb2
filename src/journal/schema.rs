//! The tables, and whether a file holds ours.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, Transaction, params};

use super::{
    OpenError, backup,
    reader::{self, End},
    sum::{self, Columns, FIRST, Sum},
};

/// The format that this release writes, kept in `user_version`.
///
/// | format | since | what is new |
/// |---|---|---|
/// | 1 | 0.1 | |
/// | 2 | 0.2 | a checksum of each record and each value |
pub(super) const VERSION: i64 = 2;

/// Marks the file as ours (`application_id`): "RWJL".
const APPLICATION: i64 = 0x5257_4a4c;

/// How long a statement waits for another connection, such as a person's `sqlite3` in a write transaction. Long enough for
/// a checkpoint, short enough that a turn is not lost to a forgotten shell.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = r#"
    CREATE TABLE record (
        seq INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        "commit" TEXT NOT NULL,
        machine TEXT NOT NULL,
        kind TEXT NOT NULL,
        fact TEXT NOT NULL,
        sum BLOB NOT NULL
    ) STRICT;
    CREATE INDEX record_machine ON record (machine, seq);
    CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL, sum BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TRIGGER record_is_not_changed BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'a journal is only appended to'); END;
    CREATE TRIGGER record_is_not_removed BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'a journal is only appended to'); END;
"#;

/// Takes what format 1 has out of the way; what is left is copied and dropped.
const ASIDE: &str = "
    DROP TRIGGER IF EXISTS record_is_not_changed;
    DROP TRIGGER IF EXISTS record_is_not_removed;
    DROP INDEX IF EXISTS record_machine;
    ALTER TABLE record RENAME TO record_1;
    ALTER TABLE kv RENAME TO kv_1;
";

/// Makes a new file ours, or checks that an existing one is and is whole, and brings it to the newest format. Returns the last record.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<End, OpenError> {
    let failed = |source| OpenError::of(path, source);
    connection.busy_timeout(BUSY).map_err(failed)?;
    if is_empty(connection).map_err(failed)? {
        // The whole schema or none of it: a crash in between leaves an empty file, which is made again.
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(TABLES).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    check(connection, path)?;
    // After the check, so that a file that is not ours is left as it was.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    let end = whole(connection, path)?;
    if let Some(made) = backup::made(connection, path)? {
        return Err(OpenError::Backup { path: path.into(), made });
    }
    renew(connection, path, end)
}

/// Brings a copy of a journal to the newest format.
pub(super) fn prepare_copy(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let end = whole(connection, path)?;
    renew(connection, path, end).map(|_| ())
}

fn renew(connection: &mut Connection, path: &Path, end: End) -> Result<End, OpenError> {
    let found = version(connection).map_err(|source| OpenError::of(path, source))?;
    if found == VERSION {
        return Ok(end);
    }
    let end = upgrade(connection, path)?;
    tracing::info!(path = %path.display(), from = found, to = VERSION, records = end.0, "the journal was brought to a new format");
    Ok(end)
}

/// Copies format 1 into the tables of today, all or nothing.
fn upgrade(connection: &mut Connection, path: &Path) -> Result<End, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let transaction = connection.transaction().map_err(failed)?;
    transaction.execute_batch(ASIDE).and_then(|()| transaction.execute_batch(TABLES)).map_err(failed)?;
    let end = copy(&transaction).map_err(failed)?;
    transaction.execute_batch("DROP TABLE record_1; DROP TABLE kv_1").map_err(failed)?;
    transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(end)
}

fn copy(to: &Transaction<'_>) -> rusqlite::Result<End> {
    let mut end = (0, FIRST);
    let mut rows = to.prepare(r#"SELECT seq, at, "commit", machine, kind, fact FROM record_1 ORDER BY seq"#)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column).and_then(|value| value.as_str().map_err(Into::into));
        let columns = Columns { seq: row.get(0)?, at: text(1)?, commit: text(2)?, machine: text(3)?, kind: text(4)?, fact: text(5)? };
        end = (columns.seq, insert(to, &end.1, &columns)?);
    }
    let mut values = to.prepare("SELECT key, value FROM kv_1")?;
    let mut values = values.query([])?;
    while let Some(row) = values.next()? {
        put(to, &row.get::<_, String>(0)?, &row.get::<_, String>(1)?)?;
    }
    Ok(end)
}

/// Adds a record after one with the sum `before`; gives its own.
pub(super) fn insert(to: &Transaction<'_>, before: &Sum, columns: &Columns<'_>) -> rusqlite::Result<Sum> {
    let sum = sum::of_record(before, columns);
    let Columns { seq, at, commit, machine, kind, fact } = columns;
    let sql = r#"INSERT INTO record (seq, at, "commit", machine, kind, fact, sum) VALUES (?, ?, ?, ?, ?, ?, ?)"#;
    to.prepare_cached(sql)?.execute(params![seq, at, commit, machine, kind, fact, sum])?;
    Ok(sum)
}

/// Keeps a small value.
pub(super) fn put(to: &Transaction<'_>, key: &str, value: &str) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO kv (key, value, sum) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, sum = excluded.sum";
    to.prepare_cached(sql)?.execute(params![key, value, sum::of_value(key, value)]).map(|_| ())
}

/// Notes that a journal follows on one that was lost, as the engine does: nothing is installed on claim then.
pub(super) fn after_a_loss(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    put(&transaction, "journal-origin", "after-a-loss")?;
    transaction.commit()
}

/// The format of a journal.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whether the file is a journal that this release can read.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::of(path, source);
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let found = version(connection).map_err(failed)?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.into(), found, known: VERSION });
    }
    Ok(())
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Looks for damage: pages by SQLite's own check, records by their numbers, which have no gaps, and by their sums.
pub(super) fn whole(connection: &Connection, path: &Path) -> Result<End, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(OpenError::Damaged { path: path.into(), what: said });
    }
    reader::walk(connection, 1, |_, _| Ok(())).map_err(|fault| fault.into_open(path))
}
