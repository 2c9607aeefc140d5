//! One client: what it is told, as fast as it takes it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::VERSION;
use crate::event::{Event, Kind};
use crate::subscribe::{Moment, Received, RecvError, Subscription};

/// Who takes nothing for so long, while something waits, is disconnected.
const STALLED: Duration = Duration::from_secs(5);

/// Lines are gathered up to so many bytes before they are sent.
const BATCH: usize = 64 << 10;

/// Sends and reads in a row before it is the next client's turn.
const TURN: usize = 8;

/// Reads, of 4 KiB, for what a client wrote before it was hung up on: more than its socket holds.
const MOST_SCRAPS: usize = 256;

/// The client is gone, or is to go.
pub(super) struct Gone;

pub(super) struct Client {
    socket: UnixStream,
    subscription: Subscription,
    /// Lines on their way, of which `sent` bytes are sent.
    lines: Vec<u8>,
    sent: usize,
    /// When something was last taken, or began to wait.
    moved: Instant,
    /// Where the client is in the stream.
    place: Moment,
    /// The client writes no more, which does not mean that it reads no more.
    silent: bool,
    /// Nothing comes after `lines`.
    ended: bool,
}

impl Client {
    pub(super) fn new(
        socket: UnixStream,
        subscription: Subscription,
        since: Moment,
        greeting: Vec<Kind>,
    ) -> Client {
        let mut client = Client {
            socket,
            subscription,
            lines: Vec::new(),
            sent: 0,
            moved: Instant::now(),
            place: since,
            silent: false,
            ended: false,
        };
        for kind in greeting {
            write_line(&mut client.lines, &beside(since, kind));
        }
        client
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !self.silent);
        flags.set(PollFlags::OUT, self.is_sending());
        flags
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sent < self.lines.len()
    }

    /// When it counts as stalled, if it takes nothing until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.is_sending().then(|| self.moved + STALLED)
    }

    /// Takes no more events; those that wait are still sent.
    pub(super) fn close(&self) {
        self.subscription.close();
    }

    /// Reads what it wrote, and sends what it takes, without waiting.
    pub(super) fn serve(&mut self, ready: PollFlags) -> Result<(), Gone> {
        if ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(Gone);
        }
        if ready.contains(PollFlags::IN) {
            self.ignore_input()?;
        }
        self.send()?;
        match self.deadline() {
            Some(deadline) if deadline <= Instant::now() => Err(Gone),
            _ => Ok(()),
        }
    }

    fn ignore_input(&mut self) -> Result<(), Gone> {
        let mut scrap = [0; 4096];
        for _ in 0..TURN {
            match (&self.socket).read(&mut scrap) {
                Ok(0) => {
                    self.silent = true;
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Gone> {
        let mut sends = 0;
        loop {
            if !self.is_sending() {
                self.gather();
            }
            if !self.is_sending() {
                return if self.ended { Err(Gone) } else { Ok(()) };
            }
            // With lines on their way, there is another turn as soon as they are taken.
            if sends == TURN {
                return Ok(());
            }
            sends += 1;
            // Not `write`: a program may have SIGPIPE end it.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.lines[self.sent..], flags) {
                Ok(bytes) => {
                    self.sent += bytes;
                    self.moved = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Fills `lines` with what waits in the queue.
    fn gather(&mut self) {
        self.lines.clear();
        self.sent = 0;
        self.moved = Instant::now();
        while self.lines.len() < BATCH {
            match self.subscription.try_recv() {
                Ok(Received::Event(event)) => {
                    self.place.last_seq = event.seq;
                    self.place.at_us = event.at_us;
                    write_line(&mut self.lines, &event);
                }
                Ok(Received::Dropped(count)) => {
                    let text = format!("{count} events were dropped here: this reader is too slow");
                    write_line(&mut self.lines, &beside(self.place, Kind::Note { text }));
                }
                Err(RecvError::Empty) => break,
                Err(RecvError::Closed) => {
                    self.ended = true;
                    break;
                }
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        hang_up(&self.socket);
    }
}

/// Tells a client why it is not served, if it takes it, and hangs up.
pub(super) fn turn_away(socket: &UnixStream, at: Moment, text: String) {
    let mut line = Vec::new();
    write_line(&mut line, &beside(at, Kind::Note { text }));
    let _ = rustix::net::send(socket, &line, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    hang_up(socket);
}

/// Ends the connection, though a fork of this process may have the descriptor too. What the client
/// wrote is read to the end, or it would get an error for the end of what it is told.
fn hang_up(mut socket: &UnixStream) {
    let _ = socket.shutdown(std::net::Shutdown::Both);
    let mut scrap = [0; 4096];
    for _ in 0..MOST_SCRAPS {
        if !matches!(socket.read(&mut scrap), Ok(1..)) {
            return;
        }
    }
}

/// A line that is no event of the stream: it has the number of the last one before.
fn beside(place: Moment, kind: Kind) -> Event {
    Event {
        v: VERSION,
        seq: place.last_seq,
        at_us: place.at_us,
        kind,
    }
}

fn write_line(lines: &mut Vec<u8>, event: &Event) {
    let whole = lines.len();
    if let Err(error) = serde_json::to_writer(&mut *lines, event) {
        lines.truncate(whole);
        let at = Moment {
            last_seq: event.seq,
            at_us: event.at_us,
        };
        let text = format!("an event could not be written: {error}");
        // A sentence can always be written.
        let _ = serde_json::to_writer(&mut *lines, &beside(at, Kind::Note { text }));
    }
    lines.push(b'\n');
}
