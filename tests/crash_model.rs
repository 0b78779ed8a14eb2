//! Crash recovery, exhaustively: every order in which a controller, a BMC, a firmware, an agent and so many faults can act, in a small world.
//! docs/crash-model.md says what is real in it, what it proves, and what it leaves out.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use plan_world::*;
use rackwright::{
    model::*,
    plan::{Deadlines, Input, check, hardware, plan},
};

/// Longest that an order may take. Within it an order whose answer was lost may still come into effect; no deadline passes meanwhile.
/// Longer than all that is written down between an order and a leave, of which each takes a second.
const ORDER_LIMIT: i64 = 120;
/// Rounds of calm after which a state that did not come to rest never will.
const PATIENCE: usize = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Disk {
    Old,
    /// Begun under the attempt of this number, and not finished.
    Partial(u32),
    Whole(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Hello,
    Ask,
    Write,
    Told,
    Halted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Runs {
    Nothing,
    Firmware,
    /// The agent of an attempt, in the so-manieth start of the machine.
    Agent(u32, u8, Stage),
    /// The system on its disk, and whether it was heard.
    System(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Effect {
    On,
    Off,
    ShutDown,
    Network,
}

/// What is said, and by which start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word(u32, u8, Said);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Said {
    Hello,
    Writing,
    Written,
    /// The system says under which attempt it was written.
    Home,
}

/// A machine as it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Body {
    on: bool,
    runs: Runs,
    disk: Disk,
    network_once: bool,
    starts: u8,
    /// An order that comes into effect later.
    late: Option<Effect>,
    /// A word that arrives later.
    word: Option<Word>,
    /// Attempts under which a first byte was written, as bits: the ghost that the property is about.
    wrote: u8,
}

/// An order that a controller has in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hand {
    intention: usize,
    /// Whether the BMC has spoken: it did it, or nobody knows.
    answer: Option<bool>,
}

/// What a controller remembers that is not in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Memory {
    /// The attempt whose ticket is served, per machine.
    served: Vec<Option<u32>>,
    /// Whether its last plan lets that go on.
    wanted: Vec<bool>,
    hands: Vec<Option<Hand>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// Numbers of facts, each with the second in which it was written.
    journal: Vec<(u16, u32)>,
    controller: Option<Memory>,
    bodies: Vec<Body>,
    /// The second that it is.
    now: u32,
    /// The commit in force: 0 or 1.
    commit: u8,
    faults: u8,
}

struct Model {
    fleets: [Fleet; 2],
    commits: [Commit; 2],
    machines: Vec<MachineName>,
    deadlines: Deadlines,
    /// Every fact that was ever written, by number.
    facts: Vec<(Fact, u8)>,
    numbers: HashMap<String, u16>,
    /// Whether a second commit comes.
    second: bool,
}

fn at(second: u32) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    start.checked_add(SignedDuration::from_secs(second.into())).unwrap()
}

fn digest(generation: Generation) -> Digest {
    Digest::of(generation.to_string().as_bytes())
}

impl Model {
    fn new(machines: usize, second: bool) -> Self {
        let fleet = |image: &str| {
            let mut fleet = Fleet::default();
            fleet.settings.budgets = Budgets { max_destructive: Destructive { count: 9, share: 100 }, ..Budgets::default() };
            for number in 0..machines {
                let own = Machine { install: Some(install(image, None, 0)), ..machine(&format!("m-{number}"), number as u8) };
                fleet.machines.insert(own.name.clone(), own.into());
            }
            fleet
        };
        let commit =
            |id: u8| Commit { id: CommitId([id; 20]), subject: String::new(), author: String::new(), time: at(0), approvals: Vec::new() };
        let machines = fleet("v2").machines.keys().cloned().collect();
        // Fewer tries make fewer states, and no others.
        let deadlines = Deadlines { max_tries: 2, fresh: Duration::from_secs(u64::from(u32::MAX)), ..Deadlines::default() };
        Self {
            fleets: [fleet("v2"), fleet("v3")],
            commits: [commit(1), commit(2)],
            machines,
            deadlines,
            facts: Vec::new(),
            numbers: HashMap::new(),
            second,
        }
    }

