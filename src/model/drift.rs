//! What is done about a machine that is not as its manifest says, by class of field.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Action, DriftPolicy, SignedDuration};

/// A class of fields that can differ, each with a policy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DriftClass {
    /// Power state.
    Power,
    /// The boot override: somebody told the firmware to boot from elsewhere, next time or each time.
    Boot,
    /// Firmware versions.
    Firmware,
    /// Disks that the manifest names.
    Storage,
    /// What the installed system says that it is.
    OsImage,
}

impl fmt::Display for DriftClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DriftClass::Power => "power",
            DriftClass::Boot => "boot override",
            DriftClass::Firmware => "firmware",
            DriftClass::Storage => "storage",
            DriftClass::OsImage => "OS image",
        })
    }
}

/// [`DriftPolicy`] by class of field. `Correct` is never the policy of a class that this version does not put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftPolicies {
    /// Power state.
    pub power: DriftPolicy,
    /// The boot override.
    pub boot: DriftPolicy,
    /// Firmware versions.
    pub firmware: DriftPolicy,
    /// Disks that the manifest names.
    pub storage: DriftPolicy,
    /// What the installed system says that it is.
    pub os_image: DriftPolicy,
    /// When correcting ends and alerting begins.
    pub damping: Damping,
}

impl Default for DriftPolicies {
    /// Power is put right, as its declaration asks for. All else is shown: what an earlier release did not look at must not
    /// begin to be changed by a later one.
    fn default() -> Self {
        let seen = DriftPolicy::Observe;
        Self { power: DriftPolicy::Correct, boot: seen, firmware: seen, storage: seen, os_image: seen, damping: Damping::default() }
    }
}

impl DriftPolicies {
    /// The policy of a class.
    pub fn of(&self, class: DriftClass) -> DriftPolicy {
        match class {
            DriftClass::Power => self.power,
            DriftClass::Boot => self.boot,
            DriftClass::Firmware => self.firmware,
            DriftClass::Storage => self.storage,
            DriftClass::OsImage => self.os_image,
        }
    }
}

/// How often one thing on one machine is put right within a time, before it is left alone for a while: whoever changes it back is stronger,
/// or does not listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damping {
    /// So many corrections, 1 to [`Damping::MOST`].
    pub corrections: u32,
    /// Within so long.
    pub within: SignedDuration,
}

impl Damping {
    /// Most corrections that can be stated, and that are remembered.
    pub const MOST: u32 = 20;
}

impl Default for Damping {
    /// A lost order and a lagging BMC are two; what is still there after three is no accident. An hour is long beside the five minutes
    /// between two corrections and short beside a shift.
    fn default() -> Self {
        Self { corrections: 3, within: SignedDuration::from_hours(1) }
    }
}

/// The class that an action corrects, where it corrects drift.
pub fn corrects(action: &Action) -> Option<DriftClass> {
    match action {
        Action::PowerOn | Action::PowerOff { .. } => Some(DriftClass::Power),
        Action::ClearBootOverride => Some(DriftClass::Boot),
        Action::Claim { .. }
        | Action::Release
        | Action::Rename { .. }
        | Action::NoteHardware { .. }
        | Action::NoteConfiguration { .. }
        | Action::BootFromNetwork { .. }
        | Action::BeginAttempt { .. }
        | Action::Witness { .. }
        | Action::EndAttempt { .. } => None,
    }
}
