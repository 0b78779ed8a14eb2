//! One log line for each unknown MAC in 90 seconds, with bounded memory.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::model::Mac;

/// A stranger that boots in a loop asks each few seconds; one line in this time shows it without filling the log.
const QUIET: Duration = Duration::from_secs(90);
/// MACs remembered at most: 4,096 of them take some 200 kB. More strangers than that in 90 s are an attack or a loop in the
/// network, and their single names help nobody.
const REMEMBERED: usize = 4096;

/// What to log about a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Nothing: it was logged lately.
    Quiet,
    /// This one.
    One,
    /// Too many to name: so many packets since the last line.
    Storm(u64),
}

/// Who was logged lately.
#[derive(Debug, Default)]
pub struct Strangers {
    logged: HashMap<Mac, Instant>,
    unnamed: u64,
    last_storm: Option<Instant>,
    last_sweep: Option<Instant>,
}

impl Strangers {
    /// Takes note of a packet of `mac`.
    pub fn note(&mut self, mac: Mac, now: Instant) -> Note {
        let recent = |at: &Instant| now.duration_since(*at) < QUIET;
        if self.logged.get(&mac).is_some_and(recent) {
            return Note::Quiet;
        }
        // A sweep looks at each entry, so a storm must not cause one for each packet.
        if self.logged.len() >= REMEMBERED && self.last_sweep.is_none_or(|at| now.duration_since(at) >= Duration::from_secs(1)) {
            self.logged.retain(|_, at| recent(at));
            self.last_sweep = Some(now);
        }
        if self.logged.len() < REMEMBERED || self.logged.contains_key(&mac) {
            self.logged.insert(mac, now);
            return Note::One;
        }
        self.unnamed += 1;
        if self.last_storm.as_ref().is_some_and(recent) {
            return Note::Quiet;
        }
        self.last_storm = Some(now);
        Note::Storm(std::mem::take(&mut self.unnamed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn each_stranger_is_logged_once_in_90_seconds() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        assert_eq!(strangers.note(mac(1), start), Note::One);
        assert_eq!(strangers.note(mac(1), start + Duration::from_secs(89)), Note::Quiet);
        assert_eq!(strangers.note(mac(2), start + Duration::from_secs(89)), Note::One);
        assert_eq!(strangers.note(mac(1), start + Duration::from_secs(91)), Note::One);
    }

    #[test]
    fn a_million_strangers_take_bounded_memory_and_few_lines() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let lines = (0..1_000_000).filter(|number| strangers.note(mac(*number), start) != Note::Quiet).count();
        assert_eq!(lines, REMEMBERED + 1);
        assert_eq!(strangers.logged.len(), REMEMBERED);
        assert_eq!(strangers.note(mac(5_000_000), start + QUIET), Note::One);
        assert_eq!(strangers.logged.len(), 1);
    }
}
