//! `rackwright completion`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Done, out::out};

/// Print a completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(rackwright completion bash)
  rackwright completion zsh > ~/.zfunc/_rackwright
  rackwright completion fish > ~/.config/fish/completions/rackwright.fish";

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rackwright", &mut script);
    out!("{}", String::from_utf8_lossy(&script))?;
    Ok(Done::Ok)
}
