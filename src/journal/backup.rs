//! Looking a journal through, copying it while it is written, and putting a copy back.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use crate::model::{Hold, HoldScope, Record, Timestamp};

use super::{
    BrakeFile, JournalReader, OpenError,
    failure::CopyError,
    lock::Lock,
    mark::{self, Mark},
    reader, schema,
};

/// The key under which a backup says when it was made. A controller does not start on one that was merely copied into place.
const BACKUP: &str = "backup-made";

/// What was found in a journal that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Its format.
    pub format: i64,
    /// Records.
    pub records: u64,
    /// When the first and the last were written.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Size of the file, without the write-ahead log, in bytes.
    pub bytes: u64,
    /// When it was made, if it is a backup.
    pub backup: Option<String>,
}

/// Looks a journal through, also while a controller writes it: SQLite's full check, numbers, sums, that each record can be read, the small
/// values, and whether it got as far as its mark says.
///
/// # Errors
/// [`OpenError`]: the first thing that is wrong.
pub fn verify(path: &Path) -> Result<Survey, OpenError> {
    // Before the records: the controller may add some meanwhile.
    let mark = mark::read_at(path);
    let reader = JournalReader::open(path)?;
    let connection = &reader.connection;
    let failed = |source| OpenError::of(path, source);
    let damaged = |what: String| OpenError::Damaged { path: path.into(), what };
    let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(damaged(said));
    }
    let (mut span, mut marked): (Option<(Timestamp, Timestamp)>, bool) = (None, mark.is_none());
    let walked = reader::walk(connection, 1, |columns, sum| {
        let Record { at, .. } = reader::parse(columns)?;
        span = Some(span.map_or((at, at), |(first, _)| (first, at)));
        marked |= mark == Some((columns.seq, *sum));
        Ok(())
    });
    let (last, _) = walked.map_err(|fault| fault.into_open(path))?;
    if let (false, Some((acknowledged, _))) = (marked || last == 0, mark) {
        return Err(OpenError::Behind { path: path.into(), mark: Mark::path(path), acknowledged, last });
    }
    reader::values(connection).map_err(|fault| fault.into_open(path))?;
    let backup = made(connection, path)?;
    let bytes = fs::metadata(path).map_or(0, |file| file.len());
    Ok(Survey { format: schema::version(connection).map_err(failed)?, records: last.unsigned_abs(), span, bytes, backup })
}

/// When a journal was made as a backup, if it is one.
pub(super) fn made(connection: &Connection, path: &Path) -> Result<Option<String>, OpenError> {
    reader::value(connection, BACKUP).map_err(|fault| fault.into_open(path))
}

/// Copies a journal into a new file, also while a controller writes it: all that is durable when it begins. Nothing is overwritten, and the
/// copy is looked through before it gets its name.
///
/// # Errors
/// [`CopyError`]; then there is no file at `to`.
pub fn backup(from: &Path, to: &Path, now: Timestamp) -> Result<Survey, CopyError> {
    if to.exists() {
        return Err(CopyError::Exists { path: to.into() });
    }
    let reader = JournalReader::open(from)?;
    let new = with_suffix(to, ".new");
    let _ = fs::remove_file(&new);
    let made = copy(&reader.connection, &new, Some(now)).and_then(|()| Ok(verify(&new)?)).and_then(|survey| {
        // Unlike a rename, a link never replaces what came there meanwhile.
        fs::hard_link(&new, to).and_then(|()| sync_folder(to)).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => CopyError::Exists { path: to.into() },
            _ => CopyError::File { path: to.into(), source },
        })?;
        Ok(survey)
    });
    let _ = fs::remove_file(&new);
    made
}

/// Puts a backup in the place of the journal, and holds all machines before: it knows nothing of what was installed since. What was there
/// is kept beside it; gives where.
///
/// # Errors
/// [`CopyError`]: a controller runs, the backup is not whole, or a file can't be written. The machines may be held then.
pub fn restore(from: &Path, journal: &Path, brake: &BrakeFile, by: String, now: Timestamp) -> Result<Option<PathBuf>, CopyError> {
    let survey = verify(from)?;
    let _lock = Lock::take(journal, "`rackwright journal restore`")?;
    let made = survey.backup.unwrap_or_else(|| "an unknown time".to_owned());
    let reason = format!("the journal was restored from a backup of {made}: look at the plan, and adopt what was installed since");
    brake.change(|holds| {
        holds.retain(|hold| hold.scope != HoldScope::All);
        holds.push(Hold { scope: HoldScope::All, by, at: now, reason });
    })?;
    let new = with_suffix(journal, ".new");
    let _ = fs::remove_file(&new);
    copy(&JournalReader::open(from)?.connection, &new, None)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CopyError::File { path, source }
    };
    let aside = with_suffix(journal, &format!(".before-{}", now.strftime("%Y%m%dT%H%M%SZ")));
    for part in ["", "-wal", "-shm", ".mark"] {
        match fs::rename(with_suffix(journal, part), with_suffix(&aside, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&aside)(error)),
            _ => {}
        }
    }
    fs::rename(&new, journal).and_then(|()| sync_folder(journal)).map_err(failed(journal))?;
    Ok(aside.exists().then_some(aside))
}

/// One snapshot into a file of its own, marked as a backup of `made`, or as a journal again.
fn copy(from: &Connection, to: &Path, made: Option<Timestamp>) -> Result<(), CopyError> {
    let failed = |source| CopyError::Sqlite { path: to.into(), source };
    let mut copy = Connection::open(to).map_err(failed)?;
    // In one step: the source is read as one snapshot, while its writer goes on.
    rusqlite::backup::Backup::new(from, &mut copy).and_then(|backup| backup.step(-1)).map_err(failed)?;
    // A single file, without a write-ahead log beside it.
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
    copy.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    schema::prepare_copy(&mut copy, to)?;
    if made.is_none() {
        // What was claimed since is not known to be ours.
        schema::after_a_loss(&copy).map_err(failed)?;
    }
    let transaction = copy.transaction().map_err(failed)?;
    match made {
        Some(made) => schema::put(&transaction, BACKUP, &format!("{made:.0}")),
        None => transaction.execute("DELETE FROM kv WHERE key = ?", [BACKUP]).map(|_| ()),
    }
    .map_err(failed)?;
    transaction.commit().map_err(failed)?;
    copy.close().map_err(|(_, source)| failed(source))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|source| CopyError::File { path: to.into(), source })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
