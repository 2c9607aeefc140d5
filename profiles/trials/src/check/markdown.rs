//! A job's summary, as GitHub and GitLab show it.

use std::fmt::Write;
use std::path::Path;

use super::cells::{change, side};
use super::{Checked, Overall, RULE, Row, Verdict};
use crate::words::{escaped, is_unsafe};

/// A headline with the verdict, a table, the reasons, and how to take the baseline again.
#[must_use]
pub fn markdown(checked: &Checked, baseline: &Path) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, checked, baseline);
    out
}

fn write(out: &mut String, checked: &Checked, baseline: &Path) -> std::fmt::Result {
    let mark = match checked.verdict {
        Overall::Pass => "✅",
        Overall::Regression => "❌",
        Overall::NoVerdict => "⚠️",
    };
    writeln!(out, "## {mark} plimsoll check: {}\n", checked.headline())?;
    writeln!(
        out,
        "{}, profile {}",
        code(&checked.subject),
        code(&checked.profile)
    )?;
    for reason in &checked.reasons {
        writeln!(out, "\n**No verdict:** {}", plain(reason))?;
    }
    if !checked.rows.is_empty() {
        writeln!(
            out,
            "\n| metric | baseline | now | change | gate | verdict |"
        )?;
        writeln!(out, "|:--|--:|--:|--:|--:|:--|")?;
    }
    for row in &checked.rows {
        writeln!(out, "{}", line(row))?;
    }
    let told = checked.rows.iter().filter(|row| !row.why.is_empty());
    let mut sentences: Vec<String> = told
        .map(|row| format!("- **{}**: {}", name(row), plain(&row.why)))
        .collect();
    let notes = checked.notes.iter();
    sentences.extend(notes.map(|note| format!("- note: {}", plain(note))));
    if !sentences.is_empty() {
        writeln!(out, "\n{}", sentences.join("\n"))?;
    }
    let rule = format!("{}{}", RULE[..1].to_uppercase(), &RULE[1..]);
    writeln!(out, "\n{}.", plain(&rule))?;
    if checked.verdict != Overall::Pass || checked.with(Verdict::Improved).next().is_some() {
        let baseline = baseline.to_string_lossy();
        let update = format!("plimsoll check --update --baseline {baseline} ...");
        let what =
            "If the change is meant, run the same check with `--update` and commit the file:";
        writeln!(out, "\n{what} {}", code(&update))?;
    }
    Ok(())
}

fn name(row: &Row) -> String {
    plain(row.measure.heading())
}

fn line(row: &Row) -> String {
    let mark = match row.verdict {
        Verdict::Pass => "✅",
        Verdict::Improved => "🎉",
        Verdict::Regression => "❌",
        Verdict::Unclear | Verdict::TooFew | Verdict::Missing => "⚠️",
        Verdict::Skipped => "➖",
    };
    let measure = row.measure;
    let cells = [
        name(row),
        plain(&side(measure, row.baseline.as_ref())),
        plain(&side(measure, row.now.as_ref())),
        plain(&change(row)),
        plain(&row.gate.to_string()),
        format!("{mark} {}", row.verdict.words()),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Text that is shown as it is: without marks, links, mentions or tags.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '@' => shown.push_str("&#64;"),
            '#' => shown.push_str("&#35;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '!' | '$' => shown.extend(['\\', c]),
            c if is_unsafe(c) => shown.extend(c.escape_default().flat_map(doubled)),
            c => shown.push(c),
        }
    }
    shown
}

fn doubled(c: char) -> impl Iterator<Item = char> {
    let before = (c == '\\').then_some('\\');
    before.into_iter().chain([c])
}

/// Text in a code span that it cannot end.
fn code(text: &str) -> String {
    let safe = escaped(text);
    let longest = safe.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // One space at each end is dropped again where both are there.
    format!("{fence} {safe} {fence}")
}
