//! Sockets of the DHCP server.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::answer::{Answer, Destination, DhcpRequest, Silence, Via, answer};
use crate::{
    boot::state::State,
    model::{Evidence, Mac, Timestamp},
    wire::dhcp::{CLIENT_PORT, Message, code},
};

/// Packets that wait while an answer is made. A rack that powers on at once sends some hundred; 1 MiB holds two thousand.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A socket at `address`, on one device only if one is named (then answers to clients without an address leave by it).
///
/// # Errors
/// What the system says: the address is taken, there is no such device, or the process may not.
pub fn bind(address: SocketAddr, device: Option<&str>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(device) = device {
        // One socket for each device at the same address.
        socket.set_reuse_address(true)?;
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.set_broadcast(true)?;
    // As much as the system grants.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers for ever.
pub async fn serve(socket: UdpSocket, via: Via, state: Arc<State>) {
    let mut buffer = vec![0; 4096];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, SocketAddr::V4(from))) => take(&socket, &buffer[..length], from, via, &state).await,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "DHCP socket");
                // A broken socket must not spin.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn take(socket: &UdpSocket, bytes: &[u8], from: SocketAddrV4, via: Via, state: &Arc<State>) {
    let message = match Message::decode(bytes) {
        Ok(message) => message,
        Err(error) => return tracing::debug!(%from, %error, "not a DHCP message"),
    };
    let Some(mac) = message.ethernet().map(Mac) else { return };
    // Without a table everyone would count as a stranger.
    if !state.is_ready() {
        return;
    }
    let published = state.published();
    let request = DhcpRequest { message: &message, from, via };
    let machine = published.table.reservations.get(&mac).map(|reservation| &reservation.machine);
    match answer(&published.table, &request, &state.facts, Timestamp::now()) {
        Answer::Silent { why: why @ (Silence::NotARequest | Silence::Nothing | Silence::OtherServer | Silence::NotServed) } => {
            tracing::debug!(%mac, kind = ?message.kind, %why, "no DHCP answer");
        }
        Answer::Silent { why: why @ Silence::Declined(_) } => {
            if state.lines.line(mac, "declined") {
                tracing::warn!(%mac, machine = machine.map(tracing::field::display), %why, "DHCP");
            }
        }
        Answer::Silent { why } => state.refused(mac, machine, &format!("DHCP: {why}")),
        Answer::Reply { packet, to, seen } => {
            let to = match to {
                Destination::Unicast(to) => to,
                Destination::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            };
            let file = packet.text(code::BOOT_FILE);
            tracing::debug!(%mac, kind = ?packet.kind, address = %packet.yiaddr, file, %to, "DHCP answer");
            if let Err(error) = socket.send_to(&packet.encode(), to).await
                && state.lines.line(mac, "a DHCP answer could not be sent")
            {
                tracing::warn!(%mac, %to, %error, "a DHCP answer could not be sent");
            }
            match (seen, published.table.tickets.get(&mac)) {
                (Some(_), Some(ticket)) => state.told_later(ticket, Evidence::DhcpSeen),
                _ if file.is_some() => {
                    state.refused(mac, machine, "asked to boot from the network without an open ticket: told to boot from disk")
                }
                _ => {}
            }
        }
    }
}
