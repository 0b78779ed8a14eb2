//! What was observed → manifests that describe it, so that a plan made from them is empty.
//!
//! **Scope.** Which of several machines found can be told apart and are new to a fleet, what they are called, and the text of each
//! manifest. Everything that a BMC said is taken as hostile: it can neither end a comment nor be read as another value.
//!
//! **Non-goals.** Asking BMCs; writing files. What no BMC can know is not guessed: which disk holds the system (law 6), which
//! interface boots, what should be installed. It stands in comments, for a person to decide.

mod facts;
mod name;
mod sort;
mod text;
mod yaml;

use std::collections::BTreeMap;

pub use name::NameFrom;
pub use sort::adopt;

use crate::model::{BmcTarget, ImageName, MachineName, Observation, ProfileName};

/// A machine as it was found behind a BMC.
#[derive(Debug, Clone)]
pub struct Found {
    /// How its BMC was reached, and will be: with the path of its system where the BMC has several.
    pub target: BmcTarget,
    /// What the BMC told.
    pub seen: Observation,
    /// What its operating system told the BMC that it is called.
    pub host_name: Option<String>,
    /// Whether its serial number is what Redfish calls SKU, as on Dell machines.
    pub serial_is_sku: bool,
    /// The name that a person gave it.
    pub name: Option<MachineName>,
}

/// What a person wants in all manifests.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Where names come from.
    pub name_from: NameFrom,
    /// The profile that machines follow.
    pub profile: Option<ProfileName>,
    /// The image that they are taken to hold.
    pub image: Option<ImageName>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the fleet has schemas, so that an editor can check the file.
    pub schemas: bool,
}

/// What becomes of a machine that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is new, and this describes it.
    New(Box<Manifest>),
    /// It is in the fleet already.
    Known {
        /// As what.
        machine: MachineName,
        /// Where its manifest stands: file and line.
        place: String,
        /// By what it was recognised.
        by: String,
    },
    /// No manifest can be written, and this is why.
    Refused(String),
}

/// A manifest to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The machine's name.
    pub machine: MachineName,
    /// The path in the fleet repository.
    pub path: String,
    /// The text.
    pub text: String,
    /// What it leaves out for a person to know of, a sentence each.
    pub notes: Vec<String>,
}

/// The longest text of a BMC that is taken for a value. Serial numbers have 30 characters at most; SMBIOS strings 255 in practice.
pub(crate) const LONGEST: usize = 128;

/// A text of unknown origin, safe to show on a terminal and in a comment: one line, nothing invisible, not too long.
pub fn shown(text: &str) -> String {
    yaml::shown(text)
}

/// A manifest of kind Secret that says where the password of `username` is found; never the password.
pub fn secret(name: &crate::model::SecretName, username: &str, from: &crate::model::SecretFrom, schemas: bool) -> String {
    text::secret(name, username, from, schemas)
}
