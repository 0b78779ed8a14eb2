//! A second reader of the plan. It knows the law and nothing of how the planner works; it shares no code with it on purpose, so
//! that one wrong line can't both make and excuse a wrong step. The engine executes no plan with a violation.

mod after;
mod brake;
mod budgets;
mod drift;
mod gates;
mod handoff;
mod hardware;
mod later;
mod waves;
mod wipe;

use std::{cell::OnceCell, collections::BTreeMap, fmt};

use super::Input;
use crate::model::{
    Action, AttemptEnd, BootMode, Generation, Machine, MachineHistory, MachineName, MachinePlan, Observation, OnClaim, Plan, PowerIntent,
    PowerState, Reason, Risk, Rung, Seen, SignedDuration, Step,
};

/// A step or an omission that the law forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The machine, if it is about one.
    pub machine: Option<MachineName>,
    /// The line of the law (DESIGN.md section 3) that it breaks; 0 for the plan's own form.
    pub law: u8,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.machine {
            Some(machine) => write!(f, "{machine}: law {}: {}", self.law, self.what),
            None => write!(f, "law {}: {}", self.law, self.what),
        }
    }
}

/// Reads a plan against the law. Empty: nothing was found.
pub fn check(plan: &Plan, input: &Input<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for name in input.fleet.machines.keys().chain(input.history.machines.keys()) {
        if !plan.machines.contains_key(name) {
            found.push(Violation { machine: Some(name.clone()), law: 2, what: "it is missing from the plan".to_owned() });
        }
    }
    let mut macs = BTreeMap::new();
    let (known, unsettled) = (OnceCell::new(), OnceCell::new());
    for (name, part) in &plan.machines {
        let mut reader = Reader {
            input,
            name,
            machine: input.fleet.machines.get(name).map(AsRef::as_ref),
            history: input.history.machines.get(name),
            seen: input.seen.get(name),
            known: &known,
            unsettled: &unsettled,
            found: &mut found,
        };
        reader.form(part);
        reader.ticket(part);
        reader.brake(part);
        reader.handoffs(part);
        for step in &part.steps {
            reader.step(step);
        }
        if let Some(ticket) = &part.ticket
            && let Some(other) = macs.insert(ticket.mac, name)
        {
            let what = format!("its ticket is for {}, and so is that of {other}", ticket.mac);
            found.push(Violation { machine: Some(name.clone()), law: 9, what });
        }
    }
    budgets::budgets(plan, input, &mut found);
    after::after(plan, input, &mut found);
    budgets::domains(plan, input, &mut found);
    waves::waves(plan, input, &mut found);
    found
}

struct Reader<'a, 'f> {
    input: &'a Input<'a>,
    name: &'a MachineName,
    machine: Option<&'a Machine>,
    history: Option<&'a MachineHistory>,
    seen: Option<&'a Observation>,
    known: &'a OnceCell<hardware::ByItem<'a>>,
    unsettled: &'a OnceCell<hardware::Unsettled<'a>>,
    found: &'f mut Vec<Violation>,
}

impl Reader<'_, '_> {
    fn require(&mut self, holds: bool, law: u8, what: &str) {
        if !holds {
            self.found.push(Violation { machine: Some(self.name.clone()), law, what: what.to_owned() });
        }
    }

    /// The shape of one machine's part.
    fn form(&mut self, part: &MachinePlan) {
        let count = |least: Risk| part.steps.iter().filter(|step| step.risk() >= least).count();
        self.require(part.name == *self.name, 0, "its entry has another name");
        self.require(part.steps.iter().all(|step| step.machine == *self.name), 0, "a step in its entry is for another machine");
        self.require(count(Risk::Destructive) <= 1, 1, "more than one destructive step");
        self.require(count(Risk::Settings) <= 1, 0, "more than one step that touches the machine in one turn");
        let destroys_and_more = count(Risk::Destructive) == 1 && part.steps.len() > 1;
        self.require(!destroys_and_more, 1, "a destructive step is not alone");
    }

    fn step(&mut self, step: &Step) {
        if step.risk() >= Risk::Settings {
            self.touches(step);
        }
        self.correction(step);
        match &step.action {
            Action::Claim { installed } => self.claim(*installed, &step.reason),
            Action::NoteHardware { hardware } => self.hardware(hardware),
            Action::NoteConfiguration { installed, basis, deferred } => self.configuration(*installed, *basis, *deferred),
            Action::Release => self.release(),
            Action::Rename { from } => self.rename(from),
            Action::PowerOn => self.power_on(),
            Action::PowerOff { .. } => self.power_off(),
            Action::ClearBootOverride => self.clear_boot_override(),
            Action::BootFromNetwork { mode } => self.boot_from_network(*mode),
            Action::BeginAttempt { attempt, generation } => {
                self.require(attempt.machine == *self.name, 9, "the attempt is for another machine");
                let last = self.history.and_then(|history| history.attempts.last()).map_or(0, |last| last.id.number);
                let before = self.input.history.numbers.get(self.name).copied().unwrap_or(0);
                let next = self.history.map_or(0, |history| history.before).max(last).max(before) + 1;
                self.require(attempt.number == next, 10, "the attempt's number is not the next one");
                self.begin(*generation);
            }
            Action::Witness { attempt, .. } | Action::EndAttempt { attempt, .. } => {
                let open = self.history.and_then(MachineHistory::open_attempt).is_some_and(|open| open.id == *attempt);
                self.require(open, 10, "a step speaks of an attempt that is not open");
                match &step.action {
                    Action::Witness { rung: Rung::Healthy, .. } => self.healthy(attempt),
                    Action::EndAttempt { end, .. } => self.ends(attempt, end),
                    _ => {}
                }
            }
        }
    }

