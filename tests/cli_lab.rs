//! `examples/simulator` as a reader plays it: docs/simulator.md, command by command.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli_support;

use std::fs;

use cli_support::{Lab, edit, filters, git};
use insta::assert_snapshot;

#[test]
fn the_example_laboratory_plays() {
    let (lab, said) = Lab::init();
    let _filters = filters().bind_to_scope();
    assert_snapshot!("lab-init", lab.plain(&said));
    assert_snapshot!("lab-init-again", lab.tell(&["sim", "init", "."]));
    assert_snapshot!("lab-validate", lab.tell(&["validate", "fleet"]));
    assert_snapshot!("lab-no-controller", lab.tell(&["status"]));

    let simulator = lab.simulator(|_| ());
    let controller = lab.controller("run.log", |_| ());
    assert_snapshot!("lab-status", lab.until("3 of 3 machines ready"));
    assert_snapshot!("lab-machines", lab.tell(&["get", "machines"]));
    assert_snapshot!("lab-no-such-machine", lab.tell(&["get", "machines", "node-9"]));
    assert_snapshot!("lab-explain", lab.tell(&["explain", "node-1"]));
    assert_snapshot!("lab-second-controller", lab.tell(&["run"]));
    assert_snapshot!("lab-second-simulator", lab.tell(&["sim"]));
    history_tells_an_install(&lab, "node-3#1");
    observe(&lab);

    edit(&lab.path("fleet/profiles/node.yaml"), |text| text.replace("image: one", "image: two"));
    assert_snapshot!("lab-plan", lab.tell(&["plan", "--repo", "fleet"]));
    lab.push("Move to image two");
    lab.until("3 of 3 machines ready\ncommit");
    let moved = || lab.tell(&["get", "machines"]);
    cli_support::wait("the move", || if moved().matches("two").count() == 3 { Ok(()) } else { Err(moved()) });
    lab.until("3 of 3 machines ready");
    history_tells_an_install(&lab, "node-1#1");
    the_note_is_read_with_git(&lab);

    assert_eq!(controller.stop("-INT").code(), Some(0), "{}", lab.read("run.log"));
    history_tells_an_install(&lab, "node-1#1");
    a_missing_secret_is_told(&lab);
    assert_eq!(simulator.stop("-TERM").code(), Some(0), "{}", lab.read("sim.log"));
    each_change_of_power_is_logged_once(&lab.read("sim.log"));
}

fn each_change_of_power_is_logged_once(log: &str) {
    for machine in ["machine=node-1 ", "machine=node-2 ", "machine=node-3 "] {
        // A reboot sets the power that is there again.
        let told = |line: &str| Some(line[line.find(" power ").or_else(|| line.find(" reboot "))?..].to_owned() + " ");
        let changes: Vec<String> = log.lines().filter_map(told).filter(|line| line.contains(machine)).collect();
        assert!(changes.len() > 2, "{log}");
        assert!(changes.windows(2).all(|pair| pair[0] != pair[1]), "{changes:#?}");
    }
}

fn history_tells_an_install(lab: &Lab, attempt: &str) {
    let machine = attempt.split('#').next().unwrap();
    let told = lab.tell(&["history", machine]);
    let mut rest = told.as_str();
    for step in
        [format!("install {attempt} of"), "DHCP seen".to_owned(), "agent up (serial SIM-000".to_owned(), "writing /dev/sda".to_owned()]
            .into_iter()
            .chain([
                "written and verified, 16.0 MiB from image".to_owned(),
                "called home".to_owned(),
                format!("attempt {attempt} ended: done"),
            ])
    {
        let at = rest.find(&step).unwrap_or_else(|| panic!("no {step:?} in its place:\n{told}"));
        rest = &rest[at..];
    }
}

fn the_note_is_read_with_git(lab: &Lab) {
    let fleet = lab.path("fleet");
    let log = cli_support::wait("the note", || {
        git(&fleet, &["fetch", "--quiet"]);
        let log = git(&fleet, &["log", "-1"]);
        if log.contains("Rackwright-Ready: 3/3") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("lab: 3 of 3 machines ready"), "{log}");
}

fn observe(lab: &Lab) {
    let bmc = format!("https://{}:8443", lab.address(11));
    let told = lab.read("sim.log");
    let fingerprint = told.split("fingerprint ").nth(1).unwrap().split_whitespace().next().unwrap();
    fs::write(lab.path("wrong-password"), "not-it\n").unwrap();
    let known = ["observe", "--bmc", &bmc, "--user", "admin", "--password-file", "bmc-password"];
    let with = |more: &[&str]| lab.tell(&[&known, more].concat());
    assert_snapshot!("observe", with(&["--fingerprint", fingerprint]));
    assert_snapshot!("observe-insecure-is-the-same", with(&["--insecure"]));
    assert_snapshot!("observe-no-trust", with(&[]));
    assert_snapshot!("observe-wrong-fingerprint", with(&["--fingerprint", &"12".repeat(32)]));
    let wrong = ["observe", "--bmc", &bmc, "--user", "admin", "--password-file", "wrong-password", "--fingerprint", fingerprint];
    assert_snapshot!("observe-wrong-password", lab.tell(&wrong));
    assert_snapshot!("observe-unreachable", lab.tell(&["observe", "--bmc", &format!("https://{}:8443", lab.address(99)), "--insecure"]));
    assert_snapshot!("observe-http", lab.tell(&["observe", "--bmc", &format!("http://{}:8443", lab.address(11))]));
    assert_snapshot!("observe-no-url", lab.tell(&["observe", "--bmc", "10.0.8.12"]));
    assert_snapshot!("observe-no-password-file", lab.tell(&["observe", "--bmc", &bmc, "--user", "admin", "--password-file", "nope"]));
    let output = lab.command(&[&known[..], &["--insecure", "--json"]].concat()).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let schema = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/observation.schema.json")).unwrap();
    jsonschema::validate(&serde_json::from_str(&schema).unwrap(), &json).unwrap();
    assert_eq!(json["power"]["known"], "On", "{json}");
}

fn a_missing_secret_is_told(lab: &Lab) {
    fs::rename(lab.path("bmc-password"), lab.path("bmc-password.away")).unwrap();
    let controller = lab.controller("run-without-secret.log", |_| ());
    let status = cli_support::wait("the reason", || {
        let told = lab.tell(&["explain", "node-1"]);
        if told.contains("bmc-password") { Ok(told) } else { Err(told) }
    });
    assert!(status.contains("secret bmc comes from the file [FOLDER]/lab/bmc-password"), "{status}");
    assert_eq!(controller.stop("-TERM").code(), Some(0));
}
