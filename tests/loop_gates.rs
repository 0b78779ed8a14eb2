//! Health gates with the real controller, boot server and probe, on simulated machines that serve a page and report a check.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use lab::{Lab, Node, machine};
use rackwright::model::State;
use serde_json::{Value, json};

const ROLLOUT: &str = r#"apiVersion: rackwright.dev/v1alpha1
kind: Rollout
metadata: {name: lab}
spec:
  selector: {role: lab}
  maxUnavailable: {group: 100%}
  maxDestructive: {count: 9, share: 100%}
  breaker: {failures: 9}
  gates:
    - {calledHome: {within: 2m}}
    - {http: {url: "http://{{ machine.address }}:8480/healthz", within: 10s}}
    - {redfishHealth: {worst: OK, within: 2m}}
    - {reported: {check: raid, within: 2m}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_install_is_done_when_its_gates_pass_and_fails_where_they_do_not() {
    let serves = |status: u16| {
        let checks = json!([{"check": "raid", "ok": false, "message": "md0 is rebuilding"}, {"check": "raid", "after": "200ms"}]);
        json!({"page": {"port": 8480, "status": status, "after": "500ms"}, "checks": checks})
    };
    let node = |name: &str, status| Node::new(name, "Adopt").with(|node| node.extra = serves(status));
    let nodes = vec![node("good", 200), node("bad", 500), Node::new("mute", "Adopt")];
    let mut lab = Lab::tuned(nodes, "20ms", Value::Null, json!({"pace": {"probeSeconds": 1}})).await;
    std::fs::write(lab.path("work/rollout.yaml"), ROLLOUT).unwrap();
    lab.nodes.iter_mut().for_each(|node| node.image = "two".to_owned());
    let controller = lab.controller().await;
    lab.until("they are adopted", |status| status.machines.values().filter(|machine| machine.state == State::Ready).count() == 3).await;
    lab.write_machines();
    let commit = lab.commit("Move them to image two");
    let is = |status: &rackwright::model::Status, name: &str, state| machine(status, name).state == state;
    let status = lab
        .until("one passes, and the others fail", |status| {
            let failed = ["bad", "mute"].iter().all(|name| is(status, name, State::Stalled));
            status.commit.id.to_string() == commit && is(status, "good", State::Ready) && failed
        })
        .await;
    let (bad, mute) = (&machine(&status, "bad").message, &machine(&status, "mute").message);
    assert!(bad.contains("gate-http") && bad.contains("answers 500, not 200"), "{bad}");
    assert!(mute.contains("gate-http") && mute.contains("connection refused"), "{mute}");
    let installs = ["good", "bad", "mute"].map(|name| (lab.installs(name), lab.difference(name, "two")));
    assert_eq!(installs, [(1, None); 3], "a disk that is right is not written again");
    let note = lab.note(&commit, "gate-http").await;
    assert!(note.contains("Rackwright-Ready: 1/3"), "{note}");

    controller.stop.cancel();
    controller.ended().await.unwrap();
    lab.simulator.stop().await;
}
