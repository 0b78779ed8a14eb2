//! Law 4, read anew: a name is not a machine.

use std::collections::BTreeMap;

use super::{Input, Reader};
use crate::model::{Evidence, Generation, History, Machine, MachineHistory, MachineName, OnClaim};
use crate::plan::identity::identifies;

/// What a manifest says of the hardware, as the journal writes it.
fn stated(machine: &Machine) -> Vec<String> {
    let mut items = Vec::new();
    if let Some(serial) = &machine.identity.serial {
        items.push(format!("serial:{}", serial.trim().to_ascii_lowercase()));
    }
    if let Some(uuid) = &machine.identity.uuid {
        items.push(format!("uuid:{}", uuid.trim().to_ascii_lowercase()));
    }
    for nic in &machine.nics {
        items.push(format!("mac:{}", nic.mac));
    }
    items
}

/// Whether the disk that a manifest names was written under this history.
fn keeps_its_disk(machine: &Machine, history: &MachineHistory) -> bool {
    let Some(hint) = &machine.disks.system else { return false };
    let written = history.attempts.iter().flat_map(|attempt| &attempt.evidence).flat_map(|(_, evidence)| match evidence {
        Evidence::Writing { disk, .. } => std::slice::from_ref(disk),
        Evidence::Wiping { disks, .. } => disks,
        _ => &[],
    });
    let lower = |text: &Option<String>| text.as_ref().map(|text| text.trim().to_lowercase());
    let (serial, wwn) = (lower(&hint.serial), lower(&hint.wwn));
    written.into_iter().any(|disk| (serial.is_some() && serial == lower(&disk.serial)) || (wwn.is_some() && wwn == lower(&disk.wwn)))
}

/// Whether the journal knows the machine exactly as its manifest states it.
pub(super) fn same_hardware(machine: &Machine, history: &MachineHistory) -> bool {
    let (mut own, mut known) = (stated(machine), history.hardware.clone());
    own.sort_unstable();
    known.sort_unstable();
    own == known
}

/// How two descriptions of hardware stand to each other.
#[derive(Default)]
struct Likeness {
    /// Items that both state.
    common: usize,
    /// Serial numbers or UUIDs that both state.
    proof: usize,
    /// Serial numbers or UUIDs of which they state different ones.
    against: usize,
}

impl Likeness {
    fn of(one: &[String], other: &[String]) -> Self {
        let mut like = Self::default();
        for item in one.iter().filter(|item| identifies(item)) {
            let kind = item.split(':').next().unwrap_or_default();
            let strong = kind != "mac";
            let theirs = other.iter().filter(|theirs| identifies(theirs) && theirs.starts_with(kind)).collect::<Vec<_>>();
            let same = theirs.contains(&item);
            like.common += usize::from(same);
            like.proof += usize::from(same && strong);
            like.against += usize::from(!same && strong && !theirs.is_empty());
        }
        like
    }

    fn one_machine(&self) -> bool {
        self.common > 0 && self.against == 0
    }
}

/// Machines of the journal, by each item of their hardware.
pub(super) type ByItem<'a> = BTreeMap<&'a str, Vec<(&'a MachineName, &'a MachineHistory)>>;

fn by_item(history: &History) -> ByItem<'_> {
    let mut known = ByItem::new();
    for (name, machine) in &history.machines {
        for item in machine.hardware.iter().filter(|item| identifies(item)) {
            known.entry(item).or_default().push((name, machine));
        }
    }
    known
}

/// Machines of the fleet that the journal does not know as they are stated, by each item of their hardware.
pub(super) type Unsettled<'a> = BTreeMap<String, Vec<(&'a MachineName, Vec<String>)>>;

fn unsettled<'a>(input: &Input<'a>) -> Unsettled<'a> {
    let mut found = Unsettled::new();
    for (name, machine) in &input.fleet.machines {
        let own = stated(machine);
        let known = input.history.machines.get(name).map(|history| history.hardware.as_slice());
        if known.is_none_or(|known| known.len() != own.len() || own.iter().any(|item| !known.contains(item))) {
            for item in own.iter().filter(|item| identifies(item)) {
                found.entry(item.clone()).or_default().push((name, own.clone()));
            }
        }
    }
    found
}

