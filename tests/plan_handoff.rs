//! Handed values in plans: the second reader rejects what the planner would not make, and no story installs a machine with a value of a
//! system that is gone.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plan_world::*;
use proptest::prelude::*;
use rackwright::{
    model::*,
    plan::{baseline, check, plan, render_text},
};

const GENEROUS: Budgets = Budgets {
    max_unavailable: Amount::Percent(100),
    max_unavailable_rack: None,
    max_unavailable_per: Vec::new(),
    max_destructive: Destructive { count: 100, share: 100 },
    breaker_failures: 100,
    breaker_share: None,
};

fn wanted(text: &str) -> HandoffUse {
    let (from, name) = text.split_once('/').unwrap();
    HandoffUse { from: from.parse().unwrap(), name: name.parse().unwrap() }
}

/// A machine that publishes, and uses values of others.
fn member(text: &str, number: u8, publishes: &[&str], uses: &[&str]) -> Machine {
    let uses: BTreeSet<HandoffUse> = uses.iter().map(|text| wanted(text)).collect();
    let user_data: Option<String> = (!uses.is_empty()).then(|| uses.iter().map(HandoffUse::marker).collect());
    let publishes = publishes.iter().map(|name| name.parse().unwrap()).collect();
    Machine {
        install: Some(install("v1", user_data.as_deref(), 0)),
        on_claim: OnClaim::Install,
        handoffs: Handoffs { publishes, uses },
        ..machine(text, number)
    }
}

fn cluster() -> World {
    let mut world = World::new();
    world.fleet.settings.budgets = GENEROUS;
    world.add(member("cp-1", 1, &["token", "hash"], &[]));
    world.add(member("cp-2", 2, &["token"], &["cp-1/token"]));
    world.add(member("w-1", 3, &[], &["cp-1/token", "cp-2/token"]));
    world.add(member("w-2", 4, &[], &["cp-1/hash"]));
    world
}

fn rebuild(world: &mut World, which: &str) {
    let machine = Arc::make_mut(world.fleet.machines.get_mut(&name(which)).unwrap());
    let own = machine.install.clone().unwrap();
    machine.install = Some(install(own.image.name.as_str(), own.user_data.as_deref(), own.rebuild + 1));
}

/// Turns in which machines that boot are installed, until `which` is done.
fn installs(world: &mut World, which: &str) {
    for _ in 0..30 {
        world.turn(false);
        if world.open(&name(which)).is_some_and(|open| open.reached(Rung::PowerSeen).is_some()) {
            world.reach(&name(which), Rung::CalledHome);
        }
    }
    assert!(world.open(&name(which)).is_none() && world.history.machines[&name(which)].installed.is_some(), "{which}");
}

/// All are claimed, `cp-1` is installed and has said both of its values, and `w-2` is about to begin.
fn about_to_begin() -> World {
    let mut world = cluster();
    installs(&mut world, "cp-1");
    world.publish(&name("cp-1"), "hash");
    world
}

fn begins(made: &Plan, which: &str) -> bool {
    made.machines[&name(which)].steps.iter().any(|step| matches!(step.action, Action::BeginAttempt { .. }))
}

#[test]
fn the_checker_reads_markers_and_publishers_anew() {
    let world = about_to_begin();
    let (made, violations) = world.plan();
    assert_eq!(violations, []);
    assert!(begins(&made, "w-2") && !begins(&made, "cp-2") && !begins(&made, "w-1"), "{}", render_text(&made));
    type Change = fn(&mut World);
    let changes: [(&str, Change); 9] = [
        ("it was lost", |world| world.lose(&name("cp-1"), "hash")),
        ("its publisher is to be installed anew", |world| rebuild(world, "cp-1")),
        ("nobody publishes it", |world| {
            Arc::make_mut(world.fleet.machines.get_mut(&name("cp-1")).unwrap()).handoffs.publishes.clear();
        }),
        ("its publisher left", |world| drop(world.fleet.machines.remove(&name("cp-1")))),
        ("its publisher is not known", |world| drop(world.history.machines.remove(&name("cp-1")))),
        ("it was said by an earlier system", |world| {
            let known = world.history.machines.get_mut(&name("cp-1")).unwrap();
            known.published.values_mut().for_each(|said| said.attempt.number = 0);
        }),
        ("its publisher failed after all", |world| {
            let known = world.history.machines.get_mut(&name("cp-1")).unwrap();
            let failed = AttemptEnd::Failed { code: "no-call-home".to_owned(), why: String::new(), retry: false };
            known.attempts.last_mut().unwrap().end = Some((world.now, failed));
        }),
        ("another name of the same publisher", |world| {
            let machine = Arc::make_mut(world.fleet.machines.get_mut(&name("w-2")).unwrap());
            let install = machine.install.as_mut().unwrap();
            // The list of what it uses is left as it is: the text is what goes on the disk.
            install.user_data = Some(wanted("cp-1/token").marker());
        }),
        ("a marker that nobody can read", |world| {
            let machine = Arc::make_mut(world.fleet.machines.get_mut(&name("w-2")).unwrap());
            machine.install.as_mut().unwrap().user_data = Some("a: \u{FDD0}<handoff cp-1>\u{FDD1}".to_owned());
        }),
    ];
    for (what, change) in changes {
        let mut world = world.clone();
        change(&mut world);
        let violations = world.with_input(|input| check(&made, input));
        let found = |law| violations.iter().any(|found| found.law == law && found.machine == Some(name("w-2")));
        assert!(found(9), "{what}: {violations:?}");
    }
}

