//! Where clients reach us, and the URLs that follow from it.

use std::net::Ipv4Addr;

use crate::model::{AttemptId, Fingerprint, Mac};

/// Where clients reach us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Our address, as clients see it.
    pub address: Ipv4Addr,
    /// Port of the TFTP server.
    pub tftp_port: u16,
    /// Port of the HTTP server.
    pub http_port: u16,
    /// Port of the HTTPS server.
    pub https_port: u16,
    /// Fingerprint of the HTTPS server's certificate.
    pub fingerprint: Fingerprint,
    /// Added to the agent's kernel command line.
    pub kernel_arguments: Vec<String>,
}

impl ServerFacts {
    /// Base of the plain HTTP server, without a final slash.
    pub fn http(&self) -> String {
        match self.http_port {
            80 => format!("http://{}", self.address),
            port => format!("http://{}:{port}", self.address),
        }
    }

    /// Base of the HTTPS server, without a final slash.
    pub fn https(&self) -> String {
        format!("https://{}:{}", self.address, self.https_port)
    }

    /// URL of a boot file.
    pub fn boot_url(&self, name: &str) -> String {
        format!("{}/boot/{name}", self.http())
    }

    /// A boot file as firmware is told it: its name, or, when our TFTP server is not at the port that DHCP implies, a URL,
    /// which simulated clients and iPXE understand.
    pub fn tftp_name(&self, name: &str) -> String {
        match self.tftp_port {
            69 => name.to_owned(),
            port => format!("tftp://{}:{port}/{name}", self.address),
        }
    }

    /// URL of a machine's iPXE script.
    pub fn script_url(&self, mac: Mac) -> String {
        format!("{}/ipxe/{mac}", self.http())
    }

    /// URL that the system installed by an attempt calls home to.
    pub fn call_home_url(&self, attempt: &AttemptId, token: &str) -> String {
        format!("{}/callhome/v1/{}/{}/{token}", self.http(), attempt.machine, attempt.number)
    }

    /// URL that the system installed by an attempt publishes values at.
    pub fn handoff_url(&self, attempt: &AttemptId, token: &str) -> String {
        format!("{}/handoff/v1/{}/{}/{token}", self.https(), attempt.machine, attempt.number)
    }

    /// Absolute URL of an image: as it is, or under our image folder. HTTPS, so that the agent can show its token.
    pub fn image_url(&self, url: &str) -> String {
        if url.starts_with("http://") || url.starts_with("https://") {
            return url.to_owned();
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let path = url.trim_start_matches('/').bytes().map(|byte| match byte {
            byte if plain(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        });
        format!("{}/images/{}", self.https(), path.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_short_where_ports_are_the_usual_ones() {
        let mut facts = ServerFacts {
            address: Ipv4Addr::new(10, 0, 0, 1),
            tftp_port: 69,
            http_port: 80,
            https_port: 8443,
            fingerprint: Fingerprint([0; 32]),
            kernel_arguments: Vec::new(),
        };
        assert_eq!(facts.tftp_name("a"), "a");
        assert_eq!(facts.boot_url("a"), "http://10.0.0.1/boot/a");
        facts.tftp_port = 6969;
        assert_eq!(facts.tftp_name("a"), "tftp://10.0.0.1:6969/a");
        assert_eq!(facts.image_url("https://x/y"), "https://x/y");
        assert_eq!(facts.image_url("debian 12/a.raw"), "https://10.0.0.1:8443/images/debian%2012/a.raw");
    }
}
