//! The agent's protocol ([`crate::model::AgentHello`] has its table). Each answer that lets the agent go on is given only
//! after what it rests on is journaled.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State as Shared,
    http::{HeaderMap, StatusCode},
    middleware::from_fn_with_state,
    response::Response,
    routing::post,
};
use serde::de::DeserializeOwned;

use super::{
    Peer, handoff, images, no_ticket, not_taken, read_body, text, ticket_of, when_ready,
    wipe::{may_wipe, was_wiped},
};
use crate::{
    boot::state::State,
    model::{
        AgentCommand, AgentEvent, AgentHello, AgentReport, AttemptId, Digest, Evidence, NoChoice, ObservedDisk, Rung, Ticket, Timestamp,
        Work, choose,
    },
    ports::WitnessError,
};

/// Longest text of an agent that is taken over, in characters: enough for any error, not for a flood.
const LONGEST_TEXT: usize = 2000;

/// Most starts of the agent under one attempt. Each is journaled. A machine that starts again and again makes one in some minutes, and
/// an attempt lasts some hours.
const MOST_STARTS: usize = 64;

/// Routes of the HTTPS server.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/agent/v1/hello", post(hello))
        .route("/agent/v1/report", post(report))
        .route("/handoff/v1/{machine}/{number}/{token}", post(handoff::take))
        .route_layer(from_fn_with_state(state.clone(), when_ready))
        .merge(images::router(&state))
        .with_state(state)
}

async fn hello(Shared(state): Shared<Arc<State>>, Extension(peer): Extension<Peer>, headers: HeaderMap, body: Body) -> Response {
    let (attempt, hello) = match prove::<AgentHello>(&state, peer, &headers, body).await {
        Ok(proved) => proved,
        Err(refusal) => return refusal,
    };
    if let Some(why) = hello.excess() {
        tracing::warn!(%attempt, why, "agent's hello refused");
        // It gives up at a 400: whoever waits for it must know why.
        return match fail(&state, &attempt, &why).await {
            Ok(()) => text(StatusCode::BAD_REQUEST, why),
            Err(error) => not_taken(&error),
        };
    }
    answered(&attempt, command(&state, &attempt, hello).await.map(|taken| taken.map(Json)))
}

/// Fails an attempt whose agent says what can't be taken.
async fn fail(state: &State, attempt: &AttemptId, why: &str) -> Result<(), WitnessError> {
    let since = state.since(attempt);
    let since = since.lock().await;
    let wrote = state.ticket(attempt, &since)?.reached(Rung::Writing);
    state.witness.failed(attempt, wrote, "agent-refused", why).await
}

/// What to do; the inner error is why the agent must do nothing, where not even that can be taken note of.
async fn command(state: &State, attempt: &AttemptId, hello: AgentHello) -> Result<Result<AgentCommand, No>, WitnessError> {
    let since = state.since(attempt);
    let mut since = since.lock().await;
    let ticket = state.ticket(attempt, &since)?;
    let call_home = state.facts.call_home_url(attempt, &state.tokens.call_home(attempt));
    let now = Timestamp::now();
    let mut command = ticket.answer(&hello, now, &call_home);
    let refusal = ticket.refusal(&hello.boot_id, hello.serial.as_deref(), hello.uuid.as_deref(), now);
    let up = match agent_up(&ticket, &hello) {
        Ok(up) => up,
        Err(no) => return Ok(Err(no)),
    };
    if let AgentCommand::Install { install, handoff, .. } = &mut command {
        let given = state.given(attempt, install.user_data.as_deref());
        install.user_data = given.map_err(|why| WitnessError::NotNow { attempt: attempt.clone(), why })?;
        *handoff = state.handoff_place(attempt).map(Box::new);
    }
    // Also when it is refused: what it is, or that it is another start, is why.
    state.saw(attempt, up, &mut since).await?;
    if let AgentCommand::Install { install, .. } = &mut command {
        install.image.url = state.facts.image_url(&install.image.url);
    }
    if let Some(refusal) = refusal {
        let why = refusal.to_string();
        tracing::warn!(%attempt, why, "agent refused");
        if let Some(code) = refusal.code() {
            state.witness.failed(attempt, ticket.reached(Rung::Writing), code, &why).await?;
        }
    }
    tracing::info!(%attempt, boot_id = hello.boot_id, version = hello.version, uefi = hello.uefi, "agent up");
    Ok(Ok(command))
}

