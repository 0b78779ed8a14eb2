//! The reimage state machine, walked through as a whole: its guarantees, and the diagram in docs/reimage.md.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    time::Duration,
};

use plan_world::*;
use rackwright::{
    model::*,
    plan::{
        Deadlines, GateState,
        reimage::{Facts, Next, Reimage, next},
    },
};

const BEGIN_MARK: &str = "<!-- drawn from the code: UPDATE=1 cargo test --test plan_reimage -->\n";
const END_MARK: &str = "<!-- end -->\n";

fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    start.checked_add(SignedDuration::try_from(Duration::from_secs(seconds)).unwrap()).unwrap()
}

fn generation(image: &str) -> Generation {
    install(image, None, 0).generation
}

/// When each state of these walks was reached.
const SINCE: u64 = 1000;

fn states() -> Vec<Reimage> {
    let since = at(SINCE);
    vec![
        Reimage::Begun { since },
        Reimage::TicketArmed { since },
        Reimage::BootSet { since },
        Reimage::PowerSeen { since },
        Reimage::DhcpSeen { since },
        Reimage::LoaderFetched { since },
        Reimage::AgentUp { since },
        Reimage::Writing { since },
        Reimage::Written { since },
        Reimage::BootedFromDisk { since },
        Reimage::CalledHome { since, generation: generation("v1") },
        Reimage::CalledHome { since, generation: generation("v2") },
        Reimage::Healthy,
        Reimage::Ended { end: AttemptEnd::Done },
    ]
}

fn evidence() -> Vec<Evidence> {
    let disk = ObservedDisk::default();
    let boot_id = "b".to_owned();
    vec![
        Evidence::TicketArmed,
        Evidence::BootSet,
        Evidence::PowerSeen,
        Evidence::DhcpSeen,
        Evidence::LoaderFetched,
        Evidence::AgentUp { boot_id: boot_id.clone(), serial: None, uuid: None, disks: vec![] },
        Evidence::Writing { boot_id, disk },
        Evidence::Written { digest: Digest::of(b""), bytes: 0 },
        Evidence::BootedFromDisk,
        Evidence::CalledHome { generation: generation("v1"), digest: None },
        Evidence::Healthy,
    ]
}

fn powers() -> Vec<Seen<PowerState>> {
    use PowerState::{Off, On, Paused, PoweringOff, PoweringOn};
    let gap = Seen::Unknown(Unknown::NotAsked);
    [On, Off, PoweringOn, PoweringOff, Paused].into_iter().map(Seen::Known).chain([gap]).collect()
}

/// Each thing that can have been done last, and how it can have ended.
fn lasts() -> Vec<Option<(Timestamp, Step, Outcome)>> {
    let actions = [
        Action::PowerOff { force: false },
        Action::PowerOff { force: true },
        Action::BootFromNetwork { mode: BootMode::UEFI },
        Action::PowerOn,
    ];
    let failed = Outcome::Failed { why: "409".to_owned(), class: RetryClass::Wait };
    let mut lasts = vec![None];
    for action in actions {
        for outcome in [Outcome::Done, failed.clone()] {
            let step = Step { machine: name("web-1"), action: action.clone(), reason: Reason::NewMachine };
            lasts.push(Some((at(SINCE), step, outcome)));
        }
    }
    lasts
}

/// Gates as they can stand: none, all of them passing, or one of each kind failing, which has passed before or has not.
fn gate_states() -> Vec<Vec<GateState>> {
    let within = SignedDuration::from_mins(10);
    let gates = [
        Gate::RedfishHealth { worst: Health::OK, within },
        Gate::Reported { check: "raid".to_owned(), within },
        Gate::Http { url: "http://10.0.0.1/healthz".to_owned(), status: 200, within },
    ];
    let state =
        |gate: &Gate, passes, has_passed| GateState { gate: gate.clone(), passes, has_passed, last: "answers 503, not 200".to_owned() };
    let home =
        GateState { gate: Gate::CalledHome { within: SignedDuration::from_mins(20) }, passes: true, has_passed: true, last: String::new() };
    let all = gates.iter().map(|gate| state(gate, true, true)).chain([home]).collect();
    let failing = gates.iter().flat_map(|gate| [true, false].map(|passed| vec![state(gate, false, passed)]));
    [vec![], all].into_iter().chain(failing).collect()
}

