//! One client: what it is told, as fast as it takes it.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::desk::{Desk, Due, Mailbox};
use super::input::{Came, Input, Written};
use crate::VERSION;
use crate::event::{Event, Kind};
use crate::request::{Answer, LONGEST_REQUEST};
use crate::subscribe::{Moment, Received, RecvError, Subscription};

/// Who takes nothing for so long, while something waits, is disconnected.
const STALLED: Duration = Duration::from_secs(5);

/// Lines are gathered up to so many bytes before they are sent.
const BATCH: usize = 64 << 10;

/// Sends and reads in a row before it is the next client's turn.
const TURN: usize = 8;

/// Requests of one client that may wait, or be under way.
const MOST_ASKED: usize = 4;

/// While so many answers wait for a client to read them, nothing more is taken from it.
const MOST_ANSWERS: usize = 16;

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
    input: Input,
    mailbox: Arc<Mailbox>,
    /// Requests that were not answered yet.
    asked: usize,
    /// Answers that are not in `lines` yet, in the order of the events they come before.
    answers: VecDeque<Due>,
    /// The client writes no more, which does not mean that it reads no more.
    silent: bool,
    /// It wrote what nobody should: it is told so, and nothing more.
    dismissed: bool,
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
            input: Input::new(),
            mailbox: Arc::default(),
            asked: 0,
            answers: VecDeque::new(),
            silent: false,
            dismissed: false,
            ended: false,
        };
        for kind in greeting {
            write_line(&mut client.lines, &beside(since, kind));
        }
        client
    }

    /// What it waits for.
    pub(super) fn interest(&mut self) -> PollFlags {
        let mut flags = PollFlags::empty();
        let reads = !self.silent && self.listens() && !self.input.has_line();
        flags.set(PollFlags::IN, reads && self.input.resumes_at().is_none());
        flags.set(PollFlags::OUT, self.is_sending());
        flags
    }

    fn is_sending(&self) -> bool {
        self.sent < self.lines.len()
    }

    /// Whether it may ask.
    fn listens(&self) -> bool {
        !self.dismissed && self.answers.len() < MOST_ANSWERS
    }

    /// When it counts as stalled, if it takes nothing until then.
    fn stalls_at(&self) -> Option<Instant> {
        self.is_sending().then(|| self.moved + STALLED)
    }

    /// When there is something to do for it, whatever its socket says.
    pub(super) fn wakes_at(&mut self) -> Option<Instant> {
        let resumes = self.input.resumes_at();
        let goes_on = self.listens() && self.input.has_line();
        let reads = resumes.or_else(|| goes_on.then(Instant::now));
        reads.into_iter().chain(self.stalls_at()).min()
    }

    /// Takes no more events; those that wait are still sent.
    pub(super) fn close(&self) {
        self.subscription.close();
    }

    /// Reads what it wrote, and sends what it takes, without waiting.
    pub(super) fn serve(&mut self, ready: PollFlags, desk: &Arc<Desk>) -> Result<(), Gone> {
        if ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(Gone);
        }
        self.listen(ready.contains(PollFlags::IN), desk)?;
        self.send()?;
        match self.stalls_at() {
            Some(at) if at <= Instant::now() => Err(Gone),
            _ => Ok(()),
        }
    }

    /// Takes requests out of what it wrote.
    fn listen(&mut self, mut more: bool, desk: &Arc<Desk>) -> Result<(), Gone> {
        let mut reads = 0;
        while self.listens() {
            match self.input.next() {
                Written::Ask(ask) => {
                    let id = ask.id;
                    let taken = if self.asked < MOST_ASKED {
                        desk.take(ask, &self.mailbox)
                    } else {
                        Err(format!("{MOST_ASKED} requests of this client wait already"))
                    };
                    match taken {
                        Ok(()) => self.asked += 1,
                        Err(why) => self.refuse(id, why),
                    }
                }
                Written::Nonsense(id, why) => self.refuse(id, why),
                Written::TooLong => {
                    let why = format!("a request has at most {LONGEST_REQUEST} bytes");
                    self.refuse(0, why);
                    self.dismissed = true;
                }
                Written::Nothing => {
                    if !more || reads == TURN || self.input.resumes_at().is_some() {
                        return Ok(());
                    }
                    reads += 1;
                    match self.input.read(&self.socket)? {
                        Came::Some => {}
                        Came::Nothing => more = false,
                        Came::End => {
                            self.silent = true;
                            more = false;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// At once, before any event.
    fn refuse(&mut self, id: u64, why: String) {
        let mut answer = Answer::refused(why);
        answer.id = id;
        let at = self.answers.partition_point(|(due, _)| *due == 0);
        self.answers.insert(at, (0, answer));
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
        let answers = self.mailbox.take();
        self.asked -= answers.len();
        self.answers.extend(answers);
        if self.dismissed {
            self.write_answers(u64::MAX);
            self.ended = true;
            return;
        }
        while self.lines.len() < BATCH {
            match self.subscription.try_recv() {
                Ok(Received::Event(event)) => {
                    self.write_answers(event.seq);
                    self.place.last_seq = event.seq;
                    self.place.at_us = event.at_us;
                    write_line(&mut self.lines, &event);
                }
                Ok(Received::Dropped(count)) => {
                    let text = format!("{count} events were dropped here: this reader is too slow");
                    write_line(&mut self.lines, &beside(self.place, Kind::Note { text }));
                }
                Err(error) => {
                    // All that was told before these answers is in `lines`.
                    self.write_answers(u64::MAX);
                    self.ended = error == RecvError::Closed && self.asked == 0;
                    break;
                }
            }
        }
    }

    /// Writes the answers that come before the event of this number.
    fn write_answers(&mut self, seq: u64) {
        while let Some((_, answer)) = self.answers.pop_front_if(|(due, _)| *due <= seq) {
            let kind = Kind::Answer(Box::new(answer));
            write_line(&mut self.lines, &beside(self.place, kind));
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
        self.mailbox.abandon();
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
