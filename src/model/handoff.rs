//! Values that one machine publishes and other machines' templates use. Only their names are here, and where in a text they stand;
//! the values themselves are `ports::HandoffValue` and never reach the model (law 14).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{Attempt, AttemptEnd, AttemptId, Fleet, HandoffName, History, Machine, MachineHistory, MachineName, Rung, Timestamp};

/// Where a marker begins and ends in rendered text. Both are noncharacters of Unicode (U+FDD0 to U+FDEF), which no text that people
/// exchange has; templates and their inputs are refused if they hold one. They are part of what generations hash, so they never change.
pub const HANDOFF_MARKS: [char; 2] = ['\u{FDD0}', '\u{FDD1}'];

/// What a machine has to do with handed values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handoffs {
    /// Names that its installed system may publish.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub publishes: BTreeSet<HandoffName>,
    /// What its rendered user-data has markers for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub uses: BTreeSet<HandoffUse>,
}

/// A value that a template asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HandoffUse {
    /// The machine that publishes it.
    pub from: MachineName,
    /// Its name there.
    pub name: HandoffName,
}

impl fmt::Display for HandoffUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.from)
    }
}

/// A marker that is not whole, or a mark that stands alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a marker of a handed value is damaged")]
pub struct BadMarker {
    /// Byte at which it begins.
    pub at: usize,
}

/// Why a text can't be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfilled {
    /// See [`BadMarker`].
    #[error(transparent)]
    Bad(#[from] BadMarker),
    /// There is no value.
    #[error("there is no {0}")]
    Missing(HandoffUse),
}

impl HandoffUse {
    /// The longest value in bytes.
    pub const LONGEST: usize = 4096;

    /// What stands for the value in rendered text. The readable part is what people see of it.
    pub fn marker(&self) -> String {
        let [open, close] = HANDOFF_MARKS;
        format!("{open}<handoff {} {}>{close}", self.from, self.name)
    }

    fn parse(inner: &str) -> Option<Self> {
        let (from, name) = inner.strip_prefix("<handoff ")?.strip_suffix('>')?.split_once(' ')?;
        Some(Self { from: from.parse().ok()?, name: name.parse().ok()? })
    }

    /// All that `text` has markers for.
    ///
    /// # Errors
    /// [`BadMarker`].
    pub fn all_in(text: &str) -> Result<BTreeSet<HandoffUse>, BadMarker> {
        if !text.contains(HANDOFF_MARKS[0]) && !text.contains(HANDOFF_MARKS[1]) {
            return Ok(BTreeSet::new());
        }
        let pieces = pieces(text).map(|piece| piece.map(|piece| piece.1));
        pieces.filter_map(Result::transpose).collect()
    }

    /// `text` with a value in place of each marker.
    ///
    /// # Errors
    /// [`Unfilled`].
    pub fn fill<'v>(text: &str, mut value: impl FnMut(&HandoffUse) -> Option<&'v str>) -> Result<String, Unfilled> {
        let mut filled = String::with_capacity(text.len());
        for piece in pieces(text) {
            let (plain, wanted) = piece?;
            filled.push_str(plain);
            if let Some(wanted) = wanted {
                filled.push_str(value(&wanted).ok_or(Unfilled::Missing(wanted))?);
            }
        }
        Ok(filled)
    }
}

/// Plain text, and the marker that follows it.
fn pieces(text: &str) -> impl Iterator<Item = Result<(&str, Option<HandoffUse>), BadMarker>> {
    let mut at = 0;
    let mut over = false;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|_| !over)?;
        let Some(open) = rest.find(HANDOFF_MARKS) else {
            over = true;
            return Some(Ok((rest, None)));
        };
        let (plain, marker) = rest.split_at(open);
        let inner = marker.strip_prefix(HANDOFF_MARKS[0]).and_then(|inner| inner.split_once(HANDOFF_MARKS[1]));
        let Some((inner, wanted)) = inner.and_then(|(inner, _)| Some((inner, HandoffUse::parse(inner)?))) else {
            over = true;
            return Some(Err(BadMarker { at: at + open }));
        };
        at += open + inner.len() + HANDOFF_MARKS.iter().map(|mark| mark.len_utf8()).sum::<usize>();
        Some(Ok((plain, Some(wanted))))
    })
}

/// What the journal says of a published value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The attempt whose system published it.
    pub attempt: AttemptId,
    /// Number of the record that first says so.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Since when the value is not there any more, although the system that published it is.
    pub lost: Option<Timestamp>,
}

