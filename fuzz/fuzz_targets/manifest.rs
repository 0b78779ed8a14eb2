//! Any file in a fleet repository: a machine, a profile and a template of the fuzzer's, beside an image that is good.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rackwright::{
    manifest::{Cache, load, render},
    model::{Digest, FileEntry, FileKind, Files},
};

const IMAGE: &str = "apiVersion: rackwright.dev/v1alpha1\nkind: Image\nmetadata: {name: a}\nspec:\n  digest: \
    sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n  format: raw\n  url: a.raw\n";

fuzz_target!(|bytes: &[u8]| {
    let mut files = Files::new();
    let mut add = |path: &str, bytes: &[u8]| {
        let id = Digest::of(bytes).0[..20].try_into().expect("a digest is longer");
        files.insert(path.to_owned(), FileEntry { id, kind: FileKind::Regular, bytes: bytes.into() });
    };
    add("images/a.yaml", IMAGE.as_bytes());
    for (number, part) in bytes.split(|byte| *byte == 0).take(4).enumerate() {
        add(["machines/a.yaml", "profiles/a.yaml", "templates/a.yaml", "machines/b.yaml"][number], part);
    }
    let mut cache = Cache::default();
    let loaded = load(&files, &mut cache);
    for problem in &loaded.problems {
        let source = files.get(&problem.file).and_then(|file| std::str::from_utf8(&file.bytes).ok());
        let _ = render(problem, source);
    }
    let again = load(&files, &mut cache);
    assert_eq!((&again.fleet, &again.problems), (&loaded.fleet, &loaded.problems), "the cache changes no result");
});
