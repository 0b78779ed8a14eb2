//! Law 1 where a manifest says that configuration alone does not reinstall, read anew.

use super::Reader;
use crate::model::{Attempt, AttemptEnd, Basis, Generation, Machine, MachineHistory, OnConfigChange, Rung};

/// Whether a machine whose disk holds another generation than declared may be as it should all the same.
pub(super) fn may_wait(machine: &Machine, history: &MachineHistory) -> bool {
    let (Some(install), Some(installed)) = (&machine.install, history.installed) else { return false };
    let same = history.basis.is_none_or(|basis| basis == install.basis());
    (machine.upkeep.on_config_change == OnConfigChange::NextInstall && same) || history.deferred == Some((installed, install.generation))
}

impl Reader<'_, '_> {
    /// All that is said anywhere of what in this generation is not configuration.
    fn said_of(&self, history: &MachineHistory, generation: Generation) -> Vec<Basis> {
        let former = self.input.former.and_then(|former| former.machines.get(self.name)).map(AsRef::as_ref);
        let manifests = [self.machine, former].into_iter().flatten().filter_map(|machine| machine.install.as_ref());
        let declared = manifests.filter(|install| install.generation == generation).map(|install| install.basis());
        let writes = history.open_attempt().filter(|open| open.generation == generation).and_then(|open| open.basis);
        declared.chain(writes).chain(history.basis.filter(|_| history.installed == Some(generation))).collect()
    }

    /// More than configuration is known to differ, or the disk holds what an install left that did not come to its end.
    pub(super) fn more_than_configuration(&mut self, machine: &Machine, history: &MachineHistory) {
        let (Some(install), Some(installed)) = (&machine.install, history.installed) else { return };
        let next_install = machine.upkeep.on_config_change == OnConfigChange::NextInstall;
        let let_pass = history.deferred == Some((installed, install.generation));
        // What is wiped waits for nothing.
        if (!next_install && !let_pass) || installed.is_wipe() {
            return;
        }
        let writes = |attempt: &&Attempt| attempt.evidence.iter().any(|(_, seen)| matches!(seen.rung(), Rung::Writing | Rung::Written));
        let last = history.attempts.iter().rev().find(writes);
        let broken = last.is_some_and(|last| matches!(last.end, Some((_, AttemptEnd::Failed { .. }))));
        let said = self.said_of(history, installed);
        let differs = !said.is_empty() && said.iter().all(|basis| *basis != install.basis());
        let what = "nobody knows of more than its configuration that differs, and it is to be installed";
        self.require(broken || (differs && !let_pass), 1, what);
    }

    /// What is noted of a disk's configuration.
    pub(super) fn configuration(&mut self, installed: Generation, basis: Basis, deferred: Option<Generation>) {
        let (Some(machine), Some(history)) = (self.machine, self.history) else {
            return self.require(false, 3, "it is not a machine of both fleet and journal, and its configuration is noted");
        };
        let open = history.open_attempt().filter(|open| open.generation == installed && open.reached(Rung::Writing).is_some());
        let there = history.installed == Some(installed) || open.is_some();
        self.require(there, 11, "its disk holds another generation than is noted");
        let said = self.said_of(history, installed);
        self.require(
            !said.is_empty() && said.iter().all(|known| *known == basis),
            11,
            "what is noted of its disk is not what was installed",
        );
        let declared = machine.install.as_ref().filter(|_| machine.upkeep.on_config_change == OnConfigChange::NextInstall);
        if deferred.is_some() {
            let waits = declared.is_some_and(|install| Some(install.generation) == deferred && install.basis() == basis);
            self.require(waits, 1, "more than configuration is left to the next install");
        }
    }
}
