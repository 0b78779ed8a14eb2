//! What is put right without a commit: only what the Fleet allows, nothing that destroys, and not for ever.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::sync::Arc;

use plan_world::*;
use proptest::prelude::*;
use rackwright::{model::*, plan::check};

#[derive(Debug, Clone)]
enum Op {
    Off(usize),
    On(usize),
    Override(usize, u8),
    Disks(usize, bool),
    Stubborn(usize, bool),
    Obeys(usize, u8),
    Declare(usize, u8),
    Policy(u8, u8),
    Damping(u32, u8),
    Tick(u64),
    Turn,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..2usize;
    prop_oneof![
        3 => which.clone().prop_map(Op::Off),
        1 => which.clone().prop_map(Op::On),
        3 => (which.clone(), 0..4u8).prop_map(|(m, what)| Op::Override(m, what)),
        1 => (which.clone(), any::<bool>()).prop_map(|(m, there)| Op::Disks(m, there)),
        1 => (which.clone(), any::<bool>()).prop_map(|(m, on)| Op::Stubborn(m, on)),
        1 => (which.clone(), 0..4u8).prop_map(|(m, how)| Op::Obeys(m, how)),
        1 => (which, 0..3u8).prop_map(|(m, power)| Op::Declare(m, power)),
        2 => (0..2u8, 0..3u8).prop_map(|(class, policy)| Op::Policy(class, policy)),
        1 => (1..4u32, 1..5u8).prop_map(|(times, hours)| Op::Damping(times, hours)),
        4 => (1..2000u64).prop_map(Op::Tick),
        8 => Just(Op::Turn),
        1 => Just(Op::Crash),
    ]
}

fn names() -> [MachineName; 2] {
    [name("m-0"), name("m-1")]
}

fn world() -> World {
    let mut world = World::new();
    for (number, name) in names().iter().enumerate() {
        world.add(Machine { install: Some(install("v1", None, 0)), ..machine(name.as_str(), number as u8 + 1) });
    }
    world.turn(false);
    world
}

fn apply(world: &mut World, op: &Op, given: &mut Vec<(Timestamp, MachineName, Action)>) {
    let all = [DriftPolicy::Observe, DriftPolicy::Alert, DriftPolicy::Correct];
    match op {
        Op::Off(which) => world.iron.get_mut(&names()[*which]).unwrap().power = PowerState::Off,
        Op::On(which) => world.iron.get_mut(&names()[*which]).unwrap().power = PowerState::On,
        Op::Override(which, what) => {
            let forms = [None, Some(("Pxe", "Continuous")), Some(("Hdd", "Continuous")), Some(("BiosSetup", "Once"))];
            let found = forms[usize::from(*what)].map(|(target, enabled)| (target.to_owned(), enabled.to_owned()));
            world.iron.get_mut(&names()[*which]).unwrap().boot_override = found;
        }
        Op::Disks(which, there) => {
            let serial = if *there { format!("DISK-{}", names()[*which]) } else { "ANOTHER".to_owned() };
            let disk = ObservedDisk { serial: Some(serial), ..ObservedDisk::default() };
            world.iron.get_mut(&names()[*which]).unwrap().disks = Some(vec![disk]);
        }
        Op::Stubborn(which, on) => world.iron.get_mut(&names()[*which]).unwrap().stubborn = *on,
        Op::Obeys(which, how) => {
            let how = [Obeys::Yes, Obeys::SaysSo, Obeys::Fails(RetryClass::Wait), Obeys::Fails(RetryClass::Stalled)][usize::from(*how)];
            world.iron.get_mut(&names()[*which]).unwrap().obeys = how;
        }
        Op::Declare(which, power) => {
            world.commit("power");
            let power = [PowerIntent::On, PowerIntent::Off, PowerIntent::Unmanaged][usize::from(*power)];
            Arc::make_mut(world.fleet.machines.get_mut(&names()[*which]).unwrap()).power = power;
        }
        Op::Policy(0, policy) => world.fleet.settings.drift.power = all[usize::from(*policy)],
        Op::Policy(_, policy) => world.fleet.settings.drift.boot = all[usize::from(*policy)],
        Op::Damping(corrections, hours) => {
            world.fleet.settings.drift.damping =
                Damping { corrections: *corrections, within: SignedDuration::from_hours(i64::from(*hours)) };
        }
        Op::Tick(seconds) => world.tick(*seconds),
        Op::Turn | Op::Crash => {
            let (made, violations) = world.plan();
            assert_eq!(violations, []);
            for step in made.steps() {
                lawful(world, step, given);
            }
            world.turn(matches!(op, Op::Crash));
        }
    }
}

