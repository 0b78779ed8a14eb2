//! The newest commit of the fleet repository.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use git2::{Oid, Repository};

use crate::{
    model::{CommitId, RetryClass, Snapshot},
    ports::{Examiner, Source, SourceError},
    trust::Signers,
};

use super::{
    Config, GitError, nearby, own_clone,
    range::Range,
    refspec,
    remote::{Heads, Session},
    tree::TreeReader,
    url::Kind,
    watch::Watch,
};

/// Follows one branch of a remote through a bare clone of our own.
///
/// Asking when nothing changed costs one listing of refs; a change costs what changed, not what the fleet is.
pub struct GitSource {
    inner: Arc<Mutex<Inner>>,
    dir: PathBuf,
    root: Option<Arc<Signers>>,
    watch: Watch,
    poll: Duration,
}

struct Inner {
    config: Config,
    dir: PathBuf,
    repository: Repository,
    reader: TreeReader,
    last: Option<Snapshot>,
}

impl GitSource {
    /// Opens the clone in `clone_dir`, making it if it is not there. Does not speak to the remote yet.
    ///
    /// # Errors
    /// The folder holds something else, or can't be written; or the configuration names signers that can't be read.
    pub fn open(config: Config, clone_dir: &Path) -> Result<Self, SourceError> {
        if !git2::Reference::is_valid_name(&refspec::branch(&config.branch)) {
            return Err(GitError::new(RetryClass::Stalled, format!("{:?} is not the name of a branch", config.branch)).into());
        }
        let root = config.allowed_signers.as_deref().map(root_of_trust).transpose()?;
        let repository = own_clone::open(&config, clone_dir)?;
        let watch = Watch::of(&config.url);
        let poll = Duration::try_from(config.poll).unwrap_or_default().max(Duration::from_secs(1));
        let inner = Inner { config, dir: clone_dir.into(), repository, reader: TreeReader::default(), last: None };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), dir: clone_dir.into(), root, watch, poll })
    }

    /// How many blobs were read from the clone since it was opened: what changes cost.
    pub fn blobs_read(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).reader.blobs_read()
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<Snapshot, GitError> + Send + 'static,
    ) -> Result<Snapshot, SourceError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner))).await;
        let done = done.map_err(|source| GitError::caused(RetryClass::Failed, "reading the repository ended early", source))?;
        Ok(done?)
    }
}

#[async_trait]
impl Source for GitSource {
    async fn latest(&self, in_force: Option<CommitId>, allow_force_push: bool) -> Result<Snapshot, SourceError> {
        self.blocking(move |inner| inner.latest(in_force, allow_force_push)).await
    }

    async fn at(&self, id: CommitId) -> Result<Snapshot, SourceError> {
        self.blocking(move |inner| inner.at(id)).await
    }

    async fn examine(&self, base: Option<CommitId>, tip: CommitId, look: Examiner) -> Result<(), SourceError> {
        let dir = self.dir.clone();
        // By a door of its own: who asks for the newest commit meanwhile does not wait.
        let work = move || {
            let repository =
                Repository::open_bare(&dir).map_err(|source| GitError::here(&format!("open our clone {}", dir.display()), source))?;
            look(&Range::of(&repository, base.map(oid).transpose()?, oid(tip)?)?);
            Ok::<(), GitError>(())
        };
        let done = tokio::task::spawn_blocking(work).await;
        Ok(done.map_err(|source| GitError::caused(RetryClass::Failed, "looking at commits ended early", source))??)
    }

    fn root_of_trust(&self) -> Option<Arc<Signers>> {
        self.root.clone()
    }

    async fn changed(&self) {
        self.watch.changed(self.poll).await;
    }
}

