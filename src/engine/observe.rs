//! One observer for each machine: it asks, keeps the answer, and wakes the engine when something changed.
//!
//! A BMC that hangs holds up its own observer and nobody else (law 2: its gap is explicit and dated).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::Notify, sync::Semaphore, task::JoinHandle};

use super::{Live, Pace};
use crate::{
    model::{BmcTarget, Fleet, MachineName, Observation, SignedDuration, Unknown},
    ports::{Bmc, Clock},
};

/// What was last seen of each machine.
#[derive(Default)]
pub struct Observations(RwLock<BTreeMap<MachineName, Observation>>);

impl Observations {
    /// All of them. Don't hold it across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, BTreeMap<MachineName, Observation>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `observation`; true when it says something else than the one before, apart from its time. An observer that is `gone` may
    /// have an answer in its hands still: it is the answer of a BMC that is not this machine's any more.
    fn keep(&self, machine: &MachineName, observation: Observation, gone: &AtomicBool) -> bool {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if gone.load(Ordering::Relaxed) {
            return false;
        }
        match all.get_mut(machine) {
            Some(before) => {
                let changed = Observation { at: before.at, ..observation.clone() } != *before;
                *before = observation;
                changed
            }
            None => {
                all.insert(machine.clone(), observation);
                true
            }
        }
    }

    /// The clock was set by so much. Back, answers go with it, so that none is from the future. Forward, they are left to grow old: a host
    /// that slept looks as if its clock had been set, and what a BMC said before that is no news.
    pub(super) fn shift(&self, by: SignedDuration) {
        if !by.is_negative() {
            return;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for observation in all.values_mut() {
            observation.at = observation.at.checked_add(by).unwrap_or(observation.at);
        }
    }

    fn forget(&self, machine: &MachineName, gone: &AtomicBool) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        gone.store(true, Ordering::Relaxed);
        all.remove(machine);
    }
}

struct Observer {
    target: BmcTarget,
    busy: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
    poke: Arc<Notify>,
    task: JoinHandle<()>,
}

/// All observers.
pub struct Observers {
    live: Arc<Live>,
    bmc: Arc<dyn Bmc>,
    clock: Arc<dyn Clock>,
    pace: Pace,
    limit: Arc<Semaphore>,
    running: BTreeMap<MachineName, Observer>,
}

impl Observers {
    pub(super) fn new(live: Arc<Live>, bmc: Arc<dyn Bmc>, clock: Arc<dyn Clock>, pace: Pace) -> Self {
        let limit = Arc::new(Semaphore::new(pace.bmc_concurrency.max(1)));
        Self { live, bmc, clock, pace, limit, running: BTreeMap::new() }
    }

    /// Starts an observer for each machine of `fleet`, stops those of machines that left or whose BMC is another now.
    pub(super) fn follow(&mut self, fleet: &Fleet) {
        let live = &self.live;
        self.running.retain(|name, observer| {
            let stays = fleet.machines.get(name).is_some_and(|machine| machine.bmc == observer.target);
            if !stays {
                observer.task.abort();
                live.seen.forget(name, &observer.gone);
            }
            stays
        });
        for (name, machine) in &fleet.machines {
            if !self.running.contains_key(name) {
                let observer = self.start(name.clone(), machine.bmc.clone());
                self.running.insert(name.clone(), observer);
            }
        }
    }

    fn start(&self, name: MachineName, target: BmcTarget) -> Observer {
        let (busy, gone, poke) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default(), Arc::new(Notify::new()));
        self.live.seen.keep(&name, Observation::blank(self.clock.now(), target.address.clone(), &Unknown::NotAsked), &gone);
        let (live, bmc, clock, pace, limit) = (self.live.clone(), self.bmc.clone(), self.clock.clone(), self.pace, self.limit.clone());
        let (is_busy, is_gone, poked, asked) = (busy.clone(), gone.clone(), poke.clone(), target.clone());
        let task = tokio::spawn(async move {
            let mut wanted = false;
            loop {
                let Ok(permit) = limit.acquire().await else { return };
                let observation = bmc.observe(&asked, clock.now()).await;
                drop(permit);
                // Who asked for a look waits for it even if nothing changed: that it is new is what counts.
                if live.seen.keep(&name, observation, &is_gone) || wanted {
                    live.wake.notify_one();
                }
                let rest = pace.observe(is_busy.load(Ordering::Relaxed));
                wanted = tokio::select! {
                    () = tokio::time::sleep(rest) => false,
                    () = poked.notified() => true,
                };
            }
        });
        Observer { target, busy, gone, poke, task }
    }

    /// Says which machines are worked on: they are looked at more often, from now.
    pub(super) fn attend(&self, busy: impl Fn(&MachineName) -> bool) {
        for (name, observer) in &self.running {
            let now = busy(name);
            let before = observer.busy.swap(now, Ordering::Relaxed);
            if now && !before {
                observer.poke.notify_one();
            }
        }
    }

    /// Looks at a machine at once, and wakes the engine when that is done.
    pub(super) fn poke(&self, machine: &MachineName) {
        if let Some(observer) = self.running.get(machine) {
            observer.poke.notify_one();
        }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.running.values().for_each(|observer| observer.task.abort());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn the_last_answer_of_an_earlier_bmc_is_not_taken_for_that_of_the_new_one() {
        let seen = Observations::default();
        let name: MachineName = "web-01".parse().unwrap();
        let from = |source: &str| Observation::blank(Timestamp::UNIX_EPOCH, source.to_owned(), &Unknown::NotAsked);
        let (earlier, new) = (AtomicBool::new(false), AtomicBool::new(false));
        assert!(seen.keep(&name, from("https://earlier"), &earlier));
        seen.forget(&name, &earlier);
        assert!(seen.keep(&name, from("https://new"), &new));
        assert!(!seen.keep(&name, from("https://earlier"), &earlier));
        assert_eq!(seen.read()[&name].source, "https://new");
    }

    #[test]
    fn a_host_that_slept_does_not_take_old_answers_for_news() {
        let seen = Observations::default();
        let name: MachineName = "web-01".parse().unwrap();
        let at = Timestamp::from_second(2_000_000_000).unwrap();
        assert!(seen.keep(&name, Observation::blank(at, "https://bmc", &Unknown::NotAsked), &AtomicBool::new(false)));
        seen.shift(SignedDuration::from_hours(2));
        assert_eq!(seen.read()[&name].at, at);
        seen.shift(-SignedDuration::from_hours(2));
        assert_eq!(seen.read()[&name].at, at - SignedDuration::from_hours(2));
    }
}
