//! Waves: how many machines of a group a commit may begin before the first of them have shown that it is good.
//!
//! **Which machine is in which wave** is said by the order in which this commit, and those whose rollout it goes on with, began them, not by a list made beforehand: a machine that
//! can't be reached delays nobody, the next one takes its place. `waves: [1, 10%]` are bounds: 1 machine, then as many as make 10 % of the
//! group, then the rest. A further try of a machine stays in its wave.
//!
//! **A wave is over** when each of its machines holds what it should and is available, or is quarantined (the breaker counts those); the next
//! begins when the last of them has been healthy for the soak time.

use std::collections::BTreeSet;

use super::{Case, Input, goes_on::group_key, wish::Wish};
use crate::model::{Amount, Attempt, AttemptEnd, Budgets, CommitId, Held, Rollout, SignedDuration, Timestamp, WavePlan};

/// The share of a wave at whose failure the breaker opens where waves are stated and no share is: one of one, five of ten.
const SHARE: u8 = 50;

/// The waves of one group under one commit.
pub(super) struct Waves<'a> {
    rollout: Option<&'a Rollout>,
    commits: Commits<'a>,
    /// The last rank of each wave and one, ascending; the last is the group.
    bounds: Vec<u32>,
    /// Machines that this rollout began, by the order in which it did.
    begun: Vec<Begun>,
    /// For each of these, and none: how many up to it are settled, and when the last was healthy. A group of thousands asks often.
    upto: Vec<(u32, Option<Timestamp>)>,
    /// The first wave of which too large a share failed.
    tripped: Option<Held>,
}

struct Begun {
    at: Timestamp,
    settled: bool,
    failed: bool,
    healthy: Option<Timestamp>,
}

/// The commits of a rollout: the one in force, and those before it whose rollout it goes on with.
#[derive(Clone, Copy)]
pub(super) struct Commits<'a> {
    in_force: CommitId,
    earlier: Option<&'a BTreeSet<CommitId>>,
}

impl<'a> Commits<'a> {
    pub(super) fn of(input: &Input<'a>, rollout: Option<&Rollout>) -> Self {
        let earlier = rollout.filter(|rollout| !rollout.waves.is_empty()).and_then(|_| input.history.goes_on.get(group_key(rollout)));
        Self { in_force: input.commit.id, earlier }
    }

    /// The first attempt at a machine in the rollout, but for those that were called off: nobody looks any more how they end, so they
    /// vouch for nothing, also if the disk is written.
    pub(super) fn first_attempt<'c>(self, case: &Case<'c>) -> Option<&'c Attempt> {
        let called_off = |attempt: &Attempt| matches!(attempt.end, Some((_, AttemptEnd::Superseded)));
        let counts = |commit: CommitId| commit == self.in_force || self.earlier.is_some_and(|earlier| earlier.contains(&commit));
        case.history?.attempts.iter().find(|attempt| counts(attempt.commit) && !called_off(attempt))
    }
}

impl<'a> Waves<'a> {
    pub(super) fn of(input: &Input<'a>, rollout: Option<&'a Rollout>) -> Self {
        Self { rollout, commits: Commits::of(input, rollout), bounds: Vec::new(), begun: Vec::new(), upto: vec![(0, None)], tripped: None }
    }

    /// Whether the rollout has begun a machine.
    pub(super) fn has_begun(&self, case: &Case<'_>) -> bool {
        self.commits.first_attempt(case).is_some()
    }

    pub(super) fn count(&mut self, case: &Case<'_>) {
        let Some(first) = self.commits.first_attempt(case) else { return };
        let ended = case.history.and_then(|history| history.attempts.last()?.end.as_ref());
        let failed = !case.open && matches!(case.wish, Wish::Quarantine(_));
        self.begun.push(Begun {
            at: first.began,
            settled: failed || (!case.open && !case.unavailable && case.wish == Wish::Nothing),
            failed,
            healthy: ended.filter(|(_, end)| *end == AttemptEnd::Done).map(|(at, _)| *at),
        });
    }

    /// All are counted; the group has `total` machines, of which the commit wants `wanted` reinstalled.
    pub(super) fn counted(&mut self, total: u32, wanted: u32, budgets: &Budgets) {
        self.begun.sort_by_key(|begun| begun.at);
        let stated = self.rollout.map_or(&[] as &[Amount], |rollout| &rollout.waves);
        let bounds = stated.iter().map(|amount| amount.of(total)).filter(|bound| *bound < total);
        self.bounds = bounds.chain([total]).collect();
        self.bounds.sort_unstable();
        self.bounds.dedup();
        for begun in &self.begun {
            let (settled, healthy) = self.upto.last().copied().unwrap_or_default();
            self.upto.push((settled + u32::from(begun.settled), healthy.max(begun.healthy)));
        }
        self.tripped = self.trip(budgets, wanted);
    }

