//! The way from power to the agent goes wrong, or strangers crowd it.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rackwright::{
    model::Rung,
    wire::dhcp::{Kind, Message, code},
};
use serde_json::{Value, json};

use crate::{all_ready, end, find, lab::Lab, only_bad_stalls, pair};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_calls() {
    let tune = json!({"deadlines": {"agent": "1s", "maxTries": 2}});
    let nodes = pair("Install", |bad| bad.faults = vec!["agent-never-calls"]);
    let lab = Lab::tuned(nodes, "20ms", Value::Null, tune).await;
    let controller = lab.controller().await;
    let texts = ["bad#2 failed (no-agent)", "waited too long: the agent's first word"];
    only_bad_stalls(&lab, "Quarantined", &texts).await;
    assert_eq!(lab.installs("bad"), 0);
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_boots_from_its_disk_instead_of_the_network() {
    let tune = json!({"deadlines": {"firstPacket": "2s", "maxTries": 2}});
    let mut lab = Lab::tuned(pair("Adopt", |bad| bad.faults = vec!["boots-disk-instead"]), "20ms", Value::Null, tune).await;
    let controller = lab.controller().await;
    all_ready(&lab).await;
    let before = std::fs::read(lab.disk("bad")).unwrap();
    lab.nodes.iter_mut().for_each(|node| node.image = "two".to_owned());
    lab.write_machines();
    lab.commit("Move all to image two");
    let texts = ["bad#2 failed (no-dhcp)", "waited too long: the firmware's first DHCP packet"];
    only_bad_stalls(&lab, "Quarantined", &texts).await;
    assert_eq!(lab.installs("bad"), 0);
    assert_eq!(std::fs::read(lab.disk("bad")).unwrap(), before, "the old system is what it was");

    // The old system serves again, and the next change of the generation is a new start.
    lab.until("the machine is on", |status| find(status, "bad").is_some_and(|bad| bad.power == "On")).await;
    lab.simulator.clear_faults("bad").unwrap();
    lab.node("bad").rebuild = 1;
    lab.write_machines();
    lab.commit("Try bad again");
    all_ready(&lab).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1));
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_while_the_agent_writes() {
    // Silence would end the attempt too, but long after this test.
    let (sim, tune) = (json!({"control": "127.0.0.1:0"}), json!({"deadlines": {"silence": "600s"}}));
    let lab = Lab::tuned(pair("Install", |bad| bad.faults = vec!["reset-during-write:1"]), "20ms", sim, tune).await;
    let controller = lab.controller().await;
    lab.until("the power cut", |status| {
        find(status, "bad").is_some_and(|bad| bad.rung == Some(Rung::Writing) && bad.power == "Off") && lab.installs("bad") == 1
    })
    .await;
    let head = &std::fs::read(lab.disk("bad")).unwrap()[..1 << 20];
    assert!(head.iter().all(|byte| *byte == 0), "what is half written can't be started");

    // Power comes back. The disk has nothing to start, so the firmware goes on to the network, where the agent starts again.
    let url = format!("http://{}/machines/bad/power", lab.simulator.control().unwrap());
    let answer = reqwest::Client::new().post(url).json(&json!({"state": "On"})).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 204);
    all_ready(&lab).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (2, 1));
    assert_eq!(lab.difference("bad", &lab.nodes[0].image), None);
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_unknown_macs() {
    let lab = Lab::new(pair("Install", |_| {})).await;
    let controller = lab.controller().await;
    let (stop, port) = (Arc::new(AtomicBool::new(false)), lab.port(0));
    let done = stop.clone();
    let storm = tokio::task::spawn_blocking(move || rage(port, &done));
    all_ready(&lab).await;
    stop.store(true, Ordering::Relaxed);
    let (sent, answers) = storm.await.unwrap();
    assert!(sent >= 2000, "{sent} packets");
    assert_eq!(answers, 0, "strangers get silence");
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1));
    end(lab, controller).await;
}

/// DISCOVERs of ever new MACs, until told to stop and at least 2000 of them. Returns how many, and how many answers came.
fn rage(port: u16, stop: &AtomicBool) -> (u32, u32) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let source = socket.local_addr().unwrap().port().to_be_bytes();
    let (mut sent, mut answers) = (0, 0);
    while sent < 2000 || !stop.load(Ordering::Relaxed) {
        for _ in 0..50 {
            let [a, b, c, d] = u32::to_be_bytes(sent);
            let mut packet = Message::request(Kind::Discover, [2, 0xbb, a, b, c, d], sent);
            packet.giaddr = Ipv4Addr::LOCALHOST;
            packet.options.insert(code::CLASS_ID, b"PXEClient:Arch:00007:UNDI:003016".to_vec());
            packet.options.insert(code::ARCHITECTURE, vec![0, 7]);
            packet.options.insert(code::RELAY, [&[19, 2][..], &source].concat());
            if socket.send_to(&packet.encode(), ("127.0.0.1", port)).is_ok() {
                sent += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
        answers += count(&socket);
    }
    (sent, answers)
}

fn count(socket: &UdpSocket) -> u32 {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count() as u32
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tftp_client_that_aborts_after_tsize() {
    let tune = json!({"deadlines": {"loader": "1s", "maxTries": 2}});
    let lab = Lab::tuned(pair("Install", |bad| bad.faults = vec!["tftp-abort"]), "20ms", Value::Null, tune).await;
    let controller = lab.controller().await;
    // The same from its other ports: each is told the size, says ERROR, and must not hear of it again.
    let bad = lab.simulator.machines().iter().find(|machine| machine.name.as_str() == "bad").unwrap().bmc.ip();
    let aborted: Vec<UdpSocket> = (0..50).map(|_| abort_after_tsize(bad, lab.port(1))).collect();
    // An aborted transfer is no evidence of a loader that was fetched. The good machine's firmware does the same and goes on.
    let texts = ["bad#2 failed (no-loader)", "waited too long: a loader to be fetched"];
    only_bad_stalls(&lab, "Quarantined", &texts).await;
    assert_eq!(lab.installs("bad"), 0);
    assert_eq!(aborted.iter().map(count).sum::<u32>(), 0, "an ERROR ends a transfer");
    end(lab, controller).await;
}

fn abort_after_tsize(from: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 2048];
    let request = b"\0\x01localboot.efi\0octet\0tsize\x000\0blksize\x001468\0";
    let (length, peer) = (0..10)
        .find_map(|_| {
            socket.send_to(request, ("127.0.0.1", port)).unwrap();
            socket.recv_from(&mut buffer).ok()
        })
        .expect("an OACK");
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(answer.starts_with("\0\x06") && answer.contains("tsize\x0040000\0"), "{answer:?}");
    socket.send_to(b"\0\x05\0\x08User aborted the transfer\0", peer).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}
