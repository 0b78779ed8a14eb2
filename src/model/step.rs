//! One thing to do to one machine, why, and what it can cost.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AttemptId, Basis, BootMode, Generation, MachineName, PowerState, Rung};

/// One thing to do to one machine. It carries all it needs; whoever executes it decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The machine.
    pub machine: MachineName,
    /// What to do.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Step {
    /// What it can cost.
    pub fn risk(&self) -> Risk {
        self.action.risk()
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action", rename_all_fields = "camelCase")]
pub enum Action {
    /// Note that the machine is ours now, and what its disk holds.
    Claim {
        /// The generation that its disk is taken to have; `None` for a machine that is to be installed first.
        installed: Option<Generation>,
    },
    /// Note that the machine left the fleet. Nothing is done to it (law 3).
    Release,
    /// Note that a machine has another name now (law 4).
    Rename {
        /// The earlier name.
        from: MachineName,
    },
    /// Note that what the manifest says of its hardware has changed, while it is the same machine (law 4).
    NoteHardware {
        /// Its hardware now, as `serial:…`, `uuid:…`, `mac:…`.
        hardware: Vec<String>,
    },
    /// Note which part of what the disk holds is configuration, and that another one comes with the next install.
    NoteConfiguration {
        /// What the disk holds, or is being written with.
        installed: Generation,
        /// What of that is not configuration.
        basis: Basis,
        /// The generation whose configuration comes with the next install.
        deferred: Option<Generation>,
    },
    /// Switch it on (Redfish `On`).
    PowerOn,
    /// Switch it off (`GracefulShutdown` where the operating system follows, else `ForceOff`).
    PowerOff {
        /// Do not ask the operating system.
        force: bool,
    },
    /// Set the next boot, and only that, to the network.
    BootFromNetwork {
        /// The firmware interface that the override is for.
        mode: BootMode,
    },
    /// Take back a boot override that is in force.
    ClearBootOverride,
    /// Begin an attempt at an install or a wipe: the boot server serves its ticket from now on.
    BeginAttempt {
        /// The attempt.
        attempt: AttemptId,
        /// The generation that it installs, or that of the wipe.
        generation: Generation,
    },
    /// Note evidence that follows from an observation.
    Witness {
        /// The attempt.
        attempt: AttemptId,
        /// The rung, one without content.
        rung: Rung,
    },
    /// End an attempt: its ticket is worth nothing from now on.
    EndAttempt {
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        end: AttemptEnd,
    },
}

impl Action {
    /// Whether it switches the machine on or off.
    pub fn changes_power(&self) -> bool {
        matches!(self, Action::PowerOn | Action::PowerOff { .. })
    }

    /// What it can cost.
    pub fn risk(&self) -> Risk {
        match self {
            Action::Claim { .. }
            | Action::Release
            | Action::Rename { .. }
            | Action::NoteHardware { .. }
            | Action::NoteConfiguration { .. }
            | Action::Witness { .. }
            | Action::EndAttempt { .. } => Risk::None,
            Action::PowerOn => Risk::Settings,
            Action::BootFromNetwork { .. } | Action::ClearBootOverride => Risk::Settings,
            Action::PowerOff { .. } => Risk::Disruptive,
            Action::BeginAttempt { .. } => Risk::Destructive,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Claim { installed: Some(generation) } => write!(f, "claim as it is ({})", generation.short()),
            Action::Claim { installed: None } => write!(f, "claim"),
            Action::Release => write!(f, "release"),
            Action::Rename { from } => write!(f, "rename from {from}"),
            Action::NoteHardware { .. } => write!(f, "note its hardware"),
            Action::NoteConfiguration { deferred: Some(_), .. } => write!(f, "leave its configuration to the next install"),
            Action::NoteConfiguration { deferred: None, .. } => write!(f, "note what of its disk is configuration"),
            Action::PowerOn => write!(f, "power on"),
            Action::PowerOff { force: true } => write!(f, "power off"),
            Action::PowerOff { force: false } => write!(f, "shut down"),
            Action::BootFromNetwork { .. } => write!(f, "boot from network once"),
            Action::ClearBootOverride => write!(f, "take back the boot override"),
            Action::BeginAttempt { attempt, generation } if generation.is_wipe() => write!(f, "WIPE {attempt} to {}", generation.short()),
            Action::BeginAttempt { attempt, generation } => write!(f, "REIMAGE {attempt} to {}", generation.short()),
            Action::Witness { attempt, rung } => write!(f, "note {rung} for {attempt}"),
            Action::EndAttempt { attempt, end } => write!(f, "end {attempt}: {end}"),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "end", rename_all_fields = "camelCase")]
pub enum AttemptEnd {
    /// Healthy.
    Done,
    /// It failed.
    Failed {
        /// A stable name, such as `wrong-digest` or `no-dhcp`.
        code: String,
        /// Why.
        why: String,
        /// Whether another attempt under the same commit makes sense.
        retry: bool,
    },
    /// A newer commit wants something else.
    Superseded,
}

impl fmt::Display for AttemptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptEnd::Done => write!(f, "done"),
            AttemptEnd::Failed { code, why, .. } => write!(f, "failed ({code}): {why}"),
            AttemptEnd::Superseded => write!(f, "superseded"),
        }
    }
}

