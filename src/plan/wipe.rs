//! What `decommission` adds to the plan: what calls for a wipe, and what may be done to a machine that is to be wiped or was.
//!
//! All else, from budgets to crash recovery, is as for installs: a wipe is an attempt at a generation of its own.

use std::time::Duration;

use super::{
    deadlines::{Deadlines, after},
    reimage::Reimage,
};
use crate::model::{Attempt, Generation, Held, Machine, MachineHistory, Reason, Reimaging, Timestamp};

/// Why its disks have to be wiped; `None` when they are what the manifest says, wiped or taken to be. A failure was looked at before.
pub(super) fn reason(desired: Generation, history: &MachineHistory) -> Option<Reason> {
    if history.installed == Some(desired) {
        return None;
    }
    let cut_off = history.attempts.iter().rev().find(|attempt| attempt.wrote()).filter(|_| history.installed.is_none());
    match cut_off {
        Some(attempt) if attempt.generation == desired => Some(Reason::Retry { number: 2 }),
        _ => Some(Reason::Decommissioned),
    }
}

/// Why a machine is written that comes into the fleet with `onClaim: Install`.
pub(super) fn on_claim(machine: &Machine) -> Reason {
    if machine.decommission.is_some() { Reason::Decommissioned } else { Reason::InstallOnClaim }
}

/// What holds a machine that came into the fleet with `decommission`, or whose journal was lost since: it was taken as it is (law 5), so
/// nothing of it was wiped, or nobody knows any more.
pub(super) fn unproved(machine: &Machine, history: &MachineHistory) -> Option<Held> {
    let desired = machine.decommission.as_ref()?.generation;
    let taken_as_it_is = history.installed == Some(desired) && history.wiped(desired).is_none();
    taken_as_it_is.then_some(Held::Unproved)
}

/// Whether it is to be wiped first, so that it is not switched off for good before.
pub(super) fn is_due(machine: &Machine, history: &MachineHistory) -> bool {
    machine.decommission.as_ref().is_some_and(|wipe| history.wiped(wipe.generation).is_none())
}

/// For a reviewer.
pub(super) fn reimaging(machine: &Machine, reason: Reason) -> Option<Box<Reimaging>> {
    let wipe = machine.decommission.as_ref()?;
    Some(Box::new(Reimaging { reason, image: None, wipe: Some(wipe.method), disk: wipe.disks.told(&machine.disks) }))
}

/// When the ticket of an attempt is worth nothing any more.
pub(super) fn expires(attempt: &Attempt, deadlines: &Deadlines) -> Timestamp {
    after(attempt.began, if attempt.generation.is_wipe() { deadlines.wipe } else { deadlines.ticket })
}

/// What a wipe waits for where an install waits for something else, for how long, and what it is called when that does not come.
pub(super) fn deadline(state: &Reimage, deadlines: &Deadlines) -> Option<(Duration, &'static str, bool)> {
    match state {
        // The disks are wiped; to wipe them again would not help.
        Reimage::Written { .. } | Reimage::BootedFromDisk { .. } => Some((deadlines.from_disk, "not-switched-off", false)),
        _ => None,
    }
}

/// The same for people.
pub(super) fn waits_for(state: &Reimage) -> Option<&'static str> {
    match state {
        Reimage::AgentUp { .. } => Some("the agent to choose the disks"),
        Reimage::Writing { .. } => Some("the agent to wipe the disks and read them back"),
        Reimage::Written { .. } | Reimage::BootedFromDisk { .. } => Some("the wiped machine to be off"),
        _ => None,
    }
}