/// What the boot server may do with handed values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoffTable {
    /// The systems that may publish, by the attempt that installed them.
    pub publishers: BTreeMap<AttemptId, Publisher>,
    /// For each install that may go on: which publisher's attempt each value of its user-data comes from.
    pub released: BTreeMap<AttemptId, BTreeMap<HandoffUse, AttemptId>>,
    /// Installs whose system may publish.
    pub publishing: BTreeSet<AttemptId>,
}

/// A system that may publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// The machine, by its name now.
    pub machine: MachineName,
    /// What its manifest lets it publish.
    pub names: BTreeSet<HandoffName>,
    /// What the journal says it published, and did not lose.
    pub published: BTreeSet<HandoffName>,
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "wait", rename_all_fields = "camelCase")]
pub enum HandoffWait {
    /// The machine is not in the fleet, or does not publish it.
    NoPublisher,
    /// It is not clear which machine has this name.
    Unsettled,
    /// It is not installed as the commit wants it, so what it published is not what counts.
    ToInstall,
    /// It is being installed.
    Installing {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Its install failed.
    Failed {
        /// The attempt.
        attempt: AttemptId,
        /// A stable name of the failure.
        code: String,
    },
    /// Its system runs and has not said it yet.
    Silent,
    /// It holds a system that was not installed by us, so that system can't say it.
    Adopted,
    /// It was said, and the controller lost it.
    Lost,
    /// It was said after this install began, or said again.
    Newer,
}

impl HandoffWait {
    /// Whether a person has to do something.
    pub fn needs_a_person(&self) -> bool {
        match self {
            HandoffWait::NoPublisher | HandoffWait::Failed { .. } | HandoffWait::Adopted | HandoffWait::Lost => true,
            HandoffWait::Unsettled | HandoffWait::ToInstall | HandoffWait::Installing { .. } | HandoffWait::Silent | HandoffWait::Newer => {
                false
            }
        }
    }

    pub(super) fn text(&self, from: &MachineName, since: Option<Timestamp>) -> String {
        let since = since.map(|since| format!(" (since {since:.0})")).unwrap_or_default();
        let why = match self {
            HandoffWait::NoPublisher => format!("no manifest says that {from} publishes it"),
            HandoffWait::Unsettled => format!("it is not settled which machine is {from}"),
            HandoffWait::ToInstall => format!("{from} is to be installed first"),
            HandoffWait::Installing { attempt } => format!("{attempt} is on its way"),
            HandoffWait::Failed { attempt, code } => {
                format!("the breaker is open for it, since {attempt} failed ({code}); nothing begins until {from} is installed")
            }
            HandoffWait::Silent => format!("{from} runs and has not published it; it may take its time"),
            HandoffWait::Adopted => format!("{from} was not installed by Rackwright, so it can't publish; raise its `rebuild`"),
            HandoffWait::Lost => {
                format!("{from} published it and the controller lost it: let {from} publish it again, or raise its `rebuild`")
            }
            HandoffWait::Newer => format!("{from} published it after this install began, so another begins"),
        };
        why + &since
    }
}

impl MachineHistory {
    /// The attempt that made what is on its disk: the last that began to write, if it finished and did not fail.
    pub fn life(&self) -> Option<&Attempt> {
        let last = self.attempts.iter().rev().find(|attempt| attempt.wrote())?;
        let failed = matches!(last.end, Some((_, AttemptEnd::Failed { .. })));
        (last.reached(Rung::Written).is_some() && !failed).then_some(last)
    }
}

impl MachineHistory {
    /// What is said a second time keeps its place in the order of things, unless it was lost in between.
    pub(super) fn published(&mut self, seq: u64, at: Timestamp, attempt: &AttemptId, names: &BTreeSet<HandoffName>) {
        if self.life().is_none_or(|life| life.id != *attempt) {
            return;
        }
        for name in names {
            if self.published.get(name).is_none_or(|known| known.attempt != *attempt || known.lost.is_some()) {
                self.published.insert(name.clone(), Published { attempt: attempt.clone(), seq, at, lost: None });
            }
        }
    }

