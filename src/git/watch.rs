//! Waking up when a repository on this machine changes. A hint, never data: the poll covers whatever is missed.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::Notify, time};

use super::{RemoteUrl, url::Kind};

/// A push touches several files over some tens of milliseconds; waiting this long reads it once.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches a local repository's refs; nothing for any other.
pub(super) struct Watch {
    path: Option<PathBuf>,
    woken: Arc<Notify>,
    armed: Mutex<Option<Armed>>,
}

struct Armed {
    /// The folder that was watched; another one at the same path needs new watches.
    inode: (u64, u64),
    _watcher: RecommendedWatcher,
}

impl Watch {
    pub(super) fn of(url: &RemoteUrl) -> Self {
        let path = match url.kind() {
            Kind::Local { path } => std::path::absolute(path).ok(),
            Kind::Ssh { .. } | Kind::Https { .. } => None,
        };
        let watch = Self { path, woken: Arc::new(Notify::new()), armed: Mutex::new(None) };
        watch.arm();
        watch
    }

    /// Returns after an event and a moment of rest, or after `poll`. An event since the last call counts.
    pub(super) async fn changed(&self, poll: Duration) {
        if self.arm() {
            // What happened between the last look and these watches was not seen.
            return time::sleep(SETTLE).await;
        }
        if time::timeout(poll, self.woken.notified()).await.is_ok() {
            time::sleep(SETTLE).await;
            // The caller looks now, so what came during the rest is no news.
            let _ = time::timeout(Duration::ZERO, self.woken.notified()).await;
        }
    }

    /// Sees to it that the folder that is at the path now is watched. True when it had to be watched anew.
    fn arm(&self) -> bool {
        let Some(path) = &self.path else { return false };
        let git = git_dir(path);
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inode) = inode(&git) else {
            return false;
        };
        if armed.as_ref().is_some_and(|armed| armed.inode == inode) {
            return false;
        }
        match watcher(&git, &self.woken) {
            Ok(watcher) => {
                *armed = Some(Armed { inode, _watcher: watcher });
                tracing::debug!(path = %git.display(), "watching");
                true
            }
            Err(error) => {
                tracing::debug!(path = %git.display(), %error, "can't watch; polling only");
                false
            }
        }
    }
}

fn watcher(git: &Path, woken: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let (ours, woken) = (git.to_owned(), Arc::clone(woken));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error of the watcher means that events were lost: look.
        if event.map_or(true, |event| matters(&event, &ours)) {
            woken.notify_one();
        }
    })?;
    // Not the whole folder: objects come in hundreds, and refs/ and packed-refs say all.
    watcher.watch(git, RecursiveMode::NonRecursive)?;
    watcher.watch(&git.join("refs"), RecursiveMode::Recursive)?;
    // A repository that is moved away and back, or made anew, is seen from its parent.
    if let Some(parent) = git.parent() {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Reading is an event too, and we read: without this, each look would wake us for the next.
fn matters(event: &Event, git: &Path) -> bool {
    let reads = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    !reads && (event.paths.is_empty() || event.paths.iter().any(|path| path_matters(path, git)))
}

/// Locks come before each change of a ref, and our own notes are no news.
fn path_matters(path: &Path, git: &Path) -> bool {
    path.starts_with(git) && !path.starts_with(git.join("refs/notes")) && path.extension().is_none_or(|extension| extension != "lock")
}

/// A bare repository is its own; a person's clone keeps it in `.git`.
fn git_dir(path: &Path) -> PathBuf {
    let inside = path.join(".git");
    if inside.is_dir() { inside } else { path.to_owned() }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let refs = std::fs::metadata(path.join("refs")).ok()?;
    Some((refs.dev(), refs.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, ModifyKind};

    #[test]
    fn only_changes_of_refs_wake_us() {
        let git = Path::new("/srv/fleet.git");
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(matters(&event(written, "/srv/fleet.git/refs/heads/main"), git));
        assert!(matters(&event(written, "/srv/fleet.git/packed-refs"), git));
        assert!(matters(&event(EventKind::Create(CreateKind::Folder), "/srv/fleet.git"), git));
        assert!(!matters(&event(written, "/srv/other.git"), git));
        assert!(!matters(&event(written, "/srv/fleet.git/refs/heads/main.lock"), git));
        assert!(!matters(&event(written, "/srv/fleet.git/refs/notes/rackwright/a/status"), git));
        assert!(!matters(&event(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/srv/fleet.git/refs/heads/main"), git));
    }
}
