//! Who may have which boot file (law 9): by the address that it is asked for from.
//!
//! TFTP has nothing else to go by, and what firmware fetches by HTTP has no more: a URL that holds a secret would have to stand
//! in a DHCP answer, which all on the wire can read. Relays pass on DHCP alone; the file itself is asked for by the machine,
//! from the address that it was given. An address translation between machine and boot server is not supported. Where another
//! server gives out the addresses, a machine may be at any of its network. Boot files hold no secret; the token that does
//! something is in the script, and images are given for it alone. What starts a UEFI machine's disk is given to all by HTTP: our
//! script sends whoever has no ticket there, also from an address that is not the machine's own.

use std::net::IpAddr;

use super::{dhcp::answer::open_ticket, files, state::Published};
use crate::model::{MachineName, Reservation, Timestamp};

/// Why a client gets no boot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// No machine that boots from the network is declared to be at its address.
    Stranger,
    /// The machine at its address may be installed by no open ticket, and boots from disk. `None`: it may be any of its network.
    NoTicket(Option<&'a MachineName>),
}

impl Refusal<'_> {
    /// For the client and the log.
    pub fn why(&self) -> &'static str {
        match self {
            Refusal::Stranger => "no machine that boots from the network is declared at this address",
            Refusal::NoTicket(_) => "no open ticket: it is to boot from its disk",
        }
    }

    /// The machine, if it is known which is declared there.
    pub fn machine(&self) -> Option<&MachineName> {
        match self {
            Refusal::Stranger => None,
            Refusal::NoTicket(machine) => *machine,
        }
    }
}

/// Whether a client at `client` may have `file`: what installs is for machines with an open ticket; what boots a disk is for all
/// that are declared.
///
/// # Errors
/// [`Refusal`].
pub fn admit<'a>(published: &'a Published, client: IpAddr, file: &str, now: Timestamp) -> Result<(), Refusal<'a>> {
    let table = &published.table;
    let is_there = |reservation: &&Reservation| reservation.boot && published.may_be(client, reservation);
    let mut holders = table.tickets.keys().filter(|mac| open_ticket(table, **mac, now).is_some());
    if holders.any(|mac| table.reservations.get(mac).as_ref().is_some_and(is_there)) {
        return Ok(());
    }
    let declared = published.reservation(client).filter(is_there).map(|reservation| &reservation.machine);
    if declared.is_none() && !published.may_be_any(client) {
        return Err(Refusal::Stranger);
    }
    if files::INSTALL.contains(&file) { Err(Refusal::NoTicket(declared)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use super::*;
    use crate::{
        boot::testing::{self, ADDRESS, MAC, PROXIED},
        model::{BootTable, DhcpMode, Digest, Evidence},
    };

    const FILES: [&str; 6] = [files::UNDIONLY, files::SNPONLY, files::IPXE_EFI, files::LOCALBOOT, files::KERNEL, files::INITRAMFS];

    /// The files that a client at `address` may have.
    fn had(table: BootTable, address: Ipv4Addr) -> Vec<&'static str> {
        let published = Published::new(Arc::new(table));
        FILES.into_iter().filter(|file| admit(&published, address.into(), file, testing::now()).is_ok()).collect()
    }

    fn with_ticket(change: impl FnOnce(&mut BootTable)) -> BootTable {
        let mut table = testing::table_with_ticket();
        change(&mut table);
        table
    }

    #[test]
    fn only_a_ticket_holder_gets_what_installs() {
        let disk = [files::UNDIONLY, files::LOCALBOOT];
        assert_eq!(had(testing::table_with_ticket(), ADDRESS), FILES);
        assert_eq!(had(testing::table(), ADDRESS), disk, "declared, without a ticket");
        assert_eq!(had(with_ticket(|table| table.tickets.get_mut(&MAC).unwrap().expires = testing::now()), ADDRESS), disk);
        let written = Evidence::Written { digest: Digest::of(b"image"), bytes: 1 };
        assert_eq!(had(with_ticket(|table| table.tickets.get_mut(&MAC).unwrap().evidence.push(written)), ADDRESS), disk);
    }

    #[test]
    fn a_stranger_gets_nothing_while_others_hold_tickets() {
        let none: [&str; 0] = [];
        for address in [[10, 0, 4, 99], [192, 0, 2, 1], [127, 0, 0, 1], [10, 0, 4, 13]] {
            assert_eq!(had(testing::table_with_ticket(), address.into()), none, "{address:?}");
        }
        assert_eq!(had(BootTable::default(), ADDRESS), none);
        let off = with_ticket(|table| table.networks.values_mut().for_each(|network| network.dhcp = DhcpMode::Off));
        assert_eq!(had(off, ADDRESS), none, "not ours to serve");
    }

    #[test]
    fn behind_another_dhcp_server_a_machine_may_be_anywhere_in_its_network() {
        let there = Ipv4Addr::new(10, 0, 5, 77);
        assert_eq!(had(testing::table_with_ticket(), there), [files::UNDIONLY, files::LOCALBOOT], "the ticket is of another network");
        let holds = with_ticket(|table| {
            let mut ticket = testing::ticket();
            ticket.mac = PROXIED;
            table.tickets.insert(PROXIED, ticket);
        });
        assert_eq!(had(holds, there), FILES);
    }

    #[test]
    fn a_refusal_names_a_machine_only_where_it_is_known_which_one_asked() {
        let refused = |table: BootTable, address: [u8; 4]| {
            let published = Published::new(Arc::new(table));
            let refusal = admit(&published, address.into(), files::KERNEL, testing::now()).unwrap_err();
            (matches!(refusal, Refusal::NoTicket(_)), refusal.machine().map(ToString::to_string))
        };
        assert_eq!(refused(testing::table(), ADDRESS.octets()), (true, Some("web-01".to_owned())));
        assert_eq!(refused(testing::table(), [10, 0, 5, 77]), (true, None), "any machine of the network, or none");
        // Its address is known although another server gives it out.
        let mut table = testing::table();
        table.reservations.get_mut(&PROXIED).unwrap().address = Some([10, 0, 5, 78].into());
        assert_eq!(refused(table, [10, 0, 5, 78]), (true, Some("db-01".to_owned())));
        // Nothing boots from the network there.
        let mut table = testing::table();
        table.reservations.get_mut(&PROXIED).unwrap().boot = false;
        assert_eq!(refused(table, [10, 0, 5, 77]), (false, None));
    }
}
