//! Image files: ranges, HEAD and Content-Length, never compressed on the way.
//!
//! Over HTTPS and with the agent's token only. The address that an image is asked for from would prove less: behind another
//! DHCP server a whole network could be the machine. A token in the URL of plain HTTP would be read on the wire, and stand in
//! whatever the agent reports about a download that failed.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State as Shared},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_RANGE},
    },
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::any,
};
use futures_util::TryStreamExt as _;
use tower_http::services::ServeDir;

use super::{Peer, no_ticket, text, ticket_of, when_ready};
use crate::{
    boot::{dhcp::answer::open_ticket, state::State},
    model::{AttemptId, Phase, Progress, Timestamp},
};

/// `/images/…` from the image folder; without one, nothing is there.
pub fn router(state: &Arc<State>) -> Router<Arc<State>> {
    let images = match &state.images {
        Some(folder) => Router::new().nest_service("/images", ServeDir::new(folder).append_index_html_on_directories(false)),
        None => Router::new().route("/images/{*path}", any(|| async { text(StatusCode::NOT_FOUND, "no image folder is configured") })),
    };
    images.route_layer(from_fn_with_state(state.clone(), for_holders)).route_layer(from_fn_with_state(state.clone(), when_ready))
}

async fn for_holders(Shared(state): Shared<Arc<State>>, Extension(peer): Extension<Peer>, request: Request, next: Next) -> Response {
    let published = state.published();
    let ticket = ticket_of(&state, &published, request.headers());
    let open = ticket.and_then(|ticket| open_ticket(&published.table, ticket.mac, Timestamp::now()));
    let Some(attempt) = open.map(|ticket| ticket.attempt.clone()) else { return no_ticket(&state, peer) };
    drop(published);
    let response = next.run(request).await;
    if response.status().is_success() { watched(state, attempt, response) } else { response }
}

/// The same answer, whose bytes are a sign of life as they go out: over a link that they fill, the agent's own word comes late.
fn watched(state: Arc<State>, attempt: AttemptId, response: Response) -> Response {
    let (mut done, total) = part(response.headers());
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect_ok(move |bytes| {
            done += bytes.len() as u64;
            state.downloads(&attempt, Progress { phase: Phase::Writing, done, total }, Instant::now());
        }))
    })
}

/// Where in its file an answer begins, and the file's length.
fn part(headers: &HeaderMap) -> (u64, Option<u64>) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let range = text(CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
    let start = range.and_then(|(range, _)| range.split_once('-')?.0.parse().ok()).unwrap_or(0);
    let length = range.map(|(_, length)| length).or_else(|| text(CONTENT_LENGTH));
    (start, length.and_then(|length| length.parse().ok()))
}
