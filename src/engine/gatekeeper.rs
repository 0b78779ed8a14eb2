//! Looks at what health gates ask for: web pages of machines that wait at a gate, and words of installed systems on their own checks.
//!
//! A page is asked by a task of its own, so that one that hangs holds up nobody, and no turn waits for any. What was found is kept with its
//! time and forgotten as soon as its machine waits no more: whether it passes is for the plan to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinHandle};

use super::{Live, Pace};
use crate::{
    model::{
        AttemptId, CHECK_CHANGES, CHECK_MESSAGE, CHECKS, CheckReport, Fact, Fleet, Gate, History, ProbeAnswer, Probes, Rung, is_check_name,
    },
    ports::{Clock, Probe, WitnessError},
};

/// Pages that are asked at a time.
const AT_A_TIME: usize = 64;

/// What the last probes found.
#[derive(Default)]
pub(super) struct Probed(RwLock<Probes>);

impl Probed {
    /// All of them.
    pub(super) fn now(&self) -> Probes {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what came back; true when it is something else than before.
    fn keep(&self, page: &Page, at: crate::model::Timestamp, answer: ProbeAnswer) -> bool {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let probes = all.entry(page.attempt.machine.clone()).or_default();
        let before = probes.get(&page.url);
        let changed = before.is_none_or(|before| before.answer != answer);
        let passed = if answer == ProbeAnswer::Status(page.status) { Some(at) } else { before.and_then(|before| before.passed) };
        probes.insert(page.url.clone(), crate::model::Probed { at, answer, passed });
        changed
    }

    fn forget(&self, page: &Page) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(probes) = all.get_mut(&page.attempt.machine) {
            probes.remove(&page.url);
            if probes.is_empty() {
                all.remove(&page.attempt.machine);
            }
        }
    }
}

/// A page that an attempt waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Page {
    attempt: AttemptId,
    url: String,
    status: u16,
}

/// Asks the pages.
pub(super) struct Gatekeeper {
    live: Arc<Live>,
    probe: Arc<dyn Probe>,
    clock: Arc<dyn Clock>,
    every: Duration,
    limit: Arc<Semaphore>,
    running: BTreeMap<Page, JoinHandle<()>>,
}

impl Gatekeeper {
    pub(super) fn new(live: Arc<Live>, probe: Arc<dyn Probe>, clock: Arc<dyn Clock>, pace: Pace) -> Self {
        let every = Duration::from_secs_f64(pace.probe_seconds.clamp(1.0, 3600.0));
        Self { live, probe, clock, every, limit: Arc::new(Semaphore::new(AT_A_TIME)), running: BTreeMap::new() }
    }

    /// Asks the pages of machines whose attempt has called home, and no others.
    pub(super) fn follow(&mut self, fleet: &Fleet) {
        let wanted = self.live.ledger.with(|history| wanted(fleet, history));
        let live = &self.live;
        self.running.retain(|page, task| {
            let stays = wanted.contains(page);
            if !stays {
                task.abort();
                live.probes.forget(page);
            }
            stays
        });
        for page in wanted {
            if !self.running.contains_key(&page) {
                let task = self.start(page.clone());
                self.running.insert(page, task);
            }
        }
    }

    fn start(&self, page: Page) -> JoinHandle<()> {
        let (live, probe, clock, every, limit) =
            (self.live.clone(), self.probe.clone(), self.clock.clone(), self.every, self.limit.clone());
        tokio::spawn(async move {
            loop {
                let Ok(permit) = limit.acquire().await else { return };
                // What is asked before a machine calls home and answered after it says nothing: the question's time counts.
                let at = clock.now();
                let answer = probe.ask(&page.url).await;
                drop(permit);
                if live.probes.keep(&page, at, answer) {
                    live.wake.notify_one();
                }
                tokio::time::sleep(every).await;
            }
        })
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

fn wanted(fleet: &Fleet, history: &History) -> BTreeSet<Page> {
    let mut wanted = BTreeSet::new();
    for (name, machine) in &history.machines {
        let Some(open) = machine.open_attempt().filter(|open| open.reached(Rung::CalledHome).is_some()) else { continue };
        let gates = fleet.machines.get(name).map_or(&[] as &[Gate], |machine| &machine.gates);
        wanted.extend(gates.iter().filter_map(|gate| match gate {
            Gate::Http { url, status, .. } => Some(Page { attempt: open.id.clone(), url: url.clone(), status: *status }),
            Gate::CalledHome { .. } | Gate::RedfishHealth { .. } | Gate::Reported { .. } => None,
        }));
    }
    wanted
}

/// The fact that a system's word on one of its checks is, if it is a new one.
pub(super) fn word(history: &History, attempt: &AttemptId, report: CheckReport) -> Result<Option<Fact>, WitnessError> {
    let not_open = || WitnessError::NotOpen { attempt: attempt.clone() };
    let machine: Option<&_> = history.machines.get(&attempt.machine);
    let open = machine.and_then(|machine| machine.open_attempt()).filter(|open| open.id == *attempt).ok_or_else(not_open)?;
    if open.reached(Rung::CalledHome).is_none() || !is_check_name(&report.check) {
        return Err(not_open());
    }
    // It comes from a machine and is shown on terminals.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let message: String = report.message.trim().chars().take(CHECK_MESSAGE).map(plain).collect();
    let before = open.checks.get(&report.check);
    if before.is_some_and(|before| before.ok == report.ok && before.message == message) {
        return Ok(None);
    }
    let too_many = |why| WitnessError::TooMany { attempt: attempt.clone(), why };
    if before.is_none() && open.checks.len() >= CHECKS {
        return Err(too_many("it has as many checks as an attempt may have"));
    }
    if open.checks.values().map(|check| check.words).sum::<u32>() >= CHECK_CHANGES {
        return Err(too_many("its checks changed too often"));
    }
    Ok(Some(Fact::Checked { attempt: attempt.clone(), check: report.check, ok: report.ok, message }))
}
