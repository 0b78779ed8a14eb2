//! Sockets of the TFTP server.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use tokio::{net::UdpSocket, sync::Semaphore, task::JoinSet, time};

use super::transfer::{Action, Transfer};
use crate::{
    boot::{admission::admit, files, places::Places, state::State},
    model::Timestamp,
    wire::tftp::{ErrorCode, Packet},
};

/// Transfers at a time. Each takes a socket and some kB; a rack-scale power-on fits several times over, and a client that
/// finds no room asks again by itself.
const TRANSFERS: usize = 1024;
/// Transfers of one address at a time: firmware has one, and leaves one behind when it starts again.
const TRANSFERS_PER_CLIENT: usize = 8;
/// Loaders are a megabyte; whatever is larger is not one, and is not read into memory.
const LARGEST_FILE: u64 = 64 << 20;

/// A TFTP server on one socket.
pub struct TftpServer {
    socket: UdpSocket,
    state: Arc<State>,
    largest_block: u16,
    room: Arc<Semaphore>,
    places: Places,
    active: Arc<Mutex<HashSet<SocketAddr>>>,
    cache: Mutex<BTreeMap<&'static str, (SystemTime, u64, Bytes)>>,
}

impl TftpServer {
    /// A server on `socket`.
    pub fn new(socket: UdpSocket, state: Arc<State>, largest_block: u16) -> Self {
        let room = Arc::new(Semaphore::new(TRANSFERS));
        let places = Places::new(TRANSFERS_PER_CLIENT);
        Self { socket, state, largest_block, room, places, active: Arc::default(), cache: Mutex::default() }
    }

    /// Serves for ever; transfers end with it.
    pub async fn run(self) {
        let mut transfers = JoinSet::new();
        let mut buffer = vec![0; 2048];
        loop {
            while transfers.try_join_next().is_some() {}
            let (length, client) = match self.socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "TFTP socket");
                    // ICMP errors of earlier answers come up here; a broken socket must not spin.
                    time::sleep(time::Duration::from_millis(10)).await;
                    continue;
                }
            };
            let Ok(Packet::Request { write, file, mode, options }) = Packet::decode(&buffer[..length]) else { continue };
            // Silence: the client asks again, and by then there is a table.
            if !self.state.is_ready() {
                continue;
            }
            match self.open(client, write, &file, &mode) {
                Ok((name, content)) => self.begin(&mut transfers, client, name, content, &options),
                Err((code, message)) => {
                    if self.state.lines.line(client.ip(), message) {
                        tracing::info!(%client, file, message, "TFTP request refused");
                    }
                    let _ = self.socket.send_to(&Packet::error(code, message).encode(), client).await;
                }
            }
        }
    }

    /// The file that is asked for, if this client may have it.
    fn open(&self, client: SocketAddr, write: bool, file: &str, mode: &str) -> Result<(&'static str, Bytes), (ErrorCode, &'static str)> {
        if write {
            return Err((ErrorCode::AccessViolation, "this server is read-only"));
        }
        if mode != "octet" {
            return Err((ErrorCode::IllegalOperation, "only mode octet"));
        }
        // Some ROMs end a name that came in option 67 with the end option's byte.
        let file = file.trim_end_matches(char::REPLACEMENT_CHARACTER).trim_start_matches(['/', '\\']);
        let missing = (ErrorCode::FileNotFound, "no such boot file");
        let name = files::LOADERS.into_iter().find(|name| *name == file).ok_or(missing)?;
        if let Err(refusal) = admit(&self.state.published(), client.ip(), name, Timestamp::now()) {
            self.state.refused(client.ip(), refusal.machine(), &format!("TFTP: {name}: {}", refusal.why()));
            return Err((ErrorCode::AccessViolation, refusal.why()));
        }
        let content = self.state.paths.get(name).ok_or(missing).and_then(|path| {
            self.read(name, path).map_err(|error| {
                if self.state.lines.line(client.ip(), "boot file can't be read") {
                    tracing::error!(path = %path.display(), %error, "boot file can't be read");
                }
                missing
            })
        })?;
        Ok((name, content))
    }

    /// A file's content, kept while the file does not change.
    fn read(&self, name: &'static str, path: &Path) -> io::Result<Bytes> {
        let metadata = std::fs::metadata(path)?;
        let (changed, length) = (metadata.modified()?, metadata.len());
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, size, content)) = cache.get(name)
            && (*at, *size) == (changed, length)
        {
            return Ok(content.clone());
        }
        if !metadata.is_file() || length > LARGEST_FILE {
            return Err(io::Error::other("not a file of at most 64 MiB"));
        }
        let content = Bytes::from(std::fs::read(path)?);
        cache.insert(name, (changed, length, content.clone()));
        Ok(content)
    }

    /// Where transfers are sent from: clients take packets only from the address that they asked, which is the advertised one,
    /// unless that is not our own (behind an address translation).
    fn local(&self) -> Vec<SocketAddr> {
        let bound = self.socket.local_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        let advertised = IpAddr::V4(self.state.facts.address);
        let first = if bound.is_unspecified() { advertised } else { bound };
        vec![(first, 0).into(), (bound, 0).into()]
    }

    fn begin(&self, transfers: &mut JoinSet<()>, client: SocketAddr, name: &'static str, content: Bytes, options: &[(String, String)]) {
        let (Some(place), Ok(permit)) = (self.places.enter(client.ip()), self.room.clone().try_acquire_owned()) else {
            if self.state.lines.line(client.ip(), "TFTP is at its limit") {
                tracing::warn!(%client, "TFTP is at its limit of transfers; the client has to ask again");
            }
            return;
        };
        // A request that is sent again while its transfer runs must not start a second one.
        if !self.active.lock().unwrap_or_else(PoisonError::into_inner).insert(client) {
            return;
        }
        let (transfer, first) = Transfer::start(content, options, self.largest_block);
        let (state, active) = (self.state.clone(), self.active.clone());
        let local = self.local();
        transfers.spawn(async move {
            let _held = (place, permit);
            match run(&local, client, transfer, first).await {
                Ok(()) => {
                    if state.lines.line(client.ip(), name) {
                        tracing::info!(%client, file = name, "TFTP transfer done");
                    }
                    state.fetched(client.ip(), name);
                }
                // EDK2 asks for the size, aborts, and asks again: an end like others.
                Err(why) => tracing::debug!(%client, file = name, why, "TFTP transfer ended early"),
            }
            active.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
        });
    }
}

