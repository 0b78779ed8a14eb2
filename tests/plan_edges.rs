//! Edges that no story came to until mutants of `plan/` survived there (docs/mutants.md).
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::sync::Arc;

use plan_world::*;
use rackwright::{
    model::*,
    plan::{
        Deadlines,
        reimage::{Facts, Reimage, next},
    },
};

fn at(seconds: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// What is done in a state of which nothing but this is known, at a second after it was reached at 1000.
fn done(state: &Reimage, power: PowerState, last: Option<(i64, Action)>, second: i64) -> Option<Action> {
    let deadlines = Deadlines::default();
    let attempt = Attempt {
        id: AttemptId { machine: name("m-1"), number: 1 },
        commit: CommitId([1; 20]),
        generation: install("v1", None, 0).generation,
        began: at(0),
        seq: 1,
        evidence: vec![],
        reported: None,
        checks: Default::default(),
        end: None,
        basis: None,
    };
    let last = last.map(|(second, action)| (at(second), Step { machine: name("m-1"), action, reason: Reason::NewMachine }, Outcome::Done));
    let mode = BootMode::UEFI;
    let facts = Facts {
        attempt: &attempt,
        wanted: true,
        last: last.as_ref(),
        alive: None,
        hands_off: None,
        mode,
        gates: &[],
        deadlines: &deadlines,
    };
    next(at(second), state, &Seen::Known(power), &facts).action
}

#[test]
fn a_machine_that_was_just_seen_on_is_not_switched_on_until_the_lag_of_its_bmc_is_over() {
    let since = at(1000);
    let network = Some(Action::BootFromNetwork { mode: BootMode::UEFI });
    for state in [Reimage::PowerSeen { since }, Reimage::DhcpSeen { since }, Reimage::LoaderFetched { since }, Reimage::AgentUp { since }] {
        assert_eq!(done(&state, PowerState::Off, None, 1059), None, "{state:?}");
        assert_eq!(done(&state, PowerState::Off, None, 1060), network, "{state:?}");
        assert_eq!(done(&state, PowerState::Off, None, 1061), network, "{state:?}");
    }
    for state in [Reimage::Written { since }, Reimage::BootedFromDisk { since }] {
        assert_eq!(done(&state, PowerState::Off, None, 1059), None, "{state:?}");
        assert_eq!(done(&state, PowerState::Off, None, 1060), Some(Action::PowerOn), "{state:?}");
        assert_eq!(done(&state, PowerState::Off, None, 1061), Some(Action::PowerOn), "{state:?}");
        assert_eq!(done(&state, PowerState::Off, Some((1060, Action::PowerOn)), 1119), None, "{state:?}");
        assert_eq!(done(&state, PowerState::Off, Some((1060, Action::PowerOn)), 1120), Some(Action::PowerOn), "{state:?}");
    }
}

#[test]
fn orders_that_are_not_seen_to_work_are_given_again_after_their_time_and_not_before() {
    let armed = Reimage::TicketArmed { since: at(1000) };
    let off = |force| Action::PowerOff { force };
    for (given, second, then) in
        [(off(false), 1119, None), (off(false), 1120, Some(off(true))), (off(true), 1059, None), (off(true), 1060, Some(off(true)))]
    {
        assert_eq!(done(&armed, PowerState::On, Some((1000, given.clone())), second), then, "{given} at {second}");
    }
    let set = Reimage::BootSet { since: at(1000) };
    let network = Action::BootFromNetwork { mode: BootMode::UEFI };
    assert_eq!(done(&set, PowerState::Off, Some((1000, Action::PowerOn)), 1059), None);
    assert_eq!(done(&set, PowerState::Off, Some((1000, Action::PowerOn)), 1060), Some(network.clone()), "the override is for one boot");
    assert_eq!(done(&set, PowerState::Off, Some((1000, network)), 1001), Some(Action::PowerOn));
    assert_eq!(done(&set, PowerState::Off, None, 1001), Some(Action::PowerOn));
}

#[test]
fn what_is_told_again_begins_no_wait_anew() {
    let up = |boot_id: &str| Evidence::AgentUp { boot_id: boot_id.to_owned(), serial: None, uuid: None, disks: vec![] };
    let state = Reimage::Begun { since: at(0) }.saw(at(10), &up("a"));
    assert_eq!(state.clone().saw(at(20), &up("b")), state);
    assert_eq!(state.clone().saw(at(20), &Evidence::DhcpSeen), state);
}

/// One machine, adopted, of which the journal has this hardware.
fn known_as(hardware: Vec<String>) -> Vec<Action> {
    let mut world = World::new();
    let mut own = Machine { install: Some(install("v1", None, 0)), ..machine("m-1", 1) };
    own.identity.uuid = Some("4c4c4544-0035-3410-8050-c6c04f314733".to_owned());
    own.nics.push(Nic { name: "lan1".to_owned(), mac: Mac([0xf0, 1, 2, 3, 4, 5]), ..own.nics[0].clone() });
    world.add(own);
    let installed = Some(install("v1", None, 0).generation);
    world.append(Fact::Claimed { machine: name("m-1"), installed, hardware, basis: None });
    let (plan, violations) = world.plan();
    assert_eq!(violations, []);
    plan.steps().map(|step| step.action.clone()).collect()
}

#[test]
fn hardware_is_recorded_in_any_order_and_byte_by_byte() {
    let items = ["serial:sn-m-1", "uuid:4c4c4544-0035-3410-8050-c6c04f314733", "mac:52:54:00:00:00:01", "mac:f0:01:02:03:04:05"];
    let of = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<String>>();
    assert_eq!(known_as(of(&items)), []);
    let mut turned = items;
    turned.reverse();
    assert_eq!(known_as(of(&turned)), [], "in another order");
    // Each byte of a card's address is another.
    let mut other = items;
    other[3] = "mac:aa:ab:ac:ad:ae:af";
    assert!(matches!(known_as(of(&other))[..], [Action::NoteHardware { .. }]));
    for cut in ["mac:f0:01:02:03:04", "mac:f0:01:02:03:04:05:06"] {
        let mut other = items;
        other[3] = cut;
        assert!(matches!(known_as(of(&other))[..], [Action::NoteHardware { .. }]), "{cut}");
    }
}

/// m-1 failed with a code that may pass by itself, once.
fn failed_once() -> World {
    let mut world = World::new();
    world.add(Machine { install: Some(install("v1", None, 0)), ..machine("m-1", 1) });
    world.turn(false);
    world.commit("v2");
    Arc::make_mut(world.fleet.machines.get_mut(&name("m-1")).unwrap()).install = Some(install("v2", None, 0));
    world.turn(false);
    let attempt = world.open(&name("m-1")).unwrap().id.clone();
    let end = AttemptEnd::Failed { code: "network".to_owned(), why: String::new(), retry: true };
    world.append(Fact::Concluded { attempt, end });
    world
}

#[test]
fn another_try_comes_when_its_wait_is_over_and_not_a_second_later() {
    let world = failed_once();
    let begins = |second: i64| {
        let mut world = world.clone();
        world.now += SignedDuration::from_secs(second);
        world.plan().0.steps().any(|step| matches!(step.action, Action::BeginAttempt { .. }))
    };
    assert!(!begins(299));
    assert!(begins(300));
}
