//! Groups and their budgets (law 7): who may begin now, and who waits for whom.
//!
//! **Unavailable**, counted for a group, a rack and each value of a label: machines with an open attempt; machines whose disk is unknown because an
//! attempt began to write and did not finish; machines that an attempt left in the network boot; machines declared On and seen Off. A *quarantined* machine is not counted: the
//! breaker counts it, and one broken disk must not stop a whole group for ever. A machine that waits for its first install is
//! not counted either, since nobody uses it yet.
//!
//! **Failures**, counted by the breaker: machines whose last attempt at what they should have *now* failed. Another commit that does
//! not change their generation therefore doesn't close it, and one that does, such as a revert, does.
//!
//! **Closed**: outside its windows, frozen or paused, a group begins no install and no switching off. What is on its way goes on, and a
//! machine that should be on is switched on.
//!
//! **After** is in [`super::after`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Case, Input,
    after::Ready,
    approval::Approved,
    estimate::{self, Load},
    waves::Waves,
    windows,
};
use crate::model::{
    After, Amount, Budgets, DomainPlan, Estimate, Fleet, Freeze, GroupPlan, Held, Machine, Rollout, RolloutName, SignedDuration,
};

/// The groups of a fleet and its failure domains, with what is used.
pub(super) struct Groups<'a> {
    /// In order of name; the last is `default`.
    all: Vec<Group<'a>>,
    domains: BTreeMap<Domain<'a>, Counted>,
    /// Labels that some group counts by.
    labels: BTreeSet<&'a str>,
    input: &'a Input<'a>,
    approved: Approved,
    /// Reinstalls that the commit asks for in all groups.
    wanted: u32,
}

/// One group.
struct Group<'a> {
    name: &'a str,
    rollout: Option<&'a RolloutName>,
    after: &'a [After],
    budgets: &'a Budgets,
    /// What stands against beginning anything now, whatever it is.
    closed: Vec<Held>,
    waves: Waves<'a>,
    usage: Usage,
    /// Machines that have what they should have and are available.
    ready: u32,
    /// The same, as later groups count it.
    for_later: Ready,
    /// Reinstalls that this commit asks for.
    wanted: u32,
    failures: u32,
    /// Machines to install that this rollout has not begun.
    new: u32,
    /// How long the last install of each of its machines took.
    took: Vec<SignedDuration>,
}

#[derive(Default, Clone, Copy)]
struct Usage {
    total: u32,
    unavailable: u32,
    open: u32,
}

/// The machines of a domain, and what the groups that have one in it allow: the least counts for all of them.
#[derive(Default)]
struct Counted {
    usage: Usage,
    limits: Vec<Amount>,
    /// Reinstalls that the commit asks for.
    wanted: u32,
}

impl Counted {
    fn most(&self) -> Option<u32> {
        self.limits.iter().map(|most| most.of(self.usage.total)).min()
    }
}

impl Usage {
    fn count(&mut self, case: &Case<'_>) {
        self.total += 1;
        self.unavailable += u32::from(case.unavailable);
        self.open += u32::from(case.open);
    }

    fn take(&mut self, case: &Case<'_>) {
        self.open += 1;
        self.unavailable += u32::from(!case.unavailable);
    }
}

/// Machines that fail together, of whatever group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Domain<'a> {
    Rack { site: &'a str, rack: &'a str },
    Label { key: &'a str, value: &'a str },
}

impl<'a> Domain<'a> {
    fn rack(machine: &'a Machine) -> Option<Self> {
        let site = machine.place.site.as_deref().unwrap_or_default();
        machine.place.rack.as_deref().map(|rack| Domain::Rack { site, rack })
    }

    fn label(machine: &'a Machine, key: &'a str) -> Option<Self> {
        machine.labels.get(key).map(|value| Domain::Label { key, value })
    }
}

impl fmt::Display for Domain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Domain::Rack { rack, .. } => write!(f, "rack {rack}"),
            Domain::Label { key, value } => write!(f, "{key}={value}"),
        }
    }
}

