//! The real agent wipes devices that are not ours: a virtio disk that discards, an NVMe drive that formats itself, a SCSI disk that knows no
//! security commands.

use super::*;

fn serial(text: &str) -> DiskHint {
    DiskHint { serial: Some(text.to_owned()), ..DiskHint::default() }
}

/// Boots the agent with this order on a machine with `devices`, and waits until it is off or halted. What it said, and its console.
async fn wipe(
    folder: &Path,
    devices: &[String],
    method: WipeMethod,
    targets: Targets,
    keep: Vec<DiskHint>,
) -> Option<(Vec<AgentEvent>, bool, String)> {
    if !works("qemu-system-x86_64") {
        println!("skipped: QEMU is not installed (apt-get install qemu-system-x86)");
        return None;
    }
    let report = built(folder)?;
    let (world, identity) = (Arc::new(World::default()), identity());
    let server = serve(&world, &identity, "127.0.0.1:0");
    *world.command.lock().unwrap() = Some(AgentCommand::Wipe { attempt: "web-01#1".parse().unwrap(), method, targets, keep });
    let words = words(&format!("https://10.0.2.2:{}", server.address.port()), &identity);
    let linux = ["-kernel".to_owned(), report.kernel.display().to_string(), "-initrd".to_owned(), report.initramfs.display().to_string()];
    let append = ["-append".to_owned(), format!("console=ttyS0 quiet panic=-1 no_timer_check {words}")];
    let mut machine = start(folder, &[devices, &linux, &append].concat());
    let console = watch(&mut machine, &folder.join("console"), "rackwright: halted").await;
    let off = machine.0.try_wait().unwrap().is_some_and(|status| status.success());
    let events = world.events.lock().unwrap().iter().filter(|event| kind(event) != "progress").cloned().collect();
    Some((events, off, console))
}

fn drive(folder: &Path, name: &str, device: &str) -> [String; 4] {
    fs::write(folder.join(name), vec![0xEE; DISK as usize]).unwrap();
    let drive = format!("file={},if=none,format=raw,id={name},discard=unmap", folder.join(name).display());
    ["-drive".to_owned(), drive, "-device".to_owned(), format!("{device},drive={name}")]
}

fn is_zero(path: &Path) -> bool {
    fs::read(path).unwrap().iter().all(|byte| *byte == 0)
}

fn is_old(path: &Path) -> bool {
    fs::read(path).unwrap().iter().all(|byte| *byte == 0xEE)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["sda", "sdb"] {
        fs::write(folder.path().join(name), vec![0xEE; DISK as usize]).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_but_one_are_discarded_and_the_machine_is_off() {
    let folder = folder();
    let devices = drive(folder.path(), "vdb", "virtio-blk-pci,serial=vdb-serial");
    let each = Targets::Each(vec![serial("vdb-serial")]);
    let Some((events, off, console)) = wipe(folder.path(), &devices, WipeMethod::Discard, each, vec![]).await else { return };
    let [AgentEvent::Wiping { disks }, AgentEvent::Wiped { proof }] = &events[..] else { panic!("{events:?}\n{console}") };
    assert!(off, "{console}");
    assert_eq!(disks.iter().map(|disk| disk.serial.as_deref().unwrap()).collect::<Vec<_>>(), ["vdb-serial"]);
    assert_eq!((proof[0].gap(&disks[0], WipeMethod::Discard), proof[0].same), (None, 0));
    assert!(is_zero(&folder.path().join("vdb")) && is_old(&folder.path().join("sda")) && is_old(&folder.path().join("sdb")));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_but_the_one_to_keep_are_zeroed() {
    let folder = folder();
    let nvme = drive(folder.path(), "nvme", "nvme,serial=nvme-serial");
    let keep = vec![serial("sdb-serial")];
    let Some((events, off, console)) = wipe(folder.path(), &nvme, WipeMethod::Zero, Targets::All, keep).await else { return };
    let [AgentEvent::Wiping { .. }, AgentEvent::Wiped { proof }] = &events[..] else { panic!("{events:?}\n{console}") };
    assert!(off && proof.iter().all(|one| one.read == DISK && one.zero == DISK), "{proof:?}\n{console}");
    assert!(is_zero(&folder.path().join("sda")) && is_zero(&folder.path().join("nvme")) && is_old(&folder.path().join("sdb")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nvme_drive_erases_itself() {
    let folder = folder();
    let nvme = drive(folder.path(), "nvme", "nvme,serial=nvme-serial");
    let each = Targets::Each(vec![serial("nvme-serial")]);
    let Some((events, off, console)) = wipe(folder.path(), &nvme, WipeMethod::SecureErase, each, vec![]).await else { return };
    let [AgentEvent::Wiping { .. }, AgentEvent::Wiped { proof }] = &events[..] else { panic!("{events:?}\n{console}") };
    assert!(off, "{console}");
    assert_eq!((proof[0].by.as_str(), proof[0].same), ("NVMe Format NVM with user data erase", 0));
    assert!(is_zero(&folder.path().join("nvme")) && is_old(&folder.path().join("sda")));
}

/// A SCSI disk that is no ATA drive: this kernel brings no AHCI driver, so what an ATA drive says is tried on its words alone (`linux/ata.rs`).
#[tokio::test(flavor = "multi_thread")]
async fn a_drive_without_security_commands_stops_a_secure_erase_of_all() {
    let folder = folder();
    let nvme = drive(folder.path(), "nvme", "nvme,serial=nvme-serial");
    let each = Targets::Each(vec![serial("sdb-serial"), serial("nvme-serial")]);
    let Some((events, off, console)) = wipe(folder.path(), &nvme, WipeMethod::SecureErase, each, vec![]).await else { return };
    let [AgentEvent::Failed { wrote: false, code, message }] = &events[..] else { panic!("{events:?}\n{console}") };
    assert_eq!((code.as_str(), off), ("wipe-unsupported", false), "{message}");
    assert!(message.contains("/dev/sda: it is no ATA drive") && message.contains("nothing was done to it"), "{message}");
    assert!(["nvme", "sda", "sdb"].iter().all(|name| is_old(&folder.path().join(name))));
}
