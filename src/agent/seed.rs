//! The NoCloud seed: what a fresh system reads at its first boot to know who it is.
//!
//! A FAT volume labelled `CIDATA` in the partition of that name, as cloud-init's NoCloud data source finds it, with
//! `rackwright.json` beside for systems that have no cloud-init.

use std::io::{self, Cursor, Read, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use serde::{Deserialize, Serialize};

use super::{
    Disk,
    failure::{Failure, code},
    gpt,
    image::BLOCK,
    write::{sync, unreadable},
};
use crate::model::{Digest, Generation, HandoffPlace, MachineName};

/// Name of the partition, and label of the volume.
pub const CIDATA: &str = "CIDATA";

/// Where a system may publish values, and the certificate of who is there.
const URL: &str = "handoff.url";
const PEM: &str = "handoff.pem";

/// The volume is not larger than this unless its files need it: it is made in RAM and written in one go.
const VOLUME: u64 = 4 << 20;

/// Least size in which files of some size fit surely, tables and clusters included.
const OVERHEAD: u64 = 256 << 10;

/// What the seed says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// Where the system calls home, once.
    pub call_home: String,
    /// What was installed.
    pub generation: Generation,
    /// Digest of the image file.
    pub digest: Digest,
    /// The machine's name.
    pub machine: MachineName,
    /// NoCloud user-data; `None`: an empty cloud-config.
    #[serde(skip)]
    pub user_data: Option<String>,
    /// Where the system may publish values: the files `handoff.url` and `handoff.pem`, which a shell can use as they are.
    #[serde(skip)]
    pub handoff: Option<HandoffPlace>,
}

impl Seed {
    /// File names and contents. YAML strings are written as JSON strings, which YAML 1.2 contains.
    fn files(&self) -> Vec<(&'static str, String)> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let json = serde_json::to_string(self).unwrap_or_default();
        let (name, generation) = (quoted(self.machine.as_str()), quoted(&self.generation.to_string()));
        let phone_home = format!("phone_home: {{url: {}, post: [instance_id, hostname, fqdn], tries: 10}}", quoted(&self.call_home));
        let handoff = self.handoff.iter().flat_map(|place| [(URL, place.url.clone()), (PEM, place.certificate.clone())]);
        let files = [
            ("meta-data", format!("instance-id: {generation}\nlocal-hostname: {name}\n")),
            ("user-data", self.user_data.clone().unwrap_or_else(|| "#cloud-config\n{}\n".to_owned())),
            ("vendor-data", format!("#cloud-config\n{phone_home}\n")),
            ("rackwright.json", json + "\n"),
        ];
        files.into_iter().chain(handoff).collect()
    }

    /// A FAT volume of at most `room` bytes that holds the files, for a disk with sectors of `sector` bytes: Linux mounts none whose
    /// sectors are smaller than the disk's.
    fn volume(&self, room: u64, sector: u64) -> Result<Vec<u8>, Failure> {
        let files = self.files();
        let content: u64 = files.iter().map(|(_, text)| text.len() as u64).sum();
        let size = room.min(VOLUME.max(content + content / 4 + OVERHEAD)) / 4096 * 4096;
        let too_large = |why: String| {
            let text = format!("the configuration of {content} bytes does not fit into the {CIDATA} partition of {room} bytes: {why}");
            Failure::new(code::SEED_TOO_LARGE, text)
        };
        if content > room {
            return Err(too_large("it is larger".to_owned()));
        }
        let mut volume = Cursor::new(vec![0; usize::try_from(size).map_err(|error| too_large(error.to_string()))?]);
        fill(&mut volume, &files, sector.clamp(512, 4096) as u16).map_err(|error| too_large(error.to_string()))?;
        Ok(volume.into_inner())
    }
}

fn fill(volume: &mut Cursor<Vec<u8>>, files: &[(&str, String)], sector: u16) -> io::Result<()> {
    let options = FormatVolumeOptions::new().bytes_per_sector(sector).volume_label(*b"CIDATA     ").volume_id(0x5157_5244);
    fatfs::format_volume(&mut *volume, options)?;
    volume.set_position(0);
    let system = FileSystem::new(volume, FsOptions::new())?;
    for (name, text) in files {
        let mut file = system.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
    }
    system.unmount()
}

