//! Something wrong, before anyone knows at which line: it names the value by its path in the document.
//!
//! Places are looked up only for faults that are there, which keeps the good path free of them.

use std::collections::BTreeMap;

use super::{
    spans::{Place, Tree},
    yaml,
};
use crate::model::{Files, Problem, Severity};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seg {
    Key(String),
    Index(usize),
}

impl From<&str> for Seg {
    fn from(key: &str) -> Self {
        Seg::Key(key.to_owned())
    }
}

impl From<&String> for Seg {
    fn from(key: &String) -> Self {
        Seg::Key(key.clone())
    }
}

impl From<usize> for Seg {
    fn from(index: usize) -> Self {
        Seg::Index(index)
    }
}

/// The path of a value in a document.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(pub(crate) Vec<Seg>);

impl Path {
    pub(crate) fn segs(&self) -> &[Seg] {
        &self.0
    }

    /// This path and one step more.
    pub(crate) fn then(&self, seg: impl Into<Seg>) -> Path {
        let mut segs = self.0.clone();
        segs.push(seg.into());
        Path(segs)
    }

    /// Reads serde_yaml's form: `spec.nics[0].mac`. Keys with dots in them come apart; nobody but labels has such.
    pub(crate) fn parse(text: &str) -> Path {
        let mut segs = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, indexes) = part.split_once('[').unwrap_or((part, ""));
            if !key.is_empty() {
                segs.push(Seg::Key(key.to_owned()));
            }
            segs.extend(indexes.split('[').filter_map(|index| index.strip_suffix(']')?.parse().ok()).map(Seg::Index));
        }
        Path(segs)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, seg) in self.0.iter().enumerate() {
            match seg {
                Seg::Key(key) if n == 0 => write!(f, "{key}")?,
                Seg::Key(key) => write!(f, ".{key}")?,
                Seg::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// `path_to!["spec", "nics", 0, "mac"]`
macro_rules! path_to {
    ($($seg:expr),* $(,)?) => { $crate::manifest::fault::Path(vec![$($crate::manifest::fault::Seg::from($seg)),*]) };
}
pub(crate) use path_to;

/// Where a fault is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// The value at a path of the document with this number.
    Value(usize, Path),
    /// Its key.
    Key(usize, Path),
    /// A place that is already known.
    Place(Place),
}

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Another file than the one that was being read: a template.
    pub(crate) file: Option<String>,
    pub(crate) at: At,
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The machine for which a template was rendered; faults that differ only in it are told once.
    pub(crate) machine: Option<String>,
}

impl Fault {
    pub(crate) fn error(code: &'static str, at: At, message: impl Into<String>) -> Self {
        Self { file: None, at, severity: Severity::Error, code, message: message.into(), hint: None, machine: None }
    }

    pub(crate) fn warning(code: &'static str, at: At, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, at, message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

/// The first line of a file.
pub(crate) const TOP: At = At::Place(Place { line: 1, column: 1, length: 1 });

/// Faults with the file that each is in, turned into Problems: placed, merged and in a fixed order.
pub(crate) fn place_all(files: &Files, faults: Vec<(&str, Fault)>) -> Vec<Problem> {
    let mut by_file: BTreeMap<String, Vec<Fault>> = BTreeMap::new();
    for (file, mut fault) in faults {
        let file = fault.file.take().unwrap_or_else(|| file.to_owned());
        by_file.entry(file).or_default().push(fault);
    }
    let mut problems = Vec::new();
    for (file, faults) in by_file {
        let text = files.get(&file).and_then(|entry| std::str::from_utf8(&entry.bytes).ok()).unwrap_or_default();
        let mut trees = BTreeMap::new();
        problems.extend(merge(faults).into_iter().map(|fault| {
            let place = find(text, &mut trees, &fault.at);
            Problem {
                file: file.clone(),
                line: place.line,
                column: place.column,
                length: place.length,
                severity: fault.severity,
                code: fault.code.to_owned(),
                message: fault.message,
                hint: fault.hint,
            }
        }));
    }
    problems.sort();
    problems.dedup();
    problems
}

/// Tells what is wrong with a template once, however many machines it is rendered for.
fn merge(faults: Vec<Fault>) -> Vec<Fault> {
    let mut merged: Vec<Fault> = Vec::new();
    let mut machines: BTreeMap<(At, &'static str, String), Vec<String>> = BTreeMap::new();
    for fault in faults {
        match fault.machine.clone() {
            None => merged.push(fault),
            Some(machine) => {
                let names = machines.entry((fault.at.clone(), fault.code, fault.message.clone())).or_default();
                if names.is_empty() {
                    merged.push(fault);
                }
                names.push(machine);
            }
        }
    }
    for fault in merged.iter_mut().filter(|fault| fault.machine.is_some()) {
        let Some(names) = machines.get(&(fault.at.clone(), fault.code, fault.message.clone())) else { continue };
        let first = names.iter().min().cloned().unwrap_or_default();
        fault.message += &match names.len() - 1 {
            0 => format!(" (rendered for {first})"),
            1 => format!(" (rendered for {first} and 1 other machine)"),
            others => format!(" (rendered for {first} and {others} other machines)"),
        };
    }
    merged
}

fn find(text: &str, trees: &mut BTreeMap<usize, Tree>, at: &At) -> Place {
    let start = Place { line: 1, column: 1, length: 1 };
    let (At::Value(document, path) | At::Key(document, path)) = at else {
        return if let At::Place(place) = at { *place } else { start };
    };
    let tree = trees.entry(*document).or_insert_with(|| {
        let chunk = yaml::chunks(text).get(*document).copied();
        chunk.map_or_else(Tree::default, |chunk| Tree::read(chunk.text, chunk.lines_before))
    });
    let place = if matches!(at, At::Key(..)) { tree.key(path) } else { tree.value(path) };
    // The root is as long as the document; its first key says where it is.
    let place = if path.segs().is_empty() { tree.start() } else { place };
    place.or_else(|| tree.start()).unwrap_or(start)
}
