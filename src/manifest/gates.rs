//! `gates`: what has to hold of a machine after an install. Addresses are templates with `machine` alone, rendered for each machine.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    fault::{At, Fault, Path, path_to},
    machine,
    raw::Spec,
    world::Source,
};
use crate::model::{self, Health, Machine, Rollout, RolloutName, SignedDuration, is_check_name};

/// How many gates a machine may have.
const MOST: usize = 16;

/// The longest that a gate may wait: a machine that is not healthy after a day is not on its way to it.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// What a gate waits where it does not say: twice what a service takes that starts after cloud-init's last stage.
const WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// How many instructions an address may take.
const FUEL: u64 = 10_000;

type Faults<'a> = Vec<(&'a str, Fault)>;

/// What has to hold of a machine after an install before it counts as healthy: exactly one of these.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct Gate {
    /// The installed system calls home: in place of the 30 minutes that it may take to boot, and 30 more to call home.
    called_home: Option<CalledHome>,
    /// A web page answers. Redirects are not followed.
    http: Option<Http>,
    /// The BMC says that the hardware is well.
    redfish_health: Option<RedfishHealth>,
    /// The installed system reports a check of its own as passed.
    reported: Option<Reported>,
}

/// The installed system calls home.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CalledHome {
    /// From the moment in which its disk is written and verified, such as `20m`.
    within: String,
}

/// A web page answers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Http {
    /// Its address, a template with `machine`: `http://{{ machine.address }}/healthz`. No user and password.
    #[schemars(extend("pattern" = "^https?://"))]
    url: String,
    /// The status of the answer; 200 without a word.
    #[schemars(range(min = 200, max = 599))]
    status: Option<u16>,
    /// From the call home, such as `10m`, which it is without a word.
    within: Option<String>,
}

/// The BMC says that the hardware is well.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RedfishHealth {
    /// `OK` or `Warning`: at worst.
    #[schemars(extend("enum" = ["OK", "Warning"]))]
    worst: Health,
    /// From the call home, such as `10m`, which it is without a word.
    within: Option<String>,
}

/// The installed system reports a check of its own as passed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reported {
    /// The check's name, such as `raid`.
    #[schemars(extend("pattern" = "^[A-Za-z0-9._-]{1,63}$"))]
    check: String,
    /// From the call home, such as `10m`, which it is without a word.
    within: Option<String>,
}

/// The gates that one document states, with addresses that are not filled in yet.
struct Stated<'a> {
    source: Source<'a>,
    gates: Vec<model::Gate>,
}

/// All gates.
#[derive(Default)]
pub(crate) struct Gates<'a> {
    addresses: Environment<'static>,
    /// Of machines that no rollout selects, and of rollouts that state none.
    fleet: Option<Stated<'a>>,
    rollouts: BTreeMap<RolloutName, Stated<'a>>,
}

impl<'a> Gates<'a> {
    /// Reads the gates that the Fleet and rollouts state.
    pub(crate) fn read(sources: impl Iterator<Item = Source<'a>>, faults: &mut Faults<'a>) -> Self {
        let mut addresses = Environment::empty();
        addresses.set_undefined_behavior(UndefinedBehavior::Strict);
        addresses.set_fuel(Some(FUEL));
        let mut gates = Self { addresses, ..Self::default() };
        for source in sources {
            match &source.doc.spec {
                Spec::Fleet(spec) => gates.fleet = spec.gates.as_ref().map(|stated| gates.stated(source, stated, faults)),
                Spec::Rollout(spec) => {
                    if let (Some(stated), Ok(name)) = (&spec.gates, RolloutName::new(source.name())) {
                        let stated = gates.stated(source, stated, faults);
                        gates.rollouts.insert(name, stated);
                    }
                }
                _ => {}
            }
        }
        gates
    }

