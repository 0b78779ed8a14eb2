//! What the engine knows now, shared with the boot server (which tells it evidence) and the API (which reads it).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use super::{
    Ledger,
    brake::BrakeWatch,
    clock::ClockWatch,
    gatekeeper::{self, Probed},
    observe::Observations,
};
use crate::{
    model::{
        Action, AttemptId, CheckReport, Evidence, Fact, HandoffName, History, MachineHistory, MachineName, Outcome, Plan, Progress,
        SignedDuration, Status, Timestamp,
    },
    ports::{BrakeLever, Clock, Journal, JournalError, Witness, WitnessError},
};

/// Between two looks whether the clock was set. Until then the boot server takes tickets for expired, and agents ask again.
const CLOCK_LOOK: Duration = Duration::from_millis(500);

/// What a turn found: the plan that it executed and the status after it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The status.
    pub status: Arc<Status>,
}

/// Everything that lives longer than a turn.
pub struct Live {
    /// Journal and history.
    pub ledger: Ledger,
    /// What was last seen of each machine.
    pub seen: Observations,
    /// What the last probes found.
    pub(super) probes: Probed,
    /// Longest that one order to one BMC may take.
    pub order_limit: Duration,
    pub(super) wake: Notify,
    pub(super) view: watch::Sender<Option<View>>,
    progress: Mutex<BTreeMap<AttemptId, (Timestamp, Progress)>>,
    clock: Arc<dyn Clock>,
    set: ClockWatch,
    /// When the engine began to follow agents.
    since: Mutex<Timestamp>,
    brake: Arc<BrakeWatch>,
}

impl Live {
    /// Reads the journal; the brake is `lever`. An order to a BMC is given up after `order_limit`, which should not be shorter than the BMC client's own limit:
    /// that one can say more about why.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(
        journal: Arc<dyn Journal>,
        lever: Arc<dyn BrakeLever>,
        clock: Arc<dyn Clock>,
        order_limit: Duration,
    ) -> Result<Arc<Self>, JournalError> {
        let ledger = Ledger::open(journal).await?;
        let now = clock.now();
        if let Some(ahead) = ledger.not_after(now) {
            tracing::warn!(%now, ?ahead, "the clock is behind the journal: it was set back; what is known is counted from now");
        }
        Ok(Arc::new(Self {
            ledger,
            seen: Observations::default(),
            probes: Probed::default(),
            order_limit,
            wake: Notify::new(),
            view: watch::Sender::new(None),
            progress: Mutex::default(),
            clock,
            set: ClockWatch::default(),
            since: Mutex::new(now),
            brake: Arc::new(BrakeWatch::new(lever)),
        }))
    }

    /// The time now. A clock that was set since the last look has taken with it all that is known.
    pub(super) fn now(&self) -> Timestamp {
        let (now, set) = self.set.read(self.clock.as_ref());
        if let Some(by) = set {
            tracing::warn!(%now, ?by, "the clock was set: what is known moves with it, and no wait is over or longer for that");
            let moved = |at: &mut Timestamp| *at = at.checked_add(by).unwrap_or(now);
            self.ledger.shift(by);
            self.seen.shift(by);
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(|(at, _)| moved(at));
            moved(&mut self.since.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_one();
        }
        now
    }

    /// Looks every moment whether the clock was set; never returns.
    pub(super) async fn watch_clock(&self) {
        loop {
            self.now();
            tokio::time::sleep(CLOCK_LOOK).await;
        }
    }

    /// When the engine began to follow agents. It was deaf before, so their silence counts from then.
    pub(super) fn since(&self) -> Timestamp {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Agents are followed from now on.
    pub(super) fn begin(&self) {
        let now = self.now();
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// The local brake.
    pub(super) fn brake(&self) -> &BrakeWatch {
        &self.brake
    }

    /// What the last turn found; `None` before the first.
    pub fn view(&self) -> watch::Receiver<Option<View>> {
        self.view.subscribe()
    }

    /// The last progress of each open attempt.
    pub fn progress_now(&self) -> BTreeMap<AttemptId, (Timestamp, Progress)> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last turn's status with what agents told since.
    pub fn status_now(&self) -> Option<Arc<Status>> {
        let View { plan, status } = self.view.borrow().clone()?;
        let progress = self.progress_now();
        if progress.is_empty() {
            return Some(status);
        }
        let mut status = status.as_ref().clone();
        for (name, machine) in &mut status.machines {
            let attempt = plan.machines.get(name).and_then(|planned| planned.attempt.as_ref());
            if let (Some((_, progress)), Some(_)) = (attempt.and_then(|attempt| progress.get(attempt)), machine.rung) {
                machine.progress = Some(*progress);
            }
        }
        Some(Arc::new(status))
    }

    pub(super) fn forget_progress(&self, keep: impl Fn(&AttemptId) -> bool) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).retain(|attempt, _| keep(attempt));
    }
}

