//! Model files that it has mapped or open, and what the page cache holds of them.

use std::cmp::Reverse;
use std::fmt::{Result, Write};

use malloc_stats::inspect::FilePages;

use super::grid::{Column, Cut, Grid};
use super::prose::{compact_metric, percent, spoken, wrapped};
use super::title;
use crate::paint::{Paint, Tone};

/// Rows shown.
const ROWS: usize = 15;

pub(super) fn write(out: &mut String, paint: &Paint, files: &[FilePages]) -> Result {
    if files.is_empty() {
        return Ok(());
    }
    title(out, paint, &format!("model files: {}", files.len()))?;
    let mut files: Vec<&FilePages> = files.iter().collect();
    files.sort_by_key(|file| Reverse((file.cached.bytes(), file.size.bytes())));
    let mut grid = Grid::new([
        Column::left("path").cut(Cut::Middle),
        Column::right("size"),
        Column::right("cached"),
        Column::right(""),
        Column::right("in its RSS").rank(1),
        Column::left("").rank(2),
    ]);
    let (shown, more) = files.split_at(files.len().min(ROWS));
    for file in shown {
        let share = file.cached.bytes().zip(file.size.bytes());
        let share = share.filter(|(_, size)| *size > 0);
        let share = share.map(|(cached, size)| percent(cached as f64 / size as f64));
        let states = [
            (file.mapped, "mapped"),
            (file.open, "open"),
            (file.deleted, "deleted"),
        ];
        let states: Vec<&str> = states
            .iter()
            .filter_map(|(is, word)| is.then_some(*word))
            .collect();
        grid.row([
            spoken(paint, &file.path).into(),
            compact_metric(paint, file.size).into(),
            compact_metric(paint, file.cached).into(),
            share.unwrap_or_default().into(),
            compact_metric(paint, file.rss).into(),
            states.join(", ").into(),
        ]);
    }
    grid.write(out, paint)?;
    if !more.is_empty() {
        writeln!(out, "  and {} more", more.len())?;
    }
    let mut reasons: Vec<&String> = files.iter().filter_map(|f| f.reason.as_ref()).collect();
    reasons.sort();
    reasons.dedup();
    for reason in reasons.into_iter().take(ROWS) {
        let reason = wrapped(&spoken(paint, reason), 7, paint.width);
        writeln!(out, "  {} {reason}", paint.tone(Tone::Warn, "n/a:"))?;
    }
    Ok(())
}
