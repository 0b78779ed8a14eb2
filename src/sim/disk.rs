//! A disk: a sparse file, and an account of what was written to it, kept by the disk itself and not by who writes.
//!
//! Beside `<machine>.<serial>.disk` stands `<machine>.<serial>.disk.writes.json`: [`Writes`]. A block that was written twice within one
//! install, or an install more than somebody asked for, shows there whatever journals and logs say.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::fcntl::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    config::{DiskConfig, std_duration},
    fault::Fault,
    machine::Machine,
};
use crate::agent;

/// The unit that writes are counted in.
const BLOCK: u64 = 1 << 20;
/// Where `disk-write` and `reset-during-write` strike: so many bytes into an install.
const FAULT_AFTER: u64 = 1 << 20;
/// What stands at the start of a disk that holds a system which nobody here installed: the end of an MBR.
const ADOPTED: &[u8] = b"a system that was here before";

/// What was written to one disk, in its whole life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writes {
    /// Times that the disk was opened and then written to: installs that began.
    pub installs: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Greatest number of times that one block of 1 MiB was begun to be written from its start, over the disk's life.
    pub most_block_writes: u32,
    /// The same within one install. The image is written once, and the seed over the image's empty seed volume: there it is more.
    pub most_block_writes_in_an_install: u32,
}

/// One disk of one machine.
pub(crate) struct Disk {
    pub(crate) config: DiskConfig,
    path: PathBuf,
    account: Mutex<Account>,
}

#[derive(Default)]
struct Account {
    writes: Writes,
    life: BTreeMap<u64, u32>,
}

/// What the account's file holds: the sums, then the blocks.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountFile {
    #[serde(flatten)]
    writes: Writes,
    /// Writes by block, for those blocks that were written.
    blocks: BTreeMap<u64, u32>,
}