/// The law, as somebody states it who stands beside and counts orders.
fn lawful(world: &World, step: &Step, given: &mut Vec<(Timestamp, MachineName, Action)>) {
    let drift = &world.fleet.settings.drift;
    assert!(step.risk() < Risk::Destructive, "drift wipes: {step:?}");
    if step.risk() < Risk::Settings {
        return;
    }
    let policy = if step.action == Action::ClearBootOverride { drift.boot } else { drift.power };
    assert_eq!(policy, DriftPolicy::Correct, "{step:?}");
    assert!(
        step.action == Action::PowerOn || world.fleet.machines[&step.machine].power != PowerIntent::On || step.risk() < Risk::Disruptive
    );
    let same = given.iter().rev().filter(|(_, machine, action)| *machine == step.machine && *action == step.action);
    let opposite = given.iter().rev().find(|(_, machine, action)| {
        *machine == step.machine && *action != step.action && action.changes_power() && step.action.changes_power()
    });
    let since = opposite.map_or(Timestamp::MIN, |(at, _, _)| *at);
    let recent = same.filter(|(at, _, _)| *at > since && world.now.duration_since(*at) < drift.damping.within).count();
    assert!(recent < drift.damping.corrections as usize, "{step:?} for the {}th time within {:?}", recent + 1, drift.damping.within);
    given.push((world.now, step.machine.clone(), step.action.clone()));
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn drift_wipes_nothing_and_is_put_right_only_where_and_as_often_as_the_fleet_says(ops in prop::collection::vec(op(), 1..120)) {
        let (mut world, mut given) = (world(), Vec::new());
        for op in &ops {
            apply(&mut world, op, &mut given);
        }
    }
}

/// What a planner would make that forgot the policy, the count, or what was seen.
#[test]
fn the_checker_reads_corrections_anew() {
    let mut world = world();
    world.fleet.settings.drift.boot = DriftPolicy::Correct;
    let with = |world: &World, action: Action, reason: Reason| {
        let mut made = world.plan().0;
        made.machines.get_mut(&name("m-0")).unwrap().steps = vec![Step { machine: name("m-0"), action, reason }];
        world.with_input(|input| check(&made, input)).iter().map(|violation| violation.law).collect::<Vec<u8>>()
    };
    let boot = || Reason::BootDrift { observed: "Hdd (Continuous)".to_owned() };
    let power = || Reason::PowerDrift { observed: PowerState::Off };
    assert_eq!(with(&world, Action::ClearBootOverride, boot()), [1], "none was seen");
    world.iron.get_mut(&name("m-0")).unwrap().boot_override = Some(("Hdd".to_owned(), "Continuous".to_owned()));
    assert_eq!(with(&world, Action::ClearBootOverride, boot()), [0_u8; 0]);
    assert_eq!(with(&world, Action::ClearBootOverride, Reason::NewMachine), [1], "no drift is named");
    assert_eq!(with(&world, Action::PowerOff { force: false }, boot()), [1, 1], "a boot override is no reason to switch off");
    world.fleet.settings.drift.boot = DriftPolicy::Alert;
    assert_eq!(with(&world, Action::ClearBootOverride, boot()), [1], "the Fleet says to let it be");
    world.fleet.settings.drift.boot = DriftPolicy::Correct;
    world.iron.get_mut(&name("m-0")).unwrap().boot_override = Some(("Hdd".to_owned(), "Once".to_owned()));
    assert_eq!(with(&world, Action::ClearBootOverride, boot()), [1], "it ends by itself, and is somebody's");

    world.iron.get_mut(&name("m-0")).unwrap().power = PowerState::Off;
    assert_eq!(with(&world, Action::PowerOn, power()), [0_u8; 0]);
    world.fleet.settings.drift.power = DriftPolicy::Observe;
    assert_eq!(with(&world, Action::PowerOn, power()), [1]);
    world.fleet.settings.drift.power = DriftPolicy::Correct;
    for _ in 0..3 {
        world.turn(false);
        world.iron.get_mut(&name("m-0")).unwrap().power = PowerState::Off;
        world.tick(400);
    }
    assert_eq!(with(&world, Action::PowerOn, power()), [7], "three times within an hour");
    world.tick(3000);
    assert_eq!(with(&world, Action::PowerOn, power()), [0_u8; 0]);
}
