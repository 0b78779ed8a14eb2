//! The second reader of plans (`plan/check`), sentence by sentence: for each thing that it can say, a plan of which it says that, and nothing
//! else than `tests/golden/second-reader.txt` has. `UPDATE=1` writes that file anew; read the difference like law.
#![allow(clippy::unwrap_used, clippy::too_many_lines, clippy::type_complexity, missing_docs)]

mod plan_world;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc};

use plan_world::*;
use rackwright::{
    model::*,
    plan::{Input, check, plan},
};

type Seens = BTreeMap<MachineName, Observation>;

#[derive(Default)]
struct Page(String);

impl Page {
    /// The planner's plan, of which nothing is said; then what is said of it once it was changed.
    fn case(&mut self, what: &str, world: &World, change: impl FnOnce(&mut Plan)) {
        self.seen(what, world, |_| {}, change);
    }

    /// The same, over another observation.
    fn seen(&mut self, what: &str, world: &World, see: impl FnOnce(&mut Seens), change: impl FnOnce(&mut Plan)) {
        let mut seen = world.seen();
        see(&mut seen);
        world.with_input(|input| {
            let input = Input { seen: &seen, ..*input };
            let mut made = plan(&input);
            assert_eq!(check(&made, &input), [], "{what}: before");
            change(&mut made);
            self.says(what, &made, &input);
        });
    }

    /// A plan that was made before the world changed.
    fn stale(&mut self, what: &str, world: &World, change: impl FnOnce(&mut World)) {
        let made = world.plan().0;
        let mut world = world.clone();
        change(&mut world);
        world.with_input(|input| self.says(what, &made, input));
    }

    fn says(&mut self, what: &str, made: &Plan, input: &Input<'_>) {
        let _ = writeln!(self.0, "{what}");
        let said = check(made, input);
        if said.is_empty() {
            let _ = writeln!(self.0, "    nothing");
        }
        for violation in said {
            let _ = writeln!(self.0, "    {violation}");
        }
    }
}

fn step(machine: &str, action: Action) -> Step {
    Step { machine: name(machine), action, reason: Reason::NewMachine }
}

fn begin(machine: &str, number: u32, generation: Generation) -> Step {
    step(machine, Action::BeginAttempt { attempt: AttemptId { machine: name(machine), number }, generation })
}

fn steps(machine: &'static str, steps: Vec<Step>) -> impl FnOnce(&mut Plan) {
    move |plan| plan.machines.get_mut(&name(machine)).unwrap().steps = steps
}

fn one(machine: &'static str, action: Action) -> impl FnOnce(&mut Plan) {
    steps(machine, vec![step(machine, action)])
}

fn edit(world: &mut World, machine: &str, change: impl FnOnce(&mut Machine)) {
    change(Arc::make_mut(world.fleet.machines.get_mut(&name(machine)).unwrap()));
}

fn generation(image: &str) -> Generation {
    install(image, None, 0).generation
}

fn adopted(text: &str, number: u8) -> Machine {
    Machine { install: Some(install("v1", None, 0)), ..machine(text, number) }
}

/// Five machines, adopted with v1, that may be installed all at once.
fn world() -> World {
    let mut world = World::new();
    let budgets = &mut world.fleet.settings.budgets;
    *budgets = Budgets { max_unavailable: Amount::Count(5), max_destructive: Destructive { count: 9, share: 100 }, ..budgets.clone() };
    for number in 1..=5 {
        world.add(adopted(&format!("m-{number}"), number));
    }
    world.turn(false);
    world
}

/// The same, and a commit that asks for v2 on m-1.
fn wants() -> World {
    let mut world = world();
    world.commit("v2");
    edit(&mut world, "m-1", |machine| machine.install = Some(install("v2", None, 0)));
    world
}

/// m-1 has an open attempt, with evidence up to here.
fn open(rung: Rung) -> World {
    let mut world = wants();
    world.turn(false);
    world.turn(false);
    if rung > Rung::TicketArmed {
        world.reach(&name("m-1"), rung);
    }
    world
}

fn problem() -> Problem {
    let (file, code, message) = ("a.yaml".to_owned(), "syntax".to_owned(), "not YAML".to_owned());
    Problem { file, line: 1, column: 1, length: 1, severity: Severity::Error, code, message, hint: None }
}

fn off(force: bool) -> Action {
    Action::PowerOff { force }
}

fn end(world: &mut World, machine: &str, retry: bool) {
    let attempt = world.open(&name(machine)).unwrap().id.clone();
    let end = AttemptEnd::Failed { code: "network".to_owned(), why: String::new(), retry };
    world.append(Fact::Concluded { attempt, end });
}

fn form(page: &mut Page) {
    let world = wants();
    page.case("absent", &world, |plan| drop(plan.machines.remove(&name("m-3"))));
    page.case("under another name", &world, |plan| plan.machines.get_mut(&name("m-3")).unwrap().name = name("m-4"));
    page.case("another's step", &world, steps("m-3", vec![step("m-4", Action::Rename { from: name("m-9") })]));
    let twice = vec![begin("m-1", 1, generation("v2")), begin("m-1", 1, generation("v2"))];
    page.case("begun twice", &world, steps("m-1", twice));
    let noted = Action::NoteHardware { hardware: rackwright::plan::hardware(&world.fleet.machines[&name("m-1")]) };
    page.case("begun and noted", &world, steps("m-1", vec![begin("m-1", 1, generation("v2")), step("m-1", noted)]));
    let mut both = world.clone();
    edit(&mut both, "m-3", |machine| machine.power = PowerIntent::Unmanaged);
    page.case("two orders", &both, steps("m-3", vec![step("m-3", off(false)), step("m-3", off(true))]));
}

