//! What libgit2 says, as what a person or the engine can act on.

use git2::{ErrorClass, ErrorCode};

use crate::{
    model::RetryClass,
    ports::{NotesError, SourceError},
};

/// Why something in Git did not work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct GitError {
    /// What, where and what to do next.
    pub message: String,
    /// What trying again would do.
    pub class: RetryClass,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl GitError {
    pub(super) fn new(class: RetryClass, message: impl Into<String>) -> Self {
        Self { message: message.into(), class, source: None }
    }

    pub(super) fn caused(class: RetryClass, message: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { message: message.into(), class, source: Some(Box::new(source)) }
    }

    /// An error in our own clone or a person's: `doing` says what was tried, as "read the tree of …".
    pub(super) fn here(doing: &str, source: git2::Error) -> Self {
        let class = match source.class() {
            ErrorClass::Os | ErrorClass::Filesystem => RetryClass::Wait,
            _ => RetryClass::Failed,
        };
        let said = one_line(&source);
        Self::caused(class, format!("can't {doing}: {said}"), Said(said))
    }

    /// An error of a remote.
    pub(super) fn remote(url: &str, source: git2::Error) -> Self {
        let said = one_line(&source);
        let (message, class) = match (source.code(), source.class()) {
            (ErrorCode::Auth, _) => (
                format!("{url} refuses our credentials: {said}. Check the key, user or password that the configuration names"),
                RetryClass::Stalled,
            ),
            (code, class) if code == ErrorCode::Certificate || (class == ErrorClass::Ssl && said.contains("certificate")) => {
                let advice = "It must be for this name, not expired, and signed by an authority of the system's or of `caFile`";
                (format!("{url} shows a certificate that is not trusted: {said}. {advice}"), RetryClass::Stalled)
            }
            (ErrorCode::Owner, _) => (
                format!("{url} belongs to another user: {said}. Change its owner or set `safe.directory` in git's configuration"),
                RetryClass::Stalled,
            ),
            _ if is_unsupported(&said) => (
                format!(
                    "{url} has a format that is not supported: {said}. Use a repository with SHA-1 objects and ref files (not reftable)"
                ),
                RetryClass::Stalled,
            ),
            _ if said.contains("redirect") || said.contains("status code: 30") => (
                format!("{url} has moved, or wants the `.git` ending: {said}. Redirects are not followed, write the present address"),
                RetryClass::Stalled,
            ),
            _ if is_forbidden(&said) => (format!("{url} does not allow it: {said}"), RetryClass::Stalled),
            (ErrorCode::NotFound, _) => (format!("{url} is not there: {said}"), RetryClass::Wait),
            _ => (format!("can't reach {url}: {said}"), RetryClass::Wait),
        };
        Self::caused(class, message, Said(said))
    }
}

/// What libgit2 said, without the numbers of its own that it appends: the same text that the message quotes, so that whoever tells
/// an error with its causes tells it once.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

fn is_unsupported(said: &str) -> bool {
    ["unsupported extension", "unknown object format", "object format", "unsupported repository version", "refstorage"]
        .iter()
        .any(|part| said.contains(part))
}

fn is_forbidden(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["status code: 403", "permission denied", "not permitted", "read-only", "access denied", "not allowed", "service not enabled"]
        .iter()
        .any(|part| said.contains(part))
}

/// libgit2 passes on what servers say, and that may have line ends in it.
fn one_line(error: &git2::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<GitError> for SourceError {
    fn from(error: GitError) -> Self {
        Self { message: error.message, class: error.class, source: error.source }
    }
}

impl From<GitError> for NotesError {
    fn from(error: GitError) -> Self {
        Self { message: error.message, class: error.class, source: error.source }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_cause_is_quoted_whole_so_that_it_is_told_once() {
        let of_libgit2 = || git2::Error::new(ErrorCode::Auth, ErrorClass::Http, "too many\n redirects or\nauthentication replays");
        for error in [GitError::here("read it", of_libgit2()), GitError::remote("https://git.example/fleet.git", of_libgit2())] {
            let cause = error.source().unwrap().to_string();
            assert!(error.to_string().contains(&cause), "{error} / {cause}");
        }
    }
}
