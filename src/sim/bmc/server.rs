//! The listener of one BMC. It is closed while the fault `bmc-unreachable` is armed, and shows another certificate while
//! `bmc-wrong-certificate` is.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use axum_server::{Handle, tls_rustls::RustlsConfig};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Bmc, handle::router};
use crate::sim::{fault::Fault, tls::Certificates};

/// A BMC that listens.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

/// Binds now, and serves until `stop`.
pub(crate) fn listen(bmc: Arc<Bmc>, certificates: Certificates, stop: CancellationToken) -> io::Result<Listening> {
    let config = &bmc.machine.config;
    let listener = bind(SocketAddr::from((config.address, config.port)))?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(serve(bmc, address, listener, certificates, stop));
    Ok(Listening { address, task })
}

async fn serve(bmc: Arc<Bmc>, address: SocketAddr, listener: TcpListener, certificates: Certificates, stop: CancellationToken) {
    let machine = Arc::clone(&bmc.machine);
    let mut changed = machine.faults.watch();
    let app = router(bmc).into_make_service();
    let mut listener = Some(listener);
    while !stop.is_cancelled() {
        changed.mark_unchanged();
        let (away, wrong) = (machine.faults.has(Fault::BmcUnreachable), machine.faults.has(Fault::BmcWrongCertificate));
        let until_it_differs = async {
            while (away, wrong) == (machine.faults.has(Fault::BmcUnreachable), machine.faults.has(Fault::BmcWrongCertificate)) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let handle = Handle::<SocketAddr>::new();
        let serving = async {
            if away {
                info!(machine = %machine.config.name, "the BMC is unreachable");
                return std::future::pending().await;
            }
            let listener = match listener.take() {
                Some(listener) => listener,
                None => bind(address)?,
            };
            let tls = RustlsConfig::from_config(if wrong { certificates.wrong() } else { certificates.right() });
            axum_server::from_tcp_rustls(listener, tls)?.handle(handle.clone()).serve(app.clone()).await
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = until_it_differs => {}
            result = serving => if let Err(error) = result {
                warn!(machine = %machine.config.name, %address, %error, "the BMC can't listen");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            },
        }
        // Connections end with the listener, as when a network cable is pulled.
        handle.shutdown();
        if away {
            listener = None;
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // The same port must be free again at once after `bmc-unreachable`.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    Ok(socket.into())
}
