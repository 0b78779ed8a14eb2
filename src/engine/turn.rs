//! One turn, again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Config, Live, Ports, View,
    act::Actors,
    gatekeeper::Gatekeeper,
    note,
    noter::Noter,
    observe::Observers,
    origin::Origin,
    report::{self, Report},
    source::{Change, Follower, InForce},
    table,
};
use crate::{
    model::{Action, AttemptId, Brake, Held, History, MachinePlan, Plan, Progress, RetryClass, Risk, Status, Timestamp},
    plan::{self, Input, Violation},
    ports::JournalError,
};

/// Longest time between two turns. A turn follows sooner when something was seen, or when a wait is over.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Shortest time between two turns that nothing asked for twice: a thousand observers that report at once make one turn.
const GATHER: Duration = Duration::from_millis(20);

/// Shortest time until a turn that only time asks for: a wait that is over and leads to nothing must not spin.
const SHORTEST: Duration = Duration::from_millis(100);

/// How long orders and notes that are on their way get at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The loop.
pub struct Engine {
    config: Config,
    live: Arc<Live>,
    ports: Ports,
    follower: Follower,
    observers: Observers,
    gatekeeper: Gatekeeper,
    actors: Actors,
    origin: Origin,
    noter: Option<Noter>,
}

impl Engine {
    /// Goes back to where the journal says things are. Nothing is done yet.
    pub async fn start(config: Config, live: Arc<Live>, ports: Ports) -> Self {
        let origin = Origin::find(&live, &ports).await;
        let follower = Follower::start(live.clone(), &ports).await;
        let observers = Observers::new(live.clone(), ports.bmc.clone(), ports.clock.clone(), config.pace);
        let gatekeeper = Gatekeeper::new(live.clone(), ports.probe.clone(), ports.clock.clone(), config.pace);
        let actors = Actors::new(live.clone(), ports.clone(), config.pace.bmc_concurrency);
        live.begin();
        Self { config, live, ports, follower, observers, gatekeeper, actors, origin, noter: None }
    }

