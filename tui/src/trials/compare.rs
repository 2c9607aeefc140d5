//! A comparison in a page: what memory each profile took, what that cost, and which one to take.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::{Result, Write};

use malloc_stats::Grade;
use plimsoll_trials::Measure;
use plimsoll_trials::compare::{Advice, Compared, Comparison, Difference};
use plimsoll_trials::number::ratio;
use plimsoll_trials::search::Search;
use unicode_width::UnicodeWidthStr;

use super::page::{measured, paragraph};
use crate::inspect::grid::{Column, Cut, Grid, Text};
use crate::inspect::prose::{counted, spoken, wrapped};
use crate::paint::{Paint, Tone, safe, shortened};

/// Columns of a profile's name.
const LONGEST_NAME: usize = 24;
/// Notes that are shown; a run may leave any number.
const MOST_NOTES: usize = 12;
/// What a profile costs; the rest is memory.
const PRICE: [Measure; 3] = [Measure::Faults, Measure::Cpu, Measure::Wall];

/// The comparison as text.
#[must_use]
pub fn text(paint: &Paint, comparison: &Comparison) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, paint, comparison);
    out
}

/// A search as text: the comparison of its values, and the winner.
#[must_use]
pub fn search(paint: &Paint, search: &Search) -> String {
    let mut out = text(paint, &search.comparison);
    let tone = match search.winner {
        Some(_) => Tone::Good,
        None => Tone::Warn,
    };
    let _ = paragraph(&mut out, paint, (tone, "search:"), &search.why);
    out
}

fn write(out: &mut String, paint: &Paint, comparison: &Comparison) -> Result {
    let head = format!(
        "{} under {}, {}",
        comparison.what,
        counted(comparison.profiles.len() as u64, "profile"),
        counted(comparison.rounds, "round")
    );
    paragraph(out, paint, (Tone::Strong, "compared:"), &head)?;
    let shown = |measure: &Measure| {
        let mut profiles = comparison.profiles.iter();
        profiles.any(|one| one.measures.contains_key(measure))
    };
    let shown = Measure::ALL.into_iter().filter(shown);
    let (price, memory): (Vec<Measure>, Vec<Measure>) =
        shown.partition(|measure| PRICE.contains(measure));
    write_tables(out, paint, comparison, "memory", &memory)?;
    write_tables(out, paint, comparison, "price", &price)?;
    write_legend(out, paint, comparison)?;
    write_front(out, paint, comparison)?;
    write_advice(out, paint, comparison)?;
    write_left_out(out, paint, comparison)?;
    write_absent(out, paint, comparison)?;
    write_notes(out, paint, comparison)
}

/// A name as sentences have it.
fn quoted(one: &Compared) -> String {
    format!("`{}`", one.name)
}

