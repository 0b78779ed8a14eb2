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

/// What a commit changes. Numbers choose, whatever there is to choose from.
#[derive(Debug, Clone)]
enum Change {
    /// A file of one kind says something new.
    Say(Kind, usize, [u8; 10]),
    /// A file goes.
    Delete(usize),
    /// A file goes to where another one may be.
    Rename(usize, Kind, usize),
    /// The same bytes stand in two files.
    Copy(usize, Kind, usize),
    /// Two documents come into one file.
    Append(usize, usize),
    /// A slip of the keyboard.
    Slip(usize, prop::sample::Index, usize, String),
    /// A file becomes a link with the same bytes, or again a file.
    Link(usize),
    /// Everything is again as some commits ago.
    Revert(usize),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Fleet,
    Image,
    Machine,
    Network,
    Profile,
    Secret,
    Template,
}

fn path(kind: Kind, number: usize) -> String {
    match kind {
        Kind::Fleet => "fleet.yaml".to_owned(),
        Kind::Image => format!("images/i{}.yaml", number % 2),
        Kind::Machine => format!("machines/m{}.yaml", number % 5),
        Kind::Network => format!("networks/n{}.yaml", number % 2),
        Kind::Profile => format!("profiles/p{}.yaml", number % 3),
        Kind::Secret => format!("secrets/s{}.yaml", number % 2),
        Kind::Template => format!("templates/t{}.yaml", number % 3),
    }
}

