//! What the pages of trials have in common: paragraphs under a label, and a measure with its spread.

use std::fmt::{Result, Write};

use malloc_stats::Grade;
use plimsoll_trials::Measure;
use plimsoll_trials::number::{bare, spread};

use crate::inspect::grid::Text;
use crate::inspect::prose::{spoken, wrapped};
use crate::paint::{Paint, Tone};

/// A label, and a text beside it that may take several lines.
pub(super) fn paragraph(
    out: &mut String,
    paint: &Paint,
    (tone, label): (Tone, &str),
    text: &str,
) -> Result {
    // The label is wrapped with the text, so that its columns are counted.
    let whole = format!("{label} {}", spoken(paint, text));
    let lines = wrapped(&whole, 2, paint.width);
    match lines.strip_prefix(label) {
        Some(rest) => writeln!(out, "{}{rest}", paint.tone(tone, label)),
        None => writeln!(out, "{lines}"),
    }
}

/// A median and half of its range, with the mark of its grade: `~83.0 MiB ±2.0%`.
pub(super) fn measured(
    paint: &Paint,
    measure: Measure,
    (median, half_range): (f64, f64),
    grade: Grade,
) -> Text {
    let mark = match (grade, paint.unicode) {
        (Grade::Upper, true) => "≤",
        (Grade::Upper, false) => "<=",
        (Grade::Estimated, _) => "~",
        (Grade::Exact | Grade::Unavailable, _) => "",
    };
    let unit = measure.unit();
    let text = Text::from(format!("{mark}{}", bare(unit, median)));
    let Some(spread) = spread(unit, median, half_range) else {
        return text;
    };
    let sign = if paint.unicode { "±" } else { "+-" };
    let spread = format!(" {sign}{}", spread.replace(" %", "%"));
    text.and(Text::toned(Tone::Faint, spread))
}
