//! BMCs over Redfish (DSP0266): what they say becomes an [`Observation`]; power and the next boot are ordered through them.
//!
//! **Scope.** One conversation with each BMC: found by following links from the service root, one session kept and given back,
//! everything read leniently, every order read back. What vendors do differently is in `quirks` and in ladders that try.
//!
//! **Non-goals.** No decisions: what to order and when is the engine's. No BIOS settings, firmware updates, virtual media or IPMI.

mod boot;
mod boot_clear;
mod budget;
mod client;
mod config;
mod conversation;
mod discover;
mod document;
mod error;
mod etag;
mod hosts;
mod inventory;
mod observe;
mod power;
mod presented;
mod quirks;
mod session;
mod tls;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rustls::RootCertStore;

pub use config::Config;
use conversation::Conversation;
use error::Error;
pub use hosts::{HostFound, Hosts};
pub use presented::presented;

use crate::{
    model::{BmcTarget, BootMode, Observation, SecretName, Timestamp, Trust},
    ports::{Bmc, BmcError, Credential, PowerCommand, SecretError, Secrets},
};

/// Reads `bytes` as a document, for `fuzz/`.
#[cfg(fuzzing)]
pub fn fuzz_document(bytes: &[u8]) {
    document::fuzz(bytes);
}

/// How long logging out at the end may take for each BMC: a BMC that is gone must not hold up the end of the program.
const LOG_OUT: Duration = Duration::from_secs(5);

/// Why a [`Redfish`] can't be made.
#[derive(Debug, thiserror::Error)]
#[error("the settings for BMCs can't be used: {message}")]
pub struct ConfigError {
    message: String,
}

/// All BMCs over Redfish.
pub struct Redfish {
    config: Config,
    secrets: Arc<dyn Secrets>,
    cas: Option<Arc<RootCertStore>>,
    conversations: Mutex<BTreeMap<BmcTarget, Arc<tokio::sync::Mutex<Conversation>>>>,
}

impl Redfish {
    /// Reads the CA file, if one is configured. Talks to nobody yet.
    ///
    /// # Errors
    /// The CA file can't be read or holds no certificate.
    pub fn new(config: Config, secrets: Arc<dyn Secrets>) -> Result<Self, ConfigError> {
        let cas = config.ca_file.as_deref().map(tls::load_cas).transpose();
        let cas = cas.map_err(|error| ConfigError { message: error.to_string() })?;
        Ok(Self { config, secrets, cas, conversations: Mutex::default() })
    }

    /// The conversation with a target, begun if there is none.
    fn conversation(&self, target: &BmcTarget) -> Result<Arc<tokio::sync::Mutex<Conversation>>, Error> {
        // A panic elsewhere can't leave the map half-changed.
        let mut conversations = self.conversations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(conversation) = conversations.get(target) {
            return Ok(conversation.clone());
        }
        let path = client::base(&target.address)?.path().trim_end_matches('/').to_owned();
        let wanted = Some(path).filter(|path| !path.is_empty() && path != "/redfish" && path != "/redfish/v1");
        let client = client::Client::new(target, &self.config, self.cas.as_ref())?;
        let channel = session::Channel::new(client, self.config.clone());
        let conversation = Arc::new(tokio::sync::Mutex::new(Conversation::new(channel, self.config.clone(), wanted)));
        conversations.insert(target.clone(), conversation.clone());
        Ok(conversation)
    }

    /// User name and password, asked each time so that a changed password is seen.
    fn credential(&self, target: &BmcTarget) -> Result<Option<Credential>, Error> {
        let Some(name) = &target.credentials else { return Ok(None) };
        let credential = self.secrets.credential(name);
        credential.map(Some).map_err(|error| Error::Secret { address: target.address.clone(), why: error.to_string() })
    }

    async fn observed(&self, target: &BmcTarget, seen: &mut Observation) -> Result<(), Error> {
        let conversation = self.conversation(target)?;
        let credential = self.credential(target)?;
        let mut conversation = conversation.lock().await;
        conversation.channel.use_credential(credential).await;
        observe::observe(&mut conversation, seen).await
    }

