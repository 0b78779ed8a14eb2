//! One group after another: what has to hold of the earlier one.
//!
//! **Without a share** a group is ready when each of its machines holds what it should and none is being installed. Machines that are
//! suspended or that nothing installs are passed over; so are quarantined ones. One that is switched off keeps nobody waiting, unless they
//! have to be healthy for a time.
//!
//! **With a share** so many per cent, rounded up, of the machines that an image is declared for and that are not suspended must hold what
//! they should and be available. A quarantined one counts as one that doesn't; others may be on their way.
//!
//! **Healthy for** a time: so many of them since their last install ended. One that nothing was done to is healthy since ever.
//!
//! In both cases the breaker of the earlier group must be closed, or have opened for another reason than failures at what is wanted now.

use super::{Case, wish::Wish};
use crate::model::{After, Held, Timestamp};

/// How the machines of a group are, as those that come after it count.
#[derive(Default)]
pub(super) struct Ready {
    /// Machines that keep a later group waiting that states no share.
    unfinished: u32,
    /// Machines that an image is declared for and that are not suspended.
    counted: u32,
    /// Of these: machines whose install failed for good.
    failed: u32,
    /// Of these: since when each that holds what it should, and is available, does.
    since: Vec<Timestamp>,
}

impl Ready {
    pub(super) fn count(&mut self, case: &Case<'_>) {
        self.unfinished += u32::from(case.unfinished());
        if case.machine.install.is_none() || case.machine.suspend {
            return;
        }
        self.counted += 1;
        self.failed += u32::from(!case.open && matches!(case.wish, Wish::Quarantine(_)));
        if case.ready() {
            let ended = case.history.and_then(|history| history.attempts.last()?.end.as_ref());
            self.since.push(ended.map_or(Timestamp::MIN, |(at, _)| *at));
        }
    }

    /// All machines are counted.
    pub(super) fn counted(&mut self) {
        self.since.sort_unstable();
    }
}

/// What stands against beginning after a group: its machines, how many of all of them are ready, and of how many. `tripped`: its breaker is
/// open because of failures.
pub(super) fn held(after: &After, earlier: Option<(&Ready, u32, u32)>, tripped: bool, now: Timestamp) -> Option<Held> {
    let held = |ready, of, needed, healthy_at| Some(Held::After { group: after.rollout.clone(), ready, of, needed, healthy_at, tripped });
    // A group that does not exist is never ready: fail closed, `validate` names it.
    let Some((group, ready, of)) = earlier else { return held(0, 0, None, None) };
    let healthy = group.since.len() as u32;
    let needed = after.share.map(|share| (u64::from(group.counted) * u64::from(share)).div_ceil(100) as u32);
    let (ready, of) = if needed.is_some() { (healthy, group.counted) } else { (ready, of) };
    let enough = match needed {
        Some(needed) => healthy >= needed,
        None => group.unfinished == 0 && (after.healthy_for.is_zero() || healthy == group.counted - group.failed),
    };
    // Those that became ready first; where no share is stated, all that are.
    let last = needed.unwrap_or(healthy).checked_sub(1).and_then(|last| group.since.get(last as usize));
    let healthy_at = last.map(|since| since.checked_add(after.healthy_for).unwrap_or(Timestamp::MAX)).filter(|at| enough && now < *at);
    if enough && healthy_at.is_none() && !tripped { None } else { held(ready, of, needed, healthy_at) }
}
