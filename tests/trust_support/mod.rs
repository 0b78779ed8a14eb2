//! A fleet repository whose commits real `git`, `ssh-keygen` and `gpg` sign.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use rackwright::{
    git,
    manifest::{self, Cache, FleetSettings},
    model::CommitId,
    trust::{Judged, Question, judge},
};

/// The time at which commits are made unless a test says otherwise: 2026-06-01T12:00:00Z.
pub const NOW: i64 = 1_780_315_200;

/// How a commit is signed.
#[derive(Clone, Copy)]
pub enum By<'a> {
    Nobody,
    /// The SSH key of this name.
    Ssh(&'a str),
    /// The OpenPGP key of this fingerprint or address.
    Gpg(&'a str),
}

pub struct Repo {
    pub folder: tempfile::TempDir,
    /// Seconds since 1970 at which the next commit is made.
    pub clock: i64,
}

impl Repo {
    /// Keys `anna`, `bert` and `eve` (of whom nobody heard), and no commit.
    pub fn new() -> Self {
        let repo = Self { folder: tempfile::tempdir().unwrap(), clock: NOW };
        for name in ["anna", "bert", "eve"] {
            repo.key(name, &["-t", "ed25519"]);
        }
        fs::create_dir(repo.dir()).unwrap();
        repo.git(&["init", "-q", "-b", "main"]);
        repo
    }

    /// One in which Anna and Bert may sign; `rest` is what else `signatures` says. Its first commit, by Anna, is tagged `base`.
    pub fn with(rest: &str) -> Self {
        let mut repo = Self::new();
        let all = repo.line("anna", "") + &repo.line("bert", "");
        repo.commit(
            By::Ssh("anna"),
            "base",
            &[("fleet.yaml", &fleet(rest)), ("signers/allowed_signers", &all), ("machines/a.yaml", "# a\n")],
        );
        repo.git(&["tag", "base"]);
        repo
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn key(&self, name: &str, how: &[&str]) {
        let file = self.key_file(name);
        let made = Command::new("ssh-keygen").args(how).args(["-q", "-N", "", "-C", name, "-f"]).arg(file).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Type and key, as in a `.pub` file.
    pub fn public(&self, name: &str) -> String {
        let text = fs::read_to_string(self.key_file(name).with_extension("pub")).unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// A line of allowed signers.
    pub fn line(&self, name: &str, options: &str) -> String {
        format!("{name}@example.org {options} {}\n", self.public(name))
    }

    pub fn git(&self, args: &[&str]) -> String {
        let output = self.try_git(args);
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn try_git(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn gpg_home(&self) -> PathBuf {
        self.folder.path().join("gnupg")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        let config = [("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")];
        command.current_dir(self.dir()).args(args).envs(config).env("GNUPGHOME", self.gpg_home()).env("LC_ALL", "C");
        let date = format!("{} +0000", self.clock);
        for who in ["AUTHOR", "COMMITTER"] {
            // What is typed proves nothing: all commits claim to be Anna's.
            command.env(format!("GIT_{who}_NAME"), "Anna").env(format!("GIT_{who}_EMAIL"), "anna@example.org");
            command.env(format!("GIT_{who}_DATE"), &date);
        }
        command
    }

    fn signing(&self, by: By<'_>) -> Vec<String> {
        let config = |format: &str, key: String| {
            let set = [format!("gpg.format={format}"), format!("user.signingkey={key}"), "commit.gpgsign=true".to_owned()];
            set.into_iter().flat_map(|set| ["-c".to_owned(), set]).collect()
        };
        match by {
            By::Nobody => Vec::new(),
            By::Ssh(name) => config("ssh", self.key_file(name).display().to_string()),
            By::Gpg(key) => config("openpgp", key.to_owned()),
        }
    }

    /// Runs git with a signing key.
    pub fn signed(&self, by: By<'_>, args: &[&str]) -> String {
        let config = self.signing(by);
        self.git(&config.iter().map(String::as_str).chain(args.iter().copied()).collect::<Vec<_>>())
    }

    /// Writes files (an empty text: deletes one) and commits them.
    pub fn commit(&mut self, by: By<'_>, message: &str, files: &[(&str, &str)]) -> CommitId {
        for (path, text) in files {
            let path = self.dir().join(path);
            if text.is_empty() {
                fs::remove_file(path).unwrap();
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.git(&["add", "-A"]);
        self.signed(by, &["commit", "-q", "--allow-empty", "-m", message]);
        self.clock += 60;
        self.head()
    }

    pub fn head(&self) -> CommitId {
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    /// The bytes of a commit.
    pub fn raw(&self, rev: &str) -> Vec<u8> {
        self.try_git(&["cat-file", "commit", rev]).stdout
    }

    /// Puts a commit of these bytes where HEAD is.
    pub fn forge(&self, raw: &[u8]) -> CommitId {
        let mut child = self.command(&["hash-object", "-t", "commit", "-w", "--stdin", "--literally"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(raw).unwrap();
        let id = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned();
        self.git(&["update-ref", "HEAD", &id]);
        id.parse().unwrap()
    }

    /// A detached signature by `ssh-keygen -Y sign`.
    pub fn ssh_signature(&self, name: &str, how: &[&str], message: &[u8]) -> String {
        let mut child = Command::new("ssh-keygen");
        let child = child.args(["-Y", "sign", "-q", "-f"]).arg(self.key_file(name)).args(how);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(message).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Judges `base..HEAD`.
    pub fn judged(&self, base: &str) -> Judged {
        let look = |base: CommitId, commits: &dyn rackwright::trust::Commits| {
            let snapshot = git::read_tree_at(&self.dir(), &base.to_string()).unwrap();
            let loaded = manifest::load(&snapshot.files, &mut Cache::default());
            let stated = loaded.fleet.settings.signatures.as_ref();
            let at_base = manifest::signers_at(stated, |path| snapshot.files.get(path).cloned());
            judge(commits, &FleetSettings, &Question { base: Some(base), at_base, host: None }).unwrap()
        };
        git::look_at_range(&self.dir(), Some(base), "HEAD", look).unwrap()
    }

    /// The same in words: the first line of each message, and who signed it or why it does not count.
    pub fn verdicts(&self) -> Vec<(String, String)> {
        let told = |verdict: rackwright::trust::Verdict| {
            let said = match verdict.outcome {
                Ok(Some(signer)) => signer.principals.join(","),
                Ok(None) => "nobody asks".to_owned(),
                Err(why) => format!("refused: {why}"),
            };
            (verdict.subject, said)
        };
        self.judged("base").verdicts.into_iter().map(told).collect()
    }

    /// What is said of HEAD.
    pub fn verdict(&self) -> String {
        self.verdicts().pop().unwrap().1
    }

    /// What is said of the commit with this message.
    pub fn verdict_of(&self, subject: &str) -> String {
        self.verdicts().into_iter().find(|(known, _)| known == subject).unwrap().1
    }

    /// Whether git itself verifies HEAD's SSH signature by the allowed signers of `rev`.
    pub fn git_verifies(&self, rev: &str) -> bool {
        let file = self.folder.path().join("allowed_signers_for_git");
        fs::write(&file, self.git(&["show", &format!("{rev}:signers/allowed_signers")]) + "\n").unwrap();
        self.try_git(&["-c", &format!("gpg.ssh.allowedSignersFile={}", file.display()), "verify-commit", "HEAD"]).status.success()
    }
}

/// A Fleet with `signatures`, and `rest` in it.
pub fn fleet(rest: &str) -> String {
    format!(
        "apiVersion: rackwright.dev/v1alpha1\nkind: Fleet\nmetadata: {{name: test}}\nspec:\n  signatures:\n    allowedSigners: signers/allowed_signers\n{rest}"
    )
}
