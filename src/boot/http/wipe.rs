//! What the agent says of a wipe: leave to begin, and whether what it read back proves anything.

use super::agent::{No, is_writer, said_hello};
use crate::model::{DiskProof, Evidence, ObservedDisk, Rung, Ticket, Timestamp, WipeOrder, Work, choose_to_wipe};

fn order(ticket: &Ticket) -> Result<&WipeOrder, No> {
    match &ticket.work {
        Work::Wipe(order) => Ok(order),
        Work::Install { .. } => Err(No::because("the ticket is for an install")),
    }
}

/// Leave to wipe: to a start of the agent that said hello, whose identity matches, while the ticket permits it, and for exactly the disks
/// that the ticket means among those that it said it has (law 6).
pub(super) fn may_wipe(ticket: &Ticket, boot_id: &str, disks: Vec<ObservedDisk>, now: Timestamp) -> Result<Evidence, No> {
    let order = order(ticket)?;
    let seen = said_hello(ticket, boot_id, now)?;
    if ticket.reached(Rung::Written) {
        return Err(No::because("the disks are wiped already"));
    }
    if ticket.writing().is_some_and(|(_, others)| others != disks) {
        return Err(No::because("it began to wipe other disks already"));
    }
    let chosen = choose_to_wipe(seen, &order.targets, &ticket.keep)?;
    if !chosen.iter().copied().eq(&disks) {
        let names = |disks: &mut dyn Iterator<Item = &ObservedDisk>| disks.map(|disk| disk.name.as_str()).collect::<Vec<_>>().join(", ");
        let (meant, asked) = (names(&mut chosen.into_iter()), names(&mut disks.iter()));
        return Err(No::failing("disk-changed", format!("the manifest in force means {meant}, not {asked}")));
    }
    Ok(Evidence::Wiping { boot_id: boot_id.to_owned(), method: order.method, disks })
}

/// It counts only from the start that had leave, and with a proof for each disk that it had leave for.
pub(super) fn was_wiped(ticket: &Ticket, boot_id: &str, proof: Vec<DiskProof>) -> Result<Evidence, No> {
    let order = order(ticket)?;
    is_writer(ticket, boot_id)?;
    let (_, disks) = ticket.writing().ok_or_else(|| No::because("nothing is being wiped"))?;
    if proof.len() != disks.len() {
        return Err(No::failing("not-wiped", format!("{} disks were to be wiped, and {} proofs came", disks.len(), proof.len())));
    }
    for (own, disk) in proof.iter().zip(disks) {
        if let Some(gap) = own.gap(disk, order.method) {
            return Err(No::failing("not-wiped", format!("{} is not proved to be wiped by {}: {gap}", disk.name, order.method)));
        }
    }
    Ok(Evidence::Wiped { proof })
}
