//! What an adopted machine is called.

use std::collections::BTreeSet;

use super::{Found, facts::Facts};
use crate::model::MachineName;

/// Where the name of a machine comes from. Where it says nothing usable, the next one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameFrom {
    /// The serial number, then the host's name, then the address.
    #[default]
    Serial,
    /// What the operating system told the BMC, then the serial number, then the address.
    Hostname,
    /// The BMC's address, with `bmc-` before it.
    Address,
}

/// Longest name.
const LONGEST: usize = 63;

/// A free name for a machine; it is taken then. `None`: a person gave it, and it is another machine's.
pub(super) fn name(found: &Found, facts: &Facts, from: NameFrom, taken: &mut BTreeSet<String>) -> Option<MachineName> {
    if let Some(given) = &found.name {
        return taken.insert(given.to_string()).then(|| given.clone());
    }
    let base = base(found, facts, from);
    for number in 1..=taken.len() + 1 {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let short = &base[..base.len().min(LONGEST - suffix.len())];
        if let Ok(name) = MachineName::new(format!("{}{suffix}", short.trim_end_matches(['-', '.'])))
            && taken.insert(name.to_string())
        {
            return Some(name);
        }
    }
    None
}

fn base(found: &Found, facts: &Facts, from: NameFrom) -> String {
    let serial = || facts.serial.as_deref().and_then(plain);
    let host = || found.host_name.as_deref().filter(|name| !is_no_name(name)).and_then(plain);
    let said = match from {
        NameFrom::Serial => serial().or_else(host),
        NameFrom::Hostname => host().or_else(serial),
        NameFrom::Address => None,
    };
    said.or_else(|| plain(&address(&found.target.address))).unwrap_or_else(|| "machine".to_owned())
}

/// `bmc-`, the host, the port where it is not the usual one, and the last part of a system's path.
fn address(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.strip_suffix(":443").unwrap_or(host);
    let system = path.rsplit('/').next().filter(|system| !system.is_empty());
    format!("bmc-{host}{}", system.map(|system| format!("-{system}")).unwrap_or_default())
}

/// What systems are called that nobody named.
fn is_no_name(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    ["none", "unknown", "n/a", "(none)", "null", "localhost", "default string"].contains(&text.as_str()) || text.starts_with("localhost.")
}

/// `text` as an RFC 1123 name: lower case, runs of anything else become one dash. `None` if nothing is left.
fn plain(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.trim().chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            '.' if name.ends_with(|c: char| c.is_ascii_alphanumeric()) => name.push('.'),
            _ if name.ends_with(|c: char| c.is_ascii_alphanumeric()) => name.push('-'),
            _ => {}
        }
        if name.len() == LONGEST {
            break;
        }
    }
    let name = name.trim_end_matches(['-', '.']).to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rfc_1123() {
        for (text, name) in [
            ("CZ3014ABCD", Some("cz3014abcd")),
            ("Web 01.Example.org.", Some("web-01.example.org")),
            ("  a//b__c ", Some("a-b-c")),
            ("..-é-", None),
            ("\n", None),
            ("a\u{0}b", Some("a-b")),
        ] {
            assert_eq!(plain(text).as_deref(), name, "{text:?}");
        }
        assert_eq!(plain(&"a.".repeat(100)).unwrap().len(), 63);
    }

    #[test]
    fn an_address_is_a_name_of_last_resort() {
        assert_eq!(plain(&address("https://10.0.8.12")).as_deref(), Some("bmc-10.0.8.12"));
        assert_eq!(plain(&address("https://[fd00::1]:8443/redfish/v1/Systems/Node.2")).as_deref(), Some("bmc-fd00-1-8443-node.2"));
    }
}