fn touched(page: &mut Page) {
    let mut gone = world();
    gone.commit("remove");
    gone.fleet.machines.remove(&name("m-3"));
    page.case("left, and switched off", &gone, one("m-3", off(false)));
    page.case("left, and switched on", &gone, one("m-3", Action::PowerOn));
    let mut new = world();
    new.add(adopted("m-6", 6));
    page.case("new, and switched off", &new, one("m-6", off(false)));
    let mut off_as_declared = world();
    edit(&mut off_as_declared, "m-3", |machine| machine.power = PowerIntent::Off);
    page.case("off as declared", &off_as_declared, |_| {});
    let mut suspended = off_as_declared.clone();
    edit(&mut suspended, "m-3", |machine| machine.suspend = true);
    page.case("suspended", &suspended, one("m-3", off(false)));
    let mut gap = off_as_declared.clone();
    gap.iron.get_mut(&name("m-3")).unwrap().gap = Some(Unknown::NotReported);
    page.case("power unknown", &gap, one("m-3", off(false)));
    let age = |seconds: i64| move |seen: &mut Seens| seen.get_mut(&name("m-3")).unwrap().at -= SignedDuration::from_secs(seconds);
    page.seen("seen 119 s ago", &off_as_declared, age(119), one("m-3", off(false)));
    page.seen("seen 120 s ago", &off_as_declared, age(120), one("m-3", off(false)));
    page.case("nobody asked for it to be off", &world(), one("m-3", off(false)));
    page.case("switched on while on", &world(), one("m-3", Action::PowerOn));
    let mut is_off = off_as_declared.clone();
    is_off.iron.get_mut(&name("m-3")).unwrap().power = PowerState::Off;
    page.case("nobody asked for it to be on", &is_off, one("m-3", Action::PowerOn));
    let forced = |machine| one(machine, off(true));
    page.case("writes, and is switched off", &open(Rung::Writing), forced("m-1"));
    let mut dark = open(Rung::Writing);
    dark.iron.get_mut(&name("m-1")).unwrap().power = PowerState::Off;
    page.case("writes, was seen off, and is switched on", &dark, one("m-1", Action::PowerOn));
    page.case("writes, and is told to boot from the network", &dark, one("m-1", Action::BootFromNetwork { mode: BootMode::UEFI }));
    page.case("does not write yet, and is switched off", &open(Rung::AgentUp), forced("m-1"));
    let mut begun = wants();
    begun.turn(false);
    page.case("begun, not armed, and is switched off", &begun, forced("m-1"));
    let other = BootMode::BIOS;
    let armed = open(Rung::TicketArmed);
    page.case("boots in another mode", &armed, one("m-1", Action::BootFromNetwork { mode: other }));
    page.case("boots from the network without a ticket", &world(), one("m-3", Action::BootFromNetwork { mode: BootMode::UEFI }));
    let mut otherwise = armed.clone();
    edit(&mut otherwise, "m-1", |machine| machine.install = Some(install("v3", None, 0)));
    page.case("armed for what the commit does not want any more", &otherwise, one("m-1", Action::BootFromNetwork { mode: BootMode::UEFI }));
}

fn identity(page: &mut Page) {
    let world = off_as_declared(|_| {});
    let serial = |seen: Option<&str>| {
        let seen = seen.map(str::to_owned);
        move |all: &mut Seens| {
            all.get_mut(&name("m-3")).unwrap().identity = Seen::Known(ObservedIdentity { serial: seen, ..ObservedIdentity::default() });
        }
    };
    let act = || one("m-3", off(false));
    page.seen("its serial number", &world, serial(Some(" sn-M-3")), act());
    page.seen("another serial number", &world, serial(Some("SN-m-4")), act());
    page.seen("no serial number", &world, serial(None), act());
    let macs = |macs: Vec<Mac>| {
        move |all: &mut Seens| {
            let nic = |mac: Mac| ObservedNic { name: "nic".to_owned(), mac, link_up: None };
            all.get_mut(&name("m-3")).unwrap().nics = Seen::Known(macs.into_iter().map(nic).collect());
        }
    };
    page.seen("another MAC", &world, macs(vec![Mac([9; 6])]), act());
    page.seen("its MAC among others", &world, macs(vec![Mac([9; 6]), world.fleet.machines[&name("m-3")].nics[0].mac]), act());
    page.seen("no MAC", &world, macs(vec![]), act());
    let uuid = "4c4c4544-0035-3410-8050-c6c04f314733";
    let declares = off_as_declared(|machine| machine.identity = Identity { serial: None, uuid: Some(uuid.to_owned()) });
    let reports = |uuid: Option<&str>| {
        let uuid = uuid.map(str::to_owned);
        move |all: &mut Seens| all.get_mut(&name("m-3")).unwrap().identity = Seen::Known(ObservedIdentity { uuid, ..Default::default() })
    };
    page.seen("its UUID", &declares, reports(Some("4C4C4544-0035-3410-8050-C6C04F314733")), act());
    page.seen("its UUID in the other order", &declares, reports(Some("44454c4c-3500-1034-8050-c6c04f314733")), act());
    page.seen("another UUID", &declares, reports(Some("4c4c4544-0035-3410-8050-c6c04f314734")), act());
    page.seen("its UUID, cut off", &declares, reports(Some("4c4c4544")), act());
    page.seen("no UUID", &declares, reports(None), act());
    // While it writes it may be switched on, whatever its BMC says of itself.
    let mut dark = open(Rung::Writing);
    dark.iron.get_mut(&name("m-1")).unwrap().power = PowerState::Off;
    dark.iron.get_mut(&name("m-1")).unwrap().serial = None;
    page.case("writes, and is switched on, unconfirmed", &dark, one("m-1", Action::PowerOn));
}

/// m-3 is to be off, and is as `change` declares it from the beginning.
fn off_as_declared(change: impl FnOnce(&mut Machine)) -> World {
    let mut world = World::new();
    world.add(adopted("m-3", 3));
    edit(&mut world, "m-3", change);
    world.turn(false);
    edit(&mut world, "m-3", |machine| machine.power = PowerIntent::Off);
    world
}

