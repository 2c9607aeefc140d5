//! What is shown of a process that is no cache: its model files, and its memory by what it is.

use std::cmp::Reverse;

use malloc_stats::Metric;
use malloc_stats::inspect::{Class, FilePages, Inspection};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::inspect::classes;
use crate::inspect::prose::{compact, compact_metric, middle, percent};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Role;
use crate::live::view::draw::{
    self, Column, Did, Fit, Head, Mark, Pen, Rows, figures, fit, matches,
};
use crate::live::view::{Click, Scene, Wish};
use crate::paint::safe;

/// What files can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum By {
    Path,
    #[default]
    Size,
    Cached,
    Rss,
}

/// The files, and what was chosen of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    rows: Rows<String>,
    by: By,
    reversed: bool,
    filter: String,
}

const PATH: usize = 0;
const SIZE: usize = 1;
const CACHED: usize = 2;
const SHARE: usize = 3;
const PERCENT: usize = 4;
const RSS: usize = 5;
const STATE: usize = 6;

fn columns() -> [Column<'static>; 7] {
    [
        Column::left("MODEL FILE", 16).up_to(90).sorts(),
        Column::right("SIZE", 8).sorts(),
        Column::right("CACHED", 8).rank(1).sorts(),
        Column::left("page cache", 10).rank(3).up_to(20),
        Column::right("", 5).rank(2),
        Column::right("IN RSS", 8).rank(4).sorts(),
        Column::left("STATE", 13).rank(5),
    ]
}

impl Files {
    pub(super) fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        self.filter.clear();
        self.filter.push_str(scene.filter);
        let state = scene.state;
        let Some(look) = state.look.as_ref().map(|look| &*look.value) else {
            return say(scene, area, buffer, "its memory was not looked into yet");
        };
        let list = self.list(look);
        let kinds = look.classes.len() + 2;
        let room = usize::from(area.height);
        let files = match list.files.len() {
            // A line that there are none, where nothing else needs it.
            0 => usize::from(room > kinds),
            // Each gets half where both are long.
            files => (files + 1).min(room - kinds.min(room / 2)).max(room.min(2)),
        };
        let kinds = (room - files).min(kinds);
        // What there is of files stands first, and what there is not comes last.
        let (above, below) = match list.files.len() {
            0 => (kinds, 0),
            _ => (0, files),
        };
        let part = |from: usize, height: usize| Rect {
            y: area.y + from as u16,
            height: (height as u16).min(area.height - from as u16),
            ..area
        };
        let (above, below) = (part(above, files), part(below, room - files));
        if list.files.is_empty() {
            let words = match self.filter.as_str() {
                "" => "no model files are mapped or open",
                _ => "no model file matches the filter",
            };
            say(scene, above, buffer, words);
        } else {
            let columns = columns();
            let sorted = match self.by {
                By::Path => (PATH, self.reversed),
                By::Size => (SIZE, !self.reversed),
                By::Cached => (CACHED, !self.reversed),
                By::Rss => (RSS, !self.reversed),
            };
            let head = Head {
                columns: &columns,
                sorted: Some(sorted),
            };
            self.rows.draw(scene, above, buffer, &head, &list);
        }
        kinds_of_memory(scene, below, buffer, look);
    }

    fn list<'a>(&self, look: &'a Inspection) -> List<'a> {
        let files = look.files.iter();
        let files = files.filter(|file| matches(&file.path, &self.filter));
        let mut files: Vec<&FilePages> = files.collect();
        match self.by {
            By::Path => files.sort_by_key(|file| &file.path),
            By::Size => files.sort_by_key(|file| Reverse(file.size.bytes())),
            By::Cached => files.sort_by_key(|file| Reverse(file.cached.bytes())),
            By::Rss => files.sort_by_key(|file| Reverse(file.rss.bytes())),
        }
        if self.reversed {
            files.reverse();
        }
        List { files }
    }

    pub(super) fn act(&mut self, action: Action, state: &State) -> Wish {
        match action {
            Action::Sort => {
                self.by = match self.by {
                    By::Path => By::Size,
                    By::Size => By::Cached,
                    By::Cached => By::Rss,
                    By::Rss => By::Path,
                };
                self.reversed = false;
                return Wish::Redraw;
            }
            Action::Reverse => {
                self.reversed = !self.reversed;
                return Wish::Redraw;
            }
            // There is no page of a file.
            Action::Open => return Wish::Ignored,
            _ => {}
        }
        let Some(look) = &state.look else {
            return Wish::Ignored;
        };
        let list = self.list(&look.value);
        match self.rows.act(action, &list) {
            Did::Ignored | Did::Open(_) => Wish::Ignored,
            Did::Moved => Wish::Redraw,
        }
    }

    pub(super) fn click(&mut self, click: &Click) -> Wish {
        if let Click::SortBy(column) = click {
            let by = match *column {
                PATH => By::Path,
                SIZE => By::Size,
                CACHED => By::Cached,
                RSS => By::Rss,
                _ => return Wish::Ignored,
            };
            self.reversed = self.by == by && !self.reversed;
            self.by = by;
            return Wish::Redraw;
        }
        match self.rows.click(click) {
            Did::Ignored | Did::Open(_) => Wish::Ignored,
            Did::Moved => Wish::Redraw,
        }
    }
}

