//! The law under fault: a deterministic simulation of planner, reimage machine, tickets and executor. docs/simulation.md says what it does and
//! what it found.
//!
//! `scripts/simulate --seeds N [--from SEED]` runs many; `RACKWRIGHT_SEED=7` tells one.
#![allow(clippy::unwrap_used, missing_docs)]

mod arrived;
mod boot;
mod bystander;
mod controller;
mod cover;
mod gates;
mod journal;
mod metal;
#[path = "../plan_world/mod.rs"]
mod plan_world;
mod repo;
mod report;
mod rng;
mod shrink;
mod site;
mod steps;
mod story;
mod world;

use std::{
    env,
    io::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use cover::Cover;
use story::Story;
use world::tell;

/// Seeds from which on a transition that was never taken is a failure: rare ones need some thousand.
const ENOUGH: u64 = 20_000;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, which is no number")))
}

fn second_reader() -> bool {
    env::var("RACKWRIGHT_CHECKER").as_deref() != Ok("off")
}

/// What all threads found.
#[derive(Default)]
struct Found {
    cover: Cover,
    events: u64,
    rounds: u64,
    broken: Vec<(u64, String)>,
}

#[test]
fn no_history_breaks_the_law_and_everybody_arrives() {
    if let Some(seed) = number("RACKWRIGHT_SEED") {
        return one(seed);
    }
    let (seeds, from) = (number("RACKWRIGHT_SEEDS").unwrap_or(60), number("RACKWRIGHT_FROM").unwrap_or(0));
    let started = Instant::now();
    let (next, found) = (AtomicU64::new(from), Mutex::new(Found::default()));
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&next, from + seeds, &found, started));
        }
    });
    let found = found.into_inner().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let done = next.load(Ordering::SeqCst).min(from + seeds) - from;
    println!("{}", found.cover.lines().join("\n"));
    let (per_minute, events, rounds) = (done as f64 / seconds * 60.0, found.events, found.rounds);
    println!("{done} histories, {events} events, {rounds} rounds in {seconds:.0} s on {threads} cores: {per_minute:.0} a minute");
    if env::var_os("RACKWRIGHT_GO_ON").is_some() {
        found.broken.iter().for_each(|(_, line)| println!("{line}"));
    }
    if let Some((seed, text)) = found.broken.iter().min() {
        println!("\n{text}");
        panic!("seed {seed} breaks the law (and {} others of {done})", found.broken.len() - 1);
    }
    let missing = found.cover.missing();
    assert!(seeds < ENOUGH || missing.is_empty(), "never taken in {seeds} histories: {missing:#?}");
}

/// Takes seeds until there are none, or one broke the law.
fn work(next: &AtomicU64, end: u64, found: &Mutex<Found>, started: Instant) {
    let mut own = Found::default();
    loop {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if seed >= end {
            break;
        }
        let story = Story::of(seed);
        let told = tell(&story, second_reader(), false);
        own.cover.add(&told.cover);
        own.events += story.events.len() as u64;
        own.rounds += told.rounds;
        if let (Some(broken), true) = (&told.broken, env::var_os("RACKWRIGHT_GO_ON").is_some()) {
            own.broken.push((seed, format!("seed {seed}, law {}: {}", broken.law, broken.what)));
        } else if let Some(broken) = told.broken {
            next.fetch_max(end, Ordering::SeqCst);
            let text = shrink::report(&story, &broken, second_reader());
            own.broken.push((seed, text));
            break;
        }
        if (seed + 1).is_multiple_of(5000) && env::var_os("RACKWRIGHT_PROGRESS").is_some() {
            let left = (end - seed) as f64 * started.elapsed().as_secs_f64();
            let _ = writeln!(std::io::stderr(), "seed {seed} of {end}, {:.0} s passed ({left:.0})", started.elapsed().as_secs_f64());
        }
    }
    let mut found = found.lock().unwrap();
    found.cover.add(&own.cover);
    (found.events, found.rounds) = (found.events + own.events, found.rounds + own.rounds);
    found.broken.extend(own.broken);
}

/// One history, told in words.
fn one(seed: u64) {
    let story = Story::of(seed);
    let told = tell(&story, second_reader(), true);
    println!("{:#?}\n{}", story.setup, told.words.join("\n"));
    let Some(broken) = told.broken else { return };
    println!("{}", shrink::report(&story, &broken, second_reader()));
    panic!("seed {seed} breaks law {}: {}", broken.law, broken.what);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..20 {
        let words = || tell(&Story::of(seed), true, true).words;
        assert_eq!(words(), words(), "seed {seed}");
        let story = Story::of(seed);
        assert!(story.setup.bodies.len() >= story::MACHINES && story.events.len() >= story::EVENTS);
    }
}
