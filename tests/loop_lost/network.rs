//! The switch between the controller and everything else: its way to a machine's BMC, and the machine's way to it.

use std::{net::SocketAddr, time::Duration};

use rackwright::model::{AttemptEnd, Rung, State};
use serde_json::{Value, json};

use crate::{
    all_ready, end, find, history, is,
    lab::{Lab, Node},
    most_written, of,
    switch::Switch,
};

/// Machine `far` is behind the switch, `near` is not: what it needs of the boot server, and its BMC.
async fn behind_a_switch(tune: Value) -> (Lab, Switch) {
    let sim = json!({"pace": {"slowWrite": "300ms"}});
    let nodes = vec![Node::new("far", "Adopt").with(|far| far.faults = vec!["disk-slow"]), Node::new("near", "Adopt")];
    let mut lab = Lab::tuned(nodes, "20ms", sim, tune).await;
    let switch = Switch::new();
    let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    // What is advertised is the switch's side; the controller listens on the other one.
    let advertised = [127, 99, (std::process::id() % 250) as u8, lab.net() + 1];
    for port in [2, 3] {
        let port = lab.port(port);
        switch.cable(SocketAddr::from((advertised, port)), loopback(port)).await;
    }
    lab.tune["boot"] = json!({"advertise": std::net::Ipv4Addr::from(advertised)});
    let bmc = lab.simulator.machines().iter().find(|machine| machine.name.as_str() == "far").unwrap().bmc;
    let near = lab.simulator.machines().iter().find(|machine| machine.name.as_str() == "near").unwrap().bmc;
    switch.spare(near.ip());
    let cable = switch.cable(loopback(0), bmc).await;
    lab.node("far").bmc = Some(format!("https://{cable}"));
    lab.write_machines();
    lab.commit("The switch is between us");
    (lab, switch)
}

async fn until_it_writes(lab: &mut Lab) {
    all_ready(lab).await;
    lab.nodes.iter_mut().for_each(|node| node.image = "two".to_owned());
    lab.write_machines();
    lab.commit("Move both to image two");
    lab.until("the first bytes", |status| find(status, "far").rung == Some(Rung::Writing) && lab.installs("far") == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_switch_that_goes_dark_in_the_middle_of_a_write_and_comes_back() {
    let tune = json!({"bmc": {"connectTimeout": "1s", "readTimeout": "1s"}, "deadlines": {"silence": "120s", "firstWrite": "100s", "fromDisk": "100s", "callHome": "100s"}});
    let (mut lab, switch) = behind_a_switch(tune).await;
    let controller = lab.controller().await;
    until_it_writes(&mut lab).await;
    switch.go_dark();
    let status = lab
        .until("the BMC is gone, and the other machine is done", |status| {
            is(status, "near", State::Ready, "AsDeclared") && find(status, "far").message.contains("BMC")
        })
        .await;
    assert_ne!(find(&status, "far").state, State::Ready, "{status:#?}");
    assert!(lab.difference("far", "two").is_some(), "it came in the middle");
    switch.come_back();
    all_ready(&lab).await;
    assert_eq!((lab.installs("far"), lab.installs("near")), (1, 1), "it went on where it was");
    assert_eq!(lab.difference("far", "two"), None);
    assert!(most_written(&lab, "far") <= 1);
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_switch_that_is_dark_for_longer_than_an_agent_may_be_silent() {
    let tune = json!({"bmc": {"connectTimeout": "1s", "readTimeout": "1s"}, "deadlines": {"silence": "3s"}});
    let (mut lab, switch) = behind_a_switch(tune).await;
    let controller = lab.controller().await;
    until_it_writes(&mut lab).await;
    switch.go_dark();
    lab.until("the attempt is given up, and the BMC is out of reach", |status| {
        find(status, "far").rung.is_none() && find(status, "far").reason == "BmcUnreachable"
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let attempts = of(&history(&lab), "far").attempts.clone();
    let ended =
        matches!(&attempts[..], [only] if matches!(&only.end, Some((_, AttemptEnd::Failed { code, .. })) if code == "agent-silent"));
    assert!(ended, "nothing else is begun on a machine that nobody can see: {attempts:#?}");

    switch.come_back();
    all_ready(&lab).await;
    let history = history(&lab);
    let wrote = of(&history, "far").attempts.iter().filter(|attempt| attempt.wrote()).count();
    assert_eq!((lab.installs("far"), wrote), (2, 2), "once more, since nobody knew what became of the first");
    assert_eq!(lab.difference("far", "two"), None);
    assert!(most_written(&lab, "far") <= 2, "the first agent stopped when it heard that it was given up");
    assert_eq!(lab.installs("near"), 1);
    end(lab, controller).await;
}
