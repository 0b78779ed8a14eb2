//! Which commit is in force: the newest one that can be had and has no errors; else the last good one, and why.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};

use super::{
    Live, Owed, Ports,
    gate::{Gate, Pass, Refusal},
};
use crate::{
    manifest::{self, Loaded},
    model::{Attempt, AttemptId, Commit, CommitId, Fleet, History, Machine, MachineName, Problem, Rung, Signatures, Signer, Snapshot},
    plan,
    ports::{JournalError, Secrets, Source},
};

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
    /// It, or a commit that it brings, is not signed as is asked; the one before stays in force.
    Refused(Box<Refusal>),
}

/// Follows the repository in the background.
pub struct Follower {
    live: Arc<Live>,
    source: Arc<dyn Source>,
    secrets: Arc<dyn Secrets>,
    /// Whether superseded commits are owed a last note.
    owes_notes: bool,
    cache: manifest::Cache,
    in_force: Option<InForce>,
    /// Attempts whose order can't be had, with the commit that holds it.
    unordered: BTreeMap<AttemptId, CommitId>,
    judged: Option<CommitId>,
    rejected: Vec<Problem>,
    gate: Gate,
    refused: Option<Box<Refusal>>,
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
        let kept = live.ledger.in_force();
        let last = last_good(kept, source.as_ref()).await;
        // Even if our clone was lost: what does not descend from the commit that was in force is a rewritten history.
        let (asked_from, from) = watch::channel((kept, false));
        let mut follower = Self {
            gate: Gate::new(live.clone(), source.clone()),
            refused: None,
            live,
            source: source.clone(),
            secrets: ports.secrets.clone(),
            owes_notes: ports.notes.is_some(),
            cache: manifest::Cache::default(),
            in_force: None,
            unordered: BTreeMap::new(),
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
        if let Some(trouble) = self.trouble.borrow().clone().or_else(|| self.unordered()) {
            return Some(trouble);
        }
        if let Some(told) = self.gate.trouble().or_else(|| Some(self.refused.as_ref()?.told())) {
            return Some(told);
        }
        let told = |problems: &[Problem]| {
            let (first, count) = (problems.first()?, problems.len());
            let (file, line, message) = (&first.file, first.line, &first.message);
            let problems = if count == 1 { "a problem".to_owned() } else { format!("{count} problems, the first") };
            Some(format!("{problems}: {file}:{line}: {message}"))
        };
        if let (Some(newest), Some(problems)) = (self.judged, told(&self.rejected)) {
            return Some(format!("commit {} is not in force, it has {problems}", newest.short()));
        }
        let force = self.in_force.as_ref()?;
        let errors: Vec<Problem> = force.warnings.iter().filter(|problem| problem.is_error()).cloned().collect();
        let problems = told(&errors)?;
        let short = force.commit.id.short();
        Some(format!("nothing is begun until a commit mends what is in force: by the rules of this release {short} has {problems}"))
    }

    /// Looks at what was fetched. While the journal can't be written, nothing can come into force.
    pub async fn take(&mut self) -> Change {
        if self.live.ledger.trouble().is_some() {
            return Change::None;
        }
        let fetched = self.candidate.has_changed().unwrap_or(false);
        let Some(snapshot) = self.candidate.borrow_and_update().clone() else { return Change::None };
        if self.judged != Some(snapshot.commit.id) {
            return self.judge(&snapshot).await;
        }
        if fetched && !self.unordered.is_empty() {
            self.find_orders().await;
        }
        Change::None
    }

    /// What is said of installs that can't be finished because nobody knows any more what they write.
    fn unordered(&self) -> Option<String> {
        let stuck = |(attempt, _): &(&AttemptId, &CommitId)| {
            self.live.ledger.with(|history| {
                let open = history.machines.get(&attempt.machine).and_then(|machine| machine.open_attempt());
                open.is_some_and(|open| open.id == **attempt && open.wrote() && open.reached(Rung::Written).is_none())
            })
        };
        let (attempt, commit) = self.unordered.iter().find(stuck)?;
        let short = commit.short();
        Some(format!(
            "{attempt} writes what commit {short} says, which is not in the repository any more: push a branch that descends from {short}, or \
             wait until the agent is given up and the machine is installed anew"
        ))
    }

