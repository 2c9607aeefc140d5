//! Text in roles.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Pen;
use super::bar::{Mark, cells};
use crate::live::screen::theme::{Role, Theme};
use crate::paint::safe;

/// Text in roles, one after the other, with control characters escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::live) struct Line(pub(in crate::live) Vec<(Role, String)>);

impl Line {
    pub(in crate::live) fn of(role: Role, text: impl Into<String>) -> Line {
        Line::default().and(role, text)
    }

    /// More text at its end.
    pub(in crate::live) fn and(mut self, role: Role, text: impl Into<String>) -> Line {
        self.push(role, text);
        self
    }

    pub(in crate::live) fn text(self, text: impl Into<String>) -> Line {
        self.and(Role::Text, text)
    }

    pub(in crate::live) fn faint(self, text: impl Into<String>) -> Line {
        self.and(Role::Faint, text)
    }

    pub(in crate::live) fn push(&mut self, role: Role, text: impl Into<String>) {
        let text = text.into();
        if text.is_empty() {
            return;
        }
        let text = match safe(&text) {
            std::borrow::Cow::Owned(escaped) => escaped,
            std::borrow::Cow::Borrowed(_) => text,
        };
        self.0.push((role, text));
    }

    /// A joint, where there is something before it.
    pub(in crate::live) fn then(self, joint: &str) -> Line {
        if self.is_empty() {
            self
        } else {
            self.faint(joint)
        }
    }

    /// All of another line after this one.
    pub(in crate::live) fn append(mut self, other: Line) -> Line {
        self.0.extend(other.0);
        self
    }

    /// Spaces up to a column.
    pub(in crate::live) fn to(self, column: usize) -> Line {
        let missing = column.saturating_sub(self.width());
        self.text(" ".repeat(missing))
    }

    /// Text that ends at a column, or goes beyond it where it is too long.
    pub(in crate::live) fn until(self, column: usize, role: Role, text: &str) -> Line {
        let start = column.saturating_sub(safe(text).width());
        self.to(start).and(role, text)
    }

    /// Columns that it takes.
    pub(in crate::live) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    pub(in crate::live) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Another behind it, if both fit into so many columns.
    ///
    /// # Errors
    /// Gives both back where they do not.
    pub(in crate::live) fn join(
        mut self,
        other: Line,
        gap: usize,
        columns: usize,
    ) -> Result<Line, (Line, Line)> {
        if self.width() + gap + other.width() > columns {
            return Err((self, other));
        }
        self.push(Role::Text, " ".repeat(gap));
        Ok(self.append(other))
    }

    /// As many of these behind it as fit into so many columns: the first that does not, and all
    /// after it, are left out.
    pub(in crate::live) fn with(
        self,
        parts: impl IntoIterator<Item = Line>,
        columns: usize,
    ) -> Line {
        let mut line = self;
        for part in parts {
            match line.join(part, 0, columns) {
                Ok(joined) => line = joined,
                Err((short, _)) => return short,
            }
        }
        line
    }

    /// A gauge at its end, so many columns wide with its ends: parts of a whole.
    pub(in crate::live) fn gauge(
        mut self,
        theme: &Theme,
        columns: usize,
        parts: &[(Role, Mark, u64)],
        of: u64,
    ) -> Line {
        let Some(room) = columns.checked_sub(2).filter(|room| *room > 0) else {
            return self;
        };
        let room = u16::try_from(room).unwrap_or(u16::MAX);
        let (open, close) = if theme.unicode {
            ("▕", "▏")
        } else {
            ("[", "]")
        };
        self.push(Role::Frame, open);
        let run =
            |mark: Mark, count: u16| mark.symbol(theme.unicode).to_string().repeat(count.into());
        let mut rest = room;
        let bytes = parts.iter().map(|part| part.2);
        for ((role, mark, _), count) in parts.iter().zip(cells(bytes, of, room)) {
            self.push(*role, run(*mark, count));
            rest -= count;
        }
        self.push(Role::Faint, run(Mark::Absent, rest));
        self.and(Role::Frame, close)
    }

    /// Draws it at a place, cut to so many columns.
    pub(in crate::live) fn draw(
        &self,
        buffer: &mut Buffer,
        (x, y): (u16, u16),
        columns: u16,
        theme: &Theme,
    ) {
        Pen::new(buffer, *theme, Rect::new(x, y, columns, 1)).line(0, self);
    }

    /// Cut to so many columns: between words, so that no number is cut in its middle; within one
    /// where it is all there is, as of a path.
    pub(in crate::live) fn cut(&self, columns: usize) -> Line {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        let text = text.trim_end();
        if text.width() <= columns {
            return self.clone();
        }
        // In so few columns the mark would take the place of the words.
        let mark = if columns < 6 { "" } else { ".." };
        let mut keep = kept(text, columns, columns - mark.len());
        let mut line = Line::default();
        for (role, text) in &self.0 {
            let part = &text[..keep.min(text.len())];
            keep -= part.len();
            line.push(*role, part);
        }
        line.faint(mark)
    }
}

/// A word that is longer may be cut: a path, an address.
const LONG: usize = 20;

/// What a number is nothing without.
const UNITS: [&str; 13] = [
    "us", "ms", "s", "min", "h", "d", "B", "KiB", "MiB", "GiB", "TiB", "GB/s", "%",
];
/// What says nothing at the end of what was cut.
const JOINTS: [char; 5] = [' ', ',', ';', ':', '('];
const DANGLING: [&str; 14] = [
    "of", "in", "by", "to", "for", "from", "and", "the", "a", "is", "at", "-", "+", "|",
];

