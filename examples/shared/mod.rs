//! What both demos stand on: a folder, a working clone and its remote, the two programs as processes, and how the story is told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rackwright::{
    cli::{get::get_json, live::View},
    git,
    model::Status,
};

pub const PASSWORD: &str = "simulated-and-worth-nothing";

/// Plays, and tells how it went.
pub async fn play(story: impl Future<Output = anyhow::Result<bool>>) -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match story.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Dropping it stops what it started.
pub struct Ground {
    pub folder: PathBuf,
    /// The controller's API, `http://…`.
    pub api: String,
    pub view: View,
    /// The program.
    rackwright: PathBuf,
    /// The variable in which the programs find [`PASSWORD`].
    variable: &'static str,
    simulator: Option<Child>,
    controller: Option<Child>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        for child in self.controller.iter_mut().chain(self.simulator.iter_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ground {
    /// Starts nothing yet.
    pub fn new(folder: PathBuf, rackwright: PathBuf, api: String, variable: &'static str) -> Self {
        Self { folder, api, view: View::new(), rackwright, variable, simulator: None, controller: None }
    }

    /// The working clone in which commits are made.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Makes the files in the working clone a repository with a remote, and commits and pushes them.
    pub fn make_repository(&self, subject: &str) -> anyhow::Result<()> {
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
        self.commit(subject).map(drop)
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

    /// Runs a command as a user would, in the demo's folder.
    pub fn rackwright(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(&self.rackwright.display().to_string(), arguments, &self.folder)
    }

    /// Starts the simulator and gives its certificate's fingerprint.
    pub fn start_simulator(&mut self) -> anyhow::Result<String> {
        self.simulator = Some(self.start("sim.log", &["sim", "--file", "sim.yaml"])?);
        let log = self.folder.join("sim.log");
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(fingerprint) = text.split("certificate fingerprint ").nth(1).and_then(|rest| rest.split_whitespace().next()) {
                return Ok(fingerprint.to_owned());
            }
            ensure!(begun.elapsed() < Duration::from_secs(20), "the BMCs did not start; is another demo running? See {}", log.display());
            std::thread::sleep(Duration::from_millis(50));
        }
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

    /// SIGKILL: no chance to tidy up.
    #[allow(dead_code)] // One of the two demos does.
    pub fn kill_controller(&mut self) -> anyhow::Result<()> {
        let mut child = self.controller.take().context("no controller runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn start(&self, log: &str, arguments: &[&str]) -> anyhow::Result<Child> {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(log))?;
        let mut command = Command::new(&self.rackwright);
        command.args(arguments).current_dir(&self.folder).env(self.variable, PASSWORD);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.spawn().with_context(|| format!("can't start {}", self.rackwright.display()))
    }

    /// Processes that `--keep` leaves running.
    pub fn leave_running(&mut self) -> Vec<u32> {
        self.controller.take().into_iter().chain(self.simulator.take()).map(|child| child.id()).collect()
    }

    /// The controller's status, if it answers.
    pub async fn status(&self) -> Option<Status> {
        get_json(&format!("{}/api/v1/status", self.api)).await.ok()
    }

    /// Tells what comes next.
    pub fn title(&self, text: &str) -> anyhow::Result<()> {
        self.view.say(&format!("\n{text}"))
    }

    /// Tells how a step went; 1 if it was verified.
    pub fn check(&self, step: &str, result: anyhow::Result<String>) -> anyhow::Result<usize> {
        match result {
            Ok(what) => self.view.say(&format!("    verified ({step}): {what}")).map(|()| 1),
            Err(error) => self.view.say(&format!("    NOT verified ({step}): {error:#}")).map(|()| 0),
        }
    }
}

/// Runs a program to its end, and gives what it printed.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().with_context(|| format!("can't run {program}"))?;
    ensure!(output.status.success(), "{program} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("can't read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy_folder(&entry.path(), &target)? } else { fs::copy(entry.path(), target).map(drop)? }
    }
    Ok(())
}
