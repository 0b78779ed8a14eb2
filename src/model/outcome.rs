//! What became of a step.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What trying again would do. Part of each error type that a step can end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryClass {
    /// Passes by itself: try again later.
    Wait,
    /// Needs a person: a wrong password, a changed certificate. Looked at again, but not hammered.
    Stalled,
    /// Will not change by trying the same again.
    Failed,
}

/// What became of a step.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// Done, and where the step says so, read back.
    Done,
    /// Not yet; asked again at `until`.
    Waiting {
        /// Why.
        why: String,
        /// When it is tried again.
        until: Timestamp,
    },
    /// A person has to do something.
    Blocked {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It failed.
    Failed {
        /// Why, with the whole chain of causes.
        why: String,
        /// What trying again would do.
        class: RetryClass,
    },
}
