//! A controller's memory, and one turn of its loop: the real planner and the real second reader, between a follower and an executor that
//! repeat what `engine/` does on the same values.

use std::{collections::BTreeMap, sync::Arc};

use rackwright::{
    model::*,
    plan::{Deadlines, Input, check, hardware, plan},
};

use crate::{
    boot::Answer,
    journal::{Decided, Known, Stop},
    repo::{body_at, id_of, index_of},
    site::Site,
};

/// What a token stands for: an attempt, by the journal whose key it was made with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub epoch: u32,
    pub attempt: AttemptId,
}

/// A plan, and what it rests on.
pub type Decision = Option<(Decided, Arc<Plan>)>;

#[derive(Clone)]
struct InForce {
    index: usize,
    fleet: Arc<Fleet>,
    former: Option<Fleet>,
}

#[derive(Clone)]
pub struct Controller {
    pub known: Known,
    pub progress: BTreeMap<AttemptId, Timestamp>,
    pub table: Option<BootTable>,
    pub since: BTreeMap<AttemptId, Vec<Evidence>>,
    /// What its probes found last. Lost with it.
    pub probes: Probes,
    started: Timestamp,
    seen: BTreeMap<MachineName, Observation>,
    force: Option<InForce>,
    judged: Option<usize>,
    /// The last plan.
    pub plan: Option<Arc<Plan>>,
}

impl Controller {
    /// Starts on the journal, on the commit that it says was in force.
    pub fn start(site: &Site) -> Self {
        let known = Known::of(&site.journal);
        let force = known.in_force.map(|index| InForce { index, fleet: site.repo.commits[index].fleet.clone(), former: None });
        let mut controller = Self {
            known,
            progress: BTreeMap::new(),
            table: None,
            since: BTreeMap::new(),
            probes: Probes::new(),
            started: site.now,
            seen: BTreeMap::new(),
            force,
            judged: None,
            plan: None,
        };
        controller.judged = controller.known.in_force;
        controller.find_orders(site);
        controller
    }

    pub fn commit(&self) -> Option<usize> {
        self.force.as_ref().map(|force| force.index)
    }

    /// Writes facts, and lets the bystander see that they are there.
    pub fn write(&mut self, site: &mut Site, commit: usize, facts: Vec<Fact>) -> Result<u64, Stop> {
        let written = self.known.append(&mut site.journal, site.now, commit, facts);
        match written {
            Err(Stop::Full) => site.cover.count("a write fails on a full disk"),
            Err(Stop::Fenced) => site.cover.count("a write is refused: another controller wrote since"),
            Err(Stop::Died) | Ok(_) => {}
        }
        site.look();
        written
    }

    /// Takes the newest commit, if it can be taken.
    pub fn adopt(&mut self, site: &mut Site) -> Result<(), Stop> {
        let newest = site.repo.newest();
        if self.judged == Some(newest) || site.journal.full {
            return Ok(());
        }
        let pushed = &site.repo.commits[newest];
        if !pushed.problems.is_empty() && !pushed.let_through {
            self.judged = Some(newest);
            site.cover.count("a malformed commit is refused");
            return Ok(());
        }
        if self.known.in_force != Some(newest) {
            site.journal.put_in_force(newest)?;
        }
        self.judged = Some(newest);
        self.known.in_force = Some(newest);
        self.known.wanted.clear();
        let former = self.force.as_ref().map(|before| self.former(before));
        self.force = Some(InForce { index: newest, fleet: site.repo.commits[newest].fleet.clone(), former });
        self.find_orders(site);
        site.in_force(newest);
        Ok(())
    }

    /// `engine::source::former`.
    fn former(&self, before: &InForce) -> Fleet {
        let mut fleet = (*before.fleet).clone();
        let Some(earlier) = &before.former else { return fleet };
        for attempt in self.open() {
            let name = &attempt.id.machine;
            let told = earlier.machines.get(name).filter(|machine| machine.generation() == Some(attempt.generation));
            let here = fleet.machines.get(name).is_some_and(|machine| machine.generation() == Some(attempt.generation));
            if let (Some(told), false) = (told, here) {
                fleet.machines.insert(name.clone(), told.clone());
            }
        }
        fleet
    }

    fn open(&self) -> impl Iterator<Item = &Attempt> {
        self.known.history.machines.values().filter_map(MachineHistory::open_attempt)
    }

