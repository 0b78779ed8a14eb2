//! A Problem as text, with the line of the file underlined. Colour is for whoever prints it.

use std::fmt::Write;

use crate::model::{Problem, Severity};

/// How much of a long line is shown.
const WIDTH: usize = 160;

/// A problem as people read it. `source` is the text of the file, if it is at hand.
///
/// ```text
/// error[unknown-field]: unknown field `nisc` in `spec`
///  --> machines/web-01.yaml:7:3
///   |
/// 7 |   nisc:
///   |   ^^^^ did you mean `nics`?
/// ```
pub fn render(problem: &Problem, source: Option<&str>) -> String {
    let severity = match problem.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let mut text = format!("{severity}[{}]: {}\n", problem.code, problem.message);
    let number = problem.line.to_string();
    let margin = " ".repeat(number.len());
    // Writing to a String can't fail.
    let _ = writeln!(text, "{margin}--> {}:{}:{}", problem.file, problem.line, problem.column);
    let line = source.and_then(|source| source.lines().nth(problem.line.saturating_sub(1) as usize));
    let hint = problem.hint.as_deref().unwrap_or_default();
    match line.map(shown).filter(|line| (problem.column as usize) <= line.chars().count() + 1 && problem.column as usize <= WIDTH) {
        Some(line) => {
            let before: String = line.chars().take(problem.column as usize - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let room = line.chars().count().saturating_sub(problem.column as usize - 1).max(1);
            let carets = "^".repeat((problem.length as usize).clamp(1, room));
            let underline = format!("{margin} | {before}{carets} {hint}");
            let _ = writeln!(text, "{margin} |\n{number} | {line}\n{}", underline.trim_end());
        }
        None if !hint.is_empty() => drop(writeln!(text, "{margin} = {hint}")),
        None => {}
    }
    text
}

/// A line that can be shown: not endless, and without what would move a terminal's cursor.
fn shown(line: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    line.trim_end().chars().take(WIDTH).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u32, column: u32, length: u32) -> Problem {
        Problem {
            file: "a.yaml".to_owned(),
            line,
            column,
            length,
            severity: Severity::Error,
            code: "code".to_owned(),
            message: "message".to_owned(),
            hint: Some("hint".to_owned()),
        }
    }

    #[test]
    fn the_place_is_underlined() {
        let expected = "error[code]: message\n --> a.yaml:2:3\n  |\n2 | ä bcd\n  |   ^^^ hint\n";
        assert_eq!(render(&problem(2, 3, 3), Some("x\nä bcd\n")), expected);
        assert_eq!(render(&problem(2, 3, 3), None), "error[code]: message\n --> a.yaml:2:3\n  = hint\n");
    }

    #[test]
    fn places_outside_the_text_are_no_trouble() {
        for (line, column, length) in [(0, 0, 0), (9, 1, 1), (1, 99, 9), (u32::MAX, u32::MAX, u32::MAX), (1, 1, u32::MAX)] {
            let problem = problem(line, column.max(1), length);
            assert!(render(&problem, Some("short\n")).starts_with("error[code]"));
        }
    }
}
