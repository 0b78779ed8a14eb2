//! Following a branch: what is read, what is refused, and how often.
#![allow(clippy::unwrap_used, missing_docs)]

mod git_support;

use std::{os::unix::fs::symlink, sync::Arc, time::Duration};

use git_support::{Fleet, git};
use rackwright::{
    git::{Config, FILE_LIMIT, GitSource},
    model::{FileKind, RetryClass, Snapshot},
    ports::{Source as _, SourceError},
};

fn open(fleet: &Fleet) -> GitSource {
    GitSource::open(fleet.config(), &fleet.ours()).unwrap()
}

async fn refused(source: &GitSource, in_force: Option<rackwright::model::CommitId>) -> SourceError {
    source.latest(in_force, false).await.unwrap_err()
}

fn text<'a>(snapshot: &'a Snapshot, path: &str) -> &'a str {
    std::str::from_utf8(&snapshot.files[path].bytes).unwrap()
}

#[tokio::test]
async fn a_commit_comes_with_its_files_and_an_unchanged_branch_with_the_same_ones() {
    let fleet = Fleet::new();
    let source = open(&fleet);
    let first = source.latest(None, false).await.unwrap();
    assert_eq!(first.commit.id, fleet.head());
    assert_eq!(first.commit.subject, "first");
    assert_eq!(first.commit.author, "Ada <ada@example.com>");
    assert_eq!(first.files.keys().collect::<Vec<_>>(), ["README.md", "machines/web-01.yaml"]);
    assert_eq!(text(&first, "machines/web-01.yaml"), "one\n");
    let again = source.latest(Some(first.commit.id), false).await.unwrap();
    assert!(Arc::ptr_eq(&first.files, &again.files));

    let second = fleet.push(&[("machines/web-01.yaml", "two\n"), ("machines/rack/web-02.yaml", "new\n")], "second");
    let now = source.latest(Some(first.commit.id), false).await.unwrap();
    assert_eq!(now.commit.id, second);
    assert_eq!(text(&now, "machines/web-01.yaml"), "two\n");
    assert_eq!(text(&now, "machines/rack/web-02.yaml"), "new\n");
    assert!(Arc::ptr_eq(&first.files["README.md"].bytes, &now.files["README.md"].bytes), "unchanged bytes are shared");

    // A restart goes on with a commit that is in the clone, without the remote.
    std::fs::rename(fleet.bare(), fleet.folder.path().join("elsewhere")).unwrap();
    let restarted = open(&fleet);
    assert_eq!(restarted.at(first.commit.id).await.unwrap().files, first.files);
    assert_eq!(restarted.at(second).await.unwrap().files, now.files);
    assert_eq!(restarted.at(rackwright::model::CommitId([1; 20])).await.unwrap_err().class, RetryClass::Failed);
}

#[tokio::test]
async fn an_incremental_read_gives_what_a_whole_read_gives() {
    let fleet = Fleet::new();
    let source = open(&fleet);
    source.latest(None, false).await.unwrap();
    let person = fleet.person();
    // Beside many files that stay, changes are few.
    std::fs::create_dir(person.join("others")).unwrap();
    (0..60).for_each(|number| std::fs::write(person.join(format!("others/{number}")), "stays").unwrap());
    fleet.push(&[], "others");
    source.latest(None, false).await.unwrap();
    let mut earlier = Vec::new();
    let changes: [&dyn Fn(); 6] = [
        &|| std::fs::rename(person.join("machines"), person.join("hosts")).unwrap(),
        &|| {
            // A folder becomes a file, and a file a folder.
            std::fs::remove_dir_all(person.join("hosts")).unwrap();
            std::fs::write(person.join("hosts"), "a file").unwrap();
            std::fs::remove_file(person.join("README.md")).unwrap();
            std::fs::create_dir_all(person.join("README.md/a/b")).unwrap();
            std::fs::write(person.join("README.md/a/b/c"), "deep").unwrap();
        },
        &|| symlink("/etc/passwd", person.join("link")).unwrap(),
        &|| {
            std::fs::remove_file(person.join("link")).unwrap();
            std::fs::write(person.join("link"), "a file now").unwrap();
        },
        &|| std::fs::write(person.join("a\nb.yaml"), "line end in its name").unwrap(),
        &|| std::fs::remove_dir_all(person.join("README.md")).unwrap(),
    ];
    for change in changes {
        change();
        fleet.push(&[], "change");
        let snapshot = source.latest(None, false).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let fresh = GitSource::open(fleet.config(), folder.path()).unwrap().latest(None, false).await.unwrap();
        assert_eq!(snapshot.files, fresh.files);
        let listed = git(&person, &["ls-tree", "-r", "-z", "--name-only", "HEAD"]);
        let mut names: Vec<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        assert_eq!(fresh.files.keys().collect::<Vec<_>>(), names);
        // Some keep what they were given for a while.
        earlier.push((snapshot.files, fresh.files));
        if earlier.len() == 4 {
            earlier.remove(0);
        }
        assert!(earlier.iter().all(|(given, fresh)| given == fresh));
    }
}

