//! One machine's part of the plan.

use super::{
    Case, Input, drift, gates,
    groups::Groups,
    identity, later,
    names::{Names, Standing},
    power,
    reimage::{Facts, Next, Reimage, next},
    wipe,
    wish::Wish,
};
use crate::model::{
    Action, Attempt, AttemptEnd, AttemptId, Brake, DiskHint, Held, Machine, MachineHistory, MachineName, MachinePlan, OnClaim, Reason,
    Reimaging, Rung, Seen, Step, Ticket, Timestamp, Unknown, Waiting, WipeDisks,
};

/// The part of a machine of the fleet.
pub(super) fn plan<'a>(input: &Input<'a>, groups: &mut Groups<'a>, case: &Case<'a>) -> MachinePlan {
    let machine = case.machine;
    let mut part = blank(&machine.name);
    part.group = groups.rollout(case.group).cloned();
    part.source = format!("{}:{}", machine.source.file, machine.source.line);
    part.desired = machine.generation();
    part.installed = case.history.and_then(|history| history.installed);
    part.attempt = case.history.and_then(|history| history.attempts.last()).map(|attempt| attempt.id.clone());
    part.drift = drift::of(input, case);
    part.next_install = later::waits(case);
    if let Some(reason) = case.wish.reason() {
        part.reimage = reimaging(machine, reason.clone());
    }
    let attempt = case.history.and_then(MachineHistory::open_attempt);
    match (case.standing, case.history) {
        (Some(Standing::Renamed(from)), _) => rename(case, from, &mut part),
        (Some(standing @ (Standing::Displaced { .. } | Standing::Unclear(_))), _) => unsettled(input, standing, &mut part),
        (Some(Standing::Replaced), Some(history)) => wind_up(input, history, "another machine has its name", &mut part),
        (Some(Standing::Changed), Some(_)) if attempt.is_none() => note_hardware(groups, case, &mut part),
        (_, None) => claim(input, groups, case, &mut part),
        (_, Some(history)) => match attempt {
            Some(attempt) => go_on(input, case, history, attempt, &mut part),
            None => settle(input, groups, case, history, &mut part),
        },
    }
    hold_back(input.brake, case.hold.clone(), &mut part);
    part
}

/// Takes from a machine on hold what would be begun. What is merely noted goes on, except for what would take the machine from a name by
/// which it is held.
fn hold_back(brake: &Brake, hold: Option<Held>, part: &mut MachinePlan) {
    let Some(hold) = hold else { return };
    let own = brake.names(&part.name);
    part.steps.retain(|step| match &step.action {
        Action::BeginAttempt { .. } | Action::PowerOn | Action::PowerOff { .. } => false,
        Action::BootFromNetwork { .. } | Action::ClearBootOverride => false,
        Action::Release => !own,
        Action::Rename { from } => !own && !brake.names(from),
        Action::Claim { .. } | Action::NoteHardware { .. } | Action::NoteConfiguration { .. } => true,
        Action::Witness { .. } | Action::EndAttempt { .. } => true,
    });
    if !part.held.contains(&hold) {
        part.held.insert(0, hold);
    }
}

/// Why nobody may lay a hand on a machine.
pub(super) fn obstacles(input: &Input<'_>, case: &Case<'_>) -> Vec<Held> {
    let known = identity::obstacles(case.machine, case.seen, input.now, &input.deadlines);
    case.hold.clone().into_iter().chain(known).collect()
}

/// The part of a machine that only the journal knows: it left the fleet. It is never powered or wiped (law 3).
pub(super) fn left(input: &Input<'_>, names: &Names<'_>, name: &MachineName, history: &MachineHistory) -> MachinePlan {
    let mut part = blank(name);
    part.installed = history.installed;
    part.attempt = history.attempts.last().map(|attempt| attempt.id.clone());
    let wait = |why: &str| Some(Waiting { why: why.to_owned(), until: None });
    if input.problems.iter().any(crate::model::Problem::is_error) {
        part.waiting = wait("it is missing from a commit that has errors, which is not a deletion");
    } else if history.open_attempt().is_some() {
        wind_up(input, history, "it left the fleet", &mut part);
    } else if names.wants(name) {
        part.waiting = wait("the same hardware is in the fleet under another name");
    } else {
        part.steps.push(step(name, Action::Release, Reason::LeftTheFleet));
    }
    hold_back(input.brake, input.brake.on(name, None), &mut part);
    part
}

