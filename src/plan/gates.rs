//! Health gates of an attempt that has called home.
//!
//! **Rules.** All gates of a machine pass at the same time, each on a value from after the call home and not older than any observation
//! may be; unknown never passes (law 2). A gate that did not pass within its time ends the attempt. One that has passed and fails again is
//! given until the longest of them is over: a single lost packet costs no machine.
//!
//! **Non-goals.** A gate says something only of an attempt that is open: what fails later is for whoever watches the machine.

use super::{Input, deadlines::after, identity, reimage::Facts};
use crate::model::{Attempt, Gate, Machine, ProbeAnswer, Rung, Seen, SignedDuration, Timestamp};

/// One gate, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateState {
    /// The gate.
    pub gate: Gate,
    /// It passes now.
    pub passes: bool,
    /// It has passed since the call home, whatever it does now.
    pub has_passed: bool,
    /// What was last seen of it.
    pub last: String,
}

/// The gates of a machine, as they stand for an attempt.
pub(super) fn look(input: &Input<'_>, machine: &Machine, attempt: &Attempt) -> Vec<GateState> {
    let home = attempt.reached(Rung::CalledHome);
    machine.gates.iter().map(|gate| state(input, machine, attempt, home, gate)).collect()
}

/// Gates of which nobody can tell any more how they stand: the machine is not what the fleet means by its name.
pub(super) fn unknown(gates: &[Gate]) -> Vec<GateState> {
    let unknown = |gate: &Gate| GateState {
        gate: gate.clone(),
        passes: matches!(gate, Gate::CalledHome { .. }),
        has_passed: false,
        last: String::new(),
    };
    gates.iter().map(unknown).collect()
}

fn state(input: &Input<'_>, machine: &Machine, attempt: &Attempt, home: Option<Timestamp>, gate: &Gate) -> GateState {
    let fresh = SignedDuration::try_from(input.deadlines.fresh).unwrap_or(SignedDuration::MAX);
    let since_home = |at: &Timestamp| home.is_some_and(|home| *at >= home);
    let counts = |at: Timestamp| since_home(&at) && input.now.duration_since(at) < fresh;
    let (passes, passed, last) = match gate {
        Gate::CalledHome { .. } => (home.is_some(), home, "not called home".to_owned()),
        Gate::Http { url, status, .. } => match input.probes.get(&machine.name).and_then(|probes| probes.get(url)) {
            None => (false, None, "not asked yet".to_owned()),
            Some(probe) if !since_home(&probe.at) => (false, None, "not asked since it called home".to_owned()),
            Some(probe) => match &probe.answer {
                ProbeAnswer::Status(seen) if seen == status => {
                    (counts(probe.at), probe.passed, format!("answered {seen}, and was not asked since {:.0}", probe.at))
                }
                ProbeAnswer::Status(seen) => (false, probe.passed, format!("answers {seen}, not {status}")),
                ProbeAnswer::Failed(why) => (false, probe.passed, why.clone()),
            },
        },
        Gate::RedfishHealth { worst, .. } => match input.seen.get(&machine.name).map(|seen| (seen.at, &seen.health)) {
            None => (false, None, "the BMC was not asked yet".to_owned()),
            Some(_) if identity::mismatch(machine, input.seen.get(&machine.name)).is_some() => {
                (false, None, "its BMC is that of another machine".to_owned())
            }
            Some((at, Seen::Known(_))) if !since_home(&at) => (false, None, "the BMC was not asked since it called home".to_owned()),
            Some((at, Seen::Known(health))) if health <= worst => {
                (counts(at), None, format!("{health:?}, and the BMC was not asked since {at:.0}"))
            }
            Some((_, Seen::Known(health))) => (false, None, format!("{health:?}, at worst {worst:?} is allowed")),
            Some((_, Seen::Unknown(why))) => (false, None, why.to_string()),
        },
        Gate::Reported { check, .. } => match attempt.checks.get(check) {
            Some(word) if word.ok => (since_home(&word.at), word.passed, "passed".to_owned()),
            Some(word) if word.message.is_empty() => (false, word.passed, "failed".to_owned()),
            Some(word) => (false, word.passed, format!("failed: {}", word.message)),
            None => (false, None, "nothing reported".to_owned()),
        },
    };
    GateState { gate: gate.clone(), passes, has_passed: passed.as_ref().is_some_and(since_home), last }
}

/// Whether all pass.
pub(super) fn pass(facts: &Facts<'_>) -> bool {
    facts.gates.iter().all(|gate| gate.passes)
}

/// How long a machine may take from "written" until it calls home, where a gate says so.
pub(super) fn calls_home_within(facts: &Facts<'_>) -> Option<SignedDuration> {
    facts.gates.iter().find_map(|state| match &state.gate {
        Gate::CalledHome { within } => Some(*within),
        Gate::Http { .. } | Gate::RedfishHealth { .. } | Gate::Reported { .. } => None,
    })
}

/// Of those that do not pass, the gate whose time is over first, and when; times count from `from`.
pub(super) fn first_over<'a>(from: Timestamp, facts: &Facts<'a>) -> Option<(Timestamp, &'a GateState)> {
    let until = |within: SignedDuration| within.try_into().map_or(from, |within| after(from, within));
    let waits = |state: &&GateState| !matches!(state.gate, Gate::CalledHome { .. });
    let longest = facts.gates.iter().filter(waits).map(|state| state.gate.within()).max()?;
    let failing = facts.gates.iter().filter(|state| !state.passes);
    failing.map(|state| (until(if state.has_passed { longest } else { state.gate.within() }), state)).min_by_key(|(until, _)| *until)
}

/// What an attempt waits for at its gates.
pub(super) fn waits_for(since: Timestamp, facts: &Facts<'_>) -> String {
    let failing = facts.gates.iter().filter(|state| !state.passes);
    let failing: Vec<String> = failing.map(|state| format!("{} ({})", state.gate, state.last)).collect();
    let (what, s) = (failing.join(", "), if failing.len() == 1 { "" } else { "s" });
    format!("gate{s} {what}, since it called home at {since:.0}")
}

/// Why an attempt failed at its gates.
pub(super) fn late(state: &GateState) -> String {
    let why = if state.has_passed { "passed, and does not any more" } else { "did not pass in time" };
    format!("gate {} {why}: {}", state.gate, state.last)
}
