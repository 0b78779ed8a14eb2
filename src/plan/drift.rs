//! Field by field, what is not as declared, and what is put right. A gap is not drift; it is shown where something was declared and somebody
//! asked. Nothing here can lead to an install (law 1): what differs on a disk is shown, and a commit decides.

use super::{Case, Input, damping, deadlines::after, identity, later, machine, power, wipe};
use crate::model::{
    Action, BootOverride, Drift, DriftClass, DriftPolicy, Evidence, Held, Machine, MachineHistory, MachinePlan, Observation, Reason, Rung,
    SignedDuration, Step, Waiting, surely,
};

/// All of it, worst for a person first.
pub(super) fn of(input: &Input<'_>, case: &Case<'_>) -> Vec<Drift> {
    let machine = case.machine;
    let mut drift = Vec::new();
    if let (Some(desired), Some(history)) = (machine.generation(), case.history)
        && history.installed != Some(desired)
        && !later::waits(case)
    {
        let observed = history.installed.map_or_else(|| "unknown".to_owned(), |installed| installed.short());
        let since = history.claimed.unwrap_or(input.now);
        let field = if desired.is_wipe() { "spec.decommission" } else { "spec.image" };
        drift.push(differs(None, field, desired.short(), observed, "journal", input.now.duration_since(since)));
    }
    drift.extend(case.history.and_then(|history| os_image(input, history)));
    if let Some(seen) = case.seen {
        let age = input.now.duration_since(seen.at);
        // What is to be wiped runs until then.
        let due = case.history.map_or(machine.decommission.is_some(), |history| wipe::is_due(machine, history));
        drift.extend(power::drift(machine, seen, age).filter(|_| !due));
        if let Some(Held::IdentityMismatch { field, declared, observed }) = identity::mismatch(machine, Some(seen)) {
            let field = if field == "mac" { "spec.nics".to_owned() } else { format!("spec.identity.{field}") };
            drift.push(differs(None, &field, declared, observed, &seen.source, age));
        }
        drift.extend(
            case.history
                .and_then(|history| boot_override(history, seen))
                .map(|found| differs(Some(DriftClass::Boot), "spec.boot", "no override".to_owned(), in_words(found), &seen.source, age)),
        );
        drift.extend(storage(machine, seen, age));
        drift.extend(firmware(machine, seen, age));
    }
    drift
}

pub(super) fn differs(
    class: Option<DriftClass>,
    field: &str,
    desired: String,
    observed: String,
    source: &str,
    age: SignedDuration,
) -> Drift {
    Drift { class, field: field.to_owned(), desired, observed, source: source.to_owned(), age }
}

/// The system that called home last says that it is another generation than was written there.
fn os_image(input: &Input<'_>, history: &MachineHistory) -> Option<Drift> {
    let installed = history.installed?;
    let last = history.attempts.iter().rev().find(|attempt| attempt.reached(Rung::Written).is_some())?;
    let said = last.evidence.iter().rev().find_map(|(at, evidence)| match evidence {
        Evidence::CalledHome { generation, .. } => Some((*at, *generation)),
        _ => None,
    });
    let (at, said) = said.filter(|(_, said)| last.generation == installed && *said != installed)?;
    let age = input.now.duration_since(at);
    Some(differs(Some(DriftClass::OsImage), "spec.image", installed.short(), said.short(), "call-home", age))
}

/// Disks that the manifest names and that are known not to be there, or to be there twice. BMCs' lists are often incomplete, so only the
/// agent decides where to write.
fn storage(machine: &Machine, seen: &Observation, age: SignedDuration) -> Vec<Drift> {
    let Some(disks) = seen.disks.known() else { return Vec::new() };
    let keep = machine.disks.keep.iter().enumerate().map(|(n, hint)| (format!("spec.disks.keep[{n}]"), hint));
    let named = machine.disks.system.iter().map(|hint| ("spec.disks.system".to_owned(), hint)).chain(keep);
    let wrong = named.filter_map(|(field, hint)| {
        let found = surely(hint, disks)?;
        let text = |disks: &[&crate::model::ObservedDisk]| {
            disks.iter().map(|disk| disk.serial.as_deref().unwrap_or(&disk.name)).collect::<Vec<_>>().join(", ")
        };
        let observed = match found.as_slice() {
            [_] => return None,
            [] => format!("missing among {}", text(&disks.iter().collect::<Vec<_>>())),
            several => format!("there {} times ({})", several.len(), text(several)),
        };
        Some(differs(Some(DriftClass::Storage), &field, hint.to_string(), observed, &seen.source, age))
    });
    wrong.collect()
}