impl From<JournalError> for WitnessError {
    fn from(error: JournalError) -> Self {
        WitnessError::Journal(error)
    }
}

/// Whether an order to switch a machine off may still come into effect. One whose end nobody recorded, because the controller was stopped
/// before it, counts for as long as any order takes.
fn is_switching_off(machine: &MachineHistory, now: Timestamp, order_limit: Duration) -> bool {
    let limit = SignedDuration::try_from(order_limit).unwrap_or(SignedDuration::MAX);
    // A BMC takes one order after another: what it did later shows that the earlier one is over.
    let answered = machine.last.as_ref().filter(|(_, _, outcome)| *outcome == Outcome::Done).map(|(at, _, _)| *at);
    let is_open = |at: Timestamp| now.duration_since(at) < limit && answered.is_none_or(|answered| answered <= at);
    machine.unsure_power().any(|(at, step)| matches!(step.action, Action::PowerOff { .. }) && is_open(at))
}

/// Why an attempt may not begin to write now, although it is open.
fn not_now(
    history: &History,
    wanted: &BTreeSet<AttemptId>,
    attempt: &AttemptId,
    now: Timestamp,
    order_limit: Duration,
) -> Option<&'static str> {
    let machine = history.machines.get(&attempt.machine)?;
    // An order that is with a BMC can't be called back, and must not end in the middle of a write.
    if is_switching_off(machine, now, order_limit) {
        return Some("an order to switch the machine off is on its way");
    }
    // The commit that is in force since a moment ago may want something else.
    (!wanted.contains(attempt)).then_some("the newest commit has not been looked at")
}

/// Whether `evidence` is to be written down for `attempt`: `Ok(false)` when the same was written before.
fn is_new(history: &History, attempt: &AttemptId, evidence: &Evidence) -> Result<bool, WitnessError> {
    let not_open = || WitnessError::NotOpen { attempt: attempt.clone() };
    let machine = history.machines.get(&attempt.machine).ok_or_else(not_open)?;
    let open = machine.open_attempt().filter(|open| open.id.number == attempt.number).ok_or_else(not_open)?;
    let same_rung = open.evidence.iter().filter(|(_, known)| known.rung() == evidence.rung());
    for (_, known) in same_rung {
        match (known, evidence) {
            // A machine that restarts asks for everything again; the ladder keeps the first time of each rung.
            (Evidence::AgentUp { boot_id: known, .. }, Evidence::AgentUp { boot_id, .. }) if known != boot_id => {}
            // Two starts of one machine must never both write (law 10).
            // Nor one start to two disks, nor any after a failure was reported: its answer may only have been lost on the way.
            _ if evidence.leave().is_some() && (known != evidence || open.reported.is_some()) => return Err(not_open()),
            _ => return Ok(false),
        }
    }
    // After a failure was reported nothing may begin to write under this attempt.
    if open.reported.is_some() { Err(not_open()) } else { Ok(true) }
}

