//! The status of a turn: a pure function of the plan, what was seen, and how far agents are. Worst wins.

use std::collections::BTreeMap;

use crate::model::{
    AttemptId, Brake, DriftPolicy, Evidence, Fleet, Held, History, Machine, MachineName, MachinePlan, MachineStatus, Observation, Plan,
    PowerIntent, PowerState, Problem, Progress, Risk, Rung, SiteName, State, Status, Step, Timestamp, Unknown,
};
use crate::plan::NEXT_INSTALL;

/// What a status is made from.
pub struct Report<'a> {
    /// The controller's site.
    pub site: &'a SiteName,
    /// The plan that was executed.
    pub plan: &'a Plan,
    /// Where the local brake was for it.
    pub brake: Brake,
    /// The fleet in force.
    pub fleet: &'a Fleet,
    /// What the journal says.
    pub history: &'a History,
    /// What was last seen.
    pub seen: &'a BTreeMap<MachineName, Observation>,
    /// How far agents are.
    pub progress: &'a BTreeMap<AttemptId, (Timestamp, Progress)>,
    /// Why a newer commit is not in force.
    pub source_problem: Option<String>,
    /// Why the journal can't be written.
    pub journal_problem: Option<String>,
    /// Why notes can't be pushed.
    pub notes_problem: Option<String>,
    /// What is wrong in the newest commit.
    pub problems: Vec<Problem>,
}

/// The status.
pub fn status(report: Report) -> Status {
    let named = report.plan.machines.values().filter_map(|plan| Some((report.fleet.machines.get(&plan.name)?, plan)));
    let machines: BTreeMap<_, _> = named.map(|(machine, plan)| (machine.name.clone(), machine_status(&report, machine, plan))).collect();
    let worst = machines.values().map(|machine| machine.state).max().unwrap_or(State::Ready);
    let ready = machines.values().filter(|machine| machine.state == State::Ready).count() as u32;
    Status {
        site: report.site.clone(),
        commit: report.plan.commit.clone(),
        at: report.plan.at,
        // A commit that can't be used and a journal that can't be written need a person, even if all machines are as declared.
        state: if report.source_problem.is_some() || report.journal_problem.is_some() || report.brake.unreadable.is_some() {
            State::Stalled
        } else {
            worst
        },
        ready,
        total: machines.len() as u32,
        machines,
        source_problem: report.source_problem,
        journal_problem: report.journal_problem,
        notes_problem: report.notes_problem,
        problems: report.problems,
        brake: report.brake,
    }
}

fn machine_status(report: &Report, machine: &Machine, plan: &MachinePlan) -> MachineStatus {
    let seen = report.seen.get(&machine.name);
    let known = report.history.machines.get(&machine.name);
    let open = known.and_then(|known| known.open_attempt());
    let (state, reason, message) = judge(report, machine, plan, seen);
    MachineStatus {
        state,
        reason: reason.to_owned(),
        message,
        group: plan.group.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string),
        power: seen.and_then(|seen| seen.power.known()).map_or_else(|| "unknown".to_owned(), ToString::to_string),
        image: machine.install.as_ref().map(|install| install.image.name.to_string()),
        generation: plan.installed,
        rung: open.and_then(|open| open.evidence.iter().map(|(_, evidence)| evidence.rung()).max()),
        progress: open.and_then(|open| report.progress.get(&open.id)).map(|(_, progress)| *progress),
        writes: known.map_or(0, |known| known.attempts.iter().filter(|attempt| attempt.wrote()).count() as u32),
    }
}

