//! When correcting ends: what is put right again and again is being changed back, or the machine does not listen. It is then left alone until
//! the oldest of those corrections is [`crate::model::Damping::within`] old, and counts as Stalled meanwhile.

use super::{Input, deadlines::after};
use crate::model::{Action, Held, MachineHistory, MachinePlan, Waiting, corrects};

/// Why `action` is not done now to put drift right, if it was done too often. Only what was done to the same end counts: a commit that
/// declares the opposite begins anew.
pub(super) fn held(input: &Input<'_>, history: &MachineHistory, action: &Action) -> Option<Held> {
    let class = corrects(action)?;
    let damping = &input.fleet.settings.drift.damping;
    let of_class = history.corrections.iter().rev().filter(|(_, known)| corrects(known) == Some(class));
    let run = of_class.take_while(|(_, known)| known == action).map(|(at, _)| *at);
    // A time that is yet to come is of a clock that was put back; it counts until the clock is there again.
    let recent: Vec<_> = run.filter(|at| input.now.duration_since(*at) < damping.within).collect();
    let corrections = recent.len() as u32;
    if corrections < damping.corrections {
        return None;
    }
    let since = *recent.get(damping.corrections.saturating_sub(1) as usize)?;
    let within = damping.within.unsigned_abs();
    Some(Held::Damped { class, corrections, since: recent.iter().copied().min().unwrap_or(since), until: after(since, within) })
}

/// Says so in a plan: it is no failure of the plan, and it is tried again by itself.
pub(super) fn hold(part: &mut MachinePlan, damped: Held) {
    if let Held::Damped { class, until, .. } = &damped {
        part.waiting = Some(Waiting { why: format!("its {class} was put right too often; it is tried again"), until: Some(*until) });
    }
    part.held.push(damped);
}
