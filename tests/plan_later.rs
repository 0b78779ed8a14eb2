//! `onConfigChange`: what of a commit reaches a disk now, and what waits for the next install, over random edits, restarts, crashes and
//! journals of releases that did not tell configuration from the rest.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::sync::Arc;

use plan_world::*;
use proptest::prelude::*;
use rackwright::{model::*, plan::check};

/// What is on a disk, or should be: image, configuration, `rebuild`.
type Parts = (u8, u8, u64);

#[derive(Debug, Clone)]
enum Op {
    Image(u8),
    Config(u8),
    Rebuild(u64),
    Switch,
    /// Image and policy in one commit, or configuration and policy.
    Both(bool, u8),
    Power(bool),
    Restart,
    Turn,
    Crash,
    /// The install that is on its way goes so far, and maybe fails there.
    Reach(usize),
    Fail(bool),
    Finish,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1..3u8).prop_map(Op::Image),
        4 => (0..3u8).prop_map(Op::Config),
        1 => (0..2u64).prop_map(Op::Rebuild),
        3 => Just(Op::Switch),
        1 => (any::<bool>(), 1..3u8).prop_map(|(image, to)| Op::Both(image, to)),
        1 => any::<bool>().prop_map(Op::Power),
        2 => Just(Op::Restart),
        6 => Just(Op::Turn),
        1 => Just(Op::Crash),
        3 => (5..10usize).prop_map(Op::Reach),
        1 => any::<bool>().prop_map(Op::Fail),
        3 => Just(Op::Finish),
    ]
}

struct Story {
    world: World,
    declared: Parts,
    /// What the disk holds for certain, and whether the install that put it there failed.
    disk: Option<(Parts, bool)>,
    writes: usize,
}

fn own() -> MachineName {
    name("m-1")
}

fn put(parts: Parts) -> Install {
    let config = (parts.1 > 0).then(|| format!("c{}", parts.1));
    install(&format!("v{}", parts.0), config.as_deref(), parts.2)
}

impl Story {
    fn new(old: bool) -> Self {
        let mut world = World::new();
        world.old = old;
        world.fleet.settings.budgets.max_destructive = Destructive { count: 1, share: 100 };
        let declared = (1, 0, 0);
        world.add(Machine { install: Some(put(declared)), ..machine("m-1", 1) });
        world.turn(false);
        Self { world, declared, disk: Some((declared, false)), writes: 0 }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Machine)) {
        self.world.commit("edit");
        change(Arc::make_mut(self.world.fleet.machines.get_mut(&own()).unwrap()));
    }

    fn declare(&mut self, parts: Parts) {
        self.declared = parts;
        self.edit(|machine| machine.install = Some(put(parts)));
    }

    fn waits(&self) -> bool {
        self.world.fleet.machines[&own()].upkeep.on_config_change == OnConfigChange::NextInstall
    }

    fn switch(&mut self) {
        let to = if self.waits() { OnConfigChange::Reinstall } else { OnConfigChange::NextInstall };
        self.edit(|machine| machine.upkeep.on_config_change = to);
    }

    fn wants_install(&self) -> bool {
        let (made, violations) = self.world.plan();
        assert_eq!(violations, []);
        let part = &made.machines[&own()];
        part.steps.iter().any(|step| step.risk() == Risk::Destructive) || part.reimage.is_some()
    }

    fn is_unclear(&self) -> bool {
        let made = self.world.plan().0;
        made.machines[&own()].held.iter().any(|held| matches!(held, Held::ConfigurationUnclear { .. }))
    }

    /// A turn, with the law as somebody states it who knows what is on the disk.
    fn turn(&mut self, crash: bool) {
        let (made, violations) = self.world.plan();
        assert_eq!(violations, []);
        let part = &made.machines[&own()];
        let begins = part.steps.iter().any(|step| step.risk() == Risk::Destructive);
        let open = self.world.open(&own()).is_some();
        if let (Some((disk, failed)), true) = (self.disk, self.waits()) {
            let more = (disk.0, disk.2) != (self.declared.0, self.declared.2);
            assert!(!begins || more || failed, "only configuration differs, and it is installed: {disk:?} {:?}", self.declared);
            let known = !self.world.old;
            assert!(open || !more || !known || part.reimage.is_some() || !part.held.is_empty(), "another image, and nothing is said");
            assert!(open || !known || !part.next_install || !more, "it is said to wait, and more than configuration differs");
        }
        assert!(self.world.old || !self.is_unclear(), "everything is noted, and unclear");
        self.world.turn(crash);
    }

    fn settle(&mut self) {
        for _ in 0..60 {
            let quiet = self.world.plan().0.steps().next().is_none();
            if quiet && self.world.open(&own()).is_none() {
                return;
            }
            self.turn(false);
            self.reach(9);
            self.world.tick(if quiet { 600 } else { 1 });
        }
        panic!("it does not come to rest");
    }

    fn reach(&mut self, rung: usize) {
        if self.world.open(&own()).is_some_and(|open| open.reached(Rung::PowerSeen).is_some() && open.reported.is_none()) {
            self.world.reach(&own(), RUNGS[rung]);
        }
        self.look();
    }

    /// What was written meanwhile.
    fn look(&mut self) {
        let attempts = &self.world.history.machines[&own()].attempts;
        let Some(last) = attempts.iter().rev().find(|attempt| attempt.wrote()) else { return };
        let parts = (1..3).flat_map(|image| (0..3).flat_map(move |config| (0..2).map(move |rebuild| (image, config, rebuild))));
        let held = parts.into_iter().find(|parts| put(*parts).generation == last.generation).unwrap();
        let failed = matches!(last.end, Some((_, AttemptEnd::Failed { .. })));
        self.disk = last.reached(Rung::Written).map(|_| (held, failed));
        self.writes = attempts.iter().filter(|attempt| attempt.wrote()).count();
    }

    fn apply(&mut self, op: &Op) {
        let (image, config, rebuild) = self.declared;
        match op {
            Op::Image(image) => self.declare((*image, config, rebuild)),
            Op::Config(config) => self.declare((image, *config, rebuild)),
            Op::Rebuild(rebuild) => self.declare((image, config, *rebuild)),
            Op::Switch => {
                // What is not noted yet, such as under a commit that was in force for no turn, can't be known later.
                self.turn(false);
                // To switch is the way out of what nobody knows.
                let before = self.wants_install() || self.is_unclear();
                let open = self.world.open(&own()).is_some();
                self.switch();
                assert!(open || before || !self.wants_install(), "the switch alone reinstalls: {:?} {:?}", self.disk, self.declared);
            }
            Op::Both(of_image, to) => {
                self.switch();
                self.declared = if *of_image { (*to, config, rebuild) } else { (image, *to, rebuild) };
                let install = put(self.declared);
                Arc::make_mut(self.world.fleet.machines.get_mut(&own()).unwrap()).install = Some(install);
            }
            Op::Power(on) => {
                let power = if *on { PowerIntent::On } else { PowerIntent::Off };
                self.edit(|machine| machine.power = power);
            }
            Op::Restart => self.world.restarted = true,
            Op::Turn => self.turn(false),
            Op::Crash => self.turn(true),
            Op::Reach(rung) => self.reach(*rung),
            Op::Fail(wrote) => self.world.report(&own(), "disk-write", *wrote),
            Op::Finish => self.settle(),
        }
        self.look();
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn configuration_alone_waits_where_it_is_to_and_a_switch_reinstalls_nothing(old in any::<bool>(), ops in prop::collection::vec(op(), 1..60)) {
        let mut story = Story::new(old);
        for op in &ops {
            story.apply(op);
        }
    }

    /// Of a journal in which nobody noted what is configuration, nothing is reinstalled by the policy alone, whatever it is.
    #[test]
    fn an_old_journal_reinstalls_nothing(ops in prop::collection::vec(prop_oneof![Just(Op::Switch), Just(Op::Restart), Just(Op::Turn)], 1..20)) {
        let mut story = Story::new(true);
        for op in &ops {
            story.apply(op);
            prop_assert!(!story.wants_install());
        }
        prop_assert_eq!(story.writes, 0);
    }
}

