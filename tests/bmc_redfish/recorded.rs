//! Recorded answers of real BMCs, served as they were recorded.
//!
//! They are not part of the project. The test reads the folder that `RACKWRIGHT_MOCKUPS` names; without it, the archive in
//! `../shared/mockups` beside the checkout is unpacked into `target/mockups`; without that, it says so and does nothing.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use rackwright::{
    model::{BootMode, Observation, Seen},
    ports::{Bmc as _, PowerCommand},
};
use serde_json::Value;

use crate::peer::{Peer, Tree, client, quick};

/// The folder of the recorded sets, unpacked once for all tests.
pub fn mockups() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(unpack).clone()
}

fn unpack() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("RACKWRIGHT_MOCKUPS") {
        return Some(folder.into());
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let archive = package.join("../shared/mockups/mockups.tar.zst");
    if !archive.exists() {
        println!("skipped: the recorded BMC answers are not here (set RACKWRIGHT_MOCKUPS to their folder)");
        return None;
    }
    let folder = package.join("target/mockups");
    if folder.join("complete").exists() {
        return Some(folder);
    }
    let fresh = tempfile::tempdir_in(package.join("target")).unwrap();
    let unpacked = Command::new("tar").arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(fresh.path()).status();
    if !unpacked.is_ok_and(|status| status.success()) {
        println!("skipped: the recorded BMC answers can't be unpacked (apt-get install tar zstd)");
        return None;
    }
    std::fs::write(fresh.path().join("complete"), "").unwrap();
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(fresh.keep(), &folder).unwrap();
    Some(folder)
}

/// All sets that are trees with a Systems collection, by name.
pub fn sets(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for group in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for set in std::fs::read_dir(group.path()).unwrap().flatten() {
            if set.path().join("redfish/v1/index.json").exists() {
                found.push((set.file_name().into_string().unwrap(), set.path()));
            }
        }
    }
    found.sort();
    found
}

/// Every `index.json` at its own path. What is not JSON is served as `null`, which is no resource either.
pub fn load(set: &Path) -> Tree {
    fn walk(folder: &Path, uri: &str, tree: &mut Tree) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{uri}/{name}"), tree);
            } else if name == "index.json" {
                let text = std::fs::read(entry.path()).unwrap();
                tree.put(uri, serde_json::from_slice(&text).unwrap_or(Value::Null));
            }
        }
    }
    let mut tree = Tree { password: "secret".into(), ..Tree::default() };
    walk(&set.join("redfish"), "/redfish", &mut tree);
    tree
}

fn summary(seen: &Observation) -> String {
    fn part<T>(seen: &Seen<T>, show: impl Fn(&T) -> String) -> String {
        match seen {
            Seen::Known(value) => show(value),
            Seen::Unknown(why) => {
                // Ports differ from run to run; the kind of gap is what counts.
                let kind = format!("{why:?}");
                format!("?{}", kind.split('(').next().unwrap_or_default())
            }
        }
    }
    let mut line = String::new();
    let _ = write!(line, "power={}", part(&seen.power, ToString::to_string));
    let boot = part(&seen.boot_override, |boot| format!("{}/{}/{}", boot.target, boot.enabled, boot.mode.as_deref().unwrap_or("-")));
    let _ = write!(line, " boot={boot}");
    let _ = write!(line, " serial={}", part(&seen.identity, |identity| identity.serial.clone().unwrap_or_else(|| "-".into())));
    let _ = write!(line, " nics={}", part(&seen.nics, |nics| nics.len().to_string()));
    let disks = part(&seen.disks, |disks| {
        let told = |has: fn(&&rackwright::model::ObservedDisk) -> bool| disks.iter().filter(has).count();
        format!(
            "{} ({} serials, {} wwns, {} sizes)",
            disks.len(),
            told(|d| d.serial.is_some()),
            told(|d| d.wwn.is_some()),
            told(|d| d.size.is_some())
        )
    });
    let _ = write!(line, " disks={disks}");
    let _ = write!(line, " firmware={}", part(&seen.firmware, |firmware| firmware.len().to_string()));
    let _ = write!(line, " health={}", part(&seen.health, |health| format!("{health:?}")));
    line
}

/// One line for each set, compared with the committed file: a change of the client shows what it means for each vendor.
#[tokio::test]
async fn what_is_read_from_each_recorded_bmc_is_as_committed() {
    let Some(folder) = mockups() else { return };
    let mut lines = String::new();
    for (name, path) in sets(&folder) {
        let peer = Peer::start(load(&path), |_, _| None).await;
        let (redfish, _) = client(quick());
        let seen = redfish.observe(&peer.target(), "2026-11-01T00:00:00Z".parse().unwrap()).await;
        let _ = writeln!(lines, "{name}: {}", summary(&seen));
        redfish.close().await;
        assert!(peer.tree.lock().unwrap().tokens.is_empty(), "{name}: the session was given back");
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bmc_redfish/recorded.txt");
    if std::env::var_os("UPDATE_RECORDED").is_some() {
        std::fs::write(&committed, &lines).unwrap();
    }
    let expected = std::fs::read_to_string(&committed).unwrap_or_default();
    assert_eq!(lines, expected, "run with UPDATE_RECORDED=1 if the change is meant");
}

/// Power and boot override against every recorded host: the orders go to what the tree itself names.
#[tokio::test]
async fn every_recorded_host_takes_power_and_boot_orders() {
    let Some(folder) = mockups() else { return };
    for (name, path) in sets(&folder) {
        let tree = load(&path);
        let peer = Peer::start(tree, |_, _| None).await;
        let (redfish, _) = client(quick());
        let target = peer.target();
        let seen = redfish.observe(&target, "2026-11-01T00:00:00Z".parse().unwrap()).await;
        if seen.power.known().is_none() {
            let refused = redfish.power(&target, PowerCommand::ForceOff).await.unwrap_err();
            println!("{name}: {}", refused.message);
            continue;
        }
        redfish.boot_from_network(&target, BootMode::UEFI).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        redfish.power(&target, PowerCommand::ForceOff).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        redfish.power(&target, PowerCommand::On).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let seen = redfish.observe(&target, "2026-11-01T00:01:00Z".parse().unwrap()).await;
        assert_eq!(seen.boot_override.known().map(|boot| boot.target.as_str()), Some("Pxe"), "{name}");
        println!("{name}: ok");
    }
}
