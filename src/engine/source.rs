//! Which commit is in force: the newest one that can be had and has no errors; else the last good one, and why.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};

use super::{Live, Ports};
use crate::{
    manifest::{self, Loaded},
    model::{Attempt, Commit, CommitId, Fleet, History, Machine, MachineName, Problem, Snapshot},
    ports::{Secrets, Source},
};

/// The key under which the journal keeps the id of the commit in force.
const IN_FORCE: &str = "commit-in-force";

/// The commit that the controller follows.
#[derive(Clone)]
pub struct InForce {
    /// The commit.
    pub commit: Commit,
    /// What it says.
    pub fleet: Arc<Fleet>,
    /// Its warnings.
    pub warnings: Vec<Problem>,
    /// The fleet that was in force before, to tell which fields changed. A machine that is being installed under an earlier commit
    /// stands in it as that commit says: its agent is told to finish just that. After a restart, such machines alone.
    pub former: Option<Arc<Fleet>>,
}

/// A commit that can't be used.
pub struct Rejected {
    /// The commit.
    pub commit: Commit,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// What became of a newly fetched commit.
pub enum Change {
    /// Nothing new.
    None,
    /// It is in force now; the one before is superseded.
    Adopted {
        /// The commit that was in force before.
        before: Option<CommitId>,
        /// Commits between the two, never in force, oldest first.
        skipped: Vec<CommitId>,
    },
    /// It has errors; the one before stays in force.
    Rejected(Rejected),
}

/// Follows the repository in the background.
pub struct Follower {
    live: Arc<Live>,
    secrets: Arc<dyn Secrets>,
    cache: manifest::Cache,
    in_force: Option<InForce>,
    judged: Option<CommitId>,
    rejected: Vec<Problem>,
    candidate: watch::Receiver<Option<Snapshot>>,
    trouble: watch::Receiver<Option<String>>,
    asked_from: watch::Sender<(Option<CommitId>, bool)>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Goes back to the commit that the journal says was in force, and starts to follow the repository.
    pub async fn start(live: Arc<Live>, ports: &Ports) -> Self {
        let (candidates, candidate) = watch::channel(None);
        let (troubles, trouble) = watch::channel(None);
        let (source, waker) = (ports.source.clone(), live.clone());
        let kept = kept(&live).await;
        let last = last_good(kept, source.as_ref()).await;
        // Even if our clone was lost: what does not descend from the commit that was in force is a rewritten history.
        let (asked_from, from) = watch::channel((kept, false));
        let mut follower = Self {
            live,
            secrets: ports.secrets.clone(),
            cache: manifest::Cache::default(),
            in_force: None,
            judged: None,
            rejected: Vec::new(),
            candidate,
            trouble,
            asked_from,
            task: tokio::spawn(async {}),
        };
        if let Some(snapshot) = last {
            follower.judge(&snapshot).await;
        }
        if let Some(force) = &mut follower.in_force {
            force.former = of_open_attempts(&follower.live, source.as_ref(), force.commit.id).await.map(Arc::new);
        }
        follower.task = tokio::spawn(async move { follow(source.as_ref(), from, candidates, troubles, &waker).await });
        follower
    }

    /// The commit in force, if there is one yet.
    pub fn in_force(&self) -> Option<&InForce> {
        self.in_force.as_ref()
    }

    /// What is wrong in the newest commit, if that is why it is not in force.
    pub fn rejected(&self) -> &[Problem] {
        &self.rejected
    }

    /// Why the newest commit is not in force, or can't be had.
    pub fn trouble(&self) -> Option<String> {
        if let Some(trouble) = self.trouble.borrow().clone() {
            return Some(trouble);
        }
        let newest = self.judged?;
        let (first, count) = (self.rejected.first()?, self.rejected.len());
        let (file, line, message) = (&first.file, first.line, &first.message);
        let problems = if count == 1 { "a problem".to_owned() } else { format!("{count} problems, the first") };
        Some(format!("commit {} is not in force, it has {problems}: {file}:{line}: {message}", newest.short()))
    }

    /// Looks at what was fetched.
    pub async fn take(&mut self) -> Change {
        let Some(snapshot) = self.candidate.borrow_and_update().clone() else { return Change::None };
        if self.judged == Some(snapshot.commit.id) {
            return Change::None;
        }
        self.judge(&snapshot).await
    }