/// Writes the seed where the image has a place for it, and reads it back.
///
/// An image without such a place is fine as long as there is no user-data to be lost.
///
/// # Errors
/// `no-seed-partition`, `seed-too-large`, `disk-write`, `disk-read`, `verify-failed`.
pub fn write_seed(disk: &mut dyn Disk, seed: &Seed) -> Result<(), Failure> {
    let Some((start, room)) = place(disk).map_err(|error| unreadable(0, &error))? else {
        return require_place(false, seed.user_data.is_some());
    };
    let volume = seed.volume(room, disk.sector())?;
    let failed = |error| Failure::new(code::DISK_WRITE, format!("the seed can't be written at byte {start}: {error}"));
    disk.write_at(start, &volume).map_err(failed)?;
    sync(disk)?;
    let mut back = vec![0; volume.len()];
    disk.read_at(start, &mut back).map_err(|error| unreadable(start, &error))?;
    if back != volume {
        return Err(Failure::new(code::VERIFY_FAILED, "the disk does not hold the seed that was written"));
    }
    Ok(())
}

/// Whether an image may be installed: user-data needs a place.
///
/// # Errors
/// `no-seed-partition`.
pub(super) fn require_place(there: bool, user_data: bool) -> Result<(), Failure> {
    if user_data && !there {
        let text = format!("the machine has user data, but the image has no (or more than one) GPT partition named {CIDATA}");
        return Err(Failure::new(code::NO_SEED_PARTITION, text));
    }
    Ok(())
}

/// What the seed on a disk says; `None` when there is none that can be read.
pub fn read_seed(disk: &mut dyn Disk) -> Option<Seed> {
    let (start, room) = place(disk).ok()??;
    let volume = read_volume(disk, start, room)?;
    let system = FileSystem::new(Cursor::new(volume), FsOptions::new()).ok()?;
    let text = |name: &str| {
        let mut text = String::new();
        system.root_dir().open_file(name).ok()?.read_to_string(&mut text).ok()?;
        Some(text)
    };
    let mut seed: Seed = serde_json::from_str(&text("rackwright.json")?).ok()?;
    seed.user_data = text("user-data");
    seed.handoff = text(URL).zip(text(PEM)).map(|(url, certificate)| HandoffPlace { url, certificate });
    Some(seed)
}

/// First byte and length of the seed's partition, if it lies on the disk.
fn place(disk: &mut dyn Disk) -> io::Result<Option<(u64, u64)>> {
    let size = disk.size();
    let mut head = vec![0; (BLOCK as u64).min(size) as usize];
    disk.read_at(0, &mut head)?;
    let table = gpt::parse(&head, disk.sector());
    let partition = table.as_ref().and_then(|table| table.named(CIDATA)).filter(|found| found.start + found.length <= size);
    Ok(partition.map(|partition| (partition.start, partition.length)))
}

/// The volume's bytes, as many as its boot sector says.
fn read_volume(disk: &mut dyn Disk, start: u64, room: u64) -> Option<Vec<u8>> {
    const MOST: u64 = 256 << 20;
    let mut sector = [0; 512];
    disk.read_at(start, &mut sector).ok()?;
    let bytes = u64::from(u16::from_le_bytes([sector[11], sector[12]]));
    let short = u64::from(u16::from_le_bytes([sector[19], sector[20]]));
    let long = u64::from(u32::from_le_bytes([sector[32], sector[33], sector[34], sector[35]]));
    let length = bytes * if short > 0 { short } else { long };
    if length == 0 || length > room.min(MOST) {
        return None;
    }
    let mut volume = vec![0; usize::try_from(length).ok()?];
    disk.read_at(start, &mut volume).ok()?;
    Some(volume)
}

#[cfg(test)]
mod tests {
    use super::{super::FileDisk, super::gpt::tests::head, *};

