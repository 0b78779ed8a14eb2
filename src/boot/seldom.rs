//! Lines in the log that anyone on the network can cause: each once in 90 seconds, with bounded memory.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::model::Mac;

/// A machine that boots in a loop asks each few seconds; one line in this time shows it without filling the log.
const QUIET: Duration = Duration::from_secs(90);
/// Keys remembered at most: 4,096 of them take some 200 kB. More strangers than that in 90 s are an attack or a loop in the
/// network, and their single names help nobody.
const REMEMBERED: usize = 4096;

/// Who asked, as far as the request tells. Either can be forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// By DHCP, or for the script of this MAC.
    Mac(Mac),
    /// By TFTP or HTTP.
    Address(IpAddr),
}

impl From<Mac> for Who {
    fn from(mac: Mac) -> Self {
        Who::Mac(mac)
    }
}

impl From<IpAddr> for Who {
    fn from(address: IpAddr) -> Self {
        Who::Address(address.to_canonical())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Mac(mac) => mac.fmt(f),
            Who::Address(address) => address.fmt(f),
        }
    }
}

/// What the servers logged lately.
#[derive(Debug, Default)]
pub struct Lines {
    strangers: Mutex<Seldom<Who>>,
    /// Declared machines without a ticket: apart, so that a storm of strangers can't crowd them out.
    ours: Mutex<Seldom<Who>>,
    others: Mutex<Seldom<(Who, &'static str)>>,
}

impl Lines {
    /// Whether a refusal of `who` is to be logged.
    pub fn refusal(&self, who: Who, declared: bool) -> bool {
        logs(if declared { &self.ours } else { &self.strangers }, who)
    }

    /// Whether a line about `who` that begins with `what` is to be logged.
    pub fn line(&self, who: impl Into<Who>, what: &'static str) -> bool {
        logs(&self.others, (who.into(), what))
    }
}

fn logs<K: Copy + Eq + Hash>(lines: &Mutex<Seldom<K>>, key: K) -> bool {
    let note = lines.lock().unwrap_or_else(PoisonError::into_inner).note(key, Instant::now());
    if let Note::Storm(packets) = note {
        tracing::warn!(packets, "too many clients to name each; is there a loop in the network?");
    }
    note == Note::One
}

/// What to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Nothing: it was logged lately.
    Quiet,
    /// This one.
    One,
    /// Too many to name: so many since the last line.
    Storm(u64),
}

/// What was logged lately.
#[derive(Debug)]
pub struct Seldom<K> {
    logged: HashMap<K, Instant>,
    unnamed: u64,
    last_storm: Option<Instant>,
    last_sweep: Option<Instant>,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self { logged: HashMap::new(), unnamed: 0, last_storm: None, last_sweep: None }
    }
}

impl<K: Copy + Eq + Hash> Seldom<K> {
    /// Takes note of one more of `key`.
    pub fn note(&mut self, key: K, now: Instant) -> Note {
        let recent = |at: &Instant| now.duration_since(*at) < QUIET;
        if self.logged.get(&key).is_some_and(recent) {
            return Note::Quiet;
        }
        // A sweep looks at each entry, so a storm must not cause one for each packet.
        if self.logged.len() >= REMEMBERED && self.last_sweep.is_none_or(|at| now.duration_since(at) >= Duration::from_secs(1)) {
            self.logged.retain(|_, at| recent(at));
            self.last_sweep = Some(now);
        }
        if self.logged.len() < REMEMBERED || self.logged.contains_key(&key) {
            self.logged.insert(key, now);
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
        let (mut strangers, start) = (Seldom::default(), Instant::now());
        assert_eq!(strangers.note(mac(1), start), Note::One);
        assert_eq!(strangers.note(mac(1), start + Duration::from_secs(89)), Note::Quiet);
        assert_eq!(strangers.note(mac(2), start + Duration::from_secs(89)), Note::One);
        assert_eq!(strangers.note(mac(1), start + Duration::from_secs(91)), Note::One);
    }

    #[test]
    fn a_million_strangers_take_bounded_memory_and_few_lines() {
        let (mut strangers, start) = (Seldom::default(), Instant::now());
        let lines = (0..1_000_000).filter(|number| strangers.note(mac(*number), start) != Note::Quiet).count();
        assert_eq!(lines, REMEMBERED + 1);
        assert_eq!(strangers.logged.len(), REMEMBERED);
        assert_eq!(strangers.note(mac(5_000_000), start + QUIET), Note::One);
        assert_eq!(strangers.logged.len(), 1);
    }

    #[test]
    fn a_storm_of_strangers_does_not_crowd_out_what_is_declared() {
        let lines = Lines::default();
        assert_eq!((0..10_000).filter(|number| lines.refusal(mac(*number).into(), false)).count(), REMEMBERED);
        assert!(!lines.refusal(mac(10_001).into(), false));
        assert!(lines.refusal(mac(10_002).into(), true));
        assert!(lines.line(mac(1), "x") && lines.line(mac(1), "y") && !lines.line(mac(1), "x"));
    }

    #[test]
    fn an_address_is_one_in_both_of_its_forms() {
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(Who::from(mapped), Who::from("10.0.0.1".parse::<IpAddr>().unwrap()));
    }
}
