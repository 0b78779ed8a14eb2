//! Commits arrive while the controller is killed again and again, at random and in each phase of an install. Then the killing stops, and
//! everything is as the last commit says, with no disk written more often than commits asked for. `scripts/chaos --kills 200` does more of it.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lab::{Lab, Node, ready};
use rackwright::{
    journal::SqliteJournal,
    model::{AttemptEnd, History, MachineHistory, Rung, Status},
    sim::SEED,
};
use serde_json::{Value, json};

const MACHINES: usize = 6;
/// Kills where `RACKWRIGHT_KILLS` says nothing else.
const KILLS: u32 = 15;
/// One kill in so many waits for an attempt to be where kills at random seldom find one.
const AIMED: u32 = 3;
/// Each is hit, however few kills there are.
const TARGETS: [Rung; 8] = [
    Rung::Writing,
    Rung::BootSet,
    Rung::Written,
    Rung::DhcpSeen,
    Rung::AgentUp,
    Rung::BootedFromDisk,
    Rung::LoaderFetched,
    Rung::TicketArmed,
];
/// Serial numbers of disks that no manifest means.
const X: [&str; MACHINES] = ["X-m0", "X-m1", "X-m2", "X-m3", "X-m4", "X-m5"];
/// One that is in no commit, and one that is adopted and left alone.
const OTHERS: [&str; 2] = ["stranger", "bystander"];

/// A controller of its own process, killed with SIGKILL when it is dropped.
struct Binary(Child);

