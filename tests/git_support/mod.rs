//! A fleet repository made and changed by the `git` program.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
};

use rackwright::{git::Config, model::CommitId};

/// Runs git in `dir` and returns what it says. Panics when it fails.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let output = command(dir, args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs git and returns whether it succeeded.
pub fn try_git(dir: &Path, args: &[&str]) -> bool {
    command(dir, args).output().unwrap().status.success()
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for (name, value) in [("NAME", "Ada"), ("EMAIL", "ada@example.com")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    command
}

/// A bare repository, a person's clone of it, and room for ours.
pub struct Fleet {
    pub folder: tempfile::TempDir,
}

impl Fleet {
    /// An empty one.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "-q", "--bare", "-b", "main", "fleet.git"]);
        git(folder.path(), &["init", "-q", "-b", "main", "person"]);
        git(&folder.path().join("person"), &["remote", "add", "origin", "../fleet.git"]);
        Self { folder }
    }

    /// One with a first commit.
    pub fn new() -> Self {
        let fleet = Self::empty();
        fleet.push(&[("machines/web-01.yaml", "one\n"), ("README.md", "fleet\n")], "first");
        fleet
    }

    pub fn bare(&self) -> PathBuf {
        self.folder.path().join("fleet.git")
    }

    pub fn person(&self) -> PathBuf {
        self.folder.path().join("person")
    }

    pub fn ours(&self) -> PathBuf {
        self.folder.path().join("ours.git")
    }

    pub fn config(&self) -> Config {
        Config::new(self.bare().to_str().unwrap().parse().unwrap())
    }

    /// Writes files, commits and pushes them as the person.
    pub fn push(&self, files: &[(&str, &str)], message: &str) -> CommitId {
        for (path, text) in files {
            let path = self.person().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(&self.person(), &["add", "-A"]);
        self.push_index(message)
    }

    /// Commits what is in the index, and pushes it.
    pub fn push_index(&self, message: &str) -> CommitId {
        git(&self.person(), &["commit", "-q", "--allow-empty", "-m", message]);
        git(&self.person(), &["push", "-q", "--force", "origin", "HEAD:main"]);
        self.head()
    }

    pub fn head(&self) -> CommitId {
        git(&self.person(), &["rev-parse", "HEAD"]).parse().unwrap()
    }
}

/// A server, stopped at the end.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
