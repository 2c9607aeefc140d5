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
//!   mode 0600 before it accepts anybody, and each client's user is asked of the kernel. A client
//!   from a PID namespace that this process cannot see into is refused.
//! - **Nothing stays behind.** The socket is removed when the publication is dropped, by the
//!   process that began it alone; what a killed process left is removed by the next one.
//!
//! At most 16 clients are served at once; the next is told so in a note, and closed. What a client
//! writes is read and ignored: there are no requests yet.

mod client;
mod folder;
mod follow;
mod place;
mod server;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::VERSION;
use crate::event::Kind;
use crate::stream::Stream;

pub use folder::{Published, published};
pub use follow::{Follow, Heard, connect};

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

/// A stream that other processes of the same user can hear, for as long as this lives.
///
/// Dropping it removes the socket, gives clients up to 1 s in all to take what was told before,
/// and disconnects them. It waits for the thread that serves, so it must not be dropped under a
/// lock that the greeting takes. The stream is not kept open: when it ends, clients are closed.
pub struct Publication {
    place: Place,
    bell: Arc<Bell>,
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
    /// `greet` tells a client the state when it connects: what it gives comes before the events. It
    /// runs on the thread that serves, so a slow one delays clients, and nothing else.
    ///
    /// # Errors
    /// The folder is not safe or cannot be made, the path is too long, or something is there: a
    /// socket that nobody listens on is replaced, and nothing else is.
    pub fn begin(
        stream: &Stream,
        path: Option<PathBuf>,
        greet: impl Fn() -> Vec<Kind> + Send + Sync + 'static,
    ) -> Result<Publication, PublishError> {
        let (listener, place) = place::listen(path)?;
        let bell = Bell::new().map_err(PublishError::io(place.path(), "make an event counter"))?;
        let bell = Arc::new(bell);
        let server = Server::new(
            listener,
            Arc::clone(stream.hearers()),
            Box::new(greet),
            Arc::clone(&bell),
        );
        let thread = std::thread::Builder::new()
            .name("plimsoll-events".to_owned())
            .spawn(move || server.run())
            .map_err(PublishError::io(place.path(), "start a thread"))?;
        Ok(Publication {
            place,
            bell,
            thread: Some(thread),
        })
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
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
            // A server that panicked serves nobody; there is nothing to add here.
            let _ = thread.join();
        }
    }
}
