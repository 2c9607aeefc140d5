//! A program tells moments to whoever watches its memory: "this is the baseline", "a cycle is
//! over".
//!
//! A sampler from outside sees memory rise and fall, and cannot know when a request was served or a
//! model dropped. Under `plimsoll exec`, `compare` and `check` the environment variable
//! [`PLIMSOLL_MARKS`](VARIABLE) names a Unix stream socket. The program connects, writes one line,
//! and waits for the line `ok`; its memory is read while it waits, so the numbers are of that very
//! moment.
//!
//! ```
//! use malloc_stats::mark;
//!
//! mark::tell("baseline");
//! for _ in 0..3 {
//!     let model = vec![1_u8; 1 << 20];
//!     drop(model);
//!     mark::tell("cycle");
//! }
//! ```
//!
//! Where the variable is not set, nothing happens. No failure reaches the program.
//!
//! # The words
//!
//! | word | the moment |
//! |---|---|
//! | `baseline` | all is warm, and nothing that the program should give back is held |
//! | `cycle` | a request, a model or a step is over, and what it took is dropped |
//! | `dropped` | everything is dropped: what is resident now is retained |
//! | any other | a note, shown as it is |
//!
//! # From other languages
//!
//! A line is at most [`LONGEST`] bytes of UTF-8 without control characters, and a newline. The
//! answer is `ok`, or `error` with the reason, after which the connection is closed. A connection
//! may be kept for many marks, one after the other. Python needs three lines, and a program that
//! may also run alone asks `os.environ` first:
//!
//! ```python
//! marks = socket.socket(socket.AF_UNIX); marks.connect(os.environ["PLIMSOLL_MARKS"])
//! marks.send(b"cycle\n")
//! marks.recv(16)
//! ```
//!
//! The other end is a [`Desk`].

mod desk;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

pub use desk::{Desk, Mark};

/// The environment variable with the path of the socket.
pub const VARIABLE: &str = "PLIMSOLL_MARKS";

/// The longest mark, in bytes, without its newline.
pub const LONGEST: usize = 200;

/// How long [`tell`] waits at most. Reading the memory of a large program takes a second or so; a
/// watcher that hangs must not hang the program for good.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer: `error`, and a short reason.
const LONGEST_ANSWER: usize = 256;

/// What became of a mark. To be ignored by a program that only wants to go on.
#[derive(Debug)]
pub enum Told {
    /// The memory was read while [`tell`] waited.
    Heard,
    /// Nobody asked: [`VARIABLE`] is not set, or empty.
    Unasked,
    /// Nobody heard it, or it was refused.
    Unheard(io::Error),
}

/// Tells `text` to whoever watches, and waits until the memory has been read; 30 seconds at most.
/// Does nothing where the environment variable [`VARIABLE`] is not set.
///
/// Connects anew for each mark: so it may be called from any thread and after any `fork`, and
/// leaves no descriptor open in between.
pub fn tell(text: &str) -> Told {
    match std::env::var_os(VARIABLE) {
        Some(path) if !path.is_empty() => match tell_at(&path, text) {
            Ok(()) => Told::Heard,
            Err(error) => Told::Unheard(error),
        },
        _ => Told::Unasked,
    }
}

fn tell_at(path: &OsStr, text: &str) -> io::Result<()> {
    if let Some(wrong) = wrong_with(text) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, wrong));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut stream = connect(path)?;
    send(&stream, format!("{text}\n").as_bytes())?;
    let mut answer = Vec::with_capacity(LONGEST_ANSWER);
    while !answer.ends_with(b"\n") && answer.len() < LONGEST_ANSWER {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut some = [0; LONGEST_ANSWER];
        match stream.read(&mut some) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => answer.extend(some.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A timeout of a socket reads as "would block".
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if answer == b"ok\n" {
        Ok(())
    } else {
        let answer = String::from_utf8_lossy(&answer);
        Err(io::Error::other(answer.trim_end().to_owned()))
    }
}

/// Connects; with a bound on time, since a full backlog makes `connect(2)` wait.
fn connect(path: &OsStr) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(PATIENCE))?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(path)?)?;
    Ok(stream)
}

/// Writes all of a short line. Not by `write(2)`: where the other end has gone, its signal would
/// end a program that does not ignore it.
fn send(stream: &UnixStream, line: &[u8]) -> io::Result<()> {
    let sent = rustix::io::retry_on_intr(|| rustix::net::send(stream, line, SendFlags::NOSIGNAL))?;
    if sent == line.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Why `text` cannot be a mark.
fn wrong_with(text: &str) -> Option<&'static str> {
    if text.trim().is_empty() {
        Some("an empty mark")
    } else if text.len() > LONGEST {
        Some("longer than 200 bytes")
    } else if text.chars().any(char::is_control) {
        Some("control characters in a mark")
    } else {
        None
    }
}
