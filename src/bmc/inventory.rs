//! What rarely changes: NICs, disks, firmware versions. Dozens of resources, read when they are due and remembered in between.

use std::{collections::BTreeMap, time::Instant};

use serde_json::Value;

use super::{
    budget::{self, Budget},
    config::Config,
    conversation::{Conversation, Host},
    discover,
    document::{self, Document},
    error::Error,
    quirks,
};
use crate::model::{FirmwareVersion, Mac, Observation, ObservedDisk, ObservedNic, PowerState, Seen, Unknown};

/// What was read last.
#[derive(Default)]
pub(super) struct Inventory {
    nics: Part<Vec<ObservedNic>>,
    disks: Part<Vec<ObservedDisk>>,
    firmware: Part<Vec<FirmwareVersion>>,
    power: Option<PowerState>,
    /// When the machine has settled after its power changed: what was read before is read again then.
    settled: Option<Instant>,
    /// Resources that were read for a part that is not complete yet: a slow BMC with many drives needs more than one observation,
    /// and the next one goes on where this one was cut off.
    read: BTreeMap<String, Document>,
    budget: Budget,
}

/// One part and when it was read.
struct Part<T> {
    value: Option<(Instant, Seen<T>)>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { value: None }
    }
}

impl<T: Clone> Part<T> {
    /// Whether it was read so long ago, or before such a change, that it is read again.
    fn is_old(&self, config: &Config, settled: Option<Instant>) -> bool {
        let missed = |at: Instant| settled.is_some_and(|settled| at < settled && settled <= Instant::now());
        self.value.as_ref().is_some_and(|(at, _)| at.elapsed() >= config.inventory_every || missed(*at))
    }

    fn is_due(&self, config: &Config, settled: Option<Instant>) -> bool {
        self.value.is_none() || self.is_old(config, settled)
    }

    fn seen(&self) -> Seen<T> {
        self.value.as_ref().map_or(Seen::Unknown(Unknown::NotAsked), |(_, seen)| seen.clone())
    }
}

impl Inventory {
    /// Whether some of it is read again.
    pub(super) fn is_old(&self, config: &Config) -> bool {
        self.nics.is_old(config, self.settled) || self.disks.is_old(config, self.settled) || self.firmware.is_old(config, self.settled)
    }

    /// Takes the power state that was just read.
    pub(super) fn power_is(&mut self, power: Option<PowerState>, config: &Config) {
        if self.power.is_some() && power != self.power {
            self.power_changes(config);
        }
        self.power = power;
    }

    /// A machine that was switched on or off may show other devices, but not at once: many BMCs list drives and NICs only after
    /// POST (HARDWARE row 81), and while it boots, what counts is its power and not dozens of resources.
    pub(super) fn power_changes(&mut self, config: &Config) {
        self.settled = Some(Instant::now() + config.settle_after_power);
        self.forget_resources();
    }

    fn forget_resources(&mut self) {
        self.read.clear();
        self.budget = Budget::default();
    }
}

/// Reads what is due into `seen`, and takes the rest from memory.
pub(super) async fn refresh(bmc: &mut Conversation, host: &Host, seen: &mut Observation) {
    seen.nics = bmc.inventory.nics.seen();
    seen.disks = bmc.inventory.disks.seen();
    seen.firmware = bmc.inventory.firmware.seen();
    if bmc.inventory.nics.is_due(&bmc.config, bmc.inventory.settled) {
        seen.nics = late("NICs", &bmc.config);
        let read = nics(bmc, host).await;
        seen.nics = settle(read, |part| bmc.inventory.nics = part);
        bmc.inventory.forget_resources();
    }
    if bmc.inventory.disks.is_due(&bmc.config, bmc.inventory.settled) {
        seen.disks = late("disks", &bmc.config);
        let read = disks(bmc, host).await;
        seen.disks = settle(read, |part| bmc.inventory.disks = part);
        bmc.inventory.forget_resources();
    }
    if bmc.inventory.firmware.is_due(&bmc.config, bmc.inventory.settled) {
        seen.firmware = late("firmware versions", &bmc.config);
        let read = firmware(bmc).await;
        seen.firmware = settle(read, |part| bmc.inventory.firmware = part);
        bmc.inventory.forget_resources();
    }
}

