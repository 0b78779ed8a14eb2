//! The stage: repository, virtual machines with their BMCs, and the controller.

use std::{
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use rackwright::model::{Digest, Record};
use serde_json::json;

use crate::{
    Args,
    shared::{Ground, copy_folder},
};

/// What stands in the example fleet for a digest that is not known yet.
const UNKNOWN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const API: &str = "127.0.0.1:8069";

/// Everything that the story plays with.
pub struct Stage {
    ground: Ground,
    pub images: PathBuf,
    boot: PathBuf,
    accel: String,
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
    /// Builds the stage and switches the BMCs on; vm-adopted begins to boot.
    pub fn build(args: Args) -> anyhow::Result<Self> {
        let ground = Ground::new(args.folder, args.rackwright, format!("http://{API}"), "RACKWRIGHT_VM_BMC_PASSWORD");
        let mut stage = Self { ground, images: args.images, boot: args.boot, accel: args.accel };
        fs::create_dir_all(stage.folder.join("vms"))?;
        copy_folder(Path::new("examples/vm-fleet"), &stage.work())?;
        for (image, file) in [("debian-12", "debian-1.raw.zst"), ("tiny", "tiny-1.raw.zst")] {
            let bytes = fs::read(stage.images.join(file)).with_context(|| format!("can't read {file}"))?;
            stage.fill_in(&format!("images/{image}.yaml"), &Digest::of(&bytes).to_string())?;
        }
        stage.make_adopted_disk()?;
        stage.write_controller()?;
        stage.start_machines()?;
        stage.make_repository("Describe three machines")?;
        Ok(stage)
    }

    /// A machine's system disk, as QEMU has it open.
    pub fn disk(&self, machine: &str) -> PathBuf {
        let serial = if machine == "vm-bios" { "RWVM0001-DISK0" } else { "RWVM0002-DISK0" };
        match machine {
            "vm-adopted" => self.folder.join("adopted.raw"),
            _ => self.folder.join("vms").join(format!("{machine}.{serial}.disk")),
        }
    }

    /// All that a machine wrote to its serial console.
    pub fn console(&self, machine: &str) -> String {
        let bytes = fs::read(self.folder.join("vms").join(format!("{machine}.serial"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn fill_in(&self, file: &str, digest: &str) -> anyhow::Result<()> {
        let text = self.read(file)?;
        ensure!(text.contains(UNKNOWN), "{file} has no digest to fill in");
        self.write(file, &text.replace(UNKNOWN, digest))
    }

    /// A file of the fleet.
    pub fn read(&self, file: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.work().join(file)).with_context(|| format!("can't read {file}"))
    }

    /// Replaces a file of the fleet.
    pub fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.work().join(file), text).with_context(|| format!("can't write {file}"))
    }

    /// Somebody else installed this machine: its disk holds the tiny image, and no seed.
    fn make_adopted_disk(&self) -> anyhow::Result<()> {
        let path = self.disk("vm-adopted");
        fs::copy(self.images.join("tiny-1.raw"), &path)?;
        fs::OpenOptions::new().write(true).open(&path)?.set_len(256 << 20)?;
        Ok(())
    }

    fn write_controller(&self) -> anyhow::Result<()> {
        let config = json!({
            "site": "vm",
            "stateDir": self.folder.join("state"),
            "repository": {"url": self.folder.join("fleet.git"), "branch": "main", "poll": "5s"},
            "boot": {
                "advertise": "10.77.0.1", "interfaces": ["br0"], "files": "/usr/lib/ipxe", "images": self.images,
                // The BMCs listen on port 8443 as well, on loopback.
                "https": "10.77.0.1:8443",
                "kernel": self.boot.join("vmlinuz"), "initramfs": self.boot.join("initramfs.img"), "localboot": self.boot.join("localboot.efi"),
                // On a busy host without KVM the kernel can lose the ticks by which it tests its timer, switches to another and hangs.
                "kernelArguments": ["console=ttyS0,115200", "quiet", "no_timer_check"],
            },
            "api": {"listen": API},
            "pace": {"observeSeconds": 5.0, "observeBusySeconds": 1.0, "notesSeconds": 2.0},
        });
        fs::write(self.folder.join("rackwright.yaml"), serde_json::to_string_pretty(&config)?)?;
        Ok(())
    }

    fn start_machines(&mut self) -> anyhow::Result<()> {
        let text = fs::read_to_string("scripts/lib/vm-demo-sim.yaml")?;
        let path = |path: PathBuf| path.display().to_string();
        let text = text.replace("@STATE@", &path(self.folder.join("vms"))).replace("@ACCEL@", &self.accel);
        fs::write(self.folder.join("sim.yaml"), text.replace("@ADOPTED_DISK@", &path(self.disk("vm-adopted"))))?;
        let fingerprint = self.start_simulator()?;
        ["vm-adopted", "vm-bios", "vm-uefi"].iter().try_for_each(|name| self.fill_in(&format!("machines/{name}.yaml"), &fingerprint))
    }

    /// The journal's records of a machine, as `rackwright history` tells them.
    pub fn history(&self, machine: &str) -> anyhow::Result<Vec<Record>> {
        let text = self.rackwright(&["history", machine, "--json", "--config", "rackwright.yaml"])?;
        text.lines().map(|line| serde_json::from_str(line).context("a record of the journal")).collect()
    }
}
