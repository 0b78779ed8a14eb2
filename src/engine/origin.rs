//! Whether the journal is the first of its site. One that is new although a controller of this site worked before was lost: nothing may
//! be installed on claim then (law 2).

use std::{sync::Arc, time::Duration};

use tokio_util::task::AbortOnDropHandle;

use super::{Live, Ports, source::chain};
use crate::ports::{JournalError, Notes};

/// The key under which the journal keeps the answer: a second start finds a journal that is not empty any more.
const ORIGIN: &str = "journal-origin";

const FIRST: &str = "first";
const AFTER_A_LOSS: &str = "after-a-loss";
/// Our own clone shows nothing from before this journal; the remote could not be asked yet. What the clone shows later is this journal's.
const UNSETTLED: &str = "unsettled";

/// Pauses between two questions to a remote that can't be asked: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is known of where the journal comes from.
pub(super) enum Origin {
    /// Known, and in the journal.
    Settled,
    /// Asked for in the background. Until then it counts as lost, and no note is written: it would be taken for one from before.
    Asked(AbortOnDropHandle<bool>),
}

impl Origin {
    /// Looks into the journal, into our clone, and asks the remote.
    pub(super) async fn find(live: &Arc<Live>, ports: &Ports) -> Self {
        let Some(notes) = &ports.notes else { return Origin::Settled };
        // What can't be read is not "nothing was written" (law 2).
        live.ledger.mark_lost(true);
        match at_hand(live, notes.as_ref()).await {
            Known::First => {
                live.ledger.mark_lost(false);
                return Origin::Settled;
            }
            Known::Lost => return Origin::Settled,
            Known::New { traces: true } => return Self::settle(live, true).await,
            Known::New { traces: false } => {}
        }
        match notes.exist().await {
            Ok(lost) => Self::settle(live, lost).await,
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(
                    why,
                    "can't ask whether this site had a journal before; nothing is installed on claim, and no note is written, until that is known"
                );
                Origin::Asked(AbortOnDropHandle::new(tokio::spawn(ask(live.clone(), notes.clone()))))
            }
        }
    }

    /// Takes the answer if there is one by now. True when notes may be written.
    pub(super) async fn is_settled(&mut self, live: &Arc<Live>) -> bool {
        if let Origin::Asked(answer) = self
            && answer.is_finished()
            && let Ok(lost) = answer.await
        {
            *self = Self::settle(live, lost).await;
        }
        matches!(self, Origin::Settled)
    }

    async fn settle(live: &Arc<Live>, lost: bool) -> Self {
        if lost {
            tracing::warn!("the journal is new, but a controller of this site worked before: nothing is installed on claim");
        }
        match live.ledger.put(ORIGIN, if lost { AFTER_A_LOSS } else { FIRST }).await {
            Ok(()) => {
                live.ledger.mark_lost(lost);
                Origin::Settled
            }
            Err(error) => {
                cannot_write(&error);
                let wait = async move {
                    tokio::time::sleep(PAUSES.1).await;
                    lost
                };
                Origin::Asked(AbortOnDropHandle::new(tokio::spawn(wait)))
            }
        }
    }
}

/// What journal and clone say.
enum Known {
    /// The journal is the first.
    First,
    /// It is known to follow on one that was lost.
    Lost,
    /// Nobody looked before; `traces`: the clone was worked with.
    New { traces: bool },
}

