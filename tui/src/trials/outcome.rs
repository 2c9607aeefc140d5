//! What a program came to that was run under `exec`, in a page.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write};

use malloc_stats::{Metric, SettingGrade, Size};
use plimsoll_trials::number::{percent, seconds};
use plimsoll_trials::outcome::{HeapSeen, Outcome};

use crate::chart::sparkline;
use crate::inspect::prose::{metric, spoken};
use crate::paint::{Paint, Tone, safe, shortened};
use crate::table::{Align, Table};

/// Columns of the command.
const LONGEST_COMMAND: usize = 200;
/// Processes that are listed.
const MOST_PROCESSES: usize = 8;
/// Verdicts that are told.
const MOST_VERDICTS: usize = 4;
/// Columns of a process's name.
const LONGEST_NAME: usize = 24;

/// The outcome as text.
#[must_use]
pub fn text(paint: &Paint, outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, paint, outcome);
    out
}

fn write(out: &mut String, paint: &Paint, outcome: &Outcome) -> fmt::Result {
    writeln!(out, "{}", paint.tone(Tone::Strong, "what ran"))?;
    let command = outcome.command.join(" ");
    writeln!(out, "  {}", shortened(&safe(&command), LONGEST_COMMAND))?;
    write_profile(out, paint, outcome)?;
    let tone = match (outcome.ended.code, &outcome.ended.oom) {
        (Some(0), None) => Tone::Good,
        _ => Tone::Bad,
    };
    let how = spoken(paint, &outcome.ended.how);
    writeln!(out, "  {}", paint.tone(tone, &how))?;
    write_processes(out, paint, outcome)?;
    write_curve(out, paint, outcome)?;
    write_numbers(out, paint, outcome)?;
    for what in &outcome.not_in_force {
        let label = paint.tone(Tone::Bad, "NOT in force:");
        writeln!(out, "{label} {}", spoken(paint, what))?;
    }
    for note in &outcome.notes {
        let label = paint.tone(Tone::Warn, "note:");
        writeln!(out, "{label} {}", spoken(paint, note))?;
    }
    for verdict in outcome.verdicts.iter().take(MOST_VERDICTS) {
        let label = paint.tone(Tone::Warn, "verdict:");
        let text = format!("{}: {}", verdict.lint, verdict.finding);
        writeln!(out, "{label} {}", spoken(paint, &text))?;
        if !verdict.remedy.is_empty() {
            let arrow = if paint.unicode { "→" } else { "->" };
            writeln!(out, "  {arrow} {}", spoken(paint, &verdict.remedy))?;
        }
    }
    Ok(())
}

fn write_profile(out: &mut String, paint: &Paint, outcome: &Outcome) -> fmt::Result {
    let allocator = match outcome.allocator.as_str() {
        "" => "allocator n/a: it ended before it could be looked into",
        name => &format!("allocator {}", safe(name)),
    };
    writeln!(out, "  profile {}, {allocator}", safe(&outcome.profile))?;
    for (knob, setting) in outcome.settings.iter() {
        let (tone, grade) = match setting.grade {
            SettingGrade::Verified => (Tone::Good, "verified"),
            SettingGrade::Probed => (Tone::Good, "probed"),
            SettingGrade::Requested => (Tone::Faint, "requested, unverified"),
            SettingGrade::Refused => (Tone::Bad, "NOT in force"),
        };
        let value = safe(&setting.value);
        writeln!(
            out,
            "    {} = {value}  {}",
            safe(knob),
            paint.tone(tone, grade)
        )?;
    }
    Ok(())
}

fn write_processes(out: &mut String, paint: &Paint, outcome: &Outcome) -> fmt::Result {
    if outcome.processes.len() < 2 {
        return Ok(());
    }
    let mut table = Table::new([
        ("  pid", Align::Right),
        ("name", Align::Left),
        ("RSS, peak", Align::Right),
        ("RSS, last", Align::Right),
        ("minor faults", Align::Right),
    ]);
    for member in outcome.processes.iter().take(MOST_PROCESSES) {
        table.row([
            format!("  {}", member.pid),
            shortened(&safe(&member.name), LONGEST_NAME).into_owned(),
            metric(paint, member.peak_rss),
            metric(paint, member.last_rss),
            member.minor_faults.to_string(),
        ]);
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "processes"))?;
    write!(out, "{table}")?;
    let shown = outcome.processes.len().min(MOST_PROCESSES) as u64;
    let more = outcome.processes_seen.saturating_sub(shown);
    if more > 0 {
        writeln!(out, "  and {more} with less")?;
    }
    Ok(())
}

fn write_curve(out: &mut String, paint: &Paint, outcome: &Outcome) -> fmt::Result {
    if outcome.curve.len() < 3 {
        return Ok(());
    }
    let width = paint.width.saturating_sub(28).max(1);
    let rss = evenly(&outcome.curve, width);
    let top = rss.iter().copied().max().unwrap_or(0);
    let title = format!("over time, 0 to {}", Size(top));
    writeln!(out, "\n{}", paint.tone(Tone::Strong, &title))?;
    writeln!(
        out,
        "  RSS        {} {}",
        sparkline(paint, &rss, top, width),
        metric(paint, outcome.last_rss)
    )
}

