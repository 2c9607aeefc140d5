//! A live cache, by its socket; and beside its own stream what is seen of the process from outside.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use malloc_stats::inspect::{Ending, Looker, Pulse, Target, Watch};
use plimsoll_events::{
    Answer, Ask, Event, Follow, Heard as Line, Kind, Peer, PublishError, VERSION, connect,
    published,
};
use rustix::process::geteuid;

use super::process::{kept, look, pulse};
use super::sleep::sleep_on;
use super::{About, Control, Heard, Source, SourceError, SourceKind};
use crate::live::state::Ended;

/// Events handed on at a time; whoever listens folds them before it draws.
const BATCH: usize = 2000;

/// Without a sample in the stream for so many intervals, the process's pulse is taken from here.
const SILENT_INTERVALS: u32 = 3;

/// How long a first line may take to end, once it has begun.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after it hung up a process may take to end.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// The socket under which a process publishes, by the number that it gives itself.
#[must_use]
pub fn socket_of(pid: u32) -> Option<PathBuf> {
    let mut found = published().into_iter();
    found.find(|found| found.pid == pid).map(|found| found.path)
}

/// A process that publishes what its cache does.
#[derive(Debug)]
pub struct SocketSource {
    about: About,
    follow: Follow,
    interval: Duration,
    /// The publisher, where it can be seen from here.
    process: Option<Publisher>,
    connected: Instant,
    /// The last line that was heard: its number, its time, and when that was.
    last: Option<(u64, u64, Instant)>,
    last_sample: Instant,
    next_pulse: Instant,
    /// What is to be told beside the stream.
    beside: VecDeque<Kind>,
    /// Requests that were not answered yet.
    asked: BTreeSet<u64>,
    /// Chunks were asked for, and not answered yet.
    owes_chunks: bool,
    /// The stream said that it ends.
    closed: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Live,
    HungUp(Instant),
    Ended(Ended),
}

/// The process at the other end of the socket.
#[derive(Debug)]
struct Publisher {
    target: Arc<Target>,
    watch: Watch,
    pulse: Pulse,
    /// Once the stream has said that it is of this process.
    looker: Option<Looker>,
}

impl Publisher {
    fn of(peer: &Peer) -> Option<Publisher> {
        let target = Target::open(peer.pid?.get()).ok()?;
        Some(Publisher {
            watch: Watch::begin(&target).ok()?,
            pulse: Pulse::of(&target).ok()?,
            target: Arc::new(target),
            looker: None,
        })
    }

    /// The number by which it knows itself: in a PID namespace of its own it is another.
    fn own_number(&self) -> Option<u32> {
        let status = self.target.text("status").ok()?;
        let numbers = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?;
        numbers.split_ascii_whitespace().next_back()?.parse().ok()
    }
}

impl SocketSource {
    /// Connects to a socket. What the stream does not tell is read from outside at least `interval`
    /// (100 ms to 60 s, clamped; a second is usual) apart, where the process may be looked at: its
    /// heap, and its memory while the stream has no samples.
    ///
    /// # Errors
    /// [`SourceError::Publish`] where nobody answers there.
    pub fn connect(path: &Path, interval: Duration) -> Result<SocketSource, SourceError> {
        let follow = connect(path)?;
        let peer = follow.peer().ok();
        let process = peer.as_ref().and_then(Publisher::of);
        let pid = process.as_ref().map(|process| process.target.pid());
        let now = Instant::now();
        Ok(SocketSource {
            about: About {
                name: path.display().to_string(),
                kind: SourceKind::Cache,
                pid,
                takes_requests: peer.is_some_and(|peer| peer.uid == geteuid().as_raw()),
                ..About::default()
            },
            follow,
            interval: kept(interval),
            process,
            connected: now,
            last: None,
            last_sample: now,
            next_pulse: now,
            beside: VecDeque::new(),
            asked: BTreeSet::new(),
            owes_chunks: false,
            closed: false,
            phase: Phase::Live,
        })
    }

    /// A line of the stream.
    fn take(&mut self, event: Event, into: &mut Vec<Event>) {
        let now = Instant::now();
        self.last = Some((event.seq, event.at_us, now));
        match &event.kind {
            Kind::Opened(opened) => self.meet(&opened.program, opened.pid),
            Kind::Sample(_) => self.last_sample = now,
            Kind::Closed(_) => self.closed = true,
            Kind::Answer(answer) => {
                self.asked.remove(&answer.id);
            }
            _ => {}
        }
        into.push(event);
    }

