//! Plain-text scenarios. `tests/scenarios/README.md` has the language; `UPDATE=1 cargo test --test plan_scenarios` writes the outputs
//! anew, and the difference is read like code.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
};

use plan_world::*;
use rackwright::{
    model::*,
    plan::{render_machine, render_text},
};

#[test]
fn every_scenario_gives_its_committed_output() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "scn"));
    files.sort();
    assert!(files.len() >= 20, "the scenarios are gone");
    let mut stale = Vec::new();
    for file in files {
        let output = Scenario::play(&fs::read_to_string(&file).unwrap());
        let golden = file.with_extension("out");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &output).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != output {
            println!("--- {} now gives\n{output}", file.display());
            stale.push(file.file_name().unwrap().to_owned());
        }
        assert!(!output.contains("VIOLATION"), "{}:\n{output}", file.display());
    }
    assert!(stale.is_empty(), "{stale:?} differ; see above, and run with UPDATE=1 if the new output is right");
}

struct Scenario {
    world: World,
    out: String,
    numbers: u8,
}

impl Scenario {
    fn play(text: &str) -> String {
        let mut scenario = Scenario { world: World::new(), out: String::new(), numbers: 0 };
        for line in text.lines() {
            let _ =
                writeln!(scenario.out, "{}", if line.is_empty() || line.starts_with('#') { line.to_owned() } else { format!("> {line}") });
            let line = line.split('#').next().unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            if let Some((command, rest)) = words.split_first() {
                scenario.command(command, rest, line);
            }
        }
        scenario.out
    }

    fn command(&mut self, command: &str, rest: &[&str], line: &str) {
        match command {
            "machine" => self.machines(rest),
            "rollout" => self.rollout(rest),
            "no-rollout" => drop(self.world.fleet.rollouts.remove(&RolloutName::new(rest[0]).unwrap())),
            "policy" => self.policy(rest),
            "commit" => self.world.commit(line.trim_start().strip_prefix("commit").unwrap().trim()),
            "set" => self.set(rest),
            "window" => self.world.fleet.settings.windows.push(window(rest[0])),
            "frozen" => self.world.fleet.settings.freeze = rest.first().map(|until| frozen(until)),
            "at" => self.world.now = rest[0].parse().unwrap(),
            "approvers" => self.world.fleet.settings.approvers = rest[0].split(',').map(str::to_owned).collect(),
            "approve" => self.world.commit.approvals.push(Approval { by: rest[0].to_owned(), text: rest[1..].join(" "), signers: None }),
            "remove" => names(rest[0]).iter().for_each(|name| drop(self.world.fleet.machines.remove(name))),
            "rename" => self.rename(rest),
            "iron" => self.iron(rest),
            "saw" => names(rest[0]).iter().for_each(|name| self.world.saw(name, rung(rest[1]))),
            "reach" => names(rest[0]).iter().for_each(|name| self.world.reach(name, rung(rest[1]))),
            "home-as" => self.home_as(rest),
            "report" => names(rest[0]).iter().for_each(|name| self.world.report(name, rest[1], rest.contains(&"wrote"))),
            "probe" => names(rest[0]).iter().for_each(|name| self.probe(name, rest[1])),
            "check" => names(rest[0]).iter().for_each(|name| self.world.checked(name, rest[1], rest[2] == "ok", &rest[3..].join(" "))),
            "progress" => self.progress(rest),
            "publish" => names(rest[0]).iter().for_each(|name| self.world.publish(name, rest[1])),
            "lose" => names(rest[0]).iter().for_each(|name| self.world.lose(name, rest[1])),
            "old" => self.world.old = true,
            "restarted" => self.world.restarted = true,
            "lost" => self.world.history.lost = true,
            "broken" => self.broken(),
            "hold" => self.hold(rest),
            "unhold" => self.unhold(rest[0]),
            "tick" => self.world.tick(seconds(rest[0])),
            "turn" => drop(self.turn(false)),
            "crash" => drop(self.turn(true)),
            "run" => self.run(),
            "finish" => self.finish(rest),
            "plan" => {
                let (plan, _) = self.world.plan();
                assert!(render_text(&plan).lines().all(|line| line.chars().count() <= 100));
                self.out += &indent(&render_text(&plan));
            }
            "explain" => {
                let (plan, _) = self.world.plan();
                names(rest[0]).iter().for_each(|name| self.out += &indent(&render_machine(&plan.machines[name])));
            }
            other => panic!("unknown command {other}"),
        }
    }

