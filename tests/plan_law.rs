//! The law, held over random fleets, commits, hardware, evidence and crashes.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::{collections::BTreeMap, sync::Arc};

use plan_world::*;
use proptest::prelude::*;
use rackwright::{
    model::*,
    plan::{Input, LONGEST, baseline, check, plan, render_markdown, render_text},
};

const MACHINES: usize = 5;

#[derive(Debug, Clone)]
enum Op {
    Image(usize, u8),
    Rebuild(usize, u64),
    /// Its manifest says `decommission`, with this counter, or does not any more.
    Decommission(usize, u64),
    Recommission(usize),
    Config(usize, u8),
    /// Configuration alone waits for the next install, or not.
    OnConfigChange(usize, bool),
    Suspend(usize, bool),
    Power(usize, u8),
    OnClaim(usize, bool),
    Remove(usize),
    Add(usize, bool),
    Rename(usize),
    /// The first gets the name of the second, and the second a new one, in one commit.
    Chain(usize, usize),
    /// They exchange their names in one commit.
    Swap(usize, usize),
    /// The manifest states another serial number, another MAC, or both (by mistake), or the right ones again.
    Mistype(usize, u8),
    /// Another server is put in its place, and the manifest says so.
    Replace(usize),
    Broken(bool),
    /// A rollout over all machines comes, changes, or goes.
    Rollout(Option<Policy>),
    /// The Fleet is frozen, gets a window, or is approved to reinstall so many.
    Freeze(bool),
    Window(bool),
    Approve(u32),
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
    /// A machine gets gates, or none.
    Gates(usize, u8),
    /// Its page answers, or does not; it reports its check; its BMC says how it is.
    Probe(usize, bool),
    Check(usize, bool),
    Health(usize, u8),
    /// The local brake: on one machine, on its group (`default`) or on all; or off.
    Hold(usize, u8),
    Turn,
    Crash,
}

/// How a rollout goes about it.
#[derive(Debug, Clone)]
struct Policy {
    waves: Vec<Amount>,
    soak: i64,
    share: Option<u8>,
    failures: u32,
    paused: bool,
    own_window: bool,
    /// Only machines on one feed; the others are the default group.
    half: bool,
    rack: Option<u32>,
    /// All others are a group that comes after the first, which has to be healthy for so many seconds, or a share of it.
    others_after: Option<(i64, Option<u8>)>,
}

fn policy() -> impl Strategy<Value = Policy> {
    let waves =
        prop::sample::select(vec![vec![], vec![Amount::Count(1)], vec![Amount::Count(1), Amount::Percent(60)], vec![Amount::Count(2)]]);
    let share = prop::sample::select(vec![None, Some(1), Some(50), Some(100)]);
    let rack = prop::option::of(1..3u32);
    let others_after = prop::option::of((prop::sample::select(vec![0, 500]), prop::sample::select(vec![None, Some(50), Some(100)])));
    let times = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (waves, 0..2000i64, share, 1..5u32, times, any::<bool>(), rack, others_after).prop_map(
        |(waves, soak, share, failures, (paused, own_window), half, rack, others_after)| Policy {
            waves,
            soak,
            share,
            failures,
            paused,
            own_window,
            half,
            rack,
            others_after,
        },
    )
}

/// Open each day for two of three hours or so.
fn at_times(on: bool) -> Vec<Window> {
    let window = |from, to| Window { days: Weekday::ALL.to_vec(), from, to, time_zone: "Europe/Berlin".to_owned() };
    if on { vec![window(60, 360), window(480, 75), window(720, 1380)] } else { Vec::new() }
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..MACHINES;
    prop_oneof![
        2 => (which.clone(), 1..4u8).prop_map(|(m, image)| Op::Image(m, image)),
        1 => (which.clone(), 0..3u64).prop_map(|(m, rebuild)| Op::Rebuild(m, rebuild)),
        2 => (which.clone(), 0..2u64).prop_map(|(m, rebuild)| Op::Decommission(m, rebuild)),
        1 => which.clone().prop_map(Op::Recommission),
        2 => (which.clone(), 0..3u8).prop_map(|(m, config)| Op::Config(m, config)),
        1 => (which.clone(), any::<bool>()).prop_map(|(m, waits)| Op::OnConfigChange(m, waits)),
        1 => (which.clone(), any::<bool>()).prop_map(|(m, on)| Op::Suspend(m, on)),
        1 => (which.clone(), 0..3u8).prop_map(|(m, power)| Op::Power(m, power)),
        1 => (which.clone(), any::<bool>()).prop_map(|(m, install)| Op::OnClaim(m, install)),
        1 => which.clone().prop_map(Op::Remove),
        2 => (which.clone(), any::<bool>()).prop_map(|(m, install)| Op::Add(m, install)),
        1 => which.clone().prop_map(Op::Rename),
        1 => (which.clone(), which.clone()).prop_map(|(a, b)| Op::Chain(a, b)),
        1 => (which.clone(), which.clone()).prop_map(|(a, b)| Op::Swap(a, b)),
        2 => (which.clone(), 0..4u8).prop_map(|(m, what)| Op::Mistype(m, what)),
        1 => which.clone().prop_map(Op::Replace),
        1 => any::<bool>().prop_map(Op::Broken),
        2 => prop::option::weighted(0.9, policy()).prop_map(Op::Rollout),
        1 => prop::bool::weighted(0.3).prop_map(Op::Freeze),
        1 => any::<bool>().prop_map(Op::Window),
        1 => (0..6u32).prop_map(Op::Approve),
        4 => (which.clone(), 0..11u8).prop_map(|(m, iron)| Op::Iron(m, iron)),
        8 => (which.clone(), 3..10usize).prop_map(|(m, rung)| Op::Reach(m, rung)),
        2 => (which.clone(), 0..3u8, any::<bool>()).prop_map(|(m, code, wrote)| Op::Report(m, code, wrote)),
        2 => (which, 0..RUNGS.len(), any::<bool>()).prop_map(|(m, rung, first)| Op::Again(m, rung, first)),
        1 => (0..3u8).prop_map(Op::Stranger),
        1 => any::<bool>().prop_map(Op::Jump),
        3 => (0..MACHINES, 0..6u8).prop_map(|(m, what)| Op::Hold(m, what)),
        2 => (0..MACHINES, 0..8u8).prop_map(|(m, what)| Op::Gates(m, what)),
        4 => (0..MACHINES, any::<bool>()).prop_map(|(m, ok)| Op::Probe(m, ok)),
        3 => (0..MACHINES, any::<bool>()).prop_map(|(m, ok)| Op::Check(m, ok)),
        1 => (0..MACHINES, 0..4u8).prop_map(|(m, health)| Op::Health(m, health)),
        4 => (1..2000u64).prop_map(Op::Tick),
        20 => Just(Op::Turn),
        2 => Just(Op::Crash),
    ]
}

