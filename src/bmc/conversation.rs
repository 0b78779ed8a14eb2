//! What is known of one BMC between two questions: its session, which system is the host, what worked, what it holds.

use reqwest::Method;
use serde_json::Value;

use super::{
    boot::Rung,
    config::Config,
    discover,
    document::Document,
    error::Error,
    etag::{self, Form},
    inventory::Inventory,
    quirks::Platform,
    session::Channel,
};

/// Everything about one BMC. Behind a lock: questions to one BMC are asked one after another.
pub(super) struct Conversation {
    pub(super) channel: Channel,
    pub(super) config: Config,
    /// The path of the target's address, which names one of several hosts.
    wanted: Option<String>,
    host: Option<(String, Platform)>,
    /// The ETag form that worked last.
    etag_form: Option<Form>,
    /// The boot override that worked last.
    pub(super) boot_rung: Option<Rung>,
    pub(super) inventory: Inventory,
}

/// The host, just read.
pub(super) struct Host {
    pub(super) uri: String,
    pub(super) document: Document,
    pub(super) platform: Platform,
}

impl Conversation {
    pub(super) fn new(channel: Channel, config: Config, wanted: Option<String>) -> Self {
        Self { channel, config, wanted, host: None, etag_form: None, boot_rung: None, inventory: Inventory::default() }
    }

    /// The path of the target's address, which names one of several hosts.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    /// Reads the host. Its URI is looked up once; a BMC that no longer has it (its firmware was updated) is searched again.
    pub(super) async fn host(&mut self) -> Result<Host, Error> {
        if let Some((uri, platform)) = self.host.clone() {
            match self.channel.get(&uri).await {
                Err(error) if error.status() == Some(404) => self.forget_host(),
                answer => return Ok(Host { uri, document: answer?, platform }),
            }
        }
        let (uri, document) = discover::host(&mut self.channel, self.wanted.as_deref()).await?;
        let platform = Platform::of(&self.channel.root().await?, &document);
        tracing::debug!(bmc = self.channel.address(), host = uri, ?platform, "found the host");
        self.host = Some((uri.clone(), platform.clone()));
        Ok(Host { uri, document, platform })
    }

    /// Looks for the host again at the next question.
    pub(super) fn forget_host(&mut self) {
        self.host = None;
        self.channel.forget();
    }

    /// Changes a resource. `If-Match` is climbed form by form, since BMCs differ in what they take (HARDWARE rows 1 to 9): the
    /// form that worked is tried first next time. A refusal for any other reason is the caller's to see.
    pub(super) async fn patch(&mut self, uri: &str, body: &Value) -> Result<(), Error> {
        let body = body.to_string().into_bytes();
        let mut sent = Vec::new();
        let mut current = self.channel.get(uri).await?;
        loop {
            let Some((form, value)) = etag::next(&current, self.etag_form, &sent) else {
                return Err(Error::Unsupported {
                    url: uri.to_owned(),
                    why: "it takes no form of its own ETag, nor a change without one".into(),
                });
            };
            let answer = self.channel.call(Method::PATCH, uri, value.as_deref(), Some(body.clone())).await?;
            match answer.ok() {
                Ok(_) => {
                    self.etag_form = Some(form);
                    return Ok(());
                }
                Err(error) if etag::is_about_etag(&error) => {
                    tracing::debug!(uri, ?form, %error, "the BMC wants another ETag");
                    sent.push((form, value));
                    current = self.channel.get(uri).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Performs an action.
    pub(super) async fn post(&mut self, uri: &str, body: &Value, if_match: Option<&str>) -> Result<(), Error> {
        self.channel.call(Method::POST, uri, if_match, Some(body.to_string().into_bytes())).await?.ok()?;
        Ok(())
    }
}
