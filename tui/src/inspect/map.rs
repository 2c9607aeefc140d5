//! An arena, drawn: where its bytes are in use, where they are free and cost RAM, and where they
//! were given back.

use std::fmt::{Result, Write};

use malloc_stats::Size;
use malloc_stats::heap::{Address, Arena, Cell, Heap, Pin, Shares};
use malloc_stats::inspect::Inspection;
use unicode_width::UnicodeWidthChar;

use super::arenas::most_wasteful;
use super::prose::wrapped;
use super::{absent, title};
use crate::paint::{Paint, Tone};

/// Columns of an address, with the blank and the frame behind it.
const MARGIN: usize = 19;

/// How large a map is, in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSize {
    /// Cells in a row.
    pub columns: usize,
    /// Rows, at most.
    pub rows: usize,
}

impl MapSize {
    /// As wide as the page, and so many rows.
    #[must_use]
    pub const fn of_width(paint: &Paint, rows: usize) -> MapSize {
        MapSize {
            columns: paint.width.saturating_sub(MARGIN + 1),
            rows,
        }
    }
}

pub(super) fn write(
    out: &mut String,
    paint: &Paint,
    inspection: &Inspection,
    size: MapSize,
    arena: Option<usize>,
) -> Result {
    let found = inspection.heap.as_ref().and_then(|heap| {
        let index = arena.or_else(|| most_wasteful(heap))?;
        let arena = heap.arenas.iter().find(|arena| arena.index == index)?;
        Some((heap, arena))
    });
    let Some((heap, arena)) = found else {
        title(out, paint, "map")?;
        let reason = match (&inspection.heap, arena) {
            (None, _) => "there is no heap to draw".to_owned(),
            (Some(_), None) => "it has no arenas".to_owned(),
            (Some(_), Some(index)) => format!("there is no arena {index}"),
        };
        return absent(out, paint, &reason);
    };
    let cells = size.columns.saturating_mul(size.rows).max(1);
    let cells = arena.coverage.cells(cells);
    title(out, paint, &heading(arena, &cells))?;
    if cells.is_empty() {
        return absent(out, paint, "nothing of this arena could be walked");
    }
    out.push_str(&rows(paint, &cells, &pins_of(heap, arena), size.columns));
    writeln!(out, "  {}", wrapped(&legend(paint), 4, paint.width))
}

fn heading(arena: &Arena, cells: &[Cell]) -> String {
    let which = if arena.is_main() {
        "the main arena".to_owned()
    } else {
        format!("arena {}", arena.index)
    };
    let Some(first) = cells.first() else {
        return format!("map of {which}");
    };
    let Shares {
        in_use,
        free_resident,
        free_released,
    } = first.shares;
    let bytes = in_use
        .saturating_add(free_resident)
        .saturating_add(free_released);
    format!("map of {which}, a cell is {}", Size(bytes))
}

fn pins_of(heap: &Heap, arena: &Arena) -> Vec<Address> {
    let own = |pin: &&Pin| pin.arena == arena.index;
    heap.pins
        .iter()
        .filter(own)
        .map(|pin| pin.address)
        .collect()
}

/// Rows of cells, `columns` each, every row with the address of its first cell before it. The cells
/// where a pin lies are marked `P`.
#[must_use]
pub fn rows(paint: &Paint, cells: &[Cell], pins: &[Address], columns: usize) -> String {
    let mut out = String::new();
    for row in cells.chunks(columns.max(1)) {
        let Some(first) = row.first() else { continue };
        out.push_str(&format!("{:>16} |", Address(first.range.start)));
        let mut painted = Painted::new(paint);
        for cell in row {
            let is_pinned = pins.iter().any(|pin| cell.range.contains(&pin.0));
            let (tone, mark) = if is_pinned {
                (Tone::Bad, 'P')
            } else {
                look(paint, &cell.shares)
            };
            painted.push(tone, mark);
        }
        out.push_str(&painted.finish());
        out.push_str("|\n");
    }
    out
}

/// Marks for: in use; mostly; partly; a little; free and resident; given back.
const BLOCKS: [char; 6] = ['█', '▓', '▒', '∶', '░', ' '];
const ASCII: [char; 6] = ['#', '*', '+', ':', '.', ' '];

