//! Starts and stops the servers.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

use super::{
    Config,
    dhcp::{answer::Via, socket},
    facts::ServerFacts,
    files,
    handoff::Store,
    http,
    router::Advertiser,
    script,
    state::State,
    tftp::server::TftpServer,
    tokens::Tokens,
};
use crate::{
    model::{BootTable, Fingerprint},
    ports::{Boot, Witness},
};

/// Why the boot server does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootServerError {
    /// A socket can't be had.
    #[error("{what} can't listen on {address}{}{}", device.as_ref().map(|device| format!(" of {device}")).unwrap_or_default(), hint(source))]
    Listen {
        /// Which server.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// On which device only, if on one.
        device: Option<String>,
        /// What the system says.
        source: io::Error,
    },
    /// Something in the state folder can't be used.
    #[error("{} can't be used", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A kernel argument that would not stay one.
    #[error("kernelArguments: {argument:?} must be printable, without blanks, quotes, '$', '|', '&' or a leading '#'")]
    KernelArgument {
        /// The argument.
        argument: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (ports under 1024 need CAP_NET_BIND_SERVICE, `interfaces` needs CAP_NET_RAW)",
        io::ErrorKind::AddrInUse => " (another server has it: `ss -lnptu` shows which)",
        _ => "",
    }
}

/// Where the servers listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// DHCP, if it is on.
    pub dhcp: Option<SocketAddr>,
    /// The PXE boot server port, if it is on.
    pub proxy_dhcp: Option<SocketAddr>,
    /// TFTP.
    pub tftp: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// HTTPS.
    pub https: SocketAddr,
}

/// The boot server. Ends when dropped or stopped.
pub struct Server {
    state: Arc<State>,
    addresses: Addresses,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds all sockets and serves in the background, with an empty table: everyone gets silence until one is published.
    /// Token key and certificate are kept in `state_dir`. A boot file that is missing is a warning here, and an error in the log
    /// when it is asked for.
    ///
    /// # Errors
    /// [`BootServerError`]; nothing is left running then.
    pub async fn start(config: Config, state_dir: &Path, witness: Arc<dyn Witness>) -> Result<Server, BootServerError> {
        if let Some(argument) = config.kernel_arguments.iter().find(|argument| !script::is_kernel_argument(argument)) {
            return Err(BootServerError::KernelArgument { argument: argument.clone() });
        }
        let unusable = |name: &str| {
            let path = state_dir.join(name);
            |source| BootServerError::State { path, source }
        };
        let tokens = Tokens::open(&state_dir.join("boot.key")).map_err(unusable("boot.key"))?;
        let (tls, fingerprint, certificate) = http::tls::open(state_dir, config.advertise).map_err(unusable("boot-tls.pem"))?;

        let handoffs = Store::open(&state_dir.join("handoff")).map_err(unusable("handoff"))?;

        let dhcp = datagrams("DHCP", config.dhcp, &config.interfaces)?;
        let proxy = datagrams("proxyDHCP", config.proxy_dhcp, &config.interfaces)?;
        let tftp = datagrams("TFTP", Some(config.tftp), &[])?;
        let plain = listen("HTTP", config.http).await?;
        let secure = listen("HTTPS", config.https).await?;
        let addresses = Addresses {
            dhcp: dhcp.first().map(|(address, _)| *address),
            proxy_dhcp: proxy.first().map(|(address, _)| *address),
            tftp: tftp.first().map_or(config.tftp, |(address, _)| *address),
            http: plain.0,
            https: secure.0,
        };
        let facts = ServerFacts {
            address: config.advertise,
            tftp_port: addresses.tftp.port(),
            http_port: addresses.http.port(),
            https_port: addresses.https.port(),
            fingerprint,
            kernel_arguments: config.kernel_arguments.clone(),
        };
        let mut state = State::new(&config, facts, tokens, witness);
        (state.handoffs, state.certificate) = (handoffs, certificate);
        let state = Arc::new(state);
        warn_of_missing(&state);

        let mut tasks = JoinSet::new();
        for (via, sockets) in [(Via::Server, dhcp), (Via::Proxy, proxy)] {
            for (_, socket) in sockets {
                tasks.spawn(socket::serve(socket, via, state.clone()));
            }
        }
        for (_, socket) in tftp {
            tasks.spawn(TftpServer::new(socket, state.clone(), config.tftp_block_size).run());
        }
        advertise(&config, &mut tasks);
        tasks.spawn(http::serve(plain.1, None, http::plain_router(state.clone())));
        tasks.spawn(http::serve(secure.1, Some(tls), http::agent_router(state.clone())));
        tracing::info!(?addresses, %fingerprint, interfaces = ?config.interfaces, "boot server");
        Ok(Server { state, addresses, tasks })
    }

    /// Where it listens; ports that were 0 in the configuration are the ones that were bound.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Fingerprint of its HTTPS certificate; the same after a restart on the same state folder.
    pub fn fingerprint(&self) -> Fingerprint {
        self.state.facts.fingerprint
    }

    /// Stops all servers and waits until their sockets are closed. Transfers are cut off; clients try again.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

#[async_trait]
impl Boot for Server {
    async fn publish(&self, table: Arc<BootTable>) {
        tracing::debug!(reservations = table.reservations.len(), tickets = table.tickets.len(), "boot table");
        self.state.publish(table);
    }
}

fn datagrams(what: &'static str, address: Option<SocketAddr>, devices: &[String]) -> Result<Vec<(SocketAddr, UdpSocket)>, BootServerError> {
    let Some(address) = address else { return Ok(Vec::new()) };
    let bind = |device: Option<&String>| {
        let bound = socket::bind(address, device.map(String::as_str)).and_then(|socket| Ok((socket.local_addr()?, socket)));
        bound.map_err(|source| BootServerError::Listen { what, address, device: device.cloned(), source })
    };
    if devices.is_empty() { Ok(vec![bind(None)?]) } else { devices.iter().map(|device| bind(Some(device))).collect() }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<(SocketAddr, TcpListener), BootServerError> {
    let failed = |source| BootServerError::Listen { what, address, device: None, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// Only saves time, so that it can't be had is not an error.
fn advertise(config: &Config, tasks: &mut JoinSet<()>) {
    for device in config.interfaces.iter().filter(|_| config.router_advertisements) {
        match Advertiser::bind(device) {
            Ok(advertiser) => drop(tasks.spawn(advertiser.run())),
            Err(error) => tracing::info!(device, %error, "router solicitations are not answered: iPXE will wait 16 s at each start"),
        }
    }
}

fn warn_of_missing(state: &State) {
    for (name, path) in &state.paths {
        if !path.is_file() {
            tracing::warn!(file = name, path = %path.display(), "boot file is missing: machines that need it can't boot");
        }
    }
    for name in [files::KERNEL, files::INITRAMFS] {
        if !state.paths.contains_key(name) {
            tracing::warn!("`{name}` is not configured: no machine can be installed");
        }
    }
}
