//! What is put right without a commit, read anew: only what the Fleet allows to be, only what can't destroy, and not for ever.

use super::Reader;
use crate::model::{Action, DriftPolicy, Reason, Rung, Step};

impl Reader<'_, '_> {
    /// A step that corrects drift.
    pub(super) fn correction(&mut self, step: &Step) {
        let policies = &self.input.fleet.settings.drift;
        let policy = match &step.reason {
            Reason::PowerDrift { .. } => policies.power,
            Reason::BootDrift { .. } => policies.boot,
            _ if step.action == Action::ClearBootOverride => {
                return self.require(false, 1, "a boot override is taken back and no drift is named");
            }
            _ => return,
        };
        self.require(policy == DriftPolicy::Correct, 1, "drift is put right that the Fleet says to let be");
        let fits = match &step.reason {
            Reason::PowerDrift { .. } if step.action == (Action::PowerOff { force: true }) => self.is_wiped_for_good(),
            Reason::PowerDrift { .. } => matches!(step.action, Action::PowerOn | Action::PowerOff { force: false }),
            _ => step.action == Action::ClearBootOverride,
        };
        self.require(fits, 1, "more is done about drift than puts it right");
        let Some(history) = self.history else { return };
        let mut times = 0;
        for (at, action) in history.corrections.iter().rev() {
            let power = |action: &Action| matches!(action, Action::PowerOn | Action::PowerOff { .. });
            if action == &step.action {
                times += u32::from(self.input.now.duration_since(*at) < policies.damping.within);
            } else if power(action) && power(&step.action) {
                break;
            }
        }
        self.require(times < policies.damping.corrections, 7, "it is put right more often than the Fleet allows");
    }

    /// A boot override that is taken back.
    pub(super) fn clear_boot_override(&mut self) {
        let Some(history) = self.history else { return };
        self.require(history.open_attempt().is_none(), 10, "its boot override is taken back while it is installed");
        let shown = self.seen.and_then(|seen| seen.boot_override.known());
        let ours =
            history.attempts.last().is_some_and(|last| last.reached(Rung::BootSet).is_some() && last.reached(Rung::Writing).is_none());
        let stays = shown.is_some_and(|shown| {
            let (target, enabled) = (shown.target.to_lowercase(), shown.enabled.to_lowercase());
            target != "none" && (enabled == "continuous" || (enabled == "once" && target == "pxe" && ours))
        });
        self.require(stays, 1, "a boot override is taken back that ends by itself, or was not seen");
    }
}
