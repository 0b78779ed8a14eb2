//! Asks web pages for health gates: one GET, no redirect, no more of the answer than its head.
//!
//! **Non-goals.** When to ask, and whether an answer passes: `engine` and `plan`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use rustls::{
    CertificateError, RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde::Deserialize;

use crate::{model::ProbeAnswer, ports::Probe, wire::tls};

/// How long it may take to connect. A machine of ours is near; one that is not there answers never.
const CONNECT: Duration = Duration::from_secs(3);
/// How long it may take until the head of the answer is there. A health page that takes longer is not healthy.
const IN_ALL: Duration = Duration::from_secs(10);

/// Part of the controller's configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// PEM file of the CAs that sign the certificates of `https` pages. Without it no such page is trusted.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Why probes can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA file.
    #[error("the CA file {path} (probe.caFile) can't be used: {why}")]
    CaFile {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// The HTTP client.
    #[error("the client for probes can't be set up")]
    Client(#[source] reqwest::Error),
    /// TLS.
    #[error("TLS for probes can't be set up")]
    Tls(#[source] rustls::Error),
}

/// Asks by HTTP.
pub struct HttpProbe {
    http: reqwest::Client,
    trusts: bool,
}

impl HttpProbe {
    /// A client that follows no redirect, uses no proxy, and keeps no connection.
    ///
    /// # Errors
    /// The CA file can't be read or holds no certificate.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let roots = config.ca_file.as_ref().map(|path| load(path)).transpose()?;
        let trusts = roots.is_some();
        let verifier = match roots {
            Some(roots) => WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .build()
                .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?,
            // Never asked: pages over TLS are refused before.
            None => tls::by_key(Some([0; 32])),
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(IN_ALL)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("rackwright/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls::client(verifier).map_err(Error::Tls)?)
            .build()
            .map_err(Error::Client)?;
        Ok(Self { http, trusts })
    }
}

fn load(path: &std::path::Path) -> Result<RootCertStore, Error> {
    let bad = |why: String| Error::CaFile { path: path.display().to_string(), why };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        // A system's bundle may hold some that no TLS library reads.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(roots) }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn ask(&self, url: &str) -> ProbeAnswer {
        if url.starts_with("https:") && !self.trusts {
            return ProbeAnswer::Failed("no CA is configured that its certificate could be trusted by (probe.caFile)".to_owned());
        }
        // The body is dropped with the answer: nobody reads it.
        match self.http.get(url).send().await {
            Ok(answer) => ProbeAnswer::Status(answer.status().as_u16()),
            Err(error) => ProbeAnswer::Failed(words(&error)),
        }
    }
}

/// What went wrong, without numbers that change from time to time.
fn words(error: &reqwest::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(problem) = error.downcast_ref::<rustls::Error>() {
            return match problem {
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                    "its certificate is of no CA that is trusted".to_owned()
                }
                problem => format!("TLS: {problem}"),
            };
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            if let Some(inner) = io.get_ref() {
                cause = Some(inner);
                continue;
            }
            return match io.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
                std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => "no route to it".to_owned(),
                _ => io.to_string(),
            };
        }
        last = error.to_string();
        cause = error.source();
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server that answers each connection with these bytes, or hangs.
    async fn serving(answer: Option<&'static [u8]>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                match answer {
                    Some(answer) => drop(stream.write_all(answer).await),
                    None => kept.push(stream),
                }
            }
        });
        format!("http://{address}/healthz")
    }

    async fn ask(url: &str) -> ProbeAnswer {
        HttpProbe::new(&Config::default()).unwrap().ask(url).await
    }

    fn failed(answer: ProbeAnswer) -> String {
        match answer {
            ProbeAnswer::Failed(why) => why,
            ProbeAnswer::Status(status) => panic!("{status}"),
        }
    }

    #[tokio::test]
    async fn a_status_is_told_whatever_it_is_and_no_redirect_is_followed() {
        for (answer, status) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], 200),
            (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", 503),
            (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n", 302),
            // Its body never ends, and is never read.
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nxxxx", 200),
        ] {
            assert_eq!(ask(&serving(Some(answer)).await).await, ProbeAnswer::Status(status));
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_in_words() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(failed(ask(&format!("http://{closed}/")).await), "connection refused");
        let garbage = failed(ask(&serving(Some(b"SSH-2.0-OpenSSH_9.6\r\n")).await).await);
        assert!(garbage.contains("HTTP") || garbage.contains("invalid"), "{garbage}");
        let name = failed(ask("http://no-such-host.invalid/").await);
        assert!(name.contains("lookup") || name.contains("resolve") || name.contains("known"), "{name}");
        assert!(failed(ask(&format!("https://{closed}/")).await).contains("probe.caFile"));
    }

    #[test]
    fn a_file_without_a_ca_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = Config { ca_file: Some(file.path().to_owned()) };
        assert!(HttpProbe::new(&config).err().unwrap().to_string().contains("holds no certificate"));
    }
}
