//! Law 7, read anew: how much at a time, how much in all.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::model::{Amount, Approval, Budgets, Fleet, Machine, MachineHistory, Plan, Risk, Rollout, Rung, Timestamp, Weekday, Window};
use crate::plan::Input;

/// Law 7, counted anew from machines and steps. It counts less than the planner does (no failed disks, no machines that are off),
/// so it never forbids what the planner rightly allows, and never allows more installs at once than the budget says.
pub(super) fn budgets(plan: &Plan, input: &Input<'_>, found: &mut Vec<Violation>) {
    let mut groups: BTreeMap<&str, Count<'_>> = BTreeMap::new();
    for (name, machine) in &input.fleet.machines {
        let rollout = rollout_of(input.fleet, machine);
        let key = rollout.map_or("default", |rollout| rollout.name.as_str());
        let count = groups.entry(key).or_insert_with(|| Count::of(rollout.map_or(&input.fleet.settings.budgets, |own| &own.budgets)));
        let begins = plan.machines.get(name).is_some_and(|part| part.steps.iter().any(|step| step.risk() == Risk::Destructive));
        let history = input.history.machines.get(name);
        let open = history.and_then(MachineHistory::open_attempt).is_some();
        let begun = history.is_some_and(|history| {
            history.attempts.iter().any(|own| own.commit == input.commit.id && own.reached(Rung::Writing).is_some())
        });
        count.total += 1;
        count.begins += u32::from(begins);
        count.at_once += u32::from(begins || open);
        count.destroyed += u32::from(begins || open || begun);
    }
    let over = |what: String| Violation { machine: None, law: 7, what };
    let destroyed: u32 = groups.values().map(|count| count.destroyed).sum();
    let approved = approved(input);
    for (name, count) in groups.iter().filter(|(_, count)| count.begins > 0) {
        let at_once = count.budgets.max_unavailable.of(count.total);
        if count.at_once > at_once {
            found.push(over(format!("{} of {name} would be installed at once, {at_once} are allowed", count.at_once)));
        }
        let allowed = count.budgets.max_destructive.of(count.total);
        if count.destroyed > allowed && destroyed > approved {
            found.push(over(format!("the commit would reinstall {} of {name}, {allowed} are allowed", count.destroyed)));
        }
    }
}

/// Machines that fail together: a rack, or all with one value of a label.
#[derive(Default)]
struct Domain {
    total: u32,
    away: u32,
    begins: bool,
    limits: Vec<Amount>,
}

/// The same for racks and values of labels, in each of which the strictest of its machines' groups counts for all.
pub(super) fn domains(plan: &Plan, input: &Input<'_>, found: &mut Vec<Violation>) {
    let fleet = input.fleet;
    let all = fleet.rollouts.values().map(|rollout| &rollout.budgets).chain([&fleet.settings.budgets]);
    let labels: BTreeSet<&str> = all.flat_map(|own| &own.max_unavailable_per).map(|per| per.label.as_str()).collect();
    let mut domains: BTreeMap<(&str, String), Domain> = BTreeMap::new();
    for (name, machine) in &fleet.machines {
        let budgets = rollout_of(fleet, machine).map_or(&fleet.settings.budgets, |own| &own.budgets);
        let begins = plan.machines.get(name).is_some_and(|part| part.steps.iter().any(|step| step.risk() == Risk::Destructive));
        let open = input.history.machines.get(name).and_then(MachineHistory::open_attempt).is_some();
        let rack = machine.place.rack.as_ref().map(|rack| format!("{rack} {}", machine.place.site.as_deref().unwrap_or_default()));
        let mut places = Vec::from_iter(rack.map(|rack| (("rack", rack), budgets.max_unavailable_rack)));
        for label in &labels {
            let limit = budgets.max_unavailable_per.iter().find(|per| per.label == *label).map(|per| per.most);
            places.extend(machine.labels.get(*label).map(|value| ((*label, format!("={value}")), limit)));
        }
        for (place, limit) in places {
            let domain = domains.entry(place).or_default();
            domain.total += 1;
            domain.away += u32::from(begins || open);
            domain.begins |= begins;
            domain.limits.extend(limit);
        }
    }
    for ((kind, which), domain) in domains.iter().filter(|(_, domain)| domain.begins) {
        if let Some(allowed) = domain.limits.iter().map(|limit| limit.of(domain.total)).min().filter(|allowed| domain.away > *allowed) {
            let what = format!("{} of {kind} {which} would be installed at once, {allowed} are allowed", domain.away);
            found.push(Violation { machine: None, law: 7, what });
        }
    }
}

