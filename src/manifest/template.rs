//! Templates: their inputs are `machine`, `profile` and `network`, and nothing else, and `handoff` for values that other machines publish.
//! An undefined name is an error.
//!
//! **Invariant.** What a template makes follows from its own text and its inputs: none can include another, so that a machine is
//! rendered again exactly when one of the two changed.
//!
//! **Invariant.** What is rendered is hashed into generations, and a changed generation reinstalls (law 11). So the settings of
//! the environment here (trimming, final line break, no escaping) never change for `v1alpha1`.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;

use super::{
    fault::{At, Fault, TOP},
    handoff::FUNCTION,
    parse,
    spans::Place,
    text::nearest,
};
use crate::model::{FileKind, Files, HANDOFF_MARKS, HandoffName, HandoffUse, MachineName, Network, Nic, Place as Stand};

/// How many instructions one rendering may take: thousands of lines of template, but no endless loop.
const FUEL: u64 = 500_000;

/// The largest rendered user-data. A seed partition has room for it, and no person reviews more.
const MAX_RENDERED: usize = 1 << 20;

/// Room that is kept in it for each handed value, in bytes: the longest that one may be.
const HANDED: usize = HandoffUse::LONGEST;

/// Statements of the template language that read another template.
const READERS: &[&str] = &["include", "import", "from", "extends"];

/// What a template may name.
const INPUTS: &[&str] = &["machine", "profile", "network"];

/// All templates that profiles and machines name, compiled once.
pub(crate) struct Templates<'a> {
    environment: Environment<'a>,
    sources: BTreeMap<&'a str, &'a str>,
    /// What is wrong with those that can't be used.
    broken: BTreeMap<&'a str, Vec<Fault>>,
}

/// What `machine` is in a template. What is not stated is not there, so that using it is an error and not the word "none".
#[derive(Serialize)]
pub(crate) struct MachineInput<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) place: PlaceInput<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
    pub(crate) nics: Vec<NicInput<'a>>,
}

/// `machine.place`.
#[derive(Serialize)]
pub(crate) struct PlaceInput<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<&'a str>,
}

impl<'a> From<&'a Stand> for PlaceInput<'a> {
    fn from(place: &'a Stand) -> Self {
        Self { site: place.site.as_deref(), rack: place.rack.as_deref(), slot: place.slot.as_deref() }
    }
}

/// One of `machine.nics`.
#[derive(Serialize)]
pub(crate) struct NicInput<'a> {
    name: &'a str,
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    boot: bool,
}

impl<'a> From<&'a Nic> for NicInput<'a> {
    fn from(nic: &'a Nic) -> Self {
        Self {
            name: &nic.name,
            mac: nic.mac.to_string(),
            network: nic.network.as_ref().map(|name| name.as_str()),
            address: nic.address.map(|address| address.to_string()),
            boot: nic.boot,
        }
    }
}

/// What `network` is in a template: the network of the interface that the machine boots from.
pub(crate) fn network_input(network: &Network) -> Value {
    let mut input = BTreeMap::from([
        ("name", Value::from(network.name.as_str())),
        ("subnet", Value::from(network.subnet.to_string())),
        ("prefix", Value::from(network.subnet.prefix_len())),
        ("netmask", Value::from(network.subnet.netmask().to_string())),
        ("dns", network.dns.iter().map(ToString::to_string).collect()),
        ("ntp", network.ntp.iter().map(ToString::to_string).collect()),
    ]);
    if let Some(gateway) = network.gateway {
        input.insert("gateway", Value::from(gateway.to_string()));
    }
    if let Some(vlan) = network.vlan {
        input.insert("vlan", Value::from(vlan));
    }
    Value::from_iter(input)
}