#[test]
fn the_checker_reads_on_its_own_whether_more_than_configuration_differs() {
    let mut story = Story::new(false);
    story.switch();
    story.declare((1, 1, 0));
    let begin = |story: &Story| {
        let mut made = story.world.plan().0;
        let attempt = AttemptId { machine: own(), number: story.world.history.machines[&own()].next_attempt() };
        let action = Action::BeginAttempt { attempt, generation: put(story.declared).generation };
        made.machines.get_mut(&own()).unwrap().steps = vec![Step { machine: own(), action, reason: Reason::NextInstall }];
        let laws: Vec<u8> = story.world.with_input(|input| check(&made, input)).iter().map(|violation| violation.law).collect();
        laws
    };
    assert_eq!(begin(&story), [1], "only configuration differs");
    story.turn(false);
    story.switch();
    assert_eq!(begin(&story), [1], "it was let pass, and a switch does not make up for it");
    story.declare((1, 2, 0));
    assert_eq!(begin(&story), [0_u8; 0], "another configuration, under Reinstall");
    story.switch();
    assert_eq!(begin(&story), [1]);
    story.declare((2, 2, 0));
    assert_eq!(begin(&story), [0_u8; 0], "another image");
    // Nobody knows what of it is configuration.
    story.world.history.machines.get_mut(&own()).unwrap().basis = None;
    story.world.restarted = true;
    assert_eq!(begin(&story), [1]);
}

#[test]
fn the_checker_rejects_notes_that_are_not_true() {
    let mut story = Story::new(true);
    story.switch();
    let said = |story: &Story, installed: Parts, basis: Parts, deferred: Option<Parts>| {
        let mut made = story.world.plan().0;
        let (installed, basis) = (put(installed).generation, put(basis).basis());
        let action = Action::NoteConfiguration { installed, basis, deferred: deferred.map(|parts| put(parts).generation) };
        made.machines.get_mut(&own()).unwrap().steps = vec![Step { machine: own(), action, reason: Reason::NextInstall }];
        story.world.with_input(|input| check(&made, input)).iter().map(|violation| violation.law).collect::<Vec<u8>>()
    };
    assert_eq!(said(&story, (1, 0, 0), (1, 0, 0), None), [0_u8; 0]);
    assert_eq!(said(&story, (1, 0, 0), (2, 0, 0), None), [11]);
    assert_eq!(said(&story, (2, 0, 0), (2, 0, 0), None), [11, 11], "another generation than its disk holds");
    assert_eq!(said(&story, (1, 0, 0), (1, 0, 0), Some((1, 1, 0))), [1], "not what is declared");
    story.turn(false);
    story.declare((1, 1, 0));
    assert_eq!(said(&story, (1, 0, 0), (1, 0, 0), Some((1, 1, 0))), [0_u8; 0]);
    story.declare((2, 1, 0));
    assert_eq!(said(&story, (1, 0, 0), (1, 0, 0), Some((2, 1, 0))), [1], "another image may not wait");
}
