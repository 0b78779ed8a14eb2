//! Trees → files. Reads what changed since the tree before and nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use git2::{ObjectType, Oid, Repository, Tree};

use crate::model::{Approval, Commit, CommitId, FileEntry, FileKind, Files, RetryClass, Snapshot, Timestamp};

use super::GitError;

/// The largest file that is read whole, in bytes. A manifest is a few KiB; `manifest` names what is larger.
pub const FILE_LIMIT: usize = 1 << 20;

/// Up to here a file that is too large is inflated to show its real beginning, in bytes. Beyond it, its beginning is zeros: a disk image that
/// someone committed by mistake must not fill the controller's memory.
const INFLATE_LIMIT: usize = 16 << 20;

/// The longest message in which trailers are looked for, in bytes.
const MESSAGE_LIMIT: usize = 64 << 10;

/// The trailer with which a commit approves what its plan destroys. Git compares such keys without regard to case.
const APPROVE: &[u8] = b"Rackwright-Approve";

/// Folders in folders. Nobody's fleet is so deep; a tree made to exhaust us is.
const DEPTH_LIMIT: usize = 64;

/// Files in a commit. Ten times a site of 10,000 machines with ten files each; small trees can name each other into billions.
const COUNT_LIMIT: usize = 1_000_000;

/// Bytes of all files together, each blob counted once.
const TOTAL_LIMIT: usize = 1 << 30;

/// Files that are there now, and (`None`) that are not there any more.
type Changes = Vec<(String, Option<FileEntry>)>;

/// Remembers the last tree and the bytes of its blobs.
#[derive(Default)]
pub(super) struct TreeReader {
    tree: Option<Oid>,
    files: Arc<Files>,
    /// The files of the tree before, and what has changed since: brought up to date, they spare a copy of all paths.
    former: Option<(Arc<Files>, Changes)>,
    blobs: HashMap<[u8; 20], Arc<[u8]>>,
    blobs_read: u64,
}

impl TreeReader {
    /// How many blobs were read from the repository so far.
    pub(super) fn blobs_read(&self) -> u64 {
        self.blobs_read
    }

    /// A commit with its files.
    pub(super) fn snapshot(&mut self, repository: &Repository, id: Oid) -> Result<Snapshot, GitError> {
        let doing = format!("read commit {id}");
        let commit = repository.find_commit(id).map_err(|source| GitError::here(&doing, source))?;
        self.read(repository, id, commit.tree_id())?;
        Ok(Snapshot { commit: described(&commit), files: Arc::clone(&self.files), skipped: Vec::new() })
    }

    fn read(&mut self, repository: &Repository, commit: Oid, root: Oid) -> Result<(), GitError> {
        if self.tree == Some(root) {
            return Ok(());
        }
        let count = self.files.len();
        let mut update = Update { repository, commit, count, changes: Changes::new(), blobs: &mut self.blobs, read: 0, bytes: 0 };
        let done = update.trees(self.tree, root);
        let (changes, read) = (update.changes, update.read);
        self.blobs_read += read;
        done?;
        self.change(changes);
        self.tree = Some(root);
        // Bytes that no snapshot holds any more; rarely worth the walk.
        if self.blobs.len() > 2 * self.files.len() + 1024 {
            self.blobs.retain(|_, bytes| Arc::strong_count(bytes) > 1);
        }
        Ok(())
    }

    /// Has the files with these changes. Snapshots that were given out keep theirs.
    fn change(&mut self, changes: Changes) {
        let unused = self.former.take().and_then(|(files, missed)| Some((Arc::try_unwrap(files).ok()?, missed)));
        let (mut files, missed) = unused.unwrap_or_else(|| ((*self.files).clone(), Changes::new()));
        for (path, entry) in missed.iter().chain(&changes) {
            match entry {
                Some(entry) => drop(files.insert(path.clone(), entry.clone())),
                None => drop(files.remove(path)),
            }
        }
        let few = changes.len() < files.len() / 8;
        let former = std::mem::replace(&mut self.files, Arc::new(files));
        self.former = few.then_some((former, changes));
    }
}