    async fn judge(&mut self, snapshot: &Snapshot) -> Change {
        let Loaded { fleet, problems } = manifest::load(&snapshot.files, &mut self.cache);
        let commit = snapshot.commit.clone();
        self.judged = Some(commit.id);
        if self.in_force.as_ref().is_some_and(|force| force.commit.id == commit.id) {
            // Back from a commit that was rejected: nothing is superseded.
            self.rejected.clear();
            return Change::None;
        }
        if problems.iter().any(Problem::is_error) {
            tracing::warn!(commit = %commit.id.short(), problems = problems.len(), "commit has errors; the last good one stays in force");
            self.rejected.clone_from(&problems);
            return Change::Rejected(Rejected { commit, problems });
        }
        if let Err(error) = self.live.ledger.put(IN_FORCE, &commit.id.to_string()).await {
            // Not in force before it is durable: a crash must not fall back behind what was acted on.
            tracing::error!(error = &error as &dyn std::error::Error, "journal can't be written; the commit is not taken yet");
            self.judged = None;
            return Change::None;
        }
        tracing::info!(commit = %commit.id.short(), subject = commit.subject, machines = fleet.machines.len(), "commit in force");
        self.rejected.clear();
        self.secrets.follow(&fleet.secrets);
        self.asked_from.send_replace((Some(commit.id), fleet.settings.allow_force_push));
        let former = self.in_force.as_ref().map(|before| self.live.ledger.with(|history| former(before, history)));
        let before = self.in_force.replace(InForce { commit, fleet: Arc::new(fleet), warnings: problems, former });
        Change::Adopted { before: before.map(|before| before.commit.id), skipped: snapshot.skipped.clone() }
    }
}

/// Whether a machine is what an attempt installs.
fn is_installed_by(machine: &Machine, attempt: &Attempt) -> bool {
    machine.generation() == Some(attempt.generation)
}

/// The fleet of `before`, with what machines that are being installed under a still earlier commit were told to write.
fn former(before: &InForce, history: &History) -> Arc<Fleet> {
    let mut fleet = before.fleet.clone();
    let Some(earlier) = &before.former else { return fleet };
    for (name, attempt) in history.machines.iter().filter_map(|(name, machine)| Some((name, machine.open_attempt()?))) {
        let told = earlier.machines.get(name).filter(|machine| is_installed_by(machine, attempt));
        if let (Some(told), false) = (told, fleet.machines.get(name).is_some_and(|machine| is_installed_by(machine, attempt))) {
            Arc::make_mut(&mut fleet).machines.insert(name.clone(), told.clone());
        }
    }
    fleet
}

/// After a restart: what machines that are being installed under another commit than `in_force` were told to write.
async fn of_open_attempts(live: &Live, source: &dyn Source, in_force: CommitId) -> Option<Fleet> {
    let open: Vec<(MachineName, Attempt)> = live.ledger.with(|history| {
        let open = history.machines.iter().filter_map(|(name, machine)| Some((name.clone(), machine.open_attempt()?.clone())));
        open.filter(|(_, attempt)| attempt.commit != in_force).collect()
    });
    let commits: BTreeSet<CommitId> = open.iter().map(|(_, attempt)| attempt.commit).collect();
    let mut fleet = Fleet::default();
    for commit in commits {
        let snapshot = match source.at(commit).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(%commit, error = &error as &dyn std::error::Error, "installs that began under this commit can't be finished");
                continue;
            }
        };
        let told = manifest::load(&snapshot.files, &mut manifest::Cache::default()).fleet;
        for (name, attempt) in open.iter().filter(|(_, attempt)| attempt.commit == commit) {
            let machine = told.machines.get(name).filter(|machine| is_installed_by(machine, attempt));
            fleet.machines.extend(machine.map(|machine| (name.clone(), machine.clone())));
        }
    }
    (!fleet.machines.is_empty()).then_some(fleet)
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The id of the commit that the journal says was in force.
async fn kept(live: &Live) -> Option<CommitId> {
    live.ledger.journal().get(IN_FORCE).await.ok()??.parse().ok()
}

async fn last_good(kept: Option<CommitId>, source: &dyn Source) -> Option<Snapshot> {
    match source.at(kept?).await {
        Ok(snapshot) => Some(snapshot),
        Err(error) => {
            let commit = kept.map(tracing::field::display);
            tracing::warn!(commit, error = &error as &dyn std::error::Error, "the commit that was in force is not in our clone");
            None
        }
    }
}

