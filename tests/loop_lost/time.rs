//! Clocks that are set wrong and right again, and long outages in a quick clock. The real program, whose clock this test turns.

use std::{fs, time::Duration};

use rackwright::model::{AttemptEnd, Rung, SignedDuration, State, Status};
use serde_json::{Value, json};

use crate::{
    Process, all_ready,
    clock::Clock,
    find, history,
    lab::{Lab, Node, ready},
    most_written, of, records,
    switch::Switch,
};

const YEAR: i64 = 365;

/// Two machines that were there before, and one that is installed; all Ready, with a clock that can be turned.
async fn three(faults: &[&'static str], tune: Value) -> Option<(Lab, Clock, Process)> {
    let nodes = vec![
        Node::new("idle", "Adopt"),
        Node::new("drifts", "Adopt"),
        Node::new("bad", "Install").with(|bad| bad.faults = faults.to_vec()),
    ];
    let sim = json!({"control": "127.0.0.1:0", "pace": {"slowWrite": "300ms"}});
    let lab = Lab::tuned(nodes, "20ms", sim, tune).await;
    let clock = Clock::of(&lab)?;
    let process = Process::with(&lab, &clock.environment());
    Some((lab, clock, process))
}

async fn pull_plug(lab: &Lab, name: &str) {
    let url = format!("http://{}/machines/{name}/power", lab.simulator.control().unwrap());
    let answer = reqwest::Client::new().post(url).json(&json!({"state": "Off"})).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 204);
}

fn is_on(lab: &Lab, name: &str) -> bool {
    lab.simulator.report(name).unwrap().power.to_string() == "On"
}