    /// The wave of the machine that is begun after `before` others, from 0.
    fn wave(&self, before: usize) -> usize {
        self.bounds.iter().position(|bound| before < *bound as usize).unwrap_or(self.bounds.len().saturating_sub(1))
    }

    /// How many begin before this wave.
    fn before(&self, wave: usize) -> usize {
        wave.checked_sub(1).and_then(|last| self.bounds.get(last)).map_or(0, |bound| *bound as usize)
    }

    /// Whether one more may begin.
    pub(super) fn next(&self, now: Timestamp) -> Result<(), Held> {
        let Some(rollout) = self.rollout else { return Ok(()) };
        let wave = self.wave(self.begun.len());
        let before = self.before(wave).min(self.begun.len());
        let (settled, healthy) = self.upto.get(before).copied().unwrap_or_default();
        let soaked = healthy.map(|healthy| healthy.checked_add(rollout.soak).unwrap_or(Timestamp::MAX));
        let soaks_until = soaked.filter(|until| now < *until && settled as usize == before);
        if settled as usize == before && soaks_until.is_none() {
            return Ok(());
        }
        let (wave, of) = (wave as u32 + 1, self.bounds.len() as u32);
        Err(Held::Wave { rollout: rollout.name.clone(), wave, of, settled, before: before as u32, soaks_until })
    }

    /// One more begins.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.begun.push(Begun { at: now, settled: false, failed: false, healthy: None });
        self.upto.extend_from_within(self.upto.len() - 1..);
    }

    /// The first wave of which too large a share failed for good; all that the commit wants is one where no waves are stated.
    pub(super) fn tripped(&self) -> Option<&Held> {
        self.tripped.as_ref()
    }

    fn trip(&self, budgets: &Budgets, wanted: u32) -> Option<Held> {
        let (name, stated) = self.rollout.map_or(("default", false), |rollout| (rollout.name.as_str(), !rollout.waves.is_empty()));
        let share = budgets.breaker_share.or(stated.then_some(SHARE))?;
        let whole = [wanted];
        let bounds = if stated { self.bounds.as_slice() } else { &whole };
        let mut from = 0;
        for (wave, bound) in bounds.iter().enumerate() {
            let size = bound.saturating_sub(from);
            let members = self.begun.iter().skip(from as usize).take(size as usize);
            let failures = members.filter(|begun| begun.failed).count() as u32;
            let allowed = (u64::from(size) * u64::from(share)).div_ceil(100).max(1) as u32;
            if failures >= allowed {
                let scope = if stated { format!("wave {} of {name}", wave + 1) } else { name.to_owned() };
                return Some(Held::Breaker { scope, failures, allowed });
            }
            from = *bound;
        }
        None
    }

    /// How many machines each wave still has to do, of those that it began and of `new` ones; waves from 1, without those that have none.
    pub(super) fn left(&self, new: u32) -> Vec<(u32, u32)> {
        let begun = self.begun.len() as u32;
        let mut from = 0;
        let mut left = Vec::new();
        for (wave, bound) in self.bounds.iter().enumerate() {
            // The last wave has no bound: a machine may have been begun and have left the group.
            let to = if wave + 1 == self.bounds.len() { u32::MAX } else { *bound };
            let unsettled = self.begun.iter().skip(from as usize).take((to - from) as usize).filter(|begun| !begun.settled).count() as u32;
            let fresh = to.min(begun.saturating_add(new)).saturating_sub(from.max(begun));
            left.push((wave as u32 + 1, unsettled + fresh));
            from = to;
        }
        left.retain(|(_, machines)| *machines > 0);
        left
    }

    pub(super) fn number(&self) -> u32 {
        self.bounds.len() as u32
    }

    pub(super) fn soak(&self) -> SignedDuration {
        self.rollout.map_or(SignedDuration::ZERO, |rollout| rollout.soak)
    }

    /// Where the group stands, for people.
    pub(super) fn report(&self) -> Option<WavePlan> {
        self.rollout.filter(|rollout| !rollout.waves.is_empty() && !self.begun.is_empty())?;
        let wave = self.wave(self.begun.len().saturating_sub(1));
        Some(WavePlan { wave: wave as u32 + 1, of: self.bounds.len() as u32, begun: self.begun.len() as u32 })
    }
}
