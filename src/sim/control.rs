//! The control endpoint: what people and demonstrations do to simulated machines while they run. It is no BMC: it sees disks,
//! pulls plugs and arms faults.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /machines` | – | [`MachineReport`]s |
//! | `POST /machines/<name>/faults` | `{"fault": "disk-write", "count": 1}` | 204 |
//! | `DELETE /machines/<name>/faults` | – | 204 |
//! | `POST /machines/<name>/power` | `{"state": "Off"}` or `"On"` | 204 |

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    disk::Writes,
    fault::{ArmedFault, Fault},
    machine::{Activity, ClusterReport, Machine, Machines, ResetKind},
};
use crate::model::{Digest, Generation, MachineName, PowerState};

/// A machine as the control endpoint shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineReport {
    /// Its name.
    pub name: MachineName,
    /// Power state.
    pub power: PowerState,
    /// What it does.
    pub activity: Activity,
    /// Times that its firmware looked for something to boot.
    pub boots: u64,
    /// The last thing that went wrong in this boot.
    pub trouble: Option<String>,
    /// Faults that are armed.
    pub faults: Vec<ArmedFault>,
    /// Its disks.
    pub disks: Vec<DiskReport>,
    /// Generation that its first disk's seed names.
    pub generation: Option<Generation>,
    /// Image digest that its first disk's seed names.
    pub digest: Option<Digest>,
    /// What its cluster software says, if its system has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterReport>,
}

/// A disk as the control endpoint shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    /// Serial number.
    pub serial: String,
    /// Its file.
    pub file: std::path::PathBuf,
    /// What was written to it.
    #[serde(flatten)]
    pub writes: Writes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    fault: String,
    count: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PowerOrder {
    state: PowerState,
}

/// Serves until `stop`.
pub(super) async fn serve(listener: tokio::net::TcpListener, machines: Machines, stop: CancellationToken) {
    let router = Router::new()
        .route("/machines", get(list))
        .route("/machines/{name}/faults", post(arm).delete(clear))
        .route("/machines/{name}/power", post(power))
        .with_state(machines);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::warn!(%error, "the control endpoint stopped");
    }
}

/// Binds the endpoint.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}

/// What there is to say of a machine. Reads its disk.
pub(super) fn report(machine: &Arc<Machine>) -> MachineReport {
    let state = machine.state();
    let seed = machine.seed(CancellationToken::new());
    let disk = |disk: &Arc<super::disk::Disk>| DiskReport {
        serial: disk.config.serial.clone(),
        file: disk.path().to_owned(),
        writes: disk.writes(),
    };
    MachineReport {
        name: machine.config.name.clone(),
        power: state.power,
        activity: state.activity,
        boots: state.boots,
        trouble: state.trouble,
        faults: machine.faults.list(),
        disks: machine.disks.iter().map(disk).collect(),
        generation: seed.as_ref().map(|seed| seed.generation),
        digest: seed.map(|seed| seed.digest),
        cluster: state.cluster,
    }
}

async fn list(State(machines): State<Machines>) -> Response {
    let reports = tokio::task::spawn_blocking(move || machines.iter().map(report).collect::<Vec<_>>()).await;
    reports.map_or_else(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()), |reports| Json(reports).into_response())
}

async fn arm(State(machines): State<Machines>, Path(name): Path<String>, Json(order): Json<FaultOrder>) -> Response {
    let Some(machine) = find(&machines, &name) else { return missing(&name) };
    match order.fault.parse::<ArmedFault>() {
        Ok(mut fault) => {
            if !matches!(fault.fault, Fault::Bmc503 { .. }) {
                fault.count = order.count.or(fault.count);
            }
            machine.faults.arm(fault);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn clear(State(machines): State<Machines>, Path(name): Path<String>) -> Response {
    let Some(machine) = find(&machines, &name) else { return missing(&name) };
    machine.faults.clear();
    StatusCode::NO_CONTENT.into_response()
}

async fn power(State(machines): State<Machines>, Path(name): Path<String>, Json(order): Json<PowerOrder>) -> Response {
    let Some(machine) = find(&machines, &name) else { return missing(&name) };
    match order.state {
        PowerState::Off => machine.pull_plug(),
        PowerState::On => {
            if machine.reset(ResetKind::On).is_err() {
                return refuse(StatusCode::CONFLICT, "it is on its way off");
            }
        }
        _ => return refuse(StatusCode::BAD_REQUEST, "state is On or Off"),
    }
    StatusCode::NO_CONTENT.into_response()
}

fn find<'a>(machines: &'a Machines, name: &str) -> Option<&'a Arc<Machine>> {
    machines.iter().find(|machine| machine.config.name.as_str() == name)
}

fn missing(name: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, &format!("there is no machine {name}"))
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(serde_json::json!({ "error": why }))).into_response()
}