    /// Turns until `stop`, then ends in order: no new step, orders on their way are waited for, notes are pushed, sessions closed.
    pub async fn run(mut self, stop: CancellationToken) {
        let live = self.live.clone();
        let _clock = AbortOnDropHandle::new(tokio::spawn(async move { live.watch_clock().await }));
        while !stop.is_cancelled() {
            let again = self.turn().await;
            if again {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.rest()) => {}
                () = self.live.wake.notified() => tokio::time::sleep(GATHER).await,
                () = self.live.brake().moved() => {}
            }
        }
        self.actors.stop(PATIENCE).await;
        if let Some(noter) = self.noter.take() {
            noter.stop(PATIENCE).await;
        }
        // An observer that went on would log in again.
        drop(self.observers);
        if tokio::time::timeout(PATIENCE, self.ports.bmc.close()).await.is_err() {
            tracing::warn!("some BMC sessions could not be closed; they end by the BMC's own timeout");
        }
    }

    /// Until the first wait of the last plan is over, or the next heartbeat.
    fn rest(&self) -> Duration {
        let view = self.live.view.borrow();
        let waits = view.iter().flat_map(|view| view.plan.machines.values()).filter_map(|machine| machine.waiting.as_ref()?.until);
        let due = waits.min().map(|until| until.duration_since(self.live.now()));
        due.map_or(HEARTBEAT, |due| Duration::try_from(due).unwrap_or_default().clamp(SHORTEST, HEARTBEAT))
    }

    /// One turn. True when the next should follow at once.
    async fn turn(&mut self) -> bool {
        let now = self.live.now();
        self.live.ledger.try_again().await;
        let settled = self.origin.is_settled(&self.live).await;
        if let (None, true, Some(notes)) = (&self.noter, settled, &self.ports.notes) {
            let every = Duration::from_secs_f64(self.config.pace.notes_seconds.clamp(0.0, 3600.0));
            self.noter = Some(Noter::start(self.config.site.clone(), self.live.clone(), notes.clone(), every, now));
        }
        let change = self.follower.take().await;
        self.owe_notes(&change, now);
        let Some(force) = self.follower.in_force().cloned() else { return false };
        self.observers.follow(&force.fleet);
        self.gatekeeper.follow(&force.fleet);

        let brake = self.live.brake().position();
        let (plan, since) = self.plan(&force, &brake, now);
        let plan = Arc::new(plan);
        self.live.ledger.want(plan.commit.id, wanted(&plan));
        // After that: whoever asks for leave in between is told to ask again.
        self.live.brake().planned_under(brake.clone());
        if let Some(boot) = &self.ports.boot {
            let table = self.live.ledger.with(|history| table::boot_table(&force.fleet, &plan, history));
            boot.publish(Arc::new(table)).await;
        }
        let wrote = match self.act(&plan, since, &force).await {
            Ok(wrote) => wrote,
            Err(error) => {
                let again = if error.class == RetryClass::Wait { "trying again" } else { "nothing is done until that is mended" };
                tracing::error!(error = &error as &dyn std::error::Error, again, "the journal can't be written");
                false
            }
        };
        let status = Arc::new(self.report(&plan, &force, brake));
        if let (Some(noter), false) = (&mut self.noter, wrote) {
            noter.status(&status);
        }
        self.live.view.send_replace(Some(View { plan, status }));
        wrote
    }

    /// The plan, and the number of the last record that it rests on.
    fn plan(&self, force: &InForce, brake: &Brake, now: Timestamp) -> (Plan, u64) {
        let seen = self.live.seen.read();
        let (progress, probes) = (self.live.progress_now(), self.live.probes.now());
        self.live.ledger.with(|history| {
            let alive = signs_of_life(history, &progress, self.live.since());
            let input = Input {
                commit: &force.commit,
                fleet: &force.fleet,
                problems: &force.warnings,
                seen: &seen,
                history,
                alive: &alive,
                probes: &probes,
                former: force.former.as_deref(),
                brake,
                deadlines: self.config.deadlines,
                now,
            };
            let mut plan = plan::plan(&input);
            let violations = plan::check(&plan, &input);
            for violation in &violations {
                tracing::error!(%violation, "the plan breaks the law and is not executed");
            }
            keep_lawful(&mut plan, &violations);
            (plan, history.seq)
        })
    }

    async fn act(&mut self, plan: &Plan, since: u64, force: &InForce) -> Result<bool, JournalError> {
        let wrote = self.actors.start(plan, since, &force.fleet).await?;
        for machine in self.actors.touched() {
            self.observers.poke(&machine);
        }
        let working = |name: &_| {
            let planned = plan.machines.get(name);
            self.actors.is_busy(name) || planned.is_some_and(|machine| machine.waiting.is_some() || machine.ticket.is_some())
        };
        self.observers.attend(working);
        self.live.ledger.with(|history| {
            let open = |attempt: &AttemptId| {
                let machine = history.machines.get(&attempt.machine);
                machine.and_then(|machine| machine.open_attempt()).is_some_and(|open| open.id == *attempt)
            };
            self.live.forget_progress(open);
        });
        Ok(wrote)
    }

    fn report(&self, plan: &Plan, force: &InForce, brake: Brake) -> Status {
        let progress = self.live.progress_now();
        let seen = self.live.seen.read();
        self.live.ledger.with(|history| {
            report::status(Report {
                site: &self.config.site,
                plan,
                brake,
                fleet: &force.fleet,
                history,
                seen: &seen,
                progress: &progress,
                source_problem: self.follower.trouble(),
                journal_problem: self.live.ledger.trouble(),
                notes_problem: self.noter.as_ref().and_then(Noter::trouble),
                problems: self.follower.rejected().to_vec(),
            })
        })
    }

    /// Each commit gets a last word.
    fn owe_notes(&mut self, change: &Change, now: Timestamp) {
        let Some(noter) = &mut self.noter else { return };
        if let Some(trouble) = noter.trouble() {
            tracing::debug!(trouble, "notes are waiting");
        }
        match change {
            Change::None => {}
            Change::Rejected(rejected) => {
                let in_force = self.follower.in_force().map(|force| force.commit.id);
                noter.send(rejected.commit.id, note::rejected(&self.config.site, &rejected.problems, in_force, now));
            }
            Change::Refused(refusal) => {
                let in_force = self.follower.in_force().map(|force| force.commit.id);
                for commit in std::collections::BTreeSet::from([refusal.verdict.id, refusal.tip]) {
                    noter.send(commit, note::refused(&self.config.site, refusal, in_force, now));
                }
            }
            Change::Adopted { before, skipped } => {
                if let Some(force) = self.follower.in_force() {
                    noter.superseded(*before, skipped, force.commit.id, now);
                }
            }
        }
    }
}

