//! The machine as the agent in its RAM sees it.

use std::{io, sync::Arc};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Machine;
use crate::{
    agent::{self, Host},
    model::{BootMode, ObservedDisk, ObservedNic},
    sim::{disk::Disk, fault::Fault},
};

/// The agent's host: a simulated machine as long as its rail has power.
pub(super) struct SimHost {
    machine: Arc<Machine>,
    rail: CancellationToken,
}

impl SimHost {
    pub(super) fn new(machine: Arc<Machine>, rail: CancellationToken) -> Self {
        Self { machine, rail }
    }
}

impl Host for SimHost {
    fn serial(&self) -> Option<String> {
        let serial = self.machine.serial();
        Some(if self.machine.faults.has(Fault::SmbiosMismatch) { format!("{serial}-BOARD") } else { serial })
    }

    fn uuid(&self) -> Option<String> {
        Some(self.machine.config.uuid.to_lowercase())
    }

    fn uefi(&self) -> bool {
        self.machine.config.mode == BootMode::UEFI
    }

    fn disks(&self) -> io::Result<Vec<ObservedDisk>> {
        Ok(self.machine.disks.iter().enumerate().map(|(index, disk)| observed(index, disk)).collect())
    }

    fn nics(&self) -> Vec<ObservedNic> {
        let config = &self.machine.config;
        let macs = std::iter::once(&config.mac).chain(&config.nics);
        macs.enumerate().map(|(index, mac)| ObservedNic { name: format!("eth{index}"), mac: *mac, link_up: Some(true) }).collect()
    }

    fn open(&self, disk: &ObservedDisk) -> io::Result<Box<dyn agent::Disk>> {
        let found = self.machine.disks.iter().enumerate().find(|(index, candidate)| observed(*index, candidate) == *disk);
        let (_, disk) = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such disk"))?;
        Ok(Box::new(disk.open(Arc::clone(&self.machine), self.rail.clone())?))
    }

    fn set_boot_entry(&self, _disk: &ObservedDisk) -> io::Result<()> {
        // The machine's boot order is its file's, and the disk comes first there or the boot server says so.
        Ok(())
    }

    fn say(&self, line: &str) {
        info!(machine = %self.machine.config.name, "agent: {line}");
    }
}

fn observed(index: usize, disk: &Disk) -> ObservedDisk {
    let letter = char::from(b'a' + u8::try_from(index % 26).unwrap_or_default());
    ObservedDisk {
        name: format!("/dev/sd{letter}"),
        serial: Some(disk.config.serial.clone()),
        wwn: disk.config.wwn.clone(),
        model: Some(disk.config.model.clone()),
        path: Some(format!("pci-0000:00:1f.2-ata-{}", index + 1)),
        size: Some(disk.config.size),
    }
}
