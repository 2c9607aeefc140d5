//! Writing to stdout: text for people or one JSON value, and a reader that goes away.

use std::error::Error;
use std::io::{IsTerminal, Write};

use plimsoll_tui::paint::Paint;
use serde::Serialize;

/// Where a report goes, and how it looks there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) paint: Paint,
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output {
            paint: Paint::detect(std::io::stdout().is_terminal()),
            json,
        }
    }

    pub(crate) fn stderr_has_colour() -> bool {
        Paint::detect(std::io::stderr().is_terminal()).colour
    }

    /// Prints text as it is.
    pub(crate) fn text(&self, text: &str) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// Prints a value as JSON.
    pub(crate) fn value(&self, value: &impl Serialize) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut stdout, value)?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }
}

/// Whether an error is a closed pipe at its end.
pub(crate) fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::BrokenPipe
        {
            return true;
        }
        at = error.source();
    }
    false
}
