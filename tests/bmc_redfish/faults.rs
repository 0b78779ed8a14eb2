//! Each fault ends in a clear state and message, and does not hide what can still be read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use rackwright::{
    bmc::Config,
    model::{BootMode, Fingerprint, Health, Observation, PowerState, RetryClass, Seen, Timestamp, Trust, Unknown},
    ports::{Bmc as _, PowerCommand},
};
use serde_json::json;

use crate::peer::{Peer, Tree, client, error, quick, silence, target, trickle};

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn why(seen: &Observation) -> String {
    seen.power.unknown().unwrap().to_string()
}

#[tokio::test]
async fn a_well_behaved_bmc_is_read_whole_and_cheaply_from_then_on() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(quick());
    let seen = redfish.observe(&peer.target(), now()).await;
    assert_eq!(seen.power, Seen::Known(PowerState::On));
    assert_eq!(seen.identity.known().unwrap().serial.as_deref(), Some("S1"));
    assert_eq!(seen.nics.known().unwrap().len(), 1, "the junk MAC is left out");
    assert_eq!(seen.disks.known().unwrap().len(), 1, "the empty bay is left out");
    assert_eq!(seen.firmware.known().unwrap()[0].version, "1.2.3");
    assert_eq!(seen.health, Seen::Known(Health::OK));
    let before = peer.requests.load(Ordering::SeqCst);
    let again = redfish.observe(&peer.target(), now()).await;
    assert_eq!(again, seen);
    assert_eq!(peer.requests.load(Ordering::SeqCst) - before, 1, "the steady state is one request");
    redfish.close().await;
    let tree = peer.tree.lock().unwrap();
    assert_eq!(tree.count("POST", "/redfish/v1/Sess"), 1, "one session for everything");
    assert!(tree.tokens.is_empty(), "the session was given back");
}

#[tokio::test]
async fn devices_are_read_again_after_a_change_of_power_when_the_machine_has_settled() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    for (settle, reads) in [(Duration::from_secs(3600), 1), (Duration::ZERO, 2)] {
        let (redfish, _) = client(Config { settle_after_power: settle, ..quick() });
        peer.tree.lock().unwrap().resources.get_mut("/redfish/v1/systems/box").unwrap()["PowerState"] = json!("On");
        redfish.observe(&peer.target(), now()).await;
        peer.tree.lock().unwrap().asked.clear();
        peer.tree.lock().unwrap().resources.get_mut("/redfish/v1/systems/box").unwrap()["PowerState"] = json!("Off");
        for _ in 0..2 {
            let seen = redfish.observe(&peer.target(), now()).await;
            assert_eq!(seen.power, Seen::Known(PowerState::Off));
            assert!(seen.nics.known().is_some());
        }
        assert_eq!(peer.tree.lock().unwrap().count("GET", "/redfish/v1/Eth/1"), reads - 1);
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (redfish, _) = client(quick());
    let target = target(&format!("https://{free}"), Trust::Insecure);
    let seen = redfish.observe(&target, now()).await;
    assert!(matches!(seen.power, Seen::Unknown(Unknown::Unreachable(_))), "{}", why(&seen));
    let refused = redfish.power(&target, PowerCommand::On).await.unwrap_err();
    assert_eq!(refused.class, RetryClass::Wait);
}

#[tokio::test]
async fn an_address_that_is_none_says_what_to_write() {
    let (redfish, _) = client(quick());
    let seen = redfish.observe(&target("10.0.0.1", Trust::Insecure), now()).await;
    assert!(why(&seen).contains("https://HOST"), "{}", why(&seen));
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_a_new_one_at_once() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, password) = client(quick());
    *password.0.lock().unwrap() = "wrong".into();
    for _ in 0..3 {
        let seen = redfish.observe(&peer.target(), now()).await;
        assert!(matches!(seen.power, Seen::Unknown(Unknown::Unauthorized(_))), "{}", why(&seen));
    }
    assert_eq!(peer.tree.lock().unwrap().count("POST", "/redfish/v1/Sess"), 1, "an account is locked after a few wrong passwords");
    let refused = redfish.boot_from_network(&peer.target(), BootMode::UEFI).await.unwrap_err();
    assert_eq!(refused.class, RetryClass::Stalled);
    *password.0.lock().unwrap() = "secret".into();
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));
}

