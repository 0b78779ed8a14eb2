//! Why a machine is not being worked on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AttemptId, DriftClass, Freeze, Generation, HandoffUse, HandoffWait, Hold, MachineName, RolloutName, Timestamp, Unknown};

/// Why a machine is not being worked on.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "held", rename_all_fields = "camelCase")]
pub enum Held {
    /// `suspend: true`.
    Suspended,
    /// `rackwright hold`: somebody on the controller's host stopped it.
    OnHold {
        /// By whom, when and why.
        hold: Hold,
    },
    /// The local brake can't be read, so everything is taken to be on hold.
    BrakeUnreadable {
        /// Why.
        why: String,
    },
    /// The BMC's word is missing, so nothing disruptive may follow (law 2).
    Unobserved {
        /// What is missing.
        field: String,
        /// Why.
        why: Unknown,
    },
    /// It is not the machine that the manifest means (law 8).
    IdentityMismatch {
        /// `serial`, `uuid` or `mac`.
        field: String,
        /// What the manifest says.
        declared: String,
        /// What was seen.
        observed: String,
    },
    /// By its hardware it could be another machine, too, so nobody knows what its disk holds (law 4).
    Unclear {
        /// The other machine, by the name in the fleet or in the journal.
        with: MachineName,
    },
    /// The manifest says nothing of a disk, or of an interface to boot from.
    Incomplete {
        /// The manifest's path that is missing, such as `spec.disks.system`.
        field: String,
    },
    /// Too many of the group are unavailable at a time (law 7).
    Unavailable {
        /// The group, or `rack` and its name.
        scope: String,
        /// Unavailable now.
        used: u32,
        /// Allowed.
        allowed: u32,
    },
    /// The commit would reinstall more machines of the group than its budget allows (law 7).
    Budget {
        /// The group.
        scope: String,
        /// Reinstalls that the commit asks for.
        wanted: u32,
        /// Allowed.
        allowed: u32,
        /// What would release it.
        needs: String,
    },
    /// Another group has to finish first.
    After {
        /// That group.
        group: RolloutName,
        /// Its machines that have what they should have.
        ready: u32,
        /// Its machines; where a share is asked for, those of them that an image is declared for.
        of: u32,
        /// So many of them have to be ready, where a share is asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        needed: Option<u32>,
        /// Enough are ready, and have to stay so until then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        healthy_at: Option<Timestamp>,
        /// Its breaker is open.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tripped: bool,
    },
    /// A value that its template uses is not there.
    Handoff {
        /// The value.
        value: HandoffUse,
        /// Why it is not there.
        wait: HandoffWait,
        /// Since when, where that is known.
        since: Option<Timestamp>,
    },
    /// Too many failures in the group under this commit (law 7).
    Breaker {
        /// The group.
        scope: String,
        /// Failures.
        failures: u32,
        /// Failures at which it opens.
        allowed: u32,
    },
    /// Outside the maintenance windows of its group.
    Window {
        /// The group.
        scope: String,
        /// When the next opens; `None`: not within two weeks.
        opens: Option<Timestamp>,
        /// The same as the window's own clock shows it, such as `Mon 22:00 Europe/Berlin`.
        local: String,
    },
    /// A freeze.
    Frozen {
        /// The group, or `the fleet`.
        scope: String,
        /// Until when and why.
        freeze: Freeze,
    },
    /// The wave before has to show first that the commit is good.
    Wave {
        /// The rollout.
        rollout: RolloutName,
        /// The wave that it would be in, from 1.
        wave: u32,
        /// How many there are.
        of: u32,
        /// Machines of earlier waves that are done with, well or not.
        settled: u32,
        /// Machines of earlier waves.
        before: u32,
        /// All are, and soak until then.
        soaks_until: Option<Timestamp>,
    },
    /// `paused: true` of its rollout.
    Paused {
        /// The rollout.
        rollout: RolloutName,
    },
    /// Its last attempt failed, and trying the same again would not help. A commit that changes its generation releases it.
    Quarantined {
        /// The attempt.
        attempt: AttemptId,
        /// A stable name of the failure.
        code: String,
        /// Why it failed.
        why: String,
    },
    /// Its disk holds another generation, and nobody noted how much of that was configuration, which alone does not reinstall it.
    ConfigurationUnclear {
        /// What its disk holds.
        installed: Generation,
        /// What it should hold.
        desired: Generation,
    },
    /// It was put right so often that somebody or something must be changing it back, or it does not listen.
    Damped {
        /// What was put right.
        class: DriftClass,
        /// How often.
        corrections: u32,
        /// Since when.
        since: Timestamp,
        /// When it is tried again.
        until: Timestamp,
    },
    /// The second reader of the plan found that a step would break the law. A fault of the planner.
    Unlawful {
        /// The line of the law; 0 for the plan's own form.
        law: u8,
        /// What is wrong.
        what: String,
    },
    /// It came into the fleet with `decommission`, so it was taken as it is (law 5): no wipe of it is on record.
    Unproved,
    /// The journal is empty, but the repository's notes show that there was one: nothing is installed on claim.
    JournalLost,
}

