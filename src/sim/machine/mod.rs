//! One machine: its state, what may be ordered from outside, and what others see of it.
//!
//! A machine that is off or that only runs has no task of its own and no timer; a fleet of a thousand is a thousand sleeping
//! listeners.

mod boot;
mod cluster;
mod dhcp;
mod host;
mod power;
mod script;
mod service;
mod tftp;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use cluster::ClusterReport;
pub(crate) use power::ResetKind;

use super::{
    config::{BootServer, MachineConfig, Pace},
    disk::Disk,
    fault::{Fault, Faults},
    qemu::Vm,
};
use crate::model::PowerState;

/// A simulated machine with its BMC's state.
pub(crate) struct Machine {
    pub(crate) config: MachineConfig,
    pub(crate) faults: Faults,
    pub(crate) pace: Pace,
    pub(crate) boot_server: Option<BootServer>,
    pub(crate) disks: Vec<Arc<Disk>>,
    vm: Vm,
    /// Where its disks are.
    folder: PathBuf,
    state: Mutex<State>,
}

/// What changes in a machine's life.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) power: PowerState,
    pub(crate) boot_override: Override,
    pub(crate) activity: Activity,
    /// Times that firmware reached its boot devices.
    pub(crate) boots: u64,
    /// The last thing that went wrong in it, for people.
    pub(crate) trouble: Option<String>,
    /// What its cluster software says, if its system has any.
    pub(crate) cluster: Option<ClusterReport>,
    /// Ends what the machine does now: the power rail. Disks refuse writes after it.
    rail: CancellationToken,
}

/// `Boot` of the system resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) target: Target,
    pub(crate) enabled: Enabled,
}

impl Override {
    pub(crate) const NONE: Override = Override { target: Target::None, enabled: Enabled::Disabled };
}

/// `BootSourceOverrideTarget`, as far as these machines have such a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    None,
    Pxe,
    Hdd,
}

/// `BootSourceOverrideEnabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enabled {
    Disabled,
    Once,
    Continuous,
}

/// What a machine that has power does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// It has no power.
    Off,
    /// Its firmware tests memory and looks for devices.
    Post,
    /// Its firmware boots from the network.
    NetworkBoot,
    /// The agent runs in its RAM.
    Agent,
    /// Its loader and its operating system start from disk.
    DiskBoot,
    /// The installed system runs.
    Running,
    /// Nothing could be booted; it waits in its firmware.
    NoBootDevice,
    /// What runs has stopped working, until its power is cycled.
    Hung,
}

impl Machine {
    pub(crate) fn new(config: MachineConfig, pace: Pace, boot_server: Option<BootServer>, disks: Vec<Arc<Disk>>, folder: &Path) -> Self {
        let state = State {
            power: PowerState::Off,
            boot_override: Override::NONE,
            activity: Activity::Off,
            boots: 0,
            trouble: None,
            cluster: None,
            rail: CancellationToken::new(),
        };
        let faults = Faults::new(config.faults.clone());
        Self {
            config,
            faults,
            pace,
            boot_server,
            disks,
            vm: Vm::new(folder.to_owned()),
            folder: folder.to_owned(),
            state: Mutex::new(state),
        }
    }

    /// The serial number that it reports.
    pub(crate) fn serial(&self) -> String {
        if self.faults.has(Fault::SerialMismatch) { format!("{}-OTHER", self.config.serial) } else { self.config.serial.clone() }
    }

    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.lock())
    }

    /// Sets the override as a BMC does: without a target or without leave, there is none.
    pub(crate) fn set_override(&self, target: Target, enabled: Enabled) {
        let none = target == Target::None || enabled == Enabled::Disabled;
        let boot_override = if none { Override::NONE } else { Override { target, enabled } };
        self.change(|state| state.boot_override = boot_override);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All machines of a simulator, by name order.
pub(crate) type Machines = Arc<Vec<Arc<Machine>>>;
