//! Any process, looked at from outside: its pulse on a clock, and looks into it as they come.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use malloc_stats::Snapshot;
use malloc_stats::inspect::{Change, Inspection, Looker, Pulse, Target, TargetError, Watch};
use plimsoll_events::{Event, Kind, Look, Opened, VERSION};
use rustix::io::Errno;

use super::sleep::sleep_on;
use super::{About, Control, Heard, Source, SourceError, SourceKind};
use crate::live::state::Ended;

/// The shortest and the longest time between two readings.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// An interval that can be kept.
pub(super) fn kept(interval: Duration) -> Duration {
    interval.clamp(INTERVALS.0, INTERVALS.1)
}

/// A process that is looked at from outside, and knows nothing of it.
#[derive(Debug)]
pub struct ProcessSource {
    about: About,
    target: Arc<Target>,
    pulse: Pulse,
    watch: Watch,
    /// Absent where its thread cannot be had, and once the process has ended.
    looker: Option<Looker>,
    /// Chunks were asked for, and not answered yet.
    owes_chunks: bool,
    /// It became what cannot be looked into, and that was told.
    is_closed_to_looks: bool,
    interval: Duration,
    begun: Instant,
    next_pulse: Instant,
    next_seq: u64,
    /// What is told before anything else.
    first: Vec<Kind>,
    ended: Option<Ended>,
}

impl ProcessSource {
    /// Looks at a process from now on: its memory and limits every `interval` (100 ms to 60 s,
    /// clamped; a second is usual), its heap as often as costs a hundredth of the time at most.
    ///
    /// # Errors
    /// [`SourceError::Target`] where there is no such process, or nothing to look at. That its
    /// memory may not be read is no error: the looks say so.
    pub fn open(pid: u32, interval: Duration) -> Result<ProcessSource, SourceError> {
        let target = Arc::new(Target::open(pid)?);
        let unread = |file| {
            move |source: io::Error| match Errno::from_io_error(&source) {
                Some(Errno::SRCH | Errno::NOENT) => TargetError::NoSuchProcess { pid },
                _ => TargetError::Unreadable { pid, file, source },
            }
        };
        let watch = Watch::begin(&target).map_err(unread("stat"))?;
        let pulse = Pulse::of(&target).map_err(unread("status"))?;
        let interval = kept(interval);
        let program = program_of(&target);
        let mut first = vec![opened(pid, &program)];
        let looker = match Looker::begin(Arc::clone(&target), interval) {
            Ok(looker) => Some(looker),
            Err(error) => {
                first.push(note(format!("nothing looks into it: no thread: {error}")));
                None
            }
        };
        let now = Instant::now();
        Ok(ProcessSource {
            about: About {
                name: format!("{program}:{pid}"),
                kind: SourceKind::Process,
                pid: Some(pid),
                ..About::default()
            },
            target,
            pulse,
            watch,
            looker,
            owes_chunks: false,
            is_closed_to_looks: false,
            interval,
            begun: now,
            next_pulse: now,
            next_seq: 0,
            first,
            ended: None,
        })
    }

    fn tell(&mut self, kind: Kind, into: &mut Vec<Event>) {
        let at_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        into.push(Event {
            v: VERSION,
            seq: self.next_seq,
            at_us,
            kind,
        });
        self.next_seq += 1;
    }

    /// The process runs another program now: all its memory is another's.
    fn go_on_with_another_program(&mut self, into: &mut Vec<Event>) {
        let pid = self.target.pid();
        match Target::open(pid) {
            Ok(target) => {
                let target = Arc::new(target);
                let program = program_of(&target);
                self.tell(
                    note(format!("it runs another program now: {program}")),
                    into,
                );
                self.about.name = format!("{program}:{pid}");
                if let Some(looker) = &self.looker {
                    looker.turn_to(Arc::clone(&target));
                }
                self.target = target;
                self.is_closed_to_looks = false;
            }
            // Its end is noticed by other means.
            Err(_) if self.watch.has_ended() => {}
            Err(error) => {
                // Looked for again with each pulse: it may yet run another.
                if !std::mem::replace(&mut self.is_closed_to_looks, true) {
                    let text =
                        format!("it runs another program now, which is not looked into: {error}");
                    self.tell(note(text), into);
                }
            }
        }
    }

