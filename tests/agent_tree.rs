//! The agent lives in RAM and crosses the network at each install: what it is made of is checked here.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, process::Command};

/// What the design keeps out of the agent, and what would bring the same in another way.
const FORBIDDEN: [&str; 14] = [
    "git2",
    "libgit2-sys",
    "openssl",
    "openssl-sys",
    "native-tls",
    "rusqlite",
    "libsqlite3-sys",
    "redfish-codegen",
    "axum",
    "clap",
    "regex",
    "tracing-subscriber",
    "schemars",
    "h2",
];

const MOST: u64 = 4 << 20;

#[test]
fn the_agent_is_built_of_little() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = [
        "tree",
        "--locked",
        "--offline",
        "--no-default-features",
        "--features",
        "agent",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let output = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"reqwest") && names.contains(&"zstd"), "that is not the agent's tree: {tree}");
    let there: Vec<&&str> = FORBIDDEN.iter().filter(|name| names.contains(name)).collect();
    assert!(there.is_empty(), "the agent depends on {there:?}");
}

#[test]
fn the_agent_is_static_and_small() {
    let name = format!("target/{}-unknown-linux-gnu/agent/rackwright-agent", std::env::consts::ARCH);
    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let Ok(metadata) = agent.metadata() else {
        println!("skipped: rackwright-agent is not built (scripts/build-agent)");
        return;
    };
    assert!(metadata.len() <= MOST, "the agent has {} bytes, more than {MOST}", metadata.len());
    let output = Command::new(&agent).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("rackwright-agent {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(Command::new(&agent).output().unwrap().status.code(), Some(2), "without being PID 1 it does nothing");
}

/// A thread of PID 1 that panics must come back to whoever tells of it; with `abort` it can only stand still, or take the kernel with it.
#[test]
fn the_agents_panics_unwind() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let profile = manifest.split("[profile.agent]\n").nth(1).unwrap().split("\n[").next().unwrap();
    assert!(profile.lines().any(|line| line == "panic = \"unwind\""), "{profile}");
}
