//! What was measured several times, and what was to be reached.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

/// Times of the same thing, seconds.
#[derive(Debug, Clone, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    pub fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// `None` where nothing was measured.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = sorted[(sorted.len() - 1) / 2];
        Some(f64::midpoint(lower, upper))
    }

    /// The median in milliseconds, least and most beside it.
    pub fn shown(&self) -> [String; 2] {
        let Some(median) = self.median() else {
            return [n_a(), n_a()];
        };
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(0.0, f64::max);
        [ms(median), format!("{}..{}", ms(least), ms(most))]
    }

    pub fn json(&self) -> Value {
        json!({ "n": self.0.len(), "median_s": self.median(), "all_s": self.0 })
    }
}

/// Each with the other of the same round added to it.
pub fn sums(one: &Samples, other: &Samples) -> Samples {
    let sums = one.0.iter().zip(&other.0).map(|(one, other)| one + other);
    Samples(sums.collect())
}

pub fn ms(seconds: f64) -> String {
    format!("{:.2}", seconds * 1e3)
}

pub fn n_a() -> String {
    "n/a".to_owned()
}

/// A number, where there is one.
pub fn shown(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(n_a, |number| format!("{number:.decimals$}"))
}

/// One thing over another, where both are known.
pub fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other?)
}

/// Something that was to be reached.
#[derive(Debug, Clone, Serialize)]
pub struct Threshold {
    pub what: String,
    /// Whether it was; `None` where that was not measured.
    pub is_met: Option<bool>,
    /// By which numbers, or why not.
    pub numbers: String,
}

impl Threshold {
    pub fn new(what: impl Into<String>, is_met: Option<bool>, numbers: String) -> Threshold {
        Threshold {
            what: what.into(),
            is_met,
            numbers,
        }
    }

    /// A number that is to be so large.
    pub fn at_least(what: impl Into<String>, number: Option<f64>, least: f64) -> Threshold {
        let numbers = format!("{}, at least {least}", shown(number, 3));
        Threshold::new(what, number.map(|number| number >= least), numbers)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.is_met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "n/a",
        };
        write!(f, "{word:6}  {}: {}", self.what, self.numbers)
    }
}
