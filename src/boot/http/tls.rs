//! The HTTPS server's certificate: self-signed, made once, trusted by its fingerprint on the agent's kernel command line.

use std::{io, net::Ipv4Addr, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use crate::{boot::tokens::write_private, model::Fingerprint};

/// Key and certificate in one file, so that a crash can't leave one without the other.
const FILE: &str = "boot-tls.pem";
/// Where the part of it begins that may be told: the key comes first.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The acceptor for the certificate in `state_dir`, which is made if it is not there, the certificate's fingerprint, and itself as PEM.
///
/// # Errors
/// The file can't be read, written or understood.
pub fn open(state_dir: &Path, address: Ipv4Addr) -> io::Result<(TlsAcceptor, Fingerprint, String)> {
    let path = state_dir.join(FILE);
    if !path.try_exists()? {
        write_private(&path, make(address).map_err(io::Error::other)?.as_bytes())?;
    }
    let text = std::fs::read_to_string(&path)?;
    let pem = text.as_bytes();
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(io::Error::other)?;
    let certificate = CertificateDer::from_pem_slice(pem).map_err(io::Error::other)?;
    let public = text.find(CERTIFICATE).map(|at| text[at..].to_owned()).ok_or_else(|| io::Error::other("it holds no certificate"))?;
    let fingerprint = Fingerprint::of(&certificate);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .map_err(io::Error::other)?;
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint, public))
}

fn make(address: Ipv4Addr) -> Result<String, rcgen::Error> {
    let names = vec![address.to_string(), "rackwright".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok(format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem()))
}