#[tokio::test]
async fn of_ten_thousand_files_only_the_changed_one_is_read() {
    let fleet = Fleet::empty();
    for number in 0..10_000 {
        let path = fleet.person().join(format!("machines/rack-{:03}/m-{number:05}.yaml", number / 40));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("machine {number}\n")).unwrap();
    }
    fleet.push(&[], "many");
    let source = open(&fleet);
    let first = source.latest(None, false).await.unwrap();
    assert_eq!((first.files.len(), source.blobs_read()), (10_000, 10_000));
    fleet.push(&[("machines/rack-100/m-04000.yaml", "changed\n")], "one");
    let began = std::time::Instant::now();
    let second = source.latest(Some(first.commit.id), false).await.unwrap();
    println!("one of 10,000 files changed: snapshot in {:?}", began.elapsed());
    assert_eq!(source.blobs_read(), 10_001);
    assert_eq!(text(&second, "machines/rack-100/m-04000.yaml"), "changed\n");
    // Moving a folder reads nothing: the bytes are known.
    git(&fleet.person(), &["mv", "machines", "hosts"]);
    fleet.push_index("move");
    let third = source.latest(Some(second.commit.id), false).await.unwrap();
    assert_eq!((third.files.len(), source.blobs_read()), (10_000, 10_001));
}

#[tokio::test]
async fn an_empty_repository_and_a_missing_branch_say_so_and_pass() {
    let fleet = Fleet::empty();
    let source = open(&fleet);
    let error = refused(&source, None).await;
    assert_eq!(error.class, RetryClass::Wait);
    assert!(error.message.contains("is empty: push a first commit to its branch main"), "{error}");
    fleet.push(&[("a", "a")], "first");
    source.latest(None, false).await.unwrap();
    git(&fleet.person(), &["push", "-q", "origin", "main:other"]);
    git(&fleet.bare(), &["branch", "-q", "-D", "main"]);
    let error = refused(&source, Some(fleet.head())).await;
    assert_eq!(error.class, RetryClass::Wait);
    assert!(error.message.contains("has no branch main; it has other"), "{error}");
    git(&fleet.person(), &["push", "-q", "origin", "main:main"]);
    source.latest(Some(fleet.head()), false).await.unwrap();
}

