//! A person's clone: what `init`, `plan --base --head` and `notes setup` do there.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use git2::{Config, ConfigLevel, ErrorCode, Repository, RepositoryInitOptions, Signature};

use crate::{
    model::{CommitId, RetryClass, Snapshot},
    trust::Commits,
};

use super::{
    GitError,
    range::Range,
    refspec,
    tree::{TreeReader, commit_id},
};

/// Makes a repository with branch `main` in `dir`, or uses the one whose top `dir` is, writes `files` (by path with `/`) and
/// adds them to the index. With `message` it commits, as the user whom Git's configuration names.
///
/// # Errors
/// A file is there already (then nothing was written), or something can't be written.
pub fn init_repository(dir: &Path, files: &BTreeMap<String, String>, message: Option<&str>) -> Result<Option<CommitId>, GitError> {
    let doing = format!("make a repository in {}", dir.display());
    let failed = |source| GitError::here(&doing, source);
    if let Some(path) = files.keys().find(|path| dir.join(path).symlink_metadata().is_ok()) {
        return Err(GitError::new(RetryClass::Failed, format!("{} is there already; nothing was written", dir.join(path).display())));
    }
    let repository = match Repository::open(dir) {
        Err(error) if error.code() == ErrorCode::NotFound => {
            Repository::init_opts(dir, RepositoryInitOptions::new().initial_head("main")).map_err(failed)?
        }
        opened => opened.map_err(failed)?,
    };
    for (path, text) in files {
        write_new(&dir.join(path), text)
            .map_err(|source| GitError::caused(RetryClass::Failed, format!("can't write {}", dir.join(path).display()), source))?;
    }
    let mut index = repository.index().map_err(failed)?;
    for path in files.keys() {
        index.add_path(Path::new(path)).map_err(failed)?;
    }
    index.write().map_err(failed)?;
    let Some(message) = message else { return Ok(None) };
    let tree = index.write_tree().and_then(|id| repository.find_tree(id)).map_err(failed)?;
    let author = author(&repository).map_err(failed)?;
    let parent = match repository.head() {
        Ok(head) => Some(head.peel_to_commit().map_err(failed)?),
        Err(_) => None,
    };
    let parents: Vec<_> = parent.iter().collect();
    let commit = repository.commit(Some("HEAD"), &author, &author, message, &tree, &parents).map_err(failed)?;
    Ok(Some(commit_id(commit)))
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn author(repository: &Repository) -> Result<Signature<'static>, git2::Error> {
    match repository.signature() {
        Err(error) if error.code() == ErrorCode::NotFound => Signature::now("Rackwright", "rackwright@localhost"),
        signature => signature.map(|signature| signature.to_owned()),
    }
}

/// The commit that `revision` names (`main`, `HEAD~1`, an id) in the repository that `path` is in, with its files.
///
/// # Errors
/// There is no repository, or no such commit.
pub fn read_tree_at(path: &Path, revision: &str) -> Result<Snapshot, GitError> {
    let repository = discover(path)?;
    let doing = format!("find {revision:?} in {}", path.display());
    let commit = repository.revparse_single(revision).and_then(|object| object.peel_to_commit());
    let commit = commit.map_err(|source| GitError::here(&doing, source))?;
    TreeReader::default().snapshot(&repository, commit.id())
}

/// Shows the commits from `base` to `head` to `look`. Without `base` they are all after the first one, by first parents. Gives the
/// commit before them.
///
/// # Errors
/// There is no repository, or no such commit.
pub fn look_at_range<T>(
    path: &Path,
    base: Option<&str>,
    head: &str,
    look: impl FnOnce(CommitId, &dyn Commits) -> T,
) -> Result<T, GitError> {
    let repository = discover(path)?;
    let find = |revision: &str| {
        let commit = repository.revparse_single(revision).and_then(|object| object.peel_to_commit());
        commit.map_err(|source| GitError::here(&format!("find {revision:?} in {}", path.display()), source))
    };
    let tip = find(head)?;
    let base = match base {
        Some(base) => find(base)?.id(),
        None => {
            let mut first = tip.clone();
            while first.parent_count() > 0 {
                first = first.parent(0).map_err(|source| GitError::here(&format!("read the parent of {}", first.id()), source))?;
            }
            first.id()
        }
    };
    Ok(look(commit_id(base), &Range::of(&repository, Some(base), tip.id())?))
}

/// What `notes_setup` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotesSetup {
    /// Lines added to the clone's configuration, as `key = value`. Empty when all was there.
    pub added: Vec<String>,
}

/// Sets a clone up so that `git fetch` brings the status notes and `git log` shows them. Doing it again changes nothing.
///
/// # Errors
/// There is no repository, it has no remote `origin`, or its configuration can't be written.
pub fn notes_setup(path: &Path) -> Result<NotesSetup, GitError> {
    let repository = discover(path)?;
    let doing = format!("configure {}", repository.path().display());
    let failed = |source| GitError::here(&doing, source);
    let origin = repository.find_remote("origin");
    origin.map_err(|source| {
        GitError::caused(RetryClass::Failed, format!("{} has no remote `origin` to fetch notes from", path.display()), source)
    })?;
    let mut config = repository.config().and_then(|config| config.open_level(ConfigLevel::Local)).map_err(failed)?;
    let wanted = [("remote.origin.fetch", refspec::NOTES_FETCH), ("notes.displayRef", refspec::NOTES_SHOW)];
    let mut added = Vec::new();
    for (key, value) in wanted {
        if !has(&config, key, value).map_err(failed)? {
            // A pattern that no value matches: adds a line and leaves the others.
            config.set_multivar(key, "a^", value).map_err(failed)?;
            added.push(format!("{key} = {value}"));
        }
    }
    Ok(NotesSetup { added })
}

fn has(config: &Config, key: &str, value: &str) -> Result<bool, git2::Error> {
    let mut found = false;
    config.multivar(key, None)?.for_each(|entry| found |= entry.value().is_ok_and(|text| text == value))?;
    Ok(found)
}

fn discover(path: &Path) -> Result<Repository, GitError> {
    Repository::discover(path).map_err(|source| GitError::here(&format!("find a Git repository at {}", path.display()), source))
}
