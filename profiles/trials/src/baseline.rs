//! What runs came to when that was good: a file that is committed beside the program.
//!
//! Pretty JSON in a fixed order, a number a line, so that a change of it can be reviewed.

mod fault;
mod file;
mod form;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use malloc_stats::Grade;
use serde::{Deserialize, Serialize};

use crate::gate::Choice;
use crate::machine::{Difference, Machine, What};
use crate::measure::{Measure, Unit};
use crate::trial::Trial;
use crate::words::escaped;

pub use fault::{BaselineError, Fault};

/// The version of a baseline's form. A field is never given another meaning in the same version.
pub const SCHEMA: u32 = 1;

/// Bytes that a baseline may have.
pub const LARGEST_FILE: u64 = 1 << 20;

/// Values that a measure may have: far more than anyone waits for.
pub const MOST_VALUES: usize = 10_000;

/// No run has as many bytes, faults or seconds; whatever is less is kept to the last digit.
pub const MOST: f64 = 1e15;

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// A command of its own, or the cache.
    pub kind: SubjectKind,
    /// The command and its arguments, or the options of `run`.
    pub arguments: Vec<String>,
}

/// Which kind of program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A command of its own.
    Command,
    /// The cache, as of `plimsoll run`.
    Run,
}

impl Subject {
    /// As it would be typed, escaped and cut where it is long.
    #[must_use]
    pub fn words(&self) -> String {
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
        let arguments = self.arguments.iter().map(|argument| {
            if !argument.is_empty() && argument.chars().all(plain) {
                argument.clone()
            } else {
                format!("'{}'", argument.replace('\'', r"'\''"))
            }
        });
        let run = (self.kind == SubjectKind::Run).then(|| "run".to_owned());
        let words: Vec<String> = run.into_iter().chain(arguments).collect();
        escaped(&words.join(" "))
    }
}

/// The profile that runs were under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Its name.
    pub name: String,
    /// Its knobs, and what else it asks for, as they were written.
    pub knobs: BTreeMap<String, String>,
}

impl Tuning {
    fn words(&self) -> String {
        let knobs = self.knobs.iter();
        let knobs: Vec<String> = knobs
            .map(|(knob, value)| format!("{knob}={value}"))
            .collect();
        match knobs.is_empty() {
            true => self.name.clone(),
            false => format!("{} ({})", self.name, knobs.join(", ")),
        }
    }
}

/// What a measure came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The worst of the runs' grades.
    pub grade: Grade,
    /// A value a run, in the order of the runs, in the unit of the measure.
    #[serde(serialize_with = "form::values")]
    pub values: Vec<f64>,
}

/// What runs came to, of what, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of Plimsoll that took it.
    pub plimsoll: String,
    /// When, in milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// What was run.
    pub subject: Subject,
    /// Under which profile.
    pub profile: Tuning,
    /// Where.
    pub machine: Machine,
    /// The gates that were asked for when it was taken.
    pub gates: Vec<Choice>,
    /// What it came to.
    #[serde(deserialize_with = "form::measures")]
    pub measures: BTreeMap<Measure, Kept>,
}

impl Baseline {
    /// Of these runs. Fractions are kept to the microsecond, and to a thousandth of a byte for
    /// each cycle.
    ///
    /// # Errors
    /// There are no runs or no numbers, the profile was not in force in some, they were served by
    /// different allocators, or a number is impossible.
    pub fn of(
        subject: Subject,
        profile: Tuning,
        machine: Machine,
        gates: Vec<Choice>,
        trials: &[Trial],
        taken_unix_ms: u64,
    ) -> Result<Baseline, Fault> {
        let refused = trials.iter().filter(|trial| trial.refused).count();
        if refused > 0 {
            let runs = trials.len();
            return Err(Fault::Refused { refused, runs });
        }
        let allocators = Machine::serving(trials);
        if allocators.len() > 1 {
            return Err(Fault::Mixed {
                allocators: listed(&allocators),
            });
        }
        let mut measures: BTreeMap<Measure, Kept> = BTreeMap::new();
        let often = |measure: &Measure| !is_rare(*measure, trials);
        let values = trials.iter().flat_map(|trial| &trial.values);
        for (measure, value) in values.filter(|(measure, _)| often(measure)) {
            let kept = measures.entry(*measure).or_insert(Kept {
                grade: value.grade,
                values: Vec::new(),
            });
            kept.grade = kept.grade.max(value.grade);
            kept.values.push(value.value);
        }
        Baseline {
            schema: SCHEMA,
            plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
            taken_unix_ms,
            subject,
            profile,
            machine,
            gates,
            measures,
        }
        .checked()
    }

