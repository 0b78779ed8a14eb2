//! `rackwright notes`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;

use super::{Done, out::outln};
use crate::git;

/// Read Rackwright's status notes with Git.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  rackwright notes setup && git fetch && git log")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Set up a clone so that `git fetch` brings the notes and `git log` shows them.
    ///
    /// Adds a fetch refspec for refs/notes/rackwright/* to the remote `origin`, and notes.displayRef. Safe to run again.
    Setup {
        /// The clone.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
}

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let What::Setup { folder } = &args.what;
    let changes = git::notes_setup(folder).with_context(|| format!("can't set up {}", folder.display()))?.added;
    for change in &changes {
        outln!("{change}")?;
    }
    if changes.is_empty() {
        outln!("{} is set up already.", folder.display())?;
    }
    outln!("Now `git fetch` brings the notes, and `git log` shows them.")?;
    Ok(Done::Ok)
}
