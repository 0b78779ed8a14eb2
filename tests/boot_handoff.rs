//! Values that installed systems publish: who may say them, who is given them, and what becomes of them. With curl and reqwest.
#![allow(clippy::unwrap_used, missing_docs)]

mod boot_support;

use std::{collections::BTreeMap, fs, path::Path, process::Command, sync::Arc, time::Duration};

use boot_support::{MAC, Site, has, loopback_with_ticket};
use rackwright::{
    boot::Server,
    model::{AgentCommand, AgentHello, AttemptId, BootTable, Evidence, HandoffPlace, HandoffUse, Publisher, Work},
    ports::Boot as _,
};
use reqwest::{Client, StatusCode};
use serde_json::json;

const TOKEN: &str = "abcdef.0123456789abcdef";

fn client(site: &Site) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pem = fs::read(site.folder.path().join("state/boot-tls.pem")).unwrap();
    Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]).build().unwrap()
}

fn id(text: &str) -> AttemptId {
    text.parse().unwrap()
}

fn wanted() -> HandoffUse {
    HandoffUse { from: "cp-1".parse().unwrap(), name: "join-token".parse().unwrap() }
}

fn publisher(published: &[&str]) -> Publisher {
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    Publisher { machine: "cp-1".parse().unwrap(), names: names(&["join-token", "ca-hash"]), published: names(published) }
}

/// `cp-1#2` runs and may publish; `web-01#3` has a ticket for a text that asks for its token, if `released`.
fn table(published: &[&str], released: bool) -> BootTable {
    let mut table = loopback_with_ticket();
    table.handoffs.publishers.insert(id("cp-1#2"), publisher(published));
    table.handoffs.publishing.insert(id("web-01#3"));
    let ticket = table.tickets.get_mut(&MAC).unwrap();
    let Work::Install { install, .. } = &mut ticket.work else { unreachable!() };
    install.user_data = Some(format!("#cloud-config\ntoken: \"{}\"\n", wanted().marker()));
    if released {
        table.handoffs.released.insert(id("web-01#3"), BTreeMap::from([(wanted(), id("cp-1#2"))]));
    }
    table
}

async fn publish(site: &Site, table: BootTable) {
    site.server.publish(Arc::new(table)).await;
}

/// A token of an attempt under the server's key, as its seed would say it.
fn derived(site: &Site, purpose: &str, attempt: &str) -> String {
    let key = fs::read(site.folder.path().join("state/boot.key")).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    hex::encode(ring::hmac::sign(&key, format!("{purpose}\0{attempt}").as_bytes()))
}

fn place(site: &Site, attempt: &str) -> String {
    let (machine, number) = attempt.split_once('#').unwrap();
    site.https(&format!("/handoff/v1/{machine}/{number}/{}", derived(site, "handoff", attempt)))
}

