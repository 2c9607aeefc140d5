//! Profiles against each other: which differences are real, which profiles are worth having, and
//! which one to take.
//!
//! | file | what |
//! |---|---|
//! | `difference` | is it more than noise? |
//! | `front` | whom does nobody beat? |
//! | `recommendation` | which one, what it saves, and what it costs |
//! | `sentences` | the same in sentences |
//! | `summary` | the runs of one profile |

mod difference;
mod error;
mod front;
mod recommendation;
mod sentences;
mod summary;

use serde::{Deserialize, Serialize};

use crate::measure::{Measure, Unit};
use crate::trial::Trial;

pub use difference::{Difference, LEAST_RUNS, PROBABILITY, RULE};
pub use error::CompareError;
pub use front::{Runs, front};
pub use recommendation::{Advice, LEAST_SAVING, Recommendation, RunnerUp, Trade};
pub use summary::{Compared, Summary};

/// The version of the comparison's JSON form.
pub const SCHEMA: u32 = 1;

/// What is traded for what, and at which price.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The measure of memory; by default `retained` where every run has it, else `peak`.
    pub memory: Option<Measure>,
    /// The measure of time.
    pub time: Measure,
    /// How much more of the time a recommended profile may take than the reference: 0.1 is a tenth.
    pub price: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            memory: None,
            time: Measure::Cpu,
            price: 0.1,
        }
    }
}

/// Profiles, compared. The JSON form of this is what `compare --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was run, in words.
    pub what: String,
    /// How often each profile was to run.
    pub rounds: u64,
    /// By what rule differences are told from noise.
    pub rule: String,
    /// The measure of memory.
    pub memory: Measure,
    /// The measure of time.
    pub time: Measure,
    /// How much more of the time a recommended profile may take.
    pub price: f64,
    /// The profiles in the order given; the first is the reference.
    pub profiles: Vec<Compared>,
    /// The names of those that no other one beats in memory and time (the Pareto front).
    pub front: Vec<String>,
    /// Which one to take.
    pub recommendation: Recommendation,
}

impl Comparison {
    /// Compares the runs of profiles; the first profile is what the others are compared with.
    ///
    /// # Errors
    /// No profile, a measure that is not of memory or of time, a price that makes no sense.
    pub fn new(
        what: impl Into<String>,
        rounds: u64,
        profiles: Vec<(String, Vec<Trial>)>,
        options: &Options,
    ) -> Result<Comparison, CompareError> {
        check(options)?;
        if profiles.is_empty() {
            return Err(CompareError::Nothing);
        }
        let mut compared: Vec<Compared> = Vec::with_capacity(profiles.len());
        for (name, trials) in profiles {
            let one = Compared::new(name, &trials, compared.first());
            compared.push(one);
        }
        let memory = options.memory.unwrap_or_else(|| default_memory(&compared));
        for one in &mut compared {
            one.require([memory, options.time]);
        }
        mark_front(&mut compared, memory, options.time);
        let of_front = compared.iter().filter(|one| one.on_front);
        Ok(Comparison {
            schema: SCHEMA,
            what: what.into(),
            rounds,
            rule: RULE.to_owned(),
            memory,
            time: options.time,
            price: options.price,
            front: of_front.map(|one| one.name.clone()).collect(),
            recommendation: Recommendation::of(&compared, memory, options.time, options.price),
            profiles: compared,
        })
    }

    /// The profile to take, where one is recommended in place of the reference.
    #[must_use]
    pub fn recommended(&self) -> Option<&Compared> {
        self.profiles.get(self.recommendation.profile?)
    }
}

fn is_memory(measure: Measure) -> bool {
    measure.unit() == Unit::Bytes
}

fn check(options: &Options) -> Result<(), CompareError> {
    if let Some(memory) = options.memory.filter(|memory| !is_memory(*memory)) {
        return Err(CompareError::NotMemory(memory));
    }
    if options.time.unit() != Unit::Seconds {
        return Err(CompareError::NotTime(options.time));
    }
    if !(options.price.is_finite() && options.price >= 0.0) {
        return Err(CompareError::Price(options.price));
    }
    Ok(())
}

fn default_memory(profiles: &[Compared]) -> Measure {
    let mut taking_part = profiles.iter().filter(|one| one.left_out.is_none());
    let have_it = |one: &Compared| {
        let retained = one.measures.get(&Measure::Retained);
        retained.is_some_and(|retained| retained.values.len() as u64 == one.runs)
    };
    match taking_part.all(have_it) {
        true => Measure::Retained,
        false => Measure::Peak,
    }
}

fn mark_front(profiles: &mut [Compared], memory: Measure, time: Measure) {
    let taking_part: Vec<usize> = (0..profiles.len())
        .filter(|at| profiles[*at].left_out.is_none())
        .collect();
    let runs: Vec<Runs<'_>> = taking_part
        .iter()
        .map(|at| Runs {
            memory: profiles[*at].values(memory),
            time: profiles[*at].values(time),
        })
        .collect();
    for at in front(&runs) {
        profiles[taking_part[at]].on_front = true;
    }
}
