//! Turns what serde_yaml says into what a person can act on, at the place where it is.

use super::{
    fault::{At, Fault, Path, path_to},
    raw::API_VERSION,
    spans::{Place, Tree},
    text::nearest,
    yaml::DecodeError,
};

/// Fields that the design has and this version doesn't act on. Accepting them silently would promise what is not done.
const PLANNED: &[&str] = &[
    "budget",
    "bios",
    "biosAttributes",
    "raid",
    "storage",
    "allowedSigners",
    "signers",
    "openpgp",
    "openPGP",
    "notes",
    "discovery",
    "relay",
    "protocol",
    "sops",
    "age",
    "live",
    "installer",
    "files",
    "secrets",
];

/// Fields that would put a secret's value into Git.
const VALUES: &[&str] = &["value", "password", "data", "stringData", "token", "key"];

/// One fault for one document that can't be decoded.
pub(crate) fn explain(error: &DecodeError, document: usize, tree: &Tree, text: &str) -> Fault {
    let path = Path::parse(&error.path);
    let context = Context { error, document, tree, text, path };
    context
        .unreadable()
        .or_else(|| context.foreign())
        .or_else(|| context.field())
        .or_else(|| context.value())
        .unwrap_or_else(|| context.other())
}

struct Context<'a> {
    error: &'a DecodeError,
    document: usize,
    tree: &'a Tree,
    text: &'a str,
    path: Path,
}

