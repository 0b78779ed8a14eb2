//! The local brake, pulled with the real program while Git is down.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rackwright::{
    journal::SqliteJournal,
    model::{Fact, State, Status},
};

use crate::{
    is,
    lab::{Lab, Node, ready},
};

/// The real controller; killed when this is dropped.
struct Process(Child);

impl Process {
    fn start(lab: &Lab) -> Self {
        let log = File::options().create(true).append(true).open(lab.path("controller.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rackwright"));
        command.args(["run", "--config"]).arg(lab.config()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exit code, and all that it said.
async fn rackwright(config: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackwright"));
    command.args(arguments).arg("--config").arg(config).env("SUDO_USER", "night-shift");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// Attempts that began and orders that were intended, by the journal.
fn begun(lab: &Lab) -> usize {
    let records = SqliteJournal::read_only(&lab.path("state/journal.db")).unwrap().records_after(0).unwrap();
    records.iter().filter(|record| matches!(record.fact, Fact::Began { .. } | Fact::Intended { .. })).count()
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_stops_a_rollout_survives_a_restart_and_lets_it_go_on() {
    let mut lab = Lab::new(NAMES.map(|name| Node::new(name, "Adopt")).into()).await;
    let fleet = lab.path("work/fleet.yaml");
    fs::write(&fleet, fs::read_to_string(&fleet).unwrap().replace("{group: 100%}", "{group: 1}")).unwrap();
    let adopted = lab.commit("One at a time");
    let config = lab.config();
    // With no controller: it starts with its brake on.
    let (code, said) = rackwright(&config, &["hold", "d", "--reason", "lid is open"]).await;
    assert!(code == Some(0) && said.contains("No controller answers at ") && said.contains("Can't look whether"), "{said}");
    let controller = Process::start(&lab);
    lab.until("all adopted", ready(&adopted)).await;

    lab.nodes.iter_mut().for_each(|node| node.image = "two".to_owned());
    lab.write_machines();
    let two = lab.commit("Move to image two");
    let wrote = |status: &Status, name: &str| crate::find(status, name).is_some_and(|machine| machine.writes == 1);
    let status = lab.until("the rollout is on its way", |status| NAMES.iter().any(|name| wrote(status, name))).await;
    assert!(is(&status, "d", State::Stalled, "OnHold"), "{status:#?}");
    let (fleet, away) = (lab.path("fleet.git"), lab.path("fleet.away"));
    fs::rename(&fleet, &away).unwrap();
    let (code, said) = rackwright(&config, &["hold", "--all", "--reason", "the image does not boot"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("all machines held by night-shift since ") && said.ends_with("The controller has taken notice.\n"), "{said}");
    let stands = |status: &Status| {
        let held = |name: &&str| is(status, name, State::Stalled, "OnHold") || is(status, name, State::Ready, "OnHold");
        status.brake.holds.len() == 2 && NAMES.iter().all(held) && status.machines.values().all(|machine| machine.rung.is_none())
    };
    let status = lab.until("what writes is let finish, and nothing else goes on", stands).await;
    let done = NAMES.iter().filter(|name| wrote(&status, name)).count();
    assert!((1..3).contains(&done), "the brake came in the middle: {status:#?}");
    let before = begun(&lab);

    drop(controller);
    let _controller = Process::start(&lab);
    let again = lab.until("the next controller holds too", stands).await;
    for _ in 0..3 {
        let last = again.at;
        lab.until("turns", |status| status.at > last && stands(status)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(begun(&lab), before, "nothing was begun");
    assert_eq!(NAMES.iter().map(|name| lab.installs(name)).sum::<u64>(), done as u64);
    what_is_said_of_holds(&config).await;

    fs::rename(&away, &fleet).unwrap();
    let (_, said) = rackwright(&config, &["unhold", "--all"]).await;
    assert!(said.starts_with("Let go: all machines\nStill: d held by night-shift"), "{said}");
    let rest = |status: &Status| NAMES[..3].iter().all(|name| is(status, name, State::Ready, "AsDeclared") && wrote(status, name));
    lab.until("the rollout goes on", rest).await;
    let note = lab.note(&two, "Hold: d held by night-shift since ").await;
    assert!(note.contains("\nStalled     d: d held by night-shift since "), "{note}");
    assert_eq!(NAMES.map(|name| lab.installs(name)), [1, 1, 1, 0]);
    what_cannot_be_read_holds_everything(&lab).await;
    lab.until("the last one, too", ready(&two)).await;
    assert_eq!(NAMES.map(|name| lab.installs(name)), [1; 4]);
    lab.simulator.stop().await;
}

async fn what_is_said_of_holds(config: &Path) {
    let (_, listed) = rackwright(config, &["hold"]).await;
    assert!(
        listed.starts_with("d held by night-shift since ") && listed.contains(": lid is open\nall machines held by night-shift"),
        "{listed}"
    );
    let (code, said) = rackwright(config, &["unhold", "a"]).await;
    assert!(code == Some(1) && said.contains("a has no hold of its own; what is held:\n  d held by"), "{said}");
    let (code, said) = rackwright(config, &["hold", "e"]).await;
    assert!(code == Some(1) && said.contains("the fleet has no machine of that name now"), "{said}");
    assert_eq!(rackwright(config, &["unhold", "e"]).await.0, Some(0));
}

async fn what_cannot_be_read_holds_everything(lab: &Lab) {
    fs::write(lab.path("state/hold.json"), "{}").unwrap();
    let status = lab.until("nobody knows what is held", |status| status.brake.unreadable.is_some()).await;
    assert!(status.state == State::Stalled && status.brake.unreadable.as_ref().unwrap().contains("missing field `version`"), "{status:?}");
    fs::remove_file(lab.path("state/hold.json")).unwrap();
}
