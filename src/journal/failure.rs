//! What SQLite says, as what a person or the engine can act on.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::{model::RetryClass, ports::JournalError};

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another controller has it.
    #[error("the journal {} is held by another controller: {holder}. Only one may run on it; stop the other one first", path.display())]
    Held {
        /// The journal.
        path: PathBuf,
        /// Who holds it: process, host and since when.
        holder: String,
    },
    /// The lock beside the journal can't be made or taken.
    #[error("can't lock the journal: {} can't be opened or locked", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// There is no file to read.
    #[error("there is no journal at {}; a controller makes it at its first start", path.display())]
    Missing {
        /// The journal.
        path: PathBuf,
    },
    /// A newer release wrote it.
    #[error(
        "the journal {} has format {found}, and this release reads up to {known}: it was written by a newer release. Run that release, or \
         a newer one",
        path.display()
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this release knows.
        known: i64,
    },
    /// It is another program's file.
    #[error("{} is not a journal of Rackwright. Nothing was changed in it; check `stateDir`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged.
    #[error(
        "the journal {} is damaged: {what}. Nothing is done on it. Keep a copy, and put a backup in its place with `rackwright journal restore \
         FILE`. Starting without one (move journal.db and its -wal away) is safe for disks: machines are adopted as they are declared, \
         and nothing is installed on claim; but what happened before is forgotten",
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is whole, and an earlier state of itself.
    #[error(
        "the journal {} ends at record {last} or goes on otherwise after it, but its controller had written record {acknowledged} \
         (so says {}): it was put back to an earlier state, by a copy or because its -wal file was removed. What was installed since \
         would be installed again. Put the newest journal back with `rackwright journal restore FILE`, which holds all machines until \
         you have looked. Where there is none: `rackwright hold --all`, remove {}, start, and read `rackwright plan --config`",
        path.display(), mark.display(), mark.display()
    )]
    Behind {
        /// The journal.
        path: PathBuf,
        /// The file beside it that says how far it got.
        mark: PathBuf,
        /// The record that was acknowledged.
        acknowledged: i64,
        /// The last record that is there.
        last: i64,
    },
    /// It is a backup that was copied into its place.
    #[error(
        "the journal {} is a backup of {made}, copied into its place. What was installed since would be installed again: put it there with \
         `rackwright journal restore FILE`, which holds all machines until you have looked",
        path.display()
    )]
    Backup {
        /// The journal.
        path: PathBuf,
        /// When the backup was made.
        made: String,
    },
    /// Anything else.
    #[error("can't open the journal {}", path.display())]
    Sqlite {
        /// The journal.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

/// Why a journal was not copied or put back.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is a file already.
    #[error("there is a file {} already, and no backup overwrites one: name another", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A journal can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The machines can't be held.
    #[error(transparent)]
    Brake(#[from] super::BrakeError),
    /// SQLite could not write.
    #[error("can't write the copy {}", path.display())]
    Sqlite {
        /// The copy.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// A file can't be written or moved.
    #[error("can't put {} in its place", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl OpenError {
    /// Sorts an error of SQLite at opening.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged { path: path.into(), what: source.to_string() },
            _ => Self::Sqlite { path: path.into(), source },
        }
    }
}

/// Sorts an error of SQLite while the journal is in use.
pub(super) fn journal_error(doing: &str, source: rusqlite::Error) -> JournalError {
    let (why, class) = match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ("the disk is full; make room, nothing was lost", RetryClass::Wait),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ("another program keeps it locked", RetryClass::Wait),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ("it may not be written", RetryClass::Stalled),
        Some(ErrorCode::SystemIoFailure) => ("the disk under it fails", RetryClass::Stalled),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ("it is damaged; stop the controller, keep a copy and restore a backup", RetryClass::Failed)
        }
        _ => ("SQLite refused", RetryClass::Failed),
    };
    JournalError { message: format!("can't {doing} the journal: {why}"), class, source: Some(Box::new(source)) }
}

/// The writer is gone, which only happens at the end or after a panic in it.
pub(super) fn stopped() -> JournalError {
    JournalError { message: "the journal is closed".into(), class: RetryClass::Failed, source: None }
}