#[tokio::test]
async fn a_changed_password_gives_the_old_session_back_and_opens_a_new_one() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, password) = client(quick());
    redfish.observe(&peer.target(), now()).await;
    peer.tree.lock().unwrap().password = "other".into();
    *password.0.lock().unwrap() = "other".into();
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));
    assert_eq!(peer.tree.lock().unwrap().tokens, ["token2"]);
}

#[tokio::test]
async fn a_session_that_ended_is_opened_again() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(quick());
    redfish.observe(&peer.target(), now()).await;
    peer.tree.lock().unwrap().tokens.clear();
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));
}

#[tokio::test]
async fn an_exhausted_session_pool_is_no_obstacle() {
    for status in [503, 400] {
        let full = move |ask: &crate::peer::Ask, _: &mut Tree| ask.is("POST", "/redfish/v1/Sess").then(|| error(status, "RAC0218"));
        let peer = Peer::start(Tree::small(), full).await;
        let (redfish, _) = client(quick());
        let seen = redfish.observe(&peer.target(), now()).await;
        assert_eq!(seen.power, Seen::Known(PowerState::On), "{status}");
        assert!(seen.disks.known().is_some());
        assert_eq!(peer.tree.lock().unwrap().count("POST", "/redfish/v1/Sess"), 1, "it is not asked for a session each time");
    }
}

#[tokio::test]
async fn without_a_session_service_basic_does_it() {
    let mut tree = Tree::small();
    tree.resources.get_mut("/redfish/v1").unwrap()["Links"] = json!(null);
    let peer = Peer::start(tree, |_, _| None).await;
    let (redfish, _) = client(quick());
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));
}

#[tokio::test]
async fn a_changed_certificate_names_both_fingerprints() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(quick());
    let pinned = Fingerprint([7; 32]);
    let target = target(&peer.address, Trust::Pinned(pinned));
    let seen = redfish.observe(&target, now()).await;
    assert!(matches!(seen.power, Seen::Unknown(Unknown::CertificateChanged(_))), "{}", why(&seen));
    assert!(why(&seen).contains(&pinned.to_string()) && why(&seen).contains(&peer.fingerprint.to_string()), "{}", why(&seen));
    assert_eq!(redfish.power(&target, PowerCommand::On).await.unwrap_err().class, RetryClass::Stalled);
    assert_eq!(peer.requests.load(Ordering::SeqCst), 0, "not a byte of HTTP, and so no password, was sent");
}

#[tokio::test]
async fn the_pinned_certificate_in_the_hands_of_somebody_else_is_refused() {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let peer = Peer::with_certificate(Tree::small(), |_, _| None, signed.cert.der().to_vec(), other.serialize_der()).await;
    let (redfish, _) = client(quick());
    for trust in [Trust::Pinned(peer.fingerprint), Trust::Insecure] {
        let seen = redfish.observe(&target(&peer.address, trust), now()).await;
        assert!(matches!(seen.power, Seen::Unknown(Unknown::CertificateChanged(_))), "{}", why(&seen));
    }
    assert_eq!(peer.requests.load(Ordering::SeqCst), 0);
}

/// The contents of a DER value, and what follows it.
fn der(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, header) = match bytes[1] {
        short @ 0..=127 => (usize::from(short), 2),
        long => {
            let digits = usize::from(long & 127);
            (bytes[2..2 + digits].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + digits)
        }
    };
    (&bytes[header..header + length], &bytes[header + length..])
}

fn sequence(contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &length[..], contents].concat()
}

#[tokio::test]
async fn a_pinned_x509_v1_certificate_is_verified_by_its_key() {
    use rcgen::SigningKey as _;
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let v3 = signed.cert.der().to_vec();
    let (tbs, rest) = der(der(&v3).0);
    // Version 1 is version 3 without the version ([0]) and the extensions ([3]) (RFC 5280 section 4.1).
    let mut fields = Vec::new();
    let mut left = tbs;
    while !left.is_empty() {
        let (_, after) = der(left);
        if !matches!(left[0], 0xa0 | 0xa3) {
            fields.extend_from_slice(&left[..left.len() - after.len()]);
        }
        left = after;
    }
    let tbs = sequence(&fields);
    let algorithm = &rest[..rest.len() - der(rest).1.len()];
    let signature = signed.signing_key.sign(&tbs).unwrap();
    let bits = [&[0x03, u8::try_from(signature.len() + 1).unwrap(), 0][..], &signature].concat();
    let v1 = sequence(&[&tbs[..], algorithm, &bits].concat());
    let peer = Peer::with_certificate(Tree::small(), |_, _| None, v1, signed.signing_key.serialize_der()).await;
    let (redfish, _) = client(quick());
    let seen = redfish.observe(&peer.target(), now()).await;
    assert_eq!(seen.power, Seen::Known(PowerState::On));
}

