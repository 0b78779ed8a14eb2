//! What is wrong in a fleet repository, where, and what to write instead.

use serde::{Deserialize, Serialize};

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; the commit is used.
    Warning,
    /// The commit is not used; the last good one stays in force.
    Error,
}

/// One thing that is wrong in one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "controller", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Path inside the repository, with `/`.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How many characters of the line it covers; at least 1.
    pub length: u32,
    /// How bad it is.
    pub severity: Severity,
    /// A stable name of this kind of problem, such as `unknown-field`.
    pub code: String,
    /// What is wrong, as a whole sentence without its period.
    pub message: String,
    /// What to write or do instead.
    pub hint: Option<String>,
}

impl Problem {
    /// Whether it keeps the commit from being used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Where in the repository something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceRef {
    /// Path inside the repository, with `/`.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}
