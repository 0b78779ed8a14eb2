//! The fleet repository: its newest commit as files, and our notes in it.
//!
//! **Scope.** Everything that speaks Git: the controller's own bare clone, remotes by path, `file://`, ssh and https, notes, and the helpers
//! that `init`, `plan`, `validate` and `notes setup` use in a person's clone.
//!
//! **Non-goals.** No meaning: files are bytes by path, and `manifest` reads them. Nothing is ever written to a remote but
//! `refs/notes/rackwright/…` (law 13): [`refspec`] is the only place that builds what is pushed.

mod config;
mod failure;
mod housekeeping;
mod known_hosts;
mod left_locks;
mod local;
mod nearby;
mod notes;
mod notes_tree;
mod own_clone;
mod range;
pub mod refspec;
mod remote;
mod source;
mod tree;
mod url;
mod watch;
mod worktree;

pub use config::{Config, NotesConfig};
pub use failure::GitError;
pub use left_locks::remove_left_locks;
pub use local::{NotesSetup, init_repository, look_at_range, notes_setup, read_tree_at};
pub use notes::GitNotes;
pub use source::GitSource;
pub use tree::FILE_LIMIT;
pub use url::{BadUrl, RemoteUrl};
pub use worktree::read_worktree;
