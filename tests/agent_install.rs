//! The agent, from hello to reboot, against a TLS server that behaves as badly as networks and controllers do.
#![cfg(feature = "controller")]
#![allow(clippy::unwrap_used, missing_docs)]

mod agent_support;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use agent_support::*;
use rackwright::{
    agent::{Disk, End, FileDisk, Host, Pace, Params, run, seed::read_seed},
    model::*,
};

/// How the disk misbehaves.
#[derive(Clone, Copy, Default)]
struct Faults {
    write_error_at: Option<u64>,
    loses_block: Option<u64>,
    slow: Option<Duration>,
    panics_at: Option<u64>,
    sector: Option<u64>,
}

struct Machine {
    folder: PathBuf,
    faults: Faults,
    /// Writes and zeroes by MiB of the disk.
    touched: Arc<Mutex<BTreeMap<u64, u32>>>,
    bytes: Arc<AtomicU64>,
    console: Mutex<Vec<String>>,
    listings: AtomicU32,
    /// What the disks are from a listing on.
    becomes: Mutex<Option<(u32, Vec<ObservedDisk>)>>,
}

struct Spy {
    disk: FileDisk,
    faults: Faults,
    touched: Arc<Mutex<BTreeMap<u64, u32>>>,
    bytes: Arc<AtomicU64>,
}

impl Spy {
    fn touch(&self, offset: u64, length: u64) -> io::Result<()> {
        if let Some(slow) = self.faults.slow {
            std::thread::sleep(slow);
        }
        if self.faults.write_error_at.is_some_and(|at| (offset..offset + length).contains(&at)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        assert!(!self.faults.panics_at.is_some_and(|at| (offset..offset + length).contains(&at)), "the disk's driver is a test");
        let mut touched = self.touched.lock().unwrap();
        for block in offset / MIB..(offset + length).div_ceil(MIB) {
            *touched.entry(block).or_default() += 1;
        }
        self.bytes.fetch_add(length, Ordering::SeqCst);
        Ok(())
    }
}

impl Disk for Spy {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn sector(&self) -> u64 {
        self.faults.sector.unwrap_or(self.disk.sector())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.touch(offset, bytes.len() as u64)?;
        if self.faults.loses_block == Some(offset / MIB) {
            return Ok(());
        }
        self.disk.write_at(offset, bytes)
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.touch(offset, len)?;
        self.disk.zero(offset, len)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()
    }
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
            _ => Ok(vec![observed("sda", "sda-serial"), observed("sdb", "sdb-serial")]),
        }
    }
    fn nics(&self) -> Vec<ObservedNic> {
        vec![]
    }
    fn open(&self, disk: &ObservedDisk) -> io::Result<Box<dyn Disk>> {
        let file = FileDisk::open_or_create(&self.folder.join(&disk.name), DISK)?;
        Ok(Box::new(Spy { disk: file, faults: self.faults, touched: self.touched.clone(), bytes: self.bytes.clone() }))
    }
    fn set_boot_entry(&self, _disk: &ObservedDisk) -> io::Result<()> {
        Err(io::Error::other("no room in NVRAM"))
    }
    fn say(&self, line: &str) {
        self.console.lock().unwrap().push(line.to_owned());
    }
}

const DISK: u64 = 24 * MIB;

fn observed(name: &str, serial: &str) -> ObservedDisk {
    ObservedDisk { name: name.to_owned(), serial: Some(serial.to_owned()), size: Some(DISK), ..ObservedDisk::default() }
}

struct Bench {
    world: Arc<World>,
    identity: ServerIdentity,
    server: Option<Server>,
    machine: Arc<Machine>,
    folder: tempfile::TempDir,
    params: Params,
}

fn pace() -> Pace {
    Pace {
        retry_first: Duration::from_millis(10),
        retry_most: Duration::from_millis(100),
        give_up: Duration::from_secs(60),
        progress: Duration::from_millis(20),
        ..Pace::default()
    }
}

