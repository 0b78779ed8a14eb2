//! The HTTP server (loaders, scripts, kernel, call-home) and the HTTPS server (the agent and its image).

mod agent;
#[cfg(not(fuzzing))]
mod callhome;
#[cfg(fuzzing)]
pub(super) mod callhome;
mod checks;
mod handoff;
mod images;
mod plain;
mod serve;
pub(super) mod tls;
mod wipe;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State as Shared},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;

pub(super) use agent::router as agent_router;
pub(super) use plain::router as plain_router;
pub(super) use serve::serve;

use crate::{
    boot::state::{Published, State},
    model::Ticket,
    ports::WitnessError,
};

/// How long a request's body may take. Bodies are some kB; a minute is enough for the worst wire, and a client that trickles
/// bytes to hold a connection is gone after it.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Largest body: a report of a machine with hundreds of disks is some 100 kB.
const BODY_SIZE: usize = 1 << 20;

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub SocketAddr);

async fn read_body(body: Body) -> Result<Bytes, Response> {
    let mut stream = body.into_data_stream();
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.map_err(|_| text(StatusCode::BAD_REQUEST, "the body is cut off"))?);
            if bytes.len() > BODY_SIZE {
                return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB"));
            }
        }
        Ok(bytes.into())
    };
    let late = |_| text(StatusCode::REQUEST_TIMEOUT, "the body took longer than a minute");
    tokio::time::timeout(BODY_TIME, whole).await.map_err(late)?
}

/// For answers that depend on the table: 503 until there is one.
async fn when_ready(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    if state.is_ready() { next.run(request).await } else { text(StatusCode::SERVICE_UNAVAILABLE, "the controller is starting") }
}

/// The ticket whose token a request bears (RFC 6750 section 2.1).
fn ticket_of<'a>(state: &State, published: &'a Published, headers: &HeaderMap) -> Option<&'a Ticket> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    published.table.tickets.values().find(|ticket| state.tokens.is_agent(&ticket.attempt, token))
}

/// For a request without the token of an open ticket.
fn no_ticket(state: &State, Peer(peer): Peer) -> Response {
    state.refused(peer.ip(), None, "HTTPS: no ticket goes with its token");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "no ticket goes with this token\n").into_response()
}

fn text(status: StatusCode, why: impl std::fmt::Display) -> Response {
    (status, format!("{why}\n")).into_response()
}

/// The client must not go on: for ever, or until the journal can be written again.
fn not_taken(error: &WitnessError) -> Response {
    match error {
        WitnessError::NotOpen { .. } => text(StatusCode::CONFLICT, error),
        WitnessError::NotNow { .. } => text(StatusCode::SERVICE_UNAVAILABLE, error),
        WitnessError::TooMany { .. } => text(StatusCode::TOO_MANY_REQUESTS, error),
        WitnessError::Journal(_) | WitnessError::Stopping => {
            // The engine says why in the log; whoever asks again and again must not fill it.
            tracing::debug!(%error, "a sighting was not taken");
            text(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }
}
