//! The journal on its good days, and on files that are not what they should be.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{path::Path, sync::Arc};

use rackwright::{
    journal::{BrakeError, BrakeFile, CopyError, OpenError, SqliteJournal, backup, restore, verify},
    model::{
        AttemptEnd, AttemptId, CommitId, Digest, Evidence, Fact, Generation, Hold, HoldScope, MachineName, Outcome, RetryClass, Timestamp,
    },
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
        Fact::Claimed { machine: machine("web-01"), installed: Some(generation), hardware: vec!["serial:A".into()], basis: None },
        Fact::Renamed { from: machine("web-01"), to: machine("web-02") },
        Fact::Ended { machine: machine("web-01"), intention: 1, outcome },
        Fact::Began { attempt: attempt(), generation, basis: None },
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
    let claimed = |name: &str| Fact::Claimed { machine: machine(name), installed: None, hardware: Vec::new(), basis: None };
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
    assert!(matches!(error, OpenError::Damaged { .. }) && error.to_string().contains("Keep a copy"), "{error}");
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
    assert!(error.to_string().contains("has format 99, and this release reads up to 2"), "{error}");

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
    assert!(error.to_string().contains("damaged: record 17 is missing"), "{error}");
    assert_eq!(verify(&path).unwrap_err().to_string(), error.to_string());
}

/// Flips a bit of the last byte of each `needle`: a page may hold a former copy of a row, too.
fn flip(path: &Path, needle: &[u8], bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    let all: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!all.is_empty());
    all.into_iter().for_each(|at| bytes[at + needle.len() - 1] ^= 1 << bit);
    std::fs::write(path, bytes).unwrap();
}

/// SQLite takes each of these for whole: only what stands in the rows changes.
#[tokio::test]
async fn a_flipped_bit_is_said_and_never_acted_upon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let journal = SqliteJournal::open(&path, "test").unwrap();
    for second in 1..4 {
        journal.append(at(second), COMMIT, facts()).await.unwrap();
    }
    journal.put("commit-in-force", &COMMIT.to_string()).await.unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    let flips: [(&[u8], u8, &str); 5] = [
        // Another machine is claimed, another generation is installed, at another time, and a byte that is no text.
        (b"\"fact\":\"claimed\",\"machine\":\"web-01", 1, "record 1 does not match its checksum"),
        (b"\"generation\":\"g1:", 0, "record 4 does not match its checksum"),
        (b"2026-09-21T14:13:21Z", 0, "record 1 does not match its checksum"),
        (b"\"bytes\":1099511627", 7, "record 5 does not match its checksum"),
        (b"commit-in-forceabab", 0, "the value \"commit-in-force\" does not match its checksum"),
    ];
    for (needle, bit, what) in flips {
        std::fs::write(&path, &whole).unwrap();
        flip(&path, needle, bit);
        let check: String = rusqlite::Connection::open(&path).unwrap().query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
        assert!(check == "ok" || bit == 7, "{check}");
        let said = verify(&path).unwrap_err();
        assert!(matches!(said, OpenError::Damaged { .. }) && said.to_string().contains(what), "{said}");
        match SqliteJournal::open(&path, "test") {
            Err(error) => assert!(error.to_string().contains(what) && error.to_string().contains("journal restore"), "{error}"),
            // Read when it is asked for.
            Ok(journal) => {
                let error = journal.get("commit-in-force").await.unwrap_err();
                assert!(error.class == RetryClass::Failed && error.to_string().contains(what), "{error}");
            }
        }
        let reader = SqliteJournal::read_only(&path).unwrap();
        assert!(what.contains("value") || reader.records_after(0).unwrap_err().to_string().contains(what));
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(verify(&path).unwrap().records, 21);
}