/// The measures in as many tables as it takes to fit the terminal.
fn write_tables(
    out: &mut String,
    paint: &Paint,
    comparison: &Comparison,
    title: &str,
    measures: &[Measure],
) -> Result {
    let room = paint.width.saturating_sub(LONGEST_NAME + 5);
    let (mut title, mut rest) = (title.to_owned(), measures);
    while !rest.is_empty() {
        let mut taken = 0;
        let fits = |measure: &&Measure| {
            taken += 2 + columns_of(paint, comparison, **measure);
            taken <= room
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        write_table(out, paint, comparison, &title, now)?;
        rest = later;
        title.push_str(if rest.is_empty() { "" } else { ", continued" });
    }
    Ok(())
}

fn write_table(
    out: &mut String,
    paint: &Paint,
    comparison: &Comparison,
    title: &str,
    measures: &[Measure],
) -> Result {
    writeln!(out, "\n{}", paint.tone(Tone::Strong, title))?;
    let measures_of = measures
        .iter()
        .map(|measure| Column::right(measure.heading()));
    let first = [Column::left(""), Column::left("profile").cut(Cut::End)];
    let mut grid = Grid::new(first.into_iter().chain(measures_of)).flush();
    for (at, one) in comparison.profiles.iter().enumerate() {
        let is_taken = comparison.recommendation.profile == Some(at);
        let name = shortened(&safe(&one.name), LONGEST_NAME).into_owned();
        let (mark, name) = match is_taken {
            true => (
                Text::toned(Tone::Good, ">"),
                Text::toned(Tone::Strong, name),
            ),
            false => (" ".into(), name.into()),
        };
        let cells = |cell: fn(&Paint, &Compared, Measure) -> Text| {
            measures
                .iter()
                .map(move |measure| cell(paint, one, *measure))
        };
        grid.row([mark, name].into_iter().chain(cells(value)));
        let role = role(comparison, at, one);
        grid.row(["".into(), role].into_iter().chain(cells(difference)));
    }
    grid.write(out, paint)
}

/// What a profile is among the others.
fn role(comparison: &Comparison, at: usize, one: &Compared) -> Text {
    match one {
        _ if comparison.recommendation.profile == Some(at) => {
            Text::toned(Tone::Good, "  recommended")
        }
        _ if one.left_out.is_some() => Text::toned(Tone::Bad, "  left out"),
        _ if at == 0 => Text::toned(Tone::Faint, "  the reference"),
        _ if one.on_front => Text::toned(Tone::Faint, "  on the front"),
        _ => Text::default(),
    }
}

fn columns_of(paint: &Paint, comparison: &Comparison, measure: Measure) -> usize {
    let plain = Paint {
        colour: false,
        ..*paint
    };
    let cells = comparison.profiles.iter().flat_map(|one| {
        [value, difference].map(|cell| cell(&plain, one, measure).painted(&plain).width())
    });
    cells.fold(measure.heading().len(), usize::max)
}

/// The median and half of the range.
fn value(paint: &Paint, one: &Compared, measure: Measure) -> Text {
    let Some(summary) = one.measures.get(&measure) else {
        return Text::toned(Tone::Faint, "n/a");
    };
    let half = summary.half_range();
    measured(paint, measure, (summary.median, half), summary.grade)
}

/// The mark of a difference that is none.
fn noise(paint: &Paint) -> &'static str {
    if paint.unicode { "≈" } else { "~" }
}

/// The ratio to the first, and whether it is one.
fn difference(paint: &Paint, one: &Compared, measure: Measure) -> Text {
    let Some(summary) = one.measures.get(&measure) else {
        return Text::default();
    };
    let Some(difference) = &summary.difference else {
        return Text::default();
    };
    let times = summary.ratio.map(ratio);
    let or = |word: &str| times.clone().unwrap_or_else(|| word.to_owned());
    let joined = |mark: &str| {
        let times = times
            .as_deref()
            .map_or(String::new(), |times| format!(" {times}"));
        Text::toned(Tone::Faint, format!("{mark}{times}"))
    };
    match difference {
        // Numbers of a setting that was not in force praise or blame nobody.
        Difference::Better | Difference::Worse if one.left_out.is_some() => {
            Text::toned(Tone::Faint, or(""))
        }
        Difference::Better => Text::toned(Tone::Good, or("less")),
        Difference::Worse => Text::toned(Tone::Bad, or("more")),
        Difference::WithinNoise => joined(noise(paint)),
        Difference::TooFew => joined("?"),
        Difference::Absent(_) => Text::default(),
    }
}

fn write_legend(out: &mut String, paint: &Paint, comparison: &Comparison) -> Result {
    let Some(first) = comparison.profiles.first() else {
        return Ok(());
    };
    let differences = || {
        let all = comparison.profiles.iter();
        all.flat_map(|one| one.measures.values())
            .filter_map(|summary| summary.difference.as_ref())
    };
    let has = |wanted: Difference| differences().any(|one| *one == wanted);
    let mut parts = vec![format!(
        "medians and half of the range; below, the ratio to `{}`",
        first.name
    )];
    if has(Difference::WithinNoise) {
        parts.push(format!(
            "{} before a ratio: no difference beyond noise",
            noise(paint)
        ));
    }
    if has(Difference::TooFew) {
        parts.push("?: too few runs to tell from noise".to_owned());
    }
    let grades = || {
        comparison
            .profiles
            .iter()
            .flat_map(|one| one.measures.values())
    };
    if grades().any(|summary| summary.grade == Grade::Estimated) {
        parts.push("~ before a number: estimated".to_owned());
    }
    if grades().any(|summary| summary.grade == Grade::Upper) {
        parts.push("≤: at most".to_owned());
    }
    writeln!(out)?;
    for line in [parts.join("; "), comparison.rule.clone()] {
        let line = wrapped(&spoken(paint, &line), 0, paint.width);
        for line in line.lines() {
            writeln!(out, "{}", paint.tone(Tone::Faint, line))?;
        }
    }
    writeln!(out)
}

