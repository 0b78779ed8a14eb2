//! What sysfs tells: identity, disks, network interfaces.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::super::{Barred, code};
use crate::model::{ObservedDisk, ObservedNic, is_placeholder_uuid};

/// Texts that vendors leave in SMBIOS where a serial number should be, in lower case.
const PLACEHOLDERS: [&str; 12] = [
    "",
    "0",
    "none",
    "n/a",
    "not specified",
    "not available",
    "default string",
    "system serial number",
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "0123456789",
    "123456789",
];

/// Block devices that are made of something else, or are no place for a system.
const NO_DISKS: [&str; 16] =
    ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock", "drbd", "rbd", "zd", "bcache", "ublkb", "rnbd", "pmem"];

/// One sysfs; another root than `/sys` in tests.
pub(super) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Serial number; `None` for a vendor's placeholder.
    pub(super) fn serial(&self) -> Option<String> {
        let text = read(&self.root.join("class/dmi/id/product_serial"))?;
        (!PLACEHOLDERS.contains(&text.to_ascii_lowercase().as_str())).then_some(text)
    }

    /// UUID in lower case; `None` for a placeholder.
    pub(super) fn uuid(&self) -> Option<String> {
        let text = read(&self.root.join("class/dmi/id/product_uuid"))?.to_ascii_lowercase();
        (!is_placeholder_uuid(&text)).then_some(text)
    }

    pub(super) fn uefi(&self) -> bool {
        self.root.join("firmware/efi").is_dir()
    }

    /// Disks in order of name.
    pub(super) fn disks(&self) -> io::Result<Vec<ObservedDisk>> {
        let mut disks = Vec::new();
        for entry in fs::read_dir(self.root.join("block"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            disks.extend(disk(&entry.path(), &name)?);
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(disks)
    }

    /// Fixed disks that can't be written, and those that are reached over a network.
    pub(super) fn barred(&self) -> io::Result<Vec<Barred>> {
        let mut barred = Vec::new();
        for entry in fs::read_dir(self.root.join("block"))? {
            let (folder, name) = entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))?;
            let is_set = |file: &str| read(&folder.join(file)).is_some_and(|text| text != "0");
            if !is_fixed(&folder, &name) || read(&folder.join("size")).is_none_or(|size| size == "0") {
                continue;
            }
            let device = fs::canonicalize(folder.join("device")).unwrap_or_default();
            let remote = |part: &str| ["rport-", "session", "nvme-fabrics"].iter().any(|kind| part.starts_with(kind));
            let (code, why) = if is_set("ro") {
                (code::DISK_READ_ONLY, "can't be written")
            } else if device.iter().filter_map(|part| part.to_str()).any(remote) {
                (code::DISK_REMOTE, "is reached over a network, and may be another machine's, too")
            } else {
                continue;
            };
            barred.push(Barred { name: format!("/dev/{}", name.replace('!', "/")), code, why });
        }
        barred.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(barred)
    }

    /// Interfaces of hardware, in order of name.
    pub(super) fn nics(&self) -> Vec<ObservedNic> {
        let entries = fs::read_dir(self.root.join("class/net")).into_iter().flatten().flatten();
        let mut nics: Vec<ObservedNic> = entries.filter_map(|entry| nic(&entry.path())).collect();
        nics.sort_by(|a, b| a.name.cmp(&b.name));
        nics
    }
}

/// A disk that could hold a system; `None` for what is none.
///
/// Errors when its size can't be read: a disk of unknown size may be one that a hint means.
fn disk(folder: &Path, name: &str) -> io::Result<Option<ObservedDisk>> {
    if !is_fixed(folder, name) || read(&folder.join("ro")).is_some_and(|text| text != "0") {
        return Ok(None);
    }
    let sectors = fs::read_to_string(folder.join("size"))?;
    // The unit is 512 bytes whatever the disk's own sector size is.
    let size = sectors.trim().parse::<u64>().map_err(io::Error::other)? * 512;
    if size == 0 {
        return Ok(None);
    }
    let first = |files: &[&str]| files.iter().find_map(|file| read(&folder.join(file)));
    let wwn = first(&["wwid", "device/wwid"]);
    Ok(Some(ObservedDisk {
        name: format!("/dev/{}", name.replace('!', "/")),
        serial: first(&["serial", "device/serial"]).or_else(|| unit_serial(&folder.join("device/vpd_pg80"))),
        wwn: wwn.filter(|wwn| ["naa.", "eui.", "nvme.", "uuid."].iter().any(|kind| wwn.starts_with(kind))),
        model: first(&["device/model"]),
        path: fs::canonicalize(folder.join("device")).ok().and_then(|device| by_path(&device, folder)),
        size: Some(size),
    }))
}

