//! `rackwright suspend`, `resume`, `rebuild` and `approve`: commands that write commits (law 12).

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::{
    Done,
    out::{errln, outln},
    plural, source,
};
use crate::{
    manifest::{self, Edit},
    model::{Files, Fleet, MachineName, RolloutName},
};

/// Observe machines and do nothing to them until `resume`: writes a commit with `suspend: true`.
///
/// An install of which no byte is written ends; one that writes is finished first. Power is left as it is. To stop at once, also with
/// Git down: `rackwright hold`.
///
/// The manifest is edited where the field stands; comments, order and anchors stay. The commit is made by `git commit`, so it is signed and
/// checked by hooks as you have set that up, and holds nothing else. Nothing happens before it is pushed.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rackwright suspend web-01 web-02 -m 'disk is being replaced'\n  rackwright suspend --group web\n  rackwright suspend --all --no-commit"
)]
pub struct SuspendArgs {
    #[command(flatten)]
    common: Common,
}

/// Let suspended machines go on: writes a commit with `suspend: false`.
///
/// What their manifests ask for is done then, within budgets and windows: `rackwright plan` shows it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  rackwright resume web-01\n  rackwright resume --all")]
pub struct ResumeArgs {
    #[command(flatten)]
    common: Common,
}

/// Wipe machines and install them again, with what their manifests say: writes a commit that raises `rebuild`.
///
/// All data on their system disks is lost once that commit is followed. Budgets, waves, windows and approvals hold as for each change;
/// `rackwright plan` shows what will happen.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  rackwright rebuild web-01\n  rackwright rebuild web-01 --no-commit && rackwright plan")]
pub struct RebuildArgs {
    #[command(flatten)]
    common: Common,
}

