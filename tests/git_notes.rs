//! Notes that others write too, and a remote that refuses.
#![allow(clippy::unwrap_used, missing_docs)]

mod git_support;

use std::{collections::BTreeMap, path::Path};

use git_support::{Fleet, git};
use rackwright::{
    git::{Config, GitNotes, GitSource, notes_setup},
    model::{CommitId, RetryClass, SiteName},
    ports::{Notes as _, Source as _},
};

const REF: &str = "refs/notes/rackwright/berlin/status";

fn site() -> SiteName {
    SiteName::new("berlin").unwrap()
}

fn open(config: &Config, dir: &Path) -> GitNotes {
    GitNotes::open(config.clone(), dir, site()).unwrap()
}

/// All notes of a repository as git reads them. Panics when git finds one twice.
fn notes(repository: &Path) -> BTreeMap<String, String> {
    let list = git(repository, &["notes", "--ref", REF, "list"]);
    let mut notes = BTreeMap::new();
    for line in list.lines() {
        let (blob, about) = line.split_once(' ').unwrap();
        assert_eq!(notes.insert(about.to_owned(), git(repository, &["cat-file", "blob", blob])), None);
    }
    // Git's own list joins notes that are there twice; the tree must not have them twice.
    let files = git(repository, &["ls-tree", "-r", "--name-only", REF]);
    assert_eq!(files.lines().count(), notes.len(), "{files}");
    notes
}

