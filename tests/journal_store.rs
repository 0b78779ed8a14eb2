//! The journal on its good days, and on files that are not what they should be.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, sync::Arc};

use rackwright::{
    journal::{OpenError, SqliteJournal},
    model::{AttemptEnd, AttemptId, CommitId, Digest, Evidence, Fact, Generation, MachineName, Outcome, RetryClass, Timestamp},
    ports::Journal as _,
};

fn machine(name: &str) -> MachineName {
    MachineName::new(name).unwrap()
}

fn attempt() -> AttemptId {
    AttemptId { machine: machine("web-01"), number: 3 }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

const COMMIT: CommitId = CommitId([0xab; 20]);

fn facts() -> Vec<Fact> {
    let generation = Generation::of(Digest::of(b"image"), None, 0);
    let outcome = Outcome::Failed { why: "it's \"quoted\"\n\u{1F525}".into(), class: RetryClass::Wait };
    vec![
        Fact::Claimed { machine: machine("web-01"), installed: Some(generation), hardware: vec!["serial:A".into()] },
        Fact::Renamed { from: machine("web-01"), to: machine("web-02") },
        Fact::Ended { machine: machine("web-01"), intention: 1, outcome },
        Fact::Began { attempt: attempt(), generation },
        Fact::Saw { attempt: attempt(), evidence: Evidence::Written { digest: Digest::of(b"image"), bytes: 1 << 40 } },
        Fact::Concluded { attempt: attempt(), end: AttemptEnd::Failed { code: "c".into(), why: "w".into(), retry: true } },
        Fact::Released { machine: machine("web-01") },
    ]
}

/// a becomes b; then another machine is named a, and takes the name c while a third one becomes a.
#[tokio::test]
async fn a_machine_is_followed_through_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let journal = SqliteJournal::open(&path, "test").unwrap();
    let claimed = |name: &str| Fact::Claimed { machine: machine(name), installed: None, hardware: Vec::new() };
    let renamed = |from: &str, to: &str| Fact::Renamed { from: machine(from), to: machine(to) };
    let facts = vec![
        claimed("a"),
        claimed("x"),
        renamed("a", "b"),
        claimed("a"),
        renamed("a", "c"),
        renamed("x", "a"),
        Fact::Released { machine: machine("c") },
    ];
    journal.append(at(1), COMMIT, facts).await.unwrap();
    let reader = SqliteJournal::read_only(&path).unwrap();
    let of = |name: &str| reader.records_of(&machine(name)).unwrap().iter().map(|record| record.seq).collect::<Vec<_>>();
    assert_eq!(of("b"), [1, 3]);
    assert_eq!(of("a"), [2, 6]);
    assert_eq!(of("c"), [4, 5, 7]);
    assert_eq!(of("x"), [2, 6], "by the name that it had");
    assert_eq!(of("d"), [0_u64; 0]);
}

#[tokio::test]
async fn what_is_appended_comes_back_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let journal = SqliteJournal::open(&path, "first").unwrap();
    assert!(journal.records().await.unwrap().is_empty());
    let mut written = journal.append(at(1), COMMIT, facts()).await.unwrap();
    assert!(journal.append(at(2), COMMIT, Vec::new()).await.unwrap().is_empty());
    written.extend(journal.append(at(3), COMMIT, facts()).await.unwrap());
    journal.put("commit", "one").await.unwrap();
    journal.put("commit", "two").await.unwrap();
    drop(journal);

    let journal = SqliteJournal::open(&path, "second").unwrap();
    assert_eq!(journal.records().await.unwrap(), written);
    assert_eq!(written.iter().map(|record| record.seq).collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
    assert_eq!(journal.get("commit").await.unwrap().as_deref(), Some("two"));
    assert_eq!(journal.get("other").await.unwrap(), None);

    // Another reader sees new records at once, and only those that it has not seen.
    let reader = SqliteJournal::read_only(&path).unwrap();
    assert_eq!(reader.records_after(0).unwrap(), written);
    let more = journal.append(at(4), COMMIT, facts()).await.unwrap();
    assert_eq!(reader.records_after(14).unwrap(), more);
    assert_eq!(reader.get("commit").unwrap().as_deref(), Some("two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_at_once_are_each_whole_and_numbered_without_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(SqliteJournal::open(&folder.path().join("journal.sqlite"), "test").unwrap());
    let tasks: Vec<_> = (0..200)
        .map(|task| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move { journal.append(at(task), COMMIT, facts()).await.unwrap() })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        let records = task.await.unwrap();
        assert!(records.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "an append is not torn apart");
        all.extend(records);
    }
    all.sort_by_key(|record| record.seq);
    assert_eq!(all, journal.records().await.unwrap());
    assert!(all.iter().zip(1..).all(|(record, seq)| record.seq == seq));
}

#[tokio::test]
async fn the_memory_journal_is_the_same_code() {
    let journal = SqliteJournal::in_memory().unwrap();
    let written = journal.append(at(1), COMMIT, facts()).await.unwrap();
    assert_eq!(journal.records().await.unwrap(), written);
}

#[test]
fn a_second_open_in_one_process_is_refused_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let first = SqliteJournal::open(&path, "first").unwrap();
    let error = SqliteJournal::open(&path, "second").unwrap_err();
    assert!(error.to_string().contains("is held by another controller: first (process "), "{error}");
    let link = folder.path().join("link.sqlite");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(SqliteJournal::open(&link, "third"), Err(OpenError::Held { .. })), "a link does not evade the lock");
    drop(first);
    drop(SqliteJournal::open(&path, "second").unwrap());
}

