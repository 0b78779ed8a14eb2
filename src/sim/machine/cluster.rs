//! What stands for cluster software on simulated machines: small, but on the outside it does what such software does on a real one.
//!
//! A system whose user-data writes `/etc/cluster/config.yaml` (cloud-init's `write_files`) has it:
//!
//! ```yaml
//! role: first          # makes a cluster at its first start, with a random token, and lets others join
//! port: 6443
//! publish: join-token  # hands its token to the boot server, as the seed says: `handoff.url`, trusting `handoff.pem` alone
//! ```
//!
//! ```yaml
//! role: join
//! server: 10.0.4.11:6443
//! token: "…"           # refused unless it is that of the cluster that the server has now
//! ```
//!
//! The cluster is kept on the machine's disk, so to say: in a file beside it that names the install that it belongs to. After the next
//! install it is not there any more.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};
use reqwest::{Certificate, Client};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Machine;
use crate::{agent::seed::Seed, model::MachineName};

/// Where the software looks for its configuration.
const CONFIG: &str = "/etc/cluster/config.yaml";
/// Between two tries to publish or to join.
const AGAIN: Duration = Duration::from_millis(500);
/// For one request.
const REQUEST: Duration = Duration::from_secs(10);

/// A machine's part in a cluster, as the control endpoint shows it. Tokens are not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReport {
    /// The cluster that it is in: chosen at random by the first machine at its first start.
    pub cluster: Option<String>,
    /// Machines that joined, on the first.
    pub members: BTreeSet<MachineName>,
    /// How often it was refused, or refused another, since it started.
    pub refused: u32,
    /// Whether its token was published.
    pub published: bool,
}

#[derive(Deserialize)]
struct CloudConfig {
    #[serde(default)]
    write_files: Vec<WrittenFile>,
}

#[derive(Deserialize)]
struct WrittenFile {
    path: String,
    #[serde(default)]
    content: String,
}

#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "camelCase", deny_unknown_fields)]
enum Role {
    First { port: u16, publish: String },
    Join { server: SocketAddr, token: String },
}

/// What is kept of a cluster.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// The install that it belongs to: no two have the same place to call home.
    install: String,
    cluster: String,
    token: String,
    members: BTreeSet<MachineName>,
}

#[derive(Serialize, Deserialize)]
struct Join {
    node: MachineName,
    token: String,
}

#[derive(Serialize, Deserialize)]
struct Joined {
    cluster: String,
}

/// Starts the software of the system that `seed` belongs to, if it has any, until power goes.
pub(super) fn start(machine: &Arc<Machine>, seed: &Seed, rail: &CancellationToken) {
    let Some(role) = role(seed) else { return };
    let (machine, seed, rail) = (Arc::clone(machine), seed.clone(), rail.clone());
    tokio::spawn(async move {
        let work = async {
            let ended = match role {
                Ok(Role::First { port, publish }) => first(&machine, &seed, port, &publish).await,
                Ok(Role::Join { server, token }) => join(&machine, server, token).await,
                Err(why) => Err(io::Error::other(format!("{CONFIG}: {why}"))),
            };
            if let Err(error) = ended {
                warn!(machine = %machine.config.name, %error, "cluster");
                machine.trouble(&format!("cluster software: {error}"));
            }
        };
        tokio::select! {
            () = rail.cancelled() => {}
            () = work => {}
        }
    });
}

/// What the user-data makes of this machine; `None` where it writes no such configuration. Errors of a file with tokens in it are not
/// quoted.
fn role(seed: &Seed) -> Option<Result<Role, &'static str>> {
    let cloud: CloudConfig = serde_yaml::from_str(seed.user_data.as_deref()?).ok()?;
    let file = cloud.write_files.into_iter().find(|file| file.path == CONFIG)?;
    Some(serde_yaml::from_str(&file.content).map_err(|_| "this is no configuration of a cluster"))
}

/// The first machine: its cluster, a place to join it, and the token for others.
async fn first(machine: &Arc<Machine>, seed: &Seed, port: u16, publish: &str) -> io::Result<()> {
    let kept = load(machine, seed)?;
    let listener = TcpListener::bind((machine.config.address, port)).await?;
    info!(machine = %machine.config.name, cluster = kept.cluster, "cluster: runs");
    report(machine, |report| (report.cluster, report.members) = (Some(kept.cluster.clone()), kept.members.clone()));
    let router = Router::new().route("/join", post(take)).with_state((Arc::clone(machine), Arc::new(Mutex::new(seed.call_home.clone()))));
    let publish = async {
        hand_over(machine, seed, publish, &kept.token).await;
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served,
        never = publish => never,
    }
}

