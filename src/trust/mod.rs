//! Who signed a commit, and whether that counts.
//!
//! **Scope.** Signatures of SSH and OpenPGP over commits as Git stores them, the file of allowed signers, and the judgement of a range of
//! commits: each by the set of signers of the commit that it comes to.
//!
//! **How.** Values in, verdicts out: no file, no clock, no Git. [`Commits`] shows a repository, [`Settings`] finds a fleet's settings
//! in it; time is the committer's, as in `git verify-commit`.
//!
//! **Non-goals.** What a commit changes, and whether that is wise. Trust in keys beyond the files of the repository.
//!
//! **Invariant.** Whatever can't be read, allows nothing.

mod allowed;
mod bytes;
mod judge;
mod key;
mod object;
mod openpgp;
mod pattern;
mod refused;
mod signers;
mod sshsig;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod time;

pub use allowed::{Allowed, AllowedKey, BadLine, allowed_signers, revoked_keys};
pub use judge::{Commits, Judged, Question, Settings, SignersAt, Stated, Unread, Verdict, judge};
pub use key::{BadKey, SshKey};
pub use object::{BadObject, Object};
pub use pattern::bad_glob;
pub use refused::Refused;
pub use signers::{BadFiles, Signers};
pub use sshsig::{BadSignature, SshSignature};
