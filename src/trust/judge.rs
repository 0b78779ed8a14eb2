//! A range of commits, judged: may it come into force?
//!
//! The branch is followed by first parents from the commit in force to the tip. What comes to it in one step (a commit, or a merge with
//! all that it brings) is judged by the signers of the commit it comes to. So a key counts as long as the branch says so: one that was
//! revoked does not come back with a side branch that forked before, and nobody adds himself. Where the first parents of the tip do
//! not lead to the commit in force, all is judged by the signers of that.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use super::{object::Object, refused::Refused, signers::Signers};
use crate::model::{CommitId, FileEntry, Signer, Timestamp};

/// Something in the repository can't be read now. No verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unread(pub String);

/// A range of commits, as a clone shows it.
pub trait Commits {
    /// All commits that the tip reaches and the commit in force does not, parents before children; the tip is last.
    fn ids(&self) -> &[CommitId];

    /// The parents that the clone shows.
    ///
    /// # Errors
    /// [`Unread`].
    fn parents(&self, id: CommitId) -> Result<Vec<CommitId>, Unread>;

    /// A commit's bytes.
    ///
    /// # Errors
    /// [`Unread`].
    fn raw(&self, id: CommitId) -> Result<Vec<u8>, Unread>;

    /// The paths in which a commit differs from its first parent, those that are gone too.
    ///
    /// # Errors
    /// [`Unread`].
    fn changed(&self, id: CommitId) -> Result<Vec<String>, Unread>;

    /// One file of a commit.
    ///
    /// # Errors
    /// [`Unread`].
    fn file(&self, id: CommitId, path: &str) -> Result<Option<FileEntry>, Unread>;

    /// Whether a merge of two has exactly the files that Git makes of its parents by itself.
    ///
    /// # Errors
    /// [`Unread`].
    fn is_automatic_merge(&self, id: CommitId) -> Result<bool, Unread>;
}

/// Where a fleet's settings stand, and how they are read.
pub trait Settings {
    /// Whether a file may hold a fleet's settings; `file` gives it, and is asked only if its path does not tell.
    fn may_state(&self, path: &str, file: &dyn Fn(&str) -> Option<FileEntry>) -> bool;

    /// Who may sign, by the settings in the files `among`; `file` gives any file of the same commit.
    fn signers(&self, among: &BTreeSet<String>, file: &dyn Fn(&str) -> Option<FileEntry>) -> SignersAt;
}

/// What one commit says about who may sign what comes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignersAt {
    /// Files that hold the settings.
    pub settings: BTreeSet<String>,
    /// Files that the settings name.
    pub files: BTreeSet<String>,
    /// What they say.
    pub stated: Stated,
}

/// What a commit says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stated {
    /// That signatures are not asked for.
    #[default]
    Nothing,
    /// These.
    Signers(Arc<Signers>),
    /// Something that can't be read.
    Unreadable(String),
}

/// What a range is judged by.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The commit in force; `None`: there is none yet, and only the tip is judged.
    pub base: Option<CommitId>,
    /// What that says, or what the first tip is judged by.
    pub at_base: SignersAt,
    /// Who may sign where the fleet asks for no signatures: what the controller's configuration says.
    pub host: Option<Arc<Signers>>,
}

/// What is said of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The commit.
    pub id: CommitId,
    /// Its author, as typed.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
    /// When its committer says that it was made.
    pub committed: Option<Timestamp>,
    /// Who signed it (`None`: nobody asks), or why it does not count.
    pub outcome: Result<Option<Signer>, Refused>,
}

/// What is said of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Of each commit, in the order in which they come to the branch; the tip is last.
    pub verdicts: Vec<Verdict>,
}

impl Judged {
    /// The first commit that does not count.
    pub fn refused(&self) -> Option<(&Verdict, &Refused)> {
        self.verdicts.iter().find_map(|verdict| Some((verdict, verdict.outcome.as_ref().err()?)))
    }

    /// Who signed the tip.
    pub fn signer(&self) -> Option<&Signer> {
        self.verdicts.last()?.outcome.as_ref().ok()?.as_ref()
    }
}

/// Judges each commit of a range.
///
/// # Errors
/// [`Unread`]: no verdict.
pub fn judge(commits: &dyn Commits, settings: &dyn Settings, question: &Question) -> Result<Judged, Unread> {
    let ids = commits.ids();
    let mut parents = BTreeMap::new();
    for id in ids {
        parents.insert(*id, commits.parents(*id)?);
    }
    let mut court = Court { commits, settings, question, now: question.at_base.clone(), verdicts: Vec::with_capacity(ids.len()) };
    match branch(ids, &parents, question.base) {
        Some(branch) => {
            let mut told = HashSet::new();
            for id in branch {
                let step = brought(id, ids, &parents, &mut told);
                court.step(id, &step, &parents)?;
            }
        }
        None => court.judge_all(ids, &parents)?,
    }
    Ok(Judged { verdicts: court.verdicts })
}

type Parents = BTreeMap<CommitId, Vec<CommitId>>;

