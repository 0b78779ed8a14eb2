//! Budgets and rollouts.

use std::collections::BTreeMap;

use super::{
    after::{self, After},
    fault::{At, Fault, Path, path_to},
    merged::circle,
    names::Names,
    raw::{self, Spec},
    text, windows,
    world::Source,
};
use crate::model::{Amount, Budgets, FleetSettings, PerLabel, Rollout, RolloutName, SignedDuration};

type Faults<'a> = Vec<(&'a str, Fault)>;

/// The fields that say how much may be away or destroyed, as a Fleet or a Rollout states them.
pub(crate) struct Stated<'b> {
    pub(crate) unavailable: &'b Option<raw::MaxUnavailable>,
    pub(crate) per: &'b Option<Vec<raw::PerLabel>>,
    pub(crate) destructive: &'b Option<raw::MaxDestructive>,
    pub(crate) breaker: &'b Option<raw::Breaker>,
}

impl Stated<'_> {
    /// Checks them; what is not stated is as in `default`.
    pub(crate) fn read<'a>(&self, source: Source<'a>, base: Path, default: &Budgets, faults: &mut Faults<'a>) -> Budgets {
        let mut budgets = default.clone();
        if let Some(stated) = self.per {
            budgets.max_unavailable_per = per_label(source, stated, &base, faults);
        }
        let mut fault = |parts: [&str; 2], code, message: String, hint: &str| {
            let at = At::Value(source.doc.number, base.then(parts[0]).then(parts[1]));
            faults.push((source.file, Fault::error(code, at, message).hint(hint)));
        };
        let mut amount = |text: &raw::AmountText, field| {
            let read = text::amount(&text.0);
            if read.is_none() {
                let message = format!("`{}` is neither a count nor a share", text.0);
                fault(["maxUnavailable", field], "bad-amount", message, "write a count such as `4`, or a share from `0%` to `100%`");
            }
            read
        };
        if let Some(unavailable) = self.unavailable {
            let group = unavailable.group.as_ref().and_then(|text| amount(text, "group"));
            budgets.max_unavailable = group.unwrap_or(budgets.max_unavailable);
            let rack = unavailable.rack.as_ref().and_then(|text| amount(text, "rack"));
            budgets.max_unavailable_rack = rack.or(budgets.max_unavailable_rack);
        }
        if let Some(destructive) = self.destructive {
            budgets.max_destructive.count = destructive.count.unwrap_or(budgets.max_destructive.count);
            if let Some(text) = &destructive.share {
                match text::percent(text) {
                    Some(share) => budgets.max_destructive.share = share,
                    None => {
                        let message = format!("`{text}` is not a share of the group");
                        fault(["maxDestructive", "share"], "bad-share", message, "write it from `0%` to `100%`, in whole per cent");
                    }
                }
            }
        }
        if let Some(failures) = self.breaker.as_ref().and_then(|breaker| breaker.failures) {
            if failures == 0 {
                let message = "a breaker that opens at no failure lets nothing start".to_owned();
                fault(["breaker", "failures"], "bad-breaker", message, "write `1` to stop at the first failure");
            }
            budgets.breaker_failures = failures;
        }
        if let Some(text) = self.breaker.as_ref().and_then(|breaker| breaker.share.as_ref()) {
            budgets.breaker_share = text::percent(text).filter(|share| *share > 0);
            if budgets.breaker_share.is_none() {
                fault(["breaker", "share"], "bad-breaker", format!("`{text}` is not a share of a wave"), "write it from `1%` to `100%`");
            }
        }
        budgets
    }
}

/// A budget for each value of some labels.
fn per_label<'a>(source: Source<'a>, stated: &[raw::PerLabel], base: &Path, faults: &mut Faults<'a>) -> Vec<PerLabel> {
    let mut read: Vec<PerLabel> = Vec::new();
    for (n, raw::PerLabel { label, count }) in stated.iter().enumerate() {
        let mut fault = |field, code, message: String, hint: &str| {
            let at = At::Value(source.doc.number, base.then("maxUnavailablePer").then(n).then(field));
            faults.push((source.file, Fault::error(code, at, message).hint(hint)));
        };
        if read.iter().any(|other| other.label == *label) {
            fault("label", "bad-budget", format!("the label `{label}` has a budget already"), "keep one of them");
        }
        match text::amount(&count.0) {
            Some(most) => read.push(PerLabel { label: label.clone(), most }),
            None => {
                let message = format!("`{}` is neither a count nor a share", count.0);
                fault("count", "bad-amount", message, "write a count such as `4`, or a share from `0%` to `100%`");
            }
        }
    }
    read
}