    async fn judge(&mut self, snapshot: &Snapshot) -> Change {
        let Loaded { fleet, problems } = manifest::load(&snapshot.files, &mut self.cache);
        let mut commit = snapshot.commit.clone();
        self.judged = Some(commit.id);
        if self.in_force.as_ref().is_some_and(|force| force.commit.id == commit.id) {
            // Back from a commit that was rejected: nothing is superseded.
            self.rejected.clear();
            self.refused = None;
            self.gate.rest();
            return Change::None;
        }
        // It was good by the rules of the release that put it into force, and without it no machine would get so much as its address.
        // While it has errors nothing is begun and nobody is released (law 2).
        let was_good = self.in_force.is_none() && self.live.ledger.in_force() == Some(commit.id);
        let before = self.in_force.as_ref().map(|before| before.commit.id).or(self.live.ledger.in_force()).filter(|id| *id != commit.id);
        let stated = fleet.settings.signatures.as_ref();
        let signer = match self.let_in(snapshot, stated, before, was_good).await {
            Pass::Yes(signer) => signer,
            Pass::Wait => {
                self.judged = None;
                return Change::None;
            }
            Pass::No(refusal) => {
                tracing::warn!(why = refusal.told(), "commit refused; the last good one stays in force");
                self.rejected.clear();
                self.refused = Some(refusal.clone());
                return Change::Refused(refusal);
            }
        };
        self.refused = None;
        let errors = problems.iter().filter(|problem| problem.is_error()).count();
        if errors > 0 && was_good {
            tracing::warn!(commit = %commit.id.short(), errors, "the commit in force has errors by the rules of this release; it stays in force, and nothing is begun");
        } else if errors > 0 {
            tracing::warn!(commit = %commit.id.short(), errors, "commit has errors; the last good one stays in force");
            self.rejected.clone_from(&problems);
            return Change::Rejected(Rejected { commit, problems });
        }
        if let Err(error) = self.adopt(commit.id, &fleet, signer.as_ref(), self.owed(before, snapshot)).await {
            // Not in force before it is durable: a crash must not fall back behind what was acted on.
            tracing::error!(error = &error as &dyn std::error::Error, "journal can't be written; the commit is not taken yet");
            self.judged = None;
            return Change::None;
        }
        tracing::info!(commit = %commit.id.short(), subject = commit.subject, machines = fleet.machines.len(), "commit in force");
        self.rejected.clear();
        if !was_good {
            self.gate.follow(snapshot, fleet.settings.signatures.as_ref());
        }
        for approval in &mut commit.approvals {
            approval.signers = signer.as_ref().map(|signer| signer.principals.clone());
        }
        self.secrets.follow(&fleet.secrets);
        self.asked_from.send_replace((Some(commit.id), fleet.settings.allow_force_push));
        let former = self.in_force.as_ref().map(|before| self.live.ledger.with(|history| former(before, history)));
        self.in_force = Some(InForce { commit, fleet: Arc::new(fleet), warnings: problems, former });
        self.find_orders().await;
        Change::Adopted { before, skipped: snapshot.skipped.clone() }
    }

    /// Whether a commit may come into force. One that was in force before this process began was let in then.
    async fn let_in(&mut self, snapshot: &Snapshot, stated: Option<&Signatures>, before: Option<CommitId>, was_good: bool) -> Pass {
        if was_good { Pass::Yes(self.gate.follow_again(snapshot, stated).await) } else { self.gate.passes(before, snapshot, stated) }
    }

    /// Puts a commit into force in the journal. What is noted first is worth nothing until then.
    async fn adopt(&self, commit: CommitId, fleet: &Fleet, signer: Option<&Signer>, owed: Vec<Owed>) -> Result<(), JournalError> {
        let ledger = &self.live.ledger;
        self.gate.keep(commit, signer, fleet.settings.signatures.is_some()).await?;
        if let Some(before) = &self.in_force {
            let goes_on = ledger.with(|history| plan::goes_on(before.commit.id, &before.fleet, history, fleet));
            ledger.will_go_on(commit, goes_on).await?;
        }
        ledger.adopt(commit, owed).await
    }

    /// The commits that are owed a last note once `snapshot` is in force.
    fn owed(&self, before: Option<CommitId>, snapshot: &Snapshot) -> Vec<Owed> {
        let by = snapshot.commit.id;
        let skipped = snapshot.skipped.iter().filter(|commit| Some(**commit) != before);
        let skipped = skipped.map(|commit| Owed { commit: *commit, by, was_in_force: false });
        let before = before.map(|commit| Owed { commit, by, was_in_force: true });
        if self.owes_notes { skipped.chain(before).collect() } else { Vec::new() }
    }

