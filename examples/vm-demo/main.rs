//! The demo on real virtual machines: a story of six steps, each verified from the outside.
//!
//! Run it by `scripts/demo --vm`, which builds what it needs and gives it a network namespace of its own. It drives `rackwright sim`
//! (the BMCs, each in front of QEMU) and `rackwright run` as processes, makes commits with Git, and looks at disk files, serial
//! consoles, BMCs and notes.

mod outside;
#[path = "../shared/mod.rs"]
mod shared;
mod stage;
mod story;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// What scripts/demo-vm built.
#[derive(Parser)]
pub struct Args {
    /// Empty folder for everything that the demo makes.
    #[arg(long)]
    folder: PathBuf,
    /// Folder of `tiny-1.raw`, `debian-1.raw` and their `.zst`.
    #[arg(long)]
    images: PathBuf,
    /// Folder of `vmlinuz`, `initramfs.img` and `localboot.efi`.
    #[arg(long)]
    boot: PathBuf,
    /// The program `rackwright`.
    #[arg(long)]
    rackwright: PathBuf,
    /// Name of the network namespace that it runs in, to say it.
    #[arg(long)]
    namespace: String,
    /// `kvm` or `tcg`.
    #[arg(long)]
    accel: String,
    /// Leave everything running at the end, and say what to try.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    shared::play(play(Args::parse())).await
}

async fn play(args: Args) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let (keep, namespace) = (args.keep, args.namespace.clone());
    let mut stage = stage::Stage::build(args)?;
    let at = stage.folder.display().to_string();
    println!("Serial consoles: {at}/vms/NAME.serial; the controller's log: {at}/controller.log");
    let mut terminate = signal(SignalKind::terminate())?;
    let result = tokio::select! {
        result = story::tell(&mut stage) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped by Ctrl-C")),
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped by SIGTERM")),
    };
    stage.view.clear();
    let verified = result?;
    println!("\n$ git log --notes='rackwright/*'\n");
    println!("{}", stage.git(&["--no-pager", "log", "--notes=rackwright/*"])?);
    println!("demo --vm: {verified} of {} steps verified, in {} s", story::STEPS, begun.elapsed().as_secs());
    if keep {
        let ids: Vec<String> = stage.leave_running().iter().map(ToString::to_string).collect();
        println!("\nMachines and controller go on, in the network namespace {namespace}. Try, as root, in {at}:");
        println!("  ip netns exec {namespace} rackwright --log warn status --config rackwright.yaml --watch");
        println!("  rackwright history vm-bios --config rackwright.yaml");
        println!("  tail -f vms/vm-uefi.serial");
        println!("  cd work; edit machines/vm-bios.yaml: raise rebuild; git commit -am 'Rebuild vm-bios'; git push origin main");
        println!("Stop it with: kill {}; then: scripts/vm-net down {namespace}; rm -r {at}", ids.join(" "));
    }
    Ok(verified == story::STEPS)
}
