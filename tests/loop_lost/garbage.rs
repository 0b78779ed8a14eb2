//! Three BMCs in ten answer, and what they answer is not true, or not Redfish, or not an answer.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use axum_server::tls_rustls::RustlsConfig;
use rackwright::model::{Fingerprint, State};
use serde_json::{Value, json};

use crate::{
    all_ready, end, find,
    lab::{Lab, Node},
    switch::Switch,
};

const GIGABYTE: u64 = 1 << 30;

/// What a BMC answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Html,
    Truncated,
    Endless,
    WrongTypes,
    Deep,
    AnotherMachine,
}

const KINDS: [Kind; 6] = [Kind::Html, Kind::Truncated, Kind::Endless, Kind::WrongTypes, Kind::Deep, Kind::AnotherMachine];
const GOOD: usize = 14;

fn answer(kind: Kind, method: &Method, path: &str, sent: &Arc<AtomicU64>) -> Response {
    let json = |body: String| ([("Content-Type", "application/json")], body).into_response();
    match kind {
        Kind::Html => ([("Content-Type", "text/html")], "<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>").into_response(),
        Kind::Truncated => json(r#"{"@odata.id": "/redfish/v1", "Systems": {"@odata.id": "/redfish/v1/Sys"#.to_owned()),
        Kind::Endless => {
            let sent = sent.clone();
            let part = Bytes::from(vec![b' '; 1 << 20]);
            let parts = (0..GIGABYTE >> 20).map(move |_| {
                sent.fetch_add(part.len() as u64, Ordering::Relaxed);
                Ok::<_, Infallible>(part.clone())
            });
            ([("Content-Type", "application/json")], Body::from_stream(futures_util::stream::iter(parts))).into_response()
        }
        Kind::Deep => json("[".repeat(100_000)),
        Kind::WrongTypes if method == Method::POST => {
            let headers = [("X-Auth-Token", "x"), ("Location", "/redfish/v1/SessionService/Sessions/1")];
            (StatusCode::CREATED, headers, "{}").into_response()
        }
        Kind::WrongTypes => json(wrong_types(path).to_string()),
        Kind::AnotherMachine => unreachable!("that one is no server of ours"),
    }
}

/// The right names, and nothing behind them is what it should be.
fn wrong_types(path: &str) -> Value {
    let link = |to: &str| json!({"@odata.id": to});
    match path.trim_end_matches('/') {
        "/redfish/v1" => json!({
            "Systems": link("/redfish/v1/Systems"), "Managers": 4, "Chassis": [[]], "SessionService": link("/redfish/v1/SessionService"),
            "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")},
        }),
        "/redfish/v1/Systems" => json!({"Members": [link("/redfish/v1/Systems/1")], "Members@odata.count": "many"}),
        _ => json!({
            "PowerState": ["Off"], "SerialNumber": {"value": 1}, "UUID": 17, "Boot": "Pxe", "Status": -1, "EthernetInterfaces": true,
            "Storage": {"@odata.id": {"@odata.id": "/"}}, "Actions": {"#ComputerSystem.Reset": {"target": 1}}, "Members": "none",
        }),
    }
}