/// A document that is often right; what it refers to is often there.
fn text(kind: Kind, number: usize, n: [u8; 10]) -> String {
    // One in sixteen refers to what is never there.
    let one_of = |prefix: &str, value: u8, of: u8| format!("{prefix}{}", if value >= 240 { 9 } else { value % of });
    let template = |value: u8| match value % 2 {
        0 => String::new(),
        _ => format!(", configuration: {{cloudInit: {{userData: templates/{}.yaml}}}}", one_of("t", value / 2, 3)),
    };
    let (name, spec) = match kind {
        Kind::Fleet => ("fleet".to_owned(), format!("budgets: {{maxUnavailable: {{group: {}}}}}", n[0] % 3)),
        Kind::Image => (
            one_of("i", number as u8, 2),
            format!("digest: \"sha256:{}\", format: raw, url: x.raw, size: {}", format!("{:02x}", n[0] % 3).repeat(32), n[1] % 3),
        ),
        Kind::Machine => {
            let name = one_of("m", if n[0].is_multiple_of(8) { n[1] } else { number as u8 }, 5);
            let profile = if n[2].is_multiple_of(4) { String::new() } else { format!(", profile: {}", one_of("p", n[2], 3)) };
            let spec = format!(
                "identity: {{serial: S{}}}, bmc: {{address: \"https://10.0.8.{}{}\", credentials: {}}}{profile}{}, rebuild: {}, \
                 disks: {{system: {{serial: D}}}}, \
                 nics: [{{name: lan0, mac: \"52:54:00:00:00:{:02x}\", network: {}, address: 10.0.{}.{}, boot: true}}]",
                if n[3] < 16 { 0 } else { number },
                if n[4] < 64 { 0 } else { number },
                if n[4] % 4 == 1 { format!("/redfish/v1/Systems/{}", number % 3) } else { String::new() },
                one_of("s", n[5], 2),
                template(n[6]),
                n[7] % 2,
                if n[8] < 16 { 0 } else { number },
                one_of("n", n[9], 2),
                n[9] % 2,
                10 + number,
            );
            (name, spec)
        }
        Kind::Network => {
            (one_of("n", number as u8, 2), format!("subnet: 10.0.{}.0/24, gateway: 10.0.{}.{}", number % 2, number % 2, n[0] % 3))
        }
        Kind::Profile => {
            let extends = if n[0].is_multiple_of(2) { String::new() } else { format!(", extends: [{}]", one_of("p", n[1], 3)) };
            (one_of("p", number as u8, 3), format!("image: {}{extends}{}", one_of("i", n[2], 2), template(n[3])))
        }
        Kind::Secret => (one_of("s", number as u8, 2), format!("from: {{env: VARIABLE_{}}}", n[0] % 3)),
        Kind::Template => {
            let pieces = [
                "{{ machine.name }}",
                "{{ machine.address }}",
                "{{ profile.name }}",
                "{{ network.gateway }}",
                "{% include \"templates/t0.yaml\" %}",
                "{% if machine.name == \"m1\" %}{% include \"templates/t1.yaml\" %}{% endif %}",
                "{{ machine.nothing }}",
                "{% for",
            ];
            // What is refused comes seldom.
            let piece = |value: u8| pieces[usize::from(if value.is_multiple_of(4) { value / 4 % 8 } else { value % 4 })];
            return format!("#cloud-config\n# {}\n{}\n{}\n", n[0] % 4, piece(n[1]), piece(n[2]));
        }
    };
    format!("apiVersion: rackwright.dev/v1alpha1\nkind: {kind:?}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn change() -> impl Strategy<Value = Change> {
    use Kind::{Fleet, Image, Machine, Network, Profile, Secret, Template};
    let kind = || select(vec![Fleet, Image, Machine, Machine, Machine, Network, Profile, Profile, Secret, Template, Template]);
    let slip = select(vec!["", " ", "\n", "}", "'", "---\n", "x", "{%", "kind: Image\n"]).prop_map(str::to_owned);
    let file = || 0..64_usize;
    prop_oneof![
        10 => (kind(), 0..5_usize, any::<[u8; 10]>()).prop_map(|(kind, number, n)| Change::Say(kind, number, n)),
        2 => file().prop_map(Change::Delete),
        2 => (file(), kind(), 0..5_usize).prop_map(|(file, kind, number)| Change::Rename(file, kind, number)),
        1 => (file(), kind(), 0..5_usize).prop_map(|(file, kind, number)| Change::Copy(file, kind, number)),
        1 => (file(), file()).prop_map(|(to, from)| Change::Append(to, from)),
        1 => (file(), any::<prop::sample::Index>(), 0..6_usize, slip).prop_map(|(file, at, gone, text)| Change::Slip(file, at, gone, text)),
        1 => file().prop_map(Change::Link),
        2 => (1..6_usize).prop_map(Change::Revert),
    ]
}

/// A fleet in which everything refers to something.
fn begin() -> Files {
    let mut files = Files::new();
    for (kind, count) in
        [(Kind::Image, 2), (Kind::Machine, 5), (Kind::Network, 2), (Kind::Profile, 3), (Kind::Secret, 2), (Kind::Template, 3)]
    {
        for number in 0..count {
            files.insert(path(kind, number), entry(text(kind, number, [90 + number as u8; 10]).as_bytes()));
        }
    }
    files
}

fn apply(change: &Change, history: &[Files]) -> Files {
    let mut files = history[history.len() - 1].clone();
    let paths: Vec<String> = files.keys().cloned().collect();
    let at = |number: &usize| paths.get(number % paths.len().max(1)).cloned().unwrap_or_default();
    let bytes = |files: &Files, path: &str| files.get(path).map(|entry| entry.bytes.to_vec()).unwrap_or_default();
    match change {
        Change::Append(..) | Change::Slip(..) if paths.is_empty() => {}
        Change::Say(kind, number, n) => drop(files.insert(path(*kind, *number), entry(text(*kind, *number, *n).as_bytes()))),
        Change::Delete(file) => drop(files.remove(&at(file))),
        Change::Rename(file, kind, number) => {
            if let Some(entry) = files.remove(&at(file)) {
                files.insert(path(*kind, *number), entry);
            }
        }
        Change::Copy(file, kind, number) => {
            if let Some(entry) = files.get(&at(file)).cloned() {
                files.insert(path(*kind, *number), entry);
            }
        }
        Change::Append(to, from) => {
            let joined = [bytes(&files, &at(to)), b"---\n".to_vec(), bytes(&files, &at(from))].concat();
            files.insert(at(to), entry(&joined));
        }
        Change::Slip(file, place, gone, piece) => {
            let mut text = bytes(&files, &at(file));
            let start = place.index(text.len() + 1);
            text.splice(start..(start + gone).min(text.len()), piece.bytes());
            files.insert(at(file), entry(&text));
        }
        Change::Link(file) => {
            if let Some(entry) = files.get_mut(&at(file)) {
                entry.kind = if entry.kind == FileKind::Regular { FileKind::Symlink } else { FileKind::Regular };
            }
        }
        Change::Revert(commits) => return history[history.len().saturating_sub(1 + commits)].clone(),
    }
    files
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

    /// Whatever one commit changes after the other: who followed them all has what somebody has who comes only now (law 1).
    #[test]
    fn following_commits_gives_what_a_fresh_start_gives(changes in vec(change(), 1..40)) {
        let mut history = vec![begin()];
        let mut cache = Cache::default();
        prop_assert_eq!(check(&history[0], &mut cache), check(&history[0], &mut Cache::default()));
        for change in &changes {
            let files = apply(change, &history);
            prop_assert_eq!(check(&files, &mut cache), check(&files, &mut Cache::default()), "after {:?}", change);
            history.push(files);
        }
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
