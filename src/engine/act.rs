//! Executes steps. A step carries all it needs; nothing is decided here.
//!
//! Steps that change only what we know become facts in one transaction. Steps that touch hardware run in one task for each
//! machine: the intention is in the journal before the first byte leaves, the outcome after.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{Decided, Live, Ports, source::chain};
use crate::{
    model::{
        Action, Basis, BmcTarget, Evidence, Fact, Fleet, Generation, MachineName, MachinePlan, Outcome, Plan, Reason, RetryClass, Rung,
        Step, Unknown,
    },
    plan,
    ports::{BmcError, JournalError, PowerCommand},
};

/// The facts that a step is, if it changes only what we know.
pub fn facts_of(step: &Step, fleet: &Fleet) -> Option<Vec<Fact>> {
    let machine = step.machine.clone();
    let facts = match &step.action {
        Action::Claim { installed } => {
            let hardware = fleet.machines.get(&machine).map(|machine| plan::hardware(machine)).unwrap_or_default();
            let basis = installed.and_then(|installed| basis(fleet, &machine, installed));
            let claimed = Fact::Claimed { hardware, machine: machine.clone(), installed: *installed, basis };
            // What the journal has under this name is another machine's.
            let former = (step.reason == Reason::Replaced).then_some(Fact::Released { machine });
            former.into_iter().chain([claimed]).collect()
        }
        Action::Release => vec![Fact::Released { machine }],
        Action::NoteHardware { hardware } => vec![Fact::HardwareChanged { machine, hardware: hardware.clone() }],
        Action::NoteConfiguration { installed, basis, deferred } => {
            vec![Fact::ConfigurationNoted { machine, installed: *installed, basis: *basis, deferred: *deferred }]
        }
        Action::Rename { from } => vec![Fact::Renamed { from: from.clone(), to: machine }],
        Action::BeginAttempt { attempt, generation } => {
            vec![Fact::Began { attempt: attempt.clone(), generation: *generation, basis: basis(fleet, &machine, *generation) }]
        }
        Action::Witness { attempt, rung } => vec![Fact::Saw { attempt: attempt.clone(), evidence: bare(*rung)? }],
        Action::EndAttempt { attempt, end } => vec![Fact::Concluded { attempt: attempt.clone(), end: end.clone() }],
        Action::PowerOn | Action::PowerOff { .. } | Action::BootFromNetwork { .. } | Action::ClearBootOverride => return None,
    };
    Some(facts)
}

/// What of a generation is not configuration, where the fleet says what is in it.
fn basis(fleet: &Fleet, machine: &MachineName, generation: Generation) -> Option<Basis> {
    let install = fleet.machines.get(machine)?.install.as_ref()?;
    (install.generation == generation).then(|| install.basis())
}

/// The evidence of a rung that has no content. Rungs with content come from the boot server, never from a plan.
fn bare(rung: Rung) -> Option<Evidence> {
    match rung {
        Rung::TicketArmed => Some(Evidence::TicketArmed),
        Rung::BootSet => Some(Evidence::BootSet),
        Rung::PowerSeen => Some(Evidence::PowerSeen),
        Rung::DhcpSeen => Some(Evidence::DhcpSeen),
        Rung::LoaderFetched => Some(Evidence::LoaderFetched),
        Rung::BootedFromDisk => Some(Evidence::BootedFromDisk),
        Rung::Healthy => Some(Evidence::Healthy),
        Rung::AgentUp | Rung::Writing | Rung::Written | Rung::CalledHome => None,
    }
}

/// Tasks that touch hardware: at most one for each machine.
pub struct Actors {
    live: Arc<Live>,
    ports: Ports,
    limit: Arc<Semaphore>,
    busy: Arc<Mutex<BTreeMap<MachineName, ()>>>,
    tasks: JoinSet<MachineName>,
    told: Vec<MachineName>,
    stopping: Arc<AtomicBool>,
}

