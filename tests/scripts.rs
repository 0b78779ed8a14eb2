//! The shell scripts, where they decide something.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

/// `code` in Bash, in the project's folder.
fn bash(code: &str, variables: &[(&str, &Path)]) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -euo pipefail\n{code}")]).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.envs(variables.iter().copied()).env("NO_COLOR", "1").output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        println!("skipped: {program} is not installed (this is not Debian)");
    }
    found
}

#[test]
fn a_package_is_installed_if_it_is_for_this_architecture() {
    if !has("dpkg-query") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let own = String::from_utf8(Command::new("dpkg").arg("--print-architecture").output().unwrap().stdout).unwrap();
    let (own, other) = (own.trim(), if own.trim() == "i386" { "amd64" } else { "i386" });
    let package = |name: &str, architecture: &str, status: &str| {
        format!(
            "Package: {name}\nStatus: {status}\nArchitecture: {architecture}\nMulti-Arch: same\nVersion: 1\nMaintainer: x\nDescription: x\n\n"
        )
    };
    let status = [
        package("both", own, "install ok installed"),
        package("both", other, "install ok installed"),
        package("foreign", other, "install ok installed"),
        package("removed", own, "deinstall ok config-files"),
        package("data", "all", "install ok installed").replace("Multi-Arch: same\n", ""),
    ];
    fs::write(folder.path().join("status"), status.concat()).unwrap();
    fs::write(folder.path().join("arch"), format!("{own}\n{other}\n")).unwrap();
    fs::create_dir(folder.path().join("info")).unwrap();
    let code = "cd scripts; . lib/common.sh; for package in both foreign removed data absent; do
        if is_installed $package; then echo $package; fi; done";
    let output = bash(code, &[("DPKG_ADMINDIR", folder.path())]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "both\ndata\n", "{}", told(&output));
}

#[test]
fn a_kernel_that_apt_does_not_know_is_told() {
    if !has("apt-cache") || !has("depmod") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("apt.conf");
    let empty = folder.path().display();
    fs::write(&config, format!("Dir::State::lists \"{empty}\";\nDir::Cache \"{empty}\";\nDir::State::status \"{empty}/status\";\n"))
        .unwrap();
    fs::write(folder.path().join("status"), "").unwrap();
    // That the lists were just refreshed, so that nothing is fetched.
    let variables: [(&str, &Path); 3] =
        [("APT_CONFIG", &config), ("RACKWRIGHT_APT_UPDATED", Path::new("1")), ("RACKWRIGHT_CACHE", folder.path())];
    let output = bash("scripts/build-kernel cloud", &variables);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("apt does not know linux-image-cloud-amd64"), "{}", told(&output));
}

#[test]
fn the_demo_runs_what_cargo_built_wherever_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let (programs, stubs) = (folder.path().join("target/debug"), folder.path().join("bin"));
    let script = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    // A build takes minutes, and is not what is asked here.
    script(&stubs.join("cargo"), "exit 0");
    script(&stubs.join("dpkg-query"), "echo all installed");
    script(&stubs.join("apt-get"), "exit 1");
    script(&programs.join("examples/demo"), "echo demo \"$@\"");
    let path = format!("{}:{}", stubs.display(), std::env::var("PATH").unwrap());
    let output = bash("scripts/demo --keep", &[("CARGO_TARGET_DIR", &folder.path().join("target")), ("PATH", Path::new(&path))]);
    let expected = format!("demo --programs {} --keep\n", programs.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", told(&output));
}

#[test]
fn every_removal_of_the_law_still_applies_and_names_its_tests() {
    if !has("git") {
        return;
    }
    let output = bash("scripts/removals --check", &[]);
    assert!(output.status.success(), "{}\nmend the patch: what it takes away is what its tests hold", told(&output));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/removals");
    let mut laws = [0; 15];
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name:?} in {text}"));
        laws[field("Law: ").parse::<usize>().unwrap()] += 1;
        assert!(field("Test: ").starts_with("--") && !field("Removed: ").is_empty());
    }
    assert!(laws[1..].iter().all(|patches| *patches > 0), "a line of the law of which nothing is removed: {laws:?}");
}
