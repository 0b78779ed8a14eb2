//! `rackwright validate`.

use std::path::PathBuf;

use super::{Done, out::outln, plural, source};
use crate::model::Problem;

/// Check a fleet repository, without touching or asking any machine.
///
/// Reads the working tree with what is not committed yet, or a commit with --rev. Each problem names file, line and column and
/// says what to write instead. Exit code 1 when there is an error.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  rackwright validate my-fleet\n  rackwright validate --rev origin/my-branch\n  rackwright validate --json | jq -r '.[].message'"
)]
pub struct Args {
    /// The repository.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Check this commit, branch or tag instead of the working tree.
    #[arg(long, value_name = "REV")]
    rev: Option<String>,
    /// Print the problems as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Count warnings as errors.
    #[arg(long)]
    strict: bool,
}

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let (files, _) = source::files(&args.folder, args.rev.as_deref())?;
    let loaded = if args.json { crate::manifest::load(&files, &mut crate::manifest::Cache::default()) } else { source::load(&files) };
    let problems = &loaded.problems;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(problems)?)?;
    } else {
        let fleet = &loaded.fleet;
        let counts = [(fleet.machines.len(), "machine"), (fleet.networks.len(), "network"), (fleet.rollouts.len(), "rollout")]
            .map(|(n, what)| plural(n, what));
        outln!("{}: {}", counts.join(", "), source::count(problems))?;
    }
    let bad = problems.iter().any(|problem| args.strict || Problem::is_error(problem));
    Ok(if bad { Done::Bad } else { Done::Ok })
}
