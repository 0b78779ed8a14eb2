//! The numbers of the design, measured: `cargo bench --bench numbers`, `-- --quick` for a smoke run, or name cases to run only those.
//!
//! Each case is warmed up and run several times; the table has the median of wall time and of this process's CPU time (user and system,
//! all threads) beside the goal. The machine's load is printed too, since wall time means little without it. Always exits 0:
//! a missed goal is shown, not hidden behind a red build on a busy machine.
#![allow(missing_docs, clippy::unwrap_used)]

mod controller;
mod fleet;
mod git;
mod load;

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// How much is run.
pub struct Size {
    /// Machines of a large fleet.
    pub large: usize,
    /// Machines that are simulated.
    pub simulated: usize,
    /// Measured runs of each case.
    pub runs: usize,
    /// Periods over which a controller at rest is watched.
    pub periods: u32,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
}

/// What a case should reach.
pub enum Goal {
    Wall(Duration),
    Cpu(Duration),
    /// Shown for comparison.
    None,
}

type Case = fn(&Size);

/// CPU time of this process so far.
pub fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000)).sum()
}

/// Runs `work` once.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let (before, start) = (cpu(), Instant::now());
    let result = work();
    let wall = start.elapsed();
    (result, Cost { wall, cpu: cpu() - before })
}

/// Runs `work` until there are `runs` costs, after one that is not counted, and gives the median of each.
pub fn median(runs: usize, mut work: impl FnMut(usize) -> Cost) -> Cost {
    let costs: Vec<Cost> = (0..=runs).map(&mut work).skip(1).collect();
    let middle = |of: fn(&Cost) -> Duration| {
        let mut all: Vec<Duration> = costs.iter().map(of).collect();
        all.sort();
        all[all.len() / 2]
    };
    Cost { wall: middle(|cost| cost.wall), cpu: middle(|cost| cost.cpu) }
}

/// Prints a line of the table.
pub fn show(what: &str, cost: Cost, goal: &Goal) {
    let met = |reached: Duration, goal: &Duration| {
        if reached <= *goal { "met".to_owned() } else { format!("missed by {}", millis(reached - *goal)) }
    };
    let (goal, verdict) = match goal {
        Goal::Wall(goal) => (format!("wall ≤ {}", millis(*goal)), met(cost.wall, goal)),
        Goal::Cpu(goal) => (format!("CPU ≤ {}", millis(*goal)), met(cost.cpu, goal)),
        Goal::None => (String::new(), String::new()),
    };
    println!("{what:<64} {:>12} {:>12}   {goal:<18} {verdict:<22} load {}", millis(cost.wall), millis(cost.cpu), load_average());
}

/// Prints a line about a size, in bytes.
pub fn show_bytes(what: &str, bytes: u64, goal: u64) {
    let verdict = if bytes <= goal { "met" } else { "missed" };
    println!("{what:<64} {:>9.1} kB {:>12}   ≤ {:<16} {verdict}", bytes as f64 / 1000.0, "", format!("{} kB", goal / 1000));
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let size = if quick {
        Size { large: 500, simulated: 20, runs: 2, periods: 1 }
    } else {
        Size { large: 10_000, simulated: 1_000, runs: 15, periods: 4 }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{cores} cores, load {}, median of {} runs{}",
        load_average(),
        size.runs,
        if quick { ", quick: sizes and goals don't match" } else { "" }
    );
    println!("{:<64} {:>12} {:>12}   {:<18}", "case", "wall", "CPU", "goal");
    // The controller first, while nothing else has grown this process's memory.
    let cases: [(&str, Case); 4] = [("controller", controller::run), ("load", load::run), ("push", git::push), ("notes", git::notes)];
    for (name, case) in cases {
        if named.is_empty() || named.iter().any(|named| *named == name) {
            case(&size);
        }
    }
}