fn sqlite(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn files_that_are_not_a_journal_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, "hello, I am a diary, not a database\n".repeat(200)).unwrap();
    let error = SqliteJournal::open(&path, "test").unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }) && error.to_string().contains("keep a copy"), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("hello"));

    let path = folder.path().join("other.sqlite");
    sqlite(&path, "CREATE TABLE diary (line TEXT)");
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(SqliteJournal::open(&path, "test"), Err(OpenError::Foreign { .. })));
    assert!(matches!(SqliteJournal::read_only(&path), Err(OpenError::Foreign { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let path = folder.path().join("newer.sqlite");
    drop(SqliteJournal::open(&path, "test").unwrap());
    sqlite(&path, "PRAGMA user_version = 99");
    let error = SqliteJournal::open(&path, "test").unwrap_err();
    assert!(error.to_string().contains("has format 99, and this release reads up to 1"), "{error}");

    let path = folder.path().join("missing.sqlite");
    assert!(matches!(SqliteJournal::read_only(&path), Err(OpenError::Missing { .. })));
    assert!(!path.exists());
}

#[tokio::test]
async fn damage_is_found_at_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let journal = SqliteJournal::open(&path, "test").unwrap();
    for _ in 0..50 {
        journal.append(at(1), COMMIT, facts()).await.unwrap();
    }
    drop(journal);
    let whole = std::fs::read(&path).unwrap();

    let mut torn = whole.clone();
    torn[8192..16384].fill(0x5a);
    std::fs::write(&path, &torn).unwrap();
    assert!(matches!(SqliteJournal::open(&path, "test"), Err(OpenError::Damaged { .. })));

    std::fs::write(&path, &whole).unwrap();
    sqlite(&path, "DROP TRIGGER record_is_not_removed; DELETE FROM record WHERE seq = 17");
    let error = SqliteJournal::open(&path, "test").unwrap_err();
    assert!(error.to_string().contains("1 of its 350 records are missing"), "{error}");
}

#[tokio::test]
async fn records_can_not_be_changed_or_removed_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let journal = SqliteJournal::open(&path, "test").unwrap();
    journal.append(at(1), COMMIT, facts()).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    for sql in ["DELETE FROM record", "UPDATE record SET machine = 'x'"] {
        assert!(other.execute(sql, []).unwrap_err().to_string().contains("only appended to"));
    }
}

/// A file system of 512 KiB, mounted for the test.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(folder.path()).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_whole_appends_and_is_over_when_there_is_room_again() {
    let Some(small) = Small::mount() else {
        println!("skipped: a small tmpfs can't be mounted (needs root)");
        return;
    };
    let path = small.0.path().join("journal.sqlite");
    let journal = SqliteJournal::open(&path, "test").unwrap();
    let ballast = small.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 200 << 10]).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match journal.append(at(1), COMMIT, facts()).await {
            Ok(records) => acknowledged = records.last().unwrap().seq,
            Err(error) => break error,
        }
    };
    assert_eq!(error.class, RetryClass::Wait);
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(journal.append(at(2), COMMIT, facts()).await.unwrap_err().class, RetryClass::Wait);
    assert_eq!(journal.records().await.unwrap().len() as u64, acknowledged, "a refused append leaves nothing");

    std::fs::remove_file(&ballast).unwrap();
    let records = journal.append(at(3), COMMIT, facts()).await.unwrap();
    assert_eq!(records[0].seq, acknowledged + 1);
    drop(journal);
    let journal = SqliteJournal::open(&path, "again").unwrap();
    assert_eq!(journal.records().await.unwrap().len() as u64, acknowledged + 7);
}
