//! A person's clone: `init`, `plan --base --head`, `validate` and `notes setup`.
#![allow(clippy::unwrap_used, missing_docs)]

mod git_support;

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path};

use git_support::{Fleet, git};
use rackwright::{
    git::{FILE_LIMIT, init_repository, notes_setup, read_tree_at, read_worktree},
    model::FileKind,
};

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn names(dir: &Path) -> Vec<String> {
    read_worktree(dir).unwrap().into_keys().collect()
}

#[test]
fn a_new_repository_has_branch_main_and_is_committed_only_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("fleet");
    let some = files(&[("README.md", "fleet\n"), ("machines/web-01.yaml", "one\n")]);
    assert_eq!(init_repository(&dir, &some, None).unwrap(), None);
    assert_eq!(git(&dir, &["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(git(&dir, &["status", "--porcelain"]), "A  README.md\nA  machines/web-01.yaml");

    let error = init_repository(&dir, &files(&[("a", "a"), ("README.md", "other")]), Some("x")).unwrap_err();
    assert!(error.message.contains("README.md is there already; nothing was written"), "{error}");
    assert!(!dir.join("a").exists());

    let id = init_repository(&dir, &files(&[("a", "a")]), Some("A fleet")).unwrap().unwrap();
    assert_eq!(git(&dir, &["rev-parse", "main"]), id.to_string());
    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    assert_eq!(git(&dir, &["ls-tree", "-r", "--name-only", "HEAD"]), "README.md\na\nmachines/web-01.yaml");
    // In an existing repository the next commit follows the last.
    init_repository(&dir, &files(&[("b", "b")]), Some("More")).unwrap();
    assert_eq!(git(&dir, &["rev-list", "--count", "HEAD"]), "2");
}

#[test]
fn any_revision_of_a_clone_can_be_read() {
    let fleet = Fleet::new();
    let first = fleet.head();
    let second = fleet.push(&[("machines/web-01.yaml", "two\n")], "second");
    fs::write(fleet.person().join("machines/web-01.yaml"), "not committed\n").unwrap();
    for (revision, id, text) in [("HEAD~1", first, "one\n"), ("main", second, "two\n"), (&second.to_string(), second, "two\n")] {
        let snapshot = read_tree_at(&fleet.person().join("machines"), revision).unwrap();
        assert_eq!(snapshot.commit.id, id);
        assert_eq!(&*snapshot.files["machines/web-01.yaml"].bytes, text.as_bytes());
    }
    let error = read_tree_at(&fleet.person(), "nonsense").unwrap_err();
    assert!(error.message.contains("nonsense"), "{error}");
    let error = read_tree_at(tempfile::tempdir().unwrap().path(), "HEAD").unwrap_err();
    assert!(error.message.contains("find a Git repository"), "{error}");
}

#[test]
fn a_folder_is_read_as_a_commit_of_it_would_be() {
    let fleet = Fleet::new();
    let dir = fleet.person();
    fs::write(dir.join(".gitignore"), "*.tmp\nbuild/\n").unwrap();
    fs::write(dir.join("kept.tmp"), "added in spite of the rule").unwrap();
    git(&dir, &["add", "-f", "kept.tmp"]);
    fs::write(dir.join("junk.tmp"), "junk").unwrap();
    fs::create_dir_all(dir.join("build/deep")).unwrap();
    fs::write(dir.join("build/deep/file"), "junk").unwrap();
    fs::write(dir.join("new\nline.yaml"), "not committed").unwrap();
    fs::write(dir.join("machines/web-01.yaml"), "changed, not committed\n").unwrap();
    fs::write(dir.join("huge.yaml"), vec![b'x'; FILE_LIMIT + 7]).unwrap();
    symlink("/etc", dir.join("link")).unwrap();
    symlink("..", dir.join("machines/loop")).unwrap();
    git(&dir, &["init", "-q", "sub"]);
    git(&dir.join("sub"), &["commit", "-q", "--allow-empty", "-m", "x"]);
    assert!(std::process::Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap().success());

    let read = read_worktree(&dir).unwrap();
    let expected =
        [".gitignore", "README.md", "huge.yaml", "kept.tmp", "link", "machines/loop", "machines/web-01.yaml", "new\nline.yaml", "sub"];
    assert_eq!(read.keys().collect::<Vec<_>>(), expected);
    assert_eq!((read["link"].kind, read["link"].bytes.len()), (FileKind::Symlink, 0));
    assert_eq!(read["machines/loop"].kind, FileKind::Symlink);
    assert_eq!(read["sub"].kind, FileKind::Submodule);
    assert_eq!(read["huge.yaml"].bytes.len(), FILE_LIMIT + 1);
    assert_eq!(&*read["machines/web-01.yaml"].bytes, b"changed, not committed\n");

    fs::remove_file(dir.join("pipe")).unwrap();
    fleet.push(&[], "all of it");
    assert_eq!(read_tree_at(&dir, "HEAD").unwrap().files.as_ref(), &read, "the commit has the same files with the same ids");
    assert_eq!(names(&dir.join("machines")), ["loop", "web-01.yaml"], "a part of a clone");
}

#[test]
fn a_folder_outside_any_repository_is_read_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("machines")).unwrap();
    fs::write(folder.path().join("machines/a.yaml"), "a").unwrap();
    assert_eq!(names(folder.path()), ["machines/a.yaml"]);
    assert!(read_worktree(&folder.path().join("none")).is_err());
}

