//! What a client writes: lines, in bounded memory and at a bounded pace.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::client::Gone;
use crate::request::{Ask, LONGEST_REQUEST};

/// So many lines are taken in each [`WINDOW`]; the rest waits with the client. People and screens
/// ask less in a minute.
const PACE: u32 = 32;
const WINDOW: Duration = Duration::from_millis(100);

/// Bytes asked for in one read.
const CHUNK: usize = 4096;

/// The longest reason that repeats something of a client's line, bytes.
const LONGEST_REASON: usize = 200;

/// What came of looking for a line.
pub(super) enum Written {
    /// A request.
    Ask(Ask),
    /// A line that is none, with its number where it has one.
    Nonsense(u64, String),
    /// A line that is longer than requests may be.
    TooLong,
    /// No whole line, or none for now.
    Nothing,
}

/// What a client wrote, and was not looked at yet.
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Up to here there is no end of line.
    searched: usize,
    /// When lines were first counted, and how many came since.
    window: Instant,
    lines: u32,
}

/// What an answer repeats, however wrong the rest is.
#[derive(serde::Deserialize)]
struct Numbered {
    id: u64,
}

impl Input {
    pub(super) fn new() -> Input {
        Input {
            bytes: Vec::new(),
            searched: 0,
            window: Instant::now(),
            lines: 0,
        }
    }

    /// When lines are taken again, if too many came.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        let at = self.window + WINDOW;
        (self.lines >= PACE && Instant::now() < at).then_some(at)
    }

    /// Whether a whole line waits, or one that is too long.
    pub(super) fn has_line(&mut self) -> bool {
        if self.bytes.get(self.searched) == Some(&b'\n') {
            return true;
        }
        let fresh = &self.bytes[self.searched..];
        match fresh.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                self.searched += at;
                true
            }
            None => {
                self.searched = self.bytes.len();
                self.searched > LONGEST_REQUEST
            }
        }
    }

    /// Takes the next line.
    pub(super) fn next(&mut self) -> Written {
        if self.resumes_at().is_some() || !self.has_line() {
            return Written::Nothing;
        }
        if self.searched > LONGEST_REQUEST {
            return Written::TooLong;
        }
        let now = Instant::now();
        if self.window + WINDOW <= now {
            self.window = now;
            self.lines = 0;
        }
        self.lines += 1;
        let written = parse(&self.bytes[..self.searched]);
        self.bytes.drain(..=self.searched);
        self.searched = 0;
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        written
    }

    /// Reads what is there, once; whether more may be.
    pub(super) fn read(&mut self, mut socket: &UnixStream) -> Result<Came, Gone> {
        let mut chunk = [0; CHUNK];
        match socket.read(&mut chunk) {
            Ok(0) => Ok(Came::End),
            Ok(read) => {
                self.bytes.extend_from_slice(&chunk[..read]);
                Ok(Came::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Came::Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Came::Nothing),
            Err(_) => Err(Gone),
        }
    }
}

/// What came of a read.
pub(super) enum Came {
    /// Bytes.
    Some,
    /// Nothing yet.
    Nothing,
    /// The end: the client writes no more.
    End,
}

fn parse(line: &[u8]) -> Written {
    match serde_json::from_slice::<Ask>(line) {
        Ok(ask) => Written::Ask(ask),
        Err(error) => {
            let id = serde_json::from_slice::<Numbered>(line).map_or(0, |numbered| numbered.id);
            let mut reason = error.to_string();
            if reason.len() > LONGEST_REASON {
                reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
                reason.push('…');
            }
            Written::Nonsense(id, format!("not a request: {reason}"))
        }
    }
}
