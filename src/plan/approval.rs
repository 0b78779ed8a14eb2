//! What the commit in force approves beyond its budgets (law 7).
//!
//! An approval is a trailer `Rackwright-Approve: destroy=N` of the commit itself, whose author the Fleet lists as an approver; where the
//! fleet asks for signatures, whose signer. It lets this
//! commit reinstall up to N machines in all, over all groups. Only the commit in force is read: the change itself, or a commit after it
//! that changes nothing and carries the trailer. A later commit approves nothing unless it says so again.

use crate::model::{Approval, Commit, FleetSettings};

/// What the commit in force may reinstall in all, if it was approved.
#[derive(Debug, Default, Clone)]
pub(super) struct Approved {
    /// The most of its approvals that count, and whose it is.
    granted: Option<(u32, String)>,
    /// Why others do not count, in the words of [`Approved::needs`].
    refused: Vec<String>,
    /// Whether anybody may approve.
    possible: bool,
}

impl Approved {
    pub(super) fn of(commit: &Commit, settings: &FleetSettings) -> Self {
        let mut approved = Self { possible: !settings.approvers.is_empty(), ..Self::default() };
        for approval in &commit.approvals {
            let by = match names(approval, settings) {
                Some([]) | None => {
                    approved.refused.push(format!("the one by {} does not count, since nobody verified who signed it", approval.by));
                    continue;
                }
                Some(names) => names.iter().find(|name| is_listed(name, settings)).unwrap_or(&names[0]),
            };
            if !is_listed(by, settings) {
                approved.refused.push(format!("the one by {by} does not count, who is not among the Fleet's approvers"));
            } else if let Some(count) = number(&approval.text) {
                let most = approved.granted.as_ref().is_none_or(|(most, _)| *most < count);
                if most {
                    approved.granted = Some((count, by.clone()));
                }
            } else {
                approved.refused.push(format!("`{}` by {by} does not count, since it is not `destroy=` and a number", approval.text));
            }
        }
        approved
    }

    /// Who approved `wanted` reinstalls in all.
    pub(super) fn by(&self, wanted: u32) -> Option<&str> {
        self.granted.as_ref().filter(|(count, _)| wanted <= *count).map(|(_, by)| by.as_str())
    }

    /// What is missing for `wanted` reinstalls in all, as a list of its own in a sentence; empty where nobody may approve.
    pub(super) fn needs(&self, wanted: u32) -> String {
        if !self.possible {
            return String::new();
        }
        let mut known = self.refused.clone();
        known.extend(self.granted.as_ref().map(|(count, by)| format!("the one by {by} is for {count}")));
        let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join("; ")) };
        format!("a commit by an approver with the trailer `Rackwright-Approve: destroy={wanted}`{known}, or ")
    }
}

/// Who approves: whoever signed, where signatures are asked for; else the author, as typed. `None`: that is not known.
fn names<'a>(approval: &'a Approval, settings: &FleetSettings) -> Option<&'a [String]> {
    match (&approval.signers, &settings.signatures) {
        (Some(signers), _) => Some(signers),
        (None, None) => Some(std::slice::from_ref(&approval.by)),
        (None, Some(_)) => None,
    }
}

fn is_listed(name: &str, settings: &FleetSettings) -> bool {
    settings.approvers.iter().any(|approver| approver.eq_ignore_ascii_case(name))
}

/// N of `destroy=N`, and of nothing else.
fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("destroy=")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}
