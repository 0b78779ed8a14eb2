//! What was acknowledged is there after SIGKILL, and its numbers have no gaps.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use rackwright::{
    journal::{OpenError, SqliteJournal},
    model::{CommitId, Fact, MachineName, Timestamp},
    ports::Journal as _,
};

/// Set for the child: the journal to write to.
const CHILD: &str = "RACKWRIGHT_TEST_JOURNAL";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn released(name: &str) -> Fact {
    Fact::Released { machine: MachineName::new(name).unwrap() }
}

fn child(path: &Path) -> Killed {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "appends_for_ever_as_a_child", "--nocapture"]).env(CHILD, path).stdout(Stdio::piped()).stderr(Stdio::null());
    Killed(command.spawn().unwrap())
}

/// Not a test: what the child of the tests below runs. Prints the number of each record after it was acknowledged.
#[test]
fn appends_for_ever_as_a_child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let journal = SqliteJournal::open(Path::new(&path), "the child").unwrap();
        loop {
            let facts = vec![released("web-01"), released("web-02"), released("web-03")];
            let records = journal.append(Timestamp::now(), CommitId([7; 20]), facts).await.unwrap();
            println!("ack {}", records.last().unwrap().seq);
        }
    });
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let mut before = 0;
    for round in 1..=8_usize {
        let mut child = child(&path);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        let seen = lines.by_ref().filter(|line| line.starts_with("ack ")).nth(round * 7);
        assert!(seen.is_some(), "the child ended by itself");
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        // What is still in the pipe was acknowledged too; a last line may be torn.
        let acks = seen.into_iter().chain(lines).filter_map(|line| line.strip_prefix("ack ")?.parse::<u64>().ok());
        let acknowledged = acks.filter(|seq| seq % 3 == 0).max().unwrap();

        let journal = SqliteJournal::open(&path, "the test").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let records = runtime.block_on(journal.records()).unwrap();
        assert!(records.len() as u64 >= acknowledged, "{} < {acknowledged}", records.len());
        assert!(records.len() as u64 >= before);
        assert_eq!(records.len() % 3, 0, "an append is whole or not there");
        assert!(records.iter().zip(1..).all(|(record, seq)| record.seq == seq));
        before = records.len() as u64;
    }
}

#[test]
fn a_second_controller_is_told_who_holds_the_journal_until_that_one_dies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let mut child = child(&path);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("ack ")));
    let error = SqliteJournal::open(&path, "the test").unwrap_err();
    let OpenError::Held { holder, .. } = &error else { panic!("{error}") };
    assert!(holder.starts_with(&format!("the child (process {} on ", child.0.id())), "{holder}");
    // Reading needs no lock.
    assert!(!SqliteJournal::read_only(&path).unwrap().records_after(0).unwrap().is_empty());
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    drop(SqliteJournal::open(&path, "the test").unwrap());
}

/// SQLite replays its write-ahead log up to the first frame that is wrong, and says nothing of those after it.
#[test]
fn a_torn_write_ahead_log_is_not_taken_for_a_shorter_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let mut child = child(&path);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().filter(|line| line.starts_with("ack ")).nth(20).is_some());
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let log = folder.path().join("journal.sqlite-wal");
    let whole = std::fs::read(&log).unwrap();
    let open = || SqliteJournal::open(&path, "the test");
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));
    let damage: [Damage<'_>; 3] = [
        ("a bit", &|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }),
        ("its end", &|bytes| bytes.truncate(bytes.len() - 5000)),
        ("all of it", &|bytes| bytes.clear()),
    ];
    let main = std::fs::read(&path).unwrap();
    for (what, damage) in damage {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        std::fs::write(&path, &main).unwrap();
        std::fs::write(&log, bytes).unwrap();
        let _ = std::fs::remove_file(folder.path().join("journal.sqlite-shm"));
        match open() {
            Err(OpenError::Behind { acknowledged, last, .. }) => assert!(last < acknowledged, "{what}"),
            // Nothing but the log held a record yet: a new journal, which installs nothing on claim where there was one before.
            Ok(journal) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let origin = runtime.block_on(journal.get("journal-origin")).unwrap();
                assert_eq!(origin.as_deref(), Some("after-a-loss"), "{what}");
                drop(journal);
                assert!(what != "its end", "{what}");
                assert!(SqliteJournal::read_only(&path).unwrap().records_after(0).unwrap().is_empty(), "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}