/// Reads a file of allowed signers on this host.
fn root_of_trust(path: &Path) -> Result<Arc<Signers>, GitError> {
    let doing = || format!("can't read allowedSigners {}", path.display());
    let bytes = std::fs::read(path).map_err(|source| GitError::caused(RetryClass::Stalled, doing(), source))?;
    let (signers, bad) = Signers::of_file(&bytes);
    match bad.first() {
        Some(line) => Err(GitError::new(RetryClass::Stalled, format!("{}, line {}: {}", doing(), line.line, line.message))),
        None if signers.is_empty() => Err(GitError::new(RetryClass::Stalled, format!("{}: nobody is allowed to sign", doing()))),
        None => Ok(Arc::new(signers)),
    }
}

impl Inner {
    fn latest(&mut self, in_force: Option<CommitId>, allow_force_push: bool) -> Result<Snapshot, GitError> {
        let in_force = in_force.map(oid).transpose()?;
        if let Some(commit) = in_force {
            self.keep(commit)?;
        }
        let tip = self.fetch()?;
        self.check_history(in_force, tip, allow_force_push)?;
        let skipped = in_force.map_or_else(|| Ok(Vec::new()), |from| self.between(from, tip))?;
        Ok(Snapshot { skipped, ..self.snapshot(tip)? })
    }

    /// First parents after `from` and before `tip`, oldest first, at most the newest 1,000.
    fn between(&self, from: Oid, tip: Oid) -> Result<Vec<CommitId>, GitError> {
        let failed = |source| GitError::here(&format!("walk from {from} to {tip}"), source);
        let mut walk = self.repository.revwalk().map_err(failed)?;
        walk.simplify_first_parent().and_then(|()| walk.push(tip)).and_then(|()| walk.hide(from)).map_err(failed)?;
        let newest = walk.skip(1).take(1000).collect::<Result<Vec<Oid>, _>>().map_err(failed)?;
        Ok(newest.iter().rev().filter_map(|id| id.as_bytes().try_into().ok().map(CommitId)).collect())
    }

    fn at(&mut self, id: CommitId) -> Result<Snapshot, GitError> {
        let commit = oid(id)?;
        if !self.has(commit)? {
            let message = format!("commit {id} is not in our clone {}; ask for the newest one", self.dir.display());
            return Err(GitError::new(RetryClass::Failed, message));
        }
        self.snapshot(commit)
    }

    fn snapshot(&mut self, commit: Oid) -> Result<Snapshot, GitError> {
        if let Some(last) = self.last.as_ref().filter(|last| last.commit.id.0 == commit.as_bytes()) {
            return Ok(last.clone());
        }
        let snapshot = self.reader.snapshot(&self.repository, commit)?;
        self.last = Some(snapshot.clone());
        Ok(snapshot)
    }

    /// Where the branch is now; its history is in our clone when this returns.
    fn fetch(&self) -> Result<Oid, GitError> {
        let session = Session::new(&self.config);
        let branch = refspec::branch(&self.config.branch);
        let tracking = refspec::tracking(&self.config.branch);
        let had = self.repository.refname_to_id(&tracking).ok();
        let mut fetched = false;
        let mut remote = session.remote(&self.repository)?;
        let heads = session.list_then_fetch(&mut remote, |heads| {
            let tip = find(heads, &branch).filter(|tip| Some(*tip) != had);
            fetched = tip.is_some();
            match tip {
                Some(tip) if had.is_none() || !self.brought(tip, &tracking) => vec![refspec::fetch_branch(&self.config.branch)],
                Some(_) | None => Vec::new(),
            }
        })?;
        let listed = find(&heads, &branch).ok_or_else(|| self.no_branch(&heads))?;
        if !fetched {
            return Ok(listed);
        }
        // The branch may have moved between the listing and the fetch: what was fetched counts.
        let tip = self.repository.refname_to_id(&tracking).map_err(|source| GitError::here(&format!("read {tracking}"), source))?;
        tracing::debug!(url = %self.config.url, branch = %self.config.branch, commit = %tip, "fetched");
        Ok(tip)
    }