/// The first parents from after `base` to the tip, oldest first; `None` if they do not lead there.
fn branch(ids: &[CommitId], parents: &Parents, base: Option<CommitId>) -> Option<Vec<CommitId>> {
    let mut branch = Vec::new();
    let mut next = *ids.last()?;
    while Some(next) != base {
        let known = parents.get(&next)?;
        branch.push(next);
        next = *known.first()?;
    }
    branch.reverse();
    Some(branch)
}

/// What `id` brings that is not told of yet, parents before children; itself is last.
fn brought(id: CommitId, ids: &[CommitId], parents: &Parents, told: &mut HashSet<CommitId>) -> Vec<CommitId> {
    let (mut step, mut open) = (HashSet::new(), vec![id]);
    while let Some(next) = open.pop() {
        if parents.contains_key(&next) && told.insert(next) {
            step.insert(next);
            open.extend(&parents[&next]);
        }
    }
    if step.len() == 1 {
        return vec![id];
    }
    ids.iter().copied().filter(|id| step.contains(id)).collect()
}

struct Court<'a> {
    commits: &'a dyn Commits,
    settings: &'a dyn Settings,
    question: &'a Question,
    /// What the branch says by now.
    now: SignersAt,
    verdicts: Vec<Verdict>,
}

impl Court<'_> {
    /// Who may sign now; `None`: nobody asks.
    fn signers(&self) -> Option<Result<Arc<Signers>, String>> {
        let host = || self.question.host.clone().map(Ok);
        match &self.now.stated {
            Stated::Signers(signers) => Some(Ok(signers.clone())),
            Stated::Nothing => host(),
            Stated::Unreadable(why) => host().or_else(|| Some(Err(why.clone()))),
        }
    }

    fn judge_all(&mut self, ids: &[CommitId], parents: &Parents) -> Result<(), Unread> {
        let signers = self.signers();
        for id in ids {
            let verdict = self.verdict(*id, &parents[id], signers.as_ref())?;
            self.verdicts.push(verdict);
        }
        Ok(())
    }

    /// One step of the branch, and what it says from then on.
    fn step(&mut self, id: CommitId, step: &[CommitId], parents: &Parents) -> Result<(), Unread> {
        self.judge_all(step, parents)?;
        let changed = self.commits.changed(id)?;
        let unread = RefCell::new(None);
        let file = |path: &str| self.commits.file(id, path).unwrap_or_else(|error| unread.replace(Some(error)).and(None));
        let known = |path: &String| self.now.settings.contains(path) || self.now.files.contains(path);
        let new: BTreeSet<String> = changed.iter().filter(|path| self.settings.may_state(path, &file)).cloned().collect();
        let said = if new.is_empty() && !changed.iter().any(known) {
            self.now.clone()
        } else {
            self.settings.signers(&self.now.settings.union(&new).cloned().collect(), &file)
        };
        if let Some(error) = unread.into_inner() {
            return Err(error);
        }
        if let Stated::Unreadable(_) = said.stated {
            // Such a commit never comes into force. What mends it is judged by who could sign it.
            self.now.settings.extend(said.settings);
            self.now.files.extend(said.files);
        } else {
            self.now = said;
        }
        Ok(())
    }

    fn verdict(&self, id: CommitId, parents: &[CommitId], signers: Option<&Result<Arc<Signers>, String>>) -> Result<Verdict, Unread> {
        let object = Object::parse(&self.commits.raw(id)?);
        let outcome = match (signers, &object) {
            (None, _) => Ok(None),
            (Some(_), Err(error)) => Err((*error).into()),
            (Some(Err(why)), Ok(_)) => Err(Refused::NoSigners(why.clone())),
            (Some(Ok(signers)), Ok(object)) => self.signed(id, object, parents, signers)?.map(Some),
        };
        let (author, subject, committed) = match object {
            Ok(object) => (object.author, object.subject, Timestamp::from_second(object.committed).ok()),
            Err(_) => Default::default(),
        };
        Ok(Verdict { id, author, subject, committed, outcome })
    }

    fn signed(&self, id: CommitId, object: &Object, parents: &[CommitId], signers: &Signers) -> Result<Result<Signer, Refused>, Unread> {
        let first = self.question.base.is_none();
        if object.parents != parents {
            return Ok(Err(Refused::Grafted));
        }
        if parents.is_empty() && !first {
            return Ok(Err(Refused::Root));
        }
        let signer = match signers.signer(object) {
            Ok(signer) => signer,
            Err(refused) => return Ok(Err(refused)),
        };
        // Of the first tip nobody knows what was there before it.
        if signers.is_merge_only(&signer) {
            if parents.len() != 2 {
                return Ok(Err(Refused::NotAMerge(signer)));
            }
            if !self.commits.is_automatic_merge(id)? {
                return Ok(Err(Refused::ChangedMerge(signer)));
            }
        }
        if signers.has_path_rules()
            && !first
            && let Some(refused) = signers.foreign_path(&signer, &self.commits.changed(id)?)
        {
            return Ok(Err(refused));
        }
        Ok(Ok(signer))
    }
}
