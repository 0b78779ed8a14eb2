//! One commit of the fleet repository, and its files.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{CommitId, Timestamp};

/// A commit, without its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// The author, as `Name <address>`.
    pub author: String,
    /// The committer's time.
    pub time: Timestamp,
    /// Its trailers `Rackwright-Approve`, as they are written: who may approve, and what it means, is the planner's to judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
}

/// A trailer `Rackwright-Approve` of a commit's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The author's address, as the commit states it. Anyone who may write commits can write any address.
    pub by: String,
    /// What stands after the colon, such as `destroy=40`.
    pub text: String,
    /// Whose signature the commit carries, where the fleet asks for signatures and it was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers: Option<Vec<String>>,
}

/// The files of one commit, by path. Blobs are shared with the commit before where they did not change.
pub type Files = BTreeMap<String, FileEntry>;

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The blob's Git id: equal ids are equal bytes.
    pub id: [u8; 20],
    /// What it is.
    pub kind: FileKind,
    /// Its bytes; empty unless `kind` is [`FileKind::Regular`]. A file over the size limit is cut to one byte more than it.
    pub bytes: Arc<[u8]>,
}

/// What a tree entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file.
    Regular,
    /// A symbolic link. Never followed.
    Symlink,
    /// A submodule. Never followed.
    Submodule,
}

/// A commit with its files.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The commit.
    pub commit: Commit,
    /// Its files.
    pub files: Arc<Files>,
    /// First parents between the commit that was in force and this one, oldest first: never in force, but owed a last word.
    /// At most the newest 1,000.
    pub skipped: Vec<CommitId>,
}
