//! What an installed system says once: JSON, or the form of cloud-init's `phone_home`.

use std::sync::Arc;

use axum::{
    Form,
    body::Body,
    extract::{FromRequest as _, Path, Request, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use super::{not_taken, read_body, text};
use crate::{
    boot::state::State,
    model::{AttemptId, CallHome, Evidence, Generation, MachineName, Rung},
    ports::WitnessError,
};

/// The fields that the seed asks cloud-init to post.
#[derive(Deserialize)]
struct PhoneHome {
    instance_id: String,
    hostname: Option<String>,
}

/// `POST /callhome/v1/<machine>/<number>/<token>`.
pub async fn take(
    Shared(state): Shared<Arc<State>>,
    Path((machine, number, token)): Path<(String, u32, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let unknown = || text(StatusCode::NOT_FOUND, "no such attempt, or a wrong token");
    let Ok(machine) = MachineName::new(machine) else { return unknown() };
    let attempt = AttemptId { machine, number };
    if !state.tokens.is_call_home(&attempt, &token) {
        return unknown();
    }
    let said = match read_body(body).await {
        Ok(bytes) => read(&headers, bytes).await,
        Err(refusal) => return refusal,
    };
    let said = match said {
        Ok(said) => said,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    match told(&state, &attempt, said).await {
        Ok(response) => response,
        Err(error) => not_taken(&error),
    }
}

async fn told(state: &State, attempt: &AttemptId, said: CallHome) -> Result<Response, WitnessError> {
    let Ok(generation) = said.generation.parse::<Generation>() else {
        return Ok(text(StatusCode::BAD_REQUEST, "the generation is not one"));
    };
    // No name is longer than 255 bytes (RFC 1035 section 2.3.4), and a log is no place for more.
    let hostname: Option<String> = said.hostname.map(|name| name.chars().take(255).collect());
    tracing::info!(%attempt, %generation, hostname, "call home");
    let since = state.since(attempt);
    let mut since = since.lock().await;
    let ticket = match state.ticket(attempt, &since) {
        Ok(ticket) => ticket,
        // A system that starts again after its attempt was closed: nothing new.
        Err(_) if state.published().table.installed.contains_key(attempt) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => return Err(error),
    };
    if ticket.work.install().is_none() {
        return Ok(text(StatusCode::CONFLICT, format!("{attempt} is a wipe: there is no system that could call home")));
    }
    if !ticket.reached(Rung::Written) {
        return Ok(text(StatusCode::CONFLICT, format!("{attempt} is not written yet: this is not the system that it installs")));
    }
    if !ticket.reached(Rung::BootedFromDisk) {
        state.saw(attempt, Evidence::BootedFromDisk, &mut since).await?;
    }
    state.saw(attempt, Evidence::CalledHome { generation, digest: said.digest }, &mut since).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Reads `bytes` as a body in both forms, for `fuzz/`.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let _ = futures_util::FutureExt::now_or_never(read(&HeaderMap::new(), axum::body::Bytes::copy_from_slice(bytes)));
}

async fn read(headers: &HeaderMap, bytes: axum::body::Bytes) -> Result<CallHome, String> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json") || bytes.trim_ascii_start().starts_with(b"{") {
        return serde_json::from_slice(&bytes).map_err(|error| format!("not a call-home: {error}"));
    }
    let form = Request::post("/").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from(bytes));
    let form = form.map_err(|error| error.to_string())?;
    match Form::<PhoneHome>::from_request(form, &()).await {
        Ok(Form(said)) => Ok(CallHome { generation: said.instance_id, digest: None, hostname: said.hostname }),
        Err(error) => Err(format!("not a call-home: {error}")),
    }
}
