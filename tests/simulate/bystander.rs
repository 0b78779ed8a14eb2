//! Somebody who stands beside: sees what reaches machines and disks, reads over the journal's shoulder, and knows which machine each
//! manifest means. It knows the law (DESIGN.md section 3) and nothing of how a plan is made.

use std::collections::{BTreeMap, BTreeSet};

use rackwright::model::*;

use crate::{
    metal::{Body, Content},
    repo::{Pushed, index_of},
    site::Break,
};

/// What a manifest says of the machine that it means, and that is true.
#[derive(Debug, Clone, Copy)]
struct Truth {
    serial: bool,
    uuid: bool,
    mac: bool,
}

impl Truth {
    fn of(machine: &Machine, body: &Body) -> Self {
        Self {
            serial: machine.identity.serial.as_ref() == Some(&body.serial),
            uuid: machine.identity.uuid.as_ref() == Some(&body.uuid),
            mac: machine.nics.iter().any(|nic| nic.mac == body.mac),
        }
    }

    /// Whether somebody who reads both can tell that they mean one machine.
    fn tells(self, other: Self) -> bool {
        self.serial && other.serial || self.uuid && other.uuid || self.mac && other.mac
    }

    /// Whether nothing that is declared is wrong.
    fn is_whole(self, machine: &Machine) -> bool {
        (self.serial || machine.identity.serial.is_none()) && (self.uuid || machine.identity.uuid.is_none()) && self.mac
    }
}

/// An attempt that is on its way.
#[derive(Debug, Clone)]
struct Open {
    attempt: AttemptId,
    commit: usize,
    generation: Generation,
    wrote: bool,
    /// It is a wipe that was proved.
    proved: bool,
}

#[derive(Debug, Default)]
pub struct Bystander {
    /// Records that were read.
    pub read: usize,
    /// The commit in force.
    pub in_force: usize,
    pub lost: bool,
    claims: BTreeMap<MachineName, (usize, Truth)>,
    /// What a disk holds for certain: what it was taken to hold when it was claimed, or what was verified on it last.
    pub holds: BTreeMap<usize, Generation>,
    /// What the disks of each machine were wiped for, with a proof, since it was claimed.
    pub wiped: BTreeMap<usize, Generation>,
    /// What of each generation that was declared is not configuration.
    bases: BTreeMap<Generation, Basis>,
    /// Machines whose disk was written since they were claimed.
    wrote: BTreeSet<usize>,
    /// Machines that left the fleet at some time: what our agent left in their memory stays there (law 3).
    pub released: BTreeSet<usize>,
    /// Adopted after an install of theirs that came to nothing: from then on a person sees to it that they run, and we lay no hand on them.
    adopted_since: BTreeSet<usize>,
    /// Machines whose attempt was superseded after their disk was whole: whether they left our agent behind nobody asks any more.
    pub unproven: BTreeSet<usize>,
    /// Machines that nobody can tell from another by what their manifests state: a MAC alone, and not the same one.
    pub confused: BTreeSet<usize>,
    /// The journal could not be written for a while: that a machine had booted may not be in it.
    pub was_full: bool,
    open: BTreeMap<usize, Open>,
    /// Machines whose last attempt ended before its first byte: they may be brought back to their disk.
    left: BTreeSet<usize>,
    begun: BTreeSet<AttemptId>,
    /// Who wrote under each attempt.
    writers: BTreeMap<AttemptId, String>,
    /// Machines whose last attempt failed, and at what.
    pub failed: BTreeMap<usize, Generation>,
    /// When each attempt's system called home.
    homes: BTreeMap<AttemptId, Timestamp>,
    /// Machines of which the last attempt that wrote failed after that: what is declared goes on with it, whatever may wait.
    unfinished: BTreeSet<usize>,
    /// When the last install of each machine ended well.
    done: BTreeMap<usize, Timestamp>,
    /// The commit in force when each attempt got leave to write.
    leaves: BTreeMap<AttemptId, usize>,
    /// Machines that were begun under each commit.
    under: BTreeMap<usize, BTreeSet<usize>>,
}

type Seen = Result<(), Break>;

fn require(holds: bool, law: u8, what: impl FnOnce() -> String) -> Seen {
    if holds { Ok(()) } else { Err(Break { law, what: what() }) }
}

