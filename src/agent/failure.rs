//! Why an install can't be done, in the words that the controller keeps.

use crate::model::NoChoice;

/// A local failure: its stable name, and the sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// A stable name: a constant of [`code`], or [`NoChoice::code`].
    pub code: &'static str,
    /// For people, with the values.
    pub message: String,
}

impl Failure {
    /// A failure with this name and text.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<NoChoice> for Failure {
    fn from(none: NoChoice) -> Self {
        Self::new(none.code(), none.to_string())
    }
}

/// Names of failures. They are told to the controller and kept in journals: never rename one.
pub mod code {
    /// The list of disks can't be read.
    pub const DISK_LIST: &str = "disk-list";
    /// The manifest's hint means another disk than it did when the agent chose one.
    pub const DISK_CHANGED: &str = "disk-changed";
    /// The disk can't be opened.
    pub const DISK_OPEN: &str = "disk-open";
    /// The image needs more room than the disk has.
    pub const DISK_TOO_SMALL: &str = "disk-too-small";
    /// The image's partition table counts in sectors of another size than the disk's.
    pub const DISK_SECTOR_SIZE: &str = "disk-sector-size";
    /// The disk refused a write.
    pub const DISK_WRITE: &str = "disk-write";
    /// The disk refused a read.
    pub const DISK_READ: &str = "disk-read";
    /// What was read back is not what was written.
    pub const VERIFY_FAILED: &str = "verify-failed";
    /// The image can't be fetched.
    pub const IMAGE_UNAVAILABLE: &str = "image-unavailable";
    /// The image became another file while it was fetched.
    pub const IMAGE_CHANGED: &str = "image-changed";
    /// The image's bytes can't be decompressed.
    pub const IMAGE_CORRUPT: &str = "image-corrupt";
    /// The image ends too early.
    pub const TRUNCATED: &str = "truncated";
    /// The image is not the one that the manifest names.
    pub const WRONG_DIGEST: &str = "wrong-digest";
    /// The image has no place for the configuration.
    pub const NO_SEED_PARTITION: &str = "no-seed-partition";
    /// The configuration does not fit into its place.
    pub const SEED_TOO_LARGE: &str = "seed-too-large";
    /// All disks are to be wiped, and one of them can't be written.
    pub const DISK_READ_ONLY: &str = "disk-read-only";
    /// All disks are to be wiped, and one of them may be another machine's, too.
    pub const DISK_REMOTE: &str = "disk-remote";
    /// The disk has another size than it said.
    pub const DISK_SIZE: &str = "disk-size";
    /// The drive can't be wiped the way that was asked for.
    pub const WIPE_UNSUPPORTED: &str = "wipe-unsupported";
    /// The drive's command would wipe more than this disk.
    pub const WIPE_SHARED: &str = "wipe-shared";
    /// The drive takes no security command until its next power cycle.
    pub const DISK_FROZEN: &str = "disk-frozen";
    /// The drive has a password.
    pub const DISK_LOCKED: &str = "disk-locked";
    /// The drive's own command failed.
    pub const ERASE_FAILED: &str = "erase-failed";
    /// What was read back says that it is not wiped.
    pub const NOT_WIPED: &str = "not-wiped";
    /// The agent itself is broken.
    pub const AGENT: &str = "agent";
}

#[cfg(test)]
mod tests {
    use super::code;
    use crate::model::{AttemptEnd, CommitId, Digest, Fact, Generation, History, Record, Timestamp};

    #[test]
    fn what_lies_in_the_disk_or_the_image_is_not_tried_again() {
        let (machine, attempt) = ("web-01".parse().unwrap(), "web-01#1".parse().unwrap());
        let began = [
            Fact::Claimed { machine, installed: None, hardware: Vec::new(), basis: None },
            Fact::Began { attempt, generation: Generation::of(Digest::of(b"image"), None, 0), basis: None },
        ];
        let retry = |code: &str| {
            let reported = Fact::Reported { attempt: "web-01#1".parse().unwrap(), wrote: false, code: code.into(), why: String::new() };
            let facts = began.iter().cloned().chain([reported]).zip(1..);
            let records = facts.map(|(fact, seq)| Record { seq, at: Timestamp::UNIX_EPOCH, commit: CommitId([1; 20]), fact });
            let history = History::of(&records.collect::<Vec<_>>());
            let (_, end) = history.machines.values().next().unwrap().attempts[0].reported.clone().unwrap();
            matches!(end, AttemptEnd::Failed { retry: true, .. })
        };
        for code in [code::WIPE_UNSUPPORTED, code::WIPE_SHARED, code::DISK_FROZEN, code::DISK_LOCKED, code::NOT_WIPED, code::ERASE_FAILED] {
            assert!(!retry(code), "{code}");
        }
        for code in [code::DISK_READ_ONLY, code::DISK_REMOTE, code::DISK_SIZE, "keep-unclear", "two-hints-one-disk"] {
            assert!(!retry(code), "{code}");
        }
        for code in [code::DISK_SECTOR_SIZE, code::DISK_TOO_SMALL, code::WRONG_DIGEST, code::NO_SEED_PARTITION] {
            assert!(!retry(code), "{code}");
        }
        assert!(retry(code::IMAGE_UNAVAILABLE) && retry("unheard-of"));
    }
}
