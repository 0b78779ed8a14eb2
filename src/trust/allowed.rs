//! The file of allowed signers, as ssh-keygen(1) describes it under ALLOWED SIGNERS, and lists of revoked keys.

use std::collections::BTreeMap;

use super::{
    key::{BadKey, SshKey},
    pattern::matches_list,
    sshsig::GIT,
    time,
};

/// What a binary list of revoked keys begins with (OpenSSH, PROTOCOL.krl).
const KRL: &[u8] = b"SSHKRL\n\0";

/// One line: whose key it is, for what, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedKey {
    /// The line, from 1.
    pub line: u32,
    /// Who signs with it, as written, without what a `!` excludes.
    pub principals: Vec<String>,
    /// What it signs; `None`: anything.
    pub namespaces: Option<Vec<String>>,
    /// From when on it is valid, in seconds since 1970.
    pub valid_after: Option<i64>,
    /// Until when it is valid, in seconds since 1970.
    pub valid_before: Option<i64>,
}

impl AllowedKey {
    /// Whether it may sign commits.
    pub(super) fn signs_commits(&self) -> bool {
        self.namespaces.as_ref().is_none_or(|list| matches_list(list.iter().map(String::as_str), GIT))
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<&'static str>,
}

impl BadLine {
    pub(super) fn new(line: u32, message: impl Into<String>, hint: impl Into<Option<&'static str>>) -> Self {
        Self { line, message: message.into(), hint: hint.into() }
    }
}

/// Keys with the lines that allow them.
pub type Allowed = BTreeMap<SshKey, Vec<AllowedKey>>;

/// Reads a file of allowed signers. A line that is wrong allows nothing.
pub fn allowed_signers(bytes: &[u8]) -> (Allowed, Vec<BadLine>) {
    let (mut allowed, mut bad) = (Allowed::new(), Vec::new());
    for (line, text) in lines(bytes, &mut bad) {
        match read(line, text) {
            Ok((key, entry)) => allowed.entry(key).or_default().push(entry),
            Err(wrong) => bad.push(*wrong),
        }
    }
    (allowed, bad)
}

/// Reads a list of revoked keys: one public key a line, as in a `.pub` file.
pub fn revoked_keys(bytes: &[u8]) -> (Vec<SshKey>, Vec<BadLine>) {
    let (mut revoked, mut bad) = (Vec::new(), Vec::new());
    if bytes.starts_with(KRL) {
        bad.push(BadLine::new(1, "this is a binary list of revoked keys (KRL), which is not read", "list the public keys, one a line"));
        return (revoked, bad);
    }
    for (line, text) in lines(bytes, &mut bad) {
        let mut words = text.split_ascii_whitespace();
        match key(line, words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
            Ok(key) => revoked.push(key),
            Err(wrong) => bad.push(*wrong),
        }
    }
    (revoked, bad)
}

/// Lines that say something, with their numbers.
fn lines<'a>(bytes: &'a [u8], bad: &mut Vec<BadLine>) -> Vec<(u32, &'a str)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) {
            Ok(text) if text.contains(|c: char| c.is_control() && c != '\t') => {
                bad.push(BadLine::new(number, "this line has a control character in it", None));
            }
            Ok(text) => found.push((number, text.trim_matches([' ', '\t']))),
            Err(_) => bad.push(BadLine::new(number, "this line is not text in UTF-8", None)),
        }
    }
    found.retain(|(_, text)| !text.is_empty() && !text.starts_with('#'));
    found
}

const SHAPE: &str = "write `anna@example.org namespaces=\"git\" ssh-ed25519 AAAA…`: who, options, and the key from a `.pub` file";

fn read(line: u32, text: &str) -> Result<(SshKey, AllowedKey), Box<BadLine>> {
    let (who, rest) = word(text).ok_or_else(|| BadLine::new(line, "this line has a quote that does not end", SHAPE))?;
    let list: Vec<&str> = who.split(',').filter(|part| !part.is_empty()).collect();
    let named = list.iter().filter(|part| !part.starts_with('!') && matches_list(list.iter().copied(), part));
    let principals: Vec<String> = named.map(|part| (*part).to_owned()).collect();
    let mut entry = AllowedKey { line, principals, namespaces: None, valid_after: None, valid_before: None };
    let is_key = |text: &str| text.split_ascii_whitespace().next().is_some_and(|word| !word.contains('=') && looks_like_type(word));
    if rest.is_empty() {
        return Err(Box::new(BadLine::new(line, "there is no public key here", SHAPE)));
    }
    let rest = if is_key(rest) { rest } else { options(line, rest, &mut entry)? };
    let mut words = rest.split_ascii_whitespace();
    let key = key(line, words.next().unwrap_or_default(), words.next().unwrap_or_default())?;
    if entry.principals.is_empty() {
        return Err(Box::new(BadLine::new(line, format!("`{who}` names nobody"), SHAPE)));
    }
    if let (Some(after), Some(before)) = (entry.valid_after, entry.valid_before)
        && before <= after
    {
        return Err(Box::new(BadLine::new(line, "this key is never valid: `valid-before` is not later than `valid-after`", None)));
    }
    Ok((key, entry))
}

