//! A file as a disk: what the simulator and the tests write to.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use nix::fcntl::{FallocateFlags, fallocate};

use super::{Disk, Erase, Failure, code};

/// A sparse file that behaves like a disk of fixed size.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
}

impl FileDisk {
    /// Opens the file, and creates it with `size` bytes of nothing if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_or_create(path: &Path, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() == 0 {
            file.set_len(size)?;
        }
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }

    fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk")),
        }
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector(&self) -> u64 {
        512
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len() as u64)?;
        self.file.read_exact_at(buf, offset)
    }

    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        let (start, length) = (offset.try_into(), len.try_into());
        let (Ok(start), Ok(length)) = (start, length) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, flags, start, length) {
            Err(nix::errno::Errno::EOPNOTSUPP) => write_zeros(self, offset, len),
            result => result.map_err(io::Error::from),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn can_erase(&mut self, how: Erase) -> Result<String, Failure> {
        match how {
            Erase::Discard => Ok("a hole in its file".to_owned()),
            Erase::Secure => Err(Failure::new(code::WIPE_UNSUPPORTED, "a file knows no secure erase; nothing was done to it")),
        }
    }

    fn erase(&mut self, how: Erase) -> Result<(), Failure> {
        self.can_erase(how)?;
        self.zero(0, self.size).map_err(|error| Failure::new(code::ERASE_FAILED, format!("the file can't be punched: {error}")))
    }
}

/// Zeroes by writing zeros, for devices that have no better way.
pub(super) fn write_zeros(disk: &mut dyn Disk, offset: u64, len: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = offset;
    while at < offset + len {
        let length = (offset + len - at).min(ZEROS.len() as u64);
        disk.write_at(at, &ZEROS[..length as usize])?;
        at += length;
    }
    Ok(())
}