impl Binary {
    fn start(config: &Path, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rackwright"));
        command.args(["run", "--config"]).arg(config).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Numbers that look random and are the same for the same seed (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A number that the environment may say otherwise.
fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// A commit that moves one machine to the other image, or rebuilds it. Returns which.
fn change(lab: &mut Lab, dice: &mut Dice) -> usize {
    let chosen = dice.below(MACHINES as u64) as usize;
    let node = &mut lab.nodes[chosen];
    let subject = if dice.below(2) == 0 {
        node.image = if node.image == "one" { "two" } else { "one" }.to_owned();
        format!("Move {} to image {}", node.name, node.image)
    } else {
        node.rebuild += 1;
        format!("Rebuild {}", node.name)
    };
    write_machines(lab);
    lab.commit(&subject);
    chosen
}

/// All but the one that is nobody's.
fn write_machines(lab: &Lab) {
    lab.write_machines();
    fs::remove_file(lab.path("work/machines/stranger.yaml")).unwrap();
}

/// What the journal says, also while it is written, and after a kill.
fn history(lab: &Lab) -> Option<History> {
    let reader = SqliteJournal::read_only(&lab.path("state/journal.db")).ok()?;
    Some(History::of(&reader.records_after(0).ok()?))
}

/// Where open attempts are.
fn open(history: &History) -> Vec<Option<Rung>> {
    let attempts = history.machines.values().filter_map(|machine| machine.open_attempt());
    attempts.map(|attempt| attempt.evidence.iter().map(|(_, evidence)| evidence.rung()).max()).collect()
}

/// Kills, by where they found attempts.
#[derive(Default)]
struct Hits {
    rungs: BTreeMap<Option<Rung>, u32>,
    before: u32,
    writing: u32,
    after: u32,
    idle: u32,
}

impl Hits {
    fn count(&mut self, open: &[Option<Rung>]) {
        let any = |phase: &dyn Fn(&Option<Rung>) -> bool| u32::from(open.iter().any(phase));
        self.before += any(&|rung| *rung < Some(Rung::Writing));
        self.writing += any(&|rung| *rung == Some(Rung::Writing));
        self.after += any(&|rung| *rung > Some(Rung::Writing));
        self.idle += u32::from(open.is_empty());
        open.iter().for_each(|rung| *self.rungs.entry(*rung).or_default() += 1);
    }

    fn print(&self, kills: u32) {
        let Self { before, writing, after, idle, .. } = self;
        println!(
            "{kills} kills: {before} before the first byte of an install, {writing} while one was written, {after} after its last byte, {idle} with none on its way"
        );
        for (rung, count) in &self.rungs {
            let rung = rung.map_or("begun".to_owned(), |rung| rung.to_string());
            println!("  {count:4} attempts killed at: {rung}");
        }
    }
}

/// Waits a random time; an aimed kill, until an attempt is where it should be, or a few seconds.
async fn wait(lab: &Lab, dice: &mut Dice, target: Option<Rung>) {
    let Some(target) = target else { return tokio::time::sleep(Duration::from_millis(300 + dice.below(1700))).await };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        if history(lab).is_some_and(|history| open(&history).contains(&Some(target))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Writes of the inner blocks of a disk: ends and seed are written twice in an install.
fn most_written(lab: &Lab, disk: &str) -> u64 {
    let path = lab.path("sim").join(disk);
    let size = fs::metadata(&path).map_or(0, |file| file.len());
    let mut account = path.into_os_string();
    account.push(".writes.json");
    let Ok(account) = fs::read(account) else { return 0 };
    let account: Value = serde_json::from_slice(&account).unwrap();
    let blocks = account["blocks"].as_object().unwrap().iter();
    let inner = blocks.filter(|(block, _)| {
        let at = block.parse::<u64>().unwrap() << 20;
        at != 0 && at + (1 << 20) != size && !SEED.contains(&(at as usize))
    });
    inner.map(|(_, writes)| writes.as_u64().unwrap()).max().unwrap_or(0)
}

/// Attempts that wrote, one after another: each of another generation than the one before it, unless that one failed.
fn judge(name: &str, machine: &MachineHistory) -> u64 {
    let wrote: Vec<_> = machine.attempts.iter().filter(|attempt| attempt.wrote()).collect();
    for pair in wrote.windows(2) {
        let failed = matches!(pair[0].end, Some((_, AttemptEnd::Failed { .. })));
        assert!(failed || pair[0].generation != pair[1].generation, "{name} was installed twice with one generation: {pair:#?}");
    }
    wrote.len() as u64
}

/// What each disk says at the end, and what the journal says of it.
fn judge_all(lab: &Lab, status: &Status, asked: &[u64]) {
    let history = history(lab).unwrap();
    let mut total = 0;
    for (node, asked) in lab.nodes.iter().zip(asked) {
        let name = node.name.as_str();
        assert_eq!(lab.difference(name, &node.image), None, "{name} holds what the last commit says");
        let report = lab.simulator.report(name).unwrap();
        assert_eq!(report.generation, lab::machine(status, name).generation, "{name}'s seed");
        let machine = &history.machines[&name.parse().unwrap()];
        let failed =
            machine.attempts.iter().filter(|attempt| attempt.wrote() && matches!(attempt.end, Some((_, AttemptEnd::Failed { .. }))));
        let allowed = asked + failed.count() as u64;
        let wrote = judge(name, machine);
        assert_eq!(lab.installs(name), wrote, "{name}: the disk and the journal agree");
        assert!((1..=allowed).contains(&wrote), "{name}: {wrote} installs, {allowed} were asked for");
        assert!(most_written(lab, &format!("{name}.D-{name}.disk")) <= wrote, "{name}: no block was written twice in one install");
        assert_eq!(report.disks[1].writes.installs, 0, "{name}: nobody declared its second disk");
        assert_eq!(most_written(lab, &format!("{name}.X-{name}.disk")), 0, "{name}: nobody declared its second disk");
        println!("{name}: {asked} commits asked, {wrote} installs in {} attempts", machine.attempts.len());
        total += wrote;
    }
    for name in OTHERS {
        let report = lab.simulator.report(name).unwrap();
        assert_eq!((report.disks[0].writes.installs, report.boots), (0, 0), "{name} is left alone");
    }
    println!("{total} installs in all, each disk as its journal and its commits say");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_controller_that_is_killed_at_random_loses_nothing_and_repeats_nothing() {
    let (seed, kills) = (number("CHAOS_SEED", 20), number("RACKWRIGHT_KILLS", KILLS.into()) as u32);
    println!("CHAOS_SEED={seed} RACKWRIGHT_KILLS={kills}");
    let mut dice = Dice(seed);
    let install = |index| Node::new(&format!("m{index}"), "Install").with(|node| node.further_disks = vec![(X[index], "8MiB")]);
    let others = OTHERS.map(|name| Node::new(name, "Adopt"));
    let nodes = (0..MACHINES).map(install).chain(others).collect();
    // A machine whose firmware asks while nobody is there fails that attempt before its first byte; that is not what is tried here.
    let tune = json!({"deadlines": {"maxTries": 1000, "firstPacket": "4s", "loader": "4s", "agent": "6s", "powerLag": "1s"}});
    let mut lab = Lab::tuned(nodes, "20ms", Value::Null, tune).await;
    let fleet = lab.path("work/fleet.yaml");
    fs::write(&fleet, fs::read_to_string(&fleet).unwrap().replace("breaker: {failures: 50}", "breaker: {failures: 100000}")).unwrap();
    write_machines(&lab);
    lab.commit("Nobody declares the stranger");
    let (config, log, begun) = (lab.config(), lab.path("log"), Instant::now());
    let (mut asked, mut hits) = ([1_u64; MACHINES], Hits::default());
    for kill in 0..kills {
        let controller = Binary::start(&config, &log);
        let target = (kill % AIMED == 0).then(|| TARGETS[(kill / AIMED) as usize % TARGETS.len()]);
        let commits = if target.is_some() { 1 + dice.below(2) } else { dice.below(3) };
        for _ in 0..commits {
            asked[change(&mut lab, &mut dice)] += 1;
        }
        wait(&lab, &mut dice, target).await;
        drop(controller);
        history(&lab).iter().for_each(|history| hits.count(&open(history)));
        if (kill + 1) % 20 == 0 {
            println!("{} of {kills} kills, {:.0?}", kill + 1, begun.elapsed());
        }
    }

    let last = Binary::start(&config, &log);
    let status = lab.until("everything Ready after the last start", ready(&lab.head())).await;
    drop(last);
    hits.print(kills);
    judge_all(&lab, &status, &asked);
    assert!(kills < AIMED * 3 || [hits.before, hits.writing, hits.after].iter().all(|hits| *hits > 0), "a phase that no kill hit");
    lab.simulator.stop().await;
}
