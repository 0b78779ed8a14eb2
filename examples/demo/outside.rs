//! What can be seen without asking the controller: the simulator's account of disks and power, disk files, BMCs over Redfish.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use rackwright::{
    model::{Fleet, Machine},
    sim::SEED,
};
use reqwest::Client;
use serde_json::{Value, json};

use crate::{shared::PASSWORD, stage::Stage};

/// Where the last MiB of a simulated disk of 64 MiB is.
const LAST_MIB: usize = 63 << 20;

/// One machine from the outside.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The installed system runs.
    pub is_running: bool,
    pub is_writing: bool,
    pub boots: u64,
    /// How often an install began to write its disk.
    pub installs: u64,
    pub bytes_written: u64,
    /// The simulator's account of each block.
    pub account: PathBuf,
}

/// Looks from the outside.
pub struct Outside {
    client: Client,
    control: String,
}

impl Outside {
    pub fn of(stage: &Stage) -> anyhow::Result<Self> {
        // Not Rackwright's client: any certificate will do to read a power state here.
        let client = Client::builder().timeout(Duration::from_secs(10)).tls_danger_accept_invalid_certs(true).no_proxy().build()?;
        Ok(Self { client, control: stage.control.clone() })
    }

    /// All machines, by the simulator's own account.
    pub async fn machines(&self) -> anyhow::Result<BTreeMap<String, Seen>> {
        let url = format!("{}/machines", self.control);
        let all: Vec<Value> = self.client.get(&url).send().await?.error_for_status()?.json().await.context("the simulator's answer")?;
        all.iter().map(|machine| Ok((machine["name"].as_str().context("a name")?.to_owned(), seen(machine)))).collect()
    }

    /// Arms a fault.
    pub async fn fault(&self, machine: &str, fault: &str, count: u32) -> anyhow::Result<()> {
        let url = format!("{}/machines/{machine}/faults", self.control);
        self.client.post(&url).json(&json!({"fault": fault, "count": count})).send().await?.error_for_status()?;
        Ok(())
    }

    /// Takes all faults of a machine away.
    pub async fn clear_faults(&self, machine: &str) -> anyhow::Result<()> {
        let url = format!("{}/machines/{machine}/faults", self.control);
        self.client.delete(&url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Somebody presses the button.
    pub async fn switch_off(&self, machine: &str) -> anyhow::Result<()> {
        let url = format!("{}/machines/{machine}/power", self.control);
        self.client.post(&url).json(&json!({"state": "Off"})).send().await?.error_for_status()?;
        Ok(())
    }

    /// Reads a machine's power over Redfish, by following links.
    pub async fn is_on(&self, machine: &Machine) -> anyhow::Result<()> {
        let get = async |path: &str| -> anyhow::Result<Value> {
            let request = self.client.get(format!("{}{path}", machine.bmc.address)).basic_auth("admin", Some(PASSWORD));
            Ok(request.send().await?.error_for_status()?.json().await?)
        };
        let root = get("/redfish/v1/").await?;
        let systems = get(root["Systems"]["@odata.id"].as_str().context("Systems")?).await?;
        let system = get(systems["Members"][0]["@odata.id"].as_str().context("a member")?).await?;
        ensure!(system["PowerState"] == "On", "{} is {}", machine.name, system["PowerState"]);
        Ok(())
    }

    /// A machine's BMC address without scheme and port.
    pub fn address_of(&self, fleet: &Fleet, name: &str) -> anyhow::Result<String> {
        let machine = fleet.machines.get(&name.parse()?).with_context(|| format!("no {name}"))?;
        Ok(machine.bmc.address.trim_start_matches("https://").split(':').next().unwrap_or_default().to_owned())
    }

    /// Whether an install wrote each block once, and the disk's ends twice: they are zeroed before all else, and written after it.
    pub fn written_once(&self, seen: &Seen) -> anyhow::Result<()> {
        ensure!(seen.installs == 1, "the disk was installed {} times", seen.installs);
        let text = fs::read_to_string(&seen.account).with_context(|| format!("can't read {}", seen.account.display()))?;
        let account: Value = serde_json::from_str(&text)?;
        for (block, writes) in account["blocks"].as_object().context("an account by block")? {
            // The seed is written over the image's empty seed volume, so only there a block may be written twice.
            let at = block.parse::<usize>()? << 20;
            let times = if at == 0 || at == LAST_MIB { 2 } else { 1 };
            let lawful = writes.as_u64().is_some_and(|writes| writes <= times);
            ensure!(SEED.contains(&at) || lawful, "MiB {block} of the disk was written {writes} times");
        }
        Ok(())
    }

    /// Compares a disk file with an image, byte by byte, outside of the seed's partition.
    pub fn disk_holds(&self, stage: &Stage, machine: &Machine, name: &str) -> anyhow::Result<()> {
        let serial = machine.disks.system.as_ref().and_then(|disk| disk.serial.clone()).context("no disk")?;
        let path: PathBuf = stage.disk(machine.name.as_str(), &serial);
        let disk = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        let differs = stage.images[name].difference(&disk);
        ensure!(differs.is_none(), "the disk of {} differs from {name} at byte {}", machine.name, differs.unwrap_or_default());
        Ok(())
    }
}

fn seen(machine: &Value) -> Seen {
    let disk = &machine["disks"][0];
    Seen {
        is_running: machine["activity"] == "running",
        is_writing: machine["activity"] == "agent",
        boots: machine["boots"].as_u64().unwrap_or_default(),
        installs: disk["installs"].as_u64().unwrap_or_default(),
        bytes_written: disk["bytes"].as_u64().unwrap_or_default(),
        account: PathBuf::from(format!("{}.writes.json", disk["file"].as_str().unwrap_or_default())),
    }
}
