//! The stage: folders, images, repository, simulator and controller, all in one temporary folder and on loopback.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rackwright::{
    git, manifest,
    model::{Fleet, Machine},
    sim::SampleImage,
};
use serde_json::{Value, json};

use crate::shared::{Ground, PASSWORD, copy_folder};

/// Everything that the story plays with.
pub struct Stage {
    ground: Ground,
    pub images: BTreeMap<String, SampleImage>,
    pub control: String,
}

impl Deref for Stage {
    type Target = Ground;
    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Ground {
        &mut self.ground
    }
}

impl Stage {
    /// Builds the stage. Nothing runs yet but the simulator.
    pub fn build(folder: PathBuf, source: &Path, programs: PathBuf) -> anyhow::Result<Self> {
        let ports = free_ports()?;
        let api = format!("http://127.0.0.1:{}", ports[0]);
        let mut stage = Self {
            ground: Ground::new(folder, programs.join("rackwright"), api, "RACKWRIGHT_DEMO_BMC_PASSWORD"),
            images: BTreeMap::new(),
            control: format!("http://127.0.0.1:{}", ports[1]),
        };
        for part in ["images", "boot", "sim", "state"] {
            fs::create_dir_all(stage.folder.join(part))?;
        }
        for name in ["web-1", "web-2", "db-1", "edge-1"] {
            stage.images.insert(name.to_owned(), SampleImage::make(&stage.folder.join("images"), name, 24)?);
        }
        stage.lay_out_boot_files()?;
        copy_folder(source, &stage.work())?;
        stage.put_digests()?;
        stage.write_simulator(&ports)?;
        stage.write_controller(&ports)?;
        let fingerprint = stage.start_simulator()?;
        stage.put_fingerprint(&fingerprint)?;
        stage.make_repository("Describe the fleet as it stands")?;
        Ok(stage)
    }

    /// Simulated machines fetch these whole and run the real agent's code in their place, so any bytes do.
    fn lay_out_boot_files(&self) -> anyhow::Result<()> {
        for (name, size) in [
            ("undionly.kpxe", 70_000),
            ("snponly.efi", 250_000),
            ("ipxe.efi", 1_000_000),
            ("localboot.efi", 700_000),
            ("vmlinuz", 3_000_000),
            ("initramfs.img", 2_000_000),
        ] {
            fs::write(self.folder.join("boot").join(name), vec![0x90; size])?;
        }
        Ok(())
    }

    fn put_digests(&self) -> anyhow::Result<()> {
        for (name, image) in &self.images {
            let path = self.work().join("images").join(format!("{name}.yaml"));
            edit(&path, |text| replace_value(text, "digest:", &image.digest.to_string()))?;
        }
        Ok(())
    }

    fn put_fingerprint(&self, fingerprint: &str) -> anyhow::Result<()> {
        for entry in fs::read_dir(self.work().join("machines"))? {
            edit(&entry?.path(), |text| replace_value(text, "fingerprint:", fingerprint))?;
        }
        fs::write(self.folder.join("fingerprint"), fingerprint)?;
        Ok(())
    }

    /// The fleet that the working clone says, errors refused.
    pub fn fleet(&self) -> anyhow::Result<Fleet> {
        let files = git::read_worktree(&self.work())?;
        let loaded = manifest::load(&files, &mut manifest::Cache::default());
        if let Some(problem) = loaded.problems.iter().find(|problem| problem.is_error()) {
            bail!("the demo's fleet has an error: {}:{}: {}", problem.file, problem.line, problem.message);
        }
        Ok(loaded.fleet)
    }

    fn write_simulator(&self, ports: &[u16]) -> anyhow::Result<()> {
        let mut machines: Vec<Value> = self.fleet()?.machines.values().map(|machine| simulated(machine)).collect();
        // Racked and cabled, but in no manifest yet: step (b) declares them.
        machines.extend([("web-13", 13), ("web-14", 14)].map(|(name, number)| unboxed(name, number)));
        let sim = json!({
            "bootServer": {"dhcp": format!("127.0.0.1:{}", ports[2]), "tftp": format!("127.0.0.1:{}", ports[3])},
            "credentials": {"username": "admin", "password": PASSWORD},
            "stateDir": self.folder.join("sim"),
            "control": self.control.trim_start_matches("http://"),
            "machines": machines,
        });
        fs::write(self.folder.join("sim.yaml"), serde_json::to_string_pretty(&sim)?)?;
        self.fill_disks()
    }