#[tokio::test]
async fn a_rewritten_history_is_refused_unless_it_is_allowed() {
    let fleet = Fleet::new();
    let source = open(&fleet);
    let first = source.latest(None, false).await.unwrap().commit.id;
    let second = fleet.push(&[("a", "a")], "second");
    assert_eq!(source.latest(Some(first), false).await.unwrap().commit.id, second);
    git(&fleet.person(), &["reset", "-q", "--hard", &first.to_string()]);
    let rewritten = fleet.push(&[("b", "b")], "rewritten");
    let error = refused(&source, Some(second)).await;
    assert_eq!(error.class, RetryClass::Stalled);
    for part in [&rewritten.to_string(), &second.to_string(), "stays in force", "allowForcePush"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    // Both ways on: what was in force can be read, also after a restart, and the new history once it is allowed.
    assert_eq!(source.at(second).await.unwrap().commit.id, second);
    assert_eq!(open(&fleet).at(second).await.unwrap().commit.id, second);
    assert_eq!(source.latest(Some(second), true).await.unwrap().commit.id, rewritten);
    // Going back to an ancestor is a rewrite too.
    git(&fleet.person(), &["reset", "-q", "--hard", &first.to_string()]);
    git(&fleet.person(), &["push", "-q", "--force", "origin", "HEAD:main"]);
    assert_eq!(refused(&source, Some(rewritten)).await.class, RetryClass::Stalled);
    // A clone that was removed does not make us forget what is in force.
    std::fs::remove_dir_all(fleet.ours()).unwrap();
    assert_eq!(refused(&open(&fleet), Some(rewritten)).await.class, RetryClass::Stalled);
}

#[tokio::test]
async fn a_repository_that_is_gone_is_waited_for() {
    let fleet = Fleet::new();
    let source = open(&fleet);
    source.latest(None, false).await.unwrap();
    let away = fleet.folder.path().join("away.git");
    std::fs::rename(fleet.bare(), &away).unwrap();
    let error = refused(&source, Some(fleet.head())).await;
    assert_eq!(error.class, RetryClass::Wait, "{error}");
    assert!(error.message.contains("fleet.git"), "{error}");
    std::fs::rename(&away, fleet.bare()).unwrap();
    let second = fleet.push(&[("a", "a")], "second");
    assert_eq!(source.latest(None, false).await.unwrap().commit.id, second);
}

#[tokio::test]
async fn formats_that_are_not_supported_say_so() {
    for (option, part) in [("--ref-format=reftable", "not reftable"), ("--object-format=sha256", "SHA-1 objects")] {
        let folder = tempfile::tempdir().unwrap();
        if !git_support::try_git(folder.path(), &["init", "-q", "--bare", option, "fleet.git"]) {
            println!("skipped: git is too old for {option}");
            continue;
        }
        let config = Config::new(folder.path().join("fleet.git").to_str().unwrap().parse().unwrap());
        let error = GitSource::open(config, &folder.path().join("ours.git")).unwrap().latest(None, false).await.unwrap_err();
        assert_eq!(error.class, RetryClass::Stalled, "{error}");
        assert!(error.message.contains(part), "{error}");
    }
}

#[tokio::test]
async fn hostile_trees_are_kept_as_they_are_or_refused() {
    let fleet = Fleet::new();
    let person = fleet.person();
    symlink("../../etc/shadow", person.join("link.yaml")).unwrap();
    std::fs::write(person.join("huge.yaml"), vec![b'x'; FILE_LIMIT + 5]).unwrap();
    std::fs::write(person.join("enormous.yaml"), vec![b'y'; 17 << 20]).unwrap();
    std::fs::write(person.join("new\nline.yaml"), "n").unwrap();
    std::fs::write(person.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9.yaml")), "c").unwrap();
    git(&person, &["add", "-A"]);
    git(&person, &["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", fleet.head())]);
    fleet.push_index("hostile");
    let source = open(&fleet);
    let good = source.latest(None, false).await.unwrap();
    let kind = |path: &str| (good.files[path].kind, good.files[path].bytes.len());
    assert_eq!(kind("link.yaml"), (FileKind::Symlink, 0));
    assert_eq!(kind("sub"), (FileKind::Submodule, 0));
    assert_eq!(kind("huge.yaml"), (FileKind::Regular, FILE_LIMIT + 1));
    assert_eq!(kind("enormous.yaml"), (FileKind::Regular, FILE_LIMIT + 1));
    assert!(good.files["huge.yaml"].bytes.iter().all(|byte| *byte == b'x'));
    assert_eq!(text(&good, "new\nline.yaml"), "n");
    assert_eq!(text(&good, "caf\u{fffd}e9.yaml"), "c");

    // Small trees that name each other: 16 levels of 16 would be 2^64 files.
    let repository = git2::Repository::open(&person).unwrap();
    let leaf = repository.blob(b"x").unwrap();
    let mut tree = leaf;
    let mut trees = Vec::new();
    for level in 0..200 {
        let mut builder = repository.treebuilder(None).unwrap();
        for name in 0..(if level < 16 { 16 } else { 1 }) {
            builder.insert(format!("n{name:02}"), tree, if level == 0 { 0o100_644 } else { 0o040_000 }).unwrap();
        }
        tree = builder.write().unwrap();
        trees.push(tree);
    }
    for (tree, why) in [(trees[15], "more than 1000000 files"), (trees[199], "more than 64 deep")] {
        let id = git(&person, &["commit-tree", "-m", "bomb", "-p", "HEAD", &tree.to_string()]);
        git(&person, &["push", "-q", "--force", "origin", &format!("{id}:main")]);
        let error = refused(&source, Some(good.commit.id)).await;
        assert_eq!(error.class, RetryClass::Failed);
        assert!(error.message.contains(why), "{error}");
    }
    // The next good commit is read as if nothing had been.
    let next = fleet.push(&[("machines/web-01.yaml", "two\n")], "good again");
    let snapshot = source.latest(Some(good.commit.id), false).await.unwrap();
    assert_eq!(snapshot.commit.id, next);
    // `git add -A` took the submodule away, which is in no folder.
    assert_eq!(snapshot.files.len(), good.files.len() - 1);
}

/// Whether `changed` returned within a time that only matters when it fails.
async fn woken(source: &GitSource) -> bool {
    tokio::time::timeout(Duration::from_secs(20), source.changed()).await.is_ok()
}

#[tokio::test]
async fn a_push_to_a_local_repository_wakes_us_and_our_own_looks_do_not() {
    let fleet = Fleet::new();
    let mut config = fleet.config();
    config.poll = "1h".parse().unwrap();
    let source = GitSource::open(config, &fleet.ours()).unwrap();
    source.latest(None, false).await.unwrap();
    // What the watch itself stirred up.
    while tokio::time::timeout(Duration::from_millis(500), source.changed()).await.is_ok() {}
    for _ in 0..3 {
        source.latest(None, false).await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(500), source.changed()).await;
        assert!(quiet.is_err(), "looking must not wake us");
    }
    let second = fleet.push(&[("a", "a")], "second");
    assert!(woken(&source).await);
    assert_eq!(source.latest(None, false).await.unwrap().commit.id, second);
    git(&fleet.bare(), &["pack-refs", "--all"]);
    let third = fleet.push(&[("a", "b")], "third");
    assert!(woken(&source).await);
    assert_eq!(source.latest(None, false).await.unwrap().commit.id, third);
    // Moved away and back, and then removed and made anew by someone.
    let away = fleet.folder.path().join("away.git");
    std::fs::rename(fleet.bare(), &away).unwrap();
    assert!(woken(&source).await);
    assert!(source.latest(None, false).await.is_err());
    git(fleet.folder.path(), &["clone", "-q", "--bare", "away.git", "fleet.git"]);
    assert!(woken(&source).await);
    assert_eq!(source.latest(None, false).await.unwrap().commit.id, third);
    // Watches are on the new folder once `changed` was called again.
    while tokio::time::timeout(Duration::from_millis(500), source.changed()).await.is_ok() {}
    let fourth = fleet.push(&[("a", "c")], "fourth");
    assert!(woken(&source).await);
    assert_eq!(source.latest(None, false).await.unwrap().commit.id, fourth);
}

