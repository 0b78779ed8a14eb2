//! What a DHCP client is told: a pure function of table, request, our own addresses and the time.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use crate::{
    boot::{
        facts::ServerFacts,
        files::{self, Transport},
    },
    model::{AttemptId, BootTable, DhcpMode, Mac, Network, Reservation, Rung, Ticket, Timestamp},
    wire::dhcp::{CLIENT_PORT, Kind, Message, SERVER_PORT, code, relay},
};

/// Lease of firmware, loaders and the agent. Long enough for the slowest download of kernel and agent at 1 MB/s, short enough
/// that an address which a commit takes away is free soon.
const BOOT_LEASE_SECONDS: u32 = 600;
/// Lease of an installed system. It renews after half of it, so a controller may be away for six hours without a machine losing
/// its address; there is no pool that a longer lease could exhaust.
const SYSTEM_LEASE_SECONDS: u32 = 12 * 3600;
/// Longest text that the header's boot file field holds, with its final zero.
const FILE_FIELD: usize = 127;

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub struct DhcpRequest<'a> {
    /// The message.
    pub message: &'a Message,
    /// Where it came from.
    pub from: SocketAddrV4,
    /// Through which of our ports.
    pub via: Via,
}

/// Which of our ports a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The DHCP server port.
    Server,
    /// The PXE boot server port, 4011.
    Proxy,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To one address.
    Unicast(SocketAddrV4),
    /// To all on the link that the request came from, at the client port.
    Broadcast,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Reply {
        /// The message.
        packet: Box<Message>,
        /// Where it goes.
        to: Destination,
        /// The attempt whose machine has shown by this request that its firmware boots from the network.
        seen: Option<AttemptId>,
    },
    /// Nothing.
    Silent {
        /// Why.
        why: Silence,
    },
}

/// Why a client is told nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// A reply, a hardware address that is not Ethernet, or a kind of message that servers don't take.
    NotARequest,
    /// No manifest declares this address (law 9).
    Unknown(Mac),
    /// Its network is not ours to serve, or it has no network.
    NotServed,
    /// Authoritative network, but the manifest gives the interface no address.
    NoAddress,
    /// It came through a relay on another network than the declared one.
    WrongNetwork {
        /// Address on the client's link, as the relay told it.
        link: Ipv4Addr,
    },
    /// The client chose another server.
    OtherServer,
    /// Nothing to say: another server gives addresses here, and this client or message needs no boot file of us.
    Nothing,
    /// We have no boot file for its architecture.
    Architecture,
    /// The client says that another machine has its address.
    Declined(Ipv4Addr),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::NotARequest => f.write_str("not a request of an Ethernet client"),
            Silence::Unknown(mac) => write!(f, "no manifest declares {mac}"),
            Silence::NotServed => f.write_str("its network is not served by DHCP"),
            Silence::NoAddress => f.write_str("its manifest declares no address"),
            Silence::WrongNetwork { link } => write!(f, "it asked from the network of {link}, which is not the declared one"),
            Silence::OtherServer => f.write_str("it chose another server"),
            Silence::Nothing => f.write_str("nothing to tell it"),
            Silence::Architecture => f.write_str("no boot file for its architecture"),
            Silence::Declined(address) => write!(f, "another machine has its address {address}"),
        }
    }
}

/// What a client is, by options 60, 77 and 175.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Ipxe,
    PxeFirmware,
    HttpFirmware,
    System,
}

impl Client {
    fn of(message: &Message) -> Self {
        let class = message.option(code::CLASS_ID).unwrap_or_default();
        match () {
            () if message.is_ipxe() => Client::Ipxe,
            () if class.starts_with(b"PXEClient") => Client::PxeFirmware,
            () if class.starts_with(b"HTTPClient") => Client::HttpFirmware,
            () => Client::System,
        }
    }
}

/// What is known about who asks.
struct Case<'a> {
    request: &'a DhcpRequest<'a>,
    client: Client,
    reservation: &'a Reservation,
    network: &'a Network,
    /// A ticket that permits an install now.
    open: Option<&'a Ticket>,
    facts: &'a ServerFacts,
}

/// The ticket of `mac`, when it permits an install now: not expired, and not written yet.
pub fn open_ticket(table: &BootTable, mac: Mac, now: Timestamp) -> Option<&Ticket> {
    table.tickets.get(&mac).filter(|ticket| now < ticket.expires && !ticket.reached(Rung::Written))
}

/// What `request` is told. Ticket holders get boot files; other declared machines get what boots their disk; interfaces that a
/// machine does not boot from, and installed systems, get an address only; all others get silence (law 9).
pub fn answer(table: &BootTable, request: &DhcpRequest<'_>, facts: &ServerFacts, now: Timestamp) -> Answer {
    answer_or_silence(table, request, facts, now).unwrap_or_else(|why| Answer::Silent { why })
}