    pub(super) fn values_lost(&mut self, at: Timestamp, attempt: &AttemptId, names: &BTreeSet<HandoffName>) {
        let own = self.published.iter_mut().filter(|(name, known)| names.contains(*name) && known.attempt == *attempt);
        own.for_each(|(_, known)| known.lost = Some(at));
    }
}

impl History {
    /// Where a value is to be taken from: what the journal says of it, if its publisher holds what it should, as `settled` tells, and nothing is
    /// on its way there.
    ///
    /// # Errors
    /// Why there is none, and since when that is so.
    pub fn handoff(
        &self,
        fleet: &Fleet,
        wanted: &HandoffUse,
        settled: impl FnOnce(&Machine, &MachineHistory) -> bool,
    ) -> Result<&Published, (HandoffWait, Option<Timestamp>)> {
        let publisher = fleet.machines.get(&wanted.from).filter(|machine| machine.handoffs.publishes.contains(&wanted.name));
        let Some(publisher) = publisher else { return Err((HandoffWait::NoPublisher, None)) };
        let Some(known) = self.machines.get(&wanted.from) else { return Err((HandoffWait::ToInstall, None)) };
        if let Some(open) = known.open_attempt() {
            return Err((HandoffWait::Installing { attempt: open.id.clone() }, Some(open.began)));
        }
        let desired = publisher.generation();
        let ended = known.attempts.iter().rev().filter_map(|attempt| Some((attempt, attempt.end.as_ref()?)));
        let mut ended = ended.filter(|(_, (_, end))| *end != AttemptEnd::Superseded);
        if let Some((attempt, (at, AttemptEnd::Failed { code, .. }))) = ended.next()
            && (desired == Some(attempt.generation) || known.installed != desired)
        {
            return Err((HandoffWait::Failed { attempt: attempt.id.clone(), code: code.clone() }, Some(*at)));
        }
        if known.installed.is_none() || !settled(publisher, known) {
            return Err((HandoffWait::ToInstall, known.claimed));
        }
        match known.published.get(&wanted.name) {
            Some(Published { lost: Some(lost), .. }) => Err((HandoffWait::Lost, Some(*lost))),
            Some(published) if known.life().is_none_or(|life| life.id == published.attempt) => Ok(published),
            _ => match known.life() {
                Some(life) => Err((HandoffWait::Silent, life.end.as_ref().map(|(at, _)| *at))),
                None => Err((HandoffWait::Adopted, known.claimed)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(from: &str, name: &str) -> HandoffUse {
        HandoffUse { from: from.parse().unwrap(), name: name.parse().unwrap() }
    }

    #[test]
    fn a_marker_is_read_back_wherever_it_stands() {
        let (token, cert) = (wanted("cp-1", "join-token"), wanted("cp-1", "ca.hash"));
        let text = format!("{}a: {}\nä{}{}", token.marker(), cert.marker(), token.marker(), token.marker());
        assert_eq!(HandoffUse::all_in(&text), Ok([token.clone(), cert.clone()].into()));
        let filled = HandoffUse::fill(&text, |wanted| Some(if *wanted == token { "T" } else { "C" }));
        assert_eq!(filled.as_deref(), Ok("Ta: C\näTT"));
        assert_eq!(HandoffUse::fill(&text, |wanted| (*wanted == token).then_some("T")), Err(Unfilled::Missing(cert)));
        assert_eq!(HandoffUse::all_in("plain"), Ok(BTreeSet::new()));
        assert_eq!(HandoffUse::fill("", |_| None).as_deref(), Ok(""));
    }

    #[test]
    fn a_damaged_marker_is_never_taken_for_text() {
        let marker = wanted("cp-1", "join-token").marker();
        for bad in [
            marker.to_uppercase(),
            marker[..marker.len() - 3].to_owned(),
            marker[3..].to_owned(),
            marker.replace("cp-1", ""),
            marker.replace(' ', "  "),
            marker.replace('<', ""),
            format!("{0}{marker}", HANDOFF_MARKS[0]),
            format!("{marker}{}", HANDOFF_MARKS[1]),
        ] {
            let text = format!("before {bad} after");
            assert!(HandoffUse::all_in(&text).is_err(), "{text:?}");
            assert!(matches!(HandoffUse::fill(&text, |_| Some("x")), Err(Unfilled::Bad(BadMarker { at })) if at >= 7), "{text:?}");
        }
    }

    #[test]
    fn a_marker_does_not_change_between_releases() {
        // Do not change it: generations of machines in the field were made with it (law 11).
        assert_eq!(wanted("cp-1", "join-token").marker(), "\u{FDD0}<handoff cp-1 join-token>\u{FDD1}");
    }
}
