//! Power of a machine that is not being installed: drift by policy, and the way back for a machine that an attempt left behind.

use super::{Case, Input, damping, deadlines::after, drift, groups::Groups, identity, machine, wipe};
use crate::model::{
    Action, Attempt, Drift, DriftClass, DriftPolicy, Held, Machine, MachineHistory, MachinePlan, Observation, PowerIntent, PowerState,
    Reason, Risk, Rung, Seen, SignedDuration, Step, Timestamp, Unknown, Waiting,
};

/// What a power state should be, when it is another. Transitional states are not drift; they pass.
pub(super) fn drift(machine: &Machine, seen: &Observation, age: SignedDuration) -> Option<Drift> {
    let desired = match machine.power {
        PowerIntent::On => PowerState::On,
        PowerIntent::Off => PowerState::Off,
        PowerIntent::Unmanaged => return None,
    };
    let observed = match &seen.power {
        Seen::Known(state @ (PowerState::On | PowerState::Off)) if *state != desired => state.to_string(),
        Seen::Unknown(why) if *why != Unknown::NotAsked => format!("unknown, {why}"),
        Seen::Known(_) | Seen::Unknown(_) => return None,
    };
    Some(drift::differs(Some(DriftClass::Power), "spec.power", desired.to_string(), observed, &seen.source, age))
}

/// Plans at most one power step for a machine without an open attempt.
pub(super) fn settle(input: &Input<'_>, groups: &Groups<'_>, case: &Case<'_>, history: &MachineHistory, part: &mut MachinePlan) {
    // A disk that was never installed, or was left half-written, has nothing to run.
    let nothing_to_run = case.machine.install.is_some() && history.installed.is_none();
    if case.machine.suspend || nothing_to_run {
        return;
    }
    let Ok(power) = identity::power(case.seen, history.power_changed, input.now, &input.deadlines) else { return };
    let Some((action, reason)) = return_to_disk(case.machine, history, power).or_else(|| correction(input, case, history, power)) else {
        return;
    };
    if let Some(until) = machine::resting(input, history).or_else(|| settles_until(input, history, &action, &reason)) {
        let why = match &reason {
            Reason::PartOf { attempt } => format!("{attempt} left it behind; it is brought back to its disk"),
            _ => format!("{reason}, corrected not before"),
        };
        part.waiting = Some(Waiting { why, until: Some(until) });
        return;
    }
    let mut obstacles: Vec<Held> = machine::obstacles(input, case);
    if action.risk() >= Risk::Disruptive && matches!(reason, Reason::PowerDrift { .. }) {
        obstacles.extend_from_slice(groups.closed(case.group));
    }
    // What an install left is put right whatever it takes.
    let damped = matches!(reason, Reason::PowerDrift { .. }).then(|| damping::held(input, history, &action)).flatten();
    if let (true, Some(damped)) = (obstacles.is_empty(), damped) {
        damping::hold(part, damped);
    } else if obstacles.is_empty() {
        part.steps.push(Step { machine: part.name.clone(), action, reason });
    } else {
        let new = obstacles.into_iter().filter(|held| !part.held.contains(held)).collect::<Vec<_>>();
        part.held.extend(new);
    }
}

fn correction(input: &Input<'_>, case: &Case<'_>, history: &MachineHistory, power: PowerState) -> Option<(Action, Reason)> {
    if wipe::is_due(case.machine, history) {
        return None;
    }
    match input.fleet.settings.drift.power {
        DriftPolicy::Observe | DriftPolicy::Alert => return None,
        DriftPolicy::Correct => {}
    }
    let reason = Reason::PowerDrift { observed: power };
    match (case.machine.power, power) {
        (PowerIntent::On, PowerState::Off) => Some((Action::PowerOn, reason)),
        // Nothing that was on a wiped machine can come to harm; what runs there, such as our agent, may have no ear for a polite order.
        (PowerIntent::Off, PowerState::On) => Some((Action::PowerOff { force: case.machine.decommission.is_some() }, reason)),
        (PowerIntent::On | PowerIntent::Off | PowerIntent::Unmanaged, _) => None,
    }
}

