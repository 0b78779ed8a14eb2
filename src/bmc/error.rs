//! What can go wrong with a BMC, and what each of it means: as a gap in an observation, and for trying again.

use std::error::Error as StdError;

use crate::{
    model::{RetryClass, Unknown},
    ports::BmcError,
};

type Cause = Box<dyn StdError + Send + Sync>;

/// Why a BMC could not be asked or told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{address:?} is no BMC address: {why}; write https://HOST or https://HOST:PORT")]
    Address { address: String, why: String },
    #[error("no credentials for {address}: {why}")]
    Secret { address: String, why: String },
    #[error("the TLS set-up for {address} failed")]
    Tls {
        address: String,
        #[source]
        source: Cause,
    },
    #[error("no connection to {url}")]
    Connect {
        url: String,
        #[source]
        source: Cause,
    },
    #[error("no answer in time from {url}{}", if doing.is_empty() { String::new() } else { format!(" while {doing}") })]
    Timeout { url: String, doing: String },
    #[error("{url}: {why}")]
    Certificate { url: String, why: String },
    #[error("{url} redirects without end")]
    RedirectLoop { url: String },
    #[error("{url} points to another server: {to}")]
    Foreign { url: String, to: String },
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge { url: String, limit: usize },
    #[error("{url} lists more than {limit} {what}, so its list is not believed; its firmware is at fault")]
    TooMany { url: String, what: &'static str, limit: usize },
    #[error("the answer of {url} is not a JSON object")]
    NotJson {
        url: String,
        #[source]
        source: Option<serde_json::Error>,
    },
    #[error("{url} refuses the credentials: {why}")]
    Unauthorized { url: String, why: String },
    #[error("{method} {url} was answered with {status}{}", said(messages))]
    Status { method: String, url: String, status: u16, messages: Vec<String> },
    #[error("{url} describes no host that can be managed: {why}")]
    NoHost { url: String, why: String },
    #[error("{url} can't do it: {why}")]
    Unsupported { url: String, why: String },
    #[error("{url} took the order, but reads back {read}")]
    ReadBack { url: String, read: String },
    #[error("{url} is changing its power state ({state}); it is asked again later")]
    InTransit { url: String, state: String },
}

fn said(messages: &[String]) -> String {
    if messages.is_empty() { String::new() } else { format!(": {}", messages.join("; ")) }
}

impl Error {
    /// The same as a gap in an observation.
    pub(super) fn unknown(&self) -> Unknown {
        let detail = self.with_cause();
        match self {
            Error::Connect { .. } | Error::Address { .. } | Error::Tls { .. } => Unknown::Unreachable(detail),
            Error::Timeout { .. } => Unknown::TimedOut(detail),
            Error::Certificate { .. } => Unknown::CertificateChanged(detail),
            Error::Unauthorized { .. } | Error::Secret { .. } => Unknown::Unauthorized(detail),
            Error::Status { status: 401 | 403, .. } => Unknown::Unauthorized(detail),
            Error::Status { status: 404 | 410, .. } | Error::NoHost { .. } => Unknown::NotReported,
            Error::Status { .. } if self.is_busy() => Unknown::Busy(detail),
            Error::InTransit { .. } => Unknown::Busy(detail),
            Error::Status { .. }
            | Error::RedirectLoop { .. }
            | Error::Foreign { .. }
            | Error::TooLarge { .. }
            | Error::TooMany { .. }
            | Error::NotJson { .. }
            | Error::Unsupported { .. }
            | Error::ReadBack { .. } => Unknown::Garbage(detail),
        }
    }

    /// What trying again would do.
    pub(super) fn class(&self) -> RetryClass {
        match self {
            Error::Connect { .. } | Error::Timeout { .. } | Error::InTransit { .. } | Error::ReadBack { .. } => RetryClass::Wait,
            // A BMC that restarts answers with anything for a while.
            Error::NotJson { .. } | Error::RedirectLoop { .. } => RetryClass::Wait,
            Error::Certificate { .. } | Error::Unauthorized { .. } | Error::Secret { .. } | Error::Tls { .. } | Error::NoHost { .. } => {
                RetryClass::Stalled
            }
            Error::Status { status: 401 | 403, .. } => RetryClass::Stalled,
            // A BMC that restarts has none of its resources for a minute.
            Error::Status { status: 404 | 409 | 412 | 428, .. } => RetryClass::Wait,
            Error::Status { .. } if self.is_busy() => RetryClass::Wait,
            Error::Status { .. }
            | Error::Address { .. }
            | Error::Foreign { .. }
            | Error::TooLarge { .. }
            | Error::TooMany { .. }
            | Error::Unsupported { .. } => RetryClass::Failed,
        }
    }

    /// Whether the BMC says that it can't just now: 429, 5xx, and the messages that vendors hide behind other codes
    /// (HARDWARE rows 16, 31, 45: iDRAC's SYS518, iLO's InvalidOperationForSystemState and UnableToModifyDuringSystemPOST).
    pub(super) fn is_busy(&self) -> bool {
        const BUSY: [&str; 7] = [
            "SYS518",
            "RAC0218",
            "InvalidOperationForSystemState",
            "UnableToModifyDuringSystemPOST",
            "ServiceTemporarilyUnavailable",
            "ServiceInUnknownState",
            "ActionParameterValueConflict",
        ];
        match self {
            Error::Status { status: 429 | 500 | 502..=504, .. } => true,
            Error::Status { .. } => BUSY.iter().any(|id| self.says(id)),
            _ => false,
        }
    }

    /// Whether one of the answer's messages or message ids contains `part`.
    pub(super) fn says(&self, part: &str) -> bool {
        matches!(self, Error::Status { messages, .. } if messages.iter().any(|message| message.contains(part)))
    }

    /// The HTTP status, if the BMC answered with one.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Error::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether it is about the BMC as a whole, so that asking it for the next resource makes no sense.
    pub(super) fn ends_the_conversation(&self) -> bool {
        matches!(
            self,
            Error::Connect { .. } | Error::Timeout { .. } | Error::Certificate { .. } | Error::Unauthorized { .. } | Error::Tls { .. }
        ) || matches!(self, Error::Status { status: 503, .. })
    }

    /// The message and its innermost cause, on one line.
    fn with_cause(&self) -> String {
        let mut innermost: &dyn StdError = self;
        while let Some(cause) = innermost.source() {
            innermost = cause;
        }
        let (message, cause) = (self.to_string(), innermost.to_string());
        if message == cause { message } else { format!("{message}: {cause}") }
    }
}

impl From<Error> for BmcError {
    fn from(error: Error) -> Self {
        Self { message: error.to_string(), unknown: error.unknown(), class: error.class(), source: error.into_cause() }
    }
}

impl Error {
    fn into_cause(self) -> Option<Cause> {
        match self {
            Error::Tls { source, .. } | Error::Connect { source, .. } => Some(source),
            Error::NotJson { source: Some(source), .. } => Some(Box::new(source)),
            _ => None,
        }
    }
}
