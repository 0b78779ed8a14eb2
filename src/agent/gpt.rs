//! Reads a GUID partition table (UEFI specification 2.10, section 5.3): just enough to find a partition by its name.
//!
//! Only the primary table counts: an image that was just written to a larger disk has its backup table in the wrong place.

/// Sector sizes that disks have.
const SECTOR_SIZES: [u64; 2] = [512, 4096];

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// From 1, its place in the table: what the kernel and EFI device paths call it.
    pub number: u32,
    /// Its type, as it stands on the disk.
    pub kind: [u8; 16],
    /// Its own GUID, as it stands on the disk.
    pub id: [u8; 16],
    /// Its name.
    pub name: String,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// A valid primary table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Sector size that it was made for.
    pub sector: u64,
    /// Its partitions in use.
    pub partitions: Vec<Partition>,
}

impl Table {
    /// The one partition of this name; `None` also when there are two.
    pub fn named(&self, name: &str) -> Option<&Partition> {
        let mut named = self.partitions.iter().filter(|partition| partition.name == name);
        named.next().filter(|_| named.next().is_none())
    }

    /// The end of the last partition, in bytes: a disk that is smaller can't hold the image.
    pub fn end(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.start + partition.length).max().unwrap_or(0)
    }
}

/// The table in the first bytes of a disk with logical sectors of `sector` bytes: 1 MiB holds any that is made in practice. When there
/// is none for that size, one for another: an image may hold both. `None` when there is none at all, or its checksums or bounds are wrong.
pub fn parse(head: &[u8], sector: u64) -> Option<Table> {
    std::iter::once(sector).chain(SECTOR_SIZES).find_map(|sector| parse_at(head, sector))
}

/// The backup table in the last bytes of a disk, the first of which is byte `base`; for whoever looks for what once was on it.
pub fn parse_backup(tail: &[u8], base: u64, sector: u64) -> Option<Table> {
    let size = base.checked_add(tail.len() as u64)?;
    std::iter::once(sector).chain(SECTOR_SIZES).find_map(|sector| table_at(tail, base, (size / sector).checked_sub(1)?, sector))
}

fn parse_at(head: &[u8], sector: u64) -> Option<Table> {
    table_at(head, 0, 1, sector)
}

/// The table whose header is in sector `lba`, in bytes of which the first is byte `base` of the disk.
fn table_at(bytes: &[u8], base: u64, lba: u64, sector: u64) -> Option<Table> {
    let place = |lba: u64| usize::try_from(lba.checked_mul(sector)?.checked_sub(base)?).ok();
    let at = place(lba)?;
    let header = bytes.get(at..at.checked_add(usize::try_from(sector).ok()?)?)?;
    let size = u32_at(header, 12)? as usize;
    if &header[..8] != b"EFI PART" || !(92..=header.len()).contains(&size) || u64_at(header, 24)? != lba {
        return None;
    }
    let mut zeroed = header[..size].to_vec();
    zeroed[16..20].fill(0);
    if crc32fast::hash(&zeroed) != u32_at(header, 16)? {
        return None;
    }
    let (count, entry) = (u32_at(header, 80)? as usize, u32_at(header, 84)? as usize);
    if entry < 128 || !entry.is_multiple_of(8) {
        return None;
    }
    let start = place(u64_at(header, 72)?)?;
    let entries = bytes.get(start..start.checked_add(count.checked_mul(entry)?)?)?;
    if crc32fast::hash(entries) != u32_at(header, 88)? {
        return None;
    }
    let used = entries.chunks_exact(entry).zip(1..).filter(|(entry, _)| entry[..16] != [0; 16]);
    let partitions = used.map(|(entry, number)| partition(entry, number, sector)).collect::<Option<_>>()?;
    Some(Table { sector, partitions })
}

fn partition(entry: &[u8], number: u32, sector: u64) -> Option<Partition> {
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    let start = first.checked_mul(sector)?;
    let length = last.checked_sub(first)?.checked_add(1)?.checked_mul(sector)?;
    start.checked_add(length)?;
    let units = entry[56..128].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let name = char::decode_utf16(units.take_while(|unit| *unit != 0)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Some(Partition { number, kind: entry[..16].try_into().ok()?, id: entry[16..32].try_into().ok()?, name, start, length })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk's first MiB with a table of `(name, first, last)` in sectors.
    pub(in crate::agent) fn head(sector: usize, partitions: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut head = vec![0; 1 << 20];
        put(&mut head, sector, 2, partitions);
        head
    }

    /// Puts a table whose entries begin at the sector `at`.
    fn put(head: &mut [u8], sector: usize, at: usize, partitions: &[(&str, u64, u64)]) {
        let mut entries = vec![0; 128 * 128];
        for (entry, (name, first, last)) in entries.chunks_exact_mut(128).zip(partitions) {
            entry[..16].fill(7);
            entry[16..32].fill(9);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (pair, unit) in entry[56..].chunks_exact_mut(2).zip(name.encode_utf16()) {
                pair.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let mut header = vec![0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[24..32].copy_from_slice(&1u64.to_le_bytes());
        header[72..80].copy_from_slice(&(at as u64).to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        head[sector..sector + 92].copy_from_slice(&header);
        head[at * sector..at * sector + entries.len()].copy_from_slice(&entries);
    }

    #[test]
    fn of_two_tables_the_one_for_the_disk_counts() {
        let mut both = head(4096, &[("CIDATA", 64, 127)]);
        put(&mut both, 512, 128, &[("CIDATA", 512, 1023)]);
        for sector in [512, 4096] {
            assert_eq!(parse(&both, sector).map(|table| table.sector), Some(sector));
        }
    }

    #[test]
    fn a_partition_is_found_by_its_name() {
        for sector in [512, 4096] {
            let head = head(sector, &[("EFI system", 64, 127), ("CIDATA", 128, 255)]);
            let table = parse(&head, 512).unwrap();
            assert_eq!(table.sector, sector as u64);
            assert_eq!(parse(&head, 4096).as_ref(), Some(&table));
            let found = table.named("CIDATA").unwrap();
            assert_eq!((found.number, found.start, found.length), (2, 128 * sector as u64, 128 * sector as u64));
            assert_eq!(table.named("root"), None);
            assert_eq!(table.end(), 256 * sector as u64);
        }
        let twice = parse(&head(512, &[("CIDATA", 64, 127), ("CIDATA", 128, 255)]), 512).unwrap();
        assert_eq!(twice.named("CIDATA"), None, "which of the two is meant is not known");
    }

    #[test]
    fn a_damaged_table_is_none() {
        let good = head(512, &[("CIDATA", 64, 127)]);
        for at in [512, 512 + 16, 512 + 24, 512 + 72, 1024, 1024 + 33, 1024 + 128 * 128 - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(parse(&bad, 512), None, "byte {at}");
        }
        assert_eq!(parse(&good[..4096], 512), None);
        assert_eq!(parse(&[], 512), None);
        assert_eq!(parse(&head(512, &[("backwards", 127, 64)]), 512), None);
        assert_eq!(parse(&head(512, &[("beyond", 1, u64::MAX)]), 512), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(changes in prop::collection::vec((0usize..20_000, any::<u8>()), 0..40), fix in any::<bool>()) {
            let mut bytes = head(512, &[("CIDATA", 64, 127)]);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            if fix {
                bytes[528..532].fill(0);
                let size = u32::from_le_bytes(bytes[524..528].try_into().unwrap()) as usize;
                let crc = crc32fast::hash(&bytes[512..512 + size.min(512)]);
                bytes[528..532].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = parse(&bytes, 512);
        }
    }
}
