//! A quick reading of plain YAML: most manifests need no more than a tenth of the language.
//!
//! **Invariant.** What this reads, serde_yaml reads the same; what is not surely the same, or is wrong in any way, is not read here
//! but by serde_yaml, which also words the error. So it is strict: printable ASCII; block mappings and lists; flow ones on one
//! line; plain texts that begin with a letter, a digit, `/`, `_` or `.`; quotes without escapes; comments. No anchors, tags, block
//! texts, texts over several lines, empty values. Tests in `yaml` compare the two on all manifests that we have and on
//! mutations of it.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::Error};

/// How deep mappings may be nested here.
const MAX_DEPTH: usize = 12;

/// How long a key may be here. YAML allows 1024 (YAML 1.2.2, section 7.4); no field has as many as 64.
const MAX_KEY: usize = 64;

/// A part of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event<'a> {
    Mapping,
    List,
    End,
    Plain(&'a str),
    Quoted(&'a str),
}

/// Reads a document with `seed`. `None`: ask serde_yaml.
pub(crate) fn decode<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Option<S::Value> {
    let events = Scanner::scan(text)?;
    let mut cursor = Cursor { events: &events, at: 0 };
    let value = seed.deserialize(&mut cursor).ok()?;
    (cursor.at == events.len()).then_some(value)
}

/// A line with something in it: how far it is indented, and what it says.
#[derive(Clone, Copy)]
struct Line<'a> {
    indent: usize,
    text: &'a str,
}

struct Scanner<'a> {
    lines: std::str::Split<'a, char>,
    next: Option<Line<'a>>,
    events: Vec<Event<'a>>,
}

impl<'a> Scanner<'a> {
    fn scan(text: &'a str) -> Option<Vec<Event<'a>>> {
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
            return None;
        }
        let mut scanner = Self { lines: text.split('\n'), next: None, events: Vec::with_capacity(96) };
        scanner.advance();
        if scanner.next.is_some_and(|line| line.indent == 0 && line.text == "---") {
            scanner.advance();
        }
        let first = scanner.next?;
        if first.indent != 0 {
            return None;
        }
        scanner.mapping(0, 0)?;
        scanner.next.is_none().then_some(scanner.events)
    }

    /// Goes to the next line that is neither blank nor a comment.
    fn advance(&mut self) {
        self.next = self.lines.by_ref().find_map(|line| {
            let text = line.trim_start_matches(' ');
            let indent = line.len() - text.len();
            (!text.is_empty() && !text.starts_with('#')).then(|| Line { indent, text: text.trim_end_matches(' ') })
        });
    }

    /// The lines from here that are indented by `indent`, as a mapping.
    fn mapping(&mut self, indent: usize, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.events.push(Event::Mapping);
        while let Some(line) = self.next.filter(|line| line.indent == indent && !is_item(line.text)) {
            let (key, rest) = key(line.text)?;
            self.events.push(Event::Plain(key));
            let value = rest.trim_start_matches(' ');
            if value.is_empty() || value.starts_with('#') {
                self.advance();
                self.nested(indent, depth)?;
            } else {
                self.value(value, depth)?;
                self.advance();
            }
        }
        self.events.push(Event::End);
        // A line that is indented further would belong to the value above.
        self.next.is_none_or(|line| line.indent < indent || (line.indent == indent && is_item(line.text))).then_some(())
    }