#[test]
fn the_notes_setup_keeps_what_is_configured_and_needs_a_remote() {
    let fleet = Fleet::new();
    let dir = fleet.person();
    git(&dir, &["config", "notes.displayRef", "refs/notes/review"]);
    assert_eq!(
        notes_setup(&dir).unwrap().added,
        ["remote.origin.fetch = +refs/notes/rackwright/*:refs/notes/rackwright/*", "notes.displayRef = refs/notes/rackwright/*"]
    );
    assert!(notes_setup(&dir.join("machines")).unwrap().added.is_empty());
    assert_eq!(git(&dir, &["config", "--get-all", "notes.displayRef"]), "refs/notes/review\nrefs/notes/rackwright/*");
    assert_eq!(git(&dir, &["config", "--get-all", "remote.origin.fetch"]).lines().count(), 2);
    let alone = tempfile::tempdir().unwrap();
    git(alone.path(), &["init", "-q"]);
    assert!(notes_setup(alone.path()).unwrap_err().message.contains("has no remote `origin`"));
}

/// Who says what is taken as Git itself takes it: `git log` is asked about each message.
#[test]
fn an_approval_is_a_trailer_as_git_reads_it() {
    let fleet = Fleet::new();
    let messages: [(&str, &[&str]); 9] = [
        ("v2\n\nRackwright-Approve: destroy=40\n", &["destroy=40"]),
        ("v2\n\nWhy.\n\nrackwright-approve:destroy=3\nSigned-off-by: A <a@example.org>\n", &["destroy=3"]),
        ("v2\n\nRackwright-Approve: destroy=1\nRackwright-Approve: destroy=2\n", &["destroy=1", "destroy=2"]),
        // Not in the last paragraph, or in the middle of a sentence.
        ("v2\n\nRackwright-Approve: destroy=40\n\nThat was a quotation.\n", &[]),
        ("v2\n\nPlease do not write\nRackwright-Approve: destroy=40\nin here, anybody, ever.\nIt would count.\nReally.\n", &[]),
        ("Rackwright-Approve: destroy=40\n", &[]),
        ("v2\n\n> Rackwright-Approve: destroy=40\n", &[]),
        ("v2\n\nRackwright-Approve : destroy=40\n", &["destroy=40"]),
        ("v2\n\nRackwright-Approve: \u{1b}[2Jdestroy=40\u{7}\n", &["[2Jdestroy=40"]),
    ];
    for (message, expected) in messages {
        git(&fleet.person(), &["-c", "user.email=x@y", "commit", "-q", "--allow-empty", "--cleanup=verbatim", "-m", message]);
        let approvals = read_tree_at(&fleet.person(), "HEAD").unwrap().commit.approvals;
        let texts: Vec<&str> = approvals.iter().map(|approval| approval.text.as_str()).collect();
        assert_eq!(texts, expected, "{message:?}");
        assert!(approvals.iter().all(|approval| approval.by == "ada@example.com"));
        let of_git = git(&fleet.person(), &["log", "-1", "--format=%(trailers:key=Rackwright-Approve,valueonly)"]);
        assert_eq!(of_git.lines().count(), expected.len(), "git reads {message:?} as {of_git:?}");
    }
}
