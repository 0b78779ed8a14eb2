//! The local brake as the engine looks at it: a plan is made under one position, and what rests on it is begun only while the brake is
//! still there. What a position means is decided in `plan`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{model::Brake, ports::BrakeLever};

/// Pause between two looks at a brake that nothing else asks for. Orders and leave to write look for themselves; this is for people who
/// wait to see it work.
const LOOK: Duration = Duration::from_millis(500);

/// The brake, and where it was for the last plan.
pub(super) struct BrakeWatch {
    lever: Arc<dyn BrakeLever>,
    /// `None` before the first plan.
    planned: Mutex<Option<Brake>>,
}

impl BrakeWatch {
    pub(super) fn new(lever: Arc<dyn BrakeLever>) -> Self {
        Self { lever, planned: Mutex::default() }
    }

    /// Where it is now.
    pub(super) fn position(&self) -> Brake {
        self.lever.position()
    }

    /// Notes that the plan in force was made under `brake`. Says so in the log when that is another position than before.
    pub(super) fn planned_under(&self, brake: Brake) {
        let mut planned = self.planned();
        if planned.as_ref().map_or_else(|| brake.is_off(), |before| *before == brake) {
            *planned = Some(brake);
            return;
        }
        match &brake.unreadable {
            Some(why) => tracing::error!(why, "the local brake can't be read: everything is held"),
            None if brake.holds.is_empty() => tracing::warn!("the local brake is off: nothing is held any more"),
            None => brake.holds.iter().for_each(|hold| tracing::warn!(%hold, "the local brake is on")),
        }
        *planned = Some(brake);
    }

    /// Whether it is elsewhere than for the plan in force.
    pub(super) fn has_moved(&self) -> bool {
        let now = self.position();
        self.planned().as_ref() != Some(&now)
    }

    /// Returns when it has moved since there is a plan.
    pub(super) async fn moved(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.planned().is_some() && self.has_moved() {
                return;
            }
        }
    }

    fn planned(&self) -> std::sync::MutexGuard<'_, Option<Brake>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
