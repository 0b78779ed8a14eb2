//! Law 7, read anew: waves, soak time and breaker, by counting ended attempts. What it counts is never more than the planner does.

use std::collections::BTreeMap;

use super::{Violation, budgets::rollout_of, hardware::same_hardware};
use crate::model::{Amount, Attempt, AttemptEnd, Machine, MachineHistory, Plan, Risk, Rollout, RolloutName, Timestamp};
use crate::plan::Input;

/// The share of a wave that may not fail where none is stated, in per cent.
const HALF: u8 = 50;

/// A machine of a group in which something begins.
struct Member<'a> {
    /// When this commit, or one whose rollout it goes on with, first began it.
    first: Option<Timestamp>,
    /// Its last attempt.
    last: Option<&'a Attempt>,
    begins: bool,
    /// Its last attempt at what it should have failed.
    failed: bool,
}

/// Reads all groups in which something begins.
pub(super) fn waves(plan: &Plan, input: &Input<'_>, found: &mut Vec<Violation>) {
    let destroys = |name| plan.machines.get(name).is_some_and(|part| part.steps.iter().any(|step| step.risk() == Risk::Destructive));
    if !plan.machines.keys().any(destroys) {
        return;
    }
    let mut groups: BTreeMap<Option<&RolloutName>, (Option<&Rollout>, Vec<Member<'_>>)> = BTreeMap::new();
    for machine in input.fleet.machines.values() {
        let rollout = rollout_of(input.fleet, machine);
        let group = groups.entry(rollout.map(|rollout| &rollout.name)).or_insert_with(|| (rollout, Vec::new()));
        group.1.push(member(input, rollout, machine, destroys(&machine.name)));
    }
    for (name, (rollout, members)) in groups.iter_mut().filter(|(_, (_, members))| members.iter().any(|member| member.begins)) {
        let name = name.map_or("default", |name| name.as_str());
        let mut say = |what: &str| found.push(Violation { machine: None, law: 7, what: format!("{name}: {what}") });
        let budgets = rollout.map_or(&input.fleet.settings.budgets, |rollout| &rollout.budgets);
        if members.iter().filter(|member| member.failed).count() >= budgets.breaker_failures as usize {
            say("as many failed as open the breaker, and more begins");
        }
        let stated = rollout.map_or(&[] as &[Amount], |rollout| &rollout.waves);
        let total = members.len() as u32;
        let bounds: Vec<usize> = stated.iter().map(|amount| amount.of(total)).chain([total]).map(|bound| bound as usize).collect();
        members.retain(|member| member.begins || member.first.is_some());
        members.sort_by_key(|member| (member.first.is_none(), member.first));
        if let Some(rollout) = rollout
            && !vouched_for(input, rollout, &bounds, members)
        {
            say("a wave begins before the one before it is healthy and has soaked");
        }
        let share = budgets.breaker_share.or((!stated.is_empty()).then_some(HALF));
        if share.is_some_and(|share| failed_for_good(&bounds, members, share)) {
            say("too large a share of a wave failed for good, and more begins");
        }
    }
}

fn member<'a>(input: &Input<'a>, rollout: Option<&Rollout>, machine: &Machine, begins: bool) -> Member<'a> {
    let history = input.history.machines.get(&machine.name);
    let attempts = history.map_or(&[] as &[Attempt], |history| history.attempts.as_slice());
    let called_off = |attempt: &Attempt| matches!(attempt.end, Some((_, AttemptEnd::Superseded)));
    let before = rollout.filter(|rollout| !rollout.waves.is_empty()).and_then(|rollout| input.history.goes_on.get(rollout.name.as_str()));
    let rolled_by = |commit| commit == input.commit.id || before.is_some_and(|before| before.contains(&commit));
    let first = attempts.iter().find(|attempt| rolled_by(attempt.commit) && !called_off(attempt));
    let declared = super::wipe::declared(machine);
    let ended = attempts.iter().rev().find(|attempt| !matches!(attempt.end, None | Some((_, AttemptEnd::Superseded))));
    let failed = ended.is_some_and(|ended| {
        let failed = matches!(ended.end, Some((_, AttemptEnd::Failed { .. })));
        // What failed on the hardware that had this name before says nothing of this one.
        let own = |history: &MachineHistory| history.installed != declared && same_hardware(machine, history);
        failed && Some(ended.generation) == declared && history.is_some_and(own)
    });
    Member { first: first.map(|attempt| attempt.began), last: attempts.last(), begins, failed }
}

/// Whether, for what begins now, as many are done, well or not, as its wave comes after.
fn vouched_for(input: &Input<'_>, rollout: &Rollout, bounds: &[usize], members: &[Member<'_>]) -> bool {
    // A further try takes no new place.
    if !members.iter().any(|member| member.begins && member.first.is_none()) {
        return true;
    }
    let Some(before) = bounds.iter().filter(|bound| **bound < members.len()).max() else { return true };
    let vouches = |member: &&Member<'_>| match member.last.and_then(|last| last.end.as_ref()) {
        Some((at, AttemptEnd::Done)) => member.first.is_some() && input.now.duration_since(*at) >= rollout.soak,
        Some((_, AttemptEnd::Failed { .. })) => member.first.is_some() && !member.begins,
        Some((_, AttemptEnd::Superseded)) | None => false,
    };
    members.iter().filter(vouches).count() >= *before
}

/// Whether in some wave at least this share failed in a way that is not tried again.
fn failed_for_good(bounds: &[usize], members: &[Member<'_>], share: u8) -> bool {
    let for_good = |member: &&Member<'_>| {
        let end = member.last.and_then(|last| last.end.as_ref());
        member.failed && member.first.is_some() && matches!(end, Some((_, AttemptEnd::Failed { retry: false, .. })))
    };
    let mut from = 0;
    bounds.iter().any(|bound| {
        let (start, size) = (from, bound.saturating_sub(from));
        from = from.max(*bound);
        let failed = members.iter().skip(start).take(size).filter(for_good).count();
        failed > 0 && failed * 100 >= size * usize::from(share)
    })
}