/// How many bytes of a text are kept where it is too long for so many columns, some of them for a
/// mark.
fn kept(text: &str, columns: usize, room: usize) -> usize {
    let (mut taken, mut end) = (0, 0);
    for (at, c) in text.char_indices() {
        taken += c.width().unwrap_or(0);
        if taken > room {
            break;
        }
        end = at + c.len_utf8();
    }
    let word = match text[end..].starts_with(' ') {
        true => end,
        false => text[..end].rfind(' ').map_or(0, |blank| blank + 1),
    };
    let length = text[word..].split(' ').next().unwrap_or_default().width();
    let mut before = text[..word].trim_end_matches(JOINTS);
    while let Some((earlier, last)) = before.rsplit_once(' ') {
        let next = text[before.len()..].trim_start().split(' ').next();
        let is_unit = next.is_some_and(|next| UNITS.contains(&next.trim_end_matches(JOINTS)));
        let is_number = last
            .trim_start_matches(['~', '≤'])
            .starts_with(|c: char| c.is_ascii_digit());
        if DANGLING.contains(&last) || (is_unit && is_number) {
            before = earlier.trim_end_matches(JOINTS);
        } else {
            break;
        }
    }
    // All that is left must say something yet.
    if length > LONG || before.width() * 3 < columns {
        end
    } else {
        before.len()
    }
}

/// Text in roles as lines of so many columns, broken between words; words that fit on no line are
/// cut into several. Lines beyond `most` are left out.
pub(in crate::live) fn flow(text: &Line, width: u16, most: usize) -> Vec<Line> {
    let width = usize::from(width.max(1));
    let mut lines = vec![Line::default()];
    let mut column = 0;
    for (role, text) in &text.0 {
        for word in text.split_inclusive(' ') {
            let bare = word.trim_end_matches(' ');
            let mut rest = bare;
            if column > 0 && column + bare.width() > width && !bare.is_empty() {
                lines.push(Line::default());
                column = 0;
            }
            loop {
                let room = width.saturating_sub(column);
                let mut taken = 0;
                let mut used = 0;
                for c in rest.chars() {
                    let columns = c.width().unwrap_or(0);
                    if used + columns > room {
                        break;
                    }
                    used += columns;
                    taken += c.len_utf8();
                }
                if taken == 0 && !rest.is_empty() && column == 0 {
                    // A character wider than the line.
                    break;
                }
                let (part, more) = rest.split_at(taken);
                push(&mut lines, *role, part);
                column += used;
                rest = more;
                if rest.is_empty() {
                    break;
                }
                lines.push(Line::default());
                column = 0;
                if lines.len() > most {
                    break;
                }
            }
            let blanks = (word.len() - bare.len()).min(width.saturating_sub(column));
            if blanks > 0 && (column > 0 || lines.len() == 1) {
                push(&mut lines, *role, &" ".repeat(blanks));
                column += blanks;
            }
            if lines.len() > most {
                lines.truncate(most);
                return lines;
            }
        }
    }
    lines
}

fn push(lines: &mut [Line], role: Role, text: &str) {
    let Some(line) = lines.last_mut() else { return };
    match line.0.last_mut() {
        Some((last, before)) if *last == role => before.push_str(text),
        _ if text.is_empty() => {}
        _ => line.0.push((role, text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line) -> String {
        line.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn text_is_flush_where_it_is_told_to_be() {
        let line = Line::of(Role::Text, "ab").to(4);
        let line = line.until(10, Role::Bad, "12").text("\x1b");
        assert_eq!(text(&line), "ab      12\\u{1b}");
        assert_eq!(line.width(), 16);
        let (one, two) = (Line::default(), Line::of(Role::Text, "x"));
        assert!(one.clone().join(two.clone(), 2, 2).is_err());
        let both = one.join(two, 2, 3).unwrap_or_default();
        assert_eq!(text(&both), "  x");
    }

    #[test]
    fn numbers_are_whole_or_absent() {
        let line = Line::of(Role::Text, "51.2M from file").faint(" in 508.1 ms, 0.11 GB/s");
        let cut = |columns| text(&line.cut(columns));
        assert_eq!(cut(99), "51.2M from file in 508.1 ms, 0.11 GB/s");
        assert_eq!(cut(30), "51.2M from file in 508.1 ms..");
        assert_eq!(cut(24), "51.2M from file..");
        assert_eq!(cut(28), "51.2M from file..");
        assert_eq!(cut(20), "51.2M from file..");
        assert_eq!(cut(3), "51.");
        assert_eq!(cut(0), "");
        let path = Line::of(Role::Text, "/models/llava-13b/model.safetensors gone");
        assert_eq!(text(&path.cut(20)), "/models/llava-13b/..");
        let list = Line::of(Role::Text, "returned 4.0K of 25.6M, recycled 25.6M");
        assert_eq!(text(&list.cut(26)), "returned 4.0K of 25.6M..");
        let wide = Line::of(Role::Text, "模型模型");
        assert_eq!(text(&wide.cut(6)), "模型..");
    }

    #[test]
    fn parts_that_do_not_fit_are_left_out_whole() {
        let parts = || ["one", " two", " three"].map(|part| Line::of(Role::Text, part));
        assert_eq!(text(&Line::default().with(parts(), 9)), "one two");
        assert_eq!(text(&Line::default().with(parts(), 13)), "one two three");
    }

    #[test]
    fn a_gauge_has_ends() {
        let gauge = |columns, of| {
            let parts = [(Role::Anon, Mark::Full, 50), (Role::File, Mark::Light, 20)];
            text(&Line::default().gauge(&Theme::plain(), columns, &parts, of))
        };
        assert_eq!(gauge(12, 100), "[#####~~...]");
        assert_eq!(gauge(2, 100), "");
    }
}
