//! How much worse a measure may get before a check fails.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use malloc_stats::Size;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

use crate::measure::{Measure, Unit, UnknownMeasure};
use crate::words::escaped;

/// Beyond that a relative floor is a mistake: eleven times as much would pass.
const MOST_PERCENT: f64 = 1000.0;

/// The gates of a check that is told nothing else.
///
/// The absolute floors keep a small program from failing over a few pages, the relative ones a
/// large one over what it does anyway.
const DEFAULTS: [(Measure, Gate); 6] = [
    // What stays after everything was freed: 4 MiB is beyond the stacks, page tables and tables of
    // a program, and below any model that was kept by mistake.
    (Measure::Retained, Gate::bytes(10.0, 4 << 20)),
    // Most of it is what the program has to hold, so that a small part of it is already much; a
    // program of 64 MiB that takes 5 % more is past 2 MiB, and its stacks and tables are not.
    (Measure::Peak, Gate::bytes(3.0, 2 << 20)),
    // The worst of many moments, and so the most scattered: twice the floor of what stays.
    (Measure::Excess, Gate::bytes(10.0, 8 << 20)),
    // What no trim gives back, measured at rest, as what stays is.
    (Measure::Structural, Gate::bytes(10.0, 4 << 20)),
    // By the allocator's own count, which is the same after every cycle where nothing leaks: one
    // small block a cycle is below, a page is above.
    (Measure::Leak, Gate::bytes(0.0, 1 << 10)),
    // Resident memory moves by the allocator's whole steps, of 128 KiB and more at the top of a
    // heap (`M_TOP_PAD`, mallopt(3)), and of 1 MiB in CPython's arenas, even where nothing leaks.
    // Half of such a step in each of 8 cycles is past the floor of what stays.
    (Measure::Growth, Gate::bytes(0.0, 512 << 10)),
];

/// An amount in the unit of its measure, not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Floor {
    /// Bytes, or bytes for each cycle.
    Bytes(u64),
    /// How many.
    Count(u64),
    /// Seconds. Finite.
    Seconds(f64),
}

impl Floor {
    /// In the unit of the measure.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Floor::Bytes(number) | Floor::Count(number) => number as f64,
            Floor::Seconds(seconds) => seconds,
        }
    }

    fn parse(unit: Unit, text: &str) -> Result<Floor, String> {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let is_bare = text.chars().all(is_number) && text.contains(|c| matches!(c, '1'..='9'));
        match unit {
            // A bare number is bytes elsewhere; as a floor it is more likely a forgotten unit.
            Unit::Bytes | Unit::BytesPerCycle if is_bare => {
                Err(format!("{text} of what? Write {text}MiB, or {text}B"))
            }
            Unit::Bytes | Unit::BytesPerCycle => match text.parse::<Size>() {
                Ok(size) => Ok(Floor::Bytes(size.0)),
                Err(error) => Err(error.to_string()),
            },
            Unit::Count => text.parse().map(Floor::Count).map_err(|_| {
                format!(
                    "`{}` is no whole number without a unit, such as 1000",
                    escaped(text)
                )
            }),
            Unit::Seconds => {
                let number = text.strip_suffix('s').map(str::trim_end);
                match number.or((text == "0").then_some(text)).map(str::parse) {
                    Some(Ok(seconds)) if f64::is_finite(seconds) && seconds >= 0.0 => {
                        Ok(Floor::Seconds(seconds + 0.0))
                    }
                    _ => Err(format!(
                        "`{}` is no time in seconds, such as 0.5s",
                        escaped(text)
                    )),
                }
            }
        }
    }
}

/// Exact, unlike a [`Size`], so that it can be read back.
impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Floor::Count(number) => write!(f, "{number}"),
            Floor::Seconds(seconds) => write!(f, "{seconds}s"),
            Floor::Bytes(0) => f.write_str("0B"),
            Floor::Bytes(bytes) => {
                let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
                let power = (bytes.trailing_zeros() / 10) as usize;
                write!(f, "{}{}", bytes >> (10 * power), units[power])
            }
        }
    }
}

/// By how much a measure may grow: a check fails past both floors only. One of them is above zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    percent: f64,
    absolute: Floor,
}

impl Gate {
    const fn bytes(percent: f64, absolute: u64) -> Gate {
        Gate {
            percent,
            absolute: Floor::Bytes(absolute),
        }
    }

    /// The relative floor in percent of what the baseline has, without its sign.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.percent
    }

    /// The absolute floor.
    #[must_use]
    pub fn absolute(&self) -> Floor {
        self.absolute
    }

    /// Whether a change of so much, to either side, is past both floors.
    #[must_use]
    pub fn is_past(&self, baseline: f64, change: f64) -> bool {
        let relative = self.percent / 100.0 * baseline.abs();
        change.abs() > relative && change.abs() > self.absolute.value()
    }
}

/// `REL,ABS` as on the command line.
impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%,{}", self.percent, self.absolute)
    }
}

impl Serialize for Gate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What was asked for one measure: `METRIC=REL,ABS`, such as `retained=10%,4MiB`, or `METRIC=off`.
///
/// Prints as it parses. In serde it is that text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Of what.
    pub measure: Measure,
    /// The gate, or none.
    pub gate: Option<Gate>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gate {
            Some(gate) => write!(f, "{}={gate}", self.measure),
            None => write!(f, "{}=off", self.measure),
        }
    }
}

impl FromStr for Choice {
    type Err = GateError;

