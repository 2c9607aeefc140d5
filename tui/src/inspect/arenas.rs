//! Arenas with their waste, and what keeps them from shrinking.

use std::cmp::Reverse;
use std::fmt::{Result, Write};

use malloc_stats::Metric;
use malloc_stats::heap::{Arena, Heap, Hint, Pin};

use super::grid::{Column, Cut, Grid, Text};
use super::prose::{compact, compact_metric, percent, spoken};
use super::title;
use crate::paint::{Paint, Tone, shortened};

/// Rows shown of arenas, and of pins.
const ROWS: usize = 10;
/// Columns of a quoted text.
const QUOTE: usize = 32;

/// What an arena keeps resident and does not need; `None` where that is not known.
pub(crate) fn wasted(arena: &Arena) -> Option<u64> {
    let beyond = arena.rss.minus_saturating(arena.in_use);
    arena.free_resident.bytes().or(beyond.bytes())
}

/// The arena that keeps most memory it does not need, by its index.
#[must_use]
pub fn most_wasteful(heap: &Heap) -> Option<usize> {
    by_waste(heap).first().map(|arena| arena.index)
}

/// The worst first; what is not known last.
pub(crate) fn by_waste(heap: &Heap) -> Vec<&Arena> {
    let mut arenas: Vec<&Arena> = heap.arenas.iter().collect();
    arenas.sort_by_key(|arena| Reverse(wasted(arena)));
    arenas
}

pub(super) fn write(out: &mut String, paint: &Paint, heap: &Heap, chosen: Option<usize>) -> Result {
    title(out, paint, &format!("arenas: {}", heap.arenas.len()))?;
    let numbers = [
        Column::right("system").rank(2),
        Column::right("in use"),
        Column::right("free").rank(3),
        Column::right("resident"),
        Column::right("waste"),
        Column::right("trimmable").rank(1),
    ];
    let mut grid = Grid::new(
        [Column::right("arena")]
            .into_iter()
            .chain(numbers)
            .chain([Column::left("pin").cut(Cut::End)]),
    );
    let mut arenas = by_waste(heap);
    if let Some(at) = arenas.iter().position(|arena| Some(arena.index) == chosen) {
        let chosen = arenas.remove(at);
        arenas.insert(0, chosen);
    }
    let (shown, more) = arenas.split_at(arenas.len().min(ROWS));
    for arena in shown {
        grid.row(row(paint, heap, arena));
    }
    grid.write(out, paint)?;
    if !more.is_empty() {
        let sum = |of: fn(&Arena) -> Metric| {
            let all = more.iter().map(|arena| of(arena));
            let sum = all.reduce(Metric::plus).unwrap_or_default();
            compact_metric(paint, sum)
        };
        writeln!(
            out,
            "  and {} more: {} in use, {} free and resident",
            more.len(),
            sum(|arena| arena.in_use),
            sum(|arena| arena.free_resident)
        )?;
    }
    if arenas.iter().any(|arena| arena.locked) {
        let what = "* somebody held its lock: in the middle of an operation";
        writeln!(out, "  {}", paint.tone(Tone::Warn, what))?;
    }
    Ok(())
}

fn row(paint: &Paint, heap: &Heap, arena: &Arena) -> [Text; 8] {
    let lock = if arena.locked { "*" } else { "" };
    let index = if arena.is_main() {
        format!("{lock}main")
    } else {
        format!("{lock}{}", arena.index)
    };
    let waste = arena.waste().map_or("n/a".into(), |fraction| {
        let words = percent(fraction);
        match fraction {
            0.5.. => Text::toned(Tone::Bad, words),
            0.2.. => Text::toned(Tone::Warn, words),
            _ => words.into(),
        }
    });
    let pin = heap.pins.iter().find(|pin| pin.arena == arena.index);
    let pin = pin.map_or("-".to_owned(), |pin| {
        format!("{}@{}", compact(pin.size), pin.address)
    });
    [
        index.into(),
        compact(arena.system_mem).into(),
        compact_metric(paint, arena.in_use).into(),
        compact_metric(paint, arena.free).into(),
        compact_metric(paint, arena.rss).into(),
        waste,
        compact_metric(paint, arena.releasable).into(),
        pin.into(),
    ]
}

/// What keeps arenas from shrinking by themselves.
pub(super) fn write_pins(out: &mut String, paint: &Paint, heap: &Heap) -> Result {
    if heap.pins.is_empty() {
        return Ok(());
    }
    title(
        out,
        paint,
        "pins: blocks that no automatic shrinking passes",
    )?;
    let mut grid = Grid::new([
        Column::right("arena"),
        Column::left("address"),
        Column::right("block"),
        Column::right("keeps").rank(2),
        Column::right("resident"),
        Column::right("unlocks").rank(1),
        Column::left("seems to be").cut(Cut::End),
    ]);
    for pin in heap.pins.iter().take(ROWS) {
        let arena = match pin.arena {
            0 => "main".to_owned(),
            index => index.to_string(),
        };
        grid.row([
            arena.into(),
            pin.address.to_string().into(),
            compact(pin.size).into(),
            compact(pin.below_free).into(),
            compact_metric(paint, pin.below_free_resident).into(),
            compact(pin.unlocks).into(),
            seems(paint, pin).into(),
        ]);
    }
    grid.write(out, paint)?;
    match heap.pins.len().saturating_sub(ROWS) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

/// What the block of a pin seems to be: `Python dict`, `text "..."`.
pub(crate) fn seems(paint: &Paint, pin: &Pin) -> String {
    let what = match &pin.hint {
        None => "unknown".to_owned(),
        Some(Hint::Zeros) => "zeros".to_owned(),
        Some(Hint::Python(of)) => format!("Python {}", spoken(paint, of)),
        Some(Hint::Text(text)) => {
            let text = spoken(paint, text);
            format!("text \"{}\"", shortened(&text, QUOTE))
        }
        Some(Hint::PointsInto(object, at)) => {
            let file = object.rsplit('/').next().unwrap_or(object);
            let file = spoken(paint, file);
            format!("object of {}+{at}", shortened(&file, QUOTE))
        }
    };
    if pin.cached {
        format!("freed, in a thread's cache ({what})")
    } else {
        what
    }
}
