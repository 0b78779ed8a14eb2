//! `rackwright plan`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::{
    Done,
    config::Config,
    get,
    out::{errln, out, outln},
    source,
};
use crate::{
    journal::SqliteJournal,
    model::{
        Brake, Commit, CommitId, Fleet, History, MachineName, Observation, ObservedIdentity, Plan, PowerIntent, PowerState, Seen,
        Timestamp, Unknown,
    },
    plan::{self, Input},
    ports::BrakeLever as _,
};

/// Show what a change of the fleet does to hardware: per machine no-op, settings, power-cycle or REIMAGE, and which disk loses data.
///
/// Without --config it compares two commits of the repository and takes each machine to be as the base says; no machine is asked.
/// With --config it starts from the controller's journal and, where the controller runs, from what it last saw.
/// Nothing is ever done by this command.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    repo: PathBuf,
    /// The commit that machines follow now; default: HEAD when --head is not given, else HEAD~1.
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    /// The commit that is proposed; default: the working tree.
    #[arg(long, value_name = "REV")]
    head: Option<String>,
    /// The controller's configuration: plan from its journal and its observations.
    #[arg(long, value_name = "FILE", conflicts_with = "base")]
    config: Option<PathBuf>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Exit with 2 when there is something to do, 0 when not.
    #[arg(long)]
    detailed_exitcode: bool,
}

const EXAMPLES: &str = "\
Examples:
  rackwright plan                                  the working tree against HEAD
  rackwright plan --base main --head my-branch     what merging a branch would do
  rackwright plan --head HEAD --format markdown    what the last commit does, for a pull request
  rackwright plan --config rackwright.yaml         from what the controller knows
  rackwright plan --detailed-exitcode              exit code 0: nothing to do, 2: changes, 1: error";

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For a terminal.
    Text,
    /// For a pull request.
    Markdown,
    /// For programs.
    Json,
}

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let now = Timestamp::now();
    let (files, commit) = source::files(&args.repo, args.head.as_deref())?;
    let head = source::load(&files);
    if head.problems.iter().any(crate::model::Problem::is_error) {
        bail!("the proposed fleet has errors ({}), so the controller would not follow it", source::count(&head.problems));
    }
    let mut commit = commit.unwrap_or_else(|| working_tree(now));
    sign(args, &head.fleet, &mut commit);
    let Start { former, history, seen, brake, deadlines } = match &args.config {
        Some(config) => from_controller(config, &head.fleet, now)?,
        None => from_base(&args.repo, args, &head.fleet, now)?,
    };
    let input = Input {
        commit: &commit,
        fleet: &head.fleet,
        problems: &head.problems,
        seen: &seen,
        history: &history,
        alive: &BTreeMap::new(),
        probes: &BTreeMap::new(),
        former: former.as_ref(),
        brake: &brake,
        deadlines,
        now,
    };
    let plan = plan::plan(&input);
    if let [first, more @ ..] = plan::check(&plan, &input).as_slice() {
        let more = if more.is_empty() { String::new() } else { format!(", and {} more like it", more.len()) };
        bail!(
            "the controller would not execute this plan: {first}{more}. This is a fault of Rackwright; please report it with the two commits"
        );
    }
    match args.format {
        Format::Text => out!("{}", titled(args, plan::render_text(&plan)))?,
        Format::Markdown => out!("{}", titled(args, plan::render_markdown(&plan)))?,
        Format::Json => outln!("{}", serde_json::to_string_pretty(&plan)?)?,
    }
    if args.config.is_none() {
        errln!("No machine was asked: each is taken to be as the base declares it.");
    }
    Ok(if args.detailed_exitcode && has_changes(&plan) { Done::Changes } else { Done::Ok })
}

/// Says whose approvals these are, where the fleet asks for signatures. What can't be judged, counts for nobody's.
fn sign(args: &Args, fleet: &Fleet, commit: &mut Commit) {
    let Some(head) = args.head.as_ref().filter(|_| fleet.settings.signatures.is_some() && !commit.approvals.is_empty()) else { return };
    let base = args.base.clone().unwrap_or_else(|| format!("{head}~1"));
    match super::verify::judge(&args.repo, Some(&base), head, None) {
        Ok(judged) => {
            let signers = judged.signer().map(|signer| signer.principals.clone());
            commit.approvals.iter_mut().for_each(|approval| approval.signers.clone_from(&signers));
        }
        Err(error) => errln!("Who signed {head} can't be told ({error}), so its approvals do not count here."),
    }
}

