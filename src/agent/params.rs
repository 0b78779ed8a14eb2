//! What the kernel command line tells the agent.

use std::net::Ipv4Addr;

use crate::model::{BadIdent, Fingerprint, Mac};

/// Where the boot server is, how to know it, and the ticket's token.
#[derive(Clone, PartialEq, Eq)]
pub struct Params {
    /// `https://HOST:PORT`, without a path.
    pub url: String,
    /// Fingerprint of the server's certificate.
    pub fingerprint: Fingerprint,
    /// The ticket's token. A secret: never shown.
    pub token: String,
    /// The interface that the machine booted from.
    pub mac: Option<Mac>,
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Params")
            .field("url", &self.url)
            .field("fingerprint", &self.fingerprint)
            .field("token", &"…")
            .field("mac", &self.mac)
            .finish()
    }
}

/// Why a kernel command line can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// A key that must be there is not.
    #[error("the kernel command line has no {0}=")]
    Missing(&'static str),
    /// A value is not what it should be.
    #[error("{key}= on the kernel command line is wrong")]
    Bad {
        /// The key.
        key: &'static str,
        /// What it should be.
        #[source]
        source: BadIdent,
    },
}

impl Params {
    /// Reads `rackwright.url`, `.fingerprint`, `.token` and `.mac` from a kernel command line. The last of several wins, as in the
    /// kernel; other words are not ours.
    ///
    /// # Errors
    /// [`ParamsError`] names the key that is missing or wrong; never the token's text.
    pub fn from_cmdline(text: &str) -> Result<Params, ParamsError> {
        const URL: &str = "rackwright.url";
        const FINGERPRINT: &str = "rackwright.fingerprint";
        const TOKEN: &str = "rackwright.token";
        const MAC: &str = "rackwright.mac";
        let url = value(text, URL).ok_or(ParamsError::Missing(URL))?;
        let url = url.trim_end_matches('/');
        let host = url.strip_prefix("https://").filter(|host| !host.is_empty() && !host.contains('/'));
        if host.is_none() {
            let source = BadIdent { what: "an address such as \"https://10.0.0.1:8443\"", text: url.to_owned() };
            return Err(ParamsError::Bad { key: URL, source });
        }
        let fingerprint = value(text, FINGERPRINT).ok_or(ParamsError::Missing(FINGERPRINT))?;
        let fingerprint = fingerprint.parse().map_err(|source| ParamsError::Bad { key: FINGERPRINT, source })?;
        let token = value(text, TOKEN).ok_or(ParamsError::Missing(TOKEN))?;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let source = BadIdent { what: "a token of printable ASCII", text: "(not shown)".to_owned() };
            return Err(ParamsError::Bad { key: TOKEN, source });
        }
        let mac = value(text, MAC).map(|mac| mac.parse().map_err(|source| ParamsError::Bad { key: MAC, source })).transpose()?;
        Ok(Params { url: url.to_owned(), fingerprint, token: token.to_owned(), mac })
    }
}

/// The address that the machine booted with, as iPXE has it, so that the agent needs no DHCP client of its own:
/// `rackwright.ip=ADDRESS:NETMASK:GATEWAY`, the gateway possibly empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticAddress {
    /// The machine's address.
    pub address: Ipv4Addr,
    /// Netmask, contiguous.
    pub netmask: Ipv4Addr,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
}

impl StaticAddress {
    /// Reads `rackwright.ip` from a kernel command line; `None` when it is not there.
    ///
    /// # Errors
    /// [`ParamsError::Bad`] when it is there and can't be read.
    pub fn from_cmdline(text: &str) -> Result<Option<StaticAddress>, ParamsError> {
        const IP: &str = "rackwright.ip";
        let Some(text) = value(text, IP) else { return Ok(None) };
        let parse = || {
            let mut parts = text.split(':');
            let address = parts.next()?.parse().ok()?;
            let netmask: Ipv4Addr = parts.next()?.parse().ok()?;
            let gateway = match parts.next() {
                None | Some("") => None,
                Some(gateway) => Some(gateway.parse::<Ipv4Addr>().ok()?).filter(|gateway| !gateway.is_unspecified()),
            };
            let contiguous = u32::from(netmask).leading_ones() == u32::from(netmask).count_ones();
            (parts.next().is_none() && contiguous).then_some(StaticAddress { address, netmask, gateway })
        };
        parse().map(Some).ok_or_else(|| ParamsError::Bad {
            key: IP,
            source: BadIdent { what: "an address such as \"10.0.4.12:255.255.255.0:10.0.4.1\"", text: text.to_owned() },
        })
    }
}

fn value<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn line() -> String {
        format!(
            "BOOT_IMAGE=/vmlinuz console=ttyS0 rackwright.url=https://10.0.0.1:8443 rackwright.fingerprint=sha256:{HEX} \
             rackwright.token=abc123 rackwright.mac=52:54:00:12:34:56 rackwright.ip=10.0.4.12:255.255.255.0:10.0.4.1\n"
        )
    }

    #[test]
    fn a_whole_command_line_is_read() {
        let params = Params::from_cmdline(&line()).unwrap();
        assert_eq!(params.url, "https://10.0.0.1:8443");
        assert_eq!(params.fingerprint.to_string(), format!("sha256:{HEX}"));
        assert_eq!(params.token, "abc123");
        assert_eq!(params.mac, Some("52:54:00:12:34:56".parse().unwrap()));
        let address = StaticAddress::from_cmdline(&line()).unwrap().unwrap();
        assert_eq!(address.address, Ipv4Addr::new(10, 0, 4, 12));
        assert_eq!(address.gateway, Some(Ipv4Addr::new(10, 0, 4, 1)));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let without = |key: &str| line().split(' ').filter(|word| !word.starts_with(key)).collect::<Vec<_>>().join(" ");
        for key in ["rackwright.url", "rackwright.fingerprint", "rackwright.token"] {
            let error = Params::from_cmdline(&without(key)).unwrap_err();
            assert_eq!(error.to_string(), format!("the kernel command line has no {key}="));
        }
        assert_eq!(Params::from_cmdline(&without("rackwright.mac")).unwrap().mac, None);
        for word in [
            "rackwright.url=http://10.0.0.1",
            "rackwright.url=https://",
            "rackwright.fingerprint=12",
            "rackwright.mac=1",
            "rackwright.token=",
        ] {
            assert!(matches!(Params::from_cmdline(&format!("{} {word}", line())), Err(ParamsError::Bad { .. })), "{word}");
        }
    }

    #[test]
    fn the_token_is_never_printed() {
        assert!(!format!("{:?}", Params::from_cmdline(&line()).unwrap()).contains("abc123"));
    }

    #[test]
    fn an_address_may_lack_a_gateway_but_nothing_else() {
        let read = |text: &str| StaticAddress::from_cmdline(&format!("rackwright.ip={text}"));
        assert_eq!(read("10.0.2.15:255.255.255.0:").unwrap().unwrap().gateway, None);
        assert_eq!(read("10.0.2.15:255.255.255.0:0.0.0.0").unwrap().unwrap().gateway, None);
        assert_eq!(StaticAddress::from_cmdline("quiet").unwrap(), None);
        for text in ["", "10.0.2.15", "10.0.2.15:255.0.255.0:", "10.0.2.15:255.255.255.0::x", "10.0.2.15:24:10.0.2.2"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
