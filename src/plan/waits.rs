//! What each state of an attempt waits for, until when, and what it is called when that does not come.

use std::time::Duration;

use super::{
    deadlines::{Deadlines, after},
    gates,
    reimage::{Facts, Reimage},
    wipe,
};
use crate::model::{Action, Outcome, RetryClass, Rung, Step, Timestamp};

/// When the wait of a state is over, the name of that failure, and whether another attempt may help.
pub(super) fn deadline(state: &Reimage, facts: &Facts<'_>) -> Option<(Timestamp, &'static str, bool)> {
    let limits = facts.deadlines;
    let home = || gates::calls_home_within(facts).map(|within| within.try_into().unwrap_or_default());
    let (wait, code, retry): (Duration, _, _) = match state {
        // The disk is right here, too.
        Reimage::CalledHome { since, .. } => {
            let from = facts.alive.map_or(*since, |alive| alive.max(*since));
            return gates::first_over(from, facts).map(|(until, state)| (until, state.gate.code(), false));
        }
        Reimage::Begun { .. } | Reimage::Healthy | Reimage::Ended { .. } => return None,
        Reimage::TicketArmed { .. } => (limits.boot_set, "boot-not-set", true),
        Reimage::BootSet { .. } => (limits.power_on, "no-power", true),
        Reimage::PowerSeen { .. } => (limits.first_packet, "no-dhcp", true),
        Reimage::DhcpSeen { .. } => (limits.loader, "no-loader", true),
        Reimage::LoaderFetched { .. } => (limits.agent, "no-agent", true),
        Reimage::AgentUp { .. } => (limits.first_write, "no-write", true),
        Reimage::Writing { .. } => (limits.silence, "agent-silent", true),
        // The disk is right; the same bytes again would not help.
        Reimage::Written { .. } => (home().unwrap_or(limits.from_disk), "no-boot-from-disk", false),
        Reimage::BootedFromDisk { .. } => (home().unwrap_or(limits.call_home), "no-call-home", false),
    };
    let own = wipe::deadline(state, limits).filter(|_| facts.attempt.generation.is_wipe());
    let (wait, code, retry) = own.unwrap_or((wait, code, retry));
    // A gate counts from "written", however the machine gets from there to its system.
    let written = facts.attempt.reached(Rung::Written).filter(|_| home().is_some());
    let from = written.or(state.since()).max(facts.alive).unwrap_or(facts.attempt.began);
    let expires = wipe::expires(facts.attempt, limits);
    let until = after(from, wait);
    // A ticket that expired is refused by the boot server; after "written" it is not needed any more.
    if expires < until && state.rung() < Some(Rung::Written) { Some((expires, "ticket-expired", true)) } else { Some((until, code, retry)) }
}

/// Why an attempt is given up at its deadline, with the last thing that went wrong.
pub(super) fn late(state: &Reimage, facts: &Facts<'_>) -> String {
    if let Reimage::CalledHome { since, .. } = state
        && let Some((_, gate)) = gates::first_over(*since, facts)
    {
        return gates::late(gate);
    }
    let mut why = format!("waited too long: {}", waits_for(state, facts));
    if let Some(tied) = facts.hands_off {
        why += &format!("; {tied}");
    }
    why + &last_failure(facts)
}

/// The last command, if it did not succeed, as the end of a sentence.
pub(super) fn last_failure(facts: &Facts<'_>) -> String {
    match own_last(facts) {
        Some((_, step, Outcome::Failed { why: cause, .. } | Outcome::Blocked { why: cause, .. } | Outcome::Waiting { why: cause, .. })) => {
            format!("; \"{}\" did not succeed: {cause}", step.action)
        }
        Some((_, _, Outcome::Done)) | None => String::new(),
    }
}

/// What an attempt waits for, for people.
pub(super) fn waiting_for(state: &Reimage, facts: &Facts<'_>) -> String {
    match state {
        Reimage::CalledHome { since, .. } => gates::waits_for(*since, facts),
        _ => waits_for(state, facts).to_owned(),
    }
}

/// What a state waits for.
fn waits_for(state: &Reimage, facts: &Facts<'_>) -> &'static str {
    if let Some(own) = wipe::waits_for(state).filter(|_| facts.attempt.generation.is_wipe()) {
        return own;
    }
    match state {
        Reimage::Begun { .. } => "its ticket to be served",
        Reimage::TicketArmed { .. } => "the machine to be off and its next boot to be set",
        Reimage::BootSet { .. } => "the machine to be on",
        Reimage::PowerSeen { .. } => "the firmware's first DHCP packet",
        Reimage::DhcpSeen { .. } => "a loader to be fetched",
        Reimage::LoaderFetched { .. } => "the agent's first word",
        Reimage::AgentUp { .. } => "the agent to choose a disk",
        Reimage::Writing { .. } => "the agent to write the disk and read it back",
        Reimage::Written { .. } => "the machine to boot from its disk",
        Reimage::BootedFromDisk { .. } => "the installed system to call home",
        Reimage::CalledHome { .. } | Reimage::Healthy | Reimage::Ended { .. } => "nothing",
    }
}

/// The machine's last step, if it belongs to this attempt.
pub(super) fn own_last<'a>(facts: &Facts<'a>) -> Option<&'a (Timestamp, Step, Outcome)> {
    facts.last.filter(|(at, _, _)| *at >= facts.attempt.began)
}

/// Until when a machine is left alone after its last command did not succeed.
pub(super) fn rests_until((at, step, outcome): &(Timestamp, Step, Outcome), deadlines: &Deadlines) -> Option<Timestamp> {
    if !step.action.changes_power() && !matches!(step.action, Action::BootFromNetwork { .. }) {
        return None;
    }
    match outcome {
        Outcome::Done => None,
        Outcome::Waiting { until, .. } => Some(*until),
        Outcome::Failed { class: RetryClass::Wait, .. } => Some(after(*at, deadlines.command_retry)),
        Outcome::Failed { class: RetryClass::Stalled | RetryClass::Failed, .. } | Outcome::Blocked { .. } => {
            Some(after(*at, deadlines.stalled_retry))
        }
    }
}
