//! The fleet repository: what people think of their machines, and what each commit says. It knows which machine a manifest means,
//! whatever is written in it; the controller does not.

use std::{collections::BTreeMap, sync::Arc};

use rackwright::model::*;

use crate::{
    metal::Body,
    plan_world::{decommission, install, machine, name},
    story::{Edit, Form, Setup},
};

/// One machine as a person thinks of it.
#[derive(Debug, Clone)]
struct Slot {
    /// The machine that is meant.
    body: usize,
    present: bool,
    manifest: Machine,
}

/// What one commit says, and what was meant.
#[derive(Clone)]
pub struct Pushed {
    pub commit: Commit,
    pub fleet: Arc<Fleet>,
    pub problems: Vec<Problem>,
    /// Whether the engine judges it as it should.
    pub let_through: bool,
    pub meant: BTreeMap<MachineName, usize>,
    slots: Vec<Slot>,
    settings: FleetSettings,
}

pub struct Repo {
    pub commits: Vec<Pushed>,
    slots: Vec<Slot>,
    settings: FleetSettings,
    rollouts: BTreeMap<RolloutName, Rollout>,
    names: u32,
}

pub fn id_of(index: usize) -> CommitId {
    let mut id = [0; 20];
    id[..4].copy_from_slice(&(index as u32 + 1).to_be_bytes());
    CommitId(id)
}

pub fn index_of(id: CommitId) -> usize {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]) as usize - 1
}

pub fn bmc(body: usize) -> String {
    format!("https://bmc-{body}")
}

pub fn body_at(address: &str) -> Option<usize> {
    address.rsplit('-').next()?.parse().ok()
}

impl Repo {
    pub fn new(setup: &Setup, bodies: &[Body], now: Timestamp) -> Self {
        let mut settings = FleetSettings::default();
        settings.drift.power = setup.policy;
        settings.budgets = Budgets {
            max_unavailable: Amount::Count(setup.at_once),
            max_unavailable_rack: setup.rack_limit.map(Amount::Count),
            max_destructive: Destructive { count: setup.destructive, share: 100 },
            breaker_failures: setup.breaker,
            ..Budgets::default()
        };
        let slots =
            bodies.iter().enumerate().map(|(number, body)| Slot { body: number, present: true, manifest: manifest(setup, number, body) });
        let mut repo = Self { commits: Vec::new(), slots: slots.collect(), settings, rollouts: BTreeMap::new(), names: 0 };
        if setup.grouped {
            repo.rollouts =
                ["first", "second"].into_iter().map(|text| repo.rollout(setup, text)).map(|own| (own.name.clone(), own)).collect();
        }
        repo.push(Form::Good, now);
        repo
    }

    fn rollout(&self, setup: &Setup, text: &str) -> Rollout {
        let mut after = After::from(RolloutName::new("first").unwrap());
        // Some wait for all of the first group, some for a share of it, some for a while.
        after.share = [None, Some(60), None, Some(100)][setup.at_once as usize % 4];
        after.healthy_for = SignedDuration::from_mins([0, 0, 10, 5][setup.breaker as usize % 4]);
        Rollout {
            name: RolloutName::new(text).unwrap(),
            selector: [("group".to_owned(), text.to_owned())].into(),
            after: if text == "second" { vec![after] } else { Vec::new() },
            budgets: self.settings.budgets.clone(),
            windows: Vec::new(),
            freeze: None,
            paused: false,
            waves: Vec::new(),
            soak: Default::default(),
        }
    }

    pub fn newest(&self) -> usize {
        self.commits.len() - 1
    }

    /// The machine that is at a place now.
    pub fn body(&self, slot: usize) -> usize {
        self.slots[slot].body
    }

    pub fn commit(&mut self, edits: &[Edit], form: Form, bodies: &mut Vec<Body>, now: Timestamp) {
        for edit in edits {
            self.edit(*edit, bodies);
        }
        self.push(form, now);
    }

    pub fn revert(&mut self, back: usize, now: Timestamp) {
        let Some(before) = self.newest().checked_sub(back) else { return };
        let before = &self.commits[before];
        (self.slots, self.settings) = (before.slots.clone(), before.settings.clone());
        self.push(Form::Good, now);
    }

