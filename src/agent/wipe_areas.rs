//! Where on a disk stands what names it: partition tables at both ends, and at the ends of each partition the superblocks of file systems,
//! LVM labels and RAID metadata.
//!
//! One MiB at each end holds all of these that `wipefs` knows: GPT (UEFI specification 2.10, section 5.3) and MBR; MD metadata 0.90 in the
//! last 128 KiB, 1.0 in the last 8 KiB, 1.1 and 1.2 in the first 8 KiB; LVM's label in the first four sectors; DDF and vendors' RAID in the
//! last sectors; ZFS labels in the first and last 512 KiB; ext, XFS, swap and LUKS headers in the first 64 KiB; btrfs at 64 KiB. Further
//! copies of superblocks inside, such as those of ext and btrfs, stay: nothing is found by them without the first.

use std::{io, ops::Range};

use super::{Disk, gpt};

/// How much at each end.
const END: u64 = 1 << 20;

/// Most links of a chain of extended partitions that are followed. The chain is the disk's word, and may be a circle.
const CHAIN: usize = 128;

/// The areas of `disk` that hold signatures, ascending, none touching another.
///
/// # Errors
/// What the disk says to a read.
pub(super) fn areas(disk: &mut dyn Disk) -> io::Result<Vec<Range<u64>>> {
    let size = disk.size();
    let mut all = ends(0..size);
    let (mut head, tail_at) = (vec![0; size.min(END) as usize], size.saturating_sub(END));
    let mut tail = vec![0; (size - tail_at) as usize];
    disk.read_at(0, &mut head)?;
    disk.read_at(tail_at, &mut tail)?;
    let tables = [gpt::parse(&head, disk.sector()), gpt::parse_backup(&tail, tail_at, disk.sector())];
    let partitions = tables.into_iter().flatten().flat_map(|table| table.partitions);
    all.extend(partitions.flat_map(|partition| ends(partition.start..partition.start.saturating_add(partition.length))));
    let sector = disk.sector();
    all.extend(mbr(disk, &head, sector)?);
    Ok(joined(all, size))
}

/// Both ends of a disk or a partition.
fn ends(of: Range<u64>) -> Vec<Range<u64>> {
    let edge = |edge: u64| edge.clamp(of.start, of.end);
    vec![of.start..edge(of.start.saturating_add(END)), edge(of.end.saturating_sub(END))..of.end]
}

/// The partitions of an MBR, and of the chain of extended ones: each entry has its type at byte 4, first sector at 8, and length at 12.
fn mbr(disk: &mut dyn Disk, head: &[u8], sector: u64) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut extended = None;
    for (kind, first, count) in entries(head) {
        match kind {
            // Protective: the partitions are in the GPT.
            0 | 0xEE => {}
            0x05 | 0x0F | 0x85 => {
                extended = extended.or(Some(first));
                found.extend(ends(range(first, count, sector)));
            }
            _ => found.extend(ends(range(first, count, sector))),
        }
    }
    let Some(base) = extended else { return Ok(found) };
    let mut next = Some(base);
    for _ in 0..CHAIN {
        let Some(at) = next.take() else { break };
        let place = at.saturating_mul(sector);
        let mut block = vec![0; 512];
        if place.saturating_add(512) > disk.size() {
            break;
        }
        disk.read_at(place, &mut block)?;
        found.push(place..place.saturating_add(sector));
        for (kind, first, count) in entries(&block) {
            match kind {
                0 => {}
                0x05 | 0x0F | 0x85 => next = Some(base.saturating_add(first)),
                _ => found.extend(ends(range(at.saturating_add(first), count, sector))),
            }
        }
    }
    Ok(found)
}

fn range(first: u64, count: u64, sector: u64) -> Range<u64> {
    first.saturating_mul(sector)..first.saturating_add(count).saturating_mul(sector)
}

/// Type, first sector and number of sectors of each entry of a boot sector; none where it has no signature.
fn entries(sector: &[u8]) -> impl Iterator<Item = (u8, u64, u64)> {
    let table = sector.get(446..512).filter(|table| table[64..] == [0x55, 0xAA]).unwrap_or_default();
    let four = |bytes: &[u8], at: usize| u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    table.chunks_exact(16).take(4).map(move |entry| (entry[4], four(entry, 8), four(entry, 12)))
}