    fn machines(&mut self, rest: &[&str]) {
        for name in names(rest[0]) {
            self.numbers += 1;
            self.world.add(machine(name.as_str(), self.numbers));
        }
        self.set(rest);
    }

    fn set(&mut self, rest: &[&str]) {
        for name in names(rest[0]) {
            let machine = Arc::make_mut(self.world.fleet.machines.get_mut(&name).unwrap());
            for pair in rest[1..].chunks(2) {
                set(machine, pair[0], pair[1]);
            }
        }
    }

    fn policy(&mut self, rest: &[&str]) {
        let drift = &mut self.world.fleet.settings.drift;
        match rest[0] {
            "power" => drift.power = policy(rest[1]),
            "boot" => drift.boot = policy(rest[1]),
            "firmware" => drift.firmware = policy(rest[1]),
            "storage" => drift.storage = policy(rest[1]),
            "osImage" => drift.os_image = policy(rest[1]),
            "damping" => {
                drift.damping = Damping { corrections: rest[1].parse().unwrap(), within: rest[2].parse().unwrap() };
            }
            other => panic!("unknown class {other}"),
        }
    }

    fn rollout(&mut self, rest: &[&str]) {
        let name = RolloutName::new(rest[0]).unwrap();
        let mut selector: BTreeMap<String, String> = [("group".to_owned(), rest[0].to_owned())].into();
        let mut budgets = Budgets { max_destructive: Destructive { count: 20, share: 100 }, ..Budgets::default() };
        let (mut after, mut windows, mut freeze, mut paused) = (Vec::new(), Vec::new(), None, false);
        let (mut waves, mut soak) = (Vec::new(), SignedDuration::ZERO);
        for pair in rest[1..].chunks(2) {
            match pair[0] {
                "everything" => selector.clear(),
                "after" => after.push(after_of(pair[1])),
                "unavailable" => budgets.max_unavailable = Amount::Count(pair[1].parse().unwrap()),
                "rack" => budgets.max_unavailable_rack = Some(Amount::Count(pair[1].parse().unwrap())),
                "destructive" => budgets.max_destructive.count = pair[1].parse().unwrap(),
                "breaker" => budgets.breaker_failures = pair[1].parse().unwrap(),
                "per" => {
                    let (label, most) = pair[1].split_once('=').unwrap();
                    budgets.max_unavailable_per.push(PerLabel { label: label.to_owned(), most: amount(most) });
                }
                "share" => budgets.breaker_share = Some(pair[1].trim_end_matches('%').parse().unwrap()),
                "waves" => waves = pair[1].split(',').map(amount).collect(),
                "soak" => soak = pair[1].parse().unwrap(),
                "window" => windows.push(window(pair[1])),
                "frozen" => freeze = Some(frozen(pair[1])),
                "paused" => paused = pair[1] == "yes",
                other => panic!("unknown budget {other}"),
            }
        }
        self.world.fleet.rollouts.insert(name.clone(), Rollout { name, selector, after, budgets, waves, soak, windows, freeze, paused });
    }

    fn rename(&mut self, rest: &[&str]) {
        let (from, to) = (plan_world::name(rest[0]), plan_world::name(rest[1]));
        let mut machine = self.world.fleet.machines.remove(&from).unwrap();
        Arc::make_mut(&mut machine).name = to.clone();
        self.world.fleet.machines.insert(to.clone(), machine);
        let iron = self.world.iron.remove(&from).unwrap();
        self.world.iron.insert(to, iron);
    }

    fn iron(&mut self, rest: &[&str]) {
        for name in names(rest[0]) {
            let iron = self.world.iron.get_mut(&name).unwrap();
            match rest[1] {
                "On" => iron.power = PowerState::On,
                "Off" => iron.power = PowerState::Off,
                "PoweringOff" => iron.power = PowerState::PoweringOff,
                "unreachable" => iron.gap = Some(Unknown::Unreachable("no route to host".to_owned())),
                "reachable" => iron.gap = None,
                "anonymous" => iron.identity_gap = true,
                "serial" => iron.serial = Some(rest[2].to_owned()),
                "mac" => iron.macs = vec![rest[2].parse().unwrap()],
                "health" => iron.health = Seen::Known(health(rest[2])),
                "override" if rest[2] == "none" => iron.boot_override = None,
                "override" => iron.boot_override = Some((rest[2].to_owned(), rest[3].to_owned())),
                "firmware" => iron.firmware.push(FirmwareVersion { name: rest[2].to_owned(), version: rest[3].to_owned() }),
                "disks" => {
                    let disk = |serial: &str| ObservedDisk { serial: Some(serial.to_owned()), ..ObservedDisk::default() };
                    iron.disks = Some(rest[2].split(',').map(disk).collect());
                }
                "stubborn" => iron.stubborn = true,
                "obeys" => iron.obeys = Obeys::Yes,
                "lies" => iron.obeys = Obeys::SaysSo,
                "busy" => iron.obeys = Obeys::Fails(RetryClass::Wait),
                "refuses" => iron.obeys = Obeys::Fails(RetryClass::Stalled),
                other => panic!("unknown iron {other}"),
            }
        }
    }

