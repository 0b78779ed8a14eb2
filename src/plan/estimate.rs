//! How long a plan's reinstalls may take, from the journal's own history.
//!
//! Each install is taken to last as long as the median of the last finished one of each machine, of the group where it has
//! [`ENOUGH`] of them, else of the fleet; `maxUnavailable` of a group at a time. That is an answer for a person who asks whether to wait:
//! nothing is decided by it.

use std::collections::BTreeMap;

use crate::model::{After, AttemptEnd, Estimate, MachineHistory, SignedDuration, WaveTime};

/// Fewer finished installs of a group say less of it than those of the fleet.
const ENOUGH: usize = 3;

/// What a group still has to do.
pub(super) struct Load<'a> {
    pub(super) name: &'a str,
    pub(super) after: &'a [After],
    /// Waves that have something to do, from 1, and how many machines.
    pub(super) waves: Vec<(u32, u32)>,
    pub(super) of: u32,
    /// Most at a time; zero: never.
    pub(super) at_once: u32,
    pub(super) soak: SignedDuration,
}

/// How long the last finished install of a machine took.
pub(super) fn took(history: &MachineHistory) -> Option<SignedDuration> {
    let done = history.attempts.iter().rev().find_map(|attempt| match &attempt.end {
        // How long a wipe takes is a matter of method and disks.
        Some((at, AttemptEnd::Done)) if !attempt.generation.is_wipe() => Some(at.duration_since(attempt.began)),
        _ => None,
    });
    // A clock that was put back says nothing.
    done.filter(|took| !took.is_negative())
}

/// The estimate for all groups. `took` holds finished installs by group.
pub(super) fn estimate(loads: &[Load<'_>], took: &BTreeMap<&str, Vec<SignedDuration>>) -> Option<Estimate> {
    let mut all: Vec<SignedDuration> = took.values().flatten().copied().collect();
    all.sort_unstable();
    let median = middle(&all)?;
    if loads.iter().all(|load| load.waves.is_empty()) {
        return None;
    }
    let mut waves = Vec::new();
    let mut own = BTreeMap::new();
    for load in loads {
        let mut known = took.get(load.name).cloned().unwrap_or_default();
        known.sort_unstable();
        let each = middle(&known).filter(|_| known.len() >= ENOUGH).unwrap_or(median);
        let first = waves.len();
        for (n, (wave, machines)) in load.waves.iter().enumerate() {
            let rounds = machines.div_ceil(load.at_once.max(1)) as i32;
            let soaks = if n + 1 < load.waves.len() { load.soak } else { SignedDuration::ZERO };
            let lasts = each.checked_mul(rounds).unwrap_or(SignedDuration::MAX);
            waves.push(WaveTime { group: load.name.to_owned(), wave: *wave, of: load.of, machines: *machines, lasts, soaks });
        }
        let times = waves[first..].iter().flat_map(|wave| [wave.lasts, wave.soaks]);
        own.insert(load.name, times.fold(SignedDuration::ZERO, SignedDuration::saturating_add));
    }
    let (quickest, slowest) = (*all.first()?, *all.last()?);
    Some(Estimate { installs: all.len() as u32, quickest, median, slowest, waves, in_all: last_end(loads, &own) })
}

fn middle(sorted: &[SignedDuration]) -> Option<SignedDuration> {
    sorted.get(sorted.len() / 2).copied()
}

/// When the last group is done, each beginning after those that it waits for.
fn last_end(loads: &[Load<'_>], own: &BTreeMap<&str, SignedDuration>) -> SignedDuration {
    let mut ends = own.clone();
    // A chain of n groups needs n rounds; a circle, which no manifest may have, ends there as well.
    for _ in loads {
        let before = ends.clone();
        for load in loads {
            let ends_of = |after: &After| Some(before.get(after.rollout.as_str())?.saturating_add(after.healthy_for));
            let begins = load.after.iter().filter_map(ends_of).max().unwrap_or_default();
            ends.insert(load.name, begins.saturating_add(own.get(load.name).copied().unwrap_or_default()));
        }
        if ends == before {
            break;
        }
    }
    ends.into_values().max().unwrap_or_default()
}