/// What a manifest says of a machine that is true.
#[derive(Debug)]
struct Truth {
    serial: bool,
    mac: bool,
}

impl Truth {
    fn of(machine: &Machine, iron: &Iron) -> Self {
        let mac = machine.nics.iter().any(|nic| iron.macs.contains(&nic.mac));
        Self { serial: machine.identity.serial == iron.born, mac }
    }
}

/// A world, and what a bystander remembers of it without reading the journal.
struct Watched {
    world: World,
    names: Vec<MachineName>,
    /// What each machine's disk holds for certain: what it was adopted with, or what was verified on it last.
    holds: BTreeMap<u32, Generation>,
    /// On which machine each attempt was begun.
    begun: BTreeMap<AttemptId, u32>,
    /// Which machine was claimed under which name, and what its manifest said of it that is true.
    claimed: BTreeMap<MachineName, (u32, Truth)>,
    /// What the disks of each machine were wiped for last, with a proof.
    wiped: BTreeMap<u32, Generation>,
    adds: u8,
}

impl Watched {
    fn new(at_once: u32, destructive: u32) -> Self {
        let mut world = World::new();
        world.fleet.settings.budgets.max_unavailable = Amount::Count(at_once);
        world.fleet.settings.budgets.max_destructive = Destructive { count: destructive, share: 100 };
        let names: Vec<MachineName> = (0..MACHINES).map(|number| name(&format!("m-{number}"))).collect();
        let mut watched = Self {
            world,
            names,
            holds: BTreeMap::new(),
            begun: BTreeMap::new(),
            claimed: BTreeMap::new(),
            wiped: BTreeMap::new(),
            adds: 0,
        };
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

    #[allow(clippy::too_many_lines)]
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Decommission(which, rebuild) => self.edit(*which, |machine| {
                let disks = if *rebuild == 0 { WipeDisks::System } else { WipeDisks::All };
                decommission(machine, WipeMethod::Zero, disks, *rebuild);
            }),
            Op::Recommission(which) => self.edit(*which, |machine| {
                (machine.decommission, machine.power) = (None, PowerIntent::On);
                machine.install.get_or_insert_with(|| install("v1", None, 0));
            }),
            // Of a machine that is taken out of service neither says anything.
            Op::Image(which, _) | Op::Rebuild(which, _) | Op::Power(which, _) if self.is_decommissioned(*which) => {}
            Op::Image(which, image) => self.edit(*which, |machine| {
                let rebuild = machine.install.as_ref().map_or(0, |own| own.rebuild);
                let config = machine.install.as_ref().and_then(|own| own.user_data.clone());
                machine.install = Some(install(&format!("v{image}"), config.as_deref(), rebuild));
            }),
            Op::Rebuild(which, rebuild) => self.edit(*which, |machine| {
                let image = machine.install.as_ref().map_or("v1".to_owned(), |own| own.image.name.to_string());
                let config = machine.install.as_ref().and_then(|own| own.user_data.clone());
                machine.install = Some(install(&image, config.as_deref(), *rebuild));
            }),
            Op::Config(which, config) => self.edit(*which, |machine| {
                let Some(own) = machine.install.as_ref() else { return };
                machine.install = Some(install(own.image.name.as_str(), Some(&config.to_string()), own.rebuild));
            }),
            Op::OnConfigChange(which, waits) => self.edit(*which, |machine| {
                machine.upkeep.on_config_change = if *waits { OnConfigChange::NextInstall } else { OnConfigChange::Reinstall };
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
            Op::Chain(one, other) => self.chain(*one, *other),
            Op::Swap(one, other) => self.swap(*one, *other),
            Op::Mistype(which, what) => self.mistype(*which, *what),
            Op::Replace(which) => self.replace(*which),
            Op::Broken(broken) => self.world.problems = if *broken { vec![problem()] } else { Vec::new() },
            Op::Rollout(policy) => self.rollout(policy.as_ref()),
            Op::Freeze(on) => {
                self.world.commit("freeze");
                self.world.fleet.settings.freeze = on.then(Freeze::default);
            }
            Op::Window(on) => {
                self.world.commit("window");
                self.world.fleet.settings.windows = at_times(*on);
            }
            Op::Approve(count) => self.approve(*count),
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
            Op::Hold(which, what) => self.hold(*which, *what),
            Op::Gates(which, what) => self.edit(*which, |machine| machine.gates = gates(*what)),
            Op::Probe(which, ok) => {
                let answer = if *ok { ProbeAnswer::Status(200) } else { ProbeAnswer::Failed("refused".to_owned()) };
                self.world.probe(&self.names[*which].clone(), PAGE, answer, 200);
            }
            Op::Check(which, ok) => self.world.checked(&self.names[*which].clone(), "raid", *ok, ""),
            Op::Health(which, what) => {
                if let Some(iron) = self.world.iron.get_mut(&self.names[*which]) {
                    let gap = Seen::Unknown(Unknown::NotReported);
                    iron.health = [Seen::Known(Health::OK), Seen::Known(Health::Warning), Seen::Known(Health::Critical), gap]
                        [usize::from(*what)]
                    .clone();
                }
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
            new.identity.serial = Some(format!("SN-{}", self.adds));
            new.place.rack = Some("r".to_owned());
            new.labels.insert("feed".to_owned(), (self.adds % 2).to_string());
            new.install = Some(install("v1", None, 0));
            new.on_claim = on_claim(install_on_claim);
            self.world.iron.remove(&self.names[which]);
            self.world.add(new);
        }
    }

    fn is_decommissioned(&self, which: usize) -> bool {
        self.world.fleet.machines.get(&self.names[which]).is_some_and(|machine| machine.decommission.is_some())
    }

    fn approve(&mut self, count: u32) {
        self.world.commit("approve");
        self.world.fleet.settings.approvers = vec!["anna@example.org".to_owned()];
        let by = if count == 5 { "mallory@example.org" } else { "anna@example.org" };
        self.world.commit.approvals = approve(by, &format!("destroy={count}"));
    }

    fn rollout(&mut self, policy: Option<&Policy>) {
        self.world.commit("rollout");
        self.world.fleet.rollouts.clear();
        let Some(policy) = policy else { return };
        let mut all = everything();
        all.budgets =
            Budgets { breaker_failures: policy.failures, breaker_share: policy.share, ..self.world.fleet.settings.budgets.clone() };
        all.budgets.max_unavailable_per = vec![PerLabel { label: "feed".to_owned(), most: Amount::Count(1) }];
        all.budgets.max_unavailable_rack = policy.rack.map(Amount::Count);
        all.selector.extend(policy.half.then(|| ("feed".to_owned(), "1".to_owned())));
        all.waves.clone_from(&policy.waves);
        all.soak = SignedDuration::from_secs(policy.soak);
        all.paused = policy.paused;
        all.windows = at_times(policy.own_window);
        if let Some((healthy_for, share)) = policy.others_after {
            let after = After { rollout: all.name.clone(), healthy_for: SignedDuration::from_secs(healthy_for), share };
            let others = Rollout { name: RolloutName::new("others").unwrap(), after: vec![after], ..everything() };
            self.world.fleet.rollouts.insert(others.name.clone(), others);
        }
        self.world.fleet.rollouts.insert(all.name.clone(), all);
    }

    fn rename(&mut self, which: usize) {
        self.world.commit("rename");
        let new = self.new_name();
        self.call(which, new);
    }

    fn new_name(&mut self) -> MachineName {
        self.adds += 1;
        name(&format!("n-{}", self.adds))
    }

    fn call(&mut self, which: usize, new: MachineName) {
        let old = std::mem::replace(&mut self.names[which], new.clone());
        if let Some(mut machine) = self.world.fleet.machines.remove(&old) {
            Arc::make_mut(&mut machine).name = new.clone();
            self.world.fleet.machines.insert(new.clone(), machine);
        }
        if let Some(iron) = self.world.iron.remove(&old) {
            self.world.iron.insert(new, iron);
        }
    }

    fn chain(&mut self, one: usize, other: usize) {
        self.world.commit("chain");
        if one != other {
            let (freed, new) = (self.names[other].clone(), self.new_name());
            self.call(other, new);
            self.call(one, freed);
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.world.commit("swap");
        if one != other {
            let (mine, its, between) = (self.names[one].clone(), self.names[other].clone(), self.new_name());
            self.call(one, between);
            self.call(other, mine);
            self.call(one, its);
        }
    }

    fn mistype(&mut self, which: usize, what: u8) {
        let Some(iron) = self.world.iron.get(&self.names[which]).cloned() else { return };
        self.adds += 1;
        let wrong = self.adds;
        self.edit(which, |machine| {
            machine.identity.serial = if what & 1 == 1 { Some(format!("WRONG-{wrong}")) } else { iron.born.clone() };
            machine.nics[0].mac = if what & 2 == 2 { Mac([2, 0, 0, 0, 0, wrong]) } else { iron.macs[0] };
        });
    }

    fn replace(&mut self, which: usize) {
        self.adds += 1;
        let number = self.adds;
        self.edit(which, |machine| {
            machine.identity.serial = Some(format!("SN-{number}"));
            machine.nics[0].mac = Mac([0x52, 0x54, 0, 0, 0, number]);
            machine.disks.system = Some(DiskHint { serial: Some(format!("DISK-{number}")), ..DiskHint::default() });
        });
        if let Some(machine) = self.world.fleet.machines.get(&self.names[which]).cloned() {
            self.world.iron.remove(&self.names[which]);
            self.world.add((*machine).clone());
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
                iron.power = PowerState::On;
                iron.gap = None;
                iron.identity_gap = false;
                iron.serial.clone_from(&iron.born);
                iron.obeys = Obeys::Yes;
                iron.stubborn = false;
            }
        }
    }

    fn hold(&mut self, which: usize, what: u8) {
        let brake = &mut self.world.brake;
        let scope = match what {
            0 => HoldScope::All,
            1 => HoldScope::Group(RolloutName::new("default").unwrap()),
            2 => HoldScope::Machine(self.names[which].clone()),
            3 => return brake.unreadable = Some("torn".to_owned()),
            _ => return *brake = Brake::default(),
        };
        brake.holds.push(Hold { scope, by: "a".to_owned(), at: self.world.now, reason: String::new() });
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

    /// Who is noted as healthy has shown it, as far as anybody can tell who stands beside: each gate has passed since its call home, and
    /// what its BMC says now is good enough.
    fn nobody_is_healthy_too_early(&self, made: &Plan) {
        for step in made.steps() {
            let Action::Witness { rung: Rung::Healthy, attempt } = &step.action else { continue };
            let open = self.world.open(&attempt.machine).unwrap();
            let Some(home) = open.reached(Rung::CalledHome) else {
                assert!(open.generation.is_wipe(), "{attempt} is noted as healthy, and nothing called home");
                continue;
            };
            for gate in self.world.fleet.machines.get(&attempt.machine).map(|machine| machine.gates.clone()).unwrap_or_default() {
                match gate {
                    Gate::Http { .. } => {
                        let probed = &self.world.probes[&attempt.machine][PAGE];
                        assert_eq!(probed.answer, ProbeAnswer::Status(200));
                        assert!(probed.at >= home && self.world.now.duration_since(probed.at) < SignedDuration::from_mins(2));
                    }
                    Gate::Reported { .. } => assert!(open.checks["raid"].ok && open.checks["raid"].at >= home),
                    Gate::RedfishHealth { .. } => {
                        let health = self.world.iron[&attempt.machine].health.known().copied();
                        assert!(matches!(health, Some(Health::OK | Health::Warning)), "{health:?}");
                    }
                    Gate::CalledHome { .. } => {}
                }
            }
        }
    }

    fn turn(&mut self, crash: bool) {
        let (made, violations) = self.world.plan();
        self.nobody_is_healthy_too_early(&made);
        assert_eq!(violations, [], "{}", render_text(&made));
        assert_eq!(self.world.plan().0, made, "the same input gives the same plan");
        let wide = render_text(&made).lines().find(|line| line.chars().count() > 100).map(str::to_owned);
        assert_eq!(wide, None, "wider than a terminal");
        assert!(render_markdown(&made).contains("\n**Plan: ") && render_markdown(&made).chars().count() <= LONGEST);
        for name in self.world.fleet.machines.keys().chain(self.world.history.machines.keys()) {
            assert!(made.machines.contains_key(name), "{name} is absent");
        }
        for step in made.steps() {
            self.lawful(step);
        }
        self.world.turn(crash);
        if !crash {
            made.steps().for_each(|step| self.note(step));
        }
        self.one_at_a_time();
    }

    /// The law, as somebody would state it who stands beside.
    fn lawful(&self, step: &Step) {
        let machine = self.world.fleet.machines.get(&step.machine);
        if step.risk() >= Risk::Settings {
            let machine = machine.expect("what left the fleet is never touched (law 3)");
            assert!(!machine.suspend, "suspended");
        }
        if step.risk() >= Risk::Settings {
            let Brake { holds, unreadable } = &self.world.brake;
            let labels = &machine.unwrap().labels;
            let fits = |rollout: &&Rollout| rollout.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            let group = self.world.fleet.rollouts.values().find(fits).map_or("default", |rollout| rollout.name.as_str());
            let stops = |scope: &HoldScope| match scope {
                HoldScope::All => true,
                HoldScope::Machine(name) => *name == step.machine,
                HoldScope::Group(name) => name.as_str() == group,
            };
            assert!(unreadable.is_none() && !holds.iter().any(|hold| stops(&hold.scope)), "it is on hold (law 12): {step:?}");
        }
        if step.risk() >= Risk::Disruptive {
            let iron = &self.world.iron[&step.machine];
            assert!(iron.gap.is_none() && !iron.identity_gap, "unknown never destroys (law 2): {step:?}");
            assert_eq!(iron.serial, machine.unwrap().identity.serial, "another machine (law 8): {step:?}");
        }
        if let Action::BeginAttempt { generation, .. } = &step.action {
            assert!(self.world.problems.is_empty(), "begun under a commit with errors");
            assert_eq!(machine.unwrap().generation(), Some(*generation), "the commit does not say so (law 1)");
            assert_eq!(machine.unwrap().decommission.is_some(), generation.is_wipe(), "a wipe is what says decommission (law 3)");
            let body = self.world.iron[&step.machine].body;
            assert_ne!(self.holds.get(&body), Some(generation), "it holds that already (law 1)");
            assert_eq!(
                self.claimed.get(&step.machine).map(|(body, _)| *body),
                Some(body),
                "another machine was claimed under this name (law 4)"
            );
            let begun = self.holds.contains_key(&body)
                || machine.unwrap().on_claim == OnClaim::Install
                || machine.unwrap().decommission.is_some()
                || self.world.history.machines[&step.machine].attempts.iter().any(Attempt::wrote);
            assert!(begun, "adopted, and nobody asked (law 5)");
        }
        if let (Action::PowerOff { .. }, Reason::PowerDrift { .. }) = (&step.action, &step.reason)
            && let Some(wipe) = &machine.unwrap().decommission
        {
            let body = self.world.iron[&step.machine].body;
            assert_eq!(self.wiped.get(&body), Some(&wipe.generation), "switched off for good before it is wiped (law 3)");
        }
        if let Action::Claim { .. } = &step.action {
            let (iron, machine) = (&self.world.iron[&step.machine], machine.unwrap());
            let body = iron.body;
            // A new name, with everything mistyped that was right before, is a new machine to anybody who reads it.
            let truth = Truth::of(machine, iron);
            let told = |before: &Truth| truth.serial && before.serial || truth.mac && before.mac;
            let known = self.claimed.iter().find(|(_, (claimed, before))| *claimed == body && told(before));
            assert!(known.is_none_or(|(name, _)| *name == step.machine), "{known:?} is claimed as new: {step:?} (law 4)");
        }
        if step.action == Action::Release {
            assert!(machine.is_none() && self.world.problems.is_empty(), "a parse error is not a deletion (law 2)");
        }
    }

    /// What a step says of a machine, by the machine that stands there.
    fn note(&mut self, step: &Step) {
        let body = self.world.iron.get(&step.machine).map(|iron| iron.body);
        let truth = |of: &Self| Truth::of(&of.world.fleet.machines[&step.machine], &of.world.iron[&step.machine]);
        match &step.action {
            Action::Claim { installed } => {
                self.claimed.insert(step.machine.clone(), (body.unwrap(), truth(self)));
                self.holds.extend(installed.map(|installed| (body.unwrap(), installed)));
            }
            Action::NoteHardware { .. } => drop(self.claimed.insert(step.machine.clone(), (body.unwrap(), truth(self)))),
            Action::Rename { from } => {
                let body = self.claimed.remove(from).unwrap();
                self.claimed.insert(step.machine.clone(), body);
            }
            // A machine that left and comes again is new.
            Action::Release => {
                if let Some((body, _)) = self.claimed.remove(&step.machine) {
                    self.holds.remove(&body);
                }
            }
            Action::BeginAttempt { attempt, .. } => {
                assert_eq!(self.begun.insert(attempt.clone(), body.unwrap()), None, "{attempt} began a second time");
            }
            _ => {}
        }
    }

    /// Reads from the disks, so to say: what the machines hold now.
    fn remember(&mut self) {
        for attempt in self.world.history.machines.values().flat_map(|machine| &machine.attempts).filter(|attempt| attempt.wrote()) {
            let Some(body) = self.begun.get(&attempt.id) else { continue };
            let proved = attempt.evidence.iter().any(|(_, evidence)| matches!(evidence, Evidence::Wiped { .. }));
            self.wiped.extend(proved.then_some((*body, attempt.generation)));
            match attempt.reached(Rung::Written) {
                Some(_) => drop(self.holds.insert(*body, attempt.generation)),
                None => drop(self.holds.remove(body)),
            }
        }
    }
}

/// `PROPTEST_CASES=20000 cargo test --test plan_law` for a long look.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

/// The page of each machine.
const PAGE: &str = "http://10.0.0.1/healthz";

/// Which of three gates a machine has.
fn gates(what: u8) -> Vec<Gate> {
    let within = SignedDuration::from_mins(10);
    let all = [
        Gate::Http { url: PAGE.to_owned(), status: 200, within },
        Gate::Reported { check: "raid".to_owned(), within },
        Gate::RedfishHealth { worst: Health::Warning, within },
    ];
    all.into_iter().enumerate().filter(|(bit, _)| what & (1 << bit) != 0).map(|(_, gate)| gate).collect()
}

fn on_claim(install: bool) -> OnClaim {
    if install { OnClaim::Install } else { OnClaim::Adopt }
}

fn approve(by: &str, text: &str) -> Vec<Approval> {
    vec![Approval { by: by.to_owned(), text: text.to_owned(), signers: None }]
}

/// A rollout of all machines without limits of its own.
fn everything() -> Rollout {
    Rollout {
        name: RolloutName::new("all").unwrap(),
        selector: BTreeMap::new(),
        after: vec![],
        budgets: Budgets { max_destructive: Destructive { count: 9, share: 100 }, ..Budgets::default() },
        waves: vec![],
        soak: SignedDuration::ZERO,
        windows: vec![],
        freeze: None,
        paused: false,
    }
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
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

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
            keep: vec![],
            work: Work::Install { install: Box::new(install("v1", None, 0)), system: DiskHint::default() },
            evidence: vec![],
        };
        plan.machines.get_mut(&name("m-3")).unwrap().ticket = Some(Box::new(ticket));
    });
}

