//! Where events come from.
//!
//! | file | what |
//! |---|---|
//! | `socket` | a live cache, by its socket |
//! | `process` | any process, looked at from outside |
//! | `sleep` | waiting for any of several files to become readable |
//! | `chooser` | what there is to attach to |
//! | `recording` | a file, with a clock of its own |
//! | `child` | a run of our own |
//! | `recorded` | one that is written down while it is heard |
//!
//! A source is read on a thread of its own, which folds what it hears. It never waits long: what
//! takes time, such as a walk of a large heap, it does on yet another thread.

pub mod child;
mod chooser;
mod process;
mod recorded;
pub mod recording;
mod sleep;
mod socket;

use std::path::PathBuf;
use std::time::Duration;

use malloc_stats::heap::ChunksSeen;
use plimsoll_events::{Event, Request};
use serde::Serialize;

pub use chooser::{Candidate, candidates};
pub use process::ProcessSource;
pub use recorded::Recorded;
pub use socket::{SocketSource, socket_of};

use super::State;
use super::state::Ended;

/// Where events come from.
pub trait Source: Send {
    /// What it is.
    fn about(&self) -> About;

    /// Waits for events, for so long at most, and adds those that came.
    ///
    /// # Errors
    /// What no screen can be shown of at all; [`Heard::Ended`] is for what ends later.
    fn hear(&mut self, within: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError>;

    /// Does as it is told, where it can: a recording seeks, a cache evicts. The effect is heard.
    fn control(&mut self, control: Control);
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct About {
    /// In few words, such as `serve:4121`, or a path; control characters and all.
    pub name: String,
    /// What kind it is.
    pub kind: SourceKind,
    /// The process, where there is one.
    pub pid: Option<u32>,
    /// Whether it can be asked to do something.
    pub takes_requests: bool,
    /// Where in a recording it is.
    pub playing: Option<Playing>,
    /// Things worth a word that did not end it: broken lines, with their positions.
    pub troubles: Vec<String>,
}

/// The kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A live cache.
    Cache,
    /// Any process.
    #[default]
    Process,
    /// A recording.
    Recording,
}

/// Where in a recording it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Playing {
    /// The time that is shown, microseconds by the recording's clock.
    pub at_us: u64,
    /// Its end; of what was read until now.
    pub end_us: u64,
    /// How many times as fast as it was recorded; 0 while it stands still.
    pub speed: f64,
    /// The share of the file that was read, 0 to 1.
    pub read: f64,
}

/// What came of listening.
#[derive(Debug)]
pub enum Heard {
    /// Events, or none in time.
    Events,
    /// The chunks that were asked for, or why there are none.
    Chunks(Result<Box<ChunksSeen>, String>),
    /// Everything is to be shown as it was at another moment; then events go on from there.
    State(Box<State>),
    /// It has ended. The last picture stays.
    Ended(Ended),
}

/// What a source may be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Control {
    /// Go so many microseconds on, or back.
    Seek(i64),
    /// Go to a moment, microseconds by the recording's clock.
    SeekTo(u64),
    /// Stand still, or go on.
    Pause(bool),
    /// Play so many times as fast.
    Speed(f64),
    /// Go to the next decision, or the one before: of a kind, where one is named.
    Jump {
        /// Onwards, rather than back.
        on: bool,
        /// As [`What::kind`](super::state::What::kind) names it.
        kind: Option<String>,
    },
    /// Do something with the cache; the answer is an event.
    Request {
        /// The number that the answer repeats.
        id: u64,
        /// What.
        request: Request,
    },
    /// Look into the process now.
    LookNow,
    /// Read the chunks of a stretch of an arena.
    Chunks {
        /// The arena's index.
        arena: usize,
        /// From here.
        from: u64,
        /// To here.
        to: u64,
    },
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A recording cannot be read.
    #[error(transparent)]
    Read(#[from] plimsoll_events::ReadError),
    /// A cache cannot be heard.
    #[error(transparent)]
    Publish(#[from] plimsoll_events::PublishError),
    /// A process cannot be looked at.
    #[error(transparent)]
    Target(#[from] malloc_stats::inspect::TargetError),
    /// A new recording cannot be begun.
    #[error("cannot record in {}: {source}{}", path.display(), advice(source))]
    Record {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program of ours ended before there was anything to show.
    #[error("{program} {how}{}", after_colon(said))]
    Child {
        /// The program.
        program: String,
        /// How it ended, or that it has not yet, in words that follow its name.
        how: String,
        /// What it said last on its standard error.
        said: String,
    },
    /// A program cannot be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            "; a recording is never overwritten: remove it, or name another file"
        }
        _ => "",
    }
}

fn after_colon(said: &str) -> String {
    match said.trim() {
        "" => String::new(),
        said => format!(":\n{said}"),
    }
}
