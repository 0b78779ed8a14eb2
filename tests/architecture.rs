//! The project's own rules: which module may name which, what is pure, how long files and functions are, what the documents say.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which module may name which. ARCHITECTURE.md shows the same table; `the_table_stands_in_the_document` compares them.
const DIRECTION: &[(&str, &str)] = &[
    ("model", ""),
    ("wire", ""),
    ("trust", "model"),
    ("manifest", "model trust"),
    ("plan", "model"),
    ("ports", "model trust"),
    ("engine", "model manifest plan ports trust"),
    ("git", "model ports trust"),
    ("bmc", "model ports wire"),
    ("probe", "model ports wire"),
    ("boot", "model ports wire"),
    ("journal", "model ports"),
    ("agent", "model wire"),
    ("sim", "model wire agent"),
    ("api", "model plan engine"),
    ("cli", "*"),
];

/// Decisions are pure: none of this may stand in these modules.
const PURE: &[&str] = &["model", "wire", "trust", "manifest", "plan"];
const IMPURE: &[&str] = &[
    "async ",
    ".await",
    "tokio",
    "std::net::Tcp",
    "std::net::Udp",
    "UdpSocket",
    "TcpStream",
    "std::fs",
    "fs::",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "rand::",
    "getrandom",
    "std::env",
    "std::process",
];

const MOST_LINES_OF_A_FILE: usize = 400;
const MOST_LINES_OF_A_FUNCTION: usize = 60;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The module of a file below src/: its first folder, or its own name.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// Product lines: up to the tests at the end of a file, without comments and literal text.
fn product(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("\n#[cfg(test)]\nmod ").or_else(|| text.find("\n#[cfg(all(test")).unwrap_or(text.len());
    let code = text[..end].lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    code.collect::<Vec<_>>().join("\n")
}

fn named_modules(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let modules: Vec<&str> = match rest.strip_prefix('{') {
            // `use crate::{a::x, b::{y, z}}`: the names at the first level.
            Some(group) => first_level(group),
            None => vec![rest],
        };
        for module in modules {
            let name: String = module.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            named.insert(name);
        }
    }
    named
}

fn first_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

#[test]
fn modules_name_only_what_the_table_allows() {
    let table: BTreeMap<&str, &str> = DIRECTION.iter().copied().collect();
    let modules: BTreeSet<String> = table.keys().map(|module| (*module).to_owned()).collect();
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let module = module_of(&path);
        if ["lib", "main", "agent_main"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{}: module {module} is not in the table", path.display()));
            continue;
        };
        if *allowed == "*" || is_test_file(&path) {
            continue;
        }
        for name in named_modules(&product(&path)) {
            if name != module && modules.contains(&name) && !allowed.split(' ').any(|allowed| allowed == name) {
                wrong.push(format!("{}: {module} may not name {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_touch_nothing() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        if !PURE.contains(&module_of(&path).as_str()) || is_test_file(&path) {
            continue;
        }
        for (number, line) in product(&path).lines().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: {word:?} in a pure module", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_short() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")).iter().filter(|path| !is_test_file(path)) {
        let lines = product(path).lines().count();
        if lines > MOST_LINES_OF_A_FILE {
            wrong.push(format!("{} has {lines} product lines, at most {MOST_LINES_OF_A_FILE}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_stay_short() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let code = product(&path);
        let lines: Vec<&str> = code.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let is_fn =
                ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "pub(super) async fn ", "const fn "];
            if !is_fn.iter().any(|prefix| trimmed.starts_with(prefix)) || trimmed.ends_with(';') {
                continue;
            }
            let indent = &line[..line.len() - trimmed.len()];
            let close = format!("{indent}}}");
            let end = lines[start..].iter().position(|line| *line == close).unwrap_or(0);
            if end + 1 > MOST_LINES_OF_A_FUNCTION {
                wrong.push(format!("{}:{}: {} lines, at most {MOST_LINES_OF_A_FUNCTION}", path.display(), start + 1, end + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_stands_in_the_document() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (module, allowed) in DIRECTION {
        let allowed = match *allowed {
            "" => "–",
            "*" => "everything",
            names => names,
        };
        let row = format!("{module:<10} {allowed}");
        assert!(document.contains(&row), "ARCHITECTURE.md lacks the row {row:?}");
    }
}

/// Each law in ARCHITECTURE.md names tests that exist, or says that it has none yet.
#[test]
fn each_law_names_tests_that_exist() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| L")).collect();
    assert_eq!(rows.len(), 14, "one row for each law");
    let sources: String =
        ["src", "tests"].iter().flat_map(|folder| rust_files(&root().join(folder))).map(|path| fs::read_to_string(path).unwrap()).collect();
    for row in rows {
        let tests = row.split('|').nth(3).unwrap();
        if tests.contains("none yet") {
            continue;
        }
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test named in {row}");
        for test in named {
            let exists = match test.strip_suffix(".scn") {
                Some(_) => root().join("tests/scenarios").join(test).exists(),
                None => sources.contains(&format!("fn {test}(")),
            };
            assert!(exists, "{test} does not exist, named in {row}");
        }
    }
}