/// Stands while a part is being read, so that it is what is left when time is up.
fn late<T>(what: &str, config: &Config) -> Seen<T> {
    Seen::Unknown(Unknown::TimedOut(format!("{what} are still being read after {:?}; reading goes on", config.observe_timeout)))
}

/// Keeps what was read. A gap that is the BMC's answer is kept too; one that may pass is asked again next time.
fn settle<T: Clone>(read: Result<Vec<T>, Error>, keep: impl FnOnce(Part<Vec<T>>)) -> Seen<Vec<T>> {
    let seen = match read {
        // An empty list is no evidence of an empty machine: before POST has finished, BMCs list nothing (HARDWARE row 81).
        Ok(items) if items.is_empty() => Seen::Unknown(Unknown::NotReported),
        Ok(items) => Seen::Known(items),
        Err(error) if error.ends_the_conversation() => return Seen::Unknown(error.unknown()),
        Err(error) => Seen::Unknown(error.unknown()),
    };
    if !matches!(seen, Seen::Unknown(Unknown::Busy(_))) {
        keep(Part { value: Some((Instant::now(), seen.clone())) });
    }
    seen
}

impl Conversation {
    async fn get_once(&mut self, uri: &str) -> Result<Document, Error> {
        if let Some(document) = self.inventory.read.get(uri) {
            return Ok(document.clone());
        }
        let document = self.channel.get(uri).await?;
        self.inventory.budget.take(self.channel.address(), &document)?;
        self.inventory.read.insert(uri.to_owned(), document.clone());
        Ok(document)
    }

