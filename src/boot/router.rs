//! Answers IPv6 router solicitations (RFC 4861) so that iPXE goes on at once.
//!
//! On a wire without IPv6 routers iPXE waits 16 s at each start for an advertisement. Ours announces nothing: lifetime 0 (not
//! a default router, sections 4.2 and 6.2.3), no prefix, no DHCPv6. A host that hears it changes nothing, unless it knows the
//! sender as a router: then it drops that router at once (section 6.3.4), and takes over that there is no DHCPv6. So nothing is
//! sent where this host forwards IPv6, nor where a router answers by itself.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddrV6},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// ICMPv6 type of a router solicitation (RFC 4861 section 4.1).
const SOLICITATION: u8 = 133;
/// Ours: type and code, the checksum, which the kernel fills in, and nothing else. It finds out whether there is a router.
const OUR_SOLICITATION: [u8; 8] = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
/// Router advertisement (RFC 4861 section 4.2): type 134; checksum, which the kernel fills in; and zeros: hop limit unspecified,
/// flags off, lifetime 0, both timers unspecified.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Between two advertisements. One answers all who asked meanwhile, so a flood of solicitations causes ten packets a second.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest time between two advertisements of a router (MaxRtrAdvInterval, RFC 4861 section 6.2.1): one that was not heard for
/// so long is gone.
const REMEMBERED: Duration = Duration::from_secs(1800);

/// What a packet is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Solicitation,
    /// A router that announces something.
    Router,
    Nothing,
}

/// Reads an ICMPv6 message. An advertisement that announces nothing is another boot server's: two that fell silent because of
/// each other would help nobody. Only link-local senders count (RFC 4861 section 6.1.2), for those are on this wire.
fn read(packet: &[u8], from: IpAddr) -> Heard {
    let on_link = matches!(from, IpAddr::V6(from) if from.is_unicast_link_local());
    match packet {
        [SOLICITATION, 0, ..] => Heard::Solicitation,
        [134, 0, _, _, rest @ ..] if on_link && rest.len() >= 12 && *rest != ADVERTISEMENT[4..] => Heard::Router,
        _ => Heard::Nothing,
    }
}

/// Why solicitations are to stay without an answer: what the kernel says of the device's `forwarding`, and how long ago a router
/// was heard.
fn silence(forwarding: Option<&str>, router: Option<Duration>) -> Option<&'static str> {
    match forwarding.map(str::trim) {
        None => Some("it is not known whether this host forwards IPv6"),
        Some("0") => router.filter(|ago| *ago < REMEMBERED).map(|_| "a router answers them"),
        Some(_) => Some("this host is a router itself (`forwarding` is on)"),
    }
}

/// A socket for ICMPv6 on one device.
pub struct Advertiser {
    device: String,
    /// A raw socket: only receiving and sending are used, which are the same for both kinds.
    socket: UdpSocket,
    index: u32,
    router: Option<Instant>,
    silent: Option<&'static str>,
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
        Ok(Self { device: device.to_owned(), socket: UdpSocket::from_std(socket.into())?, index, router: None, silent: None })
    }

    /// Answers for ever.
    pub async fn run(mut self) {
        self.send(&OUR_SOLICITATION, ALL_ROUTERS).await;
        loop {
            match self.solicited().await {
                Ok(true) => {
                    if self.may_answer() {
                        self.send(&ADVERTISEMENT, ALL_NODES).await;
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

    async fn send(&self, packet: &[u8], to: Ipv6Addr) {
        if let Err(error) = self.socket.send_to(packet, SocketAddrV6::new(to, 0, 0, self.index)).await {
            tracing::debug!(device = self.device, %error, "an ICMPv6 packet could not be sent");
        }
    }

    /// Asked anew each time: an administrator may switch forwarding on at any time.
    fn may_answer(&mut self) -> bool {
        let forwarding = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{}/forwarding", self.device)).ok();
        let silent = silence(forwarding.as_deref(), self.router.map(|at| at.elapsed()));
        if silent != self.silent {
            match silent {
                Some(why) => tracing::info!(device = self.device, why, "router solicitations are not answered"),
                None => tracing::info!(device = self.device, "router solicitations are answered again"),
            }
            self.silent = silent;
        }
        silent.is_none()
    }

    /// Takes all that has come; whether a solicitation was among it.
    async fn solicited(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1500];
        let (mut length, mut from) = self.socket.recv_from(&mut buffer).await?;
        let mut solicited = false;
        loop {
            match read(&buffer[..length], from.ip()) {
                Heard::Solicitation => solicited = true,
                Heard::Router => self.router = Some(Instant::now()),
                Heard::Nothing => {}
            }
            (length, from) = match self.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(solicited),
                Err(error) => return Err(error),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_makes_nobody_a_router() {
        // RFC 4861 section 4.2: flags at byte 5, the router's lifetime in bytes 6 and 7; options would follow the 16.
        assert_eq!((ADVERTISEMENT.len(), ADVERTISEMENT[5], &ADVERTISEMENT[6..8]), (16, 0, &[0, 0][..]));
    }

    #[test]
    fn a_router_is_known_by_what_it_announces() {
        let (near, far) = ("fe80::1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let with = |at: usize, byte: u8| {
            let mut packet = ADVERTISEMENT.to_vec();
            packet[at] = byte;
            packet
        };
        assert_eq!(read(&OUR_SOLICITATION, "::".parse().unwrap()), Heard::Solicitation);
        assert_eq!(read(&with(6, 7), near), Heard::Router);
        assert_eq!(read(&with(5, 0x80), near), Heard::Router);
        assert_eq!(read(&[&ADVERTISEMENT[..], &[3, 4]].concat(), near), Heard::Router);
        assert_eq!(read(&with(6, 7), far), Heard::Nothing);
        assert_eq!(read(&with(2, 0xab), near), Heard::Nothing, "another boot server, with its checksum");
        assert_eq!(read(&with(6, 7)[..15], near), Heard::Nothing);
        assert_eq!(read(&[], near), Heard::Nothing);
    }

    #[test]
    fn nothing_is_sent_where_there_is_a_router() {
        assert_eq!(silence(Some("0\n"), None), None);
        assert!(silence(Some("1\n"), None).is_some());
        assert!(silence(Some("2\n"), None).is_some());
        assert!(silence(None, None).is_some());
        assert!(silence(Some("0\n"), Some(Duration::from_secs(1799))).is_some());
        assert_eq!(silence(Some("0\n"), Some(REMEMBERED)), None);
    }
}
