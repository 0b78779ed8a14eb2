//! One install of one machine, from "begun" to "ended": the only thing that spans turns.
//!
//! **Scope.** [`Reimage`] names what an attempt has reached, which is also what it now waits for. It is rebuilt each turn from the
//! attempt's facts ([`Reimage::of`]); no phase is stored anywhere. [`next`] is total: for every state and every observation it
//! says what to do, or what is waited for and until when. `docs/reimage.md` shows it as a diagram that a test draws from this code.
//!
//! **Rules.** Rungs may be skipped and may come late; a rung implies those below it, except that nothing implies *written*: what a
//! machine says after a boot from disk counts only after its disk was written under this attempt. A newer commit that wants
//! something else ends an attempt at once while no byte was written; from *writing* on the attempt is let finish until *written*,
//! because a half-written disk is worth less than an old one, and the new generation is planned after that.
//!
//! A wipe climbs the same ladder up to *written*, which is then *wiped and read back*; from there it waits for the machine to be off.
//!
//! **Non-goals.** Whether an attempt may begin: that is [`super::plan`]. Who sees evidence: the boot server.

use super::{
    deadlines::{Deadlines, after},
    gates::{self, GateState},
    waits::{deadline, last_failure, late, own_last, rests_until, waiting_for},
};
use crate::model::{
    Action, Attempt, AttemptEnd, BootMode, Evidence, Generation, Outcome, PowerState, Rung, Seen, Step, Timestamp, Waiting,
};

/// What an attempt has reached, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reimage {
    /// Journaled. Waits for its ticket to be served.
    Begun {
        /// Since when.
        since: Timestamp,
    },
    /// The boot server serves its ticket. Waits for the machine to be off and its next boot to be set.
    TicketArmed {
        /// Since when.
        since: Timestamp,
    },
    /// The next boot is from the network. Waits for the machine to be on.
    BootSet {
        /// Since when.
        since: Timestamp,
    },
    /// It was seen on. Waits for its firmware to ask for an address.
    PowerSeen {
        /// Since when.
        since: Timestamp,
    },
    /// Its firmware asked. Waits for it to fetch a loader.
    DhcpSeen {
        /// Since when.
        since: Timestamp,
    },
    /// It fetched a loader. Waits for the agent.
    LoaderFetched {
        /// Since when.
        since: Timestamp,
    },
    /// The agent spoke. Waits for it to choose a disk.
    AgentUp {
        /// Since when.
        since: Timestamp,
    },
    /// The agent writes; the old content is gone. Waits for it to finish.
    Writing {
        /// Since when.
        since: Timestamp,
    },
    /// Written, read back, equal. Waits for the machine to leave the network boot behind.
    Written {
        /// Since when.
        since: Timestamp,
    },
    /// It booted from its disk. Waits for the installed system.
    BootedFromDisk {
        /// Since when.
        since: Timestamp,
    },
    /// The installed system said what it is. Waits for the machine's health gates, if it has any.
    CalledHome {
        /// Since when.
        since: Timestamp,
        /// What it says it is.
        generation: Generation,
    },
    /// It is what it should be.
    Healthy,
    /// Over.
    Ended {
        /// How.
        end: AttemptEnd,
    },
}

impl Reimage {
    /// What an attempt's facts say it has reached.
    pub fn of(attempt: &Attempt) -> Self {
        if let Some((_, end)) = &attempt.end {
            return Reimage::Ended { end: end.clone() };
        }
        let begun = Reimage::Begun { since: attempt.began };
        attempt.evidence.iter().fold(begun, |state, (at, evidence)| state.saw(*at, evidence))
    }

