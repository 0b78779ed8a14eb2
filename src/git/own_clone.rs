//! The controller's own bare repository.

use std::{path::Path, sync::Once};

use git2::Repository;

use crate::model::RetryClass;

use super::{Config, GitError};

/// How long a server may take to accept a connection. A site's link may be slow; a dead one should not hold a turn for long.
const CONNECT_MS: i32 = 10_000;

/// How long a server may be silent in a conversation. Forges compress large packs for tens of seconds before the first byte.
const SILENCE_MS: i32 = 60_000;

/// Opens or makes it. The clone can be deleted at any time while the controller is stopped: it is fetched again.
pub(super) fn open(config: &Config, dir: &Path) -> Result<Repository, GitError> {
    once_per_process();
    if let Some(ca) = &config.ca_file {
        trust(ca)?;
    }
    let made = match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(false) => Repository::open_bare(dir),
        Ok(true) | Err(_) => Repository::init_bare(dir),
    };
    let advice =
        format!("{} is not a bare Git repository of ours, or it is damaged. Stop, remove it and start: it is fetched again", dir.display());
    let repository = made.map_err(|source| GitError::caused(RetryClass::Stalled, advice, source))?;
    // A power cut must not leave a ref that points at objects which never reached the disk.
    let durable = repository.config().and_then(|mut config| {
        config.set_bool("core.fsyncObjectFiles", true)?;
        // A redirect would carry our credentials to wherever it points.
        config.set_bool("http.followRedirects", false)
    });
    durable.map_err(|source| GitError::here(&format!("configure {}", dir.display()), source))?;
    Ok(repository)
}

fn once_per_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: libgit2 keeps these two as plain globals, and every use of the network in this process comes after this
        // `Once`, because each goes through `open`.
        let set = unsafe {
            git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT_MS)
                .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(SILENCE_MS))
        };
        if let Err(error) = set {
            tracing::warn!(%error, "git: no timeouts: a silent server can hold the controller");
        }
    });
}

/// libgit2 has one set of trusted certificates for the process: two sources with two files trust both.
fn trust(ca: &Path) -> Result<(), GitError> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: adds to OpenSSL's store, which locks itself; calls are serialised by the guard.
    unsafe { git2::opts::set_ssl_cert_file(ca) }
        .map_err(|source| GitError::caused(RetryClass::Stalled, format!("can't read certificates from caFile {}", ca.display()), source))
}