impl Actors {
    pub(super) fn new(live: Arc<Live>, ports: Ports, concurrency: usize) -> Self {
        Self {
            live,
            ports,
            limit: Arc::new(Semaphore::new(concurrency.max(1))),
            busy: Arc::default(),
            tasks: JoinSet::new(),
            told: Vec::new(),
            stopping: Arc::default(),
        }
    }

    /// Executes what a plan allows. True when facts were written, so that the next turn should follow at once.
    ///
    /// The plan was made on the journal up to record `since`. For a machine of which something newer is known (its agent may just
    /// have been allowed to write) nothing is done; the next turn decides anew. While the journal can't be written, and once the local brake has moved, nothing is tried.
    pub(super) async fn start(&mut self, plan: &Plan, since: u64, fleet: &Fleet) -> Result<bool, JournalError> {
        if self.live.ledger.trouble().is_some() || self.live.brake().has_moved() {
            return Ok(false);
        }
        let decided = Decided { commit: plan.commit.id, since };
        let mut facts = Vec::new();
        let mut orders = Vec::new();
        for machine in plan.machines.values() {
            let others = machine.steps.iter().filter_map(|step| match &step.action {
                Action::Rename { from } => Some(from),
                _ => None,
            });
            if others.chain([&machine.name]).any(|name| self.is_busy(name)) {
                continue;
            }
            let known: Vec<Fact> = machine.steps.iter().map_while(|step| facts_of(step, fleet)).flatten().collect();
            if known.is_empty() { orders.push(machine) } else { facts.extend(known) }
        }
        let wrote = self.live.ledger.append_decided(self.live.now(), decided, facts).await?;
        self.told.extend(wrote.iter().map(|record| record.fact.machine().clone()));
        for machine in orders {
            if let Some(step) = machine.steps.first() {
                self.spawn(machine, step, decided, fleet);
            }
        }
        Ok(!wrote.is_empty())
    }

    /// Machines whose task ended, or of which something was written down, since the last call. What was seen of them before is
    /// too old to decide the next step by.
    pub(super) fn touched(&mut self) -> Vec<MachineName> {
        let told = std::mem::take(&mut self.told);
        told.into_iter().chain(std::iter::from_fn(|| self.tasks.try_join_next()).filter_map(Result::ok)).collect()
    }

    pub(super) fn is_busy(&self, machine: &MachineName) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).contains_key(machine)
    }

    /// Starts no further step, and waits for the orders that are on their way.
    pub(super) async fn stop(&mut self, patience: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("some BMCs did not answer before the end; what became of the orders is seen at the next start");
        }
        self.tasks.abort_all();
    }

    /// Starts a step at once or not at all: an order that waited for its turn would be given on what was known before the wait. When
    /// all places are taken, the end of any task makes the engine turn and decide anew.
    fn spawn(&mut self, machine: &MachinePlan, step: &Step, decided: Decided, fleet: &Fleet) {
        let Some(target) = fleet.machines.get(&machine.name).map(|machine| machine.bmc.clone()) else { return };
        let Ok(permit) = self.limit.clone().try_acquire_owned() else { return };
        let (name, step) = (machine.name.clone(), step.clone());
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), ());
        let (live, ports, busy, stopping) = (self.live.clone(), self.ports.clone(), self.busy.clone(), self.stopping.clone());
        self.tasks.spawn(async move {
            if !stopping.load(Ordering::Relaxed) {
                execute(&live, &ports, decided, &target, step).await;
            }
            drop(permit);
            busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            live.wake.notify_one();
            name
        });
    }
}