type Judgement = (State, &'static str, String);

/// The worst thing that can be said of a machine, and the first of its kind.
fn judge(report: &Report, machine: &Machine, plan: &MachinePlan, seen: Option<&Observation>) -> Judgement {
    let held = plan.held.iter().map(|held| judge_held(held, plan));
    let unseen = seen.and_then(|seen| seen.power.unknown()).and_then(judge_unseen);
    let drift = plan.drift.iter().filter_map(|drift| {
        let text = format!("{} is {}, declared {}", drift.field, drift.observed, drift.desired);
        match drift.class.map_or(DriftPolicy::Correct, |class| report.fleet.settings.drift.of(class)) {
            DriftPolicy::Observe => None,
            DriftPolicy::Alert => Some((State::Stalled, "Drift", text)),
            DriftPolicy::Correct => Some((State::Reconciling, "Drift", text)),
        }
    });
    let working = judge_work(report, plan).or_else(|| judge_transit(machine, seen));
    let later = plan.next_install.then(|| (State::Ready, "NextInstall", NEXT_INSTALL.to_owned()));
    let worst =
        held.chain(unseen).chain(working).chain(drift).chain(later).reduce(|worst, next| if next.0 > worst.0 { next } else { worst });
    worst.or_else(|| decommissioned(report, machine)).unwrap_or_else(|| {
        let reason = if machine.suspend { "Suspended" } else { "AsDeclared" };
        (State::Ready, reason, String::new())
    })
}

/// A machine that was wiped for good, with what proves it.
fn decommissioned(report: &Report, machine: &Machine) -> Option<Judgement> {
    let wipe = machine.decommission.as_ref()?;
    let (attempt, at, proof) = report.history.machines.get(&machine.name)?.wiped(wipe.generation)?;
    let proofs: Vec<String> = proof.iter().map(ToString::to_string).collect();
    let text = format!("decommissioned: wiped by {} ({}), proved at {at:.0}: {}", attempt.id, wipe.method, proofs.join("; "));
    Some((State::Ready, MachineStatus::DECOMMISSIONED, text))
}

fn judge_held(held: &Held, plan: &MachinePlan) -> Judgement {
    let (state, reason) = match held {
        Held::Suspended => (State::Ready, "Suspended"),
        // A machine that is as declared misses nothing.
        Held::OnHold { .. } if plan.drift.is_empty() && plan.waiting.is_none() && plan.reimage.is_none() => (State::Ready, "OnHold"),
        Held::OnHold { .. } | Held::BrakeUnreadable { .. } => (State::Stalled, "OnHold"),
        Held::Unobserved { why, .. } => match judge_unseen(why) {
            Some((state, reason, _)) => (state, reason),
            None => (State::Reconciling, "NotObserved"),
        },
        Held::IdentityMismatch { .. } => (State::Stalled, "IdentityMismatch"),
        Held::Unlawful { .. } => (State::Stalled, "Unlawful"),
        Held::Unclear { .. } => (State::Stalled, "Unclear"),
        Held::Incomplete { .. } => (State::Stalled, "Incomplete"),
        Held::Unavailable { .. } => (State::Reconciling, "WaitingForItsTurn"),
        Held::Budget { .. } => (State::Stalled, "BudgetExceeded"),
        Held::After { .. } => (State::Reconciling, "WaitingForGroup"),
        Held::Handoff { wait, .. } if wait.needs_a_person() => (State::Stalled, "HandoffMissing"),
        Held::Handoff { .. } => (State::Reconciling, "WaitingForHandoff"),
        Held::Breaker { .. } => (State::Stalled, "BreakerOpen"),
        Held::Window { .. } => (State::Reconciling, "OutsideWindow"),
        Held::Frozen { .. } => (State::Reconciling, "Frozen"),
        Held::Wave { .. } => (State::Reconciling, "WaitingForWave"),
        Held::Paused { .. } => (State::Reconciling, "Paused"),
        Held::Quarantined { .. } => (State::Stalled, "Quarantined"),
        Held::Unproved => (State::Stalled, "NotWiped"),
        Held::Damped { .. } => (State::Stalled, "Damped"),
        Held::ConfigurationUnclear { .. } => (State::Stalled, "ConfigurationUnclear"),
        Held::JournalLost => (State::Stalled, "JournalLost"),
    };
    (state, reason, held.to_string())
}

/// Unreachable is not drift (law 2), but it is not Ready either: nobody knows.
fn judge_unseen(why: &Unknown) -> Option<Judgement> {
    let (state, reason) = match why {
        Unknown::NotAsked => (State::Reconciling, "NotObserved"),
        Unknown::Busy(_) => (State::Reconciling, "BmcBusy"),
        Unknown::Unreachable(_) | Unknown::TimedOut(_) => (State::Stalled, "BmcUnreachable"),
        Unknown::Unauthorized(_) => (State::Stalled, "BmcUnauthorized"),
        Unknown::CertificateChanged(_) => (State::Stalled, "BmcCertificateChanged"),
        Unknown::Garbage(_) => (State::Stalled, "BmcGarbage"),
        Unknown::NotReported => return None,
    };
    Some((state, reason, why.to_string()))
}

fn judge_work(report: &Report, plan: &MachinePlan) -> Option<Judgement> {
    let open = report.history.machines.get(&plan.name).and_then(|known| known.open_attempt());
    if let Some(open) = open {
        let rung = open.evidence.iter().map(|(_, evidence)| evidence.rung()).max().unwrap_or(Rung::TicketArmed);
        let why = plan.waiting.as_ref().map(|waiting| format!(", {}", waiting.why)).unwrap_or_default();
        let last = open.evidence.iter().map(|(_, evidence)| evidence).max_by_key(|evidence| evidence.rung());
        let (reason, rung) = match last {
            _ if !open.generation.is_wipe() => ("Installing", rung.to_string()),
            last => ("Wiping", last.map_or_else(|| rung.to_string(), Evidence::told)),
        };
        return Some((State::Reconciling, reason, format!("{}: {rung}{why}", open.id)));
    }
    if let Some(step) = plan.steps.iter().find(|step| step.risk() > Risk::None) {
        return Some((State::Reconciling, "Working", step_text(step)));
    }
    plan.waiting.as_ref().map(|waiting| (State::Reconciling, "Waiting", waiting.why.clone()))
}

/// Power that is on its way is neither as declared nor drift.
fn judge_transit(machine: &Machine, seen: Option<&Observation>) -> Option<Judgement> {
    let power = seen?.power.known()?;
    let rests = matches!(power, PowerState::On | PowerState::Off) || machine.power == PowerIntent::Unmanaged;
    (!rests).then(|| (State::Reconciling, "PowerChanging", format!("power is {power}")))
}

fn step_text(step: &Step) -> String {
    format!("{}: {}", step.action, step.reason)
}
