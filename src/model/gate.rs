//! Health gates: what has to hold of a machine that was installed before it counts as healthy.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Health, MachineName, SignedDuration, Timestamp};

/// One gate of one machine, with what its manifests said filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Gate {
    /// The installed system calls home. In place of the deadlines that a wait for it has by default.
    CalledHome {
        /// From "written and verified".
        within: SignedDuration,
    },
    /// A web page answers.
    Http {
        /// Its address: `http` or `https`, without user and password.
        url: String,
        /// With this status.
        status: u16,
        /// From the call home, as in the others.
        within: SignedDuration,
    },
    /// The BMC says that the hardware is well.
    RedfishHealth {
        /// At worst.
        worst: Health,
        /// From the call home.
        within: SignedDuration,
    },
    /// The installed system reports a check of its own as passed.
    Reported {
        /// Its name.
        check: String,
        /// From the call home.
        within: SignedDuration,
    },
}

impl Gate {
    /// How long it may take.
    pub fn within(&self) -> SignedDuration {
        match self {
            Gate::CalledHome { within }
            | Gate::Http { within, .. }
            | Gate::RedfishHealth { within, .. }
            | Gate::Reported { within, .. } => *within,
        }
    }

    /// The stable name of the failure when it does not pass in time. A machine that does not call home fails as it does without a gate.
    pub fn code(&self) -> &'static str {
        match self {
            Gate::CalledHome { .. } => "no-call-home",
            Gate::Http { .. } => "gate-http",
            Gate::RedfishHealth { .. } => "gate-redfish-health",
            Gate::Reported { .. } => "gate-reported",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gate::CalledHome { .. } => write!(f, "calledHome"),
            Gate::Http { url, .. } => write!(f, "http {url}"),
            Gate::RedfishHealth { .. } => write!(f, "redfishHealth"),
            Gate::Reported { check, .. } => write!(f, "reported {check}"),
        }
    }
}

/// What an installed system posts about a check of its own. Messages are cut at [`CHECK_MESSAGE`] characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// The check's name: see [`is_check_name`].
    pub check: String,
    /// Whether it passed.
    pub ok: bool,
    /// What it found, for people.
    #[serde(default)]
    pub message: String,
}

/// The longest message of a check, in characters.
pub const CHECK_MESSAGE: usize = 300;

/// How many checks one attempt may have.
pub const CHECKS: usize = 32;

/// How often the words on an attempt's checks may change: a check that flaps must not fill the journal.
pub const CHECK_CHANGES: u32 = 256;

/// Whether `text` may name a check: 1 to 63 letters, digits, dots, dashes and underscores.
pub fn is_check_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The last word on a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// When it was reported; the same word again is not a new one.
    pub at: Timestamp,
    /// Whether it passed.
    pub ok: bool,
    /// What it found.
    pub message: String,
    /// When it last was reported as passed.
    pub passed: Option<Timestamp>,
    /// How many words on it there were.
    pub words: u32,
}

/// What the last probe of a web page found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When it was asked.
    pub at: Timestamp,
    /// What came back.
    pub answer: ProbeAnswer,
    /// When the last question was asked that was answered with the wanted status.
    pub passed: Option<Timestamp>,
}

/// What comes back from a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// An HTTP status.
    Status(u16),
    /// None, and why, in words.
    Failed(String),
}

/// The last probes, by machine and address. What is not in here was not asked.
pub type Probes = BTreeMap<MachineName, BTreeMap<String, Probed>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_a_plain_name() {
        for name in ["raid", "disk.smart-1_a", &"x".repeat(63)] {
            assert!(is_check_name(name), "{name}");
        }
        for name in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(!is_check_name(name), "{name}");
        }
    }
}