/// An agent that has a ticket may ask for leave to write.
#[test]
fn the_checker_takes_no_ticket_whose_value_is_gone() {
    let mut world = about_to_begin();
    for _ in 0..10 {
        world.turn(false);
    }
    world.reach(&name("w-2"), Rung::AgentUp);
    let (made, violations) = world.plan();
    assert_eq!(violations, []);
    assert!(made.machines[&name("w-2")].ticket.is_some());
    let rejected = |world: &World| world.with_input(|input| check(&made, input)).iter().any(|found| found.law == 9);
    let mut again = world.clone();
    rebuild(&mut again, "cp-1");
    assert!(rejected(&again));
    assert_eq!(again.plan().1, [], "the planner ends it");
    // Lost and said again: the agent may have been given what was there before.
    world.lose(&name("cp-1"), "hash");
    world.publish(&name("cp-1"), "hash");
    assert!(rejected(&world));
    assert_eq!(world.plan().1, []);
    // What is being written is finished.
    world.reach(&name("w-2"), Rung::Writing);
    assert!(!rejected(&world));
    assert!(world.plan().0.machines[&name("w-2")].ticket.is_some());
}

#[test]
fn a_comparison_of_two_commits_takes_values_to_be_there() {
    let mut world = cluster();
    world.history = baseline(&world.fleet, world.now);
    rebuild(&mut world, "w-2");
    let made = world.with_input(plan);
    assert!(begins(&made, "w-2"), "{}", render_text(&made));
    rebuild(&mut world, "cp-1");
    let (made, violations) = world.plan();
    assert_eq!(violations, []);
    assert!(begins(&made, "cp-1") && !begins(&made, "w-2"), "{}", render_text(&made));
}

