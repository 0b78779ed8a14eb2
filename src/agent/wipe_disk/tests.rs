use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use super::{super::FileDisk, *};

const MIB: u64 = 1 << 20;

/// A disk with something everywhere.
struct Bench {
    folder: tempfile::TempDir,
    size: u64,
}

impl Bench {
    fn new(size: u64) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), size };
        let bytes: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8 + 1).collect();
        fs::write(bench.path(), bytes).unwrap();
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn seen(&self) -> ObservedDisk {
        ObservedDisk { name: "/dev/sda".to_owned(), serial: Some("A".to_owned()), size: Some(self.size), ..ObservedDisk::default() }
    }

    fn wipe(&self, method: WipeMethod, change: impl FnOnce(FileDisk) -> Box<dyn Disk>) -> Result<Option<DiskProof>, Failure> {
        let disk = change(FileDisk::open_or_create(&self.path(), self.size).unwrap());
        let (watch, ready) = (Watch::default(), Ready::new(disk, &self.seen(), method, "boot-1")?);
        watch.grant(ready.total(), 0);
        let total = ready.total();
        let done = ready.wipe(&watch)?;
        assert_eq!(watch.progress().unwrap().done, total, "progress reaches its end and goes no further");
        Ok(done)
    }
}

fn plain(disk: FileDisk) -> Box<dyn Disk> {
    Box::new(disk)
}

#[test]
fn zero_leaves_zeros_everywhere_and_reads_all_of_it() {
    for size in [512, 5 * MIB + 512, 20 * MIB] {
        let bench = Bench::new(size);
        let proof = bench.wipe(WipeMethod::Zero, plain).unwrap().unwrap();
        assert!(bench.bytes().iter().all(|byte| *byte == 0));
        assert_eq!((proof.read, proof.zero, proof.size, proof.places, proof.same), (size, size, size, 1, 0));
        assert_eq!(proof.digest, crate::model::Digest::of(&bench.bytes()), "what `sha256sum` of the disk would say");
        assert_eq!(proof.disk, bench.seen());
    }
}

#[test]
fn signatures_leave_what_is_inside_and_say_so() {
    let bench = Bench::new(20 * MIB);
    let proof = bench.wipe(WipeMethod::Signatures, plain).unwrap().unwrap();
    let (bytes, mib) = (bench.bytes(), MIB as usize);
    assert!(bytes[..mib].iter().chain(&bytes[19 * mib..]).all(|byte| *byte == 0));
    assert!(bytes[mib..19 * mib].iter().all(|byte| *byte != 0));
    assert_eq!((proof.places, proof.read, proof.zero, proof.size), (2, 2 * MIB, 2 * MIB, 20 * MIB));
    assert!(proof.to_string().contains("2097152 of 20971520 bytes were read back at 2 places, all zero"), "{proof}");
}

/// Keeps part of what it should have forgotten.
struct Forgetful {
    disk: FileDisk,
    keeps: Range<u64>,
    with: Option<u8>,
}

impl Disk for Forgetful {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn sector(&self) -> u64 {
        self.disk.sector()
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, bytes)
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset + len;
        let (until, from) = (self.keeps.start.clamp(offset, end), self.keeps.end.clamp(offset, end));
        // A file takes no hole without a length.
        for (start, end) in [(offset, until), (from, end)].into_iter().filter(|(start, end)| start < end) {
            self.disk.zero(start, end - start)?;
        }
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()
    }
    fn can_erase(&mut self, _: Erase) -> Result<String, Failure> {
        Ok("told to".to_owned())
    }
    fn erase(&mut self, _: Erase) -> Result<(), Failure> {
        match self.with {
            None => self.zero(0, self.size()).unwrap(),
            Some(byte) => {
                let all = vec![byte; self.keeps.start as usize];
                self.write_at(0, &all).unwrap();
                self.write_at(self.keeps.end, &vec![byte; (self.size() - self.keeps.end) as usize]).unwrap();
            }
        }
        Ok(())
    }
}

#[test]
fn a_disk_that_does_not_do_what_it_says_is_not_wiped() {
    let keeping = |keeps: Range<u64>, with| move |disk| Box::new(Forgetful { disk, keeps, with }) as Box<dyn Disk>;
    for method in [WipeMethod::Zero, WipeMethod::Discard, WipeMethod::SecureErase] {
        let bench = Bench::new(20 * MIB);
        let failure = bench.wipe(method, keeping(9 * MIB..10 * MIB, None)).unwrap_err();
        assert_eq!(failure.code, code::NOT_WIPED, "{method}: {failure}");
        assert!(failure.message.starts_with("/dev/sda: "), "{failure}");
    }
    // One byte, somewhere: the whole reading finds it.
    let bench = Bench::new(20 * MIB);
    assert_eq!(bench.wipe(WipeMethod::Zero, keeping(9 * MIB..9 * MIB + 1, None)).unwrap_err().code, code::NOT_WIPED);
    let bench = Bench::new(20 * MIB);
    assert_eq!(bench.wipe(WipeMethod::Signatures, keeping(0..1, None)).unwrap_err().code, code::NOT_WIPED);
}

