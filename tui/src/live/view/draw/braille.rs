//! Curves in characters: two by four dots in each, or letters where there is only ASCII.

use ratatui::buffer::Buffer;

use crate::live::screen::theme::{Role, Theme};

/// The dots of a character, from the bottom of its left column upwards, then of its right one
/// (Unicode 16, block Braille Patterns).
const DOTS: [[u8; 4]; 2] = [[0x40, 0x04, 0x02, 0x01], [0x80, 0x20, 0x10, 0x08]];
/// Where letters of several curves meet.
const SEVERAL: char = '#';

/// A sheet that curves are drawn on, in dots, and put into a buffer.
#[derive(Debug, Clone)]
pub(in crate::live) struct Canvas {
    unicode: bool,
    columns: usize,
    rows: usize,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    dots: u8,
    letter: char,
    role: Role,
}

impl Canvas {
    /// An empty sheet of so many characters.
    pub(in crate::live) fn new(unicode: bool, columns: u16, rows: u16) -> Canvas {
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        let empty = Cell {
            dots: 0,
            letter: ' ',
            role: Role::Text,
        };
        Canvas {
            unicode,
            columns,
            rows,
            cells: vec![empty; columns * rows],
        }
    }

    /// Dots from left to right.
    pub(in crate::live) fn across(&self) -> usize {
        self.columns * if self.unicode { 2 } else { 1 }
    }

    /// Dots from the bottom to the top.
    pub(in crate::live) fn up(&self) -> usize {
        self.rows * if self.unicode { 4 } else { 1 }
    }

    /// The row of characters, from the top, that a dot lies in.
    pub(in crate::live) fn row(&self, dot: usize) -> usize {
        let up = if self.unicode { 4 } else { 1 };
        self.rows.saturating_sub(1 + dot / up)
    }

    /// Dots above each other, from one to another, both included and counted from the bottom. What
    /// lies outside is left out. A character has the colour of what was drawn there last.
    pub(in crate::live) fn upright(
        &mut self,
        at: usize,
        from: usize,
        to: usize,
        letter: char,
        role: Role,
    ) {
        if at >= self.across() || from >= self.up() {
            return;
        }
        for dot in from..=to.min(self.up() - 1) {
            let (column, bit) = if self.unicode {
                (at / 2, DOTS[at % 2][dot % 4])
            } else {
                (at, 1)
            };
            let row = self.row(dot);
            let Some(cell) = self.cells.get_mut(row * self.columns + column) else {
                return;
            };
            cell.letter = match cell.letter {
                ' ' => letter,
                other if other == letter => letter,
                _ => SEVERAL,
            };
            cell.dots |= bit;
            cell.role = role;
        }
    }

    /// Puts what was drawn into a buffer, and leaves the rest of it as it is.
    pub(in crate::live) fn draw(&self, buffer: &mut Buffer, (x, y): (u16, u16), theme: &Theme) {
        for (at, cell) in self.cells.iter().enumerate() {
            if cell.dots == 0 {
                continue;
            }
            let place = (
                usize::from(x) + at % self.columns,
                usize::from(y) + at / self.columns,
            );
            let (Ok(column), Ok(row)) = (u16::try_from(place.0), u16::try_from(place.1)) else {
                continue;
            };
            let Some(into) = buffer.cell_mut((column, row)) else {
                continue;
            };
            let mark = if self.unicode {
                // Braille Patterns are in the order of their bits.
                char::from_u32(0x2800 + u32::from(cell.dots)).unwrap_or(' ')
            } else {
                cell.letter
            };
            into.set_char(mark).set_style(theme.style(cell.role));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;

    fn drawn(canvas: &Canvas, unicode: bool) -> String {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 3, 2));
        let theme = Theme {
            unicode,
            ..Theme::plain()
        };
        canvas.draw(&mut buffer, (0, 0), &theme);
        let cells = buffer.content.chunks(3);
        let lines = cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        lines.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn dots_lie_where_they_are_counted_to() {
        let mut canvas = Canvas::new(true, 3, 2);
        assert_eq!((canvas.across(), canvas.up()), (6, 8));
        canvas.upright(0, 0, 7, 'r', Role::Rss);
        canvas.upright(3, 2, 4, 'r', Role::Rss);
        canvas.upright(5, 7, 900, 'r', Role::Rss);
        canvas.upright(6, 0, 7, 'r', Role::Rss);
        assert_eq!(drawn(&canvas, true), "⡇⢀⠈/⡇⠘ ");
    }

    #[test]
    fn letters_of_several_curves_make_a_sign_of_their_own() {
        let mut canvas = Canvas::new(false, 3, 2);
        canvas.upright(0, 1, 1, 'r', Role::Rss);
        canvas.upright(1, 1, 1, 'r', Role::Rss);
        canvas.upright(1, 0, 1, 'u', Role::InUse);
        assert_eq!(drawn(&canvas, false), "r# / u ");
    }

    #[test]
    fn a_sheet_without_room_takes_anything() {
        let mut canvas = Canvas::new(true, 0, 0);
        canvas.upright(0, 0, 0, 'r', Role::Rss);
        assert_eq!(drawn(&canvas, true), "   /   ");
    }
}
