//! What stands where in the panel, and its drawing.

use std::ops::Range;

use malloc_stats::heap::{Arena, Cell, Heap, Pin};

use super::marks::{self, PIN};
use super::picture::{Picture, bytes};
use crate::inspect::arenas::seems;
use crate::inspect::prose::{compact, compact_metric, percent};
use crate::live::screen::theme::Role;
use crate::live::view::draw::{Line, Pen};
use crate::live::view::{Click, Hit, Scene};

/// Lines, by what is in them; those that are absent had no room.
pub(super) struct Plan {
    /// Columns of the address before a row; 0 for none.
    margin: u16,
    /// Cells in a row.
    pub(super) columns: usize,
    /// Rows of cells.
    pub(super) rows: usize,
    /// The line of the whole arena, where only a part is in view.
    pub(super) overview: Option<u16>,
    /// The line of the cursor.
    cursor: Option<u16>,
    /// The line of the pin.
    pin: Option<u16>,
    /// The line that says what marks mean.
    legend: Option<u16>,
}

/// Shares out the lines of a panel.
pub(super) fn of(pen: &Pen<'_>, span: &Range<u64>, zoomed: bool, focused: bool) -> Plan {
    let (width, height) = (pen.width(), pen.height());
    let digits = format!("{:x}", span.end).len();
    // Where an address would take more than a third, the line of the cursor has it.
    let margin = u16::try_from(digits + 1).unwrap_or(17);
    let margin = if width >= 3 * margin { margin } else { 0 };
    let mut last = height;
    let mut line = |wanted: bool, least: u16| {
        (wanted && last > least).then(|| {
            last -= 1;
            last
        })
    };
    // From the bottom upwards, and the picture keeps a few rows.
    let legend = line(height >= 8, 3);
    let pin = line(height >= 4, 3);
    let cursor = line(focused && height >= 3, 2);
    let overview = line(zoomed && height >= 4, 2);
    Plan {
        margin,
        columns: usize::from(width - margin),
        rows: last.into(),
        overview,
        cursor,
        pin,
        legend,
    }
}

/// What is drawn.
pub(super) struct Map<'a> {
    pub(super) picture: &'a Picture,
    pub(super) overview: &'a Picture,
    /// The part that is in view; all where there is none.
    pub(super) view: Option<&'a Range<u64>>,
    pub(super) heap: &'a Heap,
    pub(super) arena: &'a Arena,
    /// The cell of the cursor.
    pub(super) cursor: Option<usize>,
}