impl Reader<'_, '_> {
    /// Machines of the journal, by other names, that may be this one.
    fn like_another(&self, machine: &Machine) -> bool {
        let own = stated(machine);
        let known = self.known.get_or_init(|| by_item(self.input.history));
        let near = own.iter().filter_map(|item| known.get(item.as_str())).flatten();
        near.filter(|(name, _)| *name != self.name).any(|(_, other)| Likeness::of(&own, &other.hardware).common > 0)
    }

    /// A machine that is taken for new.
    pub(super) fn new_machine(&mut self, machine: &Machine) {
        let known = self.like_another(machine);
        self.require(!known, 4, "its hardware is known by another name, and it is claimed as new");
    }

    /// Another machine under a name that the journal knows.
    pub(super) fn replaced(&mut self, machine: &Machine, history: &MachineHistory, installed: Option<Generation>) {
        let like = Likeness::of(&stated(machine), &history.hardware);
        let kept = keeps_its_disk(machine, history);
        self.require(!kept, 4, "its manifest names the disk that was written under its name, and it is claimed as another");
        self.require(like.common == 0 && like.against > 0, 4, "it may be the machine that had this name before, and is claimed as another");
        let errors = self.input.problems.iter().any(crate::model::Problem::is_error);
        self.require(!errors, 2, "the machine that had its name is forgotten by a commit that has errors");
        self.require(history.open_attempt().is_none(), 10, "it is claimed while an attempt under its name is open");
        let unsettled = self.unsettled.get_or_init(|| unsettled(self.input));
        let near = history.hardware.iter().filter_map(|item| unsettled.get(item.as_str())).flatten();
        let elsewhere = near.filter(|(name, _)| *name != self.name).any(|(_, own)| Likeness::of(own, &history.hardware).common > 0);
        self.require(!elsewhere, 4, "the machine that had this name before is in the fleet under another, and is forgotten");
        self.new_machine(machine);
        self.identity(machine);
        let declared = super::wipe::declared(machine);
        let right = if machine.on_claim == OnClaim::Install { installed.is_none() } else { installed == declared };
        self.require(right, 5, "it is not claimed as onClaim says");
    }

    /// Another serial, UUID or MAC for a machine that stays the same.
    pub(super) fn hardware(&mut self, hardware: &[String]) {
        let (Some(machine), Some(history)) = (self.machine, self.history) else {
            return self.require(false, 3, "it is not a machine of both fleet and journal, and its hardware is noted");
        };
        self.require(history.open_attempt().is_none(), 10, "its hardware is noted while an attempt is open");
        let own = stated(machine);
        self.require(own == hardware, 4, "its manifest says other hardware than is noted");
        let like = Likeness::of(&own, &history.hardware);
        let same = like.common > 0 || like.against == 0 || keeps_its_disk(machine, history);
        self.require(same, 4, "another machine stands under its name, and it is taken for the same");
        let sure = like.proof > 0 && like.against == 0;
        self.require(sure || !self.like_another(machine), 4, "its hardware is that of another machine, and it is taken for the same");
    }

    /// A machine that is known by another name until now.
    pub(super) fn rename(&mut self, from: &MachineName) {
        self.require(self.machine.is_some() && self.history.is_none(), 4, "it is renamed and has a history already");
        let earlier = self.input.history.machines.get(from);
        self.require(earlier.is_some_and(|earlier| earlier.open_attempt().is_none()), 4, "the earlier name is unknown or being installed");
        let (Some(earlier), Some(machine)) = (earlier, self.machine) else { return };
        let like = Likeness::of(&stated(machine), &earlier.hardware);
        self.require(like.one_machine(), 4, "it shares no hardware with the earlier name");
        let stays = self.input.fleet.machines.get(from).is_some_and(|other| Likeness::of(&stated(other), &earlier.hardware).one_machine());
        self.require(!stays, 4, "the earlier name is still in the fleet, with its hardware");
    }

    /// A machine that is touched is the one that the journal speaks of, as far as both say.
    pub(super) fn same_machine(&mut self, machine: &Machine, history: &MachineHistory) {
        let like = Likeness::of(&stated(machine), &history.hardware);
        self.require(like.against == 0 || history.open_attempt().is_some(), 4, "the journal knows its name with other hardware");
    }

    /// What is about to be installed is the machine that the journal speaks of.
    pub(super) fn own_history(&mut self, machine: &Machine, history: &MachineHistory) {
        self.require(same_hardware(machine, history), 4, "the journal knows its name with other hardware");
    }
}
