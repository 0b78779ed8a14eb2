//! Machines that are not what their manifests say.

use crate::{
    all_ready, end, find,
    lab::{Lab, Node},
    only_bad_stalls, pair,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_that_the_bmc_does_not_report() {
    let mut lab = Lab::new(pair("Install", |bad| bad.serial = Some("SN-ELSE".to_owned()))).await;
    let controller = lab.controller().await;
    only_bad_stalls(&lab, "IdentityMismatch", &["serial is SN-bad, the manifest says SN-ELSE"]).await;
    let report = lab.simulator.report("bad").unwrap();
    assert_eq!((lab.installs("bad"), report.boots, report.power.to_string().as_str()), (0, 0, "Off"), "nothing disruptive (law 8)");

    lab.node("bad").serial = None;
    lab.write_machines();
    lab.commit("Correct the serial");
    all_ready(&lab).await;
    assert_eq!((lab.installs("bad"), lab.installs("good")), (1, 1));
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_that_the_agent_does_not_find() {
    let lab = Lab::new(pair("Install", |bad| bad.faults = vec!["smbios-mismatch"])).await;
    let controller = lab.controller().await;
    let texts = ["agent-refused", "serial is SN-bad-BOARD, the manifest says SN-bad", "bad#1"];
    let status = only_bad_stalls(&lab, "Quarantined", &texts).await;
    assert_eq!((lab.installs("bad"), find(&status, "bad").unwrap().writes), (0, 0), "nothing was written");
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_hint_that_matches_no_disk() {
    let lab = Lab::new(pair("Install", |bad| bad.disk = "{serial: D-ELSE}".to_owned())).await;
    let controller = lab.controller().await;
    let texts = ["bad#1 failed (no-disk-matches)", "no disk has serial D-ELSE", "/dev/sda (serial D-bad"];
    let status = only_bad_stalls(&lab, "Quarantined", &texts).await;
    assert_eq!((lab.installs("bad"), find(&status, "bad").unwrap().writes), (0, 0), "nothing was written");
    end(lab, controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_hint_that_matches_two_disks() {
    let two = |bad: &mut Node| {
        bad.disk = "{model: Simulated SSD}".to_owned();
        bad.further_disks = vec![("D-other", "32MiB")];
    };
    let lab = Lab::new(pair("Install", two)).await;
    let controller = lab.controller().await;
    let texts = ["bad#1 failed (two-disks-match)", "2 disks have model Simulated SSD", "/dev/sda", "/dev/sdb"];
    let status = only_bad_stalls(&lab, "Quarantined", &texts).await;
    let disks = lab.simulator.report("bad").unwrap().disks;
    assert!(disks.iter().all(|disk| disk.writes.installs == 0), "{disks:?}");
    assert_eq!(find(&status, "bad").unwrap().writes, 0);
    end(lab, controller).await;
}
