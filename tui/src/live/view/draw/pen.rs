//! Writing within a rectangle, and nowhere else.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::Line;
use super::bar::{Mark, cells};
use crate::live::screen::theme::{Role, Theme};
use crate::live::view::put;
use crate::paint::safe;
use crate::table::Align;

/// Writes within its rectangle. Places are counted from its upper left corner; what has no place
/// goes on in its first line, where the last such text ended.
pub(in crate::live) struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    pub(in crate::live) theme: Theme,
    /// The column that the first line goes on at.
    at: u16,
    align: Align,
}

impl<'a> Pen<'a> {
    pub(in crate::live) fn new(buffer: &'a mut Buffer, theme: Theme, area: Rect) -> Pen<'a> {
        let area = area.intersection(buffer.area);
        Pen {
            buffer,
            area,
            theme,
            at: 0,
            align: Align::Left,
        }
    }

    pub(in crate::live) const fn width(&self) -> u16 {
        self.area.width
    }

    pub(in crate::live) const fn height(&self) -> u16 {
        self.area.height
    }

    /// A part of it, from a place on; cut to what there is.
    pub(in crate::live) fn part(
        &mut self,
        (x, y): (u16, u16),
        (width, height): (u16, u16),
    ) -> Pen<'_> {
        let area = self.place((x, y), (width, height));
        Pen::new(self.buffer, self.theme, area)
    }

    /// Where on the screen a part of it lies.
    pub(in crate::live) fn place(&self, (x, y): (u16, u16), (width, height): (u16, u16)) -> Rect {
        let (x, y) = (x.min(self.area.width), y.min(self.area.height));
        Rect {
            x: self.area.x + x,
            y: self.area.y + y,
            width: width.min(self.area.width - x),
            height: height.min(self.area.height - y),
        }
    }

    /// Writes text in at most so many columns; those that it took.
    pub(in crate::live) fn text(
        &mut self,
        (x, y): (u16, u16),
        columns: u16,
        text: &str,
        role: Role,
    ) -> u16 {
        let place = self.place((x, y), (columns, 1));
        if place.is_empty() {
            return 0;
        }
        // Nearly everything is that plain, and short enough: a tenth of the time.
        let plain = |byte: u8| matches!(byte, b' '..=b'~');
        if text.len() <= place.width.into() && text.bytes().all(plain) {
            let style = self.theme.style(role);
            for (x, byte) in (place.x..).zip(text.bytes()) {
                if let Some(cell) = self.buffer.cell_mut((x, place.y)) {
                    cell.set_char(char::from(byte)).set_style(style);
                }
            }
            return text.len() as u16;
        }
        let at = (place.x, place.y);
        put(self.buffer, at, place.width, text, &self.theme, role)
    }

    /// The same, flush right.
    pub(in crate::live) fn right(
        &mut self,
        (x, y): (u16, u16),
        columns: u16,
        text: &str,
        role: Role,
    ) {
        let pad = usize::from(columns).saturating_sub(safe(text).width());
        let pad = u16::try_from(pad).unwrap_or(columns);
        self.text((x.saturating_add(pad), y), columns - pad, text, role);
    }

    /// Writes a line from its first column on; where it is too long it is cut between words.
    pub(in crate::live) fn line(&mut self, y: u16, line: &Line) {
        self.line_at((0, y), self.area.width, line);
    }

    fn line_at(&mut self, (mut x, y): (u16, u16), columns: u16, line: &Line) -> u16 {
        let end = x.saturating_add(columns).min(self.area.width);
        let cut;
        let line = if line.width() > usize::from(end.saturating_sub(x)) {
            cut = line.cut(end.saturating_sub(x).into());
            &cut
        } else {
            line
        };
        for (role, text) in &line.0 {
            x += self.text((x, y), end.saturating_sub(x), text, *role);
        }
        x
    }

    /// Writes one character of one column: much cheaper than text.
    pub(in crate::live) fn mark(&mut self, (x, y): (u16, u16), mark: char, role: Role) {
        if x >= self.area.width || y >= self.area.height {
            return;
        }
        let style = self.theme.style(role);
        if let Some(cell) = self.buffer.cell_mut((self.area.x + x, self.area.y + y)) {
            cell.set_char(mark).set_style(style);
        }
    }