/// When each open attempt was last heard of. The time for which the controller was down does not count as an agent's silence.
fn signs_of_life(
    history: &History,
    progress: &BTreeMap<AttemptId, (Timestamp, Progress)>,
    started: Timestamp,
) -> BTreeMap<AttemptId, Timestamp> {
    let open = history.machines.values().filter_map(|machine| machine.open_attempt());
    open.map(|attempt| (attempt.id.clone(), progress.get(&attempt.id).map_or(started, |(at, _)| (*at).max(started)))).collect()
}

/// Attempts that a plan lets go on.
fn wanted(plan: &Plan) -> BTreeSet<AttemptId> {
    let goes_on = |machine: &&MachinePlan| !machine.steps.iter().any(|step| matches!(step.action, Action::EndAttempt { .. }));
    let tickets = plan.machines.values().filter(goes_on).filter_map(|machine| machine.ticket.as_ref());
    tickets.map(|ticket| ticket.attempt.clone()).collect()
}

/// Takes out of a plan what may break the law, and says so. A machine that a violation names gets no step at all, and no ticket if that
/// is what is wrong. No other machine is taken away; what is on its way may come up again.
fn keep_lawful(plan: &mut Plan, violations: &[Violation]) {
    let Some(first) = violations.first() else { return };
    let held = |violation: &Violation| Held::Unlawful { law: violation.law, what: violation.what.clone() };
    for machine in plan.machines.values_mut() {
        let steps = machine.steps.len();
        machine.steps.retain(|step| step.risk() < Risk::Disruptive);
        if machine.steps.len() < steps && !violations.iter().any(|violation| violation.machine.as_ref() == Some(&machine.name)) {
            machine.held.push(held(violations.iter().find(|violation| violation.machine.is_none()).unwrap_or(first)));
        }
    }
    for violation in violations {
        let Some(machine) = violation.machine.as_ref().and_then(|name| plan.machines.get_mut(name)) else { continue };
        machine.steps.clear();
        machine.held.push(held(violation));
        // Laws 6 and 9 are about tickets; another violation must not stop an agent that writes.
        if matches!(violation.law, 6 | 9) {
            machine.ticket = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::support_tests as testing;
    use crate::model::{AttemptEnd, Commit, CommitId, Reason, Step, Ticket};

    fn part(name: &str, actions: Vec<Action>) -> MachinePlan {
        let step = |action| Step { machine: name.parse().unwrap(), action, reason: Reason::LeftTheFleet };
        MachinePlan {
            name: name.parse().unwrap(),
            group: None,
            source: String::new(),
            drift: Vec::new(),
            steps: actions.into_iter().map(step).collect(),
            held: Vec::new(),
            waiting: None,
            attempt: None,
            desired: None,
            installed: None,
            next_install: false,
            ticket: None,
            reimage: None,
        }
    }

    #[test]
    fn of_an_unlawful_plan_nothing_is_left_that_takes_a_machine_away() {
        let begin = |name: &str| Action::BeginAttempt {
            attempt: AttemptId { machine: name.parse().unwrap(), number: 1 },
            generation: "g1:e575e3261827e70cfb57f66e30185a81".parse().unwrap(),
        };
        let parts = [
            part("on", vec![Action::PowerOn]),
            part("released-wrongly", vec![Action::Release]),
            part("released", vec![Action::Release]),
            part("off", vec![Action::PowerOff { force: true }]),
            part("begun", vec![begin("begun")]),
        ];
        let commit = Commit {
            id: CommitId([0; 20]),
            subject: String::new(),
            author: String::new(),
            time: Timestamp::UNIX_EPOCH,
            approvals: Vec::new(),
        };
        let mut plan = Plan {
            commit,
            at: Timestamp::UNIX_EPOCH,
            machines: parts.into_iter().map(|part| (part.name.clone(), part)).collect(),
            problems: Vec::new(),
            groups: Default::default(),
            domains: Default::default(),
            estimate: None,
        };
        let whole = plan.clone();
        keep_lawful(&mut plan, &[]);
        assert_eq!(plan, whole);
        let machine = Some("released-wrongly".parse().unwrap());
        keep_lawful(&mut plan, &[Violation { machine, law: 3, what: String::new() }]);
        let left: Vec<_> = plan.steps().map(|step| step.machine.as_str()).collect();
        assert_eq!(left, ["on", "released"]);
        let told = |name: &str| plan.machines[&name.parse::<crate::model::MachineName>().unwrap()].held.len();
        assert_eq!(["on", "released-wrongly", "released", "off", "begun"].map(told), [0, 1, 0, 1, 1], "and it is said");
    }

    #[test]
    fn an_attempt_that_the_plan_ends_does_not_go_on() {
        let install = testing::fleet(1).machines[&testing::name()].install.clone().unwrap();
        let ticket = |name: &str| Ticket {
            attempt: AttemptId { machine: name.parse().unwrap(), number: 1 },
            commit: testing::id(1),
            expires: Timestamp::MAX,
            mac: "52:54:00:00:00:01".parse().unwrap(),
            serial: None,
            uuid: None,
            keep: Vec::new(),
            work: crate::model::Work::Install { install: Box::new(install.clone()), system: Default::default() },
            evidence: Vec::new(),
        };
        let with = |name: &str, actions| MachinePlan { ticket: Some(Box::new(ticket(name))), ..part(name, actions) };
        let end = Action::EndAttempt { attempt: ticket("ends").attempt, end: AttemptEnd::Superseded };
        let parts = [with("goes-on", vec![Action::PowerOn]), with("ends", vec![end]), part("rests", Vec::new())];
        let machines = parts.into_iter().map(|part| (part.name.clone(), part)).collect();
        let plan = Plan {
            commit: testing::commit(1),
            at: Timestamp::MIN,
            machines,
            problems: Vec::new(),
            groups: Vec::new(),
            domains: Vec::new(),
            estimate: None,
        };
        assert_eq!(wanted(&plan), [ticket("goes-on").attempt].into());
    }

    /// A note of this journal would later be taken for one from before it.
    #[tokio::test]
    async fn no_note_is_written_until_it_is_known_whether_the_journal_is_the_first() {
        let live = testing::empty().await;
        let notes = Arc::new(testing::Kept::default());
        let source = testing::Commits::new(Some(1), &[]);
        let ports = Ports { source, notes: Some(notes.clone()), ..testing::ports() };
        let pace = crate::engine::Pace { notes_seconds: 0.0, ..Default::default() };
        let config = Config { site: "lab".parse().unwrap(), pace, deadlines: Default::default() };
        let mut engine = Engine::start(config, live.clone(), ports).await;
        while live.view().borrow().is_none() {
            engine.turn().await;
            tokio::task::yield_now().await;
        }
        assert!(engine.noter.is_none() && live.ledger.with(|history| history.lost));

        *notes.remote.lock().unwrap() = Some(false);
        while notes.written.lock().unwrap().is_empty() {
            engine.turn().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(live.ledger.with(|history| !history.lost));
        assert!(notes.written.lock().unwrap()[&testing::id(1)].contains("Rackwright-Site: lab"));
    }
}
