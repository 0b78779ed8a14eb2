//! What readers see: help, problems, plans. A changed text is a changed file in tests/snapshots, to be reviewed like code.
//! `INSTA_UPDATE=always cargo test --test cli_snapshots` accepts what is there now.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli_support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use cli_support::{edit, filters, git, rackwright, told};
use insta::assert_snapshot;
use rackwright::{
    journal::SqliteJournal,
    model::{AttemptEnd, AttemptId, CommitId, Digest, Fact, Generation, MachineName, SignedDuration, Timestamp},
    ports::Journal as _,
};
use tempfile::TempDir;

/// What a command tells in `folder`, without the folder's own name.
fn tell(folder: &Path, arguments: &[&str]) -> String {
    let told = told(&rackwright(folder, arguments).output().unwrap());
    told.replace(&folder.display().to_string(), "[FOLDER]")
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("rackwright-cli-").tempdir().unwrap()
}

#[test]
fn help_teaches() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    assert_snapshot!("help", tell(folder.path(), &["--help"]));
    for command in [
        "init",
        "validate",
        "verify",
        "plan",
        "run",
        "status",
        "get machines",
        "explain",
        "history",
        "journal",
        "journal show",
        "journal verify",
        "journal backup",
        "journal restore",
        "hold",
        "unhold",
        "suspend",
        "resume",
        "rebuild",
        "approve",
        "notes",
        "notes setup",
        "observe",
        "adopt",
        "sim",
        "sim init",
        "sim image",
        "completion",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        assert_snapshot!(format!("help-{}", command.replace(' ', "-")), tell(folder.path(), &arguments));
    }
}

#[test]
fn a_new_fleet_validates_and_what_is_wrong_in_it_is_shown() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    let (top, fleet) = (folder.path(), folder.path().join("my-fleet"));
    assert_snapshot!("init", tell(top, &["init", "my-fleet"]));
    assert_snapshot!("init-again", tell(top, &["init", "my-fleet"]));
    assert_snapshot!("validate", tell(top, &["validate", "my-fleet"]));
    assert_snapshot!("plan-nothing", tell(&fleet, &["plan"]));
    assert_snapshot!("plan-no-base", tell(&fleet, &["plan", "--head", "main"]));
    assert_snapshot!("plan-no-such-branch", tell(&fleet, &["plan", "--head", "my-branch"]));
    assert_snapshot!("plan-no-repository", tell(top, &["plan", "--repo", "nowhere"]));
    assert_snapshot!("validate-no-folder", tell(top, &["validate", "nowhere"]));
    assert_snapshot!("notes-no-origin", tell(&fleet, &["notes", "setup"]));
    edit(&fleet.join("machines/node-01.yaml"), |text| text.replace("onClaim: Adopt ", "onClame: Adopt "));
    edit(&fleet.join("fleet.yaml"), |text| text.replace("group: 10%", "group: lots"));
    edit(&fleet.join("rollouts/node.yaml"), |text| text.replacen("kind: Rollout", "kind: Rolout", 1));
    fs::write(fleet.join("machines/tab.yaml"), "apiVersion: rackwright.dev/v1alpha1\n\tkind: Machine\n").unwrap();
    fs::write(fleet.join("machines/binary.yaml"), [0, 159, 146, 150]).unwrap();
    assert_snapshot!("validate-five-faults", tell(top, &["validate", "my-fleet"]));
    assert_snapshot!("plan-with-faults", tell(&fleet, &["plan"]).split("--- standard error").next().unwrap().to_owned());
    let json = rackwright(&fleet, &["validate", "--json"]).output().unwrap();
    let problems: Vec<serde_json::Value> = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((problems.len(), json.status.code()), (5, Some(1)), "{problems:#?}");
    assert_eq!(rackwright(&fleet, &["validate", "--rev", "HEAD"]).output().unwrap().status.code(), Some(0), "HEAD is still good");
}