    /// The state after one piece of evidence. Evidence of a rung that is passed already changes nothing.
    #[must_use]
    pub fn saw(self, at: Timestamp, evidence: &Evidence) -> Self {
        let since = at;
        let reached = match evidence {
            Evidence::TicketArmed => Reimage::TicketArmed { since },
            Evidence::BootSet => Reimage::BootSet { since },
            Evidence::PowerSeen => Reimage::PowerSeen { since },
            Evidence::DhcpSeen => Reimage::DhcpSeen { since },
            Evidence::LoaderFetched => Reimage::LoaderFetched { since },
            Evidence::AgentUp { .. } => Reimage::AgentUp { since },
            Evidence::Writing { .. } | Evidence::Wiping { .. } => Reimage::Writing { since },
            Evidence::Written { .. } | Evidence::Wiped { .. } => Reimage::Written { since },
            // An old system on the disk says the same things; they count only for what this attempt wrote.
            Evidence::BootedFromDisk | Evidence::CalledHome { .. } | Evidence::Healthy if self.rung() < Some(Rung::Written) => return self,
            Evidence::BootedFromDisk => Reimage::BootedFromDisk { since },
            Evidence::CalledHome { generation, .. } => Reimage::CalledHome { since, generation: *generation },
            Evidence::Healthy => Reimage::Healthy,
        };
        if reached.rung() > self.rung() { reached } else { self }
    }

    /// The last rung reached; `None` before the first.
    pub fn rung(&self) -> Option<Rung> {
        match self {
            Reimage::Begun { .. } => None,
            Reimage::TicketArmed { .. } => Some(Rung::TicketArmed),
            Reimage::BootSet { .. } => Some(Rung::BootSet),
            Reimage::PowerSeen { .. } => Some(Rung::PowerSeen),
            Reimage::DhcpSeen { .. } => Some(Rung::DhcpSeen),
            Reimage::LoaderFetched { .. } => Some(Rung::LoaderFetched),
            Reimage::AgentUp { .. } => Some(Rung::AgentUp),
            Reimage::Writing { .. } => Some(Rung::Writing),
            Reimage::Written { .. } => Some(Rung::Written),
            Reimage::BootedFromDisk { .. } => Some(Rung::BootedFromDisk),
            Reimage::CalledHome { .. } => Some(Rung::CalledHome),
            Reimage::Healthy | Reimage::Ended { .. } => Some(Rung::Healthy),
        }
    }

    /// Since when it is in this state, where that matters.
    pub fn since(&self) -> Option<Timestamp> {
        match self {
            Reimage::Begun { since }
            | Reimage::TicketArmed { since }
            | Reimage::BootSet { since }
            | Reimage::PowerSeen { since }
            | Reimage::DhcpSeen { since }
            | Reimage::LoaderFetched { since }
            | Reimage::AgentUp { since }
            | Reimage::Writing { since }
            | Reimage::Written { since }
            | Reimage::BootedFromDisk { since }
            | Reimage::CalledHome { since, .. } => Some(*since),
            Reimage::Healthy | Reimage::Ended { .. } => None,
        }
    }
}

/// What [`next`] needs to know beside state and observation.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The attempt.
    pub attempt: &'a Attempt,
    /// Whether the commit in force still wants what the attempt installs.
    pub wanted: bool,
    /// The last step of this machine that ended.
    pub last: Option<&'a (Timestamp, Step, Outcome)>,
    /// The last sign of life that is not evidence: the agent's progress, or the controller's own start. Waits count from it.
    pub alive: Option<Timestamp>,
    /// Why nobody may lay a hand on the machine now: suspended, not observed, not the machine that is meant.
    pub hands_off: Option<&'a str>,
    /// Firmware interface for the network boot.
    pub mode: BootMode,
    /// The health gates of the machine, as they stand.
    pub gates: &'a [GateState],
    /// How long each wait may take.
    pub deadlines: &'a Deadlines,
}

/// What is to be done for an attempt now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The state, if the action (if any) is done.
    pub state: Reimage,
    /// At most one action.
    pub action: Option<Action>,
    /// What is waited for, where there is nothing to do.
    pub waiting: Option<Waiting>,
}

