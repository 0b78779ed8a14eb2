//! Whether a newly fetched commit may come into force at all: by the signatures of all commits that it brings.
//!
//! Commits are judged in the background, so that no turn waits; a commit whose verdict is not there yet is not there yet.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::{Live, source::chain};
use crate::{
    manifest,
    model::{CommitId, Signatures, Signer, Snapshot},
    ports::{JournalError, Source},
    trust::{self, Judged, Question, Refused, Signers, SignersAt, Stated, Verdict},
};

/// Where the journal keeps who signed the commit in force.
const SIGNED: &str = "signed-by";

/// A commit that may not come into force, nor what comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The newest commit, which stays out of force because of it.
    pub tip: CommitId,
    /// The first commit that does not count.
    pub verdict: Verdict,
    /// Why.
    pub why: Refused,
    /// How many commits do not count.
    pub refused: usize,
    /// How many were judged.
    pub judged: usize,
}

impl Refusal {
    fn of(tip: CommitId, judged: &Judged) -> Option<Box<Self>> {
        let (verdict, why) = judged.refused()?;
        let refused = judged.verdicts.iter().filter(|verdict| verdict.outcome.is_err()).count();
        Some(Box::new(Self { tip, verdict: verdict.clone(), why: why.clone(), refused, judged: judged.verdicts.len() }))
    }

    /// In a sentence or two: which commit, why, and what to do.
    pub fn told(&self) -> String {
        let Verdict { id, author, subject, .. } = &self.verdict;
        let which = match (self.refused, self.judged) {
            (_, 1) => "its signature does not count".to_owned(),
            (1, judged) => format!("the signature of 1 of the {judged} commits that it brings does not count"),
            (refused, judged) => format!("the signatures of {refused} of the {judged} commits that it brings do not count, the first"),
        };
        let shown: String = format!("{author}, {subject:?}").chars().filter(|c| !c.is_control()).take(120).collect();
        format!(
            "commit {} is not in force, since {which}: {} ({shown}): {}. {}",
            self.tip.short(),
            id.short(),
            self.why,
            sentence(self.why.hint())
        )
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Whether a commit may come into force.
pub(super) enum Pass {
    /// It may; who signed it, where that is asked for.
    Yes(Option<Signer>),
    /// That is being found out.
    Wait,
    /// It may not.
    No(Box<Refusal>),
}

/// Who signed a commit, for after a restart.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    commit: CommitId,
    signer: Option<Signer>,
    /// Whether the commit says who may sign.
    asks: bool,
}

/// From where, and to where.
type Range = (Option<CommitId>, CommitId);
type Found = Arc<Mutex<Option<(Range, Result<Judged, String>)>>>;

/// Lets commits pass.
pub(super) struct Gate {
    live: Arc<Live>,
    source: Arc<dyn Source>,
    host: Option<Arc<Signers>>,
    /// Who may sign on top of a commit.
    known: Option<(CommitId, SignersAt)>,
    found: Found,
    running: Option<(Range, JoinHandle<()>)>,
    trouble: Option<String>,
}

impl Gate {
    pub(super) fn new(live: Arc<Live>, source: Arc<dyn Source>) -> Self {
        let host = source.root_of_trust();
        Self { live, source, host, known: None, found: Found::default(), running: None, trouble: None }
    }

    /// Why commits can't be judged now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Nothing is to be judged now.
    pub(super) fn rest(&mut self) {
        self.trouble = None;
    }

    /// Whether `snapshot` may come into force after `before`. `stated` is what it says itself about signers.
    pub(super) fn passes(&mut self, before: Option<CommitId>, snapshot: &Snapshot, stated: Option<&Signatures>) -> Pass {
        let tip = snapshot.commit.id;
        let known = match before {
            // The first commit of all vouches for itself, unless somebody here says who must.
            None if self.host.is_none() => Some(signers_at(stated, snapshot)),
            None => Some(SignersAt::default()),
            Some(before) => self.known.as_ref().filter(|(commit, _)| *commit == before).map(|(_, known)| known.clone()),
        };
        let nobody_asks = known.as_ref().is_some_and(|known| known.stated == Stated::Nothing) && self.host.is_none();
        if nobody_asks && stated.is_none() {
            self.rest();
            return Pass::Yes(None);
        }
        let range = (before, tip);
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take_if(|(judged, _)| *judged == range);
        match found {
            Some((_, Ok(judged))) => {
                self.trouble = None;
                if let Some(refusal) = Refusal::of(tip, &judged) {
                    return Pass::No(refusal);
                }
                let signer = judged.signer().cloned();
                if before.is_none() && self.host.is_none() && stated.is_some() {
                    let by = signer.as_ref().map(Signer::name);
                    tracing::warn!(commit = %tip.short(), by, "the first commit was judged by the signers that it names itself; `repository.allowedSigners` would say who must have signed it");
                }
                return Pass::Yes(signer);
            }
            Some((_, Err(why))) => self.trouble = Some(format!("the signatures up to commit {} can't be judged yet: {why}", tip.short())),
            None => {}
        }
        if self.running.as_ref().is_none_or(|(running, task)| *running != range || task.is_finished()) {
            self.begin(range, known, stated.is_some());
        }
        Pass::Wait
    }

