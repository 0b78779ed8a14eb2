//! A boot server on loopback with one machine, and a witness that records.
#![allow(dead_code)]

pub mod net;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use rackwright::{
    boot::{Config, Server},
    model::{
        AttemptId, BootTable, CheckReport, CommitId, DhcpMode, Digest, DiskHint, Evidence, Generation, HandoffName, Image, ImageFormat,
        Install, Mac, MachineName, Network, Progress, Reservation, RetryClass, Rung, SignedDuration, Ticket, Timestamp, Work,
    },
    ports::{Boot as _, JournalError, Witness, WitnessError},
};
use tempfile::TempDir;

pub const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// What was told to it, and what it shall say.
#[derive(Default)]
pub struct Recorder {
    pub saw: Mutex<Vec<(AttemptId, Evidence)>>,
    pub failed: Mutex<Vec<(AttemptId, bool, String, String)>>,
    pub checked: Mutex<Vec<(AttemptId, CheckReport)>>,
    pub progress: Mutex<Vec<Progress>>,
    /// Names that were published, and names that were lost.
    pub published: Mutex<Vec<(AttemptId, Vec<String>)>>,
    pub lost: Mutex<Vec<(AttemptId, Vec<String>)>>,
    pub refused: Mutex<Vec<(Option<MachineName>, String)>>,
    pub closed: AtomicBool,
    pub disk_full: AtomicBool,
}

impl Recorder {
    pub fn rungs(&self) -> Vec<Rung> {
        self.saw.lock().unwrap().iter().map(|(_, evidence)| evidence.rung()).collect()
    }

    fn check(&self, attempt: &AttemptId) -> Result<(), WitnessError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(WitnessError::NotOpen { attempt: attempt.clone() });
        }
        if self.disk_full.load(Ordering::SeqCst) {
            return Err(WitnessError::Journal(JournalError { message: "disk full".into(), class: RetryClass::Wait, source: None }));
        }
        Ok(())
    }
}

#[async_trait]
impl Witness for Recorder {
    async fn saw(&self, attempt: &AttemptId, evidence: Evidence) -> Result<(), WitnessError> {
        self.check(attempt)?;
        let mut saw = self.saw.lock().unwrap();
        if !saw.iter().any(|(_, known)| *known == evidence) {
            saw.push((attempt.clone(), evidence));
        }
        Ok(())
    }

    async fn failed(&self, attempt: &AttemptId, wrote: bool, code: &str, why: &str) -> Result<(), WitnessError> {
        self.check(attempt)?;
        self.failed.lock().unwrap().push((attempt.clone(), wrote, code.into(), why.into()));
        Ok(())
    }

    async fn checked(&self, attempt: &AttemptId, report: CheckReport) -> Result<(), WitnessError> {
        self.check(attempt)?;
        self.checked.lock().unwrap().push((attempt.clone(), report));
        Ok(())
    }

    async fn published(&self, _: &MachineName, attempt: &AttemptId, names: &BTreeSet<HandoffName>) -> Result<(), WitnessError> {
        self.check(attempt)?;
        self.published.lock().unwrap().push((attempt.clone(), names.iter().map(ToString::to_string).collect()));
        Ok(())
    }

    async fn values_lost(&self, _: &MachineName, attempt: &AttemptId, names: &BTreeSet<HandoffName>) -> Result<(), WitnessError> {
        self.lost.lock().unwrap().push((attempt.clone(), names.iter().map(ToString::to_string).collect()));
        Ok(())
    }

    fn progress(&self, _: &AttemptId, progress: Progress) {
        self.progress.lock().unwrap().push(progress);
    }

    fn refused(&self, machine: Option<&MachineName>, what: &str) {
        self.refused.lock().unwrap().push((machine.cloned(), what.into()));
    }
}

/// A running boot server with its folders.
pub struct Site {
    pub folder: TempDir,
    pub server: Server,
    pub witness: Arc<Recorder>,
}

pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Bytes that differ from place to place.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub fn config(folder: &Path, listen: Ipv4Addr) -> Config {
    let any = SocketAddr::from((listen, 0));
    let mut config = Config::new(listen);
    (config.dhcp, config.proxy_dhcp) = (Some(any), Some(any));
    (config.tftp, config.http, config.https) = (any, any, any);
    config.files = folder.join("files");
    config.images = Some(folder.join("images"));
    config.kernel = Some(folder.join("kernel"));
    config.initramfs = Some(folder.join("initramfs"));
    config
}

pub fn fill(folder: &Path) {
    for (name, size) in [("undionly.kpxe", 70_000), ("snponly.efi", 300_000), ("ipxe.efi", 1 << 20), ("localboot.efi", 700_000)] {
        write(&folder.join("files").join(name), pattern(size));
    }
    write(&folder.join("kernel"), pattern(100_000));
    write(&folder.join("initramfs"), pattern(200_000));
    write(&folder.join("images/debian.raw"), pattern(1_000_000));
    std::fs::create_dir_all(folder.join("state")).unwrap();
}

impl Site {
    /// On 127.0.0.1, with `table` in force.
    pub async fn start(table: BootTable) -> Site {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let witness = Arc::new(Recorder::default());
        let config = config(folder.path(), Ipv4Addr::LOCALHOST);
        let server = Server::start(config, &folder.path().join("state"), witness.clone()).await.unwrap();
        server.publish(Arc::new(table)).await;
        Site { folder, server, witness }
    }

    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.addresses().http)
    }

    pub fn https(&self, path: &str) -> String {
        format!("https://{}{path}", self.server.addresses().https)
    }
}

pub fn network(name: &str, subnet: &str, dhcp: DhcpMode) -> Network {
    Network {
        name: name.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        vlan: None,
        gateway: None,
        dns: Vec::new(),
        ntp: Vec::new(),
        dhcp,
    }
}

/// One machine, `web-01`, whose boot interface has `address` in `network`; no ticket.
pub fn table(mac: Mac, address: Option<Ipv4Addr>, network: Network) -> BootTable {
    let reservation = Reservation { machine: "web-01".parse().unwrap(), mac, address, network: Some(network.name.clone()), boot: true };
    BootTable {
        networks: BTreeMap::from([(network.name.clone(), network)]),
        reservations: BTreeMap::from([(mac, reservation)]),
        ..BootTable::default()
    }
}

pub fn ticket(mac: Mac) -> Ticket {
    let digest = Digest::of(b"image");
    let (name, url) = ("debian".parse().unwrap(), "debian.raw".to_owned());
    let image = Image { name, digest, format: ImageFormat::Raw, url, size: None };
    Ticket {
        attempt: "web-01#3".parse().unwrap(),
        commit: CommitId([1; 20]),
        expires: Timestamp::now() + SignedDuration::from_hours(1),
        mac,
        serial: Some("CZ1".to_owned()),
        uuid: None,
        keep: Vec::new(),
        work: Work::Install {
            install: Box::new(Install { generation: Generation::of(digest, None, 0), image, user_data: None, rebuild: 0 }),
            system: DiskHint { serial: Some("S5".to_owned()), ..DiskHint::default() },
        },
        evidence: Vec::new(),
    }
}

/// `web-01` at 127.0.0.1.
pub fn loopback() -> BootTable {
    table(MAC, Some(Ipv4Addr::LOCALHOST), network("sim", "127.0.0.0/8", DhcpMode::Authoritative))
}

pub fn loopback_with_ticket() -> BootTable {
    let mut table = loopback();
    table.tickets.insert(MAC, ticket(MAC));
    table
}

/// A ticket holder in the same network as 127.0.0.1, which is a stranger.
pub fn holder_elsewhere() -> BootTable {
    let address = Some(Ipv4Addr::new(127, 0, 0, 9));
    let mut table = table(MAC, address, network("sim", "127.0.0.0/8", DhcpMode::Authoritative));
    table.tickets.insert(MAC, ticket(MAC));
    table
}

/// Whether a program is there; says that the test is skipped if not.
pub fn has(program: &str, package: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder: std::path::PathBuf| folder.join(program).is_file());
    if !found {
        println!("skipped: {program} is not installed (apt-get install {package})");
    }
    found
}

/// Waits until `done`, and fails the test if that never happens.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}