    /// `engine::source::find_orders`: what machines were told to write under commits that are not at hand.
    fn find_orders(&mut self, site: &Site) {
        let Some(force) = &self.force else { return };
        let mut found = Vec::new();
        for attempt in self.open().filter(|attempt| attempt.commit != id_of(force.index)) {
            let name = &attempt.id.machine;
            let of = |fleet: &Fleet| fleet.machines.get(name).filter(|own| own.generation() == Some(attempt.generation)).cloned();
            if of(&force.fleet).is_none() && force.former.as_ref().and_then(of).is_none() {
                found.extend(of(&site.repo.commits[index_of(attempt.commit)].fleet).map(|machine| (name.clone(), machine)));
            }
        }
        if let (Some(force), false) = (&mut self.force, found.is_empty()) {
            force.former.get_or_insert_default().machines.extend(found);
        }
    }

    /// Follows, asks, plans, and publishes what the boot server may say. What is to be done is done by [`Self::act`].
    /// With `late`, a newer commit is fetched after the plan was made.
    pub fn decide(&mut self, site: &mut Site, late: bool) -> Result<Decision, Stop> {
        if !late && self.adopt(site) == Err(Stop::Died) {
            return Err(Stop::Died);
        }
        let Some(force) = self.force.clone() else { return Ok(None) };
        self.ask(site, &force.fleet);
        self.probe(site, &force.fleet);
        let alive = self
            .open()
            .map(|attempt| (attempt.id.clone(), self.progress.get(&attempt.id).map_or(self.started, |at| (*at).max(self.started))));
        let alive = alive.collect();
        let pushed = &site.repo.commits[force.index];
        let input = Input {
            commit: &pushed.commit,
            fleet: &force.fleet,
            problems: &pushed.problems,
            seen: &self.seen,
            history: &self.known.history,
            former: force.former.as_ref(),
            alive: &alive,
            probes: &self.probes,
            brake: &Brake::default(),
            deadlines: Deadlines::default(),
            now: site.now,
        };
        let made = plan(&input);
        let violations = if site.second_reader { check(&made, &input) } else { Vec::new() };
        for name in force.fleet.machines.keys().chain(self.known.history.machines.keys()) {
            if !made.machines.contains_key(name) {
                site.breaks(2, format!("{name} is simply absent from the plan"));
            }
        }
        violations.into_iter().for_each(|violation| site.breaks(violation.law, format!("the second reader says: {violation}")));
        site.cover.plan(&made);
        let ends = |part: &MachinePlan| part.steps.iter().any(|step| matches!(step.action, Action::EndAttempt { .. }));
        let tickets = made.machines.values().filter(|part| !ends(part)).filter_map(|part| part.ticket.as_ref());
        self.known.wanted = tickets.map(|ticket| ticket.attempt.clone()).collect();
        self.publish(&force.fleet, &made);
        let made = Arc::new(made);
        self.plan = Some(made.clone());
        Ok(Some((Decided { commit: force.index, since: self.known.history.seq }, made)))
    }

    fn ask(&mut self, site: &mut Site, fleet: &Fleet) {
        self.seen.retain(|name, _| fleet.machines.contains_key(name));
        for (name, machine) in &fleet.machines {
            let address = &machine.bmc.address;
            let Some(body) = body_at(address) else { continue };
            if let Some(seen) = site.bodies[body].observed(site.now, address) {
                self.seen.insert(name.clone(), seen);
            } else if self.seen.get(name).is_some_and(|seen| seen.source != *address) {
                // What another BMC said is not this one's answer.
                self.seen.remove(name);
            }
        }
    }

    /// `engine::table`.
    fn publish(&mut self, fleet: &Fleet, plan: &Plan) {
        let mut table = BootTable::default();
        for machine in fleet.machines.values() {
            for nic in &machine.nics {
                let reservation =
                    Reservation { machine: machine.name.clone(), mac: nic.mac, address: nic.address, network: None, boot: true };
                table.reservations.insert(nic.mac, reservation);
            }
        }
        let tickets = plan.machines.values().filter_map(|part| part.ticket.as_deref());
        table.tickets = tickets.map(|ticket| (ticket.mac, ticket.clone())).collect();
        let last = self.known.history.machines.values().filter_map(|machine| machine.attempts.last());
        let done = last.filter(|attempt| matches!(attempt.end, Some((_, AttemptEnd::Done))));
        table.installed = done.map(|attempt| (attempt.id.clone(), attempt.generation)).collect();
        self.since.retain(|attempt, _| table.ticket(attempt).is_some());
        self.table = Some(table);
    }