#[derive(Debug, Clone)]
enum Op {
    Commit(BTreeSet<usize>),
    Turn(bool),
    Publish(usize, &'static str),
    Lose(usize, &'static str),
    Reach(usize, Rung),
    Report(usize, bool),
    Tick(u64),
}

const NAMES: [&str; 4] = ["cp-1", "cp-2", "w-1", "w-2"];

fn op() -> impl Strategy<Value = Op> {
    let who = 0..NAMES.len();
    let value = prop_oneof![Just("token"), Just("hash")];
    let rungs = prop::sample::select(vec![Rung::AgentUp, Rung::Writing, Rung::Written, Rung::CalledHome]);
    prop_oneof![
        2 => prop::collection::btree_set(who.clone(), 1..4).prop_map(Op::Commit),
        12 => prop::bool::weighted(0.1).prop_map(Op::Turn),
        6 => (who.clone(), value.clone()).prop_map(|(who, value)| Op::Publish(who, value)),
        1 => (who.clone(), value).prop_map(|(who, value)| Op::Lose(who, value)),
        8 => (who.clone(), rungs).prop_map(|(who, rung)| Op::Reach(who, rung)),
        1 => (who, any::<bool>()).prop_map(|(who, wrote)| Op::Report(who, wrote)),
        2 => (1u64..2000).prop_map(Op::Tick),
    ]
}

/// What is known from outside of who said what: the attempt that last began to write each disk, and what its system said since.
#[derive(Default)]
struct Outside {
    disk: BTreeMap<MachineName, AttemptId>,
    said: BTreeMap<HandoffUse, AttemptId>,
    /// With which systems' values each open attempt began.
    given: BTreeMap<AttemptId, BTreeMap<HandoffUse, AttemptId>>,
}

impl Outside {
    /// Reads what is new in the journal.
    fn read(&mut self, world: &World) {
        for (name, known) in &world.history.machines {
            if let Some(last) = known.attempts.iter().rev().find(|attempt| attempt.wrote())
                && self.disk.insert(name.clone(), last.id.clone()) != Some(last.id.clone())
            {
                self.said.retain(|wanted, _| wanted.from != *name);
            }
        }
    }

    fn holds(&self, world: &World, wanted: &HandoffUse) -> Option<AttemptId> {
        let said = self.said.get(wanted).filter(|said| self.disk.get(&wanted.from) == Some(*said))?;
        let wants = world.fleet.machines[&wanted.from].generation();
        (world.history.machines[&wanted.from].installed == wants).then(|| said.clone())
    }

    /// Everything that begins has its values, and whoever writes has those with which it began.
    fn lawful(&mut self, world: &World, made: &Plan) {
        for step in made.steps() {
            let Action::BeginAttempt { attempt, .. } = &step.action else { continue };
            for wanted in &world.fleet.machines[&step.machine].handoffs.uses {
                let said = self.holds(world, wanted).unwrap_or_else(|| panic!("{attempt} begins without {wanted}"));
                self.given.entry(attempt.clone()).or_default().insert(wanted.clone(), said);
            }
        }
    }

    /// Before an agent is given leave to write: an attempt that the plan lets go on has values that are still good.
    fn may_write(&self, world: &World, made: &Plan, which: &MachineName) -> bool {
        let Some(open) = world.open(which).filter(|open| !open.wrote()) else { return true };
        let part = &made.machines[which];
        let goes_on = part.ticket.is_some() && !part.steps.iter().any(|step| matches!(step.action, Action::EndAttempt { .. }));
        if goes_on && let Some(given) = self.given.get(&open.id) {
            for (wanted, said) in given {
                assert_eq!(self.holds(world, wanted).as_ref(), Some(said), "{} may write with an old {wanted}", open.id);
            }
        }
        goes_on
    }
}

fn play(ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = cluster();
    let mut outside = Outside::default();
    for op in ops {
        match op {
            Op::Commit(which) => {
                world.commit("rebuild");
                which.iter().for_each(|which| rebuild(&mut world, NAMES[*which]));
            }
            Op::Turn(crash) => {
                let (made, violations) = world.plan();
                prop_assert_eq!(violations, vec![]);
                outside.lawful(&world, &made);
                world.turn(*crash);
            }
            Op::Publish(which, value) => say(&mut world, &mut outside, &name(NAMES[*which]), value),
            Op::Lose(which, value) => {
                world.lose(&name(NAMES[*which]), value);
                outside.said.remove(&wanted(&format!("{}/{value}", NAMES[*which])));
            }
            Op::Reach(which, rung) => {
                let which = name(NAMES[*which]);
                let (made, _) = world.plan();
                let armed = world.open(&which).is_some_and(|open| open.reached(Rung::PowerSeen).is_some());
                if armed && (*rung < Rung::Writing || outside.may_write(&world, &made, &which)) {
                    world.reach(&which, *rung);
                }
            }
            Op::Report(which, wrote) => world.report(&name(NAMES[*which]), "network", *wrote),
            Op::Tick(seconds) => world.tick(*seconds),
        }
        outside.read(&world);
    }
    arrive(&mut world, &mut outside)
}

fn say(world: &mut World, outside: &mut Outside, which: &MachineName, value: &str) {
    world.publish(which, value);
    let known = &world.history.machines.get(which).and_then(|known| known.published.get(&value.parse().unwrap()).cloned());
    if let Some(said) = known {
        outside.said.insert(wanted(&format!("{which}/{value}")), said.attempt.clone());
    }
}

/// Once nothing more goes wrong, everybody is installed.
fn arrive(world: &mut World, outside: &mut Outside) -> Result<(), TestCaseError> {
    world.commit("all of them, once more");
    NAMES.iter().for_each(|which| rebuild(world, which));
    for _ in 0..400 {
        let (made, violations) = world.plan();
        prop_assert_eq!(violations, vec![]);
        outside.lawful(world, &made);
        world.turn(false);
        world.tick(30);
        for which in NAMES.map(name) {
            if world.open(&which).is_some_and(|open| open.reached(Rung::PowerSeen).is_some()) {
                world.reach(&which, Rung::CalledHome);
            }
            outside.read(world);
            ["token", "hash"].iter().for_each(|value| say(world, outside, &which, value));
        }
        if made.is_empty() {
            break;
        }
    }
    let behind: Vec<&MachineName> = world
        .fleet
        .machines
        .values()
        .filter(|own| world.history.machines[&own.name].installed != own.generation())
        .map(|own| &own.name)
        .collect();
    prop_assert!(behind.is_empty(), "{behind:?}: {}", render_text(&world.plan().0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_story_installs_with_a_value_of_a_system_that_is_gone(ops in prop::collection::vec(op(), 1..200)) {
        play(&ops)?;
    }
}
