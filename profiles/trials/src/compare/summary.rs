//! The runs of one profile, measure by measure.

use std::collections::{BTreeMap, BTreeSet};

use malloc_stats::{Grade, SettingGrade, Settings};
use serde::{Deserialize, Serialize};

use super::difference::{Difference, ratio};
use crate::measure::Measure;
use crate::statistics::Spread;
use crate::trial::Trial;

/// A profile among others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// The allocators that served in its runs, in words.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allocators: BTreeSet<String>,
    /// The settings that it asks for, each with whether it was in force in the first run.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// How many runs there are.
    pub runs: u64,
    /// Why it takes no part in front and recommendation, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Whether no other one beats it.
    pub on_front: bool,
    /// What its runs came to.
    pub measures: BTreeMap<Measure, Summary>,
    /// Why some runs, or all, lack a measure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub absent: BTreeMap<Measure, String>,
    /// What is worth a sentence.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub notes: BTreeSet<String>,
}

/// One measure of one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many runs had it.
    pub n: u64,
    /// The worst grade among them.
    pub grade: Grade,
    /// The median as a multiple of the reference's; `None` where that is not above zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// How it differs from the reference; `None` of the reference itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// How probable such ranks are by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The runs, in their order.
    pub values: Vec<f64>,
}

impl Summary {
    /// Half of the range, in the unit of the measure. Finite.
    #[must_use]
    pub fn half_range(&self) -> f64 {
        let &Summary {
            median, min, max, ..
        } = self;
        Spread { median, min, max }.half_range()
    }
}

impl Compared {
    /// The runs of a profile, compared with `reference`; that one itself is compared with nothing.
    pub(super) fn new(name: String, trials: &[Trial], reference: Option<&Compared>) -> Compared {
        let mut one = Compared {
            name,
            runs: trials.len() as u64,
            settings: trials
                .first()
                .map_or_else(Settings::default, |trial| trial.settings.clone()),
            left_out: left_out(trials),
            ..Compared::default()
        };
        for trial in trials {
            if !trial.allocator.is_empty() {
                one.allocators.insert(trial.allocator.clone());
            }
            one.notes.extend(trial.notes.iter().cloned());
            for (measure, why) in &trial.absent {
                one.absent.entry(*measure).or_insert_with(|| why.clone());
            }
        }
        for measure in Measure::ALL {
            if let Some(summary) = summary(measure, trials, reference) {
                one.measures.insert(measure, summary);
            }
        }
        one
    }

    /// Leaves it out where it has not all of these.
    pub(super) fn require(&mut self, measures: impl IntoIterator<Item = Measure>) {
        for measure in measures {
            if self.left_out.is_none() && !self.measures.contains_key(&measure) {
                let why = self.absent.get(&measure).map_or("", String::as_str);
                let colon = if why.is_empty() { "" } else { ": " };
                self.left_out = Some(format!("its runs have no {measure}{colon}{why}"));
            }
        }
    }

    /// The runs in a measure; none where it has none.
    #[must_use]
    pub fn values(&self, measure: Measure) -> &[f64] {
        self.measures
            .get(&measure)
            .map_or(&[], |summary| &summary.values)
    }

    /// The median of a measure.
    #[must_use]
    pub fn median(&self, measure: Measure) -> Option<f64> {
        Some(self.measures.get(&measure)?.median)
    }
}

fn summary(measure: Measure, trials: &[Trial], reference: Option<&Compared>) -> Option<Summary> {
    // A trial read from a file may hold anything.
    let found = trials.iter().filter_map(|trial| trial.values.get(&measure));
    let found = found.filter(|value| value.value.is_finite());
    let (values, grades): (Vec<f64>, Vec<Grade>) =
        found.map(|value| (value.value, value.grade)).unzip();
    let spread = Spread::of(&values)?;
    let mut summary = Summary {
        median: spread.median,
        min: spread.min,
        max: spread.max,
        n: values.len() as u64,
        grade: grades.into_iter().max()?,
        ratio: None,
        difference: None,
        probability: None,
        values,
    };
    let Some(reference) = reference else {
        summary.ratio = ratio(summary.median, summary.median);
        return Some(summary);
    };
    let (difference, probability) = match reference.measures.get(&measure) {
        Some(to) => {
            summary.ratio = ratio(to.median, summary.median);
            Difference::between(&to.values, &summary.values)
        }
        None => {
            let why = format!("`{}` has none to compare with", reference.name);
            (Difference::Absent(why), None)
        }
    };
    summary.difference = Some(difference);
    summary.probability = probability;
    Some(summary)
}

/// Why these runs say nothing about their profile.
fn left_out(trials: &[Trial]) -> Option<String> {
    if trials.is_empty() {
        return Some("no run of it came to an end".to_owned());
    }
    let refused = trials.iter().filter(|trial| trial.refused);
    let settings: BTreeSet<String> = refused
        .clone()
        .flat_map(|trial| trial.settings.iter())
        .filter(|(_, setting)| setting.grade == SettingGrade::Refused)
        // Of the allocator the value says who serves instead.
        .map(|(knob, setting)| match knob {
            "allocator" => format!("its allocator ({} served)", setting.value),
            _ => format!("`{knob} = {}`", setting.value),
        })
        .collect();
    let what = match settings.len() {
        0 => "what it asks for".to_owned(),
        _ => settings.into_iter().collect::<Vec<_>>().join(", "),
    };
    match refused.count() {
        0 => None,
        count => Some(format!(
            "{what} was not in force in {count} of {} runs",
            trials.len()
        )),
    }
}
