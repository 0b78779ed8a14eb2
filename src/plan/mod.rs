//! Fleet × Observation × History × now → Plan. Pure: no clock, no I/O, no state of its own.
//!
//! **Scope.** [`plan`] says for every machine what is to be done now, why, at what risk, and what is *not* done, and why. [`check`]
//! is a second program that reads a finished plan against the law and shares no code with the first. [`reimage`] is the one
//! thing that spans turns.
//!
//! **Order.** Installs take their places by group, then rack, then name, so that the same input gives the same plan.
//!
//! **Non-goals.** Executing. Reading manifests. Asking BMCs.

mod check;
mod deadlines;
mod groups;
mod identity;
mod machine;
mod power;
pub mod reimage;
mod render;
mod waits;
mod wish;

use std::collections::{BTreeMap, BTreeSet};

pub use check::{Violation, check};
pub use deadlines::*;
pub use identity::hardware;
pub use render::{render_machine, render_markdown, render_text};

use crate::model::{
    AttemptEnd, AttemptId, Commit, Fleet, Held, History, Machine, MachineHistory, MachineName, MachinePlan, Observation, OnClaim, Plan,
    PowerIntent, PowerState, Problem, Reason, Timestamp,
};
use groups::Groups;
use wish::{Wish, wish};

/// All that a plan rests on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The commit whose fleet this is.
    pub commit: &'a Commit,
    /// What it says.
    pub fleet: &'a Fleet,
    /// What is wrong in it. While one of them is an error, nothing is begun and nobody is released (law 2).
    pub problems: &'a [Problem],
    /// What the hardware told us, by machine. A machine that is missing here was not asked.
    pub seen: &'a BTreeMap<MachineName, Observation>,
    /// What the journal says.
    pub history: &'a History,
    /// The fleet that was in force before, if at hand: tells which field changed a generation, and what an attempt that is
    /// writing under an earlier commit was told to write.
    pub former: Option<&'a Fleet>,
    /// Last sign of life of each open attempt that is not in the journal: the agent's progress, and for all open attempts the
    /// start of the controller, so that the time for which it was down does not count as silence.
    pub alive: &'a BTreeMap<AttemptId, Timestamp>,
    /// How long each wait may take.
    pub deadlines: Deadlines,
    /// Now.
    pub now: Timestamp,
}

/// One machine of the fleet, with all that was found out about it.
struct Case<'a> {
    machine: &'a Machine,
    /// Its history, under this name or, until the rename is done, under the one before.
    history: Option<&'a MachineHistory>,
    renamed_from: Option<&'a MachineName>,
    seen: Option<&'a Observation>,
    wish: Wish,
    group: usize,
    /// An attempt is on its way.
    open: bool,
    /// Counts against `maxUnavailable`.
    unavailable: bool,
    /// Serves nobody, whatever we do.
    out_of_service: bool,
    /// Its last attempt at what it should have failed.
    failed: bool,
    /// Counts against `maxDestructive`.
    wanted_by_commit: bool,
}

impl Case<'_> {
    /// Whether an install of it may begin now, if there is a place.
    fn takes_a_place(&self) -> bool {
        self.history.is_some() && !self.open && matches!(self.wish, Wish::Install(_))
    }

    /// Whether it holds what it should and is available.
    fn ready(&self) -> bool {
        self.history.is_some() && self.wish == Wish::Nothing && !self.open && !self.unavailable
    }

    /// Whether it keeps later groups waiting.
    fn unfinished(&self) -> bool {
        if self.machine.install.is_none() || (self.machine.suspend && !self.open) {
            return false;
        }
        let settled = self.history.is_some() && matches!(self.wish, Wish::Nothing | Wish::Quarantine(_));
        self.open || !settled
    }
}

/// Makes the plan. Total: every machine of the fleet and of the history has an entry.
pub fn plan(input: &Input<'_>) -> Plan {
    let renames = Renames::of(input.fleet, input.history);
    let mut groups = Groups::of(input.fleet);
    let cases: Vec<Case<'_>> = input.fleet.machines.values().map(|machine| case(input, &renames, machine)).collect();
    for case in &cases {
        groups.count(case);
    }
    let mut takers: Vec<&Case<'_>> = cases.iter().filter(|case| case.takes_a_place()).collect();
    takers.sort_by_key(|case| (case.group, &case.machine.place.rack, &case.machine.name));
    let mut placed: BTreeMap<&MachineName, MachinePlan> =
        takers.into_iter().map(|case| (&case.machine.name, machine::plan(input, &renames, &mut groups, case))).collect();
    let stay = cases.iter().map(|case| {
        let part = placed.remove(&case.machine.name).unwrap_or_else(|| machine::plan(input, &renames, &mut groups, case));
        (case.machine.name.clone(), part)
    });
    let left = renames.gone.iter().map(|(name, history)| ((*name).clone(), machine::left(input, &renames, name, history)));
    let machines = stay.chain(left).collect();
    Plan { commit: input.commit.clone(), at: input.now, machines, problems: input.problems.to_vec(), groups: groups.report() }
}

/// The history of a fleet of which every machine is claimed and holds what it should: the ground for comparing two commits without
/// a controller.
pub fn baseline(fleet: &Fleet, now: Timestamp) -> History {
    let of = |machine: &Machine| MachineHistory {
        claimed: Some(now),
        hardware: hardware(machine),
        installed: machine.generation(),
        ..MachineHistory::default()
    };
    let machines = fleet.machines.iter().map(|(name, machine)| (name.clone(), of(machine))).collect();
    History { machines, ..History::default() }
}