/// An attempt of a machine that is no longer what the fleet means by this name: a write in progress is told out, all else ends.
fn wind_up(input: &Input<'_>, history: &MachineHistory, why: &str, part: &mut MachinePlan) {
    let Some(attempt) = history.open_attempt() else { return };
    let former = input.former.and_then(|fleet| fleet.machines.get(&part.name)).filter(|_| attempt.wrote());
    part.ticket = former.and_then(|machine| ticket(input, machine, attempt));
    // By this name there may be another machine now, and the gates of this one can't be looked at any more: it is not noted as healthy.
    let named = [former, input.fleet.machines.get(&part.name)].into_iter().flatten().find(|machine| !machine.gates.is_empty());
    let gates = gates::unknown(named.map_or(&[], |machine| &machine.gates));
    let facts = Facts { wanted: false, hands_off: Some(why), gates: &gates, ..facts(input, history, attempt) };
    let facts = Facts { mode: former.map(|m| m.boot.mode).unwrap_or_default(), ..facts };
    let power = Seen::Unknown(Unknown::NotAsked);
    follow(part, attempt, next(input.now, &Reimage::of(attempt), &power, &facts));
}

/// A name of which it is not settled yet whose it is. An install of the machine that had it before ends first.
fn unsettled(input: &Input<'_>, standing: Standing<'_>, part: &mut MachinePlan) {
    if let Some(before) = input.history.machines.get(&part.name).filter(|before| before.open_attempt().is_some()) {
        return wind_up(input, before, "its name or its hardware changed", part);
    }
    part.held.extend(standing.held());
    if let Standing::Displaced { to, .. } = standing {
        part.waiting = Some(Waiting { why: format!("the machine that had this name is noted as {to} first"), until: None });
    }
}

/// The same machine with another serial, UUID or MAC in its manifest: the journal learns it before anything else is done, so that a
/// later rename is not taken for a new machine.
fn note_hardware<'a>(groups: &Groups<'a>, case: &Case<'a>, part: &mut MachinePlan) {
    if part.reimage.is_some() {
        part.held.extend(groups.against(case.group));
    }
    let hardware = identity::hardware(case.machine);
    part.steps.push(step(&case.machine.name, Action::NoteHardware { hardware }, Reason::HardwareChanged));
}

