//! `rackwright status` and `rackwright get`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};

use super::{
    Done, block_on,
    config::Config,
    live,
    out::{out, outln},
};
use crate::model::{MachineStatus, Status};

/// Where the controller's API is.
#[derive(clap::Args)]
pub struct Server {
    /// The controller's API; otherwise as the configuration says.
    #[arg(long, value_name = "URL", env = "RACKWRIGHT_SERVER")]
    server: Option<String>,
    /// The controller's configuration, to find its API.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Server {
    /// The API's URL, without a final slash.
    pub fn url(&self) -> String {
        if let Some(server) = &self.server {
            return server.trim_end_matches('/').to_owned();
        }
        let listen = Config::read(self.config.as_deref()).map_or_else(|_| crate::api::Config::default().listen, |config| config.api.listen);
        format!("http://{listen}")
    }

    /// Asks the API.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        get_json(&format!("{}{path}", self.url())).await
    }
}

/// Asks a controller's API.
pub async fn get_json<T: serde::de::DeserializeOwned>(url: &str) -> anyhow::Result<T> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let response = client.get(url).send().await;
    let response = response.map_err(|error| {
        let (address, why) =
            (url.split("/api/").next().unwrap_or(url), if error.is_timeout() { "it is silent" } else { "nothing listens there" });
        anyhow!("no controller answers at {address} ({why}): is `rackwright run` running, and is --server or --config right?")
    })?;
    let code = response.status();
    let text = response.text().await.context("the controller's answer broke off")?;
    if !code.is_success() {
        bail!("the controller says: {}", text.trim());
    }
    serde_json::from_str(&text).context("the controller's answer makes no sense: is it of another version?")
}

/// Show the fleet's state: what is not as declared, and why.
///
/// Ready: all is as the commit says. Reconciling: being worked on, or waiting for its turn. Stalled: a person must look.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  rackwright status\n  rackwright status --watch\n  rackwright status --json | jq .state")]
pub struct StatusArgs {
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Keep showing it, with a bar for each machine that is worked on, until Ctrl-C.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// List things that the controller knows.
#[derive(clap::Args)]
pub struct GetArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List machines.
    #[command(
        visible_alias = "machine",
        after_help = "Examples:\n  rackwright get machines\n  rackwright get machines web-01 web-02 --json"
    )]
    Machines {
        /// Only these.
        names: Vec<String>,
        #[command(flatten)]
        server: Server,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn status(args: &StatusArgs) -> anyhow::Result<Done> {
    if args.watch {
        return block_on(live::watch(&args.server.url())).map(|()| Done::Ok);
    }
    let status: Status = block_on(args.server.get("/api/v1/status"))?;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&status)?)?;
    } else {
        out!("{}", summary(&status))?;
    }
    Ok(Done::Ok)
}

/// The fleet in a few lines, exceptions only.
pub fn summary(status: &Status) -> String {
    let commit = &status.commit;
    let mut out = format!("{}: {}, {} of {} machines ready\n", status.site, status.state, status.ready, status.total);
    out += &format!("commit {} {}\n", commit.id.short(), commit.subject);
    if let Some(problem) = &status.source_problem {
        out += &format!("not up to date: {problem}\n");
    }
    if let Some(problem) = &status.journal_problem {
        out += &format!("nothing is done: {problem}\n");
    }
    if let Some(problem) = &status.notes_problem {
        out += &format!("notes are waiting, machines are not affected: {problem}\n");
    }
    if let Some(why) = &status.brake.unreadable {
        out += &format!("everything is held: {why}\n");
    }
    for hold in &status.brake.holds {
        out += &format!("hold: {hold}\n");
    }
    let exceptions: Vec<_> = status.machines.iter().filter(|(_, machine)| machine.is_told()).collect();
    if !exceptions.is_empty() {
        let rows = exceptions
            .into_iter()
            .map(|(name, machine)| vec![name.to_string(), machine.state.to_string(), machine.reason.clone(), machine.message.clone()]);
        out += &format!("\n{}", table(&["MACHINE", "STATE", "REASON", "MESSAGE"], rows));
    }
    out
}

pub(super) fn get(args: &GetArgs) -> anyhow::Result<Done> {
    let What::Machines { names, server, json } = &args.what;
    let mut status: Status = block_on(server.get("/api/v1/status"))?;
    if let Some(missing) = names.iter().find(|name| !status.machines.keys().any(|known| known.as_str() == *name)) {
        bail!("there is no machine {missing} in the fleet; `rackwright get machines` lists all");
    }
    status.machines.retain(|name, _| names.is_empty() || names.iter().any(|wanted| wanted == name.as_str()));
    if *json {
        outln!("{}", serde_json::to_string_pretty(&status.machines)?)?;
        return Ok(Done::Ok);
    }
    let rows = status.machines.iter().map(|(name, machine)| row(name.as_str(), machine));
    out!("{}", table(&["MACHINE", "GROUP", "STATE", "POWER", "IMAGE", "GENERATION", "WRITES", "REASON"], rows))?;
    for (name, machine) in status.machines.iter().filter(|(_, machine)| machine.reason == MachineStatus::DECOMMISSIONED) {
        outln!("\n{name}: {}", machine.message)?;
    }
    Ok(Done::Ok)
}

fn row(name: &str, machine: &MachineStatus) -> Vec<String> {
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        name.to_owned(),
        machine.group.clone(),
        machine.state.to_string(),
        machine.power.clone(),
        or(machine.image.clone()),
        or(machine.generation.map(|generation| generation.short())),
        machine.writes.to_string(),
        machine.reason.clone(),
    ]
}

/// A table without lines, at most as wide as the terminal; ends with a line break.
pub fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    rows.for_each(|row| {
        table.add_row(row);
    });
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