    /// All adopted with v1; the commit that asks for v2 is in force.
    fn start(&mut self, faults: u8) -> State {
        let body =
            Body { on: true, runs: Runs::System(true), disk: Disk::Old, network_once: false, starts: 0, late: None, word: None, wrote: 0 };
        let bodies = vec![body; self.machines.len()];
        let mut state = State { journal: Vec::new(), controller: None, bodies, now: 0, commit: 0, faults };
        let installed = Some(install("v1", None, 0).generation);
        for machine in self.machines.clone() {
            let hardware = hardware(&self.fleets[0].machines[&machine]);
            self.append(&mut state, vec![Fact::Claimed { machine, installed, hardware, basis: None }]);
        }
        state
    }

    /// One transaction; each takes a second.
    fn append(&mut self, state: &mut State, facts: Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        state.now += 1;
        for fact in facts {
            let commit = match &fact {
                // What is told of an attempt is under its own commit, as `engine::live` writes it.
                Fact::Saw { attempt, .. } | Fact::Reported { attempt, .. } => self.began_under(state, attempt).unwrap_or(state.commit),
                _ => state.commit,
            };
            let key = format!("{commit} {}", serde_json::to_string(&fact).unwrap());
            let number = *self.numbers.entry(key).or_insert_with(|| {
                self.facts.push((fact, commit));
                u16::try_from(self.facts.len() - 1).unwrap()
            });
            state.journal.push((number, state.now));
        }
    }

    fn began_under(&self, state: &State, attempt: &AttemptId) -> Option<u8> {
        let began = |(number, _): &(u16, u32)| match &self.facts[usize::from(*number)] {
            (Fact::Began { attempt: began, .. }, commit) if began == attempt => Some(*commit),
            _ => None,
        };
        state.journal.iter().find_map(began)
    }

    /// The real fold over what is durable.
    fn history(&self, state: &State) -> History {
        let record = |(seq, (number, second)): (usize, &(u16, u32))| {
            let (fact, commit) = &self.facts[usize::from(*number)];
            Record { seq: seq as u64 + 1, at: at(*second), commit: self.commits[usize::from(*commit)].id, fact: fact.clone() }
        };
        History::of(&state.journal.iter().enumerate().map(record).collect::<Vec<_>>())
    }

