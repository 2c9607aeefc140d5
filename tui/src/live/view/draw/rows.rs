//! Tables that are looked at for hours: rows that are selected, sorted, scrolled and clicked. What
//! is selected sticks to its key, wherever it goes.

#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::columns::{Column, Fit, fit};
use super::pen::Pen;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::{Role, Theme};
use crate::live::view::{Click, Hit, Scene};

/// What stands in the rows. Asked for the rows that are shown, and no others.
pub(in crate::live) trait List {
    /// What tells a row from all others, wherever it stands.
    type Key: Clone + PartialEq;

    /// How many rows.
    fn len(&self) -> usize;

    /// The key of a row; `None` where it cannot be selected.
    fn key(&self, row: usize) -> Option<Self::Key>;

    /// Where a key is now.
    fn find(&self, key: &Self::Key) -> Option<usize>;

    /// Writes a cell.
    fn cell(&self, row: usize, column: usize, pen: &mut Pen<'_>);

    /// Writes a row that has no cells; false where it has them.
    fn line(&self, row: usize, fit: &Fit, pen: &mut Pen<'_>) -> bool {
        let _ = (row, fit, pen);
        false
    }
}

/// How a table is headed.
pub(in crate::live) struct Head<'a> {
    /// The columns.
    pub(in crate::live) columns: &'a [Column<'a>],
    /// The column that the rows are sorted by, and whether the largest comes first.
    pub(in crate::live) sorted: Option<(usize, bool)>,
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::live) enum Did<K> {
    /// Nothing.
    Ignored,
    /// Another row is selected.
    Moved,
    /// The row of this key is to be opened.
    Open(K),
}

/// Which row is selected, and which are shown.
#[derive(Debug, Clone)]
pub(in crate::live) struct Rows<K> {
    /// What was selected by hand; kept while it is filtered out.
    chosen: Option<K>,
    /// What is selected: with nothing chosen, or the chosen one gone, the row in its place.
    current: Option<K>,
    /// Where that is.
    at: usize,
    /// The first row shown.
    top: usize,
    /// The keys of the rows shown, from the first.
    shown: Vec<Option<K>>,
}

impl<K> Default for Rows<K> {
    fn default() -> Self {
        Rows {
            chosen: None,
            current: None,
            at: 0,
            top: 0,
            shown: Vec::new(),
        }
    }
}

impl<K: Clone + PartialEq> Rows<K> {
    /// The row that is selected, as it was drawn last.
    pub(in crate::live) fn selected(&self) -> Option<&K> {
        self.current.as_ref()
    }

    /// Sticks to the row that is selected, whatever comes before it.
    pub(in crate::live) fn hold(&mut self) {
        if self.chosen.is_none() {
            self.chosen.clone_from(&self.current);
        }
    }

    /// Finds the selected row again.
    fn settle(&mut self, list: &impl List<Key = K>) {
        let last = list.len().saturating_sub(1);
        let found = self.chosen.as_ref().and_then(|key| list.find(key));
        self.at = match (found, &self.chosen) {
            (Some(at), _) => at,
            // Gone: whoever stands in its place.
            (None, Some(_)) => self.at.min(last),
            (None, None) => 0,
        };
        self.current = list.key(self.at);
        if self.current.is_none() {
            let near = (self.at..list.len().min(self.at.saturating_add(4)))
                .chain((self.at.saturating_sub(4)..self.at.min(list.len())).rev())
                .find(|row| list.key(*row).is_some());
            if let Some(row) = near {
                self.at = row;
                self.current = list.key(row);
            }
        }
    }

    /// Scrolls so that the selected row is in sight, and no further than there are rows.
    fn scroll(&mut self, rows: usize, room: usize) {
        if self.at < self.top {
            self.top = self.at;
        } else if room > 0 && self.at >= self.top.saturating_add(room) {
            self.top = self.at + 1 - room;
        }
        self.top = self.top.min(rows.saturating_sub(room));
    }

    /// Draws the head and as many rows as there is room for; what came of the columns.
    pub(in crate::live) fn draw(
        &mut self,
        scene: &mut Scene<'_>,
        area: Rect,
        buffer: &mut Buffer,
        head: &Head<'_>,
        list: &impl List<Key = K>,
    ) -> Fit {
        self.settle(list);
        let area = area.intersection(buffer.area);
        let room = usize::from(area.height.saturating_sub(1));
        self.scroll(list.len(), room);
        self.shown.clear();
        let long = list.len() > room && area.width >= 4;
        let margin = u16::from(area.width >= 40) + 1;
        let width = area.width.saturating_sub(margin + u16::from(long));
        let fit = fit(head.columns, width, area.x.saturating_add(margin));
        if area.is_empty() {
            return fit;
        }
        self.head(scene, area, buffer, head, &fit);
        for (place, row) in (self.top..list.len()).take(room).enumerate() {
            let key = list.key(row);
            let line = Rect {
                y: area.y + 1 + place as u16,
                height: 1,
                width: area.width - u16::from(long),
                ..area
            };
            if !list.line(row, &fit, &mut Pen::new(buffer, scene.theme, line)) {
                for (column, (x, width)) in fit.shown() {
                    let cell = Rect { x, width, ..line };
                    let mut pen = Pen::new(buffer, scene.theme, cell);
                    pen.align(head.columns[column].align);
                    list.cell(row, column, &mut pen);
                }
            }
            if key.is_some() {
                scene.hits.push(Hit {
                    area: line,
                    does: Click::Select(place),
                });
            }
            if scene.focused && row == self.at && key.is_some() {
                mark_selected(buffer, &scene.theme, line);
            }
            self.shown.push(key);
        }
        if long && area.height > 1 {
            let bar = Rect {
                x: area.right() - 1,
                y: area.y + 1,
                width: 1,
                height: area.height - 1,
            };
            scrollbar(buffer, &scene.theme, bar, self.top, list.len());
        }
        fit
    }

