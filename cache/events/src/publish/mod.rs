//! Hearing a stream from another process: a Unix socket that live screens connect to.
//!
//! What a [`Publication`] guarantees:
//!
//! - **A reader never slows the program.** One thread serves all clients, without ever waiting for
//!   one. Each has a [subscription](crate::subscribe) of its own: who reads too slowly loses events,
//!   alone, and is told how many in a [`Kind::Note`]. Who takes nothing for 5 s while something
//!   waits is disconnected. With nobody connected, the stream is not heard and costs nothing.
//! - **A late joiner knows the state, and nothing falls between.** Its subscription begins before
//!   its greeting is made. So what happened while the greeting was made may be told twice, in the
//!   greeting and as an event, and is never left out.
//! - **Numbers stay true.** Lines are [`Event`](crate::Event)s as in a recording. Those that are no
//!   events of the stream, the greeting and notes about dropped events, repeat the number of the
//!   last event before them (0 if there was none). A reader takes the first number that it hears
//!   as its start; from there on a gap in the numbers is always a loss, never a greeting.
//! - **Only the same user reads**, and root. The default folder is nobody else's, the socket has
//!   mode 0600 before it accepts anybody, and each client's user is asked of the kernel.
//! - **Nothing stays behind.** The socket is removed when the publication is dropped, by the
//!   process that began it alone; what a killed process left is removed by the next one.
//!
//! At most 16 clients are served at once; the next is told so in a note, and closed.
//!
//! A client may [ask](crate::request) as well, one JSON object a line:
//!
//! - **Requests are done one at a time**, in the order they came, on a thread of their own that
//!   begins with the first: neither the program nor any client waits for them.
//! - **Every whole line is answered**, to its client alone, after the events that were told before
//!   the answer. What is no request, or one more than 4 of a client that wait, is refused, with the
//!   reason. A line longer than [`LONGEST_REQUEST`] is refused,
//!   and its client is hung up on. A line without an end is none.
//! - **Who floods waits.** Of each client 32 lines are taken in 100 ms, and none while 16 answers
//!   wait for it to read them.
//! - **Who is gone asks no more.** Requests of a client that has hung up are not begun. One that
//!   only writes no more is still answered.

mod asker;
mod client;
mod desk;
mod folder;
mod follow;
mod input;
mod place;
mod server;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::VERSION;
use crate::event::Kind;
use crate::request::{Answer, LONGEST_REQUEST, Request};
use crate::stream::Stream;

pub use asker::Asker;
pub use folder::{Published, published};
pub use follow::{Follow, Heard, connect};
pub use malloc_stats::peer::Peer;

use desk::Desk;
use place::Place;
use server::{Bell, Server};

/// Why a stream cannot be published, or what is published cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The folder for sockets is not safe.
    #[error("{} is refused as a folder for sockets: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The path does not fit into the address of a socket.
    #[error(
        "{}: {bytes} bytes, and the path of a socket in that folder may have {most}; \
         name a shorter one",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length, bytes.
        bytes: usize,
        /// The longest that works in this folder, bytes.
        most: usize,
    },
    /// Somebody publishes there.
    #[error("{}: somebody publishes there already; name another path", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// What is there is no socket.
    #[error("{} is there, and is no socket; remove it, or name another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Nobody publishes there.
    #[error(
        "{}: nobody publishes there (any more); is the process still running?",
        path.display()
    )]
    Nobody {
        /// The path.
        path: PathBuf,
    },
    /// Somebody publishes there, and does not answer.
    #[error(
        "{}: no answer in {seconds} s; is the process stopped, or very busy?",
        path.display()
    )]
    NoAnswer {
        /// The path.
        path: PathBuf,
        /// How long it was tried, seconds.
        seconds: u64,
    },
    /// A line is not an event.
    #[error("{}, line {line}: not an event: {reason}; is this a plimsoll socket?", path.display())]
    Broken {
        /// The path.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The publisher is of a later version.
    #[error(
        "{}: version {found} of the stream, and this program reads up to {VERSION}; \
         use a newer plimsoll",
        path.display()
    )]
    Version {
        /// The path.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
    /// A request is longer than a publisher takes.
    #[error("{}: a request of {bytes} bytes, and it takes {LONGEST_REQUEST}", path.display())]
    LongRequest {
        /// The path.
        path: PathBuf,
        /// Its length, bytes.
        bytes: usize,
    },
    /// The system refuses.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl PublishError {
    fn io<E: Into<io::Error>>(path: &Path, doing: &'static str) -> impl FnOnce(E) -> PublishError {
        move |error| PublishError::Io {
            path: path.to_owned(),
            doing,
            source: error.into(),
        }
    }
}

