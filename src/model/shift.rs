//! A clock that was set: what is known is moved along with it.
//!
//! Every wait counts from a time in the journal: until a command is given again, until an attempt is given up, until the next wave. When the
//! clock is set back by a year, those times lie in the future, and each wait would last that year longer; when it is set forward, each is
//! over at once. So all times of a [`History`] are moved by as much as the clock was. Their order and distances stay; no time passes.

use super::{Attempt, History, MachineHistory, Outcome, SignedDuration, Timestamp};

/// The least by which a clock has to be set to count. Records are written a moment after their time was taken, and a step of a few seconds
/// lengthens a wait by no more than that.
pub const CLOCK_WAS_SET: SignedDuration = SignedDuration::from_mins(1);

impl History {
    /// Moves all that is known by as much as the clock was set.
    pub fn shift(&mut self, by: SignedDuration) {
        // No `..` here and below: whoever adds a time must move it.
        let Self { machines, numbers: _, seq: _, at, lost: _, goes_on: _ } = self;
        at.iter_mut().for_each(|at| move_by(at, by));
        machines.values_mut().for_each(|machine| machine.shift(by));
    }

    /// Moves all that is known back to `now` if it lies behind it: the clock was set back since the last record. Gives by how much.
    pub fn not_after(&mut self, now: Timestamp) -> Option<SignedDuration> {
        let ahead = self.at?.duration_since(now);
        (ahead > CLOCK_WAS_SET).then(|| {
            self.shift(-ahead);
            ahead
        })
    }
}

impl MachineHistory {
    fn shift(&mut self, by: SignedDuration) {
        let Self {
            claimed,
            hardware: _,
            before: _,
            installed: _,
            attempts,
            pending,
            last,
            power_changed,
            switched,
            unsure,
            corrections,
            basis: _,
            deferred: _,
            published,
        } = self;
        for said in published.values_mut() {
            move_by(&mut said.at, by);
            said.lost.iter_mut().for_each(|at| move_by(at, by));
        }
        let single = claimed.iter_mut().chain(power_changed);
        let steps = pending.iter_mut().map(|(_, at, _)| at).chain(switched.iter_mut().map(|(at, _)| at));
        let unsure = unsure.iter_mut().map(|(at, _)| at);
        let corrections = corrections.iter_mut().map(|(at, _)| at);
        single.chain(steps).chain(unsure).chain(corrections).for_each(|at| move_by(at, by));
        if let Some((at, _, outcome)) = last {
            move_by(at, by);
            if let Outcome::Waiting { until, .. } = outcome {
                move_by(until, by);
            }
        }
        attempts.iter_mut().for_each(|attempt| attempt.shift(by));
    }
}

impl Attempt {
    fn shift(&mut self, by: SignedDuration) {
        let Self { id: _, commit: _, generation: _, began, evidence, reported, checks, end, basis: _, seq: _ } = self;
        checks.values_mut().flat_map(|check| [&mut check.at].into_iter().chain(&mut check.passed)).for_each(|at| move_by(at, by));
        let ends = reported.iter_mut().chain(end).map(|(at, _)| at);
        evidence.iter_mut().map(|(at, _)| at).chain(ends).chain([began]).for_each(|at| move_by(at, by));
    }
}

/// A time that would leave the calendar stops at its edge.
fn move_by(at: &mut Timestamp, by: SignedDuration) {
    let edge = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    *at = at.checked_add(by).unwrap_or(edge);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, AttemptEnd, AttemptId, CommitId, Evidence, Fact, Generation, Reason, Record, Step};

    const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);

    fn record(seq: u64, second: i64, fact: Fact) -> Record {
        Record { seq, at: Timestamp::from_second(2_000_000_000 + second).unwrap(), commit: CommitId([1; 20]), fact }
    }

    /// One of each fact that leaves a time behind, ten seconds apart.
    fn records(from: i64) -> Vec<Record> {
        let machine: crate::model::MachineName = "web-01".parse().unwrap();
        let attempt = AttemptId { machine: machine.clone(), number: 1 };
        let generation: Generation = "g1:e575e3261827e70cfb57f66e30185a81".parse().unwrap();
        let step = |action| Step { machine: machine.clone(), action, reason: Reason::LeftTheFleet };
        let until = Timestamp::from_second(2_000_000_000 + from + 90).unwrap();
        let ended = |intention, outcome| Fact::Ended { machine: machine.clone(), intention, outcome };
        let facts = [
            Fact::Claimed { machine: machine.clone(), installed: None, hardware: Vec::new(), basis: None },
            Fact::Began { attempt: attempt.clone(), generation, basis: None },
            Fact::Saw { attempt: attempt.clone(), evidence: Evidence::DhcpSeen },
            Fact::Intended { step: step(Action::PowerOn) },
            ended(4, Outcome::Done),
            Fact::Intended { step: step(Action::PowerOff { force: true }) },
            ended(6, Outcome::Waiting { why: String::new(), until }),
            Fact::Reported { attempt: attempt.clone(), wrote: false, code: "c".into(), why: "w".into() },
            Fact::Concluded { attempt, end: AttemptEnd::Superseded },
            Fact::Intended { step: step(Action::PowerOn) },
        ];
        facts.into_iter().zip(1..).map(|(fact, seq)| record(seq, from + 10 * seq as i64, fact)).collect()
    }

    #[test]
    fn all_times_move_and_nothing_else() {
        let mut moved = History::of(&records(0));
        moved.shift(YEAR);
        assert_eq!(moved, History::of(&records(YEAR.as_secs())));
        moved.shift(-YEAR);
        assert_eq!(moved, History::of(&records(0)));
        moved.shift(SignedDuration::MAX);
        assert_eq!(moved.at, Some(Timestamp::MAX));
    }

    #[test]
    fn a_clock_that_was_set_back_between_two_records_leaves_nothing_in_the_future() {
        let year = YEAR.as_secs();
        let claim = || Fact::Claimed { machine: "web-02".parse().unwrap(), installed: None, hardware: Vec::new(), basis: None };
        let ahead = records(year);
        let last = ahead.last().unwrap().at;
        let history = History::of(ahead.iter().chain([&record(11, 100, claim())]));
        let web = &history.machines[&"web-01".parse().unwrap()];
        assert_eq!(web.pending.as_ref().unwrap().1, last - YEAR, "as long ago as it was then: not at all");
        assert_eq!(web.claimed.unwrap(), last - YEAR - SignedDuration::from_secs(90));
        // A step of seconds, and one forward, are taken as they come.
        for second in [year + 99 - 30, 5 * year] {
            let history = History::of(ahead.iter().chain([&record(11, second, claim())]));
            assert_eq!(history.machines[&"web-01".parse().unwrap()].pending.as_ref().unwrap().1, last);
        }
    }

    #[test]
    fn a_controller_that_starts_behind_its_journal_knows_nothing_of_the_future() {
        let mut history = History::of(&records(0));
        let last = history.at.unwrap();
        assert_eq!(history.not_after(last - SignedDuration::from_secs(59)), None);
        assert_eq!(history.not_after(last - YEAR), Some(YEAR));
        assert_eq!(history, History::of(&records(-YEAR.as_secs())));
    }
}
