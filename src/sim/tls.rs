//! One self-signed certificate for all BMCs of a simulator, kept in its state folder so that pins survive a restart.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::SimError;
use crate::model::Fingerprint;

/// TLS settings that all BMCs share.
#[derive(Clone)]
pub(crate) struct Certificates {
    right: Arc<ServerConfig>,
    wrong: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

impl Certificates {
    /// Reads `bmc.der` and `bmc.key` from the folder, or makes them. Another certificate, for the fault, is made each time.
    pub(crate) fn load(folder: &Path) -> Result<Self, SimError> {
        let (certificate, key) = match read(folder)? {
            Some(pair) => pair,
            None => {
                let pair = make()?;
                write(folder, &pair)?;
                pair
            }
        };
        let fingerprint = Fingerprint::of(&certificate);
        let (other, other_key) = make()?;
        Ok(Self { right: config(certificate, key)?, wrong: config(other, other_key)?, fingerprint })
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn right(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.right)
    }

    pub(crate) fn wrong(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.wrong)
    }
}

type Pair = (Vec<u8>, Vec<u8>);

fn make() -> Result<Pair, SimError> {
    let made = rcgen::generate_simple_self_signed(["rackwright-sim-bmc".to_owned()]).map_err(SimError::Certificate)?;
    Ok((made.cert.der().to_vec(), made.signing_key.serialize_der()))
}

fn read(folder: &Path) -> Result<Option<Pair>, SimError> {
    let (certificate, key) = (folder.join("bmc.der"), folder.join("bmc.key"));
    if !certificate.exists() {
        return Ok(None);
    }
    let read = |path: &Path| fs::read(path).map_err(|source| SimError::State { path: path.to_owned(), source });
    Ok(Some((read(&certificate)?, read(&key)?)))
}

/// The certificate is written last: it stands for both.
fn write(folder: &Path, (certificate, key): &Pair) -> Result<(), SimError> {
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        open.and_then(|mut file| file.write_all(bytes)).map_err(|source| SimError::State { path, source })
    };
    put("bmc.key", key)?;
    put("bmc.der", certificate)
}

fn config(certificate: Vec<u8>, key: Vec<u8>) -> Result<Arc<ServerConfig>, SimError> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![CertificateDer::from(certificate)], key))
        .map_err(SimError::Tls)?;
    // BMCs speak HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
