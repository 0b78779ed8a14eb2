//! `rackwright init`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, bail};

use super::{Done, out::outln};
use crate::{git, manifest};

/// Make a fleet repository to start from: it validates, and its comments teach.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  rackwright init my-fleet && rackwright validate my-fleet")]
pub struct Args {
    /// The folder to make it in; it must be empty or not there.
    folder: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let folder = &args.folder;
    if folder.exists() && folder.read_dir().with_context(|| format!("can't look into {}", folder.display()))?.next().is_some() {
        bail!("{} is not empty: name a folder that is empty or not there", folder.display());
    }
    let files: BTreeMap<String, String> = manifest::starter().into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect();
    let count = files.len();
    git::init_repository(folder, &files, Some("Start a fleet"))
        .with_context(|| format!("can't make a repository in {}", folder.display()))?;
    outln!("{count} files committed on branch main in {}.", folder.display())?;
    outln!()?;
    outln!("Next:")?;
    outln!("  rackwright validate {}", folder.display())?;
    outln!("  edit machines/ (each file says what its fields mean), commit, and see what it does:")?;
    outln!("  rackwright plan --repo {}", folder.display())?;
    Ok(Done::Ok)
}
