//! A range of commits as `trust` wants to see it. No judgement here.

use std::path::Path;

use git2::{DiffOptions, ErrorCode, Index, IndexEntry, MergeOptions, ObjectType, Oid, Repository, Sort};

use crate::{
    model::{CommitId, FileEntry, FileKind},
    trust::{Commits, Unread},
};

use super::{
    GitError,
    tree::{FILE_LIMIT, commit_id, raw_id, readable},
};

/// The most commits of one range. A branch that nobody followed for years has fewer.
const MOST: usize = 100_000;

/// Commits that `tip` reaches and `base` does not.
pub(super) struct Range<'r> {
    repository: &'r Repository,
    ids: Vec<CommitId>,
}

impl<'r> Range<'r> {
    /// Finds them. Without a base it is the tip alone.
    pub(super) fn of(repository: &'r Repository, base: Option<Oid>, tip: Oid) -> Result<Self, GitError> {
        let ids = match base {
            None => vec![commit_id(tip)],
            Some(base) => walk(repository, base, tip).map_err(|source| GitError::here(&format!("walk from {base} to {tip}"), source))?,
        };
        if ids.len() > MOST {
            let message = format!("there are more than {MOST} commits up to {tip}, which are not judged at once: push them in parts");
            return Err(GitError::new(crate::model::RetryClass::Stalled, message));
        }
        Ok(Self { repository, ids })
    }

    fn commit(&self, id: CommitId) -> Result<git2::Commit<'r>, Unread> {
        oid(id).and_then(|oid| self.repository.find_commit(oid)).map_err(unread("read", id))
    }
}

fn walk(repository: &Repository, base: Oid, tip: Oid) -> Result<Vec<CommitId>, git2::Error> {
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    walk.push(tip)?;
    walk.hide(base)?;
    walk.take(MOST + 1).map(|id| id.map(commit_id)).collect()
}

fn oid(id: CommitId) -> Result<Oid, git2::Error> {
    Oid::from_bytes(&id.0)
}

fn unread(doing: &'static str, id: CommitId) -> impl Fn(git2::Error) -> Unread {
    move |source| Unread(format!("can't {doing} commit {id}: {}", source.message()))
}

impl Commits for Range<'_> {
    fn ids(&self) -> &[CommitId] {
        &self.ids
    }

    fn parents(&self, id: CommitId) -> Result<Vec<CommitId>, Unread> {
        Ok(self.commit(id)?.parent_ids().map(commit_id).collect())
    }

    fn raw(&self, id: CommitId) -> Result<Vec<u8>, Unread> {
        let read = || {
            let odb = self.repository.odb()?;
            let object = odb.read(oid(id)?)?;
            let whole = object.kind() == ObjectType::Commit;
            Ok(if whole { object.data().to_vec() } else { Vec::new() })
        };
        read().map_err(unread("read", id))
    }

    fn changed(&self, id: CommitId) -> Result<Vec<String>, Unread> {
        let commit = self.commit(id)?;
        let diff = || {
            let parent = commit.parent(0).and_then(|parent| parent.tree()).map(Some);
            let parent = parent.or_else(|error| if commit.parent_count() == 0 { Ok(None) } else { Err(error) })?;
            let mut options = DiffOptions::new();
            options.skip_binary_check(true).include_typechange(true);
            let diff = self.repository.diff_tree_to_tree(parent.as_ref(), Some(&commit.tree()?), Some(&mut options))?;
            let mut paths = Vec::with_capacity(diff.deltas().len());
            for delta in diff.deltas() {
                for path in [delta.old_file().path_bytes(), delta.new_file().path_bytes()].into_iter().flatten().map(readable) {
                    if paths.last() != Some(&path) {
                        paths.push(path);
                    }
                }
            }
            Ok(paths)
        };
        diff().map_err(unread("compare", id))
    }

    fn file(&self, id: CommitId, path: &str) -> Result<Option<FileEntry>, Unread> {
        let commit = self.commit(id)?;
        let read = || {
            let entry = match commit.tree()?.get_path(Path::new(path)) {
                Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
                entry => entry?,
            };
            let kind = match (entry.kind(), entry.filemode()) {
                (Some(ObjectType::Blob), 0o120_000) => FileKind::Symlink,
                (Some(ObjectType::Blob), _) => FileKind::Regular,
                (Some(ObjectType::Commit), _) => FileKind::Submodule,
                _ => return Ok(None),
            };
            let odb = self.repository.odb()?;
            let bytes = match kind {
                // What is larger is read by nobody: a byte more than the limit tells that.
                FileKind::Regular if odb.read_header(entry.id())?.0 > FILE_LIMIT => vec![0; FILE_LIMIT + 1],
                FileKind::Regular => odb.read(entry.id())?.data().to_vec(),
                _ => Vec::new(),
            };
            Ok(Some(FileEntry { id: raw_id(entry.id()), kind, bytes: bytes.into() }))
        };
        read().map_err(unread("read a file of", id))
    }

    fn is_automatic_merge(&self, id: CommitId) -> Result<bool, Unread> {
        let commit = self.commit(id)?;
        let merge = || {
            let (ours, theirs) = (commit.parent(0)?, commit.parent(1)?);
            let bases = self.repository.merge_bases(ours.id(), theirs.id());
            let bases = match bases {
                Err(error) if error.code() == ErrorCode::NotFound => return Ok(false),
                bases => bases?,
            };
            // A branch that began at the first parent: its files are the merge's.
            if bases.iter().any(|base| *base == ours.id()) {
                return Ok(commit.tree_id() == theirs.tree_id());
            }
            let mut options = MergeOptions::new();
            options.fail_on_conflict(true);
            let merged = match self.repository.merge_commits(&ours, &theirs, Some(&options)) {
                Err(error) if error.code() == ErrorCode::MergeConflict => return Ok(false),
                index => index?,
            };
            let mut stored = Index::new()?;
            stored.read_tree(&commit.tree()?)?;
            let same = |one: IndexEntry, other: IndexEntry| (one.id, one.mode) == (other.id, other.mode) && one.path == other.path;
            Ok(!merged.has_conflicts()
                && merged.len() == stored.len()
                && merged.iter().zip(stored.iter()).all(|(one, other)| same(one, other)))
        };
        merge().map_err(unread("merge the parents of", id))
    }
}