fn marks(paint: &Paint) -> [char; 6] {
    // A mark of another width would shift its row.
    debug_assert!(BLOCKS.iter().all(|mark| mark.width() == Some(1)));
    if paint.unicode { BLOCKS } else { ASCII }
}

fn look(paint: &Paint, shares: &Shares) -> (Tone, char) {
    let [full, mostly, partly, little, free, released] = marks(paint);
    let (used, resident) = (u128::from(shares.in_use), u128::from(shares.free_resident));
    let all = used + resident + u128::from(shares.free_released);
    let is_resident = resident * 2 >= all - used;
    let tone = if is_resident { Tone::Warn } else { Tone::Faint };
    if used * 8 >= all * 7 && used > 0 {
        (Tone::Good, full)
    } else if used * 2 >= all && used > 0 {
        (tone, mostly)
    } else if used * 8 >= all && used > 0 {
        (tone, partly)
    } else if used > 0 {
        (tone, little)
    } else if resident * 8 >= all && resident > 0 {
        (Tone::Warn, free)
    } else {
        (Tone::Faint, released)
    }
}

fn legend(paint: &Paint) -> String {
    let [full, mostly, partly, little, free, _] = marks(paint);
    let colours = if paint.colour {
        "; yellow: what is free there is resident"
    } else {
        ""
    };
    format!(
        "{full} in use; {mostly} mostly, {partly} partly, {little} little of it; {free} free but resident; blank: given back or never touched; P pin{colours}"
    )
}

/// Marks in runs of one tone, so that a row is not mostly escapes.
struct Painted<'a> {
    paint: &'a Paint,
    done: String,
    run: String,
    tone: Tone,
}

impl<'a> Painted<'a> {
    fn new(paint: &'a Paint) -> Painted<'a> {
        Painted {
            paint,
            done: String::new(),
            run: String::new(),
            tone: Tone::Faint,
        }
    }

    fn push(&mut self, tone: Tone, mark: char) {
        if tone != self.tone {
            self.flush();
            self.tone = tone;
        }
        self.run.push(mark);
    }

    fn flush(&mut self) {
        if !self.run.is_empty() {
            self.done.push_str(&self.paint.tone(self.tone, &self.run));
            self.run.clear();
        }
    }

    fn finish(mut self) -> String {
        self.flush();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(at: u64, in_use: u64, free_resident: u64, free_released: u64) -> Cell {
        let shares = Shares {
            in_use,
            free_resident,
            free_released,
        };
        Cell {
            range: at * 4096..(at + 1) * 4096,
            shares,
        }
    }

    fn cells() -> Vec<Cell> {
        vec![
            cell(16, 4096, 0, 0),
            cell(17, 3000, 1096, 0),
            cell(18, 1000, 3096, 0),
            cell(19, 16, 0, 4080),
            cell(20, 0, 4096, 0),
            cell(21, 0, 0, 4096),
            cell(22, 32, 4064, 0),
        ]
    }

    #[test]
    fn every_share_has_its_mark_and_every_row_its_address() {
        let pins = [Address(22 * 4096 + 8)];
        let drawn = rows(&Paint::plain(), &cells(), &pins, 4);
        assert_eq!(drawn, "         0x10000 |#*+:|\n         0x14000 |. P|\n");
        let unicode = Paint {
            unicode: true,
            ..Paint::plain()
        };
        assert!(rows(&unicode, &cells(), &[], 7).contains("|█▓▒∶░ ∶|"));
    }

    #[test]
    fn colours_come_in_runs() {
        let colour = Paint {
            colour: true,
            ..Paint::plain()
        };
        let drawn = rows(&colour, &[cell(1, 0, 9, 0), cell(2, 0, 9, 0)], &[], 9);
        assert_eq!(drawn, "          0x1000 |\u{1b}[33m..\u{1b}[0m|\n");
    }

    #[test]
    fn cells_that_are_empty_or_enormous_are_drawn() {
        let extreme = [cell(0, 0, 0, 0), cell(1, u64::MAX, u64::MAX, u64::MAX)];
        assert_eq!(
            rows(&Paint::plain(), &extreme, &[], 0),
            "             0x0 | |\n          0x1000 |+|\n"
        );
        assert_eq!(rows(&Paint::plain(), &[], &[], 4), "");
    }
}
