//! HTTP and HTTPS: scripts, files, the agent's protocol, call-home; with curl and reqwest.
#![allow(clippy::unwrap_used, missing_docs)]

mod boot_support;

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::{Arc, atomic::Ordering},
};

use boot_support::{MAC, Site, has, holder_elsewhere, loopback, loopback_with_ticket, network, table, ticket};
use rackwright::{
    boot::Server,
    model::{
        AgentCommand, AgentEvent, AgentHello, AgentReport, BootTable, DhcpMode, Digest, DiskHint, DiskProof, Disks, Evidence, ObservedDisk,
        ObservedNic, Phase, Progress, Rung, Targets, Ticket, Timestamp, Wipe, WipeDisks, WipeMethod, Work,
    },
    ports::Boot as _,
};
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Trusts the certificate that the server made, and no other.
fn client(site: &Site) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pem = std::fs::read(site.folder.path().join("state/boot-tls.pem")).unwrap();
    let certificate = reqwest::Certificate::from_pem(&pem).unwrap();
    Client::builder().tls_certs_only([certificate]).build().unwrap()
}

async fn script(site: &Site) -> String {
    client(site).get(site.http(&format!("/ipxe/{MAC}"))).send().await.unwrap().text().await.unwrap()
}

async fn token(site: &Site) -> String {
    let script = script(site).await;
    script.split_once("rackwright.token=").unwrap().1.split_whitespace().next().unwrap().to_owned()
}

fn hello(boot_id: &str) -> AgentHello {
    AgentHello {
        boot_id: boot_id.into(),
        version: "0.1.0".into(),
        serial: Some("CZ1".into()),
        uuid: None,
        disks: vec![disk("/dev/sda")],
        nics: Vec::new(),
        uefi: true,
    }
}

fn disk(name: &str) -> ObservedDisk {
    ObservedDisk { name: name.into(), serial: Some("S5".into()), wwn: None, model: None, path: None, size: Some(1 << 30) }
}