/// A commit without its files.
fn described(commit: &git2::Commit<'_>) -> Commit {
    let author = commit.author();
    let (name, email) = (String::from_utf8_lossy(author.name_bytes()), String::from_utf8_lossy(author.email_bytes()));
    Commit {
        id: commit_id(commit.id()),
        subject: commit.summary_bytes().map(|subject| String::from_utf8_lossy(subject).into_owned()).unwrap_or_default(),
        author: format!("{name} <{email}>"),
        time: Timestamp::from_second(commit.time().seconds()).unwrap_or(Timestamp::UNIX_EPOCH),
        approvals: approvals(commit.message_bytes(), &email),
    }
}

/// The trailers `Rackwright-Approve` of a message, by libgit2's reading of it, which is Git's own: `key: value` lines of the last paragraph.
fn approvals(message: &[u8], author: &str) -> Vec<Approval> {
    let one_line = |text: &str| text.split(|c: char| c.is_control() || c.is_whitespace()).collect::<Vec<_>>().join(" ").trim().to_owned();
    let Some(trailers) = (message.len() <= MESSAGE_LIMIT).then(|| git2::message_trailers_bytes(message).ok()).flatten() else {
        return Vec::new();
    };
    let own = trailers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(APPROVE));
    let short = own.filter(|(_, value)| value.len() <= 200).take(8);
    short.map(|(_, value)| Approval { by: one_line(author), text: one_line(&String::from_utf8_lossy(value)), signers: None }).collect()
}

pub(super) fn commit_id(oid: Oid) -> CommitId {
    CommitId(raw_id(oid))
}

pub(super) fn raw_id(oid: Oid) -> [u8; 20] {
    let mut id = [0; 20];
    // Longer ids belong to SHA-256 repositories, which are refused when they are opened.
    id.copy_from_slice(&oid.as_bytes()[..20]);
    id
}

/// One tree against another, without recursion: depth is the repository's choice, our stack is not.
struct Update<'a> {
    repository: &'a Repository,
    commit: Oid,
    /// Files when all changes are made.
    count: usize,
    changes: Changes,
    blobs: &'a mut HashMap<[u8; 20], Arc<[u8]>>,
    read: u64,
    bytes: usize,
}

/// A folder that differs.
struct Folder {
    old: Option<Oid>,
    new: Option<Oid>,
    prefix: String,
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    Leaf(FileKind),
}

type Nodes = BTreeMap<String, (Oid, Node)>;

