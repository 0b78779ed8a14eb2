//! Power: what an order does in which state, and the task that carries it out.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Activity, Machine};
use crate::{
    model::PowerState,
    sim::{config::std_duration, fault::Fault},
};

/// `ResetType` of `ComputerSystem.Reset` (DSP0268), as far as these BMCs offer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetKind {
    On,
    ForceOff,
    GracefulShutdown,
    ForceRestart,
    GracefulRestart,
    PowerCycle,
    PushPowerButton,
    Nmi,
}

impl ResetKind {
    pub(crate) const ALL: [ResetKind; 8] = [
        ResetKind::On,
        ResetKind::ForceOff,
        ResetKind::GracefulShutdown,
        ResetKind::ForceRestart,
        ResetKind::GracefulRestart,
        ResetKind::PowerCycle,
        ResetKind::PushPowerButton,
        ResetKind::Nmi,
    ];
}

/// An order that makes no sense now (409).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) power: PowerState,
}

/// What an order comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Nothing,
    Refuse,
    /// Off, after the system shut down if that is asked for.
    Off {
        graceful: bool,
    },
    On,
    OffThenOn,
    /// From POST again, without losing power.
    Restart,
}

/// Total over order and state. An order for the state that is there already is no error, as on most BMCs; one in the middle of a
/// change the other way is refused, as on iDRAC.
fn course(kind: ResetKind, power: PowerState) -> Course {
    use PowerState::{Off, On, Paused, PoweringOff, PoweringOn};
    match (kind, power) {
        (ResetKind::On, Off) | (ResetKind::PowerCycle, Off) | (ResetKind::PushPowerButton, Off) => Course::On,
        (ResetKind::On, On | PoweringOn | Paused) => Course::Nothing,
        (ResetKind::ForceOff | ResetKind::GracefulShutdown, Off | PoweringOff) => Course::Nothing,
        (ResetKind::ForceOff, On | PoweringOn | Paused) => Course::Off { graceful: false },
        (ResetKind::GracefulShutdown | ResetKind::PushPowerButton, On | PoweringOn | Paused) => Course::Off { graceful: true },
        (ResetKind::ForceRestart | ResetKind::GracefulRestart, On | PoweringOn | Paused) => Course::Restart,
        (ResetKind::PowerCycle, On | PoweringOn | Paused) => Course::OffThenOn,
        (ResetKind::Nmi, On | Paused) => Course::Nothing,
        (ResetKind::ForceRestart | ResetKind::GracefulRestart | ResetKind::Nmi, Off) => Course::Refuse,
        (ResetKind::On | ResetKind::PowerCycle | ResetKind::PushPowerButton, PoweringOff) => Course::Refuse,
        (ResetKind::ForceRestart | ResetKind::GracefulRestart, PoweringOff) => Course::Refuse,
        (ResetKind::Nmi, PoweringOn | PoweringOff) => Course::Refuse,
    }
}

impl Machine {
    /// Takes an order from the BMC. Returns at once; power follows with a lag.
    pub(crate) fn reset(self: &Arc<Self>, kind: ResetKind) -> Result<(), Refused> {
        let power = self.state().power;
        let course = course(kind, power);
        if course == Course::Refuse {
            return Err(Refused { power });
        }
        if course != Course::Nothing && self.faults.strikes(Fault::PowerStuck) {
            info!(machine = %self.config.name, ?kind, "fault power-stuck: the order is taken and has no effect");
            return Ok(());
        }
        self.follow(course);
        Ok(())
    }

    /// Somebody at the rack: no lag, no fault, no refusal.
    pub(crate) fn pull_plug(&self) {
        self.cut();
        self.set_power(PowerState::Off, Activity::Off);
    }

    /// The state at the simulator's start: no boot override is used up, no lag.
    pub(crate) fn begin(self: &Arc<Self>) {
        match (self.config.power, &self.config.vm) {
            (PowerState::On, Some(_)) => self.follow(Course::On),
            (PowerState::On, None) => self.set_power(PowerState::On, Activity::Running),
            _ => {}
        }
    }

    /// Ends what runs; the simulator stops.
    pub(crate) fn cut(&self) {
        self.lock().rail.cancel();
    }

    fn follow(self: &Arc<Self>, course: Course) {
        let lag = std_duration(self.pace.power_lag);
        let (off_after, then_on) = match course {
            Course::Nothing | Course::Refuse => return,
            Course::Off { graceful: false } => (Some(lag), false),
            // A real guest decides itself, as on hardware; its end is what changes the power state.
            Course::Off { graceful: true } if self.config.vm.is_some() => return self.vm.press_button(),
            Course::Off { graceful: true } => (Some(lag + std_duration(self.pace.shutdown)), false),
            Course::OffThenOn => (Some(lag), true),
            Course::On => (None, true),
            Course::Restart => {
                let rail = self.new_rail();
                self.set_power(PowerState::On, Activity::Post);
                return self.spawn(rail.clone(), Arc::clone(self).run(rail));
            }
        };
        let rail = self.new_rail();
        self.set_power(if off_after.is_some() { PowerState::PoweringOff } else { PowerState::PoweringOn }, Activity::Off);
        self.spawn(rail.clone(), Arc::clone(self).change_power(rail, off_after, then_on));
    }

    async fn change_power(self: Arc<Self>, rail: CancellationToken, off_after: Option<Duration>, then_on: bool) {
        if let Some(lag) = off_after {
            tokio::time::sleep(lag).await;
            self.set_power(PowerState::Off, Activity::Off);
        }
        if then_on {
            self.set_power(PowerState::PoweringOn, Activity::Off);
            tokio::time::sleep(std_duration(self.pace.power_lag)).await;
            self.set_power(PowerState::On, Activity::Post);
            self.run(rail).await;
        }
    }

    /// Ends what ran until now and gives the rail of what comes next.
    fn new_rail(&self) -> CancellationToken {
        let rail = CancellationToken::new();
        self.change(|state| std::mem::replace(&mut state.rail, rail.clone()).cancel());
        rail
    }

    fn spawn(&self, rail: CancellationToken, life: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = rail.cancelled() => {}
                () = life => {}
            }
        });
    }

    pub(super) fn set_power(&self, power: PowerState, activity: Activity) {
        let before = self.state();
        if (before.power, before.activity) == (power, activity) {
            return;
        }
        info!(machine = %self.config.name, %power, ?activity, "power");
        self.change(|state| {
            state.power = power;
            state.activity = activity;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_for_the_state_that_is_there_is_no_error() {
        assert_eq!(course(ResetKind::On, PowerState::On), Course::Nothing);
        assert_eq!(course(ResetKind::ForceOff, PowerState::Off), Course::Nothing);
        assert_eq!(course(ResetKind::GracefulShutdown, PowerState::PoweringOff), Course::Nothing);
    }

    #[test]
    fn an_order_against_a_change_under_way_is_refused() {
        assert_eq!(course(ResetKind::On, PowerState::PoweringOff), Course::Refuse);
        assert_eq!(course(ResetKind::ForceRestart, PowerState::Off), Course::Refuse);
        assert_eq!(course(ResetKind::ForceOff, PowerState::PoweringOn), Course::Off { graceful: false });
    }
}
