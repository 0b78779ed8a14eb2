//! The embedded store: every intention before it has an effect, and every outcome after.
//!
//! **Scope.** One SQLite file (write-ahead log, `synchronous=FULL`): records in order, a few small values by key, and a lock that keeps a
//! second controller out and says who holds it. `sqlite3` reads the file while the controller runs.
//!
//! **Non-goals.** No decision and no fold over facts: that is `model::History`. No deletion: triggers refuse it.

mod brake;
mod failure;
mod lock;
mod reader;
mod schema;
mod sqlite;
mod writer;

pub use brake::{BrakeError, BrakeFile};
pub use failure::OpenError;
pub use reader::JournalReader;
pub use sqlite::SqliteJournal;
