//! What can be wrong with a baseline.

use std::path::{Path, PathBuf};

use super::{LARGEST_FILE, MOST_VALUES, SCHEMA};
use crate::measure::Measure;
use crate::words::escaped;

/// A baseline that cannot be used, with its path.
#[derive(Debug, thiserror::Error)]
#[error("baseline `{}`: {fault}", escaped(&path.to_string_lossy()))]
pub struct BaselineError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

impl BaselineError {
    pub(super) fn at(path: &Path) -> impl FnOnce(Fault) -> BaselineError {
        let path = path.to_owned();
        move |fault| BaselineError { path, fault }
    }
}

/// What is wrong with a baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is none.
    #[error("there is none; `--update` takes one")]
    Absent,
    /// Nothing is in it.
    #[error("it is empty; `--update` takes one")]
    Empty,
    /// The system refused.
    #[error("cannot {action}: {reason}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// Not a file with bytes.
    #[error("it is a {kind}, not a regular file")]
    NotRegular {
        /// What it is.
        kind: &'static str,
    },
    /// Larger than any baseline.
    #[error("it has {bytes} bytes; a baseline has at most {LARGEST_FILE}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// No JSON, or not of this form.
    #[error("line {line}, column {column}: {reason}")]
    Broken {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong, escaped.
        reason: String,
    },
    /// JSON of something else.
    #[error("it is JSON, and no baseline: it has no number `schema`")]
    NoBaseline,
    /// Something else is there, and is not overwritten.
    #[error(
        "what is there is no baseline ({reason}), and is left alone; remove it, or name another file"
    )]
    Occupied {
        /// How that was seen.
        reason: String,
    },
    /// Of another version.
    #[error("its schema is {found}, and this version reads {SCHEMA}: {}", schema_hint(*found))]
    Schema {
        /// Its schema.
        found: u64,
    },
    /// It has no measures.
    #[error("it has no measures: no run came to a number")]
    NoMeasures,
    /// A measure has no values.
    #[error("{measure} has no values; a measure that is unavailable is left out")]
    NoValues {
        /// Which.
        measure: Measure,
    },
    /// A measure has too many values.
    #[error("{measure} has {count} values; at most {MOST_VALUES} are compared")]
    TooMany {
        /// Which.
        measure: Measure,
        /// How many.
        count: usize,
    },
    /// A value makes no sense.
    #[error("value {number} of {measure} is {why}, which no run can come to")]
    Impossible {
        /// Of which measure.
        measure: Measure,
        /// Which one, counted from 1.
        number: usize,
        /// What it is.
        why: &'static str,
    },
    /// The profile was not in force.
    #[error(
        "not taken: in {refused} of {runs} runs something that the profile asks for was not in force"
    )]
    Refused {
        /// In how many runs.
        refused: usize,
        /// Of how many.
        runs: usize,
    },
    /// The runs are not of one kind.
    #[error("not taken: the runs were served by different allocators: {allocators}")]
    Mixed {
        /// Which, escaped.
        allocators: String,
    },
}

fn schema_hint(found: u64) -> &'static str {
    match found > u64::from(SCHEMA) {
        true => "a newer Plimsoll took it; use that one, or take it again with `--update`",
        false => "take it again with `--update`",
    }
}
