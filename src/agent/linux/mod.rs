//! The real machine: what Linux tells about it, its disks, its firmware, and what PID 1 of an initramfs has to do first.

mod ata;
mod block;
mod efi;
mod nvme;
pub mod start;
mod sysfs;

use std::{io, path::PathBuf};

pub use self::block::BlockDisk;
use self::sysfs::Sysfs;
use super::{Barred, Disk, Host, gpt};
use crate::model::{ObservedDisk, ObservedNic};

/// The machine that this program runs on.
pub struct Linux {
    sysfs: Sysfs,
}

impl Default for Linux {
    fn default() -> Self {
        Self { sysfs: Sysfs::at(PathBuf::from("/sys")) }
    }
}

impl Host for Linux {
    fn serial(&self) -> Option<String> {
        self.sysfs.serial()
    }

    fn uuid(&self) -> Option<String> {
        self.sysfs.uuid()
    }

    fn uefi(&self) -> bool {
        self.sysfs.uefi()
    }

    fn disks(&self) -> io::Result<Vec<ObservedDisk>> {
        self.sysfs.disks()
    }

    fn barred(&self) -> io::Result<Vec<Barred>> {
        self.sysfs.barred()
    }

    fn nics(&self) -> Vec<ObservedNic> {
        self.sysfs.nics()
    }

    fn open(&self, disk: &ObservedDisk) -> io::Result<Box<dyn Disk>> {
        let opened = BlockDisk::open(&disk.name)?;
        // Names follow the order of discovery: a disk that came or went since may have moved another under this name.
        let now = self.sysfs.disks()?;
        if !now.contains(disk) || disk.size.is_some_and(|size| size != opened.size()) {
            return Err(io::Error::other(format!("{} is not the disk any more that it was", disk.name)));
        }
        Ok(Box::new(opened))
    }

    fn set_boot_entry(&self, disk: &ObservedDisk) -> io::Result<()> {
        if !self.uefi() {
            return Ok(());
        }
        let mut opened = BlockDisk::open(&disk.name)?;
        let mut head = vec![0; 1 << 20];
        opened.read_at(0, &mut head)?;
        let table = gpt::parse(&head, opened.sector()).ok_or_else(|| io::Error::other("the disk has no GPT"))?;
        efi::boot_next(&efi::Variables::default(), &table)
    }

    fn say(&self, line: &str) {
        start::say(line);
    }
}