/// The domains of a machine that are counted.
fn domains<'a, 'l>(labels: &'l BTreeSet<&'a str>, machine: &'a Machine) -> impl Iterator<Item = Domain<'a>> + use<'a, 'l> {
    Domain::rack(machine).into_iter().chain(labels.iter().filter_map(|key| Domain::label(machine, key)))
}

impl<'a> Groups<'a> {
    /// The groups of a fleet, empty of machines.
    pub(super) fn of(input: &'a Input<'a>) -> Self {
        let fleet = input.fleet;
        let group = |name, rollout: Option<&'a Rollout>, budgets| Group {
            name,
            rollout: rollout.map(|rollout| &rollout.name),
            after: rollout.map_or(&[], |rollout| rollout.after.as_slice()),
            budgets,
            closed: closed(input, name, rollout),
            waves: Waves::of(input, rollout),
            usage: Usage::default(),
            ready: 0,
            for_later: Ready::default(),
            wanted: 0,
            failures: 0,
            new: 0,
            took: Vec::new(),
        };
        let rollouts = fleet.rollouts.values().map(|rollout| group(rollout.name.as_str(), Some(rollout), &rollout.budgets));
        let all = rollouts.chain([group("default", None, &fleet.settings.budgets)]).collect();
        let budgets = fleet.rollouts.values().map(|rollout| &rollout.budgets).chain([&fleet.settings.budgets]);
        let labels = budgets.flat_map(|budgets| &budgets.max_unavailable_per).map(|per| per.label.as_str()).collect();
        Self { all, domains: BTreeMap::new(), labels, input, approved: Approved::of(input.commit, &fleet.settings), wanted: 0 }
    }

    /// The group of a machine: the first, by name, whose selector it matches.
    pub(super) fn index(fleet: &Fleet, machine: &Machine) -> usize {
        let matches = |selector: &BTreeMap<String, String>| selector.iter().all(|(key, value)| machine.labels.get(key) == Some(value));
        fleet.rollouts.values().position(|rollout| matches(&rollout.selector)).unwrap_or(fleet.rollouts.len())
    }

    /// The rollout of a group, `None` for `default`.
    pub(super) fn rollout(&self, index: usize) -> Option<&'a RolloutName> {
        self.all[index].rollout
    }

    /// Counts a machine.
    pub(super) fn count(&mut self, case: &Case<'a>) {
        self.wanted += u32::from(case.wanted_by_commit);
        let group = &mut self.all[case.group];
        group.waves.count(case);
        group.new += u32::from(case.has_to_be_installed() && !group.waves.has_begun(case));
        group.took.extend(case.history.and_then(estimate::took));
        group.ready += u32::from(case.ready());
        group.for_later.count(case);
        group.wanted += u32::from(case.wanted_by_commit);
        group.failures += u32::from(case.failed);
        let limits: BTreeMap<Domain<'a>, Amount> = self.all[case.group].limits(case.machine).collect();
        for domain in domains(&self.labels, case.machine) {
            let counted = self.domains.entry(domain).or_default();
            counted.usage.count(case);
            counted.wanted += u32::from(case.wanted_by_commit);
            counted.limits.extend(limits.get(&domain).filter(|most| !counted.limits.contains(most)).copied());
        }
        self.all[case.group].usage.count(case);
    }

    /// All machines are counted.
    pub(super) fn counted(&mut self) {
        for group in &mut self.all {
            group.waves.counted(group.usage.total, group.wanted, group.budgets);
            group.for_later.counted();
        }
    }

    /// How long it may all take. To be asked before places are taken.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        let load = |group: &Group<'a>| Load {
            name: group.name,
            after: group.after,
            waves: group.waves.left(group.new),
            of: group.waves.number(),
            at_once: group.budgets.max_unavailable.of(group.usage.total),
            soak: group.waves.soak(),
        };
        let loads: Vec<Load<'_>> = self.all.iter().map(load).collect();
        let took = self.all.iter().map(|group| (group.name, group.took.clone())).collect();
        loads.iter().any(|load| !load.waves.is_empty()).then(|| estimate::estimate(&loads, &took))?
    }

    /// What stands against beginning anything disruptive in this group: windows, freezes, a pause.
    pub(super) fn closed(&self, index: usize) -> &[Held] {
        &self.all[index].closed
    }

    /// Counts a failure that this turn finds.
    pub(super) fn fail(&mut self, index: usize) {
        self.all[index].failures += 1;
    }

    /// What stands against an install in this group whatever happens in this turn: the breaker, the commit's budget, other groups.
    pub(super) fn against(&self, index: usize) -> Vec<Held> {
        let group = &self.all[index];
        let mut held = group.closed.clone();
        if group.breaker_open() {
            let allowed = group.budgets.breaker_failures;
            held.push(Held::Breaker { scope: group.name.to_owned(), failures: group.failures, allowed });
        }
        held.extend(group.waves.tripped().cloned());
        let allowed = group.budgets.max_destructive.of(group.usage.total);
        if group.over_budget() && self.approved.by(self.wanted).is_none() {
            let what = if group.rollout.is_some() { format!("rollout {}", group.name) } else { "the Fleet's budgets".to_owned() };
            let approval = self.approved.needs(self.wanted);
            let needs = format!("{approval}a commit that raises maxDestructive of {what} to {} or asks for less", group.wanted);
            held.push(Held::Budget { scope: group.name.to_owned(), wanted: group.wanted, allowed, needs });
        }
        held.extend(group.after.iter().filter_map(|earlier| self.unready(earlier)));
        held
    }

    fn unready(&self, after: &After) -> Option<Held> {
        let earlier = self.all.iter().find(|group| group.rollout == Some(&after.rollout));
        let tripped = earlier.is_some_and(|group| (group.breaker_open() || group.waves.tripped().is_some()) && group.failures > 0);
        let total = earlier.map(|group| (&group.for_later, group.ready.min(group.usage.total), group.usage.total));
        super::after::held(after, total, tripped, self.input.now)
    }

    /// Takes a place for an install, or says why there is none now. `free` is asked of a machine that serves nobody already: it
    /// takes a place among the open attempts, but makes nothing unavailable that was not.
    pub(super) fn take(&mut self, case: &Case<'a>) -> Result<(), Held> {
        let group = &self.all[case.group];
        let first = !group.waves.has_begun(case);
        if first {
            group.waves.next(self.input.now)?;
        }
        let allowed = group.budgets.max_unavailable.of(group.usage.total);
        full(&group.usage, allowed, case.out_of_service, group.name)?;
        for domain in domains(&self.labels, case.machine) {
            let Some(counted) = self.domains.get(&domain) else { continue };
            if let Some(most) = counted.most() {
                full(&counted.usage, most, case.out_of_service, &domain.to_string())?;
            }
        }
        let group = &mut self.all[case.group];
        if first {
            group.waves.begin(self.input.now);
        }
        group.usage.take(case);
        for domain in domains(&self.labels, case.machine) {
            self.domains.entry(domain).or_default().usage.take(case);
        }
        Ok(())
    }

    /// For the plan: all groups that have machines.
    pub(super) fn report(&self) -> Vec<GroupPlan> {
        let used = self.all.iter().filter(|group| group.usage.total > 0 || group.rollout.is_some());
        used.map(|group| GroupPlan {
            name: group.name.to_owned(),
            total: group.usage.total,
            ready: group.ready,
            unavailable: group.usage.unavailable,
            unavailable_allowed: group.budgets.max_unavailable.of(group.usage.total),
            destructive: group.wanted,
            destructive_allowed: group.budgets.max_destructive.of(group.usage.total),
            approved_by: self.approved.by(self.wanted).filter(|_| group.over_budget()).map(str::to_owned),
            failures: group.failures,
            wave: group.waves.report(),
        })
        .collect()
    }
}