impl Bystander {
    /// The journal is gone, and with it all that was known.
    pub fn forget(&mut self) {
        *self = Self { lost: true, in_force: self.in_force, ..Self::default() };
    }

    /// Whether nobody knows any more that our agent may be in its memory.
    pub fn is_forgotten(&self, body: usize) -> bool {
        self.lost || self.was_full || self.released.contains(&body) || self.adopted_since.contains(&body) || self.unproven.contains(&body)
    }

    pub fn is_open(&self, body: usize) -> bool {
        self.open.contains_key(&body)
    }

    /// A line of the journal is durable.
    pub fn fact(&mut self, now: Timestamp, record: &Record, commit: &Pushed, bodies: &[Body]) -> Seen {
        match &record.fact {
            Fact::Claimed { machine, installed, .. } => self.claimed(machine, *installed, commit, bodies),
            Fact::Released { machine } => self.released(machine, commit, bodies),
            Fact::Renamed { from, to } => self.renamed(from, to, commit, bodies),
            Fact::HardwareChanged { machine, .. } => {
                let Some((body, declared)) = meant(commit, machine) else { return Ok(()) };
                let truth = Truth::of(declared, &bodies[body]);
                let Some((known, before)) = self.claims.insert(machine.clone(), (body, truth)) else { return Ok(()) };
                // Where no kind of proof is stated both times, a network card may have been exchanged: it is taken for the same.
                let comparable = truth.serial && before.serial || truth.uuid && before.uuid;
                if known != body && !comparable {
                    self.confused.insert(body);
                    self.holds.extend(self.holds.get(&known).copied().map(|held| (body, held)));
                    return Ok(());
                }
                let same = known == body;
                require(same, 4, || format!("{machine} is another machine now, and is taken for the same"))
            }
            Fact::Began { attempt, generation, .. } => self.began(now, attempt, *generation, commit, bodies),
            Fact::Saw { attempt, evidence } => self.saw(now, attempt, evidence, commit, bodies),
            Fact::Concluded { attempt, end } => {
                let Some((body, open)) = self.open.iter().find(|(_, open)| open.attempt == *attempt) else { return Ok(()) };
                let (body, open) = (*body, open.clone());
                self.open.remove(&body);
                self.ended(now, body, &open, end);
                Ok(())
            }
            Fact::Intended { .. }
            | Fact::Ended { .. }
            | Fact::Reported { .. }
            | Fact::Checked { .. }
            | Fact::ConfigurationNoted { .. }
            | Fact::Published { .. }
            | Fact::ValuesLost { .. } => Ok(()),
        }
    }

    fn claimed(&mut self, name: &MachineName, installed: Option<Generation>, commit: &Pushed, bodies: &[Body]) -> Seen {
        let Some((body, declared)) = meant(commit, name) else {
            return require(false, 3, || format!("{name} is claimed and is in no manifest"));
        };
        let truth = Truth::of(declared, &bodies[body]);
        let mut before = self.claims.iter().filter(|(known, (claimed, then))| *known != name && *claimed == body && truth.tells(*then));
        let known = before.next().map(|(known, _)| known.clone());
        let again = self.claims.insert(name.clone(), (body, truth)).is_some_and(|(before, _)| before == body);
        let left = again && self.left.contains(&body);
        self.adopted_since.extend(again.then_some(body));
        self.read_basis(declared);
        self.forget_disk(body);
        self.left.extend(left.then_some(body));
        self.holds.extend(installed.map(|installed| (body, installed)));
        require(known.is_none(), 4, || format!("machine {body} is claimed as {name}, and is known as {known:?}"))?;
        let adopted = declared.on_claim == OnClaim::Install || installed == declared.generation();
        require(adopted, 5, || format!("{name} is not adopted as it is"))
    }

    fn read_basis(&mut self, declared: &Machine) {
        self.bases.extend(declared.install.as_ref().map(|install| (install.generation, install.basis())));
    }

    /// Whether a disk holds what is declared but for its configuration.
    pub fn differs_in_configuration(&self, body: usize, declared: &Machine) -> bool {
        let held = self.holds.get(&body);
        let basis = held.and_then(|held| self.bases.get(held));
        held != declared.generation().as_ref() && basis.is_some() && basis == declared.install.as_ref().map(Install::basis).as_ref()
    }