impl Context<'_> {
    fn at(&self) -> At {
        let place = self.error.place.map(|(line, column)| Place { line, column, length: 1 });
        match place {
            // The path is exact unless a key has a dot in it; then the place that serde_yaml knows is better.
            Some(place) if self.path.segs().is_empty() || self.tree.value(&self.path).is_none() => At::Place(place),
            _ => At::Value(self.document, self.path.clone()),
        }
    }

    fn name(&self) -> String {
        if self.path.segs().is_empty() { "the document".to_owned() } else { format!("`{}`", self.path) }
    }

    /// Not YAML at all, or YAML that is made to hurt.
    fn unreadable(&self) -> Option<Fault> {
        let text = self.error.text.as_str();
        let at = || self.error.place.map_or(super::fault::TOP, |(line, column)| At::Place(Place { line, column, length: 1 }));
        if text.starts_with("repetition limit exceeded") {
            let fault = Fault::error("alias-bomb", at(), "aliases (`*name`) unfold into far more than was written");
            return Some(fault.hint("write the values out, or put what is shared into a Profile"));
        }
        if text.starts_with("recursion limit exceeded") {
            return Some(too_deep(at()));
        }
        if text.starts_with("unknown anchor") {
            let fault = Fault::error("syntax", at(), "an alias (`*name`) stands for something that no `&name` marks before it");
            return Some(fault.hint("put a text that begins with `*` in quotes"));
        }
        if !is_syntax(text) {
            return None;
        }
        if let Some(place) = self.tab() {
            let fault = Fault::error("tab", At::Place(place), "a tab can't indent YAML");
            return Some(fault.hint("indent with spaces"));
        }
        // libyaml appends where the construct began; the first part says what is wrong.
        let text = text.split(" at line ").next().unwrap_or(text).split(", while").next().unwrap_or(text);
        let fault = Fault::error("syntax", at(), format!("this is not YAML: {text}"));
        let hint = match text {
            _ if text.contains("mapping values are not allowed") => Some("put a text that contains `: ` in quotes"),
            _ if text.contains("cannot start any token") => Some("put a text that begins with one of @ ` % in quotes"),
            _ if text.contains("did not find expected ',' or") => Some("a bracket is opened and not closed before this"),
            _ if text.contains("unexpected end of stream") => Some("a quote or bracket is opened and never closed"),
            _ => None,
        };
        Some(fault.maybe_hint(hint.map(str::to_owned)))
    }

    /// A mapping without `apiVersion`: a file of another program.
    fn foreign(&self) -> Option<Fault> {
        let keys = self.tree.keys(&path_to![]);
        if keys.is_empty() || keys.iter().any(|key| nearest(key.text, ["apiVersion"]).is_some()) {
            return None;
        }
        let at = At::Key(self.document, path_to![]);
        let fault = Fault::error("not-a-manifest", at, "this YAML file is not a manifest: it has no `apiVersion`");
        Some(fault.hint(format!(
            "write `apiVersion: {API_VERSION}`, or move the file to `templates/` or to a folder whose name begins with a dot"
        )))
    }

    /// The tab in the indentation of the line that the parser stumbled over.
    fn tab(&self) -> Option<Place> {
        let (line, _) = self.error.place?;
        let text = self.text.lines().nth(line.checked_sub(1)? as usize)?;
        let indentation = text.find(|c: char| c != ' ' && c != '\t').unwrap_or(text.len());
        let column = text[..indentation].find('\t')?;
        Some(Place { line, column: column as u32 + 1, length: (indentation - column) as u32 })
    }

    /// A field that shouldn't be there, is there twice, or isn't there.
    fn field(&self) -> Option<Fault> {
        let text = self.error.text.as_str();
        if let Some(field) = quoted_after(text, "unknown field ") {
            return Some(self.unknown_field(field, text));
        }
        if let Some(field) = quoted_after(text, "duplicate field ") {
            let keys = self.tree.keys(&self.path);
            let mut twins = keys.iter().filter(|key| key.text == field);
            let first = twins.next().map_or(1, |key| key.place.line);
            let at = twins.next().map_or_else(|| self.at(), |key| At::Place(key.place));
            let fault = Fault::error("duplicate-key", at, format!("the key `{field}` is written twice"));
            return Some(fault.hint(format!("it is first written in line {first}; keep one of them")));
        }
        let field = quoted_after(text, "missing field ")?;
        let at = At::Key(self.document, self.path.clone());
        Some(Fault::error("missing-field", at, format!("{} needs the field `{field}`", self.name())))
    }

    fn unknown_field(&self, field: &str, text: &str) -> Fault {
        let at = At::Key(self.document, self.path.then(field));
        if PLANNED.contains(&field) && !self.path.segs().is_empty() {
            let fault = Fault::error("not-supported-yet", at, format!("this version does not act on `{field}` yet"));
            return fault.hint("take it out: a field that is accepted and not acted on would be a promise not kept");
        }
        let secret = self.tree.scalar(&path_to!["kind"]) == Some("Secret");
        if secret && VALUES.contains(&field) {
            let fault =
                Fault::error("unknown-field", at, format!("unknown field `{field}`: a secret's value never stands in the repository"));
            return fault.hint("say where the controller finds it: `from: {file: …}` or `from: {env: …}`");
        }
        let fault = Fault::error("unknown-field", at, format!("unknown field `{field}` in {}", self.name()));
        if field == "<<" {
            return fault.hint("merge keys are not part of YAML 1.2; put what is shared into a Profile");
        }
        let known = expected(text);
        let hint = nearest(field, known.iter().copied()).map(|name| format!("did you mean `{name}`?"));
        fault.hint(format!("it may have {}", list(&known, "and"))).maybe_hint(hint)
    }

    /// A value of the wrong type, or not one of those allowed.
    fn value(&self) -> Option<Fault> {
        let text = self.error.text.as_str();
        if let Some(written) = quoted_after(text, "unknown variant ") {
            return Some(self.unknown_variant(written, text));
        }
        if let Some(version) = quoted_after(text, "unknown version ") {
            let fault = if version.starts_with("rackwright.dev/") {
                Fault::error("unknown-version", self.at(), format!("this version of Rackwright does not read `{version}`"))
            } else {
                Fault::error("not-a-manifest", self.at(), format!("`{version}` is not an API of Rackwright"))
            };
            let other = "move files of other programs to `templates/` or to a folder whose name begins with a dot";
            return Some(fault.hint(format!("write `apiVersion: {API_VERSION}`; {other}")));
        }
        let (got, wanted) =
            text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "))?.rsplit_once(", expected ")?;
        if wanted.starts_with("a document") || (self.path.segs().is_empty() && !wanted.contains("field identifier")) {
            let at = At::Key(self.document, path_to![]);
            let fault = Fault::error("not-a-manifest", at, format!("a document is a mapping, not {}", got_words(got)));
            return Some(fault.hint(format!("a manifest begins with `apiVersion: {API_VERSION}`")));
        }
        let wanted = wanted_words(wanted);
        Some(Fault::error("wrong-type", self.at(), format!("{} must be {wanted}, not {}", self.name(), got_words(got))))
    }

    fn unknown_variant(&self, written: &str, text: &str) -> Fault {
        let known = expected(text);
        if self.path == path_to!["kind"] {
            let fault = Fault::error("unknown-kind", self.at(), format!("there is no kind `{written}`"));
            let hint = nearest(written, known.iter().copied()).map(|name| format!("did you mean `{name}`?"));
            return fault.hint(format!("the kinds are {}", list(&known, "and"))).maybe_hint(hint);
        }
        if self.path == path_to!["spec", "dhcp"] && written == "Relay" {
            let fault = Fault::error("not-supported-yet", self.at(), "there is no DHCP mode `Relay` yet");
            return fault.hint("`Authoritative` also answers requests that come through a relay");
        }
        let message = format!("{} must be {}, not `{written}`", self.name(), list(&known, "or"));
        let hint = nearest(written, known.iter().copied()).map(|name| format!("did you mean `{name}`?"));
        Fault::error("unknown-value", self.at(), message).maybe_hint(hint)
    }

    fn other(&self) -> Fault {
        Fault::error("syntax", self.at(), format!("{} can't be read: {}", self.name(), self.error.text))
    }
}