fn claims(page: &mut Page) {
    let claim = |installed| Action::Claim { installed };
    let (v1, v2) = (Some(generation("v1")), Some(generation("v2")));
    let mut gone = world();
    gone.fleet.machines.remove(&name("m-3"));
    page.case("left, and claimed", &gone, one("m-3", claim(v1)));
    let mut new = world();
    new.add(adopted("m-6", 6));
    page.case("new, claimed as something else", &new, one("m-6", claim(v2)));
    page.case("new, claimed to be installed", &new, one("m-6", claim(None)));
    edit(&mut new, "m-6", |machine| machine.on_claim = OnClaim::Install);
    page.case("to be installed, claimed as it is", &new, one("m-6", claim(v1)));
    page.case("claimed again", &world(), one("m-3", claim(v1)));
    let mut bare = world();
    edit(&mut bare, "m-3", |machine| machine.install = None);
    bare.append(Fact::Claimed { machine: name("m-3"), installed: None, hardware: hardware(&bare, "m-3"), basis: None });
    edit(&mut bare, "m-3", |machine| machine.install = Some(install("v1", None, 0)));
    page.case("an image for what was adopted without", &bare, |_| {});
    page.case("an image for what was adopted without, of another generation", &bare, one("m-3", claim(v2)));
    page.case("an image for what was adopted without, installed", &bare, steps("m-3", vec![begin("m-3", 1, generation("v1"))]));
    // Its hardware is known by another name.
    let mut moved = world();
    let mut machine = adopted("m-6", 6);
    machine.nics[0].mac = moved.fleet.machines[&name("m-3")].nics[0].mac;
    machine.identity.serial = None;
    moved.fleet.machines.remove(&name("m-3"));
    moved.add(machine);
    page.case("known by another name, claimed as new", &moved, one("m-6", claim(v1)));
}

fn hardware(world: &World, machine: &str) -> Vec<String> {
    rackwright::plan::hardware(&world.fleet.machines[&name(machine)])
}

fn releases(page: &mut Page) {
    page.case("in the fleet, and released", &world(), one("m-3", Action::Release));
    let mut gone = world();
    gone.commit("remove");
    gone.fleet.machines.remove(&name("m-3"));
    page.case("left, and released", &gone, |_| {});
    let errors = |world: &mut World| world.problems.push(problem());
    page.stale("left under errors, and released", &gone, errors);
    let mut warned = gone.clone();
    warned.problems.push(Problem { severity: Severity::Warning, ..problem() });
    page.case("left under a warning, and released", &warned, |_| {});
    let mut writes = open(Rung::Writing);
    writes.commit("remove");
    writes.fleet.machines.remove(&name("m-1"));
    page.case("left while it writes, and released", &writes, one("m-1", Action::Release));
}

fn begins(page: &mut Page) {
    let go = |image: &str, number| vec![begin("m-1", number, generation(image))];
    let world = wants();
    page.case("begun", &world, |_| {});
    page.case("what nobody asked for", &world, steps("m-1", go("v3", 1)));
    page.case("what it holds", &self::world(), steps("m-1", go("v1", 1)));
    page.case("a number out of turn", &world, steps("m-1", go("v2", 2)));
    page.case("another's attempt", &world, |plan| {
        let attempt = AttemptId { machine: name("m-2"), number: 1 };
        let action = Action::BeginAttempt { attempt, generation: generation("v2") };
        plan.machines.get_mut(&name("m-1")).unwrap().steps = vec![step("m-1", action)];
    });
    page.stale("under errors", &world, |world| world.problems.push(problem()));
    page.stale("under a warning", &world, |world| world.problems.push(Problem { severity: Severity::Warning, ..problem() }));
    page.stale("suspended meanwhile", &world, |world| edit(world, "m-1", |machine| machine.suspend = true));
    page.case("while one is open", &open(Rung::AgentUp), steps("m-1", go("v2", 2)));
    let first = |lost: bool| {
        let mut world = World::new();
        world.add(Machine { on_claim: OnClaim::Install, ..adopted("m-1", 1) });
        world.turn(false);
        world.history.lost = lost;
        world
    };
    page.case("for the first time", &first(false), |_| {});
    page.case("for the first time, after a loss", &first(true), steps("m-1", go("v1", 1)));
    page.stale("for the first time, onClaim is Adopt meanwhile", &first(false), |world| {
        edit(world, "m-1", |machine| machine.on_claim = OnClaim::Adopt);
    });
    let mut lost = world.clone();
    lost.history.lost = true;
    page.case("not for the first time, after a loss", &lost, |_| {});
    let hints: [fn(&mut DiskHint); 6] = [
        |hint| hint.wwn = Some("w".to_owned()),
        |hint| hint.model = Some("m".to_owned()),
        |hint| hint.path = Some("p".to_owned()),
        |hint| hint.min_size = Some(1),
        |hint| hint.max_size = Some(1),
        |_| {},
    ];
    for hint in hints {
        let mut stated = DiskHint::default();
        hint(&mut stated);
        page.stale(&format!("its disk is {stated:?}"), &world, |world| edit(world, "m-1", |machine| machine.disks.system = Some(stated)));
    }
    page.stale("its disk is not stated", &world, |world| edit(world, "m-1", |machine| machine.disks.system = None));
    // Tries.
    let mut failed = world.clone();
    for number in 1..=3 {
        failed.turn(false);
        assert_eq!(failed.open(&name("m-1")).unwrap().id.number, number);
        end(&mut failed, "m-1", true);
        failed.tick(7200);
        let mut made = failed.clone();
        made.iron.get_mut(&name("m-1")).unwrap().power = PowerState::On;
        page.case(&format!("after {number} failures"), &made, steps("m-1", go("v2", number + 1)));
    }
    let mut again = failed.clone();
    edit(&mut again, "m-1", |machine| machine.install = Some(install("v3", None, 0)));
    page.case("something else after three failures", &again, |_| {});
    let mut for_good = world.clone();
    for_good.turn(false);
    end(&mut for_good, "m-1", false);
    for_good.tick(7200);
    page.case("after a final failure", &for_good, steps("m-1", go("v2", 2)));
    // What the journal has under its name is other hardware.
    page.stale("its serial number is another meanwhile", &world, |world| {
        edit(world, "m-1", |machine| machine.identity.serial = Some("SN-other".to_owned()));
        world.iron.get_mut(&name("m-1")).unwrap().serial = Some("SN-other".to_owned());
    });
    page.stale("it has a second card meanwhile", &world, |world| {
        edit(world, "m-1", |machine| {
            let nic = Nic { name: "lan1".to_owned(), mac: Mac([7; 6]), ..machine.nics[0].clone() };
            machine.nics.push(nic);
        });
    });
}

