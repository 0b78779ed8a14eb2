//! The part of the first layer that says how changes reach machines.

use schemars::JsonSchema;
use serde::Deserialize;

use super::after::After;
use super::gates::Gate;
use super::scalars::{AmountText, Freeze, Labels};
use crate::model::Weekday;

/// How much may be away, and how much may be destroyed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Budgets {
    /// Most machines that may be unavailable at a time because of us.
    pub(crate) max_unavailable: Option<MaxUnavailable>,
    /// Most machines with the same value of a label, of all groups, that may be unavailable at a time: a row, a power feed, a pair.
    pub(crate) max_unavailable_per: Option<Vec<PerLabel>>,
    /// Most machines that one commit may reinstall.
    pub(crate) max_destructive: Option<MaxDestructive>,
    /// When to stop.
    pub(crate) breaker: Option<Breaker>,
}

/// Most machines that may be unavailable at a time because of us.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MaxUnavailable {
    /// Of the group.
    pub(crate) group: Option<AmountText>,
    /// Of one rack.
    pub(crate) rack: Option<AmountText>,
}

/// Most machines with the same value of a label that may be unavailable at a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PerLabel {
    /// The label, such as `rack-row`. Machines without it are not counted.
    pub(crate) label: String,
    /// So many, or a share of those with the same value.
    pub(crate) count: AmountText,
}

/// Most machines that one commit may reinstall: the smaller of the two.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MaxDestructive {
    /// So many machines.
    pub(crate) count: Option<u32>,
    /// A share of the group, such as `25%`.
    #[schemars(extend("pattern" = r"^(100|[0-9]{1,2})%$"))]
    pub(crate) share: Option<String>,
}

/// When to stop: after so many failures in the group under one commit, nothing new is started.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Breaker {
    /// Failures; at least 1.
    #[schemars(range(min = 1))]
    pub(crate) failures: Option<u32>,
    /// A share of a wave, such as `50%`, counting machines that are not tried again. Half of it where waves are stated and this is not.
    #[schemars(extend("pattern" = r"^(100|[1-9][0-9]?)%$"))]
    pub(crate) share: Option<String>,
}

/// A group of machines, and how a change reaches them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RolloutSpec {
    /// Labels that a machine must have, all of them. A machine belongs to the first rollout, in order of name, that selects it.
    pub(crate) selector: Labels,
    /// Rollouts that must have finished before this one starts, by name or with conditions.
    #[serde(default)]
    pub(crate) after: Vec<After>,
    /// Most machines that may be unavailable at a time because of us.
    pub(crate) max_unavailable: Option<MaxUnavailable>,
    /// Most machines with the same value of a label, of all groups, that may be unavailable at a time: a row, a power feed, a pair.
    pub(crate) max_unavailable_per: Option<Vec<PerLabel>>,
    /// Most machines that one commit may reinstall.
    pub(crate) max_destructive: Option<MaxDestructive>,
    /// When to stop.
    pub(crate) breaker: Option<Breaker>,
    /// How many machines a commit begins before it waits until they are healthy, such as `[1, 10%]`: ascending, percentages of the group.
    /// After the last come all others.
    #[serde(default)]
    pub(crate) waves: Vec<AmountText>,
    /// How long the last machine of a wave has to be healthy before the next begins, such as `30m`.
    pub(crate) soak: Option<String>,
    /// What has to hold of a machine after an install before it counts as healthy, all of it at the same time. Without it the Fleet's gates;
    /// an empty list is none.
    pub(crate) gates: Option<Vec<Gate>>,
    /// When its machines may be reinstalled or switched off. Without it the Fleet's windows; an empty list is at any time.
    pub(crate) windows: Option<Vec<Window>>,
    /// Nothing of it is begun: `true`, or until when and why.
    pub(crate) freeze: Option<Freeze>,
    /// True: nothing of it is begun, what is on its way is finished.
    #[serde(default)]
    pub(crate) paused: bool,
}

/// A maintenance window, by the wall clock of a time zone. An hour that daylight saving skips is in no window; one that the clock shows
/// twice is in it both times.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Window {
    /// Days on which it begins; all of them if not stated.
    #[schemars(extend("minItems" = 1))]
    pub(crate) days: Option<Vec<Weekday>>,
    /// When it begins, such as `22:00`.
    #[schemars(extend("pattern" = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub(crate) from: String,
    /// When it ends, such as `05:00`, which is on the next day where it is not after `from`; `24:00` is the end of the day.
    #[schemars(extend("pattern" = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub(crate) to: String,
    /// A name of the IANA time zone database, such as `Europe/Berlin`.
    pub(crate) time_zone: String,
}
