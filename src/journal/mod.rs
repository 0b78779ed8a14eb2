//! The embedded store: every intention before it has an effect, and every outcome after.
//!
//! **Scope.** One SQLite file (write-ahead log, `synchronous=FULL`): records in order, each with a checksum over itself and all before it, a
//! few small values by key, and a lock that keeps a second controller out and says who holds it. Beside it a mark that shows whether the
//! journal was put back, and the local brake. Backup while it is written. `sqlite3` reads the file while the controller runs.
//!
//! **Non-goals.** No decision and no fold over facts: that is `model::History`. No deletion: triggers refuse it.

mod backup;
mod brake;
mod failure;
mod lock;
mod mark;
mod reader;
mod schema;
mod sqlite;
mod sum;
mod writer;

pub use backup::{Survey, backup, restore, verify};
pub use brake::{BrakeError, BrakeFile};
pub use failure::{CopyError, OpenError};
pub use reader::JournalReader;
pub use sqlite::SqliteJournal;
