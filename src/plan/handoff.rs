//! Values that a machine's template uses: an install begins when each is there, and goes on to its first byte only while it is.
//!
//! A value belongs to one install of its publisher. It counts while that install is what the publisher should hold: as soon as a commit
//! asks for another one, what was published is of a system that goes away, and its users wait for the next.

use super::{
    Input,
    names::{Names, Standing},
    wish::{Wish, wish},
};
use crate::model::{Attempt, HandoffUse, HandoffWait, Held, Machine, MachineHistory};

/// What an install of `machine` waits for; `open` is one that is on its way.
pub(super) fn missing(input: &Input<'_>, names: &Names<'_>, machine: &Machine, open: Option<&Attempt>) -> Vec<Held> {
    machine.handoffs.uses.iter().filter_map(|wanted| stands_against(input, names, wanted, open)).collect()
}

fn stands_against(input: &Input<'_>, names: &Names<'_>, wanted: &HandoffUse, open: Option<&Attempt>) -> Option<Held> {
    let held = |wait, since| Some(Held::Handoff { value: wanted.clone(), wait, since });
    // What the journal has under the publisher's name may be of another machine.
    if !matches!(names.standing(&wanted.from), None | Some(Standing::Changed)) {
        return held(HandoffWait::Unsettled, None);
    }
    let settled =
        |publisher: &Machine, known: &MachineHistory| wish(publisher, known, input.former, input.now, &input.deadlines) == Wish::Nothing;
    match input.history.handoff(input.fleet, wanted, settled) {
        Err((wait, since)) => held(wait, since),
        // The agent may have been given what was there before.
        Ok(published) if open.is_some_and(|open| published.seq > open.seq) => held(HandoffWait::Newer, Some(published.at)),
        Ok(_) => None,
    }
}
