//! The law, held over random fleets, commits, hardware, evidence and crashes.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::{collections::BTreeMap, sync::Arc};

use plan_world::*;
use proptest::prelude::*;
use rackwright::{
    model::*,
    plan::{baseline, check, plan, render_markdown, render_text},
};

const MACHINES: usize = 5;

#[derive(Debug, Clone)]
enum Op {
    Image(usize, u8),
    Rebuild(usize, u64),
    Suspend(usize, bool),
    Power(usize, u8),
    OnClaim(usize, bool),
    Remove(usize),
    Add(usize, bool),
    Rename(usize),
    Broken(bool),
    Iron(usize, u8),
    Reach(usize, usize),
    Report(usize, u8, bool),
    /// A rung that was reached already is told again, by this attempt (`false`) or the first (`true`).
    Again(usize, usize, bool),
    /// A line of the journal about a machine that nobody claimed.
    Stranger(u8),
    Tick(u64),
    /// The clock is put a year forward, or back before all that is known.
    Jump(bool),
    Turn,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..MACHINES;
    prop_oneof![
        2 => (which.clone(), 1..4u8).prop_map(|(m, image)| Op::Image(m, image)),
        1 => (which.clone(), 0..3u64).prop_map(|(m, rebuild)| Op::Rebuild(m, rebuild)),
        1 => (which.clone(), any::<bool>()).prop_map(|(m, on)| Op::Suspend(m, on)),
        1 => (which.clone(), 0..3u8).prop_map(|(m, power)| Op::Power(m, power)),
        1 => (which.clone(), any::<bool>()).prop_map(|(m, install)| Op::OnClaim(m, install)),
        1 => which.clone().prop_map(Op::Remove),
        2 => (which.clone(), any::<bool>()).prop_map(|(m, install)| Op::Add(m, install)),
        1 => which.clone().prop_map(Op::Rename),
        1 => any::<bool>().prop_map(Op::Broken),
        4 => (which.clone(), 0..11u8).prop_map(|(m, iron)| Op::Iron(m, iron)),
        8 => (which.clone(), 3..10usize).prop_map(|(m, rung)| Op::Reach(m, rung)),
        2 => (which.clone(), 0..3u8, any::<bool>()).prop_map(|(m, code, wrote)| Op::Report(m, code, wrote)),
        2 => (which, 0..RUNGS.len(), any::<bool>()).prop_map(|(m, rung, first)| Op::Again(m, rung, first)),
        1 => (0..3u8).prop_map(Op::Stranger),
        1 => any::<bool>().prop_map(Op::Jump),
        4 => (1..2000u64).prop_map(Op::Tick),
        20 => Just(Op::Turn),
        2 => Just(Op::Crash),
    ]
}

/// A world, and what a bystander remembers of it without reading the journal.
struct Watched {
    world: World,
    names: Vec<MachineName>,
    /// What each machine's disk holds for certain: what it was adopted with, or what was verified on it last.
    holds: BTreeMap<MachineName, Generation>,
    adds: u8,
}

impl Watched {
    fn new(at_once: u32, destructive: u32) -> Self {
        let mut world = World::new();
        world.fleet.settings.budgets.max_unavailable = Amount::Count(at_once);
        world.fleet.settings.budgets.max_destructive = Destructive { count: destructive, share: 100 };
        let names: Vec<MachineName> = (0..MACHINES).map(|number| name(&format!("m-{number}"))).collect();
        let mut watched = Self { world, names, holds: BTreeMap::new(), adds: 0 };
        for which in 0..MACHINES {
            watched.apply(&Op::Add(which, which == 0));
        }
        watched
    }