fn blank(name: &MachineName) -> MachinePlan {
    MachinePlan {
        name: name.clone(),
        group: None,
        source: String::new(),
        drift: Vec::new(),
        steps: Vec::new(),
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

fn step(machine: &MachineName, action: Action, reason: Reason) -> Step {
    Step { machine: machine.clone(), action, reason }
}

/// A machine that is seen for the first time (law 5). Claiming only notes something, so it needs no observation; a machine that is
/// known to be another one is not claimed.
///
/// A machine that takes another one's name must have shown that it is there: else a mistyped serial number and its correction would
/// be two new machines.
fn claim<'a>(input: &Input<'a>, groups: &Groups<'a>, case: &Case<'a>, part: &mut MachinePlan) {
    let machine = case.machine;
    let replaced = case.standing == Some(Standing::Replaced);
    if replaced && input.problems.iter().any(crate::model::Problem::is_error) {
        part.waiting =
            Some(Waiting { why: "the commit has errors, so the machine that had this name is not forgotten".to_owned(), until: None });
        return;
    }
    if replaced {
        part.held.extend(obstacles(input, case));
    } else {
        part.held.extend(identity::mismatch(machine, case.seen));
    }
    if !part.held.is_empty() {
        return;
    }
    let installed = match machine.on_claim {
        OnClaim::Adopt => machine.generation(),
        OnClaim::Install if input.history.lost => {
            part.held.push(Held::JournalLost);
            return;
        }
        OnClaim::Install => None,
    };
    if part.reimage.is_some() {
        // For a reviewer: what will stand against the install that follows the claim.
        part.held.extend(groups.against(case.group));
        part.held.extend(case.missing.iter().cloned());
    }
    if machine.decommission.is_some() && installed.is_some() {
        part.held.push(Held::Unproved);
    }
    let reason = if replaced { Reason::Replaced } else { Reason::NewMachine };
    part.steps.push(step(&machine.name, Action::Claim { installed }, reason));
}

/// A machine that had another name (law 4). An attempt under that name ends first: its ticket and its evidence carry the name.
fn rename(case: &Case<'_>, from: &MachineName, part: &mut MachinePlan) {
    if case.open {
        part.waiting = Some(Waiting { why: format!("an install that began as {from} ends first"), until: None });
    } else {
        part.steps.push(step(&case.machine.name, Action::Rename { from: from.clone() }, Reason::SameHardware));
    }
}

/// A machine with an attempt on its way.
fn go_on(input: &Input<'_>, case: &Case<'_>, history: &MachineHistory, attempt: &Attempt, part: &mut MachinePlan) {
    let machine = case.machine;
    let same = machine.generation() == Some(attempt.generation) || later::is_wanted_but_for_configuration(machine, history, attempt);
    part.steps.extend(later::note_attempt(input, machine, history, attempt).or_else(|| later::note(input, case, history)));
    let own = ticket(input, machine, attempt);
    // What the manifest does not say any more (a disk, an interface) is not taken from an earlier commit (law 6), unless the write that
    // it asked for is on its way.
    let complete = !machine.suspend && case.hold.is_none() && incomplete(machine).is_empty() && own.is_some();
    // Nor is it begun to write for what may wait.
    let asked = case.wish != Wish::Adopt && (attempt.wrote() || !later::waits(case));
    let wanted = same && asked && ((complete && case.missing.is_empty()) || attempt.wrote());
    let former = || input.former.and_then(|fleet| fleet.machines.get(&machine.name)).filter(|_| attempt.wrote());
    part.ticket = own.or_else(|| ticket(input, former()?, attempt));
    if same && (part.reimage.is_none() || attempt.wrote()) {
        part.reimage = reimaging(machine, Reason::PartOf { attempt: attempt.id.clone() });
    }
    let obstacles = obstacles(input, case);
    // Law 8, as soon as it is known and while nothing is written. The agent checks the same on the machine itself.
    let stranger = obstacles.iter().find(|held| matches!(held, Held::IdentityMismatch { .. })).filter(|_| !attempt.wrote());
    if let Some(stranger) = stranger {
        let end = AttemptEnd::Failed { code: "identity".to_owned(), why: stranger.to_string(), retry: false };
        let end = if wanted { end } else { AttemptEnd::Superseded };
        let action = Action::EndAttempt { attempt: attempt.id.clone(), end };
        part.steps.push(step(&part.name, action, Reason::PartOf { attempt: attempt.id.clone() }));
        part.held.extend(obstacles);
        return;
    }
    let hands_off = obstacles.first().map(ToString::to_string);
    let (gates, mode) = (gates::look(input, machine, attempt), machine.boot.mode);
    let facts = Facts { wanted, hands_off: hands_off.as_deref(), mode, gates: &gates, ..facts(input, history, attempt) };
    let state = Reimage::of(attempt);
    let since = state.since().max(history.power_changed);
    let power = match identity::power(case.seen, since, input.now, &input.deadlines) {
        Ok(power) => Seen::Known(power),
        Err(why) => Seen::Unknown(why),
    };
    follow(part, attempt, next(input.now, &state, &power, &facts));
    part.held.extend(case.missing.iter().filter(|_| same && !attempt.wrote()).cloned());
    part.held.extend(obstacles.into_iter().filter(|_| part.waiting.is_some() && state.rung() < Some(Rung::PowerSeen)));
}

fn facts<'a>(input: &'a Input<'_>, history: &'a MachineHistory, attempt: &'a Attempt) -> Facts<'a> {
    let (alive, mode) = (input.alive.get(&attempt.id).copied(), crate::model::BootMode::default());
    let last = history.last.as_ref();
    Facts { attempt, wanted: true, last, alive, hands_off: None, mode, gates: &[], deadlines: &input.deadlines }
}

fn follow(part: &mut MachinePlan, attempt: &Attempt, next: Next) {
    part.waiting = next.waiting;
    if let Some(action) = next.action {
        part.steps.push(step(&part.name, action, Reason::PartOf { attempt: attempt.id.clone() }));
    }
}

/// A claimed machine without an open attempt: adopt an image, begin an install, or correct its power.
fn settle<'a>(input: &Input<'a>, groups: &mut Groups<'a>, case: &Case<'a>, history: &MachineHistory, part: &mut MachinePlan) {
    match &case.wish {
        Wish::Adopt => part.steps.push(step(&part.name, Action::Claim { installed: part.desired }, Reason::NewMachine)),
        Wish::Later(reason, until) => {
            part.waiting = Some(Waiting { why: format!("{reason}: waits before it"), until: Some(*until) });
        }
        Wish::Install(reason) => begin(input, groups, case, history, reason, part),
        Wish::Quarantine(held) | Wish::Unclear(held) => part.held.push(held.clone()),
        Wish::Nothing => {
            part.held.extend(wipe::unproved(case.machine, history));
            part.steps.extend(later::note(input, case, history));
        }
    }
    if part.steps.is_empty() && !matches!(case.wish, Wish::Later(..)) {
        power::settle(input, groups, case, history, part);
    }
    if part.steps.is_empty() && part.waiting.is_none() && part.held.is_empty() {
        drift::settle_boot(input, case, history, part);
    }
}

