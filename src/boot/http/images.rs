//! Image files: ranges, HEAD and Content-Length, never compressed on the way.
//!
//! Over HTTPS and with the agent's token only. The address that an image is asked for from would prove less: behind another
//! DHCP server a whole network could be the machine. A token in the URL of plain HTTP would be read on the wire, and stand in
//! whatever the agent reports about a download that failed.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State as Shared},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::any,
};
use tower_http::services::ServeDir;

use super::{Peer, no_ticket, text, ticket_of, when_ready};
use crate::{
    boot::{dhcp::answer::open_ticket, state::State},
    model::Timestamp,
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
    if ticket.and_then(|ticket| open_ticket(&published.table, ticket.mac, Timestamp::now())).is_none() {
        return no_ticket(&state, peer);
    }
    drop(published);
    next.run(request).await
}