#[test]
fn a_plan_of_the_example_fleet_says_whose_disk_is_lost() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    let fleet = example(folder.path());
    edit(&fleet.join("profiles/web.yaml"), |text| text.replace("image: web-1", "image: web-2"));
    assert_snapshot!("plan-working-tree", tell(&fleet, &["plan"]));
    git(&fleet, &["commit", "--quiet", "--all", "--message", "Move the web servers to web-2"]);
    let commits = ["plan", "--base", "HEAD~1", "--head", "main"];
    let form = |form: &str| tell(&fleet, &[&commits[..], &["--format", form]].concat());
    assert_snapshot!("plan-text", form("text"));
    assert_snapshot!("plan-markdown", form("markdown"));
    let output = rackwright(&fleet, &[&commits[..], &["--format", "json", "--detailed-exitcode"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "there is something to do");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_snapshot!("plan-json-of-a-machine", serde_json::to_string_pretty(&plan["machines"]["web-01"]).unwrap());
    let nothing = rackwright(&fleet, &["plan", "--detailed-exitcode"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(0), "{}", told(&nothing));
}

/// The example fleet, committed.
fn example(top: &Path) -> PathBuf {
    let fleet = top.join("fleet");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet-repo"), &fleet);
    git(&fleet, &["init", "--quiet", "--initial-branch=main"]);
    git(&fleet, &["add", "--all"]);
    git(&fleet, &["commit", "--quiet", "--message", "Begin"]);
    fleet
}

#[test]
fn a_release_is_a_change_although_it_touches_no_hardware() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    let fleet = example(folder.path());
    fs::remove_file(fleet.join("machines/web-02.yaml")).unwrap();
    assert_snapshot!("plan-release", tell(&fleet, &["plan", "--detailed-exitcode"]));
    git(&fleet, &["commit", "--quiet", "--all", "--message", "Let web-02 go"]);
    let nothing = rackwright(&fleet, &["plan", "--detailed-exitcode"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(0), "{}", told(&nothing));
}

#[test]
fn a_base_with_errors_is_no_ground_for_a_plan() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    let fleet = example(folder.path());
    edit(&fleet.join("machines/web-02.yaml"), |text| text.replacen("kind: Machine", "kind: Machin", 1));
    git(&fleet, &["commit", "--quiet", "--all", "--message", "Slip"]);
    edit(&fleet.join("machines/web-02.yaml"), |text| text.replacen("kind: Machin", "kind: Machine", 1));
    assert_snapshot!("plan-broken-base", tell(&fleet, &["plan"]));
    git(&fleet, &["commit", "--quiet", "--all", "--message", "Mend"]);
    let told = tell(&fleet, &["plan", "--head", "main"]);
    assert!(told.contains("compared with main~1~1, the last without") && told.ends_with("--- exit code 0\n"), "{told}");
    assert!(tell(&fleet, &["plan", "--head", "main", "--base", "main~1"]).ends_with("--- exit code 1\n"));
    assert!(tell(&fleet, &["plan", "--head", "main", "--base", "main~2"]).ends_with("--- exit code 0\n"));
}

/// A journal in which one install of web-01 failed.
fn failed_once(path: &Path, origin: &str, generation: &str) {
    let machine: MachineName = "web-01".parse().unwrap();
    let attempt = AttemptId { machine: machine.clone(), number: 1 };
    let (at, commit) = (Timestamp::now() - SignedDuration::from_hours(24), CommitId([1; 20]));
    let end = AttemptEnd::Failed { code: "no-dhcp".into(), why: "it never came".into(), retry: true };
    let facts = vec![
        Fact::Claimed {
            machine,
            installed: Some(Generation::of(Digest::of(b"before"), None, 0)),
            hardware: vec!["serial:sn-web-01".into(), "mac:52:54:00:77:00:0b".into()],
            basis: None,
        },
        Fact::Began { attempt: attempt.clone(), generation: generation.parse().unwrap(), basis: None },
        Fact::Concluded { attempt, end },
    ];
    let journal = SqliteJournal::open(path, "a test").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        journal.append(at, commit, facts).await.unwrap();
        journal.put("journal-origin", origin).await.unwrap();
    });
}

#[test]
fn a_plan_from_the_journal_rests_on_what_the_controller_would_rest_on() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    let fleet = example(folder.path());
    edit(&fleet.join("machines/db-01.yaml"), |text| text.replace("onClaim: Adopt", "onClaim: Install"));
    let (state, file) = (folder.path().join("state"), folder.path().join("rackwright.yaml"));
    fs::create_dir(&state).unwrap();
    let plain = rackwright(&fleet, &["plan", "--format", "json"]).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plain.stdout).unwrap();
    let plan_of = |name: &str, origin: &str, deadlines: &str| {
        let journal = state.join("journal.db");
        let _ = fs::remove_file(&journal);
        failed_once(&journal, origin, plan["machines"]["web-01"]["desired"].as_str().unwrap());
        let config = "site: lab\nstateDir: state\nrepository: {url: fleet.git}\napi: {listen: \"127.0.0.1:1\"}\n";
        fs::write(&file, format!("{config}{deadlines}")).unwrap();
        let told = tell(&fleet, &["plan", "--config", "../rackwright.yaml"]);
        let part = told.split("\n\n").find(|part| part.lines().next().unwrap().contains(name)).unwrap_or_else(|| panic!("{told}"));
        // The age of what drifted is that of this test.
        part.lines().filter(|line| !line.contains("drift")).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_snapshot!("plan-default-deadlines", plan_of("web-01", "first", ""));
    assert_snapshot!("plan-own-deadlines", plan_of("web-01", "first", "deadlines: {maxTries: 1}\n"));
    assert_snapshot!("plan-first-journal", plan_of("db-01", "first", ""));
    assert_snapshot!("plan-journal-after-a-loss", plan_of("db-01", "after-a-loss", ""));
}