    /// What stands below `key:`.
    fn nested(&mut self, indent: usize, depth: usize) -> Option<()> {
        let line = self.next?;
        match is_item(line.text) {
            true if line.indent >= indent => self.list(line.indent, depth + 1),
            false if line.indent > indent => self.mapping(line.indent, depth + 1),
            _ => None,
        }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<()> {
        self.events.push(Event::List);
        while let Some(line) = self.next.filter(|line| line.indent == indent && is_item(line.text)) {
            let item = line.text[1..].trim_start_matches(' ');
            if item.is_empty() || item.starts_with('#') || is_item(item) {
                return None;
            }
            if key(item).is_some() {
                let indent = line.indent + (line.text.len() - item.len());
                self.next = Some(Line { indent, text: item });
                self.mapping(indent, depth + 1)?;
            } else {
                self.value(item, depth)?;
                self.advance();
            }
        }
        self.events.push(Event::End);
        self.next.is_none_or(|line| line.indent < indent || (line.indent == indent && !is_item(line.text))).then_some(())
    }

    /// A value that stands on one line, with nothing after it but a comment.
    fn value(&mut self, text: &'a str, depth: usize) -> Option<()> {
        let rest = match text.as_bytes().first()? {
            b'"' | b'\'' => self.quoted(text)?,
            b'[' | b'{' => self.flow(text, depth + 1)?,
            _ => {
                let end = text.find(" #").unwrap_or(text.len());
                self.plain(text[..end].trim_end_matches(' '))?;
                return Some(());
            }
        };
        let comment = rest.trim_start_matches(' ');
        (comment.is_empty() || (comment.starts_with('#') && comment.len() < rest.len())).then_some(())
    }

    fn plain(&mut self, text: &'a str) -> Option<()> {
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.'));
        let odd = text.contains(": ") || text.ends_with(':') || text.contains(" #") || text.starts_with("...") || is_null(text);
        (begins && !odd).then(|| self.events.push(Event::Plain(text)))
    }

    /// Takes a text in quotes; gives what follows.
    fn quoted(&mut self, text: &'a str) -> Option<&'a str> {
        let quote = text.chars().next()?;
        let (inner, rest) = text[1..].split_once(quote)?;
        if inner.contains('\\') || rest.starts_with(quote) {
            return None;
        }
        self.events.push(Event::Quoted(inner));
        Some(rest)
    }

    /// Takes `[…]` or `{…}`; gives what follows.
    fn flow(&mut self, text: &'a str, depth: usize) -> Option<&'a str> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mapping = text.starts_with('{');
        let close = if mapping { '}' } else { ']' };
        self.events.push(if mapping { Event::Mapping } else { Event::List });
        let mut rest = text[1..].trim_start_matches(' ');
        if !rest.starts_with(close) {
            loop {
                if mapping {
                    let (key, value) = key(rest)?;
                    self.events.push(Event::Plain(key));
                    rest = value.trim_start_matches(' ');
                }
                rest = self.flow_value(rest, depth)?.trim_start_matches(' ');
                match rest.strip_prefix(',') {
                    Some(more) => rest = more.trim_start_matches(' '),
                    None => break,
                }
            }
        }
        self.events.push(Event::End);
        rest.strip_prefix(close)
    }

    fn flow_value(&mut self, text: &'a str, depth: usize) -> Option<&'a str> {
        match text.as_bytes().first()? {
            b'"' | b'\'' => self.quoted(text),
            b'[' | b'{' => self.flow(text, depth + 1),
            _ => {
                let end = text.find([',', '[', ']', '{', '}'])?;
                let value = text[..end].trim_end_matches(' ');
                // In brackets, libyaml stops at some question marks, and its versions differ about which.
                if value.contains(['#', '"', '\'', '?']) {
                    return None;
                }
                self.plain(value)?;
                Some(&text[end..])
            }
        }
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// `key: rest` or `key:`, where the key is a plain word.
fn key(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')))?;
    let (key, rest) = (&text[..end], text[end..].strip_prefix(':')?);
    let begins = key.starts_with(|c: char| c.is_ascii_alphabetic());
    (begins && key.len() <= MAX_KEY && !is_null(key) && (rest.is_empty() || rest.starts_with(' '))).then_some((key, rest))
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Events as serde takes them. Each error only means that serde_yaml is asked.
struct Cursor<'a, 'de> {
    events: &'a [Event<'de>],
    at: usize,
}

fn odd<T>() -> Result<T, Error> {
    Err(Error::custom("not plain"))
}

impl<'de> Cursor<'_, 'de> {
    fn take(&mut self) -> Result<Event<'de>, Error> {
        let event = self.events.get(self.at).copied();
        self.at += 1;
        event.map_or_else(odd, Ok)
    }

    fn text(&mut self) -> Result<&'de str, Error> {
        match self.take()? {
            Event::Plain(text) | Event::Quoted(text) => Ok(text),
            _ => odd(),
        }
    }

    /// A text without quotes.
    fn word(&mut self) -> Result<&'de str, Error> {
        match self.take()? {
            Event::Plain(text) => Ok(text),
            _ => odd(),
        }
    }

    fn number(&mut self) -> Result<u64, Error> {
        let text = self.word()?;
        let usual = text.len() < 19 && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if usual { text.parse().or_else(|_| odd()) } else { odd() }
    }

    fn begin(&mut self, wanted: Event<'_>) -> Result<(), Error> {
        if self.take()? == wanted { Ok(()) } else { odd() }
    }

    /// Whether the mapping or list ends here.
    fn ends(&mut self) -> bool {
        let ends = self.events.get(self.at) == Some(&Event::End);
        self.at += usize::from(ends);
        ends
    }
}

impl<'de> Deserializer<'de> for &mut Cursor<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        odd()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.word()? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => odd(),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &str, _: &[&str], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_enum(self.word()?.into_deserializer())
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.begin(Event::List)?;
        visitor.visit_seq(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.begin(Event::Mapping)?;
        visitor.visit_map(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &str, _: &[&str], visitor: V) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct ignored_any
    }
}

impl<'de> SeqAccess<'de> for &mut Cursor<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.ends() { Ok(None) } else { seed.deserialize(&mut **self).map(Some) }
    }
}

impl<'de> MapAccess<'de> for &mut Cursor<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.ends() { Ok(None) } else { seed.deserialize(&mut **self).map(Some) }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut **self)
    }
}
