//! Texts of unknown origin as YAML.

use std::fmt::Write as _;

/// `text` as a scalar that any YAML reader takes for exactly this text, in block and in flow context.
///
/// Only what begins with a letter, goes on with letters, digits, `.`, `_` and `-`, and is none of the words that YAML 1.1 or 1.2 reads
/// as something else stays plain: no number, no date, no MAC address (which YAML 1.1 reads in base 60) is left.
pub(super) fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 12] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "infinity"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// In double quotes, everything but printable ASCII escaped (YAML 1.2.2, section 5.7).
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            ' '..='~' => write!(out, "{c}"),
            c if (c as u32) <= 0xffff => write!(out, "\\u{:04x}", c as u32),
            c => write!(out, "\\U{:08x}", c as u32),
        };
    }
    out.push('"');
    out
}

/// The most characters of a foreign text that are shown.
const MOST: usize = 80;

/// `text` for a comment or a terminal: one line, no control characters, nothing that turns the direction of writing.
pub(super) fn shown(text: &str) -> String {
    shown_up_to(text, MOST)
}

/// The same with another limit.
pub(super) fn shown_up_to(text: &str, most: usize) -> String {
    let text = text.trim();
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == most {
            out.push('…');
            break;
        }
        // Letters of any script may be in a name; whatever is invisible or ends a line may not.
        let harmless = matches!(c, ' '..='~') || c.is_alphanumeric() || matches!(c, '®' | '™' | '°' | 'µ');
        if harmless {
            out.push(c);
        } else {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_read_as_something_else_is_quoted() {
        for text in ["CZ3014ABCD", "System.Embedded.1", "web-01", "F54P1G3"] {
            assert_eq!(scalar(text), text);
        }
        for text in [
            "",
            "0123",
            "12e3",
            "1_000",
            "0x1f",
            "2024-01-01",
            "52:54:00:12:34:56",
            "No",
            "null",
            "~",
            "NaN",
            "- a",
            "a b",
            "a:",
            "#",
            "*a",
            ".inf",
        ] {
            assert_eq!(scalar(text), format!("\"{text}\""));
        }
        assert_eq!(scalar("a\"b\\\n\u{85}😀"), r#""a\"b\\\u000a\u0085\U0001f600""#);
    }

    #[test]
    fn what_is_shown_stays_on_its_line() {
        assert_eq!(shown("a\nb\u{85}\u{2028}\u{1b}[31m\u{202e}"), r"a\u{a}b\u{85}\u{2028}\u{1b}[31m\u{202e}");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), MOST + 1);
    }
}
