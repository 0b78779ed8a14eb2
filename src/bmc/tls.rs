//! Whether a BMC's certificate is trusted: exactly the pinned one, a chain to a CA of ours, or (laboratory) any.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{model::Trust, wire::tls};

/// Why a set-up can't work.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("no CA is configured (caFile), so no certificate can be trusted by CA; pin the BMC's fingerprint or set caFile")]
    NoCa,
    #[error("the CA file {path} can't be read: {why}")]
    CaFile { path: String, why: String },
    #[error("TLS can't be set up")]
    Rustls(#[source] Error),
}

/// Reads a PEM bundle of CAs.
pub(super) fn load_cas(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let bad = |why: String| TlsError::CaFile { path: path.display().to_string(), why };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(Arc::new(roots)) }
}

/// The TLS client for one way to trust.
pub(super) fn client(trust: &Trust, cas: Option<&Arc<RootCertStore>>) -> Result<ClientConfig, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Ca => WebPkiServerVerifier::builder_with_provider(cas.ok_or(TlsError::NoCa)?.clone(), tls::provider())
            .build()
            .map_err(|error| TlsError::Rustls(Error::General(error.to_string())))?,
        Trust::Pinned(pin) => tls::by_key(Some(pin.0)),
        Trust::Insecure => tls::by_key(None),
    };
    tls::client(verifier).map_err(TlsError::Rustls)
}

/// What a failed handshake says about the certificate, if that is why it failed.
pub(super) fn certificate_problem(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error {
            Error::InvalidCertificate(CertificateError::Other(other)) if other.0.is::<tls::PinMismatch>() => {
                Some(format!("{}; if the BMC was given a new one, change the pin", other.0))
            }
            Error::InvalidCertificate(CertificateError::Other(other)) => Some(other.0.to_string()),
            Error::InvalidCertificate(why) => Some(format!("its certificate is not trusted: {why:?}")),
            _ => None,
        };
    }
    // An io::Error hides what it wraps from `source`, and one may wrap another.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => certificate_problem(inner),
        None => error.source().and_then(certificate_problem),
    }
}
