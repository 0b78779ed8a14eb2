//! What a BMC can't do to us: take a password without proof, fill the memory, or lose its sessions to us.

use axum::response::{IntoResponse as _, Response};
use rackwright::{
    bmc::Config,
    model::{Fingerprint, Observation, PowerState, Seen, Timestamp, Trust, Unknown},
    ports::{Bmc as _, PowerCommand},
};
use serde_json::{Value, json};

use crate::peer::{Ask, Peer, Tree, client, error, ok, quick, target};

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

async fn observed(hook: impl Fn(&Ask, &mut Tree) -> Option<Response> + Send + Sync + 'static) -> (Observation, Peer) {
    let peer = Peer::start(Tree::small(), hook).await;
    let (redfish, _) = client(quick());
    (redfish.observe(&peer.target(), now()).await, peer)
}

fn garbage<T: std::fmt::Debug>(seen: &Seen<T>) -> String {
    match seen {
        Seen::Unknown(Unknown::Garbage(why)) => why.clone(),
        other => panic!("{other:?}"),
    }
}

fn members(prefix: &str, count: usize) -> Vec<Value> {
    (0..count).map(|n| json!({ "@odata.id": format!("{prefix}{n}") })).collect()
}

#[tokio::test]
async fn over_plain_http_nobody_is_asked_unless_that_was_declared() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (redfish, _) = client(quick());
    for trust in [Trust::Ca, Trust::Pinned(Fingerprint([7; 32]))] {
        let target = target(&address, trust);
        let seen = redfish.observe(&target, now()).await;
        let why = seen.power.unknown().unwrap().to_string();
        assert!(why.contains("plain http") && why.contains("https://HOST"), "{why}");
        assert!(redfish.power(&target, PowerCommand::ForceOff).await.is_err());
    }
    assert!(listener.accept().is_err(), "somebody connected");
}

#[tokio::test]
async fn pages_without_end_are_an_end_of_the_list_and_not_of_the_memory() {
    let endless = |ask: &Ask, _: &mut Tree| -> Option<Response> {
        let list = json!({"Members": members(&ask.path, 1), "Members@odata.nextLink": format!("{}x", ask.path)});
        ask.path.starts_with("/redfish/v1/Eth").then(|| ok(&list))
    };
    let (seen, peer) = observed(endless).await;
    assert!(garbage(&seen.nics).contains("/redfish/v1/Eth lists more than 100 pages"), "{:?}", seen.nics);
    assert_eq!(peer.tree.lock().unwrap().asked.iter().filter(|ask| ask.path.starts_with("/redfish/v1/Eth")).count(), 100);
    assert_eq!(seen.power, Seen::Known(PowerState::On));
    assert!(seen.disks.known().is_some() && seen.firmware.known().is_some(), "one list does not hide the others");
}

#[tokio::test]
async fn a_list_of_too_many_is_refused_before_one_of_them_is_read() {
    let many = |ask: &Ask, _: &mut Tree| match ask.path.as_str() {
        "/redfish/v1/Eth" => Some(ok(&json!({ "Members": members("/redfish/v1/Eth/n", 1001) }))),
        "/redfish/v1/Sto/1" => Some(ok(&json!({ "Drives": members("/redfish/v1/Drive/n", 1001) }))),
        _ => None,
    };
    let (seen, peer) = observed(many).await;
    assert!(garbage(&seen.nics).contains("more than 1000 members"), "{:?}", seen.nics);
    assert!(garbage(&seen.disks).contains("more than 1000 links"), "{:?}", seen.disks);
    assert!(seen.firmware.known().is_some());
    assert!(peer.tree.lock().unwrap().asked.iter().all(|ask| !ask.path.contains("/n")));

    let many = |ask: &Ask, _: &mut Tree| (ask.path == "/redfish/v1/Systems").then(|| ok(&json!({ "Members": members("/s/", 1001) })));
    let (seen, _peer) = observed(many).await;
    assert!(garbage(&seen.power).contains("more than 1000 members"), "{:?}", seen.power);
}

