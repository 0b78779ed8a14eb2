//! Faults meet the whole controller: each ends in a clear state and message, and no other machine is held up.
#![allow(clippy::unwrap_used, missing_docs)]

mod bmc;
mod boot;
mod brake;
mod identity;
mod images;
#[path = "../lab/mod.rs"]
mod lab;
mod own;
mod restart;

use lab::{Lab, Node};
use rackwright::{
    cli::run::Controller,
    model::{MachineStatus, State, Status},
};

/// A machine that something is wrong with, and one that nothing is wrong with.
fn pair(on_claim: &'static str, change: impl FnOnce(&mut Node)) -> Vec<Node> {
    vec![Node::new("bad", on_claim).with(change), Node::new("good", on_claim)]
}

fn find<'a>(status: &'a Status, name: &str) -> Option<&'a MachineStatus> {
    status.machines.iter().find(|(known, _)| known.as_str() == name).map(|(_, machine)| machine)
}

fn is(status: &Status, name: &str, state: State, reason: &str) -> bool {
    find(status, name).is_some_and(|machine| machine.state == state && machine.reason == reason)
}

/// The good machine is Ready and was installed once, while the bad one stands still for `reason`, in words that hold `texts`, and
/// the commit's note says so.
async fn only_bad_stalls(lab: &Lab, reason: &str, texts: &[&str]) -> Status {
    let head = lab.head();
    let status = lab
        .until(&format!("{reason} of one machine and the install of the other"), |status| {
            status.commit.id.to_string() == head
                && is(status, "bad", State::Stalled, reason)
                && is(status, "good", State::Ready, "AsDeclared")
        })
        .await;
    let message = &find(&status, "bad").unwrap().message;
    for text in texts {
        assert!(message.contains(text), "{text:?} is not in {message:?}");
    }
    let note = lab.note(&head, &format!(r#""exceptions":[{{"name":"bad","reason":"{reason}","state":"Stalled"}}]"#)).await;
    assert!(note.contains("\nStalled     bad: ") && note.contains("\nRackwright-Ready: 1/2\n"), "{note}");
    assert_eq!((status.state, status.ready, status.total), (State::Stalled, 1, 2));
    assert_eq!(lab.installs("good"), 1, "the other machine was installed");
    assert_eq!(lab.difference("good", find(&status, "good").unwrap().image.as_deref().unwrap()), None);
    status
}

/// Everything is Ready under the newest commit.
async fn all_ready(lab: &Lab) {
    lab.until("everything Ready", lab::ready(&lab.head())).await;
}

async fn end(lab: Lab, controller: Controller) {
    controller.stop.cancel();
    controller.ended().await.unwrap();
    lab.simulator.stop().await;
}
