//! The example repository, the one that `init` writes, and the schemas. `UPDATE=1` writes the schemas anew.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rackwright::{
    manifest::{Cache, load, render, schemas, starter},
    model::{BootMode, FileEntry, FileKind, Files, OnClaim, PowerIntent},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn entry(bytes: &[u8]) -> FileEntry {
    use sha2::Digest;
    let hash: [u8; 32] = sha2::Sha256::digest(bytes).into();
    FileEntry { id: hash[..20].try_into().unwrap(), kind: FileKind::Regular, bytes: bytes.into() }
}

fn read_into(files: &mut Files, root: &Path, folder: &Path) {
    for found in fs::read_dir(folder).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            read_into(files, root, &path);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), entry(&fs::read(&path).unwrap()));
        }
    }
}

fn example() -> Files {
    let mut files = Files::new();
    let root = root().join("examples/fleet-repo");
    read_into(&mut files, &root, &root);
    files
}

fn starter_files() -> Files {
    starter().into_iter().map(|(path, text)| (path.to_owned(), entry(text.as_bytes()))).collect()
}

#[test]
fn the_example_repository_has_no_problem() {
    let files = example();
    let loaded = load(&files, &mut Cache::default());
    assert_eq!(loaded.problems.iter().map(|problem| render(problem, None)).collect::<String>(), "");
    let fleet = loaded.fleet;
    assert_eq!((fleet.machines.len(), fleet.rollouts.len(), fleet.networks.len(), fleet.secrets.len()), (24, 4, 1, 1));
    for machine in fleet.machines.values() {
        assert_eq!((machine.power, machine.on_claim), (PowerIntent::On, OnClaim::Adopt), "{}", machine.name);
        assert!(machine.install.as_ref().unwrap().user_data.as_ref().unwrap().contains(&format!("hostname: {}\n", machine.name)));
        assert!(machine.place.rack.is_some() && machine.disks.system.is_some());
        let bios = machine.labels["role"] == "edge";
        assert_eq!(machine.boot.mode, if bios { BootMode::BIOS } else { BootMode::UEFI });
    }
    let first = &fleet.machines.values().find(|machine| machine.name.as_str() == "web-01").unwrap();
    assert_eq!(first.bmc.address, "https://127.77.0.11:8443");
    assert_eq!(first.nics[0].mac.to_string(), "52:54:00:77:00:0b");
    let edge = fleet.machines.values().find(|machine| machine.name.as_str() == "edge-06").unwrap();
    assert!(edge.install.as_ref().unwrap().user_data.as_ref().unwrap().contains("      lan0 52:54:00:77:00:22 127.77.0.0/16\n"));
}

#[test]
fn the_repository_that_init_writes_has_no_problem() {
    let loaded = load(&starter_files(), &mut Cache::default());
    assert_eq!(loaded.problems.iter().map(|problem| render(problem, None)).collect::<String>(), "");
    assert_eq!(loaded.fleet.machines.len(), 1);
    assert!(loaded.fleet.machines.values().all(|machine| machine.on_claim == OnClaim::Adopt));
}

#[test]
fn the_schemas_are_not_stale() {
    let mut stale = Vec::new();
    for (name, schema) in schemas() {
        let path = root().join("schemas").join(name);
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            stale.push(name);
        }
    }
    assert!(stale.is_empty(), "run the tests once with UPDATE=1: {stale:?}");
}

/// The manifests of `files`, with the path that their `yaml-language-server` line leads to.
fn manifests(files: &Files) -> Vec<(&str, PathBuf, serde_json::Value)> {
    let manifest = |path: &str| path.ends_with(".yaml") && !path.contains("templates/");
    let found = files.iter().filter(|(path, _)| manifest(path));
    let found = found.map(|(path, entry)| {
        let text = std::str::from_utf8(&entry.bytes).unwrap();
        let line = text.lines().next().unwrap();
        let schema = line.strip_prefix("# yaml-language-server: $schema=").unwrap_or_else(|| panic!("{path} names no schema"));
        (path.as_str(), Path::new(path).parent().unwrap().join(schema), serde_yaml::from_str(text).unwrap())
    });
    found.collect()
}

/// `a/../b` → `b`, without asking a disk.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." { assert!(normal.pop()) } else { normal.push(part) }
    }
    normal
}

#[test]
fn every_example_is_valid_under_the_schema_that_it_names() {
    let compiled: BTreeMap<&str, jsonschema::Validator> =
        schemas().into_iter().map(|(name, schema)| (name, jsonschema::draft202012::new(&schema).unwrap())).collect();
    let (example, starter) = (example(), starter_files());
    for (files, base) in [(&example, "examples/fleet-repo"), (&starter, "")] {
        for (path, schema, value) in manifests(files) {
            let schema = normal(&Path::new(base).join(schema));
            let there = if base.is_empty() { starter.contains_key(schema.to_str().unwrap()) } else { root().join(&schema).is_file() };
            assert!(there, "{path} names {}", schema.display());
            let kind = value["kind"].as_str().unwrap().to_lowercase();
            assert_eq!(schema.file_name().unwrap().to_str().unwrap(), format!("{kind}.schema.json"), "{path}");
            for name in [format!("{kind}.schema.json"), "fleet-repo.schema.json".to_owned()] {
                let errors: Vec<_> = compiled[name.as_str()].iter_errors(&value).map(|error| error.to_string()).collect();
                assert_eq!(errors, [""; 0], "{path} under {name}");
            }
        }
    }
}

#[test]
fn the_schemas_refuse_what_the_program_refuses() {
    let schema = schemas().into_iter().find(|(name, _)| *name == "fleet-repo.schema.json").unwrap().1;
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let files = example();
    let text = std::str::from_utf8(&files["machines/web-01.yaml"].bytes).unwrap();
    for (from, to) in
        [("profile:", "profil:"), ("power: On", "power: on"), ("kind: Machine", "kind: Machin"), ("52:54", "52-54"), ("bmc:", "bcm:")]
    {
        let broken = text.replace(from, to);
        assert_ne!(broken, text);
        let value: serde_json::Value = serde_yaml::from_str(&broken).unwrap();
        assert!(!validator.is_valid(&value), "{to}");
        let mut files = files.clone();
        files.insert("machines/web-01.yaml".to_owned(), entry(broken.as_bytes()));
        assert!(!load(&files, &mut Cache::default()).is_usable(), "{to}");
    }
}
