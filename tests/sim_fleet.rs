//! Many simulated machines, and machines that boot from other people's DHCP and TFTP servers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fmt::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rackwright::sim::{Activity, Config, Simulator};
use serde_json::json;

/// Soft limit of open files of this process.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    line.split_whitespace().nth(3).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_machines_are_light() {
    if open_files() < 1200 {
        println!("skipped: fewer than 1,200 open files are allowed (ulimit -n 4096)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!("credentials: {{username: a, password: b}}\nstateDir: {}\nmachines:\n", folder.path().join("sim").display());
    for number in 0..1000u32 {
        let (high, low) = (number / 200, number % 200 + 1);
        writeln!(
            text,
            "- {{name: node-{number}, address: 127.80.{high}.{low}, port: 0, serial: S{number}, uuid: 00000000-0000-4000-8000-{number:012}, \
             mac: '52:54:00:80:{high:02x}:{low:02x}', disks: [{{serial: D{number}, size: 2 TB}}]}}"
        )
        .unwrap();
    }
    let before = resident_mib();
    let simulator = Simulator::start(serde_yaml::from_str::<Config>(&text).unwrap()).await.unwrap();
    let used = resident_mib() - before;
    println!("1,000 machines use {used} MiB");
    assert!(used < 100, "{used} MiB for 1,000 machines that do nothing");
    let files = std::fs::read_dir(folder.path().join("sim")).unwrap().count();
    assert_eq!(files, 2, "the certificate and its key; disks are made when they are written");
    assert_eq!(simulator.machines().len(), 1000);
    simulator.stop().await;
}

/// Kills it at the end.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "a peer's command line, then one story")]
async fn dnsmasq_boots_a_machine_by_dhcp_tftp_and_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("loader.efi"), vec![7; 1_000_000]).unwrap();
    let script = "#!ipxe\necho ${net0/mac} ${net0/ip}\niseq ${platform} efi && exit || boot\n";
    let web = axum::Router::new().route("/script", axum::routing::get(move || async move { script }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let script_url = format!("http://{}/script", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, web).await });
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let log = path("log");
    let dnsmasq = Command::new("dnsmasq")
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--bind-interfaces",
            "--interface=lo",
            "--user=",
            "--group=",
            "--pid-file=",
        ])
        .args([
            "--enable-tftp",
            "--dhcp-range=127.81.0.100,127.81.0.110,255.255.255.0",
            "--dhcp-userclass=set:ipxe,iPXE",
            "--log-dhcp",
            "--no-ping",
        ])
        .args([format!("--dhcp-alternate-port={free},{}", free - 1), format!("--tftp-root={}", folder.path().display())])
        .args([format!("--dhcp-boot=tag:ipxe,{script_url}"), "--dhcp-boot=tag:!ipxe,loader.efi,,127.0.0.1".to_owned()])
        .args([format!("--dhcp-leasefile={}", path("leases").display()), format!("--log-facility={}", log.display())])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(dnsmasq) = dnsmasq else {
        println!("skipped: dnsmasq is not installed (apt-get install dnsmasq-base)");
        return;
    };
    let mut dnsmasq = Peer(dnsmasq);
    tokio::time::sleep(Duration::from_millis(300)).await;
    if dnsmasq.0.try_wait().unwrap().is_some() {
        println!("skipped: dnsmasq can't serve DHCP and TFTP (port 69) here; root is needed");
        return;
    }
    let text = format!(
        "{{bootServer: {{dhcp: '127.0.0.1:{free}', relayPort: {free}}}, credentials: {{username: a, password: b}}, stateDir: '{}', control: '127.0.0.1:0', \
         pace: {{powerLag: 10ms, post: 10ms}}, machines: [{{name: node-1, address: 127.81.0.1, port: 0, serial: S, uuid: 00000000-0000-4000-8000-000000000001, \
         mac: '52:54:00:81:00:01', bootOrder: [Network]}}]}}",
        path("sim").display()
    );
    let simulator = Simulator::start(serde_yaml::from_str::<Config>(&text).unwrap()).await.unwrap();
    let url = format!("http://{}/machines/node-1/power", simulator.control().unwrap());
    reqwest::Client::new().post(url).json(&json!({ "state": "On" })).send().await.unwrap();
    for _ in 0..400 {
        if simulator.machines()[0].activity == Activity::NoBootDevice {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let acks = log.lines().filter(|line| line.contains("DHCPACK")).count();
    assert_eq!(acks, 2, "one for the firmware, one for iPXE:\n{log}");
    assert!(log.contains("sent") && log.contains("loader.efi"), "{log}");
    // The script ended by itself: `exit`, and no device is left. A script that failed would be named here.
    assert_eq!(simulator.report("node-1").unwrap().trouble.as_deref(), Some("no boot device"), "{log}");
}
