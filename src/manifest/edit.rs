//! A machine's manifest with one field set, as a person would have written it: comments, order, quotes and anchors stay as they are.
//!
//! The text is changed at the one place that matters, and then the whole repository is read again, before and after: if anything is
//! different but what was asked for, such as another machine that shares the text through an anchor, nothing is changed.

use std::collections::BTreeMap;

use super::{
    cache::Cache,
    fault::{Path, path_to},
    load::{Loaded, load},
    parse,
    raw::Kind,
    spans::{Place, Tree},
    yaml,
};
use crate::model::{Digest, FileEntry, Files, Machine, MachineName, Problem};

/// What to set in a machine's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// `spec.suspend`.
    Suspend(bool),
    /// `spec.rebuild`, one more than it is.
    Rebuild,
}

/// Why a manifest is not edited.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EditError {
    /// What is there can't come into force, so the result could not be checked.
    #[error("the repository has errors; mend them first (`rackwright validate` lists them)")]
    Errors,
    /// Nothing of that name.
    #[error("no manifest declares a machine {0}")]
    NoSuchMachine(MachineName),
    /// A machine that nothing installs can't be installed anew.
    #[error("{0} has no image, so there is nothing to build anew")]
    NoImage(MachineName),
    /// The counter has no next number.
    #[error("`rebuild` of {0} is as high as a number can be")]
    Exhausted(MachineName),
    /// The place was not found, or a change there would have changed something else.
    #[error("{file}: `{field}` of {machine} can't be set here without changing something else; set it by hand")]
    Entangled {
        /// The file.
        file: String,
        /// The machine.
        machine: MachineName,
        /// The field.
        field: &'static str,
    },
}

/// The texts of the files that change, by path, when `edit` is made to these machines. A machine that is so already changes nothing.
///
/// # Errors
/// [`EditError`]; then nothing is to be written.
pub fn edit(files: &Files, machines: &[MachineName], edit: Edit) -> Result<BTreeMap<String, String>, EditError> {
    let before = load(files, &mut Cache::default());
    if !before.is_usable() {
        return Err(EditError::Errors);
    }
    let mut after = files.clone();
    let mut changed: BTreeMap<String, String> = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    for name in machines {
        let machine = before.fleet.machines.get(name).ok_or_else(|| EditError::NoSuchMachine(name.clone()))?;
        let Some((field, value, want)) = setting(machine, edit)? else { continue };
        let file = &machine.source.file;
        let entangled = || EditError::Entangled { file: file.clone(), machine: name.clone(), field };
        let text = set(&after[file], name, field, &value).ok_or_else(entangled)?;
        // Never compared with what Git calls it, only with the text before.
        let mut id = [0; 20];
        id.copy_from_slice(&Digest::of(text.as_bytes()).0[..20]);
        after.insert(file.clone(), FileEntry { id, bytes: text.as_bytes().into(), ..after[file].clone() });
        changed.insert(file.clone(), text);
        wanted.insert(name.clone(), (field, want));
    }
    let loaded = load(&after, &mut Cache::default());
    if let Some((name, field)) = differs(&before, &loaded, &wanted) {
        let file = before.fleet.machines.get(&name).map(|machine| machine.source.file.clone()).unwrap_or_default();
        return Err(EditError::Entangled { file, machine: name, field });
    }
    Ok(changed)
}

/// The field, its value as text, and the machine as it then should be. `None`: it is so already.
fn setting(machine: &Machine, edit: Edit) -> Result<Option<(&'static str, String, Machine)>, EditError> {
    let mut want = machine.clone();
    match edit {
        Edit::Suspend(suspend) if machine.suspend == suspend => Ok(None),
        Edit::Suspend(suspend) => {
            want.suspend = suspend;
            Ok(Some(("suspend", suspend.to_string(), want)))
        }
        Edit::Rebuild => {
            let install = want.install.as_mut().ok_or_else(|| EditError::NoImage(machine.name.clone()))?;
            install.rebuild = install.rebuild.checked_add(1).ok_or_else(|| EditError::Exhausted(machine.name.clone()))?;
            let value = install.rebuild.to_string();
            Ok(Some(("rebuild", value, want)))
        }
    }
}

