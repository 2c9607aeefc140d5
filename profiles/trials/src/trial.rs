//! One run of a program, in numbers.

use std::collections::BTreeMap;

use malloc_stats::{Grade, Settings};
use serde::{Deserialize, Serialize};

use crate::measure::Measure;

/// A number of a run, and how far it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// In the unit of its measure. Finite.
    pub value: f64,
    /// Its grade; never `Unavailable`.
    pub grade: Grade,
}

/// What one run came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trial {
    /// The profile's name.
    pub profile: String,
    /// The allocator that served, in words; empty where that could not be told.
    pub allocator: String,
    /// The settings that the profile asked for, each with whether it was in force.
    #[serde(skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// Whether anything that the profile asked for was seen not to be in force.
    pub refused: bool,
    /// The numbers it has.
    pub values: BTreeMap<Measure, Value>,
    /// Why it has not the others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub absent: BTreeMap<Measure, String>,
    /// What is worth a sentence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Trial {
    /// Sets a number, unless it is not finite: then the measure is absent.
    pub fn set(&mut self, measure: Measure, value: f64, grade: Grade) {
        if value.is_finite() && grade != Grade::Unavailable {
            self.absent.remove(&measure);
            self.values.insert(measure, Value { value, grade });
        } else {
            self.miss(measure, "the number makes no sense");
        }
    }

    /// Says why there is no such number.
    pub fn miss(&mut self, measure: Measure, why: impl Into<String>) {
        self.values.remove(&measure);
        self.absent.insert(measure, why.into());
    }

    /// A number, where there is one.
    #[must_use]
    pub fn get(&self, measure: Measure) -> Option<f64> {
        self.values.get(&measure).map(|value| value.value)
    }
}