/// What [`Held::Unproved`] says.
const UNPROVED: &str =
    "it came into the fleet with decommission and is taken as it is: nothing was wiped, nothing is proved; raise rebuild to wipe it";

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Suspended => write!(f, "suspended by its manifest"),
            Held::OnHold { hold } => {
                write!(f, "{hold}; `rackwright unhold {}` lets it go on", hold.scope.as_arguments())
            }
            Held::BrakeUnreadable { why } => write!(f, "everything is held, because nobody can say what is: {why}"),
            Held::Unobserved { field, why } => write!(f, "{field} is unknown: {why}"),
            Held::IdentityMismatch { field, declared, observed } => write!(f, "{field} is {observed}, the manifest says {declared}"),
            Held::Unclear { with } => {
                write!(f, "it shares hardware with {with}, and which is which is not clear: change one name, serial or MAC at a time")
            }
            Held::Incomplete { field } => write!(f, "{field} is not set, so nothing can be written"),
            Held::Unavailable { scope, used, allowed } => write!(f, "{used} of at most {allowed} unavailable in {scope}"),
            Held::Budget { scope, wanted, allowed, needs } => {
                write!(f, "the commit reinstalls {wanted} of {scope}, {allowed} are allowed: {needs}")
            }
            Held::After { group, ready, of, needed, healthy_at, tripped } => {
                write!(f, "after {group}, which has {ready} of {of} ready")?;
                needed.map_or(Ok(()), |needed| write!(f, " ({needed} needed)"))?;
                healthy_at.map_or(Ok(()), |at| write!(f, " and has to stay so until {at:.0}"))?;
                if *tripped { write!(f, ", and whose breaker is open") } else { Ok(()) }
            }
            Held::Handoff { value, wait, since } => write!(f, "waits for {value}: {}", wait.text(&value.from, *since)),
            Held::Breaker { scope, failures, allowed } => {
                let counted = if *failures == 1 { "failure" } else { "failures" };
                write!(f, "breaker of {scope} is open: {failures} {counted}, {allowed} open it")
            }
            Held::Window { scope, opens: Some(opens), local } => {
                write!(f, "outside the windows of {scope}: the next opens {opens:.0} ({local})")
            }
            Held::Window { scope, opens: None, .. } => write!(f, "outside the windows of {scope}: none opens within two weeks"),
            Held::Frozen { scope, freeze } => write!(f, "{scope} is frozen {freeze}"),
            Held::Wave { rollout, wave, of, soaks_until: Some(until), .. } => {
                write!(f, "wave {wave} of {of} of {rollout} begins at {until:.0}, when the machines before it have soaked")
            }
            Held::Wave { rollout, wave, of, settled, before, soaks_until: None } => {
                write!(f, "wave {wave} of {of} of {rollout} begins when the machines before it are healthy: {settled} of {before} are done")
            }
            Held::Paused { rollout } => write!(f, "rollout {rollout} is paused until a commit takes `paused` away"),
            Held::Quarantined { attempt, code, why } => {
                write!(f, "quarantined: {attempt} failed ({code}): {why}{}", what_then(code))
            }
            Held::ConfigurationUnclear { installed, desired } => unclear(f, installed, desired),
            Held::Damped { class, corrections, since, until } => damped(f, *class, *corrections, *since, *until),
            Held::Unlawful { law, what } => {
                write!(f, "not done, since the plan would break law {law}: {what}. This is a fault of Rackwright; please report it")
            }
            Held::Unproved => f.write_str(UNPROVED),
            Held::JournalLost => {
                write!(f, "the journal was lost, so nothing is installed on claim: set onClaim to Adopt, then raise rebuild to install it")
            }
        }
    }
}

/// What to do about a failure, where that is not plain. At a gate the disk holds the right bytes, so nothing but another install looks at it
/// again.
fn what_then(code: &str) -> &'static str {
    if code.starts_with("gate-") { ". Mend that, then commit a higher `rebuild` to install it again" } else { "" }
}

fn unclear(f: &mut fmt::Formatter<'_>, installed: &Generation, desired: &Generation) -> fmt::Result {
    write!(
        f,
        "its disk holds {}, declared is {}, and nobody noted whether more than configuration differs, which alone does not \
         reinstall it: declare what it was installed with once more, or set onConfigChange: Reinstall to reinstall it",
        installed.short(),
        desired.short()
    )
}

fn damped(f: &mut fmt::Formatter<'_>, class: DriftClass, corrections: u32, since: Timestamp, until: Timestamp) -> fmt::Result {
    let times = if corrections == 1 { "once".to_owned() } else { format!("{corrections} times") };
    write!(
        f,
        "its {class} was put right {times} since {since:.0} and is not as declared again: left alone until {until:.0}; find out who \
         changes it or why it does not follow, or declare what it is"
    )
}