struct List<'a> {
    files: Vec<&'a FilePages>,
}

impl draw::List for List<'_> {
    type Key = String;

    fn len(&self) -> usize {
        self.files.len()
    }

    fn key(&self, row: usize) -> Option<String> {
        self.files.get(row).map(|file| file.path.clone())
    }

    fn find(&self, key: &String) -> Option<usize> {
        self.files.iter().position(|file| file.path == *key)
    }

    fn cell(&self, row: usize, column: usize, pen: &mut Pen<'_>) {
        let Some(file) = self.files.get(row) else {
            return;
        };
        let paint = pen.theme.paint(0);
        let share = file.cached.bytes().zip(file.size.bytes());
        let share = share.filter(|(_, size)| *size > 0);
        match column {
            PATH => {
                let path = safe(&file.path);
                pen.write(Role::Text, &middle(&path, pen.room().into()));
            }
            SIZE => pen.write(Role::Text, &compact_metric(&paint, file.size)),
            CACHED => pen.write(Role::Text, &compact_metric(&paint, file.cached)),
            SHARE => {
                if let Some((cached, size)) = share {
                    let room = pen.room();
                    pen.bar(room, &[(Role::Released, Mark::Full, cached)], size);
                }
            }
            PERCENT => {
                let share = share.map(|(cached, size)| cached as f64 / size as f64);
                pen.write(Role::Faint, &share.map_or(String::new(), percent));
            }
            RSS => pen.write(Role::Text, &compact_metric(&paint, file.rss)),
            STATE => {
                let states = [
                    (file.mapped, "mapped"),
                    (file.open, "open"),
                    (file.deleted, "deleted"),
                ];
                for (is, word) in states {
                    if is {
                        let role = if word == "deleted" {
                            Role::Warn
                        } else {
                            Role::Faint
                        };
                        pen.write(role, word);
                        pen.skip(1);
                    }
                }
            }
            _ => {}
        }
    }
}

fn say(scene: &Scene<'_>, area: Rect, buffer: &mut Buffer, words: &str) {
    let mut pen = Pen::new(buffer, scene.theme, area);
    pen.skip(2);
    pen.write(Role::Faint, words);
}

/// What it has most of, in a few words.
pub(super) fn brief(state: &State) -> String {
    let Some(look) = &state.look else {
        return "no cache".to_owned();
    };
    let mut classes: Vec<&Class> = look.value.classes.iter().collect();
    classes.sort_by_key(|class| Reverse(class.rss.bytes()));
    let most = classes.iter().take(3).map(|class| {
        let rss = compact_metric(&crate::paint::Paint::plain(), class.rss);
        format!("{} {rss}", classes::words(class.kind))
    });
    most.collect::<Vec<_>>().join(", ")
}

