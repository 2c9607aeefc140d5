//! What follows, in a line each; and with the whole screen, what to do about it.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use malloc_stats::inspect::{Severity, Verdict};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::draw::Line;
use super::headroom::{about, age, short_label};
use super::{Click, Hit, Scene, View, Wish, put};
use crate::inspect::prose::{compact_metric, spoken, wrapped};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::{Role, Theme};

/// Columns before a sentence: its mark and a word.
const INDENT: usize = 8;
/// A sentence is not begun in fewer columns, where others were before it.
const LEAST: u16 = 24;
/// In so many columns there is room for two.
const WIDE: u16 = 110;
/// More findings than this come from no honest stream, nor do longer ones.
const MOST: usize = 64;
const LONGEST: usize = 2_000;
/// A limit that is further away than this is not worth a word, seconds.
const SOON: f64 = 86_400.0;

/// What follows, in a line each.
#[derive(Debug, Clone, Default)]
pub struct VerdictLine {
    selected: usize,
    offset: usize,
    /// As it was drawn last: how many entries, lines and rows, and whether all in full.
    drawn: Drawn,
}

#[derive(Debug, Clone, Copy, Default)]
struct Drawn {
    entries: usize,
    rows: usize,
    in_full: bool,
}

/// A finding, or what stands in its place.
struct Entry<'a> {
    /// What became of it since the mark: `+` new, `-` gone.
    since: char,
    role: Role,
    word: &'static str,
    lint: &'a str,
    text: Cow<'a, str>,
    remedy: &'a str,
}

impl<'a> Entry<'a> {
    fn of(finding: &'a Verdict, since: char) -> Entry<'a> {
        let (role, word) = match finding.severity {
            Severity::Bad => (Role::Bad, "BAD"),
            Severity::Warn => (Role::Warn, "WARN"),
            Severity::Note => (Role::Strong, "note"),
        };
        Entry {
            since,
            role: if since == '-' { Role::Faint } else { role },
            word,
            lint: within(&finding.lint),
            text: Cow::Borrowed(within(&finding.finding)),
            remedy: within(&finding.remedy),
        }
    }

    fn said(role: Role, word: &'static str, text: String) -> Entry<'a> {
        Entry {
            since: ' ',
            role,
            word,
            lint: "",
            text: Cow::Owned(text),
            remedy: "",
        }
    }

    fn is_about(&self, filter: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(filter);
        filter.is_empty() || has(self.lint) || has(&self.text)
    }
}

fn within(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

fn findings(state: &State) -> &[Verdict] {
    &state.findings[..state.findings.len().min(MOST)]
}

/// Everything there is to say, the gravest first.
fn entries<'a>(scene: &Scene<'a>) -> Vec<Entry<'a>> {
    let state = scene.state;
    let mut entries = Vec::with_capacity(state.findings.len() + 2);
    if let Some(ended) = &state.ended {
        let role = if ended.in_order {
            Role::Strong
        } else {
            Role::Bad
        };
        entries.push(Entry::said(role, "ended:", within(&ended.why).to_owned()));
    }
    let known = |among: &State, one: &Verdict| findings(among).iter().any(|it| it.lint == one.lint);
    for finding in findings(state) {
        let is_new = scene.since.is_some_and(|since| !known(since, finding));
        entries.push(Entry::of(finding, if is_new { '+' } else { ' ' }));
    }
    if state.findings.is_empty() {
        entries.push(well(scene));
    }
    for finding in scene.since.map_or(&[][..], findings) {
        if !known(state, finding) {
            entries.push(Entry::of(finding, '-'));
        }
    }
    entries
}

/// What is left to say where nothing is amiss: what the tightest bound leaves, and whether that
/// will stay so.
fn well<'a>(scene: &Scene<'a>) -> Entry<'a> {
    let (state, theme) = (scene.state, &scene.theme);
    let limits = state.vitals.limits.as_ref();
    let Some((limits, tightest)) = limits.and_then(|it| Some((it, it.value.tightest()?))) else {
        return if state.vitals.at_us.is_none() && state.look.is_none() {
            Entry::said(Role::Faint, "n/a", "nothing is known yet".to_owned())
        } else {
            let text = "nothing amiss in what could be seen; no limit is known";
            Entry::said(Role::Strong, "note", text.to_owned())
        };
    };
    let left = compact_metric(&theme.paint(0), tightest.headroom);
    let mut text = format!("{left} left below {}", short_label(&tightest.bound));
    if let Some(growth) = state.growth() {
        match growth.time_to.first() {
            None => text.push_str(", nothing grows"),
            Some(time) if time.seconds > SOON => text.push_str(", no limit is met within a day"),
            Some(time) => {
                let (after, bound) = (about(time.seconds), short_label(&time.bound));
                text.push_str(&format!(", {after} to {bound} if it goes on so"));
            }
        }
    }
    if let Some(age) = age(scene.now_us, limits.at_us) {
        text.push_str(&format!(" ({age})"));
    }
    if state.vitals.allocator.is_none() {
        // What was not seen may be anything.
        text.push_str("; the heap was not looked into");
        return Entry::said(Role::Strong, "note", text);
    }
    Entry::said(Role::Good, "GOOD", text)
}

