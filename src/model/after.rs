//! What has to hold of another group before one begins.

use serde::{Deserialize, Serialize};

use super::{RolloutName, SignedDuration};

/// What has to hold of another group before one begins: all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct After {
    /// That group.
    pub rollout: RolloutName,
    /// For how long so many of its machines have to hold what they should; zero is not at all.
    #[serde(default)]
    pub healthy_for: SignedDuration,
    /// So many per cent of its machines, 1 to 100 and rounded up, hold what they should and are available. `None`: each of them, but for
    /// those whose install failed for good while the group's breaker is closed.
    #[serde(default)]
    pub share: Option<u8>,
}

impl From<RolloutName> for After {
    fn from(rollout: RolloutName) -> Self {
        Self { rollout, healthy_for: SignedDuration::ZERO, share: None }
    }
}