/// The fault of a document that is nested too deep.
pub(crate) fn too_deep(at: At) -> Fault {
    Fault::error("too-deep", at, "this is nested far deeper than any manifest")
        .hint("a list or mapping is probably opened and never closed")
}

/// Messages of libyaml begin with one of these.
fn is_syntax(text: &str) -> bool {
    const BEGINNINGS: &[&str] = &[
        "found ",
        "did not find ",
        "could not find ",
        "mapping values are not allowed",
        "block sequence entries are not allowed",
        "mapping keys are not allowed",
        "control characters are not allowed",
        "while ",
        "invalid ",
        "the YAML is malformed",
        "deserializing from YAML containing more than one document",
        "EOF ",
        "line must ",
        "unexpected ",
        "duplicate %",
        "input ",
        "incomplete ",
        "undefined tag handle",
    ];
    let typed = text.starts_with("invalid type") || text.starts_with("invalid value") || text.starts_with("invalid length");
    !typed && BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// The name in backquotes that follows `beginning`.
fn quoted_after<'a>(text: &'a str, beginning: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(beginning)?.strip_prefix('`')?;
    // The name itself may hold a backquote; the known ones that follow don't.
    let end = rest.find("`, expected").or_else(|| rest.find("`, there are")).or_else(|| rest.rfind('`'))?;
    Some(&rest[..end])
}

/// The names that serde lists after "expected".
fn expected(text: &str) -> Vec<&str> {
    let Some(at) = text.rfind("`, expected") else { return Vec::new() };
    text[at + 1..].split('`').skip(1).step_by(2).collect()
}

/// `a, b and c`, each in backquotes.
fn list(names: &[&str], and: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "no fields".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {and} {last}", rest.join(", ")),
    }
}

/// What serde expects, in a person's words.
fn wanted_words(wanted: &str) -> String {
    match wanted {
        "u64" | "u32" | "u16" | "u8" => "a whole number",
        "a boolean" => "true or false",
        "a string" | "string" => "a text",
        "a sequence" => "a list",
        "a YAML tag starting with '!'" => "one word",
        "a map" => "a mapping",
        "field identifier" => "a name",
        _ if wanted.starts_with("struct ") => "a mapping",
        _ => wanted,
    }
    .to_owned()
}

/// What was found, in a person's words.
fn got_words(got: &str) -> String {
    match got {
        "sequence" => "a list".to_owned(),
        "map" => "a mapping".to_owned(),
        "unit value" => "nothing".to_owned(),
        _ => match got.split_once(' ') {
            Some(("string", text)) => format!("the text {text}"),
            Some(("integer" | "boolean", value)) => value.to_owned(),
            Some(("floating", value)) => format!("the fraction {}", value.trim_start_matches("point ")),
            _ => got.to_owned(),
        },
    }
}
