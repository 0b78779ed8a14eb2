//! Secrets' values, read where the fleet says each time they are asked for.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use serde::Deserialize;

use crate::{
    model::{SecretFrom, SecretName, SecretSource},
    ports::{Credential, SecretError, Secrets},
};

/// Which files and variables of this host a fleet's secrets may name. Whoever may push names them, and also the BMC that is sent what they hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Folders in which files may be named, relative to rackwright.yaml. Without it: the folder of rackwright.yaml, /etc/rackwright, /run/secrets, and
    /// that of systemd's credentials (`$CREDENTIALS_DIRECTORY`). Never our state folder, and no file that rackwright.yaml itself names.
    pub files: Option<Vec<PathBuf>>,
    /// Variables that may be named; a `*` at the end stands for any rest. Without it: any.
    pub env: Option<Vec<String>>,
    #[serde(skip)]
    own: Vec<PathBuf>,
}

impl Limits {
    /// Makes paths absolute, and puts the folders in that are allowed where none is stated. `own` are paths that no secret may come from.
    pub(super) fn resolve(&mut self, base: &Path, own: Vec<PathBuf>) {
        let systemd = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let usual = || {
            let fixed = ["/etc/rackwright", "/run/secrets"].map(PathBuf::from);
            [base.to_owned()].into_iter().chain(fixed).chain(systemd).collect()
        };
        let files: Vec<PathBuf> = self.files.take().map_or_else(usual, |files| files.iter().map(|file| base.join(file)).collect());
        let here = |path: PathBuf| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
        self.files = Some(files.into_iter().map(here).collect());
        self.own = own;
    }

    fn file(&self, path: &Path) -> bool {
        let Some(folders) = &self.files else { return true };
        // By what it is in the end: a link may lead anywhere.
        let Ok(real) = fs::canonicalize(path) else { return true };
        let holds = |folder: &PathBuf| fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
        folders.iter().any(holds) && !self.own.iter().any(holds)
    }

    fn variable(&self, name: &str) -> bool {
        let matches = |pattern: &String| pattern.strip_suffix('*').map_or(pattern == name, |stem| name.starts_with(stem));
        self.env.as_ref().is_none_or(|patterns| patterns.iter().any(matches))
    }
}

/// Reads files and the environment. Holds sources, never values.
#[derive(Default)]
pub struct LocalSecrets {
    sources: RwLock<BTreeMap<SecretName, SecretSource>>,
    limits: Limits,
}

impl LocalSecrets {
    /// Reads only what `limits` allow.
    pub fn within(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
}

impl Secrets for LocalSecrets {
    fn follow(&self, sources: &BTreeMap<SecretName, SecretSource>) {
        self.sources.write().unwrap_or_else(PoisonError::into_inner).clone_from(sources);
    }

    fn credential(&self, name: &SecretName) -> Result<Credential, SecretError> {
        let known = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        let source = known.get(name).ok_or_else(|| SecretError { message: format!("the fleet has no secret {name}") })?;
        let refused = |what: String, field: &str| SecretError {
            message: format!("secret {name} comes from {what}, which `secrets.{field}` of the controller's configuration does not allow"),
        };
        let password = match &source.from {
            SecretFrom::Env(variable) if !self.limits.variable(variable) => {
                return Err(refused(format!("the environment variable {variable}"), "env"));
            }
            SecretFrom::File(path) if !self.limits.file(Path::new(path)) => return Err(refused(format!("the file {path}"), "files")),
            SecretFrom::Env(variable) => std::env::var(variable).map_err(|_| SecretError {
                message: format!("secret {name} comes from the environment variable {variable}, which the controller does not have"),
            })?,
            SecretFrom::File(path) => {
                let text = fs::read_to_string(path).map_err(|error| SecretError {
                    message: format!("secret {name} comes from the file {path}, which the controller can't read: {error}"),
                })?;
                text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&text).to_owned()
            }
        };
        Ok(Credential { username: source.username.clone().unwrap_or_default(), password })
    }
}

/// One credential under any name, for commands that take it on the command line.
pub struct OneSecret(pub Credential);

impl Secrets for OneSecret {
    fn credential(&self, _: &SecretName) -> Result<Credential, SecretError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn asked(limits: &Limits, from: SecretFrom) -> Result<String, String> {
        let name: SecretName = "bmc".parse().unwrap();
        let secrets = LocalSecrets::within(limits.clone());
        secrets.follow(&[(name.clone(), SecretSource { name: name.clone(), username: None, from })].into());
        secrets.credential(&name).map(|credential| credential.password.clone()).map_err(|error| error.message)
    }

    #[test]
    fn a_fleet_reads_no_file_of_the_controller_that_is_none_of_its_business() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, state, home) = (folder.path().join("etc"), folder.path().join("etc/state"), folder.path().join("home"));
        for (path, text) in
            [(etc.join("bmc-password"), "good\n"), (etc.join("key"), "key"), (state.join("token"), "token"), (home.join("x"), "x")]
        {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        symlink(home.join("x"), etc.join("link")).unwrap();
        let mut limits = Limits::default();
        limits.resolve(&etc, vec![state.clone(), etc.join("key")]);
        let file = |path: PathBuf| asked(&limits, SecretFrom::File(path.to_str().unwrap().to_owned()));
        assert_eq!(file(etc.join("bmc-password")), Ok("good".to_owned()));
        for refused in
            [home.join("x"), etc.join("link"), etc.join("../home/x"), etc.join("key"), state.join("token"), "/proc/self/environ".into()]
        {
            let error = file(refused.clone()).unwrap_err();
            assert!(error.contains("`secrets.files`"), "{}: {error}", refused.display());
        }
        assert!(file(etc.join("none")).unwrap_err().contains("can't read"));
        let mut wider = Limits { files: Some(vec!["../home".into()]), ..Limits::default() };
        wider.resolve(&etc, Vec::new());
        assert_eq!(asked(&wider, SecretFrom::File(home.join("x").to_str().unwrap().to_owned())), Ok("x".to_owned()));
        assert!(asked(&wider, SecretFrom::File(etc.join("bmc-password").to_str().unwrap().to_owned())).is_err());
    }

    #[test]
    fn variables_are_limited_where_the_configuration_says_so() {
        let limits = Limits { env: Some(vec!["CARGO_MANIFEST_*".to_owned(), "PATH".to_owned()]), ..Limits::default() };
        let variable = |name: &str| asked(&limits, SecretFrom::Env(name.to_owned()));
        assert!(variable("CARGO_MANIFEST_DIR").is_ok() && variable("PATH").is_ok());
        for refused in ["PATHS", "HOME", "CARGO"] {
            assert!(variable(refused).unwrap_err().contains("`secrets.env`"), "{refused}");
        }
    }
}