    fn push(&mut self, form: Form, now: Timestamp) {
        let broken = match form {
            Form::Good => None,
            Form::Refused(slot) | Form::LetThrough(slot) => Some(slot),
        };
        let there = self.slots.iter().enumerate().filter(|(number, slot)| slot.present && Some(*number) != broken).map(|(_, slot)| slot);
        let mut fleet = Fleet { settings: self.settings.clone(), rollouts: self.rollouts.clone(), ..Fleet::default() };
        fleet.rollouts.values_mut().for_each(|rollout| rollout.budgets = self.settings.budgets.clone());
        let (mut meant, former) = (BTreeMap::new(), self.commits.last().map(|last| last.fleet.clone()));
        for slot in there {
            let name = &slot.manifest.name;
            let same = former.as_ref().and_then(|fleet| fleet.machines.get(name)).filter(|known| ***known == slot.manifest);
            fleet.machines.insert(name.clone(), same.cloned().unwrap_or_else(|| Arc::new(slot.manifest.clone())));
            meant.insert(name.clone(), slot.body);
        }
        let id = id_of(self.commits.len());
        self.commits.push(Pushed {
            commit: Commit { id, subject: String::new(), author: "a <a@example>".to_owned(), time: now, approvals: Vec::new() },
            fleet: Arc::new(fleet),
            problems: broken.map(|_| problem()).into_iter().collect(),
            let_through: matches!(form, Form::LetThrough(_)),
            meant,
            slots: self.slots.clone(),
            settings: self.settings.clone(),
        });
    }

    fn new_name(&mut self) -> MachineName {
        self.names += 1;
        name(&format!("n-{}", self.names))
    }

    fn edit(&mut self, edit: Edit, bodies: &mut Vec<Body>) {
        match edit {
            Edit::Image(slot, image) => self.set(slot, |install| install.0 = image),
            Edit::Profile(profile, image) => {
                let those = (0..self.slots.len()).filter(|slot| slot % 2 == usize::from(profile));
                those.for_each(|slot| self.set(slot, |install| install.0 = image));
            }
            Edit::Config(slot, config) => self.set(slot, |install| install.1 = config),
            Edit::OnConfigChange(slot, waits) => {
                let policy = if waits { OnConfigChange::NextInstall } else { OnConfigChange::Reinstall };
                self.slots[slot].manifest.upkeep.on_config_change = policy;
            }
            Edit::Rebuild(slot) => self.set(slot, |install| install.2 += 1),
            Edit::Decommission(slot, what) => self.decommission(slot, what),
            Edit::Power(slot, _) if self.slots[slot].manifest.decommission.is_some() => {}
            Edit::Suspend(slot, suspend) => self.slots[slot].manifest.suspend = suspend,
            Edit::Power(slot, power) => {
                self.slots[slot].manifest.power = [PowerIntent::On, PowerIntent::Off, PowerIntent::Unmanaged][usize::from(power)];
            }
            Edit::OnClaim(slot, install) => {
                self.slots[slot].manifest.on_claim = if install { OnClaim::Install } else { OnClaim::Adopt };
            }
            Edit::Remove(slot) => self.slots[slot].present = false,
            Edit::Restore(slot) => self.slots[slot].present = true,
            Edit::Rename(slot) => self.slots[slot].manifest.name = self.new_name(),
            Edit::Chain(one, other) if one != other => {
                let new = self.new_name();
                self.slots[one].manifest.name = std::mem::replace(&mut self.slots[other].manifest.name, new);
            }
            Edit::Swap(one, other) if one != other => {
                let mine = self.slots[one].manifest.name.clone();
                self.slots[one].manifest.name = std::mem::replace(&mut self.slots[other].manifest.name, mine);
            }
            Edit::Chain(..) | Edit::Swap(..) => {}
            Edit::Mistype(slot, what) => self.mistype(slot, what, bodies),
            Edit::WrongBmc(slot, other) => self.slots[slot].manifest.bmc.address = bmc(self.slots[other].body),
            Edit::Replace(slot) => self.replace(slot, bodies),
            Edit::Disk(slot, what) => self.disk(slot, what, bodies),
            Edit::Budgets(at_once, destructive, breaker) => {
                let budgets = &mut self.settings.budgets;
                budgets.max_unavailable = Amount::Count(at_once);
                budgets.max_destructive.count = destructive;
                budgets.breaker_failures = breaker;
            }
            Edit::Policy(policy) => {
                let all = [DriftPolicy::Correct, DriftPolicy::Observe, DriftPolicy::Alert, DriftPolicy::Correct];
                self.settings.drift.power = all[usize::from(policy)];
            }
        }
    }