/// Each is a journal in which nothing is wrong, but for what it does not know.
#[tokio::test]
async fn a_journal_that_was_put_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let journal = SqliteJournal::open(&path, "test").unwrap();
    journal.append(at(1), COMMIT, facts()).await.unwrap();
    drop(journal);
    let earlier = std::fs::read(&path).unwrap();
    let journal = SqliteJournal::open(&path, "test").unwrap();
    journal.append(at(2), COMMIT, facts()).await.unwrap();
    // A copy of the file alone, while a controller has it open: what stands in its write-ahead log is missing.
    let torn = std::fs::read(&path).unwrap();
    drop(journal);
    let newest = std::fs::read(&path).unwrap();
    // Another one, that went on from the earlier state by itself.
    let other = folder.path().join("other.sqlite");
    std::fs::write(&other, &earlier).unwrap();
    SqliteJournal::open(&other, "test").unwrap().append(at(9), COMMIT, [facts(), facts()].concat()).await.unwrap();

    for (what, bytes, last) in [("earlier", earlier, 7), ("torn", torn, 7), ("other", std::fs::read(&other).unwrap(), 21)] {
        std::fs::write(&path, bytes).unwrap();
        let error = SqliteJournal::open(&path, "test").unwrap_err();
        assert!(matches!(error, OpenError::Behind { acknowledged: 14, last: found, .. } if found == last), "{what}: {error:?}");
        assert!(error.to_string().contains("was put back to an earlier state"), "{error}");
        assert_eq!(verify(&path).unwrap_err().to_string(), error.to_string());
    }
    std::fs::write(&path, newest).unwrap();
    drop(SqliteJournal::open(&path, "test").unwrap());
    // The mark is a help and no more: cut off, it is passed over, and written again.
    let mark = folder.path().join("journal.sqlite.mark");
    let text = std::fs::read_to_string(&mark).unwrap();
    assert!(text.starts_with("00000000000000000014 ") && text.len() == 54, "{text}");
    std::fs::write(&mark, &text[..30]).unwrap();
    drop(SqliteJournal::open(&path, "test").unwrap());
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), text);
    // A new journal where there was one is another matter: nothing is installed on claim then.
    std::fs::remove_file(&path).unwrap();
    let journal = SqliteJournal::open(&path, "test").unwrap();
    assert_eq!(journal.get("journal-origin").await.unwrap().as_deref(), Some("after-a-loss"));
    journal.append(at(1), COMMIT, facts()).await.unwrap();
    assert!(std::fs::read_to_string(&mark).unwrap().starts_with("00000000000000000007 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_while_the_journal_is_written_and_put_back_with_the_brake_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("journal.db"), folder.path().join("backup.db"));
    let journal = Arc::new(SqliteJournal::open(&path, "test").unwrap());
    journal.append(at(1), COMMIT, facts()).await.unwrap();
    let writer = journal.clone();
    let writes = tokio::spawn(async move {
        for second in 2..60 {
            writer.append(at(second), COMMIT, facts()).await.unwrap();
        }
    });
    let survey = backup(&path, &copy, at(100)).unwrap();
    writes.await.unwrap();
    assert!(survey.records.is_multiple_of(7) && survey.records >= 7, "whole appends: {survey:?}");
    assert_eq!(verify(&copy).unwrap(), survey);
    assert_eq!(survey.backup.as_deref(), Some("2026-09-21T14:15:00Z"));
    let kept = std::fs::read(&copy).unwrap();
    assert!(matches!(backup(&path, &copy, at(100)), Err(CopyError::Exists { .. })));
    assert_eq!(std::fs::read(&copy).unwrap(), kept, "nothing is overwritten");
    let names = |name: &str| name.starts_with("backup.db");
    let left = std::fs::read_dir(folder.path()).unwrap().filter(|entry| names(entry.as_ref().unwrap().file_name().to_str().unwrap()));
    assert_eq!(left.count(), 1, "a backup is one file");

    let brake = BrakeFile::new(folder.path());
    let back = || restore(&copy, &path, &brake, "somebody".to_owned(), at(200));
    assert!(matches!(back(), Err(CopyError::Open(OpenError::Held { .. }))), "while a controller runs");
    assert_eq!(brake.holds().unwrap(), []);
    drop(journal);
    // Merely copied into place, it would be believed.
    let newest = folder.path().join("newest");
    std::fs::rename(&path, &newest).unwrap();
    std::fs::write(&path, &kept).unwrap();
    assert!(matches!(SqliteJournal::open(&path, "test"), Err(OpenError::Backup { .. })));
    std::fs::rename(&newest, &path).unwrap();

    let aside = back().unwrap().unwrap();
    assert_eq!(verify(&aside).unwrap().records, 59 * 7, "the one before is kept");
    let holds = brake.holds().unwrap();
    assert!(
        holds.len() == 1 && holds[0].scope == HoldScope::All && holds[0].reason.contains("backup of 2026-09-21T14:15:00Z"),
        "{holds:?}"
    );
    let journal = SqliteJournal::open(&path, "test").unwrap();
    assert_eq!(journal.records().await.unwrap().len() as u64, survey.records);
    // What was claimed since the backup is not known to be ours: it is not installed on claim a second time.
    assert_eq!(journal.get("journal-origin").await.unwrap().as_deref(), Some("after-a-loss"));
    journal.append(at(300), COMMIT, facts()).await.unwrap();
    assert_eq!(verify(&path).unwrap().backup, None);

    // A backup that is damaged is not put back.
    drop(journal);
    flip(&copy, b"\"fact\":\"claimed\",\"machine\":\"web-01", 1);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(back(), Err(CopyError::Open(OpenError::Damaged { .. }))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
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

#[test]
fn a_disk_too_full_for_the_new_format_leaves_the_earlier_one() {
    let Some(small) = Small::mount() else {
        println!("skipped: a small tmpfs can't be mounted (needs root)");
        return;
    };
    let path = small.0.path().join("journal.db");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1/journal.db"), &path).unwrap();
    let before = verify(&path).unwrap();
    let ballast = small.0.path().join("ballast");
    // Room for the files that SQLite makes beside it, not for what comes into them.
    std::fs::write(&ballast, vec![1; (512 - 32 - 48) << 10]).unwrap();
    let error = SqliteJournal::open(&path, "test").unwrap_err();
    assert!(matches!(error, OpenError::Sqlite { .. }), "{error:?}");
    assert_eq!(verify(&path).unwrap(), before);
    std::fs::remove_file(&ballast).unwrap();
    drop(SqliteJournal::open(&path, "test").unwrap());
    assert_eq!(verify(&path).unwrap().format, 2);
}

fn hold(name: &str) -> Hold {
    Hold { scope: HoldScope::Machine(machine(name)), by: "somebody".to_owned(), at: at(1), reason: "r".to_owned() }
}

#[test]
fn the_brake_is_moved_as_a_whole_and_what_is_not_a_brake_holds_everything() {
    use rackwright::ports::BrakeLever as _;
    let folder = tempfile::tempdir().unwrap();
    let brake = BrakeFile::new(folder.path());
    assert!(brake.position().is_off());
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let brake = brake.clone();
            std::thread::spawn(move || brake.change(|holds| holds.push(hold(&format!("web-{number}")))).unwrap())
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(brake.holds().unwrap().len(), 8, "of commands at the same time none is lost");
    // What a command left behind that was killed in the middle is not read, and in nobody's way.
    let new = folder.path().join("hold.json.new");
    std::fs::write(&new, "{").unwrap();
    assert_eq!(brake.holds().unwrap().len(), 8);
    brake.change(|holds| holds.truncate(1)).unwrap();
    assert!(!new.exists());

    let text = std::fs::read_to_string(brake.path()).unwrap();
    let name = brake.holds().unwrap()[0].scope.to_string();
    for (changed, what) in [
        (text.replace(&format!("\"{name}\""), "\"web-9\""), "its checksum does not match"),
        (text[..text.len() / 2].to_owned(), "EOF while parsing"),
        (String::new(), "EOF while parsing"),
        (text.replace("\"version\": 1", "\"version\": 2"), "it has form 2, and this release reads up to 1"),
        (text.replace("\"by\"", "\"until\": 1, \"by\""), "unknown field `until`"),
    ] {
        assert_ne!(changed, text);
        std::fs::write(brake.path(), &changed).unwrap();
        let why = brake.position().unreadable.unwrap();
        assert!(why.contains(what) && why.contains("everything is held"), "{why}");
        assert!(matches!(brake.change(Vec::clear), Err(BrakeError::Nonsense { .. })));
        assert_eq!(std::fs::read_to_string(brake.path()).unwrap(), changed, "nothing is let go by accident");
    }
    std::fs::write(brake.path(), text).unwrap();
    brake.change(Vec::clear).unwrap();
    assert!(brake.position().is_off() && !brake.path().exists());
    // A state folder whose disk is not mounted.
    let away = BrakeFile::new(&folder.path().join("away"));
    assert!(away.position().unreadable.unwrap().contains("is its disk mounted"));
}

#[test]
fn the_brake_is_readable_for_the_controller_whatever_the_umask_of_who_pulls_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let brake = BrakeFile::new(folder.path());
    brake.change(|holds| holds.push(hold("web-1"))).unwrap();
    assert_eq!(std::fs::metadata(brake.path()).unwrap().permissions().mode() & 0o777, 0o644);
}
