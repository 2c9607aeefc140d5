//! A program against its baseline: the verdict, a row a gate, and why.

use std::fmt::{Result, Write};
use std::path::Path;

use plimsoll_trials::check::{Checked, Overall, RULE, Row, Side, Verdict};
use plimsoll_trials::number::{bare, change, relative};
use plimsoll_trials::statistics::Spread;
use plimsoll_trials::{Baseline, Measure};

use super::page::{measured, paragraph};
use crate::inspect::grid::{Column, Cut, Grid, Text};
use crate::paint::{Paint, Tone, safe};

/// The check as text, at most `paint.width` columns wide. `baseline` is the file it was judged by.
#[must_use]
pub fn text(paint: &Paint, checked: &Checked, baseline: &Path) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, paint, checked, baseline);
    out
}

fn write(out: &mut String, paint: &Paint, checked: &Checked, baseline: &Path) -> Result {
    let tone = match checked.verdict {
        Overall::Pass => Tone::Good,
        Overall::Regression => Tone::Bad,
        Overall::NoVerdict => Tone::Warn,
    };
    paragraph(out, paint, (tone, "check:"), &checked.headline())?;
    let name = baseline.to_string_lossy();
    let what = format!(
        "{} under {}, {} runs, by {name}",
        checked.subject, checked.profile, checked.runs
    );
    paragraph(out, paint, (Tone::Faint, "what:"), &what)?;
    if !checked.rows.is_empty() {
        writeln!(out)?;
        grid(paint, checked).write(out, paint)?;
        writeln!(out)?;
    }
    for row in checked.rows.iter().filter(|row| !row.why.is_empty()) {
        let label = format!("{}, {}:", row.measure, row.verdict.words());
        paragraph(out, paint, (tone_of(row.verdict), &label), &row.why)?;
    }
    for reason in &checked.reasons {
        paragraph(out, paint, (Tone::Warn, "no verdict:"), reason)?;
    }
    for note in &checked.notes {
        paragraph(out, paint, (Tone::Warn, "note:"), note)?;
    }
    paragraph(out, paint, (Tone::Faint, "rule:"), RULE)
}

fn tone_of(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Pass | Verdict::Improved => Tone::Good,
        Verdict::Regression => Tone::Bad,
        Verdict::Unclear | Verdict::TooFew | Verdict::Missing => Tone::Warn,
        Verdict::Skipped => Tone::Faint,
    }
}

fn grid(paint: &Paint, checked: &Checked) -> Grid {
    let mut grid = Grid::new([
        Column::left("metric"),
        Column::right("baseline").rank(1),
        Column::right("now"),
        Column::right("change").rank(2),
        Column::right("gate").rank(3),
        Column::left("verdict").cut(Cut::End),
    ])
    .flush();
    for row in &checked.rows {
        grid.row(cells(paint, row));
    }
    grid
}

fn cells(paint: &Paint, row: &Row) -> [Text; 6] {
    let unit = row.measure.unit();
    let by = row.change.map_or(String::new(), |by| change(unit, by));
    let part = row
        .relative
        .filter(|part| *part != 0.0)
        .map_or(String::new(), |part| {
            format!(" {}", relative(part).replace(" %", "%"))
        });
    let tone = match row.verdict {
        Verdict::Pass | Verdict::Skipped => Tone::Faint,
        verdict => tone_of(verdict),
    };
    [
        row.measure.heading().into(),
        side(paint, row.measure, row.baseline.as_ref()),
        side(paint, row.measure, row.now.as_ref()),
        Text::toned(tone, by + &part),
        Text::toned(Tone::Faint, safe(&row.gate.to_string())),
        Text::toned(tone_of(row.verdict), row.verdict.words()),
    ]
}

fn side(paint: &Paint, measure: Measure, side: Option<&Side>) -> Text {
    match side {
        Some(side) => measured(paint, measure, (side.median, side.half_range()), side.grade),
        None => Text::toned(Tone::Faint, "n/a"),
    }
}

/// A baseline that was taken, as text.
#[must_use]
pub fn baseline(paint: &Paint, baseline: &Baseline) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_baseline(&mut out, paint, baseline);
    out
}

fn write_baseline(out: &mut String, paint: &Paint, baseline: &Baseline) -> Result {
    let profile = &baseline.profile.name;
    let what = format!("{} under {profile}", baseline.subject.words());
    paragraph(out, paint, (Tone::Strong, "baseline:"), &what)?;
    let mut grid = Grid::new([
        Column::left("metric"),
        Column::right("median"),
        Column::right("least").rank(1),
        Column::right("most").rank(1),
        Column::right("runs"),
    ])
    .flush();
    for (measure, kept) in &baseline.measures {
        let Some(spread) = Spread::of(&kept.values) else {
            continue;
        };
        let median = (spread.median, spread.half_range());
        grid.row([
            measure.heading().into(),
            measured(paint, *measure, median, kept.grade),
            bare(measure.unit(), spread.min).into(),
            bare(measure.unit(), spread.max).into(),
            kept.values.len().to_string().into(),
        ]);
    }
    writeln!(out)?;
    grid.write(out, paint)?;
    writeln!(out)
}