/// The planner's plan without the brake is what a planner would make that forgot it.
#[test]
fn the_checker_reads_the_brake_anew() {
    let mut world = about_to_reinstall();
    let hold =
        |scope| Brake { holds: vec![Hold { scope, by: "a".to_owned(), at: Timestamp::MIN, reason: String::new() }], unreadable: None };
    let named = |text: &str| hold(HoldScope::Machine(name(text)));
    let group = |text: &str| hold(HoldScope::Group(RolloutName::new(text).unwrap()));
    let unreadable = Brake { unreadable: Some("torn".to_owned()), ..Brake::default() };
    let mut broken = |brake: &Brake, what: &str, law: u8| {
        world.brake = Brake::default();
        let mut forgot = world.plan().0;
        world.brake = brake.clone();
        for part in forgot.machines.values_mut() {
            part.held.extend(brake.on(&part.name, None));
        }
        let (made, violations) = world.plan();
        assert_eq!(violations, [], "{}", render_text(&made));
        let found = world.with_input(|input| check(&forgot, input));
        assert!(found.iter().any(|violation| violation.law == law), "{what}: {found:?}");
        world.turn(false);
    };
    for brake in [hold(HoldScope::All), group("default"), named("m-1"), unreadable.clone()] {
        broken(&brake, "a reinstall is begun", 12);
    }
    // Its install is on its way: the machine is switched off next, and has a ticket.
    world.brake = Brake::default();
    world.turn(false);
    world.turn(false);
    for brake in [named("m-1"), group("default")] {
        let mut forgot = world.plan().0;
        forgot.machines.get_mut(&name("m-1")).unwrap().held.push(Held::OnHold { hold: brake.holds[0].clone() });
        let of = |brake: &Brake, plan: &Plan| {
            let mut world = world.clone();
            world.brake = brake.clone();
            world.with_input(|input| check(plan, input)).into_iter().map(|violation| violation.law).collect::<Vec<_>>()
        };
        let broken: Vec<u8> = of(&brake, &forgot).into_iter().filter(|law| *law > 0).collect();
        assert_eq!(broken, [12, 9], "an order and a ticket");
        assert_eq!(of(&group("other"), &forgot), [0_u8; 0], "somebody else's hold");
        forgot.machines.values_mut().for_each(|part| part.held.clear());
        assert!(of(&brake, &forgot).contains(&0), "its entry does not say so");
    }
    // It left the fleet, or has another name: by its name it is held, and keeps it.
    let mut gone = world.clone();
    gone.commit("rename");
    let mut machine = Arc::unwrap_or_clone(gone.fleet.machines.remove(&name("m-3")).unwrap());
    gone.fleet.machines.remove(&name("m-4"));
    machine.name = name("n-3");
    gone.fleet.machines.insert(name("n-3"), machine.into());
    let forgot = gone.plan().0;
    for (held, law) in [("m-3", 12), ("m-4", 12)] {
        gone.brake = named(held);
        assert_eq!(gone.plan().1, []);
        assert!(gone.with_input(|input| check(&forgot, input)).iter().any(|violation| violation.law == law), "{held} loses its name");
    }
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

/// A machine that called home, with gates of each kind that all pass, and the planner's plan for it; then one of them is changed.
#[test]
fn the_checker_reads_gates_anew() {
    let mut world = World::new();
    world.add(Machine { install: Some(install("v1", None, 0)), gates: gates(7), ..machine("m-1", 1) });
    let m = name("m-1");
    world.turn(false);
    world.commit("v2");
    Arc::make_mut(world.fleet.machines.get_mut(&m).unwrap()).install = Some(install("v2", None, 0));
    world.turn(false);
    world.probe(&m, PAGE, ProbeAnswer::Status(200), 200);
    world.checked(&m, "raid", true, "");
    let early = world.clone();
    world.tick(1);
    world.reach(&m, Rung::CalledHome);
    let attempt = world.open(&m).unwrap().id.clone();
    // What passed before it called home does not count.
    assert_eq!(world.plan().0.steps().count(), 0);
    let stale = (world.probes.clone(), early.history.machines[&m].attempts[0].checks.clone());
    world.iron.get_mut(&m).unwrap().health = Seen::Known(Health::Warning);
    world.probe(&m, PAGE, ProbeAnswer::Status(200), 200);
    world.checked(&m, "raid", true, "again");
    let (healthy, violations) = world.plan();
    assert_eq!(violations, []);
    assert!(healthy.steps().any(|step| matches!(step.action, Action::Witness { rung: Rung::Healthy, .. })));
    let found = |world: &World, plan: &Plan| world.with_input(|input| check(plan, input));
    let refuses = |what: &str, change: &dyn Fn(&mut World)| {
        let mut world = world.clone();
        change(&mut world);
        assert!(found(&world, &healthy).iter().any(|violation| violation.law == 7), "{what}");
        assert!(world.plan().0.steps().all(|step| !matches!(step.action, Action::Witness { .. })), "{what}: by the planner");
        assert_eq!(world.plan().1, [], "{what}");
    };
    refuses("another status", &|world| world.probe(&m, PAGE, ProbeAnswer::Status(204), 200));
    refuses("no answer", &|world| world.probe(&m, PAGE, ProbeAnswer::Failed("refused".to_owned()), 200));
    refuses("nobody asked", &|world| world.probes.clear());
    refuses("an answer from before", &|world| world.probes = stale.0.clone());
    refuses("an old answer", &|world| {
        world.tick(180);
        world.iron.get_mut(&m).unwrap().health = Seen::Known(Health::OK);
    });
    refuses("a check that failed", &|world| world.checked(&m, "raid", false, ""));
    refuses("a check from before", &|world| world.history.machines.get_mut(&m).unwrap().attempts[0].checks = stale.1.clone());
    refuses("bad health", &|world| world.iron.get_mut(&m).unwrap().health = Seen::Known(Health::Critical));
    refuses("another machine's health", &|world| world.iron.get_mut(&m).unwrap().serial = Some("OTHER".to_owned()));
    refuses("no health", &|world| world.iron.get_mut(&m).unwrap().gap = Some(Unknown::NotAsked));
    // The end: not as done before it is healthy, not as failed at a gate before its time or at one that it does not have.
    let end = |end: AttemptEnd| {
        let mut plan = healthy.clone();
        plan.machines.get_mut(&m).unwrap().steps = vec![step("m-1", Action::EndAttempt { attempt: attempt.clone(), end })];
        plan
    };
    let failed = |code: &str| AttemptEnd::Failed { code: code.to_owned(), why: String::new(), retry: false };
    for wrong in [AttemptEnd::Done, failed("gate-http"), failed("gate-other")] {
        assert!(found(&world, &end(wrong.clone())).iter().any(|violation| violation.law == 7), "{wrong}");
    }
    assert_eq!(found(&world, &end(AttemptEnd::Superseded)), []);
    world.tick(600);
    assert_eq!(found(&world, &end(failed("gate-http"))), []);
    assert!(!found(&world, &end(failed("gate-other"))).is_empty());
}

/// The planner is told of no `after`; the checker reads the one that there is.
#[test]
fn the_checker_reads_after_anew() {
    let start = |share, healthy_for| {
        let mut world = World::new();
        for number in 1..=4 {
            let mut machine = Machine { install: Some(install("v1", None, 0)), ..machine(&format!("m-{number}"), number) };
            machine.labels.insert("feed".to_owned(), if number < 4 { "early" } else { "late" }.to_owned());
            world.add(machine);
        }
        world.turn(false);
        world.commit("v2");
        for machine in world.fleet.machines.values_mut() {
            Arc::make_mut(machine).install = Some(install("v2", None, 0));
        }
        let budgets = Budgets { max_unavailable: Amount::Count(4), breaker_failures: 9, ..everything().budgets };
        let mut early = Rollout { name: RolloutName::new("early").unwrap(), budgets, ..everything() };
        early.selector.insert("feed".to_owned(), "early".to_owned());
        let after = After { rollout: early.name.clone(), share, healthy_for };
        let late = Rollout { name: RolloutName::new("late").unwrap(), after: vec![after], ..everything() };
        world.fleet.rollouts = [early, late].map(|rollout| (rollout.name.clone(), rollout)).into();
        world
    };
    let found = |world: &World| {
        let mut forgot = world.clone();
        forgot.fleet.rollouts.get_mut(&RolloutName::new("late").unwrap()).unwrap().after.clear();
        let forgot = forgot.plan().0;
        let begins = |plan: &Plan| plan.machines[&name("m-4")].steps.iter().any(|step| step.risk() == Risk::Destructive);
        assert!(begins(&forgot), "{}", render_text(&forgot));
        let (made, violations) = world.plan();
        assert_eq!(violations, []);
        let found = world.with_input(|input| check(&forgot, input));
        assert_eq!(found.iter().any(|violation| violation.law == 7), !begins(&made), "{found:?}\n{}", render_text(&made));
        found.first().map(|violation| violation.what.clone()).unwrap_or_default()
    };
    let install = |world: &mut World, number: u8| {
        let name = name(&format!("m-{number}"));
        world.reach(&name, Rung::CalledHome);
        let attempt = world.open(&name).unwrap().id.clone();
        world.append(Fact::Concluded { attempt, end: AttemptEnd::Done });
    };
    let minutes = SignedDuration::from_mins;
    let mut world = start(None, minutes(5));
    assert!(found(&world).contains("does not hold"));
    world.turn(false);
    assert!(found(&world).contains("on its way"));
    (1..=3).for_each(|number| install(&mut world, number));
    assert!(found(&world).contains("long enough"));
    world.tick(301);
    assert_eq!(found(&world), "");
    let mut world = start(Some(60), minutes(5));
    world.turn(false);
    install(&mut world, 1);
    assert!(found(&world).contains("share"));
    install(&mut world, 2);
    assert!(found(&world).contains("share"));
    world.tick(301);
    assert_eq!(found(&world), "", "two of three are 60 %, and the third is on its way");
    let attempt = world.open(&name("m-2")).map(|attempt| attempt.id.clone());
    assert_eq!(attempt, None);
    // One of the two is wanted anew and fails for good.
    Arc::make_mut(world.fleet.machines.get_mut(&name("m-2")).unwrap()).install = Some(plan_world::install("v3", None, 0));
    assert!(found(&world).contains("share"));
}

/// The planner is told of an approval that the checker can't find: by a stranger, for too few, or in other words.
#[test]
fn the_checker_reads_approvals_anew() {
    let mut world = World::new();
    world.fleet.settings.budgets = Budgets { max_destructive: Destructive { count: 1, share: 100 }, ..Budgets::default() };
    world.fleet.settings.approvers = vec!["anna@example.org".to_owned()];
    for number in 1..=2 {
        world.add(Machine { install: Some(install("v1", None, 0)), ..machine(&format!("m-{number}"), number) });
    }
    world.turn(false);
    world.commit("v2");
    for machine in world.fleet.machines.values_mut() {
        Arc::make_mut(machine).install = Some(install("v2", None, 0));
    }
    world.commit.approvals = approve("anna@example.org", "destroy=2");
    world.turn(false);
    let first = world.open(&name("m-1")).unwrap().id.clone();
    for rung in [Rung::AgentUp, Rung::Writing, Rung::Written, Rung::CalledHome] {
        world.reach(&name("m-1"), rung);
    }
    world.append(Fact::Concluded { attempt: first, end: AttemptEnd::Done });
    let (made, violations) = world.plan();
    assert!(made.steps().any(|step| step.risk() == Risk::Destructive), "{}", render_text(&made));
    assert_eq!(violations, []);
    for approvals in
        [vec![], approve("mallory@example.org", "destroy=2"), approve("anna@example.org", "destroy=1"), approve("anna@example.org", "2")]
    {
        world.commit.approvals = approvals;
        let violations = world.with_input(|input| check(&made, input));
        assert!(violations.iter().any(|violation| violation.law == 7), "{:?}", world.commit.approvals);
        assert!(world.plan().0.steps().all(|step| step.risk() != Risk::Destructive));
    }
    // Where signatures are asked for, what the author typed says nothing: whoever signed approves.
    world.fleet.settings.signatures = Some(Signatures::default());
    let signed = |signers: Option<&[&str]>| {
        let mut approvals = approve("anna@example.org", "destroy=2");
        approvals[0].signers = signers.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        approvals
    };
    for (signers, counts) in [
        (None, false),
        (Some(&[][..]), false),
        (Some(&["mallory@example.org"][..]), false),
        (Some(&["anna", "anna@example.org"][..]), true),
    ] {
        world.commit.approvals = signed(signers);
        let violations = world.with_input(|input| check(&made, input));
        assert_eq!(violations.iter().all(|violation| violation.law != 7), counts, "{signers:?}");
        assert_eq!(world.plan().0.steps().any(|step| step.risk() == Risk::Destructive), counts, "{signers:?}");
    }
    // Also in the commit that stops asking.
    world.fleet.settings.signatures = None;
    world.commit.approvals = signed(Some(&["mallory@example.org"]));
    assert!(world.with_input(|input| check(&made, input)).iter().any(|violation| violation.law == 7));
    assert!(world.plan().0.steps().all(|step| step.risk() != Risk::Destructive));
}

fn only(begins: bool, made: &mut Plan) {
    let generation = install("v2", None, 0).generation;
    made.machines.get_mut(&name("m-1")).unwrap().steps = if begins { vec![begin("m-1", 1, generation)] } else { vec![] };
}

/// Planner and checker reckon the wall clock in two ways. Every quarter of an hour, around each change of daylight saving.
#[test]
fn a_window_is_open_for_the_checker_when_it_is_for_the_planner() {
    let mut world = World::new();
    world.add(Machine { install: Some(install("v1", None, 0)), ..machine("m-1", 1) });
    world.turn(false);
    world.commit("v2");
    Arc::make_mut(world.fleet.machines.get_mut(&name("m-1")).unwrap()).install = Some(install("v2", None, 0));
    let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Auckland", "UTC", "No/Where"];
    let days = [vec![Weekday::Sun], vec![Weekday::Sat, Weekday::Mon], Weekday::ALL.to_vec()];
    let times = [(150, 165), (1320, 300), (60, 180), (0, 1440), (1425, 1425), (120, 0)];
    let (mut opened, mut closed) = (0, 0);
    for (zone, days, (from, to)) in zones
        .iter()
        .flat_map(|zone| days.iter().map(move |days| (zone, days)))
        .flat_map(|(zone, days)| times.iter().map(move |times| (*zone, days, *times)))
    {
        world.fleet.settings.windows = vec![Window { days: days.clone(), from, to, time_zone: zone.to_owned() }];
        for start in
            ["2026-03-07T00:00:00Z", "2026-03-28T12:00:00Z", "2026-04-04T00:00:00Z", "2026-10-24T12:00:00Z", "2026-10-31T12:00:00Z"]
        {
            world.now = start.parse().unwrap();
            for _ in 0..4 * 48 {
                world.tick(15 * 60);
                world.with_input(|input| {
                    let mut made = plan(input);
                    assert_eq!(check(&made, input), []);
                    let begins = made.steps().next().is_some();
                    only(true, &mut made);
                    assert_eq!(check(&made, input).is_empty(), begins, "{zone} {days:?} {from} {to} at {}", input.now);
                    *(if begins { &mut opened } else { &mut closed }) += 1;
                });
            }
        }
    }
    assert!(opened > 10_000 && closed > 10_000, "{opened} {closed}");
}

#[test]
fn the_checker_knows_freezes_and_pauses() {
    let stop: [fn(&mut World); 5] = [
        |world| world.fleet.settings.freeze = Some(Freeze::default()),
        |world| world.fleet.settings.freeze = Some(Freeze { until: Some(Timestamp::MAX), reason: None }),
        |world| world.fleet.settings.windows = vec![Window { days: vec![], from: 0, to: 1440, time_zone: "UTC".to_owned() }],
        |world| world.fleet.rollouts.values_mut().for_each(|rollout| rollout.paused = true),
        |world| world.fleet.rollouts.values_mut().for_each(|rollout| rollout.freeze = Some(Freeze::default())),
    ];
    for (n, stop) in stop.iter().enumerate() {
        let mut world = about_to_reinstall();
        let all = everything();
        world.fleet.rollouts.insert(all.name.clone(), all);
        let (made, violations) = world.plan();
        assert!(made.steps().any(|step| step.risk() == Risk::Destructive));
        assert_eq!(violations, []);
        stop(&mut world);
        if n == 2 {
            let windows = world.fleet.settings.windows.clone();
            world.fleet.rollouts.values_mut().for_each(|rollout| rollout.windows.clone_from(&windows));
        }
        let found = world.with_input(|input| check(&made, input));
        assert!(found.iter().any(|violation| violation.law == 7), "{n}");
        assert!(world.plan().0.steps().all(|step| step.risk() < Risk::Disruptive), "{n}");
    }
}

/// A second machine is put into a plan that rightly holds it: the canary is on its way, soaks, or failed for good.
#[test]
fn the_checker_counts_waves_anew() {
    let mut world = World::new();
    let mut all = everything();
    (all.waves, all.soak) = (vec![Amount::Count(1)], SignedDuration::from_mins(10));
    all.budgets.max_unavailable = Amount::Count(5);
    all.budgets.breaker_failures = 5;
    world.fleet.rollouts.insert(all.name.clone(), all);
    for number in 1..=3 {
        world.add(Machine { install: Some(install("v1", None, 0)), ..machine(&format!("m-{number}"), number) });
    }
    world.turn(false);
    world.commit("v2");
    let v2 = install("v2", None, 0);
    for machine in world.fleet.machines.values_mut() {
        Arc::make_mut(machine).install = Some(v2.clone());
    }
    let refused = |world: &World| {
        world.with_input(|input| {
            let mut made = plan(input);
            assert_eq!(check(&made, input), []);
            assert!(made.machines[&name("m-2")].steps.is_empty(), "{}", render_text(&made));
            made.machines.get_mut(&name("m-2")).unwrap().steps = vec![begin("m-2", 1, v2.generation)];
            check(&made, input).iter().any(|violation| violation.law == 7)
        })
    };
    world.turn(false);
    assert!(refused(&world), "the canary is on its way");
    let attempt = world.open(&name("m-1")).unwrap().id.clone();
    let before = world.clone();
    for rung in [Rung::AgentUp, Rung::Writing, Rung::Written, Rung::CalledHome] {
        world.reach(&name("m-1"), rung);
    }
    world.append(Fact::Concluded { attempt: attempt.clone(), end: AttemptEnd::Done });
    assert!(refused(&world), "the canary soaks");
    world.tick(600);
    let (made, violations) = world.plan();
    assert_eq!((made.machines[&name("m-2")].steps.len(), violations), (1, vec![]));

    world.commit("a commit that changes nothing of it");
    let (made, violations) = world.plan();
    assert_eq!((made.machines[&name("m-2")].steps.len(), violations), (1, vec![]));
    let begins_anew = |input: &Input<'_>| {
        let history = History { goes_on: BTreeMap::new(), ..input.history.clone() };
        let found = check(&made, &Input { history: &history, ..*input });
        found.iter().any(|violation| violation.law == 7)
    };
    assert!(world.with_input(begins_anew), "one that begins anew has one canary");

    let mut world = before;
    let end = AttemptEnd::Failed { code: "no-disk-matches".to_owned(), why: String::new(), retry: false };
    world.append(Fact::Concluded { attempt, end });
    assert!(refused(&world), "all of the first wave failed");
    let all = world.fleet.rollouts.values_mut().next().unwrap();
    (all.waves, all.budgets.breaker_failures) = (vec![], 1);
    assert!(refused(&world), "the breaker is open");
    let all = world.fleet.rollouts.values_mut().next().unwrap();
    (all.budgets.breaker_share, all.budgets.breaker_failures) = (Some(33), 5);
    assert!(refused(&world), "the breaker of the share is open");
}