/// Begins an install, or says everything that stands against it.
fn begin<'a>(
    input: &Input<'a>,
    groups: &mut Groups<'a>,
    case: &Case<'a>,
    history: &MachineHistory,
    reason: &Reason,
    part: &mut MachinePlan,
) {
    let machine = case.machine;
    let Some(generation) = machine.generation() else { return };
    let mut held = obstacles(input, case);
    held.extend(incomplete(machine));
    if input.history.lost && *reason == Reason::InstallOnClaim {
        held.push(Held::JournalLost);
    }
    held.extend(groups.against(case.group));
    held.extend(case.missing.iter().cloned());
    if input.problems.iter().any(crate::model::Problem::is_error) {
        part.waiting = Some(Waiting { why: "the commit has errors, so nothing is begun".to_owned(), until: None });
    } else if let Some(until) = resting(input, history) {
        part.waiting = Some(Waiting { why: "the last command to its BMC failed".to_owned(), until: Some(until) });
    } else if held.is_empty() {
        match groups.take(case) {
            Ok(()) => {
                let attempt = AttemptId { machine: machine.name.clone(), number: history.next_attempt() };
                part.steps.push(step(&machine.name, Action::BeginAttempt { attempt, generation }, reason.clone()));
            }
            Err(full) => held.push(full),
        }
    }
    part.held.extend(held);
}

/// What a manifest must say before a machine can be installed (law 6).
fn incomplete(machine: &Machine) -> Vec<Held> {
    let missing = |field: &str| Held::Incomplete { field: field.to_owned() };
    let mut held = Vec::new();
    match &machine.decommission {
        Some(decommission) if decommission.order(&machine.disks).is_some() => {}
        Some(decommission) if decommission.disks == WipeDisks::System => held.push(missing("spec.disks.system")),
        Some(_) => held.push(missing("spec.decommission.disks")),
        None if machine.disks.system.as_ref().is_none_or(|hint| *hint == DiskHint::default()) => held.push(missing("spec.disks.system")),
        None => {}
    }
    match machine.boot_nic() {
        None => held.push(missing("spec.nics")),
        Some(nic) if nic.network.is_none() => held.push(missing("spec.nics[].network")),
        Some(nic) if nic.address.is_none() => held.push(missing("spec.nics[].address")),
        Some(_) => {}
    }
    held
}

/// Until when the machine is left alone after its last command did not succeed.
pub(super) fn resting(input: &Input<'_>, history: &MachineHistory) -> Option<Timestamp> {
    let until = super::waits::rests_until(history.last.as_ref()?, &input.deadlines)?;
    (input.now < until).then_some(until)
}

fn reimaging(machine: &Machine, reason: Reason) -> Option<Box<Reimaging>> {
    if machine.decommission.is_some() {
        return wipe::reimaging(machine, reason);
    }
    let image = machine.install.as_ref()?.image.name.clone();
    let disk = machine.disks.system.as_ref().map_or_else(|| "none stated".to_owned(), ToString::to_string);
    Some(Box::new(Reimaging { reason, image: Some(image), wipe: None, disk }))
}

/// The ticket of an attempt, when `machine` is what the attempt installs or wipes.
fn ticket(input: &Input<'_>, machine: &Machine, attempt: &Attempt) -> Option<Box<Ticket>> {
    let work = machine.work().filter(|work| work.generation() == attempt.generation)?;
    Some(Box::new(Ticket {
        attempt: attempt.id.clone(),
        commit: attempt.commit,
        expires: wipe::expires(attempt, &input.deadlines),
        mac: machine.boot_nic()?.mac,
        serial: machine.identity.serial.clone(),
        uuid: machine.identity.uuid.clone(),
        keep: machine.disks.keep.clone(),
        work,
        evidence: attempt.evidence.iter().map(|(_, evidence)| evidence.clone()).collect(),
    }))
}
