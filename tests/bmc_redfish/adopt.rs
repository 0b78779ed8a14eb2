//! `rackwright adopt`, the program, against recorded answers of real BMCs and against peers that lie: what it writes is valid and
//! leads to no step but the claim.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output},
};

use rackwright::{
    manifest::{self, Cache},
    model::{Action, Brake, Commit, CommitId, DriftClass, FileEntry, FileKind, Files, Fleet, History, Observation, Plan, Timestamp},
    plan,
    ports::Bmc as _,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    peer::{Peer, Tree, client, quick},
    recorded::{load, mockups, sets},
};

/// A fleet repository with nothing in it but the settings, and the password beside it.
fn empty_fleet() -> TempDir {
    let folder = tempfile::Builder::new().prefix("rackwright-adopt-").tempdir().unwrap();
    fs::write(folder.path().join("password"), "secret\n").unwrap();
    fs::create_dir(folder.path().join("fleet")).unwrap();
    fs::write(
        folder.path().join("fleet/fleet.yaml"),
        "apiVersion: rackwright.dev/v1alpha1\nkind: Fleet\nmetadata: {name: fleet}\nspec: {}\n",
    )
    .unwrap();
    folder
}

async fn rackwright(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackwright"));
    command.args(arguments).current_dir(folder).env_remove("RACKWRIGHT_LOG");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs `adopt` against a peer, whose certificate is trusted as it is pinned; the rows that it prints as JSON.
async fn adopt(folder: &Path, peer: &Peer, more: &[&str]) -> (Vec<Value>, Output) {
    let fingerprint = peer.fingerprint.to_string();
    let always = ["adopt", &peer.address, "--fingerprint", &fingerprint, "--into", "fleet", "--json"];
    let secret = ["--user", "user", "--password-file", "password"];
    let output = rackwright(folder, &[&always[..], &secret[..], more].concat()).await;
    let rows = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)));
    (rows, output)
}

fn fleet_files(folder: &Path) -> Files {
    let mut files = Files::new();
    for part in ["", "machines", "secrets"] {
        for entry in fs::read_dir(folder.join("fleet").join(part)).into_iter().flatten().flatten().filter(|entry| entry.path().is_file()) {
            let path = format!("{part}{}{}", if part.is_empty() { "" } else { "/" }, entry.file_name().to_str().unwrap());
            let bytes = fs::read(entry.path()).unwrap();
            let id = git2::Oid::hash_object(git2::ObjectType::Blob, &bytes).unwrap();
            files.insert(path, FileEntry { id: id.as_bytes().try_into().unwrap(), kind: FileKind::Regular, bytes: bytes.into() });
        }
    }
    files
}

/// The plan of a fleet, from what is known of its machines, and what they say now. The checker has no objection to it.
fn planned(fleet: &Fleet, history: &History, seen: &BTreeMap<rackwright::model::MachineName, Observation>) -> Plan {
    let now = seen.values().map(|seen| seen.at).max().unwrap();
    let commit =
        Commit { id: CommitId([1; 20]), subject: "Adopt".into(), author: "a@example.org".into(), time: now, approvals: Vec::new() };
    let (alive, brake) = (BTreeMap::new(), Brake::default());
    let deadlines = plan::Deadlines::default();
    let input = plan::Input {
        commit: &commit,
        fleet,
        problems: &[],
        seen,
        history,
        alive: &alive,
        probes: &Default::default(),
        former: None,
        brake: &brake,
        deadlines,
        now,
    };
    let plan = plan::plan(&input);
    assert_eq!(plan::check(&plan, &input), []);
    plan
}

