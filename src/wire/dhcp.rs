//! DHCPv4 messages (RFC 2131, 2132, 3046, 3396, 4578, 8357).
//!
//! Options are kept as bytes by code, because that is what they are on the wire: firmware sends options of wrong lengths, and
//! one that nobody asks for must not cost the whole message. Typed readers give `None` for a length that is wrong.

use std::{collections::BTreeMap, net::Ipv4Addr};

/// The port that servers and relay agents listen on (RFC 2131 section 4.1).
pub const SERVER_PORT: u16 = 67;
/// The port that clients listen on (RFC 2131 section 4.1).
pub const CLIENT_PORT: u16 = 68;

/// First four bytes of the options field (RFC 2131 section 3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const HEADER: usize = 236;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
/// A BOOTP message has at least 300 bytes (RFC 1542 section 2.1); old PXE ROMs drop shorter ones.
const SMALLEST: usize = 300;
const PAD: u8 = 0;
const END: u8 = 255;

/// Option codes, named as in RFC 2132 and the RFCs noted.
#[allow(missing_docs)]
pub mod code {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const VENDOR_SPECIFIC: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const CLASS_ID: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// RFC 3004.
    pub const USER_CLASS: u8 = 77;
    /// RFC 3046.
    pub const RELAY: u8 = 82;
    /// RFC 4578 section 2.1.
    pub const ARCHITECTURE: u8 = 93;
    /// RFC 4578 section 2.3.
    pub const UUID: u8 = 97;
    /// iPXE's encapsulated options (ipxe.org/howto/dhcpd).
    pub const IPXE: u8 = 175;
}

/// Sub-options of option 82.
pub mod relay {
    /// Link selection (RFC 3527): an address of the client's network, when giaddr is not one.
    pub const LINK: u8 = 5;
    /// Server identifier override (RFC 5107): what the client is to take for the server.
    pub const SERVER_ID: u8 = 11;
    /// Relay source port (RFC 8357): answer to the UDP port that the relayed message came from.
    pub const SOURCE_PORT: u8 = 19;
}

/// DHCP message types (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::*;
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are not a DHCP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Shorter than the fixed header and the magic cookie.
    #[error("only {0} bytes")]
    Short(usize),
    /// BOOTP of another vendor, or not BOOTP.
    #[error("no DHCP magic cookie")]
    Cookie,
    /// `op` is neither request nor reply.
    #[error("op is {0}")]
    Op(u8),
    /// The hardware address is longer than its field.
    #[error("hardware address length is {0}")]
    HardwareLength(u8),
    /// An option's length runs past the end of its field.
    #[error("option {0} is cut off")]
    Truncated(u8),
    /// Option 53 is missing, or unknown.
    #[error("no DHCP message type")]
    Kind,
}

