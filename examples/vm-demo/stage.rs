//! The stage: repository, virtual machines with their BMCs, and the controller.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rackwright::{
    cli::{get::get_json, live::View},
    git,
    model::{Digest, Record, Status},
};
use serde_json::json;

use crate::Args;

pub const PASSWORD: &str = "simulated-and-worth-nothing";
/// What stands in the example fleet for a digest that is not known yet.
const UNKNOWN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const API: &str = "127.0.0.1:8069";

/// Everything that the story plays with. Dropping it stops what it started.
pub struct Stage {
    pub folder: PathBuf,
    pub images: PathBuf,
    pub view: View,
    boot: PathBuf,
    rackwright: PathBuf,
    accel: String,
    machines: Option<Child>,
    controller: Option<Child>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in self.controller.iter_mut().chain(self.machines.iter_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Stage {
    /// Builds the stage and switches the BMCs on; vm-adopted begins to boot.
    pub fn build(args: Args) -> anyhow::Result<Self> {
        let mut stage = Self {
            folder: args.folder,
            images: args.images,
            view: View::new(),
            boot: args.boot,
            rackwright: args.rackwright,
            accel: args.accel,
            machines: None,
            controller: None,
        };
        fs::create_dir_all(stage.folder.join("vms"))?;
        copy_folder(Path::new("examples/vm-fleet"), &stage.work())?;
        for (image, file) in [("debian-12", "debian-1.raw.zst"), ("tiny", "tiny-1.raw.zst")] {
            let bytes = fs::read(stage.images.join(file)).with_context(|| format!("can't read {file}"))?;
            stage.fill_in(&format!("images/{image}.yaml"), &Digest::of(&bytes).to_string())?;
        }
        stage.make_adopted_disk()?;
        stage.write_controller()?;
        stage.start_machines()?;
        stage.make_repository()?;
        Ok(stage)
    }

    /// The working clone in which commits are made.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
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
        self.machines = Some(self.start("sim.log", &["sim", "--file", "sim.yaml"])?);
        let begun = Instant::now();
        let fingerprint = loop {
            let text = fs::read_to_string(self.folder.join("sim.log"))?;
            let said = text.split("certificate fingerprint ").nth(1).and_then(|rest| rest.split_whitespace().next());
            if let Some(fingerprint) = said {
                break fingerprint.to_owned();
            }
            ensure!(begun.elapsed() < Duration::from_secs(20), "the BMCs did not start: see {}", path(self.folder.join("sim.log")));
            std::thread::sleep(Duration::from_millis(50));
        };
        ["vm-adopted", "vm-bios", "vm-uefi"].iter().try_for_each(|name| self.fill_in(&format!("machines/{name}.yaml"), &fingerprint))
    }

    fn make_repository(&self) -> anyhow::Result<()> {
        let bare = self.folder.join("fleet.git").display().to_string();
        run("git", &["init", "--quiet", "--bare", "--initial-branch=main", &bare], &self.folder)?;
        for command in [
            vec!["init", "--quiet", "--initial-branch=main"],
            vec!["config", "user.name", "Demo Operator"],
            vec!["config", "user.email", "operator@example.org"],
            vec!["config", "commit.gpgsign", "false"],
            vec!["remote", "add", "origin", &bare],
        ] {
            self.git(&command)?;
        }
        git::notes_setup(&self.work())?;
        self.commit("Describe three machines").map(drop)
    }

    /// Commits all changes of the working clone, pushes them, and gives the commit's id.
    pub fn commit(&self, subject: &str) -> anyhow::Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", subject])?;
        self.git(&["push", "--quiet", "origin", "main"])?;
        self.head()
    }

    /// The newest commit's id.
    pub fn head(&self) -> anyhow::Result<String> {
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Runs git in the working clone.
    pub fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run("git", arguments, &self.work())
    }

    /// Starts the controller and waits for its first turn.
    pub async fn start_controller(&mut self) -> anyhow::Result<()> {
        self.controller = Some(self.start("controller.log", &["run", "--config", "rackwright.yaml"])?);
        let log = self.folder.join("controller.log");
        let begun = Instant::now();
        while self.status().await.is_none() {
            if let Some(ended) = self.controller.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("the controller ended with {ended}: see {}", log.display());
            }
            ensure!(begun.elapsed() < Duration::from_secs(60), "the controller does not answer: see {}", log.display());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn start(&self, log: &str, arguments: &[&str]) -> anyhow::Result<Child> {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(log))?;
        let mut command = Command::new(&self.rackwright);
        command.args(arguments).current_dir(&self.folder).env("RACKWRIGHT_VM_BMC_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.spawn().with_context(|| format!("can't start {}", self.rackwright.display()))
    }

    /// Processes that `--keep` leaves running.
    pub fn leave_running(&mut self) -> Vec<u32> {
        self.controller.take().into_iter().chain(self.machines.take()).map(|child| child.id()).collect()
    }

    /// The controller's status, if it answers.
    pub async fn status(&self) -> Option<Status> {
        get_json(&format!("http://{API}/api/v1/status")).await.ok()
    }

    /// The journal's records of a machine, as `rackwright history` tells them.
    pub fn history(&self, machine: &str) -> anyhow::Result<Vec<Record>> {
        let program = self.rackwright.display().to_string();
        let text = run(&program, &["history", machine, "--json", "--config", "rackwright.yaml"], &self.folder)?;
        text.lines().map(|line| serde_json::from_str(line).context("a record of the journal")).collect()
    }
}

/// Runs a program to its end, and gives what it printed.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().with_context(|| format!("can't run {program}"))?;
    ensure!(output.status.success(), "{program} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("can't read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy_folder(&entry.path(), &target)? } else { fs::copy(entry.path(), target).map(drop)? }
    }
    Ok(())
}
