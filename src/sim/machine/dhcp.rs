//! The firmware's DHCP client (RFC 2131, PXE 2.1): DISCOVER, OFFER, REQUEST, ACK.
//!
//! On loopback nobody can broadcast, so it speaks as the relay agent of its own network: unicast to the server, `giaddr` set to the
//! machine's address, and option 82 sub-option 19 (RFC 8357) so that the answer comes to the port that asked. The codec is its own, not
//! the boot server's, so that each checks the other.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use crate::model::{BootMode, Mac};

const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Length of the fixed part (RFC 2131 section 2).
const HEADER: usize = 236;
/// First wait for an answer; doubles (RFC 2131 section 4.1 says 4 s; PXE ROMs and these tests are quicker).
const FIRST_WAIT: Duration = Duration::from_millis(500);

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The firmware's PXE.
    Firmware,
    /// iPXE, after the firmware loaded it.
    Ipxe,
}

/// The machine, as far as DHCP shows it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) mac: Mac,
    pub(crate) uuid: String,
    pub(crate) mode: BootMode,
    /// Where it sends from: `giaddr`.
    pub(crate) address: Ipv4Addr,
    pub(crate) server: SocketAddr,
    /// Source port; 0 is any.
    pub(crate) relay_port: u16,
    pub(crate) timeout: Duration,
}

/// What the server gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) netmask: Option<Ipv4Addr>,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) dns: Option<Ipv4Addr>,
    /// `siaddr`, or option 66 where that is an address.
    pub(crate) next_server: Option<Ipv4Addr>,
    /// Option 67, else the field `file`.
    pub(crate) file: String,
}

/// Asks until an answer that holds a boot file was acknowledged; `None` when nobody gave one in time.
pub(crate) async fn lease(client: &Client, program: Program) -> io::Result<Option<Lease>> {
    let socket = bind(client)?;
    let xid = random_xid();
    let end = Instant::now() + client.timeout;
    let mut wait = FIRST_WAIT;
    let began = Instant::now();
    while Instant::now() < end {
        let secs = u16::try_from(began.elapsed().as_secs()).unwrap_or(u16::MAX);
        socket.send_to(&request(client, program, DISCOVER, xid, secs, None), client.server).await?;
        let until = (Instant::now() + wait).min(end);
        wait *= 2;
        let Some(offer) = answer(&socket, xid, client.mac, &[OFFER], until).await else { continue };
        if offer.lease().file.is_empty() {
            continue;
        }
        socket.send_to(&request(client, program, REQUEST, xid, secs, Some(&offer)), client.server).await?;
        let until = (Instant::now() + FIRST_WAIT * 4).min(end);
        match answer(&socket, xid, client.mac, &[ACK, NAK], until).await {
            Some(reply) if reply.kind() == Some(ACK) => return Ok(Some(reply.lease())),
            _ => {}
        }
    }
    Ok(None)
}

