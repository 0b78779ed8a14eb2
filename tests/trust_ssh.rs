//! Signatures that real ssh-keygen and git make, and forged ones.
#![allow(clippy::unwrap_used, missing_docs)]

mod trust_support;

use std::process::Command;

use rackwright::trust::allowed_signers;
use trust_support::{By, NOW, Repo, fleet};

const ANNA: &str = "anna@example.org";

#[test]
fn keys_of_each_type_sign_as_git_sees_it() {
    let mut repo = Repo::with("");
    let types: [(&str, &[&str]); 5] = [
        ("ed25519", &["-t", "ed25519"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("rsa2048", &["-t", "rsa", "-b", "2048"]),
        ("rsa3072", &["-t", "rsa", "-b", "3072"]),
    ];
    let mut all = repo.line("anna", "");
    for (name, how) in types {
        repo.key(name, how);
        all += &repo.line(name, "namespaces=\"git,file\"");
    }
    repo.commit(By::Ssh("anna"), "keys", &[("signers/allowed_signers", &all)]);
    for (name, _) in types {
        // ECDSA's numbers are sometimes shorter than usual.
        for n in 0..if name.starts_with('p') { 8 } else { 2 } {
            repo.commit(By::Ssh(name), &format!("{name} {n}"), &[]);
            assert_eq!(repo.verdict(), format!("{name}@example.org"));
            assert!(repo.git_verifies("HEAD"));
        }
    }
}

#[test]
fn both_hashes_are_verified_and_whatever_was_tampered_with_is_not() {
    let mut repo = Repo::with("");
    repo.commit(By::Nobody, "by hand", &[("machines/a.yaml", "# changed\n")]);
    let unsigned = repo.raw("HEAD");
    let with = |signature: &str, name: &str| {
        let text = String::from_utf8(unsigned.clone()).unwrap();
        let (head, message) = text.split_once("\n\n").unwrap();
        let folded = signature.trim_end().replace('\n', "\n ");
        format!("{head}\n{name} {folded}\n\n{message}").into_bytes()
    };
    for hash in ["sha256", "sha512"] {
        let good = repo.ssh_signature("anna", &["-n", "git", "-O", &format!("hashalg={hash}")], &unsigned);
        repo.forge(&with(&good, "gpgsig"));
        assert_eq!(repo.verdict(), ANNA, "{hash}");
        assert!(repo.git_verifies("base"));
        let tampered = String::from_utf8(with(&good, "gpgsig")).unwrap().replace("by hand", "by foot");
        repo.forge(tampered.as_bytes());
        assert!(repo.verdict().starts_with("refused: its signature does not fit what the commit says"), "{}", repo.verdict());
        assert!(!repo.git_verifies("base"));
    }
    let good = repo.ssh_signature("anna", &["-n", "git"], &unsigned);
    let of_a_file = repo.ssh_signature("anna", &["-n", "file"], &unsigned);
    let by_eve = repo.ssh_signature("eve", &["-n", "git"], &unsigned);
    let twice = |first: &str, second: &str| {
        let once = String::from_utf8(with(first, "gpgsig")).unwrap();
        once.replacen("\n\n", &format!("\ngpgsig {}\n\n", second.trim_end().replace('\n', "\n ")), 1).into_bytes()
    };
    let lines: Vec<&str> = good.lines().collect();
    let cut = [lines[0], lines[1], lines[lines.len() - 1]].join("\n");
    let cases = [
        (with(&of_a_file, "gpgsig"), "made for the namespace `file`"),
        (with(&by_eve, "gpgsig"), "is not among the allowed signers"),
        (with(&good, "gpgsig-sha256"), "a repository with SHA-256 ids"),
        (twice(&good, &by_eve), "more than one signature"),
        (twice(&by_eve, &good), "more than one signature"),
        (twice(&good, &good), "more than one signature"),
        (with(&cut, "gpgsig"), "its signature is damaged"),
        (with(&good.replace("SSH SIGNATURE", "SSH SIGNATUR"), "gpgsig"), "an unknown kind"),
        (with(&format!("{}{}", good.trim_end(), "x"), "gpgsig"), "its signature is damaged"),
        (with("-----BEGIN SIGNED MESSAGE-----\nx\n-----END SIGNED MESSAGE-----", "gpgsig"), "of X.509"),
        (with(&"x".repeat(70_000), "gpgsig"), "more than 64 KiB"),
        (with(&good, "gpgsi"), "it is not signed"),
        (unsigned.clone(), "it is not signed"),
    ];
    for (raw, expected) in cases {
        repo.forge(&raw);
        let verdict = repo.verdict();
        assert!(verdict.starts_with("refused: ") && verdict.contains(expected), "{expected}: {verdict}");
    }
}

#[test]
fn a_signature_is_good_for_its_own_commit_alone() {
    let mut repo = Repo::with("");
    repo.commit(By::Ssh("anna"), "harmless", &[]);
    let signed = String::from_utf8(repo.raw("HEAD")).unwrap();
    let signature: String = signed
        .lines()
        .skip_while(|line| !line.starts_with("gpgsig"))
        .take_while(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    repo.commit(By::Nobody, "harmful", &[("machines/a.yaml", "# wipe\n")]);
    let victim = String::from_utf8(repo.raw("HEAD")).unwrap();
    repo.forge(victim.replacen("\n\n", &format!("\n{signature}\n"), 1).as_bytes());
    assert!(repo.verdict().contains("does not fit what the commit says"), "{}", repo.verdict());
    assert!(!repo.git_verifies("base"));
}

#[test]
fn one_that_is_not_signed_in_the_middle_is_found() {
    let mut repo = Repo::with("");
    repo.commit(By::Ssh("anna"), "one", &[]);
    repo.commit(By::Nobody, "two", &[]);
    repo.commit(By::Ssh("bert"), "three", &[]);
    let expected = [("one", ANNA), ("two", "refused: it is not signed"), ("three", "bert@example.org")];
    assert_eq!(repo.verdicts(), expected.map(|(subject, said)| (subject.to_owned(), said.to_owned())));
    let judged = repo.judged("base");
    assert_eq!(judged.refused().unwrap().0.subject, "two");
}

#[test]
fn validity_namespaces_and_revocation_are_heeded() {
    let mut repo = Repo::with("      \n");
    let day = "20260601";
    let lines = [
        repo.line("anna", ""),
        repo.line("bert", &format!("valid-before=\"{day}1300Z\",valid-after=\"{day}1200Z\"")),
        repo.line("eve", "namespaces=\"file\""),
    ];
    repo.commit(By::Ssh("anna"), "times", &[("signers/allowed_signers", &lines.concat())]);
    let at = |repo: &mut Repo, clock: i64, by: &str| {
        repo.clock = clock;
        repo.commit(By::Ssh(by), "timed", &[]);
        let ours = repo.verdict();
        assert_eq!(repo.git_verifies("HEAD"), !ours.starts_with("refused"), "git says otherwise: {ours}");
        ours
    };
    assert_eq!(at(&mut repo, NOW, "bert"), "bert@example.org");
    assert_eq!(at(&mut repo, NOW + 3600, "bert"), "bert@example.org");
    let late = at(&mut repo, NOW + 3601, "bert");
    assert!(late.ends_with("of bert@example.org was valid until 2026-06-01T13:00:00Z, and it was made 2026-06-01T13:00:01Z"), "{late}");
    let early = at(&mut repo, NOW - 1, "bert");
    assert!(early.contains("is valid from 2026-06-01T12:00:00Z on"), "{early}");
    let file = at(&mut repo, NOW, "eve");
    assert!(file.contains("may not sign commits: its `namespaces` lack `git` (line 3)"), "{file}");

    let fleet = fleet("    revokedKeys: signers/revoked\n");
    let revoked = format!("# lost\n{} bert's laptop\n", repo.public("bert"));
    repo.commit(By::Ssh("anna"), "revoke", &[("fleet.yaml", &fleet), ("signers/revoked", &revoked)]);
    repo.clock = NOW;
    repo.commit(By::Ssh("bert"), "revoked", &[]);
    assert!(repo.verdict().contains("is revoked"), "{}", repo.verdict());
    assert_eq!(repo.verdict_of("revoke"), ANNA);
}

#[test]
fn nobody_adds_himself() {
    let mut repo = Repo::with("");
    let all = repo.line("anna", "") + &repo.line("eve", "");
    repo.commit(By::Ssh("eve"), "hello", &[("signers/allowed_signers", &all)]);
    assert!(repo.verdict().contains("is not among the allowed signers"), "{}", repo.verdict());

    // Nor with a commit after it on the same branch, which a merge then brings.
    let mut repo = Repo::with("");
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.commit(By::Ssh("anna"), "add eve", &[("signers/allowed_signers", &all)]);
    repo.commit(By::Ssh("eve"), "too early", &[]);
    repo.git(&["checkout", "-q", "main"]);
    repo.signed(By::Ssh("bert"), &["merge", "-q", "--no-ff", "-m", "merge", "side"]);
    assert!(repo.verdict_of("too early").contains("is not among the allowed signers"));
    // Where the branch itself says so, she may.
    let mut repo = Repo::with("");
    let all = repo.line("anna", "") + &repo.line("eve", "");
    repo.commit(By::Ssh("anna"), "add eve", &[("signers/allowed_signers", &all)]);
    repo.commit(By::Ssh("eve"), "now", &[]);
    assert_eq!(repo.verdict(), "eve@example.org");
    repo.commit(By::Ssh("bert"), "gone", &[]);
    assert!(repo.verdict().contains("is not among the allowed signers"), "Bert was taken off the list");
}

/// Bert's key is lost, Anna takes it off the list, and somebody has it.
#[test]
fn a_key_that_was_taken_away_does_not_come_back_with_an_old_branch() {
    let mut repo = Repo::with("");
    repo.git(&["checkout", "-q", "-b", "old"]);
    repo.commit(By::Ssh("anna"), "old and good", &[("docs", "x\n")]);
    repo.git(&["checkout", "-q", "main"]);
    let only_anna = repo.line("anna", "");
    repo.commit(By::Ssh("anna"), "bert's key is lost", &[("signers/allowed_signers", &only_anna)]);
    repo.git(&["tag", "-f", "base"]);
    repo.git(&["checkout", "-q", "old"]);
    repo.commit(By::Ssh("bert"), "thief", &[("machines/a.yaml", "# stolen\n")]);
    repo.git(&["checkout", "-q", "main"]);
    repo.signed(By::Ssh("anna"), &["merge", "-q", "--no-ff", "-m", "merge", "old"]);
    assert!(repo.verdict_of("thief").contains("is not among the allowed signers"));
    assert_eq!((repo.verdict_of("old and good").as_str(), repo.verdict_of("merge").as_str()), (ANNA, ANNA));

    // The other way around: the old branch is the first parent, so its files say that the key is good.
    repo.git(&["checkout", "-q", "-B", "old", "old~1"]);
    repo.signed(By::Ssh("bert"), &["merge", "-q", "--no-ff", "-s", "ours", "-m", "thief's merge", "base"]);
    assert!(repo.git(&["show", "HEAD:signers/allowed_signers"]).contains("bert@"), "bert is on the list there");
    assert!(repo.verdict().contains("is not among the allowed signers"), "{}", repo.verdict());
    repo.commit(By::Ssh("bert"), "and after it", &[]);
    assert!(repo.verdict().contains("is not among the allowed signers"), "{}", repo.verdict());
}

#[test]
fn what_has_no_parent_is_refused() {
    let mut repo = Repo::with("");
    repo.git(&["checkout", "-q", "--orphan", "other"]);
    repo.commit(By::Ssh("anna"), "out of nothing", &[("x", "x\n")]);
    assert!(repo.verdict().contains("it has no parent"), "a rewritten history: {}", repo.verdict());
    repo.git(&["checkout", "-q", "main"]);
    repo.signed(By::Ssh("anna"), &["merge", "-q", "--allow-unrelated-histories", "-m", "merge", "other"]);
    assert!(repo.verdict_of("out of nothing").contains("it has no parent"));
    assert_eq!(repo.verdict_of("merge"), ANNA);
}

#[test]
fn a_shallow_clone_proves_nothing_of_what_it_lacks() {
    let mut repo = Repo::with("");
    for n in 0..3 {
        repo.commit(By::Ssh("anna"), &format!("commit {n}"), &[]);
    }
    // Grafted as `git fetch --depth` does it: the second commit looks as if it had no parent.
    let second = repo.git(&["rev-parse", "HEAD~1"]);
    std::fs::write(repo.dir().join(".git/shallow"), second + "\n").unwrap();
    assert!(repo.verdict_of("commit 1").contains("the clone does not show its parents"), "{:?}", repo.verdicts());
}

#[test]
fn files_that_cannot_be_read_change_nobodys_rights() {
    let mut repo = Repo::with("");
    let good = repo.line("anna", "") + &repo.line("bert", "");
    for (path, broken) in [
        ("signers/allowed_signers", "# nobody\n"),
        ("signers/allowed_signers", "anna@example.org ssh-ed25519 AAAA\n"),
        ("signers/allowed_signers", ""),
        ("fleet.yaml", "kind: Fleet\n"),
        (
            "fleet.yaml",
            "apiVersion: rackwright.dev/v1alpha1\nkind: Fleet\nmetadata: {name: x}\nspec: {signatures: {allowedSigners: nowhere}}\n",
        ),
        ("two.yaml", &fleet("")),
        ("two.yaml", "apiVersion: rackwright.dev/v1alpha1\nkind: \"Fl\\u0065et\"\nmetadata: {name: x}\nspec: {}\n"),
    ] {
        repo.git(&["checkout", "-q", "-B", "main", "base"]);
        repo.commit(By::Ssh("anna"), "break", &[(path, broken)]);
        repo.commit(By::Nobody, "now", &[]);
        assert_eq!(repo.verdict(), "refused: it is not signed", "{path}: {broken}");
        let undo: &[(&str, &str)] =
            if path == "two.yaml" { &[("two.yaml", "")] } else { &[("fleet.yaml", &fleet("")), ("signers/allowed_signers", &good)] };
        repo.commit(By::Ssh("bert"), "mend", undo);
        assert_eq!(repo.verdict_of("mend"), "bert@example.org", "{path}: {broken}");
        repo.commit(By::Ssh("anna"), "mended", &[]);
        assert_eq!(repo.verdict(), ANNA, "{path}: {broken}");
    }
}

#[test]
fn signatures_begin_and_end_with_a_commit() {
    let mut repo = Repo::new();
    let plain = "apiVersion: rackwright.dev/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n";
    repo.commit(By::Nobody, "base", &[("settings/fleet.yaml", plain)]);
    repo.git(&["tag", "base"]);
    repo.commit(By::Nobody, "before", &[]);
    let all = repo.line("anna", "");
    repo.commit(By::Nobody, "begin", &[("settings/fleet.yaml", &fleet("")), ("signers/allowed_signers", &all)]);
    repo.commit(By::Ssh("anna"), "move", &[("settings/fleet.yaml", ""), ("settings/deep/all.yml", &fleet(""))]);
    repo.commit(By::Nobody, "unsigned", &[]);
    repo.commit(By::Ssh("anna"), "end", &[("settings/deep/all.yml", plain)]);
    repo.commit(By::Nobody, "after", &[]);
    let expected = [
        ("before", "nobody asks"),
        ("begin", "nobody asks"),
        ("move", ANNA),
        ("unsigned", "refused: it is not signed"),
        ("end", ANNA),
        ("after", "nobody asks"),
    ];
    assert_eq!(repo.verdicts(), expected.map(|(subject, said)| (subject.to_owned(), said.to_owned())));
}

const STORAGE: &str = "    paths:
      - match: [machines/storage/**, profiles/storage.yaml]
        signers: ['bert@*']
      - match: [fleet.yaml, 'signers/**']
        signers: [anna@example.org]
";

#[test]
fn paths_need_their_own_signers() {
    let mut repo = Repo::with(STORAGE);
    let foreign = |repo: &Repo, path: &str, needs: &str| {
        let verdict = repo.verdict();
        assert!(verdict.contains(&format!("may not change {path}, which needs a signature by {needs}")), "{verdict}");
    };
    repo.commit(By::Ssh("bert"), "add", &[("machines/storage/a.yaml", "# a\n"), ("machines/storage/b.yaml", "# b\n")]);
    assert_eq!(repo.verdict(), "bert@example.org");
    repo.commit(By::Ssh("anna"), "edit", &[("machines/storage/a.yaml", "# c\n"), ("machines/x.yaml", "# x\n")]);
    foreign(&repo, "machines/storage/a.yaml", "bert@*");
    repo.commit(By::Ssh("anna"), "delete", &[("machines/storage/b.yaml", "")]);
    foreign(&repo, "machines/storage/b.yaml", "bert@*");
    repo.git(&["mv", "machines/storage/a.yaml", "machines/moved.yaml"]);
    repo.commit(By::Ssh("anna"), "rename", &[]);
    foreign(&repo, "machines/storage/a.yaml", "bert@*");
    let _ = std::fs::remove_dir(repo.dir().join("machines/storage"));
    std::os::unix::fs::symlink("../elsewhere", repo.dir().join("machines/storage")).unwrap();
    repo.commit(By::Ssh("anna"), "link", &[]);
    foreign(&repo, "machines/storage", "bert@*");
    std::fs::remove_file(repo.dir().join("machines/storage")).unwrap();
    repo.commit(By::Ssh("bert"), "unlink", &[("profiles/storage.yaml", "# p\n")]);
    repo.commit(By::Ssh("bert"), "law", &[("fleet.yaml", &fleet(""))]);
    foreign(&repo, "fleet.yaml", "anna@example.org");

    // What a merge brings counts as changed by it.
    repo.git(&["checkout", "-q", "-B", "main", "base"]);
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.commit(By::Ssh("bert"), "storage", &[("machines/storage/n.yaml", "# n\n")]);
    repo.git(&["checkout", "-q", "main"]);
    repo.commit(By::Ssh("anna"), "meanwhile", &[("docs", "x\n")]);
    repo.signed(By::Ssh("anna"), &["merge", "-q", "-m", "merge", "side"]);
    foreign(&repo, "machines/storage/n.yaml", "bert@*");
    repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
    repo.signed(By::Ssh("bert"), &["merge", "-q", "-m", "merge", "side"]);
    assert_eq!(repo.verdict(), "bert@example.org");
}

/// As a forge does it whose own key signs what its web page merges.
#[test]
fn a_key_for_merges_signs_what_git_merges_by_itself_and_nothing_else() {
    let mut repo = Repo::with("    mergeOnly: ['bert@*']\n");
    let merge = |repo: &Repo, branch: &str| repo.signed(By::Ssh("bert"), &["merge", "-q", "--no-ff", "-m", "merge", branch]);
    repo.commit(By::Ssh("bert"), "edit", &[("docs", "x\n")]);
    assert!(repo.verdict().contains("may only make merges of two branches"), "{}", repo.verdict());
    repo.git(&["reset", "-q", "--hard", "base"]);

    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.commit(By::Ssh("anna"), "side", &[("machines/a.yaml", "# side\n"), ("machines/b.yaml", "# b\n")]);
    repo.git(&["checkout", "-q", "main"]);
    merge(&repo, "side");
    assert_eq!(repo.verdict(), "bert@example.org", "nothing happened meanwhile");
    repo.git(&["reset", "-q", "--hard", "base"]);
    repo.commit(By::Ssh("anna"), "meanwhile", &[("docs", "x\n")]);
    merge(&repo, "side");
    assert_eq!(repo.verdict(), "bert@example.org");

    // The same merge with a file more, one less, or one that is executable.
    let changes: [(&str, &[&str]); 3] = [
        ("added", &["update-index", "--add", "--cacheinfo", "100644,HEAD:docs,machines/evil.yaml"]),
        ("gone", &["rm", "-q", "machines/b.yaml"]),
        ("mode", &["update-index", "--chmod=+x", "docs"]),
    ];
    for (what, change) in changes {
        let docs = repo.git(&["rev-parse", "HEAD:docs"]);
        let change: Vec<String> = change.iter().map(|word| word.replace("HEAD:docs", &docs)).collect();
        repo.git(&change.iter().map(String::as_str).collect::<Vec<_>>());
        repo.signed(By::Ssh("bert"), &["commit", "-q", "--amend", "-m", what]);
        assert!(repo.verdict().contains("something else was changed"), "{what}: {}", repo.verdict());
        repo.git(&["reset", "-q", "--hard", "HEAD@{1}"]);
        assert_eq!(repo.verdict(), "bert@example.org");
    }

    // A conflict that somebody resolved.
    repo.git(&["reset", "-q", "--hard", "base"]);
    repo.commit(By::Ssh("anna"), "conflict", &[("machines/a.yaml", "# main\n")]);
    repo.signed(By::Ssh("bert"), &["merge", "-q", "-X", "theirs", "-m", "resolved", "side"]);
    assert!(repo.verdict().contains("something else was changed"), "{}", repo.verdict());
    // Commits that it brings need their own signers.
    repo.git(&["checkout", "-q", "side"]);
    repo.commit(By::Nobody, "unsigned", &[("docs2", "x\n")]);
    repo.git(&["checkout", "-q", "-B", "main", "base"]);
    merge(&repo, "side");
    assert_eq!((repo.verdict_of("unsigned").as_str(), repo.verdict().as_str()), ("refused: it is not signed", "bert@example.org"));
}

#[test]
fn a_long_history_is_judged_commit_by_commit() {
    let repo = Repo::with("");
    let mut raw = String::from_utf8(repo.raw("HEAD")).unwrap();
    let tree = raw.lines().next().unwrap().to_owned();
    for n in 0..200 {
        let parent = repo.head();
        let date = NOW + n;
        raw = format!(
            "{tree}\nparent {parent}\nauthor A <a@example.org> {date} +0000\ncommitter A <a@example.org> {date} +0000\n\ncommit {n}\n"
        );
        let signature = repo.ssh_signature("anna", &["-n", "git"], raw.as_bytes());
        let folded = signature.trim_end().replace('\n', "\n ");
        repo.forge(raw.replacen("\n\n", &format!("\ngpgsig {folded}\n\n"), 1).as_bytes());
    }
    let verdicts = repo.verdicts();
    assert_eq!(verdicts.len(), 200);
    assert!(verdicts.iter().all(|(_, said)| said == ANNA));
}

/// What a line means is what ssh-keygen takes it to mean; but for what is refused on purpose.
#[test]
fn lines_of_allowed_signers_mean_what_they_mean_to_ssh_keygen() {
    let repo = Repo::new();
    let signature = repo.folder.path().join("sig");
    std::fs::write(&signature, repo.ssh_signature("anna", &["-n", "git"], b"x")).unwrap();
    let (key, other) = (repo.public("anna"), repo.public("eve"));
    repo.key("ca", &["-t", "ed25519"]);
    let certified =
        Command::new("ssh-keygen").args(["-q", "-s", "ca", "-I", "id", "-n", "x", "eve.pub"]).current_dir(repo.folder.path()).output();
    assert!(certified.unwrap().status.success());
    let certificate = std::fs::read_to_string(repo.folder.path().join("eve-cert.pub")).unwrap();
    // The line, and whether it is refused on purpose although ssh-keygen takes it.
    let lines = [
        (format!("anna@example.org {key}"), false),
        (format!("anna@example.org {key} a comment, with=\"quotes\""), false),
        (format!("\t anna@example.org \t {key}"), false),
        (format!("anna@example.org,anna {key}"), false),
        (format!("\"anna bell\",x {key}"), false),
        (format!("\"anna bell\" {key}"), false),
        (format!("*@example.org {key}"), false),
        (format!("anna namespaces=\"git\" {key}"), false),
        (format!("anna NameSpaces=\"git,file\",valid-after=\"20200101Z\" {key}"), false),
        (format!("anna valid-after=\"20200101Z\",valid-before=\"20990101Z\" {key}"), false),
        (format!("anna valid-after=\"20990101Z\",valid-before=\"20200101Z\" {key}"), false),
        (format!("anna namespaces=\"git\",namespaces=\"git\" {key}"), false),
        (format!("anna namespaces=git {key}"), false),
        (format!("anna namespaces=\"git {key}"), false),
        (format!("anna namespaces=\"g\\\"it,git\" {key}"), false),
        (format!("anna unknown {key}"), false),
        (format!("anna unknown=\"x\" {key}"), false),
        (format!("anna valid-after=\"2020\" {key}"), false),
        (format!("anna valid-after=\"20200101\" {key}"), true),
        (format!("anna {}", key.replace("ssh-ed25519", "ssh-rsa")), false),
        (format!("anna {}", &key[..key.len() - 4]), false),
        ("anna".to_owned(), false),
        (key.clone(), false),
        (format!("# anna {key}"), false),
        (String::new(), false),
        (format!("anna {other}"), false),
        (format!("anna cert-authority {other}"), true),
        (format!("anna {certificate}").trim_end().to_owned(), true),
    ];
    for (line, on_purpose) in lines {
        let file = repo.folder.path().join("allowed");
        std::fs::write(&file, format!("{line}\n")).unwrap();
        let said = Command::new("ssh-keygen").args(["-Y", "find-principals", "-s"]).arg(&signature).arg("-f").arg(&file).output().unwrap();
        let (allowed, bad) = allowed_signers(format!("{line}\n").as_bytes());
        let ours: Vec<String> = allowed
            .iter()
            .filter(|(known, _)| format!("{known:?}") == anna_fingerprint(&repo))
            .flat_map(|(_, lines)| lines[0].principals.clone())
            .collect();
        let theirs: Vec<String> = String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect();
        if on_purpose {
            assert_eq!((ours.len(), bad.len()), (0, 1), "{line}");
        } else {
            assert_eq!(ours, theirs, "{line}: {bad:?}, {}", String::from_utf8_lossy(&said.stderr));
        }
    }
}

fn anna_fingerprint(repo: &Repo) -> String {
    let said = Command::new("ssh-keygen").args(["-l", "-f", "anna.pub"]).current_dir(repo.folder.path()).output().unwrap();
    String::from_utf8(said.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
}
