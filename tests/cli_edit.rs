//! `suspend`, `resume`, `rebuild`, `approve` in a person's clone, with the real `git`, its hooks and its signing.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli_support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use cli_support::{edit, git, rackwright, told};
use tempfile::TempDir;

/// The example fleet, committed, as a person whom Git knows.
fn fleet() -> (TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("rackwright-edit-").tempdir().unwrap();
    let fleet = folder.path().join("fleet");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet-repo");
    assert!(Command::new("cp").arg("-r").args([&example, &fleet]).status().unwrap().success());
    git(&fleet, &["init", "--quiet", "--initial-branch=main"]);
    for (key, value) in [("user.name", "Lab"), ("user.email", "lab@example.org"), ("commit.gpgsign", "false")] {
        git(&fleet, &["config", key, value]);
    }
    git(&fleet, &["add", "--all"]);
    git(&fleet, &["commit", "--quiet", "--message", "Begin"]);
    (folder, fleet)
}

fn tell(fleet: &Path, arguments: &[&str]) -> String {
    told(&rackwright(fleet, arguments).output().unwrap())
}

#[test]
fn a_suspended_machine_is_one_line_in_one_commit() {
    let (_folder, fleet) = fleet();
    let said = tell(&fleet, &["suspend", "web-01", "-m", "the lid is open"]);
    assert!(said.contains("machines/web-01.yaml") && said.ends_with("exit code 0\n"), "{said}");
    let diff = git(&fleet, &["show", "--format=%s%n%b", "--unified=0", "HEAD"]);
    assert!(diff.starts_with("suspend web-01\nthe lid is open\n"), "{diff}");
    let lines = |sign: char| diff.lines().filter(|line| line.starts_with(sign) && !line.starts_with(&sign.to_string().repeat(3))).count();
    assert_eq!((lines('+'), lines('-')), (1, 0), "{diff}");
    assert!(diff.contains("\n+  suspend: true"), "{diff}");
    assert!(tell(&fleet, &["suspend", "web-01"]).contains("Nothing to change"));
    assert!(tell(&fleet, &["validate", "--strict"]).ends_with("exit code 0\n"));
    tell(&fleet, &["resume", "web-01"]);
    let diff = git(&fleet, &["show", "--format=", "--unified=0", "HEAD"]);
    assert!(diff.contains("-  suspend: true") && diff.contains("+  suspend: false"), "{diff}");
}

#[test]
fn a_rebuild_is_a_reimage_in_the_plan() {
    let (_folder, fleet) = fleet();
    let said = tell(&fleet, &["rebuild", "web-01", "web-02", "web-01"]);
    assert!(said.ends_with("exit code 0\n"), "{said}");
    let plan = tell(&fleet, &["plan", "--head", "HEAD"]);
    assert!(plan.contains("rebuild changed") && plan.contains("Plan: 2 to reimage"), "{plan}");
}

#[test]
fn a_group_and_a_whole_fleet_are_one_commit() {
    let (_folder, fleet) = fleet();
    assert!(tell(&fleet, &["suspend", "--group", "web"]).ends_with("exit code 0\n"));
    let changed = git(&fleet, &["show", "--format=%s", "--name-only", "HEAD"]);
    assert!(changed.starts_with("suspend web-03, web-04, web-05 and 7 more\n"), "{changed}");
    assert_eq!(changed.lines().filter(|line| line.starts_with("machines/")).count(), 10, "{changed}");
    assert!(tell(&fleet, &["suspend", "--all"]).ends_with("exit code 0\n"));
    let others = git(&fleet, &["show", "--format=", "--name-only", "HEAD"]);
    assert_eq!(others.lines().count(), 14, "those of web were suspended already: {others}");
    tell(&fleet, &["rebuild", "web-03"]);
    let plan = tell(&fleet, &["plan", "--head", "HEAD"]);
    assert!(plan.contains("held   suspended by its manifest"), "{plan}");
    let nobody = tell(&fleet, &["suspend", "--group", "wbe"]);
    assert!(nobody.contains("no rollout wbe") && nobody.ends_with("exit code 1\n"), "{nobody}");
}