    fn home_as(&mut self, rest: &[&str]) {
        let generation = install(rest[1], None, 0).generation;
        let attempt = self.world.open(&plan_world::name(rest[0])).unwrap().id.clone();
        self.world.append(Fact::Saw { attempt, evidence: Evidence::CalledHome { generation, digest: None } });
    }

    /// Each page of a machine's gates answers with a status, or not at all.
    fn probe(&mut self, name: &MachineName, what: &str) {
        let answer = what.parse().map_or_else(|_| ProbeAnswer::Failed(format!("connection {what}")), ProbeAnswer::Status);
        for gate in self.world.fleet.machines[name].gates.clone() {
            if let Gate::Http { url, status, .. } = gate {
                self.world.probe(name, &url, answer.clone(), status);
            }
        }
    }

    fn progress(&mut self, rest: &[&str]) {
        for name in names(rest[0]) {
            let attempt = self.world.open(&name).unwrap().id.clone();
            self.world.alive.insert(attempt, self.world.now);
        }
    }

    fn broken(&mut self) {
        self.world.problems.push(Problem {
            file: "machines/web.yaml".to_owned(),
            line: 1,
            column: 1,
            length: 1,
            severity: Severity::Error,
            code: "syntax".to_owned(),
            message: "not YAML".to_owned(),
            hint: None,
        });
    }

    fn hold(&mut self, rest: &[&str]) {
        if rest[0] == "unreadable" {
            self.world.brake.unreadable = Some("its checksum does not match".to_owned());
            return;
        }
        for scope in scopes(rest[0]) {
            let hold = Hold { scope, by: "night shift".to_owned(), at: self.world.now, reason: rest[1..].join(" ") };
            self.world.brake.holds.push(hold);
        }
    }

    fn unhold(&mut self, what: &str) {
        let brake = &mut self.world.brake;
        if what == "unreadable" {
            brake.unreadable = None;
        } else {
            brake.holds.retain(|hold| !scopes(what).contains(&hold.scope));
        }
    }

    /// One turn, its steps printed. Gives the number of steps.
    fn turn(&mut self, crash: bool) -> usize {
        let (plan, violations) = self.world.turn(crash);
        for step in plan.steps() {
            let _ = writeln!(self.out, "  {}: {} [{}]", step.machine, step.action, step.reason);
        }
        if plan.steps().next().is_none() {
            self.out += "  nothing to do\n";
        }
        for violation in violations {
            let _ = writeln!(self.out, "  VIOLATION {violation}");
        }
        plan.steps().count()
    }

    /// Turns until there is nothing to do without the machines' help.
    fn run(&mut self) {
        for _ in 0..40 {
            if self.turn(false) == 0 {
                return;
            }
        }
        self.out += "  and so on\n";
    }

    /// Turns in which each machine that boots is installed and calls home, except those named; prints only what begins and ends.
    fn finish(&mut self, rest: &[&str]) {
        let except: BTreeSet<MachineName> = rest.get(1).map(|rest| names(rest)).unwrap_or_default().into_iter().collect();
        for _ in 0..400 {
            let (plan, violations) = self.world.turn(false);
            for step in plan.steps() {
                let quiet = step.action.changes_power() || matches!(step.action, Action::Witness { .. } | Action::BootFromNetwork { .. });
                if !quiet {
                    let _ = writeln!(self.out, "  {}: {} [{}]", step.machine, step.action, step.reason);
                }
            }
            for violation in violations {
                let _ = writeln!(self.out, "  VIOLATION {violation}");
            }
            let booted: Vec<MachineName> = self.world.history.machines.keys().filter(|name| !except.contains(name)).cloned().collect();
            for name in booted {
                if self.world.open(&name).is_some_and(|attempt| attempt.reached(Rung::PowerSeen).is_some()) {
                    self.world.reach(&name, Rung::CalledHome);
                }
            }
            if plan.steps().next().is_none() {
                return;
            }
        }
        self.out += "  and so on\n";
    }
}

