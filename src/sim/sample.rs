//! Small disk images for simulated machines: a GUID partition table (UEFI 2.10, section 5) with a CIDATA partition for the seed, and
//! content that differs for each name, so that one image can be told from another byte by byte.

use std::{fs, io, ops::Range, path::Path};

use sha2::{Digest as _, Sha256};

use crate::model::Digest;

const SECTOR: usize = 512;
const MIB: usize = 1024 * 1024;
/// First sector of the seed's partition, and of the one after it.
const CIDATA: u64 = 2048;
const ROOT: u64 = CIDATA + 4 * (MIB / SECTOR) as u64;

/// Bytes of a disk where the seed goes: they differ from machine to machine.
pub const SEED: Range<usize> = CIDATA as usize * SECTOR..ROOT as usize * SECTOR;

/// Type GUIDs in their mixed-endian form: Microsoft basic data, and Linux file system data.
const BASIC_DATA: [u8; 16] = [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7];
const LINUX_DATA: [u8; 16] = [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];

/// An image: its bytes on a disk, and the digest of its compressed file.
#[derive(Debug, Clone)]
pub struct SampleImage {
    /// The bytes of the disk.
    pub raw: Vec<u8>,
    /// Digest of the file, as a manifest names it.
    pub digest: Digest,
}

impl SampleImage {
    /// Makes `<folder>/<name>.raw.zst`, of `mib` MiB on the disk, at least 8. The same name gives the same bytes.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn make(folder: &Path, name: &str, mib: usize) -> io::Result<Self> {
        let raw = bytes(name, mib.max(8) * MIB);
        let file = zstd::encode_all(raw.as_slice(), 1)?;
        fs::write(folder.join(format!("{name}.raw.zst")), &file)?;
        Ok(Self { raw, digest: Digest::of(&file) })
    }

    /// Where a disk differs from this image, outside of the seed; `None` when it holds the image.
    pub fn difference(&self, disk: &[u8]) -> Option<usize> {
        [0..SEED.start, SEED.end..self.raw.len()].into_iter().find_map(|range| {
            let cut = |bytes: usize| bytes.min(disk.len());
            let (wanted, there) = (&self.raw[range.clone()], &disk[cut(range.start)..cut(range.end)]);
            let differs = || wanted.iter().zip(there).position(|(a, b)| a != b).unwrap_or(there.len());
            (wanted != there).then(|| range.start + differs())
        })
    }
}

fn bytes(name: &str, size: usize) -> Vec<u8> {
    let mut disk = vec![0; size];
    // Every other MiB stays a hole, as in a real root file system.
    let root = &mut disk[ROOT as usize * SECTOR..size - 34 * SECTOR];
    for (index, chunk) in root.chunks_mut(MIB).enumerate().filter(|(index, _)| index % 2 == 0) {
        let seed = Sha256::digest(format!("{name} {index}"));
        chunk.iter_mut().enumerate().for_each(|(at, byte)| *byte = seed[at % 32] ^ (at / 32) as u8 ^ (at / 8192) as u8);
    }
    partition(&mut disk, name);
    disk
}

fn partition(disk: &mut [u8], name: &str) {
    let id = Sha256::digest(name);
    let end = (disk.len() / SECTOR) as u64;
    let mut entries = vec![0; 128 * 128];
    for (slot, (kind, first, last, label)) in
        [(BASIC_DATA, CIDATA, ROOT - 1, "CIDATA"), (LINUX_DATA, ROOT, end - 35, "root")].into_iter().enumerate()
    {
        let entry = &mut entries[slot * 128..(slot + 1) * 128];
        entry[..16].copy_from_slice(&kind);
        entry[16..32].copy_from_slice(&id[slot..slot + 16]);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        label.encode_utf16().enumerate().for_each(|(at, unit)| entry[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes()));
    }
    // Protective MBR: one partition of type 0xEE over everything.
    disk[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let last = end - 1;
    disk[2 * SECTOR..2 * SECTOR + entries.len()].copy_from_slice(&entries);
    let backup = (last as usize - 32) * SECTOR;
    disk[backup..backup + entries.len()].copy_from_slice(&entries);
    disk[SECTOR..2 * SECTOR].copy_from_slice(&header(1, last, 2, end, &id, &entries));
    disk[last as usize * SECTOR..].copy_from_slice(&header(last, 1, last - 32, end, &id, &entries));
}

fn header(here: u64, other: u64, table: u64, end: u64, id: &[u8], entries: &[u8]) -> Vec<u8> {
    let mut header = vec![0; SECTOR];
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
    for (at, value) in [(24, here), (32, other), (40, 34), (48, end - 34), (72, table)] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    header[56..72].copy_from_slice(&id[16..32]);
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let checksum = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_told_from_its_image_everywhere_but_in_the_seed() {
        let folder = tempfile::tempdir().unwrap();
        let image = SampleImage::make(folder.path(), "one", 8).unwrap();
        let mut disk = image.raw.clone();
        disk[SEED.start + 5] ^= 1;
        disk.extend([7; 512]);
        assert_eq!(image.difference(&disk), None);
        disk[SEED.end + 5] ^= 1;
        assert_eq!(image.difference(&disk), Some(SEED.end + 5));
        disk[3] ^= 1;
        assert_eq!(image.difference(&disk), Some(3));
        assert_eq!(image.difference(&image.raw[..SEED.end + 9]), Some(SEED.end + 9));
        assert!(image.difference(&SampleImage::make(folder.path(), "two", 8).unwrap().raw).is_some());
    }
}
