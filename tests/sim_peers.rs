//! Programs that were not written here, against the simulator's BMC: OpenStack's client library sushy, and DMTF's service validator.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rackwright::sim::{Config, Simulator};

async fn simulator(folder: &Path, address: &str) -> (Simulator, String) {
    let text = format!(
        "
credentials: {{username: admin, password: secret}}
stateDir: {}
pace: {{powerLag: 100ms, post: 100ms, shutdown: 50ms}}
machines:
  - name: node-1
    address: {address}
    port: 0
    serial: SIM0001
    uuid: 00000000-0000-4000-8000-000000000001
    mac: 52:54:00:77:00:01
    disks: [{{serial: DISK1, size: 64 MiB, wwn: '0x5002538e00a1b2c3'}}, {{serial: DISK2, size: 128 MiB}}]
    requireIfMatch: true
",
        folder.display()
    );
    let simulator = Simulator::start(serde_yaml::from_str::<Config>(&text).unwrap()).await.unwrap();
    let url = format!("https://{}", simulator.machines()[0].bmc);
    (simulator, url)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Python of a virtual environment under `target/`, made when it is not there.
fn python(venv: &str, packages: &[&str]) -> Option<PathBuf> {
    let folder = root().join("target").join(venv);
    let python = folder.join("bin/python");
    let imports = |python: &Path| {
        Command::new(python).args(["-m", "pip", "show", "-q"]).args(packages.iter().map(|p| p.split('=').next().unwrap())).status()
    };
    if imports(&python).is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status().is_ok_and(|status| status.success());
    let installed = made
        && Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages).status().is_ok_and(|status| status.success());
    installed.then_some(python)
}

const SUSHY: &str = r#"
import sys, time, sushy
from sushy import auth
url, kind = sys.argv[1:3]
login = {'session': auth.SessionAuth, 'basic': auth.BasicAuth}[kind]('admin', 'secret')
service = sushy.Sushy(url, verify=False, auth=login)
system = service.get_system('/redfish/v1/Systems/node-1')
def until(state):
    while True:
        system.refresh(force=True)
        if system.power_state.value == state: return
        time.sleep(0.02)
assert service.get_system_collection().members_identities == ('/redfish/v1/Systems/node-1',)
assert system.uuid == '00000000-0000-4000-8000-000000000001', system.uuid
assert system.power_state.value == 'Off', system.power_state
assert 'ForceOff' in [r.value for r in system.get_allowed_reset_system_values()]
assert 'Pxe' in [t.value for t in system.get_allowed_system_boot_source_values()]
assert list(system.ethernet_interfaces.summary) == ['52:54:00:77:00:01']
drives = [d for s in system.storage.get_members() for d in s.drives]
assert [(d.name, d.capacity_bytes) for d in drives] == [('Disk 1', 64 << 20), ('Disk 2', 128 << 20)], drives
system.set_system_boot_options(target=sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE)
system.refresh(force=True)
assert (system.boot.target.value, system.boot.enabled.value) == ('Pxe', 'Once'), system.boot
system.reset_system(sushy.RESET_ON); until('On')
for _ in range(500):
    system.refresh(force=True)
    if system.boot.enabled.value == 'Disabled': break
    time.sleep(0.02)
assert system.boot.enabled.value == 'Disabled', 'the override is used up by the boot'
system.set_system_boot_options(target=sushy.BOOT_SOURCE_TARGET_HDD, enabled=sushy.BOOT_SOURCE_ENABLED_CONTINUOUS)
system.reset_system(sushy.RESET_GRACEFUL_SHUTDOWN); until('Off')
system.reset_system(sushy.RESET_ON); until('On')
assert system.boot.enabled.value == 'Continuous'
system.reset_system(sushy.RESET_FORCE_OFF); until('Off')
system.set_system_boot_options(enabled=sushy.BOOT_SOURCE_ENABLED_DISABLED)
firmware = service.get_update_service().firmware_inventory.get_members()
assert sorted(f.identity for f in firmware) == ['BIOS', 'BMC']
assert service.get_manager_collection().get_members()[0].manager_type.value == 'BMC'
print('sushy', kind, 'done')
"#;

#[tokio::test(flavor = "multi_thread")]
async fn sushy_drives_power_boot_and_reads_the_inventory() {
    let _ = Command::new(root().join("scripts/testbed-python")).status();
    let Some(python) = python("venv-sushy", &["sushy==5.14.0"]) else {
        println!("skipped: sushy is not installed (python3-venv and a package index are needed)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (_simulator, url) = simulator(folder.path(), "127.77.2.1").await;
    for kind in ["session", "basic"] {
        let mut command = Command::new(&python);
        command.args(["-W", "ignore", "-c", SUSHY, &url, kind]);
        let output = run(command).await;
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Failures of the validator that are accepted, as it names them. May only shrink.
const ACCEPTED_FAILURES: u32 = 0;

#[tokio::test(flavor = "multi_thread")]
async fn the_dmtf_service_validator_finds_nothing_wrong() {
    let Some(schemas) = schemas() else {
        println!("skipped: Redfish schemas can't be had (the crate nv-redfish-schema 0.22.1 from a crate registry)");
        return;
    };
    let Some(python) = python("venv-validator", &["redfish-service-validator==3.1.8"]) else {
        println!("skipped: redfish-service-validator is not installed (python3-venv and a package index are needed)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (_simulator, url) = simulator(folder.path(), "127.77.2.2").await;
    let mut command = Command::new(python.with_file_name("rf_service_validator"));
    command.args(["-r", &url, "-u", "admin", "-p", "secret", "--authtype", "Session", "--skipschema", "--schema_directory"]);
    command.arg(&schemas).arg("--logdir").arg(folder.path().join("logs")).current_dir(folder.path());
    let output = run(command).await;
    let text = String::from_utf8_lossy(&output.stdout);
    // The last table: PASS, WARN, FAIL, NOT TESTED.
    let row = text.lines().rfind(|line| line.starts_with('|')).unwrap_or_else(|| panic!("no result:\n{text}"));
    let numbers: Vec<u32> = row.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
    assert!(numbers[0] > 300, "{text}");
    assert_eq!(numbers[2], ACCEPTED_FAILURES, "{text}");
}

/// The folder of Redfish's CSDL files, from the sources of a crate that holds them. Cargo fetches it into its own registry.
fn schemas() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    let find = || {
        let sources = std::fs::read_dir(cargo_home.join("registry/src")).ok()?;
        sources.flatten().map(|registry| registry.path().join("nv-redfish-schema-0.22.1/redfish-csdl/csdl")).find(|folder| folder.is_dir())
    };
    find().or_else(|| {
        let _ = Command::new(env!("CARGO")).args(["info", "--quiet", "nv-redfish-schema@0.22.1"]).output();
        find()
    })
}
