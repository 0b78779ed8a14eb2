//! Simulated machines against the real boot server: the whole way from a BMC order to a system that called home.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rackwright::{
    boot::{self, Server},
    model::{
        AttemptId, BootMode, BootTable, CheckReport, CommitId, DhcpMode, Digest, DiskHint, Evidence, Generation, Image, ImageFormat,
        Install, Mac, MachineName, Network, PowerState, Progress, Reservation, Rung, SignedDuration, Ticket, Timestamp, Work,
    },
    ports::{Boot as _, Witness, WitnessError},
    sim::{Activity, Config, MachineReport, Simulator},
};
use serde_json::json;

/// Keeps what it is told and gives it to the boot server's table, as the engine does.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<(AttemptId, Evidence)>>,
    failed: Mutex<Vec<(AttemptId, bool, String)>>,
    refused: Mutex<Vec<String>>,
}

#[async_trait]
impl Witness for Recorder {
    async fn saw(&self, attempt: &AttemptId, evidence: Evidence) -> Result<(), WitnessError> {
        let mut seen = self.seen.lock().unwrap();
        if !seen.iter().any(|(of, old)| of == attempt && *old == evidence) {
            seen.push((attempt.clone(), evidence));
        }
        Ok(())
    }
    async fn failed(&self, attempt: &AttemptId, wrote: bool, code: &str, _why: &str) -> Result<(), WitnessError> {
        self.failed.lock().unwrap().push((attempt.clone(), wrote, code.to_owned()));
        Ok(())
    }
    async fn checked(&self, _: &AttemptId, _: CheckReport) -> Result<(), WitnessError> {
        Ok(())
    }
    fn progress(&self, _: &AttemptId, _: Progress) {}
    fn refused(&self, _: Option<&MachineName>, what: &str) {
        self.refused.lock().unwrap().push(what.to_owned());
    }
}

impl Recorder {
    fn rungs(&self, attempt: &AttemptId) -> Vec<Rung> {
        self.seen.lock().unwrap().iter().filter(|(of, _)| of == attempt).map(|(_, evidence)| evidence.rung()).collect()
    }
}

struct World {
    folder: tempfile::TempDir,
    recorder: Arc<Recorder>,
    server: Server,
    simulator: Simulator,
    image: Vec<u8>,
    table: Mutex<BootTable>,
}

/// A file name that no other test of this process uses, and a net of its own on loopback.
fn machine(net: u8, number: u8, mode: BootMode, extra: &str) -> String {
    let mode = if mode == BootMode::UEFI { "UEFI" } else { "BIOS" };
    format!(
        "
  - name: node-{number}
    address: 127.78.{net}.{number}
    port: 0
    serial: SIM{number}
    uuid: 00000000-0000-4000-8000-0000000000{number:02}
    mac: 52:54:00:78:{net:02x}:{number:02x}
    mode: {mode}
    disks: [{{serial: DISK{number}, size: 32 MiB}}, {{serial: DATA{number}, size: 32 MiB}}]
    bootOrder: [Network, Disk]
    {extra}"
    )
}