#[async_trait]
impl Witness for Live {
    async fn saw(&self, attempt: &AttemptId, evidence: Evidence) -> Result<(), WitnessError> {
        let rung = evidence.rung();
        let now = self.now();
        let (about, order_limit) = (attempt.clone(), self.order_limit);
        let brake = self.brake.clone();
        let decide = move |history: &History, wanted: &BTreeSet<AttemptId>| {
            if !is_new(history, &about, &evidence)? {
                return Ok(None);
            }
            let begins = evidence.leave().is_some();
            if let Some(why) = not_now(history, wanted, &about, now, order_limit).filter(|_| begins) {
                return Err(WitnessError::NotNow { attempt: about, why });
            }
            if begins && brake.has_moved() {
                return Err(WitnessError::NotNow { attempt: about, why: "the local brake was moved a moment ago" });
            }
            let commit = commit_of(history, &about)?;
            Ok::<_, WitnessError>(Some((commit, Fact::Saw { attempt: about, evidence })))
        };
        let written = self.ledger.decide(now, &attempt.machine, decide).await?;
        if written {
            tracing::info!(%attempt, %rung, "evidence");
            self.wake.notify_one();
        }
        Ok(())
    }

    async fn failed(&self, attempt: &AttemptId, wrote: bool, code: &str, why: &str) -> Result<(), WitnessError> {
        let now = self.now();
        let (about, reported, reason) = (attempt.clone(), code.to_owned(), why.to_owned());
        let decide = move |history: &History, _: &BTreeSet<AttemptId>| {
            let commit = commit_of(history, &about)?;
            let open = history.machines.get(&about.machine).and_then(|machine| machine.open_attempt());
            let Some(open) = open.filter(|open| open.id.number == about.number) else {
                return Err(WitnessError::NotOpen { attempt: about });
            };
            let new = open.reported.is_none();
            Ok(new.then_some((commit, Fact::Reported { attempt: about, wrote, code: reported, why: reason })))
        };
        let written = self.ledger.decide(now, &attempt.machine, decide).await?;
        if written {
            tracing::warn!(%attempt, wrote, code, why, "install failed");
            self.wake.notify_one();
        }
        Ok(())
    }

    async fn checked(&self, attempt: &AttemptId, report: CheckReport) -> Result<(), WitnessError> {
        let (about, said) = (attempt.clone(), report.clone());
        let decide = move |history: &History, _: &BTreeSet<AttemptId>| {
            let commit = commit_of(history, &about)?;
            Ok::<_, WitnessError>(gatekeeper::word(history, &about, said)?.map(|fact| (commit, fact)))
        };
        let written = self.ledger.decide(self.clock.now(), &attempt.machine, decide).await?;
        if written {
            tracing::info!(%attempt, check = report.check, ok = report.ok, "check reported");
            self.wake.notify_one();
        }
        Ok(())
    }

    async fn published(&self, machine: &MachineName, attempt: &AttemptId, names: &BTreeSet<HandoffName>) -> Result<(), WitnessError> {
        let (about, id, said) = (machine.clone(), attempt.clone(), names.clone());
        let decide = move |history: &History, _: &BTreeSet<AttemptId>| {
            let known = history.machines.get(&about);
            let life = known.and_then(MachineHistory::life).filter(|life| life.id == id);
            let Some((known, life)) = known.zip(life) else { return Err(WitnessError::NotOpen { attempt: id }) };
            let is_known = |name: &HandoffName| known.published.get(name).is_some_and(|known| known.attempt == id && known.lost.is_none());
            let names: BTreeSet<HandoffName> = said.into_iter().filter(|name| !is_known(name)).collect();
            Ok((!names.is_empty()).then(|| (life.commit, Fact::Published { machine: about, attempt: id.clone(), names })))
        };
        let written = self.ledger.decide(self.clock.now(), machine, decide).await?;
        tracing::info!(%attempt, names = ?names.iter().map(HandoffName::as_str).collect::<Vec<_>>(), new = written, "published");
        self.wake.notify_one();
        Ok(())
    }

