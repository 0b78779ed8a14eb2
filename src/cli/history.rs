//! `rackwright history`.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::bail;

use super::{Done, config::Config, out::outln, plural, size};
use crate::{
    journal::SqliteJournal,
    model::{Evidence, Fact, HandoffName, MachineName, Outcome, Record},
};

/// Tell what happened to a machine: every step, its reason, its outcome, and the evidence, oldest first.
///
/// Includes what happened under its earlier names. Reads the journal, so it works while the controller runs and when it does not.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  rackwright history web-01\n  rackwright history web-01 --json | jq 'select(.fact.fact == \"saw\")'")]
pub struct Args {
    /// The machine.
    machine: MachineName,
    /// The controller's configuration, to find the journal.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the journal's records as JSON lines.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let config = Config::read(args.config.as_deref())?;
    let path = config.journal();
    let records = SqliteJournal::read_only(&path)?.records_of(&args.machine)?;
    if records.is_empty() {
        bail!("the journal {} knows nothing of a machine {}", path.display(), args.machine);
    }
    for record in &records {
        if args.json {
            outln!("{}", serde_json::to_string(record)?)?;
        } else {
            outln!("{}", line(record))?;
        }
    }
    Ok(Done::Ok)
}

fn line(record: &Record) -> String {
    let at = record.at.strftime("%Y-%m-%d %H:%M:%S");
    format!("{at}  {}  {}", record.commit.short(), tell(&record.fact))
}

pub(super) fn tell(fact: &Fact) -> String {
    match fact {
        Fact::Claimed { installed: Some(generation), .. } => format!("claimed as it is, generation {}", generation.short()),
        Fact::Claimed { installed: None, .. } => "claimed, to be installed".to_owned(),
        Fact::Released { .. } => "released: not in the fleet any more".to_owned(),
        Fact::Renamed { from, to } => format!("renamed from {from} to {to}"),
        Fact::HardwareChanged { hardware, .. } => format!("hardware is now {}", hardware.join(", ")),
        Fact::ConfigurationNoted { deferred: Some(generation), .. } => {
            format!("the configuration of generation {} is left to the next install", generation.short())
        }
        Fact::ConfigurationNoted { deferred: None, .. } => "what of its disk is configuration is noted".to_owned(),
        Fact::Intended { step } => format!("{}: {}", step.action, step.reason),
        Fact::Ended { outcome: Outcome::Done, .. } => "  done".to_owned(),
        Fact::Ended { outcome: Outcome::Waiting { why, until }, .. } => format!("  waiting until {until:.0}: {why}"),
        Fact::Ended { outcome: Outcome::Blocked { why, hint }, .. } => format!("  blocked: {why}; {hint}"),
        Fact::Ended { outcome: Outcome::Failed { why, .. }, .. } => format!("  failed: {why}"),
        Fact::Began { attempt, generation, .. } if generation.is_wipe() => {
            format!("WIPE {attempt} of generation {} began", generation.short())
        }
        Fact::Began { attempt, generation, .. } => format!("install {attempt} of generation {} began", generation.short()),
        Fact::Saw { attempt, evidence } => format!("{attempt}: {}{}", evidence.told(), detail(evidence)),
        Fact::Reported { attempt, wrote, code, why } => {
            format!("{attempt}: failure reported ({code}{}): {why}", if *wrote { ", disk was written" } else { "" })
        }
        Fact::Checked { attempt, check, ok, message } => {
            let colon = if message.is_empty() { "" } else { ": " };
            format!("{attempt}: check {check} {}{colon}{message}", if *ok { "passed" } else { "failed" })
        }
        Fact::Concluded { attempt, end } => format!("attempt {attempt} ended: {end}"),
        Fact::Published { attempt, names, .. } => format!("{attempt}: its system published {}", list(names)),
        Fact::ValuesLost { attempt, names, .. } => format!("{attempt}: what its system published is lost: {}", list(names)),
    }
}

fn list(names: &BTreeSet<HandoffName>) -> String {
    names.iter().map(HandoffName::as_str).collect::<Vec<_>>().join(", ")
}

fn detail(evidence: &Evidence) -> String {
    match evidence {
        Evidence::AgentUp { serial, disks, .. } => {
            format!(" (serial {}, {})", serial.as_deref().unwrap_or("not reported"), plural(disks.len(), "disk"))
        }
        Evidence::Writing { disk, .. } => format!(" {} (serial {})", disk.name, disk.serial.as_deref().unwrap_or("not reported")),
        Evidence::Written { digest, bytes } => format!(", {} from image {}", size(*bytes), digest.short()),
        Evidence::Wiping { method, disks, .. } => {
            let names = disks.iter().map(|disk| format!("{} (serial {})", disk.name, disk.serial.as_deref().unwrap_or("not reported")));
            format!(" by {method}: {}", names.collect::<Vec<_>>().join(", "))
        }
        Evidence::Wiped { proof } => format!(": {}", proof.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        Evidence::CalledHome { generation, .. } => format!(" with generation {}", generation.short()),
        _ => String::new(),
    }
}