/// Whether it is a disk of hardware that nobody takes out and carries away.
fn is_fixed(folder: &Path, name: &str) -> bool {
    let is_set = |file: &str| read(&folder.join(file)).is_some_and(|text| text != "0");
    // The boot and key areas of an eMMC are devices of their own: mmcblk0boot0, mmcblk0rpmb.
    let part_of_mmc = name.strip_prefix("mmcblk").is_some_and(|rest| rest.contains(|c: char| !c.is_ascii_digit()));
    let no_disk = part_of_mmc || NO_DISKS.iter().any(|prefix| name.starts_with(prefix));
    !no_disk && folder.join("device").exists() && !is_set("removable") && !is_set("hidden")
}

/// SCSI's unit serial number page (SPC-5 section 7.7.19): four bytes of header, then text.
fn unit_serial(file: &Path) -> Option<String> {
    let page = fs::read(file).ok()?;
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let text = String::from_utf8_lossy(page.get(4..4 + length)?).trim().trim_matches('\0').to_owned();
    (!text.is_empty()).then_some(text)
}

/// The name that udev gives in /dev/disk/by-path, for the buses where it is simple: virtio, NVMe, SATA and plain SCSI behind PCI.
fn by_path(device: &Path, folder: &Path) -> Option<String> {
    let parts: Vec<&str> = device.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().rposition(|part| is_pci(part))?;
    let pci = format!("pci-{}", parts[at]);
    let below = &parts[at + 1..];
    let has = |prefix: &str| below.iter().find(|part| part.starts_with(prefix));
    if has("nvme").is_some() {
        return Some(format!("{pci}-nvme-{}", read(&folder.join("nsid"))?));
    }
    if let Some(ata) = has("ata") {
        let port = device.ancestors().find(|folder| folder.ends_with(ata))?.join("ata_port").join(ata).join("port_no");
        return Some(format!("{pci}-ata-{}", read(&port)?));
    }
    if has("end_device-").is_some() || has("usb").is_some() || has("rport-").is_some() || has("session").is_some() {
        return None;
    }
    match has("host") {
        Some(_) => {
            let address = below.last()?.split_once(':')?.1;
            Some(format!("{pci}-scsi-0:{address}"))
        }
        None => has("virtio").map(|_| pci),
    }
}

/// `0000:00:1f.2`
fn is_pci(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 12 && bytes[4] == b':' && bytes[7] == b':' && bytes[10] == b'.'
}

fn nic(folder: &Path) -> Option<ObservedNic> {
    if !folder.join("device").exists() || read(&folder.join("type"))? != "1" {
        return None;
    }
    let link_up = read(&folder.join("carrier")).map(|carrier| carrier == "1");
    Some(ObservedNic { name: folder.file_name()?.to_str()?.to_owned(), mac: read(&folder.join("address"))?.parse().ok()?, link_up })
}

