//! Power is cut on the controller, and on the machine that it installs.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rackwright::model::{AttemptEnd, Rung};
use serde_json::{Value, json};

use crate::{
    Process, all_ready, find, history,
    lab::{Lab, Node},
    log, most_written, of,
};

const PARTS: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db.mark"];

/// Writes, so slowly that there is time for a power cut, image two over image one; the controller is dead then.
async fn dead_in_the_middle_of_a_write() -> Lab {
    let sim = json!({"pace": {"slowWrite": "300ms"}});
    // An agent is not given up for the time that a test takes to look at files.
    let tune = json!({"deadlines": {"silence": "120s"}});
    let node = Node::new("only", "Adopt").with(|only| only.faults = vec!["disk-slow"]);
    let mut lab = Lab::tuned(vec![node], "20ms", sim, tune).await;
    let process = Process::start(&lab);
    all_ready(&lab).await;
    lab.node("only").image = "two".to_owned();
    lab.write_machines();
    lab.commit("Move it to image two");
    lab.until("the first bytes", |status| find(status, "only").rung == Some(Rung::Writing) && lab.installs("only") == 1).await;
    drop(process);
    lab
}

/// The journal's files as a power cut left them.
fn keep(lab: &Lab) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    PARTS.iter().map(|part| lab.path("state").join(part)).map(|path| (path.clone(), fs::read(path).ok())).collect()
}

fn put_back(kept: &[(PathBuf, Option<Vec<u8>>)]) {
    for (path, content) in kept {
        match content {
            Some(content) => fs::write(path, content).unwrap(),
            None => drop(fs::remove_file(path)),
        }
    }
}

/// Takes the last of what SQLite's write-ahead log holds: frames of a header of 24 bytes and a page of 4096.
fn shorten(wal: &Path, by: u64) {
    let file = File::options().write(true).open(wal).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.checked_sub(by).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_power_cut_on_the_controller_tears_the_end_of_its_journal() {
    let lab = dead_in_the_middle_of_a_write().await;
    let wal = lab.path("state/journal.db-wal");
    let kept = keep(&lab);
    let known = history(&lab);
    assert!(fs::metadata(&wal).unwrap().len() > 24 + 4096, "a controller that was killed leaves its log behind");

    // The disk lost what it had acknowledged as synced: one write of the journal, or half of it.
    for (what, by) in [("the last page is gone", 24 + 4096), ("the last page is torn", 2000)] {
        put_back(&kept);
        shorten(&wal, by);
        let mut process = Process::start(&lab);
        while !process.is_dead() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let said = log(&lab);
        let said = said.lines().last().unwrap_or_default();
        for text in ["ends at record", &format!("had written record {}", known.seq), "was put back to an earlier state", "journal restore"]
        {
            assert!(said.contains(text), "{what}: {text:?} is not in {said:?}");
        }
        assert_eq!(lab.installs("only"), 1, "{what}: nothing is done by such a journal");
    }

    // What it had not acknowledged: half of a further page, which the cut stopped.
    put_back(&kept);
    File::options().append(true).open(&wal).unwrap().write_all(&[0x5a; 24 + 1000]).unwrap();
    let _process = Process::start(&lab);
    all_ready(&lab).await;
    let history = history(&lab);
    let attempts = &of(&history, "only").attempts;
    assert!(history.seq > known.seq, "all that was acknowledged is there");
    assert!(matches!(&attempts[..], [only] if matches!(only.end, Some((_, AttemptEnd::Done)))), "{attempts:#?}");
    assert_eq!((lab.installs("only"), lab.difference("only", "two")), (1, None), "the agent was let finish");
    assert!(most_written(&lab, "only") <= 1);
    lab.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_power_cut_on_controller_and_machine_in_the_middle_of_a_write() {
    // Silence would end the attempt too, but long after this test.
    let tune = json!({"deadlines": {"silence": "600s"}});
    let sim = json!({"control": "127.0.0.1:0"});
    let nodes = vec![Node::new("cut", "Install").with(|cut| cut.faults = vec!["reset-during-write:1"]), Node::new("near", "Install")];
    let lab = Lab::tuned(nodes, "20ms", sim, tune).await;
    let process = Process::start(&lab);
    lab.until("the power cut", |status| find(status, "cut").rung == Some(Rung::Writing) && find(status, "cut").power == "Off").await;
    drop(process);
    let head = &fs::read(lab.disk("cut")).unwrap()[..1 << 20];
    assert!(head.iter().all(|byte| *byte == 0), "what is half written can't be started");
    let _process = Process::start(&lab);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lab.installs("cut"), 1);
    // Power comes back in the whole rack.
    let url = format!("http://{}/machines/cut/power", lab.simulator.control().unwrap());
    let answer = reqwest::Client::new().post(url).json(&json!({"state": "On"})).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 204);
    all_ready(&lab).await;
    assert_eq!((lab.installs("cut"), lab.installs("near")), (2, 1), "one more, for what was half written");
    assert_eq!(["cut", "near"].map(|name| lab.difference(name, "one")), [None, None]);
    let history = history(&lab);
    let wrote = of(&history, "cut").attempts.iter().filter(|attempt| attempt.wrote()).count();
    assert_eq!(wrote, 2, "each under an attempt of its own");
    lab.simulator.stop().await;
}

