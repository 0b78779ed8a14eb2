//! The seven steps. Each makes a change as a user would, waits, and then verifies from the outside.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rackwright::model::{Rung, State, Status};

use crate::{
    outside::{Outside, Seen},
    stage::{Stage, edit, replace_value},
};

pub const STEPS: usize = 7;

/// Longest that one step may take on a slow machine; each takes seconds on a fast one.
const PATIENCE: Duration = Duration::from_secs(90);

/// Tells the story; how many steps were verified.
pub async fn tell(stage: &mut Stage) -> anyhow::Result<usize> {
    let outside = Outside::of(stage)?;
    let mut verified = 0;
    stage.title("(a) The fleet is adopted: 24 machines run already. The plan is empty, and nothing is touched.")?;
    let adopted = adopted(stage, &outside).await;
    verified += stage.check("a", adopted)?;
    stage.title("(b) A commit adds web-13 and web-14 with onClaim: Install. They are installed.")?;
    let added = added(stage, &outside).await;
    verified += stage.check("b", added)?;
    stage.title("(c) A commit moves profile web to image web-2: two canaries first, then four at a time.")?;
    stage.title("(d) On the way, web-07's disk fails.")?;
    let (moved, failed) = moved(stage, &outside).await;
    verified += stage.check("c", moved)? + stage.check("d", failed)?;
    stage.title("(e) git revert of (c): back to image web-1.")?;
    let reverted = reverted(stage, &outside).await;
    verified += stage.check("e", reverted)?;
    stage.title("(f) Somebody switches db-03 off by hand. Its manifest says On.")?;
    let corrected = corrected(stage, &outside).await;
    verified += stage.check("f", corrected)?;
    stage.title("(g) edge-02 is rebuilt; the controller is killed with SIGKILL while the disk is written, and started again.")?;
    let survived = survived(stage, &outside).await;
    verified += stage.check("g", survived)?;
    stage.git(&["fetch", "--quiet", "origin"])?;
    Ok(verified)
}

