//! Where each key and value of a document stands: a second, slower reading that is done only when there is a problem to place.
//!
//! The nodes are kept in one list and refer to each other by index, so depth costs no stack; aliases are followed, never copied.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::fault::{Path, Seg};

/// A stretch of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Line, from 1.
    pub(crate) line: u32,
    /// Column in characters, from 1.
    pub(crate) column: u32,
    /// Characters; at least 1.
    pub(crate) length: u32,
}

/// One node.
#[derive(Debug)]
struct Node {
    place: Place,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Scalar { text: String, plain: bool },
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
    Alias(usize),
}

/// A collection that is still being read.
struct Open {
    node: usize,
    key: Option<usize>,
}

/// One document with the places of its nodes.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    root: Option<usize>,
    tagged: Vec<(String, Place)>,
}

/// What `Tree::keys`, `Tree::plain_scalars` and `Tree::tags` give: a text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed<'a> {
    pub(crate) text: &'a str,
    pub(crate) place: Place,
}

impl Tree {
    /// Reads as much of `text` as can be read; a syntax error only ends it early.
    pub(crate) fn read(text: &str, lines_before: u32) -> Self {
        let mut tree = Tree::default();
        let mut open: Vec<Open> = Vec::new();
        let mut anchors = HashMap::new();
        let lines: Vec<&str> = text.lines().collect();
        let mut parser = Parser::new_from_str(text);
        while let Some(Ok((event, span))) = parser.next_event() {
            let place = place(&lines, span, lines_before);
            let (data, anchor, tag, opens) = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    (Data::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }, anchor, tag, false)
                }
                Event::Alias(anchor) => (Data::Alias(anchors.get(&anchor).copied().unwrap_or(usize::MAX)), 0, None, false),
                Event::SequenceStart(anchor, tag) => (Data::Sequence(Vec::new()), anchor, tag, true),
                Event::MappingStart(anchor, tag) => (Data::Mapping(Vec::new()), anchor, tag, true),
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    continue;
                }
                Event::StreamEnd => break,
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => continue,
            };
            if let Some(tag) = tag {
                let handle = if tag.is_yaml_core_schema() { "!!" } else { &tag.handle };
                tree.tagged.push((format!("{handle}{}", tag.suffix), place));
            }
            let node = tree.nodes.len();
            tree.nodes.push(Node { place, data });
            if anchor != 0 {
                anchors.insert(anchor, node);
            }
            tree.attach(node, open.last_mut());
            if opens {
                open.push(Open { node, key: None });
            }
        }
        tree
    }

    fn attach(&mut self, node: usize, parent: Option<&mut Open>) {
        let Some(parent) = parent else {
            self.root.get_or_insert(node);
            return;
        };
        match &mut self.nodes[parent.node].data {
            Data::Sequence(items) => items.push(node),
            Data::Mapping(pairs) => match parent.key.take() {
                None => parent.key = Some(node),
                Some(key) => pairs.push((key, node)),
            },
            Data::Scalar { .. } | Data::Alias(_) => {}
        }
    }

    /// Follows an alias to what it stands for.
    fn target(&self, node: usize) -> usize {
        match self.nodes.get(node).map(|node| &node.data) {
            Some(Data::Alias(target)) => *target,
            _ => node,
        }
    }

    fn mapping(&self, node: usize) -> &[(usize, usize)] {
        match self.nodes.get(self.target(node)).map(|node| &node.data) {
            Some(Data::Mapping(pairs)) => pairs,
            _ => &[],
        }
    }

    fn text(&self, node: usize) -> Option<&str> {
        match self.nodes.get(node).map(|node| &node.data) {
            Some(Data::Scalar { text, .. }) => Some(text),
            _ => None,
        }
    }

    /// The key (if it has one) and the value at `path`.
    fn find(&self, path: &[Seg]) -> Option<(Option<usize>, usize)> {
        let mut found = (None, self.root?);
        for seg in path {
            found = match seg {
                Seg::Key(name) => {
                    let (key, value) = self.mapping(found.1).iter().find(|(key, _)| self.text(*key) == Some(name))?;
                    (Some(*key), *value)
                }
                Seg::Index(index) => match &self.nodes.get(self.target(found.1))?.data {
                    Data::Sequence(items) => (None, *items.get(*index)?),
                    _ => return None,
                },
            };
        }
        Some(found)
    }

    /// Where the value at `path` stands; of its nearest parent that is there, if it isn't.
    pub(crate) fn value(&self, path: &Path) -> Option<Place> {
        let segs = path.segs();
        let (found, whole) = (0..=segs.len()).rev().find_map(|n| self.find(&segs[..n]).map(|found| (found, n == segs.len())))?;
        let (key, value) = found;
        match (self.nodes.get(value).map(|node| &node.data), key) {
            // A collection in block style begins on a line of its own, which says less than its key does.
            (Some(Data::Sequence(_) | Data::Mapping(_)), Some(key)) => Some(self.nodes[key].place),
            (_, Some(key)) if !whole => Some(self.nodes[key].place),
            _ => self.nodes.get(value).map(|node| node.place),
        }
    }

    /// Where the key of `path` stands.
    pub(crate) fn key(&self, path: &Path) -> Option<Place> {
        match self.find(path.segs()) {
            Some((Some(key), _)) => Some(self.nodes[key].place),
            _ => self.value(path),
        }
    }

    /// The keys of the mapping at `path`, in the order in which they are written, also those written twice.
    pub(crate) fn keys(&self, path: &Path) -> Vec<Placed<'_>> {
        let Some((_, value)) = self.find(path.segs()) else { return Vec::new() };
        let keys = self.mapping(value).iter().map(|(key, _)| *key);
        keys.filter_map(|key| Some(Placed { text: self.text(key)?, place: self.nodes[key].place })).collect()
    }

    /// The text of the scalar at `path`.
    pub(crate) fn scalar(&self, path: &Path) -> Option<&str> {
        let (_, value) = self.find(path.segs())?;
        self.text(self.target(value))
    }

    /// Where the scalar at `path`, or the alias that stands for it, is written.
    pub(crate) fn scalar_place(&self, path: &Path) -> Option<Place> {
        let (_, value) = self.find(path.segs())?;
        self.text(self.target(value))?;
        self.nodes.get(value).map(|node| node.place)
    }

    /// Where the mapping at `path` begins, and whether it is empty; in block style that is its first key.
    pub(crate) fn mapping_place(&self, path: &Path) -> Option<(Place, bool)> {
        let (_, value) = self.find(path.segs())?;
        let node = self.nodes.get(value)?;
        match &node.data {
            Data::Mapping(pairs) => Some((node.place, pairs.is_empty())),
            Data::Scalar { .. } | Data::Sequence(_) | Data::Alias(_) => None,
        }
    }

    /// All scalars without quotes.
    pub(crate) fn plain_scalars(&self) -> impl Iterator<Item = Placed<'_>> {
        self.nodes.iter().filter_map(|node| match &node.data {
            Data::Scalar { text, plain: true } => Some(Placed { text, place: node.place }),
            _ => None,
        })
    }

    /// All tags, as they are written, and where what they belong to stands.
    pub(crate) fn tags(&self) -> impl Iterator<Item = Placed<'_>> {
        self.tagged.iter().map(|(text, place)| Placed { text, place: *place })
    }

    /// Where the document begins.
    pub(crate) fn start(&self) -> Option<Place> {
        // The first key rather than the mapping, which would be as long as the document.
        let root = self.root?;
        let first = self.mapping(root).first().map_or(root, |(key, _)| *key);
        self.nodes.get(first).map(|node| node.place)
    }
}