    /// The stream says whose it is.
    fn meet(&mut self, program: &str, pid: u32) {
        self.about.name = format!("{program}:{pid}");
        let Some(process) = &mut self.process else {
            self.about.pid = Some(pid);
            return;
        };
        if process.own_number() != Some(pid) {
            let through = process.target.pid();
            self.about.troubles.push(format!(
                "the stream is of process {pid} and comes through {through}: nothing looks into it"
            ));
            self.about.pid = Some(pid);
            self.process = None;
        } else if process.looker.is_none() {
            match Looker::begin(Arc::clone(&process.target), self.interval) {
                Ok(looker) => process.looker = Some(looker),
                Err(error) => {
                    let text = format!("nothing looks into it: no thread: {error}");
                    self.beside.push_back(Kind::Note { text });
                }
            }
        }
    }

    /// All that is there to be read, and no more than a batch.
    fn read(&mut self, into: &mut Vec<Event>) -> Result<(), SourceError> {
        let most = into.len().saturating_add(BATCH);
        while into.len() < most {
            match self.follow.next_within(Duration::ZERO) {
                Ok(Line::Event(event)) => self.take(*event, into),
                Ok(Line::Nothing) => break,
                Ok(Line::Closed) => {
                    self.phase = Phase::HungUp(Instant::now());
                    break;
                }
                Err(error) if self.last.is_none() => return Err(error.into()),
                Err(error) => {
                    self.end(Ended {
                        why: error.to_string(),
                        in_order: false,
                    });
                    break;
                }
            }
        }
        if self.last.is_none() {
            self.check_first_line()?;
        }
        Ok(())
    }

    /// Before the first event there is nothing to show, and what went wrong is an error.
    fn check_first_line(&self) -> Result<(), SourceError> {
        let path = || self.follow.path().to_owned();
        let begun = self.follow.unfinished();
        let hung_up = matches!(self.phase, Phase::HungUp(_));
        let error = match (hung_up, begun) {
            (false, 1..) if self.connected.elapsed() > PATIENCE => PublishError::NoAnswer {
                path: path(),
                seconds: PATIENCE.as_secs(),
            },
            (false, _) => return Ok(()),
            (true, 1..) => PublishError::Broken {
                path: path(),
                line: 1,
                reason: format!("cut off after {begun} bytes"),
            },
            (true, 0) if !self.about.takes_requests && !geteuid().is_root() => PublishError::Io {
                path: path(),
                doing: "read events",
                source: io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "it was made by another user, and shows itself to that one and root alone",
                ),
            },
            (true, 0) => PublishError::Nobody { path: path() },
        };
        Err(error.into())
    }

    /// What was found from outside, and what else is no part of the stream.
    fn look_beside(&mut self, into: &mut Vec<Event>) -> Option<Heard> {
        let (seq, at_us, heard) = self.last?;
        let mut chunks = None;
        if let Some(process) = &mut self.process
            && let Some(looker) = &process.looker
        {
            let found = looker.take();
            let trouble = found.trouble.map(|trouble| Kind::Note {
                text: format!("it could not be looked into: {trouble}"),
            });
            let looked = found.inspection.map(|inspection| look(*inspection));
            self.beside.extend(looked.into_iter().chain(trouble));
            self.owes_chunks &= found.chunks.is_none();
            chunks = found.chunks.map(Heard::Chunks);
            if self.next_pulse <= Instant::now() {
                self.next_pulse = Instant::now() + self.interval;
                process.watch.note_kills();
                // Another process may hold its end of the socket open.
                if heard.elapsed() > LAST_BREATH && process.watch.has_ended() {
                    self.phase = Phase::HungUp(Instant::now());
                }
                let silent = self.last_sample.elapsed() > self.interval * SILENT_INTERVALS;
                if silent && let Ok(snapshot) = process.pulse.read() {
                    self.beside.push_back(pulse(snapshot));
                }
            }
        }
        let since = u64::try_from(heard.elapsed().as_micros()).unwrap_or(u64::MAX);
        into.extend(self.beside.drain(..).map(|kind| Event {
            v: VERSION,
            seq,
            at_us: at_us.saturating_add(since),
            kind,
        }));
        chunks
    }

    /// It hung up: says why as soon as that can be known.
    fn part(&mut self) {
        let Phase::HungUp(at) = self.phase else {
            return;
        };
        let ending = match &mut self.process {
            Some(process) => process.watch.ending(),
            None => None,
        };
        if ending.is_none() && self.process.is_some() && at.elapsed() < LAST_BREATH {
            return;
        }
        let in_order = match &ending {
            Some(Ending { code, .. }) if code.is_some() => *code == Some(0),
            Some(Ending { signal, .. }) => self.closed && signal.is_none(),
            None => self.closed,
        };
        let why = match (ending, self.follow.unfinished()) {
            (Some(ending), _) => ending.to_string(),
            (None, _) if self.closed => "it ended its stream".to_owned(),
            (None, 0) => "it hung up".to_owned(),
            (None, bytes) => format!("it hung up in the middle of a line, after {bytes} bytes"),
        };
        self.end(Ended { why, in_order });
    }

    fn end(&mut self, ended: Ended) {
        self.phase = Phase::Ended(ended);
        // Nothing is told any more of what is found in it.
        self.process = None;
        for id in std::mem::take(&mut self.asked) {
            self.refuse(id, "it ended before it answered".to_owned());
        }
    }

    /// That there are no chunks, where nobody looks for them.
    fn deny_chunks(&mut self) -> Option<Heard> {
        let process = self.process.as_ref();
        if process.is_some_and(|process| process.looker.is_some()) {
            return None;
        }
        let why = match self.phase {
            Phase::Ended(_) => "it has ended",
            _ => "nothing looks into it",
        };
        std::mem::take(&mut self.owes_chunks).then(|| Heard::Chunks(Err(why.to_owned())))
    }

    fn refuse(&mut self, id: u64, said: String) {
        self.beside.push_back(Kind::Answer(Box::new(Answer {
            id,
            said,
            refused: true,
            ..Answer::default()
        })));
    }

    /// How long until something is to be done, whether or not anything is heard.
    fn until_next(&self) -> Duration {
        match (&self.phase, &self.process) {
            (Phase::HungUp(at), _) => LAST_BREATH.saturating_sub(at.elapsed()),
            (_, Some(_)) => self.next_pulse.saturating_duration_since(Instant::now()),
            (_, None) => Duration::MAX,
        }
        .max(Duration::from_millis(1))
    }
}

