//! Where marks arrive.

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{LONGEST, wrong_with};
use crate::peer::Peer;

/// Clients at once. Each takes a descriptor of the watcher.
const CLIENTS: usize = 64;

/// Connections taken in at one call, so that a flood of them cannot hold the caller.
const ARRIVALS: usize = 128;

/// The listener among the events; clients are numbered from 1.
const LISTENER: u64 = 0;

const ARMED: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

/// A moment that a program tells. It waits until [`Desk::answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it says: UTF-8, neither empty nor longer than [`LONGEST`] bytes, without
    /// control characters.
    pub text: String,
    /// The process that made the connection (`SO_PEERCRED` of `unix(7)`); absent where it is in a
    /// PID namespace that cannot be seen into from here.
    pub pid: Option<NonZeroU32>,
    client: u64,
    number: u64,
}

/// A Unix socket where marks arrive, and are answered once the memory has been read.
///
/// Nothing here blocks, and nothing a client does costs more than a bounded amount: there are 64
/// clients at most, and more are told so and closed; of each client at most one half line is kept,
/// and nothing more is read while a mark of it is unanswered; whoever sends a line that is no mark
/// is told so and closed.
///
/// The socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    path: PathBuf,
    /// Readable when there is something to take; so a caller polls one descriptor.
    epoll: OwnedFd,
    clients: Vec<Client>,
    clients_seen: u64,
    marks_seen: u64,
    /// Whether the listener is out of the poll, since the process has no descriptors left.
    deaf: bool,
}

#[derive(Debug)]
struct Client {
    number: u64,
    stream: UnixStream,
    pid: Option<NonZeroU32>,
    half_line: Vec<u8>,
    unanswered: Option<u64>,
}

/// What a client has to say.
enum Line {
    None,
    Whole(String),
    Wrong(&'static str),
    Gone,
}

impl Desk {
    /// Listens at `path`, which must not exist, in a folder that only its user may enter (mode
    /// 0700): whoever can reach the socket can tell marks.
    ///
    /// # Errors
    ///
    /// With the path: where something is there already, the folder is missing, or the path is
    /// longer than the 107 bytes a Unix socket can have.
    pub fn bind(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let told = |error: io::Error| {
            let reason = format!("cannot listen for marks at {}: {error}", path.display());
            io::Error::new(error.kind(), reason)
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| told(e.into()))?;
        let listener = UnixListener::bind(&path).map_err(told)?;
        let desk = Self {
            listener,
            epoll,
            clients: Vec::new(),
            clients_seen: LISTENER,
            marks_seen: 0,
            deaf: false,
            path,
        };
        desk.listener.set_nonblocking(true)?;
        let data = EventData::new_u64(LISTENER);
        epoll::add(&desk.epoll, &desk.listener, data, EventFlags::IN)?;
        Ok(desk)
    }