    async fn order(&self, target: &BmcTarget, order: Order) -> Result<(), Error> {
        let conversation = self.conversation(target)?;
        let credential = self.credential(target)?;
        let work = async {
            let mut conversation = conversation.lock().await;
            conversation.channel.use_credential(credential).await;
            match order {
                Order::Power(command) => {
                    conversation.inventory.power_changes(&self.config);
                    power::power(&mut conversation, command).await
                }
                Order::BootFromNetwork(mode) => boot::from_network(&mut conversation, mode).await,
                Order::ClearBootOverride => boot_clear::clear(&mut conversation).await,
            }
        };
        let late = || Error::Timeout { url: target.address.clone(), doing: format!("ordering {order:?}") };
        tokio::time::timeout(self.config.write_timeout, work).await.map_err(|_| late())?
    }
}

/// What can be ordered.
#[derive(Debug, Clone, Copy)]
enum Order {
    Power(PowerCommand),
    BootFromNetwork(BootMode),
    ClearBootOverride,
}

#[async_trait]
impl Bmc for Redfish {
    async fn observe(&self, target: &BmcTarget, now: Timestamp) -> Observation {
        let limit = self.config.observe_timeout;
        let mut seen = observe::blank(now, &target.address, limit);
        match tokio::time::timeout(limit, self.observed(target, &mut seen)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(bmc = target.address, %error, "not observed");
                seen = Observation::blank(now, target.address.clone(), &error.unknown());
            }
            Err(_) => tracing::debug!(bmc = target.address, ?limit, "not observed in time"),
        }
        seen
    }

    async fn power(&self, target: &BmcTarget, command: PowerCommand) -> Result<(), BmcError> {
        Ok(self.order(target, Order::Power(command)).await?)
    }

    async fn boot_from_network(&self, target: &BmcTarget, mode: BootMode) -> Result<(), BmcError> {
        Ok(self.order(target, Order::BootFromNetwork(mode)).await?)
    }

    async fn clear_boot_override(&self, target: &BmcTarget) -> Result<(), BmcError> {
        Ok(self.order(target, Order::ClearBootOverride).await?)
    }

    async fn close(&self) {
        let conversations = std::mem::take(&mut *self.conversations.lock().unwrap_or_else(PoisonError::into_inner));
        let mut farewells = tokio::task::JoinSet::new();
        for conversation in conversations.into_values() {
            farewells.spawn(tokio::time::timeout(LOG_OUT, async move { conversation.lock().await.channel.log_out().await }));
        }
        while farewells.join_next().await.is_some() {}
    }
}

/// The JSON Schema of an [`Observation`], as `rackwright observe --json` prints it.
pub fn observation_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Observation).to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$id".to_owned(), "https://rackwright.dev/schemas/observation.schema.json".into());
    }
    schema
}

/// Asks one BMC once, without a fleet, and logs out again. `credential` of `None` sends none.
///
/// # Errors
/// [`ConfigError`]: the CA file can't be read. Everything else is a gap in the observation.
pub async fn observe_once(
    config: Config,
    address: &str,
    credential: Option<Credential>,
    trust: Trust,
    now: Timestamp,
) -> Result<Observation, ConfigError> {
    struct Only(Option<Credential>);
    impl Secrets for Only {
        fn credential(&self, name: &SecretName) -> Result<Credential, SecretError> {
            self.0.clone().ok_or_else(|| SecretError { message: format!("there is no secret {name}") })
        }
    }
    let name = credential.as_ref().map(|_| SecretName::new("only").expect("four letters are a name"));
    let target = BmcTarget { address: address.to_owned(), credentials: name, trust };
    let redfish = Redfish::new(config, Arc::new(Only(credential)))?;
    let seen = redfish.observe(&target, now).await;
    redfish.close().await;
    Ok(seen)
}
