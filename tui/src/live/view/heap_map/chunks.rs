//! A stretch of an arena, chunk by chunk.

use std::ops::Range;

use malloc_stats::heap::{Chunk, ChunkState, ChunksSeen, Heap, Pin};
use unicode_width::UnicodeWidthStr;

use super::marks::{self, PIN};
use crate::inspect::arenas::seems;
use crate::inspect::prose::{compact, counted, spoken, wrapped};
use crate::live::screen::theme::Role;
use crate::live::view::draw::{Line, Pen, stretch};
use crate::live::view::{Click, Hit, Scene};

/// The list of chunks: what was asked for, and where in it the reader is.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) arena: usize,
    pub(super) range: Range<u64>,
    /// The number of the selected row, and of the first that is shown.
    pub(super) selected: usize,
    first: usize,
    /// The address whose chunk is to be selected once there are any.
    seek: Option<u64>,
    /// Rows in all, and shown at a time, when it was drawn last.
    pub(super) rows: usize,
    pub(super) page: usize,
}

/// What every row has.
struct Columns {
    address: u16,
    bar: u16,
    largest: u64,
}

impl List {
    /// A list of what is asked for, at an address in it.
    pub(super) const fn new(arena: usize, range: Range<u64>, at: u64) -> List {
        List {
            arena,
            range,
            selected: 0,
            first: 0,
            seek: Some(at),
            rows: 0,
            page: 0,
        }
    }

    /// Whether these chunks are those that were asked for.
    fn is_of(&self, seen: &ChunksSeen) -> bool {
        seen.arena == self.arena
            && seen.range.start < self.range.end
            && self.range.start < seen.range.end
    }

    pub(super) fn draw(&mut self, scene: &mut Scene<'_>, heap: Option<&Heap>, pen: &mut Pen<'_>) {
        self.rows = 0;
        self.page = 0;
        let (from, to) = (self.range.start, self.range.end);
        match &scene.state.chunks {
            Some(Ok(seen)) if self.is_of(seen) => {
                let seen = seen.clone();
                self.draw_seen(scene, heap, &seen, pen);
            }
            Some(Err(reason)) => say(scene, pen, Role::Warn, &format!("no chunks: {reason}")),
            _ => say(
                scene,
                pen,
                Role::Faint,
                &format!("reading the chunks from {from:x} to {to:x}"),
            ),
        }
    }