/// Why a step is in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason", rename_all_fields = "camelCase")]
pub enum Reason {
    /// Seen for the first time.
    NewMachine,
    /// `onClaim: Install`.
    InstallOnClaim,
    /// Its manifest says `decommission`.
    Decommissioned,
    /// The commit changed what the disk should hold.
    GenerationChanged {
        /// What the disk holds.
        from: Generation,
        /// What it should hold.
        to: Generation,
        /// The fields that changed it, such as `image`, `configuration`, `rebuild`, where the plan can tell.
        fields: Vec<String>,
    },
    /// The last attempt failed in a way that another may not.
    Retry {
        /// Which attempt this is under the same generation, from 2.
        number: u32,
    },
    /// The declared power state is another.
    PowerDrift {
        /// What was seen.
        observed: PowerState,
    },
    /// A boot override is in force that nothing declares.
    BootDrift {
        /// What was seen.
        observed: String,
    },
    /// Part of an install that is on its way.
    PartOf {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The machine is not in the fleet any more.
    LeftTheFleet,
    /// Same serial or MAC as before, another name.
    SameHardware,
    /// Same machine as before; its manifest says another serial, UUID or MAC.
    HardwareChanged,
    /// Another machine as before, under the same name.
    Replaced,
    /// `onConfigChange: NextInstall`.
    NextInstall,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NewMachine => write!(f, "new in the fleet"),
            Reason::InstallOnClaim => write!(f, "new in the fleet with onClaim: Install"),
            Reason::Decommissioned => write!(f, "its manifest says decommission"),
            Reason::GenerationChanged { from, to, fields } if fields.is_empty() => {
                write!(f, "generation {} → {}", from.short(), to.short())
            }
            Reason::GenerationChanged { from, to, fields } => {
                write!(f, "{} changed, generation {} → {}", fields.join(", "), from.short(), to.short())
            }
            Reason::Retry { number } => write!(f, "try {number} after a failure"),
            Reason::PowerDrift { observed } => write!(f, "power is {observed}"),
            Reason::BootDrift { observed } => write!(f, "boot override is {observed}"),
            Reason::PartOf { attempt } => write!(f, "part of {attempt}"),
            Reason::LeftTheFleet => write!(f, "not in the fleet any more"),
            Reason::SameHardware => write!(f, "the same hardware under another name"),
            Reason::HardwareChanged => write!(f, "its manifest says other serial, UUID or MACs"),
            Reason::Replaced => write!(f, "another machine under the same name"),
            Reason::NextInstall => write!(f, "onConfigChange is NextInstall"),
        }
    }
}

/// What a step can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Risk {
    /// Changes only what we know.
    None,
    /// Changes settings.
    Settings,
    /// Takes the machine away for a while.
    Disruptive,
    /// Data is lost.
    Destructive,
}
