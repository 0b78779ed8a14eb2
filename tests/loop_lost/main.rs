//! Nothing lost: power, switches, clocks, Git hosts, disks and people fail under the whole controller, and it is judged from outside: by
//! the bytes and the accounts of simulated disks, by the journal, and by what it says.
#![allow(clippy::unwrap_used, missing_docs)]

mod clock;
mod garbage;
#[path = "../lab/mod.rs"]
mod lab;
mod network;
mod power;
mod repository;
mod switch;
mod time;

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
};

use lab::Lab;
use rackwright::{
    cli::run::Controller,
    journal::SqliteJournal,
    model::{History, MachineHistory, MachineStatus, State, Status},
};
use serde_json::Value;

/// The real program, killed with SIGKILL when this is dropped.
struct Process(Child);

impl Process {
    fn start(lab: &Lab) -> Self {
        Self::with(lab, &[])
    }

    fn with(lab: &Lab, environment: &[(&str, String)]) -> Self {
        let log = File::options().create(true).append(true).open(lab.path("controller.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rackwright"));
        command.args(["run", "--config"]).arg(lab.config()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self(command.spawn().unwrap())
    }

    fn is_dead(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the controller wrote to its log.
fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.path("controller.log")).unwrap_or_default()
}

fn find<'a>(status: &'a Status, name: &str) -> &'a MachineStatus {
    lab::machine(status, name)
}

fn is(status: &Status, name: &str, state: State, reason: &str) -> bool {
    let machine = status.machines.iter().find(|(known, _)| known.as_str() == name);
    machine.is_some_and(|(_, machine)| machine.state == state && machine.reason == reason)
}

fn history(lab: &Lab) -> History {
    History::of(&SqliteJournal::read_only(&lab.path("state/journal.db")).unwrap().records_after(0).unwrap())
}

fn of<'a>(history: &'a History, name: &str) -> &'a MachineHistory {
    &history.machines[&name.parse().unwrap()]
}

/// Records of the journal.
fn records(lab: &Lab) -> u64 {
    history(lab).seq
}

/// The most often that any block of the disk was written, but for its ends and the seed, which an install writes twice.
fn most_written(lab: &Lab, name: &str) -> u64 {
    let mut account = lab.disk(name).into_os_string();
    account.push(".writes.json");
    let account: Value = serde_json::from_slice(&fs::read(account).unwrap()).unwrap();
    let size = fs::metadata(lab.disk(name)).unwrap().len();
    let blocks = account["blocks"].as_object().unwrap().iter();
    let inner = blocks.filter(|(block, _)| {
        let at = block.parse::<u64>().unwrap() << 20;
        at != 0 && at + (1 << 20) != size && !rackwright::sim::SEED.contains(&(at as usize))
    });
    inner.map(|(_, writes)| writes.as_u64().unwrap()).max().unwrap_or(0)
}

async fn all_ready(lab: &Lab) -> Status {
    lab.until("everything Ready", lab::ready(&lab.head())).await
}

async fn end(lab: Lab, controller: Controller) {
    controller.stop.cancel();
    controller.ended().await.unwrap();
    lab.simulator.stop().await;
}