async fn say(site: &Site, attempt: &str, body: &serde_json::Value) -> (StatusCode, String) {
    let answer = client(site).post(place(site, attempt)).json(body).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

async fn hello(site: &Site) -> Result<(String, Option<HandoffPlace>), StatusCode> {
    let hello = AgentHello {
        boot_id: "b1".into(),
        version: "0.1.0".into(),
        serial: Some("CZ1".into()),
        uuid: None,
        disks: Vec::new(),
        nics: Vec::new(),
        uefi: true,
    };
    let token = derived(site, "agent", "web-01#3");
    let answer = client(site).post(site.https("/agent/v1/hello")).bearer_auth(token).json(&hello).send().await.unwrap();
    if answer.status() != StatusCode::OK {
        return Err(answer.status());
    }
    let AgentCommand::Install { install, handoff, .. } = answer.json().await.unwrap() else { panic!("no install") };
    Ok((install.user_data.unwrap(), handoff.map(|place| *place)))
}

fn ups(site: &Site) -> usize {
    site.witness.saw.lock().unwrap().iter().filter(|(_, seen)| matches!(seen, Evidence::AgentUp { .. })).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_goes_from_the_system_that_says_it_to_the_holder_of_a_ticket_that_uses_it() {
    let site = Site::start(table(&[], false)).await;
    assert_eq!(hello(&site).await, Err(StatusCode::SERVICE_UNAVAILABLE), "its agent waits");
    assert_eq!(ups(&site), 0, "and nothing rests on it");
    assert_eq!(say(&site, "cp-1#2", &json!({"join-token": TOKEN})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(*site.witness.published.lock().unwrap(), [(id("cp-1#2"), vec!["join-token".to_owned()])]);
    assert_eq!(hello(&site).await, Err(StatusCode::SERVICE_UNAVAILABLE), "no plan released it");

    publish(&site, table(&["join-token"], true)).await;
    let (text, place) = hello(&site).await.unwrap();
    assert_eq!(text, format!("#cloud-config\ntoken: \"{TOKEN}\"\n"));
    let place = place.unwrap();
    assert!(place.url.starts_with(&site.https("/handoff/v1/web-01/3/")) && place.certificate.starts_with("-----BEGIN CERTIFICATE"));
    assert!(!place.certificate.contains("PRIVATE KEY"));

    // Said again, it is the new one; over plain HTTP there is no such place.
    assert_eq!(say(&site, "cp-1#2", &json!({"join-token": "second", "ca-hash": "sha256:00"})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(hello(&site).await.unwrap().0, "#cloud-config\ntoken: \"second\"\n");
    let plain = place.url.replace(&site.https(""), &site.http(""));
    assert_eq!(client(&site).post(plain).json(&json!({"join-token": "x"})).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_system_on_the_disk_may_say_what_its_manifest_names() {
    let site = Site::start(table(&[], false)).await;
    let good = json!({"join-token": TOKEN});
    for purpose in ["agent", "callhome"] {
        let url = site.https(&format!("/handoff/v1/cp-1/2/{}", derived(&site, purpose, "cp-1#2")));
        assert_eq!(client(&site).post(url).json(&good).send().await.unwrap().status(), StatusCode::NOT_FOUND, "{purpose}");
    }
    let other = place(&site, "cp-1#2").replace("/cp-1/2/", "/cp-1/1/");
    assert_eq!(client(&site).post(other).json(&good).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(say(&site, "cp-1#1", &good).await.0, StatusCode::CONFLICT, "an earlier system");
    assert_eq!(say(&site, "web-01#3", &good).await.0, StatusCode::SERVICE_UNAVAILABLE, "it is being installed");
    let long = "x".repeat(4097);
    for bad in [
        json!({"other": TOKEN}),
        json!({"Join Token": TOKEN}),
        json!({}),
        json!([TOKEN]),
        json!({"join-token": {"nested": TOKEN}}),
        json!({"join-token": ""}),
        json!({"join-token": long}),
        json!({"join-token": "planted\"\nruncmd: [reboot]"}),
        json!({"join-token": "planted and blank"}),
        json!({"join-token": TOKEN, "ca-hash": "planted ä"}),
    ] {
        let (status, text) = say(&site, "cp-1#2", &bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(!text.contains(TOKEN) && !text.contains("planted"), "{text}");
    }
    let many = json!({"join-token": "x".repeat(70_000)});
    assert_eq!(say(&site, "cp-1#2", &many).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(site.witness.published.lock().unwrap().len(), 0);
    assert_eq!(files(site.folder.path()), Vec::<String>::new());
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder.join("state/handoff")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn values_survive_a_restart_go_with_their_system_and_their_loss_is_told() {
    let site = Site::start(table(&[], false)).await;
    assert_eq!(say(&site, "cp-1#2", &json!({"join-token": TOKEN})).await.0, StatusCode::NO_CONTENT);
    let Site { folder, server, witness } = site;
    server.stop().await;
    let start = |folder: std::path::PathBuf| {
        let witness = witness.clone();
        async move { Server::start(boot_support::config(&folder, [127, 0, 0, 1].into()), &folder.join("state"), witness).await.unwrap() }
    };
    let server = start(folder.path().to_owned()).await;
    let site = Site { folder, server, witness: witness.clone() };
    publish(&site, table(&["join-token"], true)).await;
    assert_eq!(hello(&site).await.unwrap().0, format!("#cloud-config\ntoken: \"{TOKEN}\"\n"));
    assert_eq!(files(site.folder.path()), ["cp-1#2.json"]);
    assert!(witness.lost.lock().unwrap().is_empty());

    // The journal says that it was published, and it is not there: somebody took the file away.
    let Site { folder, server, .. } = site;
    server.stop().await;
    fs::remove_file(folder.path().join("state/handoff/cp-1#2.json")).unwrap();
    let server = start(folder.path().to_owned()).await;
    let site = Site { folder, server, witness: witness.clone() };
    publish(&site, table(&["join-token"], true)).await;
    assert_eq!(hello(&site).await, Err(StatusCode::SERVICE_UNAVAILABLE));
    while witness.lost.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(witness.lost.lock().unwrap()[0], (id("cp-1#2"), vec!["join-token".to_owned()]));

    // Said again, and then another system is on that disk.
    assert_eq!(say(&site, "cp-1#2", &json!({"join-token": "again"})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(hello(&site).await.unwrap().0, "#cloud-config\ntoken: \"again\"\n");
    let mut next = table(&[], true);
    next.handoffs.publishers.clear();
    publish(&site, next).await;
    assert_eq!(files(site.folder.path()), Vec::<String>::new());
    assert_eq!(hello(&site).await, Err(StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_journaled_is_not_acknowledged() {
    let site = Site::start(table(&[], true)).await;
    site.witness.disk_full.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(say(&site, "cp-1#2", &json!({"join-token": TOKEN})).await.0, StatusCode::SERVICE_UNAVAILABLE);
    site.witness.disk_full.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(say(&site, "cp-1#2", &json!({"join-token": TOKEN})).await.0, StatusCode::NO_CONTENT);
}

/// The seed's two files and one command, as docs/handoff.md has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_shell_publishes_with_curl_and_the_seeds_files() {
    if !has("curl", "curl") {
        return;
    }
    let site = Site::start(table(&[], false)).await;
    let folder = site.folder.path();
    let pem = fs::read_to_string(folder.join("state/boot-tls.pem")).unwrap();
    fs::write(folder.join("handoff.pem"), &pem[pem.find("-----BEGIN CERTIFICATE").unwrap()..]).unwrap();
    fs::write(folder.join("handoff.url"), place(&site, "cp-1#2")).unwrap();
    let command = format!(
        "curl --fail --silent --show-error --retry 3 --cacert handoff.pem --data '{{\"join-token\": \"{TOKEN}\"}}' \"$(cat handoff.url)\""
    );
    let (folder, said) = (folder.to_owned(), command.clone());
    let output = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &said]).current_dir(folder).output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(site.witness.published.lock().unwrap().len(), 1);
}
