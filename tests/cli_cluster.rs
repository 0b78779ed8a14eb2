//! `examples/cluster` with the real programs: a cluster comes up, is wiped and rebuilt twice by commits, and each machine is in the cluster of
//! the life that it belongs to. No token is found anywhere but where it belongs.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli_support;

use std::{collections::BTreeSet, fs, path::Path};

use cli_support::{Lab, edit, git, wait};
use serde_json::Value;

const MACHINES: [&str; 5] = ["cp-1", "cp-2", "cp-3", "w-1", "w-2"];

/// What the simulator says of all machines.
fn machines(lab: &Lab) -> Result<Vec<Value>, String> {
    let url = format!("http://{}:8471/machines", lab.address(1));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let text = runtime.block_on(async { reqwest::get(&url).await?.text().await }).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// The cluster that all are in, once each disk was installed `installs` times and nobody is missing.
fn cluster(lab: &Lab, installs: u64) -> Result<String, String> {
    let all = machines(lab)?;
    let of = |machine: &Value| machine["cluster"]["cluster"].as_str().map(str::to_owned);
    let clusters: BTreeSet<Option<String>> = all.iter().map(of).collect();
    let written = all.iter().all(|machine| machine["disks"][0]["installs"].as_u64() == Some(installs));
    let members =
        all.iter().find(|machine| machine["name"] == "cp-1").and_then(|first| first["cluster"]["members"].as_array().map(Vec::len));
    match clusters.into_iter().collect::<Vec<_>>().as_slice() {
        [Some(one)] if written && members == Some(4) => Ok(one.clone()),
        _ => Err(format!("{all:#?}")),
    }
}

/// The token of the cluster as it is on the first machine's disk.
fn token(lab: &Lab) -> String {
    let kept: Value = serde_json::from_str(&lab.read("sim/cp-1.cluster.json")).unwrap();
    kept["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_cluster_is_wiped_and_rebuilt_twice_and_no_token_is_told() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let lab = Lab::cluster();
    let simulator = lab.simulator(|_| ());
    let controller = lab.controller("run.log", |command| {
        command.env("RACKWRIGHT_LOG", "trace,rackwright=trace");
    });
    let (mut clusters, mut tokens, mut told) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for life in 0..3u64 {
        if life > 0 {
            for machine in MACHINES {
                let manifest = lab.path("fleet").join(format!("machines/{machine}.yaml"));
                edit(&manifest, |text| text.replace(&format!("rebuild: {}", life - 1), &format!("rebuild: {life}")));
            }
            told += &lab.tell(&["plan", "--repo", "fleet", "--format", "json"]);
            lab.push(&format!("Rebuild the cluster, {life}"));
        }
        assert!(clusters.insert(wait("a cluster of all", || cluster(&lab, life + 1))), "it is another one in each life");
        assert!(tokens.insert(token(&lab)));
        told += &lab.until("5 of 5 machines ready");
        for machine in MACHINES {
            told += &lab.tell(&["explain", machine, "--json"]);
            told += &lab.tell(&["history", machine, "--json"]);
        }
    }
    assert_eq!(told.matches("\"fact\":\"published\"").count(), 1 + 2 + 3, "{told}");
    assert_eq!(controller.stop("-INT").code(), Some(0));
    drop(simulator);
    told += &git(&lab.path("fleet.git"), &["log", "--all", "--patch", "--format=fuller"]);
    let leaks: Vec<String> = tokens.iter().flat_map(|token| found(&lab.path(""), token)).collect();
    assert_eq!(leaks, Vec::<String>::new());
    assert!(tokens.iter().all(|token| !told.contains(token)));
    // Of the systems that are gone nothing is kept.
    let kept: Vec<_> = fs::read_dir(lab.path("state/handoff")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, ["cp-1#3.json"]);
}

/// Files with `token` that are neither a machine's disk nor the store.
fn found(folder: &Path, token: &str) -> Vec<String> {
    let mut places = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            if !path.ends_with("lab/sim") && !path.ends_with("state/handoff") {
                places.extend(found(&path, token));
            }
        } else if fs::read(&path).unwrap().windows(token.len()).any(|window| window == token.as_bytes()) {
            places.push(path.display().to_string());
        }
    }
    places
}