/// One DHCPv4 message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// True: from a server (`op` 2).
    pub reply: bool,
    /// Hardware type; 1 is Ethernet.
    pub htype: u8,
    /// Length of the hardware address, at most 16.
    pub hlen: u8,
    /// Relay agents that it passed.
    pub hops: u8,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The client can't receive unicast before it has an address.
    pub broadcast: bool,
    /// Address that the client has and answers for.
    pub ciaddr: Ipv4Addr,
    /// Address that the client gets.
    pub yiaddr: Ipv4Addr,
    /// Next server to boot from.
    pub siaddr: Ipv4Addr,
    /// The relay agent.
    pub giaddr: Ipv4Addr,
    /// Hardware address; the first `hlen` bytes count.
    pub chaddr: [u8; 16],
    /// Boot server's name, from the header; empty when the field holds options (overload).
    pub sname: Vec<u8>,
    /// Boot file, from the header; empty when the field holds options (overload).
    pub file: Vec<u8>,
    /// Message type (option 53).
    pub kind: Kind,
    /// All other options; parts of one option are joined (RFC 3396).
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// A message of a client, with nothing but its hardware address.
    pub fn request(kind: Kind, mac: [u8; 6], xid: u32) -> Self {
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&mac);
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            reply: false,
            htype: 1,
            hlen: 6,
            hops: 0,
            xid,
            secs: 0,
            broadcast: false,
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            giaddr: none,
            chaddr,
            sname: Vec::new(),
            file: Vec::new(),
            kind,
            options: BTreeMap::new(),
        }
    }

    /// The answer to `self`, with what RFC 2131 table 3 copies: xid, flags, giaddr, chaddr; and options 61 (RFC 6842),
    /// 82 (RFC 3046 section 2.2) and 97 (RFC 4578) as they came.
    pub fn answer(&self, kind: Kind) -> Self {
        let mut answer = Self { reply: true, hops: 0, secs: 0, kind, ..self.clone() };
        answer.ciaddr = Ipv4Addr::UNSPECIFIED;
        answer.yiaddr = Ipv4Addr::UNSPECIFIED;
        answer.siaddr = Ipv4Addr::UNSPECIFIED;
        answer.sname.clear();
        answer.file.clear();
        answer.options.retain(|code, _| [code::CLIENT_ID, code::RELAY, code::UUID].contains(code));
        answer
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`BadMessage`]; the message is to be dropped.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let (Some(header), Some(cookie)) = (bytes.get(..HEADER), bytes.get(HEADER..HEADER + 4)) else {
            return Err(BadMessage::Short(bytes.len()));
        };
        if cookie != MAGIC {
            return Err(BadMessage::Cookie);
        }
        let (op, hlen) = (header[0], header[2]);
        if op != 1 && op != 2 {
            return Err(BadMessage::Op(op));
        }
        if hlen > 16 {
            return Err(BadMessage::HardwareLength(hlen));
        }
        let mut options = BTreeMap::new();
        read_options(&bytes[HEADER + 4..], &mut options)?;
        let overload = options.remove(&code::OVERLOAD).and_then(|value: Vec<u8>| value.first().copied()).unwrap_or(0);
        // RFC 3396 section 5: the options field first, then file, then sname.
        let file = field_or_options(&header[FILE], overload & 1 != 0, &mut options)?;
        let sname = field_or_options(&header[SNAME], overload & 2 != 0, &mut options)?;
        // One within them would be about themselves (RFC 2132 section 9.3).
        options.remove(&code::OVERLOAD);
        let kind = match options.remove(&code::MESSAGE_TYPE).as_deref() {
            Some([byte]) => Kind::of(*byte).ok_or(BadMessage::Kind)?,
            _ => return Err(BadMessage::Kind),
        };
        let mut chaddr = [0; 16];
        chaddr.copy_from_slice(&header[28..44]);
        Ok(Self {
            reply: op == 2,
            htype: header[1],
            hlen,
            hops: header[3],
            xid: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            secs: u16::from_be_bytes([header[8], header[9]]),
            broadcast: header[10] & 0x80 != 0,
            ciaddr: address(&header[12..16]),
            yiaddr: address(&header[16..20]),
            siaddr: address(&header[20..24]),
            giaddr: address(&header[24..28]),
            chaddr,
            sname,
            file,
            kind,
            options,
        })
    }

    /// Writes a message: type and server first, option 82 last (RFC 3046 section 2.1), padded to 300 bytes. `sname` and `file`
    /// are cut to their fields, each ending in a zero.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend([if self.reply { 2 } else { 1 }, self.htype, self.hlen.min(16), self.hops]);
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend([if self.broadcast { 0x80 } else { 0 }, 0]);
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr);
        for (text, field) in [(&self.sname, SNAME), (&self.file, FILE)] {
            bytes.extend(text.iter().take(field.len() - 1));
            bytes.resize(field.end, 0);
        }
        bytes.extend(MAGIC);
        write_option(&mut bytes, code::MESSAGE_TYPE, &[self.kind as u8]);
        let first = self.options.get_key_value(&code::SERVER_ID);
        let last = self.options.get_key_value(&code::RELAY);
        let edge = [PAD, END, code::OVERLOAD, code::MESSAGE_TYPE, code::SERVER_ID, code::RELAY];
        let middle = self.options.iter().filter(|(code, _)| !edge.contains(code));
        for (code, value) in first.into_iter().chain(middle).chain(last) {
            write_option(&mut bytes, *code, value);
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(SMALLEST), PAD);
        bytes
    }

    /// The client's Ethernet address, when that is what `chaddr` holds.
    pub fn ethernet(&self) -> Option<[u8; 6]> {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.chaddr[..6]);
        (self.htype == 1 && self.hlen == 6).then_some(mac)
    }

    /// An option's bytes.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// An option that is one IPv4 address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let value = self.option(code)?;
        (value.len() == 4).then(|| address(value))
    }

    /// An option that is text, without the zeros that some clients end it with.
    pub fn text(&self, code: u8) -> Option<&str> {
        std::str::from_utf8(self.option(code)?).ok().map(|text| text.trim_end_matches('\0'))
    }

    /// Client architectures (option 93), in the client's order of preference.
    pub fn architectures(&self) -> impl Iterator<Item = u16> + '_ {
        self.option(code::ARCHITECTURE).unwrap_or_default().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// A sub-option of option 43, 82 or 175. A list that is cut off gives what stands before the cut.
    pub fn sub_option(&self, code: u8, sub: u8) -> Option<&[u8]> {
        sub_options(self.option(code)?).find(|(found, _)| *found == sub).map(|(_, value)| value)
    }

    /// Whether the sender is iPXE: user class `iPXE`, written plainly as iPXE does or with the lengths of RFC 3004, or its own
    /// option 175.
    pub fn is_ipxe(&self) -> bool {
        matches!(self.option(code::USER_CLASS), Some(b"iPXE" | b"\x04iPXE")) || self.options.contains_key(&code::IPXE)
    }
}

/// Sub-options: code, length, value, as options 43, 82 and 175 hold them. Stops at the first that is cut off.
pub fn sub_options(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        while let [PAD, rest @ ..] = bytes {
            bytes = rest;
        }
        let [code, length, rest @ ..] = bytes else { return None };
        if *code == END || rest.len() < usize::from(*length) {
            return None;
        }
        let (value, rest) = rest.split_at(usize::from(*length));
        bytes = rest;
        Some((*code, value))
    })
}

fn field_or_options(field: &[u8], overloaded: bool, options: &mut BTreeMap<u8, Vec<u8>>) -> Result<Vec<u8>, BadMessage> {
    if overloaded {
        read_options(field, options)?;
        return Ok(Vec::new());
    }
    // The last byte is the final zero's, whatever stands there (RFC 2131 section 2).
    Ok(field[..field.len() - 1].iter().copied().take_while(|byte| *byte != 0).collect())
}

fn read_options(mut bytes: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Result<(), BadMessage> {
    loop {
        match bytes {
            // Without an end option: some ROMs leave it out, and nothing is ambiguous without it.
            [] | [END, ..] => return Ok(()),
            [PAD, rest @ ..] => bytes = rest,
            [code, length, rest @ ..] if rest.len() >= usize::from(*length) => {
                let (value, rest) = rest.split_at(usize::from(*length));
                options.entry(*code).or_default().extend_from_slice(value);
                bytes = rest;
            }
            [code, ..] => return Err(BadMessage::Truncated(*code)),
        }
    }
}

fn write_option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        bytes.extend([code, 0]);
    }
    for part in value.chunks(255) {
        bytes.extend([code, part.len() as u8]);
        bytes.extend_from_slice(part);
    }
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