/// Resolves all rollouts.
pub(crate) fn rollouts<'a>(
    sources: impl Iterator<Item = Source<'a>>,
    names: &Names<'_>,
    settings: &FleetSettings,
    faults: &mut Faults<'a>,
) -> BTreeMap<RolloutName, Rollout> {
    let mut rollouts = BTreeMap::new();
    let mut waiting = BTreeMap::new();
    for source in sources {
        let Spec::Rollout(spec) = &source.doc.spec else { continue };
        let stated = Stated {
            unavailable: &spec.max_unavailable,
            per: &spec.max_unavailable_per,
            destructive: &spec.max_destructive,
            breaker: &spec.breaker,
        };
        let budgets = stated.read(source, path_to!["spec"], &settings.budgets, faults);
        waiting.insert(source.name(), (source, spec.after.iter().map(After::rollout).collect()));
        let Ok(name) = RolloutName::new(source.name()) else { continue };
        let windows = spec.windows.as_ref().map(|stated| windows::windows(source, stated, faults));
        let rollout = Rollout {
            name: name.clone(),
            selector: spec.selector.0.clone(),
            after: after::after(source, &spec.after, names, faults),
            budgets,
            waves: waves(source, &spec.waves, faults),
            soak: soak(source, spec, faults),
            windows: windows.unwrap_or_else(|| settings.windows.clone()),
            freeze: windows::freeze(source, &spec.freeze, faults),
            paused: spec.paused,
        };
        rollouts.insert(name.clone(), rollout);
    }
    cycles(&waiting, faults);
    rollouts
}

/// The bounds of waves: none is nothing, and each is more than the one before as far as that can be told without counting machines.
fn waves<'a>(source: Source<'a>, stated: &[raw::AmountText], faults: &mut Faults<'a>) -> Vec<Amount> {
    let mut waves: Vec<Amount> = Vec::new();
    for (n, raw::AmountText(stated)) in stated.iter().enumerate() {
        let (message, hint) = match (text::amount(stated), waves.last()) {
            (None, _) => (format!("`{stated}` is neither a count nor a share"), "write a count such as `1`, or a share such as `10%`"),
            (Some(Amount::Count(0) | Amount::Percent(0)), _) => ("a wave of no machine never ends".to_owned(), "begin with `1`"),
            (Some(Amount::Count(now)), Some(Amount::Count(last))) if now <= *last => (
                format!("{now} machines are begun by the wave before already"),
                "waves count all machines up to their end: write them ascending",
            ),
            (Some(Amount::Percent(now)), Some(Amount::Percent(last))) if now <= *last => {
                (format!("{now} % are begun by the wave before already"), "waves count all machines up to their end: write them ascending")
            }
            (Some(amount), _) => {
                waves.push(amount);
                continue;
            }
        };
        let at = At::Value(source.doc.number, path_to!["spec", "waves", n]);
        faults.push((source.file, Fault::error("bad-wave", at, message).hint(hint)));
    }
    waves
}

fn soak<'a>(source: Source<'a>, spec: &raw::RolloutSpec, faults: &mut Faults<'a>) -> SignedDuration {
    let Some(text) = &spec.soak else { return SignedDuration::ZERO };
    let read = text.parse::<SignedDuration>().ok().filter(|soak| !soak.is_negative());
    let (message, hint) = match read {
        Some(soak) if !spec.waves.is_empty() => return soak,
        Some(_) => ("nothing soaks without waves".to_owned(), "write `waves`, such as `[1, 10%]`, or take `soak` out"),
        None => (format!("`{text}` is not a length of time"), "write one such as `30m` or `1h 30m`"),
    };
    let at = At::Value(source.doc.number, path_to!["spec", "soak"]);
    faults.push((source.file, Fault::error("bad-soak", at, message).hint(hint)));
    SignedDuration::ZERO
}

/// Finds each circle of `after` once: rollouts in it would wait for each other for ever. Without recursion, because a chain
/// of rollouts may be as long as the repository is large.
fn cycles<'a>(waiting: &BTreeMap<&'a str, (Source<'a>, Vec<&'a str>)>, faults: &mut Faults<'a>) {
    let mut done: BTreeMap<&str, bool> = BTreeMap::new();
    for start in waiting.keys().copied() {
        // Each entry: a rollout, and how many of those that it waits for have been looked at.
        let mut trail: Vec<(&'a str, usize)> = Vec::new();
        if done.insert(start, false).is_none() {
            trail.push((start, 0));
        }
        while let Some((name, next)) = trail.last_mut() {
            let name = *name;
            let Some((source, waits)) = waiting.get(name) else { break };
            let Some(other) = waits.get(*next).copied() else {
                done.insert(name, true);
                trail.pop();
                continue;
            };
            let at = *next;
            *next += 1;
            match done.get(other) {
                Some(true) => {}
                Some(false) => {
                    let names: Vec<&str> = trail.iter().map(|(name, _)| *name).skip_while(|name| *name != other).collect();
                    let place = At::Value(source.doc.number, path_to!["spec", "after", at]);
                    let fault = Fault::error("after-cycle", place, format!("rollouts wait for each other in a circle: {}", circle(&names)));
                    faults.push((source.file, fault.hint("take one of them out of `after`")));
                }
                None if waiting.contains_key(other) => {
                    done.insert(other, false);
                    trail.push((other, 0));
                }
                None => {}
            }
        }
    }
}
