//! An arena, drawn; down to its chunks.
//!
//! | file | what |
//! |---|---|
//! | `picture` | the cells, kept from frame to frame, and which of them changed |
//! | `marks` | how a cell looks |
//! | `plan` | what stands where in the panel |
//! | `chunks` | a stretch, chunk by chunk |

mod chunks;
mod marks;
mod picture;
mod plan;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use malloc_stats::Size;
use malloc_stats::heap::{Arena, Heap};
use malloc_stats::inspect::Inspection;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::chunks::{List, say};
use self::picture::{Picture, Wanted};
use super::draw::Pen;
use super::{Click, Scene, View, Wish};
use crate::inspect::arenas::by_waste;
use crate::inspect::most_wasteful;
use crate::inspect::prose::{compact, compact_metric};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Role;

/// How many times closer it goes at a time.
const ZOOM: usize = 8;
/// A stretch of which chunks are read, at most: some tens of thousands of the smallest.
const CHUNKS: u64 = 1 << 20;
/// Cells that tell apart no less than this are as close as a picture gets.
const PAGE: u64 = 4096;

/// An arena, drawn; down to its chunks.
#[derive(Debug, Clone, Default)]
pub struct HeapMap {
    /// The arena to draw, by its index; the one with the most waste where none is chosen, or where
    /// the chosen one is not there.
    pub arena: Option<usize>,
    /// The arena that was drawn last.
    drawn: Option<usize>,
    /// The ranges that were zoomed into, the closest last.
    zoom: Vec<Range<u64>>,
    /// The address of the cursor.
    cursor: Option<u64>,
    /// Where pins of the arena lie, in order of address.
    pins: Vec<u64>,
    picture: Picture,
    /// The whole arena in a line.
    overview: Picture,
    /// Cells in a row, and rows, as they were drawn last.
    grid: (usize, usize),
    list: Option<List>,
}

impl View for HeapMap {
    fn title(&self) -> &'static str {
        "HEAP MAP"
    }

    fn caption(&self, scene: &Scene<'_>) -> String {
        let Some((_, heap)) = heap_of(scene.state) else {
            return String::new();
        };
        let Some(arena) = self.shown(heap) else {
            return String::new();
        };
        let which = match arena.is_main() {
            true => "main arena".to_owned(),
            false => format!("arena {}", arena.index),
        };
        let of = heap.arenas.len();
        let which = match of {
            0 | 1 => which,
            _ => format!("{which} (of {of})"),
        };
        if let Some(list) = &self.list {
            let (from, to) = (list.range.start, list.range.end);
            return format!("{which}, chunks of {from:x}-{to:x}");
        }
        // Before the first frame there are no cells to tell the size of.
        match self.picture.cells.first() {
            Some(cell) if self.drawn == Some(arena.index) => {
                let cell = compact(picture::bytes(&cell.shares));
                match self.zoom.len() {
                    0 => format!("{which}, cell {cell}"),
                    _ => {
                        let part = compact(self.picture.bytes());
                        format!("{which}, {part} of {}, cell {cell}", total(arena))
                    }
                }
            }
            _ => which,
        }
    }

    fn brief(&self, scene: &Scene<'_>) -> String {
        let Some((_, heap)) = heap_of(scene.state) else {
            return "the heap was not walked".to_owned();
        };
        let caption = self.caption(scene);
        let Some(pin) = heap.pins.first() else {
            return format!("{caption}, no pin is known");
        };
        let keeps = compact_metric(&scene.theme.paint(0), pin.below_free_resident);
        let arena = match pin.arena {
            0 => "the main arena".to_owned(),
            index => format!("arena {index}"),
        };
        format!("{} pins {keeps} of {arena}", compact(pin.size))
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let mut pen = Pen::new(buffer, scene.theme, area);
        self.grid = (0, 0);
        if pen.width() == 0 || pen.height() == 0 {
            return;
        }
        let Some((look, heap)) = heap_of(scene.state) else {
            let reason = no_heap(scene.state);
            say(scene, &mut pen, Role::Warn, &reason);
            return;
        };
        let Some(arena) = self.shown(heap) else {
            say(scene, &mut pen, Role::Faint, "this heap has no arenas");
            return;
        };
        if self.drawn != Some(arena.index) {
            // Addresses of another arena mean nothing in this one.
            self.zoom.clear();
            self.cursor = None;
            self.list = None;
            self.drawn = Some(arena.index);
        }
        match &mut self.list {
            Some(list) => list.draw(scene, Some(heap), &mut pen),
            None => self.draw_map(scene, (look, heap, arena), &mut pen),
        }
    }

    fn act(&mut self, action: Action, state: &State) -> Wish {
        let Some((_, heap)) = heap_of(state) else {
            return Wish::Ignored;
        };
        if action == Action::Arena {
            return self.next_arena(heap);
        }
        if let Some(list) = &mut self.list {
            let last = list.rows.saturating_sub(1);
            let page = list.page.max(1);
            list.selected = match action {
                Action::Up | Action::Left => list.selected.saturating_sub(1),
                Action::Down | Action::Right => list.selected.saturating_add(1),
                Action::PageUp => list.selected.saturating_sub(page),
                Action::PageDown => list.selected.saturating_add(page),
                Action::First => 0,
                Action::Last => last,
                Action::Back | Action::ZoomOut => {
                    self.list = None;
                    return Wish::Redraw;
                }
                _ => return Wish::Ignored,
            }
            .min(last);
            return Wish::Redraw;
        }
        let (columns, rows) = self.grid;
        let page = columns.saturating_mul((rows / 2).max(1));
        match action {
            Action::Left => self.step(|at| at.saturating_sub(1)),
            Action::Right => self.step(|at| at.saturating_add(1)),
            Action::Up => self.step(|at| at.checked_sub(columns).unwrap_or(at)),
            Action::Down => self.step(|at| at.saturating_add(columns)),
            Action::PageUp => self.step(|at| at.saturating_sub(page)),
            Action::PageDown => self.step(|at| at.saturating_add(page)),
            Action::First => self.step(|_| 0),
            Action::Last => self.step(|_| usize::MAX),
            Action::ZoomIn | Action::Open => self.zoom_in(),
            Action::ZoomOut | Action::Back => match self.zoom.pop() {
                Some(_) => Wish::Redraw,
                None if action == Action::Back && self.cursor.take().is_some() => Wish::Redraw,
                None => Wish::Ignored,
            },
            _ => Wish::Ignored,
        }
    }

    fn click(&mut self, click: &Click, _: &State) -> Wish {
        let Click::Select(at) = click else {
            return Wish::Ignored;
        };
        if let Some(list) = &mut self.list {
            list.selected = (*at).min(list.rows.saturating_sub(1));
            return Wish::Redraw;
        }
        let is_second = self
            .cursor
            .is_some_and(|cursor| self.picture.at(cursor) == *at);
        if is_second {
            return self.zoom_in();
        }
        self.step(|_| *at)
    }
}