/// What the written fleet leads to, machine by machine: `claim`, and then nothing. Panics on anything else.
async fn leads_to_nothing(folder: &Path, name: &str) -> String {
    let loaded = manifest::load(&fleet_files(folder), &mut Cache::default());
    assert!(loaded.problems.iter().all(|problem| !problem.is_error()), "{name}: {:?}", loaded.problems);
    let (redfish, _) = client(quick());
    let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let mut seen = BTreeMap::new();
    for machine in loaded.fleet.machines.values() {
        // By what the manifest says, not by what the test knows: address, credentials and trust are part of it.
        seen.insert(machine.name.clone(), redfish.observe(&machine.bmc, now).await);
    }
    redfish.close().await;
    let first = planned(&loaded.fleet, &History::default(), &seen);
    for part in first.machines.values() {
        assert!(matches!(part.steps.as_slice(), [step] if matches!(step.action, Action::Claim { installed: None })), "{name}: {part:?}");
        assert!(part.drift.is_empty() && part.held.is_empty() && part.waiting.is_none() && part.reimage.is_none(), "{name}: {part:?}");
    }
    let later = planned(&loaded.fleet, &plan::baseline(&loaded.fleet, now), &seen);
    let mut overrides = BTreeMap::new();
    for part in later.machines.values() {
        assert!(part.steps.is_empty() && part.held.is_empty() && part.waiting.is_none(), "{name}: {part:?}");
        // What somebody set for the next boot is shown: no manifest declares it, and none could.
        let (boot, others): (Vec<_>, Vec<_>) = part.drift.iter().partition(|drift| drift.class == Some(DriftClass::Boot));
        assert!(others.is_empty(), "{name}: {others:?}");
        overrides.extend(boot.first().map(|drift| (part.name.clone(), format!("boot override {} shown", drift.observed))));
    }
    let machines = loaded.fleet.machines.values().map(|machine| {
        let identity = &machine.identity;
        let told = [("serial", identity.serial.is_some()), ("uuid", identity.uuid.is_some())];
        let told: Vec<&str> = told.into_iter().filter(|(_, told)| *told).map(|(what, _)| what).collect();
        let drift = overrides.get(&machine.name).cloned().unwrap_or_else(|| "no drift".to_owned());
        format!("{} ({}, {} nics): claim, then nothing; {drift}", machine.name, told.join(" and "), machine.nics.len())
    });
    machines.collect::<Vec<_>>().join("; ")
}

/// Every recorded tree that is a machine is adopted, and nothing follows but the claim; the others are refused with the reason.
#[tokio::test]
async fn every_recorded_machine_is_adopted_and_nothing_follows() {
    let Some(folder) = mockups() else { return };
    let mut table = String::new();
    for (name, path) in sets(&folder) {
        let peer = Peer::start(load(&path), |_, _| None).await;
        let fleet = empty_fleet();
        let (rows, output) = adopt(fleet.path(), &peer, &[]).await;
        let adopted = rows.iter().all(|row| row["result"] == "written");
        let result = if adopted {
            assert_eq!(output.status.code(), Some(0), "{name}");
            let validated = rackwright(fleet.path(), &["validate", "fleet", "--strict"]).await;
            assert_eq!(validated.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&validated.stderr));
            leads_to_nothing(fleet.path(), &name).await
        } else {
            assert_eq!(output.status.code(), Some(1), "{name}");
            assert!(!fleet.path().join("fleet/machines").exists(), "{name}: nothing is written of what is no machine");
            let why = rows.iter().map(|row| row["why"].as_str().unwrap_or("?").replace(&peer.address, "BMC"));
            format!("not a machine: {}", why.collect::<Vec<_>>().join("; "))
        };
        let port = peer.address.rsplit(':').next().unwrap();
        let _ = writeln!(table, "{name}: {}", result.replace(port, "PORT"));
        let tree = peer.tree.lock().unwrap();
        assert!(tree.tokens.is_empty(), "{name}: a session was not given back");
        let sessions = tree.asked.iter().filter(|ask| ask.method != "GET");
        let orders: Vec<_> =
            sessions.filter(|ask| !ask.path.to_lowercase().contains("sessions")).map(|ask| (&ask.method, &ask.path)).collect();
        assert!(orders.is_empty(), "{name}: adopting changes nothing: {orders:?}");
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bmc_redfish/adopted.txt");
    if std::env::var_os("UPDATE_RECORDED").is_some() {
        fs::write(&committed, &table).unwrap();
    }
    assert_eq!(table, fs::read_to_string(&committed).unwrap_or_default(), "run with UPDATE_RECORDED=1 if the change is meant");
}

