//! Columns that fit the terminal: one gives way, and the least important are left out by name.

use std::fmt::{Result, Write};

use unicode_width::UnicodeWidthStr;

use super::prose::middle;
use crate::paint::{Paint, Tone, shortened};
use crate::table::Align;

/// Columns that a column which gives way keeps, before others are left out.
const LEAST: usize = 12;
/// Columns between columns.
const GAP: usize = 2;

/// Text with tones, whose columns can be counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text(Vec<(Option<Tone>, String)>);

impl Text {
    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Text {
        Text(vec![(Some(tone), text.into())])
    }

    pub(crate) fn and(mut self, other: impl Into<Text>) -> Text {
        self.0.extend(other.into().0);
        self
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    pub(crate) fn painted(&self, paint: &Paint) -> String {
        self.0
            .iter()
            .map(|(tone, text)| match tone {
                Some(tone) if !text.is_empty() => paint.tone(*tone, text),
                _ => text.clone(),
            })
            .collect()
    }

    /// Cut to so many columns. Only text in one tone is.
    fn cut(self, cut: Cut, columns: usize) -> Text {
        match <[_; 1]>::try_from(self.0) {
            Ok([(tone, text)]) => {
                let text = match cut {
                    Cut::End => shortened(&text, columns).into_owned(),
                    Cut::Middle => middle(&text, columns).into_owned(),
                };
                Text(vec![(tone, text)])
            }
            Err(spans) => Text(spans),
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(vec![(None, text)])
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text::from(text.to_owned())
    }
}

/// Where a text is cut that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    End,
    Middle,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    align: Align,
    /// Left out where there is no room, the greatest first; never where it is 0.
    rank: u8,
    /// How its text is cut where there is no room.
    cut: Option<Cut>,
}

impl Column {
    pub(crate) const fn left(name: &'static str) -> Column {
        let (align, rank, cut) = (Align::Left, 0, None);
        Column {
            name,
            align,
            rank,
            cut,
        }
    }

    pub(crate) const fn right(name: &'static str) -> Column {
        Column {
            align: Align::Right,
            ..Column::left(name)
        }
    }

    pub(crate) const fn rank(self, rank: u8) -> Column {
        Column { rank, ..self }
    }

    pub(crate) const fn cut(self, cut: Cut) -> Column {
        Column {
            cut: Some(cut),
            ..self
        }
    }
}

/// Rows under columns.
#[derive(Debug)]
pub(crate) struct Grid {
    columns: Vec<Column>,
    rows: Vec<Vec<Text>>,
    indent: usize,
}

impl Grid {
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Grid {
        Grid {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
            indent: 2,
        }
    }

    pub(crate) fn flush(self) -> Grid {
        Grid { indent: 0, ..self }
    }

    /// Adds a row; cells beyond the columns are left out, missing ones are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        let mut row: Vec<Text> = cells.into_iter().take(self.columns.len()).collect();
        row.resize(self.columns.len(), Text::default());
        self.rows.push(row);
    }

