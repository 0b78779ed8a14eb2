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
        let readable = all.iter().filter(|chunk| decode_as(chunk.text, None).is_ok()).count();
        assert!(quick * 2 > readable, "only {quick} of {readable} documents were read quickly");
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

    /// Something of each shape that manifests have.
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[allow(dead_code)]
    struct Shape {
        text: String,
        maybe: Option<String>,
        number: Option<u64>,
        flag: Option<bool>,
        word: Option<Word>,
        texts: Vec<String>,
        labels: std::collections::BTreeMap<String, String>,
        inner: Option<Box<Shape>>,
        list: Vec<Shape>,
    }

    #[derive(Debug, serde::Deserialize)]
    enum Word {
        One,
        Two,
    }

    fn scalar() -> impl Strategy<Value = String> + Clone {
        prop_oneof![
            4 => "[a-zA-Z0-9/_.][-a-zA-Z0-9/_.]{0,6}",
            2 => "[a-z0-9/_.][-a-z0-9/_.:,?!&*|>%@`~#'\"=+ ]{0,8}",
            1 => "[-:,?!&*|>%@`~#'\"{}\\[\\]a1 ]{0,6}",
            1 => "\"[-a-z0-9:,?#{}\\[\\]'\\\\ ]{0,6}\"|'[-a-z0-9:,?#{}\\[\\]\"\\\\ ]{0,6}'",
            1 => "One|Two|true|false|True|yes|null|Null|~|0|12|-3|007|0x1f|1e3|1_000|18446744073709551615|18446744073709551616|[.]nan|[.]{3}|---",
            1 => ("[a-z]", 62..66usize).prop_map(|(letter, times)| letter.repeat(times)),
        ]
    }

    fn number() -> impl Strategy<Value = String> + Clone {
        prop_oneof![6 => "[1-9]?[0-9]", 1 => "[0-9_.+-]{1,20}", 1 => "0[xob]1"]
    }

    fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
        prop::sample::select(texts).prop_map(str::to_owned)
    }

    /// `inner` between `open` and `close`, with commas and blanks.
    fn between(open: char, inner: impl Strategy<Value = String>, close: char) -> impl Strategy<Value = String> {
        let gap = || one_of(&["", "", "", " ", "  "]);
        let item = (gap(), inner, gap()).prop_map(|(before, item, after)| format!("{before}{item}{after}"));
        prop::collection::vec(item, 0..3).prop_map(move |items| format!("{open}{}{close}", items.join(",")))
    }

    /// One field on one line, nearly always with a value that it takes.
    fn field() -> impl Strategy<Value = String> + Clone {
        let named = |name: &'static str, value: BoxedStrategy<String>| {
            (value, one_of(&[": ", ": ", ": ", ":  ", ":"])).prop_map(move |(value, colon)| format!("{name}{colon}{value}")).boxed()
        };
        let label = (scalar(), scalar()).prop_map(|(name, value)| format!("{name}: {value}"));
        let field = prop_oneof![
            3 => named("text", scalar().boxed()),
            3 => named("maybe", scalar().boxed()),
            1 => named("number", number().boxed()),
            1 => named("flag", one_of(&["true", "false", "True", "yes"]).boxed()),
            1 => named("word", one_of(&["One", "Two", "one", "'One'"]).boxed()),
            3 => named("texts", between('[', scalar(), ']').boxed()),
            2 => named("labels", between('{', label, '}').boxed()),
        ];
        field.clone().prop_recursive(2, 6, 3, move |inner| {
            let mapping = || between('{', inner.clone(), '}');
            prop_oneof![2 => field.clone(), 1 => named("inner", mapping().boxed()), 1 => named("list", between('[', mapping(), ']').boxed())]
        })
    }

    /// A mapping over several lines, each with what it is indented by.
    fn block() -> impl Strategy<Value = Vec<(usize, String)>> {
        fn below(name: &str, by: usize, dash: &str, mut inner: Vec<(usize, String)>) -> Vec<(usize, String)> {
            for (n, (indent, text)) in inner.iter_mut().enumerate() {
                *indent += by + if n == 0 { 0 } else { dash.len() };
                *text = if n == 0 { format!("{dash}{text}") } else { text.clone() };
            }
            inner.insert(0, (0, format!("{name}:")));
            inner
        }
        let line = field().prop_map(|field| vec![(0, field)]);
        let texts =
            prop::collection::vec(scalar(), 1..3).prop_map(|texts| texts.into_iter().map(|text| (0, format!("- {text}"))).collect());
        let texts = (texts, 0..3usize).prop_map(|(lines, by)| below("texts", by, "", lines));
        prop_oneof![4 => line, 1 => texts].prop_recursive(3, 10, 3, |inner| {
            let several = || prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat());
            prop_oneof![
                2 => several(),
                1 => (several(), 1..3usize).prop_map(|(lines, by)| below("inner", by, "", lines)),
                1 => (several(), 0..3usize, one_of(&["- ", "-  "])).prop_map(|(lines, by, dash)| below("list", by, &dash, lines)),
            ]
        })
    }

    /// A document, sometimes with a slip in it.
    fn document() -> impl Strategy<Value = String> {
        let end =
            || prop_oneof![8 => Just(String::new()), 4 => one_of(&[" ", " # c", "#c", "  #", "\n", "\n# c", "\n   # c", "\n  x", ":"])];
        (block(), prop::collection::vec(end(), 12), prop::option::weighted(0.1, edit())).prop_map(|(lines, ends, slip)| {
            let line = |(n, (indent, line)): (usize, (usize, String))| format!("{}{line}{}\n", " ".repeat(indent), ends[n % ends.len()]);
            let mut text: String = lines.into_iter().enumerate().map(line).collect();
            if let Some((at, _, piece)) = slip {
                text.insert_str(at.index(text.len() + 1), &piece);
            }
            text
        })
    }

    #[test]
    fn the_quick_reader_agrees_about_any_yaml() {
        let quick = std::cell::Cell::new(0);
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10_000) });
        let result = runner.run(&document(), |text| {
            let Some(read) = plain::decode(&text, std::marker::PhantomData::<Shape>) else { return Ok(()) };
            quick.set(quick.get() + 1);
            let slow = serde_yaml::from_str::<Shape>(&text).map_err(|error| error.to_string());
            prop_assert_eq!(format!("{:?}", Ok::<_, String>(read)), format!("{:?}", slow), "{}", text);
            Ok(())
        });
        result.unwrap();
        assert!(quick.get() > 1_000, "only {} texts were read quickly", quick.get());
    }

    #[test]
    fn what_the_quick_reader_may_read_otherwise_it_leaves_alone() {
        let long = format!("{}: 1\n", "a".repeat(1025));
        for text in ["texts: [a:?b]\n", "texts: [a?]\n", "texts: [a, b?c]\n", &long] {
            let quick = plain::decode(text, std::marker::PhantomData::<Shape>);
            assert!(quick.is_none(), "{text}: {quick:?}");
        }
    }
}
