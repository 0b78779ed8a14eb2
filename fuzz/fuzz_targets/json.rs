//! Bodies of the agent's requests, and lines of a journal: nothing that can be read makes the fold or the planner panic.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use rackwright::{
    model::{AgentHello, AgentReport, CallHome, Commit, CommitId, Fleet, History, Record, Timestamp},
    plan::{Deadlines, Input, check, plan, render_text},
};

fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<AgentHello>(bytes);
    let _ = serde_json::from_slice::<AgentReport>(bytes);
    let _ = serde_json::from_slice::<CallHome>(bytes);
    let records: Vec<Record> = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    if records.is_empty() {
        return;
    }
    let history = History::of(&records);
    let (fleet, none, alive) = (Fleet::default(), BTreeMap::new(), BTreeMap::new());
    let now = Timestamp::UNIX_EPOCH;
    let commit = Commit { id: CommitId([0; 20]), subject: String::new(), author: String::new(), time: now, approvals: Vec::new() };
    let input = Input {
        commit: &commit,
        fleet: &fleet,
        problems: &[],
        seen: &none,
        history: &history,
        former: None,
        alive: &alive,
        brake: &Default::default(),
        deadlines: Deadlines::default(),
        now,
    };
    let made = plan(&input);
    assert_eq!(check(&made, &input), []);
    let _ = render_text(&made);
});
