//! A process looked at from outside, in a page: the verdict first, then what it follows from.
//!
//! | file | what |
//! |---|---|
//! | `verdicts` | what follows, in sentences |
//! | `headroom` | what its limits leave, kills, pressure, VRAM |
//! | `heap` | the allocator: totals, settings in force, what a trim would return |
//! | `arenas` | where waste is, and what pins it |
//! | `sizes` | chunks by size |
//! | `map` | an arena, drawn |
//! | `files` | model files, and what of them is cached |
//! | `classes` | all its memory, by what it is |
//! | `growth` | how fast it grows, and when it meets a limit |
//! | `grid`, `prose` | columns and paragraphs that fit |

pub(crate) mod arenas;
pub(crate) mod classes;
mod files;
pub(crate) mod grid;
mod growth;
pub(crate) mod headroom;
pub(crate) mod heap;
pub mod map;
pub(crate) mod prose;
mod sizes;
mod verdicts;

use std::fmt::{Result, Write};

use malloc_stats::inspect::Inspection;

use crate::decision::seconds;
use crate::paint::{Paint, Tone, safe, shortened};
use prose::{counted, lasting, spoken, wrapped};

pub use arenas::most_wasteful;
pub use heap::waste;
pub use map::MapSize;

/// What to show beside what is always shown.
#[derive(Debug, Clone, Default)]
pub struct View<'a> {
    /// The name of the user it runs as, where it has one here.
    pub user: Option<&'a str>,
    /// Draw an arena.
    pub map: Option<MapSize>,
    /// Which arena; the one with the most waste where none is named.
    pub arena: Option<usize>,
}

/// An inspection as text, at most `paint.width` columns wide.
#[must_use]
pub fn text(paint: &Paint, inspection: &Inspection, view: &View<'_>) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, paint, inspection, view);
    out
}

fn write(out: &mut String, paint: &Paint, inspection: &Inspection, view: &View<'_>) -> Result {
    header(out, paint, inspection, view)?;
    verdicts::write(out, paint, inspection)?;
    headroom::write(out, paint, inspection)?;
    heap::write(out, paint, inspection)?;
    if let Some(heap) = &inspection.heap {
        arenas::write(out, paint, heap, view.arena)?;
        heap::write_trim(out, paint, heap)?;
        arenas::write_pins(out, paint, heap)?;
        sizes::write(out, paint, heap)?;
    }
    if let Some(size) = view.map {
        map::write(out, paint, inspection, size, view.arena)?;
    }
    files::write(out, paint, &inspection.files)?;
    classes::write(out, paint, inspection)?;
    if let Some(heap) = &inspection.heap {
        heap::write_torn(out, paint, heap)?;
    }
    if let Some(growth) = &inspection.growth {
        growth::write(out, paint, growth)?;
    }
    let of_heaps = inspection.heap.iter().flat_map(|heap| &heap.notes);
    let notes = inspection.notes.iter().chain(of_heaps);
    for note in notes.chain(&inspection.limits.notes) {
        let note = wrapped(&spoken(paint, note), 6, paint.width);
        writeln!(out, "{} {note}", paint.tone(Tone::Warn, "note:"))?;
    }
    Ok(())
}

fn header(out: &mut String, paint: &Paint, inspection: &Inspection, view: &View<'_>) -> Result {
    let process = &inspection.process;
    let command = if process.arguments.is_empty() {
        // The kernel's way to show a name that is no command line.
        format!("[{}]", process.command)
    } else {
        process.arguments.join(" ")
    };
    let line = format!("{} {}", inspection.pid, safe(&command));
    let line = shortened(&line, paint.width);
    writeln!(out, "{}", paint.tone(Tone::Strong, &line))?;
    let user = match view.user {
        Some(name) => safe(name).into_owned(),
        None => process.uid.to_string(),
    };
    let looked = seconds(inspection.cost_us);
    let stopped = inspection.paused_us.map_or(String::new(), |paused| {
        format!(", stopped it for {}", seconds(paused))
    });
    let what = format!(
        "{}, user {user}, up {}, {}; looked for {looked}{stopped}",
        heap::name(&inspection.allocator),
        lasting(process.age_s),
        counted(process.threads, "thread"),
    );
    writeln!(out, "{}", wrapped(&spoken(paint, &what), 0, paint.width))
}

/// The heading of a section.
fn title(out: &mut String, paint: &Paint, words: &str) -> Result {
    let words = shortened(words, paint.width);
    writeln!(out, "\n{}", paint.tone(Tone::Strong, &words))
}

/// A reason why something is not known, under its heading.
fn absent(out: &mut String, paint: &Paint, reason: &str) -> Result {
    let reason = wrapped(&spoken(paint, reason), 7, paint.width);
    writeln!(out, "  n/a: {reason}")
}

/// A sentence under a heading.
fn line(out: &mut String, paint: &Paint, what: &str) -> Result {
    let what = wrapped(&spoken(paint, what), 4, paint.width);
    writeln!(out, "  {what}")
}

/// The same, in the tone of what it means.
fn toned_line(out: &mut String, paint: &Paint, tone: Tone, what: &str) -> Result {
    let what = wrapped(&spoken(paint, what), 4, paint.width);
    // A terminal's tone is kept within a line, so that what cuts out lines keeps them whole.
    for (at, part) in what.lines().enumerate() {
        let indent = if at == 0 { "  " } else { "    " };
        writeln!(out, "{indent}{}", paint.tone(tone, part.trim_start()))?;
    }
    Ok(())
}
