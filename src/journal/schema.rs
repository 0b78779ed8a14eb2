//! The tables, and whether a file holds ours.

use std::{path::Path, time::Duration};

use rusqlite::Connection;

use super::OpenError;

/// The format that this release writes, kept in `user_version`.
pub(super) const VERSION: i64 = 1;

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
        fact TEXT NOT NULL
    ) STRICT;
    CREATE INDEX record_machine ON record (machine, seq);
    CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TRIGGER record_is_not_changed BEFORE UPDATE ON record BEGIN SELECT RAISE(ABORT, 'a journal is only appended to'); END;
    CREATE TRIGGER record_is_not_removed BEFORE DELETE ON record BEGIN SELECT RAISE(ABORT, 'a journal is only appended to'); END;
"#;

/// Makes a new file ours, or checks that an existing one is and is whole. Returns `seq` of the last record.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<u64, OpenError> {
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
    whole(connection, path)
}

/// Whether the file is a journal that this release can read.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::of(path, source);
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.into(), found, known: VERSION });
    }
    Ok(())
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Looks for damage: pages by SQLite's own check, records by their numbers, which have no gaps.
fn whole(connection: &Connection, path: &Path) -> Result<u64, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(OpenError::Damaged { path: path.into(), what: said });
    }
    let (count, last): (i64, i64) = connection
        .query_row("SELECT count(*), coalesce(max(seq), 0) FROM record", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    if count != last {
        let what = format!("{} of its {last} records are missing", last.saturating_sub(count));
        return Err(OpenError::Damaged { path: path.into(), what });
    }
    Ok(last.unsigned_abs())
}
