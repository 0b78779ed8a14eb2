//! One controller on one journal, held by the kernel.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use crate::model::Timestamp;

use super::OpenError;

/// Held until it is dropped or the process ends, however it ends: the kernel releases an flock, so nothing stale is left after SIGKILL.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes `<journal>.lock` and writes into it who holds it. The file stays: removing a lock file is a race.
    pub(super) fn take(journal: &Path, holder: &str) -> Result<Self, OpenError> {
        let path = beside(journal, ".lock");
        let failed = |source| OpenError::Lock { path: path.clone(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The text is for people; a lock that can't be read is held all the same.
                let _ = file.read_to_string(&mut text);
                let text = text.trim();
                let holder = if text.is_empty() { "it has not written its name yet" } else { text }.to_owned();
                return Err(OpenError::Held { path: journal.into(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let text = format!("{holder} (process {} on {} since {:.0})\n", std::process::id(), host(), Timestamp::now());
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        // A full disk must not keep a controller from reading its own journal: the lock is what counts.
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "can't write the holder's name into the lock");
        }
        Ok(Self { _file: file })
    }
}

/// A file beside a journal. One that is reached by a symbolic link has those of the file it points to.
pub(super) fn beside(journal: &Path, suffix: &str) -> PathBuf {
    let real = journal.canonicalize().unwrap_or_else(|_| journal.into());
    let mut path = real.into_os_string();
    path.push(suffix);
    path.into()
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "an unknown host".into(), |name| name.trim().to_owned())
}
