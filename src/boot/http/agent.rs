//! The agent's protocol ([`crate::model::AgentHello`] has its table). Each answer that lets the agent go on is given only
//! after what it rests on is journaled.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State as Shared,
    http::{HeaderMap, StatusCode},
    middleware::from_fn_with_state,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde::de::DeserializeOwned;

use super::{Peer, images, no_ticket, not_taken, read_body, text, ticket_of, when_ready};
use crate::{
    boot::state::{State, with_since},
    model::{AgentCommand, AgentEvent, AgentHello, AgentReport, Digest, Evidence, ObservedDisk, Rung, Ticket, Timestamp},
    ports::WitnessError,
};

/// Longest text of an agent that is taken over, in characters: enough for any error, not for a flood.
const LONGEST_TEXT: usize = 2000;

/// Routes of the HTTPS server.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/agent/v1/hello", post(hello))
        .route("/agent/v1/report", post(report))
        .route_layer(from_fn_with_state(state.clone(), when_ready))
        .merge(images::router(&state))
        .with_state(state)
}

async fn hello(Shared(state): Shared<Arc<State>>, Extension(peer): Extension<Peer>, headers: HeaderMap, body: Body) -> Response {
    let (ticket, hello) = match prove::<AgentHello>(&state, peer, &headers, body).await {
        Ok(proved) => proved,
        Err(refusal) => return refusal,
    };
    match command(&state, &ticket, hello).await {
        Ok(command) => Json(command).into_response(),
        Err(error) => not_taken(&error),
    }
}

async fn command(state: &State, ticket: &Ticket, hello: AgentHello) -> Result<AgentCommand, WitnessError> {
    let attempt = &ticket.attempt;
    let since = state.since(attempt);
    let mut since = since.lock().await;
    let ticket = with_since(ticket, &since);
    let call_home = state.facts.call_home_url(attempt, &state.tokens.call_home(attempt));
    let mut command = ticket.answer(&hello, Timestamp::now(), &call_home);
    let up = Evidence::AgentUp {
        boot_id: hello.boot_id.clone(),
        serial: hello.serial.clone(),
        uuid: hello.uuid.clone(),
        disks: hello.disks.clone(),
    };
    // Also when it is refused: what it is, or that it is another start, is why.
    state.saw(attempt, up, &mut since).await?;
    match &mut command {
        AgentCommand::Install { install, .. } => install.image.url = state.facts.image_url(&install.image.url),
        AgentCommand::Refuse { why } => {
            tracing::warn!(%attempt, why, "agent refused");
            let expired = Timestamp::now() >= ticket.expires;
            // An expired ticket is the engine's to close; the other reasons can't pass by themselves.
            if !expired {
                state.witness.failed(attempt, ticket.reached(Rung::Writing), "agent-refused", why).await?;
            }
        }
        AgentCommand::BootFromDisk => {}
    }
    tracing::info!(%attempt, boot_id = hello.boot_id, version = hello.version, uefi = hello.uefi, "agent up");
    Ok(command)
}

async fn report(Shared(state): Shared<Arc<State>>, Extension(peer): Extension<Peer>, headers: HeaderMap, body: Body) -> Response {
    let (ticket, report) = match prove::<AgentReport>(&state, peer, &headers, body).await {
        Ok(proved) => proved,
        Err(refusal) => return refusal,
    };
    match take(&state, &ticket, report).await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(why)) => {
            tracing::warn!(attempt = %ticket.attempt, why, "agent's report refused");
            text(StatusCode::CONFLICT, why)
        }
        Err(error) => not_taken(&error),
    }
}

/// Takes a report; the inner error is why the agent must not go on.
async fn take(state: &State, ticket: &Ticket, report: AgentReport) -> Result<Result<(), String>, WitnessError> {
    let attempt = &ticket.attempt;
    if let AgentEvent::Progress(progress) = report.event {
        state.witness.progress(attempt, progress);
        return Ok(Ok(()));
    }
    let since = state.since(attempt);
    let mut since = since.lock().await;
    let ticket = with_since(ticket, &since);
    let evidence = match report.event {
        AgentEvent::Progress(_) => return Ok(Ok(())),
        AgentEvent::Writing { disk } => may_write(&ticket, &report.boot_id, disk, Timestamp::now()),
        AgentEvent::Written { digest, bytes } => was_written(&ticket, &report.boot_id, digest, bytes),
        AgentEvent::Failed { wrote, code, message } => {
            let (code, message) = (shorten(&code), shorten(&message));
            tracing::warn!(%attempt, code, message, wrote, "agent failed");
            // Whatever the agent thinks: after "writing" the old content may be gone.
            state.witness.failed(attempt, wrote || ticket.reached(Rung::Writing), &code, &message).await?;
            return Ok(Ok(()));
        }
    };
    match evidence {
        Ok(evidence) => {
            let rung = evidence.rung();
            state.saw(attempt, evidence, &mut since).await?;
            tracing::info!(%attempt, boot_id = report.boot_id, %rung, "agent's report");
            Ok(Ok(()))
        }
        Err(why) => Ok(Err(why)),
    }
}

/// Leave to write: to a start of the agent that said hello, whose identity matches, while the ticket permits an install, and
/// for one disk.
fn may_write(ticket: &Ticket, boot_id: &str, disk: ObservedDisk, now: Timestamp) -> Result<Evidence, String> {
    let hello = ticket.evidence.iter().find_map(|evidence| match evidence {
        Evidence::AgentUp { boot_id: id, serial, uuid, disks } if id == boot_id => Some(AgentHello {
            boot_id: id.clone(),
            version: String::new(),
            serial: serial.clone(),
            uuid: uuid.clone(),
            disks: disks.clone(),
            nics: Vec::new(),
            uefi: false,
        }),
        _ => None,
    });
    let hello = hello.ok_or("this start of the agent did not say hello")?;
    match ticket.answer(&hello, now, "") {
        AgentCommand::Install { .. } => {}
        AgentCommand::BootFromDisk => return Err("the disk is written already".to_owned()),
        AgentCommand::Refuse { why } => return Err(why),
    }
    let writing = ticket.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Writing { disk, .. } => Some(disk),
        _ => None,
    });
    match writing {
        Some(other) if *other != disk => Err(format!("it began to write {} already", other.name)),
        _ => Ok(Evidence::Writing { boot_id: boot_id.to_owned(), disk }),
    }
}

/// Written counts only from the start that had leave to write, and with the declared digest.
fn was_written(ticket: &Ticket, boot_id: &str, digest: Digest, bytes: u64) -> Result<Evidence, String> {
    let leave = ticket.evidence.iter().any(|evidence| matches!(evidence, Evidence::Writing { boot_id: id, .. } if id == boot_id));
    let declared = ticket.install.image.digest;
    match () {
        () if !leave => Err("this start of the agent had no leave to write".to_owned()),
        () if digest != declared => Err(format!("the digest is {digest}, the manifest says {declared}")),
        () => Ok(Evidence::Written { digest, bytes }),
    }
}

/// The ticket whose token the request bears, and what it says.
async fn prove<T: DeserializeOwned>(state: &State, peer: Peer, headers: &HeaderMap, body: Body) -> Result<(Ticket, T), Response> {
    let published = state.published();
    let Some(ticket) = ticket_of(state, &published, headers) else { return Err(no_ticket(state, peer)) };
    let bytes = read_body(body).await?;
    let said = serde_json::from_slice(&bytes).map_err(|error| text(StatusCode::BAD_REQUEST, format!("not understood: {error}")))?;
    Ok((ticket.clone(), said))
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(LONGEST_TEXT).collect()
}
