//! Findings with a name, numbers and a remedy each.
//!
//! Every lint is a pure function of an [`Inspection`], and silent about what is unavailable:
//! absent is not zero. A number that is not exact carries its mark into the sentence. Of a process
//! with several C libraries the heap that holds most is judged.

mod growth;
mod heap;
mod limits;
mod lints;
mod pages;
mod settings;
mod walked;
mod words;

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::report::Inspection;
use crate::metric::Metric;

pub use lints::{LINTS, Lint};

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Costs memory, or will.
    Warn,
    /// About to be killed, or was; or its heap is broken.
    Bad,
}

/// A finding: documented under its name in docs/diagnose.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name, such as `free-but-resident`: one of [`LINTS`].
    pub lint: String,
    /// How grave.
    pub severity: Severity,
    /// The bytes it is about.
    pub bytes: Metric,
    /// What is so, with numbers: one sentence. What came from the process, such as a path, has its
    /// control characters escaped.
    pub finding: String,
    /// What to do: one sentence.
    pub remedy: String,
}

/// What a lint says.
struct Finding {
    severity: Severity,
    bytes: Metric,
    finding: String,
    remedy: String,
}

/// What follows from an inspection: the gravest first, then what is about most bytes.
#[must_use]
pub fn judge(inspection: &Inspection) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = LINTS
        .iter()
        .filter_map(|lint| lint.judge(inspection))
        .collect();
    verdicts.sort_by_key(|verdict| Reverse((verdict.severity, verdict.bytes.bytes())));
    verdicts
}

/// Below this nobody buys memory or is killed for it, and any healthy process has that much spare.
const MUCH: u64 = 64 << 20;
/// A smaller share of the whole, in percent, is the give and take of every allocator: glibc's own
/// default lets a fifth go to waste in a program that frees in no order.
const MUCH_PERCENT: u64 = 20;

/// Whether `part` is worth a sentence: by itself, and as a part of `whole`.
fn is_much(part: Metric, whole: Metric) -> bool {
    match (part.bytes(), whole.bytes()) {
        (Some(part), Some(whole)) => part >= MUCH && is_share(part, whole, MUCH_PERCENT),
        _ => false,
    }
}

/// Whether `part` is at least `percent` of `whole`.
fn is_share(part: u64, whole: u64, percent: u64) -> bool {
    u128::from(part) * 100 >= u128::from(whole) * u128::from(percent)
}