    fn forget_disk(&mut self, body: usize) {
        self.holds.remove(&body);
        self.unfinished.remove(&body);
        self.wrote.remove(&body);
        self.wiped.remove(&body);
        self.failed.remove(&body);
        self.left.remove(&body);
    }

    fn released(&mut self, name: &MachineName, commit: &Pushed, bodies: &[Body]) -> Seen {
        let Some((body, before)) = self.claims.remove(name) else { return Ok(()) };
        self.forget_disk(body);
        self.released.insert(body);
        require(commit.problems.is_empty(), 2, || format!("{name} is released by a commit that has errors"))?;
        require(!self.open.contains_key(&body), 10, || format!("{name} is released while it is installed"))?;
        let here = commit
            .fleet
            .machines
            .values()
            .find(|machine| commit.meant.get(&machine.name) == Some(&body) && Truth::of(machine, &bodies[body]).tells(before));
        require(here.is_none(), 4, || format!("{name} is released, and its machine {body} is in the fleet as {}", here.unwrap().name))
    }

    fn renamed(&mut self, from: &MachineName, to: &MachineName, commit: &Pushed, bodies: &[Body]) -> Seen {
        let Some((body, _)) = self.claims.remove(from) else { return Ok(()) };
        let Some((target, declared)) = meant(commit, to) else {
            return require(false, 3, || format!("{from} is renamed to {to}, which is in no manifest"));
        };
        self.claims.insert(to.clone(), (target, Truth::of(declared, &bodies[target])));
        require(body == target, 4, || format!("{to} is machine {target}, and gets the history of machine {body}"))
    }

    fn began(&mut self, now: Timestamp, attempt: &AttemptId, generation: Generation, commit: &Pushed, bodies: &[Body]) -> Seen {
        let name = &attempt.machine;
        let Some((body, declared)) = meant(commit, name) else {
            return require(false, 3, || format!("{attempt} begins, and {name} is in no manifest"));
        };
        require(commit.problems.is_empty(), 2, || format!("{attempt} begins under a commit that has errors"))?;
        require(!declared.suspend, 2, || format!("{attempt} begins on a machine that is suspended"))?;
        require(declared.generation() == Some(generation), 1, || format!("{attempt} installs what the commit does not say"))?;
        require(self.claims.get(name).is_some_and(|(known, _)| *known == body), 4, || {
            format!("{attempt} begins on another machine than was claimed")
        })?;
        require(self.holds.get(&body) != Some(&generation), 1, || {
            format!("{attempt} begins, and the disk of machine {body} holds that already")
        })?;
        self.read_basis(declared);
        let waits = declared.upkeep.on_config_change == OnConfigChange::NextInstall && self.differs_in_configuration(body, declared);
        require(!waits || self.unfinished.contains(&body), 1, || format!("{attempt} begins for configuration that is to wait"))?;
        let first = !self.holds.contains_key(&body) && !self.wrote.contains(&body);
        let wipe = declared.decommission.as_ref();
        require(wipe.is_some() == generation.is_wipe(), 3, || {
            format!("{attempt} wipes, and the manifest does not say so, or the reverse")
        })?;
        require(!first || declared.on_claim == OnClaim::Install || wipe.is_some(), 5, || {
            format!("{attempt} begins on a machine that was adopted, and nobody asked")
        })?;
        require(!(first && self.lost && wipe.is_none()), 2, || format!("{attempt} is a first install, and the journal was lost"))?;
        let named = declared.disks.system.is_some() || wipe.is_some_and(|wipe| wipe.disks == WipeDisks::All);
        require(named, 6, || format!("{attempt} begins, and no disk is stated"))?;
        identified(now, body, declared, &bodies[body], &attempt.to_string())?;
        self.budgets(now, attempt, body, commit)?;
        let fresh = self.begun.insert(attempt.clone());
        let opened = Open { attempt: attempt.clone(), commit: index_of(commit.commit.id), generation, wrote: false, proved: false };
        let busy = self.open.insert(body, opened);
        self.under.entry(index_of(commit.commit.id)).or_default().insert(body);
        require(fresh, 10, || format!("{attempt} begins a second time"))?;
        require(busy.is_none(), 10, || format!("{attempt} begins, and {busy:?} is open"))
    }