    async fn values_lost(&self, machine: &MachineName, attempt: &AttemptId, names: &BTreeSet<HandoffName>) -> Result<(), WitnessError> {
        let (about, id, names) = (machine.clone(), attempt.clone(), names.clone());
        let decide = move |history: &History, _: &BTreeSet<AttemptId>| {
            let known = history.machines.get(&about);
            let is_there = |name: &&HandoffName| {
                let known = known.and_then(|known| known.published.get(*name));
                known.is_some_and(|known| known.attempt == id && known.lost.is_none())
            };
            let names: BTreeSet<HandoffName> = names.iter().filter(is_there).cloned().collect();
            let commit = known.and_then(MachineHistory::life).map(|life| life.commit);
            let Some(commit) = commit.filter(|_| !names.is_empty()) else { return Ok::<_, WitnessError>(None) };
            Ok(Some((commit, Fact::ValuesLost { machine: about, attempt: id, names })))
        };
        if self.ledger.decide(self.clock.now(), machine, decide).await? {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn progress(&self, attempt: &AttemptId, progress: Progress) {
        let now = self.now();
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt.clone(), (now, progress));
    }

    fn refused(&self, machine: Option<&MachineName>, what: &str) {
        tracing::info!(machine = machine.map(tracing::field::display), what, "network boot refused");
    }
}

fn commit_of(history: &History, attempt: &AttemptId) -> Result<crate::model::CommitId, WitnessError> {
    history
        .machines
        .get(&attempt.machine)
        .and_then(|machine| machine.attempts.iter().find(|known| known.id.number == attempt.number))
        .map(|known| known.commit)
        .ok_or_else(|| WitnessError::NotOpen { attempt: attempt.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::support_tests::{self as testing, AT, LIMIT, Lever, Stands, attempt, began, claimed, id, name, saw},
        journal::SqliteJournal,
        model::{Brake, CommitId, ObservedDisk, Outcome, Reason, RetryClass, Step},
    };

    const COMMIT: CommitId = CommitId([1; 20]);

    fn writing() -> Evidence {
        Evidence::Writing { boot_id: "8d1b".to_owned(), disk: ObservedDisk::default() }
    }

    fn step(action: Action) -> Fact {
        Fact::Intended { step: Step { machine: name(), action, reason: Reason::PartOf { attempt: attempt() } } }
    }

    /// The attempt, under a commit in force that wants it, and then `facts`.
    async fn with(facts: Vec<Fact>) -> Arc<Live> {
        let live = testing::empty().await;
        live.ledger.adopt(COMMIT, Vec::new()).await.unwrap();
        live.ledger.want(COMMIT, [attempt()].into());
        live.brake().planned_under(Brake::default());
        live.ledger.append(AT, id(1), [vec![claimed(), began(), saw(Evidence::TicketArmed)], facts].concat()).await.unwrap();
        live
    }

    #[tokio::test]
    async fn no_leave_to_write_while_an_order_to_switch_off_is_with_the_bmc() {
        for action in [Action::PowerOff { force: false }, Action::PowerOff { force: true }] {
            let live = with(vec![step(action)]).await;
            let refused = live.saw(&attempt(), writing()).await;
            assert!(matches!(refused, Err(WitnessError::NotNow { .. })), "{refused:?}");
            // Anything else is taken, and so is this once the order was refused.
            live.saw(&attempt(), Evidence::DhcpSeen).await.unwrap();
            let outcome = Outcome::Failed { why: "409".to_owned(), class: RetryClass::Failed };
            live.ledger.append(AT, COMMIT, vec![Fact::Ended { machine: name(), intention: 4, outcome }]).await.unwrap();
            live.saw(&attempt(), writing()).await.unwrap();
        }
        with(vec![step(Action::PowerOn)]).await.saw(&attempt(), writing()).await.unwrap();
    }

    /// The controller was killed after it gave the order, and the next one gave another since.
    #[tokio::test]
    async fn an_order_whose_end_is_not_known_counts_for_as_long_as_one_may_take() {
        let journal = Arc::new(SqliteJournal::in_memory().unwrap());
        let clock = Arc::new(Stands::default());
        let live = Live::open(journal, Arc::new(Lever::default()), clock.clone(), LIMIT).await.unwrap();
        live.ledger.adopt(COMMIT, Vec::new()).await.unwrap();
        live.ledger.want(COMMIT, [attempt()].into());
        live.brake().planned_under(Brake::default());
        let off = || step(Action::PowerOff { force: false });
        live.ledger.append(AT, COMMIT, vec![claimed(), began(), off(), step(Action::PowerOn)]).await.unwrap();
        assert!(matches!(live.saw(&attempt(), writing()).await, Err(WitnessError::NotNow { .. })));
        *clock.0.lock().unwrap() = AT + LIMIT;
        live.saw(&attempt(), writing()).await.unwrap();
    }

    #[tokio::test]
    async fn an_order_is_over_when_the_bmc_followed_a_later_one() {
        let off = step(Action::PowerOff { force: false });
        let live = with(vec![off, step(Action::BootFromNetwork { mode: Default::default() })]).await;
        assert!(matches!(live.saw(&attempt(), writing()).await, Err(WitnessError::NotNow { .. })));
        let done = Fact::Ended { machine: name(), intention: 5, outcome: Outcome::Done };
        live.ledger.append(AT + Duration::from_secs(1), COMMIT, vec![done]).await.unwrap();
        live.saw(&attempt(), writing()).await.unwrap();
    }

    fn names(names: &[&str]) -> BTreeSet<HandoffName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_published_is_written_down_once_and_only_of_the_system_on_the_disk() {
        let live = with(Vec::new()).await;
        let refused = live.published(&name(), &attempt(), &names(&["token"])).await;
        assert!(matches!(refused, Err(WitnessError::NotOpen { .. })), "nothing is installed yet");
        let written = Evidence::Written { digest: crate::model::Digest::of(b"image"), bytes: 1 };
        live.ledger.append(AT, COMMIT, vec![saw(writing()), saw(written)]).await.unwrap();
        let records = || live.ledger.with(|history| history.seq);
        let before = records();
        live.published(&name(), &attempt(), &names(&["token"])).await.unwrap();
        live.published(&name(), &attempt(), &names(&["token"])).await.unwrap();
        assert_eq!(records(), before + 1);
        let known = || live.ledger.with(|history| history.machines[&name()].published.clone());
        live.values_lost(&name(), &attempt(), &names(&["token", "other"])).await.unwrap();
        live.values_lost(&name(), &attempt(), &names(&["token"])).await.unwrap();
        assert_eq!((records(), known().values().all(|said| said.lost.is_some())), (before + 2, true));
        live.published(&name(), &attempt(), &names(&["token"])).await.unwrap();
        assert!(known().values().all(|said| said.lost.is_none() && said.seq == before + 3));
        let other = AttemptId { number: 7, ..attempt() };
        assert!(matches!(live.published(&name(), &other, &names(&["token"])).await, Err(WitnessError::NotOpen { .. })));
    }

    #[tokio::test]
    async fn no_leave_to_write_before_a_plan_under_the_commit_in_force_wants_it() {
        let live = with(Vec::new()).await;
        let refused = || async { matches!(live.saw(&attempt(), writing()).await, Err(WitnessError::NotNow { .. })) };
        live.ledger.adopt(id(2), Vec::new()).await.unwrap();
        assert!(refused().await);
        // A plan that was made before.
        live.ledger.want(COMMIT, [attempt()].into());
        assert!(refused().await);
        live.ledger.want(id(2), BTreeSet::new());
        assert!(refused().await);
        live.ledger.want(id(2), [attempt()].into());
        live.saw(&attempt(), writing()).await.unwrap();
        // What was given once is given again.
        live.ledger.adopt(id(3), Vec::new()).await.unwrap();
        live.saw(&attempt(), writing()).await.unwrap();
    }

    /// The turn that looks at the brake may be seconds away; the agent asks now.
    #[tokio::test]
    async fn no_leave_to_write_after_the_brake_has_moved() {
        let (journal, lever) = (Arc::new(SqliteJournal::in_memory().unwrap()), Arc::new(Lever::default()));
        let live = Live::open(journal, lever.clone(), Arc::new(Stands::default()), LIMIT).await.unwrap();
        live.ledger.adopt(COMMIT, Vec::new()).await.unwrap();
        live.ledger.append(AT, COMMIT, vec![claimed(), began()]).await.unwrap();
        live.ledger.want(COMMIT, [attempt()].into());
        let refused = || async { matches!(live.saw(&attempt(), writing()).await, Err(WitnessError::NotNow { .. })) };
        assert!(refused().await, "no plan has looked at the brake yet");
        live.brake().planned_under(Brake::default());
        lever.pull();
        assert!(refused().await);
        lever.release();
        live.saw(&attempt(), writing()).await.unwrap();
        // What was given once is given again: an image write in progress finishes.
        lever.pull();
        live.saw(&attempt(), writing()).await.unwrap();
    }
}
