//! A plan as Markdown, for a comment on a pull request: what can't be undone first, as much as fits a phone's screen; then each machine, folded.
//!
//! Commit messages, manifests and BMCs all put words into it. None of them can become a link, an image, a mention or markup of the page: text is
//! escaped as CommonMark 0.31 (section 2.4) and GitHub's filters read it.

use std::mem::{Discriminant, discriminant};

use super::render::{Effect, counted, details, exceptions, problems, summary, times};
use crate::model::{DomainPlan, GroupPlan, Held, MachineName, MachinePlan, Plan, Reason};

/// Longest Markdown in characters. GitHub takes 65,536, GitLab and Forgejo more; the rest is for whoever puts a line around it.
pub const LONGEST: usize = 60_000;

/// Most kinds of change, groups, places and waves that are listed before the fold.
const MOST: usize = 10;

/// Most machines that are named where a kind of change is listed.
const NAMED: usize = 5;

/// Longest reason that is quoted before the fold, in characters.
const QUOTED: usize = 160;

/// The plan as Markdown, at most [`LONGEST`] characters of it.
pub fn render_markdown(plan: &Plan) -> String {
    let mut out = format!("### Plan for {}: {}\n\n**{}**\n\n", plan.commit.id.short(), quoted(&plan.commit.subject), summary(plan));
    let parts: Vec<&MachinePlan> = exceptions(plan).collect();
    out += &irreversible(&parts);
    out += &kinds(&parts);
    out += &groups(plan);
    out += &domains(&plan.domains);
    out += &waves(plan);
    if !plan.problems.is_empty() {
        out += &format!("{}\n\n", problems(plan));
    }
    let room = LONGEST.saturating_sub(out.chars().count());
    out += &each(&parts, room);
    out
}

/// Which disks lose their data.
fn irreversible(parts: &[&MachinePlan]) -> String {
    let lost: Vec<&MachineName> = parts.iter().filter(|part| part.reimage.is_some()).map(|part| &part.name).collect();
    if lost.is_empty() {
        return String::new();
    }
    let whose = if lost.len() == 1 { "its system disk" } else { "their system disks" };
    format!("> [!CAUTION]\n> {} written over, all data on {whose} is lost: {}\n\n", counted(lost.len() as u32, "machine"), names(&lost))
}

/// Machines to which the same happens for the same reason, and which are held by the same kind of thing.
struct Kind<'a> {
    effect: Effect,
    group: &'a str,
    why: String,
    held: Option<&'a Held>,
    machines: Vec<&'a MachineName>,
}

impl<'a> Kind<'a> {
    fn of(part: &'a MachinePlan) -> Self {
        let why = match part.reimage.as_deref().map(|reimage| &reimage.reason).or_else(|| Some(&part.steps.first()?.reason)) {
            Some(reason) => kind_of_reason(reason),
            None => part.waiting.as_ref().map(|waiting| waiting.why.clone()).unwrap_or_default(),
        };
        Self { effect: Effect::of(part), group: group(part), why, held: part.held.first(), machines: vec![&part.name] }
    }

    fn key(&self) -> (Effect, &str, &str, Option<Discriminant<Held>>) {
        (self.effect, self.group, &self.why, self.held.map(discriminant))
    }
}

/// A reason without what differs from machine to machine.
fn kind_of_reason(reason: &Reason) -> String {
    match reason {
        Reason::GenerationChanged { fields, .. } if !fields.is_empty() => format!("{} changed", fields.join(", ")),
        Reason::GenerationChanged { .. } => "something else should be on its disk".to_owned(),
        Reason::PartOf { .. } => "an install is on its way".to_owned(),
        other => other.to_string(),
    }
}

fn kinds(parts: &[&MachinePlan]) -> String {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for part in parts {
        let new = Kind::of(part);
        match kinds.iter_mut().find(|kind| kind.key() == new.key()) {
            Some(kind) => kind.machines.extend(new.machines),
            None => kinds.push(new),
        }
    }
    if kinds.is_empty() {
        return String::new();
    }
    let mut out = String::from("| effect | machines | why | held |\n|---|---|---|---|\n");
    for Kind { effect, group, why, held, machines } in kinds.iter().take(MOST) {
        let held = held.map(|held| quoted(&held.to_string())).unwrap_or_default();
        let of = format!("{} of {}: {}", machines.len(), prose(group), names(machines));
        out += &format!("| {} | {of} | {} | {held} |\n", word(*effect), quoted(why));
    }
    let rest: usize = kinds.iter().skip(MOST).map(|kind| kind.machines.len()).sum();
    if rest > 0 {
        out += &format!("| … | {rest} more | {} more | |\n", counted((kinds.len() - MOST) as u32, "kind"));
    }
    out + "\n"
}

