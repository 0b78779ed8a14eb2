//! What the agent needs from the machine it runs on. The real one is `linux`; the simulator brings its own.

use std::{fmt, io, time::Duration};

use super::failure::{Failure, code};
use crate::model::{ObservedDisk, ObservedNic};

/// The machine that is being installed.
///
/// Calls may block: the agent makes those that touch hardware from threads that may.
pub trait Host: Send + Sync {
    /// Serial number from SMBIOS; `None` when the board holds none or a vendor's placeholder.
    fn serial(&self) -> Option<String>;

    /// UUID from SMBIOS, lower-case with dashes.
    fn uuid(&self) -> Option<String>;

    /// Whether the machine was started by UEFI.
    fn uefi(&self) -> bool;

    /// Disks that could hold a system: not removable, not read-only, not made of other disks.
    ///
    /// # Errors
    /// When the list can't be read. A list that may be incomplete is an error too: a hint that matches one disk of a part of the
    /// list may match two of the whole.
    fn disks(&self) -> io::Result<Vec<ObservedDisk>>;

    /// Devices that hold data and are no plain disk of this machine: what stands against wiping *all* disks.
    ///
    /// # Errors
    /// As [`Host::disks`].
    fn barred(&self) -> io::Result<Vec<Barred>> {
        Ok(Vec::new())
    }

    /// Network interfaces that have a hardware address of their own.
    fn nics(&self) -> Vec<ObservedNic>;

    /// Opens a disk of [`Host::disks`] for reading and writing. Changes nothing on it.
    ///
    /// # Errors
    /// When it is gone, in use, read-only, or no longer the disk that was observed.
    fn open(&self, disk: &ObservedDisk) -> io::Result<Box<dyn Disk>>;

    /// Makes the firmware start the next time from `disk`, where the machine has UEFI; does nothing where it has not.
    ///
    /// # Errors
    /// When the firmware's variables can't be written. The agent only says so: the boot server also tells the machine to boot
    /// from its disk.
    fn set_boot_entry(&self, disk: &ObservedDisk) -> io::Result<()>;

    /// Shows one line to whoever looks at the machine's console.
    fn say(&self, line: &str);
}

/// A disk as bytes. Offsets and lengths are bytes, and need no alignment.
pub trait Disk: Send {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Size of a logical sector in bytes: the unit that a partition table on this disk counts in.
    fn sector(&self) -> u64;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the device says; some bytes may have been written then.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// What the device says, or `UnexpectedEof` beyond its end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Makes `len` bytes at `offset` read as zero, by the cheapest way that the device has.
    ///
    /// # Errors
    /// What the device says; some bytes may have been zeroed then.
    fn zero(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Returns when everything written is on the medium, and makes later reads come from the medium.
    ///
    /// # Errors
    /// What the device says. Data written before may be lost then.
    fn sync(&mut self) -> io::Result<()>;

    /// What the drive would be told, for people, if it can erase itself that way. Changes nothing.
    ///
    /// # Errors
    /// Why it can't: `wipe-unsupported`, `wipe-shared`, `disk-frozen`, `disk-locked`.
    fn can_erase(&mut self, how: Erase) -> Result<String, Failure> {
        Err(unsupported(how))
    }

    /// Makes the drive erase all of itself that way. Returns when it says that it has; what is there then is to be read.
    ///
    /// # Errors
    /// As [`Disk::can_erase`], and `erase-failed`; any part may be erased then.
    fn erase(&mut self, how: Erase) -> Result<(), Failure> {
        Err(unsupported(how))
    }
}

fn unsupported(how: Erase) -> Failure {
    Failure::new(code::WIPE_UNSUPPORTED, format!("it knows no {how}; nothing was done to it"))
}

/// What a drive can be told to do to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erase {
    /// To forget the content of all sectors.
    Discard,
    /// To erase all user data, by its own command for that.
    Secure,
}

impl fmt::Display for Erase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Erase::Discard => "discard",
            Erase::Secure => "secure erase",
        })
    }
}

/// A device that stands against wiping all disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    /// Its name, as in [`ObservedDisk::name`].
    pub name: String,
    /// The name of the failure.
    pub code: &'static str,
    /// Why.
    pub why: &'static str,
}

/// How the agent's work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Reboot: the disk is written, or was before.
    Reboot,
    /// Switch off: the disks are wiped, or were before.
    PowerOff,
    /// Stay and show why: a person, or a new attempt, has to act.
    Halt {
        /// For people.
        why: String,
    },
}

/// How patient the agent is. Tests and the simulator use smaller numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Wait before the first retry of a request; doubles with each further one.
    pub retry_first: Duration,
    /// Longest wait between retries.
    pub retry_most: Duration,
    /// After so long without any answer the agent gives up.
    pub give_up: Duration,
    /// Longest wait for the answer to one request.
    pub request: Duration,
    /// An image download from which nothing came for so long is made anew, from where it stopped.
    pub stall: Duration,
    /// How often progress is told.
    pub progress: Duration,
}

impl Default for Pace {
    /// For real machines. A controller's restart takes seconds, its upgrade minutes, and its host's repair hours: a machine that
    /// waits costs nothing, while one that gave up needs a person. 12 hours covers a night; tickets expire long before, and the
    /// controller then refuses the agent in plain words. Retries of 500 machines that wait are at most 50 a second at 10 s.
    fn default() -> Self {
        Self {
            retry_first: Duration::from_millis(500),
            retry_most: Duration::from_secs(10),
            give_up: Duration::from_secs(12 * 3600),
            request: Duration::from_secs(30),
            stall: Duration::from_secs(20),
            progress: Duration::from_millis(900),
        }
    }
}