async fn run(local: &[SocketAddr], client: SocketAddr, mut transfer: Transfer, first: Action) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    // A socket of its own is the transfer's id (RFC 1350 section 4); being connected, it takes packets of this client alone.
    let socket = UdpSocket::bind(local).await.map_err(text)?;
    socket.connect(client).await.map_err(text)?;
    let mut buffer = [0; 600];
    let mut action = first;
    let began = time::Instant::now();
    let mut deadline = began + transfer.timeout();
    loop {
        match action {
            Action::Wait => {}
            Action::Done => return Ok(()),
            Action::Over(why) => return Err(why),
            Action::SendOptions => drop(socket.send(&transfer.option_ack().encode()).await.map_err(text)?),
            Action::Send(blocks) => {
                for block in blocks {
                    socket.send(&transfer.block(block).encode()).await.map_err(text)?;
                }
            }
        }
        // Packets that change nothing don't move the deadline: a flood of them must not keep a transfer alive.
        action = match time::timeout_at(deadline, socket.recv(&mut buffer)).await {
            Err(_) => transfer.timed_out(began.elapsed()),
            Ok(received) => match Packet::decode(&buffer[..received.map_err(text)?]) {
                Ok(packet) => transfer.handle(&packet, began.elapsed()),
                Err(_) => Action::Wait,
            },
        };
        if action != Action::Wait {
            deadline = time::Instant::now() + transfer.timeout();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing;

    #[tokio::test]
    async fn one_client_cannot_hold_all_transfers() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = TftpServer::new(socket, testing::state(testing::table_with_ticket()), 1468);
        let mut transfers = JoinSet::new();
        let mut begin = |address: [u8; 4], port: u16| {
            server.begin(&mut transfers, (address, port).into(), files::LOCALBOOT, Bytes::new(), &[]);
            transfers.len()
        };
        // No transfer runs, since nothing here waits: all of them stay as they began.
        let begun = (1..2000).map(|port| begin([192, 0, 2, 1], port)).last();
        assert_eq!(begun, Some(TRANSFERS_PER_CLIENT));
        assert_eq!(begin([192, 0, 2, 2], 1), TRANSFERS_PER_CLIENT + 1);
    }
}