    /// Executes a plan as far as what it was decided on still holds. True when something was done.
    pub fn act(&mut self, site: &mut Site, decided: Decided, plan: &Plan) -> Result<bool, Stop> {
        let fleet = site.repo.commits[decided.commit].fleet.clone();
        let (mut facts, mut orders) = (Vec::new(), Vec::new());
        for part in plan.machines.values() {
            let known: Vec<Fact> = part.steps.iter().map_while(|step| facts_of(step, &fleet)).flatten().collect();
            if known.is_empty() { orders.extend(part.steps.first()) } else { facts.extend(known) }
        }
        let before = facts.len();
        facts.retain(|fact| self.known.allows(decided, fact));
        if facts.len() < before {
            site.cover.count("a decision is refused: something newer is known");
        }
        let mut acted = !facts.is_empty();
        self.write(site, decided.commit, facts)?;
        for step in orders {
            acted |= self.execute(site, decided, &fleet, step)?;
        }
        Ok(acted)
    }

    /// Journals the intention, gives the order, journals the outcome.
    fn execute(&mut self, site: &mut Site, decided: Decided, fleet: &Fleet, step: &Step) -> Result<bool, Stop> {
        let Some(machine) = fleet.machines.get(&step.machine) else { return Ok(false) };
        let Some(body) = body_at(&machine.bmc.address) else { return Ok(false) };
        let intended = Fact::Intended { step: step.clone() };
        if !self.known.allows(decided, &intended) {
            site.cover.count("an order is refused: something newer is known");
            return Ok(false);
        }
        let intention = self.write(site, decided.commit, vec![intended])?;
        let outcome = site.order(body, step, decided.commit);
        let done = outcome == Outcome::Done;
        let mut facts = vec![Fact::Ended { machine: step.machine.clone(), intention, outcome }];
        let open = self.known.history.machines.get(&step.machine).and_then(MachineHistory::open_attempt);
        if let (true, Action::BootFromNetwork { .. }, Some(open)) = (done, &step.action, open)
            && open.reached(Rung::BootSet).is_none()
        {
            facts.push(Fact::Saw { attempt: open.id.clone(), evidence: Evidence::BootSet });
        }
        self.write(site, decided.commit, facts)?;
        Ok(true)
    }

    /// When the first wait of the last plan is over.
    pub fn due(&self) -> Option<Timestamp> {
        let plan = self.plan.as_ref()?;
        let held = |held: &Held| match held {
            Held::After { healthy_at, .. } => *healthy_at,
            _ => None,
        };
        let until = plan.machines.values().flat_map(|part| part.held.iter().filter_map(held));
        plan.machines.values().filter_map(|part| part.waiting.as_ref()?.until).chain(until).min()
    }
}

/// `engine::act::facts_of`.
fn facts_of(step: &Step, fleet: &Fleet) -> Option<Vec<Fact>> {
    let machine = step.machine.clone();
    Some(match &step.action {
        Action::Claim { installed } => {
            let hardware = fleet.machines.get(&machine).map(|machine| hardware(machine)).unwrap_or_default();
            let basis = installed.and_then(|installed| basis(fleet, &machine, installed));
            let claimed = Fact::Claimed { hardware, machine: machine.clone(), installed: *installed, basis };
            let former = (step.reason == Reason::Replaced).then_some(Fact::Released { machine });
            former.into_iter().chain([claimed]).collect()
        }
        Action::Release => vec![Fact::Released { machine }],
        Action::NoteHardware { hardware } => vec![Fact::HardwareChanged { machine, hardware: hardware.clone() }],
        Action::Rename { from } => vec![Fact::Renamed { from: from.clone(), to: machine }],
        Action::BeginAttempt { attempt, generation } => {
            vec![Fact::Began { attempt: attempt.clone(), generation: *generation, basis: basis(fleet, &machine, *generation) }]
        }
        Action::NoteConfiguration { installed, basis, deferred } => {
            vec![Fact::ConfigurationNoted { machine, installed: *installed, basis: *basis, deferred: *deferred }]
        }
        Action::Witness { attempt, rung } => {
            vec![Fact::Saw { attempt: attempt.clone(), evidence: crate::plan_world::plain_evidence(*rung) }]
        }
        Action::EndAttempt { attempt, end } => vec![Fact::Concluded { attempt: attempt.clone(), end: end.clone() }],
        Action::PowerOn | Action::PowerOff { .. } | Action::BootFromNetwork { .. } | Action::ClearBootOverride => return None,
    })
}

fn basis(fleet: &Fleet, machine: &MachineName, generation: Generation) -> Option<Basis> {
    let install = fleet.machines.get(machine)?.install.as_ref()?;
    (install.generation == generation).then(|| install.basis())
}

/// Whether an answer lets an agent go on.
pub fn is_taken(answer: &Answer) -> bool {
    matches!(answer, Answer::Taken)
}
