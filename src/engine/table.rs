//! The boot server's table: a pure function of fleet, plan and history.

use std::collections::BTreeMap;

use crate::model::{AttemptEnd, AttemptId, BootTable, Fleet, Generation, History, Plan, Reservation};

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
    table
}

/// Only each machine's last attempt: an older system is not on any disk any more.
fn finished(history: &History) -> BTreeMap<AttemptId, Generation> {
    let last = history.machines.values().filter_map(|machine| machine.attempts.last());
    last.filter(|attempt| matches!(attempt.end, Some((_, AttemptEnd::Done))) && !attempt.generation.is_wipe())
        .map(|attempt| (attempt.id.clone(), attempt.generation))
        .collect()
}
