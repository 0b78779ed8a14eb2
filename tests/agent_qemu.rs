//! The real initramfs on a real kernel: QEMU boots it, the agent installs a virtio disk over TLS, and the disk is looked at after.
#![cfg(feature = "controller")]
#![allow(clippy::unwrap_used, missing_docs)]

mod agent_support;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use agent_support::*;
use rackwright::{
    agent::{
        FileDisk,
        initramfs::{DRIVERS, Kernel, Options, Report, build},
        seed::read_seed,
    },
    model::*,
};

const DISK: u64 = 32 * MIB;

/// A machine in software emulation needs some ten seconds when it has a core, and there may be many on one.
const LIMIT: Duration = Duration::from_secs(110);

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

fn works(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The static agent, if it was built.
fn agent() -> Option<PathBuf> {
    let agent = target().join("x86_64-unknown-linux-gnu/agent/rackwright-agent");
    if !agent.exists() {
        println!("skipped: rackwright-agent is not built (scripts/build-agent)");
    }
    agent.exists().then_some(agent)
}

/// The kernel package of Debian's cloud images, fetched once.
fn kernel_package() -> Option<PathBuf> {
    let folder = target().join("testbed");
    fs::create_dir_all(&folder).unwrap();
    let cached = || fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).find(|path| is_kernel(path));
    if let Some(package) = cached() {
        return Some(package);
    }
    let fetch = "apt-get download \"$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/{print $2; exit}')\"";
    let _ = Command::new("sh").args(["-c", fetch]).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let package = cached();
    if package.is_none() {
        println!("skipped: no kernel package (apt-get download of what linux-image-cloud-amd64 depends on, into target/testbed)");
    }
    package
}

fn is_kernel(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("linux-image-") && name.ends_with(".deb")
}

fn built(out: &Path) -> Option<Report> {
    let drivers = DRIVERS.map(str::to_owned).to_vec();
    let options = Options { agent: agent()?, kernel: Kernel::Package(kernel_package()?), drivers, out: out.to_owned() };
    Some(build(&options).unwrap())
}

/// Killed when the test ends, however it ends.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn boot(folder: &Path, report: &Report, words: &str) -> Machine {
    start(
        folder,
        &[
            "-kernel".into(),
            report.kernel.display().to_string(),
            "-initrd".into(),
            report.initramfs.display().to_string(),
            "-append".into(),
            format!("console=ttyS0 quiet panic=-1 {words}"),
        ],
    )
}

fn start(folder: &Path, more: &[String]) -> Machine {
    let drive = |name: &str| format!("file={},if=none,format=raw,id={name}", folder.join(name).display());
    let child = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35,accel=tcg", "-m", "512"])
        .arg("-serial")
        .arg(format!("file:{}", folder.join("console").display()))
        .args(["-smbios", "type=1,serial=SN1"])
        .args(["-netdev", "user,id=lan", "-device", "virtio-net-pci,netdev=lan,mac=52:54:00:12:34:56,romfile="])
        .args(["-drive", &drive("sda"), "-device", "virtio-blk-pci,drive=sda,serial=sda-serial"])
        .args(["-drive", &drive("sdb"), "-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=sdb,serial=sdb-serial"])
        .args(more)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Machine(child)
}

fn words(url: &str, identity: &ServerIdentity) -> String {
    format!(
        "rackwright.url={url} rackwright.fingerprint={} rackwright.token={TOKEN} rackwright.mac=52:54:00:12:34:56 \
         rackwright.ip=10.0.2.15:255.255.255.0:10.0.2.2",
        identity.fingerprint
    )
}

