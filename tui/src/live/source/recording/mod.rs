//! A recording, with a clock of its own.
//!
//! | file | what |
//! |---|---|
//! | `play` | what is heard, and when |
//! | `tape` | the file, read forward as a fold, and places to go back to |
//! | `clock` | which moment is shown, and how fast it goes |
//! | `troubles` | what could not be read |
//!
//! A file may have gigabytes. It is never in memory: what is shown is a fold from its start, and to
//! go back is to fold again from one of a few copies of the state that were kept on the way. Every
//! call does a little and returns, so that a long seek shows how far it is.

mod clock;
mod play;
mod tape;
mod troubles;

use std::path::Path;
use std::time::Duration;

use plimsoll_events::ReadError;

use self::clock::{Head, Steady};
use self::tape::{Ahead, Kinds, Moment, Scanned, Tape};
use super::{Heard, SourceError};

pub use self::clock::Clock;

/// Events that are folded in one call, at most.
const BATCH: u32 = 5000;

/// Time that one call works, at most; a single line may take longer.
const BATCH_TIME: Duration = Duration::from_millis(20);

/// How often a file is asked whether it has grown.
const POLL: Duration = Duration::from_millis(500);

/// A recording that ends without its end may still be written: it is given up after so long.
const QUIET: Duration = Duration::from_secs(3);

/// Broken lines at the start after which a file is no recording.
const HOPELESS: u32 = 64;

/// The slowest and the fastest that a recording is played.
pub const SPEEDS: (f64, f64) = (0.1, 1000.0);

/// How a recording begins to play.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many times as fast as it was recorded, within [`SPEEDS`].
    pub speed: f64,
    /// Whether it stands still.
    pub paused: bool,
    /// The moment it begins with, microseconds by its clock; its start, where none is given.
    pub at: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            speed: 1.0,
            paused: false,
            at: None,
        }
    }
}

/// A recording that is played.
///
/// The first that is heard is [`Heard::State`], and so is what comes of every seek and every jump,
/// once it is there: until then nothing is heard, and [`Playing::at_us`](super::Playing::at_us) tells how far it is. A seek
/// or jump that comes in between starts from there. Times that jump back are shown as the latest
/// before them.
///
/// [`Heard::Ended`] comes once at the end. It is not the last word: after a seek, or when the file
/// has grown after all, [`Heard::State`] is heard again. A jump that finds nothing stays where it
/// was, and says so in [`About::troubles`](super::About::troubles).
pub struct RecordingSource {
    name: String,
    tape: Tape,
    clock: Box<dyn Clock>,
    head: Head,
    goal: Option<Goal>,
    first_us: u64,
    /// The time of the last line, as far as was looked.
    last_us: u64,
    size: u64,
    /// When the file is asked again whether it has grown.
    next_poll: Duration,
    /// The end was reached by playing: what is added to the file is shown as it comes.
    following: bool,
    /// Since when there was nothing more to read.
    quiet: Option<Duration>,
    told_end: bool,
    /// What the last jump looked for, in words.
    wanted: String,
    /// It was not there.
    fruitless: bool,
    /// A question that only a process could answer.
    refused: bool,
}

/// Where to go.
enum Goal {
    /// To a moment.
    Time(u64),
    /// To the next decision; or back to where it was.
    Next(Kinds, Box<Moment>),
    /// To the last decision before a place: looks for it in the stretch that begins with this of
    /// the places kept.
    Last {
        kinds: Kinds,
        before: u64,
        stretch: usize,
        found: Option<u64>,
    },
    /// To the place where an event ends.
    Place(u64),
}

/// What came of a bit of work towards a goal.
enum Step {
    On,
    Arrived,
    Instead(Goal),
}

/// How much one call may do.
struct Budget {
    events: u32,
    until: Duration,
}

impl Budget {
    fn new(now: Duration) -> Budget {
        Budget {
            events: BATCH,
            until: now.saturating_add(BATCH_TIME),
        }
    }

    /// Whether there is some left after another line.
    fn spend(&mut self, clock: &dyn Clock) -> bool {
        self.events = self.events.saturating_sub(1);
        self.events > 0 && clock.now() < self.until
    }
}