fn attempts(page: &mut Page) {
    let attempt = |number| AttemptId { machine: name("m-1"), number };
    let world = open(Rung::AgentUp);
    let witness = |number| Action::Witness { attempt: attempt(number), rung: Rung::BootSet };
    page.case("evidence for the open attempt", &world, one("m-1", witness(1)));
    page.case("evidence for another attempt", &world, one("m-1", witness(2)));
    page.case("the end of another attempt", &world, one("m-1", Action::EndAttempt { attempt: attempt(2), end: AttemptEnd::Done }));
    page.case("evidence without an attempt", &self::world(), one("m-1", witness(1)));
}

fn tickets(page: &mut Page) {
    let world = open(Rung::AgentUp);
    fn of(plan: &mut Plan) -> &mut Ticket {
        plan.machines.get_mut(&name("m-1")).unwrap().ticket.as_mut().unwrap()
    }
    page.case("a ticket", &world, |_| {});
    page.case("a ticket for another attempt", &world, |plan| of(plan).attempt.number = 2);
    page.case("a ticket for another image", &world, |plan| {
        let system = DiskHint::default();
        of(plan).work = Work::Install { install: Box::new(install("v3", None, 0)), system };
    });
    page.case("a ticket of another commit", &world, |plan| of(plan).commit = CommitId([9; 20]));
    let changes: [(&str, fn(&mut Ticket)); 5] = [
        ("interface", |ticket| ticket.mac = Mac([9; 6])),
        ("disk", |ticket| match &mut ticket.work {
            Work::Install { system, .. } => system.serial = Some("DISK-other".to_owned()),
            Work::Wipe(_) => unreachable!(),
        }),
        ("disk to keep", |ticket| ticket.keep = vec![DiskHint::default()]),
        ("serial number", |ticket| ticket.serial = None),
        ("UUID", |ticket| ticket.uuid = Some("4c4c4544-0035-3410-8050-c6c04f314733".to_owned())),
    ];
    for (what, change) in changes {
        page.case(&format!("a ticket for another {what}"), &world, |plan| change(of(plan)));
    }
    let mut later = world.clone();
    later.commit("v3");
    edit(&mut later, "m-1", |machine| machine.disks.system.as_mut().unwrap().serial = Some("DISK-new".to_owned()));
    let ticket = world.plan().0.machines[&name("m-1")].ticket.clone();
    page.case("before its first byte, the disk of the commit before", &later, |plan| {
        plan.machines.get_mut(&name("m-1")).unwrap().ticket.clone_from(&ticket);
    });
    let mut writes = open(Rung::Writing);
    writes.commit("v3");
    edit(&mut writes, "m-1", |machine| machine.install = Some(install("v3", None, 0)));
    page.case("in its write, what the commit before said", &writes, |_| {});
    page.case("a ticket where none is open", &self::world(), |plan| {
        plan.machines.get_mut(&name("m-1")).unwrap().ticket.clone_from(&ticket)
    });
    let mut two = wants();
    edit(&mut two, "m-2", |machine| machine.install = Some(install("v2", None, 0)));
    two.turn(false);
    two.turn(false);
    page.case("two tickets for one interface", &two, |plan| {
        let mac = plan.machines[&name("m-1")].ticket.as_ref().unwrap().mac;
        plan.machines.get_mut(&name("m-2")).unwrap().ticket.as_mut().unwrap().mac = mac;
    });
}

/// Everything wants v2, under one rollout.
fn rolls(change: impl FnOnce(&mut Rollout)) -> World {
    let mut world = world();
    let name = RolloutName::new("all").unwrap();
    let budgets = world.fleet.settings.budgets.clone();
    let mut rollout = Rollout {
        name: name.clone(),
        selector: BTreeMap::new(),
        after: vec![],
        budgets: Budgets { breaker_failures: 2, ..budgets },
        waves: vec![],
        soak: SignedDuration::ZERO,
        windows: vec![],
        freeze: None,
        paused: false,
    };
    change(&mut rollout);
    world.fleet.rollouts.insert(name, rollout);
    world.commit("v2");
    for number in 1..=5 {
        edit(&mut world, &format!("m-{number}"), |machine| machine.install = Some(install("v2", None, 0)));
    }
    world
}

fn also(machines: &'static [&'static str]) -> impl FnOnce(&mut Plan) {
    move |plan| {
        for machine in machines {
            plan.machines.get_mut(&name(machine)).unwrap().steps = vec![begin(machine, 1, generation("v2"))];
        }
    }
}

fn budgets(page: &mut Page) {
    let two = |what: fn(&mut Budgets)| rolls(move |rollout| what(&mut rollout.budgets));
    let at_once = two(|budgets| budgets.max_unavailable = Amount::Count(2));
    page.case("two of two at once", &at_once, |_| {});
    page.case("three of two at once", &at_once, also(&["m-3"]));
    let mut on_the_way = at_once.clone();
    on_the_way.turn(false);
    page.case("a third while two are on their way", &on_the_way, also(&["m-3"]));
    let destructive = two(|budgets| budgets.max_destructive.count = 4);
    page.case("five of four by one commit", &destructive, also(&["m-1", "m-2", "m-3", "m-4", "m-5"]));
    page.case("four of four by one commit", &destructive, also(&["m-1", "m-2", "m-3", "m-4"]));
    let mut some = two(|budgets| (budgets.max_destructive.count, budgets.max_unavailable) = (2, Amount::Count(5)));
    for number in 3..=5 {
        edit(&mut some, &format!("m-{number}"), |machine| machine.install = Some(install("v1", None, 0)));
    }
    some.turn(false);
    some.reach(&name("m-1"), Rung::Writing);
    edit(&mut some, "m-3", |machine| machine.install = Some(install("v2", None, 0)));
    page.case("a third while two of two are on their way", &some, also(&["m-3"]));
    end(&mut some, "m-1", true);
    page.case("a third after one of two wrote", &some, also(&["m-3"]));
    let mut approved = destructive.clone();
    approved.fleet.settings.approvers = vec!["anna@example.org".to_owned()];
    for (by, text) in [
        ("Anna@Example.org", "destroy=5"),
        ("anna@example.org", "destroy=4"),
        ("anna@example.org", "destroy=+5"),
        ("anna@example.org", "drain=5"),
        ("mallory@example.org", "destroy=5"),
    ] {
        approved.commit.approvals = vec![Approval { by: by.to_owned(), text: text.to_owned(), signers: None }];
        page.case(&format!("five of four, {text} by {by}"), &approved, also(&["m-1", "m-2", "m-3", "m-4", "m-5"]));
    }
    let per = PerLabel { label: "feed".to_owned(), most: Amount::Count(1) };
    let mut feeds =
        rolls(|rollout| (rollout.budgets.max_unavailable_per, rollout.budgets.max_unavailable_rack) = (vec![per], Some(Amount::Count(2))));
    for (number, feed) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        edit(&mut feeds, &format!("m-{number}"), |machine| drop(machine.labels.insert("feed".to_owned(), feed.to_owned())));
    }
    page.case("one of each feed", &feeds, |_| {});
    page.case("two of one feed", &feeds, also(&["m-2"]));
    for number in [1, 3, 5] {
        edit(&mut feeds, &format!("m-{number}"), |machine| machine.place.rack = Some("r1".to_owned()));
    }
    page.case("three of a rack of two", &feeds, also(&["m-1", "m-3", "m-5"]));
    edit(&mut feeds, "m-5", |machine| machine.place.site = Some("elsewhere".to_owned()));
    page.case("two of a rack, and one of the same name elsewhere", &feeds, also(&["m-1", "m-3", "m-5"]));
    feeds.turn(false);
    page.case("another of a feed while one is on its way", &feeds, also(&["m-2"]));
    page.case("none of a feed while one is on its way", &feeds, |_| {});
}

