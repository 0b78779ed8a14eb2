//! Every kind of problem, with the exact text that a person reads. `UPDATE=1` writes the expected texts anew; review the diff.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rackwright::{
    manifest::{Cache, Loaded, load, render},
    model::{FileEntry, FileKind, Files},
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name)
}

fn entry(kind: FileKind, bytes: Vec<u8>) -> FileEntry {
    use sha2::Digest;
    let hash: [u8; 32] = sha2::Sha256::digest(&bytes).into();
    FileEntry { id: hash[..20].try_into().unwrap(), kind, bytes: bytes.into() }
}

fn read_into(files: &mut Files, root: &Path, folder: &Path) {
    for found in fs::read_dir(folder).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            read_into(files, root, &path);
        } else if path.file_name().unwrap() != "expected.txt" {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, entry(FileKind::Regular, fs::read(&path).unwrap()));
        }
    }
}

/// The case's files over those that every case begins with.
fn case(path: &Path) -> Files {
    let mut files = Files::new();
    for root in [&folder("base"), path] {
        read_into(&mut files, root, root);
    }
    // What a checkout can't hold, or shouldn't.
    match path.file_name().unwrap().to_str().unwrap() {
        "symlink" => {
            for path in ["machines/web-01.yaml", "templates/x", "folder", "docs/latest.md", ".hidden/x.yaml"] {
                files.insert(path.to_owned(), entry(FileKind::Symlink, Vec::new()));
            }
        }
        "submodule" => drop(files.insert("vendor".to_owned(), entry(FileKind::Submodule, Vec::new()))),
        "too-large" => drop(files.insert("machines/big.yaml".to_owned(), entry(FileKind::Regular, vec![b'a'; (1 << 20) + 1]))),
        _ => {}
    }
    files
}

fn rendered(files: &Files, loaded: &Loaded) -> String {
    let source = |file: &str| files.get(file).and_then(|entry| std::str::from_utf8(&entry.bytes).ok());
    loaded.problems.iter().map(|problem| render(problem, source(&problem.file)) + "\n").collect()
}

#[test]
fn each_bad_repository_gets_exactly_its_problems() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for found in fs::read_dir(folder("bad")).unwrap() {
        let path = found.unwrap().path();
        let files = case(&path);
        let loaded = load(&files, &mut Cache::default());
        let text = rendered(&files, &loaded);
        assert!(!loaded.problems.is_empty(), "{} has no problem", path.display());
        let expected = path.join("expected.txt");
        if update {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", path.display()));
        }
        cases += 1;
    }
    assert!(cases > 40);
    assert!(wrong.is_empty(), "not as expected (UPDATE=1 accepts it):\n{}", wrong.join("\n"));
}

#[test]
fn good_repositories_have_no_problem() {
    for found in fs::read_dir(folder("good")).unwrap() {
        let files = case(&found.unwrap().path());
        let loaded = load(&files, &mut Cache::default());
        assert_eq!(rendered(&files, &loaded), "");
        assert_eq!(loaded.fleet.machines.len(), 2);
    }
}

#[test]
fn texts_mean_what_they_look_like() {
    let files = case(&folder("good/unquoted"));
    let fleet = load(&files, &mut Cache::default()).fleet;
    let machines: Vec<_> = fleet.machines.values().collect();
    assert_eq!(machines[0].nics[0].mac.to_string(), "52:54:00:12:34:56");
    assert_eq!((machines[0].place.rack.as_deref(), machines[0].place.slot.as_deref()), (Some("7"), Some("12")));
    assert_eq!(machines[1].identity.serial.as_deref(), Some("00e1234567"));
    assert_eq!(machines[1].disks.system.as_ref().unwrap().serial.as_deref(), Some("0600"));
}

#[test]
fn one_bad_file_hides_nothing_of_the_others() {
    let mut files = case(&folder("good/two-documents"));
    let good = load(&files, &mut Cache::default()).fleet;
    files.insert("machines/bad.yaml".to_owned(), entry(FileKind::Regular, b"{{{".to_vec()));
    files.insert("networks/bad.yaml".to_owned(), entry(FileKind::Regular, b"\xff".to_vec()));
    let loaded = load(&files, &mut Cache::default());
    assert_eq!(loaded.fleet, good);
    assert_eq!(loaded.problems.len(), 2);
    assert!(!loaded.is_usable());
}

#[test]
fn profiles_merge_in_the_stated_order() {
    let mut files = case(&folder("good/unquoted"));
    let profile = |name: &str, spec: &str| {
        let text = format!("apiVersion: rackwright.dev/v1alpha1\nkind: Profile\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n");
        (
            format!("profiles/{name}.yaml"),
            FileEntry { id: [name.len() as u8; 20], kind: FileKind::Regular, bytes: Arc::from(text.as_bytes()) },
        )
    };
    files.extend([
        profile("a", "power: On, boot: {mode: BIOS}, disks: {keep: [{serial: A}]}"),
        profile("bb", "extends: [a], power: Off, disks: {system: {serial: B}, keep: [{serial: B}]}"),
        profile("web", "extends: [bb, a], image: debian-12, disks: {keep: [{serial: B}]}"),
    ]);
    let loaded = load(&files, &mut Cache::default());
    assert_eq!(loaded.problems, []);
    let machine = loaded.fleet.machines.values().next().unwrap();
    assert_eq!(format!("{:?} {:?}", machine.power, machine.boot.mode), "On BIOS");
    // The machine's own disk wins; what is never written adds up.
    assert_eq!(machine.disks.system.as_ref().unwrap().serial.as_deref(), Some("SYS-WEB-01"));
    let keep: Vec<_> = machine.disks.keep.iter().map(|hint| hint.serial.as_deref().unwrap()).collect();
    assert_eq!(keep, ["A", "B"]);
}
