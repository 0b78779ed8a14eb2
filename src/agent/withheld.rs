//! A disk whose two ends stay in RAM until what lies between them is known to be right.
//!
//! What makes a firmware or a system take a disk for something to start stands at its ends: boot sector and boot loader, both partition
//! tables (UEFI specification 2.10, section 5.3), superblocks of software RAID, ZFS labels. While both ends are zero nothing starts from
//! it, whatever becomes of power, network, image or agent in between.

use std::{io, ops::Range};

use super::{
    Disk,
    failure::{Failure, code},
    write::{refused, sync, unreadable},
};

/// Length of each end. GRUB's first stages lie before the first partition, at 1 MiB; the backup table takes 33 sectors.
const END: u64 = 1 << 20;

/// What of the head comes last of all: the boot sector, which firmware looks at first, in the largest sector that disks have.
const BOOT: usize = 4096;

/// A disk with its ends in RAM. Reads and writes what will be there.
pub(super) struct Withheld {
    disk: Box<dyn Disk>,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Withheld {
    /// Zeroes both ends, on the medium too: the old system is gone before a byte of the new one is there.
    ///
    /// # Errors
    /// `disk-write`.
    pub(super) fn begin(disk: Box<dyn Disk>) -> Result<Self, Failure> {
        let head = disk.size().min(END);
        let tail = (disk.size() - head).min(END);
        let mut withheld = Self { disk, head: vec![0; head as usize], tail: vec![0; tail as usize] };
        withheld.conceal()?;
        Ok(withheld)
    }

    /// Puts the ends on the medium, the boot sector last and when all else is there, and reads them back. If that fails they are zeroed
    /// again, as far as the disk lets.
    ///
    /// # Errors
    /// `disk-write`, `disk-read`, `verify-failed`.
    pub(super) fn reveal(&mut self) -> Result<(), Failure> {
        let revealed = self.put_ends();
        if revealed.is_err() {
            // The first failure is the one to tell.
            let _ = self.conceal();
        }
        revealed
    }

    fn put_ends(&mut self) -> Result<(), Failure> {
        let tail_at = self.middle().end;
        let (boot, rest) = self.head.split_at(BOOT.min(self.head.len()));
        // A disk may keep any part of one request when its power goes.
        for (at, bytes) in [(tail_at, &self.tail[..]), (boot.len() as u64, rest), (0, boot)] {
            put(self.disk.as_mut(), at, bytes)?;
        }
        Ok(())
    }

    fn conceal(&mut self) -> Result<(), Failure> {
        let ends = [(0, self.head.len() as u64), (self.middle().end, self.tail.len() as u64)];
        for (at, length) in ends.into_iter().filter(|(_, length)| *length > 0) {
            self.disk.zero(at, length).map_err(|error| refused("zeroing", at, length, &error))?;
        }
        sync(self.disk.as_mut())
    }

    /// What is on the disk itself.
    fn middle(&self) -> Range<u64> {
        self.head.len() as u64..self.disk.size() - self.tail.len() as u64
    }

    /// Cuts a range at the ends: how many of its bytes are in the head and in the middle; the others are in the tail.
    fn cut(&self, offset: u64, length: u64) -> io::Result<(usize, usize)> {
        let end = offset.checked_add(length).filter(|end| *end <= self.disk.size());
        let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk"))?;
        let before = |edge: u64| (edge.clamp(offset, end) - offset) as usize;
        let middle = self.middle();
        Ok((before(middle.start), before(middle.end) - before(middle.start)))
    }

    /// Where a range's part in the tail begins there.
    fn in_tail(&self, offset: u64) -> usize {
        offset.saturating_sub(self.middle().end) as usize
    }
}

/// Writes to the medium and reads back.
fn put(disk: &mut dyn Disk, at: u64, bytes: &[u8]) -> Result<(), Failure> {
    if bytes.is_empty() {
        return Ok(());
    }
    disk.write_at(at, bytes).map_err(|error| refused("write", at, bytes.len() as u64, &error))?;
    sync(disk)?;
    let mut back = vec![0; bytes.len()];
    disk.read_at(at, &mut back).map_err(|error| unreadable(at, &error))?;
    if back != bytes {
        let text = format!("the disk does not hold the {} bytes that were written at byte {at}", bytes.len());
        return Err(Failure::new(code::VERIFY_FAILED, text));
    }
    Ok(())
}

impl Disk for Withheld {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn sector(&self) -> u64 {
        self.disk.sector()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (head, middle) = self.cut(offset, bytes.len() as u64)?;
        let ((head, rest), tail) = (bytes.split_at(head), self.in_tail(offset));
        let (middle, rest) = rest.split_at(middle);
        if !head.is_empty() {
            self.head[offset as usize..][..head.len()].copy_from_slice(head);
        }
        if !middle.is_empty() {
            self.disk.write_at(offset + head.len() as u64, middle)?;
        }
        if !rest.is_empty() {
            self.tail[tail..][..rest.len()].copy_from_slice(rest);
        }
        Ok(())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (head, middle) = self.cut(offset, buf.len() as u64)?;
        let ((head, rest), tail) = (buf.split_at_mut(head), self.in_tail(offset));
        let (middle, rest) = rest.split_at_mut(middle);
        if !head.is_empty() {
            head.copy_from_slice(&self.head[offset as usize..][..head.len()]);
        }
        if !middle.is_empty() {
            self.disk.read_at(offset + head.len() as u64, middle)?;
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.tail[tail..][..rest.len()]);
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let (head, middle) = self.cut(offset, len)?;
        let rest = len as usize - head - middle;
        if head > 0 {
            self.head[offset as usize..][..head].fill(0);
        }
        if middle > 0 {
            self.disk.zero(offset + head as u64, middle as u64)?;
        }
        if rest > 0 {
            let tail = self.in_tail(offset);
            self.tail[tail..][..rest].fill(0);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::{super::FileDisk, *};

    fn disk(folder: &tempfile::TempDir, size: u64) -> Box<dyn Disk> {
        std::fs::write(folder.path().join("disk"), vec![0xEE; size as usize]).unwrap();
        Box::new(FileDisk::open_or_create(&folder.path().join("disk"), size).unwrap())
    }

    /// Takes note of each write, and of each sync as an empty one.
    struct Noted {
        disk: Box<dyn Disk>,
        writes: Arc<Mutex<Vec<Range<u64>>>>,
    }

    impl Disk for Noted {
        fn size(&self) -> u64 {
            self.disk.size()
        }
        fn sector(&self) -> u64 {
            self.disk.sector()
        }
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.writes.lock().unwrap().push(offset..offset + bytes.len() as u64);
            self.disk.write_at(offset, bytes)
        }
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.disk.read_at(offset, buf)
        }
        fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
            self.disk.zero(offset, len)
        }
        fn sync(&mut self) -> io::Result<()> {
            self.writes.lock().unwrap().push(0..0);
            self.disk.sync()
        }
    }

