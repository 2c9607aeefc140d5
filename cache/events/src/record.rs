//! A recording: one JSON object a line.
//!
//! Each line is written by a single `write`, so that a killed process leaves whole lines and at
//! most one cut-off at the end, which a reader leaves out and reports.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::VERSION;
use crate::event::{Event, Sink};

/// A longer line is no event: real ones have a few kilobytes.
const LONGEST_LINE: u64 = 16 << 20;

/// Room that is kept for the next line.
const ROOMY_LINE: usize = 1 << 20;

/// Lines at the end that are looked at for a time.
const TRIED_LINES: usize = 4096;

/// Characters of a reason that are told.
const LONGEST_REASON: usize = 300;

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
    /// What was read of the line at `offset`: a part of it, where the file ended within.
    line: Vec<u8>,
    /// Bytes of that line that were thrown away, because it is too long to be an event.
    skipped: u64,
    /// Where the line that is read next begins.
    offset: u64,
    /// Whole lines before it.
    lines: u64,
    cut_off: Option<u64>,
}

/// What every line has, whatever its version.
#[derive(serde::Deserialize)]
struct Envelope {
    v: u64,
}

/// When a line happened.
#[derive(serde::Deserialize)]
struct When {
    at_us: u64,
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
            skipped: 0,
            offset: 0,
            lines: 0,
            cut_off: None,
        })
    }

    /// Goes to where a line begins, with so many lines before it: a place that
    /// [`offset`](Replay::offset) and [`lines`](Replay::lines) told before.
    ///
    /// # Errors
    /// There is no way to go, as in a pipe.
    pub fn go_to(&mut self, offset: u64, lines: u64) -> Result<(), ReadError> {
        self.reader
            .seek(SeekFrom::Start(offset))
            .map_err(|source| self.io(source))?;
        self.line.clear();
        self.skipped = 0;
        self.offset = offset;
        self.lines = lines;
        self.cut_off = None;
        Ok(())
    }

    /// The next event; `None` at the end of the last whole line. A file that grew since goes on
    /// from there.
    ///
    /// # Errors
    /// A whole line that is not an event, a later version, or a file without one whole line.
    /// After a broken line the next call goes on with the one after it; a line longer than 16 MiB
    /// is an error for every 16 MiB of it, so that no call takes long.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        if !self.read_line()? {
            return Ok(None);
        }
        // The line first as what it should be: that it is one is the common case.
        let event = serde_json::from_slice::<Event>(&self.line);
        let read = match event {
            Ok(event) if event.v <= VERSION => Ok(Some(event)),
            Ok(event) => Err(self.newer(event.v.into())),
            Err(error) => Err(match serde_json::from_slice::<Envelope>(&self.line) {
                Ok(envelope) if envelope.v > u64::from(VERSION) => self.newer(envelope.v),
                Ok(_) => self.broken(self.lines, &error.to_string()),
                Err(error) => self.broken(self.lines, &error.to_string()),
            }),
        };
        self.line.clear();
        self.line.shrink_to(ROOMY_LINE);
        read
    }

    /// Reads on to the end of a line; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, ReadError> {
        loop {
            let room = LONGEST_LINE - self.line.len() as u64;
            self.reader
                .by_ref()
                .take(room)
                .read_until(b'\n', &mut self.line)
                .map_err(|source| self.io(source))?;
            let read = self.line.len() as u64;
            if self.line.pop_if(|last| *last == b'\n').is_some() {
                self.lines += 1;
                self.offset += self.skipped + read;
                self.cut_off = None;
                if std::mem::take(&mut self.skipped) == 0 {
                    return Ok(true);
                }
                self.line.clear();
            } else if read == LONGEST_LINE {
                self.skipped += read;
                self.line = Vec::new();
                return Err(
                    self.broken(self.lines + 1, &format!("longer than {LONGEST_LINE} bytes"))
                );
            } else {
                let bytes = self.skipped + read;
                if self.lines == 0 {
                    return Err(ReadError::Empty {
                        path: self.path.clone(),
                        bytes,
                    });
                }
                self.cut_off = (bytes > 0).then_some(bytes);
                return Ok(false);
            }
        }
    }

    /// Bytes of a line that was cut off at the end, once the end was reached.
    #[must_use]
    pub fn cut_off(&self) -> Option<u64> {
        self.cut_off
    }

    /// Where the line that is read next begins, bytes from the start.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whole lines before [`offset`](Replay::offset), broken ones included.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The length of the file now, bytes; 0 for a pipe.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn size(&self) -> Result<u64, ReadError> {
        let metadata = self.reader.get_ref().metadata();
        Ok(metadata.map_err(|source| self.io(source))?.len())
    }

    /// When the last whole line that tells a time happened, microseconds, without reading what is
    /// before it. Absent where there is none in the last 16 MiB.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last_at_us(&self) -> Result<Option<u64>, ReadError> {
        let size = self.size()?;
        let mut window = 64 << 10;
        loop {
            let from = size.saturating_sub(window);
            let mut bytes = Vec::new();
            read_range(self.reader.get_ref(), from, size, &mut bytes)
                .map_err(|source| self.io(source))?;
            // What is after the last end of line is cut off; what is before the first may be, and
            // is no object then.
            let mut lines = bytes
                .rsplit(|byte| *byte == b'\n')
                .skip(1)
                .take(TRIED_LINES);
            let found = lines.find_map(|line| serde_json::from_slice::<When>(line).ok());
            if found.is_some() || from == 0 || window >= LONGEST_LINE {
                return Ok(found.map(|when| when.at_us));
            }
            window *= 4;
        }
    }

    fn io(&self, source: std::io::Error) -> ReadError {
        ReadError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn newer(&self, found: u64) -> ReadError {
        ReadError::Version {
            path: self.path.clone(),
            line: self.lines,
            found,
        }
    }

    /// A reason may quote the line, and a line may have megabytes.
    fn broken(&self, line: u64, reason: &str) -> ReadError {
        ReadError::Broken {
            path: self.path.clone(),
            line,
            reason: match reason.char_indices().nth(LONGEST_REASON) {
                Some((at, _)) => format!("{}...", &reason[..at]),
                None => reason.to_owned(),
            },
        }
    }
}

/// Reads a part of a file, or what there is of it, without moving where it is read.
fn read_range(file: &File, from: u64, to: u64, into: &mut Vec<u8>) -> std::io::Result<()> {
    into.resize(usize::try_from(to - from).unwrap_or(0), 0);
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    into.truncate(filled);
    Ok(())
}
