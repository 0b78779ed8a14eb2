//! What an install rests on, rung by rung.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, DiskProof, Generation, ObservedDisk, WipeMethod};

/// One rung of the ladder from "ticket armed" to "healthy". Each is journaled, with its time, before it has any effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "rung", rename_all_fields = "camelCase")]
pub enum Evidence {
    /// The boot server serves this machine's ticket.
    TicketArmed,
    /// The BMC confirmed, by reading back, that the next boot is from the network.
    BootSet,
    /// The machine was seen On after we asked for it.
    PowerSeen,
    /// Its firmware asked for an address.
    DhcpSeen,
    /// It fetched a loader or a boot script.
    LoaderFetched,
    /// The agent proved its ticket and reported what the machine is.
    AgentUp {
        /// Chosen at random by the agent at each start: tells a retry from a reboot.
        boot_id: String,
        /// Serial number that the agent reads from SMBIOS.
        serial: Option<String>,
        /// UUID that the agent reads from SMBIOS.
        uuid: Option<String>,
        /// Disks that the agent sees.
        disks: Vec<ObservedDisk>,
    },
    /// The agent chose a disk and is about to write its first byte. From here the old content is gone.
    Writing {
        /// The agent's start that writes.
        boot_id: String,
        /// The disk.
        disk: ObservedDisk,
    },
    /// All bytes were written, read back and found equal, and the image's digest is the declared one.
    Written {
        /// Digest of the image file as it was received.
        digest: Digest,
        /// Bytes on the disk.
        bytes: u64,
    },
    /// The agent chose the disks to wipe and is about to begin. From here what they hold is gone.
    Wiping {
        /// The agent's start that wipes. The places at which samples are read follow from it.
        boot_id: String,
        /// How.
        method: WipeMethod,
        /// The disks.
        disks: Vec<ObservedDisk>,
    },
    /// All of them were wiped and read back.
    Wiped {
        /// What was read of each.
        proof: Vec<DiskProof>,
    },
    /// The machine left the network boot behind: it asked for and was told to boot from its disk, or the installed system spoke.
    BootedFromDisk,
    /// The installed system reported what it is.
    CalledHome {
        /// Generation that the system says it was installed with.
        generation: Generation,
        /// Image digest that the system says it was installed from, where it can tell.
        digest: Option<Digest>,
    },
    /// It is what it should be, and runs.
    Healthy,
}

/// [`Evidence`] without its content: the rung's place in the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rung {
    /// See [`Evidence::TicketArmed`].
    TicketArmed,
    /// See [`Evidence::BootSet`].
    BootSet,
    /// See [`Evidence::PowerSeen`].
    PowerSeen,
    /// See [`Evidence::DhcpSeen`].
    DhcpSeen,
    /// See [`Evidence::LoaderFetched`].
    LoaderFetched,
    /// See [`Evidence::AgentUp`].
    AgentUp,
    /// See [`Evidence::Writing`].
    Writing,
    /// See [`Evidence::Written`].
    Written,
    /// See [`Evidence::BootedFromDisk`].
    BootedFromDisk,
    /// See [`Evidence::CalledHome`].
    CalledHome,
    /// See [`Evidence::Healthy`].
    Healthy,
}

impl Evidence {
    /// The agent's start that has leave to write, and for which disks.
    pub fn leave(&self) -> Option<(&str, &[ObservedDisk])> {
        match self {
            Evidence::Writing { boot_id, disk } => Some((boot_id, std::slice::from_ref(disk))),
            Evidence::Wiping { boot_id, disks, .. } => Some((boot_id, disks)),
            _ => None,
        }
    }

    /// What it is called. A wipe climbs the same ladder as an install.
    pub fn told(&self) -> String {
        match self {
            Evidence::Wiping { .. } => "wiping".to_owned(),
            Evidence::Wiped { .. } => "wiped and read back".to_owned(),
            _ => self.rung().to_string(),
        }
    }

    /// Its place in the ladder.
    pub fn rung(&self) -> Rung {
        match self {
            Evidence::TicketArmed => Rung::TicketArmed,
            Evidence::BootSet => Rung::BootSet,
            Evidence::PowerSeen => Rung::PowerSeen,
            Evidence::DhcpSeen => Rung::DhcpSeen,
            Evidence::LoaderFetched => Rung::LoaderFetched,
            Evidence::AgentUp { .. } => Rung::AgentUp,
            Evidence::Writing { .. } | Evidence::Wiping { .. } => Rung::Writing,
            Evidence::Written { .. } | Evidence::Wiped { .. } => Rung::Written,
            Evidence::BootedFromDisk => Rung::BootedFromDisk,
            Evidence::CalledHome { .. } => Rung::CalledHome,
            Evidence::Healthy => Rung::Healthy,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rung::TicketArmed => "ticket armed",
            Rung::BootSet => "boot set",
            Rung::PowerSeen => "power seen",
            Rung::DhcpSeen => "DHCP seen",
            Rung::LoaderFetched => "loader fetched",
            Rung::AgentUp => "agent up",
            Rung::Writing => "writing",
            Rung::Written => "written and verified",
            Rung::BootedFromDisk => "booted from disk",
            Rung::CalledHome => "called home",
            Rung::Healthy => "healthy",
        })
    }
}
