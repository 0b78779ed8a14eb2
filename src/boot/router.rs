//! Answers IPv6 router solicitations (RFC 4861) so that iPXE goes on at once.
//!
//! On a wire without IPv6 routers iPXE waits 16 s at each start for an advertisement. Ours announces nothing: lifetime 0 (not
//! a default router), no prefix, no DHCPv6. Hosts that hear it change nothing.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// ICMPv6 type of a router solicitation (RFC 4861 section 4.1).
const SOLICITATION: u8 = 133;
/// Router advertisement (RFC 4861 section 4.2): type 134; checksum, which the kernel fills in; and zeros: hop limit unspecified,
/// flags off, lifetime 0, both timers unspecified.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Between two advertisements. One answers all who asked meanwhile, so a flood of solicitations causes ten packets a second.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket for ICMPv6 on one device.
pub struct Advertiser {
    /// A raw socket: only receiving and sending are used, which are the same for both kinds.
    socket: UdpSocket,
    to: SocketAddrV6,
}

impl Advertiser {
    /// Listens for solicitations on `device`.
    ///
    /// # Errors
    /// No CAP_NET_RAW, no such device, or no IPv6 on it.
    pub fn bind(device: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(device).map_err(io::Error::from)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        // A receiver drops any other hop limit (RFC 4861 section 6.1.2).
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, to: SocketAddrV6::new(ALL_NODES, 0, 0, index) })
    }

    /// Answers for ever.
    pub async fn run(self) {
        loop {
            match self.solicited().await {
                Ok(true) => {
                    if let Err(error) = self.socket.send_to(&ADVERTISEMENT, self.to).await {
                        tracing::debug!(%error, "a router advertisement could not be sent");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "ICMPv6 socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Takes all that has come; whether a solicitation was among it.
    async fn solicited(&self) -> io::Result<bool> {
        let mut buffer = [0; 1500];
        let mut length = self.socket.recv_from(&mut buffer).await?.0;
        let mut solicited = false;
        loop {
            solicited |= length > 0 && buffer[0] == SOLICITATION;
            length = match self.socket.try_recv_from(&mut buffer) {
                Ok((length, _)) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(solicited),
                Err(error) => return Err(error),
            };
        }
    }
}