/// A machine of two systems: a manifest each, with its path.
#[tokio::test]
async fn each_of_several_systems_gets_a_manifest_of_its_own() {
    let mut tree = Tree::small();
    let mut second = tree.get("/redfish/v1/Systems/box").clone();
    second["@odata.id"] = json!("/redfish/v1/Systems/other");
    second["SerialNumber"] = json!("S2");
    second["UUID"] = json!("21111111-2222-3333-4444-555555555555");
    second["EthernetInterfaces"] = json!({"@odata.id": "/redfish/v1/Eth2"});
    tree.put("/redfish/v1/Systems/other", second);
    tree.put("/redfish/v1/Eth2", json!({"Members": [{"@odata.id": "/redfish/v1/Eth2/1"}]}));
    tree.put("/redfish/v1/Eth2/1", json!({"Id": "1", "MACAddress": "52:54:00:00:00:09"}));
    let links = json!({"Members": [{"@odata.id": "/redfish/v1/Systems/box"}, {"@odata.id": "/redfish/v1/Systems/other"}]});
    tree.put("/redfish/v1/Systems", links);
    let peer = Peer::start(tree, |_, _| None).await;
    let fleet = empty_fleet();
    let (rows, _) = adopt(fleet.path(), &peer, &[]).await;
    let results: Vec<_> = rows.iter().map(|row| (row["result"].as_str().unwrap(), row["machine"].as_str().unwrap())).collect();
    assert_eq!(results, [("written", "s1"), ("written", "s2")]);
    assert!(rows[1]["bmc"].as_str().unwrap().ends_with("/redfish/v1/Systems/other"));
    leads_to_nothing(fleet.path(), "two systems").await;
    assert_eq!(peer.tree.lock().unwrap().tokens.len(), 0);
}

/// Whatever a BMC says, it ends in its own value or comment: the manifest says nothing that was not meant.
#[tokio::test]
async fn a_bmc_that_writes_yaml_writes_no_manifest() {
    let evil = "X\n  onClaim: Install\n  power: Off\nspec: {rebuild: 9}\n---\nkind: Fleet\n# ";
    let mut tree = Tree::small();
    let mut system = tree.get("/redfish/v1/Systems/box").clone();
    for field in ["Model", "Manufacturer", "HostName", "SerialNumber", "SKU"] {
        system[field] = json!(format!("{evil}{field}\u{2028}rebuild: 1\u{85}suspend: true"));
    }
    tree.put("/redfish/v1/Systems/box", system);
    tree.put("/redfish/v1/Eth/1", json!({"Id": format!("a\", mac: \"52:54:00:00:00:02\"}}\n{evil}"), "MACAddress": "52:54:00:00:00:01"}));
    tree.put("/redfish/v1/Drive/a", json!({"Id": evil, "SerialNumber": format!("}}\n{evil}"), "Model": evil, "CapacityBytes": 1}));
    let peer = Peer::start(tree, |_, _| None).await;
    let fleet = empty_fleet();
    for from in ["hostname", "serial", "address"] {
        let _ = fs::remove_dir_all(fleet.path().join("fleet/machines"));
        let (rows, _) = adopt(fleet.path(), &peer, &["--name-from", from]).await;
        assert_eq!(rows[0]["result"], "written", "{rows:?}");
        let loaded = manifest::load(&fleet_files(fleet.path()), &mut Cache::default());
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert_eq!(loaded.fleet.machines.len(), 1);
        let machine = loaded.fleet.machines.values().next().unwrap();
        assert_eq!(machine.on_claim, rackwright::model::OnClaim::Adopt);
        assert_eq!(machine.power, rackwright::model::PowerIntent::Unmanaged);
        assert!(!machine.suspend && machine.install.is_none() && machine.disks.system.is_none() && machine.nics.len() == 1);
        leads_to_nothing(fleet.path(), "evil").await;
        // Nor can it move the cursor of whoever reads what became of it.
        let shown = rackwright(
            fleet.path(),
            &["adopt", &peer.address, "--trust-seen", "--into", "fleet", "--user", "user", "--password-file", "password"],
        )
        .await;
        let control = |byte: &u8| *byte < 32 && *byte != b'\n';
        assert!(!shown.stdout.iter().chain(&shown.stderr).any(control), "{}", String::from_utf8_lossy(&shown.stdout));
    }
}
