//! What a controller finds when it is started again, and what it does not.

use std::{fs, process::Command, time::Duration};

use rackwright::{
    cli::run::Controller,
    model::{AttemptEnd, MachineHistory, Rung, State},
};
use serde_json::{Value, json};

use crate::{
    all_ready, end, find,
    images::mortal,
    is,
    lab::{Lab, Node},
};

async fn stop(controller: Controller) {
    controller.stop.cancel();
    controller.ended().await.unwrap();
}

fn history(controller: &Controller, name: &str) -> MachineHistory {
    controller.live.ledger.with(|history| history.machines[&name.parse().unwrap()].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_is_deleted_in_the_middle_of_an_install() {
    let tune = json!({"deadlines": {"silence": "60s"}});
    let (mut lab, mut server) = mortal(Value::Null, tune).await;
    let controller = lab.controller().await;
    server.died().await;
    lab.until("the other install", |status| is(status, "good", State::Ready, "AsDeclared")).await;
    stop(controller).await;

    fs::remove_dir_all(lab.path("state/fleet.git")).unwrap();
    lab.node("bad").rebuild = 1;
    lab.write_machines();
    let head = lab.commit("Rebuild it, while it is written");
    let controller = lab.controller().await;
    lab.until("the new commit", |status| status.commit.id.to_string() == head).await;
    server.come_back().await;
    all_ready(&lab).await;
    let attempts = history(&controller, "bad").attempts;
    assert!(attempts[0].reached(Rung::Written).is_some(), "the first install was let finish: {attempts:#?}");
    assert!(matches!(attempts[0].end, Some((_, AttemptEnd::Superseded))), "{attempts:#?}");
    assert_eq!((attempts.len(), lab.installs("bad"), lab.installs("good")), (2, 2, 1));
    assert_eq!(lab.difference("bad", "two"), None);
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_lost_where_notes_are_not_pushed() {
    let tune = json!({"repository": {"notes": {"push": false}}, "bmc": {"writeTimeout": "5m"}});
    let lab = Lab::tuned(vec![Node::new("only", "Install")], "20ms", Value::Null, tune).await;
    let controller = lab.controller().await;
    assert!(controller.live.order_limit > Duration::from_secs(300), "the BMC client gives up first, and says why");
    all_ready(&lab).await;
    let clone = lab.path("state/fleet.git");
    let is_there = |name: &str| Command::new("git").args(["show-ref", "--quiet", name]).current_dir(&clone).status().unwrap().success();
    while !is_there("refs/notes/rackwright/lab/status") && !is_there("refs/rackwright/in-force") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop(controller).await;

    for entry in fs::read_dir(lab.path("state")).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("journal.db") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let controller = lab.controller().await;
    let status = lab.until("the loss is seen", |status| is(status, "only", State::Stalled, "JournalLost")).await;
    assert!(find(&status, "only").unwrap().message.contains("raise rebuild to install it"), "{status:?}");
    assert_eq!(lab.installs("only"), 1);
    end(lab, controller).await;
}
