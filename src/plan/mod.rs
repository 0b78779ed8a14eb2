//! Fleet × Observation × History × now → Plan. Pure: no clock, no I/O, no state of its own.
//!
//! **Scope.** [`plan`] says for every machine what is to be done now, why, at what risk, and what is *not* done, and why. [`check`]
//! is a second program that reads a finished plan against the law and shares no code with the first. [`reimage`] is the one
//! thing that spans turns.
//!
//! **Order.** Installs take their places by group, then rack, then name, so that the same input gives the same plan.
//!
//! **Non-goals.** Executing. Reading manifests. Asking BMCs.

mod after;
mod approval;
mod check;
mod damping;
mod deadlines;
mod drift;
mod estimate;
mod gates;
mod goes_on;
mod groups;
mod handoff;
mod identity;
mod later;
mod machine;
mod names;
mod power;
pub mod reimage;
mod render;
mod review;
mod waits;
mod waves;
mod windows;
mod wipe;
mod wish;

use std::collections::BTreeMap;

pub use check::{Violation, check};
pub use deadlines::*;
pub use gates::GateState;
pub use goes_on::goes_on;
pub use identity::hardware;
pub use later::NEXT_INSTALL;
pub use render::{render_machine, render_text};
pub use review::{LONGEST, render_markdown};

use crate::model::{
    Action, AttemptEnd, AttemptId, Brake, Commit, Fleet, Held, History, Install, Machine, MachineHistory, MachineName, MachinePlan,
    Observation, OnClaim, Plan, PowerIntent, PowerState, Probes, Problem, Published, Step, Timestamp,
};
use groups::Groups;
use names::{Names, Standing};
use wish::{Wish, wish};

/// All that a plan rests on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The commit whose fleet this is.
    pub commit: &'a Commit,
    /// What it says.
    pub fleet: &'a Fleet,
    /// What is wrong in it. While one of them is an error, nothing is begun and nobody is released (law 2).
    pub problems: &'a [Problem],
    /// What the hardware told us, by machine. A machine that is missing here was not asked.
    pub seen: &'a BTreeMap<MachineName, Observation>,
    /// What the journal says.
    pub history: &'a History,
    /// The fleet that was in force before, if at hand: tells which field changed a generation, and what an attempt that is
    /// writing under an earlier commit was told to write.
    pub former: Option<&'a Fleet>,
    /// Last sign of life of each open attempt that is not in the journal: the agent's progress, and for all open attempts the
    /// start of the controller, so that the time for which it was down does not count as silence.
    pub alive: &'a BTreeMap<AttemptId, Timestamp>,
    /// What the last probes of web pages found, of machines that wait at a gate.
    pub probes: &'a Probes,
    /// What somebody on the controller's host stopped by hand.
    pub brake: &'a Brake,
    /// How long each wait may take.
    pub deadlines: Deadlines,
    /// Now.
    pub now: Timestamp,
}

/// One machine of the fleet, with all that was found out about it.
struct Case<'a> {
    machine: &'a Machine,
    /// Its history, under this name or, until the rename is done, under the one before. Where it is not clear whose the name is, the
    /// history that is under the name.
    history: Option<&'a MachineHistory>,
    /// What has to be settled about its name first.
    standing: Option<Standing<'a>>,
    seen: Option<&'a Observation>,
    wish: Wish,
    /// The local brake, if it is on.
    hold: Option<Held>,
    group: usize,
    /// An attempt is on its way.
    open: bool,
    /// Counts against `maxUnavailable`.
    unavailable: bool,
    /// Serves nobody, whatever we do.
    out_of_service: bool,
    /// Its last attempt at what it should have failed.
    failed: bool,
    /// Counts against `maxDestructive`.
    wanted_by_commit: bool,
    /// Values of others that an install of it waits for.
    missing: Vec<Held>,
}

