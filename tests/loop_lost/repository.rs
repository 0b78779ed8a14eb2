//! Somebody does to the repository what nobody should: its notes, its history, all of it.

use std::fs;

use rackwright::model::State;
use serde_json::{Value, json};

use crate::{
    Process, all_ready,
    lab::{self, Lab, Node, git},
    records,
};

const NOTES: &str = "refs/notes/rackwright/lab/status";

#[tokio::test(flavor = "multi_thread")]
async fn a_notes_ref_that_somebody_rewrites() {
    let mut lab = Lab::new(vec![Node::new("only", "Install")]).await;
    let process = Process::start(&lab);
    let first = lab.head();
    all_ready(&lab).await;
    lab.note(&first, "Rackwright-State: Ready").await;
    let (bare, before) = (lab.path("fleet.git"), records(&lab));

    // A history of its own in its place, whose notes say that nothing is installed.
    let tree = git(&bare, &["hash-object", "-t", "tree", "-w", "--stdin"]);
    let lie = git(&bare, &["commit-tree", tree.trim(), "-m", "Not ours"]);
    git(&bare, &["update-ref", NOTES, lie.trim()]);
    git(&bare, &["notes", "--ref", NOTES, "add", "-m", "Rackwright-State: Stalled\nRackwright-Ready: 0/1", &first]);
    let rewritten = git(&bare, &["rev-parse", NOTES]);
    let second = lab.commit("Nothing changes");
    let note = lab.note(&second, "Rackwright-Ready: 1/1").await;
    assert!(note.contains("Rackwright-State: Ready"), "{note}");
    lab.note(&first, "Rackwright-State: Superseded").await;
    let ancestors = git(&bare, &["rev-list", NOTES]);
    assert!(ancestors.contains(rewritten.trim()), "we build on what is there, and never push by force (law 13)");

    // And once more: it is gone.
    git(&bare, &["update-ref", "-d", NOTES]);
    let third = lab.commit("Nothing changes again");
    lab.note(&third, "Rackwright-Ready: 1/1").await;
    assert_eq!(records(&lab), before, "notes are output: nothing was decided by them");
    assert_eq!((lab.installs("only"), lab.simulator.report("only").unwrap().boots), (1, 2));

    // A restart does not believe them either.
    drop(process);
    git(&bare, &["update-ref", NOTES, lie.trim()]);
    let process = Process::start(&lab);
    lab.node("only").rebuild = 1;
    lab.write_machines();
    let fourth = lab.commit("Rebuild it");
    all_ready(&lab).await;
    lab.note(&fourth, "Rackwright-Ready: 1/1").await;
    assert_eq!(lab.installs("only"), 2);
    drop(process);
    lab.simulator.stop().await;
}

/// Puts another repository in the place of ours: no commit in common, of three machines one, under another image.
fn replace(lab: &mut Lab, allow: bool) -> String {
    for folder in ["fleet.git", "work"] {
        fs::rename(lab.path(folder), lab.path(&format!("{folder}.away"))).unwrap();
    }
    fs::create_dir_all(lab.path("work/machines")).unwrap();
    lab.nodes.iter_mut().for_each(|node| (node.image, node.rebuild) = ("two".to_owned(), 7));
    lab.make_repository();
    for name in ["b", "c"] {
        fs::remove_file(lab.path("work/machines").join(format!("{name}.yaml"))).unwrap();
    }
    if allow {
        allow_force_push(lab);
    }
    lab.commit("Another fleet altogether")
}

fn allow_force_push(lab: &Lab) {
    let fleet = lab.path("work/fleet.yaml");
    let text = fs::read_to_string(&fleet).unwrap().replacen("spec:\n", "spec:\n  allowForcePush: true\n", 1);
    fs::write(&fleet, text).unwrap();
}

/// The fleet of three stands as it was, and it is said what to do. `allow`: the fleet allows rewritten histories.
async fn an_unrelated_repository(allow: bool) {
    let nodes = ["a", "b", "c"].map(|name| Node::new(name, "Install")).into();
    let mut lab = Lab::tuned(nodes, "20ms", Value::Null, json!({"repository": {"poll": "1s"}})).await;
    if allow {
        allow_force_push(&lab);
        lab.commit("Histories may be rewritten");
    }
    let ours = lab.head();
    let mut process = Process::start(&lab);
    all_ready(&lab).await;
    let before: Vec<_> = ["a", "b", "c"].map(|name| fs::read(lab.disk(name)).unwrap()).into();
    let (known, boots) = (records(&lab), lab.simulator.report("a").unwrap().boots);
    let theirs = replace(&mut lab, allow);
    // Seen by a controller that runs, by one that starts, and by one that starts without its clone.
    for round in 0..3 {
        let status = lab
            .until("it is told, and everything stands", |status| {
                let told = status.source_problem.as_ref().is_some_and(|problem| problem.contains(&theirs));
                told && status.machines.values().all(|machine| machine.state == State::Ready)
            })
            .await;
        let problem = status.source_problem.clone().unwrap();
        println!("{round}: {problem}");
        for text in [ours.as_str(), "another repository", "no commit in common", "repository.url", "nobody is released"] {
            assert!(problem.contains(text), "{round}: {text:?} is not in {problem:?}");
        }
        assert_eq!((status.commit.id.to_string(), status.machines.len()), (ours.clone(), 3), "{round}: what was in force is in force");
        if round < 2 {
            drop(process);
            process = Process::start(&lab);
        }
    }
    assert_eq!(records(&lab), known, "nothing was released, nothing was begun");
    for (name, before) in ["a", "b", "c"].iter().zip(before) {
        assert!(fs::read(lab.disk(name)).unwrap() == before, "{name}'s disk");
        assert_eq!(lab.installs(name), 1);
    }
    assert_eq!(lab.simulator.report("a").unwrap().boots, boots);

    // Ours comes back, and goes on.
    for folder in ["fleet.git", "work"] {
        fs::rename(lab.path(folder), lab.path(&format!("{folder}.theirs"))).unwrap();
        fs::rename(lab.path(&format!("{folder}.away")), lab.path(folder)).unwrap();
    }
    lab.nodes.iter_mut().for_each(|node| (node.image, node.rebuild) = ("one".to_owned(), 0));
    lab.node("b").image = "two".to_owned();
    lab.write_machines();
    let head = lab.commit("Move b to image two");
    lab.until("our own repository goes on", lab::ready(&head)).await;
    assert_eq!(["a", "b", "c"].map(|name| lab.installs(name)), [1, 2, 1]);
    drop(process);
    lab.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_repository_that_is_replaced_by_an_unrelated_one() {
    an_unrelated_repository(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_allows_rewritten_histories_does_not_follow_an_unrelated_one() {
    an_unrelated_repository(true).await;
}
