//! Values that installed systems published, kept for the installs that use them.
//!
//! One file for each system, in a folder that only its owner may enter. A value is on disk before anybody learns of it, and goes when the
//! system that published it does. Nothing here prints a value, and no error quotes one (law 14).

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::tokens::write_private;
use crate::{
    model::{AttemptId, HandoffName},
    ports::HandoffValue,
};

/// What one system published.
pub type Values = BTreeMap<HandoffName, HandoffValue>;

/// Published values, by the attempt that installed the system.
#[derive(Default)]
pub struct Store {
    /// `None`: in memory alone.
    folder: Option<PathBuf>,
    kept: Mutex<BTreeMap<AttemptId, Values>>,
}

impl Store {
    /// Reads `folder`, which is made if it is not there. A file that can't be understood counts as lost, and is left for a person to look at.
    ///
    /// # Errors
    /// The folder can't be made or read, or others may enter it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) | Ok(()) => {}
        }
        if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::other("others than its owner may enter it: chmod 700"));
        }
        let mut kept = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(attempt) = attempt_of(&path) else { continue };
            match read(&path) {
                Some(values) => drop(kept.insert(attempt, values)),
                None => tracing::error!(path = %path.display(), "published values can't be read; they count as lost"),
            }
        }
        Ok(Self { folder: Some(folder.to_owned()), kept: Mutex::new(kept) })
    }

    /// Keeps values of a system beside those that it published before; durable when it returns. Blocks.
    ///
    /// # Errors
    /// They can't be written; then what was there before is kept.
    pub fn put(&self, attempt: &AttemptId, new: Values) -> io::Result<()> {
        let mut kept = self.lock();
        let mut values = kept.get(attempt).cloned().unwrap_or_default();
        values.extend(new);
        if let Some(folder) = &self.folder {
            let plain: BTreeMap<&str, &str> = values.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
            write_private(&file_of(folder, attempt), &serde_json::to_vec(&plain)?)?;
        }
        kept.insert(attempt.clone(), values);
        Ok(())
    }

    /// A value.
    pub fn get(&self, attempt: &AttemptId, name: &HandoffName) -> Option<HandoffValue> {
        self.lock().get(attempt)?.get(name).cloned()
    }

    /// Whether there is such a value.
    pub fn has(&self, attempt: &AttemptId, name: &HandoffName) -> bool {
        self.lock().get(attempt).is_some_and(|values| values.contains_key(name))
    }

    /// Forgets what systems published that are gone.
    pub fn retain(&self, is_there: impl Fn(&AttemptId) -> bool) {
        self.lock().retain(|attempt, _| {
            if is_there(attempt) {
                return true;
            }
            let gone = self.folder.as_ref().map_or(Ok(()), |folder| fs::remove_file(file_of(folder, attempt)));
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%attempt, %error, "values of a system that is gone can't be removed");
                    // Nobody is given them; the next turn tries again.
                    true
                }
                Err(_) | Ok(()) => {
                    tracing::info!(%attempt, "values of a system that is gone are forgotten");
                    false
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Values>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_of(folder: &Path, attempt: &AttemptId) -> PathBuf {
    folder.join(format!("{attempt}.json"))
}

fn attempt_of(path: &Path) -> Option<AttemptId> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

fn read(path: &Path) -> Option<Values> {
    let plain: BTreeMap<HandoffName, String> = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    plain.into_iter().map(|(name, value)| Some((name, HandoffValue::new(value).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(text: &str) -> AttemptId {
        text.parse().unwrap()
    }

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HandoffValue::new((*value).to_owned()).unwrap())).collect()
    }

    fn told(store: &Store, id: &str, name: &str) -> Option<String> {
        store.get(&attempt(id), &name.parse().unwrap()).map(|value| value.expose().to_owned())
    }

    #[test]
    fn what_is_kept_survives_a_restart_and_goes_with_its_system() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("handoff");
        let store = Store::open(&folder).unwrap();
        store.put(&attempt("cp-1#2"), values(&[("token", "first"), ("hash", "sha256:00")])).unwrap();
        store.put(&attempt("cp-1#2"), values(&[("token", "second")])).unwrap();
        store.put(&attempt("cp.2#10"), values(&[("token", "other")])).unwrap();
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        let store = Store::open(&folder).unwrap();
        assert_eq!(told(&store, "cp-1#2", "token").as_deref(), Some("second"));
        assert_eq!(told(&store, "cp-1#2", "hash").as_deref(), Some("sha256:00"));
        assert_eq!(told(&store, "cp-1#3", "token"), None);
        store.retain(|id| *id == attempt("cp.2#10"));
        assert_eq!((told(&store, "cp-1#2", "token"), told(&store, "cp.2#10", "token")), (None, Some("other".to_owned())));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_lost_and_an_open_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("handoff");
        Store::open(&folder).unwrap().put(&attempt("cp-1#1"), values(&[("token", "t")])).unwrap();
        for damaged in [&b"{\"token\": \"t"[..], b"", b"{\"token\": \"a b\"}", b"{\"Token\": \"t\"}"] {
            fs::write(folder.join("cp-1#1.json"), damaged).unwrap();
            assert_eq!(told(&Store::open(&folder).unwrap(), "cp-1#1", "token"), None);
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Store::open(&folder).is_err());
    }

    #[test]
    fn what_cannot_be_written_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handoff");
        let store = Store::open(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        assert!(store.put(&attempt("cp-1#1"), values(&[("token", "t")])).is_err());
        assert!(!store.has(&attempt("cp-1#1"), &"token".parse().unwrap()));
    }
}
