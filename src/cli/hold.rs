//! `rackwright hold` and `rackwright unhold`.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use super::{
    Done, block_on,
    config::Config,
    get::get_json,
    out::{errln, outln},
    source,
};
use crate::{
    journal::SqliteJournal,
    model::{Fleet, History, Hold, HoldScope, MachineName, RolloutName, Status, Timestamp},
};

/// Stop by hand: nothing new is begun on what is held, and its power is not touched. Without a machine: list what is held.
///
/// The local brake. It works with Git down, with or without a running controller, and survives its restart. An image that is being
/// written is written to its end; an install of which no byte is written ends, and begins anew after `unhold`. Evidence, renames and
/// releases are still written down. Run it on the controller's host as a user who may write its state folder; there is no way over the
/// network. What should last belongs into the repository: `suspend: true`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rackwright hold --all --reason 'the new image does not boot'
  rackwright hold web-01 --reason 'lid is open'
  rackwright hold --group web
  rackwright hold                       what is held, by whom, since when and why
  rackwright unhold --all               let go what `hold --all` held; other holds stay")]
pub struct Args {
    #[command(flatten)]
    what: What,
    /// Why; shown wherever the machine is shown.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// List as JSON.
    #[arg(long, conflicts_with_all = ["machine", "group", "all", "reason"])]
    json: bool,
    /// The controller's configuration; otherwise ./rackwright.yaml or /etc/rackwright/rackwright.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Let go what `rackwright hold` held. Each hold is let go by itself: a machine that another one covers stays held.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  rackwright unhold web-01\n  rackwright unhold --group web\n  rackwright unhold --all")]
pub struct UnholdArgs {
    #[command(flatten)]
    what: What,
    /// The controller's configuration; otherwise ./rackwright.yaml or /etc/rackwright/rackwright.yaml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct What {
    /// The machine.
    machine: Option<MachineName>,
    /// The machines that this rollout selects, under whatever commit is in force; `default`: those that none selects.
    #[arg(long, value_name = "ROLLOUT")]
    group: Option<RolloutName>,
    /// Every machine, also one that is new.
    #[arg(long)]
    all: bool,
}

impl What {
    fn scope(&self) -> Option<HoldScope> {
        match (&self.machine, &self.group) {
            (Some(machine), _) => Some(HoldScope::Machine(machine.clone())),
            (_, Some(group)) => Some(HoldScope::Group(group.clone())),
            _ => self.all.then_some(HoldScope::All),
        }
    }
}

pub(super) fn hold(args: &Args) -> anyhow::Result<Done> {
    let config = Config::read(args.config.as_deref())?;
    let Some(scope) = args.what.scope() else {
        return if args.reason.is_empty() { list(&config, args.json) } else { bail!("name a machine, --group ROLLOUT or --all to hold") };
    };
    // Before the first start of a controller there may be no folder yet; it may be started with its brake on.
    std::fs::create_dir_all(&config.state_dir).with_context(|| format!("can't make the state folder {}", config.state_dir.display()))?;
    let hold = Hold { scope, by: user(), at: Timestamp::now(), reason: plain(&args.reason) };
    let wanted = hold.clone();
    let known = config.brake().change(move |holds| match holds.iter().find(|known| known.scope == wanted.scope) {
        Some(known) => Some(known.clone()),
        None => {
            holds.push(wanted);
            None
        }
    })?;
    if let Some(known) = known {
        outln!("Nothing changed: {known}")?;
        return Ok(Done::Ok);
    }
    outln!("{hold}")?;
    outln!("Nothing new is begun there, and power is left alone; an image that is being written is written to its end.")?;
    outln!("`rackwright unhold {}` lets it go on.", hold.scope.as_arguments())?;
    let meant = means_something(&config, &hold.scope);
    noticed(&config, |status| status.brake.holds.contains(&hold));
    Ok(if meant { Done::Ok } else { Done::Bad })
}

pub(super) fn unhold(args: &UnholdArgs) -> anyhow::Result<Done> {
    let config = Config::read(args.config.as_deref())?;
    let Some(scope) = args.what.scope() else {
        bail!("name a machine, --group ROLLOUT or --all to let go; `rackwright hold` lists what is held")
    };
    let (before, after) = config.brake().change(|holds| {
        let before = holds.clone();
        holds.retain(|hold| hold.scope != scope);
        (before, holds.clone())
    })?;
    if before == after {
        let others: Vec<String> = after.iter().map(ToString::to_string).collect();
        let others = if others.is_empty() { "nothing is held".to_owned() } else { format!("what is held:\n  {}", others.join("\n  ")) };
        bail!("{scope} has no hold of its own; {others}");
    }
    outln!("Let go: {scope}")?;
    for hold in &after {
        outln!("Still: {hold}")?;
    }
    noticed(&config, |status| status.brake.holds == after);
    Ok(Done::Ok)
}

fn list(config: &Config, json: bool) -> anyhow::Result<Done> {
    let holds = config.brake().holds()?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&holds)?)?;
    } else if holds.is_empty() {
        outln!("Nothing is held.")?;
    } else {
        holds.iter().try_for_each(|hold| outln!("{hold}"))?;
    }
    Ok(Done::Ok)
}

