//! `rackwright verify`.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};

use super::{
    Done,
    out::{errln, outln},
    paint, plural, source,
};
use crate::{
    git, manifest,
    model::{CommitId, Signer},
    trust::{self, Commits, Judged, Question, Signers, Verdict},
};

/// Judge the signatures of commits as the controller would, offline.
///
/// Each commit is judged by the signers of the commit that it comes to on the branch: what the Fleet's `signatures` and the files that it
/// names said there. Commits to which no fleet asks for signatures count without one. Prints a line for each commit; exit code 1 when
/// one does not count.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    repo: PathBuf,
    /// The commit that is trusted, such as the one in force; default: the first of the branch.
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    /// The commit up to which is judged.
    #[arg(long, default_value = "HEAD", value_name = "REV")]
    head: String,
    /// Who must have signed where the fleet does not say: `repository.allowedSigners` of the controller's configuration.
    #[arg(long, value_name = "FILE")]
    allowed_signers: Option<PathBuf>,
    /// Print the verdicts as JSON on standard output.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  rackwright verify                                  the whole history of this branch
  rackwright verify --base origin/main               what I am about to push, as the controller will judge it
  rackwright verify --base origin/main --head pr-17  a branch, as if it were pushed to main
  rackwright verify --json | jq '.[] | select(.refused)'

A commit that does not count keeps all after it out of force. To sign the last three again:
  git rebase --force-rebase --exec 'git commit --amend --no-edit --gpg-sign' HEAD~3

docs/signing.md tells how to set up signing.";

pub fn run(args: &Args) -> anyhow::Result<Done> {
    if !args.repo.is_dir() {
        bail!("there is no folder {}; name the fleet repository", args.repo.display());
    }
    let host = args.allowed_signers.as_deref().map(read).transpose()?;
    let judged = judge(&args.repo, args.base.as_deref(), &args.head, host)?;
    let refused = judged.verdicts.iter().filter(|verdict| verdict.outcome.is_err()).count();
    if args.json {
        let all: Vec<_> = judged.verdicts.iter().map(json).collect();
        outln!("{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        for verdict in &judged.verdicts {
            outln!("{}", line(verdict))?;
        }
        let signed = judged.verdicts.iter().filter(|verdict| matches!(verdict.outcome, Ok(Some(_)))).count();
        let unasked = judged.verdicts.len() - signed - refused;
        errln!("{}: {signed} signed, {unasked} without need of a signature, {refused} refused", plural(judged.verdicts.len(), "commit"));
    }
    Ok(if refused > 0 { Done::Bad } else { Done::Ok })
}

/// Judges `base..head` by what the fleet of `base` says.
pub(super) fn judge(repo: &std::path::Path, base: Option<&str>, head: &str, host: Option<Arc<Signers>>) -> anyhow::Result<Judged> {
    git::look_at_range(repo, base, head, |base, commits| judge_from(repo, base, commits, host))?
}

fn judge_from(repo: &std::path::Path, base: CommitId, commits: &dyn Commits, host: Option<Arc<Signers>>) -> anyhow::Result<Judged> {
    let (files, _) = source::files(repo, Some(&base.to_string()))?;
    let loaded = manifest::load(&files, &mut manifest::Cache::default());
    let stated = loaded.fleet.settings.signatures.as_ref();
    if !loaded.is_usable() {
        errln!(
            "The fleet of {} has errors ({}): what it says about signers may be incomplete.",
            base.short(),
            source::count(&loaded.problems)
        );
    }
    let at_base = manifest::signers_at(stated, |path| files.get(path).cloned());
    let question = Question { base: Some(base), at_base, host };
    Ok(trust::judge(commits, &manifest::FleetSettings, &question)?)
}

fn read(path: &std::path::Path) -> anyhow::Result<Arc<Signers>> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let (signers, bad) = Signers::of_file(&bytes);
    if let Some(bad) = bad.first() {
        bail!("{}:{}: {}", path.display(), bad.line, bad.message);
    }
    Ok(Arc::new(signers))
}

fn line(verdict: &Verdict) -> String {
    let Verdict { id, author, subject, outcome, .. } = verdict;
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(72).collect::<String>();
    let (short, subject) = (id.short(), plain(subject));
    match outcome {
        Ok(Some(signer)) => format!("signed   {short} {}  {subject}", signer.principals.join(",")),
        Ok(None) => format!("unasked  {short} {}  {subject}", plain(author)),
        Err(why) => {
            format!("{}  {short} {}  {subject}\n         {why}\n         {}", paint_out("REFUSED"), plain(author), why.hint())
        }
    }
}

/// Standard output may go elsewhere than standard error: it stays plain.
fn paint_out(text: &str) -> String {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) { paint(text, "1;31") } else { text.to_owned() }
}

fn json(verdict: &Verdict) -> serde_json::Value {
    let Verdict { id, author, subject, committed, outcome } = verdict;
    let signer: Option<&Signer> = outcome.as_ref().ok().and_then(Option::as_ref);
    let refused = outcome.as_ref().err();
    serde_json::json!({
        "commit": id, "author": author, "subject": subject, "committed": committed,
        "principals": signer.map(|signer| &signer.principals),
        "key": signer.map(|signer| signer.key.clone()).or_else(|| refused?.key()),
        "refused": refused.map(ToString::to_string), "hint": refused.map(trust::Refused::hint),
    })
}
