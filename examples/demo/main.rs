//! The demo: a simulated fleet, the real controller, and a story of seven steps, each verified from the outside.
//!
//! Run it by `scripts/demo`. It drives the two programs that users run, `rackwright sim` and `rackwright run`, as processes, makes
//! commits with Git, and believes nothing that the controller says of itself: it looks at disk files, at BMCs and at notes.

mod outside;
#[path = "../shared/mod.rs"]
mod shared;
mod stage;
mod story;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context as _;
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Leave everything running at the end, and say what to try.
    #[arg(long)]
    keep: bool,
    /// The fleet repository to start from.
    #[arg(long, default_value = "examples/fleet-repo")]
    fleet: PathBuf,
    /// Folder of the programs.
    #[arg(long, default_value = "target/debug")]
    programs: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    shared::play(play(Args::parse())).await
}

async fn play(args: Args) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let programs = args.programs.canonicalize().with_context(|| format!("{} is not built", args.programs.display()))?;
    let temporary = tempfile::Builder::new().prefix("rackwright-demo-").tempdir()?;
    let folder = temporary.path().to_owned();
    println!("Everything is in {}", folder.display());
    let mut stage = stage::Stage::build(folder.clone(), &args.fleet, programs)?;
    let result = tokio::select! {
        result = story::tell(&mut stage) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped by Ctrl-C; nothing is left running")),
    };
    stage.view.clear();
    let verified = match result {
        Ok(verified) => verified,
        Err(error) => {
            show_end(&folder);
            let kept = temporary.keep();
            return Err(error.context(format!("the story broke off; logs and disks are kept in {}", kept.display())));
        }
    };
    println!("\n$ git log --notes='rackwright/*'\n");
    println!("{}", stage.git(&["--no-pager", "log", "--notes=rackwright/*"])?);
    println!("demo: {verified} of {} steps verified, in {} s", story::STEPS, begun.elapsed().as_secs());
    if args.keep {
        let ids = stage.leave_running();
        explain_kept(&temporary.keep(), &stage, &ids);
    }
    Ok(verified == story::STEPS)
}

/// The last words of both logs: what somebody would look for first.
fn show_end(folder: &std::path::Path) {
    for log in ["controller.log", "sim.log"] {
        let text = std::fs::read_to_string(folder.join(log)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- {log}");
        lines[lines.len().saturating_sub(15)..].iter().for_each(|line| eprintln!("{line}"));
    }
}

fn explain_kept(folder: &std::path::Path, stage: &stage::Stage, ids: &[u32]) {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let (at, control) = (folder.display(), &stage.control);
    println!("\nSimulator and controller go on. Try, in {at}:");
    println!("  rackwright --log warn status --config rackwright.yaml --watch");
    println!("  rackwright history web-07 --config rackwright.yaml");
    println!("  cd work; edit machines/edge-01.yaml: raise rebuild; git commit -am 'Rebuild edge-01'; git push origin main");
    println!("  curl -X POST {control}/machines/db-02/power -d '{{\"state\":\"Off\"}}' -H 'Content-Type: application/json'");
    println!("  git -C work fetch && git -C work log --notes='rackwright/*'");
    println!("Stop it with: kill {}", ids.join(" "));
}
