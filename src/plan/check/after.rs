//! Law 7, read anew: whether a group may begin after others, by what the journal says of each of their machines.

use std::collections::BTreeSet;

use super::{Violation, budgets::rollout_of, hardware::same_hardware, later::may_wait};
use crate::model::{After, AttemptEnd, Machine, MachineHistory, Plan, Risk};
use crate::plan::Input;

/// Reads all groups in which something begins. What the journal can't tell under a machine's own name is taken to be as it should: this
/// never forbids what the planner rightly allows.
pub(super) fn after(plan: &Plan, input: &Input<'_>, found: &mut Vec<Violation>) {
    let begins = |machine: &&Machine| {
        plan.machines.get(&machine.name).is_some_and(|part| part.steps.iter().any(|step| step.risk() == Risk::Destructive))
    };
    let beginning = input.fleet.machines.values().map(AsRef::as_ref).filter(begins);
    let groups: BTreeSet<_> = beginning.filter_map(|machine| Some(&rollout_of(input.fleet, machine)?.name)).collect();
    for group in groups.into_iter().filter_map(|name| input.fleet.rollouts.get(name)) {
        for after in &group.after {
            if let Some(why) = broken(input, after) {
                let what = format!("{} begins, and of {}, which it comes after, {why}", group.name, after.rollout);
                found.push(Violation { machine: None, law: 7, what });
            }
        }
    }
}

/// A machine of the earlier group.
struct Member {
    /// An install of it is on its way.
    open: bool,
    /// Its disk holds something else than it should.
    other: bool,
    /// Its last install at what it should hold failed.
    failed: bool,
    /// An install of it ended well too short a while ago.
    young: bool,
    /// An image is declared, and it is not suspended.
    counts: bool,
}

fn broken(input: &Input<'_>, after: &After) -> Option<&'static str> {
    if !input.fleet.rollouts.contains_key(&after.rollout) {
        return Some("nothing is known");
    }
    let own = |machine: &&Machine| rollout_of(input.fleet, machine).is_some_and(|rollout| rollout.name == after.rollout);
    let machines = input.fleet.machines.values().map(AsRef::as_ref).filter(own);
    let all: Vec<Member> = machines.map(|machine| member(input, machine, after)).collect();
    let counted = || all.iter().filter(|member| member.counts);
    match after.share {
        Some(share) => {
            let good = counted().filter(|member| !member.open && !member.other && !member.failed && !member.young).count();
            (good * 100 < counted().count() * usize::from(share)).then_some("too small a share is healthy, or not for long enough")
        }
        None if all.iter().any(|member| member.open) => Some("an install is on its way"),
        None if counted().any(|member| member.other && !member.failed) => Some("a machine does not hold what it should"),
        None if counted().any(|member| member.young) => Some("a machine has not been healthy for long enough"),
        None => None,
    }
}

fn member(input: &Input<'_>, machine: &Machine, after: &After) -> Member {
    let history = input.history.machines.get(&machine.name);
    let own = history.filter(|history| same_hardware(machine, history));
    let declared = machine.install.as_ref().map(|install| install.generation);
    let ended = own.and_then(|own| own.attempts.iter().rev().find(|attempt| !matches!(attempt.end, Some((_, AttemptEnd::Superseded)))));
    let failed = |end: &(_, AttemptEnd)| matches!(end, (_, AttemptEnd::Failed { .. }));
    let last = own.and_then(|own| own.attempts.last()?.end.as_ref());
    Member {
        open: history.and_then(MachineHistory::open_attempt).is_some(),
        other: own.is_some_and(|own| own.installed != declared && !may_wait(machine, own)),
        // One that was adopted after a failure, or whose configuration waits by now, holds what it should.
        failed: ended.is_some_and(|ended| Some(ended.generation) == declared && ended.end.as_ref().is_some_and(failed))
            && own.is_some_and(|own| own.installed != declared && !may_wait(machine, own)),
        young: matches!(last, Some((at, AttemptEnd::Done)) if input.now.duration_since(*at) < after.healthy_for),
        counts: machine.install.is_some() && !machine.suspend,
    }
}
