//! The program as people run it, and the laboratory that `rackwright sim init` makes, on addresses of its own.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longest that anything may take on a slow and busy machine. Nothing here asserts how long something took.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// `rackwright ARGUMENTS` in `folder`, without what the environment of whoever runs the tests would change.
pub fn rackwright(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackwright"));
    command.args(arguments).current_dir(folder);
    for variable in ["COLUMNS", "RACKWRIGHT_LOG", "RACKWRIGHT_SERVER", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

/// Everything that a command said, as a reader sees it.
pub fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    let code = output.status.code().map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    format!("{out}{}{err}--- exit code {code}\n", if err.is_empty() { "" } else { "--- standard error\n" })
}

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=Lab", "-c", "user.email=lab@example.org", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Changes a file's text.
pub fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed, "nothing changed in {}", path.display());
    fs::write(path, changed).unwrap();
}

/// Waits for `wanted`; panics with what it last said otherwise.
pub fn wait<T>(what: &str, mut wanted: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match wanted() {
            Ok(value) => return value,
            Err(last) => assert!(begun.elapsed() < PATIENCE, "{what} did not happen: {last}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A program in the background; it dies with this value.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let (out, err) = (log.try_clone().unwrap(), log);
        Self(command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap())
    }

    /// Sends a signal and waits for the end.
    pub fn stop(mut self, signal: &str) -> ExitStatus {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        wait("the end of the program", || self.0.try_wait().unwrap().ok_or_else(|| format!("{id} still runs after {signal}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `rackwright sim init` makes.
pub struct Lab {
    pub folder: TempDir,
    network: String,
}

impl Lab {
    /// Makes one; returns also what the command told.
    pub fn init() -> (Self, String) {
        let folder = tempfile::Builder::new().prefix("rackwright-cli-").tempdir().unwrap();
        let output = rackwright(folder.path(), &["sim", "init", "lab"]).output().unwrap();
        let id = std::process::id();
        let lab = Self { folder, network: format!("127.{}.{}.", 30 + id / 250 % 40, id % 250) };
        let told = told(&output);
        assert!(output.status.success(), "{told}");
        lab.relocate();
        (lab, told)
    }

    /// Makes the one of examples/cluster.
    pub fn cluster() -> Self {
        let folder = tempfile::Builder::new().prefix("rackwright-cli-").tempdir().unwrap();
        let output = rackwright(folder.path(), &["sim", "init", "--example", "cluster", "lab"]).output().unwrap();
        let id = std::process::id();
        let lab = Self { folder, network: format!("127.{}.{}.", 70 + id / 250 % 40, id % 250) };
        assert!(output.status.success(), "{}", told(&output));
        lab.relocate();
        lab
    }

    /// The example's addresses may be in use by somebody who plays with it.
    fn relocate(&self) {
        let fleet = self.path("fleet");
        let listing = git(&fleet, &["ls-files", "*.yaml"]);
        let manifests = listing.lines().map(|file| fleet.join(file));
        for file in manifests.chain([self.path("sim.yaml"), self.path("rackwright.yaml")]) {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.replace("127.78.0.0/16", "127.0.0.0/8").replace("127.78.0.", &self.network);
            let text = text.replace("127.79.0.0/16", "127.0.0.0/8").replace("127.79.0.", &self.network);
            fs::write(file, text.replace("127.0.0.1:847", &format!("{}1:847", self.network))).unwrap();
        }
        self.push("Use other addresses");
    }

    pub fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join("lab").join(part)
    }

    pub fn read(&self, part: &str) -> String {
        fs::read_to_string(self.path(part)).unwrap()
    }

    /// Commits everything in the clone and pushes it.
    pub fn push(&self, subject: &str) {
        let fleet = self.path("fleet");
        git(&fleet, &["commit", "--quiet", "--all", "--message", subject]);
        git(&fleet, &["push", "--quiet"]);
    }

    /// The address of the boot server and the API (1) or of a BMC (11 to 13).
    pub fn address(&self, host: u8) -> String {
        format!("{}{host}", self.network)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        rackwright(&self.path(""), arguments)
    }

    /// What a command tells in the laboratory's folder, with what differs from run to run taken out.
    pub fn tell(&self, arguments: &[&str]) -> String {
        self.plain(&told(&self.command(arguments).output().unwrap()))
    }

    pub fn plain(&self, text: &str) -> String {
        text.replace(&self.folder.path().display().to_string(), "[FOLDER]").replace(&self.network, "127.78.0.")
    }

    pub fn simulator(&self, change: impl FnOnce(&mut Command)) -> Running {
        let mut command = self.command(&["sim"]);
        change(&mut command);
        let log = self.path("sim.log");
        let running = Running::start(&mut command, &log);
        wait("the simulator's start", || {
            let text = fs::read_to_string(&log).unwrap();
            if text.contains("Ctrl-C stops them") { Ok(()) } else { Err(text) }
        });
        running
    }

    pub fn controller(&self, log: &str, change: impl FnOnce(&mut Command)) -> Running {
        let mut command = self.command(&["run"]);
        change(&mut command);
        Running::start(&mut command, &self.path(log))
    }

    /// Waits until `status` tells `text`.
    pub fn until(&self, text: &str) -> String {
        wait(text, || {
            let told = self.tell(&["status"]);
            if told.contains(text) { Ok(told) } else { Err(told) }
        })
    }
}

/// Filters for what differs from run to run. Use inside `insta::Settings::bind`.
pub fn filters() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    for (pattern, shown) in [
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( UTC|Z)?", "[TIME]"),
        (r"sha256:[0-9a-f]{64}", "sha256:[DIGEST]"),
        (r"process \d+ on \S+ since", "process [PID] on [HOST] since"),
        (r"(?m)\b[0-9a-f]{40}\b", "[COMMIT]"),
        (r"(?m)^(commit|Commit) [0-9a-f]{8}\b", "$1 [ID]"),
        (r"Plan for [0-9a-f]{8}\b", "Plan for [ID]"),
        (r"(?m)^  agent  .*", "  agent  [...]"),
    ] {
        settings.add_filter(pattern, shown);
    }
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}
