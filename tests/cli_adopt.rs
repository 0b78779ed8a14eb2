//! `rackwright adopt` as people use it, against the simulator: from a list of addresses to a fleet that a real controller follows without
//! touching a machine; and what it says when something is wrong.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli_support;

use std::{
    fs,
    io::Write as _,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cli_support::{Lab, filters, git, told, wait};
use insta::assert_snapshot;

/// Laboratories of one process have the same addresses.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A laboratory whose fleet has no machines.
fn lab() -> (Lab, MutexGuard<'static, ()>) {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (lab, _) = Lab::init();
    git(&lab.path("fleet"), &["rm", "--quiet", "machines/node-1.yaml", "machines/node-2.yaml", "machines/node-3.yaml"]);
    lab.push("Forget the machines");
    (lab, guard)
}

fn bmc(lab: &Lab, host: u8) -> String {
    format!("https://{}:8443", lab.address(host))
}

/// What a command tells, without the lines whose order is that of the answers.
fn told_of(lab: &Lab, arguments: &[&str]) -> String {
    settled(&lab.tell(arguments))
}

fn settled(told: &str) -> String {
    let kept = told.lines().filter(|line| !line.starts_with('[') || !line.contains('/'));
    // The width of a table follows the length of the addresses, which differ from run to run.
    let narrow = |line: &str| match line.starts_with("BMC ") || line.starts_with("https://") {
        true => line.split("  ").filter(|part| !part.is_empty()).map(str::trim).collect::<Vec<_>>().join("  "),
        false => line.to_owned(),
    };
    let told = kept.fold(String::new(), |all, line| all + &narrow(line) + "\n");
    let today = rackwright::model::Timestamp::now().strftime("described it on %Y-%m-%d").to_string();
    told.replace(&today, "described it on [DATE]")
}

#[test]
fn a_running_fleet_is_adopted_and_nothing_happens_to_it() {
    let ((lab, _guard), _filters) = (lab(), filters().bind_to_scope());
    let simulator = lab.simulator(|_| {});
    let list = lab.path("bmcs.txt");
    let text = format!("# rack 1\n{}\n{}:8443 name=web-02   # by hand\n\n{}\n", bmc(&lab, 11), lab.address(12), bmc(&lab, 13));
    fs::write(&list, text).unwrap();

    // Nobody is trusted: fingerprints only, in a form that can be given back.
    let seen = lab.command(&["adopt", "--from", "bmcs.txt"]).output().unwrap();
    assert_eq!(seen.status.code(), Some(1));
    fs::write(lab.path("seen.txt"), &seen.stdout).unwrap();
    assert_snapshot!("adopt-fingerprints", lab.plain(&String::from_utf8(seen.stdout).unwrap()));

    assert_snapshot!(
        "adopt-dry-run",
        told_of(&lab, &["adopt", "--from", "seen.txt", "--into", "fleet", "--dry-run", "--label", "rack=r1"])
    );
    assert!(!lab.path("fleet/machines").exists(), "nothing was written");
    assert_snapshot!("adopt", told_of(&lab, &["adopt", "--from", "seen.txt", "--into", "fleet", "--label", "rack=r1"]));
    assert_snapshot!("adopt-validate", lab.tell(&["validate", "fleet", "--strict"]));
    assert_snapshot!("adopt-again", told_of(&lab, &["adopt", "--from", "seen.txt", "--into", "fleet"]));
    git(&lab.path("fleet"), &["add", "--all"]);
    lab.push("Adopt 3 machines");
    assert_snapshot!("adopt-plan", lab.tell(&["plan", "--repo", "fleet", "--head", "HEAD"]));

    // The real controller claims them, and has nothing more to do: node-3, which is off, stays off.
    let controller = lab.controller("controller.log", |_| {});
    lab.until("3 of 3");
    assert_snapshot!("adopt-machines", lab.tell(&["get", "machines"]));
    let journal = wait("claims", || {
        let journal = lab.tell(&["journal", "show", "--config", "rackwright.yaml"]);
        if journal.matches("claimed").count() >= 3 { Ok(journal) } else { Err(journal) }
    });
    assert!(!journal.to_lowercase().contains("power") && !journal.contains("attempt"), "{journal}");
    controller.stop("-TERM");
    let log = fs::read_to_string(lab.path("sim.log")).unwrap();
    assert!(!log.contains("machine=node-3 power=On"), "{log}");
    assert_eq!(log.matches("activity=").count(), 2, "no machine was switched or started but the two that ran from the start: {log}");
    simulator.stop("-TERM");
}

#[test]
fn one_bmc_that_fails_hides_none_of_the_others() {
    let ((lab, _guard), _filters) = (lab(), filters().bind_to_scope());
    let simulator = lab.simulator(|command| {
        command.args(["--fault", "node-1=bmc-garbage", "--fault", "node-2=bmc-wrong-certificate"]);
    });
    // As pinned before node-2's BMC was exchanged.
    let pin = lab.read("sim.log").lines().find_map(|line| line.split("certificate fingerprint ").nth(1).map(str::to_owned)).unwrap();
    let list: String = [11, 12, 13, 99].map(|host| format!("{} {pin}\n", bmc(&lab, host))).concat();
    let mut adopt = lab.command(&["adopt", "--from", "-", "--into", "fleet", "--json"]);
    let mut child = adopt.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_snapshot!("adopt-json", lab.plain(&String::from_utf8(output.stdout).unwrap()));
    let written: Vec<_> = fs::read_dir(lab.path("fleet/machines")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(written, ["sim-0003.yaml"]);
    simulator.stop("-TERM");
}

#[test]
fn what_is_wrong_is_said_before_anybody_is_asked() {
    let ((lab, _guard), _filters) = (lab(), filters().bind_to_scope());
    let (fleet, pin) = (lab.path("fleet"), format!("sha256:{}", "ab".repeat(32)));
    let adopt =
        |arguments: &[&str]| told_of(&lab, &[&["adopt", "10.0.8.12", "--fingerprint", &pin, "--into", "fleet"][..], arguments].concat());
    let mut told = String::new();
    for arguments in [
        &["--credentials", "other"][..],
        &["--credentials", "other", "--user", "a", "--password-file", "nope"],
        &["--profile", "nodes"],
        &["--image", "on"],
        &["10.0.8.0/24"],
        &["https://a:hunter2@10.0.8.13"],
        &["10.0.8.13"],
        &["--label", "rack"],
        &["--insecure"],
        &["--password-file", "bmc-password"],
    ] {
        let answer = adopt(arguments);
        assert!(!answer.contains("hunter2"), "{answer}");
        told += &format!("$ adopt {}\n{answer}\n", arguments.join(" "));
    }
    told += &format!(
        "$ adopt into a folder that is not there\n{}\n",
        told_of(&lab, &["adopt", "10.0.8.12", "--trust-seen", "--into", "nowhere"])
    );
    fs::write(fleet.join("broken.yaml"), "kind: Machine\n").unwrap();
    told += &format!("$ adopt, and the fleet has an error\n{}", adopt(&[]));
    assert_snapshot!("adopt-wrong", told);
}

#[test]
fn nothing_is_overwritten_and_nothing_goes_elsewhere() {
    let ((lab, _guard), _filters) = (lab(), filters().bind_to_scope());
    let simulator = lab.simulator(|_| {});
    let (fleet, address) = (lab.path("fleet"), bmc(&lab, 11));
    let adopt = |arguments: &[&str]| told_of(&lab, &[&["adopt", &address, "--trust-seen", "--into", "fleet"][..], arguments].concat());
    // A file of that name that is no manifest of a machine.
    fs::create_dir_all(fleet.join("machines")).unwrap();
    let network = "apiVersion: rackwright.dev/v1alpha1\nkind: Network\nmetadata: {name: other}\nspec: {subnet: 10.9.0.0/24}\n";
    fs::write(fleet.join("machines/sim-0001.yaml"), network).unwrap();
    let mut said = format!("$ a file of that name is there\n{}", adopt(&[]));
    assert_eq!(fs::read_to_string(fleet.join("machines/sim-0001.yaml")).unwrap(), network);
    fs::remove_dir_all(fleet.join("machines")).unwrap();
    fs::write(fleet.join(".gitignore"), "machines/*-0001.yaml\n").unwrap();
    said += &format!("\n$ Git ignores it\n{}", adopt(&[]));
    assert_eq!(fs::read_dir(fleet.join("machines")).unwrap().count(), 0, "what no commit would have is not left there");
    fs::remove_file(fleet.join(".gitignore")).unwrap();
    fs::remove_dir_all(fleet.join("machines")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), fleet.join("machines")).unwrap();
    said += &format!("\n$ machines is a link\n{}", adopt(&[]));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    fs::remove_file(fleet.join("machines")).unwrap();
    // A profile that would have it installed on another disk is drift, and told before anything is written.
    let profile = fs::read_to_string(fleet.join("profiles/node.yaml")).unwrap() + "  disks: {system: {serial: NOT-THERE}}\n";
    fs::write(fleet.join("profiles/node.yaml"), profile).unwrap();
    said += &format!("\n$ its profile says another disk than it has\n{}", adopt(&["--profile", "node"]));
    assert!(!fleet.join("machines").exists());
    assert_snapshot!("adopt-nothing-overwritten", said.replace(&elsewhere.path().display().to_string(), "[ELSEWHERE]"));
    let mut wrong =
        lab.command(&["adopt", &address, "--insecure", "--into", "fleet", "--user", "admin", "--password-env", "ADOPT_PASSWORD"]);
    let output = wrong.env("ADOPT_PASSWORD", "not-the-password").output().unwrap();
    assert!(!told(&output).contains("not-the-password"));
    assert_snapshot!("adopt-wrong-password", settled(&lab.plain(&told(&output))));
    assert_eq!(output.status.code(), Some(1));
    simulator.stop("-TERM");
}