/// The curve in columns of equal time: the most that was resident in each.
fn evenly(curve: &[(f64, u64)], columns: usize) -> Vec<u64> {
    let (Some((from, _)), Some((to, last))) = (curve.first(), curve.last()) else {
        return Vec::new();
    };
    let span = (to - from).max(f64::MIN_POSITIVE);
    let mut values: Vec<Option<u64>> = vec![None; columns];
    for (at, rss) in curve {
        // Casting saturates, and turns what is no number into 0.
        let column = ((at - from) / span * columns as f64) as usize;
        let value = &mut values[column.min(columns - 1)];
        *value = (*value).max(Some(*rss));
    }
    // Where nothing was read, what was read before still held.
    let mut known = *last;
    values
        .into_iter()
        .map(|value| {
            known = value.unwrap_or(known);
            known
        })
        .collect()
}

fn write_numbers(out: &mut String, paint: &Paint, outcome: &Outcome) -> fmt::Result {
    let mut table = Table::new([("", Align::Left), ("", Align::Right), ("", Align::Left)]);
    let mut row = |name: &str, value: String, note: String| {
        table.row([format!("  {name}"), value, note]);
    };
    let several = outcome.processes_seen > 1;
    let shared = if several {
        "all processes together; what they share counts in each"
    } else {
        ""
    };
    if outcome.baseline_marked {
        row(
            "baseline RSS",
            metric(paint, outcome.baseline_rss),
            "at its mark".into(),
        );
    }
    row("RSS, peak", metric(paint, outcome.peak_rss), shared.into());
    let sampled = match outcome.at_peak.rss.bytes() == outcome.peak_rss.bytes() {
        true => String::new(),
        // The kernel notes a peak that no reading met, without its kinds.
        false => format!("of {}, the most that was read", outcome.at_peak.rss),
    };
    let kinds = [
        ("anonymous", outcome.at_peak.anon),
        ("file", outcome.at_peak.file),
        ("shared", outcome.at_peak.shmem),
    ];
    for (name, value) in kinds {
        if outcome.at_peak.rss.is_unavailable() {
            break;
        }
        let note = spoken(paint, &sampled);
        row(&format!("  {name}"), metric(paint, value), note);
    }
    row(
        "RSS, mean",
        metric(paint, outcome.mean_rss),
        "over time".into(),
    );
    let seen = seconds(outcome.last_seen_before_end_seconds);
    row(
        "RSS, last",
        metric(paint, outcome.last_rss),
        format!("{seen} before the end"),
    );
    if !outcome.dropped_rss.is_unavailable() {
        row(
            "RSS, dropped",
            metric(paint, outcome.dropped_rss),
            "at its mark".into(),
        );
    }
    if let (Some(first), Some(last)) = (outcome.cycles.first(), outcome.cycles.last()) {
        let text = format!(
            "from the first to the last: RSS {} to {}, in use {} to {}",
            metric(paint, first.rss),
            metric(paint, last.rss),
            metric(paint, first.in_use),
            metric(paint, last.in_use)
        );
        row("cycles", outcome.cycles.len().to_string(), text);
    }
    if let Some(heap) = &outcome.heap {
        row("heap", metric(paint, heap.heap_rss), in_heap(paint, heap));
    }
    if let Some(worst) = &outcome.worst_waste {
        let waste = worst.heap_rss.minus_saturating(worst.in_use);
        let text = format!(
            "of the heap at {:.1} s, in no block in use",
            worst.at_seconds
        );
        row("worst waste", metric(paint, waste), text);
    }
    if !outcome.cgroup_peak.is_unavailable() {
        row(
            "cgroup, peak",
            metric(paint, outcome.cgroup_peak),
            "page cache included".into(),
        );
    }
    if let Some((bound, left)) = &outcome.nearest_limit {
        row(
            "nearest limit",
            metric(paint, *left),
            format!("left by {}", spoken(paint, bound)),
        );
    }
    for gpu in &outcome.vram {
        let text = format!("{}, {} of all", safe(&gpu.name), metric(paint, gpu.used));
        row(
            &format!("VRAM, GPU {}", gpu.index),
            metric(paint, gpu.process),
            text,
        );
    }
    let faults = format!("{} with I/O", outcome.major_faults);
    row("minor faults", outcome.minor_faults.to_string(), faults);
    let cpu = outcome.user_seconds + outcome.system_seconds;
    let kernel = format!("{} of it in the kernel", seconds(outcome.system_seconds));
    row("CPU", seconds(cpu), kernel);
    let waited = if outcome.marks_seconds > 0.0 {
        format!("{} of it at its marks", seconds(outcome.marks_seconds))
    } else {
        String::new()
    };
    row("wall", seconds(outcome.wall_seconds), waited);
    // What it left behind may have been followed for longer.
    let watched = outcome.curve.last().map_or(0.0, |(at, _)| *at);
    let share = outcome.sampling_seconds / watched.max(outcome.wall_seconds).max(1e-9);
    let sampled = format!(
        "{} readings, {} walks of a heap: {} of a core",
        outcome.samples,
        outcome.looks,
        percent(share)
    );
    row("sampling", seconds(outcome.sampling_seconds), sampled);
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "numbers"))?;
    // The columns have no names.
    writeln!(out, "{}", table.to_string().trim_start_matches('\n'))
}

fn in_heap(paint: &Paint, heap: &HeapSeen) -> String {
    let part = |what: Metric| metric(paint, what);
    format!(
        "of {} at {:.1} s: {} in use; {} free, of which malloc_trim(0) returns {}",
        heap.pid,
        heap.at_seconds,
        part(heap.in_use),
        part(heap.free_resident),
        part(heap.releasable)
    )
}