/// A finding in one line of so many columns; where it has no room for all, its first clause.
fn in_a_line(
    entry: &Entry<'_>,
    has_marks: bool,
    padded: bool,
    theme: &Theme,
    columns: usize,
) -> Line {
    let mut line = Line::default();
    if has_marks {
        line.push(since_role(entry.since), format!("{} ", entry.since));
    }
    line.push(entry.role, entry.word);
    let gap = if padded {
        6_usize.saturating_sub(entry.word.len()).max(1)
    } else {
        1
    };
    line.push(Role::Text, " ".repeat(gap));
    let role = if entry.since == '-' {
        Role::Faint
    } else {
        Role::Text
    };
    let text = spoken(&theme.paint(0), &entry.text);
    let room = columns.saturating_sub(line.width());
    line.and(role, brief(&text, room))
}

/// A sentence with short units, and without its last clauses, where it is too long.
fn brief(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut text = text.to_owned();
    for unit in ["K", "M", "G", "T"] {
        text = text.replace(&format!(" {unit}iB"), unit);
    }
    text = text.replace(" %", "%");
    if text.width() <= room {
        return text;
    }
    let ends = [", ", "; ", ": ", " ("].iter();
    let ends = ends.flat_map(|joint| text.match_indices(joint).map(|(at, _)| at));
    // Not within brackets.
    let is_whole = |part: &str| part.matches('(').count() == part.matches(')').count();
    let fits = |at: &usize| {
        let part = &text[..*at];
        is_whole(part) && (room / 2..=room).contains(&part.width())
    };
    match ends.filter(fits).max() {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn since_role(since: char) -> Role {
    match since {
        '+' => Role::Warn,
        '-' => Role::Good,
        _ => Role::Text,
    }
}

/// As many as there is room for in a row, and how many there was none for.
fn joined(entries: &[Entry<'_>], scene: &Scene<'_>, area: Rect, y: u16, buffer: &mut Buffer) {
    let theme = &scene.theme;
    let mut taken = 0;
    for (at, entry) in entries.iter().enumerate() {
        let rest = entries.len() - at;
        // What has no room is counted in the last columns.
        let counted = format!(" +{rest}");
        let after = format!(" +{}", rest - 1);
        let reserved = if rest > 1 && area.width >= LEAST {
            after.len() as u16
        } else {
            0
        };
        let mut room = area.width.saturating_sub(taken + reserved);
        if at == 0 && rest > 1 && area.width >= WIDE {
            // Two sentences that begin say more than one with its end.
            room = room.min(area.width / 3 * 2);
        }
        if at > 0 && room < LEAST {
            let columns = counted.len() as u16;
            if columns <= area.width - taken {
                let place = (area.right() - columns, y);
                put(buffer, place, columns, &counted, theme, Role::Faint);
            }
            return;
        }
        let mut line = Line::default();
        if at > 0 {
            line.push(Role::Frame, " | ");
        }
        let before = usize::from(at > 0) * 3;
        let columns = usize::from(room).saturating_sub(before);
        let said = in_a_line(entry, scene.since.is_some(), at == 0, theme, columns);
        let line = line
            .join(said, 0, usize::MAX)
            .unwrap_or_else(|(_, said)| said);
        line.draw(buffer, (area.x + taken, y), room, theme);
        taken += u16::try_from(line.width()).unwrap_or(room).min(room);
    }
}

/// A finding in full, in lines.
fn in_full(entry: &Entry<'_>, has_marks: bool, width: usize, theme: &Theme) -> Vec<Line> {
    let paint = theme.paint(width);
    let indent = Line::default().to(INDENT);
    let mut lines = Vec::new();
    let mut head = Line::default();
    if has_marks {
        head.push(since_role(entry.since), format!("{} ", entry.since));
    }
    head = head.and(entry.role, entry.word).to(INDENT);
    let mut add = |role: Role, text: &str, first: Line, indent: &Line| {
        let said = wrapped(&spoken(&paint, text), indent.width(), width);
        let mut line = first;
        for part in said.lines() {
            lines.push(line.and(role, part.trim_start()));
            line = indent.clone();
        }
    };
    if entry.lint.is_empty() {
        add(Role::Text, &entry.text, head, &indent);
        return lines;
    }
    add(Role::Strong, entry.lint, head, &indent);
    add(Role::Text, &entry.text, indent.clone(), &indent);
    if !entry.remedy.is_empty() {
        let arrow = if theme.unicode { "→" } else { "->" };
        let first = indent.clone().and(Role::Key, arrow).to(INDENT + 3);
        let deeper = Line::default().to(INDENT + 3);
        add(Role::Text, entry.remedy, first, &deeper);
    }
    lines
}

impl VerdictLine {
    fn draw_in_full(
        &mut self,
        entries: &[Entry<'_>],
        scene: &mut Scene<'_>,
        area: Rect,
        buffer: &mut Buffer,
    ) {
        let (theme, rows) = (scene.theme, usize::from(area.height));
        let has_marks = scene.since.is_some();
        let mut lines: Vec<(usize, bool, Line)> = Vec::new();
        let mut chosen = 0..0;
        for (at, entry) in entries.iter().enumerate() {
            let begin = lines.len();
            let said = in_full(entry, has_marks, area.width.into(), &theme);
            lines.extend(
                said.into_iter()
                    .enumerate()
                    .map(|(nth, line)| (at, nth == 0, line)),
            );
            if at == self.selected {
                chosen = begin..lines.len();
            }
        }
        if entries.iter().any(|entry| !entry.lint.is_empty()) {
            let where_ = "each is explained under its name in docs/diagnose.md";
            let line = Line::default().to(INDENT).and(Role::Faint, where_);
            lines.push((usize::MAX, false, line));
        }
        self.offset = self
            .offset
            .max(chosen.end.saturating_sub(rows))
            .min(chosen.start)
            .min(lines.len().saturating_sub(rows));
        let shown = lines.iter().skip(self.offset).take(rows);
        for (y, (at, is_head, line)) in (area.y..).zip(shown) {
            line.draw(buffer, (area.x, y), area.width, &theme);
            let row = Rect::new(area.x, y, area.width, 1);
            if *at == usize::MAX {
                continue;
            }
            if scene.focused && *is_head && *at == self.selected {
                buffer.set_style(row, theme.style(Role::Selected));
            }
            scene.hits.push(Hit {
                area: row,
                does: Click::Select(*at),
            });
        }
    }

    fn go(&mut self, to: usize) -> Wish {
        if !self.drawn.in_full {
            return Wish::Ignored;
        }
        self.selected = to.min(self.drawn.entries.saturating_sub(1));
        Wish::Redraw
    }
}

impl View for VerdictLine {
    fn title(&self) -> &'static str {
        "VERDICT"
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        let mut entries = entries(scene);
        if scene.expanded {
            entries.retain(|entry| entry.is_about(scene.filter));
        }
        self.drawn = Drawn {
            entries: entries.len(),
            rows: area.height.into(),
            in_full: scene.expanded,
        };
        self.selected = self.selected.min(entries.len().saturating_sub(1));
        if area.is_empty() {
            return;
        }
        if scene.expanded {
            self.draw_in_full(&entries, scene, area, buffer);
            return;
        }
        let alone = usize::from(area.height) - 1;
        let (alone, rest) = entries.split_at(alone.min(entries.len()));
        for (y, entry) in (area.y..).zip(alone) {
            let width = area.width.into();
            let line = in_a_line(entry, scene.since.is_some(), true, &scene.theme, width);
            line.draw(buffer, (area.x, y), area.width, &scene.theme);
        }
        joined(rest, scene, area, area.y + alone.len() as u16, buffer);
    }

    fn act(&mut self, action: Action, _: &State) -> Wish {
        // A finding takes some four lines.
        let page = (self.drawn.rows / 4).max(1);
        match action {
            Action::Up => self.go(self.selected.saturating_sub(1)),
            Action::Down => self.go(self.selected.saturating_add(1)),
            Action::PageUp => self.go(self.selected.saturating_sub(page)),
            Action::PageDown => self.go(self.selected.saturating_add(page)),
            Action::First => self.go(0),
            Action::Last => self.go(usize::MAX),
            _ => Wish::Ignored,
        }
    }

    fn click(&mut self, click: &Click, _: &State) -> Wish {
        match click {
            Click::Select(at) => self.go(*at),
            _ => Wish::Ignored,
        }
    }
}
