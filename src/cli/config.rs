//! The controller's configuration: rackwright.yaml.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Deserialize;

use super::{secrets::Limits, yaml};
use crate::{
    api, bmc, boot, engine,
    git::{self, RemoteUrl},
    journal::BrakeFile,
    model::SiteName,
    plan, probe,
};

/// Where the configuration is looked for when nobody says: here, then system-wide.
pub const PLACES: [&str; 2] = ["rackwright.yaml", "/etc/rackwright/rackwright.yaml"];

/// The controller's configuration. Paths in it are relative to its file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// This controller's site: part of the notes' ref.
    pub site: SiteName,
    /// Folder for everything that must survive a restart.
    pub state_dir: PathBuf,
    /// The fleet repository.
    pub repository: git::Config,
    /// The boot server; without it nothing is installed.
    #[serde(default)]
    pub boot: Option<boot::Config>,
    /// BMCs.
    #[serde(default)]
    pub bmc: bmc::Config,
    /// Web pages of health gates.
    #[serde(default)]
    pub probe: probe::Config,
    /// The read-only API.
    #[serde(default)]
    pub api: api::Config,
    /// Which files and variables of this host the fleet's secrets may name.
    #[serde(default)]
    pub secrets: Limits,
    /// How often and how many at a time.
    #[serde(default)]
    pub pace: engine::Pace,
    /// Deadlines of an install.
    #[serde(default)]
    pub deadlines: plan::Deadlines,
}

impl Config {
    /// Reads `file`, or the first of [`PLACES`] that is there.
    ///
    /// # Errors
    /// There is none, or it makes no sense.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let file = match file {
            Some(file) => file.to_owned(),
            None => match PLACES.iter().map(Path::new).find(|place| place.exists()) {
                Some(place) => place.to_owned(),
                None => bail!("no configuration: neither {} nor {} is there; name one with --config FILE", PLACES[0], PLACES[1]),
            },
        };
        let mut config: Self = yaml::read(&file, "configuration")?;
        let base = file.parent().unwrap_or(Path::new(""));
        config.resolve_paths(base);
        let (state, repository) = (config.state_dir.clone(), &config.repository);
        let keys = [&repository.ssh_key, &repository.password_file].into_iter().flatten().cloned();
        let own = [state, file.clone()].into_iter().chain(keys).collect();
        config.secrets.resolve(base, own);
        Ok(config)
    }

    fn resolve_paths(&mut self, base: &Path) {
        let repository = &mut self.repository;
        let url = repository.url.as_str();
        if !url.contains(':')
            && let Ok(url) = base.join(url).display().to_string().parse::<RemoteUrl>()
        {
            repository.url = url;
        }
        let mut paths = vec![&mut self.state_dir];
        paths.extend([&mut repository.ssh_key, &mut repository.known_hosts, &mut repository.password_file].into_iter().flatten());
        let files = [&mut repository.ca_file, &mut repository.allowed_signers, &mut self.bmc.ca_file, &mut self.probe.ca_file];
        paths.extend(files.into_iter().flatten());
        if let Some(boot) = &mut self.boot {
            paths.push(&mut boot.files);
            paths.extend([&mut boot.localboot, &mut boot.images, &mut boot.kernel, &mut boot.initramfs].into_iter().flatten());
        }
        for path in paths {
            *path = base.join(&path);
        }
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.state_dir.join("journal.db")
    }

    /// The local brake.
    pub fn brake(&self) -> BrakeFile {
        BrakeFile::new(&self.state_dir)
    }

    /// Our clone of the fleet repository.
    pub fn clone_dir(&self) -> PathBuf {
        self.state_dir.join("fleet.git")
    }
}