    fn edit(&mut self, which: usize, change: impl FnOnce(&mut Machine)) {
        self.world.commit("edit");
        if let Some(machine) = self.world.fleet.machines.get_mut(&self.names[which]) {
            change(Arc::make_mut(machine));
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Image(which, image) => self.edit(*which, |machine| {
                let rebuild = machine.install.as_ref().map_or(0, |own| own.rebuild);
                machine.install = Some(install(&format!("v{image}"), None, rebuild));
            }),
            Op::Rebuild(which, rebuild) => self.edit(*which, |machine| {
                let image = machine.install.as_ref().map_or("v1".to_owned(), |own| own.image.name.to_string());
                machine.install = Some(install(&image, None, *rebuild));
            }),
            Op::Suspend(which, on) => self.edit(*which, |machine| machine.suspend = *on),
            Op::Power(which, power) => self.edit(*which, |machine| {
                machine.power = [PowerIntent::On, PowerIntent::Off, PowerIntent::Unmanaged][usize::from(*power)];
            }),
            Op::OnClaim(which, install) => self.edit(*which, |machine| machine.on_claim = on_claim(*install)),
            Op::Remove(which) => {
                self.world.commit("remove");
                self.world.fleet.machines.remove(&self.names[*which]);
            }
            Op::Add(which, install_on_claim) => self.add(*which, *install_on_claim),
            Op::Rename(which) => self.rename(*which),
            Op::Broken(broken) => self.world.problems = if *broken { vec![problem()] } else { Vec::new() },
            Op::Iron(which, what) => self.iron(*which, *what),
            Op::Reach(which, rung) => {
                let open = self.world.open(&self.names[*which]).is_some_and(|attempt| attempt.reached(Rung::PowerSeen).is_some());
                if open {
                    self.world.reach(&self.names[*which], RUNGS[*rung]);
                }
            }
            Op::Report(which, code, wrote) => {
                let code = ["disk-write", "image-unavailable", "no-disk-matches"][usize::from(*code)];
                self.world.report(&self.names[*which], code, *wrote);
            }
            Op::Again(which, rung, first) => self.again(&self.names[*which].clone(), RUNGS[*rung], *first),
            Op::Stranger(what) => self.stranger(*what),
            Op::Tick(seconds) => self.world.tick(*seconds),
            Op::Jump(forward) => {
                let year = SignedDuration::from_hours(if *forward { 24 * 365 } else { -24 * 365 });
                self.world.now = self.world.now.checked_add(year).unwrap();
            }
            Op::Turn => self.turn(false),
            Op::Crash => self.turn(true),
        }
        self.remember();
    }

    fn add(&mut self, which: usize, install_on_claim: bool) {
        self.world.commit("add");
        if !self.world.fleet.machines.contains_key(&self.names[which]) {
            self.adds += 1;
            let mut new = machine(self.names[which].as_str(), self.adds);
            new.install = Some(install("v1", None, 0));
            new.on_claim = on_claim(install_on_claim);
            self.world.iron.remove(&self.names[which]);
            self.world.add(new);
        }
    }

    fn rename(&mut self, which: usize) {
        self.world.commit("rename");
        let old = self.names[which].clone();
        let new = name(&format!("{}x", old.as_str().chars().take(40).collect::<String>()));
        if self.world.history.machines.contains_key(&new) {
            return;
        }
        if let Some(mut machine) = self.world.fleet.machines.remove(&old) {
            Arc::make_mut(&mut machine).name = new.clone();
            self.world.fleet.machines.insert(new.clone(), machine);
            let iron = self.world.iron.remove(&old).unwrap();
            self.world.iron.insert(new.clone(), iron);
            if let Some(holds) = self.holds.remove(&old) {
                self.holds.insert(new.clone(), holds);
            }
            self.names[which] = new;
        }
    }

    fn iron(&mut self, which: usize, what: u8) {
        let Some(iron) = self.world.iron.get_mut(&self.names[which]) else { return };
        match what {
            0 => iron.power = PowerState::On,
            1 => iron.power = PowerState::Off,
            2 => iron.power = PowerState::PoweringOff,
            3 => iron.gap = Some(Unknown::Unreachable("gone".to_owned())),
            4 => iron.identity_gap = true,
            5 => iron.serial = Some("OTHER".to_owned()),
            6 => iron.stubborn = true,
            7 => iron.obeys = Obeys::SaysSo,
            8 => iron.obeys = Obeys::Fails(RetryClass::Wait),
            9 => iron.obeys = Obeys::Fails(RetryClass::Stalled),
            _ => {
                let macs = iron.macs.clone();
                *iron =
                    Iron { power: PowerState::On, gap: None, identity_gap: false, serial: None, macs, obeys: Obeys::Yes, stubborn: false };
                iron.serial = self.world.fleet.machines.get(&self.names[which]).and_then(|machine| machine.identity.serial.clone());
            }
        }
    }