/// The controller looked, by its own clock, `days` from where it was at `before`.
fn has_jumped(before: &Status, days: i64) -> impl Fn(&Status) -> bool + use<> {
    let expected = before.at + SignedDuration::from_hours(24 * days);
    move |status| status.at.duration_since(expected).abs() < SignedDuration::from_hours(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_clock_that_jumps_a_year_while_nothing_is_done() {
    let Some((mut lab, mut clock, process)) = three(&[], Value::Null).await else { return };
    let mut status = all_ready(&lab).await;
    let disks = ["idle", "drifts", "bad"].map(|name| fs::read(lab.disk(name)).unwrap());
    let mut corrected = 0;
    // Forward, back to where it was, and one more back: behind all that the journal knows.
    for days in [YEAR, -YEAR, -YEAR] {
        let known = records(&lab);
        clock.jump(days);
        let jumped = has_jumped(&status, days);
        lab.until("everything Ready at another time", |status| jumped(status) && ready(&lab.head())(status)).await;
        assert_eq!(records(&lab), known, "nothing is done about a clock");
        // What rests on the time since something else must not rest for a year.
        // Three corrections are damped, and two of them are enough to see it.
        if corrected < 2 {
            corrected += 1;
            pull_plug(&lab, "drifts").await;
            lab.until("it is on again", |status| is_on(&lab, "drifts") && ready(&lab.head())(status)).await;
        }
        lab.node("bad").rebuild += 1;
        lab.write_machines();
        lab.commit("Rebuild it");
        status = all_ready(&lab).await;
    }
    assert_eq!(["idle", "drifts", "bad"].map(|name| lab.installs(name)), [0, 0, 4], "one, and one for each commit");
    for (name, disk) in ["idle", "drifts"].iter().zip(disks) {
        assert!(fs::read(lab.disk(name)).unwrap() == disk, "{name}'s disk");
    }
    // And a controller that starts behind its own journal.
    drop(process);
    clock.jump(-YEAR);
    let _process = Process::with(&lab, &clock.environment());
    let jumped = has_jumped(&status, -YEAR);
    lab.until("everything Ready after a restart", |status| jumped(status) && ready(&lab.head())(status)).await;
    pull_plug(&lab, "drifts").await;
    lab.until("it is on again", |_| is_on(&lab, "drifts")).await;
    lab.node("bad").rebuild += 1;
    lab.write_machines();
    lab.commit("Rebuild it, behind the journal");
    all_ready(&lab).await;
    assert_eq!(lab.installs("bad"), 5);
    lab.simulator.stop().await;
}

/// The jump comes when the machine's attempt is at `rung`. What then becomes of it, its machine arrives.
async fn in_an_attempt(days: i64, rung: Rung, faults: &[&'static str]) {
    // Long enough to see the jump before them, short enough to wait for them after it.
    let tune = json!({"deadlines": {"agent": "15s", "silence": "15s", "maxTries": 5}});
    let Some((lab, mut clock, _process)) = three(faults, tune).await else { return };
    let status = lab.until("its attempt", |status| status.machines.len() == 3 && find(status, "bad").rung == Some(rung)).await;
    clock.jump(days);
    let jumped = has_jumped(&status, days);
    lab.until("everything Ready at another time", |status| jumped(status) && ready(&lab.head())(status)).await;
    let history = history(&lab);
    let attempts = &of(&history, "bad").attempts;
    let wrote = attempts.iter().filter(|attempt| attempt.wrote()).count() as u64;
    assert_eq!((lab.installs("bad"), wrote), (1, 1), "{attempts:#?}");
    assert!(matches!(attempts.last().unwrap().end, Some((_, AttemptEnd::Done))), "{attempts:#?}");
    assert_eq!(lab.difference("bad", "one"), None);
    assert!(most_written(&lab, "bad") <= 1);
    assert_eq!(["idle", "drifts"].map(|name| lab.installs(name)), [0, 0]);
    // The agent that never called is no fault of the clock, and everything else is no failure.
    let failed = attempts.iter().filter(|attempt| matches!(attempt.end, Some((_, AttemptEnd::Failed { .. })))).count();
    assert_eq!(failed, usize::from(faults.contains(&"agent-never-calls:1")), "{attempts:#?}");
    lab.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_clock_that_jumps_a_year_forward_while_an_attempt_is_open() {
    in_an_attempt(YEAR, Rung::LoaderFetched, &["agent-never-calls:1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_clock_that_jumps_a_year_back_while_an_attempt_is_open() {
    in_an_attempt(-YEAR, Rung::LoaderFetched, &["agent-never-calls:1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_clock_that_jumps_a_year_forward_while_an_agent_writes() {
    in_an_attempt(YEAR, Rung::Writing, &["disk-slow"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_clock_that_jumps_a_year_back_while_an_agent_writes() {
    in_an_attempt(-YEAR, Rung::Writing, &["disk-slow"]).await;
}

/// Waits of a site, for a clock that runs up to an hour in a second: real BMCs and agents answer in real time.
fn patient() -> Value {
    json!({
        "bmc": {"connectTimeout": "2h", "readTimeout": "4h", "writeTimeout": "12h", "observeTimeout": "12h"},
        "pace": {"observeSeconds": 600, "observeBusySeconds": 1},
        "deadlines": {
            "powerLag": "30m", "powerSettle": "30m", "firstPacket": "6h", "loader": "6h", "agent": "6h", "firstWrite": "6h", "silence": "6h",
            "fromDisk": "6h", "callHome": "6h", "ticket": "48h", "bootSet": "48h", "powerOn": "6h", "fresh": "4h",
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_git_host_that_is_down_for_a_day_and_comes_back_with_new_commits() {
    let Some((mut lab, mut clock, process)) = three(&[], patient()).await else { return };
    let first = lab.head();
    let before = all_ready(&lab).await;
    lab.note(&first, "Rackwright-State: Ready").await;
    let (here, away) = (lab.path("fleet.git"), lab.path("fleet.away"));
    fs::rename(&here, &away).unwrap();
    lab.until("it is missed", |status| status.source_problem.is_some()).await;
    clock.pass(Duration::from_secs(12 * 3600), 3600).await;
    // Half a day later the last commit is in force, and power is kept by it.
    pull_plug(&lab, "drifts").await;
    clock.pass(Duration::from_secs(12 * 3600), 3600).await;
    lab.until("it is on again", |_| is_on(&lab, "drifts")).await;
    let status = lab.until("a day passed", |status| status.at.duration_since(before.at) >= SignedDuration::from_hours(24)).await;
    assert!(status.source_problem.as_ref().is_some_and(|problem| problem.contains("fleet.git")), "{status:#?}");
    let ready_still = status.machines.values().all(|machine| machine.state == State::Ready);
    assert!(status.commit.id.to_string() == first && ready_still, "{status:#?}");
    assert_eq!(["idle", "drifts", "bad"].map(|name| lab.installs(name)), [0, 0, 1]);

    fs::rename(&away, &here).unwrap();
    lab.node("idle").image = "two".to_owned();
    lab.write_machines();
    let second = lab.commit("Move idle to image two");
    lab.node("bad").rebuild = 1;
    lab.write_machines();
    let third = lab.commit("Rebuild bad");
    let status = lab.until("the newest commit", |status| ready(&third)(status) && status.source_problem.is_none()).await;
    assert_eq!(["idle", "drifts", "bad"].map(|name| lab.installs(name)), [1, 0, 2], "{status:#?}");
    // Notes are tried again after minutes, where they failed for long.
    clock.pass(Duration::from_secs(600), 120).await;
    lab.note(&first, "Rackwright-State: Superseded").await;
    lab.note(&second, "Rackwright-State: Superseded").await;
    lab.note(&third, "Rackwright-Ready: 3/3").await;
    drop(process);
    lab.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn bmcs_that_are_partitioned_for_an_hour() {
    let nodes = ["a", "b", "c"].map(|name| Node::new(name, "Adopt").with(|node| node.faults = vec!["disk-slow"])).into();
    let sim = json!({"pace": {"slowWrite": "300ms"}});
    let mut lab = Lab::tuned(nodes, "20ms", sim, patient()).await;
    let Some(mut clock) = Clock::of(&lab) else { return };
    let switch = Switch::new();
    for (index, machine) in lab.simulator.machines().iter().enumerate() {
        let cable = switch.cable(([127, 0, 0, 1], 0).into(), machine.bmc).await;
        lab.nodes[index].bmc = Some(format!("https://{cable}"));
    }
    let fleet = lab.path("work/fleet.yaml");
    fs::write(&fleet, fs::read_to_string(&fleet).unwrap().replace("{group: 100%}", "{group: 1}")).unwrap();
    lab.write_machines();
    lab.commit("BMCs have a network of their own, and one machine at a time");
    let process = Process::with(&lab, &clock.environment());
    let before = all_ready(&lab).await;
    lab.nodes.iter_mut().for_each(|node| node.image = "two".to_owned());
    lab.write_machines();
    lab.commit("Move all to image two");
    lab.until("the first one is written", |status| ["a", "b", "c"].iter().any(|name| find(status, name).rung == Some(Rung::Writing))).await;
    switch.go_dark();
    clock.pass(Duration::from_secs(3600), 240).await;
    let hour = SignedDuration::from_hours(1);
    let status = lab.until("an hour passed", |status| status.at.duration_since(before.at) >= hour).await;
    let report = |name: &str| lab.simulator.report(name).unwrap();
    let touched = ["a", "b", "c"].iter().filter(|name| report(name).disks[0].writes.installs > 0 || report(name).boots > 0).count();
    assert_eq!(touched, 1, "what was being written came to its end, and nobody else was touched: {status:#?}");
    assert!(status.machines.values().any(|machine| machine.state != State::Ready), "{status:#?}");
    switch.come_back();
    all_ready(&lab).await;
    let history = history(&lab);
    for name in ["a", "b", "c"] {
        let attempts = &of(&history, name).attempts;
        assert!(matches!(&attempts[..], [only] if matches!(only.end, Some((_, AttemptEnd::Done)))), "{name}: {attempts:#?}");
        assert_eq!((lab.installs(name), lab.difference(name, "two")), (1, None), "{name}");
    }
    drop(process);
    lab.simulator.stop().await;
}
