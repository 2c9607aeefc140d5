//! Which value of a knob? A grid of values, tried one by one, and the winner by the rule of
//! recommendations.

use serde::{Deserialize, Serialize};

use crate::compare::{Advice, CompareError, Comparison, Summary};
use crate::measure::Measure;
use crate::number::amount;
use crate::words::{escaped, hint};

/// What the values of a knob count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// How many.
    Number,
}

/// The values of a knob that are worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// The knob's name in a profile.
    pub knob: &'static str,
    /// What its values count.
    pub counts: Counts,
    /// The values, the least first.
    pub values: &'static [u64],
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// From glibc's least threshold that is of use to its greatest, `DEFAULT_MMAP_THRESHOLD_MAX` on 64
/// bits.
const THRESHOLDS: &[u64] = &[
    64 * KIB,
    128 * KIB,
    256 * KIB,
    512 * KIB,
    MIB,
    2 * MIB,
    4 * MIB,
    8 * MIB,
    16 * MIB,
    32 * MIB,
];
/// From at once to jemalloc's default of 10 s.
const DECAYS: &[u64] = &[0, 100, 300, 1000, 3000, 10_000];

/// All grids there are.
pub const GRIDS: &[Grid] = &[
    bytes("mmap_threshold", THRESHOLDS),
    bytes(
        "trim_threshold",
        &[128 * KIB, 512 * KIB, 2 * MIB, 8 * MIB, 32 * MIB, 128 * MIB],
    ),
    bytes("top_pad", &[0, 128 * KIB, MIB, 8 * MIB, 64 * MIB]),
    number("arena_max", &[1, 2, 4, 8]),
    milliseconds("dirty_decay_ms", DECAYS),
    milliseconds("muzzy_decay_ms", DECAYS),
    // mimalloc's own defaults are 10 (version 2) and 1000 (version 3).
    milliseconds("purge_delay", &[0, 10, 100, 1000, 10_000]),
];

const fn bytes(knob: &'static str, values: &'static [u64]) -> Grid {
    let counts = Counts::Bytes;
    Grid {
        knob,
        counts,
        values,
    }
}

const fn milliseconds(knob: &'static str, values: &'static [u64]) -> Grid {
    let counts = Counts::Milliseconds;
    Grid {
        knob,
        counts,
        values,
    }
}

const fn number(knob: &'static str, values: &'static [u64]) -> Grid {
    let counts = Counts::Number;
    Grid {
        knob,
        counts,
        values,
    }
}

/// The grid of a knob.
///
/// # Errors
/// Where there is none: which there are.
pub fn grid(knob: &str) -> Result<&'static Grid, CompareError> {
    let found = GRIDS.iter().find(|grid| grid.knob == knob);
    found.ok_or_else(|| CompareError::NoGrid {
        knob: escaped(knob),
        hint: hint(knob, GRIDS.iter().map(|grid| grid.knob)),
    })
}

impl Counts {
    /// A value as a profile file has it: `"1 MiB"` with its quotes, `1000`.
    #[must_use]
    pub fn toml(self, value: u64) -> String {
        match self {
            Counts::Bytes => format!("\"{}\"", self.text(value)),
            Counts::Milliseconds | Counts::Number => value.to_string(),
        }
    }

    /// A value for people: `1 MiB`, `1000 ms`, `4`.
    #[must_use]
    pub fn text(self, value: u64) -> String {
        match self {
            Counts::Bytes if value > 0 && value.is_multiple_of(MIB) => {
                format!("{} MiB", value / MIB)
            }
            Counts::Bytes if value > 0 && value.is_multiple_of(KIB) => {
                format!("{} KiB", value / KIB)
            }
            // Not rounded to a unit: this is what a file will hold.
            Counts::Bytes => format!("{value} B"),
            Counts::Milliseconds => format!("{value} ms"),
            Counts::Number => value.to_string(),
        }
    }
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// The knob.
    pub knob: String,
    /// What its values count.
    pub counts: Counts,
    /// The profile that it was varied in, and compared with.
    pub from: String,
    /// What each value came to, the least value first.
    pub points: Vec<Point>,
    /// The value to take, where one is better than the profile it started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<u64>,
    /// Why, with the numbers: the text for a profile file.
    pub why: String,
    /// All of the comparison.
    pub comparison: Comparison,
}

/// What one value of the knob came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The value.
    pub value: u64,
    /// The measure of memory, where its runs have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Summary>,
    /// The measure of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Summary>,
    /// Why it takes no part, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

impl Search {
    /// Of a comparison of the profile that the search started from with the same profile under
    /// each value of the grid, in its order.
    ///
    /// # Errors
    /// A comparison of another number of profiles.
    pub fn new(grid: &Grid, comparison: Comparison) -> Result<Search, CompareError> {
        let Some((from, tried)) = comparison.profiles.split_first() else {
            return Err(CompareError::Nothing);
        };
        if tried.len() != grid.values.len() {
            return Err(CompareError::NotTheGrid {
                values: grid.values.len(),
                profiles: comparison.profiles.len(),
            });
        }
        let points = grid.values.iter().zip(tried).map(|(value, one)| Point {
            value: *value,
            memory: one.measures.get(&comparison.memory).cloned(),
            time: one.measures.get(&comparison.time).cloned(),
            left_out: one.left_out.clone(),
        });
        let winner = comparison.recommendation.profile;
        let winner = winner.and_then(|at| grid.values.get(at.checked_sub(1)?).copied());
        Ok(Search {
            knob: grid.knob.to_owned(),
            counts: grid.counts,
            from: from.name.clone(),
            points: points.collect(),
            winner,
            why: why(grid, winner, &comparison),
            comparison,
        })
    }
}

/// Why this value, or none, with the numbers.
fn why(grid: &Grid, winner: Option<u64>, comparison: &Comparison) -> String {
    let [first, .., last] = grid.values else {
        return String::new();
    };
    let among = format!(
        "among {} values from {} to {}, {} rounds each of {}",
        grid.values.len(),
        grid.counts.text(*first),
        grid.counts.text(*last),
        comparison.rounds,
        comparison.what
    );
    let verdict = match (winner, comparison.recommendation.advice) {
        (Some(value), _) => format!("{} = {}", grid.knob, grid.counts.text(value)),
        (None, Advice::NoVerdict) => format!("no value of {}", grid.knob),
        (None, _) => format!("no value of {} in place of what was", grid.knob),
    };
    let mut text = format!("{verdict}, {among}: ");
    text.push_str(&comparison.recommendation.sentences.join("; "));
    text.push('.');
    if let (Some(from), Some(taken)) = (comparison.profiles.first(), comparison.recommended()) {
        let both = |measure: Measure| {
            let (now, was) = (taken.median(measure)?, from.median(measure)?);
            let (now, was) = (amount(measure, now), amount(measure, was));
            Some(format!("{measure} {now} ({was})"))
        };
        let numbers: Vec<String> = Measure::ALL.into_iter().filter_map(both).collect();
        text.push_str(&format!(
            " Medians, in brackets those of `{}`: {}.",
            from.name,
            numbers.join(", ")
        ));
    }
    text
}