#[test]
fn a_drive_may_leave_a_pattern_after_its_own_erase_but_not_after_a_discard() {
    let pattern = |disk| Box::new(Forgetful { disk, keeps: 0..0, with: Some(0x5A) }) as Box<dyn Disk>;
    let bench = Bench::new(20 * MIB);
    let proof = bench.wipe(WipeMethod::SecureErase, pattern).unwrap().unwrap();
    assert_eq!((proof.zero, proof.same), (0, 0));
    assert!(proof.to_string().contains("0 of them zero, none as before"), "{proof}");
    assert_eq!(Bench::new(20 * MIB).wipe(WipeMethod::Discard, pattern).unwrap_err().code, code::NOT_WIPED);
}

#[test]
fn what_a_disk_does_not_know_is_refused_before_anything() {
    let bench = Bench::new(20 * MIB);
    let before = bench.bytes();
    let failure = bench.wipe(WipeMethod::SecureErase, plain).unwrap_err();
    assert_eq!(failure.code, code::WIPE_UNSUPPORTED);
    assert!(failure.message.contains("nothing was done to it"), "{failure}");
    let disk = Box::new(FileDisk::open_or_create(&bench.path(), bench.size).unwrap());
    let other = ObservedDisk { size: Some(19 * MIB), ..bench.seen() };
    assert_eq!(Ready::new(disk, &other, WipeMethod::Zero, "b").err().unwrap().code, code::DISK_SIZE);
    assert!(bench.bytes() == before);
}

#[test]
fn a_discard_is_read_at_both_ends_and_at_places_between() {
    let bench = Bench::new(256 * MIB);
    let proof = bench.wipe(WipeMethod::Discard, plain).unwrap().unwrap();
    assert!(proof.places > 500 && proof.read > 30 * MIB && proof.read < 100 * MIB, "{proof:?}");
    assert_eq!(proof.zero, proof.read);
}

#[test]
fn a_stop_ends_a_wipe() {
    let bench = Bench::new(20 * MIB);
    let disk = Box::new(FileDisk::open_or_create(&bench.path(), bench.size).unwrap());
    let (watch, ready) = (Arc::new(Watch::default()), Ready::new(disk, &bench.seen(), WipeMethod::Zero, "b").unwrap());
    watch.stop();
    assert_eq!(ready.wipe(&watch).unwrap(), None);
    let bytes = bench.bytes();
    assert!(bytes[2 * MIB as usize..18 * MIB as usize].iter().all(|byte| *byte != 0), "only the ends");
}

/// Takes note of the first byte of each piece that is zeroed.
struct Noted {
    disk: FileDisk,
    order: Arc<Mutex<Vec<u64>>>,
}

impl Disk for Noted {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn sector(&self) -> u64 {
        self.disk.sector()
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, bytes)
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buf)
    }
    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.order.lock().unwrap().push(offset / MIB);
        self.disk.zero(offset, len)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()
    }
}

#[test]
fn what_starts_a_system_goes_first_and_what_tells_where_the_rest_is_goes_last() {
    let order = |method, table: bool| {
        let (bench, order) = (Bench::new(20 * MIB), Arc::default());
        if table {
            let head = super::super::gpt::tests::head(512, &[("a", 8 * 2048, 16 * 2048 - 1)]);
            FileDisk::open_or_create(&bench.path(), bench.size).unwrap().write_at(0, &head).unwrap();
        }
        bench.wipe(method, |disk| Box::new(Noted { disk, order: Arc::clone(&order) })).unwrap();
        order.lock().unwrap().clone()
    };
    assert_eq!(order(WipeMethod::Zero, false), [0, 19, 0, 8, 16]);
    assert_eq!(order(WipeMethod::Signatures, true), [8, 15, 19, 0]);
    assert_eq!(order(WipeMethod::Signatures, false), [19, 0]);
}

proptest! {
    /// Of whatever size a disk is: the places are on it, apart, both ends are among them, and they differ from start to start.
    #[test]
    fn samples_are_apart_and_cover_both_ends(size in prop_oneof![1u64..4096, 1u64..(8 << 20), 1u64..(20 << 40)]) {
        let places = samples("boot-1", "/dev/sda", size);
        prop_assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start));
        prop_assert!(places.iter().all(|place| place.start < place.end && length(place) <= BLOCK as u64));
        prop_assert_eq!((places[0].start, places.last().unwrap().end), (0, size));
        prop_assert_eq!(&places, &samples("boot-1", "/dev/sda", size));
        if size > 1 << 32 {
            prop_assert!(places != samples("boot-2", "/dev/sda", size) && places != samples("boot-1", "/dev/sdb", size));
            prop_assert!(places.len() > 900);
        }
    }
}
