//! Plain HTTP: what firmware and iPXE fetch, and what installed systems say.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Request, State as Shared},
    http::{Method, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use super::{Peer, callhome, checks, not_taken, text, when_ready};
use crate::{
    boot::{
        admission::admit,
        files, script,
        state::{State, with_since},
    },
    model::{Evidence, Mac, Reservation, Rung, Ticket, Timestamp},
    ports::WitnessError,
};

/// Routes of the plain server.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/ipxe/{mac}", get(ipxe_script))
        .route("/callhome/v1/{machine}/{number}/{token}", post(callhome::take))
        .route("/callhome/v1/{machine}/{number}/{token}/checks", post(checks::take))
        .route("/boot/{file}", get(boot_file))
        .route_layer(from_fn_with_state(state.clone(), when_ready))
        .with_state(state)
}

async fn boot_file(
    Shared(state): Shared<Arc<State>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(file): Path<String>,
    request: Request,
) -> Response {
    let Some((name, path)) = state.paths.get_key_value(file.as_str()) else { return text(StatusCode::NOT_FOUND, "no such boot file") };
    // A script that sends somebody to the disk names that file, and everyone may have such a script.
    if *name != files::LOCALBOOT
        && let Err(refusal) = admit(&state.published(), peer.ip(), name, Timestamp::now())
    {
        state.refused(peer.ip(), refusal.machine(), &format!("HTTP: {name}: {}", refusal.why()));
        return text(StatusCode::FORBIDDEN, refusal.why());
    }
    let whole = request.method() == Method::GET;
    let response = match ServeFile::new(path).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    };
    if response.status().is_success() {
        if state.lines.line(peer.ip(), name) {
            tracing::info!(%peer, file = name, "HTTP boot file");
        }
        if whole {
            state.fetched(peer.ip(), name);
        }
    } else if response.status() == StatusCode::NOT_FOUND && state.lines.line(peer.ip(), "boot file can't be read") {
        tracing::error!(path = %path.display(), "boot file can't be read");
    }
    response
}

async fn ipxe_script(Shared(state): Shared<Arc<State>>, Extension(Peer(peer)): Extension<Peer>, Path(mac): Path<String>) -> Response {
    let Ok(mac) = mac.parse::<Mac>() else { return text(StatusCode::BAD_REQUEST, "not a MAC address") };
    let published = state.published();
    let local = |why: &str| plain_text(script::local_boot(mac, why, &state.facts));
    let Some(reservation) = published.table.reservations.get(&mac) else {
        state.refused(mac, None, "iPXE: no manifest declares it");
        return local("not declared");
    };
    // The script holds the agent's token: only to the machine itself, as far as its address can tell.
    if !published.may_be(peer.ip(), reservation) {
        state.refused(mac, Some(&reservation.machine), &format!("iPXE: asked from {}, which is not its address", peer.ip()));
        return local("asked from another address");
    }
    match published.table.tickets.get(&mac).filter(|_| reservation.boot) {
        Some(ticket) => match for_ticket(&state, ticket).await {
            Ok(script) => plain_text(script),
            Err(error @ WitnessError::NotOpen { .. }) => local(&error.to_string()),
            Err(error) => not_taken(&error),
        },
        None => {
            refused(&state, reservation);
            local("no install is due")
        }
    }
}

fn refused(state: &State, reservation: &Reservation) {
    state.refused(reservation.mac, Some(&reservation.machine), "asked for a boot script without an open ticket: told to boot from disk");
}

/// The script for the holder of `ticket`. That it fetched one is journaled before it gets it.
async fn for_ticket(state: &State, ticket: &Ticket) -> Result<String, WitnessError> {
    let since = state.since(&ticket.attempt);
    let mut since = since.lock().await;
    let ticket = with_since(ticket, &since);
    if ticket.reached(Rung::Written) {
        // A machine that is told to boot its disk must be told so even when that can't be journaled.
        if let Err(error) = state.saw(&ticket.attempt, Evidence::BootedFromDisk, &mut since).await
            && state.lines.line(ticket.mac, "a sighting was not taken")
        {
            tracing::warn!(attempt = %ticket.attempt, %error, "a sighting was not taken");
        }
        return Ok(script::local_boot(ticket.mac, "installed", &state.facts));
    }
    if Timestamp::now() >= ticket.expires {
        return Ok(script::local_boot(ticket.mac, "the ticket expired", &state.facts));
    }
    if !ticket.reached(Rung::LoaderFetched) {
        state.saw(&ticket.attempt, Evidence::LoaderFetched, &mut since).await?;
    }
    if state.lines.line(ticket.mac, "install script") {
        tracing::info!(attempt = %ticket.attempt, mac = %ticket.mac, "install script");
    }
    Ok(script::install(&ticket, &state.tokens.agent(&ticket.attempt), &state.facts))
}

fn plain_text(script: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], script).into_response()
}