/// The text of a file with `spec.<field>` of one machine set; `None` where no place for it is found.
fn set(entry: &FileEntry, name: &MachineName, field: &'static str, value: &str) -> Option<String> {
    let text = std::str::from_utf8(&entry.bytes).ok()?;
    let parsed = parse::parse(entry);
    let doc = parsed.docs.iter().find(|doc| doc.kind() == Kind::Machine && doc.metadata.name == name.as_str())?;
    let chunk = *yaml::chunks(text).get(doc.number)?;
    let tree = Tree::read(chunk.text, chunk.lines_before);
    if let Some(place) = tree.scalar_place(&path_to!["spec", field]) {
        let from = offset(text, place)?;
        let to = from + text.get(from..)?.chars().take(place.length as usize).map(char::len_utf8).sum::<usize>();
        return Some(format!("{}{value}{}", text.get(..from)?, text.get(to..)?));
    }
    let spec: Path = path_to!["spec"];
    let (start, empty) = tree.mapping_place(&spec)?;
    let from = offset(text, start)?;
    if text.get(from..)?.starts_with('{') {
        let more = if empty { "" } else { ", " };
        return Some(format!("{}{field}: {value}{more}{}", text.get(..=from)?, text.get(from + 1..)?));
    }
    // A line of its own, right below `spec:`, as far in as the others.
    let line = Place { line: tree.key(&spec)?.line + 1, column: 1, length: 1 };
    let (at, indent) = (offset(text, line)?, " ".repeat(start.column as usize - 1));
    let end = if text.get(..at)?.ends_with("\r\n") { "\r\n" } else { "\n" };
    Some(format!("{}{indent}{field}: {value}{end}{}", text.get(..at)?, text.get(at..)?))
}

/// The byte at which a place begins.
fn offset(text: &str, place: Place) -> Option<usize> {
    let before: usize = text.split_inclusive('\n').take(place.line as usize - 1).map(str::len).sum();
    let line = text.get(before..)?;
    Some(before + line.chars().take(place.column as usize - 1).map(char::len_utf8).sum::<usize>())
}