/// Journals the intention, gives the order, journals the outcome.
async fn execute(live: &Live, ports: &Ports, decided: Decided, target: &BmcTarget, step: Step) {
    let machine = step.machine.clone();
    if live.brake().has_moved() {
        return;
    }
    let intended = live.ledger.append_decided(live.now(), decided, vec![Fact::Intended { step: step.clone() }]).await;
    let intention = match intended.map(|records| records.last().map(|record| record.seq)) {
        Ok(Some(seq)) => seq,
        // Something newer is known of the machine, or another commit is in force.
        Ok(None) => return,
        Err(error) => {
            // What can't be written down is not done.
            tracing::error!(%machine, step = %step.action, error = &error as &dyn std::error::Error, "journal can't be written");
            return;
        }
    };
    tracing::info!(%machine, step = %step.action, reason = %step.reason, "step");
    let limit = live.order_limit;
    let outcome = match tokio::time::timeout(limit, order(ports, target, &step)).await {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => outcome_of(&error),
        Err(_) => Outcome::Failed { why: format!("{} did not answer within {limit:?}", target.address), class: RetryClass::Wait },
    };
    if outcome != Outcome::Done {
        tracing::warn!(%machine, step = %step.action, ?outcome, "step did not succeed");
    }
    let done = outcome == Outcome::Done;
    let mut facts = vec![Fact::Ended { machine: machine.clone(), intention, outcome }];
    if let (true, Action::BootFromNetwork { .. }) = (done, &step.action) {
        facts.extend(boot_set(live, &machine));
    }
    if let Err(error) = live.ledger.append(live.now(), decided.commit, facts).await {
        tracing::error!(%machine, error = &error as &dyn std::error::Error, "outcome can't be written to the journal");
    }
}

/// The boot override was read back by the BMC client, so the rung is reached.
fn boot_set(live: &Live, machine: &MachineName) -> Option<Fact> {
    live.ledger.with(|history| {
        let open = history.machines.get(machine)?.open_attempt()?;
        let new = open.reached(Rung::BootSet).is_none();
        new.then(|| Fact::Saw { attempt: open.id.clone(), evidence: Evidence::BootSet })
    })
}

async fn order(ports: &Ports, target: &BmcTarget, step: &Step) -> Result<(), BmcError> {
    match &step.action {
        Action::PowerOn => ports.bmc.power(target, PowerCommand::On).await,
        Action::PowerOff { force: true } => ports.bmc.power(target, PowerCommand::ForceOff).await,
        Action::PowerOff { force: false } => ports.bmc.power(target, PowerCommand::GracefulOff).await,
        Action::BootFromNetwork { mode } => ports.bmc.boot_from_network(target, *mode).await,
        Action::ClearBootOverride => ports.bmc.clear_boot_override(target).await,
        Action::Claim { .. }
        | Action::Release
        | Action::Rename { .. }
        | Action::NoteHardware { .. }
        | Action::NoteConfiguration { .. }
        | Action::BeginAttempt { .. }
        | Action::Witness { .. }
        | Action::EndAttempt { .. } => Ok(()),
    }
}

fn outcome_of(error: &BmcError) -> Outcome {
    let why = chain(error);
    match error.class {
        RetryClass::Stalled => Outcome::Blocked { why, hint: hint_of(&error.unknown).to_owned() },
        class => Outcome::Failed { why, class },
    }
}

