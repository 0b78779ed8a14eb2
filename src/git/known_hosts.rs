//! OpenSSH's `known_hosts` (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): whether a host's key is the one that a person trusted.

/// What the files say of a host's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The key is there.
    Known,
    /// The key is there, marked `@revoked`.
    Revoked,
    /// The host is there with other keys of the same type: an attack, or a host that was set up anew.
    Changed,
    /// The host is there, with keys of these types only.
    OtherTypes(Vec<String>),
    /// Nobody trusted this host.
    Unknown,
}

/// Looks `key` up, the key as it goes over the wire (RFC 4253 section 6.6).
pub(super) fn verdict(text: &str, host: &str, port: u16, key: &[u8]) -> Verdict {
    let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    let mut types = Vec::new();
    let mut known = false;
    for line in text.lines().filter_map(Line::parse).filter(|line| names(line.hosts, &name)) {
        match (line.marker, line.key == key) {
            (Some("@revoked"), true) => return Verdict::Revoked,
            (None, true) => known = true,
            (None, false) => types.push(line.kind.to_owned()),
            _ => {}
        }
    }
    match (known, key_type(key)) {
        (true, _) => Verdict::Known,
        (false, Some(kind)) if types.iter().any(|other| other == kind) => Verdict::Changed,
        (false, _) if types.is_empty() => Verdict::Unknown,
        (false, _) => Verdict::OtherTypes(types),
    }
}

/// The type that a key's bytes begin with.
pub(super) fn key_type(key: &[u8]) -> Option<&str> {
    let length = u32::from_be_bytes(key.get(..4)?.try_into().ok()?);
    std::str::from_utf8(key.get(4..4_usize.checked_add(length as usize)?)?).ok()
}

struct Line<'a> {
    marker: Option<&'a str>,
    hosts: &'a str,
    kind: &'a str,
    key: Vec<u8>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let (hosts, kind, key) = (words.next()?, words.next()?, words.next()?);
        (!hosts.starts_with('#')).then_some(())?;
        Some(Self { marker, hosts, kind, key: base64(key)? })
    }
}

fn names(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return hashed.split_once('|').is_some_and(|(salt, hash)| hashes(salt, hash, name).unwrap_or(false));
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if matches(not.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches(pattern.as_bytes(), name.as_bytes()),
        }
    }
    found
}

/// `HashKnownHosts`: the name under HMAC-SHA1 with a salt.
fn hashes(salt: &str, hash: &str, name: &str) -> Option<bool> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &base64(salt)?);
    Some(ring::hmac::verify(&key, name.to_ascii_lowercase().as_bytes(), &base64(hash)?).is_ok())
}

/// `*` and `?` as in a shell; case does not matter. A `[` is only itself here.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => matches(rest, name) || name.split_first().is_some_and(|(_, name)| matches(pattern, name)),
        (Some((b'?', rest)), Some((_, name))) => matches(rest, name),
        (Some((a, rest)), Some((b, name))) if a.eq_ignore_ascii_case(b) => matches(rest, name),
        _ => false,
    }
}

/// RFC 4648 section 4, as strict as a key needs.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        buffer = (buffer << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with ssh-keygen; the hashed line with `ssh-keygen -H`.
    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJ5h3wGmKYFUIb1P9kC4zCYsPxqVf0vTmp2Jm8hR0v1q";

    fn ask(lines: &str, host: &str, port: u16) -> Verdict {
        verdict(lines, host, port, &base64(KEY).unwrap())
    }

    #[test]
    fn hosts_are_found_by_name_port_and_pattern() {
        let line = |hosts: &str| format!("# comment\n\n{hosts} ssh-ed25519 {KEY} a comment\nbroken line\n");
        assert_eq!(ask(&line("example.com"), "example.com", 22), Verdict::Known);
        assert_eq!(ask(&line("a,Example.COM"), "example.com", 22), Verdict::Known);
        assert_eq!(ask(&line("[127.0.0.1]:2222"), "127.0.0.1", 2222), Verdict::Known);
        assert_eq!(ask(&line("*.example.com"), "git.example.com", 22), Verdict::Known);
        assert_eq!(ask(&line("*.example.com,!git.example.com"), "git.example.com", 22), Verdict::Unknown);
        assert_eq!(ask(&line("example.com"), "example.com", 2222), Verdict::Unknown);
        assert_eq!(ask("", "example.com", 22), Verdict::Unknown);
    }

    #[test]
    fn a_changed_a_revoked_and_a_key_of_another_type_are_told_apart() {
        let other = KEY.replace("hR0v1q", "hR0v1r");
        assert_eq!(ask(&format!("h ssh-ed25519 {other}"), "h", 22), Verdict::Changed);
        assert_eq!(ask(&format!("h ssh-ed25519 {KEY}\n@revoked * ssh-ed25519 {KEY}"), "h", 22), Verdict::Revoked);
        assert_eq!(ask(&format!("h ssh-rsa {other}"), "h", 22), Verdict::OtherTypes(vec!["ssh-rsa".into()]));
        assert_eq!(ask(&format!("@cert-authority h ssh-ed25519 {KEY}"), "h", 22), Verdict::Unknown);
    }

    #[test]
    fn a_hashed_name_is_found() {
        let salt = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"salt");
        let hash = to_base64(ring::hmac::sign(&salt, b"example.com").as_ref());
        let line = format!("|1|c2FsdA==|{hash} ssh-ed25519 {KEY}");
        assert_eq!(ask(&line, "example.com", 22), Verdict::Known);
        assert_eq!(ask(&line, "example.org", 22), Verdict::Unknown);
    }

    fn to_base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |chunk: &[u8], n: usize| {
            let word = chunk.iter().chain([0, 0].iter()).take(3).fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
            char::from(DIGITS[word >> (18 - 6 * n) & 63])
        };
        bytes.chunks(3).flat_map(|chunk| (0..=chunk.len()).map(move |n| digit(chunk, n))).collect()
    }

    #[test]
    fn base64_reads_what_it_should() {
        assert_eq!(base64("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(base64(&to_base64(&[0, 255, 7, 9])), Some(vec![0, 255, 7, 9]));
        assert_eq!(base64("a b"), None);
    }
}
