//! The reading end: whole lines, in bounded memory.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Peer;
use super::PublishError;
use super::asker::{Asker, Line};
use super::place::{There, reach};
use crate::VERSION;
use crate::event::Event;
use crate::request::Ask;

/// A longer line is no event: real ones have a few kilobytes.
const LONGEST_LINE: usize = 16 << 20;

/// Bytes asked for in one read.
const CHUNK: usize = 64 << 10;

/// The longest reason that repeats something of a line, bytes.
const LONGEST_REASON: usize = 300;

/// How long a publisher may leave connections waiting, seconds.
const PATIENCE: u64 = 3;

/// What came of waiting for an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// An event, or a line beside the stream: the greeting, a note.
    Event(Box<Event>),
    /// Nothing came in time.
    Nothing,
    /// The publisher has ended, or has hung up. A last line that was cut off is left out.
    Closed,
}

/// Reads what a process publishes. As an iterator it waits for each event, and ends when the
/// publisher does, or with the first error.
#[derive(Debug)]
pub struct Follow {
    line: Arc<Line>,
    /// What was read: `taken` bytes were given out, and up to `searched` there is no end of line.
    bytes: Vec<u8>,
    taken: usize,
    searched: usize,
    lines: u64,
    ended: bool,
}

/// What every line has, whatever its version.
#[derive(serde::Deserialize)]
struct Envelope {
    v: u64,
}

/// Connects to a process that publishes, for example one that [`published`](super::published)
/// found. See [the module](super) for what is told, and how its numbers are to be read.
///
/// # Errors
/// Nobody publishes there, or the path is no socket, or the publisher has not answered for 3 s.
pub fn connect(path: &Path) -> Result<Follow, PublishError> {
    let io = |error| PublishError::io::<io::Error>(path, "connect")(error);
    let until = Instant::now() + Duration::from_secs(PATIENCE);
    let socket = loop {
        match reach(path).map_err(io)? {
            There::Answers(socket) => break UnixStream::from(socket),
            There::Dead if fs::metadata(path).is_ok_and(|at| !at.file_type().is_socket()) => {
                return Err(PublishError::NotASocket { path: path.into() });
            }
            There::Busy if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            There::Busy => {
                return Err(PublishError::NoAnswer {
                    path: path.into(),
                    seconds: PATIENCE,
                });
            }
            _ => return Err(PublishError::Nobody { path: path.into() }),
        }
    };
    socket.set_nonblocking(false).map_err(io)?;
    Ok(Follow {
        line: Arc::new(Line::new(path, socket)),
        bytes: Vec::new(),
        taken: 0,
        searched: 0,
        lines: 0,
        ended: false,
    })
}

impl Follow {
    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.line.path
    }

    /// Who began to listen at the socket.
    ///
    /// # Errors
    /// The system does not say.
    pub fn peer(&self) -> Result<Peer, PublishError> {
        Peer::of(self.line.socket.as_fd())
            .map_err(PublishError::io(&self.line.path, "tell who publishes"))
    }

    /// Bytes of a line whose end has not come, once [`Heard::Nothing`] was heard; or has been cut
    /// off, once [`Heard::Closed`] was.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Asks something of the publisher. The answer comes between the events, as
    /// [`Kind::Answer`](crate::Kind::Answer) with the same number.
    ///
    /// # Errors
    /// As [`Asker::ask`].
    pub fn ask(&mut self, ask: &Ask) -> Result<(), PublishError> {
        self.line.ask(ask)
    }

    /// What asks over this connection while another thread reads.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker::over(&self.line)
    }

    /// Waits for the next event; `None` when the publisher has ended, or after an error.
    ///
    /// # Errors
    /// A line that is not an event or is longer than 16 MiB, a later version, or no way to read.
    pub fn next_event(&mut self) -> Result<Option<Event>, PublishError> {
        match self.hear(None)? {
            Heard::Event(event) => Ok(Some(*event)),
            Heard::Nothing | Heard::Closed => Ok(None),
        }
    }

    /// Waits for the next event, for so long at most.
    ///
    /// # Errors
    /// As [`next_event`](Follow::next_event). What comes after an error is [`Heard::Closed`].
    pub fn next_within(&mut self, timeout: Duration) -> Result<Heard, PublishError> {
        // A deadline beyond what the clock can name is none.
        self.hear(Instant::now().checked_add(timeout))
    }

    fn hear(&mut self, until: Option<Instant>) -> Result<Heard, PublishError> {
        if self.ended {
            return Ok(Heard::Closed);
        }
        let heard = self.line_or_end(until);
        self.ended = !matches!(heard, Ok(Heard::Event(_) | Heard::Nothing));
        heard
    }

    fn line_or_end(&mut self, until: Option<Instant>) -> Result<Heard, PublishError> {
        loop {
            let fresh = &self.bytes[self.searched..];
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let line = self.taken..self.searched + at;
                self.taken = line.end + 1;
                self.searched = self.taken;
                self.lines += 1;
                return self.parse(line).map(Heard::Event);
            }
            self.searched = self.bytes.len();
            if self.searched - self.taken > LONGEST_LINE {
                self.lines += 1;
                return Err(self.broken(format!("longer than {LONGEST_LINE} bytes")));
            }
            if !self.is_ready(until)? {
                return Ok(Heard::Nothing);
            }
            if self.read()? == 0 {
                return Ok(Heard::Closed);
            }
        }
    }

    fn parse(&self, line: std::ops::Range<usize>) -> Result<Box<Event>, PublishError> {
        let line = &self.bytes[line];
        let parsed = serde_json::from_slice::<Box<Event>>(line);
        // What a later version writes may well be an event in this one, by another meaning.
        let version = match &parsed {
            Ok(event) => u64::from(event.v),
            Err(_) => serde_json::from_slice(line).map_or(0, |envelope: Envelope| envelope.v),
        };
        if version > u64::from(VERSION) {
            return Err(PublishError::Version {
                path: self.line.path.clone(),
                found: version,
            });
        }
        parsed.map_err(|error| self.broken(error.to_string()))
    }

    /// Whether there is something to read, or its end, before a deadline.
    fn is_ready(&self, until: Option<Instant>) -> Result<bool, PublishError> {
        loop {
            let timeout = until.map(|until| {
                let left = until.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(left.subsec_nanos()),
                }
            });
            let mut fds = [PollFd::new(&self.line.socket, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(PublishError::io(&self.line.path, "wait for events")(error));
                }
            }
        }
    }

    /// Reads what is there; 0 at the end.
    fn read(&mut self) -> Result<usize, PublishError> {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        let whole = self.bytes.len();
        self.bytes.resize(whole + CHUNK, 0);
        let read = loop {
            match (&self.line.socket).read(&mut self.bytes[whole..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A publisher that ended before it read what was written to it.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ok(0),
                read => break read,
            }
        };
        self.bytes.truncate(whole + *read.as_ref().unwrap_or(&0));
        read.map_err(PublishError::io(&self.line.path, "read events"))
    }

    /// A reason may quote the line, and a line may have megabytes.
    fn broken(&self, mut reason: String) -> PublishError {
        if reason.len() > LONGEST_REASON {
            reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
            reason.push_str("...");
        }
        PublishError::Broken {
            path: self.line.path.clone(),
            line: self.lines,
            reason,
        }
    }
}

/// Readable when there may be something to hear, for who waits for other things too. What was read
/// already is not: [`next_within`](Follow::next_within) no time first, until it says that there is
/// nothing.
impl AsFd for Follow {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.socket.as_fd()
    }
}

impl Iterator for Follow {
    type Item = Result<Event, PublishError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}
