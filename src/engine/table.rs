//! The boot server's table: a pure function of fleet, plan and history.

use std::collections::BTreeMap;

use crate::model::{
    Action, AttemptEnd, AttemptId, BootTable, Fleet, Generation, HandoffTable, HandoffUse, Held, History, MachinePlan, Plan, Publisher,
    Reservation,
};

/// What the boot server may answer from now on.
pub fn boot_table(fleet: &Fleet, plan: &Plan, history: &History) -> BootTable {
    let mut table = BootTable { networks: fleet.networks.clone(), ..BootTable::default() };
    for machine in fleet.machines.values() {
        let boots_from = machine.boot_nic().map(|nic| nic.mac);
        for nic in &machine.nics {
            let reservation = Reservation {
                machine: machine.name.clone(),
                mac: nic.mac,
                address: nic.address,
                network: nic.network.clone(),
                boot: boots_from == Some(nic.mac),
            };
            table.reservations.insert(nic.mac, reservation);
        }
    }
    table.tickets =
        plan.machines.values().filter_map(|machine| machine.ticket.as_deref()).map(|ticket| (ticket.mac, ticket.clone())).collect();
    table.installed = finished(history);
    let publishes = |part: &&MachinePlan| fleet.machines.get(&part.name).is_some_and(|machine| !machine.handoffs.publishes.is_empty());
    let publishing = plan.machines.values().filter(publishes).filter_map(|part| part.ticket.as_ref());
    table.handoffs = HandoffTable {
        publishers: publishers(fleet, history),
        released: released(fleet, plan, history),
        publishing: publishing.map(|ticket| ticket.attempt.clone()).collect(),
    };
    table
}

/// Systems that may publish: those that are on a disk, of machines whose manifest lets them.
fn publishers(fleet: &Fleet, history: &History) -> BTreeMap<AttemptId, Publisher> {
    let mut publishers = BTreeMap::new();
    for machine in fleet.machines.values().filter(|machine| !machine.handoffs.publishes.is_empty()) {
        let Some(known) = history.machines.get(&machine.name) else { continue };
        let Some(life) = known.life() else { continue };
        let names = machine.handoffs.publishes.clone();
        let kept = known.published.iter().filter(|(_, said)| said.attempt == life.id && said.lost.is_none());
        let published = kept.map(|(name, _)| name.clone()).collect();
        publishers.insert(life.id.clone(), Publisher { machine: machine.name.clone(), names, published });
    }
    publishers
}

/// Where the values of each install come from that the plan lets go on.
fn released(fleet: &Fleet, plan: &Plan, history: &History) -> BTreeMap<AttemptId, BTreeMap<HandoffUse, AttemptId>> {
    let goes_on = |part: &&MachinePlan| {
        let waits = part.held.iter().any(|held| matches!(held, Held::Handoff { .. }));
        !waits && !part.steps.iter().any(|step| matches!(step.action, Action::EndAttempt { .. }))
    };
    let mut released = BTreeMap::new();
    for part in plan.machines.values().filter(goes_on) {
        let (Some(ticket), Some(machine)) = (&part.ticket, fleet.machines.get(&part.name)) else { continue };
        let source = |wanted: &HandoffUse| Some((wanted.clone(), history.handoff(fleet, wanted, |_, _| true).ok()?.attempt.clone()));
        let values: BTreeMap<HandoffUse, AttemptId> = machine.handoffs.uses.iter().filter_map(source).collect();
        if !values.is_empty() {
            released.insert(ticket.attempt.clone(), values);
        }
    }
    released
}

/// Only each machine's last attempt: an older system is not on any disk any more.
fn finished(history: &History) -> BTreeMap<AttemptId, Generation> {
    let last = history.machines.values().filter_map(|machine| machine.attempts.last());
    last.filter(|attempt| matches!(attempt.end, Some((_, AttemptEnd::Done))) && !attempt.generation.is_wipe())
        .map(|attempt| (attempt.id.clone(), attempt.generation))
        .collect()
}