    /// A request that is cut off by a power cut may leave its first bytes on the medium and not its last.
    #[test]
    fn the_boot_sector_is_written_when_all_else_is_on_the_medium() {
        for (size, expected) in [
            (4096, vec![0..4096, 0..0]),
            (END, vec![4096..END, 0..0, 0..4096, 0..0]),
            (3 * END, vec![2 * END..3 * END, 0..0, 4096..END, 0..0, 0..4096, 0..0]),
        ] {
            let (folder, writes) = (tempfile::tempdir().unwrap(), Arc::default());
            let noted = Noted { disk: disk(&folder, size), writes: Arc::clone(&writes) };
            let mut withheld = Withheld::begin(Box::new(noted)).unwrap();
            writes.lock().unwrap().clear();
            withheld.reveal().unwrap();
            assert_eq!(*writes.lock().unwrap(), expected);
        }
    }

    #[derive(Debug, Clone)]
    enum Call {
        Write(u64, usize, u8),
        Zero(u64, usize),
        Read(u64, usize),
    }

    fn calls(size: u64) -> impl Strategy<Value = Vec<Call>> {
        let range = (0..size, 0usize..(3 << 20));
        let call = prop_oneof![
            (range.clone(), any::<u8>()).prop_map(|((at, length), byte)| Call::Write(at, length, byte)),
            range.clone().prop_map(|(at, length)| Call::Zero(at, length)),
            range.prop_map(|(at, length)| Call::Read(at, length)),
        ];
        prop::collection::vec(call, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// It reads as a disk does, its ends stay zero on the medium until they are revealed, and then all is there.
        #[test]
        fn it_is_a_disk_whose_ends_come_last(
            (size, calls) in prop::sample::select(vec![4096u64, (1 << 20) + 512, 2 << 20, (4 << 20) + 1536])
                .prop_flat_map(|size| (Just(size), calls(size))),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (head, tail) = (size.min(END) as usize, size.saturating_sub(END).max(size.min(END)) as usize);
            let mut expected = vec![0xEE; size as usize];
            expected[..head].fill(0);
            expected[tail..].fill(0);
            let mut withheld = Withheld::begin(disk(&folder, size)).unwrap();
            for call in calls {
                let (at, length) = match call {
                    Call::Write(at, length, _) | Call::Zero(at, length) | Call::Read(at, length) => (at as usize, length),
                };
                let fits = at + length <= size as usize;
                let range = at..if fits { at + length } else { at };
                let done = match call {
                    Call::Write(_, _, byte) => {
                        expected[range].fill(byte);
                        withheld.write_at(at as u64, &vec![byte; length])
                    }
                    Call::Zero(..) => {
                        expected[range].fill(0);
                        withheld.zero(at as u64, length as u64)
                    }
                    Call::Read(..) => {
                        let mut back = vec![1; length];
                        let done = withheld.read_at(at as u64, &mut back);
                        prop_assert!(!fits || back == expected[range]);
                        done
                    }
                };
                prop_assert_eq!(done.is_ok(), fits);
            }
            let medium = std::fs::read(folder.path().join("disk")).unwrap();
            prop_assert!(medium[..head].iter().chain(&medium[tail..]).all(|byte| *byte == 0));
            prop_assert!(medium[head..tail] == expected[head..tail]);
            withheld.reveal().unwrap();
            prop_assert!(std::fs::read(folder.path().join("disk")).unwrap() == expected);
        }
    }
}