#[test]
fn what_is_not_committed_yet_does_not_slip_in() {
    let (_folder, fleet) = fleet();
    let file = fleet.join("machines/web-01.yaml");
    edit(&file, |text| format!("{text}# half a thought\n"));
    let refused = tell(&fleet, &["suspend", "web-01"]);
    assert!(refused.contains("machines/web-01.yaml has changes that are not committed") && refused.ends_with("exit code 1\n"), "{refused}");
    assert!(!fs::read_to_string(&file).unwrap().contains("suspend: true"), "nothing was written");
    // Something else that is staged stays staged, and out of the commit.
    edit(&fleet.join("machines/db-01.yaml"), |text| format!("{text}# staged\n"));
    git(&fleet, &["add", "machines/db-01.yaml"]);
    assert!(tell(&fleet, &["suspend", "web-02"]).ends_with("exit code 0\n"));
    assert_eq!(git(&fleet, &["show", "--format=", "--name-only", "HEAD"]), "machines/web-02.yaml\n");
    assert_eq!(git(&fleet, &["diff", "--cached", "--name-only"]), "machines/db-01.yaml\n");
    let edited = tell(&fleet, &["suspend", "web-01", "--no-commit"]);
    assert!(edited.contains("not committed") && fs::read_to_string(&file).unwrap().contains("suspend: true"), "{edited}");
    assert!(fs::read_to_string(&file).unwrap().ends_with("# half a thought\n"));
}

#[test]
fn a_hook_that_refuses_leaves_the_edit_and_says_so() {
    let (_folder, fleet) = fleet();
    let hook = fleet.join(".git/hooks/pre-commit");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\necho not on a Friday >&2\nexit 1\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = tell(&fleet, &["suspend", "web-01"]);
    assert!(refused.contains("not on a Friday") && refused.contains("edited and not committed"), "{refused}");
    assert!(refused.ends_with("exit code 1\n"), "{refused}");
    assert_eq!(git(&fleet, &["log", "--format=%s"]), "Begin\n");
    assert_eq!(git(&fleet, &["status", "--porcelain"]), " M machines/web-01.yaml\n");
}

#[test]
fn a_broken_repository_and_a_machine_that_is_not_there_change_nothing() {
    let (_folder, fleet) = fleet();
    let unknown = tell(&fleet, &["suspend", "web-01", "web-99"]);
    assert!(unknown.contains("no manifest declares a machine web-99") && unknown.ends_with("exit code 1\n"), "{unknown}");
    edit(&fleet.join("machines/db-01.yaml"), |text| text.replacen("kind: Machine", "kind: Machin", 1));
    let broken = tell(&fleet, &["rebuild", "web-01"]);
    assert!(broken.contains("mend them first") && broken.ends_with("exit code 1\n"), "{broken}");
    assert_eq!(git(&fleet, &["status", "--porcelain"]), " M machines/db-01.yaml\n");
    assert!(tell(&fleet, &["suspend"]).ends_with("exit code 2\n"), "nobody is named");
}

#[test]
fn the_commit_is_signed_as_git_is_set_up() {
    let (folder, fleet) = fleet();
    let key = folder.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: signing a commit needs ssh-keygen (Debian: openssh-client)");
        return;
    }
    for (name, value) in [("gpg.format", "ssh"), ("user.signingkey", key.to_str().unwrap()), ("commit.gpgsign", "true")] {
        git(&fleet, &["config", name, value]);
    }
    assert!(tell(&fleet, &["suspend", "web-01"]).ends_with("exit code 0\n"));
    assert!(git(&fleet, &["cat-file", "commit", "HEAD"]).contains("gpgsig -----BEGIN SSH SIGNATURE-----"));
}

#[test]
fn an_approval_counts_only_from_an_approver_and_is_what_the_plan_asks_for() {
    let (_folder, fleet) = fleet();
    let refused = tell(&fleet, &["approve", "--destroy", "12"]);
    assert!(refused.contains("lab@example.org is not one of the Fleet's `approvers`"), "{refused}");
    edit(&fleet.join("fleet.yaml"), |text| text.replacen("spec:\n", "spec:\n  approvers: [lab@example.org]\n", 1));
    git(&fleet, &["commit", "--quiet", "--all", "--message", "Approvers"]);
    tell(&fleet, &["rebuild", "--group", "db"]);
    edit(&fleet.join("fleet.yaml"), |text| text.replacen("spec:\n", "spec: # stays out\n", 1));
    let said = tell(&fleet, &["approve", "--destroy", "6", "-m", "seen with the storage team"]);
    assert!(said.ends_with("exit code 0\n"), "{said}");
    assert_eq!(git(&fleet, &["show", "--format=%(trailers)", "--name-only", "HEAD"]), "Rackwright-Approve: destroy=6\n\n");
    assert_eq!(git(&fleet, &["status", "--porcelain"]), " M fleet.yaml\n");
}
