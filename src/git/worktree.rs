//! Files as they are in a folder, committed or not: what `validate` reads.

use std::{
    fs,
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use git2::{ObjectType, Oid, Repository};

use crate::model::{FileEntry, FileKind, Files, RetryClass};

use super::{
    GitError,
    tree::{FILE_LIMIT, raw_id, readable},
};

/// The files below `dir`, as a commit of them would have them: no `.git`, no file that Git ignores and does not have, no symbolic
/// link followed, a repository in a folder as a submodule. Sockets, pipes and devices are left out, as Git does.
///
/// # Errors
/// A folder or file can't be read.
pub fn read_worktree(dir: &Path) -> Result<Files, GitError> {
    let ignored = Ignored::of(dir);
    let mut files = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let at = dir.join(&folder);
        for entry in fs::read_dir(&at).map_err(unreadable(&at))? {
            let entry = entry.map_err(unreadable(&at))?;
            let (relative, path) = (folder.join(entry.file_name()), entry.path());
            let kind = entry.file_type().map_err(unreadable(&path))?;
            if entry.file_name() == ".git" || ignored.is(&relative, kind.is_dir()) {
                continue;
            }
            let found = if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(unreadable(&path))?;
                Some(linked(FileKind::Symlink, hash(target.as_os_str().as_bytes())?))
            } else if kind.is_dir() {
                let submodule = path.join(".git").symlink_metadata().is_ok();
                if !submodule {
                    folders.push(relative.clone());
                }
                submodule.then(|| linked(FileKind::Submodule, submodule_head(&path)))
            } else if kind.is_file() {
                Some(regular(&path)?)
            } else {
                None
            };
            if let Some(file) = found {
                files.insert(readable(relative.as_os_str().as_bytes()), file);
            }
        }
    }
    Ok(files)
}

fn regular(path: &Path) -> Result<FileEntry, GitError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable(path))?;
    file.take(FILE_LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(unreadable(path))?;
    let id = if bytes.len() > FILE_LIMIT {
        let id = Oid::hash_file(ObjectType::Blob, path);
        raw_id(id.map_err(|source| GitError::here(&format!("hash {}", path.display()), source))?)
    } else {
        hash(&bytes)?
    };
    Ok(FileEntry { id, kind: FileKind::Regular, bytes: bytes.into() })
}

fn linked(kind: FileKind, id: [u8; 20]) -> FileEntry {
    FileEntry { id, kind, bytes: Arc::from([]) }
}

fn hash(bytes: &[u8]) -> Result<[u8; 20], GitError> {
    Oid::hash_object(ObjectType::Blob, bytes).map(raw_id).map_err(|source| GitError::here("hash a file", source))
}

/// The commit that a repository in a folder is at; zero when it has none.
fn submodule_head(path: &Path) -> [u8; 20] {
    let head = Repository::open(path).and_then(|repository| repository.refname_to_id("HEAD"));
    head.map(raw_id).unwrap_or_default()
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> GitError {
    let path = path.to_owned();
    move |source| GitError::caused(RetryClass::Failed, format!("can't read {}", path.display()), source)
}

/// What Git leaves out, if the folder is in a repository.
struct Ignored {
    repository: Option<(Repository, PathBuf)>,
}

impl Ignored {
    fn of(dir: &Path) -> Self {
        let find = || {
            let repository = Repository::discover(dir).ok()?;
            let top = repository.workdir()?.canonicalize().ok()?;
            let prefix = dir.canonicalize().ok()?.strip_prefix(top).ok()?.to_owned();
            Some((repository, prefix))
        };
        Self { repository: find() }
    }

    fn is(&self, relative: &Path, folder: bool) -> bool {
        let Some((repository, prefix)) = &self.repository else { return false };
        let path = prefix.join(relative);
        // With a slash at its end, so that a rule for folders only applies.
        let asked = if folder { path.join("") } else { path.clone() };
        repository.is_path_ignored(asked).unwrap_or(false) && !is_tracked(repository, &path, folder)
    }
}

/// A file that was added in spite of the rules is part of a commit all the same.
fn is_tracked(repository: &Repository, path: &Path, folder: bool) -> bool {
    let Ok(index) = repository.index() else { return false };
    if folder {
        let prefix = [path.as_os_str().as_bytes(), b"/"].concat();
        return index.iter().any(|entry| entry.path.starts_with(&prefix));
    }
    index.get_path(path, 0).is_some()
}
