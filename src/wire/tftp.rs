//! TFTP packets (RFC 1350, 2347, 2348, 2349, 7440).

use std::borrow::Cow;

/// Error codes (RFC 1350 appendix, RFC 2347 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
#[repr(u16)]
pub enum ErrorCode {
    NotDefined = 0,
    FileNotFound = 1,
    AccessViolation = 2,
    DiskFull = 3,
    IllegalOperation = 4,
    UnknownTransferId = 5,
    FileExists = 6,
    NoSuchUser = 7,
    OptionRefused = 8,
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ, or WRQ when `write`.
    Request {
        /// True: the client wants to write.
        write: bool,
        /// File name, as sent; bytes that are no UTF-8 are replaced.
        file: String,
        /// `octet`, `netascii` or `mail`, in lower case.
        mode: String,
        /// Options by name in lower case, in the order sent.
        options: Vec<(String, String)>,
    },
    /// DATA.
    Data {
        /// Block number; wraps.
        block: u16,
        /// Content.
        data: Cow<'a, [u8]>,
    },
    /// ACK.
    Ack {
        /// Block number; wraps.
        block: u16,
    },
    /// ERROR: ends the transfer, and is never answered.
    Error {
        /// See [`ErrorCode`].
        code: u16,
        /// For people.
        message: String,
    },
    /// OACK.
    OptionAck {
        /// Options that the server takes, by name.
        options: Vec<(String, String)>,
    },
}

/// Why bytes are no TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    /// Too short for its kind.
    #[error("the packet is cut off")]
    Short,
    /// An operation that is none of RFC 1350 and 2347.
    #[error("operation {0} is unknown")]
    Operation(u16),
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`BadPacket`]; the packet is to be dropped.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadPacket> {
        let [high, low, body @ ..] = bytes else { return Err(BadPacket::Short) };
        let number = || match body {
            [high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(BadPacket::Short),
        };
        match u16::from_be_bytes([*high, *low]) {
            operation @ (1 | 2) => request(operation == 2, body),
            3 => Ok(Packet::Data { block: number()?, data: Cow::Borrowed(&body[2..]) }),
            4 => Ok(Packet::Ack { block: number()? }),
            // Some clients send no text, or no zero after it.
            5 => Ok(Packet::Error { code: number()?, message: text(body[2..].split(|byte| *byte == 0).next().unwrap_or_default()) }),
            6 => Ok(Packet::OptionAck { options: pairs(&mut strings(body)) }),
            operation => Err(BadPacket::Operation(operation)),
        }
    }

    /// Writes a packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let string = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend(text.bytes().filter(|byte| *byte != 0));
            bytes.push(0);
        };
        match self {
            Packet::Request { write, file, mode, options } => {
                bytes.extend([0, if *write { 2 } else { 1 }]);
                let pairs = options.iter().flat_map(|(name, value)| [name, value]);
                [file, mode].into_iter().chain(pairs).for_each(|text| string(&mut bytes, text));
            }
            Packet::Data { block, data } => {
                bytes.reserve(4 + data.len());
                bytes.extend([0, 3]);
                bytes.extend(block.to_be_bytes());
                bytes.extend_from_slice(data);
            }
            Packet::Ack { block } => {
                bytes.extend([0, 4]);
                bytes.extend(block.to_be_bytes());
            }
            Packet::Error { code, message } => {
                bytes.extend([0, 5]);
                bytes.extend(code.to_be_bytes());
                string(&mut bytes, message);
            }
            Packet::OptionAck { options } => {
                bytes.extend([0, 6]);
                options.iter().flat_map(|(name, value)| [name, value]).for_each(|text| string(&mut bytes, text));
            }
        }
        bytes
    }

    /// An ERROR packet.
    pub fn error(code: ErrorCode, message: &str) -> Packet<'static> {
        Packet::Error { code: code as u16, message: message.to_owned() }
    }
}

fn request(write: bool, body: &[u8]) -> Result<Packet<'static>, BadPacket> {
    let mut strings = strings(body);
    let (Some(file), Some(mode)) = (strings.next(), strings.next()) else { return Err(BadPacket::Short) };
    Ok(Packet::Request { write, file, mode: mode.to_ascii_lowercase(), options: pairs(&mut strings) })
}

/// Strings that end in a zero; a last one without it is dropped.
fn strings(body: &[u8]) -> impl Iterator<Item = String> {
    let end = body.iter().rposition(|byte| *byte == 0).unwrap_or(0);
    let whole = (!body.is_empty() && body[end] == 0).then(|| &body[..end]);
    whole.into_iter().flat_map(|whole| whole.split(|byte| *byte == 0)).map(text)
}

fn pairs(strings: &mut impl Iterator<Item = String>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
        pairs.push((name.to_ascii_lowercase(), value));
    }
    pairs
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_of_ovmf_is_read() {
        // RRQ as EDK2's Mtftp4 sends it: tsize 0, then blksize and windowsize.
        let bytes = b"\0\x01snponly.efi\0octet\0tsize\x000\0BLKSIZE\x001468\0windowsize\x004\0";
        let Packet::Request { write, file, mode, options } = Packet::decode(bytes).unwrap() else { panic!("not a request") };
        assert!(!write);
        assert_eq!((file.as_str(), mode.as_str()), ("snponly.efi", "octet"));
        let options: Vec<_> = options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(options, [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")]);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for bytes in [&b""[..], b"\0", b"\0\x01", b"\0\x01name\0", b"\0\x01name", b"\0\x03\0", b"\0\x04\0", b"\0\x05\0"] {
            assert_eq!(Packet::decode(bytes), Err(BadPacket::Short), "{bytes:?}");
        }
        assert_eq!(Packet::decode(b"\0\x09\0\0"), Err(BadPacket::Operation(9)));
    }

    #[test]
    fn an_error_without_its_text_is_still_an_error() {
        assert_eq!(Packet::decode(b"\0\x05\0\x08").unwrap(), Packet::Error { code: 8, message: String::new() });
        assert_eq!(Packet::decode(b"\0\x05\0\0User aborted").unwrap(), Packet::Error { code: 0, message: "User aborted".into() });
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700), operation in 0u8..8) {
            let mut bytes = bytes;
            let _ = Packet::decode(&bytes);
            if bytes.len() > 1 {
                (bytes[0], bytes[1]) = (0, operation);
            }
            if let Ok(packet) = Packet::decode(&bytes) {
                let again = packet.encode();
                prop_assert_eq!(Packet::decode(&again).unwrap(), packet);
            }
        }

        #[test]
        fn what_is_written_is_read_back(file in "[a-z./]{1,20}", block: u16, data in proptest::collection::vec(any::<u8>(), 0..600)) {
            let options = vec![("blksize".to_owned(), "1468".to_owned())];
            let request = Packet::Request { write: false, file, mode: "octet".into(), options: options.clone() };
            for packet in [request, Packet::Data { block, data: Cow::Owned(data) }, Packet::Ack { block }, Packet::OptionAck { options }] {
                let bytes = packet.encode();
                prop_assert_eq!(Packet::decode(&bytes).unwrap(), packet);
            }
        }
    }
}