/// A working tree has no commit id to show.
fn titled(args: &Args, text: String) -> String {
    if args.head.is_some() {
        return text;
    }
    let base = args.base.as_deref().unwrap_or("HEAD");
    let against = if args.config.is_some() { "what the controller knows" } else { base };
    let title = format!("{} {WORKING_TREE}", working_tree(Timestamp::UNIX_EPOCH).id.short());
    text.replacen(&format!("Commit {title}"), &format!("Working tree against {against}"), 1).replacen(
        &format!("Plan for {title}"),
        &format!("Plan for the working tree against {against}"),
        1,
    )
}

const WORKING_TREE: &str = "working tree";

fn has_changes(plan: &Plan) -> bool {
    !plan.is_empty() || plan.machines.values().any(|machine| machine.reimage.is_some())
}

fn working_tree(now: Timestamp) -> Commit {
    Commit { id: CommitId([0; 20]), subject: WORKING_TREE.to_owned(), author: String::new(), time: now, approvals: Vec::new() }
}

/// What a plan starts from.
struct Start {
    former: Option<Fleet>,
    history: History,
    seen: BTreeMap<MachineName, Observation>,
    brake: Brake,
    deadlines: plan::Deadlines,
}

fn from_base(repo: &Path, args: &Args, head: &Fleet, now: Timestamp) -> anyhow::Result<Start> {
    let rev = match (&args.base, &args.head) {
        (Some(base), _) => base.clone(),
        (None, None) => "HEAD".to_owned(),
        (None, Some(head)) => format!("{head}~1"),
    };
    let base = match usable(repo, &rev)? {
        Ok(base) => base,
        Err(count) if args.base.is_some() => bail!(
            "the fleet of {rev} has errors ({count}; see `rackwright validate --rev {rev}`), so no machine follows it: name another with --base"
        ),
        Err(count) => {
            let (rev_used, base) = (1..=FURTHEST)
                .map(|back| format!("{rev}~{back}"))
                .find_map(|rev| Some((rev.clone(), usable(repo, &rev).ok()?.ok()?)))
                .with_context(|| {
                    format!("the fleet of {rev} has errors ({count}), and so have those before it: name a base with --base")
                })?;
            errln!(
                "The fleet of {rev} has errors ({count}), so no machine follows it; this is compared with {rev_used}, the last without."
            );
            base
        }
    };
    let history = plan::baseline(&base, now);
    let seen = head.machines.values().map(|machine| (machine.name.clone(), as_declared(machine, now))).collect();
    Ok(Start { former: Some(base), history, seen, brake: Brake::default(), deadlines: plan::Deadlines::default() })
}

/// How many commits are looked at for one that can be a base.
const FURTHEST: u32 = 100;

/// The fleet of a revision, or how many errors it has: a machine that is missing there would pass for a new one.
fn usable(repo: &Path, rev: &str) -> anyhow::Result<Result<Fleet, String>> {
    let (files, _) = source::files(repo, Some(rev)).context("can't read the base; name one with --base")?;
    let loaded = crate::manifest::load(&files, &mut crate::manifest::Cache::default());
    Ok(if loaded.is_usable() { Ok(loaded.fleet) } else { Err(source::count(&loaded.problems)) })
}

/// An observation that says what the manifest says, for a plan without hardware.
fn as_declared(machine: &crate::model::Machine, now: Timestamp) -> Observation {
    let mut seen = Observation::blank(now, "the manifest", &Unknown::NotAsked);
    let off = machine.power == PowerIntent::Off;
    seen.power = Seen::Known(if off { PowerState::Off } else { PowerState::On });
    let (serial, uuid) = (machine.identity.serial.clone(), machine.identity.uuid.clone());
    seen.identity = Seen::Known(ObservedIdentity { serial, uuid, ..ObservedIdentity::default() });
    seen
}

/// Where the engine keeps whether the journal is the first of its site, and what it says then.
const ORIGIN: &str = "journal-origin";
const FIRST: &str = "first";

fn from_controller(config: &Path, head: &Fleet, now: Timestamp) -> anyhow::Result<Start> {
    let config = Config::read(Some(config))?;
    let journal = SqliteJournal::read_only(&config.journal())?;
    let mut history = History::of(&journal.records_after(0)?);
    if journal.get(ORIGIN)?.as_deref() != Some(FIRST) {
        errln!("The journal may follow on one that was lost: nothing is installed on claim.");
        history.lost = true;
    }
    let url = format!("http://{}/api/v1/observations", config.api.listen);
    let mut seen: BTreeMap<MachineName, Observation> = match super::block_on(get::get_json(&url)) {
        Ok(seen) => seen,
        Err(error) => {
            errln!("{error}: planning without observations.");
            BTreeMap::new()
        }
    };
    for machine in head.machines.values() {
        let blank = || Observation::blank(now, machine.bmc.address.clone(), &Unknown::NotAsked);
        seen.entry(machine.name.clone()).or_insert_with(blank);
    }
    Ok(Start { former: None, history, seen, brake: config.brake().position(), deadlines: config.deadlines })
}