    /// Machines that are adopted run already: their disks hold what their manifests say.
    fn fill_disks(&self) -> anyhow::Result<()> {
        for machine in self.fleet()?.machines.values() {
            let (Some(install), Some(serial)) = (&machine.install, machine.disks.system.as_ref().and_then(|disk| disk.serial.clone()))
            else {
                continue;
            };
            let image = self.images.get(install.image.name.as_str()).context("an image that the demo does not make")?;
            fs::write(self.disk(machine.name.as_str(), &serial), &image.raw)?;
        }
        Ok(())
    }

    /// The file behind a simulated disk.
    pub fn disk(&self, machine: &str, serial: &str) -> PathBuf {
        self.folder.join("sim").join(format!("{machine}.{serial}.disk"))
    }

    fn write_controller(&self, ports: &[u16]) -> anyhow::Result<()> {
        let boot = self.folder.join("boot");
        let config = json!({
            "site": "demo",
            "stateDir": self.folder.join("state"),
            "repository": {"url": self.folder.join("fleet.git"), "branch": "main", "poll": "5s"},
            "boot": {
                "advertise": "127.0.0.1",
                "dhcp": format!("127.0.0.1:{}", ports[2]), "proxyDhcp": format!("127.0.0.1:{}", ports[6]), "tftp": format!("127.0.0.1:{}", ports[3]),
                "http": format!("127.0.0.1:{}", ports[4]), "https": format!("127.0.0.1:{}", ports[5]),
                "files": boot, "images": self.folder.join("images"), "kernel": boot.join("vmlinuz"), "initramfs": boot.join("initramfs.img"),
            },
            "api": {"listen": self.api.trim_start_matches("http://")},
            "pace": {"observeSeconds": 2.0, "observeBusySeconds": 0.3, "notesSeconds": 2.0},
        });
        fs::write(self.folder.join("rackwright.yaml"), serde_json::to_string_pretty(&config)?)?;
        Ok(())
    }
}

fn simulated(machine: &Machine) -> Value {
    let address = machine.bmc.address.trim_start_matches("https://").split(':').next().unwrap_or_default();
    let serial = machine.disks.system.as_ref().and_then(|disk| disk.serial.clone()).unwrap_or_default();
    json!({
        "name": machine.name, "address": address, "serial": machine.identity.serial, "uuid": uuid(machine.name.as_str()),
        "mac": machine.boot_nic().map(|nic| nic.mac), "mode": machine.boot.mode, "power": "On",
        "disks": [{"serial": serial, "size": "64MiB"}],
    })
}

fn unboxed(name: &str, number: u8) -> Value {
    let upper = name.to_uppercase();
    json!({
        "name": name, "address": format!("127.77.0.{}", 60 + number), "serial": format!("SN-{upper}"), "uuid": uuid(name),
        "mac": format!("52:54:00:77:01:{number:02x}"), "mode": "UEFI", "power": "Off", "disks": [{"serial": format!("SYS-{upper}"), "size": "64MiB"}],
    })
}

fn uuid(name: &str) -> String {
    let digest = rackwright::model::Digest::of(name.as_bytes());
    let digits = hex::encode(&digest.0[..16]);
    format!("{}-{}-4{}-8{}-{}", &digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..32])
}

/// Rewrites a file.
pub fn edit(path: &Path, change: impl FnOnce(&str) -> String) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    fs::write(path, change(&text)).with_context(|| format!("can't write {}", path.display()))
}

/// Replaces the scalar after each `key` in `text`.
pub fn replace_value(text: &str, key: &str, value: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let start = at + key.len();
        let value_start = start + rest[start..].len() - rest[start..].trim_start_matches(' ').len();
        let end = value_start + rest[value_start..].find([',', '}', '\n', ' ']).unwrap_or(rest.len() - value_start);
        out += &rest[..value_start];
        out += value;
        rest = &rest[end..];
    }
    out + rest
}

/// Ports that were free a moment ago: API, control, DHCP, TFTP, HTTP, HTTPS, proxyDHCP.
fn free_ports() -> anyhow::Result<Vec<u16>> {
    let tcp: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let udp: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let tcp: Vec<u16> = tcp.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?;
    let udp: Vec<u16> = udp.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?;
    Ok(vec![tcp[0], tcp[1], udp[0], udp[1], tcp[2], tcp[3], udp[2]])
}
