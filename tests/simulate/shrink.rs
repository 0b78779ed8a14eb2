//! From a story that breaks the law to the shortest one that does (delta debugging, Zeller 1999): any part of a story is a story.

use std::fmt::Write as _;

use crate::{
    site::Break,
    story::{Event, Story},
    world::tell,
};

/// The same break: the same law, and the same kind of words. Names, numbers and machines differ from story to story.
fn same(one: &Break, other: &Break) -> bool {
    let words = |text: &str| -> String { text.chars().filter(|c| !c.is_ascii_digit()).take(12).collect() };
    let kind = |of: &Break| {
        if of.law == 0 { words(&of.what.split_once(") ").map_or(of.what.clone(), |(_, rest)| rest.to_owned())) } else { String::new() }
    };
    one.law == other.law && kind(one) == kind(other)
}

pub fn shrink(story: &Story, broken: &Break, second_reader: bool) -> Story {
    let mut small = story.clone();
    let breaks = |events: &[Event], small: &Story| {
        let part = Story { events: events.to_vec(), ..small.clone() };
        tell(&part, second_reader, false).broken.is_some_and(|found| same(&found, broken))
    };
    let mut size = small.events.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < small.events.len() {
            let end = (at + size).min(small.events.len());
            let rest: Vec<Event> = small.events[..at].iter().chain(&small.events[end..]).cloned().collect();
            if breaks(&rest, &small) {
                small.events = rest;
                shorter = true;
            } else {
                at = end;
            }
        }
        if size == 1 && !shorter {
            return small;
        }
        size = if shorter { size } else { size.div_ceil(2) };
        if size == 1 && !shorter && small.events.len() == 1 {
            return small;
        }
    }
}

pub fn report(story: &Story, broken: &Break, second_reader: bool) -> String {
    let small = shrink(story, broken, second_reader);
    let told = tell(&small, second_reader, true);
    let mut text = format!("seed {}, law {}: {}\n", story.seed, broken.law, broken.what);
    let (before, after) = (story.events.len(), small.events.len());
    let _ = writeln!(text, "RACKWRIGHT_SEED={} tells it again; {before} events, shrunk to {after}:\n", story.seed);
    for event in &small.events {
        let _ = writeln!(text, "    {event:?},");
    }
    let found = told.broken.map(|found| format!("law {}: {}", found.law, found.what)).unwrap_or_default();
    let _ = writeln!(text, "\nwhat happens, to its end ({found}):\n\n{}", told.words.join("\n"));
    text
}