/// The state folder is lost as a whole, and with it all that the controller knew. What the repository, its notes and the machines show is
/// enough to keep the fleet as it is; what it is not enough for is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_state_folder_that_is_lost_in_the_middle_of_a_rollout() {
    let nodes = ["done", "writes", "fresh"].map(|name| Node::new(name, if name == "fresh" { "Install" } else { "Adopt" }));
    let mut nodes = Vec::from(nodes);
    nodes[1].faults = vec!["disk-slow"];
    let sim = json!({"pace": {"slowWrite": "400ms"}});
    let mut lab = Lab::tuned(nodes, "20ms", sim, Value::Null).await;
    let process = Process::start(&lab);
    all_ready(&lab).await;
    lab.note(&lab.head(), "Rackwright-Ready: 3/3").await;
    for name in ["done", "writes"] {
        lab.node(name).image = "two".to_owned();
    }
    lab.write_machines();
    lab.commit("Move two to image two");
    lab.until("one is done, one writes", |status| {
        let done = find(status, "done");
        done.reason == "AsDeclared" && done.writes == 1 && find(status, "writes").rung == Some(Rung::Writing)
    })
    .await;
    drop(process);
    fs::rename(lab.path("state"), lab.path("state.lost")).unwrap();
    fs::create_dir(lab.path("state")).unwrap();
    let before: Vec<_> = ["done", "fresh"].map(|name| fs::read(lab.disk(name)).unwrap()).into();

    let process = Process::start(&lab);
    let told = |status: &rackwright::model::Status| {
        find(status, "done").reason == "AsDeclared" && find(status, "fresh").reason == "JournalLost" && find(status, "fresh").power == "On"
    };
    let status = lab.until("the loss is told", told).await;
    println!("{:#?}", status.machines);
    assert!(log(&lab).contains("the journal is new, but a controller of this site worked before"));
    assert!(find(&status, "fresh").message.contains("raise rebuild to install it"), "{status:#?}");
    // Time in which it could do something wrong.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (name, before) in ["done", "fresh"].iter().zip(before) {
        assert!(fs::read(lab.disk(name)).unwrap() == before, "{name}'s disk");
        assert_eq!(lab.installs(name), 1, "{name}");
    }
    assert_eq!(lab.installs("writes"), 1);
    let attempts: usize = history(&lab).machines.values().map(|machine| machine.attempts.len()).sum();
    assert_eq!(attempts, 0, "nothing is begun by a journal that knows nothing");

    // What a person decides is done: they look, take `fresh` for installed, and install the one that was cut off anew.
    lab.node("fresh").on_claim = "Adopt";
    lab.node("writes").rebuild = 1;
    lab.node("writes").faults.clear();
    lab.simulator.clear_faults("writes").unwrap();
    lab.write_machines();
    lab.commit("Take fresh as it is, and install writes anew");
    all_ready(&lab).await;
    assert_eq!(["done", "writes", "fresh"].map(|name| lab.installs(name)), [1, 2, 1]);
    assert_eq!(lab.difference("writes", "two"), None);
    drop(process);
    lab.simulator.stop().await;
}

/// Git writes a ref as a file beside it, and a controller that is killed in that moment leaves the file behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_controller_that_is_killed_while_it_writes_its_clone() {
    let mut lab = Lab::new(vec![Node::new("only", "Install")]).await;
    let process = Process::start(&lab);
    all_ready(&lab).await;
    lab.note(&lab.head(), "Rackwright-Ready: 1/1").await;
    drop(process);
    let clone = lab.path("state/fleet.git");
    for lock in ["refs/rackwright/in-force", "refs/notes/rackwright/lab/status", "refs/remotes/origin/main", "packed-refs", "config"] {
        let lock = clone.join(format!("{lock}.lock"));
        fs::create_dir_all(lock.parent().unwrap()).unwrap();
        fs::write(lock, "").unwrap();
    }
    let process = Process::start(&lab);
    lab.node("only").rebuild = 1;
    lab.write_machines();
    let head = lab.commit("Rebuild it");
    all_ready(&lab).await;
    lab.note(&head, "Rackwright-Ready: 1/1").await;
    assert_eq!(lab.installs("only"), 2);
    drop(process);
    lab.simulator.stop().await;
}
