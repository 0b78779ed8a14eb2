//! Which rollouts a commit goes on with: a commit that changes nothing of a group's rollout costs no canary and no soak time a second time.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::Groups;
use crate::model::{CommitId, Fleet, History, Machine, OnClaim, Rollout};

/// By group, the commits whose rollout `after` goes on with, once it comes into force in place of `before`, whose id is `commit` and
/// which `history` rests on.
///
/// A rollout goes on where each machine that is in both fleets is in the same group and should have the same on its disk, and where no
/// machine has come to be installed. Whatever else changes, such as waves, soak time or budgets, is read from the commit in force. A
/// commit under which no attempt began has nothing to go on with.
pub fn goes_on(commit: CommitId, before: &Fleet, history: &History, after: &Fleet) -> BTreeMap<String, BTreeSet<CommitId>> {
    let key = |fleet, machine| group_key(rollout(fleet, machine));
    let mut changed: BTreeSet<&str> = BTreeSet::new();
    for machine in after.machines.values() {
        let now = key(after, machine);
        match before.machines.get(&machine.name) {
            Some(earlier) => {
                let then = key(before, earlier);
                if then != now || earlier.generation() != machine.generation() {
                    changed.extend([then, now]);
                }
            }
            None if machine.on_claim == OnClaim::Install && machine.install.is_some() => drop(changed.insert(now)),
            None => {}
        }
    }
    let worked: BTreeSet<CommitId> =
        history.machines.values().flat_map(|machine| &machine.attempts).map(|attempt| attempt.commit).collect();
    let groups = after.rollouts.values().map(|rollout| group_key(Some(rollout))).chain([group_key(None)]);
    let same = groups.filter(|group| !changed.contains(group));
    let commits = same.map(|group| {
        let earlier = history.goes_on.get(group).into_iter().flatten().copied().chain([commit]);
        (group.to_owned(), earlier.filter(|commit| worked.contains(commit)).collect::<BTreeSet<_>>())
    });
    commits.filter(|(_, commits)| !commits.is_empty()).collect()
}

/// The key of a group in [`History::goes_on`]: no rollout has an empty name.
pub(super) fn group_key(rollout: Option<&Rollout>) -> &str {
    rollout.map_or("", |rollout| rollout.name.as_str())
}

fn rollout<'a>(fleet: &'a Fleet, machine: &Machine) -> Option<&'a Rollout> {
    fleet.rollouts.values().nth(Groups::index(fleet, machine))
}
