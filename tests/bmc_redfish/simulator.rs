//! The client against the project's own simulator: both sides must mean the same by what they say.

use std::{sync::Arc, time::Duration};

use rackwright::{
    bmc::Redfish,
    model::{BootMode, PowerState, Seen, Timestamp, Trust},
    ports::{Bmc as _, PowerCommand},
    sim::{Config, Simulator},
};

use crate::peer::{Password, quick, target};

#[tokio::test]
async fn a_simulated_machine_is_observed_and_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "
credentials: {{username: user, password: secret}}
stateDir: {}
pace: {{powerLag: 50ms, post: 50ms, shutdown: 50ms}}
machines:
  - name: node-1
    address: 127.77.2.1
    port: 0
    serial: SIM0001
    uuid: 00000000-0000-4000-8000-00000000000a
    mac: 52:54:00:77:00:01
    disks: [{{serial: DISK1, size: 64 MiB, wwn: '0x5002538e00a1b2c3'}}, {{serial: DISK2, size: 128 MiB}}]
",
        folder.path().display()
    );
    let simulator = Simulator::start(serde_yaml::from_str::<Config>(&text).unwrap()).await.unwrap();
    let target = target(&format!("https://{}", simulator.machines()[0].bmc), Trust::Insecure);
    let password = Password(Arc::new(std::sync::Mutex::new("secret".into())));
    let redfish = Redfish::new(quick(), Arc::new(password)).unwrap();
    let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let seen = redfish.observe(&target, now).await;
    let identity = seen.identity.known().unwrap();
    assert_eq!(identity.serial.as_deref(), Some("SIM0001"));
    assert_eq!(identity.uuid.as_deref(), Some("00000000-0000-4000-8000-00000000000a"));
    assert!(seen.nics.known().unwrap().iter().any(|nic| nic.mac.to_string() == "52:54:00:77:00:01"), "{:?}", seen.nics);
    let disks = seen.disks.known().unwrap();
    assert_eq!(disks.iter().filter_map(|disk| disk.serial.as_deref()).collect::<Vec<_>>(), ["DISK1", "DISK2"]);
    assert_eq!(disks[0].size, Some(64 << 20));
    assert!(seen.firmware.known().is_some() && seen.health.known().is_some(), "{seen:?}");

    redfish.power(&target, PowerCommand::ForceOff).await.unwrap();
    while redfish.observe(&target, now).await.power != Seen::Known(PowerState::Off) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redfish.boot_from_network(&target, BootMode::UEFI).await.unwrap();
    let boot = redfish.observe(&target, now).await.boot_override;
    assert_eq!(boot.known().map(|boot| (boot.target.as_str(), boot.enabled.as_str())), Some(("Pxe", "Once")));
    redfish.clear_boot_override(&target).await.unwrap();
    let boot = redfish.observe(&target, now).await.boot_override;
    assert_eq!(boot.known().map(|boot| boot.enabled.as_str()), Some("Disabled"), "taken back");
    redfish.clear_boot_override(&target).await.unwrap();
    redfish.power(&target, PowerCommand::On).await.unwrap();
    redfish.close().await;
}