    /// Law 7, by what is open, what was begun under the commit, and what failed.
    fn budgets(&self, now: Timestamp, attempt: &AttemptId, body: usize, commit: &Pushed) -> Seen {
        let fleet = &commit.fleet;
        let group = |machine: &Machine| machine.labels.get("group").cloned();
        let own = &fleet.machines[&attempt.machine];
        let budgets = &fleet.settings.budgets;
        let members: Vec<&Machine> = fleet.machines.values().map(AsRef::as_ref).filter(|machine| group(machine) == group(own)).collect();
        let is_open = |machine: &Machine| self.open.values().any(|open| open.attempt.machine == machine.name);
        let open = members.iter().filter(|machine| is_open(machine)).count() as u32;
        let at_once = budgets.max_unavailable.of(members.len() as u32);
        require(open < at_once, 7, || format!("{attempt} begins beside {open} others, {at_once} are allowed at once"))?;
        let rack = |machine: &Machine| machine.place.rack.clone();
        let near: Vec<&Machine> = fleet.machines.values().map(AsRef::as_ref).filter(|machine| rack(machine) == rack(own)).collect();
        if let Some(limit) = budgets.max_unavailable_rack {
            let open = near.iter().filter(|machine| is_open(machine)).count() as u32;
            require(open < limit.of(near.len() as u32), 7, || format!("{attempt} begins beside {open} others of its rack"))?;
        }
        let begun = self.under.get(&index_of(commit.commit.id));
        let of_group = |other: &usize| *other != body && members.iter().any(|machine| commit.meant.get(&machine.name) == Some(other));
        let begun = begun.into_iter().flatten().filter(|other| of_group(other)).count() as u32;
        let allowed = budgets.max_destructive.of(members.len() as u32);
        require(begun < allowed, 7, || format!("{attempt} begins after {begun} others under one commit, {allowed} are allowed"))?;
        let failures = members.iter().filter(|machine| {
            let failed = commit.meant.get(&machine.name).and_then(|body| self.failed.get(body));
            failed.is_some() && failed == machine.generation().as_ref()
        });
        let failures = failures.count() as u32;
        require(failures < budgets.breaker_failures, 7, || format!("{attempt} begins after {failures} failures"))?;
        let after = group(own).and_then(|group| fleet.rollouts.values().find(|rollout| rollout.name.as_str() == group));
        let mut after = after.into_iter().flat_map(|rollout| &rollout.after);
        require(after.all(|after| self.may_follow(now, after, commit)), 7, || format!("{attempt} begins before the first group is ready"))
    }

    /// Whether what a group comes after is as it asks, as far as anybody can tell.
    fn may_follow(&self, now: Timestamp, after: &After, commit: &Pushed) -> bool {
        let earlier = |machine: &&Machine| machine.labels.get("group").map(String::as_str) == Some(after.rollout.as_str());
        let earlier: Vec<&Machine> = commit.fleet.machines.values().map(AsRef::as_ref).filter(earlier).collect();
        let is_open = |machine: &Machine| self.open.values().any(|open| open.attempt.machine == machine.name);
        let body = |machine: &Machine| commit.meant.get(&machine.name);
        let counted = || earlier.iter().filter(|machine| machine.install.is_some() && !machine.suspend);
        let young = |machine: &Machine| {
            body(machine).and_then(|body| self.done.get(body)).is_some_and(|at| now.duration_since(*at) < after.healthy_for)
        };
        // What failed and may wait by now is not missing; its disk holds what it held.
        let waits = |machine: &Machine| {
            machine.upkeep.on_config_change == OnConfigChange::NextInstall
                && body(machine).is_some_and(|body| self.differs_in_configuration(*body, machine))
        };
        let failed =
            |machine: &Machine| !waits(machine) && body(machine).and_then(|body| self.failed.get(body)) == machine.generation().as_ref();
        match after.share {
            None => !earlier.iter().any(|machine| is_open(machine)) && !counted().any(|machine| young(machine) && !failed(machine)),
            Some(share) => {
                let good = counted().filter(|machine| !is_open(machine) && !young(machine) && !failed(machine)).count();
                good * 100 >= counted().count() * usize::from(share)
            }
        }
    }