/// The newest look that has a heap, and the heap.
fn heap_of(state: &State) -> Option<(&Arc<Inspection>, &Heap)> {
    let look = &state.look.as_ref()?.value;
    Some((look, look.heap.as_ref()?))
}

/// Why there is nothing to draw, and where else to look.
fn no_heap(state: &State) -> String {
    let Some(look) = &state.look else {
        let jemalloc = state.vitals.allocator.as_ref();
        return match jemalloc.and_then(|reading| reading.value.jemalloc) {
            Some(_) => {
                "jemalloc serves, whose heap is not walked: its own numbers are in ALLOCATOR"
            }
            None => "the heap was not walked: there is no map of it",
        }
        .to_owned();
    };
    let look = &look.value;
    let reason = look.heap_absent.as_ref();
    let reason = reason.or(look.allocator.reason.as_ref());
    let reason = reason.map_or("its heap was not looked into", String::as_str);
    format!("no heap to draw: {reason}; what is known of it is in ALLOCATOR")
}

fn total(arena: &Arena) -> Size {
    Size(arena.coverage.bytes())
}

impl HeapMap {
    fn shown<'a>(&self, heap: &'a Heap) -> Option<&'a Arena> {
        let by_index = |index: usize| heap.arenas.iter().find(|arena| arena.index == index);
        let chosen = self.arena.and_then(by_index);
        chosen.or_else(|| by_index(most_wasteful(heap)?))
    }

    /// The next arena, the worst first.
    fn next_arena(&mut self, heap: &Heap) -> Wish {
        let arenas = by_waste(heap);
        let Some(now) = self.shown(heap).map(|arena| arena.index) else {
            return Wish::Ignored;
        };
        let at = arenas.iter().position(|arena| arena.index == now);
        let next = at.map_or(0, |at| (at + 1) % arenas.len());
        self.arena = arenas.get(next).map(|arena| arena.index);
        Wish::Redraw
    }

    fn draw_map(
        &mut self,
        scene: &mut Scene<'_>,
        (look, heap, arena): (&Arc<Inspection>, &Heap, &Arena),
        pen: &mut Pen<'_>,
    ) {
        let Some(span) = arena.coverage.span() else {
            let what = "there is no picture of this arena: the look that was recorded has none, or nothing of it could be walked";
            say(scene, pen, Role::Faint, what);
            return;
        };
        let plan = plan::of(pen, &span, !self.zoom.is_empty(), scene.focused);
        let mark = scene.since.and_then(|since| Some(heap_of(since)?.0));
        let wanted = Wanted {
            look,
            mark,
            arena: arena.index,
            range: self.zoom.last().cloned(),
            cells: plan.columns * plan.rows,
        };
        self.picture.update(&wanted);
        if self.picture.cells.is_empty() && self.zoom.pop().is_some() {
            // What was zoomed into has gone from the arena.
            let range = self.zoom.last().cloned();
            self.picture.update(&Wanted { range, ..wanted });
        }
        if plan.overview.is_some() {
            self.overview.update(&Wanted {
                look,
                mark: None,
                arena: arena.index,
                range: None,
                cells: usize::from(pen.width()).saturating_sub(2),
            });
        }
        self.grid = (plan.columns, plan.rows);
        let own = heap.pins.iter().filter(|pin| pin.arena == arena.index);
        self.pins = own.map(|pin| pin.address.0).collect();
        self.pins.sort_unstable();
        let cursor = self.cursor.map(|cursor| self.picture.at(cursor));
        let cursor = cursor.filter(|_| scene.focused);
        let map = plan::Map {
            picture: &self.picture,
            overview: &self.overview,
            view: self.zoom.last(),
            heap,
            arena,
            cursor,
        };
        map.draw(scene, &plan, pen);
    }

    /// Moves the cursor; the first time to where it begins.
    fn step(&mut self, to: impl Fn(usize) -> usize) -> Wish {
        let Some(last) = self.picture.cells.len().checked_sub(1) else {
            return Wish::Ignored;
        };
        let at = self.cursor.map_or(0, |cursor| self.picture.at(cursor));
        let cell = &self.picture.cells[to(at).min(last)];
        self.cursor = Some(self.aim(&cell.range));
        // A map that somebody reads does not turn to another arena by itself.
        self.arena = self.arena.or(self.drawn);
        Wish::Redraw
    }

    /// What of a cell to go closer to: its pin, where it has one.
    fn aim(&self, cell: &Range<u64>) -> u64 {
        let at = self.pins.partition_point(|pin| *pin < cell.start);
        let pin = self.pins.get(at).filter(|pin| cell.contains(pin));
        pin.copied().unwrap_or(cell.start)
    }

    /// Goes closer to the cursor, or to the middle where there is none; in the end to chunks.
    fn zoom_in(&mut self) -> Wish {
        let cells = &self.picture.cells;
        let (Some(arena), Some(last)) = (self.drawn, cells.len().checked_sub(1)) else {
            return Wish::Ignored;
        };
        let at = self
            .cursor
            .map_or(last / 2, |cursor| self.picture.at(cursor));
        let size = cells.iter().map(|cell| picture::bytes(&cell.shares)).max();
        let size = size.unwrap_or(0);
        self.arena.get_or_insert(arena);
        if self.picture.bytes() <= CHUNKS || size <= PAGE || cells.len() < ZOOM {
            let range = around(cells, at, |_, bytes| bytes <= CHUNKS);
            let (from, to) = (
                range.start,
                range.end.min(range.start.saturating_add(CHUNKS)),
            );
            let cursor = self.cursor.unwrap_or_else(|| self.aim(&cells[at].range));
            self.list = Some(List::new(arena, from..to, cursor));
            return Wish::Chunks { arena, from, to };
        }
        let most = cells.len() / ZOOM;
        let range = around(cells, at, |count, _| count <= most);
        if self.cursor.is_none() {
            self.cursor = Some(self.aim(&cells[at].range));
        }
        self.zoom.push(range);
        Wish::Redraw
    }
}

/// The addresses of a cell and of those on both sides of it, as long as their number and their
/// bytes are right.
fn around(
    cells: &[malloc_stats::heap::Cell],
    at: usize,
    right: impl Fn(usize, u64) -> bool,
) -> Range<u64> {
    let (mut from, mut to) = (at, at);
    let size = |at: usize| picture::bytes(&cells[at].shares);
    let mut bytes = size(at);
    loop {
        let count = to - from + 2;
        let mut grown = false;
        if from > 0 && right(count, bytes.saturating_add(size(from - 1))) {
            from -= 1;
            bytes = bytes.saturating_add(size(from));
            grown = true;
        }
        let count = to - from + 2;
        if to + 1 < cells.len() && right(count, bytes.saturating_add(size(to + 1))) {
            to += 1;
            bytes = bytes.saturating_add(size(to));
            grown = true;
        }
        if !grown {
            return cells[from].range.start..cells[to].range.end;
        }
    }
}