/// Ascending, cut off at the disk's end, and without gaps between those that touch.
fn joined(mut all: Vec<Range<u64>>, size: u64) -> Vec<Range<u64>> {
    all.sort_by_key(|area| area.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for area in all {
        let area = area.start.min(size)..area.end.min(size);
        match joined.last_mut() {
            _ if area.is_empty() => {}
            Some(last) if area.start <= last.end => last.end = last.end.max(area.end),
            _ => joined.push(area),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{FileDisk, gpt::tests::head},
        *,
    };

    const MIB: u64 = 1 << 20;

    fn disk(folder: &tempfile::TempDir, size: u64) -> FileDisk {
        FileDisk::open_or_create(&folder.path().join("disk"), size).unwrap()
    }

    fn of(size: u64, change: impl FnOnce(&mut FileDisk)) -> Vec<Range<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = disk(&folder, size);
        change(&mut disk);
        areas(&mut disk).unwrap()
    }

    #[test]
    fn an_empty_disk_has_two_ends_and_a_small_one_is_all_ends() {
        assert_eq!(of(64 * MIB, |_| {}), [0..MIB, 63 * MIB..64 * MIB]);
        assert_eq!(of(2 * MIB, |_| {}), vec![Range { start: 0, end: 2 * MIB }]);
        assert_eq!(of(512, |_| {}), vec![Range { start: 0, end: 512 }]);
    }

    #[test]
    fn the_ends_of_gpt_partitions_are_areas() {
        let found = of(64 * MIB, |disk| disk.write_at(0, &head(512, &[("a", 8 * 2048, 16 * 2048 - 1)])).unwrap());
        assert_eq!(found, [0..MIB, 8 * MIB..9 * MIB, 15 * MIB..16 * MIB, 63 * MIB..64 * MIB]);
    }

    fn entry(kind: u8, first: u32, count: u32) -> [u8; 16] {
        let mut entry = [0; 16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&count.to_le_bytes());
        entry
    }

    fn boot_sector(entries: &[[u8; 16]]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        for (place, entry) in sector[446..510].chunks_exact_mut(16).zip(entries) {
            place.copy_from_slice(entry);
        }
        sector[510..].copy_from_slice(&[0x55, 0xAA]);
        sector
    }

    #[test]
    fn logical_partitions_are_found_and_a_circle_ends() {
        let mib = |mib: u32| mib * 2048;
        let found = of(64 * MIB, |disk| {
            disk.write_at(0, &boot_sector(&[entry(0x83, mib(2), mib(3)), entry(0x05, mib(20), mib(30))])).unwrap();
            disk.write_at(20 * MIB, &boot_sector(&[entry(0x83, mib(2), mib(4)), entry(0x05, mib(10), mib(10))])).unwrap();
            disk.write_at(30 * MIB, &boot_sector(&[entry(0x83, mib(2), mib(4)), entry(0x05, 0, mib(10))])).unwrap();
        });
        let expected = [
            0..MIB,
            2 * MIB..3 * MIB,
            4 * MIB..5 * MIB,
            20 * MIB..21 * MIB,
            22 * MIB..23 * MIB,
            25 * MIB..26 * MIB,
            30 * MIB..30 * MIB + 512,
            32 * MIB..33 * MIB,
            35 * MIB..36 * MIB,
            49 * MIB..50 * MIB,
            63 * MIB..64 * MIB,
        ];
        assert_eq!(found, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever a disk says of itself, the areas are on it, apart, and both its ends are among them.
        #[test]
        fn a_disk_that_lies_gives_areas_on_itself(entries in prop::collection::vec((any::<u8>(), any::<u32>(), any::<u32>()), 4), size in 512u64..(6 << 20)) {
            let found = of(size, |disk| {
                let sector = boot_sector(&entries.iter().map(|(kind, first, count)| entry(*kind, *first, *count)).collect::<Vec<_>>());
                disk.write_at(0, &sector).unwrap();
            });
            prop_assert!(found.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(found.iter().all(|area| area.start < area.end));
            prop_assert_eq!((found[0].start, found.last().unwrap().end), (0, size));
        }
    }
}
