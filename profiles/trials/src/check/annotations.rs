//! Lines that GitHub shows beside a change: workflow commands, for the output of a step.

use std::fmt::Write;

use super::cells::change;
use super::{Checked, Verdict};
use crate::words::is_unsafe;

/// `::error` for what fails, `::warning` for what has no verdict, `::notice` for what is better. A
/// line each; none where everything simply passes. Meant for standard output where
/// `GITHUB_ACTIONS` is `true`.
#[must_use]
pub fn annotations(checked: &Checked) -> String {
    let mut out = String::new();
    let mut command = |name: &str, title: &str, message: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "::{name} title={}::{}",
            escaped(title, true),
            escaped(message, false)
        );
    };
    for reason in &checked.reasons {
        command("warning", "plimsoll check: no verdict", reason);
    }
    for row in &checked.rows {
        let name = match row.verdict {
            Verdict::Regression => "error",
            Verdict::Unclear | Verdict::TooFew | Verdict::Missing => "warning",
            Verdict::Improved => "notice",
            Verdict::Pass | Verdict::Skipped => continue,
        };
        let measure = row.measure;
        let title = match row.change {
            Some(_) => format!("{measure}: {} ({})", row.verdict.words(), change(row)),
            None => format!("{measure}: {}", row.verdict.words()),
        };
        let message = format!("{}: {}\n{}", measure, measure.about(), row.why);
        command(name, &title, &message);
    }
    out
}

/// As `@actions/core` escapes: a property ends at a comma or a colon too. What could reach the
/// terminal of a log is spelled out.
fn escaped(text: &str, is_property: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' => escaped.push_str("%25"),
            '\r' => escaped.push_str("%0D"),
            '\n' => escaped.push_str("%0A"),
            ':' if is_property => escaped.push_str("%3A"),
            ',' if is_property => escaped.push_str("%2C"),
            c if is_unsafe(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    escaped
}