    fn again(&mut self, name: &MachineName, rung: Rung, first: bool) {
        let attempts = self.world.history.machines.get(name).map(|machine| machine.attempts.clone()).unwrap_or_default();
        let told = if first { attempts.first() } else { attempts.last().filter(|last| last.end.is_none()) };
        let Some(attempt) = told.filter(|attempt| attempt.reached(rung).is_some()) else { return };
        // What changes the disk is never taken from an attempt that ended (`Live`); all else is harmless even if it were.
        if attempt.end.is_none() || !matches!(rung, Rung::Writing | Rung::Written) {
            let evidence = attempt.evidence.iter().map(|(_, evidence)| evidence).find(|evidence| evidence.rung() == rung).cloned();
            let evidence = match evidence.unwrap() {
                Evidence::AgentUp { serial, uuid, disks, .. } => Evidence::AgentUp { boot_id: "another".to_owned(), serial, uuid, disks },
                same => same,
            };
            self.world.append(Fact::Saw { attempt: attempt.id.clone(), evidence });
        }
    }

    fn stranger(&mut self, what: u8) {
        let machine = name("stranger");
        let attempt = AttemptId { machine: machine.clone(), number: 7 };
        self.world.append(match what {
            0 => Fact::Ended { machine, intention: 1, outcome: Outcome::Done },
            1 => Fact::Saw { attempt, evidence: Evidence::BootedFromDisk },
            _ => Fact::Concluded { attempt, end: AttemptEnd::Done },
        });
    }

    /// A number names one attempt, and at most one attempt of a machine is open, whatever clocks and duplicates do.
    fn one_at_a_time(&self) {
        for machine in self.world.history.machines.values() {
            let mut numbers: Vec<u32> = machine.attempts.iter().map(|attempt| attempt.id.number).collect();
            numbers.dedup();
            assert_eq!(numbers.len(), machine.attempts.len(), "a number is used twice");
            assert!(machine.attempts.iter().rev().skip(1).all(|attempt| attempt.end.is_some()), "two attempts are open");
        }
    }

    fn turn(&mut self, crash: bool) {
        let (made, violations) = self.world.plan();
        assert_eq!(violations, [], "{}", render_text(&made));
        assert_eq!(self.world.plan().0, made, "the same input gives the same plan");
        assert!(render_text(&made).lines().all(|line| line.chars().count() <= 100));
        assert!(render_markdown(&made).ends_with(".**\n"));
        for name in self.world.fleet.machines.keys().chain(self.world.history.machines.keys()) {
            assert!(made.machines.contains_key(name), "{name} is absent");
        }
        for step in made.steps() {
            self.lawful(step);
        }
        self.world.turn(crash);
        self.one_at_a_time();
    }

    /// The law, as somebody would state it who stands beside.
    fn lawful(&self, step: &Step) {
        let machine = self.world.fleet.machines.get(&step.machine);
        if step.risk() >= Risk::Settings {
            let machine = machine.expect("what left the fleet is never touched (law 3)");
            assert!(!machine.suspend, "suspended");
        }
        if step.risk() >= Risk::Disruptive {
            let iron = &self.world.iron[&step.machine];
            assert!(iron.gap.is_none() && !iron.identity_gap, "unknown never destroys (law 2): {step:?}");
            assert_eq!(iron.serial, machine.unwrap().identity.serial, "another machine (law 8): {step:?}");
        }
        if let Action::BeginAttempt { generation, .. } = &step.action {
            assert!(self.world.problems.is_empty(), "begun under a commit with errors");
            assert_eq!(machine.unwrap().generation(), Some(*generation), "the commit does not say so (law 1)");
            assert_ne!(self.holds.get(&step.machine), Some(generation), "it holds that already (law 1)");
            let begun = self.holds.contains_key(&step.machine)
                || machine.unwrap().on_claim == OnClaim::Install
                || self.world.history.machines[&step.machine].attempts.iter().any(Attempt::wrote);
            assert!(begun, "adopted, and nobody asked (law 5)");
        }
        if step.action == Action::Release {
            assert!(machine.is_none() && self.world.problems.is_empty(), "a parse error is not a deletion (law 2)");
        }
    }