impl<'a> Templates<'a> {
    /// Compiles the templates at `paths`; those that are not there are for whoever names them to complain about.
    pub(crate) fn compile(files: &'a Files, paths: &BTreeSet<&'a str>) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_keep_trailing_newline(true);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(true);
        environment.add_function(FUNCTION, hand);
        // `readers` refuses what it finds; what it could overlook finds nothing.
        environment.set_path_join_callback(|_, _| "another template".into());
        let mut templates = Self { environment, sources: BTreeMap::new(), broken: BTreeMap::new() };
        for path in paths {
            if let Some(entry) = files.get(*path).filter(|entry| entry.kind == FileKind::Regular) {
                match parse::text(entry) {
                    Ok(source) => templates.add(path, source),
                    Err(fault) => drop(templates.broken.insert(path, vec![in_file(path, *fault)])),
                }
            }
        }
        templates
    }

    fn add(&mut self, path: &'a str, source: &'a str) {
        self.sources.insert(path, source);
        let readers = readers(source);
        if !readers.is_empty() {
            self.broken.insert(path, readers.into_iter().map(|(at, word)| reads_another(path, source, at, word)).collect());
            return;
        }
        if let Some(at) = source.find(HANDOFF_MARKS) {
            self.broken.insert(path, vec![reserved(path, At::Place(range_place(source, at, at + 1)))]);
            return;
        }
        if let Err(error) = self.environment.add_template(path, source) {
            self.broken.insert(path, vec![explain(path, source, &error)]);
            return;
        }
        let Ok(template) = self.environment.get_template(path) else { return };
        let globals: BTreeSet<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        names.retain(|name| !INPUTS.contains(&name.as_str()) && !globals.contains(name.as_str()));
        names.sort();
        let faults: Vec<Fault> = names.iter().map(|name| undeclared(path, source, name)).collect();
        if !faults.is_empty() {
            self.broken.insert(path, faults);
        }
    }

    /// The files that are templates.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.sources.keys().chain(self.broken.keys()).copied()
    }

    /// Whether there is such a file.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.sources.contains_key(path) || self.broken.contains_key(path)
    }

    /// What is wrong with the templates themselves, whoever uses them.
    pub(crate) fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        self.broken.values().flatten().cloned()
    }

    /// Renders the template at `path` for one machine. `None` when it can't be used, which [`Templates::faults`] tells.
    pub(crate) fn render(
        &self,
        path: &str,
        machine: &MachineInput<'_>,
        profile: Option<&str>,
        network: Option<&Value>,
    ) -> Option<Result<String, Fault>> {
        if self.broken.contains_key(path) {
            return None;
        }
        let (path, source) = self.sources.get_key_value(path)?;
        let template = self.environment.get_template(path).ok()?;
        let mut inputs = BTreeMap::from([("machine", Value::from_serialize(machine))]);
        inputs.extend(profile.map(|name| ("profile", Value::from_iter([("name", name)]))));
        inputs.extend(network.map(|network| ("network", network.clone())));
        let fault = match template.render(Value::from_iter(inputs)) {
            Ok(text) if text.len() + HANDED * text.matches(HANDOFF_MARKS[0]).count() <= MAX_RENDERED => match HandoffUse::all_in(&text) {
                Ok(uses) if uses.is_empty() => return Some(Ok(text)),
                Ok(_) | Err(_) if holds_marks(machine) => reserved(path, TOP),
                Ok(_) => return Some(Ok(text)),
                Err(_) => changed(path, source),
            },
            Ok(_) => in_file(path, Fault::error("too-large", TOP, "what this template makes is larger than 1 MiB")),
            Err(error) => explain(path, source, &error),
        };
        Some(Err(Fault { machine: Some(machine.name.to_owned()), ..fault }))
    }
}

/// `handoff("cp-1", "join-token")` in a template: what stands for the value until the boot server puts it there.
fn hand(from: String, name: String) -> Result<String, Error> {
    let refused = |bad: String| Error::new(ErrorKind::InvalidOperation, bad);
    let from = MachineName::new(from).map_err(|bad| refused(bad.to_string()))?;
    let name = HandoffName::new(name).map_err(|bad| refused(bad.to_string()))?;
    Ok(HandoffUse { from, name }.marker())
}

/// Whether something that people wrote in a manifest would pass for a handed value.
fn holds_marks(machine: &MachineInput<'_>) -> bool {
    // Where it can't be told it is not let pass.
    serde_json::to_string(machine).map_or(true, |text| text.contains(HANDOFF_MARKS))
}

fn reserved(path: &str, at: At) -> Fault {
    let fault = Fault::error("bad-template", at, "the characters U+FDD0 and U+FDD1 mark handed values and may not be written");
    in_file(path, fault.hint("write `{{ handoff(\"machine\", \"name\") }}`"))
}

/// What a template does to a marker can't be done to the value, which nobody knows yet.
fn changed(path: &str, source: &str) -> Fault {
    let at = source.find(FUNCTION).unwrap_or_default();
    let at = At::Place(range_place(source, at, at + FUNCTION.len()));
    let fault = Fault::error("bad-template", at, "what `handoff` gives is changed here, and the value is not known before the install");
    in_file(path, fault.hint("let it stand in the text as it is, without filters"))
}

fn in_file(path: &str, fault: Fault) -> Fault {
    Fault { file: Some(path.to_owned()), ..fault }
}