    /// Whether `tip` could be had without a conversation. If not, that tells why.
    fn brought(&self, tip: Oid, tracking: &str) -> bool {
        let Kind::Local { path } = self.config.url.kind() else { return false };
        let brought = nearby::bring(path, &self.repository, tip);
        let noted = brought.and_then(|()| self.repository.reference(tracking, tip, true, "fetch"));
        noted.inspect_err(|error| tracing::debug!(url = %self.config.url, %tip, %error, "read as from elsewhere")).is_ok()
    }

    fn no_branch(&self, heads: &Heads) -> GitError {
        let Config { url, branch, .. } = &self.config;
        let others: Vec<&str> = heads.iter().filter_map(|(name, _)| name.strip_prefix("refs/heads/")).take(8).collect();
        let message = if others.is_empty() {
            format!("{url} is empty: push a first commit to its branch {branch}")
        } else {
            format!("{url} has no branch {branch}; it has {}. Push it, or set `branch`", others.join(", "))
        };
        GitError::new(RetryClass::Wait, message)
    }

    fn check_history(&self, in_force: Option<Oid>, tip: Oid, allow_force_push: bool) -> Result<(), GitError> {
        let Some(in_force) = in_force.filter(|commit| *commit != tip) else { return Ok(()) };
        let compared = |source| GitError::here(&format!("compare {tip} with {in_force}"), source);
        let known = self.has(in_force)?;
        if known && self.repository.graph_descendant_of(tip, in_force).map_err(compared)? {
            return Ok(());
        }
        let Config { url, branch, .. } = &self.config;
        if known && self.is_unrelated(in_force, tip).map_err(compared)? {
            return Err(unrelated(&format!("{branch} at {url}"), in_force, tip));
        }
        if allow_force_push {
            tracing::warn!(%url, branch, from = %in_force, to = %tip, "history was rewritten, which the fleet allows");
            return Ok(());
        }
        let message = format!(
            "the history of {branch} at {url} was rewritten: {tip} does not descend from {in_force}, which stays in force. Push a commit \
             that descends from {in_force} (for example a merge). To follow rewritten histories, set `allowForcePush: true` in a Fleet document on top of {in_force} first"
        );
        Err(GitError::new(RetryClass::Stalled, message))
    }

    /// Whether two commits have no ancestor in common.
    fn is_unrelated(&self, one: Oid, other: Oid) -> Result<bool, git2::Error> {
        match self.repository.merge_base(one, other) {
            Ok(_) => Ok(false),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Holds a commit in our clone whatever the remote does.
    fn keep(&self, commit: Oid) -> Result<(), GitError> {
        if self.repository.refname_to_id(refspec::IN_FORCE).ok() == Some(commit) || !self.has(commit)? {
            return Ok(());
        }
        let kept = self.repository.reference(refspec::IN_FORCE, commit, true, "in force");
        kept.map(drop).map_err(|source| GitError::here(&format!("keep commit {commit} in {}", self.dir.display()), source))
    }

    fn has(&self, commit: Oid) -> Result<bool, GitError> {
        let odb = self.repository.odb().map_err(|source| GitError::here(&format!("read {}", self.dir.display()), source))?;
        Ok(odb.exists(commit))
    }
}

/// Another repository in the place of ours, which no setting of ours allows: its machines are others, and all of ours are missing there.
fn unrelated(branch: &str, in_force: Oid, tip: Oid) -> GitError {
    let message = format!(
        "{branch} is another repository: {tip} has no commit in common with {in_force}, which stays in force; nobody is released, nothing is \
         installed. If that is not meant, put the former repository back or correct `repository.url`. If it is: merge the history of \
         {in_force} into it (`git merge --strategy ours --allow-unrelated-histories {in_force}`), push, and read the plan first"
    );
    GitError::new(RetryClass::Stalled, message)
}

fn find(heads: &Heads, name: &str) -> Option<Oid> {
    heads.iter().find(|(head, _)| head == name).map(|(_, id)| *id)
}

fn oid(id: CommitId) -> Result<Oid, GitError> {
    Oid::from_bytes(&id.0).map_err(|source| GitError::here(&format!("use commit {id}"), source))
}