    /// Reads from the disks, so to say: what the machines hold now.
    fn remember(&mut self) {
        let history = &self.world.history;
        self.holds.retain(|name, _| history.machines.contains_key(name) || self.world.fleet.machines.contains_key(name));
        for (name, machine) in &history.machines {
            let last = machine.attempts.iter().rev().find(|attempt| attempt.wrote());
            match last {
                Some(attempt) if attempt.reached(Rung::Written).is_some() => drop(self.holds.insert(name.clone(), attempt.generation)),
                Some(_) => drop(self.holds.remove(name)),
                None => {
                    if let Some(installed) = machine.installed {
                        self.holds.insert(name.clone(), installed);
                    }
                }
            }
        }
    }
}

fn on_claim(install: bool) -> OnClaim {
    if install { OnClaim::Install } else { OnClaim::Adopt }
}

fn problem() -> Problem {
    Problem {
        file: "a.yaml".to_owned(),
        line: 1,
        column: 1,
        length: 1,
        severity: Severity::Error,
        code: "syntax".to_owned(),
        message: "not YAML".to_owned(),
        hint: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_story_breaks_the_law(at_once in 1..3u32, destructive in 1..6u32, ops in prop::collection::vec(op(), 1..150)) {
        let mut watched = Watched::new(at_once, destructive);
        for op in &ops {
            watched.apply(op);
        }
    }

    #[test]
    fn adopting_a_fleet_touches_nothing_whatever_its_hardware_says(irons in prop::collection::vec((0..MACHINES, 0..6u8), 0..10)) {
        let mut watched = Watched::new(1, 5);
        for machine in watched.world.fleet.machines.values_mut().map(Arc::make_mut) {
            machine.on_claim = OnClaim::Adopt;
            machine.power = PowerIntent::Unmanaged;
        }
        for (which, what) in irons {
            watched.apply(&Op::Iron(which, what));
        }
        for _ in 0..5 {
            let (made, _) = watched.world.turn(false);
            prop_assert!(made.steps().all(|step| step.risk() == Risk::None));
        }
    }
}

/// A world in which one machine is about to be reinstalled and another can't be seen.
fn about_to_reinstall() -> World {
    let mut watched = Watched::new(1, 5);
    Arc::make_mut(watched.world.fleet.machines.get_mut(&name("m-0")).unwrap()).on_claim = OnClaim::Adopt;
    watched.apply(&Op::Turn);
    watched.apply(&Op::Image(1, 2));
    watched.apply(&Op::Iron(2, 3));
    watched.world
}

fn rejected(what: &str, change: impl FnOnce(&mut Plan)) {
    let world = about_to_reinstall();
    world.with_input(|input| {
        let mut made = plan(input);
        assert_eq!(check(&made, input), [], "{what}: before");
        change(&mut made);
        assert_ne!(check(&made, input), [], "{what} is not noticed");
    });
}

fn step(machine: &str, action: Action) -> Step {
    Step { machine: name(machine), action, reason: Reason::NewMachine }
}

fn begin(machine: &str, number: u32, generation: Generation) -> Step {
    step(machine, Action::BeginAttempt { attempt: AttemptId { machine: name(machine), number }, generation })
}

#[test]
fn the_checker_rejects_what_the_planner_would_not_make() {
    let (old, new) = (install("v1", None, 0).generation, install("v2", None, 0).generation);
    let add = |machine: &'static str, step: Step| move |plan: &mut Plan| plan.machines.get_mut(&name(machine)).unwrap().steps.push(step);
    rejected("a machine that is absent", |plan| drop(plan.machines.remove(&name("m-3"))));
    rejected("a reinstall of what is there", add("m-3", begin("m-3", 1, old)));
    rejected("a reinstall that no commit asks for", add("m-3", begin("m-3", 1, new)));
    rejected("two installs of one machine", add("m-1", begin("m-1", 2, new)));
    rejected("an attempt's number out of turn", |plan| {
        plan.machines.get_mut(&name("m-1")).unwrap().steps = vec![begin("m-1", 7, new)];
    });
    rejected("power off without a word", add("m-3", step("m-3", Action::PowerOff { force: true })));
    rejected("power off of what can't be seen", add("m-2", step("m-2", Action::PowerOff { force: false })));
    rejected("power on of what is on", add("m-3", step("m-3", Action::PowerOn)));
    rejected("network boot without a ticket", add("m-3", step("m-3", Action::BootFromNetwork { mode: BootMode::UEFI })));
    rejected("release of a machine of the fleet", add("m-3", step("m-3", Action::Release)));
    rejected("a second claim", add("m-3", step("m-3", Action::Claim { installed: Some(old) })));
    rejected("a rename to itself", add("m-3", step("m-3", Action::Rename { from: name("m-4") })));
    rejected("a step for another machine", add("m-3", step("m-4", Action::Release)));
    let attempt = || AttemptId { machine: name("m-3"), number: 1 };
    rejected("evidence for nothing", add("m-3", step("m-3", Action::Witness { attempt: attempt(), rung: Rung::BootSet })));
    rejected("the end of nothing", add("m-3", step("m-3", Action::EndAttempt { attempt: attempt(), end: AttemptEnd::Done })));
    rejected("a ticket for nothing", |plan| {
        let ticket = Ticket {
            attempt: attempt(),
            commit: plan.commit.id,
            expires: plan.at,
            mac: Mac([0; 6]),
            serial: None,
            uuid: None,
            system: DiskHint::default(),
            keep: vec![],
            install: install("v1", None, 0),
            evidence: vec![],
        };
        plan.machines.get_mut(&name("m-3")).unwrap().ticket = Some(Box::new(ticket));
    });
}

#[test]
fn the_checker_counts_budgets_anew() {
    let mut world = about_to_reinstall();
    Arc::make_mut(world.fleet.machines.get_mut(&name("m-3")).unwrap()).install = Some(install("v2", None, 0));
    world.with_input(|input| {
        let mut made = plan(input);
        assert_eq!(check(&made, input), []);
        let generation = install("v2", None, 0).generation;
        made.machines.get_mut(&name("m-3")).unwrap().steps = vec![begin("m-3", 1, generation)];
        assert!(check(&made, input).iter().any(|violation| violation.law == 7), "two at once, one is allowed");
    });
}

#[test]
fn a_base_and_a_head_are_compared_without_hardware() {
    let mut watched = Watched::new(1, 5);
    let base = watched.world.fleet.clone();
    watched.apply(&Op::Image(1, 2));
    let world = &watched.world;
    let history = baseline(&base, world.now);
    let seen = BTreeMap::new();
    world.with_input(|input| {
        let same = plan(&rackwright::plan::Input { fleet: &base, history: &history, seen: &seen, ..*input });
        assert!(same.is_empty(), "{}", render_text(&same));
        let made = plan(&rackwright::plan::Input { history: &history, former: Some(&base), seen: &seen, ..*input });
        let text = render_text(&made);
        assert!(text.contains("image changed"), "{text}");
        assert!(text.ends_with("Plan: 1 to reimage, 4 unchanged.\n"), "{text}");
        assert!(made.steps().next().is_none());
    });
}

#[test]
fn a_uuid_in_the_other_byte_order_is_confirmed_and_a_placeholder_is_not() {
    let (real, swapped, unset) =
        ("4c4c4544-0035-3410-8050-c6c04f314733", "44454c4c-3500-1034-8050-c6c04f314733", "03000200-0400-0500-0006-000700080009");
    for (declared, observed, confirmed) in [(real, real, true), (real, swapped, true), (real, unset, false), (unset, unset, false)] {
        let mut world = World::new();
        let mut one = machine("m-1", 1);
        (one.identity.uuid, one.install) = (Some(declared.to_owned()), Some(install("v1", None, 0)));
        world.add(one.clone());
        world.turn(false);
        one.install = Some(install("v2", None, 0));
        world.add(one);
        world.commit("v2");
        let mut seen = world.seen();
        let Seen::Known(identity) = &mut seen.get_mut(&name("m-1")).unwrap().identity else { panic!("it is not seen") };
        identity.uuid = Some(observed.to_owned());
        world.with_input(|input| {
            let input = rackwright::plan::Input { seen: &seen, ..*input };
            let made = plan(&input);
            assert_eq!(check(&made, &input), []);
            assert_eq!(made.steps().next().is_some(), confirmed, "{declared} {observed}\n{}", render_text(&made));
        });
    }
}