fn answer_or_silence(table: &BootTable, request: &DhcpRequest<'_>, facts: &ServerFacts, now: Timestamp) -> Result<Answer, Silence> {
    let message = request.message;
    let mac = message.ethernet().map(Mac).filter(|_| !message.reply).ok_or(Silence::NotARequest)?;
    let reservation = table.reservations.get(&mac).ok_or(Silence::Unknown(mac))?;
    let network = table.served_network(reservation).ok_or(Silence::NotServed)?;
    // The relay's own address may be of another subnet on the same wire; then it says which link it means (RFC 3527).
    let link = message.sub_option(code::RELAY, relay::LINK).and_then(four).unwrap_or(message.giaddr);
    if !message.giaddr.is_unspecified() && !network.subnet.contains(&link) {
        return Err(Silence::WrongNetwork { link });
    }
    let case = Case { request, client: Client::of(message), reservation, network, open: open_ticket(table, mac, now), facts };
    match (request.via, network.dhcp) {
        (_, DhcpMode::Off) => Err(Silence::NotServed),
        (Via::Proxy, DhcpMode::Authoritative | DhcpMode::Proxy) => case.boot_server(),
        (Via::Server, DhcpMode::Authoritative) => case.authoritative(),
        (Via::Server, DhcpMode::Proxy) => case.proxy(),
    }
}

