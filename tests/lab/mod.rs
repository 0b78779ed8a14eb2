//! A laboratory: simulated machines, a fleet repository and the real controller, all in one temporary folder and on loopback.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use rackwright::{
    cli::{config::Config, get::get_json, run::Controller},
    model::{Fingerprint, MachineName, Status},
    sim::{SampleImage, Simulator},
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const PASSWORD: &str = "laboratory";
/// Longest that anything may take on a slow and busy machine. Nothing here asserts how long something took.
pub const PATIENCE: Duration = Duration::from_secs(120);

static LABS: AtomicU8 = AtomicU8::new(0);

/// One machine of a laboratory.
#[derive(Clone)]
pub struct Node {
    pub name: String,
    pub mode: &'static str,
    pub on_claim: &'static str,
    pub image: String,
    pub rebuild: u64,
    pub power: &'static str,
    /// What the manifest says of the disk; the simulated disk's serial is `D-<name>`.
    pub disk: String,
    pub disk_size: &'static str,
    pub further_disks: Vec<(&'static str, &'static str)>,
    pub serial: Option<String>,
    pub faults: Vec<&'static str>,
    pub fingerprint: Option<String>,
    /// The secret with the BMC's password: `bmc` is right, `wrong` is not.
    pub credentials: &'static str,
    /// What the simulator is told of it besides.
    pub extra: Value,
    /// Where the manifest says that the BMC is, if not where it is.
    pub bmc: Option<String>,
}