    /// What holds for every step that reaches the machine.
    fn touches(&mut self, step: &Step) {
        let Some(machine) = self.machine else {
            return self.require(false, 3, "it left the fleet and is touched");
        };
        self.require(self.history.is_some(), 5, "it is touched before it is claimed");
        if let Some(history) = self.history {
            self.same_machine(machine, history);
        }
        self.require(!machine.suspend, 2, "it is suspended and is touched");
        let fresh = SignedDuration::try_from(self.input.deadlines.fresh).unwrap_or(SignedDuration::MAX);
        let asked = self.seen.filter(|seen| self.input.now.duration_since(seen.at) < fresh);
        let power = asked.and_then(|seen| seen.power.known());
        self.require(power.is_some(), 2, "its power is not known and it is touched");
        let wrote = self.history.and_then(MachineHistory::open_attempt).is_some_and(|open| open.reached(Rung::Writing).is_some());
        if step.risk() >= Risk::Disruptive || !wrote {
            self.identity(machine);
        }
        if wrote && !self.has_proved_its_wipe() {
            self.require(step.action == Action::PowerOn, 10, "it writes its disk and is disturbed");
        }
    }

    fn identity(&mut self, machine: &Machine) {
        let observed = self.seen.and_then(|seen| seen.identity.known());
        let lower = |text: &str| text.trim().to_lowercase();
        if let Some(serial) = &machine.identity.serial {
            let same = observed.and_then(|observed| observed.serial.as_ref()).is_some_and(|seen| lower(seen) == lower(serial));
            self.require(same, 8, "its declared serial number is not confirmed");
        }
        if let Some(uuid) = &machine.identity.uuid {
            let same = observed.and_then(|observed| observed.uuid.as_ref()).is_some_and(|seen| {
                let (one, other) = (lower(uuid).replace('-', ""), lower(seen).replace('-', ""));
                one == other || swapped(&other).is_some_and(|other| one == other)
            });
            self.require(same, 8, "its declared UUID is not confirmed");
        }
        if let Some(Seen::Known(nics)) = self.seen.map(|seen| &seen.nics) {
            let one_of_ours = nics.iter().any(|seen| machine.nics.iter().any(|nic| nic.mac == seen.mac));
            self.require(nics.is_empty() || machine.nics.is_empty() || one_of_ours, 8, "none of its declared MACs was seen");
        }
    }

    fn claim(&mut self, installed: Option<Generation>, reason: &Reason) {
        let Some(machine) = self.machine else {
            return self.require(false, 3, "it is claimed and is not in the fleet");
        };
        let declared = wipe::declared(machine);
        if self.history.is_none() {
            self.new_machine(machine);
        }
        match self.history {
            Some(history) if *reason == Reason::Replaced => self.replaced(machine, history, installed),
            None if machine.on_claim == OnClaim::Install => self.require(installed.is_none(), 5, "it is claimed as installed"),
            None => self.require(installed == declared, 5, "it is not adopted as it is declared"),
            Some(history) => {
                let untouched = history.installed.is_none() && !history.attempts.iter().any(|attempt| attempt.wrote());
                self.require(untouched && installed == declared, 5, "it is claimed a second time");
            }
        }
    }

    fn release(&mut self) {
        self.require(self.machine.is_none(), 3, "it is in the fleet and is released");
        let errors = self.input.problems.iter().any(crate::model::Problem::is_error);
        self.require(!errors, 2, "it is released by a commit that has errors");
        let open = self.history.and_then(MachineHistory::open_attempt).is_some();
        self.require(!open, 10, "it is released while an attempt is open");
    }

    fn power_on(&mut self) {
        let (Some(machine), Some(history)) = (self.machine, self.history) else { return };
        let off = self.seen.and_then(|seen| seen.power.known()) == Some(&PowerState::Off);
        self.require(off, 0, "it is switched on and was not seen off");
        let why = history.open_attempt().is_some() || self.left_behind() || machine.power == PowerIntent::On;
        self.require(why, 1, "it is switched on and nobody asked for it");
    }

    fn power_off(&mut self) {
        let (Some(machine), Some(history)) = (self.machine, self.history) else { return };
        let armed = history.open_attempt().is_some_and(|open| open.reached(Rung::TicketArmed).is_some());
        let why = armed || self.left_behind() || (machine.power == PowerIntent::Off && history.open_attempt().is_none());
        self.require(why, 1, "it is switched off and nobody asked for it");
        if history.open_attempt().is_none() && !self.left_behind() {
            self.may_begin(machine);
            self.stays_until_it_is_wiped(machine);
        }
    }

