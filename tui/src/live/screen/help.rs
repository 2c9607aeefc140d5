//! The help: made from the table of keys.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Clear, Widget};
use unicode_width::UnicodeWidthStr;

use super::chrome::frame;
use super::keys::{Group, Keys, TABLE};
use super::theme::{Role, Theme};
use crate::live::view::put;

/// A line of the help.
enum Line {
    Title(&'static str),
    Key(String, &'static str),
    Words(&'static str),
    Blank,
}

/// Columns of keys.
const KEYS: u16 = 16;
/// Columns that help in two columns needs.
const WIDE: u16 = 110;

/// How to read what is shown: the same wherever it is.
const READING: [&str; 8] = [
    "plain exact   ~ estimated   <= at most   n/a not known, which is not zero",
    "K M G T are powers of 1024.  free but RESIDENT costs RAM; given back does not",
    "WASTE = 1 - in_use / heap_rss.  PIN: the last block below an arena's top",
    "trimmable: what malloc_trim(0) would return.  stuck: what it would not",
    "freed: by the cache's count.  returned: what the system really got",
    "score: what the policy holds it to be worth; the lowest goes first",
    "simulated: a device that only pretends",
    "each finding by its name: docs/diagnose.md",
];

fn lines(keys: &Keys) -> Vec<Line> {
    let mut lines = Vec::new();
    for group in Group::ALL {
        lines.push(Line::Title(group.title()));
        for entry in TABLE.iter().filter(|entry| entry.group == group) {
            let bound: Vec<String> = keys.of(entry.action).map(|key| key.to_string()).collect();
            if !bound.is_empty() {
                lines.push(Line::Key(bound.join(" "), entry.help));
            }
        }
        lines.push(Line::Blank);
    }
    lines.push(Line::Title("Reading it"));
    lines.extend(READING.into_iter().map(Line::Words));
    lines
}

/// Draws the help over what is there, from a line on; how many lines there are to scroll.
pub(super) fn draw(
    theme: &Theme,
    keys: &Keys,
    from: usize,
    area: Rect,
    buffer: &mut Buffer,
) -> usize {
    let width = area.width.min(if area.width >= WIDE { 164 } else { 86 });
    let lines = lines(keys);
    let columns = if width >= WIDE { 2 } else { 1 };
    let needed = lines.len().div_ceil(columns) as u16 + 3;
    let height = area.height.min(needed);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, buffer);
    let caption = "any key closes it";
    let inner = frame(theme, (None, "HELP", caption), true, place, buffer);
    let rows = usize::from(inner.height);
    let beyond = lines.len().saturating_sub(rows * columns);
    let from = from.min(beyond);
    let column_width = inner.width / columns as u16;
    for (at, line) in lines.iter().skip(from).take(rows * columns).enumerate() {
        let x = inner.x + 1 + (at / rows.max(1)) as u16 * column_width;
        let y = inner.y + (at % rows.max(1)) as u16;
        let room = column_width.saturating_sub(2);
        match line {
            Line::Title(title) => {
                put(buffer, (x, y), room, title, theme, Role::Strong);
            }
            Line::Key(keys, help) => {
                let gap = KEYS.max(keys.width() as u16 + 1);
                put(buffer, (x, y), room, keys, theme, Role::Key);
                put(
                    buffer,
                    (x + gap, y),
                    room.saturating_sub(gap),
                    help,
                    theme,
                    Role::Text,
                );
            }
            Line::Words(words) => {
                put(buffer, (x, y), room, words, theme, Role::Text);
            }
            Line::Blank => {}
        }
    }
    beyond
}
