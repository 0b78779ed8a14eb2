//! One turn of the loop: what the repository says, what the hardware says, the plan, the steps, the status, the note.
//!
//! **Scope.** Wiring of pure deciders (`manifest`, `plan`, [`report`], [`note`]) to ports, and the order of effects: journal
//! first, hardware second.
//!
//! **Non-goals.** No decision about a machine is taken here: a step comes out of the plan or it does not happen.

mod act;
mod brake;
mod clock;
mod gate;
mod gatekeeper;
mod known;
mod ledger;
mod live;
pub mod note;
mod noter;
mod observe;
mod origin;
pub mod report;
mod source;
#[cfg(test)]
mod support_tests;
mod table;
mod turn;

pub use gate::Refusal;
pub use known::{Decided, Owed};
pub use ledger::Ledger;
pub use live::{Live, View};
pub use turn::Engine;

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use crate::{
    model::SiteName,
    plan::Deadlines,
    ports::{Bmc, Boot, Clock, Notes, Probe, Secrets, Source},
};

/// How the engine works. Part of the controller's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The controller's site.
    pub site: SiteName,
    /// Times and numbers.
    pub pace: Pace,
    /// Deadlines of an install.
    pub deadlines: Deadlines,
}

/// How often and how many at a time.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pace {
    /// Seconds between two looks at a machine at rest.
    pub observe_seconds: f64,
    /// Seconds between two looks at a machine that is being worked on.
    pub observe_busy_seconds: f64,
    /// BMCs that are talked to at a time.
    pub bmc_concurrency: usize,
    /// Seconds between two probes of a web page that a health gate waits for; at least 1.
    pub probe_seconds: f64,
    /// Least seconds between two pushes of notes.
    pub notes_seconds: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // Power drift is seen within half a minute, and 10,000 BMCs cost 333 requests a second.
            observe_seconds: 30.0,
            observe_busy_seconds: 2.0,
            bmc_concurrency: 256,
            probe_seconds: 5.0,
            notes_seconds: 30.0,
        }
    }
}

impl Pace {
    fn observe(&self, busy: bool) -> Duration {
        let seconds = if busy { self.observe_busy_seconds } else { self.observe_seconds };
        Duration::from_secs_f64(seconds.clamp(0.05, 3600.0))
    }
}

/// What the engine works with.
#[derive(Clone)]
pub struct Ports {
    /// The fleet repository.
    pub source: Arc<dyn Source>,
    /// All BMCs.
    pub bmc: Arc<dyn Bmc>,
    /// The boot server; `None` where this controller installs nothing.
    pub boot: Option<Arc<dyn Boot>>,
    /// Status notes; `None` where they are switched off.
    pub notes: Option<Arc<dyn Notes>>,
    /// Credentials of BMCs.
    pub secrets: Arc<dyn Secrets>,
    /// Asks the web pages of health gates.
    pub probe: Arc<dyn Probe>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}