    fn stated(&mut self, source: Source<'a>, stated: &[Gate], faults: &mut Faults<'a>) -> Stated<'a> {
        let mut gates: Vec<model::Gate> = Vec::new();
        for (n, gate) in stated.iter().enumerate() {
            let mut reader = Reader { source, base: path_to!["spec", "gates", n], faults };
            if n == MOST {
                reader.fault(&[], format!("a machine has at most {MOST} gates"), "join some of them into one page or check");
                break;
            }
            let Some(gate) = reader.gate(gate) else { continue };
            let same = |other: &model::Gate| other.to_string() == gate.to_string();
            if gates.iter().any(same) {
                reader.fault(&[], format!("there is a gate `{gate}` already"), "keep one of them");
            }
            if let model::Gate::Http { url, .. } = &gate {
                self.compile(url, &mut reader);
            }
            gates.push(gate);
        }
        Stated { source, gates }
    }

    fn compile(&mut self, url: &str, reader: &mut Reader<'a, '_>) {
        if let Err(error) = self.addresses.add_template_owned(url.to_owned(), url.to_owned()) {
            let why = error.detail().unwrap_or("it can't be read");
            return reader.fault(
                &["http", "url"],
                format!("this is not a template: {why}"),
                "write `http://{{ machine.address }}/healthz`",
            );
        }
        let Ok(template) = self.addresses.get_template(url) else { return };
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().filter(|name| name != "machine").collect();
        names.sort();
        for name in names {
            reader.fault(&["http", "url"], format!("`{name}` is not defined"), "the address of a gate has `machine` and nothing else");
        }
    }

    /// The gates of `machine`, with what it states filled in.
    pub(crate) fn of(&self, machine: &Machine, rollouts: &BTreeMap<RolloutName, Rollout>, faults: &mut Vec<Fault>) -> Vec<model::Gate> {
        let selects = |rollout: &&Rollout| rollout.selector.iter().all(|(key, value)| machine.labels.get(key) == Some(value));
        let own = rollouts.values().find(selects).and_then(|rollout| self.rollouts.get(&rollout.name));
        let Some(stated) = own.or(self.fleet.as_ref()) else { return Vec::new() };
        let mut gates = stated.gates.clone();
        let mut values: Option<Value> = None;
        for (n, gate) in gates.iter_mut().enumerate() {
            let model::Gate::Http { url, .. } = gate else { continue };
            let Ok(template) = self.addresses.get_template(url) else { continue };
            let values = values.get_or_insert_with(|| Value::from_iter([("machine", Value::from_serialize(machine::input(machine)))]));
            let mut fault = |message: String, hint: &str| {
                let at = At::Value(stated.source.doc.number, path_to!["spec", "gates", n, "http", "url"]);
                let fault = Fault::error("bad-gate", at, message).hint(hint);
                faults.push(Fault { file: Some(stated.source.file.to_owned()), machine: Some(machine.name.to_string()), ..fault });
            };
            match template.render(&*values) {
                // What it gives is not shown: it may hold what should not have been written there.
                Ok(text) if !is_url(&text) => fault(
                    "what this gives is not the address of a web page".to_owned(),
                    "it begins with `http://` or `https://` and a host, and has neither user, password nor `#`",
                ),
                Ok(text) => *url = text,
                Err(error) if error.kind() == minijinja::ErrorKind::UndefinedError => {
                    fault(
                        "this uses something that the machine does not state".to_owned(),
                        "use what each of its machines states, such as `machine.name` or `machine.address`",
                    );
                }
                Err(error) => fault(format!("the template fails: {}", error.kind()), "write `http://{{ machine.address }}/healthz`"),
            }
        }
        gates
    }
}

struct Reader<'a, 'f> {
    source: Source<'a>,
    base: Path,
    faults: &'f mut Faults<'a>,
}

impl<'a> Reader<'a, '_> {
    fn fault(&mut self, parts: &[&str], message: String, hint: &str) {
        let path = parts.iter().fold(self.base.clone(), |path, part| path.then(*part));
        self.faults.push((self.source.file, Fault::error("bad-gate", At::Value(self.source.doc.number, path), message).hint(hint)));
    }

    fn gate(&mut self, stated: &Gate) -> Option<model::Gate> {
        let Gate { called_home, http, redfish_health, reported } = stated;
        match (called_home, http, redfish_health, reported) {
            (Some(CalledHome { within }), None, None, None) => {
                Some(model::Gate::CalledHome { within: self.within("calledHome", Some(within)) })
            }
            (None, Some(Http { url, status, within }), None, None) => {
                let status = status.unwrap_or(200);
                if !(200..=599).contains(&status) {
                    self.fault(&["http", "status"], format!("no answer has the status {status} in the end"), "write one from 200 to 599");
                }
                Some(model::Gate::Http { url: url.clone(), status, within: self.within("http", within.as_ref()) })
            }
            (None, None, Some(RedfishHealth { worst, within }), None) => {
                if *worst == Health::Critical {
                    let message = "a gate that lets `Critical` pass lets everything pass".to_owned();
                    self.fault(&["redfishHealth", "worst"], message, "write `OK` or `Warning`");
                }
                Some(model::Gate::RedfishHealth { worst: *worst, within: self.within("redfishHealth", within.as_ref()) })
            }
            (None, None, None, Some(Reported { check, within })) => {
                if !is_check_name(check) {
                    let hint = "write 1 to 63 letters, digits, dots, dashes and underscores";
                    self.fault(&["reported", "check"], format!("`{check}` is not the name of a check"), hint);
                }
                Some(model::Gate::Reported { check: check.clone(), within: self.within("reported", within.as_ref()) })
            }
            _ => {
                let hint = "write one of `calledHome`, `http`, `redfishHealth` and `reported`, and each further one as an entry of its own";
                self.fault(&[], "a gate is exactly one thing".to_owned(), hint);
                None
            }
        }
    }

    fn within(&mut self, kind: &str, text: Option<&String>) -> SignedDuration {
        let Some(text) = text else { return WITHIN };
        let read = text.parse::<SignedDuration>().ok().filter(|time| time.is_positive());
        if read.is_none_or(|time| time > LONGEST) {
            let message = match read {
                Some(_) => format!("{text} is too long for a gate"),
                None => format!("`{text}` is not a length of time"),
            };
            self.fault(&[kind, "within"], message, "write one such as `20m`, at most `24h`");
        }
        read.unwrap_or(WITHIN)
    }
}

/// Whether a probe may ask for it: http or https, a host, and neither user, password nor fragment.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = |rest: &str| machine::is_host(&rest.split(['/', '?']).next().unwrap_or_default().to_ascii_lowercase());
    let plain = text.len() <= 2048 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
    plain && rest.is_some_and(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_no_password() {
        for text in ["http://10.0.0.1/healthz", "https://web-1.example:8443", "http://[fd00::1]:80/a?b=c", "http://h?x"] {
            assert!(is_url(text), "{text}");
        }
        for text in [
            "ftp://h/",
            "http://",
            "http:///x",
            "http://u:p@h/",
            "http://u@h",
            "http://h/a b",
            "http://h/#x",
            "h/x",
            "http://h\\x",
            "http://h/ä",
        ] {
            assert!(!is_url(text), "{text}");
        }
    }
}
