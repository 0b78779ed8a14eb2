//! The six steps. Each makes a change as a user would, waits, and then verifies from the outside.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rackwright::model::{Evidence, Fact, Rung, State, Status};

use crate::{
    outside::{Bmc, holds, partition, seed_file, sha256},
    stage::Stage,
};

pub const STEPS: usize = 6;

/// Longest that one round may take. Without KVM and on a busy machine each takes minutes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Tells the story; how many steps were verified.
pub async fn tell(stage: &mut Stage) -> anyhow::Result<usize> {
    let mut verified = 0;
    let untouched = sha256(&stage.images.join("tiny-1.raw"))?;
    let adopted = sha256(&stage.disk("vm-adopted"))?;
    stage.title(
        "The first commit declares three machines. vm-bios and vm-uefi have onClaim: Install; vm-adopted runs already, and is adopted.",
    )?;
    stage.start_controller().await?;
    let commit = stage.head()?;
    let begun = Instant::now();
    let settled = settle(stage, &commit).await;
    verified += both(stage, 1, &commit, &settled, begun, ["a", "b"]).await?;
    let claimed = verify_adopted(stage, &adopted, begun);
    verified += stage.check("c", claimed.await)?;

    for (round, step) in [(2, "d"), (3, "e")] {
        stage.title(&format!("A commit raises rebuild of both to {}. They are wiped and built again.", round - 1))?;
        for machine in ["vm-bios", "vm-uefi"] {
            let file = format!("machines/{machine}.yaml");
            let text = stage.read(&file)?;
            stage.write(&file, &text.replace(&format!("rebuild: {}", round - 2), &format!("rebuild: {}", round - 1)))?;
        }
        let commit = stage.commit(&format!("Rebuild vm-bios and vm-uefi, time {}", round - 1))?;
        let begun = Instant::now();
        let settled = settle(stage, &commit).await;
        let result = rebuilt(stage, round, &commit, &settled, begun).await;
        verified += stage.check(step, result)?;
    }
    stage.title("Somebody power-cycles vm-adopted through its BMC. Its firmware asks the network first.")?;
    let cycled = cycled(stage, &adopted).await;
    verified += stage.check("f", cycled)?;
    ensure!(sha256(&stage.images.join("tiny-1.raw"))? == untouched, "the image itself changed");
    stage.git(&["fetch", "--quiet", "origin"])?;
    Ok(verified)
}

