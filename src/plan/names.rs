//! Who is who: names in the fleet and names in the journal, told by hardware (law 4).
//!
//! A name is only what a person calls a machine. What its disk holds goes with the hardware, so before anything else is planned every
//! name whose hardware is not the journal's is settled: the machine has another name now, or its hardware is stated anew, or another
//! machine stands under its name. What is not clear is held, never taken for new.

use std::collections::{BTreeMap, BTreeSet};

use super::identity::{differs_in_kind, hardware, identifies, is_recorded, same_hardware, shares};
use crate::model::{Fleet, Held, History, Machine, MachineHistory, MachineName};

/// What is to be said of a name in the fleet before its machine can be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing<'a> {
    /// Its machine is in the journal under this earlier name.
    Renamed(&'a MachineName),
    /// The journal's machine of this name is called otherwise now; that is noted first.
    Displaced {
        /// What that machine is called.
        to: &'a MachineName,
        /// The earlier name of the machine that has its name now; `None` for a new one.
        from: Option<&'a MachineName>,
    },
    /// The same machine, with hardware stated anew.
    Changed,
    /// Another machine under the same name.
    Replaced,
    /// By its hardware it could be this one, too.
    Unclear(&'a MachineName),
}

/// Who is who.
#[derive(Default)]
pub(super) struct Names<'a> {
    /// Machines that the journal knows and the fleet does not.
    pub(super) gone: Vec<(&'a MachineName, &'a MachineHistory)>,
    /// Names in the fleet that are not plain. All others are new, or the journal's machine of that name.
    standing: BTreeMap<&'a MachineName, Standing<'a>>,
    /// Machines of the journal that may be in the fleet under another name.
    wanted: BTreeSet<&'a MachineName>,
    /// What the journal says of machines under another name than they have in the fleet, where only one can be meant.
    records: BTreeMap<&'a MachineName, &'a MachineHistory>,
}

/// A name in the fleet that the journal does not know with this hardware.
struct Unsettled<'a> {
    name: &'a MachineName,
    machine: &'a Machine,
    hardware: Vec<String>,
    /// The hardware that the journal has under this name.
    recorded: Option<&'a [String]>,
    /// Machines of the journal that share something of the hardware.
    like: BTreeSet<&'a MachineName>,
}

impl<'a> Names<'a> {
    /// Cost beyond one walk over both follows the number of names that came, went or changed.
    pub(super) fn of(fleet: &'a Fleet, history: &'a History) -> Self {
        let (gone, mut unsettled) = walk(fleet, history);
        let mut names = Self { gone, ..Self::default() };
        let claims = claims(&mut unsettled, history);
        let by_name: BTreeMap<&MachineName, usize> = unsettled.iter().enumerate().map(|(n, one)| (one.name, n)).collect();
        for (n, one) in unsettled.iter().enumerate() {
            let record = one.renamed(history).filter(|old| *old != one.name).and_then(|old| history.machines.get(old));
            names.records.extend(record.map(|record| (one.name, record)));
            let rivals = |name: &MachineName| claims.get(name).into_iter().flatten().copied().filter(move |rival| *rival != n);
            let free = |name: &MachineName| {
                by_name.get(name).is_some_and(|n| unsettled[*n].recorded.is_some()) || !fleet.machines.contains_key(name)
            };
            let only = || one.renamed(history).filter(|old| rivals(old).next().is_none() && free(old));
            let standing = match one.recorded {
                None => match one.like.first() {
                    None => continue,
                    Some(first) => only().map_or(Standing::Unclear(first), Standing::Renamed),
                },
                Some(recorded) if one.like.contains(one.name) => {
                    let other = one.like.iter().copied().find(|old| *old != one.name);
                    let rival = rivals(one.name).next().map(|rival| unsettled[rival].name);
                    match other.or(rival) {
                        // A board that came out of another machine is not plain either: the name has the one's chassis.
                        Some(with) if other.is_some() && differs_in_kind(recorded, &one.hardware) => Standing::Unclear(with),
                        Some(with) if !shares(recorded, &one.hardware, &["serial:", "uuid:"]) => Standing::Unclear(with),
                        _ => Standing::Changed,
                    }
                }
                Some(recorded) => {
                    let rivals: Vec<&Unsettled<'_>> = rivals(one.name).map(|rival| &unsettled[rival]).collect();
                    match (rivals.as_slice(), one.like.first()) {
                        // What the rival is called is settled by the same rule as in its own turn.
                        ([rival], _) if rival.recorded.is_none() && rival.renamed(history).is_some() => match one.like.first() {
                            None => Standing::Displaced { to: rival.name, from: None },
                            Some(old) => {
                                only().map_or(Standing::Unclear(old), |from| Standing::Displaced { to: rival.name, from: Some(from) })
                            }
                        },
                        ([rival, ..], _) => Standing::Unclear(rival.name),
                        ([], Some(old)) => Standing::Unclear(old),
                        ([], None) if one.has_its_disk(history) => Standing::Changed,
                        ([], None) => stranger(recorded, &one.hardware),
                    }
                }
            };
            names.standing.insert(one.name, standing);
        }
        names.wanted = claims.into_keys().collect();
        names
    }

