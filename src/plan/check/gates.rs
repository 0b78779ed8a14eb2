//! Law 7's health gates, read anew: nobody is noted as healthy who is not, and nobody fails at a gate before its time.

use super::Reader;
use crate::model::{
    Attempt, AttemptEnd, AttemptId, Evidence, Gate, Machine, MachineHistory, ProbeAnswer, Rung, Seen, SignedDuration, Timestamp,
};

impl Reader<'_, '_> {
    /// "Healthy" is noted.
    pub(super) fn healthy(&mut self, attempt: &AttemptId) {
        let Some(open) = self.history.and_then(MachineHistory::open_attempt).filter(|open| open.id == *attempt) else { return };
        // A machine whose disks are wiped has no system that could call home, and passes no gate.
        if open.generation.is_wipe() {
            return;
        }
        let Some(home) = called_home(open) else {
            return self.require(false, 7, "it is noted as healthy, and did not call home as what was installed");
        };
        let Some(machine) = self.machine else { return };
        for gate in &machine.gates {
            let passes = self.passes(machine, open, home, gate);
            self.require(passes, 7, "it is noted as healthy, and one of its gates does not pass");
        }
    }

    /// An attempt ends well, or fails at a gate.
    pub(super) fn ends(&mut self, attempt: &AttemptId, end: &AttemptEnd) {
        let Some(open) = self.history.and_then(MachineHistory::open_attempt).filter(|open| open.id == *attempt) else { return };
        match end {
            AttemptEnd::Done => self.require(open.reached(Rung::Healthy).is_some(), 7, "it ends well and was not noted as healthy"),
            AttemptEnd::Failed { code, .. } if code.starts_with("gate-") => {
                let gates = self.machine.map_or(&[] as &[Gate], |machine| machine.gates.as_slice());
                let home = called_home(open);
                let over = |gate: &Gate| {
                    let (name, within) = match gate {
                        Gate::Http { within, .. } => ("gate-http", within),
                        Gate::RedfishHealth { within, .. } => ("gate-redfish-health", within),
                        Gate::Reported { within, .. } => ("gate-reported", within),
                        Gate::CalledHome { .. } => return false,
                    };
                    name == code && home.is_some_and(|home| self.input.now.duration_since(home) >= *within)
                };
                let over = gates.iter().any(over);
                self.require(over, 7, "it fails at a gate that it does not have, or before its time");
            }
            AttemptEnd::Failed { .. } | AttemptEnd::Superseded => {}
        }
    }

    fn passes(&self, machine: &Machine, open: &Attempt, home: Timestamp, gate: &Gate) -> bool {
        let fresh = SignedDuration::try_from(self.input.deadlines.fresh).unwrap_or(SignedDuration::MAX);
        let recent = |at: Timestamp| home <= at && self.input.now.duration_since(at) < fresh;
        match gate {
            Gate::CalledHome { .. } => true,
            Gate::Http { url, status, .. } => {
                let probed = self.input.probes.get(&machine.name).into_iter().flatten().find(|(address, _)| *address == url);
                probed.is_some_and(|(_, probed)| recent(probed.at) && probed.answer == ProbeAnswer::Status(*status))
            }
            Gate::RedfishHealth { worst, .. } => self.seen.is_some_and(|seen| {
                let told = seen.identity.known().and_then(|told| told.serial.as_ref());
                let stranger = told.zip(machine.identity.serial.as_ref()).is_some_and(|(a, b)| !a.trim().eq_ignore_ascii_case(b.trim()));
                !stranger && recent(seen.at) && matches!(&seen.health, Seen::Known(health) if *health <= *worst)
            }),
            Gate::Reported { check, .. } => open.checks.get(check).is_some_and(|word| word.ok && word.at >= home),
        }
    }
}

/// When the system that the attempt installed first said so.
fn called_home(open: &Attempt) -> Option<Timestamp> {
    let as_installed = |evidence: &Evidence| matches!(evidence, Evidence::CalledHome { generation, .. } if *generation == open.generation);
    open.evidence.iter().find(|(_, evidence)| as_installed(evidence)).map(|(at, _)| *at)
}
