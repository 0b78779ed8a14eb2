//! Checksums: of each record over itself and all before it, and of each small value.
//!
//! SQLite checks its pages' form, not what stands in them: a flipped bit may make another number, digest or name of one. These sums are
//! against accidents; whoever may write the file can also write the sums.

use sha2::{Digest as _, Sha256};

/// The first half of a SHA-256.
pub(super) type Sum = [u8; 16];

/// What stands before the first record.
pub(super) const FIRST: Sum = [0; 16];

/// The columns of a record but its sum.
pub(super) struct Columns<'a> {
    pub(super) seq: i64,
    pub(super) at: &'a str,
    pub(super) commit: &'a str,
    pub(super) machine: &'a str,
    pub(super) kind: &'a str,
    pub(super) fact: &'a str,
}

/// The sum of a record, given that of the record before.
pub(super) fn of_record(before: &Sum, columns: &Columns<'_>) -> Sum {
    let Columns { seq, at, commit, machine, kind, fact } = columns;
    of(&[before, &seq.to_be_bytes(), at.as_bytes(), commit.as_bytes(), machine.as_bytes(), kind.as_bytes(), fact.as_bytes()])
}

/// The sum of a small value.
pub(super) fn of_value(key: &str, value: &str) -> Sum {
    of(&[key.as_bytes(), value.as_bytes()])
}

/// Each part with its length, so that nothing can move from one to the next.
fn of(parts: &[&[u8]]) -> Sum {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut sum = FIRST;
    sum.copy_from_slice(&hasher.finalize()[..16]);
    sum
}
