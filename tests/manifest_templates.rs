//! What the template engine makes of the example repository, word for word (law 11: a rendered text is part of a machine's generation,
//! so an engine that renders otherwise would reinstall a fleet). If this fails after an update of a dependency, the dependency changed
//! what machines get: don't update the expectation, pin the dependency.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, path::Path};

use rackwright::{
    git::read_worktree,
    manifest::{Cache, load},
};

#[test]
fn templates_render_as_they_always_did() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = read_worktree(&root.join("examples/fleet-repo")).unwrap();
    let loaded = load(&files, &mut Cache::default());
    let mut rendered = String::new();
    for name in ["db-01", "edge-01", "web-01"] {
        let install = loaded.fleet.machines[&name.parse().unwrap()].install.as_ref().unwrap();
        rendered += &format!("=== {name} {}\n{}", install.generation, install.user_data.as_deref().unwrap());
    }
    let golden = root.join("tests/manifests/templates.golden");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&golden, &rendered).unwrap();
    }
    assert_eq!(rendered, fs::read_to_string(&golden).unwrap());
}