/// The part of a span that is on its first line.
fn place(lines: &[&str], span: Span, lines_before: u32) -> Place {
    let (line, column) = (span.start.line() as u32, span.start.col() as u32);
    let length = if span.end.line() == span.start.line() {
        span.end.col().saturating_sub(span.start.col())
    } else {
        let line = lines.get(span.start.line().saturating_sub(1)).copied().unwrap_or_default();
        line.trim_end().chars().count().saturating_sub(span.start.col())
    };
    Place { line: line.max(1) + lines_before, column: column + 1, length: (length as u32).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::fault::path_to;

    fn at(line: u32, column: u32, length: u32) -> Option<Place> {
        Some(Place { line, column, length })
    }

    #[test]
    fn keys_and_values_are_found_by_path() {
        let tree = Tree::read("a: 1\nlist:\n  - {x: one, y: \"two\"}\n  - ä: ü\n", 10);
        assert_eq!(tree.value(&path_to!["a"]), at(11, 4, 1));
        assert_eq!(tree.key(&path_to!["a"]), at(11, 1, 1));
        assert_eq!(tree.value(&path_to!["list", 0, "y"]), at(13, 17, 5));
        assert_eq!(tree.value(&path_to!["list", 1, "ä"]), at(14, 8, 1));
        assert_eq!(tree.value(&path_to!["list", 1, "absent"]), at(14, 5, 1));
        assert_eq!(tree.value(&path_to!["list"]), at(12, 1, 4));
    }

    #[test]
    fn aliases_are_followed_and_bombs_are_not_unrolled() {
        let tree = Tree::read("a: &a {x: 1}\nb: *a\n", 0);
        assert_eq!(tree.value(&path_to!["b", "x"]), at(1, 11, 1));
        let bomb = format!("a: &a [x]\nb: &b [{0}]\nc: &c [{1}]\nd: [{2}]\n", "*a,".repeat(9), "*b,".repeat(9), "*c,".repeat(9));
        assert!(Tree::read(&bomb, 0).nodes.len() < 50);
    }

    #[test]
    fn a_key_written_twice_is_there_twice() {
        let tree = Tree::read("a: 1\nb: 2\na: 3\n", 0);
        let keys: Vec<_> = tree.keys(&path_to![]).iter().map(|key| (key.text, key.place.line)).collect();
        assert_eq!(keys, [("a", 1), ("b", 2), ("a", 3)]);
    }
}