    fn saw(&mut self, now: Timestamp, attempt: &AttemptId, evidence: &Evidence, commit: &Pushed, bodies: &[Body]) -> Seen {
        let Some((body, open)) = self.open.iter_mut().find(|(_, open)| open.attempt == *attempt) else { return Ok(()) };
        match evidence {
            Evidence::Writing { boot_id, .. } | Evidence::Wiping { boot_id, .. } => {
                open.wrote = true;
                self.left.remove(body);
                // From here nobody can say what the disk holds.
                self.holds.remove(body);
                self.wrote.insert(*body);
                self.wiped.remove(body);
                let before = self.writers.insert(attempt.clone(), boot_id.clone());
                require(before.is_none(), 10, || format!("{attempt} gives leave to write a second time"))
            }
            Evidence::Wiped { proof } => {
                let generation = open.generation;
                open.proved = true;
                self.holds.insert(*body, generation);
                self.wiped.insert(*body, generation);
                self.failed.retain(|failed, at| failed != body || *at != generation);
                let disks = &bodies[*body].disks;
                let whole =
                    proof.iter().all(|one| disks.iter().any(|own| own.seen == one.disk && own.content == Content::Wiped(generation)));
                require(whole && generation.is_wipe() && !proof.is_empty(), 10, || {
                    format!("{attempt} is said to be wiped, and the disks of machine {body} are not")
                })?;
                let kept = disks[1].content == Content::Original;
                require(kept, 6, || format!("{attempt} wiped the disk of machine {body} that is to be kept"))
            }
            Evidence::Written { .. } => {
                let generation = open.generation;
                self.holds.insert(*body, generation);
                // Whatever failed before, it holds that now.
                self.failed.retain(|failed, at| failed != body || *at != generation);
                let whole = matches!(&bodies[*body].system().content, Content::Whole(held, _) if *held == generation);
                require(whole, 10, || format!("{attempt} is said to be written, and the disk of machine {body} does not hold it"))
            }
            Evidence::CalledHome { .. } => {
                self.homes.entry(attempt.clone()).or_insert(now);
                Ok(())
            }
            Evidence::Healthy => {
                let home = self.homes.get(attempt).copied().unwrap_or(Timestamp::MAX);
                let gates = commit.fleet.machines.get(&attempt.machine).map_or(&[] as &[Gate], |machine| &machine.gates);
                let page = gates.iter().any(|gate| matches!(gate, Gate::Http { .. }));
                let well = !page || open.generation.is_wipe() || crate::gates::answers(&bodies[*body], *body, home, now);
                require(well, 7, || format!("{attempt} is noted as healthy, and its page does not answer"))
            }
            _ => Ok(()),
        }
    }

    /// What an open attempt is at.
    pub fn generation(&self, attempt: &AttemptId) -> Option<Generation> {
        self.open.values().find(|open| open.attempt == *attempt).map(|open| open.generation)
    }

    /// When leave to write becomes durable, the commit in force wants it.
    pub fn leave(&mut self, attempt: &AttemptId, body: usize, force: &Pushed) -> Seen {
        self.leaves.insert(attempt.clone(), index_of(force.commit.id));
        let wanted = meant(force, &attempt.machine).filter(|(meant, _)| *meant == body).map(|(_, machine)| machine);
        let open = self.open.get(&body).filter(|open| open.attempt == *attempt);
        let same = wanted.zip(open).is_some_and(|(machine, open)| machine.generation() == Some(open.generation) && !machine.suspend);
        require(same, 1, || format!("{attempt} gets leave to write, and the commit in force wants something else"))
    }

    fn ended(&mut self, now: Timestamp, body: usize, open: &Open, end: &AttemptEnd) {
        if open.wrote {
            self.unfinished.remove(&body);
            self.unfinished.extend(matches!(end, AttemptEnd::Failed { .. }).then_some(body));
        }
        match end {
            AttemptEnd::Done => {
                self.done.insert(body, now);
                self.failed.remove(&body);
                self.unproven.remove(&body);
            }
            AttemptEnd::Failed { .. } => drop(self.failed.insert(body, open.generation)),
            AttemptEnd::Superseded => {
                self.unproven.extend(open.wrote.then_some(body));
                if let (false, Some(under)) = (open.wrote, self.under.get_mut(&open.commit)) {
                    under.remove(&body);
                }
            }
        }
        if !open.wrote {
            self.left.insert(body);
        }
    }

