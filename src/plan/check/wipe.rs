//! Laws 1, 3 and 6 for machines that are taken out of service, read anew: a wipe is what a manifest orders, on the disks that it names, and a
//! machine is switched off for good only when that is proved.

use super::Reader;
use crate::model::{Attempt, DiskHint, Evidence, Generation, Machine, MachineHistory, Targets, WipeDisks, Work};

/// What a manifest says that disks should be: wiped, if it says so at all.
pub(super) fn declared(machine: &Machine) -> Option<Generation> {
    match (&machine.decommission, &machine.install) {
        (Some(wipe), _) => Some(wipe.generation),
        (None, Some(install)) => Some(install.generation),
        (None, None) => None,
    }
}

fn says_something(hint: &DiskHint) -> bool {
    let texts = [&hint.serial, &hint.wwn, &hint.model, &hint.path];
    texts.iter().any(|text| text.is_some()) || hint.min_size.or(hint.max_size).is_some()
}

/// Whether a manifest orders exactly this, on these disks.
pub(super) fn is_ordered(machine: &Machine, work: &Work) -> bool {
    match (work, &machine.decommission) {
        (Work::Install { system, .. }, None) => machine.disks.system.as_ref() == Some(system),
        (Work::Wipe(order), Some(wipe)) => {
            let same = match (&order.targets, &wipe.disks) {
                (Targets::All, WipeDisks::All) => true,
                (Targets::Each(hints), WipeDisks::These(stated)) => hints == stated,
                (Targets::Each(hints), WipeDisks::System) => hints.len() == 1 && hints.first() == machine.disks.system.as_ref(),
                _ => false,
            };
            same && order.method == wipe.method && order.generation == wipe.generation
        }
        (Work::Install { .. }, Some(_)) | (Work::Wipe(_), None) => false,
    }
}

fn proofs(attempt: &Attempt) -> usize {
    let of = |evidence: &Evidence| if let Evidence::Wiped { proof } = evidence { proof.len() } else { 0 };
    attempt.evidence.iter().map(|(_, evidence)| of(evidence)).sum()
}

impl Reader<'_, '_> {
    /// Whether what begins is a wipe, which the manifest must order, with disks that it names.
    pub(super) fn wipes(&mut self, machine: &Machine, generation: Generation) -> bool {
        let Some(wipe) = &machine.decommission else {
            self.require(!generation.is_wipe(), 3, "it is wiped, and its manifest does not say decommission");
            return false;
        };
        self.require(generation.is_wipe(), 3, "its manifest says decommission, and something is installed");
        let stated = match &wipe.disks {
            WipeDisks::All => true,
            WipeDisks::System => machine.disks.system.as_ref().is_some_and(says_something),
            WipeDisks::These(hints) => !hints.is_empty() && hints.iter().all(says_something),
        };
        self.require(stated, 6, "it is wiped, and a disk that is meant is not stated");
        generation.is_wipe()
    }

    /// Whether its open attempt is a wipe that was proved: nothing is written any more.
    pub(super) fn has_proved_its_wipe(&self) -> bool {
        let open = self.history.and_then(MachineHistory::open_attempt);
        open.is_some_and(|open| open.generation.is_wipe() && proofs(open) > 0)
    }

    /// Whether what its manifest orders was done and proved, and nothing was written since.
    pub(super) fn is_wiped_for_good(&self) -> bool {
        let (Some(machine), Some(history)) = (self.machine, self.history) else { return false };
        machine.decommission.as_ref().is_some_and(|wipe| {
            let proved = history.attempts.iter().any(|attempt| attempt.generation == wipe.generation && proofs(attempt) > 0);
            proved && history.installed == Some(wipe.generation)
        })
    }

    /// A machine that is to be wiped runs until then.
    pub(super) fn stays_until_it_is_wiped(&mut self, machine: &Machine) {
        let stays = machine.decommission.is_some() && !self.is_wiped_for_good();
        self.require(!stays, 3, "it is switched off for good, and nothing proves that it was wiped");
    }
}
