//! Configuration that waits for the next install (`onConfigChange: NextInstall`).
//!
//! A generation is one hash, which does not tell its parts. So the journal keeps beside it what of it is not configuration (the *basis*), and
//! which generation was *deferred*, that is left to the next install: a commit that says `Reinstall` again must not make up for what an
//! earlier one let pass. Of what earlier releases installed no basis is known until the declared generation is the one on the disk once, or
//! the former fleet says what that was; what stays unknown is held (law 2).

use super::{Case, Input, wish::Wish};
use crate::model::{
    Action, Attempt, AttemptEnd, Basis, Fleet, Generation, Held, Install, Machine, MachineHistory, OnConfigChange, Problem, Reason, Rung,
    Step,
};

/// What is said of a machine whose configuration waits.
pub const NEXT_INSTALL: &str = "its configuration differs, and comes with the next install";

/// What it means that a disk holds another generation than declared.
pub(super) enum Difference {
    /// An install.
    Due,
    /// Nothing now: the next install brings it.
    Later,
    /// Nobody knows.
    Unclear(Held),
}

/// What it means that a disk holds `from` and not what `install` says.
pub(super) fn difference(
    machine: &Machine,
    install: &Install,
    history: &MachineHistory,
    from: Generation,
    former: Option<&Fleet>,
) -> Difference {
    // A wiped disk holds nothing that could wait.
    if from.is_wipe() {
        return Difference::Due;
    }
    // An install that did not come to its end is not over: whatever is declared now goes on with it.
    if is_unfinished(history, from) {
        return Difference::Due;
    }
    match machine.upkeep.on_config_change {
        OnConfigChange::Reinstall if history.deferred == Some((from, install.generation)) => Difference::Later,
        OnConfigChange::Reinstall => Difference::Due,
        OnConfigChange::NextInstall => match basis(machine, history, from, former) {
            Some(basis) if basis == install.basis() => Difference::Later,
            Some(_) => Difference::Due,
            None => Difference::Unclear(Held::ConfigurationUnclear { installed: from, desired: install.generation }),
        },
    }
}

/// Whether the attempt that wrote what the disk holds failed after that.
fn is_unfinished(history: &MachineHistory, from: Generation) -> bool {
    let wrote = history.attempts.iter().rev().find(|attempt| attempt.wrote() || attempt.reached(Rung::Written).is_some());
    let Some(Attempt { generation, end: Some((at, AttemptEnd::Failed { .. })), .. }) = wrote else { return false };
    *generation == from && history.claimed.is_none_or(|claimed| claimed <= *at)
}

/// What of the generation on the disk is not configuration, as far as anybody knows.
fn basis(machine: &Machine, history: &MachineHistory, from: Generation, former: Option<&Fleet>) -> Option<Basis> {
    history.basis.or_else(|| {
        let before = former.and_then(|fleet| fleet.machines.get(&machine.name)).and_then(|before| before.install.as_ref());
        [machine.install.as_ref(), before].into_iter().flatten().find(|install| install.generation == from).map(Install::basis)
    })
}

/// Whether the disk of a machine holds another generation than declared, and nothing is to be done about that.
pub(super) fn waits(case: &Case<'_>) -> bool {
    let installed = case.history.and_then(|history| history.installed);
    case.named()
        && case.wish == Wish::Nothing
        && case.machine.generation().zip(installed).is_some_and(|(desired, installed)| desired != installed)
}

/// Whether an attempt that has written installs all that is declared but the configuration, which then is for the next one.
pub(super) fn is_wanted_but_for_configuration(machine: &Machine, history: &MachineHistory, attempt: &Attempt) -> bool {
    let Some(install) = machine.install.as_ref().filter(|_| attempt.wrote()) else { return false };
    match machine.upkeep.on_config_change {
        OnConfigChange::Reinstall => history.deferred == Some((attempt.generation, install.generation)),
        OnConfigChange::NextInstall => attempt.basis == Some(install.basis()),
    }
}

/// The same as [`note`] for an attempt that writes.
pub(super) fn note_attempt(input: &Input<'_>, machine: &Machine, history: &MachineHistory, attempt: &Attempt) -> Option<Step> {
    let (install, installed) = (machine.install.as_ref()?, attempt.generation);
    let new = history.deferred != Some((installed, install.generation)) && installed != install.generation;
    let applies = new && is_wanted_but_for_configuration(machine, history, attempt) && !input.problems.iter().any(Problem::is_error);
    let basis = attempt.basis.filter(|_| applies)?;
    Some(step(machine, Action::NoteConfiguration { installed, basis, deferred: Some(install.generation) }))
}

/// What has to be noted now, so that it is still known when it counts.
pub(super) fn note(input: &Input<'_>, case: &Case<'_>, history: &MachineHistory) -> Option<Step> {
    let install = case.machine.install.as_ref()?;
    let installed = history.installed?;
    let applies = case.machine.upkeep.on_config_change == OnConfigChange::NextInstall && case.wish == Wish::Nothing;
    if !applies || input.problems.iter().any(Problem::is_error) {
        return None;
    }
    let basis = basis(case.machine, history, installed, input.former)?;
    let deferred = Some(install.generation).filter(|desired| *desired != installed);
    let known = history.basis == Some(basis) && deferred.is_none_or(|deferred| history.deferred == Some((installed, deferred)));
    (!known).then(|| step(case.machine, Action::NoteConfiguration { installed, basis, deferred }))
}

fn step(machine: &Machine, action: Action) -> Step {
    Step { machine: machine.name.clone(), action, reason: Reason::NextInstall }
}