fn case<'a>(input: &Input<'a>, renames: &Renames<'a>, machine: &'a Machine) -> Case<'a> {
    let renamed_from = renames.from.get(&machine.name).copied();
    let history = input.history.machines.get(renamed_from.unwrap_or(&machine.name));
    let seen = input.seen.get(&machine.name);
    let wish = match history {
        Some(history) => wish(machine, history, input.former, input.now, &input.deadlines),
        None if machine.install.is_some() && machine.on_claim == OnClaim::Install => Wish::Install(Reason::InstallOnClaim),
        None => Wish::Nothing,
    };
    let attempts = history.map(|history| history.attempts.as_slice()).unwrap_or_default();
    let open = history.is_some_and(|history| history.open_attempt().is_some());
    let quarantined = matches!(wish, Wish::Quarantine(_));
    let unknown_disk = history.is_some_and(|history| history.installed.is_none()) && attempts.iter().any(|attempt| attempt.wrote());
    let never_installed = machine.install.is_some() && history.is_none_or(|history| history.installed.is_none()) && !unknown_disk;
    let off = machine.power == PowerIntent::On && seen.and_then(|seen| seen.power.known()) == Some(&PowerState::Off);
    let left_behind = !open && history.is_some_and(power::left_in_network_boot);
    let unavailable = open || left_behind || (!quarantined && (unknown_disk || (off && !never_installed)));
    let failed = history.zip(machine.generation()).is_some_and(|(history, desired)| !wish::failures(history, desired).is_empty());
    let begun = attempts
        .iter()
        .any(|attempt| attempt.commit == input.commit.id && !matches!(attempt.end, Some((_, AttemptEnd::Superseded)) if !attempt.wrote()));
    Case {
        machine,
        history,
        renamed_from,
        seen,
        group: Groups::index(input.fleet, machine),
        open,
        unavailable,
        out_of_service: unavailable || unknown_disk || never_installed,
        failed,
        wanted_by_commit: open || begun || wish.reason().is_some() || (quarantined && unknown_disk),
        wish,
    }
}

/// The entries of `these` whose key is not in `those`, in one walk over both.
fn absent<'a, A, B>(these: &'a BTreeMap<MachineName, A>, those: &'a BTreeMap<MachineName, B>) -> Vec<(&'a MachineName, &'a A)> {
    let mut others = those.keys().peekable();
    let mut is_absent = |name: &MachineName| {
        while others.next_if(|other| *other < name).is_some() {}
        others.peek().is_none_or(|other| *other != name)
    };
    these.iter().filter(|(name, _)| is_absent(name)).collect()
}

/// Machines that have another name now (law 4).
#[derive(Default)]
struct Renames<'a> {
    /// Machines that the journal knows and the fleet does not.
    gone: Vec<(&'a MachineName, &'a MachineHistory)>,
    /// Earlier name by name now.
    from: BTreeMap<&'a MachineName, &'a MachineName>,
    /// Name now by earlier name.
    to: BTreeMap<&'a MachineName, &'a MachineName>,
    /// Names now of machines that could be more than one earlier machine, or one that others could be too, with what they share.
    unclear: BTreeMap<&'a MachineName, &'a MachineName>,
    /// Earlier names that such machines could have had.
    doubtful: BTreeSet<&'a MachineName>,
}

impl<'a> Renames<'a> {
    /// Cost follows the number of names that came and went, not the size of the fleet squared.
    fn of(fleet: &'a Fleet, history: &'a History) -> Self {
        let gone = absent(&history.machines, &fleet.machines);
        let mut by_item: BTreeMap<&str, Vec<(&MachineName, &MachineHistory)>> = BTreeMap::new();
        for (name, machine) in gone.iter().copied() {
            for item in machine.hardware.iter().filter(|item| identity::identifies(item)) {
                by_item.entry(item).or_default().push((name, machine));
            }
        }
        let mut renames = Self { gone, ..Self::default() };
        if by_item.is_empty() {
            return renames;
        }
        let mut claims: BTreeMap<&MachineName, Vec<&MachineName>> = BTreeMap::new();
        for (_, machine) in absent(&fleet.machines, &history.machines) {
            let hardware = hardware(machine);
            let near = hardware.iter().filter_map(|item| by_item.get(item.as_str())).flatten();
            let same: BTreeSet<&MachineName> =
                near.filter(|(_, old)| identity::same_hardware(&hardware, &old.hardware)).map(|(name, _)| *name).collect();
            for old in &same {
                claims.entry(*old).or_default().push(&machine.name);
            }
            if same.len() > 1 {
                renames.unclear.extend(same.first().map(|old| (&machine.name, *old)));
                renames.doubtful.extend(same);
            }
        }
        for (old, new) in claims {
            match new.as_slice() {
                [only] if !renames.unclear.contains_key(only) => {
                    renames.from.insert(*only, old);
                    renames.to.insert(old, *only);
                }
                several => {
                    renames.unclear.extend(several.iter().map(|new| (*new, old)));
                    renames.doubtful.insert(old);
                }
            }
        }
        renames
    }

    /// Whether an earlier machine is, or may be, in the fleet under another name.
    fn involves(&self, old: &MachineName) -> bool {
        self.to.contains_key(old) || self.doubtful.contains(old)
    }

    /// Why a new machine can't be claimed: what it shares with earlier ones is not unique.
    fn unclear(&self, name: &MachineName) -> Option<Held> {
        let old = self.unclear.get(name)?;
        let declared = "a machine of its own".to_owned();
        Some(Held::IdentityMismatch { field: "hardware".to_owned(), declared, observed: format!("shared with {old} and another") })
    }
}