fn hint_of(unknown: &Unknown) -> &'static str {
    match unknown {
        Unknown::Unauthorized(_) => "check the secret that spec.bmc.credentials names",
        Unknown::CertificateChanged(_) => "if the BMC's certificate was replaced on purpose, commit its new spec.bmc.fingerprint",
        _ => "look at the BMC by hand; the controller's log has the details",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        engine::support_tests::{self as testing, AT, Full, Slow, attempt, began, claimed, id, name, until},
        manifest,
        model::{Brake, Commit, CommitId, FileEntry, FileKind, Files, History, Record, Timestamp},
        ports::Journal,
    };

    /// What a machine that was left off is told under `commit`.
    fn switch_on(commit: u8) -> Plan {
        let step = Step { machine: name(), action: Action::PowerOn, reason: Reason::PartOf { attempt: attempt() } };
        let part = MachinePlan {
            name: name(),
            group: None,
            source: String::new(),
            drift: Vec::new(),
            steps: vec![step],
            held: Vec::new(),
            waiting: None,
            attempt: None,
            desired: None,
            installed: None,
            next_install: false,
            ticket: None,
            reimage: None,
        };
        let machines = [(name(), part)].into();
        Plan {
            commit: testing::commit(commit),
            at: AT,
            machines,
            problems: Vec::new(),
            groups: Vec::new(),
            domains: Vec::new(),
            estimate: None,
        }
    }

    async fn actors(journal: Arc<dyn Journal>, bmc: &Arc<Slow>, limit: Duration) -> Actors {
        let ports = Ports { bmc: bmc.clone(), ..testing::ports() };
        let live = Live::open(journal, Arc::new(testing::Lever::default()), ports.clock.clone(), limit).await.unwrap();
        live.ledger.adopt(id(1), Vec::new()).await.unwrap();
        live.brake().planned_under(Brake::default());
        Actors::new(live, ports, 1)
    }

    #[tokio::test]
    async fn a_step_of_a_commit_that_is_superseded_does_not_reach_the_bmc() {
        let bmc = Arc::new(Slow::default());
        let mut actors = actors(Full::new(), &bmc, testing::LIMIT).await;
        let (plan, fleet) = (switch_on(1), testing::fleet(1));
        actors.start(&plan, 0, &fleet).await.unwrap();
        // The step's task did not run yet.
        actors.live.ledger.adopt(id(2), Vec::new()).await.unwrap();
        until(|| !actors.is_busy(&name())).await;
        assert_eq!(*bmc.orders.lock().unwrap(), []);
        assert_eq!(actors.live.ledger.with(|history| history.seq), 0, "nothing was intended");

        actors.start(&switch_on(2), 0, &fleet).await.unwrap();
        until(|| !actors.is_busy(&name())).await;
        assert_eq!(*bmc.orders.lock().unwrap(), [PowerCommand::On]);
    }

    #[tokio::test]
    async fn once_the_brake_has_moved_nothing_is_begun_and_no_order_is_given() {
        let (lever, bmc) = (Arc::new(testing::Lever::default()), Arc::new(Slow::default()));
        let ports = Ports { bmc: bmc.clone(), ..testing::ports() };
        let live = Live::open(Full::new(), lever.clone(), ports.clock.clone(), testing::LIMIT).await.unwrap();
        live.ledger.adopt(id(1), Vec::new()).await.unwrap();
        live.brake().planned_under(Brake::default());
        let mut actors = Actors::new(live, ports, 1);
        let (plan, fleet) = (switch_on(1), testing::fleet(1));
        actors.start(&plan, 0, &fleet).await.unwrap();
        // The step's task did not run yet.
        lever.pull();
        until(|| !actors.is_busy(&name())).await;
        let mut claim = plan.clone();
        let step = Step { machine: name(), action: Action::Claim { installed: None }, reason: Reason::NewMachine };
        claim.machines.get_mut(&name()).unwrap().steps = vec![step];
        assert!(!actors.start(&claim, 0, &fleet).await.unwrap());
        assert_eq!(*bmc.orders.lock().unwrap(), []);
        assert_eq!(actors.live.ledger.with(|history| history.seq), 0, "nothing was written down");

        lever.release();
        actors.start(&plan, 0, &fleet).await.unwrap();
        until(|| !actors.is_busy(&name())).await;
        assert_eq!(*bmc.orders.lock().unwrap(), [PowerCommand::On]);
    }

    /// Each end of a task wakes the engine: without a pause it would turn and try for ever.
    #[tokio::test]
    async fn while_the_journal_cannot_be_written_nothing_is_tried() {
        let (journal, bmc) = (Full::new(), Arc::new(Slow::default()));
        let mut actors = actors(journal.clone(), &bmc, testing::LIMIT).await;
        journal.refuses.store(true, Ordering::SeqCst);
        let tries = |counted: &AtomicUsize| counted.load(Ordering::SeqCst);
        let before = tries(&journal.tries);
        for _ in 0..20 {
            actors.live.ledger.try_again().await;
            actors.start(&switch_on(1), 0, &testing::fleet(1)).await.unwrap();
            until(|| !actors.is_busy(&name())).await;
        }
        assert_eq!(tries(&journal.tries), before + 1);
        assert_eq!(*bmc.orders.lock().unwrap(), []);

        journal.refuses.store(false, Ordering::SeqCst);
        actors.live.ledger.put("any", "other write shows that it works again").await.unwrap();
        actors.start(&switch_on(1), 0, &testing::fleet(1)).await.unwrap();
        until(|| !actors.is_busy(&name())).await;
        assert_eq!(*bmc.orders.lock().unwrap(), [PowerCommand::On]);
    }

    #[tokio::test]
    async fn an_order_without_an_answer_ends_at_the_limit_and_its_effect_is_unsure() {
        let bmc = Arc::new(Slow { answers: Some(Semaphore::new(0)), ..Slow::default() });
        let mut actors = actors(Full::new(), &bmc, Duration::from_millis(5)).await;
        actors.live.ledger.append(AT, id(1), vec![claimed(), began()]).await.unwrap();
        actors.start(&switch_on(1), 2, &testing::fleet(1)).await.unwrap();
        until(|| !actors.is_busy(&name())).await;
        actors.live.ledger.with(|history| {
            let machine = &history.machines[&name()];
            let (_, _, outcome) = machine.last.as_ref().unwrap();
            assert_eq!(*outcome, Outcome::Failed { why: "https://10.0.0.1 did not answer within 5ms".to_owned(), class: RetryClass::Wait });
            assert_eq!(machine.unsure_power().count(), 1);
        });
    }

    fn fleet(machine: &str) -> Fleet {
        let text = format!(
            "apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata: {{name: {machine}}}\nspec:\n  \
             identity: {{serial: \" CZ-12ab \"}}\n  bmc: {{address: \"https://10.0.0.1\", insecure: true}}\n  onClaim: Install\n"
        );
        let entry = FileEntry { id: [1; 20], kind: FileKind::Regular, bytes: text.into_bytes().into() };
        let files: Files = [("machines/one.yaml".to_owned(), entry)].into();
        let loaded = manifest::load(&files, &mut manifest::Cache::default());
        assert!(loaded.is_usable(), "{:?}", loaded.problems);
        loaded.fleet
    }

    #[test]
    fn what_is_claimed_is_found_again_under_another_name() {
        let before = fleet("web-01");
        let claim = Step { machine: "web-01".parse().unwrap(), action: Action::Claim { installed: None }, reason: Reason::NewMachine };
        let at = Timestamp::UNIX_EPOCH;
        let id = CommitId([1; 20]);
        let records = facts_of(&claim, &before).unwrap().into_iter().map(|fact| Record { seq: 1, at, commit: id, fact });
        let history = History::of(&records.collect::<Vec<_>>());

        let after = fleet("web-one");
        let commit = Commit { id, subject: String::new(), author: String::new(), time: at, approvals: Vec::new() };
        let (seen, alive) = (BTreeMap::new(), BTreeMap::new());
        let plan = plan::plan(&plan::Input {
            commit: &commit,
            fleet: &after,
            problems: &[],
            seen: &seen,
            history: &history,
            former: Some(&before),
            alive: &alive,
            probes: &BTreeMap::new(),
            brake: &Brake::default(),
            deadlines: plan::Deadlines::default(),
            now: at,
        });
        let steps: Vec<_> = plan.steps().map(|step| step.action.clone()).collect();
        assert_eq!(steps, [Action::Rename { from: "web-01".parse().unwrap() }]);
    }
}
