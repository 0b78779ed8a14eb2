//! `rackwright explain`.

use super::{
    Done, block_on,
    get::Server,
    out::{out, outln},
};
use crate::{api::MachineDetail, model::MachineName, plan};

/// Say why a machine is as it is: its state, what is to be done with it, what is refused and why, and what was last seen of it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  rackwright explain web-01\n  rackwright explain web-01 --json | jq .plan.held")]
pub struct Args {
    /// The machine.
    machine: MachineName,
    #[command(flatten)]
    server: Server,
    /// Print JSON: status, plan and observation.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<Done> {
    let detail: MachineDetail = block_on(args.server.get(&format!("/api/v1/machines/{}", args.machine)))?;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&detail)?)?;
        return Ok(Done::Ok);
    }
    if let Some(status) = &detail.status {
        outln!("{}: {}, {}", args.machine, status.state, status.reason)?;
        if !status.message.is_empty() {
            outln!("  {}", status.message)?;
        }
    }
    if let Some(part) = &detail.plan {
        out!("\n{}", plan::render_machine(part))?;
    }
    if let Some(seen) = &detail.observation {
        out!("\nLast seen\n{}", super::observe::text(seen).lines().map(|line| format!("  {line}\n")).collect::<String>())?;
    }
    Ok(Done::Ok)
}