/// A hello as evidence. What it says is journaled, so each start may say one thing, and there may not be starts without end.
fn agent_up(ticket: &Ticket, hello: &AgentHello) -> Result<Evidence, No> {
    let up = Evidence::AgentUp {
        boot_id: hello.boot_id.clone(),
        serial: hello.serial.clone(),
        uuid: hello.uuid.clone(),
        disks: hello.disks.clone(),
    };
    let starts = ticket.evidence.iter().filter(|evidence| evidence.rung() == Rung::AgentUp);
    match starts.clone().find(|known| matches!(known, Evidence::AgentUp { boot_id, .. } if *boot_id == hello.boot_id)) {
        Some(known) if *known == up => Ok(up),
        Some(_) => Err(No::because("this start of the agent said before that it is something else")),
        None if starts.count() >= MOST_STARTS => {
            Err(No::because(format!("the agent started {MOST_STARTS} times under {}; a new attempt is needed", ticket.attempt)))
        }
        None => Ok(up),
    }
}

async fn report(Shared(state): Shared<Arc<State>>, Extension(peer): Extension<Peer>, headers: HeaderMap, body: Body) -> Response {
    let (attempt, report) = match prove::<AgentReport>(&state, peer, &headers, body).await {
        Ok(proved) => proved,
        Err(refusal) => return refusal,
    };
    answered(&attempt, take(&state, &attempt, report).await.map(|taken| taken.map(|()| StatusCode::NO_CONTENT)))
}

fn answered(attempt: &AttemptId, taken: Result<Result<impl axum::response::IntoResponse, No>, WitnessError>) -> Response {
    match taken {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(No { why, .. })) => {
            tracing::warn!(%attempt, why, "agent's word refused");
            text(StatusCode::CONFLICT, why)
        }
        Err(error) => not_taken(&error),
    }
}

/// Why an agent must not go on, and the name under which that fails its attempt, if it does.
pub(super) struct No {
    why: String,
    fails: Option<&'static str>,
}

impl No {
    pub(super) fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), fails: None }
    }

    pub(super) fn failing(code: &'static str, why: String) -> Self {
        Self { why, fails: Some(code) }
    }
}

impl From<NoChoice> for No {
    fn from(none: NoChoice) -> Self {
        Self { fails: Some(none.code()), why: none.to_string() }
    }
}

/// Takes a report; the inner error is why the agent must not go on.
async fn take(state: &State, attempt: &AttemptId, report: AgentReport) -> Result<Result<(), No>, WitnessError> {
    let since = state.since(attempt);
    let mut since = since.lock().await;
    let ticket = state.ticket(attempt, &since)?;
    let evidence = match report.event {
        AgentEvent::Progress(progress) => {
            return Ok(is_writer(&ticket, &report.boot_id).map(|()| state.progress(attempt, progress, Instant::now())));
        }
        AgentEvent::Writing { disk } => may_write(&ticket, &report.boot_id, disk, Timestamp::now()),
        AgentEvent::Written { digest, bytes } => was_written(&ticket, &report.boot_id, digest, bytes),
        AgentEvent::Wiping { disks } => may_wipe(&ticket, &report.boot_id, disks, Timestamp::now()),
        AgentEvent::Wiped { proof } => was_wiped(&ticket, &report.boot_id, proof),
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
        Err(no) => {
            if let Some(code) = no.fails {
                state.witness.failed(attempt, ticket.reached(Rung::Writing), code, &no.why).await?;
            }
            Ok(Err(no))
        }
    }
}