    /// What is to be said of this name first; nothing for most.
    pub(super) fn standing(&self, name: &MachineName) -> Option<Standing<'a>> {
        self.standing.get(name).copied()
    }

    /// What the journal says of this machine under another name.
    pub(super) fn known_as(&self, name: &MachineName) -> Option<&'a MachineHistory> {
        self.records.get(name).copied()
    }

    /// Whether a machine that left is, or may be, in the fleet under another name.
    pub(super) fn wants(&self, old: &MachineName) -> bool {
        self.wanted.contains(old)
    }
}

/// Nobody else has the hardware that is declared, and nobody else is the machine that was recorded.
///
/// Whether it was mistyped before or is another machine now, the manifest can't say for sure. As long as anything is shared, or
/// nothing that a machine is known by was stated both times (a network card may be exchanged), it is taken for the same: that
/// installs nothing.
fn stranger<'a>(recorded: &[String], declared: &[String]) -> Standing<'a> {
    let shared = shares(recorded, declared, &["serial:", "uuid:", "mac:"]);
    if !shared && differs_in_kind(recorded, declared) { Standing::Replaced } else { Standing::Changed }
}

impl<'a> Unsettled<'a> {
    /// Whether its manifest still names the disk that was written under this name: then its data came along into another chassis.
    fn has_its_disk(&self, history: &History) -> bool {
        let Some(hint) = &self.machine.disks.system else { return false };
        let same = |one: &Option<String>, other: &Option<String>| {
            one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.trim().eq_ignore_ascii_case(other.trim()))
        };
        let attempts = history.machines.get(self.name).into_iter().flat_map(|history| &history.attempts);
        let written = attempts.flat_map(|attempt| &attempt.evidence).filter_map(|(_, evidence)| evidence.leave());
        written.flat_map(|(_, disks)| disks).any(|disk| same(&hint.serial, &disk.serial) || same(&hint.wwn, &disk.wwn))
    }

    /// The one machine of the journal that it is like, if nothing speaks against that.
    fn renamed(&self, history: &History) -> Option<&'a MachineName> {
        let old = self.like.first().copied().filter(|_| self.like.len() == 1)?;
        let same = history.machines.get(old).is_some_and(|earlier| same_hardware(&self.hardware, &earlier.hardware));
        same.then_some(old)
    }
}

/// Machines that left, and names that are new or whose hardware is not as recorded, in one walk over both.
fn walk<'a>(fleet: &'a Fleet, history: &'a History) -> (Vec<(&'a MachineName, &'a MachineHistory)>, Vec<Unsettled<'a>>) {
    let (mut gone, mut unsettled) = (Vec::new(), Vec::new());
    let mut known = history.machines.iter().peekable();
    let mut note = |machine: &'a Machine, recorded: Option<&'a [String]>| {
        unsettled.push(Unsettled { name: &machine.name, machine, hardware: hardware(machine), recorded, like: BTreeSet::new() });
    };
    for (name, machine) in &fleet.machines {
        while let Some(left) = known.next_if(|(other, _)| *other < name) {
            gone.push(left);
        }
        match known.next_if(|(other, _)| *other == name) {
            Some((_, own)) if !is_recorded(machine, &own.hardware) => note(machine, Some(&own.hardware)),
            Some(_) => {}
            None => note(machine, None),
        }
    }
    gone.extend(known);
    (gone, unsettled)
}

/// Finds for each unsettled name the machines of the journal that it could be, and the other way round.
fn claims<'a>(unsettled: &mut [Unsettled<'a>], history: &'a History) -> BTreeMap<&'a MachineName, Vec<usize>> {
    let mut claims: BTreeMap<&MachineName, Vec<usize>> = BTreeMap::new();
    if unsettled.is_empty() || history.machines.is_empty() {
        return claims;
    }
    let mut by_item: BTreeMap<&str, usize> = BTreeMap::new();
    // Within a fleet no item belongs to two machines (`manifest/unique.rs`).
    for (n, one) in unsettled.iter().enumerate() {
        by_item.extend(one.hardware.iter().filter(|item| identifies(item)).map(|item| (item.as_str(), n)));
    }
    for (name, machine) in &history.machines {
        let near: BTreeSet<usize> = machine.hardware.iter().filter_map(|item| by_item.get(item.as_str()).copied()).collect();
        if !near.is_empty() {
            claims.insert(name, near.into_iter().collect());
        }
    }
    for (name, those) in &claims {
        for n in those {
            unsettled[*n].like.insert(name);
        }
    }
    claims
}

impl Standing<'_> {
    /// Why nothing is decided for a machine whose name is not clear.
    pub(super) fn held(self) -> Option<Held> {
        match self {
            Standing::Unclear(with) => Some(Held::Unclear { with: with.clone() }),
            Standing::Renamed(_) | Standing::Displaced { .. } | Standing::Changed | Standing::Replaced => None,
        }
    }
}
