//! Servers that are known by their certificate's key: exactly a pinned certificate, or any.
//!
//! Whatever the certificate, the handshake signature is always verified against its key: a certificate is public, and only the
//! signature proves that the peer holds the key. rustls' own check can't read X.509 v1 certificates, which old BMCs have, so the key is
//! read here and nothing else: names, dates and issuers don't count. A pin says more than they do, BMCs often have them wrong, and a
//! machine that starts in RAM has a wrong clock.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};

/// The peer shows another certificate than the pinned one: SHA-256 of each in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct PinMismatch {
    /// The one that was wanted.
    pub pinned: [u8; 32],
    /// The one that was shown.
    pub seen: [u8; 32],
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seen, pinned) = (hex::encode(self.seen), hex::encode(self.pinned));
        write!(f, "its certificate has the fingerprint sha256:{seen}, but sha256:{pinned} is pinned")
    }
}

/// The cryptography of all our TLS clients.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    PROVIDER.clone()
}

/// A verifier for the certificate with this SHA-256 fingerprint. `None` is for any certificate: bytes whose digest is checked
/// afterwards, and laboratories.
pub fn by_key(pin: Option<[u8; 32]>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(ByKey { pin, provider: provider() })
}

/// A TLS client that asks `verifier`, for few servers.
///
/// # Errors
/// When the cryptography supports no common protocol version.
pub fn client(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // The default makes room for 256 servers, and there are thousands of clients.
    config.resumption = Resumption::in_memory_sessions(2);
    Ok(config)
}

#[derive(Debug)]
struct ByKey {
    pin: Option<[u8; 32]>,
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
        let key = public_key(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
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
        let seen = Sha256::digest(end_entity).into();
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

/// Tags of X.690.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// `[0] EXPLICIT`: the version, which a certificate of version 1 does not have.
const VERSION: u8 = 0xa0;

/// The `subjectPublicKey` of a certificate in DER (RFC 5280 section 4.1).
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = tagged(SEQUENCE, certificate)?;
    let (mut fields, _) = tagged(SEQUENCE, certificate)?;
    if let Some((_, rest)) = tagged(VERSION, fields) {
        fields = rest;
    }
    for _serial_algorithm_issuer_validity_subject in 0..5 {
        (_, _, fields) = value(fields)?;
    }
    let (key, _) = tagged(SEQUENCE, fields)?;
    let (_algorithm, key) = tagged(SEQUENCE, key)?;
    let (bits, _) = tagged(BIT_STRING, key)?;
    // A key is whole bytes: no bit of the last one is unused.
    bits.strip_prefix(&[0])
}

fn tagged(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    value(der).filter(|(seen, ..)| *seen == tag).map(|(_, content, rest)| (content, rest))
}

/// The first value of some DER: its tag, its content, and what follows (X.690 section 8.1; tags of one byte, definite lengths).
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(vec!["bmc.example".to_owned()]).unwrap()
    }

    #[test]
    fn the_key_of_a_certificate_is_found() {
        let made = made();
        assert_eq!(public_key(made.cert.der()), Some(made.signing_key.public_key_raw()));
        for length in 0..150 {
            assert_eq!(public_key(&made.cert.der()[..length]), None);
        }
    }

    #[test]
    fn another_certificate_than_the_pinned_one_is_refused_with_both_fingerprints() {
        let (made, name) = (made(), ServerName::try_from("bmc.example").unwrap());
        let look =
            |pin| by_key(pin).verify_server_cert(made.cert.der(), &[], &name, &[], UnixTime::since_unix_epoch(std::time::Duration::ZERO));
        let seen: [u8; 32] = Sha256::digest(made.cert.der()).into();
        assert!(look(None).is_ok() && look(Some(seen)).is_ok());
        let Err(Error::InvalidCertificate(CertificateError::Other(why))) = look(Some([7; 32])) else { panic!("it was taken") };
        let text = why.0.to_string();
        assert!(text.contains(&hex::encode(seen)) && text.contains(&"07".repeat(32)), "{text}");
    }

    proptest! {
        #[test]
        fn hostile_certificates_do_no_harm(changes in prop::collection::vec((0usize..300, any::<u8>()), 0..20), length in 0usize..400) {
            let mut der = made().cert.der().to_vec();
            for (at, byte) in changes {
                if let Some(place) = der.get_mut(at) {
                    *place = byte;
                }
            }
            der.truncate(length);
            let _ = public_key(&der);
        }
    }
}
