//! One file → its documents and what is wrong with them. Depends on the bytes alone, so the result is kept by blob id.

use super::{
    explain,
    fault::{At, Fault, TOP, path_to},
    raw::{Kind, Metadata, Spec},
    spans::{Place, Tree},
    text, yaml,
};
use crate::model::{FileEntry, FileKind, is_name};

/// The largest manifest or template that is read. A machine's manifest has about one KiB; whatever is a thousand times that was
/// not written by hand, and a controller must not be stopped by it.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// How deep brackets may be nested. libyaml's time grows with the square of the depth (200,000 brackets: 6 s), and a manifest
/// needs five.
const MAX_BRACKETS: i32 = 64;

/// A document that was decoded.
#[derive(Debug)]
pub(crate) struct Doc {
    /// Its number in the file, from 0.
    pub(crate) number: usize,
    /// The line on which it begins, from 1.
    pub(crate) line: u32,
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
}

impl Doc {
    pub(crate) fn kind(&self) -> Kind {
        match self.spec {
            Spec::Fleet(_) => Kind::Fleet,
            Spec::Machine(_) => Kind::Machine,
            Spec::Profile(_) => Kind::Profile,
            Spec::Image(_) => Kind::Image,
            Spec::Network(_) => Kind::Network,
            Spec::Rollout(_) => Kind::Rollout,
            Spec::Secret(_) => Kind::Secret,
        }
    }
}

/// What one file holds.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) docs: Vec<Doc>,
    /// Kind and name of documents that are there and can't be read: who refers to them is not to blame.
    pub(crate) broken: Vec<(Kind, String)>,
    pub(crate) faults: Vec<Fault>,
}

impl Parsed {
    /// Whether it holds machines and nothing else, so that no other file depends on it.
    pub(crate) fn is_only_machines(&self) -> bool {
        self.broken.is_empty() && self.faults.is_empty() && self.docs.iter().all(|doc| doc.kind() == Kind::Machine)
    }

    fn only(fault: Fault) -> Self {
        Self { faults: vec![fault], ..Self::default() }
    }
}

/// What is to be done with the file at `path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Read it.
    Manifest,
    /// Not ours to read.
    Other,
}

/// Manifests are `*.yaml` and `*.yml`, but nothing under a name that begins with a dot, and nothing under `templates/`.
pub(crate) fn role(path: &str) -> Role {
    if path.split('/').any(|part| part.starts_with('.') || part == "templates") {
        return Role::Other;
    }
    if path.ends_with(".yaml") || path.ends_with(".yml") { Role::Manifest } else { Role::Other }
}

/// A fault of what could be a manifest, or hold some, and is not read: links, submodules, and `*.YAML`. A machine whose file gets
/// such a name was not deleted.
pub(crate) fn unread(path: &str, kind: FileKind) -> Option<Fault> {
    if kind == FileKind::Regular {
        return misnamed(path);
    }
    let hidden = path.split('/').any(|part| part.starts_with('.'));
    let name = path.rsplit('/').next().unwrap_or(path);
    let manifest = role(path) == Role::Manifest || path.split('/').any(|part| part == "templates");
    match kind {
        FileKind::Regular => None,
        _ if hidden => None,
        FileKind::Submodule => {
            let fault = Fault::error("submodule", TOP, "this is a submodule, and submodules are not followed");
            Some(fault.hint("put the files into this repository, or the submodule into a folder whose name begins with a dot"))
        }
        FileKind::Symlink if manifest => {
            let fault = Fault::error("symlink", TOP, "this is a symbolic link, and links are not followed");
            Some(fault.hint("put the file itself here"))
        }
        // `docs/latest.md` is harmless; a name without an ending may be a folder full of manifests.
        FileKind::Symlink if name.contains('.') => None,
        FileKind::Symlink => Some(Fault::warning("symlink", TOP, "this is a symbolic link; if manifests are behind it, they are not read")),
    }
}

/// A fault of a file whose ending is that of a manifest but for capital letters.
fn misnamed(path: &str) -> Option<Fault> {
    let (stem, ending) = path.rsplit_once('.')?;
    let lower = ["yaml", "yml"].into_iter().find(|known| *known != ending && known.eq_ignore_ascii_case(ending))?;
    let right = format!("{stem}.{lower}");
    (role(&right) == Role::Manifest).then(|| {
        let fault =
            Fault::error("file-name", TOP, format!("a manifest's name ends with `.{lower}`; one that ends with `.{ending}` is not read"));
        fault.hint(format!("rename it to `{}`", right.rsplit('/').next().unwrap_or(&right)))
    })
}

/// The text of a file, or why it has none.
pub(crate) fn text(entry: &FileEntry) -> Result<&str, Box<Fault>> {
    let bytes = &*entry.bytes;
    if bytes.len() > MAX_BYTES {
        let fault = Fault::error("too-large", TOP, "this file is larger than 1 MiB");
        let hint = "split it: one machine a file reads best, and only what changed is read again";
        return Err(Box::new(fault.hint(hint)));
    }
    let place = |before: &[u8]| {
        let line = before.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() as u32 + 1;
        At::Place(Place { line, column, length: 1 })
    };
    let not_text = |at: usize, what: &str| {
        let fault = Fault::error("not-text", place(&bytes[..at]), format!("this is not a text file: {what}"));
        Box::new(fault.hint("save it as UTF-8, or move it away"))
    };
    // `contains` is the quick search; nearly every file has none.
    if bytes.contains(&0)
        && let Some(at) = bytes.iter().position(|byte| *byte == 0)
    {
        return Err(not_text(at, "it has a NUL byte"));
    }
    std::str::from_utf8(bytes).map_err(|error| not_text(error.valid_up_to(), "it is not UTF-8"))
}

