//! Whether the clock was set: it and one that nobody can set are read together, and should go on alike.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    model::{CLOCK_WAS_SET, SignedDuration, Timestamp},
    ports::Clock,
};

/// Both clocks when they were last read.
#[derive(Default)]
pub(super) struct ClockWatch(Mutex<Option<(Timestamp, Duration)>>);

impl ClockWatch {
    /// The time now, and by how much the clock was set since the last reading, if it was. That is said once.
    pub(super) fn read(&self, clock: &dyn Clock) -> (Timestamp, Option<SignedDuration>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, steady) = (clock.now(), clock.steady());
        let before = match steady {
            Some(steady) => last.replace((now, steady)),
            None => None,
        };
        let set = before.zip(steady).and_then(|((then, before), steady)| {
            let passed = SignedDuration::try_from(steady.saturating_sub(before)).ok()?;
            let set = now.duration_since(then).checked_sub(passed)?;
            (set.abs() > CLOCK_WAS_SET).then_some(set)
        });
        (now, set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two(Mutex<(i64, Option<u64>)>);

    impl Clock for Two {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(self.0.lock().unwrap().0).unwrap()
        }

        fn steady(&self) -> Option<Duration> {
            self.0.lock().unwrap().1.map(Duration::from_secs)
        }
    }

    #[test]
    fn a_clock_that_was_set_is_told_from_time_that_passed() {
        let (watch, clock) = (ClockWatch::default(), Two(Mutex::new((1_000_000, Some(5)))));
        let read = |now: i64, steady: Option<u64>| {
            *clock.0.lock().unwrap() = (now, steady);
            watch.read(&clock).1.map(|set| set.as_secs())
        };
        assert_eq!(read(1_000_000, Some(5)), None, "nothing to compare with");
        assert_eq!(read(1_009_000, Some(9_005)), None, "two hours and a half passed");
        assert_eq!(read(9_009_010, Some(9_015)), Some(8_000_000));
        assert_eq!(read(9_009_020, Some(9_025)), None, "said once");
        assert_eq!(read(1_009_030, Some(9_035)), Some(-8_000_000));
        assert_eq!(read(1_009_080, Some(9_035)), None, "a step of seconds harms nothing");
        assert_eq!(read(0, None), None);
    }
}
