//! The fleet of `scripts/demo --vm` is valid input, and the BMCs that the demo starts are those that its manifests declare.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path, sync::Arc};

use rackwright::{
    manifest::{self, Cache},
    model::{FileEntry, FileKind, Files, Trust},
    sim,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(folder: &Path, prefix: &str, files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &format!("{path}/"), files);
            continue;
        }
        // An id for each file: all that the loader asks of it here.
        let mut id = [0; 20];
        id[..8].copy_from_slice(&(files.len() as u64).to_be_bytes());
        let bytes: Arc<[u8]> = fs::read(entry.path()).unwrap().into();
        files.insert(path, FileEntry { id, kind: FileKind::Regular, bytes });
    }
}

#[test]
fn the_fleet_of_the_vm_demo_is_valid_and_declares_the_machines_that_it_starts() {
    let mut files = Files::new();
    read(&root().join("examples/vm-fleet"), "", &mut files);
    let loaded = manifest::load(&files, &mut Cache::default());
    assert_eq!(loaded.problems, [], "a warning counts too");

    let text = fs::read_to_string(root().join("scripts/lib/vm-demo-sim.yaml")).unwrap();
    let text = text.replace("@STATE@", "state").replace("@ACCEL@", "tcg").replace("@ADOPTED_DISK@", "adopted.raw");
    let config: sim::Config = serde_yaml::from_str(&text).unwrap();
    assert_eq!(config.machines.len(), loaded.fleet.machines.len());
    for real in &config.machines {
        let declared = &loaded.fleet.machines[&real.name];
        assert_eq!(declared.identity.serial.as_deref(), Some(real.serial.as_str()));
        assert_eq!(declared.identity.uuid.as_deref(), Some(real.uuid.as_str()));
        assert_eq!(declared.boot_nic().unwrap().mac, real.mac);
        assert_eq!(declared.boot.mode, real.mode);
        assert_eq!(declared.bmc.address, format!("https://{}:{}", real.address, real.port));
        assert!(matches!(declared.bmc.trust, Trust::Pinned(_)));
        let hint = declared.disks.system.as_ref().unwrap();
        assert_eq!(hint.serial.as_deref(), Some(real.disks[0].serial.as_str()));
        assert!(real.disks[0].serial.len() <= 20, "QEMU's virtio disks cut a serial number at 20 characters");
        let image = &declared.install.as_ref().unwrap().image;
        assert!(image.size.unwrap_or(0) <= real.disks[0].size, "{} fits", image.name);
    }
}
