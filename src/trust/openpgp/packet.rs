//! Armor and packets of OpenPGP (RFC 9580, sections 4 to 6). Lengths that do not say where a packet ends are refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::trust::bytes::Reader;

/// A packet: what kind it is, and its body.
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

pub(super) const SIGNATURE: u8 = 2;
pub(super) const SECRET_KEY: u8 = 5;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const SECRET_SUBKEY: u8 = 7;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;

/// The bytes of each armored block whose first line is `-----BEGIN PGP {kind}-----`; `None` if one of them is damaged.
pub(super) fn dearmor(text: &str, kind: &str) -> Option<Vec<Vec<u8>>> {
    let (begin, end) = (format!("-----BEGIN PGP {kind}-----"), format!("-----END PGP {kind}-----"));
    let (mut blocks, mut lines) = (Vec::new(), text.lines().map(str::trim_end));
    while lines.any(|line| line == begin) {
        // Headers such as `Version:` end with a blank line.
        lines.by_ref().find(|line| line.is_empty())?;
        let mut base64 = String::new();
        loop {
            match lines.next()? {
                line if line == end => break,
                // The checksum of 24 bits protects from nothing.
                line if line.starts_with('=') && line.len() == 5 => {}
                line => base64.push_str(line),
            }
        }
        blocks.push(STANDARD.decode(base64).ok()?);
    }
    Some(blocks)
}

/// All packets of `bytes`.
pub(super) fn packets(bytes: &[u8]) -> Option<Vec<Packet<'_>>> {
    let (mut reader, mut packets) = (Reader(bytes), Vec::new());
    while reader.end().is_none() {
        packets.push(packet(&mut reader)?);
    }
    Some(packets)
}

fn packet<'a>(reader: &mut Reader<'a>) -> Option<Packet<'a>> {
    let head = reader.byte()?;
    if head & 0x80 == 0 {
        return None;
    }
    let (tag, length) = if head & 0x40 != 0 {
        (head & 0x3f, long(reader)?)
    } else {
        let length = match head & 3 {
            0 => usize::from(reader.byte()?),
            1 => usize::from(uint16(reader)?),
            2 => usize::try_from(reader.uint32()?).ok()?,
            _ => return None,
        };
        ((head >> 2) & 0xf, length)
    };
    Some(Packet { tag, body: reader.take(length)? })
}

/// A length in the new format. From 224 to 254 it is that of a part, and there is no reason to write keys or signatures in parts.
fn long(reader: &mut Reader<'_>) -> Option<usize> {
    match reader.byte()? {
        short @ ..192 => Some(usize::from(short)),
        first @ 192..224 => Some((usize::from(first) - 192) * 256 + usize::from(reader.byte()?) + 192),
        255 => usize::try_from(reader.uint32()?).ok(),
        _ => None,
    }
}

pub(super) fn uint16(reader: &mut Reader<'_>) -> Option<u16> {
    reader.take(2)?.try_into().ok().map(u16::from_be_bytes)
}

/// A number: its bits, then its bytes. Without the zeros in front that some programs write.
pub(super) fn number<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let bits = usize::from(uint16(reader)?);
    let bytes = reader.take(bits.div_ceil(8))?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Some(&bytes[zeros..])
}

/// Subpackets: type, whether whoever does not know it must not go on, and body.
pub(super) fn subpackets(bytes: &[u8]) -> Option<Vec<(u8, bool, &[u8])>> {
    let (mut reader, mut found) = (Reader(bytes), Vec::new());
    while reader.end().is_none() {
        let length = match reader.byte()? {
            short @ ..192 => usize::from(short),
            255 => usize::try_from(reader.uint32()?).ok()?,
            first => (usize::from(first) - 192) * 256 + usize::from(reader.byte()?) + 192,
        };
        let (kind, body) = reader.take(length)?.split_first()?;
        found.push((kind & 0x7f, kind & 0x80 != 0, body));
    }
    Some(found)
}
