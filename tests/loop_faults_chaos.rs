//! Commits arrive while the controller is killed again and again. Then the killing stops, and everything is as the last commit
//! says, with no disk written more often than commits asked for.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lab::{Lab, Node, ready};
use rackwright::{
    journal::SqliteJournal,
    model::{AttemptEnd, History, MachineHistory},
    ports::Journal as _,
};
use serde_json::{Value, json};

const MACHINES: usize = 6;
const KILLS: u32 = 15;

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
    lab.write_machines();
    lab.commit(&subject);
    chosen
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

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_at_random_loses_nothing_and_repeats_nothing() {
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20);
    println!("CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let nodes = (0..MACHINES).map(|index| Node::new(&format!("m{index}"), "Install")).collect();
    // A machine whose firmware asks while nobody is there fails that attempt before its first byte; that is not what is tried here.
    let tune = json!({"deadlines": {"maxTries": 50, "firstPacket": "4s", "loader": "4s", "agent": "6s", "powerLag": "1s"}});
    let mut lab = Lab::tuned(nodes, "20ms", Value::Null, tune).await;
    let (config, log) = (lab.config(), lab.path("log"));
    let mut asked = [1_u64; MACHINES];
    for _ in 0..KILLS {
        let controller = Binary::start(&config, &log);
        for _ in 0..dice.below(3) {
            asked[change(&mut lab, &mut dice)] += 1;
        }
        tokio::time::sleep(Duration::from_millis(300 + dice.below(1700))).await;
        drop(controller);
    }

    let last = Binary::start(&config, &log);
    let status = lab.until("everything Ready after the last start", ready(&lab.head())).await;
    drop(last);
    let journal = SqliteJournal::open(&lab.path("state/journal.db"), "the test").unwrap();
    let history = History::of(&journal.records().await.unwrap());
    for (index, node) in lab.nodes.iter().enumerate() {
        let name = node.name.as_str();
        assert_eq!(lab.difference(name, &node.image), None, "{name} holds what the last commit says");
        let report = lab.simulator.report(name).unwrap();
        assert_eq!(report.generation, lab::machine(&status, name).generation, "{name}'s seed");
        let machine = history.machines.iter().find(|(known, _)| known.as_str() == name).unwrap().1;
        let failed =
            machine.attempts.iter().filter(|attempt| attempt.wrote() && matches!(attempt.end, Some((_, AttemptEnd::Failed { .. }))));
        let allowed = asked[index] + failed.count() as u64;
        let wrote = judge(name, machine);
        assert_eq!(lab.installs(name), wrote, "{name}: the disk and the journal agree");
        assert!((1..=allowed).contains(&wrote), "{name}: {wrote} installs, {allowed} were asked for");
        println!("{name}: {} commits asked, {wrote} installs in {} attempts", asked[index], machine.attempts.len());
    }
    lab.simulator.stop().await;
}