    /// The measures that [`Baseline::of`] leaves out, since fewer than four of five runs have them,
    /// in sentences: what a run has by luck, a check would miss by luck.
    #[must_use]
    pub fn left_out(trials: &[Trial]) -> Vec<String> {
        let rare = Measure::ALL.into_iter().filter_map(|measure| {
            let have = trials.iter().filter_map(|trial| trial.get(measure)).count();
            (have > 0 && is_rare(measure, trials)).then_some((measure, have))
        });
        let all = trials.len();
        rare.map(|(measure, have)| {
            let mut reasons = trials.iter().filter_map(|trial| trial.absent.get(&measure));
            let why = reasons.next().map_or("", String::as_str);
            format!(
                "{measure} is left out: {have} of {all} runs have it ({})",
                escaped(why)
            )
        })
        .collect()
    }

    /// Reads one from its JSON form.
    ///
    /// # Errors
    /// It is broken, no baseline, of another schema, or its numbers make no sense.
    pub fn parse(json: &[u8]) -> Result<Baseline, Fault> {
        let schema = form::schema(json)?;
        if schema != u64::from(SCHEMA) {
            return Err(Fault::Schema { found: schema });
        }
        let read: Baseline = serde_json::from_slice(json).map_err(|e| form::broken(json, &e))?;
        read.checked()
    }

    /// Its JSON form, with a line break at the end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Only a map with keys that are no text fails, and there is none.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        json + "\n"
    }

    /// Reads a file. Nothing but a regular file of at most 1 MiB is read, and nothing is waited
    /// for.
    ///
    /// # Errors
    /// It cannot be read, or as [`Baseline::parse`].
    pub fn read(path: &Path) -> Result<Baseline, BaselineError> {
        file::read(path)
            .and_then(|bytes| Baseline::parse(&bytes))
            .map_err(BaselineError::at(path))
    }

    /// Writes it in place of an older one, at once: whoever reads meanwhile finds one or the
    /// other, and so does who reads after a crash. The mode of the older one is kept, and a
    /// symbolic link leads to what is replaced.
    ///
    /// # Errors
    /// What is there is no baseline, or it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), BaselineError> {
        file::write(path, self.to_json().as_bytes()).map_err(BaselineError::at(path))
    }

    /// Whether one may be written there, before an hour is spent on taking it.
    ///
    /// # Errors
    /// What is there is no baseline, or its folder is missing.
    pub fn may_be_at(path: &Path) -> Result<(), BaselineError> {
        let place = file::place(path).map_err(BaselineError::at(path));
        place.map(drop)
    }

    /// In what a check of this subject, under this profile, on this machine, differs.
    #[must_use]
    pub fn differences(
        &self,
        subject: &Subject,
        profile: &Tuning,
        machine: &Machine,
    ) -> Vec<Difference> {
        let mut differences = Vec::new();
        if self.subject != *subject {
            let (then, now) = (self.subject.words(), subject.words());
            differences.push(Difference::new(What::Subject, &then, &now));
        }
        if self.profile != *profile {
            let (then, now) = (self.profile.words(), profile.words());
            differences.push(Difference::new(What::Profile, &then, &now));
        }
        differences.extend(self.machine.differences(machine));
        differences
    }

    /// The same, if its numbers make sense.
    fn checked(mut self) -> Result<Baseline, Fault> {
        if self.measures.is_empty() {
            return Err(Fault::NoMeasures);
        }
        for (measure, kept) in &mut self.measures {
            let measure = *measure;
            let count = kept.values.len();
            if count == 0 || kept.grade == Grade::Unavailable {
                return Err(Fault::NoValues { measure });
            }
            if count > MOST_VALUES {
                return Err(Fault::TooMany { measure, count });
            }
            for (at, value) in kept.values.iter_mut().enumerate() {
                if let Some(why) = impossible(measure, *value) {
                    return Err(Fault::Impossible {
                        measure,
                        number: at + 1,
                        why,
                    });
                }
                *value = rounded(measure.unit(), *value);
            }
        }
        Ok(self)
    }
}

/// Whether too few of the runs have it.
fn is_rare(measure: Measure, trials: &[Trial]) -> bool {
    let have = trials.iter().filter_map(|trial| trial.get(measure)).count();
    have * 5 < trials.len() * 4
}

/// What no run can come to.
fn impossible(measure: Measure, value: f64) -> Option<&'static str> {
    // All others are differences, which may fall below zero.
    let is_count = matches!(
        measure,
        Measure::Waste | Measure::Structural | Measure::Faults | Measure::Cpu | Measure::Wall
    );
    if !value.is_finite() {
        Some("not finite")
    } else if value.abs() >= MOST {
        Some("1e15 or more")
    } else if is_count && value < 0.0 {
        Some("negative")
    } else {
        None
    }
}

/// With as many digits as mean something: a number of at most fifteen digits is the same number
/// when it is read back, by any reader.
fn rounded(unit: Unit, value: f64) -> f64 {
    let scale = match unit {
        Unit::Bytes | Unit::Count => 1.0,
        Unit::BytesPerCycle => 1e3,
        Unit::Seconds => 1e6,
    };
    let rounded = match value * scale {
        scaled if scaled.abs() < MOST => scaled.round() / scale,
        _ => value.round(),
    };
    // Without the sign of zero.
    rounded + 0.0
}

pub(crate) fn listed(names: &BTreeSet<&str>) -> String {
    let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
    names.join(", ")
}