async fn say_hello(site: &Site, token: &str, hello: &AgentHello) -> AgentCommand {
    let answer = client(site).post(site.https("/agent/v1/hello")).bearer_auth(token).json(hello).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

async fn report(site: &Site, token: &str, boot_id: &str, event: AgentEvent) -> StatusCode {
    let report = AgentReport { boot_id: boot_id.into(), event };
    client(site).post(site.https("/agent/v1/report")).bearer_auth(token).json(&report).send().await.unwrap().status()
}

fn writing() -> AgentEvent {
    AgentEvent::Writing { disk: disk("/dev/sda") }
}

fn written() -> AgentEvent {
    AgentEvent::Written { digest: Digest::of(b"image"), bytes: 5 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_install_climbs_the_ladder_and_the_machine_then_boots_its_disk() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let AgentCommand::Install { install, call_home, .. } = say_hello(&site, &token, &hello("b1")).await else { panic!("no install") };
    assert_eq!(install.image.url, site.https("/images/debian.raw"));
    let image = client(&site).get(install.image.url).bearer_auth(&token).send().await.unwrap().bytes().await.unwrap();
    assert!(image == std::fs::read(site.folder.path().join("images/debian.raw")).unwrap());

    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT);
    let progress = Progress { phase: Phase::Writing, done: 1, total: None };
    assert_eq!(report(&site, &token, "b1", AgentEvent::Progress(progress)).await, StatusCode::NO_CONTENT);
    let early = client(&site).post(&call_home).json(&json!({"generation": install.generation})).send().await.unwrap();
    assert_eq!(early.status(), StatusCode::CONFLICT, "nothing is written yet");
    assert_eq!(report(&site, &token, "b1", written()).await, StatusCode::NO_CONTENT);
    // The table is still the old one: what was taken since counts.
    assert_eq!(say_hello(&site, &token, &hello("b2")).await, AgentCommand::BootFromDisk);
    assert!(script(&site).await.contains("sanboot"));

    let form = format!("instance_id={}&hostname=web-01&fqdn=web-01.example", install.generation.to_string().replace(':', "%3A"));
    let home = client(&site).post(&call_home).header("content-type", "application/x-www-form-urlencoded").body(form).send().await.unwrap();
    assert_eq!(home.status(), StatusCode::NO_CONTENT);
    use Rung::*;
    assert_eq!(site.witness.rungs(), [LoaderFetched, AgentUp, Writing, Written, AgentUp, BootedFromDisk, CalledHome]);
    let last = site.witness.saw.lock().unwrap().last().unwrap().1.clone();
    assert_eq!(last, Evidence::CalledHome { generation: install.generation, digest: None });
    assert_eq!(site.witness.progress.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_gets_nothing() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let call_home_token = "0".repeat(64);
    for wrong in ["", "x", &call_home_token, &token[1..]] {
        let answer = client(&site).post(site.https("/agent/v1/hello")).bearer_auth(wrong).json(&hello("b1")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(report(&site, wrong, "b1", writing()).await, StatusCode::UNAUTHORIZED);
    }
    let home = client(&site).post(site.http(&format!("/callhome/v1/web-01/3/{token}"))).body("{}").send().await.unwrap();
    assert_eq!(home.status(), StatusCode::NOT_FOUND, "the agent's token is not the system's");
    assert_eq!(site.witness.rungs(), [Rung::LoaderFetched]);
    site.server.publish(Arc::new(loopback())).await;
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::UNAUTHORIZED, "the ticket is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_is_idempotent_and_another_start_may_not_write_after_the_first_began() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let first = say_hello(&site, &token, &hello("b1")).await;
    assert_eq!(say_hello(&site, &token, &hello("b1")).await, first);
    assert!(matches!(say_hello(&site, &token, &hello("b2")).await, AgentCommand::Install { .. }), "no byte was written yet");
    assert_eq!(report(&site, &token, "b3", writing()).await, StatusCode::CONFLICT, "never said hello");
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT);
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT, "a retry");
    let other_disk = AgentEvent::Writing { disk: disk("/dev/sdb") };
    assert_eq!(report(&site, &token, "b1", other_disk).await, StatusCode::CONFLICT);
    assert_eq!(report(&site, &token, "b2", writing()).await, StatusCode::CONFLICT);
    assert_eq!(report(&site, &token, "b2", written()).await, StatusCode::CONFLICT);
    assert!(site.witness.failed.lock().unwrap().is_empty());
    assert!(matches!(say_hello(&site, &token, &hello("b2")).await, AgentCommand::Refuse { .. }));
    let (_, wrote, code, _) = site.witness.failed.lock().unwrap()[0].clone();
    assert_eq!((wrote, code.as_str()), (true, "restarted-while-writing"), "its disk may be half written");
    let wrong = AgentEvent::Written { digest: Digest::of(b"other"), bytes: 5 };
    assert_eq!(report(&site, &token, "b1", wrong).await, StatusCode::CONFLICT);
    assert_eq!(site.witness.rungs().iter().filter(|rung| **rung >= Rung::Writing).count(), 1);
}

/// Another disk is the one to write.
fn mean(ticket: &mut Ticket, hint: DiskHint) {
    match &mut ticket.work {
        Work::Install { system, .. } => *system = hint,
        Work::Wipe(_) => unreachable!(),
    }
}

/// The table with another ticket of the same attempt.
fn changed(change: impl FnOnce(&mut Ticket)) -> Arc<BootTable> {
    let mut table = loopback_with_ticket();
    change(table.tickets.get_mut(&MAC).unwrap());
    Arc::new(table)
}

fn means(serial: &str) -> DiskHint {
    DiskHint { serial: Some(serial.into()), ..DiskHint::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_disk_that_the_ticket_in_force_means_may_be_written() {
    let other = ObservedDisk { serial: Some("S6".into()), ..disk("/dev/sdb") };
    let two = AgentHello { disks: vec![disk("/dev/sda"), other.clone()], ..hello("b1") };
    // Since the agent was told which disk to write, a commit changed that.
    type Change = fn(&mut Ticket);
    let cases: [(Change, &str); 4] = [
        (|ticket| mean(ticket, means("S6")), "disk-changed"),
        (|ticket| mean(ticket, means("S7")), "no-disk-matches"),
        (|ticket| mean(ticket, DiskHint { min_size: Some(1), ..DiskHint::default() }), "two-disks-match"),
        (|ticket| ticket.keep = vec![means("S5")], "disk-kept"),
    ];
    for (change, code) in cases {
        let site = Site::start(loopback_with_ticket()).await;
        let token = token(&site).await;
        assert!(matches!(say_hello(&site, &token, &two).await, AgentCommand::Install { .. }));
        site.server.publish(changed(change)).await;
        assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::CONFLICT, "{code}");
        let failed = site.witness.failed.lock().unwrap().clone();
        assert_eq!((failed.len(), failed[0].1, failed[0].2.as_str()), (1, false, code), "{failed:?}");
        assert!(!site.witness.rungs().contains(&Rung::Writing));
    }
    // Whatever the agent thinks.
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    say_hello(&site, &token, &two).await;
    assert_eq!(report(&site, &token, "b1", AgentEvent::Writing { disk: other }).await, StatusCode::CONFLICT);
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT);
}

/// A request whose body comes only when `meanwhile` is done, which begins when the server waits for the body. Returns the status line.
async fn slowly<S>(mut stream: S, path: &str, bearer: &str, body: &[u8], meanwhile: impl Future<Output = ()>) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    meanwhile.await;
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

async fn tls(site: &Site) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls::pki_types::pem::PemObject as _;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    let pem = site.folder.path().join("state/boot-tls.pem");
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(pem).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(site.server.addresses().https).await.unwrap();
    let name = rustls::pki_types::ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_changes_while_a_body_arrives_gives_no_leave() {
    let revoked = || Arc::new(loopback());
    let other_disk = || changed(|ticket| mean(ticket, means("S6")));
    for table in [revoked(), other_disk()] {
        let site = Site::start(loopback_with_ticket()).await;
        let token = token(&site).await;
        say_hello(&site, &token, &hello("b1")).await;
        let body = serde_json::to_vec(&AgentReport { boot_id: "b1".into(), event: writing() }).unwrap();
        let publish = site.server.publish(table);
        let status = slowly(tls(&site).await, "/agent/v1/report", &token, &body, publish).await;
        assert_eq!(status, "HTTP/1.1 409 Conflict");
        assert!(!site.witness.rungs().contains(&Rung::Writing));
    }
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let body = serde_json::to_vec(&hello("b1")).unwrap();
    let status = slowly(tls(&site).await, "/agent/v1/hello", &token, &body, site.server.publish(revoked())).await;
    assert_eq!((status.as_str(), site.witness.rungs()), ("HTTP/1.1 409 Conflict", vec![Rung::LoaderFetched]));

    let site = Site::start(loopback_with_ticket()).await;
    let token = self::token(&site).await;
    let AgentCommand::Install { call_home, install, .. } = say_hello(&site, &token, &hello("b1")).await else { panic!("no install") };
    report(&site, &token, "b1", writing()).await;
    assert_eq!(report(&site, &token, "b1", written()).await, StatusCode::NO_CONTENT);
    let (path, body) = (call_home.strip_prefix(&site.http("")).unwrap(), json!({ "generation": install.generation }).to_string());
    let stream = tokio::net::TcpStream::connect(site.server.addresses().http).await.unwrap();
    let status = slowly(stream, path, "", body.as_bytes(), site.server.publish(revoked())).await;
    assert_eq!(status, "HTTP/1.1 409 Conflict");
    assert!(!site.witness.rungs().contains(&Rung::CalledHome));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_a_sign_of_life_of_an_agent_that_writes() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let get = async |range: &str| {
        let request = client(&site).get(site.https("/images/debian.raw")).bearer_auth(&token).header("range", range);
        request.send().await.unwrap().bytes().await.unwrap().len()
    };
    say_hello(&site, &token, &hello("b1")).await;
    assert_eq!(get("bytes=0-").await, 1_000_000);
    assert_eq!(site.witness.progress.lock().unwrap().len(), 0, "it does not write yet");
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT);
    assert_eq!(get("bytes=400000-").await, 600_000);
    let told = site.witness.progress.lock().unwrap().clone();
    let first = told.first().expect("bytes go out and nobody is told");
    assert!(first.phase == Phase::Writing && (400_001..=1_000_000).contains(&first.done) && first.total == Some(1_000_000), "{first:?}");
    assert!(told.len() < 5, "not for each piece: {told:?}");
    assert_eq!(report(&site, &token, "b1", written()).await, StatusCode::NO_CONTENT);
    get("bytes=0-").await;
    assert_eq!(*site.witness.progress.lock().unwrap(), told, "it is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_start_without_leave_is_told_so() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let progress = || AgentEvent::Progress(Progress { phase: Phase::Writing, done: 1, total: None });
    say_hello(&site, &token, &hello("b1")).await;
    say_hello(&site, &token, &hello("b2")).await;
    assert_eq!(report(&site, &token, "b1", progress()).await, StatusCode::CONFLICT, "nobody writes");
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT);
    assert_eq!(report(&site, &token, "b2", progress()).await, StatusCode::CONFLICT, "another start writes");
    assert_eq!(site.witness.progress.lock().unwrap().len(), 0, "it is no sign of life of the one that writes");
    assert_eq!(report(&site, &token, "b1", progress()).await, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_is_bounded_in_what_it_says_and_how_often() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let say = async |hello: AgentHello| {
        client(&site).post(site.https("/agent/v1/hello")).bearer_auth(&token).json(&hello).send().await.unwrap().status()
    };
    let nic = ObservedNic { name: "eth0".into(), mac: MAC, link_up: None };
    let long = || "x".repeat(AgentHello::LONGEST + 1);
    let too_much = [
        AgentHello { disks: vec![disk("/dev/sda"); AgentHello::MOST + 1], ..hello("b1") },
        AgentHello { nics: vec![nic.clone(); AgentHello::MOST + 1], ..hello("b1") },
        AgentHello { disks: vec![ObservedDisk { model: Some(long()), ..disk("/dev/sda") }], ..hello("b1") },
        AgentHello { nics: vec![ObservedNic { name: long(), ..nic }], ..hello("b1") },
        AgentHello { uuid: Some(long()), ..hello("b1") },
        hello(&long()),
    ];
    for hello in too_much {
        assert_eq!(say(hello).await, StatusCode::BAD_REQUEST);
        let (_, wrote, code, why) = site.witness.failed.lock().unwrap().pop().expect("nobody is told");
        assert_eq!((wrote, code.as_str()), (false, "agent-refused"), "{why}");
    }
    site.witness.disk_full.store(true, Ordering::SeqCst);
    assert_eq!(say(AgentHello { uuid: Some(long()), ..hello("b1") }).await, StatusCode::SERVICE_UNAVAILABLE, "it asks again");
    site.witness.disk_full.store(false, Ordering::SeqCst);
    let huge = AgentHello { version: "x".repeat(2 << 20), ..hello("b1") };
    let answer = client(&site).post(site.https("/agent/v1/hello")).bearer_auth(&token).json(&huge).send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == StatusCode::PAYLOAD_TOO_LARGE));
    let (_, _, code, why) = site.witness.failed.lock().unwrap().pop().expect("nobody is told");
    assert!(code == "agent-refused" && why.contains("1 MiB"), "{why}");
    assert_eq!(site.witness.rungs(), [Rung::LoaderFetched], "nothing of it was taken");

    // A storage node: 424 disks, each by two paths.
    assert_eq!(say(AgentHello { disks: vec![disk("/dev/sdaxy"); 848], ..hello("b0") }).await, StatusCode::OK);
    assert_eq!(say(hello("b1")).await, StatusCode::OK);
    let otherwise = AgentHello { disks: vec![disk("/dev/sda"), disk("/dev/sdb")], ..hello("b1") };
    assert_eq!(say(otherwise).await, StatusCode::CONFLICT, "one start says one thing");
    for start in 2..64 {
        assert_eq!(say(hello(&format!("b{start}"))).await, StatusCode::OK, "start {start}");
    }
    assert_eq!(say(hello("b64")).await, StatusCode::CONFLICT);
    assert_eq!(say(hello("b1")).await, StatusCode::OK, "a retry is no start");
    assert_eq!(site.witness.rungs().iter().filter(|rung| **rung == Rung::AgentUp).count(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uuid_in_the_other_byte_order_is_the_machines_and_a_placeholder_is_nobodys() {
    let is = |uuid: &str| changed(|ticket| ticket.uuid = Some(uuid.into()));
    let says = |boot_id: &str, uuid: &str| AgentHello { uuid: Some(uuid.into()), ..hello(boot_id) };
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    site.server.publish(is("4c4c4544-0035-3410-8050-c6c04f314733")).await;
    let other_order = says("b1", "44454C4C-3500-1034-8050-C6C04F314733");
    assert!(matches!(say_hello(&site, &token, &other_order).await, AgentCommand::Install { .. }));
    let another = says("b2", "44454C4C-3500-1034-8050-C6C04F314734");
    assert!(matches!(say_hello(&site, &token, &another).await, AgentCommand::Refuse { .. }));
    for (number, unset) in ["00000000-0000-0000-0000-000000000000", "03000200-0400-0500-0006-000700080009"].iter().enumerate() {
        site.server.publish(is(unset)).await;
        let told = say_hello(&site, &token, &says(&format!("c{number}"), unset)).await;
        assert!(matches!(told, AgentCommand::Refuse { .. }), "{unset} proves nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_that_ask_at_once_one_may_write() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    say_hello(&site, &token, &hello("b1")).await;
    say_hello(&site, &token, &hello("b2")).await;
    let (one, two) = tokio::join!(report(&site, &token, "b1", writing()), report(&site, &token, "b2", writing()));
    let mut answers = [one, two];
    answers.sort();
    assert_eq!(answers, [StatusCode::NO_CONTENT, StatusCode::CONFLICT]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_journaled_is_not_answered() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    say_hello(&site, &token, &hello("b1")).await;
    site.witness.disk_full.store(true, Ordering::SeqCst);
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::SERVICE_UNAVAILABLE);
    site.witness.disk_full.store(false, Ordering::SeqCst);
    site.witness.closed.store(true, Ordering::SeqCst);
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::CONFLICT);
    let answer = client(&site).post(site.https("/agent/v1/hello")).bearer_auth(&token).json(&hello("b1")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    site.witness.closed.store(false, Ordering::SeqCst);
    assert_eq!(report(&site, &token, "b1", written()).await, StatusCode::CONFLICT, "it never had leave to write");
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_that_differs_is_refused_and_fails_the_attempt() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let other = AgentHello { serial: Some("CZ2".into()), ..hello("b1") };
    assert!(matches!(say_hello(&site, &token, &other).await, AgentCommand::Refuse { .. }));
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::CONFLICT);
    let failed = site.witness.failed.lock().unwrap();
    assert_eq!((failed[0].1, failed[0].2.as_str()), (false, "agent-refused"));
    assert!(failed[0].3.contains("CZ2"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_with_a_token_goes_only_to_the_machine_with_a_ticket() {
    let elsewhere = |dhcp| table(MAC, Some(Ipv4Addr::new(127, 0, 0, 9)), network("sim", "127.0.0.0/8", dhcp));
    let mut cases = vec![(loopback_with_ticket(), true), (loopback(), false), (BootTable::default(), false)];
    for (dhcp, holds) in [(DhcpMode::Authoritative, false), (DhcpMode::Proxy, true), (DhcpMode::Off, false)] {
        let mut table = elsewhere(dhcp);
        table.tickets.insert(MAC, ticket(MAC));
        cases.push((table, holds));
    }
    for (number, (table, holds)) in cases.into_iter().enumerate() {
        let site = Site::start(table).await;
        assert_eq!(script(&site).await.contains("rackwright.token="), holds, "case {number}");
        assert_eq!(site.witness.refused.lock().unwrap().is_empty(), holds, "case {number}");
    }
    let site = Site::start(loopback_with_ticket()).await;
    site.witness.closed.store(true, Ordering::SeqCst);
    assert!(!script(&site).await.contains("token"), "the journal says that it is not open");
}

/// Everything that an install takes, as asked for with `token`: which of it is given. All else must be 401, 403 or 404.
async fn given(site: &Site, token: &str) -> Vec<&'static str> {
    let mut given = Vec::new();
    for path in ["/boot/undionly.kpxe", "/boot/localboot.efi", "/boot/snponly.efi", "/boot/ipxe.efi", "/boot/kernel", "/boot/initramfs"] {
        let answer = client(site).get(site.http(path)).send().await.unwrap().status();
        assert!([200, 403].contains(&answer.as_u16()), "{path}: {answer}");
        given.extend((answer == StatusCode::OK).then_some(path));
    }
    let image = "/images/debian.raw";
    let plain = client(site).get(site.http(image)).bearer_auth(token).send().await.unwrap().status();
    assert_eq!(plain, StatusCode::NOT_FOUND, "a token is worth nothing on a wire that all can read");
    let answer = client(site).get(site.https(image)).bearer_auth(token).send().await.unwrap().status();
    assert!([200, 401].contains(&answer.as_u16()), "{image}: {answer}");
    given.extend((answer == StatusCode::OK).then_some(image));
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn http_gives_boot_files_and_images_to_ticket_holders_and_strangers_nothing() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    assert_eq!(given(&site, &token).await.len(), 7);
    assert!(site.witness.refused.lock().unwrap().is_empty());
    for wrong in ["", "x", &"0".repeat(64)] {
        assert_eq!(given(&site, wrong).await.len(), 6, "its address is right, its token is not");
    }
    // The ticket's end takes away all but what starts the disk.
    let disk = ["/boot/undionly.kpxe", "/boot/localboot.efi"];
    let mut expired = loopback_with_ticket();
    expired.tickets.get_mut(&MAC).unwrap().expires = Timestamp::now();
    let mut written = loopback_with_ticket();
    written.tickets.get_mut(&MAC).unwrap().evidence.push(Evidence::Written { digest: Digest::of(b"image"), bytes: 5 });
    for (what, table) in [("expired", expired), ("written", written), ("closed", loopback())] {
        site.server.publish(Arc::new(table)).await;
        assert_eq!(given(&site, &token).await, disk, "{what}");
    }
    // A stranger beside a ticket holder, in a network that we serve.
    site.server.publish(Arc::new(holder_elsewhere())).await;
    assert_eq!(given(&site, "").await, ["/boot/localboot.efi"]);
    site.server.publish(Arc::new(BootTable::default())).await;
    assert_eq!(given(&site, &token).await, ["/boot/localboot.efi"]);
    let told = site.witness.refused.lock().unwrap().clone();
    let of = |machine: bool| told.iter().filter(|(named, _)| named.is_some() == machine).count();
    assert_eq!((of(true), of(false)), (1, 1), "one line for each, not for each request: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_taken_after_the_call_home_and_while_the_attempt_is_open() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let AgentCommand::Install { call_home, install, .. } = say_hello(&site, &token, &hello("b1")).await else { panic!("no install") };
    let tell = |url: String, body: String| {
        let client = client(&site);
        async move { client.post(url).body(body).send().await.unwrap().status() }
    };
    let (url, raid) = (format!("{call_home}/checks"), json!({"check": "raid", "ok": false, "message": "md0 is rebuilding"}).to_string());
    assert_eq!(tell(url.clone(), raid.clone()).await, StatusCode::SERVICE_UNAVAILABLE, "curl --retry comes again");
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::NO_CONTENT);
    assert_eq!(report(&site, &token, "b1", written()).await, StatusCode::NO_CONTENT);
    let said = json!({"generation": install.generation});
    assert_eq!(client(&site).post(&call_home).json(&said).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    for bad in ["", "{", "{\"check\": \"raid\"}", "{\"check\": \"a b\", \"ok\": true}", "{\"check\": \"raid\", \"ok\": true, \"x\": 1}"] {
        assert_eq!(tell(url.clone(), bad.to_owned()).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(tell(url.clone(), " ".repeat(9000)).await, StatusCode::PAYLOAD_TOO_LARGE);
    let forged = site.http(&format!("/callhome/v1/web-01/3/{}/checks", "0".repeat(64)));
    assert_eq!(tell(forged, raid.clone()).await, StatusCode::NOT_FOUND);
    assert_eq!(site.witness.checked.lock().unwrap().len(), 0);
    assert_eq!(tell(url.clone(), raid.clone()).await, StatusCode::NO_CONTENT);
    let told = site.witness.checked.lock().unwrap().clone();
    assert_eq!((told[0].1.check.as_str(), told[0].1.ok, told[0].1.message.as_str()), ("raid", false, "md0 is rebuilding"));
    site.witness.disk_full.store(true, Ordering::SeqCst);
    assert_eq!(tell(url.clone(), raid.clone()).await, StatusCode::SERVICE_UNAVAILABLE, "it is not in the journal");
    site.witness.disk_full.store(false, Ordering::SeqCst);
    site.server.publish(Arc::new(loopback())).await;
    assert_eq!(tell(url, raid).await, StatusCode::GONE);
    assert_eq!(site.witness.checked.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_system_whose_attempt_is_closed_is_welcome_and_no_evidence() {
    let site = Site::start(loopback_with_ticket()).await;
    let token = token(&site).await;
    let AgentCommand::Install { call_home, install, .. } = say_hello(&site, &token, &hello("b1")).await else { panic!("no install") };
    let mut later = loopback();
    later.installed.insert("web-01#3".parse().unwrap(), install.generation);
    site.server.publish(Arc::new(later)).await;
    let before = site.witness.rungs();
    let said = json!({"generation": install.generation});
    assert_eq!(client(&site).post(&call_home).json(&said).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(site.witness.rungs(), before);
    site.server.publish(Arc::new(loopback())).await;
    assert_eq!(client(&site).post(&call_home).json(&said).send().await.unwrap().status(), StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_fingerprint_and_tokens() {
    let site = Site::start(loopback_with_ticket()).await;
    let (fingerprint, before) = (site.server.fingerprint(), token(&site).await);
    let Site { folder, server, witness } = site;
    server.stop().await;
    let config = boot_support::config(folder.path(), Ipv4Addr::LOCALHOST);
    let server = Server::start(config, &folder.path().join("state"), witness.clone()).await.unwrap();
    let early = Site { folder, server, witness };
    // Before the first table nobody is told that there is no ticket, or to boot from disk.
    assert_eq!(report(&early, &before, "b1", written()).await, StatusCode::SERVICE_UNAVAILABLE);
    let script_now = client(&early).get(early.http(&format!("/ipxe/{MAC}"))).send().await.unwrap();
    assert_eq!(script_now.status(), StatusCode::SERVICE_UNAVAILABLE);
    let Site { folder, server, witness } = early;
    server.publish(Arc::new(loopback_with_ticket())).await;
    let site = Site { folder, server, witness };
    assert_eq!((site.server.fingerprint(), token(&site).await), (fingerprint, before));
}

fn curl(arguments: &[&str]) -> (String, Vec<u8>) {
    let got = Command::new("curl").args(["-sS", "-D", "/dev/stderr", "--max-time", "60"]).args(arguments).output().unwrap();
    (String::from_utf8_lossy(&got.stderr).to_ascii_lowercase(), got.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_ranges_lengths_and_the_pinned_certificate() {
    if !has("curl", "curl") {
        return;
    }
    let site = Site::start(loopback_with_ticket()).await;
    let image = std::fs::read(site.folder.path().join("images/debian.raw")).unwrap();
    let (pem, bearer) = (site.folder.path().join("state/boot-tls.pem"), format!("Authorization: Bearer {}", token(&site).await));
    let agent = |arguments: &[&str]| curl(&[&["--cacert", pem.to_str().unwrap(), "-H", &bearer], arguments].concat());
    let (headers, body) = agent(&["-r", "1000-1999", &site.https("/images/debian.raw")]);
    assert!(headers.contains("206 partial content") && headers.contains("content-range: bytes 1000-1999/1000000"), "{headers}");
    assert!(body == image[1000..2000]);
    let (headers, body) = curl(&["--compressed", &site.http("/boot/kernel")]);
    assert!(headers.contains("content-length: 100000") && body.len() == 100_000, "{headers}");
    for url in [site.https("/images/debian.raw"), site.http("/boot/ipxe.efi")] {
        let (headers, body) = agent(&["-I", &url]);
        assert!(headers.contains("200 ok") && headers.contains("content-length: 1") && !headers.contains("chunked"), "{headers}");
        assert_eq!(body.len(), headers.len(), "-I prints the header as its body, and nothing else");
    }
    for path in ["/images/../state/boot.key", "/images/%2e%2e/state/boot.key", "/boot/../state/boot.key", "/boot/boot.key", "/images/none"]
    {
        for url in [site.http(path), site.https(path)] {
            let (headers, _) = agent(&["--path-as-is", &url]);
            assert!(headers.contains(" 404 ") || headers.contains(" 400 "), "{url}: {headers}");
        }
    }
    let (headers, body) = agent(&[&site.https("/images/debian.raw")]);
    assert!(headers.contains("200 ok") && body == image, "{headers}");
    let (headers, _) = curl(&[&site.https("/images/debian.raw")]);
    assert!(headers.contains("self-signed") || headers.contains("certificate"), "{headers}");
    // The agent's routes are not on the plain server.
    let (headers, _) = curl(&["-X", "POST", "-d", "{}", &site.http("/agent/v1/hello")]);
    assert!(headers.contains(" 404 "), "{headers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_large_requests_do_not_hold_up_others() {
    let site = Site::start(loopback_with_ticket()).await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(site.server.addresses().http).await.unwrap();
        stream.write_all(b"GET /boot/ipxe.efi HTTP/1.1\r\nHost: ").await.unwrap();
        slow.push(stream);
    }
    // And one that asks for a file and never reads it.
    let mut deaf = tokio::net::TcpStream::connect(site.server.addresses().http).await.unwrap();
    deaf.write_all(b"GET /boot/ipxe.efi HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let kernel = client(&site).get(site.http("/boot/kernel")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(kernel.len(), 100_000);

    let token = token(&site).await;
    let huge = vec![b'x'; 2 << 20];
    let answer = client(&site).post(site.https("/agent/v1/report")).bearer_auth(&token).body(huge).send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == StatusCode::PAYLOAD_TOO_LARGE));
    let mut stream = tokio::net::TcpStream::connect(site.server.addresses().http).await.unwrap();
    let header = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let _ = stream.write_all(header.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    let garbage = client(&site).post(site.https("/agent/v1/hello")).bearer_auth(&token).body("{").send().await.unwrap();
    assert_eq!(garbage.status(), StatusCode::BAD_REQUEST);
}

/// A ticket to wipe all disks that the agent says it has.
async fn wiping() -> (Site, String) {
    let table = changed(|ticket| {
        let wipe = Wipe::new(WipeMethod::Zero, WipeDisks::All, 0);
        ticket.work = Work::Wipe(wipe.order(&Disks::default()).unwrap());
    });
    let site = Site::start((*table).clone()).await;
    let text = script(&site).await;
    assert!(text.contains("this machine will be WIPED by zero and switched off"), "{text}");
    let token = token(&site).await;
    (site, token)
}

fn two_disks() -> AgentHello {
    let disks = ["/dev/sda", "/dev/sdb"].map(|name| ObservedDisk { size: Some(512), ..disk(name) });
    AgentHello { disks: disks.to_vec(), ..hello("b1") }
}

fn proof(disk: ObservedDisk) -> DiskProof {
    DiskProof { size: 512, disk, by: "zeros".to_owned(), places: 1, read: 512, zero: 512, same: 0, digest: Digest::of(b"zeros") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_gets_leave_for_exactly_its_disks_and_counts_when_all_are_proved() {
    let (site, token) = wiping().await;
    let hello = two_disks();
    let disks = hello.disks.clone();
    let told = say_hello(&site, &token, &hello).await;
    assert!(matches!(&told, AgentCommand::Wipe { method: WipeMethod::Zero, targets: Targets::All, .. }), "{told:?}");
    let wiped = |disks: &[ObservedDisk]| AgentEvent::Wiped { proof: disks.iter().cloned().map(proof).collect() };
    assert_eq!(report(&site, &token, "b1", wiped(&disks)).await, StatusCode::CONFLICT, "without leave");
    assert_eq!(report(&site, &token, "b1", writing()).await, StatusCode::CONFLICT, "leave to install");
    assert_eq!(report(&site, &token, "b1", AgentEvent::Wiping { disks: disks.clone() }).await, StatusCode::NO_CONTENT);
    assert_eq!(report(&site, &token, "b1", AgentEvent::Wiping { disks: disks.clone() }).await, StatusCode::NO_CONTENT, "a retry");
    assert_eq!(report(&site, &token, "b1", written()).await, StatusCode::CONFLICT, "an image on a disk to wipe");
    assert_eq!(report(&site, &token, "b2", wiped(&disks)).await, StatusCode::CONFLICT, "another start");
    assert!(site.witness.failed.lock().unwrap().is_empty());
    assert_eq!(report(&site, &token, "b1", wiped(&disks)).await, StatusCode::NO_CONTENT);
    assert_eq!(say_hello(&site, &token, &hello).await, AgentCommand::SwitchOff, "its answer may have been lost");
    let rungs = site.witness.rungs();
    assert_eq!(rungs.iter().filter(|rung| **rung == Rung::Written).count(), 1);
    let seen = site.witness.saw.lock().unwrap();
    let leave = seen.iter().find_map(|(_, evidence)| evidence.leave()).unwrap();
    assert_eq!(leave, ("b1", disks.as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_disks_than_the_ticket_means_get_no_leave() {
    let changes: [fn(&mut Vec<ObservedDisk>); 4] =
        [|disks| drop(disks.pop()), |disks| disks.reverse(), |disks| disks.clear(), |disks| disks[0].serial = None];
    for change in changes {
        let (site, token) = wiping().await;
        let hello = two_disks();
        say_hello(&site, &token, &hello).await;
        let mut disks = hello.disks.clone();
        change(&mut disks);
        assert_eq!(report(&site, &token, "b1", AgentEvent::Wiping { disks }).await, StatusCode::CONFLICT);
        let (_, wrote, code, _) = site.witness.failed.lock().unwrap()[0].clone();
        assert_eq!((wrote, code.as_str()), (false, "disk-changed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_with_a_gap_fails_the_wipe() {
    let gaps: [fn(&mut Vec<DiskProof>); 5] = [
        |proof| drop(proof.pop()),
        |proof| proof.reverse(),
        |proof| proof[0].read = 511,
        |proof| proof[1].zero = 511,
        |proof| proof[1].same = 1,
    ];
    for gap in gaps {
        let (site, token) = wiping().await;
        let hello = two_disks();
        say_hello(&site, &token, &hello).await;
        assert_eq!(report(&site, &token, "b1", AgentEvent::Wiping { disks: hello.disks.clone() }).await, StatusCode::NO_CONTENT);
        let mut proof: Vec<DiskProof> = hello.disks.iter().cloned().map(proof).collect();
        gap(&mut proof);
        assert_eq!(report(&site, &token, "b1", AgentEvent::Wiped { proof }).await, StatusCode::CONFLICT);
        let (_, wrote, code, why) = site.witness.failed.lock().unwrap()[0].clone();
        assert_eq!((wrote, code.as_str()), (true, "not-wiped"), "{why}");
        assert!(!site.witness.rungs().contains(&Rung::Written));
    }
}
