//! The agent's side of the protocol: requests with a token over pinned TLS, repeated for as long as it makes sense.

use std::{sync::Arc, time::Duration};

use reqwest::{RequestBuilder, Response, StatusCode, Url, header::AUTHORIZATION};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use tokio::time::Instant;

use super::{Host, Pace, Params};
use crate::{
    model::{AgentCommand, AgentEvent, AgentHello, AgentReport, Fingerprint, Progress},
    wire::tls,
};

/// Most characters of a server's reason that are shown.
const REASON: usize = 400;

/// Why a request was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// The server understood and said no; asking again is pointless.
    #[error("the boot server says {status}: {reason}")]
    Denied {
        /// HTTP status.
        status: u16,
        /// Its own words.
        reason: String,
    },
    /// No useful answer within [`Pace::give_up`].
    #[error("the boot server did not answer for {} minutes; the last problem: {last}", after.as_secs() / 60)]
    Silent {
        /// The time.
        after: Duration,
        /// What the last try met.
        last: String,
    },
}

/// Speaks to one boot server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    pinned: reqwest::Client,
    any: reqwest::Client,
    base: Url,
    token: Arc<str>,
    boot_id: Arc<str>,
    host: Arc<dyn Host>,
    /// How patient it is.
    pub(super) pace: Pace,
}

impl Client {
    /// A client for `params`.
    ///
    /// # Errors
    /// A sentence when the address can't be used or TLS can't be set up.
    pub(super) fn new(params: &Params, boot_id: &str, host: Arc<dyn Host>, pace: Pace) -> Result<Self, String> {
        let base = Url::parse(&params.url).map_err(|error| format!("rackwright.url={} can't be used: {error}", params.url))?;
        let build = |pin: Option<Fingerprint>| {
            let tls = tls::client(tls::by_key(pin.map(|pin| pin.0))).map_err(|error| format!("TLS can't be set up: {error}"))?;
            let redirects = if pin.is_some() { reqwest::redirect::Policy::none() } else { reqwest::redirect::Policy::limited(5) };
            let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().redirect(redirects);
            let builder = builder.connect_timeout(pace.request).user_agent(concat!("rackwright-agent/", env!("CARGO_PKG_VERSION")));
            builder.build().map_err(|error| format!("HTTP can't be set up: {}", chain(&error)))
        };
        let (pinned, any) = (build(Some(params.fingerprint))?, build(None)?);
        Ok(Self { pinned, any, base, token: params.token.as_str().into(), boot_id: boot_id.into(), host, pace })
    }

    /// Asks what to do, until told.
    pub(super) async fn hello(&self, hello: &AgentHello) -> Result<AgentCommand, CallError> {
        self.persist(|| self.post("/agent/v1/hello", hello), "hello", |response| async move { response.json().await }).await
    }

    /// Tells an event, until it is acknowledged.
    pub(super) async fn report(&self, event: AgentEvent) -> Result<(), CallError> {
        let report = AgentReport { boot_id: self.boot_id.to_string(), event };
        self.persist(|| self.post("/agent/v1/report", &report), "report", |_| async { Ok(()) }).await
    }

    /// Tells progress once. Only a plain "you may not go on" (409) is worth an answer; all else is told again with the next. It has the
    /// time of any request: over a slow link, connection and handshake take seconds, and one that is given up is no sign of life.
    pub(super) async fn progress(&self, progress: Progress) -> Result<(), CallError> {
        let report = AgentReport { boot_id: self.boot_id.to_string(), event: AgentEvent::Progress(progress) };
        match self.post("/agent/v1/report", &report).send().await {
            Ok(response) if response.status() == StatusCode::CONFLICT => Err(denied(response).await),
            _ => Ok(()),
        }
    }

    /// A request for an image. The token goes to the boot server alone; from any other server the image's digest is what counts,
    /// so that server's certificate is not looked at.
    pub(super) fn image(&self, url: &Url) -> RequestBuilder {
        if url.origin() == self.base.origin() {
            self.pinned.get(url.clone()).header(AUTHORIZATION, self.bearer())
        } else {
            self.any.get(url.clone())
        }
    }

    /// Shows a line on the console.
    pub(super) fn say(&self, line: &str) {
        self.host.say(line);
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn post(&self, path: &str, body: &impl Serialize) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(path);
        self.pinned.post(url).header(AUTHORIZATION, self.bearer()).timeout(self.pace.request).json(body)
    }

    /// Sends until there is an answer that counts: success that can be read, or a denial.
    async fn persist<T, F>(&self, request: impl Fn() -> RequestBuilder, what: &str, read: impl Fn(Response) -> F) -> Result<T, CallError>
    where
        F: Future<Output = reqwest::Result<T>>,
    {
        let mut patience = Patience::new(self.pace);
        loop {
            let problem = match request().send().await {
                Ok(response) if response.status().is_success() => match read(response).await {
                    Ok(value) => return Ok(value),
                    Err(error) => format!("its answer can't be read: {}", chain(&error)),
                },
                Ok(response) if is_final(response.status()) => return Err(denied(response).await),
                Ok(response) => format!("it answers {}", response.status()),
                Err(error) => chain(&error),
            };
            if patience.is_time_to_speak() {
                self.say(&format!("waiting for the boot server {} ({what}): {problem}", self.base));
            }
            patience.wait().await.map_err(|after| CallError::Silent { after, last: problem })?;
        }
    }
}

/// Statuses that a retry may change are those of a server that starts, stops, is overloaded or is behind something that is.
pub(super) fn is_final(status: StatusCode) -> bool {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    (status.is_client_error() || status.is_redirection()) && !passing.contains(&status)
}

async fn denied(response: Response) -> CallError {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason: String =
        if text.is_empty() { status.canonical_reason().unwrap_or("no reason") } else { &text }.chars().take(REASON).collect();
    CallError::Denied { status: status.as_u16(), reason }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

/// How long to wait between tries, and when to stop.
pub(super) struct Patience {
    pace: Pace,
    since: Instant,
    next: Duration,
    spoke: Option<Instant>,
}

impl Patience {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, since: Instant::now(), next: pace.retry_first, spoke: None }
    }

    /// True at the first problem, and then once a minute: the console must tell why the machine waits, and stay readable.
    pub(super) fn is_time_to_speak(&mut self) -> bool {
        let due = self.spoke.is_none_or(|spoke| spoke.elapsed() >= Duration::from_secs(60));
        if due {
            self.spoke = Some(Instant::now());
        }
        due
    }

    /// Waits before the next try; the time passed so far when there is to be none.
    pub(super) async fn wait(&mut self) -> Result<(), Duration> {
        let passed = self.since.elapsed();
        if passed >= self.pace.give_up {
            return Err(passed);
        }
        tokio::time::sleep(spread(self.next)).await;
        self.next = (self.next * 2).min(self.pace.retry_most);
        Ok(())
    }
}

/// Between 3/4 and 5/4 of `wait`: the machines of a room must not all come back in the same instant.
fn spread(wait: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness the middle is as good.
    let _ = SystemRandom::new().fill(&mut byte);
    wait * (384 + u32::from(byte[0])) / 512
}
