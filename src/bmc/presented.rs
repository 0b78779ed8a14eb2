//! Which certificate a BMC presents, asked before anybody trusts it: a TLS handshake, and nothing is sent through it.

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{client, config::Config, error::Error};
use crate::{model::Fingerprint, ports::BmcError, wire::tls};

/// The certificate that the BMC at `address` presents and has the key of. No credential and no request is sent.
///
/// That says only who answers now. Whether it is the BMC has to be compared with what the BMC's own page or console shows.
///
/// # Errors
/// `address` is no `https://` address, nobody is there, or what is there does not speak TLS.
pub async fn presented(config: &Config, address: &str) -> Result<Fingerprint, BmcError> {
    let late = || Error::Timeout { url: address.to_owned(), doing: "asking for its certificate".to_owned() };
    // One for the connection, as always, and as long again for the handshake: old BMCs compute RSA slowly.
    let limit = config.connect_timeout * 2;
    Ok(tokio::time::timeout(limit, handshake(address)).await.map_err(|_| late()).and_then(|done| done)?)
}

async fn handshake(address: &str) -> Result<Fingerprint, Error> {
    let url = client::base(address)?;
    let no_tls = |why: &str| Error::Address { address: address.to_owned(), why: why.to_owned() };
    if url.scheme() != "https" {
        return Err(no_tls("over plain http there is no certificate"));
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let connect = |source: Box<dyn std::error::Error + Send + Sync>| Error::Connect { url: address.to_owned(), source };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| connect(error.into()))?;
    let name = ServerName::try_from(host).map_err(|_| no_tls("its host is no name"))?;
    let client = tls::client(tls::by_key(None)).map_err(|error| Error::Tls { address: address.to_owned(), source: error.into() })?;
    let stream = TlsConnector::from(std::sync::Arc::new(client)).connect(name, stream).await.map_err(|error| connect(error.into()))?;
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    certificate.map(|der| Fingerprint::of(der)).ok_or_else(|| connect("it presents no certificate".into()))
}
