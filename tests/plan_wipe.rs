//! The second reader of plans, given what the planner would not make of `decommission`; and what never wipes.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::sync::Arc;

use plan_world::*;
use rackwright::{
    model::*,
    plan::{check, plan, render_text},
};

fn edit(world: &mut World, text: &str, change: impl FnOnce(&mut Machine)) {
    world.commit("edit");
    change(Arc::make_mut(world.fleet.machines.get_mut(&name(text)).unwrap()));
}

fn out_of_service(machine: &mut Machine) {
    machine.disks.keep = vec![DiskHint { serial: Some("KEEP".to_owned()), ..DiskHint::default() }];
    decommission(machine, WipeMethod::Zero, WipeDisks::System, 0);
}

/// `m-1` is to be wiped, `m-2` runs.
fn world() -> World {
    let mut world = World::new();
    world.fleet.settings.budgets.max_unavailable = Amount::Count(2);
    world.fleet.settings.budgets.max_destructive = Destructive { count: 9, share: 100 };
    for number in 1..=2 {
        world.add(Machine { install: Some(install("v1", None, 0)), ..machine(&format!("m-{number}"), number) });
    }
    world.turn(false);
    edit(&mut world, "m-1", out_of_service);
    world
}

/// The same, with the wipe on its way up to this rung.
fn on_its_way(rung: Rung) -> World {
    let mut world = world();
    for _ in 0..8 {
        world.turn(false);
    }
    world.reach(&name("m-1"), rung);
    world.tick(1);
    world
}

fn rejected(what: &str, law: u8, world: &World, change: impl FnOnce(&mut Plan)) {
    world.with_input(|input| {
        let mut made = plan(input);
        assert_eq!(check(&made, input), [], "{what}: before");
        change(&mut made);
        let found = check(&made, input);
        assert!(found.iter().any(|violation| violation.law == law), "{what} is not noticed: {found:?}");
    });
}

fn put(machine: &'static str, action: Action, reason: Reason) -> impl FnOnce(&mut Plan) {
    move |made| made.machines.get_mut(&name(machine)).unwrap().steps = vec![Step { machine: name(machine), action, reason }]
}

fn begin(machine: &'static str, generation: Generation) -> impl FnOnce(&mut Plan) {
    let attempt = AttemptId { machine: name(machine), number: 1 };
    put(machine, Action::BeginAttempt { attempt, generation }, Reason::Decommissioned)
}

#[test]
fn the_checker_rejects_a_wipe_that_no_manifest_orders() {
    let world = world();
    let generation = world.fleet.machines[&name("m-1")].generation().unwrap();
    rejected("a wipe of a machine that stays", 3, &world, begin("m-2", generation));
    rejected("an install of one that goes", 3, &world, begin("m-1", install("v2", None, 0).generation));
    let drift = Reason::PowerDrift { observed: PowerState::On };
    rejected("switching off before it is wiped", 3, &world, put("m-1", Action::PowerOff { force: false }, drift));
    let mut nameless = world.clone();
    edit(&mut nameless, "m-1", |machine| {
        machine.disks.system = None;
        decommission(machine, WipeMethod::Zero, WipeDisks::System, 0);
    });
    rejected("a wipe of a disk that is not stated", 6, &nameless, begin("m-1", generation));
    edit(&mut nameless, "m-1", |machine| decommission(machine, WipeMethod::Zero, WipeDisks::These(vec![DiskHint::default()]), 0));
    let hints = nameless.fleet.machines[&name("m-1")].generation().unwrap();
    rejected("a wipe by a hint that says nothing", 6, &nameless, begin("m-1", hints));
}

#[test]
fn the_checker_rejects_a_ticket_for_other_disks_or_another_method() {
    let world = on_its_way(Rung::AgentUp);
    let change = |change: fn(&mut WipeOrder)| {
        move |made: &mut Plan| match &mut made.machines.get_mut(&name("m-1")).unwrap().ticket.as_mut().unwrap().work {
            Work::Wipe(order) => change(order),
            Work::Install { .. } => unreachable!(),
        }
    };
    rejected("all disks instead of one", 6, &world, change(|order| order.targets = Targets::All));
    rejected("another disk", 6, &world, change(|order| order.targets = Targets::Each(vec![DiskHint::default()])));
    rejected("another method", 6, &world, change(|order| order.method = WipeMethod::Signatures));
    rejected("nothing to keep", 6, &world, |made| made.machines.get_mut(&name("m-1")).unwrap().ticket.as_mut().unwrap().keep.clear());
    rejected("an install under a wipe's attempt", 6, &world, |made| {
        let work = Work::Install { install: Box::new(install("v1", None, 0)), system: DiskHint::default() };
        made.machines.get_mut(&name("m-1")).unwrap().ticket.as_mut().unwrap().work = work;
    });
}

#[test]
fn the_checker_rejects_switching_off_a_machine_that_wipes() {
    let off = |force| put("m-1", Action::PowerOff { force }, Reason::PartOf { attempt: AttemptId { machine: name("m-1"), number: 1 } });
    rejected("in the middle of a wipe", 10, &on_its_way(Rung::Writing), off(true));
    let mut proved = on_its_way(Rung::Writing);
    proved.iron.get_mut(&name("m-1")).unwrap().stubborn = true;
    proved.reach(&name("m-1"), Rung::Written);
    proved.tick(90);
    let (made, violations) = proved.plan();
    assert_eq!(violations, []);
    assert_eq!(made.machines[&name("m-1")].steps[0].action, Action::PowerOff { force: true }, "{}", render_text(&made));
}

/// Law 3: whatever state a wipe is in, removing the manifest begins nothing and gives no order.
#[test]
fn deleting_the_manifest_never_wipes_and_never_switches_off() {
    for rung in [Rung::DhcpSeen, Rung::AgentUp, Rung::Writing, Rung::Written] {
        let mut world = on_its_way(rung);
        world.commit("remove");
        world.fleet.machines.remove(&name("m-1"));
        for _ in 0..6 {
            let (made, violations) = world.turn(false);
            assert_eq!(violations, []);
            let mut steps = made.steps().filter(|step| step.machine == name("m-1"));
            assert!(steps.all(|step| step.risk() == Risk::None), "{rung}: {}", render_text(&made));
        }
        // What was being written is finished; all else is over.
        assert_eq!(world.history.machines.contains_key(&name("m-1")), rung == Rung::Writing, "{rung}");
    }
}

/// A wipe is not what the machine was adopted with: without `decommission` it has to be installed, and is never taken as it is.
#[test]
fn a_wiped_machine_is_not_adopted_as_installed() {
    let mut world = on_its_way(Rung::Written);
    for _ in 0..4 {
        world.turn(false);
    }
    edit(&mut world, "m-1", |machine| {
        (machine.decommission, machine.install, machine.power) = (None, Some(install("v1", None, 0)), PowerIntent::On);
    });
    let (made, violations) = world.plan();
    assert_eq!(violations, []);
    let begun = made.machines[&name("m-1")]
        .steps
        .iter()
        .any(|step| matches!(step.action, Action::BeginAttempt { generation, .. } if !generation.is_wipe()));
    assert!(begun, "{}", render_text(&made));
}