fn order(page: &mut Page) {
    let mut groups = rolls(|_| {});
    let all = groups.fleet.rollouts.pop_first().unwrap().1;
    for (text, after) in [("first", vec![]), ("second", vec![After::from(RolloutName::new("first").unwrap())])] {
        let name = RolloutName::new(text).unwrap();
        let selector = [("group".to_owned(), text.to_owned())].into();
        groups.fleet.rollouts.insert(name.clone(), Rollout { name, selector, after, ..all.clone() });
    }
    for number in 1..=5 {
        let group = if number < 3 { "first" } else { "second" };
        edit(&mut groups, &format!("m-{number}"), |machine| drop(machine.labels.insert("group".to_owned(), group.to_owned())));
    }
    groups.turn(false);
    let groups = groups;
    page.case("while an install of the group before is on its way", &groups, also(&["m-3"]));
    let after = |change: fn(&mut After)| {
        let mut world = groups.clone();
        world.fleet.rollouts.values_mut().flat_map(|rollout| &mut rollout.after).for_each(change);
        world
    };
    page.case("after a group that is not there", &after(|after| after.rollout = RolloutName::new("gone").unwrap()), also(&["m-3"]));
    page.case("after all of a group, of which none is ready", &after(|after| after.share = Some(100)), also(&["m-3"]));
    let mut ready = groups.clone();
    for machine in ["m-1", "m-2"] {
        let attempt = ready.open(&name(machine)).unwrap().id.clone();
        ready.reach(&name(machine), Rung::CalledHome);
        ready.append(Fact::Concluded { attempt, end: AttemptEnd::Done });
    }
    page.case("once the group before is ready", &ready, also(&["m-3"]));
    let young = |world: &mut World| {
        world.fleet.rollouts.values_mut().flat_map(|own| &mut own.after).for_each(|after| after.healthy_for = SignedDuration::from_secs(60))
    };
    page.stale("once the group before is ready, for too short a while", &ready, young);
    ready.tick(60);
    page.stale("once the group before is ready for long enough", &ready, young);
    let other = |world: &mut World| edit(world, "m-1", |machine| machine.install = Some(install("v3", None, 0)));
    page.stale("a machine of the group before is to hold something else", &ready, other);
    let canary = |rollout: &mut Rollout| (rollout.waves, rollout.soak) = (vec![Amount::Count(1)], SignedDuration::from_mins(10));
    let mut waves = rolls(canary);
    page.case("a canary, and another", &waves, also(&["m-2"]));
    waves.turn(false);
    page.case("while the canary is on its way", &waves, also(&["m-2"]));
    let attempt = waves.open(&name("m-1")).unwrap().id.clone();
    let before = waves.clone();
    for rung in [Rung::Written, Rung::CalledHome] {
        waves.reach(&name("m-1"), rung);
    }
    waves.append(Fact::Concluded { attempt: attempt.clone(), end: AttemptEnd::Done });
    waves.tick(599);
    page.case("while the canary soaks", &waves, also(&["m-2"]));
    waves.tick(1);
    page.case("once the canary has soaked", &waves, also(&["m-2"]));
    let mut superseded = before.clone();
    superseded.append(Fact::Concluded { attempt, end: AttemptEnd::Superseded });
    page.case("once the canary was superseded", &superseded, steps("m-1", vec![begin("m-1", 2, generation("v2"))]));
    page.case("once the canary was superseded, another beside it", &superseded, |plan| {
        steps("m-1", vec![begin("m-1", 2, generation("v2"))])(plan);
        also(&["m-2"])(plan);
    });
    let mut failed = before;
    end(&mut failed, "m-1", true);
    failed.tick(7200);
    failed.iron.get_mut(&name("m-1")).unwrap().power = PowerState::On;
    page.case("the canary once more", &failed, steps("m-1", vec![begin("m-1", 2, generation("v2"))]));
    page.case("once the canary failed", &failed, also(&["m-2"]));
    let mut breaker = rolls(|_| {});
    breaker.turn(false);
    end(&mut breaker, "m-1", true);
    page.case("after one failure", &breaker, |_| {});
    end(&mut breaker, "m-2", true);
    for machine in ["m-3", "m-4", "m-5"] {
        let attempt = breaker.open(&name(machine)).unwrap().id.clone();
        breaker.append(Fact::Concluded { attempt, end: AttemptEnd::Superseded });
    }
    page.case("after two failures of two", &breaker, steps("m-3", vec![begin("m-3", 2, generation("v2"))]));
    let mut share = rolls(|rollout| (rollout.budgets.breaker_failures, rollout.budgets.breaker_share) = (5, Some(40)));
    share.turn(false);
    end(&mut share, "m-1", false);
    let attempt = share.open(&name("m-3")).unwrap().id.clone();
    share.append(Fact::Concluded { attempt, end: AttemptEnd::Superseded });
    page.case("after one of five failed for good, 40 % are too many", &share, steps("m-3", vec![begin("m-3", 2, generation("v2"))]));
    end(&mut share, "m-2", false);
    page.case("after two of five failed for good, 40 % are too many", &share, steps("m-3", vec![begin("m-3", 2, generation("v2"))]));
}