impl Groups<'_> {
    /// For the plan: all failure domains in which the commit asks for reinstalls.
    pub(super) fn report_domains(&self) -> Vec<DomainPlan> {
        let used = self.domains.iter().filter(|(_, counted)| counted.wanted > 0);
        used.map(|(domain, counted)| DomainPlan {
            name: domain.to_string(),
            total: counted.usage.total,
            unavailable: counted.usage.unavailable,
            unavailable_allowed: counted.most(),
            destructive: counted.wanted,
        })
        .collect()
    }
}

impl<'a> Group<'a> {
    fn over_budget(&self) -> bool {
        self.wanted > self.budgets.max_destructive.of(self.usage.total)
    }

    /// The domains of a machine that the group limits.
    fn limits(&self, machine: &'a Machine) -> impl Iterator<Item = (Domain<'a>, Amount)> {
        let rack = self.budgets.max_unavailable_rack.and_then(|most| Some((Domain::rack(machine)?, most)));
        let per = self.budgets.max_unavailable_per.iter();
        rack.into_iter().chain(per.filter_map(|per| Some((Domain::label(machine, &per.label)?, per.most))))
    }

    fn breaker_open(&self) -> bool {
        self.failures >= self.budgets.breaker_failures
    }
}

fn closed(input: &Input<'_>, name: &str, rollout: Option<&Rollout>) -> Vec<Held> {
    let settings = &input.fleet.settings;
    let frozen = |freeze: &Option<Freeze>, scope: &str| {
        let freeze = freeze.as_ref().filter(|freeze| freeze.until.is_none_or(|until| input.now < until))?;
        Some(Held::Frozen { scope: scope.to_owned(), freeze: freeze.clone() })
    };
    let mut held = Vec::from_iter(frozen(&settings.freeze, "the fleet"));
    if let Some(rollout) = rollout {
        held.extend(frozen(&rollout.freeze, name));
        held.extend(rollout.paused.then(|| Held::Paused { rollout: rollout.name.clone() }));
    }
    held.extend(windows::held(rollout.map_or(&settings.windows, |rollout| &rollout.windows), name, input.now));
    held
}

fn full(usage: &Usage, allowed: u32, out_of_service: bool, scope: &str) -> Result<(), Held> {
    let used = if out_of_service { usage.open } else { usage.unavailable };
    if used < allowed { Ok(()) } else { Err(Held::Unavailable { scope: scope.to_owned(), used, allowed }) }
}