impl World {
    #[allow(clippy::too_many_lines)]
    async fn start(net: u8, machines: &[String]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["files", "images", "boot"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        for name in ["undionly.kpxe", "snponly.efi", "ipxe.efi", "localboot.efi"] {
            std::fs::write(path("files").join(name), name.repeat(3000)).unwrap();
        }
        std::fs::write(path("kernel"), vec![1; 300_000]).unwrap();
        std::fs::write(path("initramfs"), vec![2; 700_000]).unwrap();
        let image = image();
        std::fs::write(path("images").join("tiny.raw"), &image).unwrap();
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = boot::Config::new(Ipv4Addr::LOCALHOST);
        (config.dhcp, config.proxy_dhcp) = (Some(loopback), None);
        (config.tftp, config.http, config.https) = (loopback, loopback, loopback);
        (config.files, config.images) = (path("files"), Some(path("images")));
        (config.kernel, config.initramfs) = (Some(path("kernel")), Some(path("initramfs")));
        let recorder = Arc::new(Recorder::default());
        let server = Server::start(config, &path("boot"), recorder.clone()).await.unwrap();
        let text = format!(
            "
bootServer: {{dhcp: '{}'}}
credentials: {{username: admin, password: secret}}
stateDir: {}
control: 127.0.0.1:0
pace: {{powerLag: 10ms, post: 10ms, shutdown: 10ms, osBoot: 10ms, dhcpTimeout: 1500ms}}
machines:{}",
            server.addresses().dhcp.unwrap(),
            path("sim").display(),
            machines.concat()
        );
        let config: Config = serde_yaml::from_str(&text).unwrap();
        let simulator = Simulator::start(config.clone()).await.unwrap();
        let mut table = BootTable::default();
        let name = |text: &str| text.parse().unwrap();
        let network = Network {
            name: name("lab"),
            subnet: format!("127.78.{net}.0/24").parse().unwrap(),
            vlan: None,
            gateway: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            dhcp: DhcpMode::Authoritative,
        };
        table.networks.insert(name("lab"), network);
        for machine in &config.machines {
            let reservation = Reservation {
                machine: machine.name.clone(),
                mac: machine.mac,
                address: Some(machine.address),
                network: Some(name("lab")),
                boot: true,
            };
            table.reservations.insert(machine.mac, reservation);
        }
        let world = World { folder, recorder, server, simulator, image, table: Mutex::new(table) };
        world.publish().await;
        world
    }

    async fn publish(&self) {
        let mut table = self.table.lock().unwrap().clone();
        for ticket in table.tickets.values_mut() {
            let seen = self.recorder.seen.lock().unwrap();
            ticket.evidence = seen.iter().filter(|(of, _)| *of == ticket.attempt).map(|(_, evidence)| evidence.clone()).collect();
        }
        self.server.publish(Arc::new(table)).await;
    }

    /// Opens a ticket, as the engine does before it touches the machine.
    async fn ticket(&self, net: u8, number: u8) -> AttemptId {
        let mac = Mac([0x52, 0x54, 0, 0x78, net, number]);
        let attempt: AttemptId = format!("node-{number}#1").parse().unwrap();
        let digest = Digest::of(&self.image);
        let image = Image { name: "tiny".parse().unwrap(), digest, format: ImageFormat::Raw, url: "tiny.raw".to_owned(), size: None };
        let ticket = Ticket {
            attempt: attempt.clone(),
            commit: CommitId([1; 20]),
            expires: Timestamp::now() + SignedDuration::from_hours(1),
            mac,
            serial: Some(format!("SIM{number}")),
            uuid: None,
            keep: Vec::new(),
            work: Work::Install {
                install: Box::new(Install {
                    generation: Generation::of(digest, Some("#cloud-config\n"), 0),
                    image,
                    user_data: Some("#cloud-config\n".to_owned()),
                    rebuild: 0,
                }),
                system: DiskHint { serial: Some(format!("DISK{number}")), ..DiskHint::default() },
            },
            evidence: Vec::new(),
        };
        self.table.lock().unwrap().tickets.insert(mac, ticket);
        self.publish().await;
        attempt
    }

    async fn power(&self, number: u8, state: &str) {
        let url = format!("http://{}/machines/node-{number}/power", self.simulator.control().unwrap());
        let answer = reqwest::Client::new().post(url).json(&json!({ "state": state })).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 204);
    }

    fn report(&self, number: u8) -> MachineReport {
        self.simulator.report(&format!("node-{number}")).unwrap()
    }

    /// Publishes again and again, as an engine's turns do, until it holds.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..600 {
            if holds() {
                return;
            }
            self.publish().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seen = self.recorder.seen.lock().unwrap();
        panic!("{what} did not come; machine {:?}; seen {seen:?}; refused {:?}", self.report(1), self.recorder.refused.lock().unwrap());
    }

    async fn until_activity(&self, number: u8, wanted: Activity) {
        self.until(&format!("{wanted:?}"), || self.report(number).activity == wanted).await;
    }

    fn disk(&self, name: &str) -> Vec<u8> {
        std::fs::read(Path::new(self.folder.path()).join("sim").join(name)).unwrap()
    }
}