    /// Reads each resource. One that can't be read is left out with a word in the log; it must not hide the others.
    async fn get_each(&mut self, uris: Vec<String>) -> Result<Vec<Document>, Error> {
        let mut documents = Vec::new();
        let mut failure = None;
        budget::at_most(budget::MAX_MEMBERS, uris.len(), self.channel.address(), "links in one list")?;
        for uri in uris {
            match self.get_once(&uri).await {
                Ok(document) => documents.push(document),
                Err(error) if error.ends_the_conversation() || matches!(error, Error::TooMany { .. }) => return Err(error),
                Err(error) => {
                    tracing::debug!(bmc = self.channel.address(), uri, %error, "left out of the inventory");
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if documents.is_empty() => Err(error),
            _ => Ok(documents),
        }
    }

    async fn collection(&mut self, link: Option<String>) -> Result<Vec<Document>, Error> {
        let Some(collection) = link else { return Ok(Vec::new()) };
        let members = discover::members(&mut self.channel, &collection).await?;
        self.get_each(members).await
    }
}

async fn nics(bmc: &mut Conversation, host: &Host) -> Result<Vec<ObservedNic>, Error> {
    let mut nics: Vec<ObservedNic> =
        bmc.collection(host.document.link(&["EthernetInterfaces"])).await?.iter().filter_map(ethernet_interface).collect();
    if nics.is_empty() {
        let interfaces = bmc.collection(host.document.link(&["NetworkInterfaces"])).await?;
        nics = functions(bmc, interfaces).await?;
    }
    if nics.is_empty() {
        for chassis in bmc.get_each(document::links(&host.document.raw, &["Links", "Chassis"])).await? {
            let adapters = bmc.collection(chassis.link(&["NetworkAdapters"])).await?;
            nics.extend(functions(bmc, adapters).await?);
        }
    }
    nics.sort_by(|a, b| a.name.cmp(&b.name).then(a.mac.cmp(&b.mac)));
    nics.dedup_by_key(|nic| nic.mac);
    Ok(nics)
}

fn ethernet_interface(nic: &Document) -> Option<ObservedNic> {
    if quirks::is_link_to_bmc(nic) || nic.is_absent() {
        return None;
    }
    let mac = |name: &str| nic.text(&[name])?.parse::<Mac>().ok().filter(|mac| !quirks::is_junk_mac(*mac));
    let link_up = nic.text(&["LinkStatus"]).map(|status| status.eq_ignore_ascii_case("LinkUp"));
    let name = nic.text(&["Id"]).or_else(|| nic.text(&["Name"]))?;
    Some(ObservedNic { name, mac: mac("MACAddress").or_else(|| mac("PermanentMACAddress"))?, link_up })
}

/// Where a system has no EthernetInterfaces (row 88): the functions of its network adapters.
async fn functions(bmc: &mut Conversation, adapters: Vec<Document>) -> Result<Vec<ObservedNic>, Error> {
    let mut nics = Vec::new();
    for adapter in adapters {
        let id = adapter.text(&["Id"]).unwrap_or_default();
        for function in bmc.collection(adapter.link(&["NetworkDeviceFunctions"])).await? {
            let mac = |name: &str| function.text(&["Ethernet", name])?.parse::<Mac>().ok().filter(|mac| !quirks::is_junk_mac(*mac));
            let Some(mac) = mac("MACAddress").or_else(|| mac("PermanentMACAddress")) else { continue };
            let name = format!("{id}/{}", function.text(&["Id"]).unwrap_or_default());
            nics.push(ObservedNic { name, mac, link_up: None });
        }
    }
    Ok(nics)
}

async fn disks(bmc: &mut Conversation, host: &Host) -> Result<Vec<ObservedDisk>, Error> {
    let mut disks = Vec::new();
    for storage in bmc.collection(host.document.link(&["Storage"])).await? {
        let drives = bmc.get_each(document::links(&storage.raw, &["Drives"])).await?;
        disks.extend(drives.iter().filter(|drive| !drive.is_absent()).filter_map(drive_as_disk));
    }
    if disks.is_empty() {
        for storage in bmc.collection(host.document.link(&["SimpleStorage"])).await? {
            disks.extend(document::list(&storage.raw, &["Devices"]).into_iter().filter_map(device_as_disk));
        }
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name).then(a.serial.cmp(&b.serial)));
    disks.dedup();
    Ok(disks)
}

fn drive_as_disk(drive: &Document) -> Option<ObservedDisk> {
    let name = drive.text(&["Id"]).or_else(|| drive.text(&["Name"]))?;
    let wwn = document::list(&drive.raw, &["Identifiers"]).into_iter().find_map(|identifier| {
        let format = document::text(identifier, &["DurableNameFormat"])?;
        let name = document::text(identifier, &["DurableName"])?;
        if ["NAA", "EUI", "NGUID"].contains(&format.as_str()) { Some(name) } else { None }
    });
    Some(ObservedDisk {
        name,
        serial: drive.text(&["SerialNumber"]).filter(|serial| !quirks::is_junk_identity(serial)),
        wwn,
        model: drive.text(&["Model"]),
        path: None,
        size: document::whole(&drive.raw, &["CapacityBytes"]).filter(|size| *size > 0),
    })
}

fn device_as_disk(device: &Value) -> Option<ObservedDisk> {
    let state = document::text(device, &["Status", "State"]);
    if state.is_some_and(|state| state.eq_ignore_ascii_case("Absent")) {
        return None;
    }
    Some(ObservedDisk {
        name: document::text(device, &["Name"])?,
        model: document::text(device, &["Model"]),
        size: document::whole(device, &["CapacityBytes"]).filter(|size| *size > 0),
        ..ObservedDisk::default()
    })
}

async fn firmware(bmc: &mut Conversation) -> Result<Vec<FirmwareVersion>, Error> {
    let Some(service) = bmc.channel.root().await?.link(&["UpdateService"]) else { return Ok(Vec::new()) };
    let service = bmc.get_once(&service).await?;
    let entries = bmc.collection(service.link(&["FirmwareInventory"])).await?;
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut versions = Vec::new();
    for entry in entries {
        let id = entry.text(&["Id"]).unwrap_or_default();
        let (Some(name), Some(version)) = (entry.text(&["Name"]).or_else(|| entry.text(&["Id"])), entry.text(&["Version"])) else {
            continue;
        };
        if quirks::is_not_running(&id) {
            continue;
        }
        *names.entry(name.clone()).or_default() += 1;
        versions.push((id, FirmwareVersion { name, version }));
    }
    // Eight drives of one model, or OpenBMC's "Software Inventory" for everything: then the id tells them apart.
    let apart = |(id, mut entry): (String, FirmwareVersion)| {
        if names[&entry.name] > 1 {
            entry.name = format!("{} [{id}]", entry.name);
        }
        entry
    };
    let mut versions: Vec<FirmwareVersion> = versions.into_iter().map(apart).collect();
    versions.sort();
    versions.dedup();
    Ok(versions)
}