#[tokio::test]
async fn a_ca_vouches_for_its_own_bmcs_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, &authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let signed = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let ours = Peer::with_certificate(Tree::small(), |_, _| None, signed.der().to_vec(), key.serialize_der()).await;
    let stranger = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(Config { ca_file: Some(ca_file), ..quick() });
    assert_eq!(redfish.observe(&target(&ours.address, Trust::Ca), now()).await.power, Seen::Known(PowerState::On));
    let seen = redfish.observe(&target(&stranger.address, Trust::Ca), now()).await;
    assert!(matches!(seen.power, Seen::Unknown(Unknown::CertificateChanged(_))), "{}", why(&seen));
}

#[tokio::test]
async fn busy_for_a_while_is_busy_and_then_fine() {
    let answers = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = answers.clone();
    let peer = Peer::start(Tree::small(), move |ask, _| {
        (ask.path.contains("Systems") && counted.fetch_add(1, Ordering::SeqCst) < 2).then(|| error(503, "IDRAC.2.8.SYS518"))
    })
    .await;
    let (redfish, _) = client(quick());
    for _ in 0..2 {
        let seen = redfish.observe(&peer.target(), now()).await;
        assert!(matches!(seen.power, Seen::Unknown(Unknown::Busy(_))), "{}", why(&seen));
    }
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));
}

#[tokio::test]
async fn garbage_in_one_resource_does_not_hide_the_rest() {
    let garbage = |ask: &crate::peer::Ask, _: &mut Tree| -> Option<Response> {
        (ask.path == "/redfish/v1/Up" || ask.path == "/redfish/v1/Eth/2").then(|| "{\"Id\": \"1\",}".into_response())
    };
    let peer = Peer::start(Tree::small(), garbage).await;
    let (redfish, _) = client(quick());
    let seen = redfish.observe(&peer.target(), now()).await;
    assert_eq!(seen.power, Seen::Known(PowerState::On));
    assert_eq!(seen.nics.known().unwrap().len(), 1);
    assert!(matches!(seen.firmware, Seen::Unknown(Unknown::Garbage(_))));
}

#[tokio::test]
async fn garbage_instead_of_the_system_is_garbage() {
    for body in ["<html>login</html>", "", "[1, 2]", "{\"PowerState\": \"On\""] {
        let peer = Peer::start(Tree::small(), move |ask, _| ask.path.ends_with("/box").then(|| body.into_response())).await;
        let (redfish, _) = client(quick());
        let seen = redfish.observe(&peer.target(), now()).await;
        assert!(matches!(seen.power, Seen::Unknown(Unknown::Garbage(_))), "{body}: {}", why(&seen));
    }
}

#[tokio::test]
async fn silence_and_a_byte_at_a_time_end_as_timed_out() {
    let silent = Config { read_timeout: Duration::from_secs(1), ..quick() };
    let dripping = Config { observe_timeout: Duration::from_secs(2), ..quick() };
    for (answer, config) in [(silence as fn() -> Response, silent), (trickle, dripping)] {
        let peer = Peer::start(Tree::small(), move |ask, _| ask.path.ends_with("/box").then(answer)).await;
        let (redfish, _) = client(config);
        let seen = redfish.observe(&peer.target(), now()).await;
        assert!(matches!(seen.power, Seen::Unknown(Unknown::TimedOut(_))), "{}", why(&seen));
    }
}

