//! The text of a status note: a summary for people, trailers for scripts, one line of JSON for programs.
//!
//! **Non-goals.** When to write and how to push: the engine and `git`.

use std::fmt::Write as _;

use serde_json::json;

use super::Refusal;
use crate::model::{CommitId, MachineName, MachineStatus, Problem, SiteName, State, Status, Timestamp};

/// Most bytes of a note. Forges and `git log` show a note whole; 64 KiB holds 10,000 machines' exceptions in practice.
pub const MOST: usize = 64 * 1024;

/// Most holds that are listed.
const MOST_HOLDS: usize = 10;

/// Lines of the summary are at most so many characters wide, as Git's own messages are.
const WIDTH: usize = 72;

/// The note of the commit in force.
pub fn of_status(status: &Status) -> String {
    let headline = format!("{}: {} of {} machines ready at {}", status.site, status.ready, status.total, minute(status.at));
    fitting(status, |most| {
        let of = |state: State| status.machines.values().filter(|machine| machine.state == state).count();
        let mut text = format!("{}\n{}", fit(&headline), exceptions(status, most));
        let _ = write!(text, "\nRackwright-Site: {}\nRackwright-State: {}\n", status.site, status.state);
        let _ = writeln!(text, "Rackwright-Ready: {}/{}", status.ready, status.total);
        let _ = write!(text, "Rackwright-Reconciling: {}\nRackwright-Stalled: {}\n", of(State::Reconciling), of(State::Stalled));
        let line = json!({
            "version": 1, "site": status.site, "commit": status.commit.id, "at": status.at, "state": status.state,
            "ready": status.ready, "total": status.total, "exceptions": exceptions_json(status, most),
        });
        let _ = write!(text, "\n{line}\n");
        text
    })
}

/// How it stood under a commit that is not in force any more.
#[derive(Debug, Clone, Copy)]
pub enum Last<'a> {
    /// It never was in force.
    Never,
    /// So.
    Known(&'a Status),
    /// The controller was stopped before it could say.
    Unknown,
}

/// The last word on a commit that is not in force any more, with how it stood then; or that never was.
pub fn superseded(site: &SiteName, by_id: CommitId, last: Last<'_>, at: Timestamp) -> String {
    let headline = fit(&format!("{site}: superseded by {} at {}", by_id.short(), minute(at)));
    let trailers = format!("\nRackwright-Site: {site}\nRackwright-State: Superseded\nRackwright-Superseded-By: {by_id}\n");
    let without = |what: &str| {
        let line = json!({"version": 1, "site": site, "at": at, "state": "Superseded", "supersededBy": by_id});
        format!("{headline}\n\n{what}\n{trailers}\n{line}\n")
    };
    let status = match last {
        Last::Known(status) => status,
        Last::Never => return without("It was never in force here."),
        Last::Unknown => return without("It was in force here; the controller stopped before it told how it stood."),
    };
    let (ready, total) = (status.ready, status.total);
    fitting(status, |most| {
        let listed = exceptions(status, most);
        let line = json!({
            "version": 1, "site": site, "at": at, "state": "Superseded", "supersededBy": by_id, "lastState": status.state,
            "ready": ready, "total": total, "exceptions": exceptions_json(status, most),
        });
        format!(
            "{headline}\n\n{ready} of {total} machines were ready then.\n{listed}{trailers}Rackwright-Ready: {ready}/{total}\n\n{line}\n"
        )
    })
}

/// A text that lists fewer and fewer exceptions until it fits: the worst come first.
fn fitting(status: &Status, compose: impl Fn(usize) -> String) -> String {
    let mut most = status.machines.len();
    loop {
        let text = compose(most);
        if text.len() <= MOST || most == 0 {
            return text;
        }
        most /= 2;
    }
}

/// Machines that people are told of, worst first.
fn worst_first(status: &Status) -> Vec<(&MachineName, &MachineStatus)> {
    let mut exceptions: Vec<_> = status.machines.iter().filter(|(_, machine)| machine.is_told()).collect();
    exceptions.sort_by_key(|(_, machine)| std::cmp::Reverse(machine.state));
    exceptions
}

