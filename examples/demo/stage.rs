//! The stage: folders, images, repository, simulator and controller, all in one temporary folder and on loopback.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rackwright::{
    cli::{get::get_json, live::View},
    git, manifest,
    model::{Fleet, Machine, Status},
    sim::SampleImage,
};
use serde_json::{Value, json};

pub const PASSWORD: &str = "simulated-and-worth-nothing";

/// Everything that the story plays with. Dropping it stops what it started.
pub struct Stage {
    pub folder: PathBuf,
    pub images: BTreeMap<String, SampleImage>,
    pub api: String,
    pub control: String,
    pub view: View,
    programs: PathBuf,
    simulator: Option<Child>,
    controller: Option<Child>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in self.controller.iter_mut().chain(self.simulator.iter_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Stage {
    /// Builds the stage. Nothing runs yet but the simulator.
    pub fn build(folder: PathBuf, source: &Path, programs: PathBuf) -> anyhow::Result<Self> {
        let ports = free_ports()?;
        let mut stage = Self {
            api: format!("http://127.0.0.1:{}", ports[0]),
            control: format!("http://127.0.0.1:{}", ports[1]),
            images: BTreeMap::new(),
            view: View::new(),
            programs,
            simulator: None,
            controller: None,
            folder,
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
        stage.start_simulator()?;
        stage.put_fingerprint()?;
        stage.make_repository()?;
        Ok(stage)
    }

    /// The working clone in which commits are made.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
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

    fn put_fingerprint(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("sim.log");
        let fingerprint = wait("the simulator", Duration::from_secs(20), || {
            let text = fs::read_to_string(&log).ok()?;
            Some(text.split("fingerprint ").nth(1)?.split_whitespace().next()?.to_owned())
        })
        .with_context(|| format!("see {}: are the addresses 127.77.0.11 and up, port 8443, in use by another demo?", log.display()))?;
        for entry in fs::read_dir(self.work().join("machines"))?.map(Result::unwrap) {
            edit(&entry.path(), |text| replace_value(text, "fingerprint:", &fingerprint))?;
        }
        fs::write(self.folder.join("fingerprint"), fingerprint)?;
        Ok(())
    }

    fn make_repository(&self) -> anyhow::Result<()> {
        let bare = self.folder.join("fleet.git");
        self.run("git", &["init", "--quiet", "--bare", "--initial-branch=main", &bare.display().to_string()], &self.folder)?;
        for command in [
            vec!["init", "--quiet", "--initial-branch=main"],
            vec!["config", "user.name", "Demo Operator"],
            vec!["config", "user.email", "operator@example.org"],
            vec!["config", "commit.gpgsign", "false"],
            vec!["remote", "add", "origin", &bare.display().to_string()],
        ] {
            self.git(&command)?;
        }
        git::notes_setup(&self.work())?;
        self.commit("Describe the fleet as it stands")
    }

    /// Commits all changes of the working clone and pushes them.
    pub fn commit(&self, subject: &str) -> anyhow::Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", subject])?;
        self.git(&["push", "--quiet", "origin", "main"]).map(drop)
    }

    /// Runs git in the working clone.
    pub fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("git", arguments, &self.work())
    }

    /// Runs a command as a user would, in the demo's folder.
    pub fn rackwright(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(&self.programs.join("rackwright").display().to_string(), arguments, &self.folder)
    }

    fn run(&self, program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
        let output = Command::new(program).args(arguments).current_dir(folder).output().with_context(|| format!("can't run {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{program} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(text)
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

    fn start_simulator(&mut self) -> anyhow::Result<()> {
        let child = self.start("sim.log", &["sim", "--file", "sim.yaml"])?;
        self.simulator = Some(child);
        Ok(())
    }

    /// Starts the controller and waits for its first turn.
    pub async fn start_controller(&mut self) -> anyhow::Result<()> {
        let child = self.start("controller.log", &["run", "--config", "rackwright.yaml"])?;
        self.controller = Some(child);
        let begun = Instant::now();
        while self.status().await.is_none() {
            if let Some(ended) = self.controller.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("the controller ended with {ended}: see {}", self.folder.join("controller.log").display());
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(30),
                "the controller does not answer: see {}",
                self.folder.join("controller.log").display()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill_controller(&mut self) -> anyhow::Result<()> {
        let mut child = self.controller.take().context("no controller runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn start(&self, log: &str, arguments: &[&str]) -> anyhow::Result<Child> {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(log))?;
        let mut command = Command::new(self.programs.join("rackwright"));
        command.args(arguments).current_dir(&self.folder).env("RACKWRIGHT_DEMO_BMC_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.spawn().with_context(|| format!("can't start {}", self.programs.join("rackwright").display()))
    }

    /// Processes that `--keep` leaves running.
    pub fn leave_running(&mut self) -> Vec<u32> {
        self.controller.take().into_iter().chain(self.simulator.take()).map(|child| child.id()).collect()
    }

    /// The controller's status, if it answers.
    pub async fn status(&self) -> Option<Status> {
        get_json(&format!("{}/api/v1/status", self.api)).await.ok()
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

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("can't read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy_folder(&entry.path(), &target)? } else { fs::copy(entry.path(), target).map(drop)? }
    }
    Ok(())
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

fn wait<T>(what: &str, patience: Duration, mut ready: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        ensure!(begun.elapsed() < patience, "{what} did not get ready within {} s", patience.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ports that were free a moment ago: API, control, DHCP, TFTP, HTTP, HTTPS, proxyDHCP.
fn free_ports() -> anyhow::Result<Vec<u16>> {
    let tcp: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let udp: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let tcp: Vec<u16> = tcp.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?;
    let udp: Vec<u16> = udp.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?;
    Ok(vec![tcp[0], tcp[1], udp[0], udp[1], tcp[2], tcp[3], udp[2]])
}
