//! YAML files that are not manifests: an error says file, line, and what to write instead.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde::de::DeserializeOwned;

use crate::{
    manifest,
    model::{Problem, Severity},
};

/// Reads a file.
///
/// # Errors
/// It can't be read, or it makes no sense; then the message shows the line.
pub fn read<T: DeserializeOwned>(path: &Path, what: &str) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read the {what} {}", path.display()))?;
    parse(&text, path)
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> anyhow::Result<T> {
    serde_yaml::from_str(text).map_err(|error| {
        let problem = problem(&error, path);
        let line = text.lines().nth(problem.line.saturating_sub(1) as usize).unwrap_or_default();
        let rendered = manifest::render(&problem, (!may_hold_a_secret(line)).then_some(text));
        // `error[config]: …`: whoever prints errors says "error:" itself.
        let message = rendered.split_once(": ").map_or(rendered.as_str(), |(_, message)| message);
        anyhow!("{}", message.trim_end())
    })
}

/// Whether a line is better not shown where logs are kept (law 14).
fn may_hold_a_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    ["passw", "token", "secret"].iter().any(|word| line.contains(word)) || (line.contains("://") && line.contains('@'))
}

fn problem(error: &serde_yaml::Error, path: &Path) -> Problem {
    let whole = error.to_string();
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let message = whole.replace(&format!(" at line {line} column {column}"), "");
    let (message, hint, length) = teach(&message);
    Problem {
        file: path.display().to_string(),
        line: u32::try_from(line).unwrap_or(1).max(1),
        column: u32::try_from(column).unwrap_or(1).max(1),
        length,
        severity: Severity::Error,
        code: "config".to_owned(),
        message,
        hint,
    }
}

/// The parser's words as ours, with what to write instead, and how many characters of the line are meant.
fn teach(message: &str) -> (String, Option<String>, u32) {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.contains("unknown field") || message.contains("unknown variant") {
        let Some((unknown, known)) = names.split_first() else { return (message.to_owned(), None, 1) };
        let near = known.iter().map(|name| (strsim::damerau_levenshtein(unknown, name), name)).min();
        let hint = match near {
            Some((distance, name)) if distance <= 1 + unknown.len() / 3 => format!("did you mean `{name}`?"),
            _ => format!("known here: {}", known.join(", ")),
        };
        let said = message.split(", expected").next().unwrap_or(message);
        return (said.to_owned(), Some(hint), u32::try_from(unknown.chars().count()).unwrap_or(1));
    }
    let hint = match message {
        _ if message.contains("missing field") => names.first().map(|name| format!("add `{name}: …` here")),
        _ if message.contains("\"friendly\" duration format") => Some("write a duration such as 30s, 5m or 1h30m".to_owned()),
        _ if message.contains("invalid socket address") => Some("write address and port, such as 0.0.0.0:69".to_owned()),
        _ if message.contains("invalid IPv4 address") => Some("write an address such as 10.0.4.2".to_owned()),
        _ if message.contains("invalid type: unit value") => Some("write a value after the colon".to_owned()),
        _ if message.contains("tab character") => Some("indent with spaces".to_owned()),
        _ => None,
    };
    let said = match message.split_once("failed to parse input in the \"friendly\" duration format") {
        Some((path, _)) => format!("{path}not a duration"),
        None => message.to_owned(),
    };
    (said, hint, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::Config;

    fn error(text: &str) -> String {
        parse::<Config>(text, Path::new("rackwright.yaml")).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn an_error_says_where_and_what_to_write() {
        let head = "site: lab\nstateDir: s\nrepository:\n";
        for (text, place, hint) in [
            ("  url: /f\n  brnch: main\n", ":5:3", "did you mean `branch`?"),
            ("  url: /f\n  poll: often\n", ":5:9", "such as 30s"),
            ("  poll: 2s\n", ":4:3", "add `url: …` here"),
            ("  url: /f\nboot: {advertise: 10.0.0.300}\n", ":5:19", "10.0.4.2"),
            ("  url: /f\nboot: {advertise: 10.0.0.3, tftp: 69}\n", ":5:35", ""),
            ("  url: /f\nzzzzzzzzzz: 1\n", ":5:1", "known here: site"),
            ("  url: /f\n\tbranch: main\n", ":5:1", "indent with spaces"),
            ("  url: http://h/f\n", ":4:", "use https:// or ssh://"),
        ] {
            let message = error(&format!("{head}{text}"));
            assert!(message.contains(&format!("rackwright.yaml{place}")) && message.contains(hint), "{text}: {message}");
        }
        assert!(error("").contains("missing field `site`"), "{}", error(""));
    }
}