impl Case<'_> {
    /// Whether an install of it may begin now, if there is a place.
    fn takes_a_place(&self) -> bool {
        self.standing.is_none() && self.history.is_some() && !self.open && matches!(self.wish, Wish::Install(_))
    }

    /// Whether it holds what it should and is available.
    fn ready(&self) -> bool {
        self.named() && self.history.is_some() && self.wish == Wish::Nothing && !self.open && !self.unavailable
    }

    /// Whether its history is its own.
    fn named(&self) -> bool {
        matches!(self.standing, None | Some(Standing::Changed | Standing::Renamed(_)))
    }

    /// Whether an install of it is on its way or wanted, as far as a plan can tell.
    fn has_to_be_installed(&self) -> bool {
        self.open || (self.wish.reason().is_some() && !self.machine.suspend)
    }

    /// Whether it keeps later groups waiting.
    fn unfinished(&self) -> bool {
        if self.open {
            return true;
        }
        if self.machine.generation().is_none() || self.machine.suspend {
            return false;
        }
        let settled = self.named() && self.history.is_some() && matches!(self.wish, Wish::Nothing | Wish::Quarantine(_));
        !settled
    }
}

/// Makes the plan. Total: every machine of the fleet and of the history has an entry.
pub fn plan(input: &Input<'_>) -> Plan {
    let names = Names::of(input.fleet, input.history);
    let mut groups = Groups::of(input);
    let cases: Vec<Case<'_>> = input.fleet.machines.values().map(|machine| case(input, &names, &groups, machine)).collect();
    for case in &cases {
        groups.count(case);
    }
    groups.counted();
    let estimate = groups.estimate();
    let mut takers: Vec<&Case<'_>> = cases.iter().filter(|case| case.takes_a_place()).collect();
    takers.sort_by_key(|case| (case.group, &case.machine.place.rack, &case.machine.name));
    let mut machines: BTreeMap<MachineName, MachinePlan> = BTreeMap::new();
    for case in cases.iter().filter(|case| !case.takes_a_place()) {
        let part = machine::plan(input, &mut groups, case);
        // What fails in this turn is counted before anything begins in it.
        if !case.failed && part.steps.iter().any(fails) {
            groups.fail(case.group);
        }
        machines.insert(case.machine.name.clone(), part);
    }
    let left = names.gone.iter().map(|(name, history)| (*name, machine::left(input, &names, name, history)));
    for (name, part) in left {
        // So is what fails under a name that its machine has no more.
        let renamed = |case: &&Case<'_>| matches!(case.standing, Some(Standing::Renamed(from)) if from == name);
        if part.steps.iter().any(fails)
            && let Some(case) = cases.iter().find(renamed).filter(|case| !case.failed)
        {
            groups.fail(case.group);
        }
        machines.insert(name.clone(), part);
    }
    machines.extend(takers.into_iter().map(|case| (case.machine.name.clone(), machine::plan(input, &mut groups, case))));
    Plan {
        commit: input.commit.clone(),
        at: input.now,
        machines,
        problems: input.problems.to_vec(),
        groups: groups.report(),
        domains: groups.report_domains(),
        estimate,
    }
}

fn fails(step: &Step) -> bool {
    matches!(&step.action, Action::EndAttempt { end: AttemptEnd::Failed { .. }, .. })
}

/// The history of a fleet of which every machine is claimed and holds what it should: the ground for comparing two commits without
/// a controller.
pub fn baseline(fleet: &Fleet, now: Timestamp) -> History {
    let said =
        |machine: &Machine| Published { attempt: AttemptId { machine: machine.name.clone(), number: 0 }, seq: 0, at: now, lost: None };
    let of = |machine: &Machine| MachineHistory {
        claimed: Some(now),
        hardware: hardware(machine),
        installed: machine.generation(),
        basis: machine.install.as_ref().map(Install::basis),
        published: machine.handoffs.publishes.iter().map(|name| (name.clone(), said(machine))).collect(),
        ..MachineHistory::default()
    };
    let machines = fleet.machines.iter().map(|(name, machine)| (name.clone(), of(machine))).collect();
    History { machines, ..History::default() }
}