/// Looks until there is an answer. At a site's first start nothing can be done without one, and later looks would see what this
/// controller itself left in its clone.
async fn at_hand(live: &Live, notes: &dyn Notes) -> Known {
    let mut pause = PAUSES.0;
    loop {
        let why = match live.ledger.journal().get(ORIGIN).await.as_ref().map(Option::as_deref) {
            Ok(Some(FIRST)) => return Known::First,
            Ok(Some(UNSETTLED)) => return Known::New { traces: false },
            Ok(Some(_)) => return Known::Lost,
            Ok(None) => match notes.traces().await {
                Ok(true) => return Known::New { traces: true },
                Ok(false) => match live.ledger.put(ORIGIN, UNSETTLED).await {
                    Ok(()) => return Known::New { traces: false },
                    Err(error) => chain(&error),
                },
                Err(error) => chain(&error),
            },
            Err(error) => chain(error),
        };
        tracing::warn!(why, again_in = ?pause, "can't see yet whether this site had a journal before; nothing is begun until that is known");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn cannot_write(error: &JournalError) {
    tracing::error!(error = error as &dyn std::error::Error, "the journal can't be written; nothing is installed on claim");
}

/// Asks the remote until it answers.
async fn ask(live: Arc<Live>, notes: Arc<dyn Notes>) -> bool {
    let mut pause = PAUSES.0;
    loop {
        tokio::time::sleep(pause).await;
        match notes.exist().await {
            Ok(lost) => {
                live.wake.notify_one();
                return lost;
            }
            Err(error) => tracing::debug!(why = chain(&error), "can't ask yet whether this site had a journal before"),
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::engine::support_tests::{self as testing, Kept, until};

    async fn find(live: &Arc<Live>, notes: &Arc<Kept>) -> Origin {
        Origin::find(live, &Ports { notes: Some(notes.clone()), ..testing::ports() }).await
    }

    fn is_lost(live: &Live) -> bool {
        live.ledger.with(|history| history.lost)
    }

    fn notes(remote: Option<bool>, traces: bool) -> Arc<Kept> {
        Arc::new(Kept { remote: remote.into(), traces: traces.into(), ..Kept::default() })
    }

    /// Notes may be switched off, or refused by the repository.
    #[tokio::test]
    async fn our_own_clone_shows_that_a_journal_was_lost_where_no_notes_were_pushed() {
        let live = testing::empty().await;
        let notes = notes(Some(false), true);
        assert!(find(&live, &notes).await.is_settled(&live).await && is_lost(&live));
        // And it is remembered.
        notes.traces.store(false, Ordering::SeqCst);
        live.ledger.mark_lost(false);
        assert!(find(&live, &notes).await.is_settled(&live).await && is_lost(&live));
    }

    #[tokio::test]
    async fn the_first_journal_of_a_site_is_not_lost_at_any_later_start() {
        let live = testing::empty().await;
        assert!(find(&live, &notes(Some(false), false)).await.is_settled(&live).await && !is_lost(&live));
        assert!(find(&live, &notes(None, true)).await.is_settled(&live).await && !is_lost(&live));
        assert!(find(&live, &notes(Some(true), true)).await.is_settled(&live).await && !is_lost(&live));
    }

    /// What the controller leaves in its clone meanwhile says nothing about a journal before.
    #[tokio::test]
    async fn a_remote_that_could_not_be_asked_at_the_first_start_is_asked_until_it_answers() {
        let live = testing::empty().await;
        let notes = notes(None, false);
        assert!(!find(&live, &notes).await.is_settled(&live).await && is_lost(&live));
        notes.traces.store(true, Ordering::SeqCst);
        let mut restarted = find(&live, &notes).await;
        assert!(!restarted.is_settled(&live).await && is_lost(&live));
        *notes.remote.lock().unwrap() = Some(false);
        let Origin::Asked(answer) = &restarted else { panic!("it was asked for") };
        until(|| answer.is_finished()).await;
        assert!(restarted.is_settled(&live).await && !is_lost(&live));
    }

    /// A disk that is full for a moment at the first start must not leave the question open for ever.
    #[tokio::test]
    async fn a_journal_that_cannot_be_written_at_the_first_start_is_tried_again() {
        let journal = testing::Full::new();
        journal.refuses.store(true, Ordering::SeqCst);
        let live = Live::open(journal.clone(), Arc::new(testing::Lever::default()), Arc::new(testing::Stands::default()), testing::LIMIT)
            .await
            .unwrap();
        let (asked, later) = (notes(Some(false), false), live.clone());
        let found = tokio::spawn(async move { find(&later, &asked).await });
        until(|| journal.tries.load(Ordering::SeqCst) > 0).await;
        assert!(!found.is_finished() && is_lost(&live));
        journal.refuses.store(false, Ordering::SeqCst);
        assert!(found.await.unwrap().is_settled(&live).await && !is_lost(&live));
    }

    #[tokio::test]
    async fn a_remote_that_has_notes_when_it_can_be_asked_shows_the_loss() {
        let live = testing::empty().await;
        let notes = notes(None, false);
        let mut origin = find(&live, &notes).await;
        *notes.remote.lock().unwrap() = Some(true);
        let Origin::Asked(answer) = &origin else { panic!("it was asked for") };
        until(|| answer.is_finished()).await;
        assert!(origin.is_settled(&live).await && is_lost(&live));
    }
}
