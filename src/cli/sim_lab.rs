//! `rackwright sim init`: examples/simulator, or examples/cluster, as a folder that works.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, bail};

use super::{block_on, out::outln, sim};
use crate::{
    git, manifest,
    model::Fingerprint,
    sim::{Config, Simulator},
};

/// What a laboratory is made from.
struct Texts {
    sim: &'static str,
    controller: &'static str,
    fleet: &'static [(&'static str, &'static str)],
}

macro_rules! texts {
    ($folder:literal, $($path:literal),* $(,)?) => {
        Texts {
            sim: include_str!(concat!("../../examples/", $folder, "/sim.yaml")),
            controller: include_str!(concat!("../../examples/", $folder, "/rackwright.yaml")),
            fleet: &[$(($path, include_str!(concat!("../../examples/", $folder, "/fleet/", $path)))),*],
        }
    };
}

/// Three machines, of which one is new.
const SIMULATOR: Texts = texts!(
    "simulator",
    "fleet.yaml",
    "machines/node-1.yaml",
    "machines/node-2.yaml",
    "machines/node-3.yaml",
    "networks/lab.yaml",
    "profiles/node.yaml",
    "rollouts/node.yaml",
    "secrets/bmc.yaml",
);

/// Five machines that make a cluster.
const CLUSTER: Texts = texts!(
    "cluster",
    "fleet.yaml",
    "machines/cp-1.yaml",
    "machines/cp-2.yaml",
    "machines/cp-3.yaml",
    "machines/w-1.yaml",
    "machines/w-2.yaml",
    "networks/lab.yaml",
    "profiles/cluster.yaml",
    "rollouts/cluster.yaml",
    "secrets/bmc.yaml",
    "templates/first.yaml",
    "templates/join.yaml",
);

/// The images, and their size in MiB.
const IMAGES: [&str; 2] = ["one", "two"];
const IMAGE_MIB: u16 = 16;
/// Simulated machines run the agent's own code after they fetched these whole, so any bytes do.
const BOOT_FILES: [&str; 6] = ["undionly.kpxe", "snponly.efi", "ipxe.efi", "localboot.efi", "vmlinuz", "initramfs.img"];
static BOOT_FILE: [u8; 100_000] = [0x90; 100_000];
/// What stands in the example where a laboratory has its own.
const NO_FINGERPRINT: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const NO_FOLDER: &str = "/LAB/";

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Example {
    /// Three machines: adopt two, install one, move all to another image.
    Simulator,
    /// Five machines that make a cluster: the first hands its join token to the others.
    Cluster,
}

/// Makes a laboratory and says what to do in it.
pub fn make(folder: &Path, example: Example) -> anyhow::Result<()> {
    let texts = match example {
        Example::Simulator => SIMULATOR,
        Example::Cluster => CLUSTER,
    };
    if folder.exists() && folder.read_dir().with_context(|| format!("can't look into {}", folder.display()))?.next().is_some() {
        bail!("{} is not empty: name a folder that is empty or not there", folder.display());
    }
    let write = |path: &str, bytes: &[u8]| {
        let path = folder.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
        made.with_context(|| format!("can't write {}", path.display()))
    };
    for (path, text) in [("sim.yaml", texts.sim), ("rackwright.yaml", texts.controller)] {
        write(path, text.as_bytes())?;
    }
    for file in BOOT_FILES {
        write(&format!("boot/{file}"), &BOOT_FILE)?;
    }
    let mut config: Config = serde_yaml::from_str(texts.sim).context("the example is broken; please report it")?;
    write("bmc-password", format!("{}\n", config.credentials.password.clone().unwrap_or_default()).as_bytes())?;
    config.state_dir = folder.join(&config.state_dir);
    let fingerprint = fingerprint(config)?;
    let mut files = fleet_files(folder, &texts, fingerprint)?;
    for image in IMAGES {
        files.insert(format!("images/{image}.yaml"), sim::image(&folder.join("images"), image, IMAGE_MIB)?);
    }
    let work = folder.join("fleet");
    git::init_repository(&work, &files, Some("Describe the fleet as it stands"))?;
    publish(folder, &work)?;
    match example {
        Example::Simulator => say(folder),
        Example::Cluster => say_cluster(folder),
    }
}