fn case<'a>(input: &Input<'a>, names: &Names<'a>, groups: &Groups<'a>, machine: &'a Machine) -> Case<'a> {
    let standing = names.standing(&machine.name);
    let known = match standing {
        Some(Standing::Renamed(from)) => Some(from),
        Some(Standing::Displaced { from, .. }) => from,
        _ => Some(&machine.name),
    };
    let history = known.and_then(|known| input.history.machines.get(known));
    // Another machine's record says nothing of this one; only an install that is on its way there has to end first.
    let history = history.filter(|history| standing != Some(Standing::Replaced) || history.open_attempt().is_some());
    let seen = input.seen.get(&machine.name);
    let wish = match history {
        _ if matches!(standing, Some(Standing::Unclear(_))) => Wish::Nothing,
        Some(_) if standing == Some(Standing::Replaced) => Wish::Nothing,
        Some(history) => wish(machine, history, input.former, input.now, &input.deadlines),
        None if machine.generation().is_some() && machine.on_claim == OnClaim::Install => Wish::Install(wipe::on_claim(machine)),
        None => Wish::Nothing,
    };
    let attempts = history.map(|history| history.attempts.as_slice()).unwrap_or_default();
    // An install that is on its way under a name counts for whoever has that name, too, until it is settled: two places, for a moment.
    let under_its_name = || input.history.machines.get(&machine.name).filter(|_| matches!(standing, Some(Standing::Displaced { .. })));
    let open = history.into_iter().chain(under_its_name()).any(|history| history.open_attempt().is_some());
    let quarantined = matches!(wish, Wish::Quarantine(_));
    let unknown_disk = history.is_some_and(|history| history.installed.is_none()) && attempts.iter().any(|attempt| attempt.wrote());
    let never_installed = machine.install.is_some() && history.is_none_or(|history| history.installed.is_none()) && !unknown_disk;
    let seen_off = seen.and_then(|seen| seen.power.known()) == Some(&PowerState::Off);
    // One that is off as declared is not in the network boot any more, and nobody switches it on to bring it back.
    let (off, as_declared) = (machine.power == PowerIntent::On && seen_off, machine.power == PowerIntent::Off && seen_off);
    let left_behind = !open && !as_declared && history.is_some_and(power::left_in_network_boot);
    let unavailable = open || left_behind || (!quarantined && (unknown_disk || (off && !never_installed)));
    // Whatever it is called: a name that is exchanged, or hardware that is mistyped, must not close a breaker.
    let last_failed = |name: &MachineName| input.history.machines.get(name).is_some_and(wish::last_failed);
    let failed = match (names.known_as(&machine.name), standing) {
        (None, Some(Standing::Unclear(other))) => last_failed(other) || last_failed(&machine.name),
        (None, Some(Standing::Replaced)) => last_failed(&machine.name),
        (own, _) => own.or(history).zip(machine.generation()).is_some_and(|(own, desired)| !wish::failures(own, desired).is_empty()),
    };
    let begun = attempts
        .iter()
        .any(|attempt| attempt.commit == input.commit.id && !matches!(attempt.end, Some((_, AttemptEnd::Superseded)) if !attempt.wrote()));
    let group = Groups::index(input.fleet, machine);
    let hold = |name: &MachineName| input.brake.on(name, groups.rollout(group));
    let earlier = if let Some(Standing::Renamed(from)) = standing { hold(from) } else { None };
    Case {
        machine,
        history,
        standing,
        seen,
        hold: hold(&machine.name).or(earlier),
        group,
        open,
        unavailable,
        out_of_service: unavailable || unknown_disk || never_installed,
        failed,
        missing: handoff::missing(input, names, machine, history.and_then(MachineHistory::open_attempt)),
        wanted_by_commit: open || begun || wish.reason().is_some() || (quarantined && unknown_disk),
        wish,
    }
}