    fn head(
        &self,
        scene: &mut Scene<'_>,
        area: Rect,
        buffer: &mut Buffer,
        head: &Head<'_>,
        fit: &Fit,
    ) {
        for (at, (x, width)) in fit.shown() {
            let column = &head.columns[at];
            let cell = Rect {
                x,
                y: area.y,
                width,
                height: 1,
            };
            let mut pen = Pen::new(buffer, scene.theme, cell);
            pen.align(column.align);
            match head.sorted.filter(|(sorted, _)| *sorted == at) {
                Some((_, descending)) => {
                    let arrow = match (scene.theme.unicode, descending) {
                        (true, true) => "▼",
                        (true, false) => "▲",
                        (false, true) => "v",
                        (false, false) => "^",
                    };
                    let name = format!("{}{arrow}", column.name);
                    pen.write(Role::Strong, &name);
                }
                None => pen.write(Role::Faint, &column.name),
            }
            if column.sorts {
                scene.hits.push(Hit {
                    area: cell,
                    does: Click::SortBy(at),
                });
            }
        }
    }

    /// Moves the selection, or opens it.
    pub(in crate::live) fn act(&mut self, action: Action, list: &impl List<Key = K>) -> Did<K> {
        self.settle(list);
        let rows = list.len();
        let page = self.shown.len().max(2) - 1;
        // The next row in a direction that can be selected; where there is none, the last that was
        // passed on the way.
        let from = |row: usize, down: bool| -> Option<usize> {
            let mut row = row;
            loop {
                if list.key(row).is_some() {
                    return Some(row);
                }
                row = match down {
                    true if row + 1 < rows => row + 1,
                    false if row > 0 => row - 1,
                    _ => return None,
                };
            }
        };
        let last = rows.saturating_sub(1);
        let to = match action {
            Action::Open => {
                return self.current.clone().map_or(Did::Ignored, Did::Open);
            }
            Action::Up => self.at.checked_sub(1).and_then(|row| from(row, false)),
            Action::Down => Some(self.at + 1)
                .filter(|row| *row < rows)
                .and_then(|row| from(row, true)),
            Action::PageUp => from(self.at.saturating_sub(page), false)
                .or_else(|| from(self.at.saturating_sub(page), true)),
            Action::PageDown => from((self.at + page).min(last), true)
                .or_else(|| from((self.at + page).min(last), false)),
            Action::First => from(0, true),
            Action::Last => from(last, false),
            _ => return Did::Ignored,
        };
        if let Some(row) = to {
            self.at = row;
            self.current = list.key(row);
            // At the very first, whatever comes first stays selected.
            self.chosen = match action {
                Action::First => None,
                _ => self.current.clone(),
            };
        }
        Did::Moved
    }

    /// Selects what was clicked; what is selected already is opened.
    pub(in crate::live) fn click(&mut self, click: &Click) -> Did<K> {
        let Click::Select(place) = click else {
            return Did::Ignored;
        };
        let Some(Some(key)) = self.shown.get(*place).cloned() else {
            return Did::Ignored;
        };
        if self.chosen.as_ref() == Some(&key) {
            return Did::Open(key);
        }
        self.at = self.top + place;
        self.chosen = Some(key.clone());
        self.current = Some(key);
        Did::Moved
    }
}

/// The selected row: reversed, and marked for terminals that cannot.
fn mark_selected(buffer: &mut Buffer, theme: &Theme, line: Rect) {
    let mark = if theme.unicode { "▶" } else { ">" };
    Pen::new(buffer, *theme, Rect { width: 1, ..line }).write(Role::Focus, mark);
    buffer.set_style(line, theme.style(Role::Selected));
}

/// A bar at the side of what does not fit.
pub(in crate::live) fn scrollbar(
    buffer: &mut Buffer,
    theme: &Theme,
    bar: Rect,
    top: usize,
    rows: usize,
) {
    let height = usize::from(bar.height);
    if height == 0 || rows <= height {
        return;
    }
    let thumb = (height * height / rows).max(1);
    let way = rows - height;
    let from = (top.min(way) * (height - thumb)).div_ceil(way);
    for line in 0..height {
        let within = (from..from + thumb).contains(&line);
        let (role, mark) = match (within, theme.unicode) {
            (true, true) => (Role::Frame, "█"),
            (true, false) => (Role::Frame, "#"),
            (false, true) => (Role::Frame, "│"),
            (false, false) => (Role::Frame, "|"),
        };
        let cell = Rect {
            y: bar.y + line as u16,
            height: 1,
            ..bar
        };
        Pen::new(buffer, *theme, cell).write(role, mark);
    }
}

/// Whether a text has another within it, whatever the case; the other is in lower case.
pub(in crate::live) fn matches(text: &str, filter: &str) -> bool {
    if filter.is_empty() {
        return true;
    }
    if !text.is_ascii() {
        return text.to_lowercase().contains(filter);
    }
    let (text, filter) = (text.as_bytes(), filter.as_bytes());
    text.windows(filter.len())
        .any(|part| part.eq_ignore_ascii_case(filter))
}