    fn begin(&mut self, range: Range, known: Option<SignersAt>, tip_asks: bool) {
        if let Some((_, former)) = self.running.take() {
            former.abort();
        }
        let (live, source, host, found) = (self.live.clone(), self.source.clone(), self.host.clone(), self.found.clone());
        let task = async move {
            let verdict = match at_base(&live, source.as_ref(), range.0, known).await {
                // Our clone was lost, and nobody asked for signatures before.
                Ok(known) if known.stated == Stated::Nothing && host.is_none() && !tip_asks => Ok(Judged { verdicts: Vec::new() }),
                Ok(known) => judged(source.as_ref(), range, known, host).await,
                Err(why) => Err(why),
            };
            if verdict.is_err() {
                // Whatever is wrong is not mended by asking again at once.
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some((range, verdict));
            live.wake.notify_one();
        };
        self.running = Some((range, tokio::spawn(task)));
    }

    /// Notes who signed a commit that is about to come into force.
    pub(super) async fn keep(&self, commit: CommitId, signer: Option<&Signer>, asks: bool) -> Result<(), JournalError> {
        if signer.is_none() && !asks && self.live.ledger.journal().get(SIGNED).await?.is_none() {
            return Ok(());
        }
        let kept = Kept { commit, signer: signer.cloned(), asks };
        self.live.ledger.put(SIGNED, &serde_json::to_string(&kept).expect("names and ids are always JSON")).await
    }

    /// Takes note that a commit is in force.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, stated: Option<&Signatures>) {
        self.known = Some((snapshot.commit.id, signers_at(stated, snapshot)));
    }

    /// The same for one that was in force before this process began; gives who signed it. If it asked for signatures then, and by the
    /// rules of this release nobody can tell for which, nobody may sign.
    pub(super) async fn follow_again(&mut self, snapshot: &Snapshot, stated: Option<&Signatures>) -> Option<Signer> {
        self.follow(snapshot, stated);
        let kept = self.live.ledger.journal().get(SIGNED).await;
        let unknown = |why: String| SignersAt { stated: Stated::Unreadable(why), ..SignersAt::default() };
        let kept: Option<Kept> = match kept.map(|kept| kept.map(|kept| serde_json::from_str(&kept))) {
            Ok(None) => None,
            Ok(Some(Ok(kept))) => Some(kept),
            Ok(Some(Err(error))) => {
                self.known = Some((snapshot.commit.id, unknown(format!("the journal can't be read: {error}"))));
                return None;
            }
            Err(error) => {
                self.known = Some((snapshot.commit.id, unknown(chain(&error))));
                return None;
            }
        };
        let kept = kept.filter(|kept| kept.commit == snapshot.commit.id)?;
        if kept.asks && stated.is_none() {
            let why = format!("what commit {} says of them can't be read by this release", kept.commit.short());
            self.known = Some((kept.commit, unknown(why)));
        }
        kept.signer
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.running {
            task.abort();
        }
    }
}

fn signers_at(stated: Option<&Signatures>, snapshot: &Snapshot) -> SignersAt {
    manifest::signers_at(stated, |path| snapshot.files.get(path).cloned())
}

/// Who may sign on top of the commit in force. Where that is not known, it was in force before this process began, and our clone was
/// lost: the journal knows whether it asked for signatures, and the repository for which.
async fn at_base(live: &Live, source: &dyn Source, base: Option<CommitId>, known: Option<SignersAt>) -> Result<SignersAt, String> {
    let (None, Some(base)) = (&known, base) else { return Ok(known.unwrap_or_default()) };
    let kept = live.ledger.journal().get(SIGNED).await.map_err(|error| chain(&error))?;
    let kept: Option<Kept> = kept.map(|kept| serde_json::from_str(&kept)).transpose().map_err(|error| chain(&error))?;
    if kept.is_none_or(|kept| kept.commit == base && !kept.asks) {
        return Ok(SignersAt::default());
    }
    let snapshot = source.at(base).await.map_err(|error| chain(&error))?;
    let loaded = manifest::load(&snapshot.files, &mut manifest::Cache::default());
    if loaded.fleet.settings.signatures.is_none() && !loaded.is_usable() {
        let why = format!("commit {} has errors", base.short());
        return Ok(SignersAt { stated: Stated::Unreadable(why), ..SignersAt::default() });
    }
    Ok(signers_at(loaded.fleet.settings.signatures.as_ref(), &snapshot))
}

async fn judged(source: &dyn Source, range: Range, at_base: SignersAt, host: Option<Arc<Signers>>) -> Result<Judged, String> {
    let (base, tip) = range;
    let question = Question { base, at_base, host };
    let said = Arc::new(Mutex::new(None));
    let to = said.clone();
    let look = move |commits: &dyn trust::Commits| {
        let verdict = trust::judge(commits, &manifest::FleetSettings, &question);
        *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    };
    source.examine(base, tip, Box::new(look)).await.map_err(|error| chain(&error))?;
    let said = said.lock().unwrap_or_else(PoisonError::into_inner).take();
    said.ok_or_else(|| "nobody looked".to_owned())?.map_err(|error| error.to_string())
}
