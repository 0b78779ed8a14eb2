//! A block device as a disk, past the page cache: what is read back comes from the device.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
};

use nix::libc;

use super::{
    super::{Disk, Erase, Failure, code, file::write_zeros},
    ata, nvme,
};

/// Bytes that go through the aligned buffer at a time.
const BUFFER: usize = 1 << 20;

/// Alignment in memory that any device is content with.
const ALIGN: usize = 4096;

/// See linux/fs.h.
mod ioctl {
    nix::ioctl_read_bad!(sector_size, nix::libc::BLKSSZGET, nix::libc::c_int);
    nix::ioctl_read!(size, 0x12, 114, u64);
    nix::ioctl_write_ptr_bad!(zero_out, nix::request_code_none!(0x12, 127), [u64; 2]);
    nix::ioctl_write_ptr_bad!(discard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_none!(drop_cache, 0x12, 97);
}

/// A block device that nobody else uses.
pub struct BlockDisk {
    /// Through the page cache, for pieces that are not whole sectors.
    cached: File,
    /// Past it; `None` when the device can't.
    direct: Option<File>,
    /// Its device file.
    path: String,
    buffer: Vec<u8>,
    start: usize,
    sector: u64,
    size: u64,
}

impl BlockDisk {
    /// Opens a device file such as `/dev/sda`.
    ///
    /// # Errors
    /// When it is no block device, or something mounted or claimed it.
    pub fn open(path: &str) -> io::Result<Self> {
        // O_EXCL on a block device: fails while it, or a partition of it, is mounted, in a RAID, or held by another such open.
        let cached = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(path)?;
        let (mut sector, mut size) = (0, 0);
        // SAFETY: both calls write one integer of the type that the kernel writes, into a variable that lives during the call.
        unsafe {
            ioctl::sector_size(cached.as_raw_fd(), &mut sector)?;
            ioctl::size(cached.as_raw_fd(), &mut size)?;
        }
        let sector = u64::try_from(sector).ok().filter(|sector| sector.is_power_of_two()).unwrap_or(512);
        let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).ok();
        let buffer = vec![0; BUFFER + ALIGN];
        let start = buffer.as_ptr().align_offset(ALIGN).min(ALIGN);
        Ok(Self { cached, direct, path: path.to_owned(), buffer, start, sector, size })
    }

    fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk")),
        }
    }

    /// How many bytes the kernel discards at a time; 0: the device can't.
    fn discards(&self) -> u64 {
        let name = self.path.trim_start_matches("/dev/").replace('/', "!");
        let file = format!("/sys/block/{name}/queue/discard_max_bytes");
        fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// How many of `length` bytes at `offset` can go past the page cache in one go.
    fn direct_length(&self, offset: u64, length: usize) -> usize {
        if self.direct.is_none() || !offset.is_multiple_of(self.sector) {
            return 0;
        }
        length.min(BUFFER) / self.sector as usize * self.sector as usize
    }
}

impl Disk for BlockDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector(&self) -> u64 {
        self.sector
    }

    fn write_at(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.check(offset, bytes.len() as u64)?;
        while !bytes.is_empty() {
            let length = self.direct_length(offset, bytes.len());
            let (now, later) = bytes.split_at(if length == 0 { bytes.len() } else { length });
            match &self.direct {
                Some(direct) if length > 0 => {
                    let aligned = &mut self.buffer[self.start..self.start + length];
                    aligned.copy_from_slice(now);
                    direct.write_all_at(aligned, offset)?;
                }
                _ => self.cached.write_all_at(now, offset)?,
            }
            offset += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn read_at(&mut self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len() as u64)?;
        while !buf.is_empty() {
            let length = self.direct_length(offset, buf.len());
            let (now, later) = buf.split_at_mut(if length == 0 { buf.len() } else { length });
            match &self.direct {
                Some(direct) if length > 0 => {
                    let aligned = &mut self.buffer[self.start..self.start + length];
                    direct.read_exact_at(aligned, offset)?;
                    now.copy_from_slice(aligned);
                }
                _ => self.cached.read_exact_at(now, offset)?,
            }
            offset += now.len() as u64;
            buf = later;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check(offset, len)?;
        let (first, end) = (offset.next_multiple_of(self.sector), (offset + len) / self.sector * self.sector);
        if first >= end {
            return write_zeros(self, offset, len);
        }
        // The kernel takes the device's own way (write zeroes, or discard where that reads as zeros), and writes zeros else.
        // SAFETY: the pointer is to two u64, which is what BLKZEROOUT reads, alive during the call.
        match unsafe { ioctl::zero_out(self.cached.as_raw_fd(), &[first, end - first]) } {
            Ok(_) => {}
            Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOTTY | nix::errno::Errno::EINVAL) => {
                write_zeros(self, first, end - first)?
            }
            Err(error) => return Err(error.into()),
        }
        write_zeros(self, offset, first - offset)?;
        write_zeros(self, end, offset + len - end)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.cached.sync_all()?;
        // SAFETY: the call has no argument. A device that can't drop its cache is read past it anyway.
        let _ = unsafe { ioctl::drop_cache(self.cached.as_raw_fd()) };
        Ok(())
    }

    fn can_erase(&mut self, how: Erase) -> Result<String, Failure> {
        let unsupported = |what: &str| Failure::new(code::WIPE_UNSUPPORTED, format!("{what}; nothing was done to it"));
        match how {
            Erase::Discard if self.discards() > 0 => Ok("discard of all sectors (BLKDISCARD)".to_owned()),
            Erase::Discard => Err(unsupported("the device knows no discard")),
            Erase::Secure if self.path.starts_with("/dev/nvme") => {
                nvme::plan(&self.cached).map(|_| "NVMe Format NVM with user data erase".to_owned())
            }
            Erase::Secure if self.path.starts_with("/dev/sd") => ata::plan(&self.cached).map(|erase| {
                let mode = if erase.enhanced { "enhanced" } else { "normal" };
                format!("ATA SECURITY ERASE UNIT, {mode} mode")
            }),
            Erase::Secure => Err(unsupported("it is neither an NVMe nor an ATA drive")),
        }
    }

    fn erase(&mut self, how: Erase) -> Result<(), Failure> {
        // What was asked for is looked at again: nothing else is done instead.
        self.can_erase(how)?;
        match how {
            // SAFETY: the pointer is to two u64, which is what BLKDISCARD reads, alive during the call.
            Erase::Discard => match unsafe { ioctl::discard(self.cached.as_raw_fd(), &[0, self.size]) } {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::new(code::ERASE_FAILED, format!("BLKDISCARD failed: {error}"))),
            },
            Erase::Secure if self.path.starts_with("/dev/nvme") => nvme::format(&self.cached, &nvme::plan(&self.cached)?),
            Erase::Secure => ata::erase(&self.cached, ata::plan(&self.cached)?),
        }
    }
}
