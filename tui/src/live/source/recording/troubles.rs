//! What could not be read of a recording.

use plimsoll_events::{ReadError, VERSION};

/// Broken lines that are told one by one.
const MOST: usize = 100;

/// Broken lines, each told once, however often it is read.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    told: Vec<String>,
    besides: u64,
    last_line: u64,
}

impl Troubles {
    /// Notes a line that was skipped; gives back what is no matter of a line.
    pub(super) fn note(&mut self, error: ReadError) -> Result<(), ReadError> {
        let (line, what) = match &error {
            ReadError::Broken { line, reason, .. } => (*line, format!("not an event: {reason}")),
            ReadError::Version { line, found, .. } => (
                *line,
                format!("version {found} of the stream, and this program reads up to {VERSION}"),
            ),
            _ => return Err(error),
        };
        if line > self.last_line {
            self.last_line = line;
            if self.told.len() < MOST {
                self.told.push(format!("line {line} is left out: {what}"));
            } else {
                self.besides += 1;
            }
        }
        Ok(())
    }

    /// In sentences.
    pub(super) fn all(&self) -> Vec<String> {
        let mut all = self.told.clone();
        if self.besides > 0 {
            all.push(format!("{} more lines are left out", self.besides));
        }
        all
    }
}