    /// Looks up in the repository what machines that are being installed under another commit were told to write, where it is not at hand.
    async fn find_orders(&mut self) {
        let Some(force) = &mut self.in_force else { return };
        let fleets = [Some(&force.fleet), force.former.as_ref()];
        let missing = self.live.ledger.with(|history| {
            let open = history.machines.iter().filter_map(|(name, machine)| Some((name, machine.open_attempt()?)));
            let missing = open.filter(|(name, attempt)| {
                let mut told = fleets.iter().flatten().filter_map(|fleet| fleet.machines.get(*name));
                attempt.commit != force.commit.id && !told.any(|machine| is_installed_by(machine, attempt, history))
            });
            missing.map(|(name, attempt)| (name.clone(), attempt.clone())).collect()
        });
        let (orders, unordered) = orders(self.source.as_ref(), missing).await;
        self.unordered = unordered;
        if !orders.machines.is_empty() {
            Arc::make_mut(force.former.get_or_insert_default()).machines.extend(orders.machines);
        }
    }
}

/// Whether a manifest says what an attempt installs, and where.
fn orders_it(machine: &Machine, attempt: &Attempt) -> bool {
    machine.work().is_some_and(|work| work.generation() == attempt.generation) && machine.boot_nic().is_some()
}

/// The same for the machine that the attempt is about: its name may be another one's by now.
fn is_installed_by(machine: &Machine, attempt: &Attempt, history: &History) -> bool {
    let known = history.machines.get(&machine.name).map(|known| known.hardware.as_slice());
    known == Some(plan::hardware(machine).as_slice()) && orders_it(machine, attempt)
}

/// The fleet of `before`, with what machines that are being installed under a still earlier commit were told to write.
fn former(before: &InForce, history: &History) -> Arc<Fleet> {
    let mut fleet = before.fleet.clone();
    let Some(earlier) = &before.former else { return fleet };
    for (name, attempt) in history.machines.iter().filter_map(|(name, machine)| Some((name, machine.open_attempt()?))) {
        let told = earlier.machines.get(name).filter(|machine| is_installed_by(machine, attempt, history));
        if let (Some(told), false) = (told, fleet.machines.get(name).is_some_and(|machine| is_installed_by(machine, attempt, history))) {
            Arc::make_mut(&mut fleet).machines.insert(name.clone(), told.clone());
        }
    }
    fleet
}