impl Case<'_> {
    /// RFC 2131 section 4.3, with one address that is always the same.
    fn authoritative(&self) -> Result<Answer, Silence> {
        let message = self.request.message;
        let address = self.reservation.address.ok_or(Silence::NoAddress)?;
        match message.kind {
            Kind::Discover => Ok(self.lease(Kind::Offer, address)),
            Kind::Request => {
                let server = message.address(code::SERVER_ID);
                if message.options.contains_key(&code::SERVER_ID) && server != Some(self.server_id()) {
                    return Err(Silence::OtherServer);
                }
                let renewed = Some(message.ciaddr).filter(|address| !address.is_unspecified());
                match message.address(code::REQUESTED_ADDRESS).or(renewed) {
                    Some(asked) if asked == address => Ok(self.lease(Kind::Ack, address)),
                    Some(_) => Ok(self.refuse()),
                    None => Err(Silence::Nothing),
                }
            }
            Kind::Inform => {
                let mut packet = message.answer(Kind::Ack);
                packet.ciaddr = message.ciaddr;
                self.configure(&mut packet);
                self.boot_options(&mut packet);
                Ok(self.send(packet))
            }
            Kind::Decline => Err(Silence::Declined(address)),
            Kind::Release => Err(Silence::Nothing),
            Kind::Offer | Kind::Ack | Kind::Nak => Err(Silence::NotARequest),
        }
    }

    /// ProxyDHCP on the server port (PXE 2.1 section 2.2): another server gives the address, so only an offer, and never an
    /// answer to the client's request, which is meant for that server.
    fn proxy(&self) -> Result<Answer, Silence> {
        let message = self.request.message;
        if message.kind != Kind::Discover || self.client == Client::System || !self.reservation.boot {
            return Err(Silence::Nothing);
        }
        let mut packet = message.answer(Kind::Offer);
        if !self.boot_options(&mut packet) {
            return Err(Silence::Architecture);
        }
        self.proxy_class(&mut packet);
        Ok(self.send(packet))
    }

    /// The boot server's port, where UEFI asks again for the file (PXE 2.1 section 2.2.3). The client has its address already.
    fn boot_server(&self) -> Result<Answer, Silence> {
        let message = self.request.message;
        let asks = matches!(message.kind, Kind::Request | Kind::Discover | Kind::Inform);
        if !asks || self.client == Client::System || !self.reservation.boot {
            return Err(Silence::Nothing);
        }
        let mut packet = message.answer(Kind::Ack);
        packet.ciaddr = message.ciaddr;
        if !self.boot_options(&mut packet) {
            return Err(Silence::Architecture);
        }
        self.proxy_class(&mut packet);
        // Back to the very port: OVMF asks from 4011, BIOS from 68.
        Ok(self.reply(packet, Destination::Unicast(self.request.from)))
    }

    fn lease(&self, kind: Kind, address: Ipv4Addr) -> Answer {
        let message = self.request.message;
        let mut packet = message.answer(kind);
        packet.yiaddr = address;
        if kind == Kind::Ack {
            packet.ciaddr = message.ciaddr;
        }
        let boots = self.client != Client::System || self.open.is_some();
        let lease = if boots { BOOT_LEASE_SECONDS } else { SYSTEM_LEASE_SECONDS };
        packet.options.insert(code::LEASE_TIME, lease.to_be_bytes().to_vec());
        self.configure(&mut packet);
        self.boot_options(&mut packet);
        self.send(packet)
    }

    fn refuse(&self) -> Answer {
        let mut packet = self.request.message.answer(Kind::Nak);
        packet.options.insert(code::SERVER_ID, self.server_id().octets().to_vec());
        packet.options.insert(code::MESSAGE, b"not the address that the manifest declares".to_vec());
        // RFC 2131 section 4.3.2: a relay must broadcast it, for the client's address is wrong.
        packet.broadcast = !packet.giaddr.is_unspecified() || packet.broadcast;
        let to = self.relay().unwrap_or(Destination::Broadcast);
        self.reply(packet, to)
    }

    fn configure(&self, packet: &mut Message) {
        let mut put = |code: u8, value: Vec<u8>| {
            if !value.is_empty() {
                packet.options.insert(code, value);
            }
        };
        let v4 = |addresses: &[IpAddr]| {
            let octets = addresses.iter().filter_map(|address| match address {
                IpAddr::V4(address) => Some(address.octets()),
                IpAddr::V6(_) => None,
            });
            octets.flatten().collect::<Vec<u8>>()
        };
        put(code::SERVER_ID, self.server_id().octets().to_vec());
        put(code::SUBNET_MASK, self.network.subnet.netmask().octets().to_vec());
        put(code::BROADCAST, self.network.subnet.broadcast().octets().to_vec());
        put(code::ROUTER, self.network.gateway.map(|gateway| gateway.octets().to_vec()).unwrap_or_default());
        put(code::DNS, v4(&self.network.dns));
        put(code::NTP, v4(&self.network.ntp));
    }

    /// Puts in what the client is to boot. False: there is nothing that it could boot.
    fn boot_options(&self, packet: &mut Message) -> bool {
        if !self.reservation.boot {
            return false;
        }
        let file = match self.client {
            Client::System => None,
            Client::Ipxe => Some(self.facts.script_url(self.reservation.mac)),
            Client::PxeFirmware | Client::HttpFirmware => self.firmware_file(),
        };
        let Some(file) = file else { return false };
        packet.siaddr = self.facts.address;
        packet.options.insert(code::SERVER_ID, self.server_id().octets().to_vec());
        packet.options.insert(code::TFTP_SERVER, self.facts.address.to_string().into_bytes());
        packet.options.insert(code::BOOT_FILE, file.clone().into_bytes());
        if file.len() <= FILE_FIELD {
            packet.file = file.into_bytes();
        }
        match self.client {
            // Without this echo UEFI ignores the answer (UEFI 2.10 section 24.7.2.1).
            Client::HttpFirmware => drop(packet.options.insert(code::CLASS_ID, b"HTTPClient".to_vec())),
            // 176 = 1: don't wait for a proxyDHCP offer (ipxe.org/cfg/no-pxedhcp).
            Client::Ipxe => drop(packet.options.insert(code::IPXE, vec![176, 1, 1])),
            Client::PxeFirmware | Client::System => {}
        }
        true
    }

    fn firmware_file(&self) -> Option<String> {
        let row = files::architecture(self.request.message.architectures())?;
        let name = if self.open.is_some() { row.install } else { row.local };
        let http = row.transport == Transport::Http || self.client == Client::HttpFirmware;
        Some(if http { self.facts.boot_url(name) } else { self.facts.tftp_name(name) })
    }

    /// Marks an answer as a boot server's. Sub-option 6 = 8 of option 43, "boot the file and look for no other server", is
    /// needed by BIOS; some UEFI firmware ignores an answer that has it, and comes to port 4011 without it.
    fn proxy_class(&self, packet: &mut Message) {
        if self.client == Client::HttpFirmware {
            return;
        }
        packet.options.insert(code::CLASS_ID, b"PXEClient".to_vec());
        let bios = self.request.message.architectures().next().unwrap_or(0) == 0;
        if bios {
            packet.options.insert(code::VENDOR_SPECIFIC, vec![6, 1, 8, 255]);
        }
    }

    /// Ourselves, as this client is to see us: a relay may want to stand in for the server (RFC 5107).
    fn server_id(&self) -> Ipv4Addr {
        self.request.message.sub_option(code::RELAY, relay::SERVER_ID).and_then(four).unwrap_or(self.facts.address)
    }

    /// The relay, if one is in between (RFC 2131 section 4.1), at its own port if it asks for that (RFC 8357 section 5.1).
    fn relay(&self) -> Option<Destination> {
        let message = self.request.message;
        let own_port = message.sub_option(code::RELAY, relay::SOURCE_PORT).is_some();
        let port = if own_port { self.request.from.port() } else { SERVER_PORT };
        (!message.giaddr.is_unspecified()).then(|| Destination::Unicast(SocketAddrV4::new(message.giaddr, port)))
    }

    /// RFC 2131 section 4.1. A client without an address gets a broadcast even when it could take unicast: that needs no entry
    /// in our neighbour table, and each client takes it.
    fn send(&self, packet: Message) -> Answer {
        let client = self.request.message.ciaddr;
        let direct =
            if client.is_unspecified() { Destination::Broadcast } else { Destination::Unicast(SocketAddrV4::new(client, CLIENT_PORT)) };
        let to = self.relay().unwrap_or(direct);
        self.reply(packet, to)
    }

    fn reply(&self, packet: Message, to: Destination) -> Answer {
        let boots = self.reservation.boot && self.client != Client::System && packet.kind != Kind::Nak;
        let seen = self.open.filter(|_| boots).map(|ticket| ticket.attempt.clone());
        Answer::Reply { packet: Box::new(packet), to, seen }
    }
}

fn four(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