fn set(machine: &mut Machine, key: &str, value: &str) {
    let own = machine.install.clone();
    let (user_data, rebuild) = (own.as_ref().and_then(|own| own.user_data.as_deref()), own.as_ref().map_or(0, |own| own.rebuild));
    let image = own.as_ref().map_or("v1", |own| own.image.name.as_str());
    match key {
        "decommission" if value == "none" => (machine.decommission, machine.power) = (None, PowerIntent::On),
        "decommission" => wipe(machine, value),
        "rebuild" if machine.decommission.is_some() => {
            let wipe = machine.decommission.clone().unwrap();
            decommission(machine, wipe.method, wipe.disks, value.parse().unwrap());
        }
        "image" if value == "none" => machine.install = None,
        "image" => machine.install = Some(install(value, user_data, rebuild)),
        "config" => machine.install = Some(install(image, Some(value), rebuild)),
        "publishes" => machine.handoffs.publishes = value.split(',').map(|name| name.parse().unwrap()).collect(),
        "uses" => {
            let uses: BTreeSet<HandoffUse> = value.split(',').map(wanted).collect();
            let text: String = uses.iter().map(|wanted| format!("key: {}\n", wanted.marker())).collect();
            machine.install = Some(install(image, Some(&text), rebuild));
            machine.handoffs.uses = uses;
        }
        "rebuild" => machine.install = Some(install(image, user_data, value.parse().unwrap())),
        "firmware" => {
            let (name, version) = value.split_once('=').unwrap();
            machine.upkeep.firmware.insert(name.to_owned(), version.to_owned());
        }
        "keep" => machine.disks.keep.push(DiskHint { serial: Some(value.to_owned()), ..DiskHint::default() }),
        "onConfigChange" => {
            let waits = value == "NextInstall";
            machine.upkeep.on_config_change = if waits { OnConfigChange::NextInstall } else { OnConfigChange::Reinstall };
        }
        "rack" => machine.place.rack = Some(value.to_owned()),
        "group" => drop(machine.labels.insert("group".to_owned(), value.to_owned())),
        label if label.starts_with("label:") => drop(machine.labels.insert(label["label:".len()..].to_owned(), value.to_owned())),
        "onClaim" => machine.on_claim = if value == "Install" { OnClaim::Install } else { OnClaim::Adopt },
        "serial" => machine.identity.serial = (value != "none").then(|| value.to_owned()),
        "uuid" => machine.identity.uuid = Some(value.to_owned()),
        "mac2" => {
            let nic = Nic { name: "lan1".to_owned(), mac: value.parse().unwrap(), network: None, address: None, boot: false };
            machine.nics.push(nic);
        }
        "mac" => machine.nics[0].mac = value.parse().unwrap(),
        "gates" => machine.gates = value.split(',').filter(|text| *text != "none").map(|text| gate(machine, text)).collect(),
        "suspend" => machine.suspend = value == "yes",
        "disk" => machine.disks.system = (value != "none").then(|| DiskHint { serial: Some(value.to_owned()), ..DiskHint::default() }),
        "power" => {
            machine.power = match value {
                "On" => PowerIntent::On,
                "Off" => PowerIntent::Off,
                _ => PowerIntent::Unmanaged,
            }
        }
        other => panic!("unknown field {other}"),
    }
}

/// `home:20m`, `http:10m`, `health=OK:10m`, `reported=raid:10m`.
fn gate(machine: &Machine, text: &str) -> Gate {
    let (what, within) = text.split_once(':').unwrap();
    let within = within.parse().unwrap();
    match what.split_once('=') {
        None if what == "home" => Gate::CalledHome { within },
        None => Gate::Http { url: format!("{what}://{}/healthz", machine.nics[0].address.unwrap()), status: 200, within },
        Some(("health", worst)) => Gate::RedfishHealth { worst: health(worst), within },
        Some((_, check)) => Gate::Reported { check: check.to_owned(), within },
    }
}

fn health(text: &str) -> Health {
    match text {
        "OK" => Health::OK,
        "Warning" => Health::Warning,
        "Critical" => Health::Critical,
        other => panic!("unknown health {other}"),
    }
}