/// Why nothing disruptive may begin on a machine now, whatever it is. The wall clock is reckoned from seconds here, not asked for.
pub(super) fn closed(input: &Input<'_>, machine: &Machine) -> Option<&'static str> {
    let settings = &input.fleet.settings;
    let rollout = rollout_of(input.fleet, machine);
    let freezes = [settings.freeze.as_ref(), rollout.and_then(|rollout| rollout.freeze.as_ref())];
    if freezes.into_iter().flatten().any(|freeze| !matches!(freeze.until, Some(until) if until <= input.now)) {
        return Some("it is frozen, and something begins");
    }
    if rollout.is_some_and(|rollout| rollout.paused) {
        return Some("its rollout is paused, and something begins");
    }
    let windows = rollout.map_or(&settings.windows, |rollout| &rollout.windows);
    let open = windows.iter().any(|window| in_window(window, input.now));
    (!windows.is_empty() && !open).then_some("no window is open, and something begins")
}

fn in_window(window: &Window, now: Timestamp) -> bool {
    let Ok(zone) = jiff::tz::TimeZoneDatabase::bundled().get(&window.time_zone) else { return false };
    let local = now.as_second() + i64::from(zone.to_offset(now).seconds());
    let minutes_of_week = |day: Weekday| Weekday::ALL.iter().position(|other| *other == day).unwrap_or_default() as i64 * 1440;
    // 1970-01-01 was a Thursday.
    let minute = (local.div_euclid(60) + 3 * 1440).rem_euclid(7 * 1440);
    let length = (i64::from(window.to) - i64::from(window.from) + 1439).rem_euclid(1440) + 1;
    window.days.iter().any(|day| (minute - minutes_of_week(*day) - i64::from(window.from)).rem_euclid(7 * 1440) < length)
}

/// How many machines the commit in force may reinstall by its own trailers; 0 without any that counts.
fn approved(input: &Input<'_>) -> u32 {
    let listed = |by: &str| input.fleet.settings.approvers.iter().any(|own| own.eq_ignore_ascii_case(by));
    let signed = input.fleet.settings.signatures.is_some();
    let by_listed = |approval: &&Approval| match &approval.signers {
        Some(signers) => signers.iter().any(|signer| listed(signer)),
        None => !signed && listed(&approval.by),
    };
    let counts = input.commit.approvals.iter().filter(by_listed).filter_map(|approval| {
        let (what, count) = approval.text.split_once('=')?;
        (what == "destroy" && !count.starts_with('+')).then(|| count.parse::<u32>().ok())?
    });
    counts.max().unwrap_or(0)
}

struct Count<'a> {
    budgets: &'a Budgets,
    total: u32,
    begins: u32,
    at_once: u32,
    destroyed: u32,
}

impl<'a> Count<'a> {
    fn of(budgets: &'a Budgets) -> Self {
        Self { budgets, total: 0, begins: 0, at_once: 0, destroyed: 0 }
    }
}

pub(super) fn rollout_of<'a>(fleet: &'a Fleet, machine: &Machine) -> Option<&'a Rollout> {
    fleet.rollouts.values().find(|rollout| rollout.selector.iter().all(|(key, value)| machine.labels.get(key) == Some(value)))
}
