//! A stream made of bytes, shown: whatever it is, there is a frame, and no more than a frame.
//!
//! Up to the first end of line the bytes choose how it is shown and which keys are pressed; behind
//! it are raw lines, or what makes well-formed ones.

use std::time::Duration;

use plimsoll_tui::live::screen::keys::TABLE;
use plimsoll_tui::live::screen::theme::{Depth, NAMES};
use plimsoll_tui::live::screen::{Config, Script, Still};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use crate::dice::Dice;
use crate::lines;
use crate::told::Told;

/// Keys of one script.
const MOST_KEYS: usize = 16;

/// Bytes that choose, and not what is shown.
const MOST_CHOICES: usize = 64;

/// Shows what bytes say.
pub fn once(bytes: &[u8]) {
    let head = bytes.iter().take(MOST_CHOICES);
    let end = head.clone().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(end.unwrap_or(head.len()));
    let mut dice = Dice(head);
    let events = if dice.chance(2) {
        lines::raw(body)
    } else {
        lines::well_formed(&mut Dice(body))
    };
    let sizes = [
        (80, 24),
        (120, 36),
        (60, 18),
        (20, 5),
        (200, 60),
        (1, 1),
        (300, 100),
        (0, 0),
    ];
    let size = match dice.byte() {
        chosen @ 0..=199 => sizes[usize::from(chosen) % sizes.len()],
        _ => (u16::from(dice.byte()), u16::from(dice.byte() / 2)),
    };
    let config = Config {
        theme: NAMES[dice.below(NAMES.len())],
        colours: [None, Some(Depth::True), Some(Depth::None)][dice.below(3)],
        unicode: Some(dice.chance(2)),
        readonly: dice.chance(8),
        ..Config::default()
    };
    let script = script(&mut dice);
    let about = Told::new(events, dice.0);
    let patience = Duration::from_secs(60);
    let Ok(mut still) = Still::take(Box::new(about), &config, patience, |_| false) else {
        unreachable!("a source that says nothing of an error")
    };
    let text = still.text(size, &script);
    check(&text.unwrap_or_default(), size);
    // The keys have changed what is shown; other places are to be drawn on all the same.
    let (columns, rows) = (dice.byte().into(), dice.byte().into());
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    still.draw(&mut buffer);
    let summary = serde_json::to_string(&still.summary());
    assert!(summary.is_ok(), "{summary:?}");
}

/// Keys that may be pressed: those of the table, and some to type with.
fn script(dice: &mut Dice<'_>) -> Script {
    let bound = TABLE.iter().flat_map(|entry| entry.keys);
    let keys: Vec<&str> = bound
        .chain(&["y", "n", "1", "M", "i", "delete"])
        .copied()
        .collect();
    let pressed = (0..usize::from(dice.byte()) % MOST_KEYS).map(|_| keys[dice.below(keys.len())]);
    let text = pressed.collect::<Vec<_>>().join(" ");
    text.parse().unwrap_or_default()
}

/// Whether this is what a terminal of that size can show, and nothing that it would obey.
fn check(text: &str, (columns, rows): (u16, u16)) {
    assert_eq!(text.lines().count(), usize::from(rows));
    for line in text.lines() {
        let obeyed = |c: char| {
            c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!line.contains(obeyed), "{line:?}");
        assert!(
            line.width() <= usize::from(columns),
            "{} of {columns}: {line:?}",
            line.width()
        );
    }
    let too_small = columns < 20 || rows < 5;
    assert!(too_small || !text.trim().is_empty());
}
