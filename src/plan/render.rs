//! A plan for people: exceptions first, readable without colour, at most 100 columns, one summary line last.

use std::{collections::BTreeMap, fmt::Write as _};

use super::NEXT_INSTALL;
use crate::model::{Action, Estimate, GroupPlan, Held, MachinePlan, Plan, Reimaging, Severity, SignedDuration, Unknown, Waiting};

/// Widest line of [`render_text`]; a single longer word is not broken.
const COLUMNS: usize = 100;

/// Under which word a machine is shown, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    Wipe,
    Reimage,
    PowerOff,
    PowerOn,
    Held,
    Release,
    Rename,
    Claim,
    Waiting,
    NextInstall,
    Drift,
    Unchanged,
}

impl Effect {
    const ALL: [Effect; 12] = [
        Effect::Wipe,
        Effect::Reimage,
        Effect::PowerOff,
        Effect::PowerOn,
        Effect::Held,
        Effect::Release,
        Effect::Rename,
        Effect::Claim,
        Effect::Waiting,
        Effect::NextInstall,
        Effect::Drift,
        Effect::Unchanged,
    ];

    pub(super) fn of(part: &MachinePlan) -> Self {
        let has = |wanted: fn(&Action) -> bool| part.steps.iter().any(|step| wanted(&step.action));
        let wipes = part.reimage.as_ref().is_some_and(|reimage| reimage.wipe.is_some());
        if wipes || part.ticket.as_ref().is_some_and(|ticket| ticket.work.install().is_none()) {
            return Effect::Wipe;
        }
        if part.reimage.is_some() || part.ticket.is_some() {
            return Effect::Reimage;
        }
        let by_step = [
            (has(|action| matches!(action, Action::PowerOff { .. })), Effect::PowerOff),
            (has(|action| matches!(action, Action::PowerOn | Action::BootFromNetwork { .. } | Action::ClearBootOverride)), Effect::PowerOn),
            (!part.held.is_empty(), Effect::Held),
            (has(|action| matches!(action, Action::Release)), Effect::Release),
            (has(|action| matches!(action, Action::Rename { .. })), Effect::Rename),
            (has(|action| matches!(action, Action::Claim { .. })), Effect::Claim),
            (part.next_install, Effect::NextInstall),
            (part.waiting.is_some() || !part.steps.is_empty(), Effect::Waiting),
            (!part.drift.is_empty(), Effect::Drift),
        ];
        by_step.into_iter().find(|(applies, _)| *applies).map_or(Effect::Unchanged, |(_, effect)| effect)
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Effect::Wipe => "WIPE",
            Effect::Reimage => "REIMAGE",
            Effect::PowerOff => "power off",
            Effect::PowerOn => "power on",
            Effect::Held => "held",
            Effect::Release => "release",
            Effect::Rename => "rename",
            Effect::Claim => "claim",
            Effect::Waiting => "waiting",
            Effect::NextInstall => "later",
            Effect::Drift => "drift",
            Effect::Unchanged => "unchanged",
        }
    }

    fn in_summary(self) -> &'static str {
        match self {
            Effect::Wipe => "to WIPE",
            Effect::Reimage => "to reimage",
            Effect::PowerOff => "to power off",
            Effect::PowerOn => "to power on",
            Effect::Held => "held",
            Effect::Release => "to release",
            Effect::Rename => "to rename",
            Effect::Claim => "to claim",
            Effect::Waiting => "waiting",
            Effect::NextInstall => "configured later",
            Effect::Drift => "with drift",
            Effect::Unchanged => "unchanged",
        }
    }
}

/// The plan as plain text.
pub fn render_text(plan: &Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Commit {} {}", plan.commit.id.short(), plan.commit.subject);
    for part in exceptions(plan) {
        out.push('\n');
        out += &render_machine(part);
    }
    if !plan.groups.is_empty() {
        out += "\nGroups\n";
        let width = plan.groups.iter().map(|group| group.name.len()).max().unwrap_or(0);
        for group in &plan.groups {
            let _ = writeln!(out, "  {:width$}  {}", group.name, usage(group));
        }
    }
    if let Some(estimate) = &plan.estimate {
        out += "\nTime\n";
        for line in times(estimate) {
            let _ = writeln!(out, "  {line}");
        }
    }
    if !plan.problems.is_empty() {
        let _ = writeln!(out, "\n{}", problems(plan));
    }
    out.push('\n');
    fold(&mut out, &summary(plan), "", "      ");
    out
}

/// One machine of a plan as plain text: what happens, why, and what does not.
pub fn render_machine(part: &MachinePlan) -> String {
    let mut out = String::new();
    let group = part.group.as_ref().map_or("default", |group| group.as_str());
    let _ = writeln!(out, "{:<9}  {}  ({group})", Effect::of(part).word(), part.name);
    for line in details(part) {
        wrap(&mut out, &line);
    }
    out
}

/// Machines to which something happens or does not happen, worst first.
pub(super) fn exceptions(plan: &Plan) -> impl Iterator<Item = &MachinePlan> {
    let mut parts: Vec<(Effect, &MachinePlan)> = plan.machines.values().map(|part| (Effect::of(part), part)).collect();
    parts.retain(|(effect, _)| *effect != Effect::Unchanged);
    parts.sort_by_key(|(effect, part)| (*effect, part.group.is_none(), &part.group, &part.name));
    parts.into_iter().map(|(_, part)| part)
}

