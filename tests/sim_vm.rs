//! A real QEMU virtual machine behind the simulator's BMC.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, process::Command, time::Duration};

use rackwright::{
    model::PowerState,
    sim::{Config, MachineInfo, Simulator},
};
use serde_json::json;

/// Boots from the disk at once and resets the machine by the keyboard controller.
const RESETS: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
/// Boots from the disk at once and switches the machine off by ACPI (q35: PM1a control at 0x604).
const SWITCHES_OFF: &[u8] = &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd];
/// Enables the ACPI power button's event, waits for it, and then switches the machine off.
const WAITS_FOR_BUTTON: &[u8] = &[
    0xfa, 0xba, 0x02, 0x06, 0xb8, 0x00, 0x01, 0xef, 0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xfa, 0xba, 0x04, 0x06, 0xb8, 0x00,
    0x20, 0xef, 0xf4, 0xeb, 0xfd,
];
/// Stays.
const STAYS: &[u8] = &[0xf4, 0xeb, 0xfd];

fn installed() -> bool {
    let there = Command::new("qemu-system-x86_64").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)");
    }
    there
}

async fn vm(folder: &Path, address: &str, code: &[u8]) -> Simulator {
    let mut disk = code.to_vec();
    disk.resize(510, 0);
    disk.extend([0x55, 0xaa]);
    disk.resize(1 << 20, 0);
    std::fs::write(folder.join("boot.raw"), disk).unwrap();
    let folder = folder.display();
    let text = format!(
        "{{credentials: {{username: a, password: b}}, stateDir: '{folder}/sim', control: '127.0.0.1:0', pace: {{powerLag: 50ms, shutdown: 10ms}}, machines: \
         [{{name: vm-1, address: {address}, port: 0, serial: VM1, uuid: 00000000-0000-4000-8000-000000000001, mac: '52:54:00:79:00:01', mode: BIOS, \
         disks: [{{serial: D1, size: 1 MiB}}], vm: {{memory: 64, disk: '{folder}/boot.raw'}}}}]}}"
    );
    let simulator = Simulator::start(serde_yaml::from_str::<Config>(&text).unwrap()).await.unwrap();
    let url = format!("http://{}/machines/vm-1/power", simulator.control().unwrap());
    reqwest::Client::new().post(url).json(&json!({ "state": "On" })).send().await.unwrap();
    simulator
}

async fn until(simulator: &Simulator, holds: impl Fn(&MachineInfo) -> bool) {
    for _ in 0..600 {
        if holds(&simulator.machines()[0]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:?}", simulator.report("vm-1").unwrap());
}

/// Whether a QEMU of this folder runs.
fn running(folder: &Path) -> bool {
    let folder = folder.to_string_lossy().into_owned();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(&format!("{folder}/boot.raw")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_reboots_is_started_again_and_one_that_ends_is_off() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let simulator = vm(folder.path(), "127.79.0.1", RESETS).await;
    until(&simulator, |machine| machine.boots >= 3).await;
    simulator.stop().await;

    let folder = tempfile::tempdir().unwrap();
    let simulator = vm(folder.path(), "127.79.0.2", SWITCHES_OFF).await;
    until(&simulator, |machine| machine.power == PowerState::Off && machine.boots == 1).await;
    assert_eq!(simulator.report("vm-1").unwrap().trouble, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn power_kills_the_process_and_so_does_the_end_of_the_simulator() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let simulator = vm(folder.path(), "127.79.0.3", STAYS).await;
    until(&simulator, |machine| machine.power == PowerState::On && running(folder.path())).await;
    let url = format!("http://{}/machines/vm-1/power", simulator.control().unwrap());
    let power = |state: &'static str| reqwest::Client::new().post(&url).json(&json!({ "state": state })).send();
    power("Off").await.unwrap();
    until(&simulator, |_| !running(folder.path())).await;
    power("On").await.unwrap();
    until(&simulator, |_| running(folder.path())).await;
    drop(simulator);
    for _ in 0..200 {
        if !running(folder.path()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a virtual machine was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_is_the_guests_own() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let simulator = vm(folder.path(), "127.79.0.4", WAITS_FOR_BUTTON).await;
    until(&simulator, |_| running(folder.path())).await;
    let url = format!("{}/redfish/v1/Systems/vm-1/Actions/ComputerSystem.Reset", format_args!("https://{}", simulator.machines()[0].bmc));
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    for _ in 0..100 {
        let answer = client.post(&url).basic_auth("a", Some("b")).json(&json!({ "ResetType": "GracefulShutdown" })).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 204);
        if simulator.machines()[0].power == PowerState::Off {
            assert_eq!(simulator.report("vm-1").unwrap().trouble, None);
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the guest did not end: {:?}", simulator.report("vm-1").unwrap());
}