/// Where `source` has a statement that reads another template, and which. Comments and raw text have none.
fn readers(source: &str) -> Vec<(usize, &str)> {
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        let close = match rest.bytes().next() {
            Some(b'#') => "#}",
            Some(b'{') => "}}",
            Some(b'%') => {
                let statement = rest[1..].trim_start_matches(['-', '+']).trim_start();
                let end = statement.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(statement.len());
                let word = &statement[..end];
                if READERS.contains(&word) {
                    found.push((source.len() - statement.len(), word));
                }
                if word == "raw" { "endraw" } else { "%}" }
            }
            _ => continue,
        };
        let Some(close) = rest.find(close) else { break };
        rest = &rest[close..];
    }
    found
}

fn reads_another(path: &str, source: &str, at: usize, word: &str) -> Fault {
    let at = At::Place(range_place(source, at, at + word.len()));
    let fault = Fault::error("bad-template", at, format!("`{word}` would read another template; each one stands alone"));
    in_file(path, fault.hint("write out here what it would bring"))
}

/// A name that no template has.
fn undeclared(path: &str, source: &str, name: &str) -> Fault {
    let at = At::Place(first_use(source, name));
    if name == "secrets" {
        let fault = Fault::error("not-supported-yet", at, "templates can't use `secrets` yet");
        return in_file(path, fault.hint("let the installed system fetch its secrets itself"));
    }
    let hint = nearest(name, INPUTS.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    let fault = Fault::error("undefined-name", at, format!("`{name}` is not defined"));
    in_file(path, fault.hint("a template has `machine`, `profile` and `network`").maybe_hint(hint))
}

/// Where `name` first stands as a word inside `{{ … }}` or `{% … %}`.
fn first_use(source: &str, name: &str) -> Place {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let inside = |at: usize| {
        let before = &source[..at];
        let opened = before.rfind("{{").max(before.rfind("{%"));
        opened.is_some_and(|open| before.rfind("}}").max(before.rfind("%}")).is_none_or(|close| close < open))
    };
    let found = source.match_indices(name).map(|(at, _)| at).find(|&at| {
        let whole = !source[..at].ends_with(is_word) && !source[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        whole && inside(at)
    });
    found.map_or(Place { line: 1, column: 1, length: 1 }, |at| range_place(source, at, at + name.len()))
}

pub(super) fn range_place(source: &str, start: usize, end: usize) -> Place {
    let before = source.get(..start).unwrap_or_default();
    let line = before.matches('\n').count() as u32 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1;
    let covered = source.get(start..end).unwrap_or_default().lines().next().unwrap_or_default();
    Place { line, column, length: (covered.chars().count() as u32).max(1) }
}

fn explain(path: &str, source: &str, error: &Error) -> Fault {
    let range = error.range().filter(|range| range.start < range.end && source.get(range.clone()).is_some());
    let place = match &range {
        Some(range) => range_place(source, range.start, range.end),
        None => Place { line: error.line().unwrap_or(1).max(1) as u32, column: 1, length: 1 },
    };
    let covered = range.map(|range| &source[range]).filter(|text| !text.contains('\n') && !text.is_empty());
    let at = At::Place(place);
    let detail = || error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    in_file(
        path,
        match (error.kind(), covered) {
            (ErrorKind::UndefinedError, Some(name)) => Fault::error("undefined-name", at, format!("`{name}` is not defined")),
            (ErrorKind::UndefinedError, None) => Fault::error("undefined-name", at, "a name that this line uses is not defined"),
            (ErrorKind::OutOfFuel, _) => Fault::error("endless-template", at, "this template does not come to an end"),
            (ErrorKind::SyntaxError, _) => Fault::error("bad-template", at, format!("this is not a template: {}", detail())),
            _ => Fault::error("bad-template", at, format!("the template fails: {}", detail())),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_read_another_template_are_found_where_they_are_statements() {
        let words = |source| readers(source).into_iter().map(|(_, word)| word).collect::<Vec<_>>();
        let source = "{% include 'a' %}{%- import 'a' as b %}{%+extends 'a' %}{% if x %}{% from\n'a' import b %}{% endif %}{{";
        assert_eq!(words(source), ["include", "import", "extends", "from"]);
        assert_eq!(readers("{# {% include 'a' %} #}ä {%  include 'b' %}"), [(30, "include")]);
        let source = "include {{ include }} {% raw %}{% include 'a' %}{% endraw %}{% set from = 1 %}{% includes %}{ % include 'a' %}{";
        assert!(words(source).is_empty(), "{:?}", words(source));
    }
}