#[tokio::test]
async fn an_inventory_that_is_too_slow_for_one_observation_is_finished_by_the_next() {
    let slow = |ask: &crate::peer::Ask, tree: &mut Tree| -> Option<Response> {
        (ask.path.starts_with("/redfish/v1/Drive/a") && tree.count("GET", "/redfish/v1/Drive/a") == 1).then(silence)
    };
    let peer = Peer::start(Tree::small(), slow).await;
    let (redfish, _) = client(Config { observe_timeout: Duration::from_secs(4), ..quick() });
    let seen = redfish.observe(&peer.target(), now()).await;
    assert_eq!(seen.power, Seen::Known(PowerState::On), "what was read stays");
    assert!(seen.nics.known().is_some());
    assert!(matches!(seen.disks, Seen::Unknown(Unknown::TimedOut(_))), "{:?}", seen.disks);
    let seen = redfish.observe(&peer.target(), now()).await;
    assert!(seen.disks.known().is_some(), "{:?}", seen.disks);
    assert!(seen.firmware.known().is_some());
    assert_eq!(peer.tree.lock().unwrap().count("GET", "/redfish/v1/Eth/1"), 1, "it went on where it was");
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_and_not_for_ever() {
    let alias = |to: &'static str| {
        move |ask: &crate::peer::Ask, _: &mut Tree| -> Option<Response> {
            (ask.path == "/redfish/v1/Systems/box").then(|| (StatusCode::PERMANENT_REDIRECT, [("Location", to)]).into_response())
        }
    };
    let mut tree = Tree::small();
    let system = tree.get("/redfish/v1/Systems/box").clone();
    tree.put("/redfish/v1/Systems/real", system);
    let peer = Peer::start(tree, alias("/redfish/v1/Systems/real")).await;
    let (redfish, _) = client(quick());
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));
    for (to, says) in [
        ("/redfish/v1/Systems/box", "without end"),
        ("https://evil.example/box", "another server"),
        ("https://127.0.0.1:1/box", "another server"),
    ] {
        let peer = Peer::start(Tree::small(), alias(to)).await;
        let seen = redfish.observe(&peer.target(), now()).await;
        assert!(why(&seen).contains(says), "{}", why(&seen));
    }
}

#[tokio::test]
async fn a_huge_answer_is_not_read_to_its_end() {
    let huge = |ask: &crate::peer::Ask, _: &mut Tree| -> Option<Response> {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(" ".repeat(65536)));
        ask.path.ends_with("/box").then(|| axum::body::Body::from_stream(chunks).into_response())
    };
    let peer = Peer::start(Tree::small(), huge).await;
    let (redfish, _) = client(quick());
    let seen = redfish.observe(&peer.target(), now()).await;
    assert!(why(&seen).contains("larger than"), "{}", why(&seen));
}

#[tokio::test]
async fn a_slash_too_many_or_too_few_and_406_are_tried_the_other_way() {
    let picky = |ask: &crate::peer::Ask, _: &mut Tree| -> Option<Response> {
        if ask.path == "/redfish/v1/Systems" {
            return Some(error(404, "Base.1.0.ResourceMissingAtURI"));
        }
        (ask.path.ends_with("/box") && ask.header("accept-encoding").is_some()).then(|| StatusCode::NOT_ACCEPTABLE.into_response())
    };
    let peer = Peer::start(Tree::small(), picky).await;
    let (redfish, _) = client(quick());
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));
}

#[tokio::test]
async fn the_host_is_told_from_baseboards_and_refused_when_two_are_alike() {
    let mut tree = Tree::small();
    let system = tree.get("/redfish/v1/Systems/box").clone();
    let mut baseboard = system.clone();
    baseboard["Id"] = json!("HGX_Baseboard_0");
    tree.put("/redfish/v1/Systems/hgx", baseboard);
    let link = |uri: &str| json!({ "@odata.id": uri });
    tree.put(
        "/redfish/v1/Systems",
        json!({"Members": [link("/redfish/v1/Systems/hgx")], "Members@odata.nextLink": "/redfish/v1/Systems?$skip=1"}),
    );
    tree.put("/redfish/v1/Systems?$skip=1", json!({"Members": [link("/redfish/v1/Systems/box")]}));
    let peer = Peer::start(tree, |_, _| None).await;
    let (redfish, _) = client(quick());
    assert_eq!(redfish.observe(&peer.target(), now()).await.power, Seen::Known(PowerState::On));

    let mut twins = Tree::small();
    let mut twin = system;
    twin["Actions"]["#ComputerSystem.Reset"]["target"] = json!("/redfish/v1/Systems/twin/Go");
    twins.put("/redfish/v1/Systems/twin", twin);
    twins.put("/redfish/v1/Systems", json!({"Members": [link("/redfish/v1/Systems/box"), link("/redfish/v1/Systems/twin")]}));
    let peer = Peer::start(twins, |_, _| None).await;
    let refused = redfish.power(&peer.target(), PowerCommand::ForceOff).await.unwrap_err();
    assert!(refused.message.contains("2 systems could be the host"), "{}", refused.message);
    let named = target(&format!("{}/redfish/v1/Systems/twin", peer.address), Trust::Pinned(peer.fingerprint));
    redfish.power(&named, PowerCommand::ForceOff).await.unwrap();
    let tree = peer.tree.lock().unwrap();
    assert_eq!(tree.count("POST", "/redfish/v1/Systems/twin/Go"), 1);
    assert_eq!(tree.get("/redfish/v1/Systems/box")["PowerState"], "On");
}