fn bind(client: &Client) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // The server may hold the same port on all addresses.
    socket.set_reuse_port(client.relay_port != 0)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((client.address, client.relay_port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// The first answer of these kinds to this transaction. Anything else on the port is dropped, as firmware does.
async fn answer(socket: &UdpSocket, xid: u32, mac: Mac, kinds: &[u8], until: Instant) -> Option<Reply> {
    let mut buffer = [0; 2048];
    loop {
        let received = timeout_at(until, socket.recv_from(&mut buffer)).await.ok()?;
        // A refused port shows as an error of the next receive: nobody listens there yet.
        let Ok((length, _)) = received else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let reply = Reply::parse(&buffer[..length]).filter(|reply| reply.xid == xid && reply.mac == mac.0);
        if let Some(reply) = reply.filter(|reply| reply.kind().is_some_and(|kind| kinds.contains(&kind))) {
            return Some(reply);
        }
    }
}

fn request(client: &Client, program: Program, kind: u8, xid: u32, secs: u16, offer: Option<&Reply>) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet[0..4].copy_from_slice(&[1, 1, 6, 1]);
    packet[4..8].copy_from_slice(&xid.to_be_bytes());
    packet[8..10].copy_from_slice(&secs.to_be_bytes());
    packet[24..28].copy_from_slice(&client.address.octets());
    packet[28..34].copy_from_slice(&client.mac.0);
    packet.extend(MAGIC);
    // Option 93 (RFC 4578): 0 is BIOS, 7 is what x64 UEFI firmware sends.
    let arch: u16 = match client.mode {
        BootMode::BIOS => 0,
        BootMode::UEFI => 7,
    };
    let mut option = |code: u8, bytes: &[u8]| {
        packet.push(code);
        packet.push(u8::try_from(bytes.len()).expect("each option here is a few bytes long"));
        packet.extend(bytes);
    };
    option(53, &[kind]);
    if let Some(offer) = offer {
        option(50, &offer.yiaddr.octets());
        if let Some(server) = offer.options.get(&54) {
            option(54, &server[..server.len().min(4)]);
        }
    }
    option(55, &[1, 3, 6, 12, 15, 43, 54, 60, 66, 67, 175]);
    option(57, &1472u16.to_be_bytes());
    option(60, format!("PXEClient:Arch:{arch:05}:UNDI:003016").as_bytes());
    if program == Program::Ipxe {
        option(77, b"iPXE");
        // Encapsulated features: 16 pxeext, 19 http, 36 efi; values as iPXE sends them.
        option(175, &[177, 1, 1, 19, 1, 1, 36, 1, u8::from(client.mode == BootMode::UEFI)]);
    }
    option(93, &arch.to_be_bytes());
    option(94, &[1, 3, 16]);
    if let Some(uuid) = uuid_bytes(&client.uuid) {
        option(97, &[&[0][..], &uuid].concat());
    }
    // RFC 8357 section 4.1: no value; the answer goes to the port that this came from. Last, as a relay agent adds it.
    if client.relay_port == 0 {
        option(82, &[19, 0]);
    }
    packet.push(255);
    packet.resize(packet.len().max(300), 0);
    packet
}

/// Option 97 holds SMBIOS order (RFC 4578 section 2.3): the first three groups are little-endian.
fn uuid_bytes(uuid: &str) -> Option<[u8; 16]> {
    let mut bytes: [u8; 16] = hex::decode(uuid.replace('-', "")).ok()?.try_into().ok()?;
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

fn random_xid() -> u32 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("the operating system's random numbers never run out");
    u32::from_be_bytes(bytes)
}

/// A server's message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    xid: u32,
    mac: [u8; 6],
    yiaddr: Ipv4Addr,
    siaddr: Ipv4Addr,
    file: String,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Reply {
    fn parse(packet: &[u8]) -> Option<Reply> {
        let options = packet.get(HEADER..)?.strip_prefix(&MAGIC)?;
        if packet[0] != 2 {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let mut reply = Reply {
            xid: u32::from_be_bytes(packet[4..8].try_into().ok()?),
            mac: packet[28..34].try_into().ok()?,
            yiaddr: address(16),
            siaddr: address(20),
            file: text(&packet[108..236]),
            options: parse_options(options)?,
        };
        // Option overload (RFC 2132 section 9.3): bit 0 says that `file` holds options.
        if reply.options.get(&52).and_then(|value| value.first()).is_some_and(|overload| overload & 1 == 1) {
            reply.options.extend(parse_options(&packet[108..236])?);
            reply.file = String::new();
        }
        Some(reply)
    }

    fn kind(&self) -> Option<u8> {
        self.options.get(&53)?.first().copied()
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.options.get(&code)?.get(..4)?.try_into().ok()?;
        Some(bytes.into())
    }

    fn lease(&self) -> Lease {
        let given = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
        let named = self.options.get(&66).and_then(|name| text(name).parse().ok());
        Lease {
            address: given(self.yiaddr),
            netmask: self.address(1),
            gateway: self.address(3),
            dns: self.address(6),
            next_server: named.or(given(self.siaddr)),
            file: self.options.get(&67).map_or_else(|| self.file.clone(), |file| text(file)),
        }
    }
}

/// Options in pieces are joined (RFC 3396).
fn parse_options(mut bytes: &[u8]) -> Option<BTreeMap<u8, Vec<u8>>> {
    let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    loop {
        match bytes {
            [] | [255, ..] => return Some(options),
            [0, rest @ ..] => bytes = rest,
            [code, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                options.entry(*code).or_default().extend(value);
                bytes = rest;
            }
            [_] => return None,
        }
    }
}

/// Text up to its NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client {
            mac: Mac([0x52, 0x54, 0, 0x77, 0, 1]),
            uuid: "00112233-4455-6677-8899-aabbccddeeff".into(),
            mode: BootMode::UEFI,
            address: Ipv4Addr::new(127, 77, 0, 1),
            server: ([127, 0, 0, 1], 6767).into(),
            relay_port: 0,
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_discover_is_what_a_relayed_pxe_client_sends() {
        let packet = request(&client(), Program::Ipxe, DISCOVER, 7, 3, None);
        assert_eq!(packet[..12], [1, 1, 6, 1, 0, 0, 0, 7, 0, 3, 0, 0]);
        assert_eq!(packet[24..28], [127, 77, 0, 1]);
        let options = parse_options(&packet[HEADER + 4..]).unwrap();
        assert_eq!(options[&60], b"PXEClient:Arch:00007:UNDI:003016");
        assert_eq!(options[&97], hex::decode("0033221100554477668899aabbccddeeff").unwrap());
        assert_eq!((&options[&77][..], &options[&82][..], &options[&93][..]), (&b"iPXE"[..], &[19, 0][..], &[0, 7][..]));
        assert!(packet.len() >= 300);
    }

    #[test]
    fn hostile_replies_are_dropped() {
        let mut packet = request(&client(), Program::Firmware, DISCOVER, 7, 0, None);
        packet[0] = 2;
        assert!(Reply::parse(&packet).is_some());
        for length in 0..packet.len() {
            // Must not panic.
            let _ = Reply::parse(&packet[..length]);
        }
        packet[HEADER + 5] = 255;
        assert!(Reply::parse(&packet).is_none(), "an option that runs past the end");
        packet[HEADER] = 0;
        assert!(Reply::parse(&packet).is_none(), "no magic cookie");
    }
}