/// Declared versions against those of the BMC's list.
fn firmware(machine: &Machine, seen: &Observation, age: SignedDuration) -> Vec<Drift> {
    let Some(listed) = seen.firmware.known().filter(|_| !machine.upkeep.firmware.is_empty()) else { return Vec::new() };
    let wrong = machine.upkeep.firmware.iter().filter_map(|(name, version)| {
        let mut versions = listed.iter().filter(|own| own.name.trim().eq_ignore_ascii_case(name.trim())).map(|own| own.version.trim());
        let others: Vec<&str> = versions.clone().filter(|own| *own != version.trim()).collect();
        let observed = match versions.next() {
            None => "not in the BMC's list".to_owned(),
            Some(_) if others.is_empty() => return None,
            Some(_) => others.join(", "),
        };
        Some(differs(Some(DriftClass::Firmware), &format!("spec.firmware.{name}"), version.clone(), observed, &seen.source, age))
    });
    wrong.collect()
}

/// A boot override that is in force while no install of ours needs it. What was seen before the last one ended says nothing.
fn boot_override<'a>(history: &MachineHistory, seen: &'a Observation) -> Option<&'a BootOverride> {
    let found = seen.boot_override.known()?;
    let is = |text: &str, word: &str| text.eq_ignore_ascii_case(word);
    let in_force = !is(&found.enabled, "Disabled") && !is(&found.target, "None") && !found.target.trim().is_empty();
    let ended = history.attempts.last().map(|attempt| attempt.end.as_ref().map(|(at, _)| *at));
    let settled = ended.is_none_or(|end| end.is_some_and(|end| end < seen.at));
    (in_force && settled).then_some(found)
}

fn in_words(found: &BootOverride) -> String {
    format!("{} ({})", found.target, found.enabled)
}

/// Whether an override is ours to take back: one for each boot, whoever set it, or one that an attempt of ours left. What somebody set
/// for the next boot alone ends with that boot, and is theirs.
fn is_taken_back(history: &MachineHistory, found: &BootOverride) -> bool {
    let left = history.attempts.last().is_some_and(|last| !last.wrote() && last.reached(Rung::BootSet).is_some());
    found.enabled.eq_ignore_ascii_case("Continuous") || (left && found.target.eq_ignore_ascii_case("Pxe"))
}

/// Plans to take back a boot override, for a machine for which nothing else is planned.
pub(super) fn settle_boot(input: &Input<'_>, case: &Case<'_>, history: &MachineHistory, part: &mut MachinePlan) {
    let correct = input.fleet.settings.drift.boot == DriftPolicy::Correct;
    let Some(seen) = case.seen.filter(|_| correct && !case.machine.suspend) else { return };
    let found = boot_override(history, seen).filter(|found| is_taken_back(history, found));
    let Some(found) = found else { return };
    let last = history.corrections.iter().rev().find(|(_, action)| *action == Action::ClearBootOverride).map(|(at, _)| *at);
    // BMCs take settings over in steps, and firmware once more when it boots.
    let settles = last.map(|last| after(last, input.deadlines.power_settle)).filter(|until| input.now < *until);
    if let Some(until) = machine::resting(input, history).or(settles) {
        part.waiting = Some(Waiting { why: format!("boot override is {}, taken back not before", in_words(found)), until: Some(until) });
        return;
    }
    let obstacles = machine::obstacles(input, case);
    if !obstacles.is_empty() {
        part.held.extend(obstacles);
    } else if let Some(damped) = damping::held(input, history, &Action::ClearBootOverride) {
        damping::hold(part, damped);
    } else {
        let reason = Reason::BootDrift { observed: in_words(found) };
        part.steps.push(Step { machine: part.name.clone(), action: Action::ClearBootOverride, reason });
    }
}