    fn draw_seen(
        &mut self,
        scene: &mut Scene<'_>,
        heap: Option<&Heap>,
        seen: &ChunksSeen,
        pen: &mut Pen<'_>,
    ) {
        let of_arena = |pin: &&Pin| pin.arena == seen.arena;
        let pins = heap.into_iter().flat_map(|heap| &heap.pins);
        let pins: Vec<&Pin> = pins.filter(of_arena).collect();
        let rows: Vec<&Chunk> = if scene.filter.is_empty() {
            seen.chunks.iter().collect()
        } else {
            let passes = |chunk: &&Chunk| {
                let (_, _, state) = marks::chunk(&scene.theme, chunk.state);
                let is_pin = "pin".contains(scene.filter) && pin_of(&pins, chunk).is_some();
                state.contains(scene.filter) || is_pin
            };
            seen.chunks.iter().filter(passes).collect()
        };
        self.rows = rows.len();
        if let Some(at) = self.seek.take() {
            let behind = rows.partition_point(|chunk| chunk.address <= at);
            self.selected = behind.saturating_sub(1);
        }
        self.selected = self.selected.min(rows.len().saturating_sub(1));
        let (width, height) = (pen.width(), pen.height());
        let strip = match height {
            0..3 => 0,
            3..16 => 1,
            _ => 3,
        };
        let above = &mut pen.part((0, 0), (width, strip));
        self.draw_strip(
            scene,
            seen,
            (&pins, rows.get(self.selected).copied()),
            above,
        );
        let notes = summary(scene, seen, rows.len());
        let foot = u16::from(height >= 4 && !notes.0.is_empty());
        let header = u16::from(height >= 5);
        let top = strip + header;
        let room = height.saturating_sub(top + foot);
        self.page = room.into();
        let last = self.selected.saturating_sub(self.page.saturating_sub(1));
        self.first = self.first.clamp(last, self.selected);
        let shown = rows.get(self.first..).unwrap_or_default();
        let shown = &shown[..shown.len().min(self.page)];
        let digits = |chunk: &&Chunk| format!("{:x}", chunk.address).len();
        let address = shown.iter().map(digits).max().unwrap_or(7).max(7);
        // The top would make every other bar vanish.
        let bounded = rows.iter().filter(|chunk| chunk.state != ChunkState::Top);
        let columns = Columns {
            address: u16::try_from(address).unwrap_or(16),
            bar: width
                .saturating_sub(u16::try_from(address).unwrap_or(16) + 76)
                .min(60),
            largest: bounded.map(|chunk| chunk.size).max().unwrap_or(0),
        };
        if header > 0 {
            let words = format!(
                " {:>address$}  {:>8}  {:<12}  {:>8}",
                "CHUNK", "SIZE", "STATE", "RESIDENT"
            );
            pen.line(strip, &Line::of(Role::Faint, words));
        }
        for (at, chunk) in shown.iter().enumerate() {
            let Ok(y) = u16::try_from(at).map(|at| top + at) else {
                break;
            };
            let pin = pin_of(&pins, chunk);
            draw_row(scene, pen, y, chunk, pin, &columns);
            let number = self.first + at;
            if number == self.selected && scene.focused {
                pen.select((0, y), (width, 1));
            }
            scene.hits.push(Hit {
                area: pen.place((0, y), (width, 1)),
                does: Click::Select(number),
            });
        }
        if foot > 0 {
            pen.line(height - 1, &notes);
        }
    }

    /// All chunks to scale, in a few lines.
    fn draw_strip(
        &self,
        scene: &Scene<'_>,
        seen: &ChunksSeen,
        (pins, selected): (&[&Pin], Option<&Chunk>),
        pen: &mut Pen<'_>,
    ) {
        let (width, height) = (pen.width(), pen.height());
        let cells = usize::from(width) * usize::from(height);
        let (Some(first), Some(last)) = (seen.chunks.first(), seen.chunks.last()) else {
            return;
        };
        let from = first.address.max(self.range.start.min(seen.range.start));
        let end = last.address.saturating_add(last.size);
        let to = end.min(self.range.end.max(seen.range.end));
        let span = u128::from(to.saturating_sub(from));
        if span == 0 {
            return;
        }
        let mut next = 0;
        for cell in 0..cells {
            // Where the middle of the cell lies.
            let at = (span * (2 * cell as u128 + 1) / (2 * cells as u128)) as u64;
            let at = from.saturating_add(at);
            let behind = |chunk: &Chunk| chunk.address.saturating_add(chunk.size) <= at;
            while seen.chunks.get(next).is_some_and(behind) {
                next += 1;
            }
            let Some(chunk) = seen.chunks.get(next) else {
                break;
            };
            if chunk.address <= at {
                let (mark, role, _) = marks::chunk(&scene.theme, chunk.state);
                pen.mark(place(cell, width), mark, role);
            }
        }
        // The smallest has a cell too, where it is one that matters.
        let cell_of = |address: u64| {
            let offset = u128::from(address.saturating_sub(from)).min(span - 1);
            (offset * cells as u128 / span) as usize
        };
        for pin in pins {
            if (from..to).contains(&pin.address.0) {
                pen.mark(place(cell_of(pin.address.0), width), PIN, Role::Bad);
            }
        }
        if scene.focused
            && let Some(chunk) = selected
            && (from..to).contains(&chunk.address)
        {
            let end = chunk.address.saturating_add(chunk.size - chunk.size.min(1));
            for cell in cell_of(chunk.address)..=cell_of(end) {
                pen.select(place(cell, width), (1, 1));
            }
        }
    }
}

