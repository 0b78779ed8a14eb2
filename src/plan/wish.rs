//! What one machine's disk calls for, by commit and journal alone. Observations have no say here (law 1).

use super::{
    deadlines::{Deadlines, after},
    later::{Difference, difference},
    wipe,
};
use crate::model::{
    Attempt, AttemptEnd, Basis, Fleet, Generation, Held, Install, Machine, MachineHistory, OnClaim, OnConfigChange, Reason, Rung, Timestamp,
};

/// What a machine's disk calls for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    /// Nothing: it holds what it should, or nothing is said of it.
    Nothing,
    /// An image was declared for a machine that is adopted and was never installed by us: its disk is taken to hold it.
    Adopt,
    /// An install.
    Install(Reason),
    /// An install, not before a time.
    Later(Reason, Timestamp),
    /// An install would be due, but the last one failed and another would not help.
    Quarantine(Held),
    /// Nobody knows whether an install is due.
    Unclear(Held),
}

impl Wish {
    /// The reason of an install that is wanted now or later.
    pub(super) fn reason(&self) -> Option<&Reason> {
        match self {
            Wish::Install(reason) | Wish::Later(reason, _) => Some(reason),
            Wish::Nothing | Wish::Adopt | Wish::Quarantine(_) | Wish::Unclear(_) => None,
        }
    }
}

/// What the disk of a claimed machine calls for. An open attempt is not looked at.
///
/// An install is wanted if and only if the declared generation is not the one on the disk, and: the disk holds another one, so a
/// commit changed it, and more of it than may wait for the next install; or nothing was ever written and the manifest says `onClaim: Install`, now and not only when it was claimed; or an
/// attempt under this same generation left the disk unknown. Failures count per generation: a commit that changes it starts anew.
/// A wipe is wanted if and only if the manifest says `decommission`, and the disks are not known to be wiped for it.
pub(super) fn wish(machine: &Machine, history: &MachineHistory, former: Option<&Fleet>, now: Timestamp, deadlines: &Deadlines) -> Wish {
    let Some(desired) = machine.generation() else { return Wish::Nothing };
    let untouched = history.installed.is_none() && !history.attempts.iter().any(Attempt::wrote);
    if untouched && machine.on_claim == OnClaim::Adopt && machine.decommission.is_none() {
        return Wish::Adopt;
    }
    let failures = failures(history, desired);
    let waits = waits(machine, history, former);
    // What may wait is not tried again either: the disk is known to hold what it held before.
    if let Some((attempt, at, end)) = failures.first().filter(|_| waits.is_none()) {
        return after_failure(attempt, *at, end, failures.len() as u32, history.installed == Some(desired), now, deadlines);
    }
    let Some(install) = &machine.install else { return wipe::reason(desired, history).map_or(Wish::Nothing, Wish::Install) };
    match history.installed {
        Some(installed) if installed == desired => Wish::Nothing,
        Some(from) => waits.unwrap_or_else(|| Wish::Install(changed(machine, install, from, history.basis, former))),
        None => match history.attempts.iter().rev().find(|attempt| attempt.wrote()) {
            Some(attempt) if attempt.generation == desired => Wish::Install(Reason::Retry { number: 2 }),
            Some(attempt) => Wish::Install(changed(machine, install, attempt.generation, attempt.basis, former)),
            None => Wish::Install(Reason::InstallOnClaim),
        },
    }
}

/// What is to be done about a disk that is known to hold another image or configuration, where that is no install.
fn waits(machine: &Machine, history: &MachineHistory, former: Option<&Fleet>) -> Option<Wish> {
    let (install, from) = machine.install.as_ref().zip(history.installed.filter(|from| Some(*from) != machine.generation()))?;
    match difference(machine, install, history, from, former) {
        Difference::Due => None,
        Difference::Later => Some(Wish::Nothing),
        Difference::Unclear(held) => Some(Wish::Unclear(held)),
    }
}

/// Failed attempts at `generation` since the last that did something else, newest first. Superseded ones say nothing.
pub(super) fn failures(history: &MachineHistory, generation: Generation) -> Vec<(&Attempt, Timestamp, &AttemptEnd)> {
    let ended = history.attempts.iter().rev().filter_map(|attempt| attempt.end.as_ref().map(|(at, end)| (attempt, *at, end)));
    let relevant = ended.filter(|(_, _, end)| **end != AttemptEnd::Superseded);
    let failed = relevant.take_while(|(attempt, _, end)| attempt.generation == generation && matches!(end, AttemptEnd::Failed { .. }));
    // A machine that was adopted after its install failed holds what it should, and not because of that install.
    let adopted = |attempt: &Attempt| history.installed == Some(generation) && attempt.reached(Rung::Written).is_none();
    failed.skip_while(|(attempt, _, _)| adopted(attempt)).collect()
}

/// Whether the last attempt that was not superseded failed, at whatever.
pub(super) fn last_failed(history: &MachineHistory) -> bool {
    let mut ends = history.attempts.iter().rev().filter_map(|attempt| attempt.end.as_ref().map(|(_, end)| end));
    ends.find(|end| **end != AttemptEnd::Superseded).is_some_and(|end| matches!(end, AttemptEnd::Failed { .. }))
}

fn after_failure(
    attempt: &Attempt,
    at: Timestamp,
    end: &AttemptEnd,
    failures: u32,
    installed: bool,
    now: Timestamp,
    deadlines: &Deadlines,
) -> Wish {
    let AttemptEnd::Failed { code, why, retry } = end else { return Wish::Nothing };
    // What is written and verified already is not helped by writing it again.
    if installed || !*retry || failures >= deadlines.max_tries {
        return Wish::Quarantine(Held::Quarantined { attempt: attempt.id.clone(), code: code.clone(), why: why.clone() });
    }
    let reason = Reason::Retry { number: failures + 1 };
    let until = after(at, deadlines.back_off(failures));
    if now < until { Wish::Later(reason, until) } else { Wish::Install(reason) }
}

/// A changed generation, with the fields that changed it where the former fleet is at hand, or the journal can tell.
fn changed(machine: &Machine, install: &Install, from: Generation, basis: Option<Basis>, former: Option<&Fleet>) -> Reason {
    let before = former.and_then(|fleet| fleet.machines.get(&machine.name)).and_then(|machine| machine.install.as_ref());
    let mut fields = Vec::new();
    if let Some(before) = before.filter(|before| before.generation == from) {
        let differs = [
            ("image", before.image.digest != install.image.digest),
            ("configuration", before.user_data != install.user_data),
            ("rebuild", before.rebuild != install.rebuild),
        ];
        fields.extend(differs.iter().filter(|(_, differs)| *differs).map(|(field, _)| (*field).to_owned()));
    } else if let Some(basis) = basis.filter(|_| machine.upkeep.on_config_change == OnConfigChange::NextInstall) {
        fields.push(if basis == install.basis() { "configuration" } else { "image or rebuild" }.to_owned());
    }
    Reason::GenerationChanged { from, to: install.generation, fields }
}