    fn set(&mut self, slot: usize, change: impl FnOnce(&mut (u8, u8, u64))) {
        let manifest = &mut self.slots[slot].manifest;
        if let Some(wipe) = &manifest.decommission {
            // Of what is taken out of service no image says anything.
            let mut parts = (1, 0, wipe.rebuild);
            change(&mut parts);
            return manifest.decommission = Some(Wipe::new(wipe.method, wipe.disks.clone(), parts.2));
        }
        let own = manifest.install.as_ref();
        let image = own.map_or(1, |own| own.image.name.as_str()[1..].parse().unwrap());
        let config = own.and_then(|own| own.user_data.as_ref()).map_or(0, |data| data[1..].parse().unwrap());
        let mut parts = (image, config, own.map_or(0, |own| own.rebuild));
        change(&mut parts);
        let data = (parts.1 > 0).then(|| format!("c{}", parts.1));
        manifest.install = Some(install(&format!("v{}", parts.0), data.as_deref(), parts.2));
    }

    fn decommission(&mut self, slot: usize, what: u8) {
        let manifest = &mut self.slots[slot].manifest;
        let disks = [WipeDisks::System, WipeDisks::All];
        match what.checked_sub(1) {
            None if manifest.decommission.take().is_some() => {
                (manifest.install, manifest.power) = (Some(install("v1", None, 0)), PowerIntent::On);
            }
            None => {}
            Some(which) => decommission(manifest, WipeMethod::Zero, disks[usize::from(which)].clone(), 0),
        }
    }

    fn mistype(&mut self, slot: usize, what: u8, bodies: &[Body]) {
        self.names += 1;
        let wrong = self.names;
        let Slot { body, manifest, .. } = &mut self.slots[slot];
        let own = &bodies[*body];
        let declared = own.traits.serial.then(|| own.serial.clone());
        manifest.identity.serial = if what & 1 == 1 { Some(format!("WRONG-{wrong}")) } else { declared };
        manifest.nics[0].mac = if what & 2 == 2 { Mac([2, 0, 0, 0, (wrong >> 8) as u8, wrong as u8]) } else { own.mac };
        if what == 0 {
            manifest.bmc.address = bmc(*body);
        }
    }

    fn replace(&mut self, slot: usize, bodies: &mut Vec<Body>) {
        let number = bodies.len();
        let old = &bodies[self.slots[slot].body];
        // Without either, a manifest can't say that another machine stands there: to anybody who reads it, its network card was exchanged.
        if !old.traits.serial && !old.traits.uuid {
            return;
        }
        let body = Body::new(number, old.traits);
        let own = &mut self.slots[slot];
        own.body = number;
        own.manifest.identity = identity(&body);
        own.manifest.nics[0].mac = body.mac;
        own.manifest.bmc.address = bmc(number);
        own.manifest.disks = disks(&body);
        bodies.push(body);
    }

    fn disk(&mut self, slot: usize, what: u8, bodies: &[Body]) {
        let own = &mut self.slots[slot];
        let body = &bodies[own.body];
        let serial = |text: String| Some(DiskHint { serial: Some(text), ..DiskHint::default() });
        own.manifest.disks.system = match what {
            0 => disks(body).system,
            1 => None,
            2 => serial("NO-SUCH-DISK".to_owned()),
            3 => Some(DiskHint { model: Some("DISK".to_owned()), ..DiskHint::default() }),
            4 => serial(body.disks[1].seen.serial.clone().unwrap()),
            _ => serial(body.disks[2].seen.serial.clone().unwrap()),
        };
    }
}

fn identity(body: &Body) -> Identity {
    Identity { serial: body.traits.serial.then(|| body.serial.clone()), uuid: body.traits.uuid.then(|| body.uuid.clone()) }
}

fn disks(body: &Body) -> Disks {
    let hint = |number: usize| DiskHint { serial: body.disks[number].seen.serial.clone(), ..DiskHint::default() };
    Disks { system: Some(hint(0)), keep: vec![hint(1)] }
}

fn manifest(setup: &Setup, number: usize, body: &Body) -> Machine {
    let mut own = machine(&format!("m-{number}"), number as u8);
    own.identity = identity(body);
    own.nics[0].mac = body.mac;
    own.bmc.address = bmc(number);
    own.disks = disks(body);
    own.install = Some(install(&format!("v{}", body.traits.image), None, 0));
    own.on_claim = if body.traits.install_on_claim { OnClaim::Install } else { OnClaim::Adopt };
    own.power = if body.traits.off { PowerIntent::Off } else { PowerIntent::On };
    own.suspend = body.traits.suspended;
    own.gates = crate::gates::of(setup, number);
    own.place.rack = Some(format!("rack-{}", number % 3));
    if setup.grouped {
        own.labels.insert("group".to_owned(), if number.is_multiple_of(2) { "first" } else { "second" }.to_owned());
    }
    own
}

fn problem() -> Problem {
    Problem {
        file: "machines/a.yaml".to_owned(),
        line: 1,
        column: 1,
        length: 1,
        severity: Severity::Error,
        code: "syntax".to_owned(),
        message: "not YAML".to_owned(),
        hint: None,
    }
}
