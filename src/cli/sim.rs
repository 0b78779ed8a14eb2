//! `rackwright sim`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Done, block_on,
    get::table,
    out::{out, outln},
    plural, sim_lab, yaml,
};
use crate::sim::{self, ArmedFault, SampleImage, Simulator};

/// Simulate machines that behave: a Redfish BMC each, power with lag, a PXE client that really boots from the network, an agent
/// that really writes a disk file.
///
/// Everything is in one YAML file; `docs/simulator.md` says what it holds. Runs until Ctrl-C. Disks stay as they are for the next run.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The machines.
    #[arg(long, value_name = "FILE", default_value = "sim.yaml")]
    file: PathBuf,
    /// A fault: MACHINE=FAULT or MACHINE=FAULT:COUNT, such as `node-3=disk-write:1`. May be given more than once.
    #[arg(long, value_name = "FAULT", value_parser = sim::parse_fault)]
    fault: Vec<(String, ArmedFault)>,
}

const EXAMPLES: &str = "\
Examples:
  rackwright sim init lab                      a folder with machines, a repository, a configuration
  rackwright sim --file sim.yaml               run the machines
  rackwright sim --fault node-3=disk-write:1   the first write of node-3's disk fails
  rackwright sim image --out images three      make a small image to install on them";

#[derive(Subcommand)]
enum What {
    /// Make a folder to play in: simulated machines, a fleet repository with its working clone, images, and a configuration.
    Init {
        /// The folder to make; it must be empty or not there.
        folder: PathBuf,
        /// What to put there.
        #[arg(long, value_enum, default_value_t = sim_lab::Example::Simulator)]
        example: sim_lab::Example,
    },
    /// Make a small disk image for simulated machines, and print its manifest. The same name always gives the same image.
    Image {
        /// Name of the image.
        name: crate::model::ImageName,
        /// Folder that it is written into, as NAME.raw.zst.
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        out: PathBuf,
        /// Its size on the disk in MiB, at least 8.
        #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u16).range(8..=4096))]
        size: u16,
    },
}

pub fn run(args: &Args) -> anyhow::Result<Done> {
    match &args.what {
        Some(What::Init { folder, example }) => sim_lab::make(folder, *example)?,
        Some(What::Image { name, out, size }) => out!("{}", image(out, name.as_str(), *size)?)?,
        None => {
            let advice = "`rackwright sim init FOLDER` makes a folder with one to start from";
            let mut config: sim::Config = if args.file.exists() {
                yaml::read(&args.file, "simulator's file")?
            } else {
                bail!("there is no {}: {advice}", args.file.display());
            };
            config.state_dir = args.file.parent().unwrap_or(Path::new("")).join(&config.state_dir);
            block_on(simulate(config, &args.fault))?;
        }
    }
    Ok(Done::Ok)
}

/// Makes an image; returns its manifest.
pub fn image(folder: &Path, name: &str, mib: u16) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    let image = SampleImage::make(folder, name, mib.into()).with_context(|| format!("can't write an image into {}", folder.display()))?;
    let digest = image.digest;
    Ok(format!(
        "apiVersion: rackwright.dev/v1alpha1\nkind: Image\nmetadata: {{name: {name}}}\n\
         spec: {{digest: \"{digest}\", format: raw.zst, url: {name}.raw.zst}}\n"
    ))
}

async fn simulate(config: sim::Config, faults: &[(String, ArmedFault)]) -> anyhow::Result<()> {
    let count = config.machines.len();
    // Taken first, so that a signal in the first moments also ends it in order.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let simulator = Simulator::start(config).await.context("the simulator can't start; is another one running?")?;
    for (machine, fault) in faults {
        simulator.arm(machine, *fault)?;
    }
    outln!("{} simulated; certificate fingerprint {}", plural(count, "machine"), simulator.fingerprint())?;
    out!("{}", machines(&simulator))?;
    if let Some(control) = simulator.control() {
        outln!("State and faults: http://{control}/machines")?;
    }
    outln!("Ctrl-C stops them.")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

fn machines(simulator: &Simulator) -> String {
    let rows = simulator.machines().into_iter();
    let rows = rows.map(|machine| vec![machine.name.to_string(), format!("https://{}", machine.bmc), machine.power.to_string()]);
    table(&["MACHINE", "BMC", "POWER"], rows)
}
