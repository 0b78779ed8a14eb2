//! Law 11: upgrading the controller reimages nothing. `tests/golden/v1` is the journal and the fleet of an earlier release; never
//! change these files. When a later release writes something new, add a folder beside it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rackwright::{
    manifest,
    model::*,
    plan::{Deadlines, Input, check, plan, render_text},
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn read_into(files: &mut Files, root: &Path, folder: &Path) {
    for found in fs::read_dir(folder).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            read_into(files, root, &path);
        } else {
            let bytes = fs::read(&path).unwrap();
            let id = Digest::of(&bytes).0[..20].try_into().unwrap();
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(relative, FileEntry { id, kind: FileKind::Regular, bytes: bytes.into() });
        }
    }
}

fn fleet() -> Fleet {
    let mut files = Files::new();
    let root = golden().join("fleet");
    read_into(&mut files, &root, &root);
    let loaded = manifest::load(&files, &mut manifest::Cache::default());
    assert!(loaded.is_usable(), "{:?}", loaded.problems);
    loaded.fleet
}

fn records() -> Vec<Record> {
    let text = fs::read_to_string(golden().join("journal.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Each machine as its manifest says, On.
fn seen(fleet: &Fleet, now: Timestamp) -> BTreeMap<MachineName, Observation> {
    let of = |machine: &Machine| {
        let mut seen = Observation::blank(now, machine.bmc.address.clone(), &Unknown::NotReported);
        seen.power = Seen::Known(PowerState::On);
        seen.identity = Seen::Known(ObservedIdentity { serial: machine.identity.serial.clone(), ..ObservedIdentity::default() });
        seen
    };
    fleet.machines.values().map(|machine| (machine.name.clone(), of(machine))).collect()
}

#[test]
fn an_upgrade_reimages_nothing() {
    let (fleet, records) = (fleet(), records());
    let history = History::of(&records);
    let last = records.last().unwrap();
    let now = last.at;
    let seen = seen(&fleet, now);
    let commit =
        Commit { id: last.commit, subject: "web".to_owned(), author: "a <a@example.org>".to_owned(), time: now, approvals: Vec::new() };
    let alive = BTreeMap::new();
    // What was in force before the upgrade is not in the new program's memory.
    let deadlines = Deadlines::default();
    let input = Input {
        commit: &commit,
        fleet: &fleet,
        problems: &[],
        seen: &seen,
        history: &history,
        former: None,
        alive: &alive,
        deadlines,
        now,
    };
    let made = plan(&input);
    assert_eq!(check(&made, &input), []);
    assert_eq!(made.steps().collect::<Vec<_>>(), Vec::<&Step>::new(), "{}", render_text(&made));

    // Each machine is in the state that its name says, and not by accident at rest.
    let name = |text: &str| MachineName::new(text).unwrap();
    let installed = |text: &str| history.machines[&name(text)].installed == fleet.machines[&name(text)].generation();
    assert!(installed("adopted") && installed("installed") && installed("renamed"));
    assert!(matches!(made.machines[&name("quarantined")].held[..], [Held::Quarantined { .. }]));
    assert!(made.machines[&name("writing")].ticket.is_some(), "its agent goes on under the new program");
    assert!(!history.machines.contains_key(&name("released")));
}

/// What the new program writes of these records is what stands there: an older one can still read it.
#[test]
fn the_journals_form_has_not_changed() {
    let text = fs::read_to_string(golden().join("journal.jsonl")).unwrap();
    let again: String = records().iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
    assert_eq!(again, text);
    for fact in ["claimed", "released", "renamed", "intended", "ended", "began", "saw", "reported", "concluded"] {
        assert!(text.contains(&format!("\"fact\":\"{fact}\"")), "no {fact} in the golden journal");
    }
}