/// Waits until the machine is off, or its console shows `text`.
async fn watch(machine: &mut Machine, console: &Path, text: &str) -> String {
    let since = Instant::now();
    loop {
        let shown = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
        if machine.0.try_wait().unwrap().is_some() || shown.contains(text) {
            return shown;
        }
        assert!(since.elapsed() < LIMIT, "the machine does not end; its console:\n{shown}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_installed_by_the_real_initramfs() {
    if !works("qemu-system-x86_64") {
        println!("skipped: QEMU is not installed (apt-get install qemu-system-x86)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(report) = built(folder.path()) else { return };
    for name in ["sda", "sdb"] {
        fs::write(folder.path().join(name), vec![0xEE; DISK as usize]).unwrap();
    }
    let raw = sample();
    let zst = zstd::encode_all(&raw[..], 3).unwrap();
    let world = Arc::new(World { cut: 1.into(), unready: 1.into(), ..World::default() });
    let identity = identity();
    let server = serve(&world, &identity, "127.0.0.1:0");
    let url = format!("https://10.0.2.2:{}", server.address.port());
    let mut command = order(&zst, ImageFormat::RawZst);
    if let AgentCommand::Install { install, .. } = &mut command {
        install.image.url = format!("{url}/images/image");
    }
    *world.command.lock().unwrap() = Some(command);
    *world.image.lock().unwrap() = zst.clone();
    let words = words(&url, &identity);
    let mut machine = boot(folder.path(), &report, &words);
    let console = watch(&mut machine, &folder.path().join("console"), "rackwright: halted").await;
    assert!(machine.0.try_wait().unwrap().is_some_and(|status| status.success()), "{console}");

    let disk = fs::read(folder.path().join("sda")).unwrap();
    let cidata = 4 * MIB as usize..8 * MIB as usize;
    assert!(disk[..cidata.start] == raw[..cidata.start] && disk[cidata.end..raw.len()] == raw[cidata.end..], "{console}");
    assert!(disk[raw.len()..31 * MIB as usize].iter().all(|byte| *byte == 0xEE));
    assert!(disk[31 * MIB as usize..].iter().all(|byte| *byte == 0));
    assert!(fs::read(folder.path().join("sdb")).unwrap().iter().all(|byte| *byte == 0xEE), "the disk to keep was touched");
    let seed = read_seed(&mut FileDisk::open_or_create(&folder.path().join("sda"), DISK).unwrap()).unwrap();
    assert_eq!(seed.machine.as_str(), "web-01");
    let events = world.events.lock().unwrap();
    assert_eq!(events.last(), Some(&AgentEvent::Written { digest: Digest::of(&zst), bytes: 20 * MIB }));
    let Some(AgentEvent::Writing { disk }) = events.first() else { panic!("{events:?}") };
    assert_eq!((disk.name.as_str(), disk.serial.as_deref(), disk.size), ("/dev/vda", Some("sda-serial"), Some(DISK)));
    let hello = world.last_hello.lock().unwrap().clone().unwrap();
    let other = hello.disks.iter().find(|disk| disk.name == "/dev/sda").unwrap();
    assert_eq!((other.serial.as_deref(), other.model.as_deref()), (Some("sdb-serial"), Some("QEMU HARDDISK")));
    assert_eq!((hello.nics[0].mac.to_string().as_str(), hello.uefi), ("52:54:00:12:34:56", false));
    seed_is_what_others_read(&folder.path().join("sda"), folder.path());
}

/// 20 MiB: an EFI system partition whose loader is iPXE, which shows itself on the console, and a place for the seed.
fn efi_image(loader: &[u8]) -> Vec<u8> {
    let mut raw = vec![0; 20 * MIB as usize];
    let table = gpt(&[(ESP, "EFI system", 1, 4), ([3; 16], "CIDATA", 4, 8)]);
    raw[..table.len()].copy_from_slice(&table);
    let mut volume = std::io::Cursor::new(vec![0; 3 * MIB as usize]);
    fatfs::format_volume(&mut volume, fatfs::FormatVolumeOptions::new()).unwrap();
    {
        let system = fatfs::FileSystem::new(&mut volume, fatfs::FsOptions::new()).unwrap();
        let folder = system.root_dir().create_dir("EFI").unwrap().create_dir("BOOT").unwrap();
        folder.create_file("BOOTX64.EFI").unwrap().write_all(loader).unwrap();
    }
    raw[MIB as usize..4 * MIB as usize].copy_from_slice(volume.get_ref());
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn uefi_starts_the_installed_disk_next_although_the_network_comes_first() {
    let (code, variables) = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd");
    let loader = fs::read("/usr/lib/ipxe/snponly.efi");
    let (true, true, Ok(loader)) = (works("qemu-system-x86_64"), Path::new(code).exists(), loader) else {
        println!("skipped: QEMU with OVMF and iPXE is not installed (apt-get install qemu-system-x86 ovmf ipxe)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let Some(report) = built(folder.path()) else { return };
    for name in ["sda", "sdb"] {
        fs::write(folder.path().join(name), vec![0xEE; DISK as usize]).unwrap();
    }
    let vars = folder.path().join("vars");
    fs::copy(variables, &vars).unwrap();
    let raw = efi_image(&loader);
    let (world, identity) = (Arc::new(World::default()), identity());
    let server = serve(&world, &identity, "127.0.0.1:0");
    let url = format!("https://10.0.2.2:{}", server.address.port());
    let mut command = order(&raw, ImageFormat::Raw);
    if let AgentCommand::Install { install, .. } = &mut command {
        install.image.url = format!("{url}/images/image");
    }
    *world.command.lock().unwrap() = Some(command);
    *world.image.lock().unwrap() = raw;
    let firmware = [
        "-drive".to_owned(),
        format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        "-drive".to_owned(),
        format!("if=pflash,format=raw,unit=1,file={}", vars.display()),
    ];
    let linux = ["-kernel".to_owned(), report.kernel.display().to_string(), "-initrd".to_owned(), report.initramfs.display().to_string()];
    let append = ["-append".to_owned(), format!("console=ttyS0 quiet panic=-1 {}", words(&url, &identity))];
    let console = folder.path().join("console");
    let mut machine = start(folder.path(), &[&firmware[..], &linux, &append].concat());
    let shown = watch(&mut machine, &console, "rackwright: halted").await;
    assert!(machine.0.try_wait().unwrap().is_some_and(|status| status.success()), "{shown}");
    assert!(!shown.contains("boot entry can't be set"), "{shown}");
    assert!(world.last_hello.lock().unwrap().as_ref().unwrap().uefi);
    drop(machine);
    fs::remove_file(&console).unwrap();
    let mut machine = start(folder.path(), &firmware);
    let shown = watch(&mut machine, &console, "iPXE initialising").await;
    assert!(shown.contains("Rackwright") && !shown.contains("PXE over IPv4"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_orders_stays_and_says_why() {
    if !works("qemu-system-x86_64") {
        println!("skipped: QEMU is not installed (apt-get install qemu-system-x86)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(report) = built(folder.path()) else { return };
    for name in ["sda", "sdb"] {
        fs::write(folder.path().join(name), vec![0xEE; MIB as usize]).unwrap();
    }
    let mut machine = boot(folder.path(), &report, "rackwright.token=secret-word");
    let console = watch(&mut machine, &folder.path().join("console"), "rackwright: halted").await;
    assert!(console.contains("halted: the kernel command line has no rackwright.url="), "{console}");
    assert!(machine.0.try_wait().unwrap().is_none(), "it must stay");
    assert!(fs::read(folder.path().join("sda")).unwrap().iter().all(|byte| *byte == 0xEE));
}

#[path = "agent_support/wipe_qemu.rs"]
mod wipe;

/// dosfstools, mtools and util-linux read the volume as we do.
fn seed_is_what_others_read(disk: &Path, folder: &Path) {
    let volume = folder.join("volume");
    fs::write(&volume, &fs::read(disk).unwrap()[4 * MIB as usize..8 * MIB as usize]).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).stdin(File::open("/dev/null").unwrap()).output();
        let output =
            output.inspect_err(|_| println!("skipped: {program} is not installed (apt-get install dosfstools mtools util-linux)")).ok()?;
        assert!(
            output.status.success(),
            "{program}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let path = volume.to_str().unwrap();
    run("/usr/sbin/fsck.fat", &["-n", path]);
    if let Some(text) = run("mtype", &["-i", path, "::/user-data"]) {
        assert_eq!(text, "#cloud-config\nhostname: web-01\n");
    }
    if let Some(text) = run("/usr/sbin/blkid", &["-p", "-o", "export", path]) {
        assert!(text.contains("LABEL=CIDATA\n") && text.contains("TYPE=vfat\n"), "{text}");
    }
}

#[test]
fn an_initramfs_is_the_same_each_time_and_other_tools_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let (Some(first), Some(second)) = (built(&one), built(&two)) else { return };
    assert_eq!(fs::read(&first.initramfs).unwrap(), fs::read(&second.initramfs).unwrap());
    assert_eq!(fs::read_dir(&one).unwrap().count(), 2, "nothing but kernel and initramfs stays");
    assert!(first.modules.contains(&"virtio_net.ko".to_owned()) && first.built_in.contains(&"nvme".to_owned()), "{first:?}");
    if !works("cpio") {
        println!("skipped: cpio is not installed (apt-get install cpio)");
        return;
    }
    let archive = zstd::decode_all(File::open(&first.initramfs).unwrap()).unwrap();
    fs::write(folder.path().join("archive"), archive).unwrap();
    let listing = Command::new("cpio").arg("-tv").stdin(File::open(folder.path().join("archive")).unwrap()).output().unwrap();
    let text = String::from_utf8_lossy(&listing.stdout);
    assert!(listing.status.success() && text.contains("-rwxr-xr-x") && text.contains("5,   1"), "{text}");
    let modules = text.lines().filter(|line| line.ends_with(".ko")).count();
    assert_eq!(modules, first.modules.len());
}