fn exceptions(status: &Status, most: usize) -> String {
    let all = worst_first(status);
    let mut text = String::new();
    if let Some(problem) = &status.source_problem {
        let _ = writeln!(text, "\n{}", fit(&format!("Not up to date: {problem}")));
    }
    if let Some(problem) = &status.journal_problem {
        let _ = writeln!(text, "\n{}", fit(&format!("Nothing is done: {problem}")));
    }
    if let Some(why) = &status.brake.unreadable {
        let _ = writeln!(text, "\n{}", fit(&format!("Everything is held: {why}")));
    }
    let holds = &status.brake.holds;
    for (number, hold) in holds.iter().take(MOST_HOLDS).enumerate() {
        let _ = writeln!(text, "{}{}", if number == 0 { "\n" } else { "" }, fit(&format!("Hold: {hold}")));
    }
    if holds.len() > MOST_HOLDS {
        let _ = writeln!(text, "... and {} more holds", holds.len() - MOST_HOLDS);
    }
    if !all.is_empty() {
        text.push('\n');
    }
    for (name, machine) in all.iter().take(most) {
        let _ = writeln!(text, "{}", fit(&format!("{:<11} {name}: {}", machine.state.to_string(), machine.message)));
    }
    if most < all.len() {
        let _ = writeln!(text, "... and {} more", all.len() - most);
    }
    text
}

fn exceptions_json(status: &Status, most: usize) -> Vec<serde_json::Value> {
    let listed = worst_first(status).into_iter().take(most);
    listed.map(|(name, machine)| json!({"name": name, "state": machine.state, "reason": machine.reason})).collect()
}

/// The note of a commit that has errors.
pub fn rejected(site: &SiteName, problems: &[Problem], in_force: Option<CommitId>, at: Timestamp) -> String {
    let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
    let mut text = format!("{}\n\n", fit(&format!("{site}: not in force, {} errors at {}", errors.len(), minute(at))));
    for problem in errors.iter().take(50) {
        let _ = writeln!(text, "{}:{}:{}: {}", problem.file, problem.line, problem.column, problem.message);
    }
    if errors.len() > 50 {
        let _ = writeln!(text, "... and {} more: run `rackwright validate`", errors.len() - 50);
    }
    let _ = write!(text, "\nRackwright-Site: {site}\nRackwright-State: Rejected\n");
    if let Some(id) = in_force {
        let _ = writeln!(text, "Rackwright-In-Force: {id}");
    }
    let line = json!({"version": 1, "site": site, "at": at, "state": "Rejected", "errors": errors.len(), "inForce": in_force});
    let _ = write!(text, "\n{line}\n");
    text
}

/// The note of a commit that is not signed as is asked, and of the tip that would bring it into force.
pub fn refused(site: &SiteName, refusal: &Refusal, in_force: Option<CommitId>, at: Timestamp) -> String {
    let mut text = format!("{}\n\n", fit(&format!("{site}: not in force, refused at {}", minute(at))));
    let mut line = String::new();
    for word in refusal.told().split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() >= WIDTH {
            let _ = writeln!(text, "{line}");
            line.clear();
        }
        let _ = write!(line, "{}{word}", if line.is_empty() { "" } else { " " });
    }
    let Refusal { verdict, why, .. } = refusal;
    let _ = write!(text, "{line}\n\nRackwright-Site: {site}\nRackwright-State: Refused\nRackwright-Refused: {}\n", verdict.id);
    if let Some(id) = in_force {
        let _ = writeln!(text, "Rackwright-In-Force: {id}");
    }
    let line = json!({
        "version": 1, "site": site, "at": at, "state": "Refused", "refused": verdict.id, "key": why.key(), "inForce": in_force,
    });
    let _ = write!(text, "\n{line}\n");
    text
}

fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `text` in one line of at most [`WIDTH`] characters.
fn fit(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= WIDTH { line } else { line.chars().take(WIDTH - 3).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Commit;

    fn machine(state: State, message: &str) -> MachineStatus {
        MachineStatus {
            state,
            reason: "Quarantined".to_owned(),
            message: message.to_owned(),
            group: "web".to_owned(),
            power: "On".to_owned(),
            image: None,
            generation: None,
            rung: None,
            progress: None,
            writes: 0,
        }
    }

    fn status(machines: BTreeMap<MachineName, MachineStatus>) -> Status {
        let commit = Commit {
            id: CommitId([7; 20]),
            subject: "edit".to_owned(),
            author: "A <a@example.org>".to_owned(),
            time: Timestamp::UNIX_EPOCH,
            approvals: Vec::new(),
        };
        let ready = machines.values().filter(|machine| machine.state == State::Ready).count() as u32;
        Status {
            site: "lab".parse().unwrap(),
            commit,
            at: Timestamp::UNIX_EPOCH,
            state: machines.values().map(|machine| machine.state).max().unwrap_or(State::Ready),
            ready,
            total: machines.len() as u32,
            machines,
            source_problem: None,
            journal_problem: None,
            notes_problem: None,
            problems: Vec::new(),
            brake: Default::default(),
        }
    }

    #[test]
    fn a_note_names_the_exceptions_worst_first_then_trailers_then_json() {
        let machines = [
            ("web-1", machine(State::Ready, "")),
            ("web-2", machine(State::Reconciling, "web-2#1: writing")),
            ("web-3", machine(State::Stalled, "quarantined: web-3#1 failed (disk-write): a very long reason that does not fit in a line")),
        ];
        let text = of_status(&status(machines.into_iter().map(|(name, machine)| (name.parse().unwrap(), machine)).collect()));
        let (summary, line) = text.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(summary, EXPECTED);
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["ready"], 1);
        assert!(summary.lines().all(|line| line.chars().count() <= WIDTH));
    }

    const EXPECTED: &str = "\
lab: 1 of 3 machines ready at 1970-01-01 00:00 UTC

Stalled     web-3: quarantined: web-3#1 failed (disk-write): a very l...
Reconciling web-2: web-2#1: writing

Rackwright-Site: lab
Rackwright-State: Stalled
Rackwright-Ready: 1/3
Rackwright-Reconciling: 1
Rackwright-Stalled: 1
";

    #[test]
    fn a_superseded_commit_keeps_what_was_wrong_under_it() {
        let machines = [("web-3", machine(State::Stalled, "quarantined: web-3#1 failed"))];
        let last = status(machines.into_iter().map(|(name, machine)| (name.parse().unwrap(), machine)).collect());
        let by = CommitId([9; 20]);
        let text = superseded(&last.site, by, Last::Known(&last), Timestamp::UNIX_EPOCH);
        assert!(text.contains("Stalled     web-3: quarantined: web-3#1 failed\n"), "{text}");
        assert!(text.contains(&format!("Rackwright-Superseded-By: {by}\n")), "{text}");
        let never = superseded(&last.site, by, Last::Never, Timestamp::UNIX_EPOCH);
        assert!(never.contains("It was never in force here."), "{never}");
    }

    #[test]
    fn a_rejected_commit_is_told_its_errors() {
        let problem = Problem {
            file: "machines/a.yaml".to_owned(),
            line: 3,
            column: 5,
            length: 1,
            severity: crate::model::Severity::Error,
            code: "unknown-field".to_owned(),
            message: "there is no field `nic`".to_owned(),
            hint: None,
        };
        let text = rejected(&"lab".parse().unwrap(), &[problem], Some(CommitId([7; 20])), Timestamp::UNIX_EPOCH);
        assert!(text.contains("machines/a.yaml:3:5: there is no field `nic`\n"), "{text}");
        assert!(text.contains("Rackwright-State: Rejected\n") && text.contains("Rackwright-In-Force: 0707"), "{text}");
    }

    #[test]
    fn a_note_of_ten_thousand_stalled_machines_keeps_to_its_size() {
        let one = machine(State::Stalled, &"x".repeat(500));
        let machines = (0..10_000).map(|n| (format!("machine-{n:05}").parse().unwrap(), one.clone())).collect();
        let text = of_status(&status(machines));
        assert!(text.len() <= MOST, "{}", text.len());
        assert!(text.contains("more\n"));
        serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).unwrap();
    }

    #[test]
    fn a_control_character_in_a_message_cannot_forge_a_trailer() {
        let machines = [("web-1".parse().unwrap(), machine(State::Stalled, "x\nRackwright-State: Ready"))].into();
        let text = of_status(&status(machines));
        assert_eq!(text.lines().filter(|line| line.starts_with("Rackwright-State:")).collect::<Vec<_>>(), ["Rackwright-State: Stalled"]);
    }
}
