//! Simulated machines: BMC, firmware, network boot, agent, disk, and faults on request.
//!
//! **Scope.** A product, not a test helper: people try a fleet repository, a rollout or an upgrade on it before any metal. Each machine
//! answers Redfish on a loopback address of its own, boots by DHCP, TFTP and HTTP from a real boot server, runs the real agent's code against
//! a sparse file, and calls home from what it finds on that disk. A machine can also be a real QEMU virtual machine behind the
//! same BMC.
//!
//! **Non-goals.** No IPMI. It is not a load generator for networks: packets take the loopback interface.

mod bmc;
mod config;
mod control;
mod disk;
mod fault;
mod machine;
mod qemu;
mod sample;
mod tls;

use std::{collections::BTreeSet, io, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;
use tracing::info;

pub use config::{Accel, BootDevice, BootServer, Config, Credentials, DiskConfig, Holds, MachineConfig, Pace, VmConfig};
pub use control::{DiskReport, MachineReport};
pub use disk::Writes;
pub use fault::{ArmedFault, BadFault, Fault, parse_fault};
pub use machine::{Activity, ClusterReport};
pub use sample::{SEED, SampleImage};

use crate::model::{Fingerprint, MachineName, PowerState};

/// Why the simulator can't start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A file of the state folder.
    #[error("{} can't be used", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An address that can't be listened on.
    #[error("{machine}: the BMC can't listen on {address}")]
    Listen {
        /// The machine.
        machine: MachineName,
        /// Where.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The control endpoint's address can't be listened on.
    #[error("the control endpoint can't listen on {address}")]
    Control {
        /// Where.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The certificate can't be made.
    #[error("the BMCs' certificate can't be made")]
    Certificate(#[source] rcgen::Error),
    /// The certificate in the state folder can't be used.
    #[error("the BMCs' certificate can't be used; delete bmc.der and bmc.key to get another one")]
    Tls(#[source] rustls::Error),
    /// The file contradicts itself.
    #[error("{0}")]
    Config(String),
}

/// A machine of a simulator, as seen from outside.
#[derive(Debug, Clone)]
pub struct MachineInfo {
    /// Its name.
    pub name: MachineName,
    /// The BMC's address, with the port that the kernel chose where the file says 0.
    pub bmc: SocketAddr,
    /// Power state.
    pub power: PowerState,
    /// What it does.
    pub activity: Activity,
    /// Times that its firmware looked for something to boot.
    pub boots: u64,
}

/// Running machines. They stop when it is dropped; [`Simulator::stop`] also waits for their listeners.
pub struct Simulator {
    machines: machine::Machines,
    listeners: Vec<bmc::Listening>,
    control: Option<SocketAddr>,
    fingerprint: Fingerprint,
    stop: CancellationToken,
}

impl Simulator {
    /// Makes the state folder and starts all machines. When it returns, every BMC answers.
    ///
    /// # Errors
    /// [`SimError`]; then nothing runs.
    pub async fn start(config: Config) -> Result<Simulator, SimError> {
        check(&config)?;
        // Firmware's HTTP clients take the process's provider. An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = &config.state_dir;
        std::fs::create_dir_all(folder).map_err(|source| SimError::State { path: folder.clone(), source })?;
        let certificates = tls::Certificates::load(folder)?;
        let accounts = accounts(&config)?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let (mut machines, mut listeners) = (Vec::new(), Vec::new());
        for machine in config.machines {
            let disks = disks(&machine, folder)?;
            let machine = Arc::new(machine::Machine::new(machine, config.pace, config.boot_server.clone(), disks, folder));
            let bmc = bmc::Bmc::new(Arc::clone(&machine), Arc::clone(&accounts), config.max_sessions);
            let listening = bmc::listen(bmc, certificates.clone(), stop.clone()).map_err(|source| SimError::Listen {
                machine: machine.config.name.clone(),
                address: (machine.config.address, machine.config.port).into(),
                source,
            })?;
            listeners.push(listening);
            machines.push(machine);
        }
        machines.iter().for_each(machine::Machine::begin);
        let machines = Arc::new(machines);
        let control = match config.control {
            Some(address) => Some(start_control(address, Arc::clone(&machines), stop.clone()).await?),
            None => None,
        };
        info!(machines = machines.len(), fingerprint = %certificates.fingerprint(), "simulator runs");
        guard.disarm();
        Ok(Simulator { machines, listeners, control, fingerprint: certificates.fingerprint(), stop })
    }

    /// Fingerprint of the certificate that all BMCs present.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// All machines, as they are now, in the file's order.
    pub fn machines(&self) -> Vec<MachineInfo> {
        let infos = self.machines.iter().zip(&self.listeners).map(|(machine, listening)| {
            let state = machine.state();
            MachineInfo {
                name: machine.config.name.clone(),
                bmc: listening.address,
                power: state.power,
                activity: state.activity,
                boots: state.boots,
            }
        });
        infos.collect()
    }

    /// One machine with its disks, as it is now. Reads its disk.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn report(&self, machine: &str) -> Result<MachineReport, SimError> {
        Ok(control::report(self.machine(machine)?))
    }

    /// Where the control endpoint listens.
    pub fn control(&self) -> Option<SocketAddr> {
        self.control
    }

    /// Makes a machine misbehave.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn arm(&self, machine: &str, fault: ArmedFault) -> Result<(), SimError> {
        self.machine(machine)?.faults.arm(fault);
        Ok(())
    }

    /// Ends all faults of a machine.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn clear_faults(&self, machine: &str) -> Result<(), SimError> {
        self.machine(machine)?.faults.clear();
        Ok(())
    }

    /// Stops all machines and their BMCs, and waits until they are gone.
    pub async fn stop(mut self) {
        self.halt();
        for listening in std::mem::take(&mut self.listeners) {
            // A listener that panicked has stopped as well.
            let _ = listening.task.await;
        }
    }

    fn halt(&self) {
        self.stop.cancel();
        self.machines.iter().for_each(|machine| machine.cut());
    }

    fn machine(&self, name: &str) -> Result<&Arc<machine::Machine>, SimError> {
        let found = self.machines.iter().find(|machine| machine.config.name.as_str() == name);
        found.ok_or_else(|| SimError::Config(format!("there is no machine {name}")))
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.halt();
    }
}

/// What the types don't check.
fn check(config: &Config) -> Result<(), SimError> {
    let (mut names, mut addresses, mut macs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for machine in &config.machines {
        let wrong = |what: &str| Err(SimError::Config(format!("machine {}: {what}", machine.name)));
        if !names.insert(&machine.name) {
            return wrong("there are two of this name");
        }
        if !machine.address.is_loopback() {
            return wrong("its address is not on loopback (127.0.0.0/8)");
        }
        if machine.port != 0 && !addresses.insert((machine.address, machine.port)) {
            return wrong("another machine has its address and port");
        }
        if std::iter::once(&machine.mac).chain(&machine.nics).any(|mac| !macs.insert(*mac)) {
            return wrong("one of its MAC addresses is used twice");
        }
        if !matches!(machine.power, PowerState::On | PowerState::Off) {
            return wrong("power is On or Off");
        }
    }
    Ok(())
}

fn accounts(config: &Config) -> Result<Arc<[bmc::Account]>, SimError> {
    let account = |credentials: &Credentials, role| {
        let password = match (&credentials.password, &credentials.password_env) {
            (Some(password), None) => password.clone(),
            (None, Some(variable)) => {
                std::env::var(variable).map_err(|_| SimError::Config(format!("credentials: the environment has no {variable}")))?
            }
            _ => return Err(SimError::Config("credentials: say either password or passwordEnv".to_owned())),
        };
        Ok(bmc::Account { username: credentials.username.clone(), password, role })
    };
    let mut accounts = vec![account(&config.credentials, bmc::Role::Administrator)?];
    if let Some(credentials) = &config.read_only {
        accounts.push(account(credentials, bmc::Role::ReadOnly)?);
    }
    Ok(accounts.into())
}

fn disks(machine: &MachineConfig, folder: &std::path::Path) -> Result<Vec<Arc<disk::Disk>>, SimError> {
    let disk = |(index, config): (usize, &DiskConfig)| {
        let default = if index == 0 && machine.power == PowerState::On { Holds::System } else { Holds::Nothing };
        let adopted = config.holds.unwrap_or(default) == Holds::System;
        let disk = disk::Disk::new(folder, machine.name.as_str(), config.clone(), adopted);
        disk.map(Arc::new).map_err(|source| SimError::State { path: folder.to_owned(), source })
    };
    machine.disks.iter().enumerate().map(disk).collect()
}

async fn start_control(address: SocketAddr, machines: machine::Machines, stop: CancellationToken) -> Result<SocketAddr, SimError> {
    let failed = |source| SimError::Control { address, source };
    let listener = control::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tokio::spawn(control::serve(listener, machines, stop));
    Ok(bound)
}