/// Answers one request on each connection as if it kept the connection, and resets it when the next one comes.
fn resets_kept_connections(tree: Tree) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
            let body = tree.resources.get(&Tree::key(&path)).map(ToString::to_string);
            let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
            let body = body.unwrap_or_default();
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: keep-alive\r\n\r\n{body}");
            (&connection).write_all(answer.as_bytes()).unwrap();
            // Wait for the next request, and drop the connection under it.
            let _ = BufReader::new(&connection).lines().next();
        }
    });
    address
}

#[tokio::test]
async fn a_reset_of_a_kept_connection_is_survived() {
    let address = resets_kept_connections(Tree::small());
    let (redfish, _) = client(quick());
    let mut target = target(&address, Trust::Insecure);
    target.credentials = None;
    let seen = redfish.observe(&target, now()).await;
    assert_eq!(seen.power, Seen::Known(PowerState::On), "{seen:?}");
    assert!(seen.firmware.known().is_some());
}

#[tokio::test]
async fn many_askers_of_one_bmc_share_one_session() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    let (redfish, _) = client(quick());
    let target = peer.target();
    let all = futures_util::future::join_all((0..10).map(|_| redfish.observe(&target, now()))).await;
    assert!(all.iter().all(|seen| seen.power == Seen::Known(PowerState::On)));
    assert_eq!(peer.tree.lock().unwrap().count("POST", "/redfish/v1/Sess"), 1);
}

#[tokio::test]
async fn the_password_change_that_a_new_bmc_wants_is_named() {
    let wants = |ask: &crate::peer::Ask, _: &mut Tree| ask.path.contains("Systems").then(|| error(403, "Base.1.8.PasswordChangeRequired"));
    let peer = Peer::start(Tree::small(), wants).await;
    let (redfish, _) = client(quick());
    let seen = redfish.observe(&peer.target(), now()).await;
    assert!(matches!(seen.power, Seen::Unknown(Unknown::Unauthorized(_))), "{}", why(&seen));
    assert!(why(&seen).contains("PasswordChangeRequired"), "{}", why(&seen));
    assert!(peer.tree.lock().unwrap().tokens.is_empty(), "a session without rights is given back");
}

/// Puts `junk` in the place of each value of a tree in turn.
fn mutations(tree: &Tree, junk: &serde_json::Value) -> Vec<(String, String, serde_json::Value)> {
    fn walk(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            serde_json::Value::Object(map) => {
                for (name, inner) in map {
                    walk(inner, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
                }
            }
            serde_json::Value::Array(items) => {
                for (index, inner) in items.iter().enumerate() {
                    walk(inner, &format!("{at}/{index}"), found);
                }
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    for (uri, resource) in &tree.resources {
        let mut places = Vec::new();
        walk(resource, "", &mut places);
        for place in places {
            let mut changed = resource.clone();
            *changed.pointer_mut(&place).unwrap() = junk.clone();
            all.push((uri.clone(), place, changed));
        }
    }
    all
}

#[tokio::test]
async fn junk_in_any_place_never_turns_on_into_off_or_hides_everything_else() {
    let peer = Peer::start(Tree::small(), |_, _| None).await;
    for junk in [json!(null), json!([{}, null, 7])] {
        for (uri, place, changed) in mutations(&Tree::small(), &junk) {
            let mut tree = Tree::small();
            tree.resources.insert(uri.clone(), changed);
            tree.tokens = vec!["kept".into()];
            *peer.tree.lock().unwrap() = tree;
            let (redfish, _) = client(quick());
            let seen = redfish.observe(&peer.target(), now()).await;
            assert!(seen.power.known().is_none_or(|power| *power == PowerState::On), "{uri} {place}: {seen:?}");
            let serial = seen.identity.known().and_then(|identity| identity.serial.as_deref());
            assert!(serial.is_none_or(|serial| serial == "S1"), "{uri} {place}: {seen:?}");
            // Whatever is wrong beneath the system, the system itself is read.
            if !["/redfish/v1", "/redfish/v1/systems", "/redfish/v1/systems/box"].contains(&uri.as_str()) {
                assert!(seen.power.known().is_some() && seen.identity.known().is_some(), "{uri} {place}: {seen:?}");
            }
        }
    }
}