fn closed(page: &mut Page) {
    let world = rolls(|_| {});
    let until = |world: &World, seconds| world.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    page.stale("frozen meanwhile", &world, |world| world.fleet.settings.freeze = Some(Freeze::default()));
    page.stale("frozen until now", &world, |world| {
        world.fleet.settings.freeze = Some(Freeze { until: Some(until(world, 0)), reason: None })
    });
    page.stale("frozen for another second", &world, |world| {
        world.fleet.settings.freeze = Some(Freeze { until: Some(until(world, 1)), reason: None });
    });
    let rollout = |change: fn(&mut Rollout)| move |world: &mut World| world.fleet.rollouts.values_mut().for_each(change);
    page.stale("its rollout is frozen meanwhile", &world, rollout(|rollout| rollout.freeze = Some(Freeze::default())));
    page.stale("paused meanwhile", &world, rollout(|rollout| rollout.paused = true));
    let window = |from, to| Window { days: Weekday::ALL.to_vec(), from, to, time_zone: "UTC".to_owned() };
    let windows =
        |own: Vec<Window>| move |world: &mut World| world.fleet.rollouts.values_mut().for_each(|rollout| rollout.windows.clone_from(&own));
    page.stale("another window meanwhile", &world, windows(vec![window(60, 120)]));
    page.stale("a window that is open meanwhile", &world, windows(vec![window(60, 120), window(0, 1)]));
    page.stale("a window that is over meanwhile", &world, windows(vec![window(1439, 0)]));
    let mut drift = off_as_declared(|_| {});
    page.case("switched off in time", &drift, |_| {});
    drift.fleet.settings.freeze = Some(Freeze::default());
    page.case("switched off while frozen", &drift, one("m-3", off(false)));
    let mut left = open(Rung::PowerSeen);
    end(&mut left, "m-1", true);
    left.tick(600);
    left.fleet.settings.freeze = Some(Freeze::default());
    page.case("brought back while frozen", &left, one("m-1", off(false)));
}

fn brake(page: &mut Page) {
    let held = |scope: HoldScope| Brake {
        holds: vec![Hold { scope, by: "a".to_owned(), at: Timestamp::MIN, reason: String::new() }],
        unreadable: None,
    };
    let unreadable = Brake { unreadable: Some("torn".to_owned()), ..Brake::default() };
    let by_name = |text: &str| held(HoldScope::Machine(name(text)));
    let world = wants();
    let group = |text: &str| held(HoldScope::Group(RolloutName::new(text).unwrap()));
    for (what, brake) in [
        ("all", held(HoldScope::All)),
        ("it by name", by_name("m-1")),
        ("another by name", by_name("m-2")),
        ("its group", group("default")),
        ("another group", group("web")),
        ("nobody knows what", unreadable.clone()),
    ] {
        page.stale(&format!("begun, and on hold is {what}"), &world, |world| world.brake = brake.clone());
    }
    page.stale("of a rollout, and on hold is default", &rolls(|_| {}), |world| world.brake = group("default"));
    page.stale("of a rollout, and on hold is it", &rolls(|_| {}), |world| world.brake = group("all"));
    page.stale("with a ticket", &open(Rung::AgentUp), |world| world.brake = by_name("m-1"));
    page.stale("in its write", &open(Rung::Writing), |world| world.brake = by_name("m-1"));
    let mut gone = self::world();
    gone.commit("remove");
    gone.fleet.machines.remove(&name("m-3"));
    for (what, brake) in
        [("it by name", by_name("m-3")), ("all", held(HoldScope::All)), ("default", group("default")), ("nobody knows what", unreadable)]
    {
        page.stale(&format!("released, and on hold is {what}"), &gone, |world| world.brake = brake);
    }
    let mut renamed = self::world();
    renamed.commit("rename");
    let mut machine = Arc::unwrap_or_clone(renamed.fleet.machines.remove(&name("m-3")).unwrap());
    machine.name = name("n-3");
    renamed.fleet.machines.insert(name("n-3"), machine.into());
    for text in ["m-3", "n-3", "m-4"] {
        page.stale(&format!("renamed, and on hold is {text}"), &renamed, |world| world.brake = by_name(text));
    }
}

/// m-3 stands under its name with other hardware, and has written a disk before.
fn another(change: impl FnOnce(&mut Machine)) -> World {
    let mut world = world();
    world.commit("another");
    edit(&mut world, "m-3", |machine| {
        machine.identity.serial = Some("SN-new".to_owned());
        machine.nics[0].mac = Mac([7; 6]);
        machine.disks.system = Some(DiskHint { serial: Some("DISK-new".to_owned()), ..DiskHint::default() });
        change(machine);
    });
    let iron = world.iron.get_mut(&name("m-3")).unwrap();
    (iron.serial, iron.macs) = (Some("SN-new".to_owned()), vec![Mac([7; 6])]);
    world
}