    fn from_str(text: &str) -> Result<Choice, GateError> {
        let gate = || escaped(text);
        let Some((name, floors)) = text.split_once('=') else {
            return Err(GateError::Malformed { gate: gate() });
        };
        let name = name.trim();
        let measure: Measure = name.parse()?;
        if floors.trim() == "off" {
            return Ok(Choice {
                measure,
                gate: None,
            });
        }
        let Some((relative, absolute)) = floors.split_once(',') else {
            return Err(GateError::Malformed { gate: gate() });
        };
        let percent = percent(relative.trim(), gate)?;
        if absolute.trim().starts_with('-') {
            return Err(GateError::Negative { gate: gate() });
        }
        let absolute = Floor::parse(measure.unit(), absolute.trim())
            .map_err(|reason| GateError::Absolute { measure, reason })?;
        if percent == 0.0 && absolute.value() == 0.0 {
            return Err(GateError::BothZero { gate: gate() });
        }
        let gate = Some(Gate { percent, absolute });
        Ok(Choice { measure, gate })
    }
}

fn percent(text: &str, gate: impl Fn() -> String) -> Result<f64, GateError> {
    let Some(number) = text.strip_suffix('%').map(str::trim_end) else {
        return Err(GateError::NoPercent { gate: gate() });
    };
    match number.parse::<f64>() {
        Ok(percent) if percent > MOST_PERCENT => Err(GateError::TooLarge { gate: gate() }),
        Ok(percent) if percent.is_sign_positive() && !percent.is_nan() => Ok(percent),
        Ok(percent) if percent.is_sign_negative() => Err(GateError::Negative { gate: gate() }),
        _ => Err(GateError::NoNumber { gate: gate() }),
    }
}

impl Serialize for Choice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Choice, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A gate of a check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gated {
    /// Its floors.
    pub gate: Gate,
    /// Whether it was asked for, and is no default: then its measure has to be there.
    pub given: bool,
}

/// The gates of a check, one for each measure at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Gates(BTreeMap<Measure, Gated>);

/// Those of a check that is told nothing else.
impl Default for Gates {
    fn default() -> Gates {
        let gated = |(measure, gate)| {
            let given = false;
            (measure, Gated { gate, given })
        };
        Gates(DEFAULTS.into_iter().map(gated).collect())
    }
}

impl Gates {
    /// Nothing but what was asked for.
    ///
    /// # Errors
    /// As [`Gates::with`].
    pub fn only(choices: &[Choice]) -> Result<Gates, GateError> {
        Gates(BTreeMap::new()).with(choices)
    }

    /// The same, with what was asked for in place of the gates on the same measures.
    ///
    /// # Errors
    /// Two of the choices contradict each other.
    pub fn with(mut self, choices: &[Choice]) -> Result<Gates, GateError> {
        for (at, choice) in choices.iter().enumerate() {
            let mut earlier = choices[..at].iter();
            if let Some(other) = earlier.find(|it| it.measure == choice.measure && *it != choice) {
                return Err(GateError::Contradictory {
                    one: *other,
                    other: *choice,
                });
            }
            match choice.gate {
                Some(gate) => {
                    let given = true;
                    self.0.insert(choice.measure, Gated { gate, given });
                }
                None => {
                    self.0.remove(&choice.measure);
                }
            }
        }
        Ok(self)
    }

    /// Whether everything is off: such a check has no verdict.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The gate on a measure.
    #[must_use]
    pub fn get(&self, measure: Measure) -> Option<Gated> {
        self.0.get(&measure).copied()
    }

    /// All of them, in the order in which measures are shown.
    pub fn iter(&self) -> impl Iterator<Item = (Measure, Gated)> {
        self.0.iter().map(|(measure, gated)| (*measure, *gated))
    }
}

/// What is wrong with a gate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// Not of the form.
    #[error("`{gate}` is no gate: write METRIC=REL,ABS such as retained=10%,4MiB, or METRIC=off")]
    Malformed {
        /// As it came, escaped.
        gate: String,
    },
    /// No measure has that name.
    #[error(transparent)]
    UnknownMetric(#[from] UnknownMeasure),
    /// The relative floor has no percent sign.
    #[error("`{gate}`: the relative floor comes first and in percent, such as 10%")]
    NoPercent {
        /// As it came, escaped.
        gate: String,
    },
    /// The relative floor is no number.
    #[error("`{gate}`: the relative floor is no number")]
    NoNumber {
        /// As it came, escaped.
        gate: String,
    },
    /// A floor is negative.
    #[error("`{gate}`: a floor is not negative; less is better, and no gate fails it")]
    Negative {
        /// As it came, escaped.
        gate: String,
    },
    /// The relative floor lets everything pass.
    #[error("`{gate}`: more than {MOST_PERCENT} % is no gate; METRIC=off turns it off")]
    TooLarge {
        /// As it came, escaped.
        gate: String,
    },
    /// The absolute floor is no amount of what the measure counts.
    #[error("the absolute floor of {measure}: {reason}")]
    Absolute {
        /// Whose.
        measure: Measure,
        /// What is wrong, and how to write it.
        reason: String,
    },
    /// Both floors are zero.
    #[error("`{gate}`: both floors are zero, and then noise fails it; give one of them")]
    BothZero {
        /// As it came, escaped.
        gate: String,
    },
    /// A measure was given two gates.
    #[error("`{one}` and `{other}` contradict each other: give one")]
    Contradictory {
        /// The first.
        one: Choice,
        /// The second.
        other: Choice,
    },
}
