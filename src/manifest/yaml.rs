//! The only place that knows serde_yaml: text → typed documents.
//!
//! **Why each document is decoded alone.** serde_yaml's own iterator over documents neither ends after a syntax error (it gives
//! the same error for ever) nor survives one in every case (it can panic on the document that follows). Cut at their `---` lines
//! first, documents can't hurt each other, and a slip in one doesn't hide what is wrong in the next.

use std::{fmt, panic};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{
    plain,
    raw::{Kind, Metadata, Spec},
};

/// One document of a file, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    /// The text, without the `---` line that precedes it.
    pub(crate) text: &'a str,
    /// Lines of the file before it.
    pub(crate) lines_before: u32,
}

/// Cuts a file at its document markers.
///
/// A line that begins with `---` and then ends or goes on with a blank is always a marker: YAML forbids it inside quoted and
/// plain scalars, and it ends a block scalar (YAML 1.2.2, section 9.1.2). What follows on the same line belongs to the document.
pub(crate) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut lines_before = 0;
    let mut offset = 0;
    for (index, line) in (0u32..).zip(text.split_inclusive('\n')) {
        if line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            chunks.push(Chunk { text: &text[start..offset], lines_before });
            // The marker itself stays, so that lines and columns of the chunk are those of the file.
            start = offset;
            lines_before = index;
        }
        offset += line.len();
    }
    chunks.push(Chunk { text: &text[start..], lines_before });
    chunks.retain(|chunk| !is_blank(chunk.text));
    chunks
}

/// Whether nothing but comments, blanks and markers is in it.
fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

/// A document that was decoded.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
}

/// Why a document could not be decoded, in serde_yaml's words; `explain` turns them into ours.
#[derive(Debug, Clone)]
pub(crate) struct DecodeError {
    /// The path of the value, as far as serde_yaml knows it: `spec.nics[0]`.
    pub(crate) path: String,
    /// What is wrong, without path and place.
    pub(crate) text: String,
    /// Line in the file and column, from 1.
    pub(crate) place: Option<(u32, u32)>,
}

/// Decodes one document.
pub(crate) fn decode(chunk: Chunk<'_>) -> Result<Decoded, DecodeError> {
    if let Some((_, Some(decoded))) = plain::decode(chunk.text, Document { known: None }) {
        return Ok(decoded);
    }
    // serde_yaml has panics for event streams that it thinks impossible. A fleet repository must not be able to stop the controller.
    let decoded = panic::catch_unwind(|| match decode_as(chunk.text, None) {
        // `spec` stood before `kind`: read it again, knowing the kind.
        Ok((kind, None)) => decode_as(chunk.text, Some(kind)),
        other => other,
    });
    let error = match decoded {
        Ok(Ok((_, Some(decoded)))) => return Ok(decoded),
        Ok(Ok((_, None))) => serde_yaml::Error::missing_field("spec"),
        Ok(Err(error)) => error,
        Err(_) => serde_yaml::Error::custom("the YAML is malformed"),
    };
    Err(split_error(&error, chunk.lines_before))
}

fn decode_as(text: &str, known: Option<Kind>) -> Result<(Kind, Option<Decoded>), serde_yaml::Error> {
    Document { known }.deserialize(serde_yaml::Deserializer::from_str(text))
}

/// serde_yaml prints `path: message at line 1 column 2`; only the place is also there as data.
fn split_error(error: &serde_yaml::Error, lines_before: u32) -> DecodeError {
    let full = error.to_string();
    let place = error.location().map(|at| (at.line() as u32, at.column() as u32));
    let suffix = place.map(|(line, column)| format!(" at line {line} column {column}")).unwrap_or_default();
    let full = full.strip_suffix(&suffix).unwrap_or(&full);
    let (path, text) = match full.split_once(": ") {
        Some((path, text)) if is_path(path) => (path, text),
        _ => ("", full),
    };
    DecodeError { path: path.to_owned(), text: text.to_owned(), place: place.map(|(line, column)| (line + lines_before, column)) }
}

/// A path has no blanks, and every message that could stand in its place does ("invalid type: …", "unknown field …").
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(' ')
}

/// Reads one document: the header, then `spec` as the kind says. No value is kept as an untyped tree on the way, because that
/// is where `00e1234567` would become the number 0.
struct Document {
    known: Option<Kind>,
}

/// The fields that every document has.
const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];

