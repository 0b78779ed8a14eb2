//! BMCs that misbehave. Two adopted machines run; one's BMC goes wrong; a commit reimages both.

use rackwright::model::State;
use serde_json::{Value, json};

use crate::{
    all_ready, end, find, is,
    lab::{Lab, Node},
    only_bad_stalls, pair,
};

/// `fault` holds up its own machine, whose disk stays as it was; without it the same commit is carried out.
async fn stalls_until_it_ends(fault: &str, reason: &str, texts: &[&str]) {
    let tune = json!({"bmc": {"connectTimeout": "1s", "readTimeout": "1s"}});
    let mut lab = Lab::tuned(pair("Adopt", |_| {}), "20ms", Value::Null, tune).await;
    let controller = lab.controller().await;
    all_ready(&lab).await;
    lab.simulator.arm("bad", fault.parse().unwrap()).unwrap();
    lab.until("the fault is seen", |status| is(status, "bad", State::Stalled, reason)).await;
    let before = std::fs::read(lab.disk("bad")).unwrap();

    lab.nodes.iter_mut().for_each(|node| node.image = "two".to_owned());
    lab.write_machines();
    lab.commit("Move all to image two");
    only_bad_stalls(&lab, reason, texts).await;
    let report = lab.simulator.report("bad").unwrap();
    assert_eq!((lab.installs("bad"), report.power.to_string().as_str(), report.boots), (0, "On", 0), "nobody touched it");
    assert_eq!(std::fs::read(lab.disk("bad")).unwrap(), before);

    lab.simulator.clear_faults("bad").unwrap();
    all_ready(&lab).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1));
    assert_eq!(lab.difference("bad", "two"), None);
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_is_unreachable() {
    stalls_until_it_ends("bmc-unreachable", "BmcUnreachable", &["BMC unreachable", "no connection to https://127."]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_whose_certificate_changed() {
    stalls_until_it_ends("bmc-wrong-certificate", "BmcCertificateChanged", &["BMC certificate is not trusted", "sha256:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_answers_garbage() {
    stalls_until_it_ends("bmc-garbage", "BmcGarbage", &["unreadable", "is not a JSON object"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_hangs_forever() {
    stalls_until_it_ends("bmc-hang", "BmcUnreachable", &["did not answer in time", "no answer in time from https://127."]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_refuses_the_password() {
    let mut lab = Lab::new(pair("Install", |bad| bad.credentials = "wrong")).await;
    let controller = lab.controller().await;
    let status = only_bad_stalls(&lab, "BmcUnauthorized", &["BMC refuses our credentials"]).await;
    let message = &find(&status, "bad").unwrap().message;
    assert!(!message.contains("not the laboratory's"), "law 14: {message}");
    assert_eq!((lab.installs("bad"), lab.simulator.report("bad").unwrap().boots), (0, 0));

    lab.node("bad").credentials = "bmc";
    lab.write_machines();
    lab.commit("Name the right secret");
    all_ready(&lab).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1));
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_answers_503_for_a_while() {
    let busy = |lab: &Lab| lab.simulator.arm("bad", "bmc-503:1".parse().unwrap()).unwrap();
    let lab = Lab::new(vec![Node::new("bad", "Install"), Node::new("good", "Install")]).await;
    busy(&lab);
    let controller = lab.controller().await;
    // Busy for as long as the other machine takes, whatever that is.
    let status = lab
        .until("the other install", |status| {
            busy(&lab);
            is(status, "good", State::Ready, "AsDeclared") && is(status, "bad", State::Reconciling, "BmcBusy")
        })
        .await;
    let message = &find(&status, "bad").unwrap().message;
    assert!(message.contains("BMC is busy") && message.contains("503"), "{message}");
    assert_eq!((status.state, lab.installs("bad"), lab.installs("good")), (State::Reconciling, 0, 1));
    let note = lab.note(&lab.head(), "Rackwright-Ready: 1/2").await;
    assert!(note.contains("Reconciling bad: ") && note.contains("BmcBusy"), "{note}");

    lab.simulator.clear_faults("bad").unwrap();
    all_ready(&lab).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1));
    end(lab, controller).await;
}
