//! Which hosts a BMC has: what somebody asks who has an address and no manifest yet.

use super::{Redfish, discover, error::Error, quirks::Platform};
use crate::{model::BmcTarget, ports::BmcError};

/// The hosts behind one BMC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Each of them; never empty.
    pub found: Vec<HostFound>,
    /// Systems that are no hosts, such as baseboards and DPUs, each with the reason.
    pub skipped: Vec<String>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFound {
    /// Its path, such as `/redfish/v1/Systems/1`.
    pub path: String,
    /// What its operating system told the BMC that it is called (`HostName`, DSP0268).
    pub host_name: Option<String>,
    /// Whether its serial number is its SKU, as on Dell machines.
    pub serial_is_sku: bool,
}

impl Redfish {
    /// Asks which hosts there are. Where the target's address has a path, only that one counts. More than one of a list is good
    /// only with its path in the address: without it, orders are refused.
    ///
    /// # Errors
    /// The BMC can't be asked, or it has no host that can be managed.
    pub async fn hosts(&self, target: &BmcTarget) -> Result<Hosts, BmcError> {
        let late = || Error::Timeout { url: target.address.clone(), doing: "listing its systems".to_owned() };
        let found = tokio::time::timeout(self.config.observe_timeout, self.listed(target)).await;
        Ok(found.map_err(|_| late()).and_then(|found| found)?)
    }

    async fn listed(&self, target: &BmcTarget) -> Result<Hosts, Error> {
        let conversation = self.conversation(target)?;
        let credential = self.credential(target)?;
        let mut conversation = conversation.lock().await;
        conversation.channel.use_credential(credential).await;
        let wanted = conversation.wanted().map(str::to_owned);
        let candidates = discover::candidates(&mut conversation.channel, wanted.as_deref()).await?;
        let root = conversation.channel.root().await?;
        let host = |(path, system): (String, super::document::Document)| {
            let serial_is_sku = Platform::of(&root, &system).serial_is_in_sku() && system.text(&["SKU"]).is_some();
            HostFound { path, host_name: system.text(&["HostName"]), serial_is_sku }
        };
        if candidates.best.is_empty() {
            return Err(Error::NoHost { url: target.address.clone(), why: candidates.why_none(wanted.as_deref()) });
        }
        Ok(Hosts { found: candidates.best.into_iter().map(host).collect(), skipped: candidates.skipped })
    }
}
