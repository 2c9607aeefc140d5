//! The asking end: requests, written whole, beside whoever reads.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::PublishError;
use crate::request::{Ask, LONGEST_REQUEST};

/// How long a publisher may take no request, seconds.
const PATIENCE: u64 = 3;

/// A connection, shared by who reads and who asks.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) path: PathBuf,
    pub(super) socket: UnixStream,
    /// Whether a request was cut off: the next one would be its end.
    cut_off: Mutex<bool>,
}

impl Line {
    pub(super) fn new(path: &Path, socket: UnixStream) -> Line {
        Line {
            path: path.to_owned(),
            socket,
            cut_off: Mutex::new(false),
        }
    }

    /// Writes a request.
    pub(super) fn ask(&self, ask: &Ask) -> Result<(), PublishError> {
        let mut line = serde_json::to_vec(ask)
            .map_err(|error| PublishError::io(&self.path, "write a request")(error))?;
        if line.len() > LONGEST_REQUEST {
            return Err(PublishError::LongRequest {
                path: self.path.clone(),
                bytes: line.len(),
            });
        }
        line.push(b'\n');
        let mut cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        if *cut_off {
            let reason = "an earlier request was cut off; connect again";
            let error = io::Error::new(ErrorKind::BrokenPipe, reason);
            return Err(PublishError::io(&self.path, "ask")(error));
        }
        let mut sent = 0;
        let result = self.send(&line, &mut sent);
        *cut_off = (1..line.len()).contains(&sent);
        result
    }

    fn send(&self, line: &[u8], sent: &mut usize) -> Result<(), PublishError> {
        let until = Instant::now() + Duration::from_secs(PATIENCE);
        while *sent < line.len() {
            // Not `write`: a program may have SIGPIPE end it.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &line[*sent..], flags) {
                Ok(bytes) => *sent += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(until)?,
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(PublishError::Nobody {
                        path: self.path.clone(),
                    });
                }
                Err(error) => return Err(PublishError::io(&self.path, "ask")(error)),
            }
        }
        Ok(())
    }

    /// Waits until there is room for more.
    fn wait(&self, until: Instant) -> Result<(), PublishError> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => Err(PublishError::NoAnswer {
                path: self.path.clone(),
                seconds: PATIENCE,
            }),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(PublishError::io(&self.path, "wait to ask")(error)),
        }
    }
}

/// Asks over the connection of a [`Follow`](super::Follow), from any thread, while that reads.
/// Clones ask over the same. It does not keep the connection: that ends with the follower.
#[derive(Debug, Clone)]
pub struct Asker {
    path: PathBuf,
    line: Weak<Line>,
}

impl Asker {
    pub(super) fn over(line: &Arc<Line>) -> Asker {
        Asker {
            path: line.path.clone(),
            line: Arc::downgrade(line),
        }
    }

    /// Asks. The answer comes to the follower, as [`Kind::Answer`](crate::Kind::Answer) with the
    /// same number.
    ///
    /// # Errors
    /// The connection has ended, the request is longer than
    /// [`LONGEST_REQUEST`](crate::request::LONGEST_REQUEST), or the publisher took nothing for 3 s.
    /// Where it took a part, nothing more can be asked over this connection.
    pub fn ask(&self, ask: &Ask) -> Result<(), PublishError> {
        match self.line.upgrade() {
            Some(line) => line.ask(ask),
            None => Err(PublishError::Nobody {
                path: self.path.clone(),
            }),
        }
    }
}