impl Disk {
    /// Knows the disk. Its file is made when something is first written, unless `adopted` says that a system is on it.
    pub(crate) fn new(folder: &Path, machine: &str, config: DiskConfig, adopted: bool) -> io::Result<Self> {
        let serial: String = config.serial.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let path = folder.join(format!("{machine}.{serial}.disk"));
        let account = match fs::read(account_path(&path)) {
            Ok(bytes) => {
                let file: AccountFile = serde_json::from_slice(&bytes)?;
                Account { writes: file.writes, life: file.blocks }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Account::default(),
            Err(error) => return Err(error),
        };
        let disk = Self { config, path, account: Mutex::new(account) };
        if adopted && !disk.path.exists() {
            disk.file()?.write_all_at(ADOPTED, 0)?;
        }
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn writes(&self) -> Writes {
        self.lock().writes.clone()
    }

    /// Whether firmware would find something to start: anything but zeros in the first MiB.
    pub(crate) fn bootable(&self) -> io::Result<bool> {
        let Some(mut file) = self.existing()? else { return Ok(false) };
        let mut start = vec![0; BLOCK.min(self.config.size) as usize];
        let mut filled = 0;
        while filled < start.len() {
            match file.read(&mut start[filled..])? {
                0 => break,
                length => filled += length,
            }
        }
        Ok(start[..filled].iter().any(|byte| *byte != 0))
    }

    /// The file, if anything was ever written.
    pub(crate) fn existing(&self) -> io::Result<Option<File>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes its file if it is not there.
    pub(crate) fn make(&self) -> io::Result<()> {
        self.file().map(drop)
    }

    fn file(&self) -> io::Result<File> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        if file.metadata()?.len() != self.config.size {
            file.set_len(self.config.size)?;
        }
        Ok(file)
    }

    /// Opens it as the machine's operating system does. Nothing can be written once `rail` has lost power.
    pub(crate) fn open(self: &Arc<Self>, machine: Arc<Machine>, rail: CancellationToken) -> io::Result<OpenDisk> {
        let file = self.file()?;
        Ok(OpenDisk { disk: Arc::clone(self), machine, rail, file, written: 0, blocks: BTreeMap::new() })
    }

    fn keep_account(&self) -> io::Result<()> {
        let account = self.lock();
        let text = serde_json::to_vec_pretty(&AccountFile { writes: account.writes.clone(), blocks: account.life.clone() })?;
        let path = account_path(&self.path);
        let new = path.with_extension("json.new");
        File::create(&new).and_then(|mut file| file.write_all(&text))?;
        fs::rename(new, path)
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn account_path(disk: &Path) -> PathBuf {
    let mut path = disk.as_os_str().to_owned();
    path.push(".writes.json");
    path.into()
}

/// A disk that the agent opened.
pub(crate) struct OpenDisk {
    disk: Arc<Disk>,
    machine: Arc<Machine>,
    rail: CancellationToken,
    file: File,
    /// Bytes written since it was opened.
    written: u64,
    /// Writes by block since it was opened.
    blocks: BTreeMap<u64, u32>,
}

impl OpenDisk {
    fn power(&self) -> io::Result<()> {
        if self.rail.is_cancelled() { Err(io::Error::other("the machine has no power")) } else { Ok(()) }
    }

    fn inside(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.disk.config.size => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk")),
        }
    }

    /// Before bytes reach the file: faults, then the account. Counted before they are written, so that a crash in between shows
    /// a write too many and never one too few.
    fn begin_write(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.power()?;
        self.inside(offset, length)?;
        let faults = &self.machine.faults;
        if faults.has(Fault::DiskSlow) {
            std::thread::sleep(std_duration(self.machine.pace.slow_write));
        }
        if self.written >= FAULT_AFTER {
            if faults.strikes(Fault::DiskWrite) {
                return Err(io::Error::other("fault disk-write: medium error"));
            }
            if faults.strikes(Fault::ResetDuringWrite) {
                self.machine.pull_plug();
                return self.power();
            }
        }
        let mut account = self.disk.lock();
        let first = self.written == 0;
        account.writes.installs += u64::from(first);
        account.writes.bytes += length;
        self.written += length;
        let mut grown = first;
        for block in blocks_begun(offset, length) {
            let life = account.life.entry(block).or_default();
            *life += 1;
            let life = *life;
            let install = self.blocks.entry(block).or_default();
            *install += 1;
            grown |= life > account.writes.most_block_writes || *install > account.writes.most_block_writes_in_an_install;
            account.writes.most_block_writes = account.writes.most_block_writes.max(life);
            account.writes.most_block_writes_in_an_install = account.writes.most_block_writes_in_an_install.max(*install);
        }
        drop(account);
        if grown { self.disk.keep_account() } else { Ok(()) }
    }
}

/// Blocks whose first byte lies in the range. Several small writes one after the other that fill a block count once.
fn blocks_begun(offset: u64, length: u64) -> impl Iterator<Item = u64> {
    offset.div_ceil(BLOCK)..(offset + length).div_ceil(BLOCK)
}

impl agent::Disk for OpenDisk {
    fn size(&self) -> u64 {
        self.disk.config.size
    }

    fn sector(&self) -> u64 {
        512
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.begin_write(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.power()?;
        self.inside(offset, buf.len() as u64)?;
        self.file.read_exact_at(buf, offset)
    }

    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.begin_write(offset, len)?;
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "beyond what a file can hold");
        Ok(fallocate(&self.file, hole, i64::try_from(offset).map_err(wrong)?, i64::try_from(len).map_err(wrong)?)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.power()?;
        self.disk.keep_account()
    }

    fn can_erase(&mut self, how: agent::Erase) -> Result<String, agent::Failure> {
        match how {
            agent::Erase::Discard => Ok("simulated discard".to_owned()),
            agent::Erase::Secure => {
                Err(agent::Failure::new(agent::code::WIPE_UNSUPPORTED, "a simulated disk knows no secure erase; nothing was done to it"))
            }
        }
    }

    fn erase(&mut self, how: agent::Erase) -> Result<(), agent::Failure> {
        self.can_erase(how)?;
        let failed = |error| agent::Failure::new(agent::code::ERASE_FAILED, format!("the disk can't be discarded: {error}"));
        agent::Disk::zero(self, 0, self.disk.config.size).map_err(failed)
    }
}

impl Drop for OpenDisk {
    fn drop(&mut self) {
        if self.written > 0
            && let Err(error) = self.disk.keep_account()
        {
            tracing::warn!(disk = %self.disk.path.display(), %error, "the account of writes can't be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use agent::Disk as _;

    use super::*;

    fn machine(folder: &Path) -> Arc<Machine> {
        let text = "{name: node-1, address: 127.77.0.1, serial: S, uuid: u, mac: '52:54:00:00:00:01', disks: [{serial: D/1, size: 8 MiB}]}";
        let config: crate::sim::MachineConfig = serde_yaml::from_str(text).unwrap();
        let disk = Disk::new(folder, "node-1", config.disks[0].clone(), false).unwrap();
        Arc::new(Machine::new(config, crate::sim::Pace::default(), None, vec![Arc::new(disk)], folder))
    }

    #[test]
    fn the_account_counts_installs_bytes_and_blocks_and_outlives_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(folder.path());
        let disk = &machine.disks[0];
        assert!(!disk.bootable().unwrap() && disk.existing().unwrap().is_none(), "no file before the first write");
        for _ in 0..2 {
            let mut open = disk.open(Arc::clone(&machine), CancellationToken::new()).unwrap();
            // Two halves of a block are one write of it.
            open.write_at(0, &[1; 512 << 10]).unwrap();
            open.write_at(512 << 10, &[1; 512 << 10]).unwrap();
            open.write_at(1 << 20, &[1; 1 << 20]).unwrap();
        }
        let mut reader = disk.open(Arc::clone(&machine), CancellationToken::new()).unwrap();
        reader.read_at(0, &mut [0; 512]).unwrap();
        drop(reader);
        let expected = Writes { installs: 2, bytes: 4 << 20, most_block_writes: 2, most_block_writes_in_an_install: 1 };
        assert_eq!(disk.writes(), expected);
        let again = Disk::new(folder.path(), "node-1", disk.config.clone(), false).unwrap();
        assert_eq!(again.writes(), expected);
        assert!(again.bootable().unwrap());
    }

    #[test]
    fn nothing_is_written_without_power_or_beyond_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(folder.path());
        let rail = CancellationToken::new();
        let mut open = machine.disks[0].open(Arc::clone(&machine), rail.clone()).unwrap();
        assert!(open.write_at((8 << 20) - 1, &[1; 2]).is_err() && open.write_at(u64::MAX, &[1]).is_err());
        rail.cancel();
        assert!(open.write_at(0, &[1]).is_err() && open.zero(0, 512).is_err() && open.sync().is_err());
        assert_eq!(machine.disks[0].writes(), Writes::default());
    }
}