/// One turn of an attempt. `power` is what was seen after the last command and after the state was reached; anything older must be
/// given as unknown.
///
/// Guarantees: at most one action; no power command unless `power` is known and `hands_off` is empty; an attempt that has reached
/// *writing* is never powered off, unless it is a wipe that has reached *written*, and never told to boot from the network again.
pub fn next(now: Timestamp, state: &Reimage, power: &Seen<PowerState>, facts: &Facts<'_>) -> Next {
    if let Some(end) = verdict(now, state, facts) {
        return conclude(facts, end);
    }
    let here = Here { now, state, facts };
    match state {
        Reimage::Begun { .. } => here.witness(Rung::TicketArmed, Reimage::TicketArmed { since: now }),
        Reimage::TicketArmed { .. } => match power {
            Seen::Known(PowerState::On) => here.switch_off(),
            Seen::Known(PowerState::Off) => match here.done() {
                Some((_, Action::BootFromNetwork { .. })) => here.witness(Rung::BootSet, Reimage::BootSet { since: now }),
                Some(_) | None => here.command(Action::BootFromNetwork { mode: facts.mode }),
            },
            Seen::Known(PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Paused) | Seen::Unknown(_) => here.wait(),
        },
        Reimage::BootSet { .. } => match power {
            Seen::Known(PowerState::On) => here.witness(Rung::PowerSeen, Reimage::PowerSeen { since: now }),
            Seen::Known(PowerState::Off) => here.switch_on(true),
            Seen::Known(PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Paused) | Seen::Unknown(_) => here.wait(),
        },
        Reimage::PowerSeen { since } | Reimage::DhcpSeen { since } | Reimage::LoaderFetched { since } | Reimage::AgentUp { since } => {
            match power {
                // Some firmware switches itself off once more to apply settings; a BMC may also lag behind what the wire told.
                Seen::Known(PowerState::Off) if now >= after(*since, facts.deadlines.power_lag) => here.switch_on(false),
                Seen::Known(_) | Seen::Unknown(_) => here.wait(),
            }
        }
        Reimage::Writing { .. } => here.wait(),
        Reimage::Written { since } | Reimage::BootedFromDisk { since } if facts.attempt.generation.is_wipe() => match power {
            Seen::Known(PowerState::Off) => here.witness(Rung::Healthy, Reimage::Healthy),
            // Our agent switches itself off; it has no ear for a polite order.
            Seen::Known(PowerState::On) if now >= after(*since, facts.deadlines.power_lag) => here.switch_off_for_good(),
            Seen::Known(_) | Seen::Unknown(_) => here.wait(),
        },
        Reimage::Written { since } | Reimage::BootedFromDisk { since } => match power {
            Seen::Known(PowerState::Off) if now >= after(*since, facts.deadlines.power_lag) => here.start_from_disk(),
            Seen::Known(_) | Seen::Unknown(_) => here.wait(),
        },
        Reimage::CalledHome { .. } if gates::pass(facts) => here.witness(Rung::Healthy, Reimage::Healthy),
        Reimage::CalledHome { .. } => here.wait(),
        Reimage::Healthy => conclude(facts, AttemptEnd::Done),
        Reimage::Ended { .. } => Next { state: state.clone(), action: None, waiting: None },
    }
}

/// Whether the attempt is over, whatever the machine looks like now.
fn verdict(now: Timestamp, state: &Reimage, facts: &Facts<'_>) -> Option<AttemptEnd> {
    if matches!(state, Reimage::Ended { .. }) {
        return None;
    }
    if let Some((_, end)) = &facts.attempt.reported {
        return Some(end.clone());
    }
    if let Reimage::CalledHome { generation, .. } = state
        && *generation != facts.attempt.generation
    {
        let why = format!("the system says it is {generation}, installed was {}", facts.attempt.generation);
        return Some(failed("wrong-generation", why, false));
    }
    if !facts.wanted && may_be_superseded(state, facts) {
        return Some(AttemptEnd::Superseded);
    }
    let (deadline, code, retry) = deadline(state, facts)?;
    (now >= deadline).then(|| failed(code, late(state, facts), retry))
}

/// Whether nothing is lost when the attempt ends here: before the first byte, and again once the disk is whole.
fn may_be_superseded(state: &Reimage, facts: &Facts<'_>) -> bool {
    match state {
        Reimage::CalledHome { .. } => !gates::pass(facts),
        Reimage::Begun { .. }
        | Reimage::TicketArmed { .. }
        | Reimage::BootSet { .. }
        | Reimage::PowerSeen { .. }
        | Reimage::DhcpSeen { .. }
        | Reimage::LoaderFetched { .. }
        | Reimage::AgentUp { .. }
        | Reimage::Written { .. }
        | Reimage::BootedFromDisk { .. } => true,
        Reimage::Writing { .. } | Reimage::Healthy | Reimage::Ended { .. } => false,
    }
}

