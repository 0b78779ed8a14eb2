//! Small texts that people write: sizes, shares, numbers that YAML would read otherwise, and names that are nearly right.

use crate::model::Amount;

/// Reads a size: `2.1 GiB`, `64MiB`, `10 GB`, or a whole number of bytes. A fraction is rounded down to a byte.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let unit: u64 = match unit {
        "" if !number.contains('.') => 1,
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "PiB" => 1 << 50,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "PB" => 1_000_000_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    // Whole numbers all the way: a float would make the same text another size on another machine.
    let scale = 10u128.pow(fraction.len() as u32);
    let number = whole.parse::<u64>().ok().map(u128::from)? * scale + fraction.parse::<u128>().ok()?;
    u64::try_from(number.checked_mul(u128::from(unit))? / scale).ok()
}

/// Reads `25%` as 25.
pub(crate) fn percent(text: &str) -> Option<u8> {
    let number = text.strip_suffix('%')?;
    let number: u8 = plain_number(number)?.try_into().ok()?;
    (number <= 100).then_some(number)
}

/// Reads `4` or `10%`.
pub(crate) fn amount(text: &str) -> Option<Amount> {
    match percent(text) {
        Some(percent) => Some(Amount::Percent(percent)),
        None => plain_number(text)?.try_into().ok().map(Amount::Count),
    }
}

fn plain_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Whether some reader of YAML takes `text`, without quotes, for a number whose usual form is another: `0600` (octal in YAML
/// 1.1), `0x1F`, `1e3`, `00e1234567` (zero!), `1_000`, `1.10`, `+5`. Whole numbers such as `12` and `-3` are what they look like.
pub(crate) fn is_odd_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let Some(first) = unsigned.bytes().next() else { return false };
    if !(first.is_ascii_digit() || (first == b'.' && unsigned.len() > 1)) {
        return false;
    }
    if let Some((radix, digits)) = radix(unsigned) {
        return !digits.is_empty() && digits.chars().all(|c| c == '_' || c.is_digit(radix));
    }
    let mut digits = unsigned.replace('_', "");
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return digits.len() != unsigned.len() || text.starts_with('+') || (digits.len() > 1 && first == b'0');
    }
    // `digits.digits`, with or without an exponent.
    let exponent = digits.find(['e', 'E']);
    if let Some(at) = exponent {
        let power = digits[at + 1..].strip_prefix(['+', '-']).unwrap_or(&digits[at + 1..]).to_owned();
        if power.is_empty() || !power.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
        digits.truncate(at);
    }
    let mut parts = digits.splitn(2, '.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next());
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !numeric(whole) || !fraction.is_none_or(numeric) || (whole.is_empty() && fraction.is_none_or(str::is_empty)) {
        return false;
    }
    // `1.5` is what it looks like; `1.10`, `1.` and `01.5` are not.
    let usual = fraction.is_some_and(|f| !f.is_empty() && !f.ends_with('0')) && (whole == "0" || !whole.starts_with('0'));
    exponent.is_some() || !usual || whole.is_empty() || text.starts_with('+') || unsigned.contains('_')
}

fn radix(text: &str) -> Option<(u32, &str)> {
    let prefixes = [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)];
    prefixes.iter().find_map(|(prefix, radix)| Some((*radix, text.strip_prefix(prefix)?)))
}

/// Whether `text` may hold a plain scalar for which [`is_odd_number`] is true. It never misses one; it may be wrong the other
/// way (in comments and quotes), and only costs a second look then.
pub(crate) fn may_hold_odd_number(text: &str) -> bool {
    text.split(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}'))
        // `{"a":010}`: after a quoted key no blank is needed.
        .map(after_quoted_key)
        .filter(|token| token.bytes().next().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b'&' | b'!')))
        .any(|token| token.starts_with(['&', '!']) || is_odd_number(token.trim_end_matches(':')))
}

fn after_quoted_key(token: &str) -> &str {
    let ends = |pair: &[u8]| matches!(pair, [b'"' | b'\'', b':']);
    token.as_bytes().windows(2).rposition(ends).map_or(token, |at| &token[at + 2..])
}

/// The one of `known` that was probably meant by `written`.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let distances = known.into_iter().map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name));
    let (distance, name) = distances.min()?;
    (distance <= (written.chars().count().max(name.len()) / 3).max(1)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        let sizes = [("2.1 GiB", 2_254_857_830), ("64MiB", 64 << 20), ("0", 0), ("512", 512), ("10 GB", 10_000_000_000), ("1.5 KiB", 1536)];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "1.5",
            "GiB",
            "1 gib",
            "-1",
            "1.2.3 GiB",
            "99999999999999 PiB",
            "18446744073709551615.999999999 PiB",
            "99999999999999999999999 TB",
            ".5 GiB",
            "1. GiB",
            "1 GiB x",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_counts_or_shares() {
        assert_eq!(amount("4"), Some(Amount::Count(4)));
        assert_eq!(amount("100%"), Some(Amount::Percent(100)));
        for text in ["", "%", "101%", "-1", "1.5%", "010", "4 %", "99999999999", "256%"] {
            assert_eq!(amount(text), None, "{text}");
        }
    }

    #[test]
    fn odd_numbers_are_told_from_texts() {
        for text in
            ["0600", "010", "00", "1e3", "00e1234567", "1_000", "0x1F", "0o17", "0b11", "1.10", "1.", ".5", "+5", "-010", "1.5e-3", "12e03"]
        {
            assert!(is_odd_number(text), "{text}");
            assert!(may_hold_odd_number(&format!("a: {text}\n")), "{text}");
            assert!(may_hold_odd_number(&format!("{{a: [{text}, b]}}")), "{text}");
            assert!(may_hold_odd_number(&format!("{{\"a\":{text}}}")), "{text}");
        }
        for text in [
            "",
            "0",
            "12",
            "-3",
            "1.5",
            "0.25",
            "52:54:00:12:34:56",
            "10.0.4.12/24",
            "10.0.4.0",
            "1e",
            "e1",
            "00e12x",
            "0xZZ",
            "12ab",
            ".",
            "+",
            "2026-11-21",
            "0x",
            "5254.0012.3456",
        ] {
            assert!(!is_odd_number(text), "{text}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("nisc", ["nics", "disks", "power"]), Some("nics"));
        assert_eq!(nearest("Profile", ["profile", "place"]), Some("profile"));
        assert_eq!(nearest("colour", ["nics", "disks", "power"]), None);
    }
}
