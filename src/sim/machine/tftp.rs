//! The firmware's TFTP client (RFC 1350, 2347, 2348, 2349, 7440).
//!
//! As UEFI PXE does: first a request for the size alone, ended with an ERROR when the size is known; then the file.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{net::UdpSocket, time::timeout};

use crate::model::Digest;

const RRQ: u16 = 1;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// Fits an Ethernet frame of 1500 bytes.
const BLOCK: usize = 1468;
/// Blocks without an acknowledgement (edk2 asks for 4).
const WINDOW: u16 = 4;
/// Wait for an answer before asking again.
const WAIT: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;
/// Largest boot loader that is taken.
const LARGEST: u64 = 64 << 20;

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TftpError {
    #[error("no answer from {0}")]
    Silent(SocketAddr),
    #[error("the server says: {text} (code {code})")]
    Refused { code: u16, text: String },
    #[error("{size} bytes came, {announced} were announced")]
    Short { size: u64, announced: u64 },
    #[error("the file is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("the network refused")]
    Io(#[from] io::Error),
}

/// Fetches `file` and forgets its bytes: what counts is that it came, and which it was.
pub(crate) async fn fetch(from: Ipv4Addr, server: SocketAddr, file: &str) -> Result<Fetched, TftpError> {
    let announced = size(from, server, file).await?;
    let mut transfer = Transfer::begin(from, server, &rrq(file, &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")])).await?;
    let fetched = transfer.receive().await?;
    match announced {
        Some(announced) if announced != fetched.size => Err(TftpError::Short { size: fetched.size, announced }),
        _ => Ok(fetched),
    }
}

/// Asks for the size alone, and ends the transfer with an ERROR; `None` when the server does not tell.
pub(crate) async fn size(from: Ipv4Addr, server: SocketAddr, file: &str) -> Result<Option<u64>, TftpError> {
    let mut transfer = Transfer::begin(from, server, &rrq(file, &[("tsize", "0")])).await?;
    let size = match parse(&transfer.packet) {
        Some(Packet::Oack(options)) => options.into_iter().find(|(name, _)| name == "tsize").and_then(|(_, value)| value.parse().ok()),
        Some(Packet::Error { code, text }) => return Err(TftpError::Refused { code, text }),
        _ => None,
    };
    let abort = [&ERROR.to_be_bytes()[..], &[0, 8], b"User aborted the transfer\0"].concat();
    transfer.send(abort).await?;
    Ok(size)
}

struct Transfer {
    socket: UdpSocket,
    /// The server's address with the port of this transfer (RFC 1350 section 4).
    peer: SocketAddr,
    sent: Vec<u8>,
    /// The packet that came last.
    packet: Vec<u8>,
}

impl Transfer {
    async fn begin(from: Ipv4Addr, server: SocketAddr, request: &[u8]) -> Result<Self, TftpError> {
        let socket = UdpSocket::bind((from, 0)).await?;
        let mut transfer = Transfer { socket, peer: server, sent: Vec::new(), packet: Vec::new() };
        transfer.send(request.to_vec()).await?;
        transfer.next(true).await?;
        Ok(transfer)
    }

    async fn receive(&mut self) -> Result<Fetched, TftpError> {
        let (mut block_size, mut window) = (512, 1);
        let (mut expected, mut in_window) = (1u16, 0);
        let (mut hash, mut size) = (Sha256::new(), 0u64);
        loop {
            match parse(&self.packet) {
                Some(Packet::Error { code, text }) => return Err(TftpError::Refused { code, text }),
                Some(Packet::Oack(options)) => {
                    let number = |wanted: &str| options.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| value.parse().ok());
                    block_size = number("blksize").unwrap_or(512).min(BLOCK);
                    window = number("windowsize").map_or(1, |window| window.min(usize::from(WINDOW)));
                    self.send(ack(0)).await?;
                }
                Some(Packet::Data { block, bytes }) if block == expected => {
                    hash.update(bytes);
                    size += bytes.len() as u64;
                    let last = bytes.len() < block_size;
                    in_window += 1;
                    if last || in_window >= window {
                        self.send(ack(block)).await?;
                        in_window = 0;
                    }
                    if last {
                        return Ok(Fetched { size, digest: Digest(hash.finalize().into()) });
                    }
                    if size > LARGEST {
                        return Err(TftpError::TooLarge);
                    }
                    expected = expected.wrapping_add(1);
                }
                // A block that is not the next: say which was the last good one (RFC 7440 section 4).
                Some(Packet::Data { .. }) => {
                    self.send(ack(expected.wrapping_sub(1))).await?;
                    in_window = 0;
                }
                None => {}
            }
            self.next(false).await?;
        }
    }

    async fn send(&mut self, packet: Vec<u8>) -> io::Result<()> {
        self.socket.send_to(&packet, self.peer).await?;
        self.sent = packet;
        Ok(())
    }

    /// The next packet of the server; what was sent last is sent again while there is none.
    async fn next(&mut self, first: bool) -> Result<(), TftpError> {
        let mut buffer = vec![0; 4 + BLOCK + 512];
        for _ in 0..TRIES {
            match timeout(WAIT, self.socket.recv_from(&mut buffer)).await {
                Ok(Ok((length, peer))) if first && peer.ip() == self.peer.ip() || peer_is(&self.peer, peer) => {
                    self.peer = peer;
                    buffer.truncate(length);
                    self.packet = buffer;
                    return Ok(());
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) => tokio::time::sleep(WAIT / 4).await,
                Err(_) => {
                    self.socket.send_to(&self.sent, self.peer).await?;
                }
            }
        }
        Err(TftpError::Silent(self.peer))
    }
}

fn peer_is(wanted: &SocketAddr, peer: SocketAddr) -> bool {
    *wanted == peer
}

fn rrq(file: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = RRQ.to_be_bytes().to_vec();
    for text in [file, "octet"].into_iter().chain(options.iter().flat_map(|(name, value)| [*name, *value])) {
        packet.extend(text.bytes());
        packet.push(0);
    }
    packet
}

fn ack(block: u16) -> Vec<u8> {
    [ACK.to_be_bytes(), block.to_be_bytes()].concat()
}

enum Packet<'a> {
    Data { block: u16, bytes: &'a [u8] },
    Error { code: u16, text: String },
    Oack(Vec<(String, String)>),
}

fn parse(packet: &[u8]) -> Option<Packet<'_>> {
    let (head, rest) = packet.split_at_checked(2)?;
    let opcode = u16::from_be_bytes(head.try_into().ok()?);
    let number = || Some(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
    match opcode {
        DATA => Some(Packet::Data { block: number()?, bytes: &rest[2..] }),
        ERROR => {
            Some(Packet::Error { code: number()?, text: String::from_utf8_lossy(rest[2..].split(|byte| *byte == 0).next()?).into_owned() })
        }
        OACK => {
            let texts: Vec<String> = rest.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).to_ascii_lowercase()).collect();
            Some(Packet::Oack(texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_packets_are_dropped() {
        for packet in [&[][..], &[0], &[0, 3], &[0, 3, 0], &[0, 5], &[0, 5, 0], &[0, 9, 1, 2], &[0, 6]] {
            assert!(!matches!(parse(packet), Some(Packet::Data { .. } | Packet::Error { .. })), "{packet:?}");
        }
        let Some(Packet::Oack(options)) = parse(b"\0\x06TSIZE\x0042\0blksize\x001468\0") else { panic!("no OACK") };
        assert_eq!(options, [("tsize".into(), "42".into()), ("blksize".into(), "1468".into())]);
    }
}