/// Ids that need not be commits: a note may be about any id.
fn id(number: u32) -> CommitId {
    let mut id = [0; 20];
    id[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
    id[16..].copy_from_slice(&number.to_be_bytes());
    CommitId(id)
}

#[tokio::test]
async fn a_note_is_shown_by_git_log_after_the_setup() {
    let fleet = Fleet::new();
    let head = fleet.head();
    let notes_of_ours = open(&fleet.config(), &fleet.ours());
    assert!(!notes_of_ours.exist().await.unwrap());
    notes_of_ours.write(vec![(head, "2 of 3 machines are ready\n\nRackwright-State: Reconciling\n".into())]).await.unwrap();
    assert!(notes_of_ours.exist().await.unwrap());
    notes_of_ours.write(vec![(head, "all machines are ready\n\nRackwright-State: Ready\n".into())]).await.unwrap();
    assert_eq!(notes(&fleet.bare()).len(), 1);
    assert_eq!(git(&fleet.bare(), &["log", "--format=%an <%ae> %s", REF]).lines().count(), 2);
    // Law 13: nothing else changed on the remote.
    assert_eq!(git(&fleet.bare(), &["for-each-ref", "--format=%(refname)"]), format!("refs/heads/main\n{REF}"));

    let person = fleet.person();
    assert_eq!(notes_setup(&person).unwrap().added.len(), 2);
    assert!(notes_setup(&person).unwrap().added.is_empty(), "a second time changes nothing");
    git(&person, &["fetch", "-q"]);
    for args in [&["log", "-1"][..], &["log", "-1", "--notes=rackwright/*"]] {
        let log = git(&person, args);
        assert!(log.contains("Notes (rackwright/berlin/status):") && log.contains("Rackwright-State: Ready"), "{log}");
        assert!(!log.contains("2 of 3"), "{log}");
    }
    assert!(git(&person, &["branch", "-r"]).contains("origin/main"), "branches are fetched as before");
    // The same again is not a commit.
    notes_of_ours.write(vec![(head, "all machines are ready\n\nRackwright-State: Ready\n".into())]).await.unwrap();
    assert_eq!(git(&fleet.bare(), &["rev-list", "--count", REF]), "2");
}

/// Where notes are not pushed, our own clone has to tell that a controller worked here before.
#[tokio::test]
async fn a_clone_shows_that_a_controller_worked_with_it() {
    let fleet = Fleet::new();
    let mut config = fleet.config();
    config.notes.push = false;
    let source = GitSource::open(config.clone(), &fleet.ours()).unwrap();
    let notes = open(&config, &fleet.ours());
    let first = source.latest(None, false).await.unwrap().commit.id;
    assert!(!notes.traces().await.unwrap(), "what is fetched was not in force yet");
    source.latest(Some(first), false).await.unwrap();
    assert!(notes.traces().await.unwrap() && !notes.exist().await.unwrap());

    let other = open(&config, &fleet.folder.path().join("other.git"));
    assert!(!other.traces().await.unwrap());
    other.write(vec![(first, "kept here".into())]).await.unwrap();
    assert!(other.traces().await.unwrap() && !other.exist().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_and_the_git_program_lose_nothing() {
    let fleet = Fleet::new();
    let writers = [1_u32, 2].map(|writer| {
        let notes = open(&fleet.config(), &fleet.folder.path().join(format!("writer-{writer}.git")));
        tokio::spawn(async move {
            for number in 0..20 {
                let number = writer * 1000 + number;
                notes.write(vec![(id(number), format!("note {number}"))]).await.unwrap();
            }
        })
    });
    let person = fleet.person();
    let head = fleet.head().to_string();
    let by_hand = tokio::task::spawn_blocking(move || {
        for _ in 0..200 {
            let fetched = git_support::try_git(&person, &["fetch", "-q", "origin", &format!("+{REF}:{REF}")]);
            if fetched {
                git(&person, &["notes", "--ref", REF, "add", "-f", "-m", "by hand", &head]);
                if git_support::try_git(&person, &["push", "-q", "origin", REF]) {
                    return;
                }
            }
        }
        panic!("git never got its push through");
    });
    for writer in writers {
        writer.await.unwrap();
    }
    by_hand.await.unwrap();
    let found = notes(&fleet.bare());
    assert_eq!(found.len(), 41, "{:?}", found.values());
    assert_eq!(found[&fleet.head().to_string()].trim(), "by hand");
    for number in (1000..1020).chain(2000..2020) {
        assert_eq!(found[&id(number).to_string()], format!("note {number}"));
    }
    assert!(git_support::try_git(&fleet.bare(), &["fsck", "--strict", "--no-dangling"]));
}

#[tokio::test]
async fn ten_thousand_notes_are_one_commit() {
    let fleet = Fleet::new();
    let ours = open(&fleet.config(), &fleet.ours());
    let text = |number: u32, state: &str| {
        format!(
            "Machine m-{number:05} is {state}\n\nRackwright-State: {state}\nRackwright-Ready: {number}/10000\n{{\"state\":\"{state}\",\"n\":{number}}}\n"
        )
    };
    for state in ["Reconciling", "Ready"] {
        let batch: Vec<_> = (0..10_000).map(|number| (id(number), text(number, state))).collect();
        let began = std::time::Instant::now();
        ours.write(batch).await.unwrap();
        println!("10,000 notes in one commit, pushed: {:?}", began.elapsed());
    }
    let began = std::time::Instant::now();
    ours.write(vec![(fleet.head(), "one more".into())]).await.unwrap();
    println!("one note on top of 10,000, pushed: {:?}", began.elapsed());
    assert_eq!(git(&fleet.bare(), &["rev-list", "--count", REF]), "3");
    let list = git(&fleet.bare(), &["notes", "--ref", REF, "list"]);
    assert_eq!(list.lines().count(), 10_001);
    assert_eq!(git(&fleet.bare(), &["ls-tree", "-r", "--name-only", REF]).lines().count(), 10_001);
    let one = git(&fleet.bare(), &["notes", "--ref", REF, "list", &fleet.head().to_string()]);
    assert_eq!(git(&fleet.bare(), &["cat-file", "blob", &one]), "one more");
    assert!(git_support::try_git(&fleet.ours(), &["fsck", "--strict", "--no-dangling"]));
}

#[tokio::test]
async fn what_could_not_be_pushed_goes_with_the_next_note() {
    let fleet = Fleet::new();
    let ours = open(&fleet.config(), &fleet.ours());
    let away = fleet.folder.path().join("away.git");
    std::fs::rename(fleet.bare(), &away).unwrap();
    let error = ours.write(vec![(id(1), "one".into())]).await.unwrap_err();
    assert_eq!(error.class, RetryClass::Wait, "{error}");
    assert_eq!(ours.exist().await.unwrap_err().class, RetryClass::Wait);
    std::fs::rename(&away, fleet.bare()).unwrap();
    ours.write(vec![(id(2), "two".into())]).await.unwrap();
    assert_eq!(notes(&fleet.bare()).len(), 2);
    // Someone removes the ref: the next note makes it again.
    git(&fleet.bare(), &["update-ref", "-d", REF]);
    ours.write(vec![(id(3), "three".into())]).await.unwrap();
    assert!(notes(&fleet.bare()).contains_key(&id(3).to_string()));
    // Another controller's clone that knows nothing goes on from what is there.
    let other = open(&fleet.config(), &fleet.folder.path().join("other.git"));
    other.write(vec![(id(4), "four".into())]).await.unwrap();
    assert!(notes(&fleet.bare()).len() >= 2);
}

#[tokio::test]
async fn without_push_the_notes_stay_with_us() {
    let fleet = Fleet::new();
    let mut config = fleet.config();
    config.notes.push = false;
    open(&config, &fleet.ours()).write(vec![(id(1), "one".into())]).await.unwrap();
    assert_eq!(notes(&fleet.ours()).len(), 1);
    assert_eq!(git(&fleet.bare(), &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
}

#[test]
fn a_site_whose_name_git_does_not_take_is_refused_at_once() {
    let fleet = Fleet::new();
    for name in ["a..b", "berlin.lock"] {
        let error = GitNotes::open(fleet.config(), &fleet.ours(), SiteName::new(name).unwrap()).err().unwrap();
        assert_eq!(error.class, RetryClass::Stalled);
        assert!(error.message.contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_clone_stays_small_over_many_notes() {
    let fleet = Fleet::new();
    let config = {
        let mut config = fleet.config();
        config.notes.push = false;
        config
    };
    let ours = open(&config, &fleet.ours());
    // The sync of each loose object's file is not what is tried here.
    git(&fleet.ours(), &["config", "core.fsyncObjectFiles", "false"]);
    for number in 0..2_000 {
        ours.write(vec![(id(number % 300), format!("state {number}\n"))]).await.unwrap();
    }
    let count = git(&fleet.ours(), &["count-objects", "-v"]);
    let value = |key: &str| -> u64 {
        let line = count.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(": ").parse().unwrap()
    };
    println!("after 2,000 notes: {}", count.replace('\n', ", "));
    assert!(value("count") < 3_000, "{count}");
    assert!(value("packs") < 20 && value("in-pack") > 5_000, "{count}");
    assert!(value("size") + value("size-pack") < 24 * 1024, "KiB: {count}");
    assert!(git_support::try_git(&fleet.ours(), &["fsck", "--strict", "--no-dangling"]));
    assert_eq!(notes(&fleet.ours()).len(), 300);
}