fn failed(code: &str, why: String, retry: bool) -> AttemptEnd {
    AttemptEnd::Failed { code: code.to_owned(), why, retry }
}

fn conclude(facts: &Facts<'_>, end: AttemptEnd) -> Next {
    let action = Action::EndAttempt { attempt: facts.attempt.id.clone(), end: end.clone() };
    Next { state: Reimage::Ended { end }, action: Some(action), waiting: None }
}

/// The place in an attempt from which an action is chosen.
struct Here<'a> {
    now: Timestamp,
    state: &'a Reimage,
    facts: &'a Facts<'a>,
}

impl Here<'_> {
    /// The last step of this attempt, if it was done.
    fn done(&self) -> Option<(Timestamp, &Action)> {
        own_last(self.facts).filter(|(_, _, outcome)| *outcome == Outcome::Done).map(|(at, step, _)| (*at, &step.action))
    }

    fn switch_off(&self) -> Next {
        let limits = self.facts.deadlines;
        match self.done() {
            Some((at, Action::PowerOff { force: false })) if self.now < after(at, limits.shutdown) => self.wait(),
            Some((_, Action::PowerOff { force: false })) => self.command(Action::PowerOff { force: true }),
            Some((at, Action::PowerOff { force: true })) if self.now < after(at, limits.power_lag) => self.wait(),
            Some((_, Action::PowerOff { force: true })) => self.command(Action::PowerOff { force: true }),
            Some(_) | None => self.command(Action::PowerOff { force: false }),
        }
    }

    /// Network boot of a machine that is off. The override is for one boot, so it is set again before each further power-on.
    fn switch_on(&self, boot_is_set: bool) -> Next {
        match self.done() {
            Some((at, Action::PowerOn)) if self.now < after(at, self.facts.deadlines.power_lag) => self.wait(),
            Some((_, Action::BootFromNetwork { .. })) => self.command(Action::PowerOn),
            Some((_, Action::PowerOn)) => self.command(Action::BootFromNetwork { mode: self.facts.mode }),
            Some(_) | None if boot_is_set => self.command(Action::PowerOn),
            Some(_) | None => self.command(Action::BootFromNetwork { mode: self.facts.mode }),
        }
    }

    fn start_from_disk(&self) -> Next {
        match self.done() {
            Some((at, Action::PowerOn)) if self.now < after(at, self.facts.deadlines.power_lag) => self.wait(),
            Some(_) | None => self.command(Action::PowerOn),
        }
    }

    /// A machine whose disks are wiped.
    fn switch_off_for_good(&self) -> Next {
        match self.done() {
            Some((at, Action::PowerOff { .. })) if self.now < after(at, self.facts.deadlines.power_lag) => self.wait(),
            Some(_) | None => self.command(Action::PowerOff { force: true }),
        }
    }

    fn witness(&self, rung: Rung, state: Reimage) -> Next {
        let attempt = self.facts.attempt.id.clone();
        Next { state, action: Some(Action::Witness { attempt, rung }), waiting: None }
    }

    /// A command to the BMC, unless nobody may touch the machine or the last command failed just now.
    fn command(&self, action: Action) -> Next {
        let resting = own_last(self.facts).and_then(|last| rests_until(last, self.facts.deadlines)).is_some_and(|until| self.now < until);
        if self.facts.hands_off.is_some() || resting {
            return self.wait();
        }
        Next { state: self.state.clone(), action: Some(action), waiting: None }
    }

    fn wait(&self) -> Next {
        let why = waiting_for(self.state, self.facts);
        let why = match self.facts.hands_off {
            Some(tied) if self.state.rung() < Some(Rung::CalledHome) => format!("{why}, but {tied}"),
            Some(_) | None => why,
        };
        let why = why + &last_failure(self.facts);
        let until = deadline(self.state, self.facts).map(|(until, _, _)| until);
        Next { state: self.state.clone(), action: None, waiting: Some(Waiting { why, until }) }
    }
}