/// The first word, of which a part may be in quotes, and what follows it.
fn word(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (word, rest) = quoted.split_once('"')?;
        return Some((word.to_owned(), rest.trim_start()));
    }
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    Some((word.to_owned(), rest.trim_start()))
}

fn looks_like_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|start| word.starts_with(start))
}

fn key(line: u32, kind: &str, base64: &str) -> Result<SshKey, Box<BadLine>> {
    if base64.is_empty() || !looks_like_type(kind) {
        return Err(Box::new(BadLine::new(line, "there is no public key here", SHAPE)));
    }
    SshKey::parse(kind, base64).map_err(|error| {
        let hint = match error {
            BadKey::Unsupported(_) | BadKey::RsaBits(_) => "use a key that `ssh-keygen -t ed25519` makes",
            BadKey::Certificate => "put the key itself here",
            BadKey::NotAKey | BadKey::Mismatch(_) => "copy type and key from a `.pub` file",
        };
        Box::new(BadLine::new(line, error.to_string(), hint))
    })
}

/// Reads options up to the first blank that is not in quotes; gives what follows.
fn options<'a>(line: u32, text: &'a str, entry: &mut AllowedKey) -> Result<&'a str, Box<BadLine>> {
    let mut rest = text;
    loop {
        let end = rest.find(['=', ',', ' ', '\t']).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        rest = &rest[end..];
        let value = match rest.strip_prefix('=') {
            Some(quoted) => {
                let (value, after) = dequoted(quoted).ok_or_else(|| {
                    BadLine::new(line, format!("the value of `{name}` is not in quotes"), "write it as in `namespaces=\"git\"`")
                })?;
                rest = after;
                Some(value)
            }
            None => None,
        };
        option(line, &name, value, entry)?;
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.starts_with([' ', '\t']) => return Ok(rest.trim_start()),
            None => return Err(Box::new(BadLine::new(line, "there is no public key here", SHAPE))),
        }
    }
}

/// A value in quotes, in which `\"` stands for a quote, and what follows it.
fn dequoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let (mut value, mut rest) = (String::new(), text);
    loop {
        let at = rest.find(['"', '\\'])?;
        value.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('"') {
            return Some((value, after));
        }
        let escaped = rest.starts_with("\\\"");
        value.push(if escaped { '"' } else { '\\' });
        rest = &rest[if escaped { 2 } else { 1 }..];
    }
}

fn option(line: u32, name: &str, value: Option<String>, entry: &mut AllowedKey) -> Result<(), Box<BadLine>> {
    let wrong = |message: String, hint: &'static str| Err(Box::new(BadLine::new(line, message, hint)));
    let twice = || wrong(format!("`{name}` stands here twice"), "keep one");
    let time_of = |value: &str| time::parse(value).map_err(|(message, hint)| Box::new(BadLine::new(line, message, hint)));
    match (name, value) {
        ("cert-authority", None) => wrong(
            "certificates are not supported, so a line with `cert-authority` would allow nobody".to_owned(),
            "list the signers' own keys",
        ),
        ("namespaces", Some(_)) if entry.namespaces.is_some() => twice(),
        ("valid-after", Some(_)) if entry.valid_after.is_some() => twice(),
        ("valid-before", Some(_)) if entry.valid_before.is_some() => twice(),
        ("namespaces", Some(list)) => {
            entry.namespaces = Some(list.split(',').map(str::to_owned).collect());
            Ok(())
        }
        ("valid-after", Some(text)) => {
            entry.valid_after = Some(time_of(&text)?);
            Ok(())
        }
        ("valid-before", Some(text)) => {
            entry.valid_before = Some(time_of(&text)?);
            Ok(())
        }
        ("namespaces" | "valid-after" | "valid-before", None) => {
            wrong(format!("`{name}` has no value"), "write it as in `namespaces=\"git\"`")
        }
        _ => {
            let shown: String = name.chars().take(40).collect();
            wrong(format!("there is no option `{shown}`"), SHAPE)
        }
    }
}
