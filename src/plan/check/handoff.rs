//! Handed values, read anew: from the rendered text and the journal alone. Nobody is installed with a value of a system that is gone.

use super::Reader;
use crate::model::{AttemptEnd, Machine, MachineHistory, MachinePlan, OnConfigChange, Rung};

impl Reader<'_, '_> {
    /// What the text that goes on the disk has markers for, as publisher and name. `None`: a marker that nobody can read.
    fn wanted(&self) -> Option<Vec<(String, String)>> {
        let text = self.machine.and_then(|machine| machine.install.as_ref()?.user_data.as_deref()).unwrap_or_default();
        text.split('\u{FDD0}').skip(1).try_fold(Vec::new(), |mut all, rest| {
            let words: Vec<&str> = rest.split('\u{FDD1}').next()?.split([' ', '<', '>']).filter(|word| !word.is_empty()).collect();
            let ["handoff", from, name] = words[..] else { return None };
            all.push((from.to_owned(), name.to_owned()));
            Some(all)
        })
    }

    /// Whether a value is there, said before the record `before` by the system that the commit wants on its publisher's disk.
    fn is_there(&self, from: &str, name: &str, before: u64) -> bool {
        let declared = self.input.fleet.machines.iter().find(|(own, _)| own.as_str() == from).map(|(_, machine)| machine);
        let known = self.input.history.machines.iter().find(|(own, _)| own.as_str() == from).map(|(_, known)| known);
        let (Some(declared), Some(known)) = (declared, known) else { return false };
        let may = declared.handoffs.publishes.iter().any(|own| own.as_str() == name);
        let generation = declared.install.as_ref().map(|install| install.generation);
        let Some(said) = known.published.iter().find(|(own, _)| own.as_str() == name).map(|(_, said)| said) else { return false };
        let as_declared = generation.is_some() && known.installed == generation;
        let holds = (as_declared || self.but_for_configuration(declared, known)) && wrote_it(known, said.attempt.number);
        may && holds && said.lost.is_none() && said.seq < before && known.attempts.iter().all(|attempt| attempt.end.is_some())
    }

    /// Whether a disk lacks only configuration that is left to the next install.
    fn but_for_configuration(&self, declared: &Machine, known: &MachineHistory) -> bool {
        let (Some(install), Some(installed)) = (&declared.install, known.installed) else { return false };
        let former = self.input.former.and_then(|former| former.machines.get(&declared.name)).and_then(|former| former.install.as_ref());
        let basis = known.basis.or(former.filter(|former| former.generation == installed).map(|former| former.basis()));
        let waits = declared.upkeep.on_config_change == OnConfigChange::NextInstall && basis == Some(install.basis());
        waits || known.deferred == Some((installed, install.generation))
    }

    /// Nothing begins, and no ticket lets write, without each value.
    pub(super) fn handoffs(&mut self, part: &MachinePlan) {
        let begins = part.steps.iter().any(|step| matches!(step.action, crate::model::Action::BeginAttempt { .. }));
        if !begins && part.ticket.is_none() {
            return;
        }
        let open = self.history.and_then(MachineHistory::open_attempt);
        let wrote = open.is_some_and(|open| open.reached(Rung::Writing).is_some());
        let ends = part.steps.iter().any(|step| matches!(step.action, crate::model::Action::EndAttempt { .. }));
        let before = open.map_or(u64::MAX, |open| open.seq);
        let there = self.wanted().is_some_and(|wanted| wanted.iter().all(|(from, name)| self.is_there(from, name, before)));
        self.require(there || !begins, 9, "it would be installed without a value that its template uses");
        self.require(
            there || part.ticket.is_none() || wrote || ends,
            9,
            "its ticket would let it be installed without a value that it uses",
        );
    }
}

/// Whether the last attempt that began to write is this one, and came to an end that is none of failure. Where no attempt is known,
/// what is installed is taken to be what said it.
fn wrote_it(known: &MachineHistory, number: u32) -> bool {
    let mut wrote = known.attempts.iter().filter(|attempt| attempt.reached(Rung::Writing).is_some());
    let Some(last) = wrote.next_back() else { return true };
    let well = matches!(last.end, Some((_, AttemptEnd::Done | AttemptEnd::Superseded)));
    last.id.number == number && well && last.reached(Rung::Written).is_some()
}