impl Bench {
    fn new(world: World, faults: Faults) -> Self {
        let (world, identity, folder) = (Arc::new(world), identity(), tempfile::tempdir().unwrap());
        let server = serve(&world, &identity, "127.0.0.1:0");
        let raw = sample();
        let zst = zstd::encode_all(&raw[..], 1).unwrap();
        let url = format!("https://{}", server.address);
        *world.command.lock().unwrap() = Some(order(&zst, ImageFormat::RawZst));
        *world.image.lock().unwrap() = zst;
        let params = Params { url, fingerprint: identity.fingerprint, token: TOKEN.to_owned(), mac: None };
        let machine = Machine {
            folder: folder.path().to_owned(),
            faults,
            touched: Arc::default(),
            bytes: Arc::default(),
            console: Mutex::default(),
            listings: AtomicU32::default(),
            becomes: Mutex::default(),
        };
        // An old system all over the disk.
        std::fs::write(folder.path().join("sda"), vec![0xEE; DISK as usize]).unwrap();
        let bench = Self { world, identity, server: Some(server), machine: Arc::new(machine), folder, params };
        bench.change(|image| image.url = format!("{}/images/image", bench.params.url));
        bench
    }

    fn change(&self, change: impl FnOnce(&mut Image)) {
        self.install(|install, _| change(&mut install.image));
    }

    fn install(&self, change: impl FnOnce(&mut Install, &mut DiskHint)) {
        match self.world.command.lock().unwrap().as_mut().unwrap() {
            AgentCommand::Install { install, system, .. } => change(install, system),
            _ => unreachable!(),
        }
    }

    fn keep_nothing(&self) {
        if let Some(AgentCommand::Install { keep, .. }) = self.world.command.lock().unwrap().as_mut() {
            keep.clear();
        }
    }

    /// Serves `image` as it is, declared with `digest`.
    fn image(&self, image: Vec<u8>, format: ImageFormat, digest: Digest) {
        *self.world.image.lock().unwrap() = image;
        self.change(|image| (image.format, image.digest) = (format, digest));
    }

    async fn run(&self) -> End {
        let agent = tokio::spawn(run(self.params.clone(), self.machine.clone(), "boot-1".to_owned(), pace()));
        tokio::time::timeout(Duration::from_secs(100), agent).await.expect("the agent does not end").unwrap()
    }

    fn events(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.world.events.lock().unwrap().iter().map(kind).collect();
        kinds.dedup();
        kinds.retain(|kind| *kind != "progress");
        kinds
    }

    fn failure(&self) -> (bool, String, String) {
        let events = self.world.events.lock().unwrap();
        let failed = events.iter().find_map(|event| match event {
            AgentEvent::Failed { wrote, code, message } => Some((*wrote, code.clone(), message.clone())),
            _ => None,
        });
        failed.expect("no failure was reported")
    }

    /// Ends halted, with this failure, and with the other disk never opened.
    async fn fails(&self, code: &str, wrote: bool) -> String {
        let end = self.run().await;
        let failure = self.failure();
        assert_eq!((failure.1.as_str(), failure.0), (code, wrote), "{}", failure.2);
        assert_eq!(end, End::Halt { why: failure.2.clone() });
        assert!(!self.folder.path().join("sdb").exists());
        if wrote {
            self.assert_not_bootable();
        } else {
            assert!(self.disk().iter().all(|byte| *byte == 0xEE), "the disk was touched");
            assert_eq!(self.machine.bytes.load(Ordering::SeqCst), 0);
        }
        failure.2
    }

