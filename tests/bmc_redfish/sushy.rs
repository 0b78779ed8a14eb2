//! The client against sushy-tools' emulator, a Redfish service that we did not write: TLS, Basic authentication, no sessions,
//! no ETags, power that takes up to 11 s, redirects from names to UUIDs, and "Once" that reads back as "Continuous".

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rackwright::{
    bmc::{Redfish, observe_once},
    model::{BmcTarget, BootMode, Fingerprint, Observation, PowerState, Seen, Timestamp, Trust, Unknown},
    ports::{Bmc as _, Credential, PowerCommand},
};

use crate::peer::{Password, quick, target};

const UUID: &str = "27946b59-9e44-4fa7-8e91-f3527a1ef094";

struct Emulator {
    child: Child,
    address: String,
    fingerprint: Fingerprint,
    _state: tempfile::TempDir,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The virtual environment with sushy-tools, made if it is missing.
fn python() -> Option<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new(package.join("scripts/testbed-python")).output();
    if made.as_ref().is_ok_and(|made| made.status.success()) {
        return Some(package.join("target/venv-sushy/bin"));
    }
    println!("skipped: sushy-tools is not installed (apt-get install python3-venv; needs a Python package index): {made:?}");
    None
}

fn start() -> Option<Emulator> {
    let bin = python()?;
    let state = tempfile::tempdir().unwrap();
    let file = |name: &str| state.path().join(name);
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(file("cert.pem"), signed.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    let hash = "import bcrypt; print('user:' + bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode())";
    let hash = Command::new(bin.join("python")).args(["-c", hash]).output().unwrap();
    assert!(hash.status.success(), "{hash:?}");
    std::fs::write(file("htpasswd"), hash.stdout).unwrap();
    let config = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = 0\nSUSHY_EMULATOR_SSL_CERT = {:?}\n\
         SUSHY_EMULATOR_SSL_KEY = {:?}\nSUSHY_EMULATOR_AUTH_FILE = {:?}\nSUSHY_EMULATOR_STATE_DIR = {:?}\n\
         SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{UUID}', 'name': 'node1', 'power_state': 'Off',\n\
         'external_notifier': False, 'nics': [{{'mac': '52:54:00:00:00:01', 'ip': '10.0.0.1'}}]}}]\n",
        file("cert.pem"),
        file("key.pem"),
        file("htpasswd"),
        state.path()
    );
    std::fs::write(file("emulator.conf"), config).unwrap();
    let mut child = Command::new(bin.join("sushy-emulator"))
        .arg("--config")
        .arg(file("emulator.conf"))
        .env("PYTHONUNBUFFERED", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = log.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned()));
    // It blocks when nobody reads what it logs.
    std::thread::spawn(move || log.for_each(drop));
    let fingerprint = Fingerprint::of(signed.cert.der());
    let mut emulator = Emulator { child, address: String::new(), fingerprint, _state: state };
    emulator.address = running.unwrap_or_else(|| panic!("the emulator did not start: {:?}", emulator.child.wait()));
    Some(emulator)
}

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

async fn until_power(redfish: &Redfish, target: &BmcTarget, state: PowerState) -> Observation {
    for _ in 0..120 {
        let seen = redfish.observe(target, now()).await;
        if seen.power == Seen::Known(state) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("power never became {state}")
}

#[tokio::test]
async fn sushy_tools_is_observed_and_ordered() {
    let Some(emulator) = start() else { return };
    let target = target(&emulator.address, Trust::Pinned(emulator.fingerprint));
    let password = Password(Arc::new(std::sync::Mutex::new("secret".into())));
    let redfish = Redfish::new(quick(), Arc::new(password.clone())).unwrap();
    let seen = redfish.observe(&target, now()).await;
    assert_eq!(seen.power, Seen::Known(PowerState::Off), "{seen:?}");
    assert_eq!(seen.identity.known().unwrap().uuid.as_deref(), Some(UUID));
    assert_eq!(seen.nics.known().unwrap()[0].mac.to_string(), "52:54:00:00:00:01");

    redfish.boot_from_network(&target, BootMode::UEFI).await.unwrap();
    let boot = redfish.observe(&target, now()).await.boot_override;
    assert_eq!(boot.known().unwrap().target, "Pxe", "{boot:?}");

    redfish.power(&target, PowerCommand::On).await.unwrap();
    until_power(&redfish, &target, PowerState::On).await;
    redfish.power(&target, PowerCommand::On).await.unwrap();
    redfish.power(&target, PowerCommand::ForceOff).await.unwrap();
    until_power(&redfish, &target, PowerState::Off).await;

    *password.0.lock().unwrap() = "wrong".into();
    let seen = redfish.observe(&target, now()).await;
    assert!(matches!(seen.power, Seen::Unknown(Unknown::Unauthorized(_))), "{:?}", seen.power);
    redfish.close().await;
}

#[tokio::test]
async fn sushy_tools_is_observed_without_a_fleet() {
    let Some(emulator) = start() else { return };
    let credential = Credential { username: "user".into(), password: "secret".into() };
    let pinned = Trust::Pinned(emulator.fingerprint);
    let seen = observe_once(quick(), &emulator.address, Some(credential), pinned, now()).await.unwrap();
    assert_eq!(seen.power, Seen::Known(PowerState::Off));
    assert_eq!(seen.source, emulator.address);
    let seen = observe_once(quick(), &emulator.address, None, Trust::Insecure, now()).await.unwrap();
    assert!(matches!(seen.power, Seen::Unknown(Unknown::Unauthorized(_))), "{:?}", seen.power);
}