/// The BMCs' certificate is made at a simulator's first start, which needs no machine.
fn fingerprint(config: Config) -> anyhow::Result<Fingerprint> {
    let no_machines = Config { machines: Vec::new(), control: None, ..config };
    // Its log would only puzzle: nothing is simulated yet.
    let _silence = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    block_on(async {
        let simulator = Simulator::start(no_machines).await?;
        let fingerprint = simulator.fingerprint();
        simulator.stop().await;
        Ok(fingerprint)
    })
}

fn fleet_files(folder: &Path, texts: &Texts, fingerprint: Fingerprint) -> anyhow::Result<BTreeMap<String, String>> {
    let here = format!("{}/", std::path::absolute(folder)?.display());
    let own = |text: &str| text.replace(NO_FINGERPRINT, &fingerprint.to_string()).replace(NO_FOLDER, &here);
    let schemas = manifest::starter().into_iter().filter(|(path, _)| path.starts_with(".rackwright/"));
    Ok(texts.fleet.iter().copied().chain(schemas).map(|(path, text)| (path.to_owned(), own(text))).collect())
}

/// A bare repository beside the clone, as a forge would hold it.
fn publish(folder: &Path, work: &Path) -> anyhow::Result<()> {
    let bare = std::path::absolute(folder.join("fleet.git"))?;
    let failed = || format!("can't make the repository {}", bare.display());
    let options = &mut git2::RepositoryInitOptions::new();
    git2::Repository::init_opts(&bare, options.bare(true).initial_head("main")).with_context(failed)?;
    let clone = git2::Repository::open(work)?;
    let mut origin = clone.remote("origin", &bare.display().to_string())?;
    origin.push(&["refs/heads/main:refs/heads/main"], None).with_context(failed)?;
    let mut branch = clone.find_branch("main", git2::BranchType::Local)?;
    origin.fetch(&["main"], None, None).with_context(failed)?;
    branch.set_upstream(Some("origin/main")).with_context(failed)?;
    git::notes_setup(work)?;
    Ok(())
}

fn say(folder: &Path) -> anyhow::Result<()> {
    let folder = folder.display();
    outln!("{folder}: three simulated machines, the repository fleet.git, and its clone fleet.")?;
    outln!()?;
    outln!("In three terminals:")?;
    outln!("  cd {folder} && rackwright sim")?;
    outln!("  cd {folder} && rackwright run")?;
    outln!("  cd {folder} && rackwright status --watch")?;
    outln!()?;
    outln!("Then change something:")?;
    outln!("  cd {folder}/fleet")?;
    outln!("  sed -i 's/image: one/image: two/' profiles/node.yaml")?;
    outln!("  rackwright plan")?;
    outln!("  git commit --all --message 'Move to image two' && git push")?;
    Ok(())
}

fn say_cluster(folder: &Path) -> anyhow::Result<()> {
    let folder = folder.display();
    outln!("{folder}: five simulated machines, the repository fleet.git, and its clone fleet.")?;
    outln!()?;
    outln!("In three terminals:")?;
    outln!("  cd {folder} && rackwright sim")?;
    outln!("  cd {folder} && rackwright run")?;
    outln!("  cd {folder} && rackwright status --watch")?;
    outln!()?;
    outln!("Then wipe the cluster and build it anew:")?;
    outln!("  cd {folder}/fleet")?;
    outln!("  sed -i 's/rebuild: 0/rebuild: 1/' machines/*.yaml")?;
    outln!("  git commit --all --message 'Rebuild the cluster' && git push")?;
    outln!("  curl http://127.79.0.1:8471/machines")?;
    Ok(())
}