/// Until the boot server has it. As `curl --cacert handoff.pem "$(cat handoff.url)"`.
async fn hand_over(machine: &Machine, seed: &Seed, name: &str, token: &str) {
    let Some(place) = &seed.handoff else { return machine.trouble("cluster software: the seed has no handoff.url") };
    let client = Certificate::from_pem(place.certificate.as_bytes()).and_then(|certificate| {
        let builder = Client::builder().tls_certs_only([certificate]).local_address(Some(machine.config.address.into()));
        builder.no_proxy().timeout(REQUEST).build()
    });
    let client = match client {
        Ok(client) => client,
        Err(error) => return machine.trouble(&format!("cluster software: handoff.pem: {error}")),
    };
    loop {
        match client.post(&place.url).json(&serde_json::json!({ name: token })).send().await {
            Ok(answer) if answer.status().is_success() => break,
            Ok(answer) => info!(machine = %machine.config.name, status = answer.status().as_u16(), "cluster: not published yet"),
            Err(error) => info!(machine = %machine.config.name, error = %error.without_url(), "cluster: not published yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    info!(machine = %machine.config.name, name, "cluster: published");
    report(machine, |report| report.published = true);
}

/// Somebody wants to join.
async fn take(Shared((machine, install)): Shared<(Arc<Machine>, Arc<Mutex<String>>)>, Json(wish): Json<Join>) -> Response {
    // One at a time: each reads and writes the list of members.
    let install = install.lock().await;
    let known = read(&machine).filter(|kept| kept.install == *install);
    let Some(mut kept) = known.filter(|kept| kept.token == wish.token) else {
        info!(machine = %machine.config.name, node = %wish.node, "cluster: a wrong token is refused");
        report(&machine, |report| report.refused += 1);
        return StatusCode::FORBIDDEN.into_response();
    };
    kept.members.insert(wish.node.clone());
    if let Err(error) = write(&machine, &kept) {
        warn!(machine = %machine.config.name, %error, "cluster");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    info!(machine = %machine.config.name, node = %wish.node, "cluster: joined");
    report(&machine, |report| report.members = kept.members.clone());
    Json(Joined { cluster: kept.cluster }).into_response()
}

/// A machine that joins: until it is let in.
async fn join(machine: &Arc<Machine>, server: SocketAddr, token: String) -> io::Result<()> {
    let client = Client::builder().local_address(Some(machine.config.address.into())).no_proxy().timeout(REQUEST).build();
    let client = client.map_err(io::Error::other)?;
    let wish = Join { node: machine.config.name.clone(), token };
    report(machine, |_| {});
    loop {
        match client.post(format!("http://{server}/join")).json(&wish).send().await {
            Ok(answer) if answer.status().is_success() => {
                let Joined { cluster } = answer.json().await.map_err(io::Error::other)?;
                info!(machine = %machine.config.name, cluster, "cluster: joined");
                report(machine, |report| report.cluster = Some(cluster));
                return Ok(());
            }
            Ok(answer) => {
                info!(machine = %machine.config.name, status = answer.status().as_u16(), "cluster: refused");
                report(machine, |report| report.refused += 1);
            }
            Err(error) => info!(machine = %machine.config.name, error = %error.without_url(), "cluster: no answer"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn report(machine: &Machine, change: impl FnOnce(&mut ClusterReport)) {
    machine.change(|state| change(state.cluster.get_or_insert_default()));
}

/// The cluster of the system on the disk, made anew if that system has none.
fn load(machine: &Machine, seed: &Seed) -> io::Result<Kept> {
    if let Some(kept) = read(machine).filter(|kept| kept.install == seed.call_home) {
        return Ok(kept);
    }
    let random = || {
        let mut bytes = [0; 12];
        SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no randomness from the system"))?;
        Ok::<_, io::Error>(hex::encode(bytes))
    };
    let token = random()?;
    // As kubeadm writes its tokens.
    let token = format!("{}.{}", &token[..6], &token[6..22]);
    let kept = Kept { install: seed.call_home.clone(), cluster: random()?, token, members: BTreeSet::new() };
    write(machine, &kept)?;
    Ok(kept)
}

fn file(machine: &Machine) -> std::path::PathBuf {
    machine.folder.join(format!("{}.cluster.json", machine.config.name))
}

fn read(machine: &Machine) -> Option<Kept> {
    serde_json::from_slice(&std::fs::read(file(machine)).ok()?).ok()
}

fn write(machine: &Machine, kept: &Kept) -> io::Result<()> {
    std::fs::write(file(machine), serde_json::to_vec(kept)?)
}