pub(super) fn details(part: &MachinePlan) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(Reimaging { reason, image, wipe, disk }) = part.reimage.as_deref() {
        lines.push(format!("why    {reason}"));
        lines.extend(wipe.map(|method| format!("WIPE   {disk}, by {method}: all data there is lost, and the machine stays off")));
        lines.extend(image.iter().map(|image| format!("image  {image}, over the disk with {disk}: all data on it is lost")));
    }
    let ends_first = part.reimage.as_ref().is_none_or(|reimage| reimage.wipe.is_none());
    if ends_first && part.ticket.as_ref().is_some_and(|ticket| ticket.work.install().is_none()) {
        lines.push("WIPE   of an earlier commit: it began, and is finished first".to_owned());
    }
    if let (true, Some(installed), Some(desired)) = (part.next_install, part.installed, part.desired) {
        lines.push(format!("later  {NEXT_INSTALL} (installed {}, declared {})", installed.short(), desired.short()));
    }
    lines.extend(part.steps.iter().map(|step| format!("now    {}: {}", step.action, step.reason)));
    if let Some(Waiting { why, until }) = &part.waiting {
        let until = until.map(|until| format!(", until {until:.0}")).unwrap_or_default();
        lines.push(format!("wait   {why}{until}"));
    }
    lines.extend(part.held.iter().map(|held| format!("held   {held}")));
    // The reason of a reinstall says already which generation is on the disk.
    let said = |field: &str| matches!(field, "spec.image" | "spec.decommission");
    let shown = part.drift.iter().filter(|drift| part.reimage.is_none() || !said(&drift.field));
    lines.extend(shown.map(|drift| {
        let age = crate::model::SignedDuration::from_secs(drift.age.as_secs());
        format!("drift  {} is {}, declared {} ({}, {age:#} ago)", drift.field, drift.observed, drift.desired, drift.source)
    }));
    lines
}

/// Adds an indented line, broken at blanks before [`COLUMNS`].
fn wrap(out: &mut String, line: &str) {
    fold(out, line, "           ", "                  ");
}

/// The same with other indents, of the first line and of those that follow.
fn fold(out: &mut String, line: &str, first: &str, next: &str) {
    let mut current = first.to_owned();
    let mut empty = true;
    for word in line.split(' ') {
        if !empty && current.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(out, "{}", current.trim_end());
            current = next.to_owned();
            empty = true;
        }
        if !empty {
            current.push(' ');
        }
        current += word;
        empty = false;
    }
    let _ = writeln!(out, "{}", current.trim_end());
}

fn usage(group: &GroupPlan) -> String {
    let approved = if group.approved_by.is_some() { " (approved)" } else { "" };
    let wave = group.wave.map(|wave| format!(", wave {} of {}", wave.wave, wave.of)).unwrap_or_default();
    format!(
        "{} of {} ready, {} of {} unavailable, {} of {} reinstalls{approved}, {}{wave}",
        group.ready,
        group.total,
        group.unavailable,
        group.unavailable_allowed,
        group.destructive,
        group.destructive_allowed,
        counted(group.failures, "failure")
    )
}

/// Line by line, what is left and how long it may take, and what that rests on.
pub(super) fn times(estimate: &Estimate) -> Vec<String> {
    let width = estimate.waves.iter().map(|wave| wave.group.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for wave in &estimate.waves {
        let which = if wave.of > 1 { format!("wave {} of {}: ", wave.wave, wave.of) } else { String::new() };
        let soak = if wave.soaks.is_zero() { String::new() } else { format!(", and {:#} of soak", rounded(wave.soaks)) };
        lines.push(format!("{:width$}  {which}{}, {:#}{soak}", wave.group, counted(wave.machines, "machine"), rounded(wave.lasts)));
    }
    lines.push(format!("about {:#} in all, if nothing fails and no window, hold or approval is waited for", rounded(estimate.in_all)));
    let few = if estimate.installs < FEW { "; a guess from so few" } else { "" };
    let (median, quickest, slowest) = (rounded(estimate.median), rounded(estimate.quickest), rounded(estimate.slowest));
    let from = counted(estimate.installs, "machine");
    lines.push(format!("an install took {median:#} (median of {from}, {quickest:#} to {slowest:#}){few}"));
    lines
}

/// From fewer installs than this an estimate is a guess, and says so.
const FEW: u32 = 5;

/// To seconds below two minutes, to minutes above.
fn rounded(time: SignedDuration) -> SignedDuration {
    let seconds = time.as_secs();
    SignedDuration::from_secs(if seconds < 120 { seconds } else { seconds.saturating_add(30) / 60 * 60 })
}

pub(super) fn problems(plan: &Plan) -> String {
    let errors = plan.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = plan.problems.len() - errors;
    format!("Problems in the repository: {}, {}", counted(errors as u32, "error"), counted(warnings as u32, "warning"))
}

pub(super) fn counted(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// `Plan: 3 to reimage (2 held), 1 to power on, 18 unchanged.`
pub(super) fn summary(plan: &Plan) -> String {
    let mut counts: BTreeMap<Effect, (u32, u32)> = BTreeMap::new();
    for part in plan.machines.values() {
        let count = counts.entry(Effect::of(part)).or_default();
        count.0 += 1;
        count.1 += u32::from(part.held.iter().any(|held| !merely_unasked(held)) && part.steps.is_empty());
    }
    let parts = Effect::ALL.iter().filter_map(|effect| {
        let (count, held) = counts.get(effect)?;
        let of_these =
            if matches!(effect, Effect::Wipe | Effect::Reimage) && *held > 0 { format!(" ({held} held)") } else { String::new() };
        Some(format!("{count} {}{of_these}", effect.in_summary()))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "Plan: no machines.".to_owned() } else { format!("Plan: {}.", parts.join(", ")) }
}

/// A comparison of two commits asks no hardware; that nobody asked holds nothing back there.
fn merely_unasked(held: &Held) -> bool {
    matches!(held, Held::Unobserved { why: Unknown::NotAsked, .. })
}
