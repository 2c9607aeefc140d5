//! Writing to stdout: text for people or one JSON value, and a reader that goes away.

use std::io::{IsTerminal, Write};

use plimsoll_tui::paint::{Paint, safe_lines};
use serde::Serialize;

/// Where a report goes, and how it looks there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) paint: Paint,
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        let mut paint = Paint::detect(std::io::stdout().is_terminal());
        if let (Some((columns, _)), None) = (terminal_size(), std::env::var_os("COLUMNS")) {
            paint.width = columns.clamp(60, 300);
        }
        Output { paint, json }
    }

    pub(crate) fn stderr_has_colour() -> bool {
        Paint::detect(std::io::stderr().is_terminal()).colour
    }

    /// Prints text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), StdoutError> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Prints a value as JSON.
    pub(crate) fn value(&self, value: &impl Serialize) -> Result<(), StdoutError> {
        let mut stdout = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut stdout, value).map_err(std::io::Error::from)?;
        stdout.write_all(b"\n")?;
        Ok(stdout.flush()?)
    }
}

/// The columns and rows of standard output, where that is a terminal.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // A terminal that was never told its size says 0.
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(crate) struct StdoutError(#[from] std::io::Error);

impl StdoutError {
    /// Whether its reader has had enough, as `head` has. That is no error.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == std::io::ErrorKind::BrokenPipe
    }
}

/// Says something on stderr, if it can be said there. Control characters are escaped: messages name
/// files and what is in them.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "plimsoll: {}", safe_lines(text));
}
