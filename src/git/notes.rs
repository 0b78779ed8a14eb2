//! Status notes: `refs/notes/rackwright/<site>/status`.
//!
//! The ref in our clone is the remote's, as last seen; it moves only when the remote took our commit or we fetched theirs. What was not
//! pushed yet is kept in memory and is written again on top of whatever is there then. It is computed state: a restart
//! computes it again.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use git2::{ErrorClass, ErrorCode, Oid, PushOptions, Repository, Signature};

use crate::{
    model::{CommitId, RetryClass, SiteName},
    ports::{Notes, NotesError},
};

use super::{Config, GitError, housekeeping, notes_tree, own_clone, refspec, remote::Session};

/// How often a refused push is tried again. Each refusal means that somebody else's push went through, and two sites do not share a ref, so ten
/// in a row means that something is wrong.
const TRIES: u32 = 10;

/// How often a push may be refused although the remote's ref did not move: a lock that is held for a moment, not a rule.
const UNMOVED: u32 = 3;

/// From this many notes on, objects go into one pack: a file for each would take longer than the push.
const PACK_FROM: usize = 32;

/// Writes the status notes of one site.
pub struct GitNotes {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    config: Config,
    dir: PathBuf,
    repository: Repository,
    site: SiteName,
    name: String,
    /// Not pushed yet.
    pending: BTreeMap<CommitId, String>,
}

/// What became of a push.
enum Pushed {
    Taken,
    Refused(String),
}

impl GitNotes {
    /// Opens the clone in `clone_dir`, which may be the source's. Does not speak to the remote yet.
    ///
    /// # Errors
    /// The folder holds something else or can't be written, or Git does not allow the site's name in a ref.
    pub fn open(config: Config, clone_dir: &Path, site: SiteName) -> Result<Self, NotesError> {
        let name = refspec::status_notes(&site).ok_or_else(|| {
            GitError::new(
                RetryClass::Stalled,
                format!("the site name {site} can't be part of a Git ref; use one without \"..\" or \".lock\""),
            )
        })?;
        let repository = own_clone::open(&config, clone_dir)?;
        let inner = Inner { config, dir: clone_dir.into(), repository, site, name, pending: BTreeMap::new() };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, NotesError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))).await;
        let done = done.map_err(|source| GitError::caused(RetryClass::Failed, "writing notes ended early", source))?;
        Ok(done?)
    }
}

#[async_trait]
impl Notes for GitNotes {
    /// Notes that can't be pushed now are kept in memory and go with the next call, which may be one with no new notes.
    async fn write(&self, notes: Vec<(CommitId, String)>) -> Result<(), NotesError> {
        self.blocking(move |inner| {
            inner.pending.extend(notes);
            inner.write()
        })
        .await
    }

    async fn exist(&self) -> Result<bool, NotesError> {
        self.blocking(|inner| {
            let session = Session::new(&inner.config);
            let heads = session.list_then_fetch(&mut session.remote(&inner.repository)?, |_| Vec::new())?;
            Ok(heads.iter().any(|(name, _)| *name == inner.name))
        })
        .await
    }

    async fn traces(&self) -> Result<bool, NotesError> {
        self.blocking(|inner| {
            for name in [inner.name.as_str(), refspec::IN_FORCE] {
                match inner.repository.find_reference(name) {
                    Ok(_) => return Ok(true),
                    Err(error) if error.code() == ErrorCode::NotFound => {}
                    Err(error) => return Err(GitError::here(&format!("read {name} in {}", inner.dir.display()), error)),
                }
            }
            Ok(false)
        })
        .await
    }
}