async fn follow(
    source: &dyn Source,
    from: watch::Receiver<(Option<CommitId>, bool)>,
    candidates: watch::Sender<Option<Snapshot>>,
    troubles: watch::Sender<Option<String>>,
    live: &Live,
) {
    loop {
        let (in_force, allow_force_push) = *from.borrow();
        match source.latest(in_force, allow_force_push).await {
            Ok(snapshot) => {
                if troubles.send_replace(None).is_some() {
                    tracing::info!("the fleet repository can be read again");
                    live.wake.notify_one();
                }
                let id = snapshot.commit.id;
                let before = candidates.send_replace(Some(snapshot));
                if before.is_none_or(|before| before.commit.id != id) {
                    live.wake.notify_one();
                }
            }
            Err(error) => {
                let text = chain(&error);
                if troubles.send_replace(Some(text.clone())).as_ref() != Some(&text) {
                    tracing::warn!(why = text, "the fleet repository can't be read; the last good commit stays in force");
                    live.wake.notify_one();
                }
            }
        }
        source.changed().await;
    }
}

/// An error and its causes in one line, for outcomes and statuses that people read.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        journal::SqliteJournal,
        model::{AttemptId, Fact, FileEntry, FileKind, Files, Timestamp},
        ports::{Clock, SourceError},
    };

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn files(rebuild: u64) -> Files {
        let machine = format!(
            "apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata: {{name: web-01}}\nspec:\n  image: a\n  rebuild: {rebuild}\n  \
             identity: {{serial: s}}\n  bmc: {{address: \"https://10.0.0.1\", insecure: true}}\n"
        );
        let image = format!(
            "apiVersion: rackwright.dev/v1alpha1\nkind: Image\nmetadata: {{name: a}}\nspec:\n  digest: sha256:{DIGEST}\n  \
             format: raw\n  url: a.raw\n"
        );
        let entry = |text: String| FileEntry {
            id: crate::model::Digest::of(text.as_bytes()).0[..20].try_into().unwrap(),
            kind: FileKind::Regular,
            bytes: text.into_bytes().into(),
        };
        [("machines/a.yaml".to_owned(), entry(machine)), ("images/a.yaml".to_owned(), entry(image))].into()
    }

    /// Commit `n` is the fleet with `rebuild: n`.
    struct Commits;

    #[async_trait]
    impl Source for Commits {
        async fn latest(&self, _: Option<CommitId>, _: bool) -> Result<Snapshot, SourceError> {
            std::future::pending().await
        }

        async fn at(&self, id: CommitId) -> Result<Snapshot, SourceError> {
            let commit = Commit { id, subject: String::new(), author: String::new(), time: Timestamp::UNIX_EPOCH };
            Ok(Snapshot { commit, files: Arc::new(files(id.0[0].into())), skipped: Vec::new() })
        }

        async fn changed(&self) {
            std::future::pending().await
        }
    }

    struct Epoch;

    impl Clock for Epoch {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    fn name() -> MachineName {
        "web-01".parse().unwrap()
    }

    fn fleet(rebuild: u8) -> Arc<Fleet> {
        let loaded = manifest::load(&files(rebuild.into()), &mut manifest::Cache::default());
        assert!(loaded.is_usable(), "{:?}", loaded.problems);
        Arc::new(loaded.fleet)
    }

    /// An attempt under commit 1.
    async fn writing() -> Arc<Live> {
        let live = Live::open(Arc::new(SqliteJournal::in_memory().unwrap()), Arc::new(Epoch)).await.unwrap();
        let attempt = AttemptId { machine: name(), number: 1 };
        let claimed = Fact::Claimed { machine: name(), installed: None, hardware: vec!["serial:s".to_owned()] };
        let began = Fact::Began { attempt, generation: fleet(1).machines[&name()].generation().unwrap() };
        live.ledger.append(Timestamp::UNIX_EPOCH, CommitId([1; 20]), vec![claimed, began]).await.unwrap();
        live
    }

    #[tokio::test]
    async fn two_commits_during_an_install_leave_its_order_at_hand() {
        let live = writing().await;
        let commit = Commit { id: CommitId([2; 20]), subject: String::new(), author: String::new(), time: Timestamp::UNIX_EPOCH };
        let second = InForce { commit, fleet: fleet(2), warnings: Vec::new(), former: Some(fleet(1)) };
        let kept = live.ledger.with(|history| former(&second, history));
        assert_eq!(kept.machines[&name()], fleet(1).machines[&name()]);
        let nothing_open = former(&second, &History { machines: BTreeMap::new(), ..History::default() });
        assert_eq!(nothing_open.machines[&name()], fleet(2).machines[&name()]);
    }

    #[tokio::test]
    async fn a_restart_during_an_install_finds_its_order_again() {
        let live = writing().await;
        let found = of_open_attempts(&live, &Commits, CommitId([2; 20])).await.unwrap();
        assert_eq!(found.machines[&name()], fleet(1).machines[&name()]);
        assert_eq!(of_open_attempts(&live, &Commits, CommitId([1; 20])).await, None);
    }
}