fn replaced(page: &mut Page) {
    let claim = |installed| Step { reason: Reason::Replaced, ..step("m-3", Action::Claim { installed }) };
    let v1 = Some(generation("v1"));
    let as_replaced = || steps("m-3", vec![claim(v1)]);
    let world = another(|_| {});
    page.case("replaced", &world, |_| {});
    page.case("replaced, to be installed", &world, steps("m-3", vec![claim(None)]));
    page.stale("replaced under errors", &world, |world| world.problems.push(problem()));
    let old = self::world();
    let hardware = hardware(&old, "m-3");
    page.case("the same, claimed as another", &old, as_replaced());
    page.case(
        "a serial number that changed, claimed as another",
        &another(|machine| machine.nics = old.fleet.machines[&name("m-3")].nics.clone()),
        as_replaced(),
    );
    page.case(
        "a card that changed, claimed as another",
        &another(|machine| machine.identity.serial = Some("SN-m-3".to_owned())),
        as_replaced(),
    );
    page.case("nothing that tells, claimed as another", &another(|machine| machine.identity.serial = None), as_replaced());
    let mut elsewhere = another(|_| {});
    let mut moved = Arc::unwrap_or_clone(old.fleet.machines[&name("m-3")].clone());
    moved.name = name("n-3");
    elsewhere.fleet.machines.insert(name("n-3"), moved.into());
    page.case("the one before is here under another name, and forgotten", &elsewhere, as_replaced());
    page.case(
        "another stands under its name, and is noted as the same",
        &world,
        one("m-3", Action::NoteHardware { hardware: rackwright::plan::hardware(&world.fleet.machines[&name("m-3")]) }),
    );
    page.case(
        "something else is noted",
        &another(|machine| machine.identity.serial = Some("SN-m-3".to_owned())),
        one("m-3", Action::NoteHardware { hardware }),
    );
    // Its disk was written by us, and came along.
    let mut wrote = open(Rung::Writing);
    end(&mut wrote, "m-1", true);
    wrote.tick(600);
    edit(&mut wrote, "m-1", |machine| {
        machine.identity.serial = Some("SN-new".to_owned());
        machine.nics[0].mac = Mac([7; 6]);
    });
    let iron = wrote.iron.get_mut(&name("m-1")).unwrap();
    (iron.serial, iron.macs) = (Some("SN-new".to_owned()), vec![Mac([7; 6])]);
    let kept = Step { reason: Reason::Replaced, ..step("m-1", Action::Claim { installed: Some(generation("v2")) }) };
    page.case("its disk came along, noted as the same", &wrote, |_| {});
    page.case("its disk came along, claimed as another", &wrote, steps("m-1", vec![kept]));
    // While an attempt is open.
    let mut installs = open(Rung::Writing);
    edit(&mut installs, "m-1", |machine| {
        machine.identity.serial = Some("SN-new".to_owned());
        machine.nics[0].mac = Mac([7; 6]);
        machine.disks.system = Some(DiskHint { serial: Some("DISK-new".to_owned()), ..DiskHint::default() });
    });
    let iron = installs.iron.get_mut(&name("m-1")).unwrap();
    (iron.serial, iron.macs) = (Some("SN-new".to_owned()), vec![Mac([7; 6])]);
    let claim = Step { reason: Reason::Replaced, ..step("m-1", Action::Claim { installed: Some(generation("v2")) }) };
    page.case("replaced while it is installed", &installs, steps("m-1", vec![claim]));
    let mut changed = open(Rung::AgentUp);
    edit(&mut changed, "m-1", |machine| machine.nics[0].mac = Mac([7; 6]));
    changed.iron.get_mut(&name("m-1")).unwrap().macs = vec![Mac([7; 6])];
    let noted = self::hardware(&changed, "m-1");
    page.case("a card that changed, noted while it is installed", &changed, one("m-1", Action::NoteHardware { hardware: noted }));
}

fn renames(page: &mut Page) {
    let rename = |from: &str| Action::Rename { from: name(from) };
    page.case("renamed, and known", &world(), one("m-3", rename("m-4")));
    let mut world = world();
    world.commit("rename");
    let mut machine = Arc::unwrap_or_clone(world.fleet.machines.remove(&name("m-3")).unwrap());
    machine.name = name("n-3");
    world.fleet.machines.insert(name("n-3"), machine.into());
    page.case("renamed", &world, |_| {});
    page.case("renamed from another", &world, one("n-3", rename("m-4")));
    page.case("renamed from nobody", &world, one("n-3", rename("m-9")));
    page.case("renamed, claimed as new", &world, one("n-3", Action::Claim { installed: Some(generation("v1")) }));
    let hardware = hardware(&world, "n-3");
    page.case("renamed, noted", &world, one("n-3", Action::NoteHardware { hardware }));
    let mut copied = self::world();
    copied.commit("copy");
    let mut machine = Arc::unwrap_or_clone(copied.fleet.machines[&name("m-3")].clone());
    (machine.name, machine.nics[0].mac) = (name("n-3"), Mac([7; 6]));
    machine.identity.uuid = Some("4c4c4544-0035-3410-8050-c6c04f314733".to_owned());
    copied.fleet.machines.insert(name("n-3"), machine.into());
    page.case("renamed, and the earlier name is still there", &copied, one("n-3", rename("m-3")));
    let mut installs = open(Rung::AgentUp);
    installs.commit("rename");
    let mut machine = Arc::unwrap_or_clone(installs.fleet.machines.remove(&name("m-1")).unwrap());
    machine.name = name("n-1");
    installs.fleet.machines.insert(name("n-1"), machine.into());
    page.case("renamed while it is installed", &installs, one("n-1", rename("m-1")));
    // m-3's card went into m-4, which is otherwise not known.
    let mut card = self::world();
    card.commit("card");
    let mac = card.fleet.machines[&name("m-3")].nics[0].mac;
    card.fleet.machines.remove(&name("m-3"));
    edit(&mut card, "m-4", |machine| (machine.identity.serial, machine.nics[0].mac) = (None, mac));
    card.iron.get_mut(&name("m-4")).unwrap().macs = vec![mac];
    let hardware = self::hardware(&card, "m-4");
    page.case("another's hardware, noted as its own", &card, one("m-4", Action::NoteHardware { hardware }));
    // What the journal has is another chassis, and nothing noted that yet.
    let stranger = another(|machine| machine.power = PowerIntent::Off);
    page.case("known with other hardware, and switched off", &stranger, one("m-3", off(false)));
}

