//! Law 11: upgrading the controller reimages nothing. `tests/golden/v1` is the journal and the fleet of an earlier release; never
//! change these files. When a later release writes something new, add a folder beside it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rackwright::{
    journal::{SqliteJournal, verify},
    manifest,
    model::*,
    plan::{Deadlines, Input, check, plan, render_text},
    ports::Journal as _,
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
        probes: &BTreeMap::new(),
        brake: &Brake::default(),
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

/// `journal.db` holds the same records in format 1, written by the release of that format.
#[tokio::test]
async fn a_journal_of_format_1_is_read_and_brought_to_the_newest_with_nothing_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    fs::copy(golden().join("journal.db"), &path).unwrap();
    let reader = SqliteJournal::read_only(&path).unwrap();
    assert_eq!(reader.records_after(0).unwrap(), records(), "`history` before the first start of the new release");
    assert_eq!(reader.get("journal-origin").unwrap().as_deref(), Some("first"));
    drop(reader);
    assert_eq!(verify(&path).unwrap().format, 1);
    assert_eq!(fs::read(&path).unwrap(), fs::read(golden().join("journal.db")).unwrap(), "looking changes nothing");

    let journal = SqliteJournal::open(&path, "the new release").unwrap();
    let survey = verify(&path).unwrap();
    assert_eq!((survey.format, survey.records), (2, records().len() as u64));
    assert_eq!(journal.records().await.unwrap(), records());
    let last = records().pop().unwrap();
    assert_eq!(journal.get("journal-origin").await.unwrap().as_deref(), Some("first"));
    assert_eq!(journal.get("commit-in-force").await.unwrap(), Some(last.commit.to_string()));
    let more = journal.append(last.at, last.commit, vec![last.fact]).await.unwrap();
    assert_eq!(more[0].seq, records().len() as u64 + 1);
    drop(journal);
    assert_eq!(SqliteJournal::open(&path, "again").unwrap().records().await.unwrap().len(), records().len() + 1);
    assert_eq!(verify(&path).unwrap().records, records().len() as u64 + 1);
    // What protected the records in format 1 does so now.
    let other = rusqlite::Connection::open(&path).unwrap();
    for sql in ["DELETE FROM record", "UPDATE record SET machine = 'x'"] {
        assert!(other.execute(sql, []).unwrap_err().to_string().contains("only appended to"));
    }
}

/// A gap is not carried over into a chain of sums in which nobody would see it.
#[test]
fn a_journal_of_format_1_with_a_gap_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    fs::copy(golden().join("journal.db"), &path).unwrap();
    let sql = "DROP TRIGGER record_is_not_removed; DELETE FROM record WHERE seq = 5";
    rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let error = SqliteJournal::open(&path, "the new release").unwrap_err();
    assert!(error.to_string().contains("record 5 is missing"), "{error}");
    let version: i64 = rusqlite::Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}