/// Calls `each` with every state, power, last step, wish, report and time that makes a difference.
fn walk(mut each: impl FnMut(&Reimage, &Seen<PowerState>, &Facts<'_>, Timestamp, Next)) {
    let deadlines = Deadlines::default();
    let reported = AttemptEnd::Failed { code: "disk-write".to_owned(), why: String::new(), retry: false };
    let id = AttemptId { machine: name("web-1"), number: 1 };
    let gates = gate_states();
    for state in states() {
        // Before that nobody looks at them.
        let gates = if state.rung() < Some(Rung::Written) { &gates[..1] } else { &gates };
        for power in powers() {
            for last in lasts() {
                for bits in 0..8 {
                    let attempt = Attempt {
                        id: id.clone(),
                        commit: CommitId([1; 20]),
                        generation: generation("v1"),
                        basis: None,
                        began: at(0),
                        seq: 1,
                        evidence: vec![],
                        reported: (bits & 1 != 0).then(|| (at(SINCE), reported.clone())),
                        checks: BTreeMap::new(),
                        end: None,
                    };
                    let hands_off = (bits & 4 != 0).then_some("it is suspended");
                    for later in [1, 61, 121, 100_000] {
                        for gates in gates {
                            let wanted = bits & 2 == 0;
                            let (mode, last, deadlines) = (BootMode::UEFI, last.as_ref(), &deadlines);
                            let facts = Facts { attempt: &attempt, wanted, last, alive: None, hands_off, mode, gates, deadlines };
                            let now = at(SINCE + later);
                            each(&state, &power, &facts, now, next(now, &state, &power, &facts));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn it_keeps_its_guarantees_in_every_state_and_under_every_observation() {
    walk(|state, power, facts, _, turn| {
        let action = turn.action.as_ref();
        let command = action.is_some_and(|action| action.risk() >= Risk::Settings);
        let destroys_nothing_itself = action.is_none_or(|action| action.risk() < Risk::Destructive);
        assert!(destroys_nothing_itself, "an attempt never begins another");
        assert!(!command || power.known().is_some(), "a command without a look: {state:?} {turn:?}");
        assert!(!command || facts.hands_off.is_none(), "a command with hands off: {state:?} {turn:?}");
        if state.rung() >= Some(Rung::Writing) {
            let disturbs = matches!(action, Some(Action::PowerOff { .. } | Action::BootFromNetwork { .. }));
            assert!(!disturbs, "disturbed after the first byte: {state:?} {turn:?}");
        }
        if *state == (Reimage::Writing { since: at(SINCE) }) && facts.attempt.reported.is_none() {
            assert_ne!(turn.state, Reimage::Ended { end: AttemptEnd::Superseded }, "superseded while it writes");
        }
        let over = matches!(state, Reimage::Ended { .. });
        assert!(over || action.is_some() || turn.waiting.is_some(), "neither a step nor a wait: {state:?} {power:?}");
        assert!(!over || action.is_none(), "a step after the end");
        let healthy = matches!(action, Some(Action::Witness { rung: Rung::Healthy, .. }));
        assert!(!healthy || facts.gates.iter().all(|gate| gate.passes), "healthy before its gates: {turn:?}");
        if let Some(Action::EndAttempt { end: AttemptEnd::Failed { code, retry, .. }, .. }) = action {
            assert!(!code.starts_with("gate-") || !retry, "a reinstall does not help against a gate");
        }
    });
}

#[test]
fn every_wait_has_an_end() {
    walk(|state, _, _, now, turn| {
        if let Some(waiting) = &turn.waiting {
            assert!(waiting.until.is_some_and(|until| until > now), "{state:?} waits for ever");
        }
    });
}

#[test]
fn a_rung_is_never_lost_and_nothing_implies_written() {
    for state in states() {
        for evidence in evidence() {
            let after = state.clone().saw(at(SINCE + 1), &evidence);
            assert!(after.rung() >= state.rung(), "{state:?} fell back to {after:?}");
            let written = evidence.rung() == Rung::Written || state.rung() >= Some(Rung::Written);
            assert!(written || after.rung() < Some(Rung::Written), "{evidence:?} made {state:?} written");
        }
    }
}

#[test]
fn evidence_in_any_order_gives_the_highest_rung() {
    let all = evidence();
    let begun = Reimage::Begun { since: at(0) };
    let upwards = all[..8].iter().fold(begun.clone(), |state, evidence| state.saw(at(1), evidence));
    let downwards = all[..8].iter().rev().fold(begun, |state, evidence| state.saw(at(1), evidence));
    assert_eq!(upwards, downwards);
}

#[test]
fn the_diagram_in_the_docs_is_drawn_from_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reimage.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN_MARK).unwrap();
    let (_, tail) = rest.split_once(END_MARK).unwrap();
    let drawn = format!("{head}{BEGIN_MARK}\n{}\n{}\n{END_MARK}{tail}", diagram(), waits());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, drawn).unwrap();
    } else {
        assert_eq!(page, drawn, "docs/reimage.md is stale: UPDATE=1 cargo test --test plan_reimage");
    }
}

fn title(state: &Reimage) -> String {
    let text = format!("{state:?}");
    text.split([' ', '{']).next().unwrap().to_owned()
}

fn order(state: &Reimage) -> usize {
    states().iter().map(title).position(|other| other == title(state)).unwrap()
}

fn label(action: &Action) -> String {
    match action {
        Action::Witness { rung, .. } => format!("note {rung}"),
        Action::EndAttempt { end: AttemptEnd::Failed { code, .. }, .. } if code == "disk-write" => "as reported".to_owned(),
        Action::EndAttempt { end: AttemptEnd::Failed { code, .. }, .. } => code.clone(),
        Action::EndAttempt { end, .. } => end.to_string(),
        action => action.to_string(),
    }
}

fn diagram() -> String {
    let mut edges: BTreeMap<(usize, usize), (String, String, BTreeSet<String>)> = BTreeMap::new();
    let mut edge = |from: &Reimage, to: &Reimage, label: String| {
        let entry = edges.entry((order(from), order(to))).or_insert_with(|| (title(from), title(to), BTreeSet::new()));
        entry.2.insert(label);
    };
    walk(|state, _, _, _, turn| {
        if let Some(action) = &turn.action {
            edge(state, &turn.state, label(action));
        }
    });
    // What the boot server and the system tell: only the next rung is drawn, though rungs may be skipped.
    for state in states() {
        for evidence in evidence().iter().filter(|evidence| evidence.rung() >= Rung::DhcpSeen && evidence.rung() < Rung::Healthy) {
            let after = state.clone().saw(at(SINCE + 1), evidence);
            if order(&after) == order(&state) + 1 {
                edge(&state, &after, format!("evidence {}", evidence.rung()));
            }
        }
    }
    let mut out = "```mermaid\nstateDiagram-v2\n    [*] --> Begun: REIMAGE\n".to_owned();
    for (from, to, labels) in edges.values() {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let _ = writeln!(out, "    {from} --> {to}: {}", labels.join(" / "));
    }
    out + "    Ended --> [*]\n```\n"
}

fn waits() -> String {
    let mut out = "| state | waits for | at most | then |\n|---|---|---|---|\n".to_owned();
    let mut rows: BTreeMap<usize, (String, String, String, String)> = BTreeMap::new();
    let plain = |facts: &Facts<'_>| {
        facts.wanted
            && facts.attempt.reported.is_none()
            && facts.hands_off.is_none()
            && facts.last.is_none()
            && (facts.gates.is_empty() || facts.gates.iter().any(|gate| !gate.passes))
    };
    walk(|state, power, facts, now, turn| {
        let row = rows.entry(order(state)).or_default();
        row.0 = title(state);
        if let (true, Seen::Unknown(_), Some(Waiting { why, until })) = (plain(facts), power, &turn.waiting) {
            row.1 = if title(state) == "CalledHome" { "its health gates".to_owned() } else { why.clone() };
            row.2 = format!("{:#}", until.unwrap().duration_since(at(SINCE)));
        }
        if let (true, true, Some(Action::EndAttempt { end: AttemptEnd::Failed { code, retry, .. }, .. })) = (
            plain(facts),
            now > at(SINCE + 90_000) && !matches!(state, Reimage::CalledHome { generation: g, .. } if *g != generation("v1")),
            &turn.action,
        ) {
            row.3 = format!("`{code}`, {}", if *retry { "tried again" } else { "quarantined" });
        }
    });
    for (state, why, wait, then) in rows.values().filter(|row| !row.1.is_empty()) {
        // At the end of the walk each ticket is out of date as well; the table names the wait's own failure.
        let _ = writeln!(out, "| {state} | {why} | {wait} | {then} |");
    }
    out
}
