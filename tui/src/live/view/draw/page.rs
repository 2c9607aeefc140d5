//! A page of one thing: facts, and tables under them, scrolled together.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::{Column, Fit, Line, Pen, fit, flow, scrollbar};
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Role;
use crate::live::view::Scene;

/// Lines of a text that comes from a stream, at most.
const MOST_LINES: usize = 40;

/// A fact: a word, and what is to be said of it, in as many lines as that takes.
#[derive(Debug, Clone, Default)]
pub(in crate::live) struct Facts {
    lines: Vec<(&'static str, Line)>,
    label: u16,
    width: u16,
}

impl Facts {
    /// For so many columns, the first of them for words.
    pub(in crate::live) fn new(label: u16, width: u16) -> Facts {
        Facts {
            lines: Vec::new(),
            label,
            width,
        }
    }

    pub(in crate::live) fn add(&mut self, word: &'static str, spans: &Line) {
        let room = self.width.saturating_sub(self.label).max(1);
        for (at, line) in flow(spans, room, MOST_LINES).into_iter().enumerate() {
            self.lines.push((if at == 0 { word } else { "" }, line));
        }
    }

    pub(in crate::live) fn blank(&mut self) {
        self.lines.push(("", Line::default()));
    }

    pub(in crate::live) fn len(&self) -> usize {
        self.lines.len()
    }

    fn draw(&self, at: usize, mut pen: Pen<'_>) {
        let Some((word, spans)) = self.lines.get(at) else {
            return;
        };
        pen.write(Role::Faint, word);
        let taken = (word.width() as u16).min(pen.room().max(self.label));
        pen.skip(self.label.saturating_sub(taken));
        pen.say(spans);
    }
}

/// A table of a page. Its cells are asked for those rows that are in sight.
pub(in crate::live) struct Sheet<'a> {
    /// Its heading.
    pub(in crate::live) title: Line,
    /// Its columns.
    pub(in crate::live) columns: Vec<Column<'a>>,
    /// How many rows.
    pub(in crate::live) rows: usize,
    /// Writes a cell: the row, the column.
    #[expect(clippy::type_complexity, reason = "one closure for each table")]
    pub(in crate::live) cell: Box<dyn Fn(usize, usize, &mut Pen<'_>) + 'a>,
}

/// A block of a page.
pub(in crate::live) enum Block<'a> {
    /// Facts.
    Facts(Facts),
    /// A table.
    Sheet(Sheet<'a>),
    /// Facts, and beside them a table, from such a column on.
    Beside(Facts, Sheet<'a>, u16),
}

impl Block<'_> {
    fn len(&self) -> usize {
        match self {
            Block::Facts(facts) => facts.len(),
            Block::Sheet(sheet) => sheet.len(),
            Block::Beside(facts, sheet, _) => facts.len().max(sheet.len()),
        }
    }
}

impl Sheet<'_> {
    /// The heading, the names of the columns, the rows.
    fn len(&self) -> usize {
        self.rows.saturating_add(2)
    }

    fn fit(&self, area: Rect) -> Fit {
        fit(&self.columns, area.width.saturating_sub(1), area.x + 1)
    }

    fn draw(&self, at: usize, scene: &Scene<'_>, line: Rect, buffer: &mut Buffer) {
        if at == 0 {
            return Pen::new(buffer, scene.theme, line).say(&self.title);
        }
        for (column, (x, width)) in self.fit(line).shown() {
            let cell = Rect { x, width, ..line };
            let mut pen = Pen::new(buffer, scene.theme, cell);
            pen.align(self.columns[column].align);
            match at.checked_sub(2) {
                None => pen.write(Role::Faint, &self.columns[column].name),
                Some(row) if row < self.rows => (self.cell)(row, column, &mut pen),
                Some(_) => {}
            }
        }
    }
}

/// How far a page is scrolled.
#[derive(Debug, Clone, Default)]
pub(in crate::live) struct Scroll {
    top: usize,
    room: usize,
    lines: usize,
}

impl Scroll {
    /// Draws a page: blocks, with a line between them.
    pub(in crate::live) fn draw(
        &mut self,
        scene: &Scene<'_>,
        area: Rect,
        buffer: &mut Buffer,
        blocks: &[Block<'_>],
    ) {
        let area = area.intersection(buffer.area);
        let lengths = blocks.iter().map(Block::len);
        let gaps = blocks.len().saturating_sub(1);
        self.lines = lengths.fold(gaps, usize::saturating_add);
        self.room = area.height.into();
        self.top = self.top.min(self.lines.saturating_sub(self.room));
        if area.is_empty() {
            return;
        }
        let long = self.lines > self.room && area.width >= 4;
        let inner = Rect {
            width: area.width - u16::from(long),
            ..area
        };
        let mut first = 0_usize;
        for block in blocks {
            let len = block.len();
            let seen = first.max(self.top)..first.saturating_add(len).min(self.top + self.room);
            for line in seen {
                let place = Rect {
                    y: inner.y + (line - self.top) as u16,
                    height: 1,
                    ..inner
                };
                draw_line(scene, buffer, block, line - first, place);
            }
            first = first.saturating_add(len).saturating_add(1);
        }
        if long {
            let bar = Rect {
                x: area.right() - 1,
                width: 1,
                ..area
            };
            scrollbar(buffer, &scene.theme, bar, self.top, self.lines);
        }
    }

    /// Scrolls; false where the action does not.
    pub(in crate::live) fn act(&mut self, action: Action) -> bool {
        let page = self.room.saturating_sub(1).max(1);
        let last = self.lines.saturating_sub(self.room);
        self.top = match action {
            Action::Up => self.top.saturating_sub(1),
            Action::Down => self.top.saturating_add(1).min(last),
            Action::PageUp => self.top.saturating_sub(page),
            Action::PageDown => self.top.saturating_add(page).min(last),
            Action::First => 0,
            Action::Last => last,
            _ => return false,
        };
        true
    }

    /// To the top, of another page.
    pub(in crate::live) fn reset(&mut self) {
        self.top = 0;
    }
}

fn draw_line(scene: &Scene<'_>, buffer: &mut Buffer, block: &Block<'_>, at: usize, place: Rect) {
    match block {
        Block::Facts(facts) => facts.draw(at, Pen::new(buffer, scene.theme, place)),
        Block::Sheet(sheet) => sheet.draw(at, scene, place, buffer),
        Block::Beside(facts, sheet, from) => {
            let from = (*from).min(place.width);
            let left = Rect {
                width: from.saturating_sub(1),
                ..place
            };
            facts.draw(at, Pen::new(buffer, scene.theme, left));
            let right = Rect {
                x: place.x + from,
                width: place.width - from,
                ..place
            };
            sheet.draw(at, scene, right, buffer);
        }
    }
}

/// A sentence on a page that has nothing else.
pub(in crate::live) fn say(scene: &Scene<'_>, area: Rect, buffer: &mut Buffer, words: &str) {
    let mut pen = Pen::new(buffer, scene.theme, area);
    pen.skip(1);
    pen.write(Role::Faint, words);
}
