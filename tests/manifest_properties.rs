//! Loading is total, deterministic, independent of order and of what is cached.

#![allow(clippy::unwrap_used, missing_docs)]

use proptest::{collection::vec, prelude::*, sample::select};
use rackwright::{
    manifest::{Cache, load, render, starter},
    model::{FileEntry, FileKind, Files},
};

fn entry(bytes: &[u8]) -> FileEntry {
    use sha2::Digest;
    let hash: [u8; 32] = sha2::Sha256::digest(bytes).into();
    FileEntry { id: hash[..20].try_into().unwrap(), kind: FileKind::Regular, bytes: bytes.into() }
}

fn starter_files() -> Files {
    let manifests = starter().into_iter().filter(|(path, _)| !path.starts_with('.'));
    manifests.map(|(path, text)| (path.to_owned(), entry(text.as_bytes()))).collect()
}

/// One edit of one file: which file, where, how much goes, what comes.
type Edit = (usize, prop::sample::Index, usize, String);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let pieces = select(vec![
        "",
        " ",
        "\n",
        "\t",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "*a",
        "&a ",
        "<<: ",
        "'",
        "\"",
        "#",
        "---\n",
        "...\n",
        "%",
        "!!",
        "|\n",
        "? ",
        "00e1",
        "0600",
        "~",
        "node-01",
        "node",
        "bmc",
        "kind: Machine\n",
        "  extends: [node]\n",
        "{{ machine.x }}",
        "{%",
        "\u{feff}",
        "\u{85}",
        "ä",
        "\u{0}",
    ]);
    vec((0..10usize, any::<prop::sample::Index>(), 0..12usize, pieces.prop_map(str::to_owned)), 1..6)
}

fn edited(edits: &[Edit]) -> Files {
    let mut files = starter_files();
    let paths: Vec<String> = files.keys().cloned().collect();
    for (file, at, gone, piece) in edits {
        let path = &paths[file % paths.len()];
        let mut bytes = files[path].bytes.to_vec();
        let at = at.index(bytes.len() + 1);
        let end = (at + gone).min(bytes.len());
        bytes.splice(at..end, piece.bytes());
        files.insert(path.clone(), entry(&bytes));
    }
    files
}

/// Loads, renders every problem, and checks what must hold of any result.
fn check(files: &Files, cache: &mut Cache) -> String {
    let loaded = load(files, cache);
    assert!(loaded.problems.is_sorted());
    for problem in &loaded.problems {
        assert!(problem.line >= 1 && problem.column >= 1 && problem.length >= 1, "{problem:?}");
        assert!(files.contains_key(&problem.file), "{problem:?}");
        let source = std::str::from_utf8(&files[&problem.file].bytes).ok();
        assert!(!render(problem, source).is_empty());
    }
    format!("{:?}\n{:?}", loaded.fleet, loaded.problems)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_can_be_loaded(bytes in vec(any::<u8>(), 0..400), template in vec(any::<u8>(), 0..100)) {
        let mut files = starter_files();
        files.insert("machines/x.yaml".to_owned(), entry(&bytes));
        files.insert("templates/node.yaml".to_owned(), entry(&template));
        check(&files, &mut Cache::default());
    }

    #[test]
    fn any_text_that_looks_like_yaml_can_be_loaded(text in "([a-c*&!|>%@`'\"#,:?\\-\\[\\]{} \\n\\t~0-9.]|: |- |\\n  |---\\n){0,80}") {
        let mut files = starter_files();
        files.insert("machines/x.yaml".to_owned(), entry(text.as_bytes()));
        let spec = format!("apiVersion: rackwright.dev/v1alpha1\nkind: Profile\nmetadata: {{name: x}}\nspec: {text}");
        files.insert("profiles/x.yaml".to_owned(), entry(spec.as_bytes()));
        check(&files, &mut Cache::default());
    }

    #[test]
    fn edited_manifests_load_alike_with_and_without_a_cache(first in edits(), second in edits()) {
        let (one, two) = (edited(&first), edited(&second));
        let mut cache = Cache::default();
        let mut kept = Vec::new();
        for files in [&one, &two, &one, &starter_files(), &two] {
            kept.push(check(files, &mut cache));
            prop_assert_eq!(kept.last().unwrap(), &check(files, &mut Cache::default()));
        }
        prop_assert_eq!(&kept[0], &kept[2]);
        prop_assert_eq!(&kept[1], &kept[4]);
    }
}

#[test]
fn many_machines_are_loaded_alike_by_many_threads() {
    let text = starter().into_iter().find(|(path, _)| *path == "machines/node-01.yaml").unwrap().1;
    let mut files = starter_files();
    files.remove("machines/node-01.yaml");
    for n in 0..1000u32 {
        let machine = text
            .replace("node-01", &format!("node-{n}"))
            .replace("CHANGE-ME", &format!("S{n}"))
            .replace("192.0.2.11", &format!("192.0.{}.{}", n / 250, n % 250))
            .replace("00:00:01", &format!("00:{:02x}:{:02x}", n / 256, n % 256))
            .replace(", address: 198.51.100.11", "");
        files.insert(format!("machines/{n}.yaml"), entry(machine.as_bytes()));
    }
    let mut cache = Cache::default();
    let first = load(&files, &mut cache);
    assert_eq!(first.problems, []);
    assert_eq!(first.fleet.machines.len(), 1000);
    // A changed template reaches every machine, although no machine's file changed.
    files.insert("templates/node.yaml".to_owned(), entry(b"#cloud-config\nfqdn: {{ machine.name }}\n"));
    let second = load(&files, &mut cache);
    assert!(first.fleet.machines.iter().all(|(name, machine)| second.fleet.machines[name].generation() != machine.generation()));
    assert_eq!(second.fleet, load(&files, &mut Cache::default()).fleet);
}