/// Configuration that waits for the next install.
fn later(page: &mut Page) {
    let mut world = World::new();
    world.add(Machine { install: Some(install("v1", Some("a"), 0)), ..machine("m-1", 1) });
    edit(&mut world, "m-1", |machine| machine.upkeep.on_config_change = OnConfigChange::NextInstall);
    (0..3).for_each(|_| drop(world.turn(false)));
    world.commit("another configuration");
    edit(&mut world, "m-1", |machine| machine.install = Some(install("v1", Some("b"), 0)));
    let (old, new) = (install("v1", Some("a"), 0), install("v1", Some("b"), 0));
    page.case("another configuration", &world, |_| {});
    page.case("another configuration, installed", &world, steps("m-1", vec![begin("m-1", 1, new.generation)]));
    let note = |installed, basis, deferred| one("m-1", Action::NoteConfiguration { installed, basis, deferred });
    page.case("another configuration, noted", &world, note(old.generation, old.basis(), Some(new.generation)));
    page.case("noted of what it does not hold", &world, note(new.generation, new.basis(), None));
    page.case("noted with another image", &world, note(old.generation, install("v2", None, 0).basis(), None));
    let mut image = world.clone();
    edit(&mut image, "m-1", |machine| machine.install = Some(install("v2", Some("b"), 0)));
    let v2 = image.fleet.machines[&name("m-1")].generation();
    page.case("another image", &image, |_| {});
    page.case("another image, left to the next install", &image, note(old.generation, old.basis(), v2));
    let mut gone = world.clone();
    gone.fleet.machines.remove(&name("m-1"));
    page.case("left, and its configuration noted", &gone, note(old.generation, old.basis(), None));
}

/// What is put right without a commit.
fn drift(page: &mut Page) {
    let drifts = |action: Action| Step { reason: Reason::PowerDrift { observed: PowerState::On }, ..step("m-3", action) };
    let mut world = off_as_declared(|_| {});
    page.case("drift of its power, put right", &world, steps("m-3", vec![drifts(off(false))]));
    page.case("drift of its power, by force", &world, steps("m-3", vec![drifts(off(true))]));
    page.case("a boot override that nobody saw", &world, one("m-3", Action::ClearBootOverride));
    page.case("a boot override, in an install", &open(Rung::AgentUp), one("m-1", Action::ClearBootOverride));
    world.fleet.settings.drift.damping.corrections = 1;
    world.turn(false);
    world.iron.get_mut(&name("m-3")).unwrap().power = PowerState::On;
    world.tick(600);
    page.case("drift of its power, put right too often", &world, steps("m-3", vec![drifts(off(false))]));
    let mut observed = off_as_declared(|_| {});
    observed.fleet.settings.drift.power = DriftPolicy::Observe;
    page.case("drift that is to be let be", &observed, steps("m-3", vec![drifts(off(false))]));
}

fn handoffs(page: &mut Page) {
    let asks = |world: &mut World| {
        edit(world, "m-1", |machine| {
            let wanted = HandoffUse { from: name("m-2"), name: "token".parse().unwrap() };
            machine.install.as_mut().unwrap().user_data = Some(wanted.marker());
        });
    };
    page.stale("an install whose template uses a value", &wants(), asks);
    page.stale("a ticket whose template uses a value", &open(Rung::AgentUp), asks);
    page.stale("a template that uses a value, in a write", &open(Rung::Writing), asks);
}

fn gates(page: &mut Page) {
    let id = || AttemptId { machine: name("m-1"), number: 1 };
    let healthy = || one("m-1", Action::Witness { attempt: id(), rung: Rung::Healthy });
    let ends = |end| one("m-1", Action::EndAttempt { attempt: id(), end });
    let failed = |code: &str| AttemptEnd::Failed { code: code.to_owned(), why: String::new(), retry: false };
    let mut home = open(Rung::CalledHome);
    page.case("booted, and noted as healthy", &open(Rung::BootedFromDisk), healthy());
    page.case("called home, and ends as done", &home, ends(AttemptEnd::Done));
    let within = SignedDuration::from_mins(10);
    edit(&mut home, "m-1", |machine| machine.gates = vec![Gate::Reported { check: "raid".to_owned(), within }]);
    page.case("at its gate, and noted as healthy", &home, healthy());
    page.case("at its gate, and fails there at once", &home, ends(failed("gate-reported")));
    home.tick(601);
    page.case("at its gate for too long", &home, |_| {});
    page.case("at its gate for too long, and fails at another", &home, ends(failed("gate-http")));
    home.checked(&name("m-1"), "raid", true, "");
    page.case("its gate passes", &home, |_| {});
}

/// Machines that are taken out of service.
fn wipes(page: &mut Page) {
    let wiped = Generation::of_wipe("Zero", b"", 0);
    page.case("wiped, and nobody said decommission", &world(), steps("m-1", vec![begin("m-1", 1, wiped)]));
    let mut out = world();
    out.commit("out of service");
    edit(&mut out, "m-1", |machine| decommission(machine, WipeMethod::Zero, WipeDisks::System, 0));
    page.case("to be wiped", &out, |_| {});
    page.case("to be wiped, and installed", &out, steps("m-1", vec![begin("m-1", 1, generation("v1"))]));
    page.case("to be wiped, and switched off", &out, one("m-1", off(false)));
    page.stale("to be wiped, and its disk is not stated", &out, |world| edit(world, "m-1", |machine| machine.disks.system = None));
    page.stale("to be wiped, and one of its disks is not stated", &out, |world| {
        edit(world, "m-1", |machine| decommission(machine, WipeMethod::Zero, WipeDisks::These(vec![DiskHint::default()]), 0));
    });
}

#[test]
fn every_sentence_of_the_second_reader_is_said() {
    let mut page = Page::default();
    for part in [
        form, touched, identity, claims, releases, begins, attempts, tickets, budgets, order, closed, brake, replaced, renames, later,
        drift, handoffs, wipes, gates,
    ] {
        part(&mut page);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = root.join("tests/golden/second-reader.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, &page.0).unwrap();
    }
    // Every text in the source that is what a violation says.
    let mut sentences = 0;
    for file in fs::read_dir(root.join("src/plan/check")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let is_sentence = |text: &&str| text.contains(' ') && !text.contains('\n') && text.chars().filter(|c| *c == ' ').count() >= 3;
        for sentence in text.split('"').skip(1).step_by(2).filter(is_sentence) {
            sentences += 1;
            let mut rest = page.0.as_str();
            let said =
                sentence.split(['{', '}']).step_by(2).all(|part| rest.find(part).map(|at| rest = &rest[at + part.len()..]).is_some());
            assert!(said, "it never says {sentence:?}");
        }
    }
    assert!(sentences > 50, "{sentences}: the source is read wrongly");
    assert_eq!(fs::read_to_string(&golden).unwrap_or_default(), page.0, "read the difference like law, then UPDATE=1");
}
