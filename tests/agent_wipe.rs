//! The agent wipes: over TLS, on files, with hosts and disks that are not what they seem. What is proved is compared with the files.
#![cfg(feature = "controller")]
#![allow(clippy::unwrap_used, missing_docs)]

mod agent_support;

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use agent_support::*;
use rackwright::{
    agent::{Barred, Disk, End, FileDisk, Host, Pace, Params, code, run},
    model::*,
};

const DISK: u64 = 24 * MIB;

struct Machine {
    folder: PathBuf,
    barred: Mutex<Vec<Barred>>,
    listings: AtomicU32,
    /// What the disks are from a listing on.
    becomes: Mutex<Option<(u32, Vec<ObservedDisk>)>>,
    /// Writes to this disk beyond its first MiB fail.
    broken: Option<&'static str>,
}

struct Breaks(FileDisk);

impl Disk for Breaks {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn sector(&self) -> u64 {
        self.0.sector()
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(5))
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }
    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        if offset > 0 { Err(io::Error::from_raw_os_error(5)) } else { self.0.zero(offset, len) }
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

fn observed(name: &str) -> ObservedDisk {
    let (name, serial) = (name.to_owned(), Some(format!("{name}-serial")));
    ObservedDisk { name, serial, size: Some(DISK), ..ObservedDisk::default() }
}

impl Host for Machine {
    fn serial(&self) -> Option<String> {
        Some("SN1".to_owned())
    }
    fn uuid(&self) -> Option<String> {
        None
    }
    fn uefi(&self) -> bool {
        true
    }
    fn disks(&self) -> io::Result<Vec<ObservedDisk>> {
        let listing = self.listings.fetch_add(1, Ordering::SeqCst) + 1;
        match &*self.becomes.lock().unwrap() {
            Some((from, disks)) if listing >= *from => Ok(disks.clone()),
            _ => Ok(["sda", "sdb", "sdc"].map(observed).to_vec()),
        }
    }
    fn barred(&self) -> io::Result<Vec<Barred>> {
        Ok(self.barred.lock().unwrap().clone())
    }
    fn nics(&self) -> Vec<ObservedNic> {
        vec![]
    }
    fn open(&self, disk: &ObservedDisk) -> io::Result<Box<dyn Disk>> {
        let file = FileDisk::open_or_create(&self.folder.join(&disk.name), DISK)?;
        Ok(if self.broken == Some(disk.name.as_str()) { Box::new(Breaks(file)) } else { Box::new(file) })
    }
    fn set_boot_entry(&self, _: &ObservedDisk) -> io::Result<()> {
        unreachable!("nothing is started from a wiped disk")
    }
    fn say(&self, _: &str) {}
}

struct Bench {
    world: Arc<World>,
    _server: Server,
    machine: Arc<Machine>,
    folder: tempfile::TempDir,
    params: Params,
}

fn serial(text: &str) -> DiskHint {
    DiskHint { serial: Some(format!("{text}-serial")), ..DiskHint::default() }
}

impl Bench {
    fn new(method: WipeMethod, targets: Targets, keep: Vec<DiskHint>) -> Self {
        Self::with(method, targets, keep, None)
    }

    fn with(method: WipeMethod, targets: Targets, keep: Vec<DiskHint>, broken: Option<&'static str>) -> Self {
        let (world, identity, folder) = (Arc::new(World::default()), identity(), tempfile::tempdir().unwrap());
        let server = serve(&world, &identity, "127.0.0.1:0");
        let attempt = "web-01#1".parse().unwrap();
        *world.command.lock().unwrap() = Some(AgentCommand::Wipe { attempt, method, targets, keep });
        let url = format!("https://{}", server.address);
        let params = Params { url, fingerprint: identity.fingerprint, token: TOKEN.to_owned(), mac: None };
        for name in ["sda", "sdb", "sdc"] {
            fs::write(folder.path().join(name), vec![0xEE; DISK as usize]).unwrap();
        }
        let machine = Machine {
            folder: folder.path().to_owned(),
            barred: Mutex::default(),
            listings: AtomicU32::default(),
            becomes: Mutex::default(),
            broken,
        };
        Self { world, _server: server, machine: Arc::new(machine), folder, params }
    }

    async fn run(&self) -> End {
        let pace = Pace {
            retry_first: Duration::from_millis(10),
            retry_most: Duration::from_millis(100),
            give_up: Duration::from_secs(60),
            progress: Duration::from_millis(20),
            ..Pace::default()
        };
        let agent = tokio::spawn(run(self.params.clone(), self.machine.clone(), "boot-1".to_owned(), pace));
        tokio::time::timeout(Duration::from_secs(100), agent).await.expect("the agent does not end").unwrap()
    }

    fn events(&self) -> Vec<AgentEvent> {
        let events = self.world.events.lock().unwrap().clone();
        events.into_iter().filter(|event| !matches!(event, AgentEvent::Progress(_))).collect()
    }

    fn is_wiped(&self, name: &str) -> bool {
        let bytes = fs::read(self.folder.path().join(name)).unwrap();
        let zero = bytes.iter().all(|byte| *byte == 0);
        assert!(zero || bytes.iter().all(|byte| *byte == 0xEE), "{name} is half wiped");
        zero
    }