/// Shows the fleet until `commit` is in force and all is Ready.
async fn settle(stage: &mut Stage, commit: &str) -> anyhow::Result<Status> {
    let begun = Instant::now();
    loop {
        if let Some(status) = stage.status().await {
            stage.view.show(&status)?;
            let is_here = status.commit.id.to_string() == commit;
            if is_here && status.state == State::Ready {
                return Ok(status);
            }
            let stalled = status.machines.iter().find(|(_, machine)| machine.state == State::Stalled);
            if let Some((name, machine)) = stalled.filter(|_| is_here) {
                bail!("{name} stalled: {}: {}", machine.reason, machine.message);
            }
        }
        ensure!(begun.elapsed() < PATIENCE, "the fleet was not Ready within {} minutes", PATIENCE.as_secs() / 60);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn both(
    stage: &Stage,
    round: u32,
    commit: &str,
    settled: &anyhow::Result<Status>,
    begun: Instant,
    steps: [&str; 2],
) -> anyhow::Result<usize> {
    let mut verified = 0;
    for (machine, step) in ["vm-bios", "vm-uefi"].into_iter().zip(steps) {
        let result = installed(stage, machine, round, commit, settled).await;
        verified +=
            stage.check(step, result.map(|what| format!("{machine} {what}; the note says 3/3; {} s", begun.elapsed().as_secs())))?;
    }
    Ok(verified)
}

async fn rebuilt(stage: &Stage, round: u32, commit: &str, settled: &anyhow::Result<Status>, begun: Instant) -> anyhow::Result<String> {
    let took = begun.elapsed().as_secs();
    for machine in ["vm-bios", "vm-uefi"] {
        installed(stage, machine, round, commit, settled).await.with_context(|| machine.to_owned())?;
    }
    Ok(format!("the same for both: each written once more ({round} writes in all), with the new generation; the note says 3/3; {took} s"))
}

/// One install, from the outside, and from what the journal says.
async fn installed(stage: &Stage, machine: &str, round: u32, commit: &str, settled: &anyhow::Result<Status>) -> anyhow::Result<String> {
    let status = settled.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let generation = status.machines[&machine.parse()?].generation.context("no generation")?.to_string();

    // The journal: this attempt wrote once, and no other attempt came in between.
    let bytes = journal_says(stage, machine, round, &generation)?;

    // The disk file, while the system runs. The seed is where the image keeps an empty volume for it.
    let image = stage.images.join(if machine == "vm-bios" { "tiny-1.raw" } else { "debian-1.raw" });
    let disk = stage.disk(machine);
    let meta = seed_file(&disk, &image, "meta-data")?;
    ensure!(meta.contains(&generation) && meta.contains(machine), "the seed's meta-data says {meta:?}, not {generation}");
    let user = seed_file(&disk, &image, "user-data")?;
    ensure!(user.contains(&format!("This is {machine}")), "the seed's user-data says {user:?}");
    let compared = disk_is(machine, &disk, &image)?;

    // The serial console: what this boot of the installed system said.
    let said = console_says(stage, machine, round).await?;
    Bmc::of(machine)?.is_on().await?;
    note_says(stage, commit, &["Rackwright-State: Ready", "Rackwright-Ready: 3/3"]).await?;
    Ok(format!(
        "was written once ({} MiB, read back by the agent); {compared}; its seed is of {}; its console says {said:?}",
        bytes >> 20,
        &generation[..11]
    ))
}

fn journal_says(stage: &Stage, machine: &str, round: u32, generation: &str) -> anyhow::Result<u64> {
    let records = stage.history(machine)?;
    let (mut writes, mut written, mut home) = (0, None, false);
    for record in &records {
        let Fact::Saw { attempt, evidence } = &record.fact else { continue };
        writes += u32::from(evidence.rung() == Rung::Writing);
        match evidence {
            Evidence::Written { bytes, .. } if attempt.number == round => written = Some(*bytes),
            Evidence::CalledHome { generation: said, .. } if attempt.number == round => home = said.to_string() == generation,
            _ => {}
        }
    }
    ensure!(writes == round, "the journal knows {writes} writes of {machine}, {round} are right");
    ensure!(home, "the journal knows no call home of {machine}#{round} with {generation}");
    written.with_context(|| format!("the journal does not know that {machine}#{round} was written"))
}

/// Tiny never writes to its disk, so all of it can be compared. Debian does, but not to its boot partition.
fn disk_is(machine: &str, disk: &Path, image: &Path) -> anyhow::Result<String> {
    if machine == "vm-bios" {
        let length = std::fs::metadata(image)?.len();
        holds(disk, image, 0..length, &partition(image, 2)?)?;
        return Ok("its disk equals the image outside the seed".to_owned());
    }
    holds(disk, image, partition(image, 1)?, &(0..0))?;
    Ok("its boot partition equals the image's".to_owned())
}

/// The last boot from disk, as the machine's own serial console tells it.
async fn console_says(stage: &Stage, machine: &str, round: u32) -> anyhow::Result<String> {
    let wanted = if machine == "vm-bios" { "tiny: called home".to_owned() } else { format!("Debian GNU/Linux 12 {machine} ttyS0") };
    let begun = Instant::now();
    loop {
        let console = stage.console(machine);
        let agents = console.matches("rackwright-agent ").count();
        ensure!(agents <= round as usize, "the agent started {agents} times on {machine}, {round} are right");
        // What comes after the last agent is the installed system.
        let last = console.rsplit("rackwright-agent ").next().unwrap_or_default();
        if agents == round as usize && last.contains(&wanted) {
            let up = last.lines().find(|line| line.contains("tiny: up:") || line.contains(&wanted)).unwrap_or(&wanted);
            return Ok(up.trim().to_owned());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(120),
            "{wanted:?} is not on the console of {machine} after agent {agents} of {round}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the note of `commit` holds each of `texts`.
async fn note_says(stage: &Stage, commit: &str, texts: &[&str]) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        stage.git(&["fetch", "--quiet", "origin"])?;
        let note = stage.git(&["notes", "--ref=rackwright/vm/status", "show", commit]).unwrap_or_default();
        if texts.iter().all(|text| note.contains(text)) {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "the note of {} does not say {texts:?}: {note:?}", &commit[..8]);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn verify_adopted(stage: &Stage, disk: &str, begun: Instant) -> anyhow::Result<String> {
    let records = stage.history("vm-adopted")?;
    let claimed = matches!(&records[0].fact, Fact::Claimed { installed: Some(_), .. });
    ensure!(claimed && records.len() == 1, "the journal knows more of vm-adopted than that it was claimed: {records:?}");
    up_from_disk(stage, 1).await?;
    ensure!(sha256(&stage.disk("vm-adopted"))? == disk, "the disk of vm-adopted changed");
    Ok(format!("vm-adopted was claimed as it is and runs; its disk has the SHA-256 that it had before; {} s", begun.elapsed().as_secs()))
}

async fn cycled(stage: &mut Stage, disk: &str) -> anyhow::Result<String> {
    let before = stage.console("vm-adopted").matches("tiny: up:").count();
    Bmc::of("vm-adopted")?.force_restart().await?;
    let begun = Instant::now();
    up_from_disk(stage, before + 1).await?;
    let took = begun.elapsed().as_secs();
    let console = stage.console("vm-adopted");
    let loaders = console.matches("NBP filename is localboot.efi").count();
    ensure!(loaders > before, "the boot server did not send vm-adopted to its disk");
    ensure!(!console.contains("rackwright-agent "), "the agent ran on vm-adopted");
    Bmc::of("vm-adopted")?.is_on().await?;
    ensure!(sha256(&stage.disk("vm-adopted"))? == disk, "the disk of vm-adopted changed");
    let commit = stage.head()?;
    settle(stage, &commit).await?;
    ensure!(stage.history("vm-adopted")?.len() == 1, "the controller did something to vm-adopted");
    Ok(format!("sent to its disk by the boot server, up after {took} s, the agent never ran, not a byte of its disk changed"))
}

/// Waits until vm-adopted has come up so many times.
async fn up_from_disk(stage: &Stage, times: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while stage.console("vm-adopted").matches("tiny: up:").count() < times {
        ensure!(begun.elapsed() < Duration::from_secs(300), "vm-adopted did not come up from its disk");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
