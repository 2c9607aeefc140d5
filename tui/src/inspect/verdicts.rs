//! The verdict: what follows, in sentences, each with a remedy.

use std::fmt::{Result, Write};

use malloc_stats::inspect::{Inspection, Severity, Verdict};

use super::headroom::label;
use super::heap::waste;
use super::prose::{metric, percent, spoken, wrapped};
use super::title;
use crate::paint::{Paint, Tone, padded};

/// Columns before a sentence.
const INDENT: usize = 8;

pub(super) fn write(out: &mut String, paint: &Paint, inspection: &Inspection) -> Result {
    title(out, paint, "verdict")?;
    for verdict in &inspection.verdicts {
        sentence(out, paint, verdict)?;
    }
    if !inspection.verdicts.is_empty() {
        return Ok(());
    }
    let well = well(paint, inspection);
    if inspection.heap.is_some() {
        let what = format!("nothing to complain of: {well}");
        line(out, paint, Tone::Good, "GOOD", &what)
    } else {
        // What was not seen may be anything.
        let what = format!("nothing to complain of in what could be seen: {well}");
        line(out, paint, Tone::Strong, "NOTE", &what)
    }
}

fn sentence(out: &mut String, paint: &Paint, verdict: &Verdict) -> Result {
    let (tone, word) = match verdict.severity {
        Severity::Bad => (Tone::Bad, "BAD"),
        Severity::Warn => (Tone::Warn, "WARN"),
        Severity::Note => (Tone::Strong, "NOTE"),
    };
    let finding = spoken(paint, &verdict.finding);
    let what = format!("{}: {finding}", spoken(paint, &verdict.lint));
    line(out, paint, tone, word, &what)?;
    if verdict.remedy.is_empty() {
        return Ok(());
    }
    let remedy = wrapped(&spoken(paint, &verdict.remedy), INDENT + 3, paint.width);
    let arrow = if paint.unicode { "→ " } else { "->" };
    writeln!(out, "{:INDENT$}{arrow} {remedy}", "")
}

fn line(out: &mut String, paint: &Paint, tone: Tone, word: &str, what: &str) -> Result {
    let word = paint.tone(tone, &padded(word, INDENT - 2));
    writeln!(out, "  {word}{}", wrapped(what, INDENT, paint.width))
}

/// The two numbers that say most where nothing is wrong: what is wasted, and what is left.
fn well(paint: &Paint, inspection: &Inspection) -> String {
    let heap = match &inspection.heap {
        None => "the heap could not be looked into".to_owned(),
        Some(heap) => {
            let totals = &heap.totals;
            let share = waste(totals).map_or(String::new(), |waste| {
                format!(" (waste {})", percent(waste.fraction))
            });
            format!(
                "{} of the heap is free but resident{share}",
                metric(paint, totals.cached_resident)
            )
        }
    };
    let left = match inspection.limits.tightest() {
        None => "what its limits leave is not known".to_owned(),
        Some(tightest) => format!(
            "{} left by {}",
            metric(paint, tightest.headroom),
            spoken(paint, &label(&tightest.bound))
        ),
    };
    format!("{heap}; {left}")
}