    /// Where it listens: the value for [`VARIABLE`](super::VARIABLE).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The marks that have arrived; at most one of each client, which waits until its is
    /// [answered](Self::answer). Does not block.
    ///
    /// To be called when [the descriptor](AsFd::as_fd) is readable, and now and then besides: while
    /// this process has no descriptors left, new clients are only let in here.
    pub fn take(&mut self) -> Vec<Mark> {
        self.let_in();
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); CLIENTS + 1];
        let ready: Vec<u64> = match epoll::wait(&self.epoll, &mut events, Some(&NOW)) {
            Ok((ready, _)) => ready.iter().map(|event| event.data.u64()).collect(),
            // Interrupted: the descriptor stays readable.
            Err(_) => return Vec::new(),
        };
        let mut marks = Vec::new();
        for number in ready {
            if let Some(at) = self.clients.iter().position(|c| c.number == number) {
                marks.extend(self.hear(at));
            }
        }
        marks
    }

    /// Answers `ok`: the program goes on. A mark that was answered before, or whose program has
    /// gone, is passed over.
    pub fn answer(&mut self, mark: &Mark) {
        let Some(at) = self.clients.iter().position(|client| {
            client.number == mark.client && client.unanswered == Some(mark.number)
        }) else {
            return;
        };
        let client = &mut self.clients[at];
        client.unanswered = None;
        if !client.say("ok\n") || !client.arm(&self.epoll) {
            self.clients.swap_remove(at);
        }
    }

    fn let_in(&mut self) {
        for _ in 0..ARRIVALS {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.set_deaf(false);
                    return;
                }
                // Whoever knocked has gone again, or a signal came.
                Err(error) if !out_of_descriptors(&error) => {}
                Err(_) => {
                    // The listener stays readable, and a caller that polls would turn round and
                    // round.
                    self.set_deaf(true);
                    return;
                }
            }
        }
        self.set_deaf(false);
    }

    fn set_deaf(&mut self, deaf: bool) {
        if self.deaf == deaf {
            return;
        }
        let flags = if deaf {
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        let data = EventData::new_u64(LISTENER);
        if epoll::modify(&self.epoll, &self.listener, data, flags).is_ok() {
            self.deaf = deaf;
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        let number = self.clients_seen.saturating_add(1);
        let client = Client {
            number,
            pid: Peer::of(stream.as_fd()).ok().and_then(|peer| peer.pid),
            stream,
            half_line: Vec::new(),
            unanswered: None,
        };
        if self.clients.len() >= CLIENTS {
            client.say("error 64 programs tell marks already\n");
            return;
        }
        let data = EventData::new_u64(number);
        if client.stream.set_nonblocking(true).is_ok()
            && epoll::add(&self.epoll, &client.stream, data, ARMED).is_ok()
        {
            self.clients_seen = number;
            self.clients.push(client);
        }
    }

    /// Hears one client whose turn it is: it has left the poll (`EPOLLONESHOT`) until it is armed.
    fn hear(&mut self, at: usize) -> Option<Mark> {
        let client = &mut self.clients[at];
        match client.line() {
            Line::Whole(text) => {
                self.marks_seen = self.marks_seen.saturating_add(1);
                client.unanswered = Some(self.marks_seen);
                return Some(Mark {
                    text,
                    pid: client.pid,
                    client: client.number,
                    number: self.marks_seen,
                });
            }
            Line::None => {
                if client.arm(&self.epoll) {
                    return None;
                }
            }
            Line::Wrong(reason) => {
                client.say(&format!("error {reason}\n"));
            }
            Line::Gone => {}
        }
        self.clients.swap_remove(at);
        None
    }
}

impl AsFd for Desk {
    /// One descriptor to poll: readable when there is something to [take](Self::take).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Whoever made the folder removes it; a file left there harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    /// Reads up to the end of one line, and not past it: what a client sends before it is answered
    /// stays in the kernel's buffer, which is bounded, and makes the socket readable again.
    fn line(&mut self) -> Line {
        let mut seen = [0_u8; LONGEST + 1];
        let room = seen.len() - self.half_line.len();
        let Some(room) = seen.get_mut(..room).filter(|room| !room.is_empty()) else {
            return Line::Wrong("longer than 200 bytes");
        };
        let length = match rustix::net::recv(&self.stream, &mut *room, RecvFlags::PEEK) {
            Ok((0, _)) => return Line::Gone,
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Line::None,
            Err(_) => return Line::Gone,
        };
        let end = room.iter().take(length).position(|byte| *byte == b'\n');
        let taken = end.map_or(length, |end| end + 1);
        match rustix::net::recv(&self.stream, &mut room[..taken], RecvFlags::empty()) {
            Ok((read, _)) if read == taken => {}
            Err(Errno::INTR) => return Line::None,
            _ => return Line::Gone,
        }
        self.half_line.extend_from_slice(&room[..taken]);
        if end.is_none() {
            return if self.half_line.len() > LONGEST {
                Line::Wrong("longer than 200 bytes")
            } else {
                Line::None
            };
        }
        let Ok(text) = String::from_utf8(std::mem::take(&mut self.half_line)) else {
            return Line::Wrong("not UTF-8");
        };
        let text = text.trim_end_matches(['\n', '\r']);
        match wrong_with(text) {
            Some(reason) => Line::Wrong(reason),
            None => Line::Whole(text.to_owned()),
        }
    }

    /// Whether the answer went out. One that never reads its answers fills its buffer.
    fn say(&self, answer: &str) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::send(&self.stream, answer.as_bytes(), flags) == Ok(answer.len())
    }

    fn arm(&self, epoll: &OwnedFd) -> bool {
        epoll::modify(epoll, &self.stream, EventData::new_u64(self.number), ARMED).is_ok()
    }
}

const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