/// All memory by what it is, the most resident first, and what has no name.
fn kinds_of_memory(scene: &Scene<'_>, area: Rect, buffer: &mut Buffer, look: &Inspection) {
    let mut columns = vec![
        Column::left("MEMORY", 19).up_to(22),
        Column::right("RESIDENT", 8),
        Column::left("", 10).up_to(40).rank(1),
        Column::right("ANON", 8).rank(2),
        Column::right("SWAPPED", 8).rank(4),
        Column::right("ADDRESSES", 9).rank(3),
        Column::right("MAPPINGS", 8).rank(5),
    ];
    let before = scene.since.and_then(|since| since.look.as_ref());
    if before.is_some() {
        columns.push(Column::right("CHANGE", 9));
    }
    let changed = |class: &Class| {
        let mut before = before?.value.classes.iter();
        let then = before.find(|then| then.kind == class.kind);
        let then = then.map(|then| then.rss).unwrap_or(Metric::Exact(0));
        class.rss.since(then)
    };
    let fit = fit(
        &columns,
        area.width.saturating_sub(2),
        area.x.saturating_add(2),
    );
    let paint = scene.theme.paint(0);
    let mut classes: Vec<&Class> = look.classes.iter().collect();
    classes.sort_by_key(|class| Reverse(class.rss.bytes()));
    let whole = look.process.memory.rss.bytes();
    let whole = whole.or_else(|| classes.first().and_then(|class| class.rss.bytes()));
    let bytes = |metric: Metric| compact_metric(&paint, metric);
    for (line, y) in (area.y..area.bottom()).enumerate() {
        let line = match line.checked_sub(1) {
            None => Line::Head,
            Some(at) => match classes.get(at) {
                Some(class) => Line::Class(class),
                None if at == classes.len() => Line::Rest,
                None => return,
            },
        };
        each(&fit, area, y, buffer, scene, |at, pen, right| {
            let (role, text) = match line {
                Line::Head => (Role::Faint, columns[at].name.to_string()),
                Line::Class(class) => match at {
                    0 => (Role::Text, classes::words(class.kind).to_owned()),
                    1 => (Role::Text, bytes(class.rss)),
                    2 => {
                        let (anonymous, all) = (class.anonymous.bytes(), class.rss.bytes());
                        let anonymous = anonymous.unwrap_or(0);
                        let dropped = all.unwrap_or(0).saturating_sub(anonymous);
                        let parts = [
                            (Role::Rss, Mark::Full, anonymous),
                            (Role::Released, Mark::Dense, dropped),
                        ];
                        let room = pen.room();
                        return pen.bar(room, &parts, whole.unwrap_or(0));
                    }
                    3 => (Role::Text, bytes(class.anonymous)),
                    4 => (Role::Text, bytes(class.swap)),
                    5 => (Role::Faint, compact(class.size)),
                    7 => match changed(class) {
                        None => (Role::Faint, "n/a".to_owned()),
                        Some(0) => (Role::Faint, "=".to_owned()),
                        Some(grown) => {
                            let role = if grown > 0 { Role::Bad } else { Role::Good };
                            (role, figures::change(i128::from(grown)))
                        }
                    },
                    _ => (Role::Faint, class.mappings.to_string()),
                },
                Line::Rest => match at {
                    0 => (Role::Strong, "(unattributed)".to_owned()),
                    3 => (Role::Strong, bytes(look.unattributed)),
                    _ => return,
                },
            };
            if right {
                let width = text.chars().count() as u16;
                pen.skip(pen.room().saturating_sub(width));
            }
            pen.write(role, &text);
        });
    }

    fn each(
        fit: &Fit,
        area: Rect,
        y: u16,
        buffer: &mut Buffer,
        scene: &Scene<'_>,
        mut draw: impl FnMut(usize, &mut Pen<'_>, bool),
    ) {
        for (at, (x, width)) in fit.shown() {
            let cell = Rect {
                x,
                y,
                width,
                height: 1,
            };
            let mut pen = Pen::new(buffer, scene.theme, cell.intersection(area));
            draw(at, &mut pen, !matches!(at, 0 | 2));
        }
    }

    #[derive(Clone, Copy)]
    enum Line<'a> {
        Head,
        Class(&'a Class),
        Rest,
    }
}
