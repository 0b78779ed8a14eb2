//! The controller and signatures: what is not signed as asked stays out of force until it is.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use lab::{Lab, Node, ready};
use rackwright::{
    cli::{
        config::Config,
        run::{Controller, open_journal},
    },
    journal::BrakeFile,
    model::{Hold, HoldScope, Timestamp},
    ports::Journal,
};
use serde_json::{Value, json};

fn key(lab: &Lab, name: &str) -> (PathBuf, String) {
    let file = lab.path(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&file).status().unwrap();
    assert!(made.success());
    let public = fs::read_to_string(file.with_extension("pub")).unwrap();
    (file, format!("{name}@example.org namespaces=\"git\" {public}"))
}

/// Commits everything, signed with a key, and pushes it whatever was there. Its author is Anna in any case.
fn commit(lab: &Lab, key: Option<&PathBuf>, message: &[&str]) -> String {
    git(lab, &["add", "--all"]);
    let signing = key.map(|key| format!("user.signingkey={}", key.display()));
    let signing = signing.iter().flat_map(|key| ["-c", "gpg.format=ssh", "-c", "commit.gpgsign=true", "-c", key.as_str()]);
    let words = message.iter().flat_map(|paragraph| ["--message", *paragraph]);
    let all: Vec<&str> = signing.chain(["commit", "--quiet", "--allow-empty"]).chain(words).collect();
    git(lab, &all);
    git(lab, &["push", "--quiet", "--force", "origin", "HEAD:main"]);
    lab.head()
}