/// What these machines were told to write under the commits of their attempts, and the attempts of which that can't be had.
async fn orders(source: &dyn Source, missing: Vec<(MachineName, Attempt)>) -> (Fleet, BTreeMap<AttemptId, CommitId>) {
    let (mut fleet, mut unordered) = (Fleet::default(), BTreeMap::new());
    let mut of_commit: BTreeMap<CommitId, Vec<(MachineName, Attempt)>> = BTreeMap::new();
    for (name, attempt) in missing {
        of_commit.entry(attempt.commit).or_default().push((name, attempt));
    }
    for (commit, attempts) in of_commit {
        let told = match source.at(commit).await {
            Ok(snapshot) => manifest::load(&snapshot.files, &mut manifest::Cache::default()).fleet,
            Err(error) => {
                tracing::warn!(%commit, error = &error as &dyn std::error::Error, "installs that began under this commit can't be finished yet");
                Fleet::default()
            }
        };
        for (name, attempt) in attempts {
            match told.machines.get(&name).filter(|machine| orders_it(machine, &attempt)) {
                Some(machine) => drop(fleet.machines.insert(name, machine.clone())),
                None => drop(unordered.insert(attempt.id, commit)),
            }
        }
    }
    (fleet, unordered)
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
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
    use super::*;
    use crate::{
        engine::support_tests::{self as testing, AT, Commits, began, claimed, commit, fleet, id, name, saw},
        model::{Evidence, ObservedDisk},
    };

    /// An attempt that writes under commit 1, while `in_force` is what the journal says.
    async fn writing(in_force: u8) -> Arc<Live> {
        let live = testing::empty().await;
        let writing = Evidence::Writing { boot_id: "8d1b".to_owned(), disk: ObservedDisk::default() };
        live.ledger.append(AT, id(1), vec![claimed(), began(), saw(writing)]).await.unwrap();
        live.ledger.adopt(id(in_force), Vec::new()).await.unwrap();
        live
    }

    async fn follower(live: &Arc<Live>, source: &Arc<Commits>) -> Follower {
        let ports = Ports { source: source.clone(), notes: Some(Arc::new(testing::Kept::default())), ..testing::ports() };
        Follower::start(live.clone(), &ports).await
    }

    /// Takes what is fetched, until something changes.
    async fn adopted(follower: &mut Follower) -> Change {
        loop {
            match follower.take().await {
                Change::None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                change => return change,
            }
        }
    }

    fn order(follower: &Follower) -> Option<Arc<Machine>> {
        follower.in_force()?.former.as_ref()?.machines.get(&name()).cloned()
    }

    #[tokio::test]
    async fn two_commits_during_an_install_leave_its_order_at_hand() {
        let live = writing(1).await;
        let second = InForce { commit: commit(2), fleet: fleet(2), warnings: Vec::new(), former: Some(fleet(1)) };
        let kept = live.ledger.with(|history| former(&second, history));
        assert_eq!(kept.machines[&name()], fleet(1).machines[&name()]);
        let nothing_open = former(&second, &History { machines: BTreeMap::new(), ..History::default() });
        assert_eq!(nothing_open.machines[&name()], fleet(2).machines[&name()]);
    }

    #[tokio::test]
    async fn a_restart_during_an_install_finds_its_order_again() {
        let source = Commits::new(None, &[]);
        let follower_of_two = follower(&writing(2).await, &source).await;
        assert_eq!(order(&follower_of_two).as_ref(), fleet(1).machines.get(&name()));
        assert_eq!(follower_of_two.trouble(), None);
        assert_eq!(order(&follower(&writing(1).await, &source).await), None, "it is in force");
    }

    #[tokio::test]
    async fn a_clone_that_was_deleted_during_an_install_gives_its_order_once_it_is_fetched_again() {
        let (live, source) = (writing(1).await, Commits::new(None, &[1]));
        let mut follower = follower(&live, &source).await;
        assert!(follower.in_force().is_none(), "nothing is in the clone");
        source.restore(1);
        source.newest.send_replace(Some(2));
        let Change::Adopted { before, .. } = adopted(&mut follower).await else { panic!("commit 2 has no errors") };
        assert_eq!(before, Some(id(1)), "by the journal");
        assert_eq!(order(&follower).as_ref(), fleet(1).machines.get(&name()));
    }

    #[tokio::test]
    async fn an_order_that_cannot_be_had_is_told_and_looked_for_after_each_fetch() {
        let (live, source) = (writing(1).await, Commits::new(Some(2), &[1]));
        let mut follower = follower(&live, &source).await;
        adopted(&mut follower).await;
        assert_eq!(order(&follower), None);
        let trouble = follower.trouble().unwrap();
        assert!(trouble.contains("web-01#1") && trouble.contains(&id(1).short()), "{trouble}");
        source.restore(1);
        for _ in 0..30_000 {
            follower.take().await;
            if follower.trouble().is_none() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(order(&follower).as_ref(), fleet(1).machines.get(&name()));
    }

    #[tokio::test]
    async fn what_was_in_force_stays_so_under_stricter_rules() {
        let (live, source) = (writing(testing::EARLIER).await, Commits::new(Some(2), &[2]));
        let mut follower = follower(&live, &source).await;
        let force = follower.in_force().unwrap();
        assert_eq!(force.commit.id, id(testing::EARLIER));
        assert!(force.fleet.machines.contains_key(&name()), "it keeps its address and its ticket");
        assert!(force.warnings.iter().any(Problem::is_error), "nothing is begun");
        let trouble = follower.trouble().unwrap();
        assert!(trouble.contains("nothing is begun") && trouble.contains("machines/a.yaml:10"), "{trouble}");
        source.restore(2);
        source.newest.send_replace(Some(2));
        let Change::Adopted { before, .. } = adopted(&mut follower).await else { panic!("commit 2 has no errors") };
        assert_eq!((before, follower.trouble()), (Some(id(testing::EARLIER)), None));
    }

    #[tokio::test]
    async fn a_superseded_commit_is_owed_its_last_note_before_another_one_is_in_force() {
        let (live, source) = (writing(1).await, Commits::new(Some(2), &[]));
        let mut follower = follower(&live, &source).await;
        adopted(&mut follower).await;
        assert_eq!(live.ledger.owed(), [Owed { commit: id(1), by: id(2), was_in_force: true }]);
    }
}