impl Source for SocketSource {
    fn about(&self) -> About {
        self.about.clone()
    }

    fn hear(&mut self, within: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        let until = Instant::now().checked_add(within);
        let before = into.len();
        loop {
            if let Some(denied) = self.deny_chunks() {
                return Ok(denied);
            }
            match &self.phase {
                Phase::Live => self.read(into)?,
                Phase::HungUp(_) => self.part(),
                // What was asked is answered first, whatever became of it.
                Phase::Ended(_) if self.last.is_some() && !self.beside.is_empty() => {}
                Phase::Ended(ended) => return Ok(Heard::Ended(ended.clone())),
            }
            // After the stream's own: those are older.
            if let Some(heard) = self.look_beside(into) {
                return Ok(heard);
            }
            let left = until.map_or(Duration::MAX, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if into.len() > before || left.is_zero() {
                return Ok(Heard::Events);
            }
            let process = self.process.as_ref();
            let (socket, pidfd) = match &self.phase {
                Phase::Live => (Some(self.follow.as_fd()), None),
                Phase::HungUp(_) => (None, process.and_then(|process| process.watch.pidfd())),
                Phase::Ended(_) => continue,
            };
            let looker = process.and_then(|process| process.looker.as_ref());
            let left = left.min(self.until_next());
            sleep_on([socket, pidfd, looker.map(Looker::bell)], left);
        }
    }

    fn control(&mut self, control: Control) {
        let looker = self.process.as_ref().and_then(|it| it.looker.as_ref());
        match control {
            Control::Request { id, request } if self.about.takes_requests => {
                match self.follow.ask(&Ask { id, request }) {
                    Ok(()) => {
                        self.asked.insert(id);
                    }
                    Err(error) => self.refuse(id, error.to_string()),
                }
            }
            Control::Request { id, .. } => {
                self.refuse(id, "only its own user may ask it for anything".to_owned());
            }
            Control::LookNow => looker.into_iter().for_each(Looker::look_now),
            Control::Chunks { arena, from, to } => {
                looker
                    .into_iter()
                    .for_each(|looker| looker.read_chunks(arena, from..to));
                self.owes_chunks = true;
            }
            _ => {}
        }
    }
}