    fn disk(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("sda")).unwrap()
    }

    /// Neither firmware nor a system finds anything to start.
    fn assert_not_bootable(&self) {
        let (disk, end) = (self.disk(), MIB as usize);
        assert!(disk[..end].iter().all(|byte| *byte == 0), "boot sector or partition table");
        assert!(disk[disk.len() - end..].iter().all(|byte| *byte == 0), "backup partition table");
    }

    fn assert_installed(&self) {
        let (raw, disk) = (sample(), self.disk());
        let cidata = 4 * MIB as usize..8 * MIB as usize;
        assert!(disk[..cidata.start] == raw[..cidata.start] && disk[cidata.end..raw.len()] == raw[cidata.end..]);
        assert!(disk[raw.len()..23 * MIB as usize].iter().all(|byte| *byte == 0xEE), "what is beyond the image is not ours");
        assert!(disk[23 * MIB as usize..].iter().all(|byte| *byte == 0), "an old system left its mark at the end");
        let seed = read_seed(&mut FileDisk::open_or_create(&self.folder.path().join("sda"), DISK).unwrap()).unwrap();
        assert_eq!((seed.machine.as_str(), seed.call_home.as_str()), ("web-01", "http://127.0.0.1/callhome"));
        assert_eq!(seed.user_data.unwrap(), "#cloud-config\nhostname: web-01\n");
        for (block, times) in self.machine.touched.lock().unwrap().iter() {
            // The ends are zeroed first and written last, the boot sector apart, and the seed goes over the image's place for it.
            let again = u32::from((4..8).contains(block) || [0, DISK / MIB - 1].contains(block)) + u32::from(*block == 0);
            assert_eq!(*times, 1 + again, "MiB {block} was not written once");
        }
        assert_eq!(self.events(), ["writing", "written"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_written_once_verified_seeded_and_told() {
    let bench = Bench::new(World::default(), Faults { slow: Some(Duration::from_millis(10)), ..Faults::default() });
    assert_eq!(bench.run().await, End::Reboot, "{:?}", bench.machine.console);
    bench.assert_installed();
    let events = bench.world.events.lock().unwrap();
    let written = AgentEvent::Written { digest: Digest::of(&bench.world.image.lock().unwrap()), bytes: 20 * MIB };
    assert_eq!(events.last(), Some(&written));
    assert!(events.iter().filter(|event| kind(event) == "progress").count() > 3);
    assert!(bench.machine.console.lock().unwrap().iter().any(|line| line.contains("no room in NVRAM")), "a boot entry is not vital");
    assert_eq!(bench.world.image_requests.lock().unwrap().as_slice(), [None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_resumed_where_it_stopped() {
    let bench = Bench::new(World { cut: 2.into(), unready: 4.into(), ..World::default() }, Faults::default());
    assert_eq!(bench.run().await, End::Reboot);
    bench.assert_installed();
    let requests = bench.world.image_requests.lock().unwrap();
    assert_eq!(requests.len(), 3);
    assert!(requests[1..].iter().all(|range| range.as_ref().is_some_and(|range| range != "bytes=0-")), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_is_read_again_and_nothing_is_written_twice() {
    let bench = Bench::new(World { cut: 1.into(), plain: true, ..World::default() }, Faults::default());
    assert_eq!(bench.run().await, End::Reboot);
    bench.assert_installed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_goes_on_with_the_same_agent() {
    let mut bench = Bench::new(World::default(), Faults { slow: Some(Duration::from_millis(40)), ..Faults::default() });
    let agent = tokio::spawn(run(bench.params.clone(), bench.machine.clone(), "boot-1".to_owned(), pace()));
    while bench.machine.bytes.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let address = bench.server.take().unwrap().address;
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.server = Some(serve(&bench.world, &bench.identity, &address.to_string()));
    assert_eq!(agent.await.unwrap(), End::Reboot);
    bench.assert_installed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_late_is_waited_for() {
    let mut bench = Bench::new(World::default(), Faults::default());
    let address = bench.server.take().unwrap().address;
    let agent = tokio::spawn(run(bench.params.clone(), bench.machine.clone(), "boot-1".to_owned(), pace()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.server = Some(serve(&bench.world, &bench.identity, &address.to_string()));
    assert_eq!(agent.await.unwrap(), End::Reboot);
    bench.assert_installed();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_is_never_told_the_token() {
    let mut bench = Bench::new(World::default(), Faults::default());
    bench.params.fingerprint = Fingerprint([7; 32]);
    let pace = Pace { give_up: Duration::from_millis(300), ..pace() };
    let end = run(bench.params.clone(), bench.machine.clone(), "boot-1".to_owned(), pace).await;
    assert!(matches!(&end, End::Halt { why } if why.contains("certificate")), "{end:?}");
    assert_eq!(bench.world.hellos.load(Ordering::SeqCst), 0);
}

/// Presents a certificate whose key it does not have.
#[derive(Debug)]
struct Copycat(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Copycat {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_certificate_without_its_key_is_never_told_the_token() {
    let mut bench = Bench::new(World::default(), Faults::default());
    let (made, other) = (rcgen::generate_simple_self_signed(vec![]).unwrap(), rcgen::KeyPair::generate().unwrap());
    let key = rustls::pki_types::PrivateKeyDer::try_from(other.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let copy = Copycat(Arc::new(rustls::sign::CertifiedKey::new(vec![made.cert.der().clone()], key)));
    bench.params.fingerprint = Fingerprint::of(made.cert.der());
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = config.with_no_client_auth().with_cert_resolver(Arc::new(Copycat(copy.0.clone())));
        let identity = ServerIdentity { config: Arc::new(config), fingerprint: bench.params.fingerprint };
        let server = serve(&bench.world, &identity, "127.0.0.1:0");
        bench.params.url = format!("https://{}", server.address);
        let pace = Pace { give_up: Duration::from_millis(200), ..pace() };
        let end = run(bench.params.clone(), bench.machine.clone(), "boot-1".to_owned(), pace).await;
        assert!(matches!(&end, End::Halt { why } if why.contains("BadSignature")), "{end:?}");
    }
    assert_eq!(bench.world.hellos.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_final_and_shown() {
    let mut bench = Bench::new(World::default(), Faults::default());
    bench.params.token = "wrong".to_owned();
    assert_eq!(bench.run().await, End::Halt { why: "the boot server says 401: no ticket has this token".to_owned() });
    bench.params.token = TOKEN.to_owned();
    *bench.world.command.lock().unwrap() = Some(AgentCommand::Refuse { why: "the ticket expired".to_owned() });
    assert_eq!(bench.run().await, End::Halt { why: "the ticket expired".to_owned() });
    *bench.world.command.lock().unwrap() = Some(AgentCommand::BootFromDisk);
    assert_eq!(bench.run().await, End::Reboot);
    assert!(bench.disk().iter().all(|byte| *byte == 0xEE));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_without_leave() {
    let bench = Bench::new(World { forbid: Mutex::new(Some("writing")), ..World::default() }, Faults::default());
    assert_eq!(bench.run().await, End::Halt { why: "the boot server says 409: a newer attempt exists".to_owned() });
    assert!(bench.disk().iter().all(|byte| *byte == 0xEE));
    assert_eq!(bench.events(), ["writing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_leave_stops_the_writing() {
    let bench = Bench::new(World::default(), Faults { slow: Some(Duration::from_millis(100)), ..Faults::default() });
    let agent = tokio::spawn(run(bench.params.clone(), bench.machine.clone(), "boot-1".to_owned(), pace()));
    // Both ends, and a block of the image.
    while bench.machine.bytes.load(Ordering::SeqCst) < 3 * MIB {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    *bench.world.forbid.lock().unwrap() = Some("progress");
    assert_eq!(agent.await.unwrap(), End::Halt { why: "the boot server says 409: a newer attempt exists".to_owned() });
    assert_eq!(bench.events(), ["writing"]);
    assert!(bench.machine.bytes.load(Ordering::SeqCst) < 15 * MIB);
    bench.assert_not_bootable();
}

/// Over a slow link an answer takes seconds, connection and handshake included.
#[tokio::test(flavor = "multi_thread")]
async fn progress_that_is_answered_late_is_heard_and_its_answer_counts() {
    let world = World { forbid: Mutex::new(Some("progress")), slow_progress: Some(Duration::from_millis(2500)), ..World::default() };
    let bench = Bench::new(world, Faults { slow: Some(Duration::from_millis(600)), ..Faults::default() });
    assert_eq!(bench.run().await, End::Halt { why: "the boot server says 409: a newer attempt exists".to_owned() });
    assert_eq!(bench.world.events.lock().unwrap().iter().map(kind).collect::<Vec<_>>(), ["writing", "progress"]);
    bench.assert_not_bootable();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_matches_none_or_two_writes_nothing() {
    let bench = Bench::new(World::default(), Faults::default());
    bench.install(|_, system| system.serial = Some("sdc-serial".to_owned()));
    let message = bench.fails("no-disk-matches", false).await;
    assert!(message.contains("sda (serial sda-serial") && message.contains("sdb (serial sdb-serial"), "{message}");
    let bench = Bench::new(World::default(), Faults::default());
    bench.install(|_, system| *system = DiskHint { min_size: Some(1), ..DiskHint::default() });
    bench.fails("two-disks-match", false).await;
    let bench = Bench::new(World::default(), Faults::default());
    bench.install(|_, system| system.serial = Some("sdb-serial".to_owned()));
    bench.fails("disk-kept", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_than_declared_is_found_out() {
    let bench = Bench::new(World::default(), Faults::default());
    let image = bench.world.image.lock().unwrap().clone();
    bench.image(image, ImageFormat::RawZst, Digest::of(b"another"));
    let message = bench.fails("wrong-digest", true).await;
    assert!(message.contains(&Digest::of(b"another").to_string()), "{message}");
    assert_eq!(bench.events(), ["writing", "failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_image_is_found_out() {
    let bench = Bench::new(World::default(), Faults::default());
    let image = bench.world.image.lock().unwrap().clone();
    let half = image[..image.len() / 2].to_vec();
    bench.image(half, ImageFormat::RawZst, Digest::of(&image));
    bench.fails("truncated", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_no_archive_writes_nothing() {
    let bench = Bench::new(World::default(), Faults::default());
    bench.image(vec![7; 3_000_000], ImageFormat::RawGz, Digest::of(&[7; 3_000_000]));
    bench.fails("image-corrupt", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_becomes_another_is_found_out() {
    let other = zstd::encode_all(&vec![5; 9_000_000][..], 1).unwrap();
    let world = World { cut: 1.into(), change_to: Mutex::new(Some(other)), ..World::default() };
    let bench = Bench::new(world, Faults::default());
    bench.fails("image-changed", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_larger_than_the_disk_is_refused_before_or_stopped_in_time() {
    let mut raw = sample();
    raw.resize(DISK as usize + 4096, 1);
    // Stated in the manifest; known from the length of a raw file; only found while writing.
    let bench = Bench::new(World::default(), Faults::default());
    bench.change(|image| image.size = Some(DISK + 1));
    bench.fails("disk-too-small", false).await;
    let bench = Bench::new(World::default(), Faults::default());
    bench.image(raw.clone(), ImageFormat::Raw, Digest::of(&raw));
    bench.fails("disk-too-small", false).await;
    let bench = Bench::new(World::default(), Faults::default());
    let zst = zstd::encode_all(&raw[..], 1).unwrap();
    let digest = Digest::of(&zst);
    bench.image(zst, ImageFormat::RawZst, digest);
    bench.fails("disk-too-small", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_sector_size_is_refused_before_the_first_byte() {
    let bench = Bench::new(World::default(), Faults { sector: Some(4096), ..Faults::default() });
    let message = bench.fails("disk-sector-size", false).await;
    assert!(message.contains("sectors of 512 bytes") && message.contains("Declare an image made for sectors of 4096 bytes"), "{message}");
    assert_eq!(bench.events(), ["failed"], "no leave was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_or_lies_is_found_out() {
    let bench = Bench::new(World::default(), Faults { write_error_at: Some(10 * MIB + 5), ..Faults::default() });
    let message = bench.fails("disk-write", true).await;
    assert!(message.contains("at byte 10485760"), "{message}");
    for block in [10, 0] {
        let bench = Bench::new(World::default(), Faults { loses_block: Some(block), ..Faults::default() });
        bench.fails("verify-failed", true).await;
    }
}

/// The image's own backup table stands at the disk's end: with that alone, UEFI restores the primary one.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_image_as_large_as_the_disk_leaves_no_backup_table() {
    let bench = Bench::new(World::default(), Faults::default());
    let mut raw = sample();
    raw.resize(DISK as usize, 7);
    bench.image(raw.clone(), ImageFormat::Raw, Digest::of(b"another"));
    bench.fails("wrong-digest", true).await;
    bench.image(raw.clone(), ImageFormat::Raw, Digest::of(&raw));
    assert_eq!(bench.run().await, End::Reboot);
    let (disk, seeded) = (bench.disk(), 8 * MIB as usize);
    assert!(disk[..MIB as usize] == raw[..MIB as usize] && disk[seeded..] == raw[seeded..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_comes_before_the_first_byte_is_seen() {
    let twin = vec![observed("sda", "sda-serial"), observed("sdb", "sdb-serial"), observed("sdc", "sda-serial")];
    let swapped = vec![observed("sda", "sdb-serial"), observed("sdb", "sda-serial")];
    // The first listing is told in the hello, the second is before leave is asked for, the third after it was given.
    for (from, events) in [(2, &["failed"][..]), (3, &["writing", "failed"])] {
        for (disks, code) in [(&twin, "two-disks-match"), (&swapped, "disk-changed")] {
            let bench = Bench::new(World::default(), Faults::default());
            *bench.machine.becomes.lock().unwrap() = Some((from, disks.clone()));
            bench.keep_nothing();
            bench.fails(code, false).await;
            assert_eq!(bench.events(), events, "{code}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failure_like_any_other() {
    let bench = Bench::new(World::default(), Faults { panics_at: Some(10 * MIB), ..Faults::default() });
    let message = bench.fails("agent", true).await;
    assert!(message.contains("thread write: the disk's driver is a test"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_data_needs_a_place_in_the_image() {
    let bench = Bench::new(World::default(), Faults::default());
    let raw = vec![9; 2_000_000];
    bench.image(raw.clone(), ImageFormat::Raw, Digest::of(&raw));
    bench.fails("no-seed-partition", false).await;
    bench.install(|install, _| install.user_data = None);
    assert_eq!(bench.run().await, End::Reboot);
    assert!(bench.disk()[..raw.len()] == raw[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_writes_nothing() {
    let bench = Bench::new(World::default(), Faults::default());
    bench.change(|image| image.url.push_str("-not-there"));
    let message = bench.fails("image-unavailable", false).await;
    assert!(message.contains("404"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_install_stops_writing() {
    let bench = Bench::new(World::default(), Faults { slow: Some(Duration::from_millis(50)), ..Faults::default() });
    let agent = tokio::spawn(run(bench.params.clone(), bench.machine.clone(), "boot-1".to_owned(), pace()));
    while bench.machine.bytes.load(Ordering::SeqCst) < 3 * MIB {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    agent.abort();
    assert!(agent.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let bytes = bench.machine.bytes.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bench.machine.bytes.load(Ordering::SeqCst), bytes);
    bench.assert_not_bootable();
}
