//! The read-only API: what the last turn found, over HTTP on loopback.
//!
//! **Invariant:** there is no route that changes anything (law 12). The way to change a machine is a commit.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Live, View},
    model::{MachineName, MachinePlan, MachineStatus, Observation},
};

/// Where the API listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// A loopback address; anything else is refused, because the API has neither TLS nor tokens yet.
    pub listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8470)) }
    }
}

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is not on loopback.
    #[error("api.listen is {address}: only a loopback address such as 127.0.0.1:8470 is allowed, because the API has no access control")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// It can't be bound.
    #[error("can't listen on {address} for the API: choose another api.listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// One machine, with all that is known of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineDetail {
    /// Its state.
    pub status: Option<MachineStatus>,
    /// What is to be done with it, and what not.
    pub plan: Option<MachinePlan>,
    /// What was last seen.
    pub observation: Option<Observation>,
}

/// Binds the API's listener.
///
/// # Errors
/// [`ApiError`].
pub async fn bind(config: &Config) -> Result<TcpListener, ApiError> {
    let address = config.listen;
    if !address.ip().is_loopback() {
        return Err(ApiError::NotLoopback { address });
    }
    TcpListener::bind(address).await.map_err(|source| ApiError::Bind { address, source })
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, live: Arc<Live>, stop: CancellationToken) {
    let served = axum::serve(listener, router(live)).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "the API ended");
    }
}

/// The routes.
pub fn router(live: Arc<Live>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/api/v1/status", get(status))
        .route("/api/v1/plan", get(plan))
        .route("/api/v1/observations", get(observations))
        .route("/api/v1/machines/{name}", get(machine))
        .layer(middleware::from_fn(by_address))
        .with_state(live)
}

/// Refuses requests that name the API by anything but an address or `localhost`. A page in a browser on this host can have its own name
/// resolve to loopback and would then be let read what it is told (DNS rebinding).
async fn by_address(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let named = host.or_else(|| request.uri().host()).unwrap_or_default();
    let name = named.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(named, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if address || name.eq_ignore_ascii_case("localhost") {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "name the API by its address, or as localhost\n").into_response()
}

/// What a reader is told who comes too early.
type TooEarly = (StatusCode, &'static str);

fn view(live: &Live) -> Result<View, TooEarly> {
    live.view().borrow().clone().ok_or_else(no_commit)
}

fn no_commit() -> TooEarly {
    let text = "no commit is in force yet: the fleet repository was not read, or its newest commit has errors (see the controller's log)";
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn health() -> &'static str {
    "ok\n"
}

async fn status(State(live): State<Arc<Live>>) -> Result<Response, TooEarly> {
    let status = live.status_now().ok_or_else(no_commit)?;
    Ok(Json(status.as_ref()).into_response())
}

async fn plan(State(live): State<Arc<Live>>) -> Result<Response, TooEarly> {
    Ok(Json(view(&live)?.plan.as_ref()).into_response())
}

async fn observations(State(live): State<Arc<Live>>) -> Response {
    let seen = live.seen.read();
    Json(&*seen).into_response()
}

async fn machine(State(live): State<Arc<Live>>, Path(name): Path<String>) -> Result<Response, Response> {
    let unknown = || (StatusCode::NOT_FOUND, format!("there is no machine {name:?} in the fleet or the journal\n")).into_response();
    let name = MachineName::new(name.clone()).map_err(|_| unknown())?;
    let view = view(&live).map_err(IntoResponse::into_response)?;
    let detail = MachineDetail {
        status: view.status.machines.get(&name).cloned(),
        plan: view.plan.machines.get(&name).cloned(),
        observation: live.seen.read().get(&name).cloned(),
    };
    if detail.status.is_none() && detail.plan.is_none() {
        return Err(unknown());
    }
    Ok(Json(detail).into_response())
}