fn git(lab: &Lab, args: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(lab.path("work")).args(["-c", "user.name=Anna", "-c", "user.email=anna@example.org"]).args(args);
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn restarted(lab: &Lab, controller: Controller) -> Controller {
    controller.stop.cancel();
    controller.ended().await.unwrap();
    drop(released(lab).await);
    lab.controller().await
}

/// The journal, once the last task of a controller that ended has let go of it.
async fn released(lab: &Lab) -> (Config, Arc<dyn Journal>) {
    let config = Config::read(Some(&lab.config())).unwrap();
    for _ in 0..1200 {
        if let Ok(journal) = open_journal(&config) {
            return (config, journal);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the journal is still held");
}

fn ask_for_signatures(lab: &Lab, signers: &str, rest: &str) {
    let path = lab.path("work/fleet.yaml");
    let stated = format!("spec:\n  signatures: {{allowedSigners: signers/allowed_signers}}\n{rest}  budgets:");
    let text = fs::read_to_string(&path).unwrap().replacen("spec:\n  budgets:", &stated, 1);
    fs::write(path, text).unwrap();
    fs::create_dir_all(lab.path("work/signers")).unwrap();
    fs::write(lab.path("work/signers/allowed_signers"), signers).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_signed_reinstalls_nothing_until_it_is() {
    let mut lab = Lab::new(vec![Node::new("a", "Install")]).await;
    let (anna, line) = key(&lab, "anna");
    let controller = lab.controller().await;
    lab.until("the first install", ready(&lab.head())).await;
    ask_for_signatures(&lab, &line, "");
    let asks = commit(&lab, None, &["Ask for signatures"]);
    lab.until("signatures are asked for", ready(&asks)).await;

    lab.node("a").image = "two".to_owned();
    lab.write_machines();
    let unsigned = commit(&lab, None, &["Move a to image two"]);
    let on_top = commit(&lab, Some(&anna), &["Something else"]);
    let refused = |status: &rackwright::model::Status| {
        let told = status.source_problem.as_deref().unwrap_or_default();
        told.contains(&on_top[..7]) && told.contains(&unsigned[..7]) && told.contains("it is not signed")
    };
    let status = lab.until("the refusal", refused).await;
    assert_eq!((status.commit.id.to_string(), lab.installs("a")), (asks.clone(), 1));
    for commit in [&unsigned, &on_top] {
        let note = lab.note(commit, "Rackwright-State: Refused").await;
        assert!(
            note.contains(&format!("Rackwright-Refused: {unsigned}")) && note.contains(&format!("Rackwright-In-Force: {asks}")),
            "{note}"
        );
    }

    // A restart forgets none of it.
    let controller = restarted(&lab, controller).await;
    let status = lab.until("the refusal after a restart", refused).await;
    assert_eq!((status.commit.id.to_string(), lab.installs("a")), (asks.clone(), 1));

    git(&lab, &["reset", "--quiet", "--soft", &asks]);
    let signed = commit(&lab, Some(&anna), &["Move a to image two"]);
    lab.until("the reinstall", ready(&signed)).await;
    assert_eq!((lab.installs("a"), lab.difference("a", "two")), (2, None));
    controller.stop.cancel();
    controller.ended().await.unwrap();
    lab.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_by_whoever_signed() {
    let mut lab = Lab::new(vec![Node::new("a", "Adopt")]).await;
    let ((anna, first), (bert, second)) = (key(&lab, "anna"), key(&lab, "bert"));
    let path = lab.path("work/fleet.yaml");
    let text = fs::read_to_string(&path).unwrap().replace("maxDestructive: {count: 100, share: 100%}", "maxDestructive: {count: 0}");
    fs::write(path, text).unwrap();
    ask_for_signatures(&lab, &(first + &second), "  approvers: [anna@example.org]\n");
    let start = commit(&lab, Some(&anna), &["Ask for signatures"]);
    let controller = lab.controller().await;
    lab.until("the start", ready(&start)).await;

    lab.node("a").image = "two".to_owned();
    lab.write_machines();
    let by_bert = commit(&lab, Some(&bert), &["Move a", "Rackwright-Approve: destroy=1"]);
    let held = |status: &rackwright::model::Status| {
        status.commit.id.to_string() == by_bert
            && status.machines.values().any(|a| a.message.contains("by bert@example.org does not count"))
    };
    lab.until("the hold", held).await;
    // Who signed is known after a restart, too.
    let brake = BrakeFile::new(&lab.path("state"));
    let hold = Hold { scope: HoldScope::All, by: "test".to_owned(), at: Timestamp::UNIX_EPOCH, reason: String::new() };
    brake.change(|holds| holds.push(hold)).unwrap();
    let by_anna = commit(&lab, Some(&anna), &["Approve", "Rackwright-Approve: destroy=1"]);
    lab.until("it in force", |status| status.commit.id.to_string() == by_anna).await;
    assert_eq!(lab.installs("a"), 0);
    let controller = restarted(&lab, controller).await;
    brake.change(Vec::clear).unwrap();
    lab.until("the install", ready(&by_anna)).await;
    assert_eq!(lab.difference("a", "two"), None);
    controller.stop.cancel();
    controller.ended().await.unwrap();
    lab.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_may_say_who_signs_the_first_commit() {
    let mut lab = Lab::new(vec![Node::new("a", "Adopt")]).await;
    let ((anna, line), (eve, hers)) = (key(&lab, "anna"), key(&lab, "eve"));
    fs::write(lab.path("allowed"), &line).unwrap();
    lab.tune = json!({"repository": {"allowedSigners": lab.path("allowed")}});
    let controller = lab.controller().await;
    let first = lab.head();
    let note = lab.note(&first, "Rackwright-State: Refused").await;
    assert!(note.contains("it is not signed") && !note.contains("In-Force"), "{note}");
    // A fleet that names its own signers does not vouch for itself.
    ask_for_signatures(&lab, &hers, "");
    let by_eve = commit(&lab, Some(&eve), &["Mine"]);
    lab.note(&by_eve, "is not among the").await;
    assert!(controller.live.view().borrow().is_none(), "nothing is in force");
    git(&lab, &["reset", "--quiet", "--hard", &first]);
    let by_anna = commit(&lab, Some(&anna), &["Begin"]);
    lab.until("it in force", ready(&by_anna)).await;
    // As long as the fleet says nothing, the configuration does.
    let unsigned = commit(&lab, None, &["No signature"]);
    lab.note(&unsigned, "Rackwright-State: Refused").await;
    controller.stop.cancel();
    controller.ended().await.unwrap();

    // Bad files are told before anything begins.
    fs::write(lab.path("allowed"), "anna ssh-ed25519 AAAA\n").unwrap();
    let (config, journal) = released(&lab).await;
    let error = Controller::start(config, journal).await.err().unwrap();
    assert!(error.to_string().contains("line 1: this is not a public key"), "{error:#}");
    lab.tune = Value::Null;
    lab.simulator.stop().await;
}