    /// An order reaches the BMC of a machine.
    pub fn order(&self, now: Timestamp, body: usize, step: &Step, commit: &Pushed, stands: &Body) -> Seen {
        let what = format!("{}: {}", step.machine, step.action);
        let Some((_, machine)) = meant(commit, &step.machine) else {
            return require(false, 3, || format!("{what}, and it left the fleet"));
        };
        require(!machine.suspend, 2, || format!("{what}, and it is suspended"))?;
        let open = self.open.get(&body).filter(|open| open.attempt.machine == step.machine);
        let wrote = open.is_some_and(|open| open.wrote);
        let proved = open.is_some_and(|open| open.proved);
        require(!wrote || proved || step.action == Action::PowerOn, 10, || format!("{what}, and it writes its disk"))?;
        if !wrote {
            identified(now, body, machine, stands, &what)?;
        }
        let told = stands.told.filter(|(at, _)| now.duration_since(*at) < SignedDuration::from_secs(120)).map(|(_, power)| power);
        let left = self.left.contains(&body);
        let (power, asked) = match &step.action {
            Action::PowerOn => (PowerState::Off, open.is_some() || left || machine.power == PowerIntent::On),
            Action::PowerOff { .. } => (PowerState::On, open.is_some() || left || machine.power == PowerIntent::Off),
            _ => (PowerState::Off, open.is_some_and(|open| machine.generation() == Some(open.generation))),
        };
        require(told == Some(power), 2, || format!("{what}, and its power was last told as {told:?}"))?;
        require(asked, 1, || format!("{what}, and nobody asked for it"))?;
        let due = machine.decommission.as_ref().is_some_and(|wipe| self.wiped.get(&body) != Some(&wipe.generation));
        let for_good = matches!(step.action, Action::PowerOff { .. }) && open.is_none() && !left;
        require(!(due && for_good), 3, || format!("{what}, and nothing proves that it was wiped"))
    }

    /// The first byte goes to a disk.
    pub fn first_byte(&self, attempt: &AttemptId, body: usize, disk: usize, boot_id: &str, stands: &Body, commits: &[Pushed]) -> Seen {
        let what = format!("{attempt} writes disk {disk} of machine {body}");
        let open = self.open.get(&body).filter(|open| open.attempt == *attempt);
        require(open.is_some_and(|open| open.wrote), 9, || format!("{what} without leave"))?;
        require(self.writers.get(attempt).is_some_and(|writer| writer == boot_id), 10, || format!("{what} and another start has leave"))?;
        let told = self.leaves.get(attempt).map(|commit| &commits[*commit]);
        let meant = told.and_then(|told| meant(told, &attempt.machine)).filter(|(meant, _)| *meant == body).map(|(_, machine)| machine);
        require(meant.is_some(), 4, || format!("{what}, which is not the machine that the commit meant"))?;
        let hint = meant.and_then(|machine| machine.disks.system.as_ref()).and_then(|hint| hint.serial.as_ref());
        let all = meant.and_then(|machine| machine.decommission.as_ref()).is_some_and(|wipe| wipe.disks == WipeDisks::All);
        let right = disk != 1 && (all || hint == stands.disks[disk].seen.serial.as_ref());
        require(right, 6, || format!("{what}, which the manifest does not mean"))
    }
}

fn meant<'a>(commit: &'a Pushed, name: &MachineName) -> Option<(usize, &'a Machine)> {
    Some((*commit.meant.get(name)?, commit.fleet.machines.get(name)?.as_ref()))
}

/// Laws 2 and 8: what is touched is what is meant, and its BMC spoke a short while ago.
fn identified(now: Timestamp, body: usize, machine: &Machine, stands: &Body, what: &str) -> Seen {
    let truth = Truth::of(machine, stands);
    require(truth.is_whole(machine), 8, || format!("{what}, and machine {body} is not what the manifest says"))?;
    let fresh = stands.told.is_some_and(|(at, _)| now.duration_since(at) < SignedDuration::from_secs(120));
    require(fresh, 2, || format!("{what}, and nobody knows how machine {body} is"))
}