impl RecordingSource {
    /// Opens a recording and reads its first event.
    ///
    /// # Errors
    /// The file cannot be read, is no regular file, has no event, or none among its first lines,
    /// or begins with an event of a later version.
    pub fn open(path: &Path, options: Options) -> Result<RecordingSource, SourceError> {
        RecordingSource::open_by(path, options, Box::new(Steady::default()))
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// As [`open`](RecordingSource::open).
    pub fn open_by(
        path: &Path,
        options: Options,
        clock: Box<dyn Clock>,
    ) -> Result<RecordingSource, SourceError> {
        let mut tape = Tape::open(path)?;
        let first_us = first_time(&mut tape, path)?;
        let now = clock.now();
        let mut source = RecordingSource {
            name: path.to_string_lossy().into_owned(),
            head: Head::new(now, options.speed, options.paused),
            tape,
            clock,
            goal: None,
            first_us,
            last_us: first_us,
            size: 0,
            next_poll: now,
            following: false,
            quiet: None,
            told_end: false,
            wanted: String::new(),
            fruitless: false,
            refused: false,
        };
        source.look_at_size();
        source.seek_to(options.at.unwrap_or(first_us));
        Ok(source)
    }

    fn seek_to(&mut self, at_us: u64) {
        let at_us = at_us.max(self.first_us);
        self.tape.start_for_time(at_us);
        self.head.set(self.clock.now(), at_us);
        self.leave_for(Goal::Time(at_us));
    }

    fn jump(&mut self, on: bool, kind: Option<&str>) {
        let kinds = Kinds::named(kind);
        if self.goal.is_some() {
            let here = self.tape.now().at_us().max(self.first_us);
            self.head.set(self.clock.now(), here);
        }
        let goal = if on {
            self.tape.start_here();
            Goal::Next(kinds, Box::new(self.tape.now().clone()))
        } else {
            let before = self.tape.now().offset();
            let stretch = self.tape.stretch_of(before);
            self.tape.start_scan(kinds, stretch);
            Goal::Last {
                kinds,
                before,
                stretch,
                found: None,
            }
        };
        self.wanted = format!(
            "no {} {} this moment",
            kind.unwrap_or("decision"),
            if on { "after" } else { "before" }
        );
        self.leave_for(goal);
    }

    fn leave_for(&mut self, goal: Goal) {
        self.goal = Some(goal);
        self.following = false;
        self.told_end = false;
        self.fruitless = false;
    }

    /// Works towards the goal.
    fn go_on(&mut self, goal: Goal) -> Heard {
        let now = self.clock.now();
        let mut budget = Budget::new(now);
        self.head.hold(now);
        let mut goal = goal;
        loop {
            match self.step(&mut goal) {
                Step::On => {}
                Step::Instead(next) => goal = next,
                Step::Arrived => {
                    self.quiet = None;
                    return Heard::State(Box::new(self.tape.now().state().clone()));
                }
            }
            if !budget.spend(&*self.clock) {
                self.goal = Some(goal);
                return Heard::Events;
            }
        }
    }

    fn step(&mut self, goal: &mut Goal) -> Step {
        match goal {
            Goal::Time(wanted) => match self.tape.ahead() {
                Ahead::Skipped => Step::On,
                Ahead::Event(at_us) if at_us <= *wanted => {
                    self.tape.advance();
                    Step::On
                }
                Ahead::Event(_) => self.arrive(*wanted),
                Ahead::End => self.arrive(self.tape.now().at_us()),
            },
            Goal::Place(wanted) => {
                if self.tape.now().offset() >= *wanted {
                    return self.stand_here();
                }
                match self.tape.ahead() {
                    Ahead::Skipped => Step::On,
                    Ahead::Event(_) => {
                        self.tape.advance();
                        Step::On
                    }
                    Ahead::End => self.stand_here(),
                }
            }
            Goal::Next(kinds, origin) => match self.tape.ahead() {
                Ahead::Skipped => Step::On,
                Ahead::Event(_) => match self.tape.advance() {
                    Some(event) if kinds.have(&event) => self.stand_here(),
                    _ => Step::On,
                },
                Ahead::End => {
                    self.tape.restore(std::mem::take(&mut **origin));
                    self.stay()
                }
            },
            Goal::Last {
                kinds,
                before,
                stretch,
                found,
            } => match self.tape.scan(*kinds, *before, *stretch) {
                Scanned::Nothing => Step::On,
                Scanned::Found(offset) => {
                    *found = Some(offset);
                    Step::On
                }
                Scanned::Through => {
                    if let Some(offset) = *found {
                        self.tape.start_for_place(offset);
                        Step::Instead(Goal::Place(offset))
                    } else if let Some(earlier) = stretch.checked_sub(1) {
                        *stretch = earlier;
                        self.tape.start_scan(*kinds, earlier);
                        Step::On
                    } else {
                        self.tape.start_here();
                        self.stay()
                    }
                }
            },
        }
    }

    /// Shows what was reached, as of a moment.
    fn arrive(&mut self, at_us: u64) -> Step {
        self.head.set(self.clock.now(), at_us);
        Step::Arrived
    }

    /// Stands still at what was jumped to.
    fn stand_here(&mut self) -> Step {
        self.head.pause(self.clock.now(), true);
        self.arrive(self.tape.now().at_us())
    }

    /// Is where it was, since there is nowhere to go.
    fn stay(&mut self) -> Step {
        self.fruitless = true;
        if self.tape.now().offset() == 0 {
            return Step::Instead(Goal::Time(self.first_us));
        }
        self.arrive(self.head.at(self.clock.now()))
    }
}

/// The time of the first event.
fn first_time(tape: &mut Tape, path: &Path) -> Result<u64, ReadError> {
    let mut first = None;
    for _ in 0..HOPELESS {
        let place = tape.replay().offset();
        match tape.try_ahead() {
            Ok(Some(at_us)) => return Ok(at_us),
            Ok(None) => break,
            Err(error @ ReadError::Broken { .. }) => {
                // Another piece of a line that was too long already.
                let endless = first.is_some() && tape.replay().offset() == place;
                first.get_or_insert(error);
                if endless {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| ReadError::Empty {
        path: path.to_owned(),
        bytes: tape.replay().offset(),
    }))
}
