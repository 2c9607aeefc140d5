//! Is a program worse than its baseline?
//!
//! A measure fails only past its relative floor, past its absolute floor, *and* beyond noise: by
//! ranks, chance alone would put the runs as far above the baseline in at most one of a hundred
//! checks ([`SIGNIFICANT`]). Past the floors and not beyond noise there is no verdict, and it is
//! said how many more runs could bring one.
//!
//! | file | what |
//! |---|---|
//! | `judge` | the rule |
//! | `annotations` | lines that GitHub shows beside a change |
//! | `cells` | the cells of a row in words |
//! | `junit` | for whatever reads test reports |
//! | `markdown` | a job's summary |

mod annotations;
mod cells;
mod judge;
mod junit;
mod markdown;

use malloc_stats::Grade;
use serde::Serialize;

use crate::baseline::Baseline;
use crate::gate::Gate;
use crate::measure::Measure;
use crate::statistics::Spread;
use crate::words::escaped;

pub use annotations::annotations;
pub use judge::{SIGNIFICANT, runs_needed};
pub use junit::junit;
pub use markdown::markdown;

/// The rule, in a sentence.
pub const RULE: &str = "a metric fails past its relative floor, past its absolute floor, and \
    beyond noise: where chance comes to as much in at most 1 of 100 checks (Mann-Whitney)";

/// What the runs of one side came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Side {
    /// Of the runs, the median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many runs have the measure.
    pub runs: usize,
    /// The worst of their grades.
    pub grade: Grade,
}

impl Side {
    /// Half of the range, in the unit of the measure. Finite.
    #[must_use]
    pub fn half_range(&self) -> f64 {
        let &Side {
            median, min, max, ..
        } = self;
        Spread { median, min, max }.half_range()
    }
}

/// What a gate comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No worse than the gate allows.
    Pass,
    /// Better, by as much as would have failed to the other side.
    Improved,
    /// Worse: past both floors and beyond noise.
    Regression,
    /// Past both floors and not beyond noise: more runs could tell.
    Unclear,
    /// No difference, however large, would be beyond noise with so few runs.
    TooFew,
    /// The number is not there, and has to be.
    Missing,
    /// Neither side has the number, and nobody asked for it.
    Skipped,
}

impl Verdict {
    /// In a word or two.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Improved => "improved",
            Verdict::Regression => "regression",
            Verdict::Unclear => "too noisy",
            Verdict::TooFew => "too few runs",
            Verdict::Missing => "missing",
            Verdict::Skipped => "skipped",
        }
    }

    /// Whether the check has no verdict because of it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Verdict::Unclear | Verdict::TooFew | Verdict::Missing)
    }
}

/// A gate, and what it comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Of what.
    pub measure: Measure,
    /// What the baseline has, where it has that.
    pub baseline: Option<Side>,
    /// What the runs came to, where they did.
    pub now: Option<Side>,
    /// From the baseline's median to that of the runs, in the unit of the measure.
    pub change: Option<f64>,
    /// The same as a fraction of the baseline's median; absent where that is zero.
    pub relative: Option<f64>,
    /// How probable it is that chance alone comes to as much, to the side of the change.
    pub probability: Option<f64>,
    /// The gate.
    pub gate: Gate,
    /// Whether it was asked for, and is no default.
    pub given: bool,
    /// What it comes to.
    pub verdict: Verdict,
    /// Why, in a sentence without a full stop; empty for what simply passes.
    pub why: String,
    /// How many more runs could tell, where it is unclear or there are too few, and they could.
    pub more_runs: Option<usize>,
}

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// No gate failed, and all of them have a verdict.
    Pass,
    /// A gate failed.
    Regression,
    /// No gate failed, and that says nothing: [`Checked::reasons`].
    NoVerdict,
}

impl Overall {
    /// The exit code of `plimsoll check`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Overall::Pass => 0,
            Overall::Regression => 1,
            Overall::NoVerdict => 2,
        }
    }
}

/// A check, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// What was run, in words.
    pub subject: String,
    /// Under which profile.
    pub profile: String,
    /// How many runs there were.
    pub runs: usize,
    /// A row a gate, in the order of measures.
    pub rows: Vec<Row>,
    /// Why there is no verdict, beside what its rows say.
    pub reasons: Vec<String>,
    /// What is worth a sentence.
    pub notes: Vec<String>,
    /// What it comes to. A regression counts, even if other gates have no verdict.
    pub verdict: Overall,
}

impl Checked {
    /// A check that came to nothing: for reports that are written all the same.
    #[must_use]
    pub fn without_verdict(baseline: &Baseline, reasons: Vec<String>) -> Checked {
        Checked {
            subject: baseline.subject.words(),
            profile: escaped(&baseline.profile.name),
            runs: 0,
            rows: Vec::new(),
            reasons,
            notes: Vec::new(),
            verdict: Overall::NoVerdict,
        }
    }

    /// The rows with this verdict.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.verdict == verdict)
    }

    /// Whether more runs could bring a verdict that is missing: to be judged again with all of
    /// them. Doing so once, only where this says so, adds at most [`SIGNIFICANT`] to the false
    /// alarms of a gate.
    #[must_use]
    pub fn unclear(&self) -> bool {
        self.more_runs().is_some()
    }

    /// How many more runs that would take, for all gates that are unclear.
    #[must_use]
    pub fn more_runs(&self) -> Option<usize> {
        if self.verdict != Overall::NoVerdict || !self.reasons.is_empty() {
            return None;
        }
        self.rows.iter().filter_map(|row| row.more_runs).max()
    }

    /// The check in a sentence.
    #[must_use]
    pub fn headline(&self) -> String {
        let counted = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let failed = self.with(Verdict::Regression).count();
        let open = self.rows.iter().filter(|row| row.verdict.is_open()).count();
        let skipped = self.with(Verdict::Skipped).count();
        let judged = counted(self.rows.len() - skipped, "gate");
        match self.verdict {
            Overall::Pass => format!("no regression in {judged}"),
            Overall::Regression => format!("{} in {judged}", counted(failed, "regression")),
            Overall::NoVerdict if open == 0 => "no verdict".to_owned(),
            Overall::NoVerdict => format!("no verdict on {open} of {judged}"),
        }
    }
}