/// Groups in which something happens, and how many of their machines stay while it does.
fn groups(plan: &Plan) -> String {
    let of = |group: &&GroupPlan| group.destructive > 0 || group.unavailable > 0 || group.failures > 0;
    let rows = plan.groups.iter().filter(of).map(|group| {
        let approved = group.approved_by.as_ref().map(|by| format!(", approved by {}", prose(by))).unwrap_or_default();
        let failures = if group.failures == 0 { String::new() } else { format!(", {}", counted(group.failures, "failure")) };
        let stay = group.total.saturating_sub(group.unavailable_allowed.min(group.total));
        format!(
            "| {} | {} of {}{approved}{failures} | {} | {} | {stay} |\n",
            prose(&group.name),
            group.destructive,
            group.destructive_allowed,
            group.unavailable,
            group.unavailable_allowed
        )
    });
    table("| group | reinstalls, allowed | away now | at most | stay |\n|---|---|---|---|---|\n", rows.collect())
}

/// Racks and other failure domains in which machines are reinstalled.
fn domains(domains: &[DomainPlan]) -> String {
    let rows = domains.iter().map(|domain| {
        let most = domain.unavailable_allowed.map_or("no limit of its own".to_owned(), |most| most.to_string());
        format!("| {} | {} of {} | {} | {most} |\n", prose(&domain.name), domain.destructive, domain.total, domain.unavailable)
    });
    table("| place | reinstalls, machines | away now | at most |\n|---|---|---|---|\n", rows.collect())
}

fn waves(plan: &Plan) -> String {
    let lines = plan.estimate.as_ref().map(times).unwrap_or_default();
    let shown = lines.len().saturating_sub(2).min(MOST);
    // The last two are the sum, and what it rests on.
    let (each, sums) = lines.split_at(lines.len().saturating_sub(2));
    let each = each.iter().take(shown).chain(sums).map(|line| format!("- {}\n", prose(line)));
    let out: String = each.collect();
    if out.is_empty() { out } else { out + "\n" }
}

fn table(head: &str, rows: Vec<String>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let more = rows.len().saturating_sub(MOST);
    let more = if more == 0 { String::new() } else { format!("\nand {more} more\n") };
    format!("{head}{}{more}\n", rows.into_iter().take(MOST).collect::<String>())
}

/// Each machine, folded, as many as there is room for in characters.
fn each(parts: &[&MachinePlan], room: usize) -> String {
    let head = format!(
        "<details><summary>{}, worst first</summary>\n\n| effect | machine | manifest | details |\n|---|---|---|---|\n",
        counted(parts.len() as u32, "machine")
    );
    let tail = |left: usize| match left {
        0 => "\n</details>\n".to_owned(),
        left => format!("\n{left} more do not fit here: `rackwright plan` prints them all.\n\n</details>\n"),
    };
    let mut left = room.saturating_sub(head.chars().count() + tail(usize::MAX).chars().count());
    let mut rows = Vec::new();
    for part in parts {
        let row = row(part);
        let Some(rest) = left.checked_sub(row.chars().count()) else { break };
        left = rest;
        rows.push(row);
    }
    if rows.is_empty() { String::new() } else { head + &rows.concat() + &tail(parts.len() - rows.len()) }
}

fn row(part: &MachinePlan) -> String {
    let lines: Vec<String> = details(part).iter().map(|line| prose(&line.split_whitespace().collect::<Vec<_>>().join(" "))).collect();
    let source = if part.source.is_empty() { String::new() } else { prose(&part.source) };
    format!("| {} | `{}` | {source} | {} |\n", word(Effect::of(part)), part.name, lines.join("<br>"))
}

fn word(effect: Effect) -> String {
    if matches!(effect, Effect::Wipe | Effect::Reimage) { format!("**{}**", effect.word()) } else { effect.word().to_owned() }
}

fn group(part: &MachinePlan) -> &str {
    part.group.as_ref().map_or("default", |group| group.as_str())
}

fn names(machines: &[&MachineName]) -> String {
    let named: Vec<String> = machines.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let more = machines.len().saturating_sub(NAMED);
    named.join(", ") + &if more == 0 { String::new() } else { format!(" and {more} more") }
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(QUOTED).collect();
    prose(&short) + if short.len() < text.len() { " …" } else { "" }
}

/// Text that is nothing but text in a table cell or a line of Markdown.
fn prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() => out.push('\u{fffd}'),
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            // A forge reads these in the finished page: mentions, and references to issues and merge requests.
            '@' | '#' | '!' | '$' | '%' | '~' | '^' => {
                out.push('\\');
                out.push(c);
                out += "&#8203;";
            }
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '+' | '|' | '=' => {
                out.push('\\');
                out.push(c);
            }
            // Else `https://…` and `www.…` would be links.
            ':' if chars.peek() == Some(&'/') => out += "\\:",
            '.' if before.eq_ignore_ascii_case(&'w') => out += "\\.",
            c => out.push(c),
        }
        before = c;
    }
    out
}
