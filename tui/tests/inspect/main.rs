//! What people see of a process that was looked at from outside.

#![allow(clippy::unwrap_used)]

mod absent;
mod full;
mod hostile;
mod many;
mod process;
mod ps;

use malloc_stats::inspect::Inspection;
use plimsoll_tui::inspect::{View, text};
use plimsoll_tui::paint::Paint;
use unicode_width::UnicodeWidthStr;

/// The page in plain ASCII.
fn plain(inspection: &Inspection, width: usize) -> String {
    let paint = Paint {
        width,
        ..Paint::plain()
    };
    text(&paint, inspection, &View::default())
}

/// The lines from a heading to the next blank line.
#[track_caller]
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let from = page
        .find(&format!("\n{heading}"))
        .unwrap_or_else(|| panic!("no `{heading}` in:\n{page}"));
    let rest = &page[from + 1..];
    rest.split_once("\n\n").map_or(rest, |(section, _)| section)
}

/// Every line fits, whatever its tones.
#[track_caller]
fn fits(page: &str, width: usize) {
    for line in page.lines() {
        assert!(line.width() <= width, "{} columns: {line}", line.width());
    }
}
