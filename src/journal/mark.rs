//! How far the journal got, in a small file beside it: shows that the journal was put back to an earlier state, whole as that may be.
//!
//! A copy that was taken while a controller ran, a write-ahead log that was deleted or torn, a backup that was copied over the journal: each
//! is a journal without a fault in it that knows nothing of the last installs, and by which they would be done again.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension as _};

use super::{OpenError, lock::beside, reader::End, schema, sum::Sum};

/// Number and sum of the last record that was acknowledged. Written after the record is durable and never synced, so it may be behind the
/// journal and is never ahead of it.
pub(super) struct Mark {
    path: PathBuf,
    file: Option<File>,
}

impl Mark {
    /// Compares a whole journal with its mark.
    pub(super) fn check(connection: &Connection, journal: &Path, end: End) -> Result<Self, OpenError> {
        let path = Self::path(journal);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut mark = Self { file: file.inspect_err(|error| Self::warn(&path, error)).ok(), path };
        let before = mark.file.as_ref().and_then(read).filter(|(seq, _)| *seq > 0);
        if end.0 == 0 {
            // A new journal where there was one. The engine looks for that too, in notes and in the clone, which may be gone as well.
            if before.is_some() {
                tracing::warn!(journal = %journal.display(), mark = %mark.path.display(), "the journal is new, and there was another before: nothing is installed on claim");
                schema::after_a_loss(connection).map_err(|source| OpenError::of(journal, source))?;
            }
        } else {
            if let Some((seq, sum)) = before {
                let stored: Option<Sum> = connection
                    .query_row("SELECT sum FROM record WHERE seq = ?", [seq], |row| row.get(0))
                    .optional()
                    .map_err(|source| OpenError::of(journal, source))?;
                if stored != Some(sum) {
                    return Err(OpenError::Behind { path: journal.into(), mark: mark.path, acknowledged: seq, last: end.0 });
                }
            }
            mark.set(end);
        }
        Ok(mark)
    }

    /// Where it is.
    pub(super) fn path(journal: &Path) -> PathBuf {
        beside(journal, ".mark")
    }

    /// Notes that `end` was acknowledged. The journal is what counts: that this can't be written harms nothing now.
    pub(super) fn set(&mut self, end: End) {
        let text = format!("{:020} {}\n", end.0, hex::encode(end.1));
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(text.as_bytes(), 0) {
            Self::warn(&self.path, &error);
            self.file = None;
        }
    }

    fn warn(path: &Path, error: &std::io::Error) {
        tracing::warn!(path = %path.display(), %error, "can't write how far the journal got: a journal that is put back would not be noticed");
    }
}

/// `None` also for one that was cut off.
fn read(file: &File) -> Option<End> {
    let mut bytes = [0; 54];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (seq, rest) = std::str::from_utf8(&bytes).ok()?.split_once(' ')?;
    let mut sum = Sum::default();
    hex::decode_to_slice(rest.strip_suffix('\n')?, &mut sum).ok()?;
    Some((seq.parse().ok()?, sum))
}

/// What a mark says.
pub(super) fn read_at(journal: &Path) -> Option<End> {
    read(&File::open(Mark::path(journal)).ok()?)
}
