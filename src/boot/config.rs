//! The boot server's part of `rackwright.yaml`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// Configuration of the boot server. All but `advertise` has a default; port 0 takes any free port, and what clients are told
/// follows the ports that were bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Address that clients reach us at.
    pub advertise: Ipv4Addr,
    /// Devices that DHCP is bound to, so that broadcasts go out where they came in; needs CAP_NET_RAW. Empty: one plain socket
    /// on the `dhcp` address, enough for relayed requests, and for broadcasts on a host with one network.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Where DHCP listens. `null`: no DHCP.
    #[serde(default = "default_dhcp")]
    pub dhcp: Option<SocketAddr>,
    /// Where the PXE boot server listens, for networks in proxy mode. `null`: not at all.
    #[serde(default = "default_proxy")]
    pub proxy_dhcp: Option<SocketAddr>,
    /// Where TFTP listens.
    #[serde(default = "default_tftp")]
    pub tftp: SocketAddr,
    /// Largest TFTP block granted, in bytes. The default fits an Ethernet frame: fragments get lost, and some firmware can't
    /// put them together.
    #[serde(default = "default_tftp_block_size")]
    pub tftp_block_size: u16,
    /// Where plain HTTP listens: loaders, scripts, kernel, call-home.
    #[serde(default = "default_http")]
    pub http: SocketAddr,
    /// Where HTTPS listens, for the agent: orders and images.
    #[serde(default = "default_https")]
    pub https: SocketAddr,
    /// Folder of undionly.kpxe, snponly.efi and ipxe.efi; Debian's package `ipxe` puts them into the default.
    #[serde(default = "default_files")]
    pub files: PathBuf,
    /// GRUB image that boots a UEFI machine from its disk. Default: `localboot.efi` in `files`.
    #[serde(default)]
    pub localboot: Option<PathBuf>,
    /// Folder of images.
    #[serde(default)]
    pub images: Option<PathBuf>,
    /// The agent's kernel.
    #[serde(default)]
    pub kernel: Option<PathBuf>,
    /// The agent's initial RAM file system.
    #[serde(default)]
    pub initramfs: Option<PathBuf>,
    /// Added to the agent's kernel command line, such as `console=ttyS0`.
    #[serde(default)]
    pub kernel_arguments: Vec<String>,
    /// Whether to answer IPv6 router solicitations on `interfaces`, announcing no route: without any answer iPXE waits 16 s at
    /// each start. Skipped without CAP_NET_RAW, where this host forwards IPv6, and where a router answers by itself.
    #[serde(default = "default_true")]
    pub router_advertisements: bool,
}

impl Config {
    /// Defaults, for clients that reach us at `advertise`.
    pub fn new(advertise: Ipv4Addr) -> Self {
        Self {
            advertise,
            interfaces: Vec::new(),
            dhcp: default_dhcp(),
            proxy_dhcp: default_proxy(),
            tftp: default_tftp(),
            tftp_block_size: default_tftp_block_size(),
            http: default_http(),
            https: default_https(),
            files: default_files(),
            localboot: None,
            images: None,
            kernel: None,
            initramfs: None,
            kernel_arguments: Vec::new(),
            router_advertisements: default_true(),
        }
    }
}

fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn default_dhcp() -> Option<SocketAddr> {
    Some(any(67))
}

fn default_proxy() -> Option<SocketAddr> {
    Some(any(4011))
}

fn default_tftp() -> SocketAddr {
    any(69)
}

fn default_tftp_block_size() -> u16 {
    1468
}

fn default_http() -> SocketAddr {
    any(8068)
}

fn default_https() -> SocketAddr {
    any(8443)
}

fn default_files() -> PathBuf {
    PathBuf::from("/usr/lib/ipxe")
}

fn default_true() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_a_whole_configuration() {
        let config: Config = serde_yaml::from_str("advertise: 10.0.4.1\n").unwrap();
        assert_eq!(config, Config::new(Ipv4Addr::new(10, 0, 4, 1)));
        let config: Config = serde_yaml::from_str("{advertise: 10.0.4.1, dhcp: null, proxyDhcp: '127.0.0.1:0'}").unwrap();
        assert_eq!((config.dhcp, config.proxy_dhcp), (None, Some("127.0.0.1:0".parse().unwrap())));
        assert!(serde_yaml::from_str::<Config>("{advertise: 10.0.4.1, tfpt: 'x'}").is_err());
    }
}
