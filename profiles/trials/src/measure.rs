//! The numbers that runs are compared by. Of each, less is better.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::{escaped, hint};

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes for each cycle of the program.
    BytesPerCycle,
    /// How many.
    Count,
    /// Seconds.
    Seconds,
}

/// A number that a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The most that was resident, above the baseline where one is known.
    Peak,
    /// What was resident on the mean over time, above the baseline where one is known.
    Mean,
    /// What stayed resident above the baseline after everything was freed.
    Retained,
    /// The worst of resident − baseline − live.
    Excess,
    /// Resident because of the allocator, and in no block that is in use, with everything freed.
    Waste,
    /// The part of the waste that a trim or purge gives back.
    TrimGap,
    /// The part of the waste that remains after a trim or purge: held by fragmentation.
    Structural,
    /// By how much the memory in use grows with each cycle.
    Leak,
    /// By how much resident memory grows with each cycle.
    Growth,
    /// Page faults without I/O.
    Faults,
    /// Processor time, user and system together.
    Cpu,
    /// Time from the start to the end.
    Wall,
}

impl Measure {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Measure; 12] = [
        Measure::Peak,
        Measure::Mean,
        Measure::Retained,
        Measure::Excess,
        Measure::Waste,
        Measure::TrimGap,
        Measure::Structural,
        Measure::Leak,
        Measure::Growth,
        Measure::Faults,
        Measure::Cpu,
        Measure::Wall,
    ];

    /// Its name on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Measure::Peak => "peak",
            Measure::Mean => "mean",
            Measure::Retained => "retained",
            Measure::Excess => "excess",
            Measure::Waste => "waste",
            Measure::TrimGap => "trim_gap",
            Measure::Structural => "structural",
            Measure::Leak => "leak",
            Measure::Growth => "growth",
            Measure::Faults => "faults",
            Measure::Cpu => "cpu",
            Measure::Wall => "wall",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Measure::Peak => "most resident, above the baseline",
            Measure::Mean => "resident on the mean, above the baseline",
            Measure::Retained => "resident above the baseline with everything freed",
            Measure::Excess => "worst of resident - baseline - live",
            Measure::Waste => "resident and in no block in use, with everything freed",
            Measure::TrimGap => "what a trim or purge gives back of the waste",
            Measure::Structural => "waste that remains after a trim or purge",
            Measure::Leak => "growth of memory in use, a cycle",
            Measure::Growth => "growth of resident memory, a cycle",
            Measure::Faults => "page faults without I/O",
            Measure::Cpu => "processor time",
            Measure::Wall => "time from start to end",
        }
    }

    /// What stands above a column of it.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Measure::Leak => "leak a cycle",
            Measure::Growth => "growth a cycle",
            _ => self.name(),
        }
    }

    /// What it counts.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Measure::Leak | Measure::Growth => Unit::BytesPerCycle,
            Measure::Faults => Unit::Count,
            Measure::Cpu | Measure::Wall => Unit::Seconds,
            _ => Unit::Bytes,
        }
    }

    /// The measure of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Measure> {
        Measure::ALL
            .into_iter()
            .find(|measure| measure.name() == name)
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Measure {
    type Err = UnknownMeasure;

    fn from_str(name: &str) -> Result<Measure, UnknownMeasure> {
        Measure::named(name).ok_or_else(|| UnknownMeasure {
            name: escaped(name),
            hint: hint(name, Measure::ALL.iter().map(|measure| measure.name())),
        })
    }
}

/// A name that no measure has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no metric `{name}`: {hint}")]
pub struct UnknownMeasure {
    /// The name, escaped.
    pub name: String,
    /// The nearest, and all.
    pub hint: String,
}