/// A file's text without blanks around it; `None` when it is empty or not there.
fn read(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().trim_matches('\0').trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// A block device whose `device` is at `real` below `devices/`.
        fn disk(&self, name: &str, real: &str, files: &[(&str, &str)]) {
            self.put(&format!("devices/{real}/x"), "");
            self.put(&format!("block/{name}/size"), "2048\n");
            for (file, text) in files {
                let base = file.strip_prefix("device/").map(|file| format!("devices/{real}/{file}"));
                self.put(&base.unwrap_or_else(|| format!("block/{name}/{file}")), text);
            }
            symlink(self.0.path().join("devices").join(real), self.0.path().join("block").join(name).join("device")).unwrap();
        }

        fn sysfs(&self) -> Sysfs {
            Sysfs::at(self.0.path().to_owned())
        }
    }

    #[test]
    fn disks_of_each_bus_are_told_apart() {
        let tree = Tree::new();
        tree.disk("vda", "pci0000:00/0000:00:04.0/virtio1", &[("serial", "SYS1")]);
        tree.disk(
            "nvme0n1",
            "pci0000:00/0000:00:05.0/nvme/nvme0",
            &[("device/serial", "S5GXNX0T   "), ("device/model", "SAMSUNG MZ\n"), ("wwid", "eui.0025385b01400001"), ("nsid", "1")],
        );
        let ata = "pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0";
        tree.put("devices/pci0000:00/0000:00:1f.2/ata3/ata_port/ata3/port_no", "3\n");
        tree.disk(
            "sda",
            ata,
            &[("device/vpd_pg80", "\0\u{0}\0\u{8} WD-WX12"), ("device/wwid", "naa.5002538e00a1b2c3"), ("device/model", "WDC")],
        );
        tree.disk("sdb", "pci0000:00/0000:00:06.0/virtio2/host3/target3:0:1/3:0:1:0", &[("device/wwid", "t10.ATA QEMU")]);
        let disks = tree.sysfs().disks().unwrap();
        let shown: Vec<_> =
            disks.iter().map(|disk| (disk.name.as_str(), disk.serial.as_deref(), disk.wwn.as_deref(), disk.path.as_deref())).collect();
        assert_eq!(
            shown,
            [
                ("/dev/nvme0n1", Some("S5GXNX0T"), Some("eui.0025385b01400001"), Some("pci-0000:00:05.0-nvme-1")),
                ("/dev/sda", Some("WD-WX12"), Some("naa.5002538e00a1b2c3"), Some("pci-0000:00:1f.2-ata-3")),
                ("/dev/sdb", None, None, Some("pci-0000:00:06.0-scsi-0:0:1:0")),
                ("/dev/vda", Some("SYS1"), None, Some("pci-0000:00:04.0")),
            ]
        );
        assert!(disks.iter().all(|disk| disk.size == Some(1 << 20)));
    }

    #[test]
    fn what_is_no_disk_for_a_system_is_left_out() {
        let tree = Tree::new();
        for name in ["loop0", "ram1", "zram0", "dm-0", "md127", "sr0", "mmcblk0boot0", "mmcblk0rpmb"] {
            tree.disk(name, &format!("x/{name}"), &[]);
        }
        tree.disk("sda", "usb", &[("removable", "1")]);
        tree.disk("sdb", "ro", &[("ro", "1")]);
        tree.disk("sdc", "empty", &[("size", "0")]);
        tree.disk("nvme0c0n1", "path", &[("hidden", "1")]);
        tree.disk("mmcblk0", "mmc", &[("removable", "0")]);
        tree.put("block/virtual/size", "2048");
        let names: Vec<_> = tree.sysfs().disks().unwrap().into_iter().map(|disk| disk.name).collect();
        assert_eq!(names, ["/dev/mmcblk0"]);
    }

    #[test]
    fn what_stands_against_wiping_all_disks_is_told() {
        let tree = Tree::new();
        tree.disk("sda", "pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0", &[]);
        tree.disk("sdb", "pci0000:00/0000:00:07.0/host4/rport-4:0-0/target4:0:0/4:0:0:0", &[]);
        tree.disk("sdc", "platform/host5/session1/target5:0:0/5:0:0:0", &[]);
        tree.disk("sdd", "worn-out", &[("ro", "1")]);
        tree.disk("sde", "stick", &[("ro", "1"), ("removable", "1")]);
        tree.disk("nvme1n1", "virtual/nvme-fabrics/ctl/nvme1", &[]);
        tree.disk("sr0", "cd", &[("ro", "1")]);
        tree.disk("mmcblk0boot0", "mmc", &[("ro", "1")]);
        let barred: Vec<_> = tree.sysfs().barred().unwrap().into_iter().map(|barred| (barred.name, barred.code)).collect();
        let expected = [
            ("/dev/nvme1n1", code::DISK_REMOTE),
            ("/dev/sdb", code::DISK_REMOTE),
            ("/dev/sdc", code::DISK_REMOTE),
            ("/dev/sdd", code::DISK_READ_ONLY),
        ];
        assert_eq!(barred, expected.map(|(name, code)| (name.to_owned(), code)));
        assert!(tree.sysfs().disks().unwrap().iter().all(|disk| disk.name != "/dev/sdd"));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error_and_not_empty() {
        let tree = Tree::new();
        assert!(tree.sysfs().disks().is_err());
        tree.disk("sda", "x", &[("size", "many")]);
        assert!(tree.sysfs().disks().is_err());
    }

    #[test]
    fn identity_is_told_and_placeholders_are_not() {
        let tree = Tree::new();
        assert_eq!((tree.sysfs().serial(), tree.sysfs().uuid(), tree.sysfs().uefi()), (None, None, false));
        tree.put("class/dmi/id/product_serial", "CZ3014ABCD\n");
        tree.put("class/dmi/id/product_uuid", "4C4C4544-0042\n");
        tree.put("firmware/efi/x", "");
        assert_eq!((tree.sysfs().serial().as_deref(), tree.sysfs().uuid().as_deref()), (Some("CZ3014ABCD"), Some("4c4c4544-0042")));
        assert!(tree.sysfs().uefi());
        tree.put("class/dmi/id/product_serial", "To Be Filled By O.E.M.\n");
        tree.put("class/dmi/id/product_uuid", "00000000-0000-0000-0000-000000000000\n");
        assert_eq!((tree.sysfs().serial(), tree.sysfs().uuid()), (None, None));
    }

    #[test]
    fn only_hardware_is_an_interface() {
        let tree = Tree::new();
        tree.put("class/net/eth0/address", "52:54:00:12:34:56\n");
        tree.put("class/net/eth0/type", "1\n");
        tree.put("class/net/eth0/carrier", "1\n");
        tree.put("class/net/eth0/device/x", "");
        tree.put("class/net/lo/address", "00:00:00:00:00:00\n");
        tree.put("class/net/lo/type", "772\n");
        let nics = tree.sysfs().nics();
        assert_eq!(nics.len(), 1);
        assert_eq!((nics[0].name.as_str(), nics[0].link_up), ("eth0", Some(true)));
    }
}