    /// Windows, freezes and pauses.
    fn may_begin(&mut self, machine: &Machine) {
        if let Some(why) = budgets::closed(self.input, machine) {
            self.require(false, 7, why);
        }
    }

    /// Whether its last attempt ended before its first byte, so that the machine has to be brought back.
    fn left_behind(&self) -> bool {
        let (last, claimed) = (self.history.and_then(|history| history.attempts.last()), self.history.and_then(|history| history.claimed));
        last.is_some_and(|last| {
            let failed =
                last.end.as_ref().is_some_and(|(at, end)| *end != AttemptEnd::Done && claimed.is_none_or(|claimed| claimed <= *at));
            failed && last.reached(Rung::Writing).is_none()
        })
    }

    fn boot_from_network(&mut self, mode: BootMode) {
        let armed = self.history.and_then(MachineHistory::open_attempt).is_some_and(|open| {
            let wanted = self.machine.and_then(wipe::declared) == Some(open.generation);
            wanted && open.reached(Rung::TicketArmed).is_some()
        });
        self.require(armed, 9, "it is told to boot from the network without a ticket that the commit wants");
        self.require(self.machine.is_some_and(|machine| machine.boot.mode == mode), 0, "it boots in another mode than declared");
    }

    fn begin(&mut self, generation: Generation) {
        let (Some(machine), Some(history)) = (self.machine, self.history) else { return };
        self.own_history(machine, history);
        self.may_begin(machine);
        let declared = wipe::declared(machine);
        self.require(declared == Some(generation), 1, "the commit does not ask for this generation");
        self.require(history.installed != Some(generation), 1, "its disk holds this generation already");
        self.require(history.open_attempt().is_none(), 10, "an attempt is open already");
        self.require(!self.input.problems.iter().any(crate::model::Problem::is_error), 2, "the commit has errors");
        self.more_than_configuration(machine, history);
        let wrote = history.attempts.iter().any(|attempt| attempt.reached(Rung::Writing).is_some());
        let ordered = self.wipes(machine, generation);
        let asked = history.installed.is_some() || wrote || machine.on_claim == OnClaim::Install || ordered;
        self.require(asked, 5, "it was adopted, and nobody asked to install it");
        let first = history.installed.is_none() && !wrote;
        self.require(
            !(first && self.input.history.lost && !ordered),
            2,
            "the journal was lost, and it is to be installed for the first time",
        );
        let hint = machine.disks.system.as_ref();
        let stated = hint.is_some_and(|hint| {
            hint.serial.is_some()
                || hint.wwn.is_some()
                || hint.model.is_some()
                || hint.path.is_some()
                || hint.min_size.is_some()
                || hint.max_size.is_some()
        });
        self.require(stated || ordered, 6, "no disk is stated");
        let same = history.attempts.iter().rev().take_while(|attempt| attempt.generation == generation);
        let failures: Vec<bool> = same
            .filter_map(|attempt| match &attempt.end {
                Some((_, AttemptEnd::Failed { retry, .. })) => Some(*retry),
                Some(_) | None => None,
            })
            .collect();
        self.require(failures.len() < self.input.deadlines.max_tries as usize, 7, "it failed as often as it may");
        self.require(failures.first() != Some(&false), 7, "its last failure is final");
    }

    fn ticket(&mut self, part: &MachinePlan) {
        let Some(ticket) = &part.ticket else { return };
        let open = self.history.and_then(MachineHistory::open_attempt);
        let Some(open) = open.filter(|open| open.id == ticket.attempt) else {
            return self.require(false, 9, "it has a ticket for an attempt that is not open");
        };
        self.require(ticket.work.generation() == open.generation, 9, "its ticket is for something else than its attempt");
        self.require(ticket.commit == open.commit, 9, "its ticket names another commit than its attempt");
        let former = self.input.former.and_then(|former| former.machines.get(self.name)).map(AsRef::as_ref);
        // What an earlier commit said is for a write that began under it.
        let told_out = open.reached(Rung::Writing).is_some() || self.machine.is_none();
        let written_as = [self.machine, former.filter(|_| told_out)];
        let of = |machine: &Machine| {
            let nic = machine.nics.iter().find(|nic| nic.boot).or(machine.nics.first());
            nic.is_some_and(|nic| nic.mac == ticket.mac)
                && wipe::is_ordered(machine, &ticket.work)
                && machine.disks.keep == ticket.keep
                && machine.identity.serial == ticket.serial
                && machine.identity.uuid == ticket.uuid
        };
        self.require(written_as.into_iter().flatten().any(of), 6, "its ticket is not what its manifest says");
    }
}

/// A UUID of 32 hexadecimal digits with its first three fields in the other byte order.
fn swapped(uuid: &str) -> Option<String> {
    let order = [6, 7, 4, 5, 2, 3, 0, 1, 10, 11, 8, 9, 14, 15, 12, 13];
    let digits: Vec<char> = uuid.chars().collect();
    let head: String = order.iter().map(|index| digits.get(*index)).collect::<Option<_>>()?;
    Some(head + &digits[16..].iter().collect::<String>())
}
