//! Parts of sentences.

use std::fmt::Write;

use crate::heap::{Hint, Pin};
use crate::inspect::refusal;
use crate::size::Size;

/// Characters of a text from the process that are shown, at most.
const MOST_SHOWN: usize = 240;

/// A text that came from the process, safe on a terminal.
pub(super) fn shown(text: &str) -> String {
    refusal::shown(text, MOST_SHOWN)
}

/// `part` of `whole`, such as `4.7 %` or `97 %`; 100 % only where it is all.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    if tenths < 100 {
        format!("{}.{} %", tenths / 10, tenths % 10)
    } else {
        format!("{} %", tenths / 10)
    }
}

/// A time, such as `40 s`, `12 min` or `3.5 h`.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// An arena, by its index.
pub(super) fn arena(index: usize) -> String {
    match index {
        0 => "the main arena".to_owned(),
        index => format!("arena {index}"),
    }
}

/// `1 arena`, `3 arenas`.
pub(super) fn count(number: usize, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}

/// The block of a pin, with where it lies and what it seems to be.
pub(super) fn block(pin: &Pin) -> String {
    // What the program asked for is at most the chunk without its header.
    let usable = pin.size.saturating_sub(8);
    let mut text = if usable < 1024 {
        format!("a {usable}-byte block at {}", pin.address)
    } else {
        format!("a block of {} at {}", Size(usable), pin.address)
    };
    // Writing to a String does not fail.
    let _ = match &pin.hint {
        Some(Hint::Python(kind)) => write!(text, " (a Python {})", shown(kind)),
        Some(Hint::Text(content)) => write!(text, " (text “{}”)", shown(content)),
        Some(Hint::PointsInto(object, _)) => {
            let name = object.rsplit('/').next().unwrap_or(object);
            write!(text, " (it points into {})", shown(name))
        }
        Some(Hint::Zeros) => write!(text, " (all zeros)"),
        None => Ok(()),
    };
    if pin.run_chunks > 1 {
        let _ = write!(text, ", the last of {} side by side,", pin.run_chunks);
    }
    text
}
