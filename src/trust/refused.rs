//! Why a commit does not count, in words, and what to do about it.

use super::{object::BadObject, sshsig::BadSignature};
use crate::model::{Signer, Timestamp};

/// Why a commit does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not signed.
    #[error("it is not signed")]
    Unsigned,
    /// Its bytes can't be judged.
    #[error("{0}")]
    Object(#[from] BadObject),
    /// Its signature is none.
    #[error("{0}")]
    Signature(#[from] BadSignature),
    /// A kind of signature that can't be verified.
    #[error("its signature is of {0}, which is not verified")]
    Kind(&'static str),
    /// By a key that nobody listed.
    #[error("its key {key} is not among the allowed signers")]
    Stranger {
        /// The key.
        key: String,
    },
    /// By a key that is not good any more.
    #[error("its key {key} is revoked")]
    Revoked {
        /// The key.
        key: String,
    },
    /// By a key that is for something else.
    #[error("its key {key} may not sign commits: its `namespaces` lack `git` (line {line})")]
    NotForCommits {
        /// The key.
        key: String,
        /// Its line among the allowed signers.
        line: u32,
    },
    /// By a key that is not valid yet.
    #[error("its key {key} of {who} is valid from {} on, and it was made {}", time(*.from), time(*.committed))]
    NotYet {
        /// The key.
        key: String,
        /// Whose it is.
        who: String,
        /// From when on it is valid, in seconds since 1970.
        from: i64,
        /// When the commit was made, by its committer's clock.
        committed: i64,
    },
    /// By a key that has expired.
    #[error("its key {key} of {who} was valid until {}, and it was made {}", time(*.until), time(*.committed))]
    Expired {
        /// The key.
        key: String,
        /// Whose it is.
        who: String,
        /// Until when it was valid, in seconds since 1970.
        until: i64,
        /// When the commit was made, by its committer's clock.
        committed: i64,
    },
    /// It has no parent, so nothing says who may sign it.
    #[error("it has no parent, so no fleet says who may sign it")]
    Root,
    /// The clone shows other parents than the commit has.
    #[error("the clone does not show its parents: it is shallow, or its history was grafted")]
    Grafted,
    /// Whose key is for merges only, and this is something else.
    #[error("{} ({}) may only make merges of two branches, and this is none", .0.name(), .0.key)]
    NotAMerge(Signer),
    /// A merge that is not what Git makes of its parents.
    #[error("{} ({}) may only make merges as Git makes them by itself, and in this one something else was changed", .0.name(), .0.key)]
    ChangedMerge(Signer),
    /// It changes what others have to sign.
    #[error("{} ({}) may not change {path}, which needs a signature by {needs}", .signer.name(), .signer.key)]
    Path {
        /// Who signed.
        signer: Signer,
        /// What was changed.
        path: String,
        /// Patterns of those who may.
        needs: String,
    },
    /// Nobody can be told from anybody.
    #[error("who may sign it can't be told: {0}")]
    NoSigners(String),
}

impl Refused {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Refused::Unsigned | Refused::Object(_) | Refused::Signature(_) | Refused::Kind(_) => {
                "sign it again with a key that is allowed, and push"
            }
            Refused::Stranger { .. } | Refused::NotForCommits { .. } => {
                "have it signed by an allowed signer; or let one add the key first, in a commit of its own, and sign again on top of that"
            }
            Refused::Revoked { .. } | Refused::NotYet { .. } | Refused::Expired { .. } => {
                "look at what it changes, and sign it again with a key that is valid"
            }
            Refused::Root | Refused::Grafted => "push a branch that descends from the commit in force, from a whole clone",
            Refused::NotAMerge(_) | Refused::ChangedMerge(_) => "merge by hand, and sign with your own key",
            Refused::Path { .. } => "have one of them sign a commit with this change, or the merge that brings it",
            Refused::NoSigners(_) => {
                "name a file with `repository.allowedSigners` in the controller's configuration, and push a commit that its signers signed"
            }
        }
    }

    /// The key, as far as one is known.
    pub fn key(&self) -> Option<String> {
        match self {
            Refused::Stranger { key } | Refused::Revoked { key } | Refused::NotForCommits { key, .. } => Some(key.clone()),
            Refused::NotYet { key, .. } | Refused::Expired { key, .. } => Some(key.clone()),
            Refused::NotAMerge(signer) | Refused::ChangedMerge(signer) | Refused::Path { signer, .. } => Some(signer.key.clone()),
            Refused::Signature(BadSignature::Wrong(key)) => Some(key.clone()),
            _ => None,
        }
    }
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "at no time".to_owned(), |at| at.to_string())
}