    /// Ends halted with this code, and no disk was touched.
    async fn refuses(&self, code: &str) -> String {
        let end = self.run().await;
        let events = self.events();
        let Some(AgentEvent::Failed { wrote, code: told, message }) = events.last() else { panic!("{events:?}") };
        assert_eq!((told.as_str(), wrote), (code, &false), "{message}");
        assert_eq!(end, End::Halt { why: message.clone() });
        assert!(["sda", "sdb", "sdc"].iter().all(|name| !self.is_wiped(name)), "{message}");
        message.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_but_the_one_to_keep_are_wiped_and_proved() {
    let bench = Bench::new(WipeMethod::Zero, Targets::All, vec![serial("sdb")]);
    assert_eq!(bench.run().await, End::PowerOff);
    assert_eq!(["sda", "sdb", "sdc"].map(|name| bench.is_wiped(name)), [true, false, true]);
    let events = bench.events();
    let [AgentEvent::Wiping { disks }, AgentEvent::Wiped { proof }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(disks, &[observed("sda"), observed("sdc")]);
    for (proof, disk) in proof.iter().zip(disks) {
        assert_eq!(proof.gap(disk, WipeMethod::Zero), None);
        assert_eq!(proof.digest, Digest::of(&fs::read(bench.folder.path().join(&disk.name)).unwrap()));
    }
    assert_eq!(proof.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hints_do_not_mean_stops_it_before_anything() {
    let each = |names: &[&str]| Targets::Each(names.iter().map(|name| serial(name)).collect());
    for (targets, keep, code) in [
        (Targets::All, vec![serial("sdx")], "keep-unclear"),
        (each(&["sda", "sdx"]), vec![], "no-disk-matches"),
        (each(&["sda", "sda"]), vec![], "two-hints-one-disk"),
        (each(&["sda", "sdb"]), vec![serial("sdb")], "disk-kept"),
    ] {
        Bench::new(WipeMethod::Zero, targets, keep).refuses(code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_one_disk_does_not_know_stops_it_for_all() {
    let message = Bench::new(WipeMethod::SecureErase, Targets::All, vec![]).refuses(code::WIPE_UNSUPPORTED).await;
    assert!(message.starts_with("sda: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_does_not_leave_out_a_disk_in_silence() {
    let barred = |name: &str, code| Barred { name: name.to_owned(), code, why: "is strange" };
    let bench = Bench::new(WipeMethod::Zero, Targets::All, vec![]);
    bench.machine.barred.lock().unwrap().push(barred("sdr", code::DISK_READ_ONLY));
    let message = bench.refuses(code::DISK_READ_ONLY).await;
    assert!(message.contains("sdr is strange; name the disks to wipe instead of all"), "{message}");
    let bench = Bench::new(WipeMethod::Zero, Targets::All, vec![]);
    bench.machine.barred.lock().unwrap().push(barred("sdc", code::DISK_REMOTE));
    bench.refuses(code::DISK_REMOTE).await;
    // One to keep, and whatever is not meant by a hint, may be anything.
    for (targets, keep) in [(Targets::All, vec![serial("sdc")]), (Targets::Each(vec![serial("sda"), serial("sdb")]), vec![])] {
        let bench = Bench::new(WipeMethod::Zero, targets, keep);
        bench.machine.barred.lock().unwrap().push(barred("sdc", code::DISK_REMOTE));
        assert_eq!(bench.run().await, End::PowerOff);
        assert!(!bench.is_wiped("sdc"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_comes_before_the_first_byte_is_seen() {
    // The first listing is the hello's; one is before leave is asked for, one after it is given.
    for listing in [2, 3] {
        let bench = Bench::new(WipeMethod::Zero, Targets::All, vec![]);
        *bench.machine.becomes.lock().unwrap() = Some((listing, ["sda", "sdb", "sdc", "sdd"].map(observed).to_vec()));
        bench.refuses(code::DISK_CHANGED).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_nothing_is_wiped() {
    let bench = Bench::new(WipeMethod::Zero, Targets::All, vec![]);
    *bench.world.forbid.lock().unwrap() = Some("wiping");
    assert_eq!(bench.run().await, End::Halt { why: "the boot server says 409: a newer attempt exists".to_owned() });
    assert!(["sda", "sdb", "sdc"].iter().all(|name| !bench.is_wiped(name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_disk_that_fails_does_not_stop_the_others_and_nothing_is_claimed() {
    let bench = Bench::with(WipeMethod::Zero, Targets::All, vec![], Some("sdb"));
    assert!(matches!(bench.run().await, End::Halt { .. }));
    let events = bench.events();
    let [AgentEvent::Wiping { .. }, AgentEvent::Failed { wrote: true, code, message }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(code, code::DISK_WRITE);
    assert!(message.starts_with("sdb: ") && message.contains("wiped all the same: sda (serial sda-serial)"), "{message}");
    assert!(message.contains("sdc (serial sdc-serial)"), "{message}");
    assert!(bench.is_wiped("sda") && bench.is_wiped("sdc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_wiped_already_is_switched_off() {
    let bench = Bench::new(WipeMethod::Zero, Targets::All, vec![]);
    *bench.world.command.lock().unwrap() = Some(AgentCommand::SwitchOff);
    assert_eq!(bench.run().await, End::PowerOff);
    assert_eq!(bench.events(), []);
    assert!(!bench.is_wiped("sda"));
}