fn write_front(out: &mut String, paint: &Paint, comparison: &Comparison) -> Result {
    let of_front = comparison.profiles.iter().filter(|one| one.on_front);
    let names: Vec<String> = of_front.map(quoted).collect();
    let (memory, time) = (comparison.memory, comparison.time);
    let text = match names.len() {
        0 => "nobody: no profile has both measures, in force".to_owned(),
        _ => names.join(", "),
    };
    let what = format!("front of {memory} against {time} (Pareto):");
    paragraph(out, paint, (Tone::Strong, &what), &text)
}

fn write_advice(out: &mut String, paint: &Paint, comparison: &Comparison) -> Result {
    let advice = &comparison.recommendation;
    let tone = match advice.advice {
        Advice::Take | Advice::Keep => Tone::Good,
        Advice::NoVerdict => Tone::Warn,
    };
    for text in &advice.sentences {
        paragraph(out, paint, (tone, "recommendation:"), text)?;
    }
    let rule = wrapped(
        &spoken(paint, &advice.rule),
        2,
        paint.width.saturating_sub(6),
    );
    writeln!(out, "{}", paint.tone(Tone::Faint, &format!("rule: {rule}")))
}

fn write_left_out(out: &mut String, paint: &Paint, comparison: &Comparison) -> Result {
    for one in &comparison.profiles {
        if let Some(why) = &one.left_out {
            let text = format!("{} takes no part: {why}", quoted(one));
            paragraph(out, paint, (Tone::Bad, "left out:"), &text)?;
        }
    }
    Ok(())
}

/// Each reason once, with the measures that lack for it and the profiles that lack them.
fn write_absent(out: &mut String, paint: &Paint, comparison: &Comparison) -> Result {
    let mut reasons: BTreeMap<&str, BTreeMap<Measure, Vec<&Compared>>> = BTreeMap::new();
    for one in &comparison.profiles {
        for (measure, why) in &one.absent {
            let measures = reasons.entry(why).or_default();
            measures.entry(*measure).or_default().push(one);
        }
    }
    for (why, measures) in reasons {
        let mut by_profiles: Vec<(Vec<&str>, String)> = Vec::new();
        for (measure, profiles) in measures {
            let names = match profiles.len() == comparison.profiles.len() {
                true => Vec::new(),
                false => profiles.iter().map(|one| one.name.as_str()).collect(),
            };
            match by_profiles.iter_mut().find(|(known, _)| *known == names) {
                Some((_, measures)) => measures.push_str(&format!(", {measure}")),
                None => by_profiles.push((names, measure.to_string())),
            }
        }
        for (names, measures) in by_profiles {
            let of = match names.len() {
                0 => String::new(),
                _ => format!(" of `{}`", names.join("`, `")),
            };
            let text = format!("{measures}{of}: {why}");
            paragraph(out, paint, (Tone::Faint, "absent:"), &text)?;
        }
    }
    Ok(())
}

fn write_notes(out: &mut String, paint: &Paint, comparison: &Comparison) -> Result {
    let mut notes: BTreeMap<&str, Vec<&Compared>> = BTreeMap::new();
    for one in &comparison.profiles {
        for note in &one.notes {
            notes.entry(note).or_default().push(one);
        }
    }
    for (note, profiles) in notes.iter().take(MOST_NOTES) {
        let text = match profiles.len() == comparison.profiles.len() {
            true => (*note).to_owned(),
            false => {
                let names: Vec<String> = profiles.iter().map(|one| quoted(one)).collect();
                format!("{}: {note}", names.join(", "))
            }
        };
        paragraph(out, paint, (Tone::Warn, "note:"), &text)?;
    }
    match notes.len().saturating_sub(MOST_NOTES) {
        0 => Ok(()),
        more => writeln!(out, "{}", counted(more as u64, "more note")),
    }
}