#[test]
fn the_checker_counts_failure_domains_anew() {
    let mut world = World::new();
    let mut all = everything();
    all.budgets.max_unavailable = Amount::Count(5);
    all.budgets.max_unavailable_per = vec![PerLabel { label: "feed".to_owned(), most: Amount::Count(1) }];
    world.fleet.rollouts.insert(all.name.clone(), all);
    for (number, feed) in [(1, "a"), (2, "a"), (3, "b")] {
        let labels = [("feed".to_owned(), feed.to_owned())].into();
        world.add(Machine { install: Some(install("v1", None, 0)), labels, ..machine(&format!("m-{number}"), number) });
    }
    world.turn(false);
    world.commit("v2");
    let v2 = install("v2", None, 0);
    for machine in world.fleet.machines.values_mut() {
        Arc::make_mut(machine).install = Some(v2.clone());
    }
    world.with_input(|input| {
        let mut made = plan(input);
        assert_eq!(check(&made, input), []);
        let begins: Vec<&str> = made.steps().map(|step| step.machine.as_str()).collect();
        assert_eq!(begins, ["m-1", "m-3"]);
        made.machines.get_mut(&name("m-2")).unwrap().steps = vec![begin("m-2", 1, v2.generation)];
        assert!(check(&made, input).iter().any(|violation| violation.law == 7 && violation.what.contains("feed =a")));
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
        let same = plan(&Input { fleet: &base, history: &history, seen: &seen, ..*input });
        assert!(same.is_empty(), "{}", render_text(&same));
        let made = plan(&Input { history: &history, former: Some(&base), seen: &seen, ..*input });
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