/// The first machine that is not as it should be, and the field that was set. What merely moved by a line is the same.
fn differs(
    before: &Loaded,
    after: &Loaded,
    wanted: &BTreeMap<MachineName, (&'static str, Machine)>,
) -> Option<(MachineName, &'static str)> {
    let (was, is) = (&before.fleet, &after.fleet);
    let first = wanted.first_key_value().map(|(name, (field, _))| (name.clone(), *field))?;
    let codes = |problems: &[Problem]| problems.iter().map(|problem| problem.code.clone()).collect::<Vec<_>>();
    let rest = was.settings == is.settings && was.rollouts == is.rollouts && was.networks == is.networks && was.secrets == is.secrets;
    if !rest || was.machines.len() != is.machines.len() || !after.is_usable() || codes(&before.problems) != codes(&after.problems) {
        return Some(first);
    }
    is.machines.iter().find_map(|(name, machine)| {
        let asked = wanted.get(name);
        let mut want =
            asked.map_or_else(|| was.machines.get(name).map(|machine| machine.as_ref().clone()), |(_, want)| Some(want.clone()))?;
        want.source = machine.source.clone();
        if let (Some(want), Some(install), true) = (&mut want.install, &machine.install, asked.is_some()) {
            // It follows from the counter.
            want.generation = install.generation;
        }
        (want != **machine).then(|| (name.clone(), asked.map_or(first.1, |(field, _)| *field)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FileKind;

    const REST: &str = "  bmc: {address: \"https://10.0.0.1\"}\n  identity: {serial: S1}\n";
    const HEAD: &str = "apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata: {name: a}\n";

    fn files(texts: &[(&str, &str)]) -> Files {
        let entry = |text: &str| {
            let mut id = [0; 20];
            id.copy_from_slice(&Digest::of(text.as_bytes()).0[..20]);
            FileEntry { id, kind: FileKind::Regular, bytes: text.as_bytes().into() }
        };
        texts.iter().map(|(path, text)| ((*path).to_owned(), entry(text))).collect()
    }

    fn name(text: &str) -> MachineName {
        MachineName::new(text).unwrap()
    }

    fn suspended(text: &str) -> Result<Option<String>, EditError> {
        edit(&files(&[("a.yaml", text)]), &[name("a")], Edit::Suspend(true)).map(|mut changed| changed.remove("a.yaml"))
    }

    #[test]
    fn one_line_changes_and_nothing_else() {
        let text = format!("# ours\n{HEAD}spec:  # what it is\n  # first\n{REST}\n# end\n");
        let with = format!("# ours\n{HEAD}spec:  # what it is\n  suspend: true\n  # first\n{REST}\n# end\n");
        assert_eq!(suspended(&text).unwrap().unwrap(), with);
        assert_eq!(suspended(&with), Ok(None), "it is so already");
        let back = edit(&files(&[("a.yaml", &with)]), &[name("a")], Edit::Suspend(false)).unwrap();
        assert_eq!(back["a.yaml"], with.replace("suspend: true", "suspend: false"));
    }

    #[test]
    fn what_is_there_is_replaced_where_it_stands() {
        for (was, is) in [
            ("  suspend: false # ä: until Friday\n", "  suspend: true # ä: until Friday\n"),
            ("  suspend:   \"false\"\n", ""),
            ("  \"suspend\": false\n", "  \"suspend\": true\n"),
        ] {
            let edited = suspended(&format!("{HEAD}spec:\n{REST}{was}"));
            // A text in quotes is no truth value, so that repository has an error.
            let expected = if is.is_empty() { Err(EditError::Errors) } else { Ok(Some(format!("{HEAD}spec:\n{REST}{is}"))) };
            assert_eq!(edited, expected, "{was}");
        }
    }

    #[test]
    fn flow_style_line_ends_and_further_documents_stay() {
        let flow = format!("{HEAD}spec: {{bmc: {{address: \"https://10.0.0.1\"}}, identity: {{serial: S1}}}}\n");
        assert_eq!(suspended(&flow).unwrap().unwrap(), flow.replace("spec: {", "spec: {suspend: true, "));
        let crlf = format!("{HEAD}spec:\n{REST}").replace('\n', "\r\n");
        assert_eq!(suspended(&crlf).unwrap().unwrap(), crlf.replace("spec:\r\n", "spec:\r\n  suspend: true\r\n"));
        let other = format!("{HEAD}spec:\n{REST}").replace("name: a", "name: b").replace("S1", "S2").replace("0.0.1", "0.0.2");
        let two = format!("{other}---\n# ü\n{HEAD}spec:\n{REST}");
        assert_eq!(suspended(&two).unwrap().unwrap(), format!("{other}---\n# ü\n{HEAD}spec:\n  suspend: true\n{REST}"));
    }

    #[test]
    fn what_another_machine_shares_is_left_alone() {
        let shared = format!("{HEAD}spec:\n  suspend: &s false\n{REST}");
        let other = shared.replace("name: a", "name: b").replace("S1", "S2").replace("0.0.1", "0.0.2");
        // In files of their own, anchors are, too.
        let both = files(&[("a.yaml", &shared), ("b.yaml", &other)]);
        assert_eq!(edit(&both, &[name("a")], Edit::Suspend(true)).unwrap().len(), 1);
        let labels = format!(
            "apiVersion: rackwright.dev/v1alpha1\nkind: Machine\nmetadata: {{name: a}}\nspec:\n  suspend: &s false\n  nics:\n  - {{name: x, mac: \"52:54:00:00:00:01\", boot: *s}}\n{REST}"
        );
        let refused = suspended(&labels);
        let entangled = EditError::Entangled { file: "a.yaml".to_owned(), machine: name("a"), field: "suspend" };
        assert_eq!(refused, Err(entangled), "the interface would boot");
    }

    #[test]
    fn a_machine_without_an_image_and_one_that_is_not_there_are_told() {
        let text = format!("{HEAD}spec:\n{REST}");
        let none = edit(&files(&[("a.yaml", &text)]), &[name("a")], Edit::Rebuild);
        assert_eq!(none, Err(EditError::NoImage(name("a"))));
        let nobody = edit(&files(&[("a.yaml", &text)]), &[name("z")], Edit::Suspend(true));
        assert_eq!(nobody, Err(EditError::NoSuchMachine(name("z"))));
    }

    #[test]
    fn a_rebuild_counts_from_what_is_there() {
        let image = format!(
            "apiVersion: rackwright.dev/v1alpha1\nkind: Image\nmetadata: {{name: i}}\nspec: {{digest: \"sha256:{}\", format: raw, url: i.raw}}\n",
            "0".repeat(64)
        );
        let machine = format!(
            "{HEAD}spec:\n  image: i\n  nics: [{{name: x, mac: \"52:54:00:00:00:01\"}}]\n  disks: {{system: {{serial: D}}}}\n{REST}"
        );
        let once = edit(&files(&[("a.yaml", &machine), ("i.yaml", &image)]), &[name("a")], Edit::Rebuild).unwrap();
        assert_eq!(once["a.yaml"], machine.replace("spec:\n", "spec:\n  rebuild: 1\n"));
        let twice = edit(&files(&[("a.yaml", &once["a.yaml"]), ("i.yaml", &image)]), &[name("a")], Edit::Rebuild).unwrap();
        assert_eq!(twice["a.yaml"], machine.replace("spec:\n", "spec:\n  rebuild: 2\n"));
    }
}