#[tokio::test]
async fn many_large_answers_are_refused_together() {
    let large = |ask: &Ask, _: &mut Tree| -> Option<Response> {
        if ask.path == "/redfish/v1/Eth" {
            return Some(ok(&json!({ "Members": members("/redfish/v1/Eth/n", 900) })));
        }
        let large = || ok(&json!({"Id": "x", "MACAddress": "52:54:00:00:00:01", "Oem": "x".repeat(1 << 20)}));
        ask.path.starts_with("/redfish/v1/Eth/n").then(large)
    };
    let (seen, peer) = observed(large).await;
    assert!(garbage(&seen.nics).contains("more than 16777216 bytes"), "{:?}", seen.nics);
    assert_eq!(peer.tree.lock().unwrap().asked.iter().filter(|ask| ask.path.starts_with("/redfish/v1/Eth/n")).count(), 16);
    assert!(seen.disks.known().is_some() && seen.firmware.known().is_some(), "each part may be as large");

    let systems = |ask: &Ask, _: &mut Tree| match ask.path.as_str() {
        "/redfish/v1/Systems" => Some(ok(&json!({ "Members": members("/redfish/v1/Systems/n", 900) }))),
        path if path.starts_with("/redfish/v1/Systems/n") => Some(ok(&json!({"Id": "x", "Oem": "x".repeat(1 << 20)}))),
        _ => None,
    };
    let (seen, _peer) = observed(systems).await;
    assert!(garbage(&seen.power).contains("more than 16777216 bytes"), "{:?}", seen.power);
}

#[tokio::test]
async fn a_resource_that_answers_401_costs_no_sessions_and_hides_nothing() {
    let closed = |ask: &Ask, _: &mut Tree| (ask.path == "/redfish/v1/Drive/b").then(|| error(401, "Base.1.0.NoValidSession"));
    let peer = Peer::start(Tree::small(), closed).await;
    let (redfish, _) = client(Config { inventory_every: std::time::Duration::ZERO, ..quick() });
    for round in 0..3 {
        let seen = redfish.observe(&peer.target(), now()).await;
        assert_eq!(seen.power, Seen::Known(PowerState::On), "{round}");
        assert_eq!(seen.disks.known().map(Vec::len), Some(1), "{round}: {seen:?}");
        assert!(seen.firmware.known().is_some(), "{round}: {seen:?}");
    }
    assert_eq!(peer.tree.lock().unwrap().sessions, 1, "logins");
    // The session ends, and the first thing that is asked then is what answers 401.
    peer.tree.lock().unwrap().tokens.clear();
    let seen = redfish.observe(&peer.target(), now()).await;
    assert_eq!(seen.power, Seen::Known(PowerState::On));
    assert_eq!(peer.tree.lock().unwrap().tokens, ["token2"]);
    redfish.close().await;
    assert!(peer.tree.lock().unwrap().tokens.is_empty());
}

#[tokio::test]
async fn a_bmc_that_takes_no_token_of_its_own_keeps_no_session_of_ours() {
    let forgetful =
        |ask: &Ask, _: &mut Tree| (ask.method == "GET" && ask.path != "/redfish/v1/").then(|| error(401, "Base.1.0.NoValidSession"));
    let peer = Peer::start(Tree::small(), forgetful).await;
    let (redfish, _) = client(Config { refused_pause: std::time::Duration::ZERO, ..quick() });
    for round in 1..4 {
        let seen = redfish.observe(&peer.target(), now()).await;
        assert!(matches!(seen.power, Seen::Unknown(Unknown::Unauthorized(_))), "{:?}", seen.power);
        let tree = peer.tree.lock().unwrap();
        assert_eq!((tree.sessions, tree.tokens.len()), (round, 0), "logins, sessions left");
    }
}

#[tokio::test]
async fn a_resource_that_changed_since_it_was_read_is_read_again_and_sent_its_new_etag() {
    const BOX: &str = "/redfish/v1/Systems/box";
    let strict = |ask: &Ask, tree: &mut Tree| -> Option<Response> {
        // Somebody else changes it once, between our second read (the first finds the host) and our PATCH.
        let version = |tree: &Tree| if tree.count("PATCH", BOX) == 0 { "W/\"1\"" } else { "W/\"2\"" };
        if ask.is("GET", BOX) {
            let body = tree.get(BOX).to_string();
            return Some(([("ETag", version(tree)), ("Content-Type", "application/json")], body).into_response());
        }
        (ask.is("PATCH", BOX) && ask.header("if-match") != Some("W/\"2\"")).then(|| error(412, "Base.1.0.PreconditionFailed"))
    };
    let peer = Peer::start(Tree::small(), strict).await;
    let (redfish, _) = client(quick());
    redfish.boot_from_network(&peer.target(), rackwright::model::BootMode::UEFI).await.unwrap();
    let tree = peer.tree.lock().unwrap();
    let sent: Vec<_> = tree.asked.iter().filter(|ask| ask.method == "PATCH").filter_map(|ask| ask.header("if-match")).collect();
    assert_eq!(sent, ["W/\"1\"", "W/\"2\""]);
}
