//! What can be seen without asking the controller: disk files, serial consoles, BMCs over Redfish.

use std::{fs::File, io::Read, ops::Range, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::shared::{PASSWORD, run};

/// A machine's BMC, asked with a client that is not Rackwright's.
pub struct Bmc {
    client: Client,
    address: &'static str,
}

impl Bmc {
    pub fn of(machine: &str) -> anyhow::Result<Self> {
        let address = match machine {
            "vm-bios" => "https://127.78.0.11:8443",
            "vm-uefi" => "https://127.78.0.12:8443",
            _ => "https://127.78.0.13:8443",
        };
        // Any certificate will do to read a power state here.
        let client = Client::builder().timeout(Duration::from_secs(10)).tls_danger_accept_invalid_certs(true).no_proxy().build()?;
        Ok(Self { client, address })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.client.get(format!("{}{path}", self.address)).basic_auth("admin", Some(PASSWORD));
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// The machine's system, found by following links.
    async fn system(&self) -> anyhow::Result<Value> {
        let root = self.get("/redfish/v1/").await?;
        let systems = self.get(root["Systems"]["@odata.id"].as_str().context("Systems")?).await?;
        self.get(systems["Members"][0]["@odata.id"].as_str().context("a member")?).await
    }

    pub async fn is_on(&self) -> anyhow::Result<()> {
        let system = self.system().await?;
        ensure!(system["PowerState"] == "On", "the BMC says {}", system["PowerState"]);
        Ok(())
    }

    /// Takes the power away and gives it back.
    pub async fn force_restart(&self) -> anyhow::Result<()> {
        let system = self.system().await?;
        let target = system["Actions"]["#ComputerSystem.Reset"]["target"].as_str().context("a reset action")?;
        let request = self.client.post(format!("{}{target}", self.address)).basic_auth("admin", Some(PASSWORD));
        request.json(&json!({"ResetType": "ForceRestart"})).send().await?.error_for_status()?;
        Ok(())
    }
}

/// SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> anyhow::Result<String> {
    let (mut file, mut hash, mut buffer) = (open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..length]);
    }
}

/// The bytes that a partition takes, by sgdisk.
pub fn partition(disk: &Path, number: u32) -> anyhow::Result<Range<u64>> {
    let text = run("sgdisk", &[&format!("--info={number}"), &disk.display().to_string()], Path::new("."))?;
    let sector = |key: &str| -> anyhow::Result<u64> {
        let line =
            text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key:?} in what sgdisk says: {text}"))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse::<u64>()? * 512)
    };
    Ok(sector("First sector:")?..sector("Last sector:")? + 512)
}

/// A file of the seed on a disk, read by mtools.
pub fn seed_file(disk: &Path, image: &Path, name: &str) -> anyhow::Result<String> {
    let start = partition(image, 2)?.start;
    run("mtype", &["-i", &format!("{}@@{start}", disk.display()), &format!("::{name}")], Path::new("."))
}

/// Ensures that `range` of a disk holds what the image holds there, outside of `but`.
pub fn holds(disk: &Path, image: &Path, range: Range<u64>, but: &Range<u64>) -> anyhow::Result<()> {
    let mut files = (open(disk)?, open(image)?);
    let mut blocks = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < range.end {
        let length = blocks.0.len().min(usize::try_from(range.end - at)?);
        files.0.read_exact(&mut blocks.0[..length])?;
        files.1.read_exact(&mut blocks.1[..length])?;
        if blocks.0[..length] != blocks.1[..length] {
            let pairs = blocks.0[..length].iter().zip(&blocks.1);
            let differing = pairs.zip(at..).filter(|((one, other), _)| one != other).map(|(_, byte)| byte);
            let first = differing.filter(|byte| range.contains(byte)).find(|byte| !but.contains(byte));
            ensure!(first.is_none(), "{} differs from the image at byte {}", disk.display(), first.unwrap_or_default());
        }
        at += length as u64;
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("can't read {}", path.display()))
}
