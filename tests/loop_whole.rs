//! The whole loop on the simulator: a pushed commit becomes DHCP, TFTP and HTTP traffic, a written disk, a call home, a note.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use lab::{Lab, Node, machine, ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_installs_a_machine_and_a_note_says_so() {
    let mut lab = Lab::new(vec![Node::new("a", "Adopt"), Node::new("b", "Install").with(|b| b.mode = "BIOS")]).await;
    let controller = lab.controller().await;
    let first = lab.head();
    lab.until("the install", ready(&first)).await;
    assert_eq!((lab.installs("a"), lab.installs("b")), (0, 1), "an adopted machine is not written");
    assert_eq!(lab.difference("b", "one"), None);
    let note = lab.note(&first, "Rackwright-Ready: 2/2").await;
    assert!(note.contains("Rackwright-State: Ready"), "{note}");

    lab.node("b").image = "two".to_owned();
    lab.write_machines();
    let second = lab.commit("Move b to image two");
    let status = lab.until("the reinstall", ready(&second)).await;
    assert_eq!((lab.installs("a"), lab.installs("b")), (0, 2));
    assert_eq!(lab.difference("b", "two"), None);
    assert_eq!(machine(&status, "b").image.as_deref(), Some("two"));
    lab.note(&first, "Rackwright-Superseded-By").await;

    controller.stop.cancel();
    controller.ended().await.unwrap();
    lab.simulator.stop().await;
}