/// Reads one manifest file.
pub(crate) fn parse(entry: &FileEntry) -> Parsed {
    let text = match text(entry) {
        Ok(text) => text,
        Err(fault) => return Parsed::only(*fault),
    };
    if let Some(place) = too_deep(text) {
        return Parsed::only(explain::too_deep(At::Place(place)));
    }
    let chunks = yaml::chunks(text);
    if chunks.is_empty() {
        return Parsed::only(empty(text));
    }
    let mut parsed = Parsed::default();
    for (number, chunk) in chunks.into_iter().enumerate() {
        match yaml::decode(chunk) {
            Ok(decoded) => {
                let line = chunk.lines_before + first_line(chunk.text);
                parsed.docs.push(Doc { number, line, metadata: decoded.metadata, spec: decoded.spec });
                odd_scalars(chunk, &mut parsed.faults);
            }
            Err(error) => {
                let tree = Tree::read(chunk.text, chunk.lines_before);
                parsed.faults.push(explain::explain(&error, number, &tree, text));
                tags(&tree, &mut parsed.faults);
                let kind = tree.scalar(&path_to!["kind"]).and_then(Kind::parse);
                parsed.broken.extend(kind.zip(tree.scalar(&path_to!["metadata", "name"]).map(str::to_owned)));
            }
        }
    }
    check_names(&mut parsed);
    parsed
}

/// An emptied manifest is more often a slip of an editor than a wish, so it isn't taken for a deletion.
fn empty(text: &str) -> Fault {
    if text.trim().is_empty() {
        Fault::error("empty-file", TOP, "this file is empty").hint("delete it if what it said is to go")
    } else {
        Fault::warning("empty-file", TOP, "this file holds only comments").hint("delete it if what it said is to go")
    }
}

/// The first line with something in it.
fn first_line(text: &str) -> u32 {
    let blank = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    text.lines().take_while(blank).count() as u32 + 1
}

/// Where brackets are nested deeper than any manifest's. Brackets in comments and quotes count too, which no manifest notices.
fn too_deep(text: &str) -> Option<Place> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = (depth - 1).max(0),
            _ => continue,
        }
        if depth > MAX_BRACKETS {
            let before = &text[..at];
            let line = before.matches('\n').count() as u32 + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1;
            return Some(Place { line, column, length: 1 });
        }
    }
    None
}

/// What readers of YAML disagree about is refused, whatever the field is: numbers in an unusual form, unless they are in quotes, and
/// tags, which serde_yaml drops without a word (`!include secrets.yaml` would be the text `secrets.yaml`).
fn odd_scalars(chunk: yaml::Chunk<'_>, faults: &mut Vec<Fault>) {
    let tagged = chunk.text.contains('!');
    if !tagged && !text::may_hold_odd_number(chunk.text) {
        return;
    }
    let tree = Tree::read(chunk.text, chunk.lines_before);
    tags(&tree, faults);
    for scalar in tree.plain_scalars().filter(|scalar| text::is_odd_number(scalar.text)) {
        let message = format!("without quotes, YAML may read `{}` as another number", scalar.text);
        let hint = format!("write \"{}\" if it is a text, or the plain number", scalar.text);
        faults.push(Fault::error("ambiguous-number", At::Place(scalar.place), message).hint(hint));
    }
}

fn tags(tree: &Tree, faults: &mut Vec<Fault>) {
    faults.extend(tree.tags().map(|tag| {
        let fault = Fault::error("tag", At::Place(tag.place), format!("tags such as `{}` are not taken", tag.text));
        fault.hint("write the value itself, and a text that could be something else in quotes")
    }));
}

fn check_names(parsed: &mut Parsed) {
    let bad = parsed.docs.extract_if(.., |doc| !is_name(&doc.metadata.name));
    for doc in bad.collect::<Vec<_>>() {
        let at = At::Value(doc.number, path_to!["metadata", "name"]);
        let fault = Fault::error("bad-name", at, format!("`{}` is not a name", doc.metadata.name));
        let hint = "use 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit";
        parsed.faults.push(fault.hint(hint));
        parsed.broken.push((doc.kind(), doc.metadata.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_from_paths() {
        for path in ["fleet.yaml", "a/b/c.yml", "machines/x.y.yaml"] {
            assert_eq!(role(path), Role::Manifest, "{path}");
        }
        for path in [".gitlab-ci.yml", ".github/workflows/x.yaml", "templates/web.yaml", "a/templates/b/c.yaml", "README.md", "yaml"] {
            assert_eq!(role(path), Role::Other, "{path}");
        }
    }

    #[test]
    fn the_first_line_of_a_document_is_where_it_says_something() {
        assert_eq!(first_line("---\n# a\n\nkind: x\n"), 4);
        assert_eq!(first_line("kind: x\n"), 1);
    }
}