    fn take_pulse(&mut self, into: &mut Vec<Event>) {
        let now = Instant::now();
        // From now, not from when it was due: what was missed while nobody listened is not made up.
        self.next_pulse = now + self.interval;
        self.watch.note_kills();
        if self.target.changed() == Some(Change::Executed) {
            self.go_on_with_another_program(into);
        }
        match self.pulse.read() {
            // A zombie has no memory; it has ended.
            Ok(snapshot) if !snapshot.process.rss.is_unavailable() => {
                self.tell(pulse(snapshot), into);
            }
            _ if self.watch.has_ended() => {}
            Ok(_) => {}
            Err(error) => self.tell(note(format!("its memory cannot be read: {error}")), into),
        }
    }

    /// What was found by looking.
    fn collect(&mut self, into: &mut Vec<Event>) -> Option<Heard> {
        let Some(looker) = &self.looker else {
            let why = match self.ended {
                Some(_) => "it has ended",
                None => "nothing looks into it",
            };
            return std::mem::take(&mut self.owes_chunks)
                .then(|| Heard::Chunks(Err(why.to_owned())));
        };
        let found = looker.take();
        if let Some(inspection) = found.inspection {
            self.tell(look(*inspection), into);
        }
        if let Some(trouble) = found.trouble {
            self.tell(
                note(format!("it could not be looked into: {trouble}")),
                into,
            );
        }
        self.owes_chunks &= found.chunks.is_none();
        found.chunks.map(Heard::Chunks)
    }
}

impl Source for ProcessSource {
    fn about(&self) -> About {
        self.about.clone()
    }

    fn hear(&mut self, within: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        let until = Instant::now().checked_add(within);
        let before = into.len();
        for kind in std::mem::take(&mut self.first) {
            self.tell(kind, into);
        }
        loop {
            if let Some(heard) = self.collect(into) {
                return Ok(heard);
            }
            if let Some(ended) = &self.ended {
                return Ok(Heard::Ended(ended.clone()));
            }
            if let Some(ending) = self.watch.ending() {
                self.ended = Some(Ended {
                    why: ending.to_string(),
                    in_order: ending.code == Some(0),
                });
                self.looker = None;
            } else if self.next_pulse <= Instant::now() {
                self.take_pulse(into);
            }
            let now = Instant::now();
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
            if into.len() > before || left.is_zero() {
                return Ok(Heard::Events);
            }
            if self.ended.is_none() {
                let left = left.min(self.next_pulse.saturating_duration_since(now));
                sleep_on(
                    [self.watch.pidfd(), self.looker.as_ref().map(Looker::bell)],
                    left,
                );
            }
        }
    }

    fn control(&mut self, control: Control) {
        let looker = self.looker.iter();
        match control {
            Control::LookNow => looker.for_each(Looker::look_now),
            Control::Chunks { arena, from, to } => {
                looker.for_each(|looker| looker.read_chunks(arena, from..to));
                self.owes_chunks = true;
            }
            _ => {}
        }
    }
}

fn program_of(target: &Target) -> String {
    let name = target.text("comm").unwrap_or_default();
    name.trim_end_matches('\n').to_owned()
}

fn opened(pid: u32, program: &str) -> Kind {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Kind::Opened(Box::new(Opened {
        unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        pid,
        program: program.to_owned(),
        ..Opened::default()
    }))
}

fn note(text: String) -> Kind {
    Kind::Note { text }
}

pub(super) fn pulse(snapshot: Snapshot) -> Kind {
    Kind::Pulse(Box::new(snapshot))
}

pub(super) fn look(inspection: Inspection) -> Kind {
    Kind::Look(Box::new(Look { inspection }))
}