/// Where a cell of the strip stands.
fn place(cell: usize, width: u16) -> (u16, u16) {
    let width = usize::from(width.max(1));
    let narrow = |number| u16::try_from(number).unwrap_or(u16::MAX);
    (narrow(cell % width), narrow(cell / width))
}

/// The pin that a chunk is.
fn pin_of<'a>(pins: &[&'a Pin], chunk: &Chunk) -> Option<&'a Pin> {
    let end = chunk.address.saturating_add(chunk.size);
    let holds = |pin: &&&Pin| (chunk.address..end).contains(&pin.address.0);
    pins.iter().find(holds).copied()
}

fn draw_row(
    scene: &Scene<'_>,
    pen: &mut Pen<'_>,
    y: u16,
    chunk: &Chunk,
    pin: Option<&Pin>,
    columns: &Columns,
) {
    let (mark, role, state) = marks::chunk(&scene.theme, chunk.state);
    if pin.is_some() {
        pen.mark((0, y), PIN, Role::Bad);
    }
    let mut x = 1;
    pen.right(
        (x, y),
        columns.address,
        &format!("{:x}", chunk.address),
        Role::Text,
    );
    x += columns.address + 2;
    pen.right((x, y), 8, &compact(chunk.size), Role::Strong);
    x += 10;
    pen.text((x, y), 12, state, role);
    x += 14;
    let resident = match chunk.resident >= chunk.size {
        true => "all".to_owned(),
        false => compact(chunk.resident),
    };
    pen.right((x, y), 8, &resident, Role::Faint);
    x += 10;
    if columns.bar >= 8 {
        let largest = columns.largest;
        let (_, whole) = stretch(0, chunk.size, largest, columns.bar);
        let resident = chunk.resident.min(chunk.size);
        let (_, full) = stretch(0, resident, chunk.size, whole);
        pen.marks((x, y), full, mark, role);
        let rest = if scene.theme.unicode { '·' } else { '-' };
        pen.marks((x + full, y), whole - full, rest, Role::Released);
        x += columns.bar + 2;
    }
    if let Some(pin) = pin {
        let paint = scene.theme.paint(pen.width().into());
        let at = pin.address.0;
        let what = format!("{}@{at:x} {}", compact(pin.size), seems(&paint, pin));
        let room = pen.width().saturating_sub(x);
        pen.text((x, y), room, &what, Role::Bad);
    }
}

/// What is left out, and what could not be followed.
fn summary(scene: &Scene<'_>, seen: &ChunksSeen, shown: usize) -> Line {
    let paint = scene.theme.paint(0);
    let mut line = Line::default();
    if seen.chunks.is_empty() {
        line = line.and(Role::Warn, "no chunks were found there  ");
    } else {
        let chunks = counted(shown as u64, "chunk");
        line = line.and(Role::Faint, format!("{chunks}  "));
    }
    if seen.beyond > 0 {
        let more = format!("and {} more that were not read  ", seen.beyond);
        line = line.and(Role::Warn, more);
    }
    if let Some(note) = seen.notes.first() {
        line = line.and(Role::Warn, spoken(&paint, note));
    }
    line
}

/// A sentence that stands for the picture.
pub(super) fn say(scene: &Scene<'_>, pen: &mut Pen<'_>, role: Role, text: &str) {
    let width = usize::from(pen.width());
    let paint = scene.theme.paint(width);
    let text = spoken(&paint, text);
    let lines = match text.width() <= width {
        true => text,
        false => wrapped(&text, 0, width),
    };
    for (y, line) in (0..pen.height()).zip(lines.lines()) {
        pen.line(y, &Line::of(role, line));
    }
}
