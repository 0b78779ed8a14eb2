//! Law 12's brake, read anew: whoever is on hold is let alone, and the plan says so.

use super::{Reader, budgets::rollout_of};
use crate::model::{Action, Held, HoldScope, MachineName, MachinePlan, Risk, Rung};

impl Reader<'_, '_> {
    /// Whether somebody holds what is called `name` here, or everything.
    fn is_held(&self, name: &MachineName) -> bool {
        let brake = self.input.brake;
        let group = self.machine.and_then(|machine| rollout_of(self.input.fleet, machine));
        let none = group.is_none() && self.machine.is_some();
        brake.unreadable.is_some()
            || brake.holds.iter().any(|hold| match &hold.scope {
                HoldScope::All => true,
                HoldScope::Machine(held) => held == name,
                HoldScope::Group(held) => group.is_some_and(|own| own.name == *held) || (none && held.as_str() == "default"),
            })
    }

    /// Whether a hold, or one that nobody can read, is on this very name.
    fn is_held_by_name(&self, name: &MachineName) -> bool {
        let brake = self.input.brake;
        brake.unreadable.is_some() || brake.holds.iter().any(|hold| hold.scope == HoldScope::Machine(name.clone()))
    }

    /// Nothing is begun on a machine that is on hold, under its name or the one before.
    pub(super) fn brake(&mut self, part: &MachinePlan) {
        for step in &part.steps {
            let lets_alone = step.risk() == Risk::None && !matches!(step.action, Action::BeginAttempt { .. });
            self.require(lets_alone || !self.is_held(self.name), 12, "it is on hold, and something is begun on it");
            let stays = match &step.action {
                Action::Rename { from } => !self.is_held_by_name(from) && !self.is_held_by_name(self.name),
                Action::Release => !self.is_held_by_name(self.name),
                _ => true,
            };
            self.require(stays, 12, "it is on hold by its name, and loses it");
        }
        if !self.is_held(self.name) {
            return;
        }
        let said = part.held.iter().any(|held| matches!(held, Held::OnHold { .. } | Held::BrakeUnreadable { .. }));
        self.require(said, 0, "it is on hold, and its entry does not say so");
        // An agent that has a ticket may ask for leave to write. One that has it already is let finish.
        let open = self.history.and_then(|history| history.open_attempt());
        let wrote = open.is_some_and(|open| open.reached(Rung::Writing).is_some());
        let ends = part.steps.iter().any(|step| matches!(step.action, Action::EndAttempt { .. }));
        self.require(part.ticket.is_none() || wrote || ends, 9, "it is on hold, and its ticket would let it write");
    }
}