#[tokio::test]
async fn without_events_the_poll_wakes_us() {
    let fleet = Fleet::new();
    let mut config = fleet.config();
    config.poll = "1s".parse().unwrap();
    config.url = "https://127.0.0.1:1/fleet.git".parse().unwrap();
    let source = GitSource::open(config, &fleet.ours()).unwrap();
    assert!(woken(&source).await);
    let error = source.latest(None, false).await.unwrap_err();
    assert_eq!(error.class, RetryClass::Wait, "{error}");
}

#[test]
fn the_configuration_reads_as_written_and_refuses_what_it_does_not_know() {
    let yaml = "{url: 'git@example.com:fleet.git', poll: 1m 30s, sshKey: /k, notes: {push: false}}";
    let config: Config = serde_yaml::from_str(yaml).unwrap();
    assert_eq!(config.branch, "main");
    assert_eq!(config.poll.as_secs(), 90);
    assert!(!config.notes.push);
    assert_eq!(config.notes.name, "Rackwright");
    assert!(serde_yaml::from_str::<Config>("{url: /x, sshkey: /k}").is_err());
    let error = serde_yaml::from_str::<Config>("{url: 'http://example.com/x'}").unwrap_err().to_string();
    assert!(error.contains("use https:// or ssh://"), "{error}");
}