/// A BMC that answers `kind`: its address and fingerprint.
async fn server(kind: Kind, sent: Arc<AtomicU64>) -> (String, Fingerprint) {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.der().to_vec(), signed.signing_key.serialize_der());
    let app = Router::new().fallback(move |method: Method, uri: axum::http::Uri| {
        let response = answer(kind, &method, uri.path(), &sent);
        async move { response }
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let fingerprint = Fingerprint::of(&certificate);
    let tls = RustlsConfig::from_der(vec![certificate], key).await.unwrap();
    tokio::spawn(axum_server::from_tcp_rustls(listener, tls).unwrap().serve(app.into_make_service()));
    (address, fingerprint)
}

/// Where the manifests of the bad machines say that their BMCs are.
async fn spoil(lab: &mut Lab, sent: &Arc<AtomicU64>) {
    for (index, kind) in KINDS.into_iter().enumerate() {
        let name = format!("bad-{index}");
        if kind == Kind::AnotherMachine {
            // Through a cable of its own: two machines with one address would not pass `validate`.
            let other = lab.simulator.machines().iter().find(|machine| machine.name.as_str() == "good-0").unwrap().bmc;
            let cable = Switch::new().cable(([127, 0, 0, 1], 0).into(), other).await;
            lab.node(&name).bmc = Some(format!("https://{cable}"));
        } else {
            let (address, fingerprint) = server(kind, sent.clone()).await;
            let node = lab.node(&name);
            (node.bmc, node.fingerprint) = (Some(address), Some(fingerprint.to_string()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn thirty_percent_of_bmcs_answer_garbage() {
    let bad: Vec<String> = (0..KINDS.len()).map(|index| format!("bad-{index}")).collect();
    let good: Vec<String> = (0..GOOD).map(|index| format!("good-{index}")).collect();
    assert_eq!(bad.len() * 10, (bad.len() + good.len()) * 3);
    let nodes = bad.iter().chain(&good).map(|name| Node::new(name, "Adopt")).collect();
    // Twenty installs at a time take as long as they take.
    let limits = ["firstPacket", "loader", "agent", "firstWrite", "silence", "fromDisk", "callHome"].map(|name| (name, "100s"));
    let tune = json!({"deadlines": limits.into_iter().collect::<std::collections::BTreeMap<_, _>>()});
    let mut lab = Lab::tuned(nodes, "20ms", Value::Null, tune).await;
    let controller = lab.controller().await;
    all_ready(&lab).await;
    let before: Vec<_> = bad.iter().map(|name| std::fs::read(lab.disk(name)).unwrap()).collect();
    let sent = Arc::new(AtomicU64::new(0));
    spoil(&mut lab, &sent).await;
    lab.nodes.iter_mut().for_each(|node| node.image = "two".to_owned());
    lab.write_machines();
    let head = lab.commit("Move all to image two");

    let status = lab
        .until("the others are installed, and what the rest answers is told", |status| {
            status.commit.id.to_string() == head
                && good.iter().all(|name| find(status, name).state == State::Ready)
                && bad.iter().all(|name| find(status, name).power == "unknown" || find(status, name).reason == "IdentityMismatch")
        })
        .await;
    let said = ["not a JSON object", "not a JSON object", "larger than", "not reported", "recursion limit", "the manifest says SN-bad-5"];
    for (((name, kind), text), before) in bad.iter().zip(KINDS).zip(said).zip(before) {
        let machine = find(&status, name);
        println!("{kind:?}: {} {}", machine.reason, machine.message);
        let reason = match kind {
            Kind::AnotherMachine => "IdentityMismatch",
            Kind::WrongTypes => "NotObserved",
            _ => "BmcGarbage",
        };
        assert_eq!(machine.reason, reason, "{kind:?}: {machine:?}");
        assert!(machine.message.contains(text), "{kind:?}: {machine:?}");
        let report = lab.simulator.report(name).unwrap();
        assert_eq!((report.disks[0].writes.installs, report.boots, report.power.to_string().as_str()), (0, 0, "On"), "{kind:?}");
        assert_eq!(std::fs::read(lab.disk(name)).unwrap(), before, "{kind:?}");
    }
    for name in &good {
        assert_eq!((lab.installs(name), lab.difference(name, "two")), (1, None), "{name}");
    }
    // Each time that it is asked it would send a gigabyte.
    let sent = sent.load(Ordering::Relaxed);
    assert!((1..GIGABYTE).contains(&sent), "{sent} bytes were taken from the BMC that never ends");
    let note = lab.note(&head, "Rackwright-Ready: 14/20").await;
    assert!(bad.iter().all(|name| note.contains(&format!(" {name}: "))), "{note}");
    end(lab, controller).await;
}
