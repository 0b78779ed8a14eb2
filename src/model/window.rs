//! When something may begin: maintenance windows and freezes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A maintenance window, as the wall clock of its time zone shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Days on which it begins; one that goes past midnight belongs to the day of its beginning.
    pub days: Vec<Weekday>,
    /// When it begins, in minutes after midnight, 0 to 1439.
    pub from: u16,
    /// When it ends, in minutes after midnight, 0 to 1440; not later than `from`: on the day after.
    pub to: u16,
    /// A name of the IANA time zone database, such as `Europe/Berlin`.
    pub time_zone: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[allow(missing_docs)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All of them, from Monday (ISO 8601).
    pub const ALL: [Weekday; 7] = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
}

/// Nothing new is begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Until then; `None`: until a commit takes it away.
    pub until: Option<Timestamp>,
    /// Why, for whoever asks.
    pub reason: Option<String>,
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "until {until:.0}")?,
            None => write!(f, "until a commit takes `freeze` away")?,
        }
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}