/// Leave to write: to a start of the agent that said hello, whose identity matches, while the ticket permits an install, and
/// for the one disk that the ticket's hints mean among those that it said it has (law 6).
fn may_write(ticket: &Ticket, boot_id: &str, disk: ObservedDisk, now: Timestamp) -> Result<Evidence, No> {
    let Work::Install { system, .. } = &ticket.work else { return Err(No::because("the ticket is for a wipe")) };
    let disks = said_hello(ticket, boot_id, now)?;
    if ticket.reached(Rung::Written) {
        return Err(No::because("the disk is written already"));
    }
    if ticket.writing().is_some_and(|(_, others)| others != [disk.clone()]) {
        return Err(No::because("it began to write another disk already"));
    }
    let chosen = choose(disks, system, &ticket.keep)?;
    if *chosen != disk {
        return Err(No::failing("disk-changed", format!("the manifest in force means {}, not {}", chosen.name, disk.name)));
    }
    Ok(Evidence::Writing { boot_id: boot_id.to_owned(), disk })
}

/// The disks that this start of the agent said it has, if it may go on at all.
pub(super) fn said_hello<'a>(ticket: &'a Ticket, boot_id: &str, now: Timestamp) -> Result<&'a [ObservedDisk], No> {
    let hello = ticket.evidence.iter().find_map(|evidence| match evidence {
        Evidence::AgentUp { boot_id: id, serial, uuid, disks } if id == boot_id => Some((serial, uuid, disks)),
        _ => None,
    });
    let (serial, uuid, disks) = hello.ok_or_else(|| No::because("this start of the agent did not say hello"))?;
    match ticket.refusal(boot_id, serial.as_deref(), uuid.as_deref(), now) {
        Some(refusal) => Err(No::because(refusal.to_string())),
        None => Ok(disks),
    }
}

/// Whether this start has leave to write.
pub(super) fn is_writer(ticket: &Ticket, boot_id: &str) -> Result<(), No> {
    let writes = ticket.writing().is_some_and(|(writer, _)| writer == boot_id);
    writes.then_some(()).ok_or_else(|| No::because("this start of the agent has no leave to write"))
}

/// Written counts only from the start that had leave to write, and with the declared digest.
fn was_written(ticket: &Ticket, boot_id: &str, digest: Digest, bytes: u64) -> Result<Evidence, No> {
    is_writer(ticket, boot_id)?;
    let install = ticket.work.install().ok_or_else(|| No::because("the ticket is for a wipe"))?;
    let declared = install.image.digest;
    if digest != declared {
        return Err(No::because(format!("the digest is {digest}, the manifest says {declared}")));
    }
    Ok(Evidence::Written { digest, bytes })
}

/// The attempt whose token the request bears, and what the request says. Only the name is handed on: the ticket itself may be another
/// one, or none, by the time that a slow body is here.
async fn prove<T: DeserializeOwned>(state: &State, peer: Peer, headers: &HeaderMap, body: Body) -> Result<(AttemptId, T), Response> {
    let published = state.published();
    let Some(ticket) = ticket_of(state, &published, headers) else { return Err(no_ticket(state, peer)) };
    let attempt = &ticket.attempt;
    let bytes = match read_body(body).await {
        Ok(bytes) => bytes,
        Err(refusal) if refusal.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            tracing::warn!(%attempt, "agent's body refused");
            let failed = fail(state, attempt, "the agent says more than 1 MiB at once: is the list of its disks right?").await;
            return Err(failed.map_or_else(|error| not_taken(&error), |()| refusal));
        }
        Err(refusal) => return Err(refusal),
    };
    let said = serde_json::from_slice(&bytes).map_err(|error| text(StatusCode::BAD_REQUEST, format!("not understood: {error}")))?;
    Ok((attempt.clone(), said))
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(LONGEST_TEXT).collect()
}
