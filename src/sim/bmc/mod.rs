//! A Redfish BMC (DSP0266) in front of one machine.
//!
//! **Scope.** What a controller needs of a BMC, in the manner of a careful vendor: links, ETags, sessions with a cap, errors with
//! extended information, allowable values. redfish-codegen's types say which properties there are.
//!
//! **Non-goals.** Events, tasks, virtual media, BIOS settings, `$expand`.

mod access;
mod answer;
mod handle;
mod plant;
mod root;
mod server;
mod system;
mod value;

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

pub(crate) use access::{Account, Role};
pub(crate) use server::{Listening, listen};

use super::machine::Machine;

/// One BMC.
pub(crate) struct Bmc {
    machine: Arc<Machine>,
    access: access::Access,
    busy_until: Mutex<Option<Instant>>,
}

impl Bmc {
    pub(crate) fn new(machine: Arc<Machine>, accounts: Arc<[Account]>, max_sessions: usize) -> Arc<Self> {
        Arc::new(Self { machine, access: access::Access::new(accounts, max_sessions), busy_until: Mutex::new(None) })
    }
}
