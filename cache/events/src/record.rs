//! A recording: one JSON object a line.
//!
//! Each line is written by a single `write`, so that a killed process leaves whole lines and at
//! most one cut-off at the end, which a reader leaves out and reports.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::VERSION;
use crate::event::{Event, Sink};

/// A longer line is no event: real ones have a few kilobytes.
const LONGEST_LINE: u64 = 16 << 20;

/// Writes events to a file as they happen.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    line: Vec<u8>,
    failed: Option<std::io::Error>,
}

impl Recorder {
    /// Starts a recording in a new file.
    ///
    /// # Errors
    /// The file exists already, since a recording is never overwritten, or cannot be made.
    pub fn create(path: &Path) -> std::io::Result<Recorder> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        Ok(Recorder {
            path: path.to_owned(),
            state: Mutex::new(State {
                file,
                line: Vec::new(),
                failed: None,
            }),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first error of writing, after which nothing more was written.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.as_ref().map(ToString::to_string)
    }
}

impl Sink for Recorder {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed.is_some() {
            return;
        }
        let State { file, line, failed } = &mut *state;
        line.clear();
        let written = serde_json::to_writer(&mut *line, event)
            .map_err(std::io::Error::from)
            .and_then(|()| {
                line.push(b'\n');
                file.write_all(line)
            });
        *failed = written.err();
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A whole line is not an event.
    #[error("{}, line {line}: not an event: {reason}; is this a recording?", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The recording was written by a later version.
    #[error(
        "{}, line {line}: version {found} of the stream, and this program reads up to {VERSION}; \
         use a newer plimsoll",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The version found.
        found: u64,
    },
    /// There is not one whole line.
    #[error("{}: no whole event in {bytes} bytes; is this a recording?", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Its length, bytes.
        bytes: u64,
    },
}

/// Reads a recording line by line, in bounded memory.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    lines: u64,
    bytes: u64,
    cut_off: Option<u64>,
}

/// What every line has, whatever its version.
#[derive(serde::Deserialize)]
struct Envelope {
    v: u64,
}

impl Replay {
    /// Opens a recording.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a regular file or a pipe.
    pub fn open(path: &Path) -> Result<Replay, ReadError> {
        let io = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(Replay {
            path: path.to_owned(),
            reader: BufReader::with_capacity(256 << 10, file),
            line: Vec::new(),
            lines: 0,
            bytes: 0,
            cut_off: None,
        })
    }

    /// The next event; `None` at the end of the last whole line.
    ///
    /// # Errors
    /// A whole line that is not an event, a later version, or a file without one whole line.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        let io = |source| ReadError::Io {
            path: self.path.clone(),
            source,
        };
        self.line.clear();
        let read = self
            .reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut self.line)
            .map_err(io)? as u64;
        self.bytes += read;
        if self.line.pop_if(|last| *last == b'\n').is_none() {
            if read == LONGEST_LINE {
                return Err(self.broken(format!("longer than {LONGEST_LINE} bytes")));
            }
            if self.lines == 0 {
                return Err(ReadError::Empty {
                    path: self.path.clone(),
                    bytes: self.bytes,
                });
            }
            self.cut_off = (read > 0).then_some(read);
            return Ok(None);
        }
        self.lines += 1;
        let envelope: Envelope = serde_json::from_slice(&self.line)
            .map_err(|error| self.broken_before(error.to_string()))?;
        if envelope.v > u64::from(VERSION) {
            return Err(ReadError::Version {
                path: self.path.clone(),
                line: self.lines,
                found: envelope.v,
            });
        }
        serde_json::from_slice(&self.line)
            .map(Some)
            .map_err(|error| self.broken_before(error.to_string()))
    }

    /// Bytes of a line that was cut off at the end, once the end was reached.
    #[must_use]
    pub fn cut_off(&self) -> Option<u64> {
        self.cut_off
    }

    fn broken(&self, reason: String) -> ReadError {
        ReadError::Broken {
            path: self.path.clone(),
            line: self.lines + 1,
            reason,
        }
    }

    fn broken_before(&self, reason: String) -> ReadError {
        ReadError::Broken {
            path: self.path.clone(),
            line: self.lines,
            reason,
        }
    }
}
