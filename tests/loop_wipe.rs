//! A machine is taken out of service on the simulator: wiped by a commit, proved, switched off, and released with its manifest.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use std::fs;

use lab::{Lab, Node, machine, ready};
use rackwright::model::{Evidence, Fact, State, WipeMethod};

const KEPT: &[u8] = b"what must not be lost";

/// Adds a line to a machine's manifest.
fn add(lab: &Lab, name: &str, line: &str) {
    let path = lab.path("work/machines").join(format!("{name}.yaml"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}  {line}\n")).unwrap();
}

fn power(lab: &Lab, name: &str) -> String {
    lab.simulator.report(name).unwrap().power.to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines)] // One story, told in order.
async fn a_machine_is_wiped_proved_switched_off_and_released() {
    let with_data = |node: &mut Node| {
        node.disk = format!("{{serial: D-{0}}}, keep: [{{serial: K-{0}}}]", node.name);
        node.further_disks = vec![(if node.name == "a" { "K-a" } else { "K-b" }, "8MiB"), ("S", "8MiB")];
    };
    let lab = Lab::new(vec![Node::new("a", "Adopt").with(with_data), Node::new("b", "Install").with(with_data)]).await;
    let (kept, spare) = (lab.path("sim/a.K-a.disk"), lab.path("sim/a.S.disk"));
    for disk in [&kept, &spare] {
        fs::write(disk, KEPT).unwrap();
        fs::File::options().write(true).open(disk).unwrap().set_len(8 << 20).unwrap();
    }
    let controller = lab.controller().await;
    let first = lab.head();
    lab.until("the install", ready(&first)).await;

    lab.write_machines();
    add(&lab, "a", "decommission: {method: zero, disks: all}");
    let second = lab.commit("Take a out of service");
    let status = lab.until("the wipe", ready(&second)).await;
    let told = machine(&status, "a");
    assert_eq!((told.state, told.reason.as_str(), told.power.as_str()), (State::Ready, "Decommissioned", "Off"), "{}", told.message);
    assert!(told.message.starts_with("decommissioned: wiped by a#1 (zero), proved at "), "{}", told.message);
    assert!(told.message.contains("/dev/sda (serial D-a): ") && told.message.contains("/dev/sdc (serial S): "), "{}", told.message);
    for disk in [&lab.disk("a"), &spare] {
        assert!(fs::read(disk).unwrap().iter().all(|byte| *byte == 0), "{}", disk.display());
    }
    assert!(fs::read(&kept).unwrap().starts_with(KEPT), "the disk to keep was touched");
    assert_eq!(power(&lab, "a"), "Off");
    let note = lab.note(&second, "decommissioned: wiped by a#1").await;
    assert!(note.contains("Rackwright-State: Ready"), "{note}");
    let records =
        rackwright::journal::SqliteJournal::read_only(&lab.path("state/journal.db")).unwrap().records_of(&"a".parse().unwrap()).unwrap();
    let proof = records.iter().find_map(|record| match &record.fact {
        Fact::Saw { evidence: Evidence::Wiped { proof }, .. } => Some(proof.clone()),
        _ => None,
    });
    let proof = proof.unwrap();
    assert_eq!(proof.iter().map(|one| one.disk.serial.as_deref().unwrap()).collect::<Vec<_>>(), ["D-a", "S"]);
    assert!(proof.iter().all(|one| one.gap(&one.disk, WipeMethod::Zero).is_none()));

    // b by its signatures, and its secure erase, which a simulated disk does not know, before.
    lab.write_machines();
    add(&lab, "a", "decommission: {method: zero, disks: all}");
    add(&lab, "b", "decommission: {method: secureErase, disks: system}");
    lab.commit("Erase b");
    let refused = lab.until("the refusal", |status| machine(status, "b").reason == "Quarantined").await;
    assert!(machine(&refused, "b").message.contains("wipe-unsupported"), "{}", machine(&refused, "b").message);
    assert_eq!(lab.difference("b", "one"), None, "nothing falls back to another method");
    lab.write_machines();
    add(&lab, "a", "decommission: {method: zero, disks: all}");
    add(&lab, "b", "decommission: {method: signatures, disks: [{serial: D-b}]}");
    let third = lab.commit("Wipe the signatures of b");
    lab.until("the second wipe", ready(&third)).await;
    let disk = fs::read(lab.disk("b")).unwrap();
    assert!(disk[..1 << 20].iter().chain(&disk[31 << 20..]).all(|byte| *byte == 0) && disk.iter().any(|byte| *byte != 0));
    let before = (lab.simulator.report("a").unwrap(), lab.simulator.report("b").unwrap());

    // Their manifests go: they are released, and nothing else happens to them.
    for name in ["a", "b"] {
        fs::remove_file(lab.path("work/machines").join(format!("{name}.yaml"))).unwrap();
    }
    let last = lab.commit("They are gone");
    lab.until("the release", |status| status.commit.id.to_string() == last && status.total == 0).await;
    let after = (lab.simulator.report("a").unwrap(), lab.simulator.report("b").unwrap());
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    controller.stop.cancel();
    controller.ended().await.unwrap();
    lab.simulator.stop().await;
}