/// Approve that a commit reinstalls more machines than `maxDestructive` allows: writes an empty commit with the trailer that the plan asks for.
///
/// It is good for the commit that it makes, and only if its author is one of the Fleet's `approvers`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  rackwright approve --destroy 40 -m 'seen with the storage team'")]
pub struct ApproveArgs {
    /// The most machines that may be reinstalled, in all groups together; the plan says how many it asks for.
    #[arg(long, value_name = "COUNT")]
    destroy: u32,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct Common {
    /// The machines.
    #[arg(value_name = "MACHINE", required_unless_present_any = ["group", "all"])]
    machines: Vec<MachineName>,
    /// The machines that this rollout selects; `default`: those that none selects.
    #[arg(long, value_name = "ROLLOUT", conflicts_with_all = ["machines", "all"])]
    group: Option<RolloutName>,
    /// Every machine of the fleet.
    #[arg(long, conflicts_with = "machines")]
    all: bool,
    /// Edit the files and stop there.
    #[arg(long)]
    no_commit: bool,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct How {
    /// The fleet repository.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    repo: PathBuf,
    /// Why; becomes the body of the commit message.
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

pub(super) fn suspend(args: &SuspendArgs) -> anyhow::Result<Done> {
    change(&args.common, Edit::Suspend(true), "suspend")
}

pub(super) fn resume(args: &ResumeArgs) -> anyhow::Result<Done> {
    change(&args.common, Edit::Suspend(false), "resume")
}

pub(super) fn rebuild(args: &RebuildArgs) -> anyhow::Result<Done> {
    change(&args.common, Edit::Rebuild, "rebuild")
}

pub(super) fn approve(args: &ApproveArgs) -> anyhow::Result<Done> {
    let repo = &args.how.repo;
    let (files, _) = source::files(repo, Some("HEAD"))?;
    let fleet = manifest::load(&files, &mut manifest::Cache::default()).fleet;
    let author = said(repo, &["var", "GIT_AUTHOR_IDENT"])?;
    let address = author.rsplit_once('>').and_then(|(name, _)| Some(name.rsplit_once('<')?.1.to_owned())).unwrap_or_default();
    if !fleet.settings.approvers.iter().any(|approver| approver.eq_ignore_ascii_case(&address)) {
        bail!(
            "{address} is not one of the Fleet's `approvers`, so the approval would not count: have one of them give it, or change the Fleet first"
        );
    }
    let subject = format!("approve {}", plural(args.destroy as usize, "reinstall"));
    let trailer = format!("Rackwright-Approve: destroy={}", args.destroy);
    let message = [Some(subject), args.how.message.clone(), Some(trailer)].into_iter().flatten().collect::<Vec<_>>().join("\n\n");
    commit(repo, &message, &["--allow-empty", "--only"])?;
    outln!("Push it before anything else: it is good for that commit alone.")?;
    Ok(Done::Ok)
}

fn change(args: &Common, edit: Edit, verb: &str) -> anyhow::Result<Done> {
    let repo = &args.how.repo;
    let (files, _) = source::files(repo, None)?;
    let machines = chosen(args, &files)?;
    let changed = manifest::edit(&files, &machines, edit)?;
    if changed.is_empty() {
        outln!("Nothing to change: {} so already.", if machines.len() == 1 { "it is" } else { "they are" })?;
        return Ok(Done::Ok);
    }
    if !args.no_commit {
        refuse_unsaved(repo, &changed)?;
    }
    for (file, text) in &changed {
        replace(&repo.join(file), text)?;
        outln!("{file}")?;
    }
    if args.no_commit {
        outln!("Edited, not committed. `git diff` shows it, `rackwright plan` what it does.")?;
        return Ok(Done::Ok);
    }
    let message = [Some(subject(verb, &machines)), args.how.message.clone()].into_iter().flatten().collect::<Vec<_>>().join("\n\n");
    let mut with = vec!["--only", "--"];
    with.extend(changed.keys().map(String::as_str));
    commit(repo, &message, &with)
        .context("the files are edited and not committed; mend that and `git commit` them, or `git restore` them")?;
    outln!("`rackwright plan --head HEAD` shows what it does once it is pushed.")?;
    Ok(Done::Ok)
}

/// The machines that are meant, each once.
fn chosen(args: &Common, files: &Files) -> anyhow::Result<Vec<MachineName>> {
    let fleet = || -> Fleet { manifest::load(files, &mut manifest::Cache::default()).fleet };
    let mut machines = match &args.group {
        None if args.all => fleet().machines.into_keys().collect(),
        None => args.machines.clone(),
        Some(group) => {
            let fleet = fleet();
            if group.as_str() != "default" && !fleet.rollouts.contains_key(group) {
                bail!("the fleet has no rollout {group}");
            }
            let of = |machine: &crate::model::Machine| {
                let selects =
                    |rollout: &&crate::model::Rollout| rollout.selector.iter().all(|(key, value)| machine.labels.get(key) == Some(value));
                fleet.rollouts.values().find(selects).map_or("default", |rollout| rollout.name.as_str())
            };
            fleet.machines.values().filter(|machine| of(machine) == group.as_str()).map(|machine| machine.name.clone()).collect()
        }
    };
    machines.sort();
    machines.dedup();
    if machines.is_empty() {
        bail!("there is no machine in it");
    }
    Ok(machines)
}

/// `rebuild web-01, web-02 and 3 more`, short enough for `git log --oneline`.
fn subject(verb: &str, machines: &[MachineName]) -> String {
    let named: Vec<&str> = machines.iter().take(3).map(MachineName::as_str).collect();
    let more = machines.len().saturating_sub(3);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{verb} {}{more}", named.join(", "))
}

/// What somebody has not committed yet must not slip into this commit.
fn refuse_unsaved(repo: &Path, changed: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let mut args = vec!["status", "--porcelain", "--"];
    args.extend(changed.keys().map(String::as_str));
    let unsaved = said(repo, &args)?;
    if let Some(first) = unsaved.lines().next() {
        let file = first.get(3..).unwrap_or(first);
        bail!("{file} has changes that are not committed; commit or stash them first, or edit with --no-commit");
    }
    Ok(())
}

/// Whole or not at all, with the rights that the file has.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.rackwright-{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::metadata(path)?.permissions())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.with_context(|| format!("can't write {}", path.display()))
}

/// What a read-only Git command says.
fn said(repo: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = program(repo).args(args).output().context("can't start `git`; install it")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// With the person's own program: hooks, signing and identity are as they have set them up, and may ask.
fn commit(repo: &Path, message: &str, args: &[&str]) -> anyhow::Result<()> {
    let mut command = program(repo);
    command.args(["commit", "--quiet", "--cleanup=whitespace", "--file=-"]).args(args).stdin(Stdio::piped());
    let mut child = command.spawn().context("can't start `git`; install it")?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(message.as_bytes()));
    let status = child.wait().context("can't wait for `git commit`")?;
    if let (true, Some(Err(error))) = (status.success(), written) {
        bail!("`git commit` did not read its message: {error}");
    }
    if !status.success() {
        bail!("`git commit` refused ({status}); what it said stands above");
    }
    errln!("Committed {}.", said(repo, &["log", "-1", "--format=%h %s"])?);
    Ok(())
}

fn program(repo: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(repo);
    command
}