impl Map<'_> {
    fn pins(&self) -> impl Iterator<Item = &Pin> {
        let own = |pin: &&Pin| pin.arena == self.arena.index;
        self.heap.pins.iter().filter(own)
    }

    pub(super) fn draw(&self, scene: &mut Scene<'_>, plan: &Plan, pen: &mut Pen<'_>) {
        self.draw_cells(scene, plan, pen);
        if let Some(y) = plan.overview {
            self.draw_overview(scene, y, pen);
        }
        if let Some(y) = plan.cursor {
            pen.line(y, &self.cursor_line(scene, pen.width()));
        }
        if let Some(y) = plan.pin {
            pen.line(y, &self.pin_line(scene, pen.width()));
        }
        if let Some(y) = plan.legend {
            pen.line(
                y,
                &marks::legend(&scene.theme, scene.since.is_some(), pen.width()),
            );
        }
    }

    fn draw_cells(&self, scene: &mut Scene<'_>, plan: &Plan, pen: &mut Pen<'_>) {
        let cells = &self.picture.cells;
        let mut pinned: Vec<usize> = self
            .pins()
            .map(|pin| (pin.address.0, self.picture.at(pin.address.0)))
            .filter(|(address, at)| holds(cells.get(*at), *address))
            .map(|(_, at)| at)
            .collect();
        pinned.sort_unstable();
        let diff = !self.picture.became.is_empty();
        for (y, row) in (0..).zip(cells.chunks(plan.columns.max(1)).take(plan.rows)) {
            if plan.margin > 0
                && let Some(first) = row.first()
            {
                let address = format!("{:x}", first.range.start);
                pen.right((0, y), plan.margin - 1, &address, Role::Faint);
            }
            for (x, cell) in (plan.margin..).zip(row) {
                let at = usize::from(y) * plan.columns + usize::from(x - plan.margin);
                let (mut mark, mut role) = marks::cell(&scene.theme, &cell.shares);
                if diff {
                    // What stayed as it was steps back.
                    (mark, role) = match self.picture.became.get(at) {
                        Some(Some(became)) => marks::changed(*became),
                        _ => (mark, Role::Faint),
                    };
                }
                if pinned.binary_search(&at).is_ok() {
                    (mark, role) = (PIN, Role::Bad);
                }
                pen.mark((x, y), mark, role);
                scene.hits.push(Hit {
                    area: pen.place((x, y), (1, 1)),
                    does: Click::Select(at),
                });
                if self.cursor == Some(at) {
                    pen.select((x, y), (1, 1));
                }
            }
        }
    }

    /// The whole arena in a line, with what is in view between brackets.
    fn draw_overview(&self, scene: &Scene<'_>, y: u16, pen: &mut Pen<'_>) {
        let Some(view) = self.view else { return };
        let cells = &self.overview.cells;
        let is_in_view = |cell: &Cell| cell.range.start < view.end && view.start < cell.range.end;
        let first = cells.iter().position(is_in_view).unwrap_or(0);
        let last = cells.iter().rposition(is_in_view).unwrap_or(first);
        let mut x = 0;
        for (at, cell) in cells.iter().enumerate() {
            if at == first {
                pen.mark((x, y), '[', Role::Key);
                x += 1;
            }
            let (mark, role) = marks::cell(&scene.theme, &cell.shares);
            let role = if (first..=last).contains(&at) {
                role
            } else {
                Role::Faint
            };
            pen.mark((x, y), mark, role);
            x += 1;
            if at == last {
                pen.mark((x, y), ']', Role::Key);
                x += 1;
            }
        }
    }

    fn cursor_line(&self, scene: &Scene<'_>, columns: u16) -> Line {
        let cell = self.cursor.and_then(|at| self.picture.cells.get(at));
        let Some(cell) = cell else {
            let words = "arrows move a cursor, zoom goes closer, down to chunks";
            return Line::of(Role::Faint, words);
        };
        let all = bytes(&cell.shares);
        let share = |bytes: u64| percent(bytes as f64 / all.max(1) as f64);
        let shares = &cell.shares;
        let (from, to) = (cell.range.start, cell.range.end);
        let is_wide = columns >= 84;
        let (place, free, back) = match is_wide {
            true => (
                format!(" {from:x}-{to:x} {}", compact(all)),
                "free, resident",
                "given back",
            ),
            false => (format!(" {from:x}+{}", compact(all)), "free", "back"),
        };
        let arrow = if scene.theme.unicode { "▸" } else { ">" };
        Line::of(Role::Key, arrow)
            .and(Role::Strong, place)
            .and(Role::InUse, format!("  in use {}", share(shares.in_use)))
            .and(
                Role::Waste,
                format!("  {free} {}", share(shares.free_resident)),
            )
            .and(
                Role::Faint,
                format!("  {back} {}", share(shares.free_released)),
            )
    }

    fn pin_line(&self, scene: &Scene<'_>, columns: u16) -> Line {
        let paint = scene.theme.paint(0);
        let Some(pin) = self.pins().next() else {
            return Line::of(Role::Faint, "no pin is known: its top shrinks by itself");
        };
        let keeps = compact_metric(&paint, pin.below_free_resident);
        let (size, at) = (compact(pin.size), pin.address.0);
        let what = seems(&paint, pin);
        let parts = [
            Line::of(Role::Faint, format!("  keeps {keeps}")),
            Line::of(Role::Faint, " from shrinking"),
        ];
        Line::of(Role::Bad, PIN.to_string())
            .and(Role::Strong, format!(" {size}@{at:x}"))
            .and(Role::Text, format!(" {what}"))
            .with(parts, columns.into())
    }
}

fn holds(cell: Option<&Cell>, address: u64) -> bool {
    cell.is_some_and(|cell| cell.range.contains(&address))
}
