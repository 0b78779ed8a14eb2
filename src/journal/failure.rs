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
        "the journal {} is damaged: {what}. Stop here, keep a copy, and restore it from a backup, or try `sqlite3 {} .recover`. Starting \
         with an empty journal is safe for disks (notes in the repository show that one existed), but every attempt's history is lost",
        path.display(),
        path.display()
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        what: String,
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
