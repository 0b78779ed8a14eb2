//! Values for this module's tests.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;

use crate::{
    boot::{Config, facts::ServerFacts, state::State, tokens::Tokens},
    model::{
        AttemptId, BootTable, CheckReport, CommitId, Digest, DiskHint, Evidence, Fingerprint, Generation, Image, ImageFormat, Install, Mac,
        MachineName, Network, Progress, Reservation, Ticket, Timestamp, Work,
    },
    ports::{Witness, WitnessError},
};

pub const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// Second interface of the same machine, which it does not boot from.
pub const OTHER_NIC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x57]);
/// A machine behind another DHCP server.
pub const PROXIED: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 12);

pub fn facts() -> ServerFacts {
    ServerFacts {
        address: Ipv4Addr::new(10, 0, 4, 1),
        tftp_port: 69,
        http_port: 80,
        https_port: 8443,
        fingerprint: Fingerprint([0; 32]),
        kernel_arguments: Vec::new(),
    }
}

pub fn ticket() -> Ticket {
    let digest = Digest::of(b"image");
    let image =
        Image { name: "debian-12".parse().unwrap(), digest, format: ImageFormat::RawZst, url: "debian-12.raw.zst".to_owned(), size: None };
    Ticket {
        attempt: "web-01#3".parse().unwrap(),
        commit: CommitId([1; 20]),
        expires: later(),
        mac: MAC,
        serial: Some("CZ1".to_owned()),
        uuid: None,
        keep: Vec::new(),
        work: Work::Install {
            install: Box::new(Install { generation: Generation::of(digest, None, 0), image, user_data: None, rebuild: 0 }),
            system: DiskHint { serial: Some("S5".to_owned()), ..DiskHint::default() },
        },
        evidence: Vec::new(),
    }
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn later() -> Timestamp {
    Timestamp::from_second(1_800_003_600).unwrap()
}

/// `web-01` (two interfaces, authoritative network) and `db-01` (behind another server); no tickets.
pub fn table() -> BootTable {
    let network = |name: &str, subnet: &str, proxy: bool| Network {
        name: name.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        vlan: None,
        gateway: Some(Ipv4Addr::new(10, 0, 4, 254)),
        dns: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
        ntp: vec!["10.0.0.123".parse().unwrap()],
        dhcp: if proxy { crate::model::DhcpMode::Proxy } else { crate::model::DhcpMode::Authoritative },
    };
    let reservation = |machine: &str, mac: Mac, address: Option<Ipv4Addr>, network: &str, boot: bool| Reservation {
        machine: machine.parse().unwrap(),
        mac,
        address,
        network: Some(network.parse().unwrap()),
        boot,
    };
    let reservations = [
        reservation("web-01", MAC, Some(ADDRESS), "prod", true),
        reservation("web-01", OTHER_NIC, Some(Ipv4Addr::new(10, 0, 4, 13)), "prod", false),
        reservation("db-01", PROXIED, None, "lab", true),
    ];
    let networks = [network("prod", "10.0.4.0/24", false), network("lab", "10.0.5.0/24", true)];
    BootTable {
        networks: networks.into_iter().map(|network| (network.name.clone(), network)).collect(),
        reservations: reservations.into_iter().map(|reservation| (reservation.mac, reservation)).collect(),
        tickets: BTreeMap::new(),
        installed: BTreeMap::new(),
        handoffs: Default::default(),
    }
}

pub fn table_with_ticket() -> BootTable {
    let mut table = table();
    table.tickets.insert(MAC, ticket());
    table
}

/// Takes everything.
struct Deaf;

#[async_trait]
impl Witness for Deaf {
    async fn saw(&self, _: &AttemptId, _: Evidence) -> Result<(), WitnessError> {
        Ok(())
    }

    async fn failed(&self, _: &AttemptId, _: bool, _: &str, _: &str) -> Result<(), WitnessError> {
        Ok(())
    }

    async fn checked(&self, _: &AttemptId, _: CheckReport) -> Result<(), WitnessError> {
        Ok(())
    }

    fn progress(&self, _: &AttemptId, _: Progress) {}

    fn refused(&self, _: Option<&MachineName>, _: &str) {}
}

/// With `table` in force, and a witness that takes everything.
pub fn state(table: BootTable) -> Arc<State> {
    let state = State::new(&Config::new(facts().address), facts(), Tokens::new(&[7; 32]), Arc::new(Deaf));
    let state = Arc::new(state);
    state.publish(Arc::new(table));
    state
}