    fn width_of(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].width());
        cells.fold(self.columns[at].name.width(), usize::max)
    }

    /// The widths that fit, and the columns left out (width `None`).
    fn fitted(&self, width: usize) -> Vec<Option<usize>> {
        let natural: Vec<usize> = (0..self.columns.len())
            .map(|at| self.width_of(at))
            .collect();
        let gives = |at: usize| self.columns[at].cut.is_some();
        let least = |at: usize| match gives(at) {
            true => natural[at].min(LEAST),
            false => natural[at],
        };
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let total = |shown: &[usize]| {
            let gaps = GAP * shown.len().saturating_sub(1);
            self.indent + gaps + shown.iter().map(|at| least(*at)).sum::<usize>()
        };
        while total(&shown) > width {
            let dispensable = shown.iter().filter(|at| self.columns[**at].rank > 0);
            let Some(last) = dispensable
                .max_by_key(|at| self.columns[**at].rank)
                .copied()
            else {
                break;
            };
            shown.retain(|at| *at != last);
        }
        let mut room = width.saturating_sub(total(&shown));
        let mut widths = vec![None; self.columns.len()];
        for at in shown {
            let more = (natural[at] - least(at)).min(room);
            room -= more;
            widths[at] = Some(least(at) + more);
        }
        widths
    }

    /// The grid in at most `paint.width` columns where that can be, with the names of its columns
    /// where it has any.
    pub(crate) fn write(&self, out: &mut String, paint: &Paint) -> Result {
        let widths = self.fitted(paint.width);
        let named = self.columns.iter().any(|column| !column.name.is_empty());
        let names = self.columns.iter();
        let names = names.map(|column| Text::toned(Tone::Faint, column.name));
        let names = named.then(|| names.collect::<Vec<Text>>());
        for row in names.iter().chain(&self.rows) {
            let mut line = " ".repeat(self.indent);
            let mut pending = 0;
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let Some(width) = *width else { continue };
                let cell = match column.cut {
                    Some(cut) if cell.width() > width => cell.clone().cut(cut, width),
                    _ => cell.clone(),
                };
                let pad = width.saturating_sub(cell.width());
                let (before, after) = match column.align {
                    Align::Left => (0, pad),
                    Align::Right => (pad, 0),
                };
                if cell.width() > 0 {
                    line.extend(std::iter::repeat_n(' ', pending + before));
                    line.push_str(&cell.painted(paint));
                    pending = after + GAP;
                } else {
                    pending += pad + GAP;
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        let left_out: Vec<&str> = (self.columns.iter().zip(&widths))
            .filter(|(_, width)| width.is_none())
            .map(|(column, _)| column.name.trim())
            .collect();
        if !left_out.is_empty() {
            let what = format!("no room for: {}", left_out.join(", "));
            let indent = self.indent;
            writeln!(out, "{:indent$}{}", "", paint.tone(Tone::Faint, &what))?;
        }
        Ok(())
    }
}

/// A bar of `columns`, with parts of a total one after the other; what is missing stays empty.
pub(crate) fn bar(parts: &[(Tone, char, u64)], total: u64, columns: usize) -> Text {
    let mut text = Text::default();
    let (mut sum, mut drawn) = (0_u128, 0);
    for (tone, mark, bytes) in parts {
        sum += u128::from(*bytes);
        let whole = u128::from(total.max(1));
        let end = ((sum * columns as u128 + whole / 2) / whole).min(columns as u128) as usize;
        let part: String = std::iter::repeat_n(*mark, end.saturating_sub(drawn)).collect();
        text = text.and(Text::toned(*tone, part));
        drawn = end.max(drawn);
    }
    text.and(" ".repeat(columns - drawn))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(width: usize) -> String {
        let mut grid = Grid::new([
            Column::right("pid"),
            Column::right("swap").rank(1),
            Column::left("path").cut(Cut::Middle),
        ]);
        grid.row(["7".into(), "1.00G".into(), "/a/long/way/to/the/file".into()]);
        let mut out = String::new();
        let paint = Paint {
            width,
            ..Paint::plain()
        };
        grid.write(&mut out, &paint).unwrap();
        out
    }

    #[test]
    fn one_column_gives_way_and_the_least_important_is_left_out_by_name() {
        assert_eq!(
            rendered(60),
            "  pid   swap  path\n    7  1.00G  /a/long/way/to/the/file\n"
        );
        assert_eq!(
            rendered(28),
            "  pid   swap  path\n    7  1.00G  /a/l..the/file\n"
        );
        assert_eq!(
            rendered(20),
            "  pid  path\n    7  /a/..the/file\n  no room for: swap\n"
        );
    }

    #[test]
    fn bars_fill_their_columns_and_no_more() {
        let paint = Paint::plain();
        let draw = |parts: &[_], total| bar(parts, total, 8).painted(&paint);
        let (used, free) = ((Tone::Good, '#', 4), (Tone::Warn, '.', 2));
        assert_eq!(draw(&[used, free], 8), "####..  ");
        assert_eq!(draw(&[(Tone::Bad, '#', u64::MAX); 2], 1), "########");
        assert_eq!(draw(&[used], 0), "########");
        assert_eq!(draw(&[], 0), "        ");
    }
}