/// Shows the fleet until `done`.
async fn until(stage: &mut Stage, what: &str, done: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
    let begun = Instant::now();
    loop {
        if let Some(status) = stage.status().await {
            stage.view.show(&status)?;
            if done(&status) {
                return Ok(status);
            }
        }
        if begun.elapsed() > PATIENCE {
            bail!("{what} did not happen within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

fn settled(commit: &str) -> impl Fn(&Status) -> bool + use<> {
    let commit = commit.to_owned();
    move |status| status.commit.id.to_string() == commit && status.state == State::Ready
}

/// Waits until the note of `commit` holds `text`.
async fn note_says(stage: &Stage, commit: &str, text: &str) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        stage.git(&["fetch", "--quiet", "origin"])?;
        let note = stage.git(&["notes", "--ref=rackwright/demo/status", "show", commit]).unwrap_or_default();
        if note.contains(text) {
            return Ok(note);
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "the note of {} does not say {text:?}: {note:?}", &commit[..8]);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn adopted(stage: &mut Stage, outside: &Outside) -> anyhow::Result<String> {
    let before = outside.machines().await?;
    stage.start_controller().await?;
    let commit = stage.head()?;
    let status = until(stage, "adoption", settled(&commit)).await?;
    ensure!(status.total == 24 && status.ready == 24, "{} of {} ready", status.ready, status.total);
    let note = note_says(stage, &commit, "Rackwright-Ready: 24/24").await?;
    ensure!(note.contains("Rackwright-State: Ready"), "the note says {note}");
    let after = outside.machines().await?;
    for (name, seen) in &after {
        ensure!(seen.installs == 0 && seen.bytes_written == 0, "the disk of {name} was written");
        ensure!(seen.boots == before[name].boots, "{name} was restarted");
    }
    for machine in stage.fleet()?.machines.values() {
        let install = machine.install.as_ref().context("a machine without an image")?;
        outside.disk_holds(stage, machine, install.image.name.as_str())?;
    }
    Ok("24 of 24 Ready; no disk written, no machine restarted; the note says so".to_owned())
}

async fn added(stage: &mut Stage, outside: &Outside) -> anyhow::Result<String> {
    let fingerprint = fs::read_to_string(stage.folder.join("fingerprint"))?;
    let template = fs::read_to_string(stage.work().join("machines/web-12.yaml"))?;
    for number in [13u8, 14] {
        let name = format!("web-{number}");
        let text = template.replace("web-12", &name).replace("WEB-12", &name.to_uppercase());
        let text = text.replace("52:54:00:77:00:16", &format!("52:54:00:77:01:{number:02x}")).replace("onClaim: Adopt", "onClaim: Install");
        let old = outside.address_of(&stage.fleet()?, "web-12")?;
        let text = replace_value(&text.replace(&old, &format!("127.77.0.{}", 60 + number)), "fingerprint:", &fingerprint);
        fs::write(stage.work().join(format!("machines/{name}.yaml")), text)?;
    }
    stage.commit("Add web-13 and web-14")?;
    let commit = stage.head()?;
    until(stage, "the installs", settled(&commit)).await?;
    let seen = outside.machines().await?;
    let fleet = stage.fleet()?;
    for name in ["web-13", "web-14"] {
        let machine = &fleet.machines[&name.parse()?];
        outside.written_once(&seen[name]).with_context(|| name.to_owned())?;
        outside.disk_holds(stage, machine, "web-1")?;
        outside.is_on(machine).await?;
    }
    let others = seen.iter().filter(|(name, _)| *name != "web-13" && *name != "web-14");
    for (name, seen) in others {
        ensure!(seen.installs == 0, "the disk of {name} was written");
    }
    note_says(stage, &commit, "Rackwright-Ready: 26/26").await?;
    Ok("both disks hold web-1, each written once; 24 others untouched".to_owned())
}

/// What the outside saw while the rollout of (c) went on.
#[derive(Default)]
struct Watched {
    /// Most machines of group web that were away at a time.
    most_away: usize,
    /// Machines in the order in which their disks were first written.
    order: Vec<String>,
}

async fn moved(stage: &mut Stage, outside: &Outside) -> (anyhow::Result<String>, anyhow::Result<String>) {
    match roll(stage, outside).await {
        Ok((commit, watched, before)) => {
            (verify_moved(stage, outside, &commit, &watched, &before).await, verify_failed(stage, outside, &commit).await)
        }
        Err(error) => {
            let text = format!("{error:#}");
            (Err(error), Err(anyhow::anyhow!(text)))
        }
    }
}

type Before = BTreeMap<String, Seen>;

async fn roll(stage: &mut Stage, outside: &Outside) -> anyhow::Result<(String, Watched, Before)> {
    let before = outside.machines().await?;
    outside.fault("web-07", "disk-write", 1).await?;
    edit(&stage.work().join("profiles/web.yaml"), |text| replace_value(text, "image:", "web-2"))?;
    stage.commit("Move profile web to image web-2")?;
    let commit = stage.head()?;
    let mut watched = Watched::default();
    let begun = Instant::now();
    loop {
        let now = outside.machines().await?;
        watched.note(&before, &now);
        if let Some(status) = stage.status().await {
            stage.view.show(&status)?;
            let rest = status.machines.values().filter(|machine| machine.state == State::Reconciling).count();
            if status.commit.id.to_string() == commit && rest == 0 && status.state == State::Stalled {
                return Ok((commit, watched, before));
            }
        }
        ensure!(begun.elapsed() < PATIENCE, "the rollout did not end within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Watched {
    fn note(&mut self, before: &Before, now: &Before) {
        let web = now.iter().filter(|(name, _)| name.starts_with("web-"));
        // web-07 stays away once it failed: it waits for a person, and takes no slot of those that can go on.
        let away = web.clone().filter(|(name, seen)| !seen.is_running && *name != "web-07");
        self.most_away = self.most_away.max(away.count());
        for (name, seen) in web {
            if seen.installs > before[name].installs && !self.order.contains(name) {
                self.order.push(name.clone());
            }
        }
    }
}

async fn verify_moved(stage: &Stage, outside: &Outside, commit: &str, watched: &Watched, before: &Before) -> anyhow::Result<String> {
    let seen = outside.machines().await?;
    let fleet = stage.fleet()?;
    for machine in fleet.machines.values().filter(|machine| machine.name.as_str().starts_with("web-")) {
        let name = machine.name.as_str();
        ensure!(seen[name].installs == before[name].installs + 1, "the disk of {name} was written {} times", seen[name].installs);
        if name != "web-07" {
            outside.disk_holds(stage, machine, "web-2")?;
            outside.is_on(machine).await?;
        }
    }
    for (name, seen) in seen.iter().filter(|(name, _)| !name.starts_with("web-")) {
        ensure!(seen.installs == before[name].installs, "the disk of {name} was written");
    }
    let canaries: Vec<&str> = watched.order.iter().take(2).map(String::as_str).collect();
    ensure!(canaries.contains(&"web-01") && canaries.contains(&"web-02"), "{canaries:?} were written first, not the canaries");
    ensure!(watched.most_away <= 4, "{} machines were away at a time, 4 are allowed", watched.most_away);
    note_says(stage, commit, "Rackwright-Ready: 25/26").await?;
    let (most, order) = (watched.most_away, watched.order.len());
    Ok(format!(
        "{order} disks written once each, canaries first, never more than {most} away at a time besides the failed one, 4 are allowed; 12 other machines untouched"
    ))
}

async fn verify_failed(stage: &Stage, outside: &Outside, commit: &str) -> anyhow::Result<String> {
    let status = stage.status().await.context("no status")?;
    let web07 = &status.machines[&"web-07".parse()?];
    ensure!(web07.reason == "Quarantined", "web-07 is {}", web07.reason);
    let stalled = status.machines.values().filter(|machine| machine.state == State::Stalled).count();
    ensure!(stalled == 1, "{stalled} machines are stalled");
    let machine = &stage.fleet()?.machines[&"web-07".parse()?];
    ensure!(outside.disk_holds(stage, machine, "web-2").is_err(), "the disk of web-07 holds web-2 although it failed");
    let note = note_says(stage, commit, "web-07").await?;
    ensure!(note.contains("Rackwright-State: Stalled"), "the note says {note}");
    Ok("web-07 is quarantined, 13 others went on, and the note names it".to_owned())
}

async fn reverted(stage: &mut Stage, outside: &Outside) -> anyhow::Result<String> {
    let before = outside.machines().await?;
    let moved = stage.head()?;
    outside.clear_faults("web-07").await?;
    stage.git(&["revert", "--no-edit", "HEAD"])?;
    stage.git(&["push", "--quiet", "origin", "main"])?;
    let commit = stage.head()?;
    until(stage, "the revert", settled(&commit)).await?;
    let seen = outside.machines().await?;
    let fleet = stage.fleet()?;
    for machine in fleet.machines.values().filter(|machine| machine.name.as_str().starts_with("web-")) {
        let name = machine.name.as_str();
        ensure!(seen[name].installs == before[name].installs + 1, "the disk of {name} was written more than once");
        outside.disk_holds(stage, machine, "web-1")?;
    }
    note_says(stage, &commit, "Rackwright-Ready: 26/26").await?;
    note_says(stage, &moved, "Rackwright-Superseded-By").await?;
    Ok("all 14 hold web-1 again, web-07 too; the note of (c) says by what it was superseded".to_owned())
}

async fn corrected(stage: &mut Stage, outside: &Outside) -> anyhow::Result<String> {
    let machine = stage.fleet()?.machines[&"db-03".parse()?].clone();
    outside.switch_off("db-03").await?;
    until(stage, "drift", |status| status.machines.get(&machine.name).is_some_and(|db03| db03.state != State::Ready)).await?;
    let commit = stage.head()?;
    until(stage, "the correction", settled(&commit)).await?;
    outside.is_on(&machine).await?;
    let seen = outside.machines().await?;
    ensure!(seen["db-03"].installs == 0, "the disk of db-03 was written");
    let history = stage.rackwright(&["history", "db-03", "--config", "rackwright.yaml"])?;
    let shown = history.lines().find(|line| line.contains("power is Off")).context("its history does not show the drift")?;
    Ok(format!("its history says \"{}\"; it runs again, its disk untouched", shown.trim()))
}

async fn survived(stage: &mut Stage, outside: &Outside) -> anyhow::Result<String> {
    outside.fault("edge-02", "disk-slow", 1).await?;
    edit(&stage.work().join("machines/edge-02.yaml"), |text| replace_value(text, "rebuild:", "1"))?;
    stage.commit("Rebuild edge-02")?;
    let commit = stage.head()?;
    let edge02 = "edge-02".parse()?;
    let writing = |status: &Status| {
        let machine = status.machines.get(&edge02);
        machine.is_some_and(|machine| machine.rung == Some(Rung::Writing) && machine.progress.is_some_and(|progress| progress.done > 0))
    };
    until(stage, "the write", writing).await?;
    let during = outside.machines().await?;
    stage.kill_controller()?;
    ensure!(during["edge-02"].is_writing, "the disk was not being written when the controller was killed");
    stage.view.say("    killed while writing; starting again")?;
    stage.start_controller().await?;
    until(stage, "the end of the install", settled(&commit)).await?;
    let seen = outside.machines().await?;
    outside.written_once(&seen["edge-02"])?;
    outside.disk_holds(stage, &stage.fleet()?.machines[&edge02], "edge-1")?;
    let total: u64 = seen.values().map(|machine| machine.installs).sum();
    // web: 2 installed, 14 moved, 14 back; edge-02 once.
    ensure!(total == 31, "{total} installs in the whole story, 31 are right");
    note_says(stage, &commit, "Rackwright-Ready: 26/26").await?;
    Ok("finished after the restart; each block of the disk written once; 31 installs in the whole story, as many as commits asked for"
        .to_owned())
}