/// What stands behind a publication. Whatever of it panics is told to the client that it was for.
pub trait Host: Send + Sync + 'static {
    /// Tells a client the state when it connects: what this gives comes before the events. It runs
    /// on the thread that serves, so a slow one delays clients, and nothing else.
    fn greeting(&self) -> Vec<Kind>;

    /// Does what a client asks, and says what came of it; its number and its time are filled in. It
    /// runs on the thread for requests, and may take long.
    fn answer(&self, request: &Request) -> Answer {
        let _ = request;
        Answer::refused("nothing can be asked of this program")
    }

    /// So many clients are there now, which is another number than the last time: 0 at first. It
    /// runs on the thread that serves.
    fn attended(&self, clients: usize) {
        let _ = clients;
    }
}

/// A host that only greets.
struct Greeter<F>(F);

impl<F: Fn() -> Vec<Kind> + Send + Sync + 'static> Host for Greeter<F> {
    fn greeting(&self) -> Vec<Kind> {
        (self.0)()
    }
}

/// A stream that other processes of the same user can hear, for as long as this lives.
///
/// Dropping it removes the socket, gives clients up to 1 s in all to take what was told before,
/// and disconnects them. It waits for the thread that serves, and for a request under way to end,
/// so it must not be dropped under a lock that those take; requests that were not begun are refused.
/// Dropped by one of these threads itself, it waits for none. The stream is not kept open: when it
/// ends, clients are closed, once what they asked is answered.
pub struct Publication {
    place: Place,
    bell: Arc<Bell>,
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Publication {
    /// Publishes a stream on a socket at `path`, or where [`published`] finds it:
    /// `$XDG_RUNTIME_DIR/plimsoll/PID.sock`, where that variable names a folder of this user, else
    /// `/tmp/plimsoll-UID/PID.sock`; a second publication of a process gets `PID-2.sock`.
    ///
    /// `greet` tells a client the state when it connects, see [`Host::greeting`]. Nothing can be
    /// asked.
    ///
    /// # Errors
    /// The folder is not safe or cannot be made, the path is too long, or something is there: a
    /// socket that nobody listens on is replaced, and nothing else is.
    pub fn begin(
        stream: &Stream,
        path: Option<PathBuf>,
        greet: impl Fn() -> Vec<Kind> + Send + Sync + 'static,
    ) -> Result<Publication, PublishError> {
        Publication::begin_with(stream, path, Greeter(greet))
    }

    /// The same, with a host that is asked too.
    ///
    /// # Errors
    /// As [`begin`](Publication::begin).
    pub fn begin_with(
        stream: &Stream,
        path: Option<PathBuf>,
        host: impl Host,
    ) -> Result<Publication, PublishError> {
        let (listener, place) = place::listen(path)?;
        let bell = Bell::new().map_err(PublishError::io(place.path(), "make an event counter"))?;
        let bell = Arc::new(bell);
        let hearers = stream.hearers();
        let host: Arc<dyn Host> = Arc::new(host);
        let desk = Desk::new(Arc::clone(&host), Arc::clone(hearers), Arc::clone(&bell));
        let desk = Arc::new(desk);
        let server = Server::new(
            listener,
            Arc::clone(hearers),
            host,
            Arc::clone(&bell),
            Arc::clone(&desk),
        );
        let thread = std::thread::Builder::new()
            .name("plimsoll-events".to_owned())
            .spawn(move || server.run())
            .map_err(PublishError::io(place.path(), "start a thread"))?;
        Ok(Publication {
            place,
            bell,
            desk,
            thread: Some(thread),
        })
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Does nothing more of what is asked: it is refused from now on. Waits for a request under way
    /// to end, as the drop does; events are told on. With this a program that ends its stream knows
    /// that nothing is told after the end.
    pub fn end_requests(&self) {
        // A fork has no thread for requests.
        if self.place.is_ours() {
            self.desk.close();
            if !self.desk.is_here() {
                self.desk.join();
            }
        }
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if !self.place.is_ours() {
            // A fork has no such thread: to wait for it, or to tell it to end, would be to hang,
            // or to end the service of the parent, which has the same event counter.
            std::mem::forget(thread);
            return;
        }
        // The socket goes first, while it still answers: nobody takes it for a dead one.
        self.place.remove();
        self.bell.close();
        if let Some(thread) = thread {
            let is_here = thread.thread().id() == std::thread::current().id();
            if !is_here && !self.desk.is_here() {
                // A server that panicked serves nobody; there is nothing to add here.
                let _ = thread.join();
            }
        }
    }
}
