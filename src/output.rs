//! Writing to stdout: text for people or one JSON value, and a reader that goes away.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

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

/// A file for the end of long work, opened before it: a place that cannot be written to is known
/// before the work, not after. Where nothing comes to be written it is as it was.
#[derive(Debug)]
pub(crate) struct Later {
    path: PathBuf,
    file: File,
    /// It was not there before, and is to go again.
    is_ours: bool,
}

impl Later {
    pub(crate) fn open(path: &Path) -> Result<Later, NotWritten> {
        // A link that leads nowhere is there too.
        let is_ours = path.symlink_metadata().is_err();
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|source| NotWritten::new(path, source))?;
        Ok(Later {
            path: path.to_owned(),
            file,
            is_ours,
        })
    }

    /// Writes this in place of what the file held.
    pub(crate) fn replace(self, text: &str) -> Result<(), NotWritten> {
        // A terminal or a pipe has nothing to cut off.
        let _ = self.file.set_len(0);
        self.append(text)
    }

    /// Writes this after what the file holds.
    pub(crate) fn append(mut self, text: &str) -> Result<(), NotWritten> {
        self.is_ours = false;
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| NotWritten::new(&self.path, source))
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(crate) struct NotWritten {
    path: PathBuf,
    source: std::io::Error,
}

impl NotWritten {
    fn new(path: &Path, source: std::io::Error) -> NotWritten {
        NotWritten {
            path: path.to_owned(),
            source,
        }
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