/// `zero:system`, `signatures:all`, `zero:A,B` of serial numbers.
fn wipe(machine: &mut Machine, value: &str) {
    let (method, disks) = value.split_once(':').unwrap();
    let all = [WipeMethod::Signatures, WipeMethod::Discard, WipeMethod::SecureErase, WipeMethod::Zero];
    let method = all.into_iter().find(|known| known.name() == method).unwrap();
    let disks = match disks {
        "system" => WipeDisks::System,
        "all" => WipeDisks::All,
        serial => WipeDisks::These(serials(serial)),
    };
    decommission(machine, method, disks, 0);
}

fn serials(text: &str) -> Vec<DiskHint> {
    text.split(',').map(|serial| DiskHint { serial: Some(serial.to_owned()), ..DiskHint::default() }).collect()
}

/// `cp-1/join-token`.
fn wanted(text: &str) -> HandoffUse {
    let (from, name) = text.split_once('/').unwrap();
    HandoffUse { from: from.parse().unwrap(), name: name.parse().unwrap() }
}

/// `a`, `a,b`, `web-1..3`.
fn names(text: &str) -> Vec<MachineName> {
    let of = |text: &str| match text.split_once("..") {
        Some((first, last)) => {
            let (stem, from) = first.rsplit_once('-').unwrap();
            let (from, to): (u32, u32) = (from.parse().unwrap(), last.parse().unwrap());
            (from..=to).map(|number| name(&format!("{stem}-{number}"))).collect()
        }
        None => vec![name(text)],
    };
    text.split(',').flat_map(of).collect()
}

/// `all`, `group:web`, or names of machines.
fn scopes(text: &str) -> Vec<HoldScope> {
    match text.strip_prefix("group:") {
        Some(group) => vec![HoldScope::Group(RolloutName::new(group).unwrap())],
        None if text == "all" => vec![HoldScope::All],
        None => names(text).into_iter().map(HoldScope::Machine).collect(),
    }
}

fn rung(text: &str) -> Rung {
    match text {
        "dhcp" => Rung::DhcpSeen,
        "loader" => Rung::LoaderFetched,
        "agent" => Rung::AgentUp,
        "writing" => Rung::Writing,
        "written" => Rung::Written,
        "disk" => Rung::BootedFromDisk,
        "home" => Rung::CalledHome,
        other => panic!("unknown rung {other}"),
    }
}

fn policy(text: &str) -> DriftPolicy {
    match text {
        "Observe" => DriftPolicy::Observe,
        "Alert" => DriftPolicy::Alert,
        "Correct" => DriftPolicy::Correct,
        other => panic!("unknown policy {other}"),
    }
}

/// `Mon+Tue@22:00-05:00@Europe/Berlin`.
fn window(text: &str) -> Window {
    let (days, rest) = text.split_once('@').unwrap();
    let (times, time_zone) = rest.split_once('@').unwrap();
    let (from, to) = times.split_once('-').unwrap();
    let minutes = |text: &str| text.split_once(':').map(|(h, m)| h.parse::<u16>().unwrap() * 60 + m.parse::<u16>().unwrap()).unwrap();
    let day = |text: &str| Weekday::ALL.into_iter().find(|day| format!("{day:?}") == text).unwrap();
    Window { days: days.split('+').map(day).collect(), from: minutes(from), to: minutes(to), time_zone: time_zone.to_owned() }
}

/// `canary`, with conditions `canary:30m`, `canary:80%` or `canary:30m:80%`.
fn after_of(text: &str) -> After {
    let mut parts = text.split(':');
    let mut after = After::from(RolloutName::new(parts.next().unwrap()).unwrap());
    for part in parts {
        match part.strip_suffix('%') {
            Some(share) => after.share = Some(share.parse().unwrap()),
            None => after.healthy_for = part.parse().unwrap(),
        }
    }
    after
}

/// `4`, or `10%`.
fn amount(text: &str) -> Amount {
    text.strip_suffix('%').map_or_else(|| Amount::Count(text.parse().unwrap()), |share| Amount::Percent(share.parse().unwrap()))
}

/// `ever`, or a time.
fn frozen(text: &str) -> Freeze {
    Freeze { until: (text != "ever").then(|| text.parse().unwrap()), reason: Some("end of the year".to_owned()) }
}

fn seconds(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        other => panic!("unknown unit {other}"),
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}
