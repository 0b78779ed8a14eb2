//! What a controller that was killed leaves behind in its clone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Removes the lock files of our own clone; gives how many there were.
///
/// Git writes each ref and its settings as `<name>.lock` and renames that. Killed in between it leaves the lock, and nobody takes it away: the
/// ref can't be written ever again. Only for whoever holds the state folder alone, which the journal's lock says, before the clone is opened.
///
/// # Errors
/// What the file system says. A clone that is not there has none.
pub fn remove_left_locks(clone: &Path) -> io::Result<u32> {
    let mut removed = 0;
    let mut folders: Vec<PathBuf> = vec![clone.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            let kind = entry?;
            // Objects have no locks, and there may be very many of them.
            if kind.is_dir() && path.strip_prefix(clone).is_ok_and(|inner| inner.starts_with("refs")) {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "lock") {
                tracing::info!(path = %path.display(), "removing a lock that a killed controller left behind");
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_go_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let clone = folder.path().join("fleet.git");
        assert_eq!(remove_left_locks(&clone).unwrap(), 0, "no clone yet");
        let locks = ["config.lock", "packed-refs.lock", "refs/rackwright/in-force.lock", "refs/notes/rackwright/lab/status.lock"];
        let others = ["config", "refs/heads/main", "refs/heads/padlock", "objects/ab/cd.lock", "hooks/x.lock"];
        for name in locks.iter().chain(&others) {
            let path = clone.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(remove_left_locks(&clone).unwrap(), 4);
        assert!(locks.iter().all(|name| !clone.join(name).exists()) && others.iter().all(|name| clone.join(name).exists()));
    }
}
