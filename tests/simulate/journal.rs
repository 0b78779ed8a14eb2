//! The journal: what survives. It is one list of records, held by one controller; it can be full; and a controller can die at any write.

use std::collections::{BTreeMap, BTreeSet};

use rackwright::model::*;

use crate::repo::id_of;

/// Why a controller could not go on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stop {
    /// It is dead.
    Died,
    /// The journal could not be written: nothing happened.
    Full,
    /// Another controller wrote since: the record's number is taken (it is the store's primary key).
    Fenced,
}

#[derive(Default)]
pub struct Journal {
    pub records: Vec<Record>,
    pub in_force: Option<usize>,
    /// The site had a journal before this one.
    pub lost: bool,
    /// Which journal it is: tokens of an earlier one open nothing.
    pub epoch: u32,
    pub full: bool,
    /// Who holds the lock.
    pub held: bool,
    /// After so many writes the writer dies, after the write or before it.
    pub death: Option<(u8, bool)>,
    pub deaths: [u64; 2],
}

impl Journal {
    /// Whether the writer is to die now: before (`Some(false)`) or after.
    fn dies(&mut self) -> Option<bool> {
        match &mut self.death {
            Some((0, after)) => {
                let after = *after;
                self.death = None;
                self.deaths[usize::from(after)] += 1;
                Some(after)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    /// One transaction. `last` is the number of the last record that the writer knows.
    pub fn append(&mut self, last: u64, at: Timestamp, commit: CommitId, facts: Vec<Fact>) -> Result<Vec<Record>, Stop> {
        if last != self.records.len() as u64 {
            return Err(Stop::Fenced);
        }
        if self.full {
            return Err(Stop::Full);
        }
        let dies = self.dies();
        if dies == Some(false) {
            return Err(Stop::Died);
        }
        let numbered = facts.into_iter().zip(last + 1..).map(|(fact, seq)| Record { seq, at, commit, fact });
        let records: Vec<Record> = numbered.collect();
        self.records.extend(records.iter().cloned());
        if dies == Some(true) { Err(Stop::Died) } else { Ok(records) }
    }

    pub fn put_in_force(&mut self, commit: usize) -> Result<(), Stop> {
        if self.full {
            return Err(Stop::Full);
        }
        let dies = self.dies();
        if dies != Some(false) {
            self.in_force = Some(commit);
        }
        if dies.is_some() { Err(Stop::Died) } else { Ok(()) }
    }
}

/// What a decision rests on, as `engine::Decided`.
#[derive(Debug, Clone, Copy)]
pub struct Decided {
    pub commit: usize,
    pub since: u64,
}

/// What a controller has in memory of the journal, as `engine::known::Known`.
#[derive(Default, Clone)]
pub struct Known {
    pub history: History,
    newest: BTreeMap<MachineName, u64>,
    newest_end: u64,
    pub in_force: Option<usize>,
    pub wanted: BTreeSet<AttemptId>,
}

impl Known {
    pub fn of(journal: &Journal) -> Self {
        let mut known = Self { in_force: journal.in_force, ..Self::default() };
        journal.records.iter().for_each(|record| known.apply(record));
        known.history.lost = journal.lost;
        known
    }

    pub fn apply(&mut self, record: &Record) {
        self.history.apply(record);
        for machine in named(&record.fact) {
            match self.newest.get_mut(machine) {
                Some(newest) => *newest = record.seq,
                None => drop(self.newest.insert(machine.clone(), record.seq)),
            }
        }
        if matches!(record.fact, Fact::Reported { .. } | Fact::Concluded { .. }) {
            self.newest_end = record.seq;
        }
    }

    /// Whether what was decided still rests on all that is known.
    pub fn allows(&self, decided: Decided, fact: &Fact) -> bool {
        let known = |machine: &MachineName| self.newest.get(machine).is_none_or(|newest| *newest <= decided.since);
        let counted = !matches!(fact, Fact::Began { .. }) || self.newest_end <= decided.since;
        self.in_force == Some(decided.commit) && counted && named(fact).all(known)
    }

    /// Writes facts and takes them over. In the journal first.
    pub fn append(&mut self, journal: &mut Journal, at: Timestamp, commit: usize, facts: Vec<Fact>) -> Result<u64, Stop> {
        if facts.is_empty() {
            return Ok(self.history.seq);
        }
        let records = journal.append(self.history.seq, at, id_of(commit), facts)?;
        records.iter().for_each(|record| self.apply(record));
        Ok(self.history.seq)
    }
}

fn named(fact: &Fact) -> impl Iterator<Item = &MachineName> {
    let former = match fact {
        Fact::Renamed { from, .. } => Some(from),
        _ => None,
    };
    former.into_iter().chain([fact.machine()])
}
