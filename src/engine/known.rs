//! What follows from the journal, and whether a decision still rests on it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{AttemptId, CommitId, Fact, History, MachineName, Record};

/// What a step was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// The commit whose fleet wanted it.
    pub commit: CommitId,
    /// Number of the last record that was known.
    pub since: u64,
}

/// A commit that is not in force any more, or never was, and whose last note is not written yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owed {
    /// The commit.
    pub commit: CommitId,
    /// The one that came into force instead.
    pub by: CommitId,
    /// Whether it ever was in force here.
    pub was_in_force: bool,
}

/// See [`History::goes_on`].
pub(super) type GoesOn = BTreeMap<String, BTreeSet<CommitId>>;

/// What the journal says.
#[derive(Default)]
pub(super) struct Known {
    pub(super) history: History,
    /// Number of the last record about each machine, under each name that it had.
    pub(super) newest: BTreeMap<MachineName, u64>,
    /// Number of the last record of an attempt that failed or ended: budgets count those of all machines.
    pub(super) newest_end: u64,
    pub(super) in_force: Option<CommitId>,
    /// Open attempts that a plan under the commit in force lets go on.
    pub(super) wanted: BTreeSet<AttemptId>,
    pub(super) owed: Vec<Owed>,
    /// Whose rollouts a commit goes on with, from before it is in force.
    pub(super) goes_on: Option<(CommitId, GoesOn)>,
}

impl Known {
    /// Adds one record.
    pub(super) fn apply(&mut self, record: &Record) {
        self.history.apply(record);
        for machine in named(&record.fact) {
            self.newest.insert(machine.clone(), record.seq);
        }
        if ends(&record.fact) {
            self.newest_end = record.seq;
        }
    }

    /// Whether what was decided still rests on all that is known: on the commit in force, on the last word about its machines, and,
    /// where it begins an attempt, on all that budgets count.
    pub(super) fn allows(&self, decided: Decided, fact: &Fact) -> bool {
        let known = |machine: &MachineName| self.newest.get(machine).is_none_or(|newest| *newest <= decided.since);
        let counted = !begins(fact) || self.newest_end <= decided.since;
        self.in_force == Some(decided.commit) && counted && named(fact).all(known)
    }
}

/// The machines that a fact is about.
pub(super) fn named(fact: &Fact) -> impl Iterator<Item = &MachineName> {
    let former = match fact {
        Fact::Renamed { from, .. } => Some(from),
        _ => None,
    };
    former.into_iter().chain([fact.machine()])
}

/// Whether it begins an attempt.
pub(super) fn begins(fact: &Fact) -> bool {
    matches!(fact, Fact::Began { .. })
}

/// Whether it says that an attempt failed or ended.
pub(super) fn ends(fact: &Fact) -> bool {
    matches!(fact, Fact::Reported { .. } | Fact::Concluded { .. })
}