    fn input<T>(&self, state: &State, history: &History, f: impl FnOnce(&Input<'_>) -> T) -> T {
        // Machines are looked at after whatever was done last.
        let now = at(state.now + 1);
        let fleet = &self.fleets[usize::from(state.commit)];
        let look = |(name, body): (&MachineName, &Body)| {
            let machine = &fleet.machines[name];
            let mut seen = Observation::blank(now, "bmc", &Unknown::NotReported);
            seen.power = Seen::Known(if body.on { PowerState::On } else { PowerState::Off });
            seen.identity = Seen::Known(ObservedIdentity { serial: machine.identity.serial.clone(), ..ObservedIdentity::default() });
            (name.clone(), seen)
        };
        let seen = self.machines.iter().zip(&state.bodies).map(look).collect();
        let former = (state.commit > 0).then(|| &self.fleets[0]);
        f(&Input {
            commit: &self.commits[usize::from(state.commit)],
            fleet,
            problems: &[],
            seen: &seen,
            history,
            former,
            alive: &BTreeMap::new(),
            probes: &Default::default(),
            brake: &Brake::default(),
            deadlines: self.deadlines,
            now,
        })
    }

    /// The real planner, and the real second reader.
    fn plan(&self, state: &State, history: &History) -> Plan {
        self.input(state, history, |input| {
            let made = plan(input);
            assert_eq!(check(&made, input), [], "{state:?}");
            made
        })
    }

    /// One turn: notes what only changes what is known, or takes one order for each machine in hand once its intention is durable.
    fn turn(&mut self, state: &State) -> Option<State> {
        let mut next = state.clone();
        let history = self.history(state);
        let made = self.plan(state, &history);
        let memory = next.controller.as_mut()?;
        let (mut facts, mut orders) = (Vec::new(), Vec::new());
        for (n, name) in self.machines.iter().enumerate() {
            let part = &made.machines[name];
            memory.served[n] = part.ticket.as_ref().map(|ticket| ticket.attempt.number);
            memory.wanted[n] = part.ticket.is_some() && !part.steps.iter().any(|step| matches!(step.action, Action::EndAttempt { .. }));
            if memory.hands[n].is_some() {
                continue;
            }
            match part.steps.first() {
                Some(step) if effect(&step.action).is_some() => orders.push((n, step.clone())),
                Some(step) => facts.push(fact_of(step)),
                None => {}
            }
        }
        self.append(&mut next, facts);
        for (n, step) in orders {
            self.append(&mut next, vec![Fact::Intended { step }]);
            let hand = Hand { intention: next.journal.len(), answer: None };
            next.controller.as_mut()?.hands[n] = Some(hand);
        }
        (next != *state).then_some(next)
    }

    /// The order in hand reaches its BMC, which does it at once or later, and whose answer arrives or not.
    fn give(&self, state: &State, n: usize, now: bool, later: bool, answered: bool) -> Option<State> {
        let hand = state.controller.as_ref()?.hands[n].filter(|hand| hand.answer.is_none())?;
        let mut next = state.clone();
        let (Fact::Intended { step }, _) = &self.facts[usize::from(state.journal[hand.intention - 1].0)] else {
            panic!("not an intention")
        };
        let effect = effect(&step.action)?;
        // A BMC that does later what it said it had done is not known; a second time what is done already does no harm but for these.
        if now && later && matches!(effect, Effect::Off | Effect::ShutDown) {
            return None;
        }
        let body = &mut next.bodies[n];
        // A BMC takes one order after another.
        if let Some(before) = body.late.take() {
            take(body, before);
        }
        if now {
            take(body, effect);
        }
        body.late = later.then_some(effect);
        next.controller.as_mut()?.hands[n] = Some(Hand { answer: Some(answered), ..hand });
        Some(next)
    }

    /// What became of the order is written down.
    fn outcome(&mut self, state: &State, n: usize) -> Option<State> {
        let hand = state.controller.as_ref()?.hands[n]?;
        let answered = hand.answer?;
        let mut next = state.clone();
        next.controller.as_mut()?.hands[n] = None;
        let machine = self.machines[n].clone();
        let (Fact::Intended { step }, _) = &self.facts[usize::from(state.journal[hand.intention - 1].0)] else {
            panic!("not an intention")
        };
        let network = matches!(step.action, Action::BootFromNetwork { .. });
        let outcome = if answered { Outcome::Done } else { Outcome::Failed { why: "no answer".to_owned(), class: RetryClass::Wait } };
        let mut facts = vec![Fact::Ended { machine: machine.clone(), intention: hand.intention as u64, outcome }];
        let history = self.history(state);
        let open = history.machines[&machine].open_attempt().filter(|open| open.reached(Rung::BootSet).is_none());
        if let (true, true, Some(open)) = (answered, network, open) {
            facts.push(Fact::Saw { attempt: open.id.clone(), evidence: Evidence::BootSet });
        }
        self.append(&mut next, facts);
        Some(next)
    }

    /// Journals evidence for an open attempt, by the rules of `engine::live`. The error: it must not go on (`true`), or may ask again.
    fn saw(&mut self, state: &mut State, n: usize, attempt: &AttemptId, evidence: Evidence) -> Result<(), bool> {
        let history = self.history(state);
        let machine = &history.machines[&self.machines[n]];
        let open = machine.open_attempt().filter(|open| open.id == *attempt).ok_or(true)?;
        for (_, known) in open.evidence.iter().filter(|(_, known)| known.rung() == evidence.rung()) {
            match (known, &evidence) {
                (Evidence::AgentUp { boot_id: known, .. }, Evidence::AgentUp { boot_id, .. }) if known != boot_id => {}
                (Evidence::Writing { .. }, Evidence::Writing { .. }) if *known != evidence || open.reported.is_some() => return Err(true),
                _ => return Ok(()),
            }
        }
        if open.reported.is_some() {
            return Err(true);
        }
        if matches!(evidence, Evidence::Writing { .. }) {
            let answered = machine.last.as_ref().filter(|(_, _, outcome)| *outcome == Outcome::Done).map(|(at, _, _)| *at);
            let now = at(state.now);
            let is_open = |at: Timestamp| now.duration_since(at).as_secs() < ORDER_LIMIT && answered.is_none_or(|answered| answered <= at);
            let switches_off = machine.unsure_power().any(|(at, step)| matches!(step.action, Action::PowerOff { .. }) && is_open(at));
            if switches_off || !state.controller.as_ref().is_some_and(|memory| memory.wanted[n]) {
                return Err(false);
            }
        }
        self.append(state, vec![Fact::Saw { attempt: attempt.clone(), evidence }]);
        Ok(())
    }

    /// The real ticket of what is served, with the evidence of now.
    fn ticket(&self, state: &State, n: usize) -> Option<Ticket> {
        let number = state.controller.as_ref()?.served[n]?;
        let history = self.history(state);
        let open = history.machines[&self.machines[n]].attempts.iter().find(|attempt| attempt.id.number == number)?;
        let fleet = self.fleets.iter().find(|fleet| fleet.machines[&self.machines[n]].generation() == Some(open.generation))?;
        let machine = &fleet.machines[&self.machines[n]];
        Some(Ticket {
            attempt: open.id.clone(),
            commit: open.commit,
            expires: open.began.checked_add(SignedDuration::try_from(self.deadlines.ticket).unwrap()).unwrap(),
            mac: machine.nics[0].mac,
            serial: machine.identity.serial.clone(),
            uuid: None,
            keep: Vec::new(),
            work: machine.work()?,
            evidence: open.evidence.iter().map(|(_, evidence)| evidence.clone()).collect(),
        })
    }

    /// The boot server hears a word. What is answered is durable before. `None`: nobody is there.
    #[allow(clippy::too_many_lines)] // One arm for each word, as the boot server has it.
    fn hear(&mut self, state: &mut State, n: usize, word: Word) -> Option<Answer> {
        state.controller.as_ref()?;
        let Word(number, start, said) = word;
        let name = self.machines[n].clone();
        let attempt = AttemptId { machine: name.clone(), number };
        let Some(ticket) = self.ticket(state, n).filter(|ticket| ticket.attempt == attempt) else {
            let history = self.history(state);
            let last = history.machines[&name].attempts.last().filter(|last| last.id == attempt);
            let done = last.is_some_and(|last| matches!(last.end, Some((_, AttemptEnd::Done))));
            return Some(if said == Said::Home && done { Answer::Taken } else { Answer::No });
        };
        let boot_id = start.to_string();
        let serial = self.fleets[0].machines[&name].identity.serial.clone();
        let disk = ObservedDisk { serial: Some(format!("DISK-{name}")), ..ObservedDisk::default() };
        let refusal = ticket.refusal(&boot_id, serial.as_deref(), None, at(state.now));
        let of = |taken: Result<(), bool>, answer: Answer| match taken {
            Ok(()) => answer,
            Err(true) => Answer::No,
            Err(false) => Answer::Later,
        };
        Some(match said {
            Said::Hello => {
                let disks = vec![disk];
                let up = Evidence::AgentUp { boot_id: boot_id.clone(), serial: serial.clone(), uuid: None, disks: disks.clone() };
                let hello = AgentHello { boot_id, version: String::new(), serial, uuid: None, disks, nics: Vec::new(), uefi: true };
                let answer = match ticket.answer(&hello, at(state.now), "") {
                    AgentCommand::Install { .. } => Answer::Install,
                    AgentCommand::BootFromDisk => Answer::Disk,
                    _ => Answer::No,
                };
                let taken = self.saw(state, n, &attempt, up);
                if let (Ok(()), Some(code)) = (taken, refusal.as_ref().and_then(Refusal::code)) {
                    let history = self.history(state);
                    if history.machines[&name].open_attempt().is_some_and(|open| open.reported.is_none()) {
                        let wrote = ticket.reached(Rung::Writing);
                        self.append(state, vec![Fact::Reported { attempt, wrote, code: code.to_owned(), why: String::new() }]);
                    }
                }
                of(taken, answer)
            }
            Said::Writing => {
                let known = ticket.evidence.iter().any(|one| matches!(one, Evidence::AgentUp { boot_id: known, .. } if *known == boot_id));
                if !known || refusal.is_some() || ticket.reached(Rung::Written) {
                    return Some(Answer::No);
                }
                let Work::Install { system, .. } = &ticket.work else { unreachable!("these machines are only installed") };
                let chosen = choose(std::slice::from_ref(&disk), system, &ticket.keep).unwrap().clone();
                of(self.saw(state, n, &attempt, Evidence::Writing { boot_id, disk: chosen }), Answer::Taken)
            }
            Said::Written => {
                if ticket.writing().is_none_or(|(writer, _)| writer != boot_id) {
                    return Some(Answer::No);
                }
                let evidence = Evidence::Written { digest: digest(ticket.work.generation()), bytes: 1 };
                of(self.saw(state, n, &attempt, evidence), Answer::Taken)
            }
            Said::Home => {
                if !ticket.reached(Rung::Written) {
                    return Some(Answer::No);
                }
                let generation = ticket.work.generation();
                let booted = self.saw(state, n, &attempt, Evidence::BootedFromDisk);
                let home = booted.and_then(|()| self.saw(state, n, &attempt, Evidence::CalledHome { generation, digest: None }));
                of(home, Answer::Taken)
            }
        })
    }

    /// What a machine does next by itself. `answered`: whether it hears what it is answered.
    fn moves(&mut self, state: &State, n: usize, answered: bool) -> Option<State> {
        let mut next = state.clone();
        let body = next.bodies[n];
        if !body.on {
            return None;
        }
        match body.runs {
            Runs::Nothing | Runs::System(true) | Runs::Agent(_, _, Stage::Halted) => return None,
            Runs::Firmware if !body.network_once => start_disk(&mut next.bodies[n]),
            Runs::Firmware => {
                next.controller.as_ref()?;
                match self.ticket(state, n).filter(|ticket| at(state.now) < ticket.expires || ticket.reached(Rung::Written)) {
                    None => start_disk(&mut next.bodies[n]),
                    Some(ticket) if ticket.reached(Rung::Written) => {
                        let _ = self.saw(&mut next, n, &ticket.attempt, Evidence::BootedFromDisk);
                        start_disk(&mut next.bodies[n]);
                    }
                    Some(ticket) => {
                        for evidence in [Evidence::DhcpSeen, Evidence::LoaderFetched] {
                            let _ = self.saw(&mut next, n, &ticket.attempt, evidence);
                        }
                        let body = &mut next.bodies[n];
                        body.starts += 1;
                        (body.runs, body.network_once) = (Runs::Agent(ticket.attempt.number, body.starts, Stage::Hello), false);
                    }
                }
            }
            Runs::Agent(number, start, Stage::Write) => {
                let body = &mut next.bodies[n];
                (body.disk, body.runs) = (Disk::Whole(number), Runs::Agent(number, start, Stage::Told));
            }
            Runs::Agent(number, start, stage) => {
                let said = match stage {
                    Stage::Hello => Said::Hello,
                    Stage::Ask => Said::Writing,
                    _ => Said::Written,
                };
                let answer = self.hear(&mut next, n, Word(number, start, said))?;
                if answered {
                    self.answer(&mut next, n, number, start, stage, answer);
                }
            }
            Runs::System(false) => {
                let Disk::Whole(number) = body.disk else { return None };
                let answer = self.hear(&mut next, n, Word(number, 0, Said::Home))?;
                next.bodies[n].runs = Runs::System(answered && answer == Answer::Taken);
            }
        }
        (next != *state).then_some(next)
    }

    /// An agent does what it is answered. Here is where disks are written, and where the first property is looked at.
    fn answer(&self, state: &mut State, n: usize, number: u32, start: u8, stage: Stage, answer: Answer) {
        let history = self.history(state);
        let body = &mut state.bodies[n];
        let to = |stage| Runs::Agent(number, start, stage);
        body.runs = match (stage, answer) {
            (_, Answer::Later) => return,
            (Stage::Hello, Answer::Install) => to(Stage::Ask),
            (Stage::Hello, Answer::Disk) | (Stage::Told, Answer::Taken) => Runs::Firmware,
            (Stage::Ask, Answer::Taken) => {
                let machine = &history.machines[&self.machines[n]];
                let attempt = machine.attempts.iter().find(|attempt| attempt.id.number == number).expect("no intention is durable");
                let leave = attempt
                    .evidence
                    .iter()
                    .any(|(_, evidence)| matches!(evidence, Evidence::Writing { boot_id, .. } if *boot_id == start.to_string()));
                assert!(leave, "a disk is written without leave that is durable");
                assert_eq!(body.wrote & (1 << number), 0, "a disk is written twice under one attempt");
                let again = machine.attempts.iter().any(|other| {
                    other.id.number < number && other.generation == attempt.generation && other.reached(Rung::Written).is_some()
                });
                assert!(!again, "a generation that was written and verified is written again");
                body.wrote |= 1 << number;
                body.disk = Disk::Partial(number);
                to(Stage::Write)
            }
            _ => to(Stage::Halted),
        };
    }

    /// What happens without any fault, first things first; the first of them is what a calm world does next.
    fn calm(&mut self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        if state.controller.is_none() {
            let machines = self.machines.len();
            let memory = Memory { served: vec![None; machines], wanted: vec![false; machines], hands: vec![None; machines] };
            next.push(State { controller: Some(memory), ..state.clone() });
        }
        for n in 0..self.machines.len() {
            if let Some(effect) = state.bodies[n].late {
                let mut done = state.clone();
                done.bodies[n].late = None;
                take(&mut done.bodies[n], effect);
                next.push(done);
            }
            if let (Some(word), Some(_)) = (state.bodies[n].word, &state.controller) {
                let mut heard = state.clone();
                heard.bodies[n].word = None;
                let _ = self.hear(&mut heard, n, word);
                next.push(heard);
            }
            next.extend(self.give(state, n, true, false, true));
            next.extend(self.outcome(state, n));
            next.extend(self.moves(state, n, true));
        }
        next.extend(self.turn(state));
        if self.second && state.commit == 0 && state.controller.is_some() {
            next.push(self.newer(state));
        }
        if next.is_empty() {
            next.extend(self.wait(state));
        }
        next
    }

    /// Another commit comes into force: what was decided is not wanted any more until there is a plan of it.
    fn newer(&self, state: &State) -> State {
        let mut next = State { commit: 1, now: state.now + 1, ..state.clone() };
        next.controller.as_mut().unwrap().wanted.iter_mut().for_each(|wanted| *wanted = false);
        next
    }

    /// Time passes until the first wait is over. Not while an order may still come into effect.
    fn wait(&self, state: &State) -> Option<State> {
        let history = self.history(state);
        let made = self.plan(state, &history);
        let untils = made.machines.values().filter_map(|part| part.waiting.as_ref()?.until);
        let untils = untils.map(|until| until.duration_since(at(0)).as_secs());
        // An agent asks for leave again and again, and gets it once no order can be on its way any more.
        let orders = history.machines.values().flat_map(MachineHistory::unsure_power);
        let orders = orders.map(|(given, _)| given.duration_since(at(0)).as_secs() + ORDER_LIMIT);
        let second = u32::try_from(untils.chain(orders).filter(|second| *second > i64::from(state.now)).min()?).ok()?;
        (second > state.now && state.bodies.iter().all(|body| body.late.is_none())).then(|| State { now: second, ..state.clone() })
    }

    /// What one fault can do.
    fn faults(&mut self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        // The controller is killed; what it has in its hands never reached the BMC, or (below) reaches it later.
        next.extend(state.controller.is_some().then(|| State { controller: None, ..state.clone() }));
        next.extend(self.wait(state));
        for n in 0..self.machines.len() {
            for (now, later, answered) in [(true, false, false), (false, false, false), (false, true, false), (true, true, true)] {
                next.extend(self.give(state, n, now, later, answered));
            }
            // Another controller has begun; the order of the one before is still on the wire.
            if let Some(mut sent) = self.give(state, n, false, true, false) {
                sent.controller = None;
                next.push(sent);
            }
            next.extend(self.moves(state, n, false));
            let body = state.bodies[n];
            let word = match body.runs {
                Runs::Agent(number, start, Stage::Hello) => Some(Word(number, start, Said::Hello)),
                Runs::Agent(number, start, Stage::Ask) => Some(Word(number, start, Said::Writing)),
                Runs::Agent(number, start, Stage::Told) => Some(Word(number, start, Said::Written)),
                _ => None,
            };
            let mut with = |change: &dyn Fn(&mut Body)| {
                let mut other = state.clone();
                change(&mut other.bodies[n]);
                next.push(other);
            };
            if word.is_some() && body.word.is_none() {
                // It arrives late and, since the agent asks again, twice.
                with(&|body| body.word = word);
            }
            if body.on {
                with(&|body| (body.on, body.runs) = (false, Runs::Nothing));
                with(&|body| body.runs = Runs::Firmware);
            }
            if let Runs::Agent(number, start, stage) = body.runs
                && stage != Stage::Halted
            {
                with(&|body| body.runs = Runs::Agent(number, start, Stage::Halted));
            }
        }
        next.iter_mut().for_each(|next| next.faults = state.faults - 1);
        next
    }

    /// Whether every machine that is at rest is as declared, or something holds it that is said.
    fn at_rest(&self, state: &State) {
        let history = self.history(state);
        let made = self.plan(state, &history);
        for (n, name) in self.machines.iter().enumerate() {
            let (body, part) = (&state.bodies[n], &made.machines[name]);
            let wanted = self.fleets[usize::from(state.commit)].machines[name].generation();
            let generation =
                |number: u32| history.machines[name].attempts.iter().find(|own| own.id.number == number).map(|own| own.generation);
            let holds = matches!(body.disk, Disk::Whole(number) if generation(number) == wanted);
            let arrived = holds && body.on && body.runs == Runs::System(true) && history.machines[name].open_attempt().is_none();
            assert!(arrived || !part.held.is_empty(), "{name} neither arrives nor is held: {state:?}\n{part:?}");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Install,
    Disk,
    Taken,
    No,
    Later,
}

fn effect(action: &Action) -> Option<Effect> {
    match action {
        Action::PowerOn => Some(Effect::On),
        Action::PowerOff { force: true } => Some(Effect::Off),
        Action::PowerOff { force: false } => Some(Effect::ShutDown),
        Action::BootFromNetwork { .. } => Some(Effect::Network),
        _ => None,
    }
}

fn fact_of(step: &Step) -> Fact {
    match &step.action {
        Action::BeginAttempt { attempt, generation } => Fact::Began { attempt: attempt.clone(), generation: *generation, basis: None },
        Action::Witness { attempt, rung } => Fact::Saw { attempt: attempt.clone(), evidence: plain_evidence(*rung) },
        Action::EndAttempt { attempt, end } => Fact::Concluded { attempt: attempt.clone(), end: end.clone() },
        action => panic!("{action} is not in this model"),
    }
}

fn take(body: &mut Body, effect: Effect) {
    let writes = body.on && matches!(body.runs, Runs::Agent(_, _, Stage::Write));
    assert!(!(writes && effect == Effect::Off), "an order of ours switches a machine off in the middle of its write: {body:?}");
    match effect {
        Effect::On if !body.on => (body.on, body.runs) = (true, Runs::Firmware),
        Effect::Off => (body.on, body.runs) = (false, Runs::Nothing),
        // Our agent has no ear for the button.
        Effect::ShutDown if body.on && !matches!(body.runs, Runs::Agent(..)) => (body.on, body.runs) = (false, Runs::Nothing),
        Effect::Network => body.network_once = true,
        Effect::On | Effect::ShutDown => {}
    }
}

fn start_disk(body: &mut Body) {
    body.network_once = false;
    body.runs = match body.disk {
        Disk::Old => Runs::System(true),
        Disk::Partial(_) => Runs::Nothing,
        Disk::Whole(_) => Runs::System(false),
    };
}

/// Breadth first over all that can happen; then, from each state, what a calm world makes of it.
fn explore(machines: usize, second: bool, faults: u8) -> (usize, usize) {
    let mut model = Model::new(machines, second);
    let start = model.start(faults);
    let mut known: HashMap<State, usize> = HashMap::from([(start.clone(), 0)]);
    let mut calm: Vec<Option<usize>> = Vec::new();
    let mut queue = VecDeque::from([(start, 0)]);
    let mut depth = 0;
    let mut ends = BTreeSet::new();
    while let Some((state, level)) = queue.pop_front() {
        depth = level;
        let own = model.calm(&state);
        if own.is_empty() {
            model.at_rest(&state);
            ends.insert(known[&state]);
        }
        let first = own.first().cloned();
        let faulty = if state.faults > 0 { model.faults(&state) } else { Vec::new() };
        for next in own.into_iter().chain(faulty) {
            let number = known.len();
            known.entry(next).or_insert_with_key(|next| {
                queue.push_back((next.clone(), level + 1));
                number
            });
        }
        calm.push(first.map(|first| known[&first]));
    }
    // Every state leads to rest.
    let mut rests = vec![false; calm.len()];
    for from in 0..calm.len() {
        let (mut path, mut at) = (Vec::new(), from);
        while !rests[at] && !ends.contains(&at) {
            path.push(at);
            assert!(
                path.len() < PATIENCE,
                "without further faults this never comes to rest: {:?}",
                known.iter().find(|(_, n)| **n == from)
            );
            at = calm[at].expect("a state that is not at rest goes on");
        }
        path.into_iter().chain([at]).for_each(|passed| rests[passed] = true);
    }
    println!(
        "{machines} machines, {} commits, {faults} faults: {} states, {depth} deep, {} at rest",
        1 + u8::from(second),
        known.len(),
        ends.len()
    );
    (known.len(), ends.len())
}

#[test]
fn no_crash_writes_twice_and_everybody_arrives_or_is_held() {
    // (machines, second commit, faults) and the least number of states: a model that explores little proves little.
    let small = [((1, false, 2), 80_000), ((1, true, 0), 1000), ((2, false, 0), 500)];
    let whole = [((1, false, 2), 80_000), ((1, true, 1), 300_000), ((2, false, 1), 120_000)];
    let all = if std::env::var_os("RACKWRIGHT_MODEL").is_some_and(|which| which == "whole") { whole } else { small };
    for ((machines, second, faults), least) in all {
        let (states, ends) = explore(machines, second, faults);
        assert!(states >= least && ends > 0, "only {states} states, {ends} at rest");
    }
}