/// A correction comes at most once in [`super::POWER_SETTLE`]; an attempt's leftovers are put right at the pace of commands.
fn settles_until(input: &Input<'_>, history: &MachineHistory, action: &Action, reason: &Reason) -> Option<Timestamp> {
    let wait = match (reason, action) {
        (Reason::PartOf { .. }, Action::PowerOff { force: true }) => input.deadlines.shutdown,
        (Reason::PartOf { .. }, _) => return None,
        _ => input.deadlines.power_settle,
    };
    history.power_changed.map(|changed| after(changed, wait)).filter(|until| input.now < *until)
}

/// Whether an attempt that ended before its first byte left the machine on, with our agent or nothing in its memory and its old
/// system untouched on its disk, and it was not switched off and on since. Later attempts may have ended before they got to its power.
pub(super) fn left_in_network_boot(history: &MachineHistory) -> bool {
    let booted = |attempt: &&Attempt| attempt.evidence.iter().any(|(_, evidence)| evidence.rung() >= Rung::PowerSeen);
    let unwritten = history.attempts.iter().rev().take_while(|attempt| !attempt.wrote());
    let mut ended = unwritten.filter(booted).filter_map(|attempt| attempt.end.as_ref()).filter(|(ended, _)| is_ours(history, *ended));
    history.installed.is_some() && ended.any(|(ended, _)| !is_brought_back(history, *ended))
}

/// A machine that an attempt left behind is switched off and on once, so that it serves again; the boot server sends it to its disk
/// (law 9). The same for one that was switched off for an attempt and never came to boot.
fn return_to_disk(machine: &Machine, history: &MachineHistory, power: PowerState) -> Option<(Action, Reason)> {
    let (attempt, ended) = unwritten(history)?;
    let reason = Reason::PartOf { attempt: attempt.id.clone() };
    let off_for_it = history.power_changed.is_some_and(|changed| attempt.began <= changed && changed <= ended);
    // What nobody knows the end of may have been what switched it off: it must not stay so.
    let maybe_off = orders(history).any(|(at, step)| at >= attempt.began && is_way_off(step));
    let off_since = history.switched.as_ref().is_some_and(|(at, step)| *at > ended && is_way_off(step));
    match power {
        PowerState::Off if machine.power == PowerIntent::Off => None,
        PowerState::Off if off_for_it || maybe_off => Some((Action::PowerOn, reason)),
        PowerState::On if is_brought_back(history, ended) => None,
        PowerState::On if off_since => Some((Action::PowerOff { force: true }, reason)),
        PowerState::On if left_in_network_boot(history) => Some((Action::PowerOff { force: false }, reason)),
        PowerState::On | PowerState::Off | PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Paused => None,
    }
}

/// The last attempt, if it ended before its first byte, and when.
fn unwritten(history: &MachineHistory) -> Option<(&Attempt, Timestamp)> {
    let attempt = history.attempts.last().filter(|attempt| !attempt.wrote())?;
    let ended = attempt.end.as_ref().map(|(ended, _)| *ended).filter(|ended| is_ours(history, *ended))?;
    Some((attempt, ended))
}

/// Our last orders to its power that came, or may have come, into effect, newest first. One that was refused changed nothing.
fn orders(history: &MachineHistory) -> impl Iterator<Item = (Timestamp, &Step)> {
    history.unsure_power().chain(history.switched.as_ref().map(|(at, step)| (*at, step)))
}

/// Whether what ended then left something for us to bring back: not what was before the machine was adopted as it is.
fn is_ours(history: &MachineHistory, ended: Timestamp) -> bool {
    history.claimed.is_none_or(|claimed| claimed <= ended)
}

/// Whether a step is the first half of bringing a machine back, or of an attempt's beginning.
fn is_way_off(step: &Step) -> bool {
    matches!(step.action, Action::PowerOff { .. }) && matches!(step.reason, Reason::PartOf { .. })
}

/// Whether it was switched on again since then, or otherwise taken in hand.
fn is_brought_back(history: &MachineHistory, ended: Timestamp) -> bool {
    orders(history).next().is_some_and(|(at, step)| at > ended && !is_way_off(step))
}