impl Update<'_> {
    fn trees(&mut self, old: Option<Oid>, new: Oid) -> Result<(), GitError> {
        let mut folders = vec![Folder { old, new: Some(new), prefix: String::new(), depth: 0 }];
        while let Some(folder) = folders.pop() {
            let (old, new) = (self.nodes(folder.old)?, self.nodes(folder.new)?);
            if folder.depth > DEPTH_LIMIT {
                return Err(self.refused(&format!("folders are more than {DEPTH_LIMIT} deep at {:.80}", folder.prefix)));
            }
            for (name, was) in &old {
                if new.get(name) != Some(was) {
                    let new_folder = new.get(name).filter(|now| now.1 == Node::Folder && was.1 == Node::Folder);
                    self.gone(&folder, name, *was, new_folder.map(|now| now.0), &mut folders);
                }
            }
            for (name, now) in &new {
                if old.get(name) != Some(now) {
                    self.came(&folder, name, *now, old.get(name).is_some_and(|was| was.1 == Node::Folder), &mut folders)?;
                }
            }
            if self.count + folders.len() > COUNT_LIMIT {
                return Err(self.refused(&format!("more than {COUNT_LIMIT} files")));
            }
        }
        Ok(())
    }

    /// A node is not what it was: its file goes, or its folder is gone through against what is there now.
    fn gone(&mut self, folder: &Folder, name: &str, was: (Oid, Node), now: Option<Oid>, folders: &mut Vec<Folder>) {
        let path = format!("{}{name}", folder.prefix);
        match was.1 {
            Node::Folder => folders.push(Folder { old: Some(was.0), new: now, prefix: path + "/", depth: folder.depth + 1 }),
            Node::Leaf(_) => {
                self.count = self.count.saturating_sub(1);
                self.changes.push((path, None));
            }
        }
    }

    fn came(&mut self, folder: &Folder, name: &str, now: (Oid, Node), was_folder: bool, folders: &mut Vec<Folder>) -> Result<(), GitError> {
        let path = format!("{}{name}", folder.prefix);
        match now.1 {
            // Gone through by `gone` already.
            Node::Folder if was_folder => {}
            Node::Folder => folders.push(Folder { old: None, new: Some(now.0), prefix: path + "/", depth: folder.depth + 1 }),
            Node::Leaf(kind) => {
                let bytes = if kind == FileKind::Regular { self.blob(now.0)? } else { Arc::from([]) };
                self.count += 1;
                self.changes.push((path, Some(FileEntry { id: raw_id(now.0), kind, bytes })));
            }
        }
        Ok(())
    }

    fn nodes(&self, tree: Option<Oid>) -> Result<Nodes, GitError> {
        let Some(id) = tree else { return Ok(Nodes::new()) };
        let tree: Tree<'_> =
            self.repository.find_tree(id).map_err(|source| GitError::here(&format!("read tree {id} of commit {}", self.commit), source))?;
        Ok(tree.iter().map(|entry| (readable(entry.name_bytes()), (entry.id(), node(entry.filemode())))).collect())
    }

    fn blob(&mut self, id: Oid) -> Result<Arc<[u8]>, GitError> {
        if let Some(bytes) = self.blobs.get(&raw_id(id)) {
            return Ok(Arc::clone(bytes));
        }
        let failed = |source| GitError::here(&format!("read blob {id} of commit {}", self.commit), source);
        let odb = self.repository.odb().map_err(failed)?;
        let (size, kind) = odb.read_header(id).map_err(failed)?;
        if kind != ObjectType::Blob {
            return Err(self.refused(&format!("{id} is called a file and is none")));
        }
        let bytes: Arc<[u8]> = if size > INFLATE_LIMIT {
            Arc::from(vec![0; FILE_LIMIT + 1])
        } else {
            let object = odb.read(id).map_err(failed)?;
            Arc::from(&object.data()[..size.min(FILE_LIMIT + 1).min(object.len())])
        };
        self.read += 1;
        self.bytes += bytes.len();
        if self.bytes > TOTAL_LIMIT {
            return Err(self.refused(&format!("its files have more than {} MiB", TOTAL_LIMIT >> 20)));
        }
        self.blobs.insert(raw_id(id), Arc::clone(&bytes));
        Ok(bytes)
    }

    fn refused(&self, why: &str) -> GitError {
        GitError::new(RetryClass::Failed, format!("commit {} is not read: {why}", self.commit))
    }
}

fn node(mode: i32) -> Node {
    match mode {
        0o040_000 => Node::Folder,
        0o120_000 => Node::Leaf(FileKind::Symlink),
        0o160_000 => Node::Leaf(FileKind::Submodule),
        _ => Node::Leaf(FileKind::Regular),
    }
}

/// A name as text. Each byte that is not UTF-8 becomes U+FFFD and two hexadecimal digits, so that different names stay different.
pub(super) fn readable(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push(char::REPLACEMENT_CHARACTER);
            text.push_str(&hex::encode([*byte]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn names_that_are_not_utf_8_stay_apart_and_can_be_told() {
        assert_eq!(readable("machines/größe.yaml".as_bytes()), "machines/größe.yaml");
        assert_eq!(readable(b"caf\xe9.yaml"), "caf\u{fffd}e9.yaml");
        assert_ne!(readable(b"\xe9"), readable(b"\xe8"));
    }
}