impl Node {
    pub fn new(name: &str, on_claim: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            mode: "UEFI",
            on_claim,
            image: "one".to_owned(),
            rebuild: 0,
            power: "On",
            disk: format!("{{serial: D-{name}}}"),
            disk_size: "32MiB",
            further_disks: Vec::new(),
            serial: None,
            faults: Vec::new(),
            fingerprint: None,
            credentials: "bmc",
            extra: Value::Null,
            bmc: None,
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

pub struct Lab {
    pub folder: TempDir,
    pub simulator: Simulator,
    pub images: BTreeMap<String, SampleImage>,
    pub nodes: Vec<Node>,
    /// What the controller's configuration says otherwise than a laboratory's usual one.
    pub tune: Value,
    ports: Vec<u16>,
    net: u8,
    start: Instant,
}

impl Lab {
    /// Machines that run or wait, and a repository whose first commit declares them.
    pub async fn new(nodes: Vec<Node>) -> Self {
        Self::build(nodes, "20ms").await
    }

    pub async fn build(nodes: Vec<Node>, pace: &str) -> Self {
        Self::tuned(nodes, pace, Value::Null, Value::Null).await
    }

    /// With changes (as a JSON merge patch) to the simulator's and the controller's configuration.
    pub async fn tuned(nodes: Vec<Node>, pace: &str, sim_tune: Value, tune: Value) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        if std::env::var_os("LAB_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_env_filter("warn,rackwright=debug").with_test_writer().try_init();
        }
        let folder = tempfile::Builder::new().prefix("rackwright-lab-").tempdir().unwrap();
        let net = LABS.fetch_add(1, Ordering::Relaxed);
        let ports = free_ports();
        for part in ["images", "boot", "sim", "state", "work/machines"] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        let images = sample_images(&folder.path().join("images"));
        for name in ["undionly.kpxe", "snponly.efi", "ipxe.efi", "localboot.efi", "vmlinuz", "initramfs.img"] {
            fs::write(folder.path().join("boot").join(name), vec![0x90; 40_000]).unwrap();
        }
        let mut sim = sim_config(&folder, &nodes, &ports, net, pace);
        merge(&mut sim, &sim_tune);
        let simulator = Simulator::start(serde_json::from_value(sim).unwrap()).await.unwrap();
        let lab = Self { folder, simulator, images, nodes, tune, ports, net, start: Instant::now() };
        lab.make_repository();
        lab
    }

    pub fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    pub fn make_repository(&self) {
        let bare = self.path("fleet.git");
        git(self.folder.path(), &["init", "--quiet", "--bare", "--initial-branch=main", bare.to_str().unwrap()]);
        let work = self.path("work");
        git(&work, &["init", "--quiet", "--initial-branch=main"]);
        git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
        let password = self.path("password");
        fs::write(&password, PASSWORD).unwrap();
        fs::write(self.path("password.wrong"), "not the laboratory's").unwrap();
        fs::write(work.join("fleet.yaml"), FLEET.replace("PASSWORD_FILE", password.to_str().unwrap())).unwrap();
        for (name, image) in &self.images {
            self.write_image(name, &image.digest.to_string(), &format!("{name}.raw.zst"));
        }
        self.write_machines();
        self.commit("Begin");
    }

    /// Writes the manifest of an image.
    pub fn write_image(&self, name: &str, digest: &str, url: &str) {
        fs::write(self.path("work").join(format!("image-{name}.yaml")), image_manifest(name, digest, url)).unwrap();
    }

    /// Writes all nodes' manifests as they are now.
    pub fn write_machines(&self) {
        for node in &self.nodes {
            fs::write(self.path("work/machines").join(format!("{}.yaml", node.name)), self.manifest(node)).unwrap();
        }
    }

    fn manifest(&self, node: &Node) -> String {
        let name = MachineName::new(&node.name).unwrap();
        let info = self.simulator.machines().into_iter().find(|machine| machine.name == name).unwrap();
        let index = self.nodes.iter().position(|other| other.name == node.name).unwrap();
        let address = node.bmc.clone().unwrap_or_else(|| format!("https://{}", info.bmc));
        let fingerprint = node.fingerprint.clone().unwrap_or_else(|| self.fingerprint().to_string());
        let serial = node.serial.clone().unwrap_or_else(|| format!("SN-{}", node.name));
        let Node { mode, on_claim, image, rebuild, power, disk, credentials, .. } = node;
        format!(
            "apiVersion: rackwright.dev/v1alpha1
kind: Machine
metadata: {{name: {name}, labels: {{role: lab}}}}
spec:
  image: {image}
  identity: {{serial: {serial}}}
  bmc: {{address: \"{address}\", credentials: {credentials}, fingerprint: {fingerprint}}}
  nics: [{{name: lan0, mac: \"{}\", network: lab, address: {}, boot: true}}]
  disks: {{system: {disk}}}
  boot: {{mode: {mode}}}
  power: {power}
  onClaim: {on_claim}
  rebuild: {rebuild}
",
            mac(index),
            info.bmc.ip(),
        )
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.simulator.fingerprint()
    }

    /// Commits everything and pushes it.
    pub fn commit(&self, subject: &str) -> String {
        let work = self.path("work");
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "--allow-empty", "--message", subject]);
        git(&work, &["push", "--quiet", "origin", "HEAD:main"]);
        self.head()
    }

    pub fn head(&self) -> String {
        git(&self.path("work"), &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// The controller's configuration file.
    pub fn config(&self) -> PathBuf {
        let boot = self.path("boot");
        let at = |port: usize| format!("127.0.0.1:{}", self.ports[port]);
        let mut config = json!({
            "site": "lab", "stateDir": self.path("state"),
            "repository": {"url": self.path("fleet.git"), "poll": "2s"},
            "boot": {
                "advertise": "127.0.0.1", "dhcp": at(0), "proxyDhcp": Value::Null, "tftp": at(1), "http": at(2), "https": at(3),
                "files": boot, "images": self.path("images"), "kernel": boot.join("vmlinuz"), "initramfs": boot.join("initramfs.img"),
            },
            "bmc": {"connectTimeout": "2s", "readTimeout": "4s"},
            "api": {"listen": at(4)},
            "pace": {"observeSeconds": 0.4, "observeBusySeconds": 0.1, "notesSeconds": 0.2},
            "deadlines": {
                "powerLag": "3s", "powerSettle": "1s", "shutdown": "2s", "firstPacket": "12s", "loader": "12s", "agent": "12s", "firstWrite": "10s",
                "silence": "8s", "fromDisk": "20s", "callHome": "20s", "backOff": "500ms", "commandRetry": "300ms", "stalledRetry": "500ms",
            },
        });
        merge(&mut config, &self.tune);
        let path = self.path("rackwright.yaml");
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Starts the real controller in this process.
    pub async fn controller(&self) -> Controller {
        let config = Config::read(Some(&self.config())).unwrap();
        let journal = rackwright::cli::run::open_journal(&config).unwrap();
        Controller::start(config, journal).await.unwrap()
    }

    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[4])
    }

    pub async fn status(&self) -> Option<Status> {
        get_json(&format!("{}/api/v1/status", self.api())).await.ok()
    }

    /// Waits until the status is as wanted; panics with the last one otherwise.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if let Some(status) = status.clone().filter(|status| wanted(status)) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not happen after {:?}: {status:#?}", self.start.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the status note of `commit` holds `text`.
    pub async fn note(&self, commit: &str, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let bare = self.path("fleet.git");
            let output =
                Command::new("git").args(["notes", "--ref=rackwright/lab/status", "show", commit]).current_dir(&bare).output().unwrap();
            let note = String::from_utf8_lossy(&output.stdout).into_owned();
            if note.contains(text) {
                return note;
            }
            assert!(begun.elapsed() < PATIENCE, "the note does not say {text:?}: {note}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn disk(&self, name: &str) -> PathBuf {
        self.path("sim").join(format!("{name}.D-{name}.disk"))
    }

    /// Where the disk of `name` differs from an image.
    pub fn difference(&self, name: &str, image: &str) -> Option<usize> {
        self.images[image].difference(&fs::read(self.disk(name)).unwrap_or_default())
    }

    /// How often an install began to write the disk.
    pub fn installs(&self, name: &str) -> u64 {
        self.simulator.report(name).unwrap().disks[0].writes.installs
    }

    /// Where the boot server listens: 0 is DHCP, 1 TFTP (UDP), 2 HTTP, 3 HTTPS, 4 the API.
    pub fn port(&self, which: usize) -> u16 {
        self.ports[which]
    }

    /// Tells this laboratory from others of the same process.
    pub fn net(&self) -> u8 {
        self.net
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap()
    }
}

const FLEET: &str = "apiVersion: rackwright.dev/v1alpha1
kind: Fleet
metadata: {name: fleet}
spec:
  budgets: {maxUnavailable: {group: 100%}, maxDestructive: {count: 100, share: 100%}, breaker: {failures: 50}}
---
apiVersion: rackwright.dev/v1alpha1
kind: Network
metadata: {name: lab}
spec: {subnet: 127.0.0.0/8, dhcp: Authoritative}
---
apiVersion: rackwright.dev/v1alpha1
kind: Secret
metadata: {name: bmc}
spec: {username: admin, from: {file: PASSWORD_FILE}}
---
apiVersion: rackwright.dev/v1alpha1
kind: Secret
metadata: {name: wrong}
spec: {username: admin, from: {file: PASSWORD_FILE.wrong}}
";

fn image_manifest(name: &str, digest: &str, url: &str) -> String {
    format!(
        "apiVersion: rackwright.dev/v1alpha1\nkind: Image\nmetadata: {{name: {name}}}\nspec: {{digest: {digest}, format: raw.zst, url: \"{url}\"}}\n"
    )
}

/// RFC 7396, except that null changes nothing at the top.
fn merge(into: &mut Value, patch: &Value) {
    let (Some(into), Some(patch)) = (into.as_object_mut(), patch.as_object()) else { return };
    for (key, value) in patch {
        match into.get_mut(key) {
            Some(old) if old.is_object() && value.is_object() => merge(old, value),
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

/// Images `one` and `two`. They are the same for all laboratories of a process, and made once.
fn sample_images(folder: &Path) -> BTreeMap<String, SampleImage> {
    static MADE: OnceLock<Vec<(&str, SampleImage, Vec<u8>)>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let make = |name: &'static str| {
            let scratch = tempfile::tempdir().unwrap();
            let image = SampleImage::make(scratch.path(), name, 12).unwrap();
            (name, image, fs::read(scratch.path().join(format!("{name}.raw.zst"))).unwrap())
        };
        ["one", "two"].map(make).into()
    });
    made.iter()
        .map(|(name, image, file)| {
            fs::write(folder.join(format!("{name}.raw.zst")), file).unwrap();
            ((*name).to_owned(), image.clone())
        })
        .collect()
}

fn mac(index: usize) -> String {
    format!("52:54:00:aa:00:{index:02x}")
}

fn sim_config(folder: &TempDir, nodes: &[Node], ports: &[u16], net: u8, pace: &str) -> Value {
    let machines: Vec<Value> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let mut disks = vec![json!({"serial": format!("D-{}", node.name), "size": node.disk_size})];
            disks.extend(node.further_disks.iter().map(|(serial, size)| json!({"serial": serial, "size": size})));
            let mut machine = json!({
                "name": node.name, "address": format!("127.{}.{net}.{}", 128 + std::process::id() % 100, 10 + index), "port": 0,
                "serial": format!("SN-{}", node.name), "uuid": format!("00000000-0000-4000-8000-0000000000{index:02x}"), "mac": mac(index),
                "mode": node.mode, "power": if node.on_claim == "Adopt" { "On" } else { "Off" }, "disks": disks, "faults": node.faults,
            });
            merge(&mut machine, &node.extra);
            machine
        })
        .collect();
    json!({
        "bootServer": {"dhcp": format!("127.0.0.1:{}", ports[0]), "tftp": format!("127.0.0.1:{}", ports[1])},
        "credentials": {"username": "admin", "password": PASSWORD},
        "stateDir": folder.path().join("sim"),
        "pace": {"powerLag": pace, "post": pace, "shutdown": pace, "osBoot": pace, "dhcpTimeout": "2s", "slowWrite": "50ms"},
        "machines": machines,
    })
}

/// Ports that were free a moment ago: DHCP, TFTP (UDP); HTTP, HTTPS, API (TCP).
fn free_ports() -> Vec<u16> {
    let udp: Vec<_> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let tcp: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let udp = udp.iter().map(|socket| socket.local_addr().unwrap().port());
    udp.chain(tcp.iter().map(|socket| socket.local_addr().unwrap().port())).collect()
}

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=Lab", "-c", "user.email=lab@example.org", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The machine's status.
pub fn machine<'a>(status: &'a Status, name: &str) -> &'a rackwright::model::MachineStatus {
    &status.machines[&name.parse::<MachineName>().unwrap()]
}

/// All Ready under `commit`.
pub fn ready(commit: &str) -> impl Fn(&Status) -> bool + use<> {
    let commit = commit.to_owned();
    move |status| status.commit.id.to_string() == commit && status.state == rackwright::model::State::Ready
}