impl<'de> DeserializeSeed<'de> for Document {
    type Value = (Kind, Option<Decoded>);
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document {
    type Value = (Kind, Option<Decoded>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = [false; 4];
        let mut kind = self.known;
        let (mut metadata, mut spec) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            let Some(index) = FIELDS.iter().position(|field| *field == key) else {
                return Err(A::Error::unknown_field(&key, FIELDS));
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err(A::Error::duplicate_field(FIELDS[index]));
            }
            match (index, kind) {
                (0, _) => map.next_value_seed(ApiVersion)?,
                (1, _) => kind = Some(map.next_value_seed(KindName)?),
                (2, _) => metadata = Some(map.next_value()?),
                (_, Some(kind)) => spec = Some(next_spec(&mut map, kind)?),
                (_, None) => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        for index in [0, 1, 2, 3] {
            if !seen[index] {
                return Err(A::Error::missing_field(FIELDS[index]));
            }
        }
        let kind = kind.ok_or_else(|| A::Error::missing_field("kind"))?;
        Ok((kind, metadata.zip(spec).map(|(metadata, spec)| Decoded { metadata, spec })))
    }
}

fn next_spec<'de, A: MapAccess<'de>>(map: &mut A, kind: Kind) -> Result<Spec, A::Error> {
    Ok(match kind {
        Kind::Fleet => Spec::Fleet(map.next_value()?),
        Kind::Machine => Spec::Machine(map.next_value()?),
        Kind::Profile => Spec::Profile(map.next_value()?),
        Kind::Image => Spec::Image(map.next_value()?),
        Kind::Network => Spec::Network(map.next_value()?),
        Kind::Rollout => Spec::Rollout(map.next_value()?),
        Kind::Secret => Spec::Secret(map.next_value()?),
    })
}

/// Accepts the one API version.
struct ApiVersion;

impl<'de> DeserializeSeed<'de> for ApiVersion {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ApiVersion {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text == super::raw::API_VERSION { Ok(()) } else { Err(E::custom(format_args!("unknown version `{text}`"))) }
    }
}

/// Accepts the name of a kind.
struct KindName;

impl<'de> DeserializeSeed<'de> for KindName {
    type Value = Kind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KindName {
    type Value = Kind;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Kind, E> {
        const NAMES: &[&str] = &["Fleet", "Machine", "Profile", "Image", "Network", "Rollout", "Secret"];
        Kind::parse(text).ok_or_else(|| E::unknown_variant(text, NAMES))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_cut_at_their_markers_and_keep_their_lines() {
        let text = "# comment\n---\na: 1\n--- # two\nb: |\n  ---\n...\n---\n\n---\nc: 3";
        let found: Vec<_> = chunks(text).into_iter().map(|chunk| (chunk.lines_before, chunk.text)).collect();
        assert_eq!(found, [(1, "---\na: 1\n"), (3, "--- # two\nb: |\n  ---\n...\n"), (9, "---\nc: 3")]);
        assert!(chunks("").is_empty());
    }

    #[test]
    fn spec_may_stand_before_kind() {
        let text = "spec: {from: {env: X}}\nmetadata: {name: a}\nkind: Secret\napiVersion: rackwright.dev/v1alpha1\n";
        let decoded = decode(chunks(text)[0]).unwrap();
        assert_eq!(decoded.metadata.name, "a");
        assert!(matches!(decoded.spec, Spec::Secret(_)));
    }

    #[test]
    fn an_error_is_split_into_path_text_and_place() {
        let text = "apiVersion: rackwright.dev/v1alpha1\nkind: Secret\nmetadata: {name: a}\nspec: {from: {nope: 1}}\n";
        let error = decode(chunks(text)[0]).unwrap_err();
        assert_eq!((error.path.as_str(), error.place), ("spec.from", Some((4, 15))));
        assert_eq!(error.text, "unknown field `nope`, expected `file` or `env`");
    }

    /// All manifests of the tests and the examples, good and bad.
    fn manifests() -> Vec<String> {
        let mut folders: Vec<_> =
            ["tests/manifests", "examples/fleet-repo"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).into();
        let mut texts = Vec::new();
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    texts.extend(fs::read_to_string(path).ok().filter(|text| text.len() < 100_000));
                }
            }
        }
        texts.sort();
        texts
    }

    /// Whether the quick reader read it; panics if serde_yaml reads something else.
    fn agree(chunk: Chunk<'_>) -> bool {
        let Some(quick) = plain::decode(chunk.text, Document { known: None }) else { return false };
        let slow = decode_as(chunk.text, None).map_err(|error| error.to_string());
        assert_eq!(format!("{:?}", Ok::<_, String>(quick)), format!("{slow:?}"), "{}", chunk.text);
        true
    }

    #[test]
    fn the_quick_reader_reads_what_serde_yaml_reads() {
        let texts = manifests();
        let all: Vec<Chunk<'_>> = texts.iter().flat_map(|text| chunks(text)).collect();
        let quick = all.iter().filter(|chunk| agree(**chunk)).count();
        assert!(quick * 2 > all.len(), "only {quick} of {} documents were read quickly", all.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_quick_reader_agrees_about_mutations(which: prop::sample::Index, edits in prop::collection::vec(edit(), 1..4)) {
            let texts = manifests();
            let mut text = which.get(&texts).clone();
            for (at, remove, insert) in edits {
                let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
                let start = at.index(bounds.len());
                let end = (start + remove).min(bounds.len() - 1);
                text.replace_range(bounds[start]..bounds[end], &insert);
            }
            for chunk in chunks(&text) {
                agree(chunk);
            }
        }
    }

    fn edit() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
        (any::<prop::sample::Index>(), 0..4usize, "[-a1:,#'\"{}\\[\\] \n~.|>&*!?%]{0,3}|null|true| 1| #x|\n  |: ")
    }
}