/// Something that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_went_away_ends_a_command_as_sigpipe_would_and_without_a_panic() {
    let folder = folder();
    let fleet = example(folder.path());
    for arguments in [
        &["validate"][..],
        &["validate", "--json"],
        &["plan"],
        &["plan", "--format", "json", "--detailed-exitcode"],
        &["completion", "zsh"],
        &["init", "another"],
        &["sim", "image", "tiny", "--out", "images"],
    ] {
        let output = rackwright(&fleet, arguments).stdout(unread()).stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {told}");
        assert!(!told.contains("panicked") && !told.contains("error"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_log_that_nobody_reads_changes_nothing() {
    let folder = folder();
    let fleet = example(folder.path());
    edit(&fleet.join("machines/web-02.yaml"), |text| text.replacen("kind: Machine", "kind: Machin", 1));
    for (arguments, code) in [
        (&["validate"][..], 1),
        (&["plan", "--head", "HEAD", "--base", "HEAD"], 0),
        (&["--log", "trace", "observe", "--bmc", "https://127.0.0.1:1", "--insecure"], 1),
        (&["nonsense"], 2),
    ] {
        let output = rackwright(&fleet, arguments).stderr(unread()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_wrong_configuration_shows_its_line() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    let least = "site: lab\nstateDir: state\nrepository:\n  url: fleet.git\n";
    for (name, text) in [
        ("unknown-field", least.replace("url:", "brnch: main\n  url:")),
        ("missing-field", least.replace("  url: fleet.git\n", "  branch: main\n")),
        ("bad-duration", format!("{least}  poll: often\n")),
        ("bad-timeout", format!("{least}bmc:\n  connectTimeout: soon\n")),
        ("bad-address", format!("{least}boot:\n  advertise: 10.0.0.300\n")),
        ("bad-name", least.replace("lab", "Lab_1")),
        ("password-in-url", least.replace("fleet.git", "https://me:hunter2@forge.example/fleet.git")),
        ("plain-http", least.replace("fleet.git", "http://forge.example/fleet.git")),
        ("tab", least.replace("  url", "\turl")),
        ("empty", String::new()),
        ("api-not-on-loopback", format!("{least}api: {{listen: \"0.0.0.0:8470\"}}\n")),
        ("state-folder", least.replace("stateDir: state", "stateDir: /proc/state")),
        (
            "boot-files",
            format!(
                "{least}boot: {{advertise: 127.0.0.1, files: nowhere, dhcp: null, proxyDhcp: null, tftp: \"127.0.0.1:0\", http: \"127.0.0.1:0\", https: \"300.0.0.1:0\"}}\n"
            ),
        ),
    ] {
        fs::write(folder.path().join("rackwright.yaml"), text).unwrap();
        let told = tell(folder.path(), &["run"]);
        assert!(!told.contains("hunter2"), "law 14: {told}");
        assert_snapshot!(format!("config-{name}"), told);
    }
    fs::remove_file(folder.path().join("rackwright.yaml")).unwrap();
    assert_snapshot!("config-not-there", tell(folder.path(), &["run", "--config", "nowhere.yaml"]));
    assert_snapshot!("config-none", tell(folder.path(), &["run"]));
    assert_snapshot!("config-sim-none", tell(folder.path(), &["sim"]));
    fs::write(
        folder.path().join("sim.yaml"),
        "stateDir: sim\ncredentials: {username: a, password: b}\nmachines:\n  - name: a\n    adress: 127.0.0.1\n",
    )
    .unwrap();
    assert_snapshot!("config-sim-unknown-field", tell(folder.path(), &["sim"]));
}

#[test]
fn a_busy_port_is_named() {
    let (folder, _filters) = (folder(), filters().bind_to_scope());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = format!("site: lab\nstateDir: state\nrepository: {{url: fleet.git}}\napi: {{listen: \"{address}\"}}\n");
    fs::write(folder.path().join("rackwright.yaml"), text).unwrap();
    assert_snapshot!("port-in-use", tell(folder.path(), &["run"]).replace(&address, "[ADDRESS]"));
}

#[test]
fn completion_works_in_bash() {
    let folder = folder();
    let script = rackwright(folder.path(), &["completion", "bash"]).output().unwrap();
    fs::write(folder.path().join("completion"), script.stdout).unwrap();
    let ask =
        "source ./completion; COMP_WORDS=(rackwright his); COMP_CWORD=1; _rackwright rackwright his rackwright; echo \"${COMPREPLY[*]}\"";
    let output = std::process::Command::new("bash").args(["-c", ask]).current_dir(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "history", "{}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
