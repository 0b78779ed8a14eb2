//! `rackwright run`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Done, SystemClock, block_on, config::Config, secrets::LocalSecrets};
use crate::{
    api,
    bmc::Redfish,
    boot::Server,
    engine::{self, Engine, Live, Ports},
    git::{GitNotes, GitSource, remove_left_locks},
    journal::SqliteJournal,
    ports::{Boot, Journal, Notes},
    probe::HttpProbe,
};

/// Follow a fleet repository: observe, plan, act, report, until told to stop.
///
/// Ctrl-C or SIGTERM ends it in order; SIGKILL loses nothing either, since each intention is in the journal before it happens.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The configuration; otherwise ./rackwright.yaml or /etc/rackwright/rackwright.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

const EXAMPLE: &str = "\
The least that a configuration needs:
  site: lab
  stateDir: /var/lib/rackwright
  repository: {url: ssh://git@git.example/fleet.git, sshKey: /etc/rackwright/id_ed25519}
  boot:
    advertise: 10.0.4.2
    interfaces: [eth1]
    images: /srv/images
    kernel: /srv/agent/vmlinuz
    initramfs: /srv/agent/initramfs.img

Without `boot` power is kept as declared and nothing is installed. A second controller on the same stateDir refuses to start.";

pub(super) fn run(args: &Args) -> anyhow::Result<Done> {
    let config = Config::read(args.config.as_deref())?;
    block_on(async {
        let journal = open_journal(&config)?;
        let controller = Controller::start(config, journal).await?;
        tokio::spawn(stop_on_signal(controller.stop.clone()));
        controller.ended().await
    })?;
    Ok(Done::Ok)
}

/// Opens the journal, which only one controller can hold.
///
/// # Errors
/// Another controller holds it, or it can't be opened.
pub fn open_journal(config: &Config) -> anyhow::Result<Arc<dyn Journal>> {
    let state = &config.state_dir;
    std::fs::create_dir_all(state)
        .with_context(|| format!("can't make the state folder {} (stateDir in the configuration)", state.display()))?;
    Ok(Arc::new(SqliteJournal::open(&config.journal(), &format!("site {}", config.site))?))
}

/// How much later than the BMC client itself the engine gives up an order: the client can say more about why.
const LAST_WORD: Duration = Duration::from_secs(10);

/// A controller that runs in the background.
pub struct Controller {
    /// Cancel it to end the controller in order.
    pub stop: CancellationToken,
    /// What it knows.
    pub live: Arc<Live>,
    /// Where its API listens.
    pub api: SocketAddr,
    /// Its boot server, if it has one.
    pub boot: Option<Arc<Server>>,
    engine: JoinHandle<()>,
    serving: JoinHandle<()>,
}

impl Controller {
    /// Wires everything together and starts it.
    ///
    /// # Errors
    /// Something can't be opened or bound. Nothing was done to any machine then.
    pub async fn start(config: Config, journal: Arc<dyn Journal>) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock::default());
        let live = Live::open(journal, Arc::new(config.brake()), clock.clone(), config.bmc.write_timeout + LAST_WORD);
        let live = live.await.context("can't read the journal")?;
        let listener = api::bind(&config.api).await?;
        let api = listener.local_addr()?;
        let secrets = Arc::new(LocalSecrets::within(config.secrets.clone()));
        let clone = config.clone_dir();
        remove_left_locks(&clone).with_context(|| format!("can't remove locks that were left behind in our clone {}", clone.display()))?;
        let source = Arc::new(GitSource::open(config.repository.clone(), &clone)?);
        let notes: Arc<dyn Notes> = Arc::new(GitNotes::open(config.repository.clone(), &clone, config.site.clone())?);
        let bmc = Arc::new(Redfish::new(config.bmc.clone(), secrets.clone())?);
        let boot = match config.boot.clone() {
            Some(boot) => {
                let server = Server::start(boot, &config.state_dir, live.clone()).await;
                Some(Arc::new(server.context("can't start the boot server")?))
            }
            None => None,
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(api::serve(listener, live.clone(), stop.clone()));
        let ports = Ports {
            source,
            bmc,
            boot: boot.clone().map(|server| server as Arc<dyn Boot>),
            notes: Some(notes),
            secrets,
            probe: Arc::new(HttpProbe::new(&config.probe)?),
            clock,
        };
        tracing::info!(site = %config.site, repository = config.repository.url.as_str(), branch = config.repository.branch, api = %format_args!("http://{api}"), boot = boot.is_some(), "controller runs");
        let config = engine::Config { site: config.site, pace: config.pace, deadlines: config.deadlines };
        let engine = Engine::start(config, live.clone(), ports).await;
        let engine = tokio::spawn(engine.run(stop.clone()));
        Ok(Self { stop, live, api, boot, engine, serving })
    }

    /// Returns when it ended.
    ///
    /// # Errors
    /// The engine panicked.
    pub async fn ended(self) -> anyhow::Result<()> {
        let ended = self.engine.await;
        self.stop.cancel();
        if let Some(server) = self.boot.and_then(Arc::into_inner) {
            server.stop().await;
        }
        // A reader of the API that does not hang up must not hold the end.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.serving).await;
        ended.context("the engine ended by a fault of its own; please report it with the log")
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // First the deed, then the word: a log whose reader went away must not keep the controller from stopping.
    stop.cancel();
    tracing::info!("stopping: no new step is started; once more to stop at once");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    std::process::exit(130);
}