    fn seed(user_data: Option<&str>) -> Seed {
        Seed {
            call_home: "http://10.0.0.1:8080/callhome/v1/web-01/3/abc".to_owned(),
            generation: Generation::of(Digest::of(b"image"), None, 0),
            digest: Digest::of(b"image"),
            machine: MachineName::new("web-01").unwrap(),
            user_data: user_data.map(str::to_owned),
            handoff: user_data.map(|_| HandoffPlace { url: "https://10.0.0.1:8443/handoff".to_owned(), certificate: "PEM".to_owned() }),
        }
    }

    fn disk(folder: &tempfile::TempDir, partitions: &[(&str, u64, u64)]) -> FileDisk {
        let mut disk = FileDisk::open_or_create(&folder.path().join("disk"), 16 << 20).unwrap();
        disk.write_at(0, &head(512, partitions)).unwrap();
        disk
    }

    #[test]
    fn what_is_written_is_read_again_in_partitions_of_any_size() {
        for sectors in [256, 2048, 8192, 16384] {
            let folder = tempfile::tempdir().unwrap();
            let mut disk = disk(&folder, &[("root", 64, 100), (CIDATA, 2048, 2048 + sectors - 1)]);
            let before = seed(Some("#cloud-config\nhostname: \"ä\"\n"));
            write_seed(&mut disk, &before).unwrap();
            assert_eq!(read_seed(&mut disk), Some(before), "{sectors} sectors");
        }
    }

    #[test]
    fn a_seed_is_the_same_each_time() {
        assert_eq!(seed(None).volume(1 << 22, 512).unwrap(), seed(None).volume(1 << 22, 512).unwrap());
    }

    #[test]
    fn the_volume_counts_in_the_sectors_of_its_disk() {
        for sector in [512u16, 4096] {
            let folder = tempfile::tempdir().unwrap();
            let (mut disk, seed) = (disk(&folder, &[(CIDATA, 2048, 2048 + 8191)]), seed(Some("#cloud-config\n")));
            let volume = seed.volume(4 << 20, sector.into()).unwrap();
            assert_eq!(volume[11..13], sector.to_le_bytes());
            disk.write_at(1 << 20, &volume).unwrap();
            assert_eq!(read_seed(&mut disk), Some(seed), "{sector}");
        }
    }

    #[test]
    fn user_data_without_a_place_is_refused_and_no_user_data_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = disk(&folder, &[("root", 2048, 4096)]);
        assert_eq!(write_seed(&mut disk, &seed(Some("x"))).unwrap_err().code, "no-seed-partition");
        write_seed(&mut disk, &seed(None)).unwrap();
        assert_eq!(read_seed(&mut disk), None);
    }

    #[test]
    fn large_user_data_fits_or_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = disk(&folder, &[(CIDATA, 2048, 2048 + 20_479)]);
        let large = seed(Some(&"x".repeat(6 << 20)));
        write_seed(&mut disk, &large).unwrap();
        assert_eq!(read_seed(&mut disk), Some(large));
        assert_eq!(write_seed(&mut disk, &seed(Some(&"x".repeat(12 << 20)))).unwrap_err().code, "seed-too-large");
    }

    #[test]
    fn cloud_init_files_are_valid_whatever_the_values() {
        let files = seed(None).files();
        let [(_, meta), (_, user), (_, vendor), (_, json)] = &files[..] else { panic!("{files:?}") };
        assert_eq!(meta, "instance-id: \"g1:e575e3261827e70cfb57f66e30185a81\"\nlocal-hostname: \"web-01\"\n");
        assert_eq!(user, "#cloud-config\n{}\n");
        let home = "phone_home: {url: \"http://10.0.0.1:8080/callhome/v1/web-01/3/abc\", post: [instance_id, hostname, fqdn], tries: 10}";
        assert_eq!(*vendor, format!("#cloud-config\n{home}\n"));
        assert!(json.starts_with("{\"callHome\":\"http://10.0.0.1"), "{json}");
    }
}
