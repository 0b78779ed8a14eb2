//! Whether everybody arrived once faults had stopped: each machine is as its manifest says, or a law holds it, and somebody who stands
//! beside can tell that it is right to.

use rackwright::model::*;

use crate::{
    metal::{Body, Content, Power, Runs},
    repo::Pushed,
    world::World,
};

pub fn check(world: &mut World) {
    let newest = &world.site.repo.commits[world.site.repo.newest()];
    let refused = !newest.problems.is_empty() && !newest.let_through;
    let Some(force) = world.force() else {
        // Started on a malformed commit, with nothing before it: nothing can be done.
        if !refused {
            world.site.breaks(0, "no commit is in force".to_owned());
        }
        return;
    };
    let found: Vec<String> = force.fleet.machines.values().filter_map(|machine| stuck(world, force, machine)).collect();
    let taken = newest.commit.id == force.commit.id || refused;
    let plan = world.controller.as_ref().and_then(|controller| controller.plan.as_ref());
    let steps = plan.map_or(0, |plan| plan.steps().count());
    if let Some(first) = found.first() {
        world.site.breaks(0, first.clone());
    } else if !taken {
        world.site.breaks(0, "the newest commit is not in force".to_owned());
    } else if steps > 0 {
        world.site.breaks(0, "at rest, and something is still to be done".to_owned());
    }
}

/// Why a machine is neither as declared nor rightly held.
fn stuck(world: &World, force: &Pushed, machine: &Machine) -> Option<String> {
    let name = &machine.name;
    let body = *force.meant.get(name)?;
    let stands = &world.site.bodies[body];
    // What ran, and what was half written, when the journal was lost or the machine left the fleet, nobody can know.
    let forgotten = world.site.bystander.is_forgotten(body);
    let bystander = &world.site.bystander;
    // Configuration alone may wait for the next install; what an earlier commit let pass, too.
    let waits = world.plan_of(name).is_some_and(|part| part.next_install) && bystander.differs_in_configuration(body, machine);
    let whole = forgotten || stands.system().content != Content::Partial;
    let holds = whole && (waits || bystander.holds.get(&body) == machine.generation().as_ref());
    let runs = matches!(stands.runs, Runs::System(_)) || forgotten;
    let power = match machine.power {
        _ if force.fleet.settings.drift.power != DriftPolicy::Correct => true,
        PowerIntent::On => stands.power == Power::On && runs,
        PowerIntent::Off => stands.power == Power::Off,
        PowerIntent::Unmanaged => true,
    };
    if holds && power && !world.site.bystander.is_open(body) {
        return None;
    }
    let part = world.plan_of(name)?;
    // Observed only; or seen through the BMC of another machine, which is shown.
    if machine.suspend || world.site.bystander.confused.contains(&body) || (is_wrong(machine, stands, body) && !part.drift.is_empty()) {
        return None;
    }
    if part.held.iter().any(|held| rightly(world, force, machine, body, held)) {
        return None;
    }
    // A commit with errors begins nothing, whatever else it says.
    if !force.problems.is_empty() {
        return None;
    }
    let (content, power, runs) = (&stands.system().content, stands.power, &stands.runs);
    let waits = part.waiting.as_ref().map(|waiting| waiting.why.clone());
    Some(format!(
        "{name} (machine {body}) does not arrive: it is {power:?}, runs {runs:?}, holds {content:?}, held {:?}, waits {waits:?}",
        part.held
    ))
}

/// Whether something in a manifest is not true of the machine that it means.
fn is_wrong(machine: &Machine, stands: &Body, body: usize) -> bool {
    machine.identity.serial.as_ref().is_some_and(|serial| *serial != stands.serial)
        || machine.identity.uuid.as_ref().is_some_and(|uuid| *uuid != stands.uuid)
        || machine.nics.iter().all(|nic| nic.mac != stands.mac)
        || crate::repo::body_at(&machine.bmc.address) != Some(body)
}

/// Whether what is said to hold a machine does, as far as somebody can tell who does not know the planner.
fn rightly(world: &World, force: &Pushed, machine: &Machine, body: usize, held: &Held) -> bool {
    let stands = &world.site.bodies[body];
    let failed = world.site.bystander.failed.contains_key(&body);
    match held {
        Held::Suspended => machine.suspend,
        Held::IdentityMismatch { .. } | Held::Unobserved { .. } => is_wrong(machine, stands, body),
        Held::Incomplete { .. } => machine.disks.system.is_none(),
        Held::Quarantined { .. } => failed,
        Held::Unproved => machine.decommission.is_some() && !world.site.bystander.wiped.contains_key(&body),
        Held::JournalLost => world.site.bystander.lost,
        Held::Breaker { failures, .. } => {
            // Of machines that nobody can tell apart it is not known whether they failed.
            let unclear = |part: &MachinePlan| {
                part.held.iter().any(|held| matches!(held, Held::Unclear { .. } | Held::IdentityMismatch { .. } | Held::Suspended))
            };
            if force.fleet.machines.keys().filter_map(|name| world.plan_of(name)).any(unclear) {
                return true;
            }
            let failed = force.fleet.machines.keys().filter_map(|name| force.meant.get(name));
            *failures as usize <= failed.filter(|body| world.site.bystander.failed.contains_key(*body)).count()
        }
        Held::Budget { wanted, allowed, .. } => wanted > allowed && force.fleet.settings.budgets.max_destructive.count == *allowed,
        // Somebody is in the way, and stays there because a law holds it or because nobody is to switch it on; that may be the machine itself,
        // where it is off and one that it comes after waits for its rack.
        Held::Unavailable { .. } | Held::After { .. } => force.fleet.machines.values().any(|other| {
            let away = |held: &Held| !matches!(held, Held::Unavailable { .. } | Held::After { .. });
            let held = world.plan_of(&other.name).is_some_and(|part| part.held.iter().any(away));
            let off = force.meant.get(&other.name).is_some_and(|body| world.site.bodies[*body].power == Power::Off);
            let corrected = force.fleet.settings.drift.power == DriftPolicy::Correct && !other.suspend;
            let wrong = force.meant.get(&other.name).is_some_and(|body| is_wrong(other, &world.site.bodies[*body], *body));
            // The breaker of a group that goes first may be open.
            let failed = force.meant.get(&other.name).is_some_and(|body| world.site.bystander.failed.contains_key(body));
            held || wrong || failed || (off && other.power == PowerIntent::On && !corrected)
        }),
        // It is tried again by itself, and no sooner.
        Held::Damped { .. } => force.fleet.settings.drift.power == DriftPolicy::Correct,
        Held::Unclear { .. } => true,
        // None of this is in these histories.
        Held::OnHold { .. }
        | Held::BrakeUnreadable { .. }
        | Held::Window { .. }
        | Held::Frozen { .. }
        | Held::Paused { .. }
        | Held::Wave { .. }
        | Held::Handoff { .. }
        | Held::ConfigurationUnclear { .. }
        | Held::Unlawful { .. } => false,
    }
}