impl Inner {
    fn write(&mut self) -> Result<(), GitError> {
        let mut unmoved = 0;
        for attempt in 0..TRIES {
            let base = self.repository.refname_to_id(&self.name).ok();
            let Some(commit) = self.commit_on(base).map_err(|source| self.broken(source))? else {
                self.pending.clear();
                return Ok(());
            };
            let pushed = if self.config.notes.push { self.push(commit)? } else { Pushed::Taken };
            let Pushed::Refused(why) = pushed else { return self.taken(commit) };
            let theirs = self.fetch()?;
            tracing::debug!(r#ref = self.name, attempt, why, ?base, ?theirs, "notes: push refused");
            if theirs == Some(commit) {
                return self.taken(commit);
            }
            unmoved += u32::from(theirs == base);
            if unmoved >= UNMOVED {
                let Config { url, .. } = &self.config;
                let message = format!("{url} refuses notes on {}: {why}. Allow the controller's user to push to this ref", self.name);
                return Err(GitError::new(RetryClass::Stalled, message));
            }
            std::thread::sleep(pause(attempt));
        }
        let message =
            format!("others pushed to {} each of the {TRIES} times that we tried; is there a second controller of this site?", self.name);
        Err(GitError::new(RetryClass::Wait, message))
    }

    fn taken(&mut self, commit: Oid) -> Result<(), GitError> {
        let moved = self.repository.reference(&self.name, commit, true, "status notes");
        moved.map_err(|source| self.broken(source))?;
        tracing::debug!(r#ref = self.name, commits = self.pending.len(), %commit, "notes written");
        self.pending.clear();
        match housekeeping::pack_loose(&self.repository) {
            Ok(0) => {}
            Ok(packed) => tracing::debug!(packed, clone = %self.dir.display(), "loose objects packed"),
            // The notes are out; a clone that grows is no reason to write them again.
            Err(error) => tracing::warn!(%error, clone = %self.dir.display(), "loose objects can't be packed; the clone grows"),
        }
        Ok(())
    }

    /// A commit with all pending notes on top of `base`. `None` when `base` says it all already.
    fn commit_on(&self, base: Option<Oid>) -> Result<Option<Oid>, git2::Error> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        if self.pending.len() < PACK_FROM {
            return Ok(self.build(&self.repository, base)?.map(|made| made.0));
        }
        // Built in memory by a handle of its own, then kept as one pack.
        let scratch = Repository::open_bare(&self.dir)?;
        let odb = scratch.odb()?;
        odb.add_new_mempack_backend(1000)?;
        let Some((commit, made)) = self.build(&scratch, base)? else { return Ok(None) };
        housekeeping::keep(&scratch, &self.repository, &made)?;
        Ok(Some(commit))
    }

    /// Returns the commit, and every object that was made.
    fn build(&self, repository: &Repository, base: Option<Oid>) -> Result<Option<(Oid, Vec<Oid>)>, git2::Error> {
        let parent = base.map(|id| repository.find_commit(id)).transpose()?;
        let parent_tree = parent.as_ref().map(git2::Commit::tree).transpose()?;
        let mut notes = BTreeMap::new();
        for (about, text) in &self.pending {
            notes.insert(about.to_string(), repository.blob(text.as_bytes())?);
        }
        let tree = repository.find_tree(notes_tree::with_notes(repository, parent_tree.as_ref(), &notes)?)?;
        if parent_tree.is_some_and(|was| was.id() == tree.id()) {
            return Ok(None);
        }
        let us = Signature::now(&self.config.notes.name, &self.config.notes.email)?;
        let message = match self.pending.keys().next() {
            Some(only) if self.pending.len() == 1 => format!("{}: status of {}\n", self.site, only.short()),
            _ => format!("{}: status of {} commits\n", self.site, self.pending.len()),
        };
        let parents: Vec<_> = parent.iter().collect();
        let commit = repository.commit(None, &us, &us, &message, &tree, &parents)?;
        let mut made: Vec<Oid> = notes.into_values().chain([commit]).collect();
        notes_tree::folders(repository, &tree, &mut made)?;
        Ok(Some((commit, made)))
    }

    fn push(&self, commit: Oid) -> Result<Pushed, GitError> {
        let session = Session::new(&self.config);
        let mut remote = session.remote(&self.repository)?;
        let spec = refspec::push_status_notes(commit, &self.site)
            .ok_or_else(|| GitError::new(RetryClass::Stalled, format!("the site name {} can't be part of a Git ref", self.site)))?;
        // A server's refusal leaves push() with Ok: only this callback is told.
        let report = RefCell::new(None);
        let result = {
            let mut callbacks = session.callbacks();
            callbacks.push_update_reference(|_, refusal| {
                *report.borrow_mut() = Some(refusal.map(str::to_owned));
                Ok(())
            });
            let mut options = PushOptions::new();
            options.remote_callbacks(callbacks).proxy_options(session.proxy());
            remote.push(&[spec], Some(&mut options))
        };
        match (result, report.into_inner()) {
            (Ok(()), Some(None)) => Ok(Pushed::Taken),
            (Ok(()), Some(Some(refusal))) => Ok(Pushed::Refused(refusal.split_whitespace().collect::<Vec<_>>().join(" "))),
            (Ok(()), None) => Ok(Pushed::Refused("the remote did not report on it".into())),
            (Err(error), _) if is_race(&error) => Ok(Pushed::Refused(error.message().to_owned())),
            (Err(error), _) => Err(session.explain(error)),
        }
    }

    /// Makes our ref what the remote's is.
    fn fetch(&self) -> Result<Option<Oid>, GitError> {
        let session = Session::new(&self.config);
        let mut remote = session.remote(&self.repository)?;
        let heads = session.list_then_fetch(&mut remote, |heads| {
            let there = heads.iter().any(|(name, _)| *name == self.name);
            if there { refspec::fetch_status_notes(&self.site).into_iter().collect() } else { Vec::new() }
        })?;
        if !heads.iter().any(|(name, _)| *name == self.name) {
            if let Ok(mut ours) = self.repository.find_reference(&self.name) {
                ours.delete().map_err(|source| self.broken(source))?;
            }
            return Ok(None);
        }
        self.repository.refname_to_id(&self.name).map(Some).map_err(|source| self.broken(source))
    }

    fn broken(&self, source: git2::Error) -> GitError {
        GitError::here(&format!("write notes in {}", self.dir.display()), source)
    }
}

/// Somebody else was faster, or holds the ref's lock.
fn is_race(error: &git2::Error) -> bool {
    matches!(error.code(), ErrorCode::NotFastForward | ErrorCode::Locked | ErrorCode::Modified)
        || (error.class() == ErrorClass::Reference && error.code() != ErrorCode::Auth)
}

/// Longer each time, and different for each writer, so that two do not meet again.
fn pause(attempt: u32) -> Duration {
    let base = 20_u64 << attempt.min(6);
    Duration::from_millis(base / 2 + RandomState::new().hash_one(attempt) % base)
}