/// Who this is, for people. Whoever may write the state folder may say anything here.
pub(super) fn user() -> String {
    let variable = |name: &str| std::env::var(name).ok().map(|name| plain(&name)).filter(|name| !name.is_empty());
    let uid = || std::fs::metadata("/proc/self").map_or_else(|_| "somebody".to_owned(), |own| format!("user {}", own.uid()));
    variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME")).unwrap_or_else(uid)
}

/// One line, for a terminal.
fn plain(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Says so when a mistyped name holds nothing. What can be looked at here: our own clone and the journal, which need neither Git's server
/// nor a running controller.
fn means_something(config: &Config, scope: &HoldScope) -> bool {
    let known = known(config);
    let (fleet, journal) = match (known, scope) {
        (_, HoldScope::All) => return true,
        (Ok(known), _) => known,
        (Err(error), _) => {
            errln!("Can't look whether that is in the fleet ({error}). The hold stands.");
            return true;
        }
    };
    let found = match scope {
        HoldScope::All => true,
        HoldScope::Group(group) => group.as_str() == "default" || fleet.rollouts.contains_key(group),
        HoldScope::Machine(machine) => fleet.machines.contains_key(machine) || journal.contains(machine),
    };
    if !found {
        let what = if matches!(scope, HoldScope::Group(_)) { "rollout" } else { "machine" };
        errln!("But the fleet has no {what} of that name now, so nothing is stopped by this. The hold stands; look at the spelling.");
    }
    found
}

/// The fleet of the commit in force, and machines of the journal.
fn known(config: &Config) -> anyhow::Result<(Fleet, BTreeSet<MachineName>)> {
    let journal = SqliteJournal::read_only(&config.journal())?;
    let machines = History::of(&journal.records_after(0)?).machines.into_keys().collect();
    let commit = journal.get("commit-in-force")?.context("no commit is in force yet")?;
    let (files, _) = source::files(&config.clone_dir(), Some(&commit))?;
    Ok((crate::manifest::load(&files, &mut crate::manifest::Cache::default()).fleet, machines))
}

/// Waits a moment for a running controller to show that it looked.
fn noticed(config: &Config, shows: impl Fn(&Status) -> bool) {
    let url = format!("http://{}/api/v1/status", config.api.listen);
    let asked = block_on(async {
        for _ in 0..40 {
            if shows(&get_json(&url).await?) {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(false)
    });
    match asked {
        Ok(true) => errln!("The controller has taken notice."),
        Ok(false) => errln!("The controller answers, but does not show it yet: look at `rackwright status`."),
        Err(_) => errln!("No controller answers at {}: it counts from its next start.", config.api.listen),
    }
}
