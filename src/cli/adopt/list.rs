//! The list of BMCs, as people have it.

use std::{collections::BTreeSet, io::Read as _, path::Path};

use anyhow::{Context as _, bail};

use crate::{
    manifest::bmc_address,
    model::{Fingerprint, MachineName},
};

/// The longest list that is read, in bytes: 10,000 BMCs with fingerprints and names.
const LIMIT: u64 = 4 << 20;

/// One BMC to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: String,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) name: Option<MachineName>,
}

/// All BMCs that were named, in order.
pub(super) fn entries(named: &[String], from: Option<&Path>, fingerprint: Option<Fingerprint>) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for text in named {
        entries.push(entry(text)?);
    }
    if let Some(file) = from {
        let (text, shown) = read(file)?;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                entries.push(entry(line).with_context(|| format!("{shown} line {number}"))?);
            }
        }
        if entries.is_empty() {
            bail!("{shown} names no BMC");
        }
    }
    if let Some(fingerprint) = fingerprint {
        let [only] = entries.as_mut_slice() else {
            bail!("--fingerprint is for one BMC, and there are {}: write each one's beside it in a list (--from)", entries.len());
        };
        if only.fingerprint.is_some_and(|listed| listed != fingerprint) {
            bail!("--fingerprint and the list say two different ones for {}", only.address);
        }
        only.fingerprint = Some(fingerprint);
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = entries.iter().find(|entry| !seen.insert(entry.address.as_str())) {
        bail!("{} is in the list twice", twice.address);
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = entries.iter().filter_map(|entry| entry.name.as_ref()).find(|name| !names.insert(*name)) {
        bail!("two BMCs of the list are named {twice}");
    }
    Ok(entries)
}

fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let (mut text, input) = (String::new(), file == Path::new("-"));
    let shown = if input { "standard input".to_owned() } else { file.display().to_string() };
    let failed = || format!("can't read the list {shown}");
    if input {
        std::io::stdin().take(LIMIT + 1).read_to_string(&mut text).with_context(failed)?;
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LIMIT + 1).read_to_string(&mut text)).with_context(failed)?;
    }
    if text.len() as u64 > LIMIT {
        bail!("the list {shown} is longer than {} MiB", LIMIT >> 20);
    }
    Ok((text, shown))
}

/// `ADDRESS [sha256:FINGERPRINT] [name=NAME]`.
fn entry(line: &str) -> anyhow::Result<Entry> {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let mut entry = Entry { address: address(first)?, fingerprint: None, name: None };
    for word in words {
        if let Some(name) = word.strip_prefix("name=") {
            entry.name = Some(MachineName::new(name)?);
        } else if let Ok(fingerprint) = word.parse() {
            entry.fingerprint = Some(fingerprint);
        } else {
            bail!("{word:?} is neither a fingerprint (sha256: and 64 hexadecimal digits) nor name=NAME");
        }
    }
    Ok(entry)
}

fn address(text: &str) -> anyhow::Result<String> {
    if text.contains('@') {
        // Not repeated: it may hold a password (law 14).
        bail!("the address of a BMC holds no user name; give --user and --password-file");
    }
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    if let Some(address) = bmc_address(&whole) {
        return Ok(address.strip_suffix(":443").filter(|_| address.starts_with("https:")).map(str::to_owned).unwrap_or(address));
    }
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    if host.rsplit_once('/').is_some_and(|(_, bits)| bits.parse::<u8>().is_ok()) {
        bail!("{text} is a range: name each BMC, since whoever else answers in it would be sent the password");
    }
    bail!("{text:?} is not the address of a BMC: write https://HOST or https://HOST:PORT");
}

/// `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as rack=a".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_bmc_and_may_say_more() {
        let pin = format!("sha256:{}", "ab".repeat(32));
        let full = entry(&format!("https://BMC-1.example:443 {pin} name=web-01")).unwrap();
        assert_eq!((full.address.as_str(), full.name.unwrap().as_str()), ("https://bmc-1.example", "web-01"));
        assert_eq!(full.fingerprint.unwrap().to_string(), pin);
        assert_eq!(entry("10.0.8.12").unwrap().address, "https://10.0.8.12");
        assert_eq!(entry("[fd00::1]:8443").unwrap().address, "https://[fd00::1]:8443");
        assert_eq!(entry("10.0.8.12/redfish/v1/Systems/1").unwrap().address, "https://10.0.8.12/redfish/v1/Systems/1");
    }

    #[test]
    fn what_is_no_bmc_is_told_without_its_password() {
        for (line, said) in [
            ("https://admin:hunter2@10.0.8.12", "no user name"),
            ("10.0.8.0/24", "a range"),
            ("ftp://10.0.8.12", "not the address"),
            ("10.0.8.12 sha256:12", "neither a fingerprint"),
            ("10.0.8.12 name=Web", "not a name"),
        ] {
            let error = format!("{:#}", entry(line).unwrap_err());
            assert!(error.contains(said) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn no_bmc_and_no_name_is_there_twice() {
        let named = |texts: &[&str]| entries(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), None, None);
        assert!(named(&["10.0.8.12", "https://10.0.8.12:443"]).unwrap_err().to_string().contains("twice"));
        assert!(named(&["10.0.8.12 name=a", "10.0.8.13 name=a"]).unwrap_err().to_string().contains("named a"));
    }
}
