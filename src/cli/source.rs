//! Fleets that a command reads from a folder or a commit, with their problems shown.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::{out::errln, paint, plural};
use crate::{
    git,
    manifest::{self, Loaded},
    model::{Files, Problem, Severity},
};

/// The files of `rev`, or the working tree's where `rev` is `None`.
pub fn files(repo: &Path, rev: Option<&str>) -> anyhow::Result<(Files, Option<crate::model::Commit>)> {
    if !repo.is_dir() {
        bail!("there is no folder {}; name the fleet repository", repo.display());
    }
    match rev {
        Some(rev) => {
            let snapshot = git::read_tree_at(repo, rev).with_context(|| format!("can't read {rev} of {}", repo.display()))?;
            Ok((snapshot.files.as_ref().clone(), Some(snapshot.commit)))
        }
        None => Ok((git::read_worktree(repo).with_context(|| format!("can't read {}", repo.display()))?, None)),
    }
}

/// Loads a fleet and shows its problems on standard error.
pub fn load(files: &Files) -> Loaded {
    let loaded = manifest::load(files, &mut manifest::Cache::default());
    show_problems(&loaded.problems, files);
    loaded
}

fn show_problems(problems: &[Problem], files: &Files) {
    for problem in problems {
        let text = files.get(&problem.file).and_then(|entry| std::str::from_utf8(&entry.bytes).ok());
        let rendered = manifest::render(problem, text);
        let (first, rest) = rendered.split_once('\n').unwrap_or((&rendered, ""));
        let colour = if problem.severity == Severity::Error { "1;31" } else { "1;33" };
        errln!("{}\n{rest}", paint(first, colour));
    }
}

/// `3 errors, 1 warning`.
pub fn count(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    format!("{}, {}", plural(errors, "error"), plural(problems.len() - errors, "warning"))
}