/// 10 MiB: a GPT with a CIDATA partition of 4 MiB, and data.
fn image() -> Vec<u8> {
    let mut image: Vec<u8> = (0..10u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let head = gpt_with_cidata();
    image[..head.len()].copy_from_slice(&head);
    image[4 << 20..8 << 20].fill(0);
    image
}

/// A primary GPT with `CIDATA` from 4 to 8 MiB (UEFI 2.10 section 5.3).
fn gpt_with_cidata() -> Vec<u8> {
    let mut head = vec![0u8; 34 * 512];
    head[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut entries = vec![0u8; 128 * 128];
    entries[..16].fill(0x11);
    entries[16..32].fill(0x22);
    entries[32..40].copy_from_slice(&8192u64.to_le_bytes());
    entries[40..48].copy_from_slice(&16383u64.to_le_bytes());
    for (pair, unit) in entries[56..128].chunks_exact_mut(2).zip("CIDATA".encode_utf16()) {
        pair.copy_from_slice(&unit.to_le_bytes());
    }
    let header = &mut head[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    header[12..16].copy_from_slice(&92u32.to_le_bytes());
    header[24..32].copy_from_slice(&1u64.to_le_bytes());
    header[32..40].copy_from_slice(&20479u64.to_le_bytes());
    header[40..48].copy_from_slice(&34u64.to_le_bytes());
    header[48..56].copy_from_slice(&20446u64.to_le_bytes());
    header[56..72].fill(0x33);
    header[72..80].copy_from_slice(&2u64.to_le_bytes());
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
    let crc = crc32(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    head[1024..].copy_from_slice(&entries);
    head
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_are_installed_end_to_end_and_each_disk_is_written_once() {
    let world = World::start(1, &[machine(1, 1, BootMode::UEFI, ""), machine(1, 2, BootMode::BIOS, "")]).await;
    let attempts = [world.ticket(1, 1).await, world.ticket(1, 2).await];
    for number in [1, 2] {
        world.power(number, "On").await;
    }
    for (number, attempt) in (1..).zip(&attempts) {
        world.until("the call-home", || world.recorder.rungs(attempt).contains(&Rung::CalledHome)).await;
        let wanted =
            [Rung::DhcpSeen, Rung::LoaderFetched, Rung::AgentUp, Rung::Writing, Rung::Written, Rung::BootedFromDisk, Rung::CalledHome];
        assert_eq!(world.recorder.rungs(attempt), wanted);
        let report = world.report(number);
        assert_eq!((report.power, report.boots), (PowerState::On, 2));
        assert_eq!(report.digest, Some(Digest::of(&world.image)));
        assert_eq!(report.generation, Some(Generation::of(Digest::of(&world.image), Some("#cloud-config\n"), 0)));
        assert_eq!((report.disks[0].writes.installs, report.disks[1].writes.installs), (1, 0));
        let disk = world.disk(&format!("node-{number}.DISK{number}.disk"));
        assert_eq!(disk[8 << 20..10 << 20], world.image[8 << 20..], "what follows the seed is the image");
        let account: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&world.disk(&format!("node-{number}.DISK{number}.disk.writes.json"))).unwrap();
        assert_eq!(account["installs"], 1);
        assert!(account["blocks"].as_object().unwrap()["9"] == 1, "a block outside the seed is written once: {account:?}");
    }
    // Law 9: a machine whose ticket is done boots from its disk, and not a byte is written.
    let before = world.report(1).disks[0].writes.clone();
    world.power(1, "Off").await;
    world.power(1, "On").await;
    world.until("another boot", || world.report(1).boots == 3 && world.report(1).activity == Activity::Running).await;
    assert_eq!(world.report(1).disks[0].writes, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_machine_without_a_ticket_boots_from_its_disk_unchanged() {
    let adopted = [machine(2, 1, BootMode::UEFI, "power: On"), machine(2, 2, BootMode::BIOS, "power: On")];
    let world = World::start(2, &adopted).await;
    let before = [world.disk("node-1.DISK1.disk"), world.disk("node-2.DISK2.disk")];
    for number in [1, 2] {
        assert_eq!(world.report(number).activity, Activity::Running);
        world.power(number, "Off").await;
        world.power(number, "On").await;
        world.until("a boot from disk", || world.report(number).boots == 1 && world.report(number).activity == Activity::Running).await;
        assert_eq!(world.report(number).disks[0].writes.installs, 0);
    }
    assert_eq!(before, [world.disk("node-1.DISK1.disk"), world.disk("node-2.DISK2.disk")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_silence_and_goes_on_to_its_disk_or_nowhere() {
    let world = World::start(3, &[machine(3, 1, BootMode::UEFI, "")]).await;
    world.table.lock().unwrap().reservations.clear();
    world.publish().await;
    world.power(1, "On").await;
    world.until_activity(1, Activity::NoBootDevice).await;
    assert_eq!(world.report(1).trouble.as_deref(), Some("network boot failed: no DHCP answer; no boot device"));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_machine_show_where_they_should() {
    let faulty = |number, fault: &str| machine(4, number, BootMode::UEFI, &format!("faults: ['{fault}']"));
    let faults = ["disk-write:1", "agent-never-calls:1", "no-dhcp:1", "reset-during-write:1", "serial-mismatch"];
    let machines: Vec<String> = (1..).zip(faults).map(|(number, fault)| faulty(number, fault)).collect();
    let world = World::start(4, &machines).await;
    let mut attempts = Vec::new();
    for number in 1..=5 {
        attempts.push(world.ticket(4, number).await);
        world.power(number, "On").await;
    }
    world.until("the failed write", || world.recorder.failed.lock().unwrap().iter().any(|(of, ..)| *of == attempts[0])).await;
    let (_, wrote, code) = world.recorder.failed.lock().unwrap().iter().find(|(of, ..)| *of == attempts[0]).cloned().unwrap();
    assert_eq!((wrote, code.as_str()), (true, "disk-write"));
    world.until_activity(1, Activity::Hung).await;

    world.until_activity(2, Activity::Hung).await;
    assert_eq!(world.recorder.rungs(&attempts[1]).last(), Some(&Rung::LoaderFetched));

    world.until_activity(3, Activity::NoBootDevice).await;
    assert_eq!(world.recorder.rungs(&attempts[2]), []);

    world.until("the power cut", || world.report(4).power == PowerState::Off).await;
    assert_eq!(world.recorder.rungs(&attempts[3]).last(), Some(&Rung::Writing));
    assert_eq!(world.report(4).disks[0].writes.installs, 1);

    world.until_activity(5, Activity::Hung).await;
    assert!(!world.recorder.rungs(&attempts[4]).contains(&Rung::Writing), "another serial is not written to");
    assert_eq!(world.report(5).disks[0].writes.installs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_endpoint_arms_clears_and_shows() {
    let world = World::start(5, &[machine(5, 1, BootMode::UEFI, "")]).await;
    let base = format!("http://{}", world.simulator.control().unwrap());
    let http = reqwest::Client::new();
    let arm = |body: serde_json::Value| http.post(format!("{base}/machines/node-1/faults")).json(&body).send();
    assert_eq!(arm(json!({ "fault": "disk-write", "count": 2 })).await.unwrap().status().as_u16(), 204);
    assert_eq!(arm(json!({ "fault": "disk-wrote" })).await.unwrap().status().as_u16(), 400);
    let list: serde_json::Value = http.get(format!("{base}/machines")).send().await.unwrap().json().await.unwrap();
    assert_eq!(list[0]["faults"], json!(["disk-write:2"]));
    assert_eq!((&list[0]["power"], &list[0]["activity"], &list[0]["disks"][0]["installs"]), (&json!("Off"), &json!("off"), &json!(0)));
    let clear = http.delete(format!("{base}/machines/node-1/faults")).send().await.unwrap();
    assert_eq!(clear.status().as_u16(), 204);
    assert!(world.report(1).faults.is_empty());
    assert_eq!(http.delete(format!("{base}/machines/other/faults")).send().await.unwrap().status().as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_ignores_the_override_boots_its_disk_and_nothing_is_seen_of_it() {
    let extra = "power: On\n    faults: ['boots-disk-instead:1']";
    let world = World::start(6, &[machine(6, 1, BootMode::UEFI, extra)]).await;
    let attempt = world.ticket(6, 1).await;
    world.power(1, "Off").await;
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let system = format!("https://{}/redfish/v1/Systems/node-1", world.simulator.machines()[0].bmc);
    let boot = json!({ "Boot": { "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once" } });
    let answer = http.patch(&system).basic_auth("admin", Some("secret")).json(&boot).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    world.power(1, "On").await;
    world.until("a boot from disk", || world.report(1).boots == 1 && world.report(1).activity == Activity::Running).await;
    assert_eq!(world.recorder.rungs(&attempt), []);
    let after: serde_json::Value = http.get(&system).basic_auth("admin", Some("secret")).send().await.unwrap().json().await.unwrap();
    assert_eq!(after["Boot"]["BootSourceOverrideEnabled"], "Disabled", "it is used up all the same");
}
