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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        engine::support_tests::{self as testing, AT, attempt, began, claimed, id, name, saw},
        model::{CommitId, Evidence, Generation, SignedDuration},
        ports::Witness as _,
    };

    const URL: &str = "http://10.0.0.1/healthz";

    fn report(check: &str, ok: bool, message: &str) -> CheckReport {
        CheckReport { check: check.to_owned(), ok, message: message.to_owned() }
    }

    fn home() -> Fact {
        let generation: Generation = "g1:e575e3261827e70cfb57f66e30185a81".parse().unwrap();
        saw(Evidence::CalledHome { generation, digest: None })
    }

    async fn at_home() -> Arc<Live> {
        let live = testing::empty().await;
        live.ledger.append(AT, id(1), vec![claimed(), began()]).await.unwrap();
        let early = live.checked(&attempt(), report("raid", true, "")).await;
        assert!(matches!(early, Err(WitnessError::NotOpen { .. })), "it has not called home");
        live.ledger.append(AT, id(1), vec![home()]).await.unwrap();
        live
    }

    fn checks(live: &Live) -> Vec<(String, bool, String, u32)> {
        live.ledger.with(|history| {
            let open = history.machines[&name()].open_attempt().unwrap();
            open.checks.iter().map(|(check, word)| (check.clone(), word.ok, word.message.clone(), word.words)).collect()
        })
    }

    #[tokio::test]
    async fn the_last_word_on_a_check_counts_and_the_same_one_again_is_no_new_record() {
        let live = at_home().await;
        let before = live.ledger.with(|history| history.seq);
        for (ok, message) in [(false, "md0\u{1b}[2J is rebuilding\n"), (false, "md0\u{1b}[2J is rebuilding\n"), (true, ""), (true, "")] {
            live.checked(&attempt(), report("raid", ok, message)).await.unwrap();
        }
        assert_eq!(checks(&live), [("raid".to_owned(), true, String::new(), 2)]);
        assert_eq!(live.ledger.with(|history| history.seq), before + 2);
        live.checked(&attempt(), report("disk", false, &"\u{7}x".repeat(900))).await.unwrap();
        let (_, _, message, _) = checks(&live).remove(0);
        assert_eq!((message.chars().count(), message.contains(char::is_control)), (CHECK_MESSAGE, false));
    }

    #[tokio::test]
    async fn a_system_that_talks_too_much_fills_no_journal() {
        let live = at_home().await;
        for n in 0..CHECKS {
            live.checked(&attempt(), report(&format!("c{n}"), true, "")).await.unwrap();
        }
        let more = live.checked(&attempt(), report("one-more", true, "")).await;
        assert!(matches!(more, Err(WitnessError::TooMany { .. })), "{more:?}");
        let mut taken = 0;
        while live.checked(&attempt(), report("c0", taken % 2 == 1, "")).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken + CHECKS as u32, CHECK_CHANGES);
        let wrong = live.checked(&attempt(), report("a b", true, "")).await;
        assert!(wrong.is_err());
    }

    /// Hangs for ever when it is asked for a page of a name that says so.
    #[derive(Default)]
    struct Pages(Mutex<Vec<String>>);

    #[async_trait]
    impl Probe for Pages {
        async fn ask(&self, url: &str) -> ProbeAnswer {
            self.0.lock().unwrap().push(url.to_owned());
            if url.contains("hangs") {
                std::future::pending::<()>().await;
            }
            ProbeAnswer::Status(200)
        }
    }

    #[tokio::test]
    async fn pages_are_asked_while_their_machine_waits_at_a_gate_and_not_before_or_after() {
        let live = testing::empty().await;
        live.ledger.append(AT, CommitId([1; 20]), vec![claimed(), began()]).await.unwrap();
        let pages = Arc::new(Pages::default());
        let mut keeper = Gatekeeper::new(live.clone(), pages.clone(), testing::ports().clock, Pace::default());
        let mut fleet = Arc::unwrap_or_clone(testing::fleet(1));
        let within = SignedDuration::from_mins(1);
        let gates = [URL, "http://hangs/"].map(|url| Gate::Http { url: url.to_owned(), status: 200, within });
        Arc::make_mut(fleet.machines.get_mut(&name()).unwrap()).gates = gates.to_vec();
        keeper.follow(&fleet);
        assert!(keeper.running.is_empty(), "it has not called home");
        live.ledger.append(AT, CommitId([1; 20]), vec![home()]).await.unwrap();
        keeper.follow(&fleet);
        let probed = || live.probes.now().get(&name()).and_then(|probes| probes.get(URL)).map(|probed| probed.answer.clone());
        testing::until(|| probed().is_some()).await;
        assert_eq!(probed(), Some(ProbeAnswer::Status(200)), "one that hangs holds up nobody");
        keeper.follow(&fleet);
        assert_eq!(keeper.running.len(), 2);
        Arc::make_mut(fleet.machines.get_mut(&name()).unwrap()).gates.clear();
        keeper.follow(&fleet);
        assert_eq!((keeper.running.len(), live.probes.now().len()), (0, 0), "what nobody waits for is forgotten");
    }
}