    /// Writes the same character several times.
    pub(in crate::live) fn marks(
        &mut self,
        (x, y): (u16, u16),
        columns: u16,
        mark: char,
        role: Role,
    ) {
        for at in x..x.saturating_add(columns).min(self.area.width) {
            self.mark((at, y), mark, role);
        }
    }

    /// Shows a part as selected.
    pub(in crate::live) fn select(&mut self, at: (u16, u16), size: (u16, u16)) {
        let place = self.place(at, size);
        self.buffer
            .set_style(place, self.theme.style(Role::Selected));
    }

    /// On which side the text of the first line is flush: for the cells of a table.
    pub(in crate::live) fn align(&mut self, align: Align) {
        self.align = align;
    }

    /// Columns that are left of the first line.
    pub(in crate::live) fn room(&self) -> u16 {
        self.area.width.saturating_sub(self.at)
    }

    /// On to a column of the screen.
    pub(in crate::live) fn go(&mut self, x: u16) {
        let to = x.saturating_sub(self.area.x);
        self.at = to.clamp(self.at, self.area.width.max(self.at));
    }

    /// On by so many columns.
    pub(in crate::live) fn skip(&mut self, columns: u16) {
        self.at = self.at.saturating_add(columns).min(self.area.width);
    }

    /// Goes on with text, cut to what is left. Flush right it is the whole cell.
    pub(in crate::live) fn write(&mut self, role: Role, text: &str) {
        let (at, room) = ((self.at, 0), self.room());
        match self.align {
            Align::Left => self.at += self.text(at, room, text, role),
            Align::Right => {
                self.right(at, room, text, role);
                self.at = self.area.width;
            }
        }
    }

    /// Goes on with a line. Where it does not fit it is cut between words.
    pub(in crate::live) fn say(&mut self, line: &Line) {
        let room = self.room();
        self.at = self.line_at((self.at, 0), room, line);
    }

    /// Goes on with a bar of so many columns: parts of a whole, one after the other; the rest is
    /// absent.
    pub(in crate::live) fn bar(&mut self, columns: u16, parts: &[(Role, Mark, u64)], whole: u64) {
        let columns = columns.min(self.room());
        let bytes = parts.iter().map(|part| part.2);
        let mut left = columns;
        for ((role, mark, _), count) in parts.iter().zip(cells(bytes, whole, columns)) {
            self.cells(count, *role, *mark);
            left -= count;
        }
        self.cells(left, Role::Released, Mark::Absent);
    }

    /// Goes on with so many cells of a bar.
    pub(in crate::live) fn cells(&mut self, columns: u16, role: Role, mark: Mark) {
        let symbol = mark.symbol(self.theme.unicode);
        self.marks((self.at, 0), columns, symbol, role);
        self.skip(columns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 6, 3));
        let mut pen = Pen::new(&mut buffer, Theme::plain(), Rect::new(1, 1, 3, 1));
        pen.line(0, &Line::of(Role::Text, "a").and(Role::Bad, "bcdef"));
        pen.line(1, &Line::of(Role::Text, "below"));
        pen.mark((3, 0), 'x', Role::Text);
        pen.marks((0, 1), u16::MAX, 'x', Role::Text);
        pen.part((2, 0), (9, 9)).text((0, 0), 9, "Z", Role::Text);
        pen.text((u16::MAX, u16::MAX), u16::MAX, "y", Role::Text);
        pen.select((u16::MAX, 0), (9, 9));
        pen.skip(u16::MAX);
        pen.write(Role::Text, "beyond");
        pen.bar(9, &[(Role::Text, Mark::Full, 1)], 1);
        let rows: Vec<String> = (0..3)
            .map(|y| (0..6).map(|x| buffer[(x, y)].symbol()).collect())
            .collect();
        assert_eq!(rows, ["      ", " abZ  ", "      "]);
    }
}
