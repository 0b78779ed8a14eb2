//! Whether a BMC's certificate is trusted: exactly the pinned one, a chain to a CA of ours, or (laboratory) any.
//!
//! Whatever the certificate, the handshake signature is always verified against its key: a certificate is public, and only the
//! signature proves that the peer holds the key. rustls' own check can't read X.509 v1 certificates, which old BMCs have, so
//! pinned and unchecked certificates are verified here with the public key alone.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::model::{Fingerprint, Trust};

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

/// The peer shows another certificate than the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("its certificate has the fingerprint {seen}, but {pinned} is pinned; if the BMC was given a new one, change the pin")]
pub(super) struct PinMismatch {
    pinned: Fingerprint,
    seen: Fingerprint,
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
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Ca => WebPkiServerVerifier::builder_with_provider(cas.ok_or(TlsError::NoCa)?.clone(), provider.clone())
            .build()
            .map_err(|error| TlsError::Rustls(Error::General(error.to_string())))?,
        Trust::Pinned(pin) => Arc::new(ByKey { pin: Some(*pin), provider: provider.clone() }),
        Trust::Insecure => Arc::new(ByKey { pin: None, provider: provider.clone() }),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A client speaks to one BMC; the default makes room for 256 and there are thousands of clients.
    config.resumption = Resumption::in_memory_sessions(2);
    Ok(config)
}

/// Checks the fingerprint, if there is one, and that the peer holds the certificate's key. Names, dates and issuers don't count:
/// a pin says all of that, and BMCs often have them wrong.
#[derive(Debug)]
struct ByKey {
    pin: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ByKey {
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        tls13: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let key: &[u8] = &certificate.public_key().subject_public_key.data;
        let schemes = self.provider.signature_verification_algorithms.mapping;
        let algorithms = schemes.iter().find(|(scheme, _)| *scheme == signed.scheme).map_or(&[][..], |(_, algorithms)| algorithms);
        // TLS 1.3 ties a scheme to one curve (RFC 8446 section 4.2.3); TLS 1.2 does not. RSA and ECDSA keys have different
        // encodings, so an algorithm of the wrong family can't read the key and never verifies.
        let algorithms = if tls13 { &algorithms[..algorithms.len().min(1)] } else { algorithms };
        if algorithms.iter().any(|algorithm| algorithm.verify_signature(key, message, signed.signature()).is_ok()) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = Fingerprint::of(end_entity);
        match self.pin {
            Some(pinned) if pinned != seen => {
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(PinMismatch { pinned, seen })))))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // PKCS#1 v1.5 is not allowed in a TLS 1.3 handshake (RFC 8446 section 4.2.3).
        let legacy = [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PKCS1_SHA384, SignatureScheme::RSA_PKCS1_SHA512];
        if legacy.contains(&signed.scheme) {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        self.verify(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake says about the certificate, if that is why it failed.
pub(super) fn certificate_problem(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error {
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
