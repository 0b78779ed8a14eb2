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

/// The acceptor for the certificate in `state_dir`, which is made if it is not there, and the certificate's fingerprint.
///
/// # Errors
/// The file can't be read, written or understood.
pub fn open(state_dir: &Path, address: Ipv4Addr) -> io::Result<(TlsAcceptor, Fingerprint)> {
    let path = state_dir.join(FILE);
    if !path.try_exists()? {
        write_private(&path, make(address).map_err(io::Error::other)?.as_bytes())?;
    }
    let pem = std::fs::read(&path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(io::Error::other)?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(io::Error::other)?;
    let fingerprint = Fingerprint::of(&certificate);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .map_err(io::Error::other)?;
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint))
}

fn make(address: Ipv4Addr) -> Result<String, rcgen::Error> {
    let names = vec![address.to_string(), "rackwright".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok(format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem()))
}
