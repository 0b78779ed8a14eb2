//! Manifests and plans, without Git.

use std::{collections::BTreeMap, time::Duration};

use rackwright::{
    manifest::{Cache, load},
    model::{Commit, CommitId, Fleet, Timestamp},
    plan::{Deadlines, Input, baseline, check, plan},
};

use crate::{
    Goal, Size,
    fleet::{self, Bmcs},
    measure, median, show,
};

pub fn run(size: &Size) {
    let files = fleet::files(fleet::repository(size.large, &Bmcs::Nowhere));
    let machines = size.large;
    let cold = median(size.runs, |_| {
        let mut cache = Cache::default();
        let (loaded, cost) = measure(|| load(&files, &mut cache));
        assert_eq!((loaded.problems.len(), loaded.fleet.machines.len()), (0, machines));
        cost
    });
    show(&format!("cold load of {machines} machines' manifests"), cold, &Goal::Wall(Duration::from_millis(120)));

    let fleet = load(&files, &mut Cache::default()).fleet;
    let world = Quiet::new(&fleet);
    let planned = median(size.runs, |_| measure(|| world.with(&fleet, |input| assert!(plan(input).is_empty()))).1);
    show(&format!("plan of {machines} machines with nothing to do"), planned, &Goal::None);
    let made = world.with(&fleet, plan);
    let checked = median(size.runs, |_| measure(|| world.with(&fleet, |input| assert!(check(&made, input).is_empty()))).1);
    show("check of that plan against the law", checked, &Goal::None);
}

/// A fleet in which every machine is claimed and holds what it should.
pub struct Quiet {
    commit: Commit,
    history: rackwright::model::History,
    now: Timestamp,
}

impl Quiet {
    pub fn new(fleet: &Fleet) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let commit =
            Commit { id: CommitId([0; 20]), subject: "bench".to_owned(), author: "bench".to_owned(), time: now, approvals: Vec::new() };
        Self { commit, history: baseline(fleet, now), now }
    }

    pub fn with<T>(&self, fleet: &Fleet, f: impl FnOnce(&Input<'_>) -> T) -> T {
        self.with_former(fleet, None, f)
    }

    pub fn with_former<T>(&self, fleet: &Fleet, former: Option<&Fleet>, f: impl FnOnce(&Input<'_>) -> T) -> T {
        f(&Input {
            commit: &self.commit,
            fleet,
            problems: &[],
            seen: &BTreeMap::new(),
            history: &self.history,
            former,
            alive: &BTreeMap::new(),
            probes: &BTreeMap::new(),
            brake: &Default::default(),
            deadlines: Deadlines::default(),
            now: self.now,
        })
    }
}
