//! Processes by memory, a line each.

use std::fmt::{Result, Write};

use malloc_stats::limits::Tightest;
use malloc_stats::{Metric, Waste};

use crate::inspect::grid::{Column, Cut, Grid, Text};
use crate::inspect::headroom::label;
use crate::inspect::prose::{compact_metric, middle, percent};
use crate::paint::{Paint, Tone, safe, shortened};

/// Columns of the name of a limit, and of an allocator.
const LIMIT: usize = 22;
const ALLOCATOR: usize = 16;
/// Columns of a user's name.
const USER: usize = 10;

/// A process.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Its number.
    pub pid: u32,
    /// The name of its user, or the number where there is no name.
    pub user: &'a str,
    /// All that is resident.
    pub rss: Metric,
    /// The anonymous part of that.
    pub anon: Metric,
    /// In swap.
    pub swap: Metric,
    /// Who serves its `malloc`, with the version; empty where that is not known.
    pub allocator: &'a str,
    /// What is resident beyond what is in use, or why that is not known: a word.
    pub waste: std::result::Result<Waste, &'a str>,
    /// The limit that leaves least.
    pub nearest: Option<&'a Tightest>,
    /// What it uses of all GPUs together.
    pub vram: Metric,
    /// Its command line.
    pub command: &'a str,
}

/// The processes as text, at most `paint.width` columns wide: where that is not enough, the columns
/// left out are named below.
#[must_use]
pub fn text(paint: &Paint, rows: &[Row<'_>]) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, paint, rows);
    out
}

fn write(out: &mut String, paint: &Paint, rows: &[Row<'_>]) -> Result {
    if rows.is_empty() {
        return writeln!(out, "no processes");
    }
    let mut grid = Grid::new([
        Column::right("PID"),
        Column::left("USER").rank(2),
        Column::right("RSS"),
        Column::right("ANON").rank(4),
        Column::right("SWAP").rank(5),
        Column::left("ALLOCATOR").rank(1),
        Column::right("WASTE"),
        Column::right("LEFT"),
        Column::left("NEAREST LIMIT").rank(3),
        Column::right("VRAM").rank(6),
        Column::left("COMMAND").cut(Cut::End),
    ])
    .flush();
    for row in rows {
        grid.row(cells(paint, row));
    }
    grid.write(out, paint)
}

fn cells(paint: &Paint, row: &Row<'_>) -> [Text; 11] {
    let number = |metric: Metric| Text::from(compact_metric(paint, metric));
    let (left, limit) = match row.nearest {
        None => (Metric::Unavailable, String::new()),
        Some(nearest) => {
            let name = label(&nearest.bound);
            let name = middle(&safe(&name), LIMIT).into_owned();
            (nearest.headroom, name)
        }
    };
    let allocator = if row.allocator.is_empty() {
        "n/a"
    } else {
        row.allocator
    };
    [
        row.pid.to_string().into(),
        shortened(&safe(row.user), USER).into_owned().into(),
        number(row.rss),
        number(row.anon),
        number(row.swap),
        shortened(&safe(allocator), ALLOCATOR).into_owned().into(),
        waste(paint, row),
        number(left),
        limit.into(),
        number(row.vram),
        safe(row.command).into_owned().into(),
    ]
}

fn waste(paint: &Paint, row: &Row<'_>) -> Text {
    let waste = match row.waste {
        Err(word) => return Text::toned(Tone::Faint, shortened(&safe(word), ALLOCATOR)),
        Ok(waste) => waste,
    };
    let bytes = compact_metric(paint, waste.bytes);
    let words = format!("{bytes} {:>4}", percent(waste.fraction));
    match waste.fraction {
        0.5.. => Text::toned(Tone::Bad, words),
        0.2.. => Text::toned(Tone::Warn, words),
        _ => words.into(),
    }
}
