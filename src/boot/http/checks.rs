//! What an installed system says of its own checks, while a health gate may wait for it.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::{not_taken, read_body, text};
use crate::{
    boot::state::State,
    model::{AttemptId, CheckReport, MachineName, Rung, is_check_name},
};

/// Largest body.
const BODY: usize = 8 << 10;

/// `POST /callhome/v1/<machine>/<number>/<token>/checks`: 204 when the word is in the journal. Open while the attempt is.
pub async fn take(Shared(state): Shared<Arc<State>>, Path((machine, number, token)): Path<(String, u32, String)>, body: Body) -> Response {
    let unknown = || text(StatusCode::NOT_FOUND, "no such attempt, or a wrong token");
    let Ok(machine) = MachineName::new(machine) else { return unknown() };
    let attempt = AttemptId { machine, number };
    if !state.tokens.is_call_home(&attempt, &token) {
        return unknown();
    }
    let report = match read_body(body).await {
        Ok(bytes) if bytes.len() > BODY => return text(StatusCode::PAYLOAD_TOO_LARGE, "a check is told in 8 KiB"),
        Ok(bytes) => serde_json::from_slice::<CheckReport>(&bytes),
        Err(refusal) => return refusal,
    };
    let report = match report {
        Ok(report) if is_check_name(&report.check) => report,
        Ok(_) => return text(StatusCode::BAD_REQUEST, "a check's name is 1 to 63 letters, digits, dots, dashes and underscores"),
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("not a check: {error}")),
    };
    let since = state.since(&attempt);
    let since = since.lock().await;
    match state.ticket(&attempt, &since) {
        Ok(ticket) if ticket.reached(Rung::CalledHome) => {}
        // `curl --retry` comes again.
        Ok(_) => {
            let answer = text(StatusCode::SERVICE_UNAVAILABLE, format!("{attempt} has not called home yet; tell it again after that"));
            return ([(header::RETRY_AFTER, "5")], answer).into_response();
        }
        Err(_) => return text(StatusCode::GONE, format!("{attempt} is not open: nobody waits for its checks")),
    }
    match state.witness.checked(&attempt, report).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => not_taken(&error),
    }
}
