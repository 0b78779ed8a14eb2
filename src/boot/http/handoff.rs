//! What an installed system publishes for others: `POST /handoff/v1/<machine>/<number>/<token>`, over HTTPS alone, a JSON object of names
//! and values.
//!
//! | answer | when |
//! |---|---|
//! | 204 | all of it is kept and journaled |
//! | 400 | a name that its manifest does not publish, or what is no value; nothing is kept |
//! | 404 | no such attempt, or a wrong token |
//! | 409 | the system on the machine's disk is another one by now |
//! | 413 | more than 64 KiB |
//! | 503 | not yet; ask again |

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State as Shared},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::{not_taken, read_body, text};
use crate::{
    boot::{handoff::Values, state::State},
    model::{AttemptId, HandoffName, MachineName, Publisher},
    ports::HandoffValue,
};

/// Largest body: some values of the largest size.
const LARGEST: usize = 64 << 10;

/// Takes what a system publishes.
pub async fn take(Shared(state): Shared<Arc<State>>, Path((machine, number, token)): Path<(String, u32, String)>, body: Body) -> Response {
    let unknown = || text(StatusCode::NOT_FOUND, "no such attempt, or a wrong token");
    let Ok(machine) = MachineName::new(machine) else { return unknown() };
    let attempt = AttemptId { machine, number };
    if !state.tokens.is_handoff(&attempt, &token) {
        return unknown();
    }
    let bytes = match read_body(body).await {
        Ok(bytes) if bytes.len() > LARGEST => return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB"),
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let publisher = match publisher(&state, &attempt) {
        Ok(publisher) => publisher,
        Err((status, why)) => return text(status, why),
    };
    match read(&bytes, &publisher) {
        Ok(values) => keep(&state, &attempt, &publisher, values).await,
        Err(why) => text(StatusCode::BAD_REQUEST, why),
    }
}

fn publisher(state: &State, attempt: &AttemptId) -> Result<Publisher, (StatusCode, String)> {
    let published = state.published();
    if let Some(publisher) = published.table.handoffs.publishers.get(attempt) {
        return Ok(publisher.clone());
    }
    Err(match published.table.ticket(attempt) {
        // What is journaled is in the next table.
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, format!("{attempt} is not known to be installed yet; ask again")),
        None => {
            (StatusCode::CONFLICT, format!("{attempt} did not install what is on its machine's disk, or its manifest publishes nothing"))
        }
    })
}

/// Nothing of what was sent is quoted but names that are names: what is wrong may be a value in the wrong place.
fn read(bytes: &[u8], publisher: &Publisher) -> Result<Values, String> {
    let said: BTreeMap<String, String> = serde_json::from_slice(bytes)
        .map_err(|error| format!("not a JSON object of names and texts, at line {} column {}", error.line(), error.column()))?;
    if said.is_empty() {
        return Err("it names no value".to_owned());
    }
    let mut values = Values::new();
    for (name, value) in said {
        let name = HandoffName::new(name).map_err(|_| "a name in it is none: use 1 to 63 of a-z, 0-9, '-' and '.'".to_owned())?;
        if !publisher.names.contains(&name) {
            return Err(format!("the manifest of {} does not publish {name}", publisher.machine));
        }
        values.insert(name.clone(), HandoffValue::new(value).map_err(|bad| format!("{name}: {bad}"))?);
    }
    Ok(values)
}

/// The values first: what the journal says is there must be there.
async fn keep(state: &Arc<State>, attempt: &AttemptId, publisher: &Publisher, values: Values) -> Response {
    let names = values.keys().cloned().collect();
    let (keeper, id) = (state.clone(), attempt.clone());
    let kept = tokio::task::spawn_blocking(move || keeper.handoffs.put(&id, values)).await;
    if let Err(error) = kept.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
        tracing::error!(%attempt, %error, "published values can't be kept");
        return text(StatusCode::SERVICE_UNAVAILABLE, "they can't be kept now; ask again");
    }
    match state.witness.published(&publisher.machine, attempt, &names).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => not_taken(&error),
    }
}
