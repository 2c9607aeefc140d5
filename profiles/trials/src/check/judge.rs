//! The rule.

use std::collections::BTreeSet;

use malloc_stats::Grade;

use super::cells::{change, limit};
use super::{Checked, Overall, Row, Side, Verdict};
use crate::baseline::{Baseline, Kept, listed};
use crate::gate::{Gated, Gates};
use crate::machine::Machine;
use crate::measure::Measure;
use crate::statistics::{Spread, least_probability, probability_of_greater};
use crate::trial::Trial;
use crate::words::escaped;

/// The part of clean checks in which a gate may fail, were there no floors. A false alarm costs a
/// person's morning; five runs against five reach it with one run on the wrong side.
pub const SIGNIFICANT: f64 = 0.01;

/// Nobody waits for more runs than that, and beside a baseline that stays as it is, they tell
/// little.
const MOST_RUNS: usize = 30;

/// How many runs it takes at least for a regression to be seen against a baseline of so many: 4
/// against 5, 7 against 3, 99 against 1. A baseline of none is taken for one of 1.
#[must_use]
pub fn runs_needed(baseline_runs: usize) -> usize {
    let baseline = baseline_runs.max(1);
    let runs = (1..=99).find(|runs| is_rare(least_probability(baseline, *runs)));
    // As 100 over 99 is a hundred.
    runs.unwrap_or(99)
}

/// At most [`SIGNIFICANT`], but for the last digits of a sum.
fn is_rare(probability: f64) -> bool {
    probability <= SIGNIFICANT * (1.0 + 1e-9)
}

impl Checked {
    /// Judges runs by their baseline. Whether the two may be compared at all has been settled
    /// before: [`Across::admit`](crate::machine::Across::admit).
    #[must_use]
    pub fn judge(baseline: &Baseline, now: &[Trial], gates: &Gates) -> Checked {
        let rows: Vec<Row> = gates
            .iter()
            .map(|(measure, gated)| row(measure, gated, baseline.measures.get(&measure), now))
            .collect();
        let mut checked = Checked {
            runs: now.len(),
            notes: notes(&rows, now),
            rows,
            ..Checked::without_verdict(baseline, reasons(now))
        };
        if checked
            .rows
            .iter()
            .all(|row| row.verdict == Verdict::Skipped)
        {
            let none = "no gate is left that could fail: nothing was checked";
            checked.reasons.push(none.to_owned());
        }
        let is_open = checked.rows.iter().any(|row| row.verdict.is_open());
        checked.verdict = if checked.with(Verdict::Regression).next().is_some() {
            Overall::Regression
        } else if is_open || !checked.reasons.is_empty() {
            Overall::NoVerdict
        } else {
            Overall::Pass
        };
        checked
    }
}

/// What speaks against the runs as such.
fn reasons(now: &[Trial]) -> Vec<String> {
    let mut reasons = Vec::new();
    let refused: Vec<&Trial> = now.iter().filter(|trial| trial.refused).collect();
    if let Some(first) = refused.first() {
        let profile = escaped(&first.profile);
        reasons.push(format!(
            "in {} of {} runs something that profile `{profile}` asks for was not in force",
            refused.len(),
            now.len()
        ));
    }
    let allocators = Machine::serving(now);
    if allocators.len() > 1 {
        let allocators = listed(&allocators);
        reasons.push(format!(
            "the runs were served by different allocators: {allocators}"
        ));
    }
    reasons
}

fn notes(rows: &[Row], now: &[Trial]) -> Vec<String> {
    let mut notes = Vec::new();
    for row in rows {
        let (Some(then), Some(side)) = (&row.baseline, &row.now) else {
            continue;
        };
        let measure = row.measure;
        if side.runs < now.len() {
            let why = why_absent(measure, now);
            let (have, all) = (side.runs, now.len());
            notes.push(format!("{measure}: {have} of {all} runs have it{why}"));
        }
        if then.grade != side.grade {
            let (then, now) = (graded(then.grade), graded(side.grade));
            notes.push(format!(
                "{measure}: the baseline is {then}, the runs are {now}"
            ));
        }
    }
    notes
}

fn graded(grade: Grade) -> &'static str {
    match grade {
        Grade::Exact => "exact",
        Grade::Upper => "an upper bound",
        Grade::Estimated => "estimated",
        Grade::Unavailable => "unavailable",
    }
}

/// The runs' own reasons, where they have any.
fn why_absent(measure: Measure, now: &[Trial]) -> String {
    let reasons: BTreeSet<&str> = now
        .iter()
        .filter_map(|trial| trial.absent.get(&measure))
        .map(String::as_str)
        .collect();
    match reasons.len() {
        0 => String::new(),
        _ => format!(" ({})", listed(&reasons)),
    }
}

/// A row without a comparison.
fn absent(measure: Measure, gated: Gated, kept: Option<&Kept>, now: &[Trial]) -> Row {
    let values = values(measure, now);
    let why = why_absent(measure, now);
    let runs = now.len();
    let (verdict, why) = match (kept, values.is_empty()) {
        (Some(_), _) => (
            Verdict::Missing,
            format!("the baseline has it, and none of {runs} runs{why}"),
        ),
        (None, false) => (
            Verdict::Skipped,
            "the baseline does not have it, the runs do; `--update` takes it in".to_owned(),
        ),
        (None, true) => (
            Verdict::Skipped,
            format!("neither the baseline nor a run has it{why}"),
        ),
    };
    Row {
        measure,
        baseline: kept.and_then(|kept| side(&kept.values, kept.grade)),
        now: side(&values, grade(measure, now)),
        change: None,
        relative: None,
        probability: None,
        gate: gated.gate,
        given: gated.given,
        // What is asked for and is not there must not look like a pass.
        verdict: if gated.given {
            Verdict::Missing
        } else {
            verdict
        },
        why,
        more_runs: None,
    }
}

fn row(measure: Measure, gated: Gated, kept: Option<&Kept>, now: &[Trial]) -> Row {
    let row = absent(measure, gated, kept, now);
    let (Some(kept), Some(then), Some(side)) = (kept, row.baseline, row.now) else {
        return row;
    };
    let (then_values, now_values) = (finite(&kept.values), values(measure, now));
    let by = side.median - then.median;
    let is_worse = by > 0.0;
    let probability = if is_worse {
        probability_of_greater(&then_values, &now_values)
    } else {
        probability_of_greater(&now_values, &then_values)
    };
    let row = Row {
        change: Some(by),
        relative: (then.median != 0.0).then(|| by / then.median.abs()),
        probability,
        ..row
    };
    let needed = runs_needed(then.runs);
    let is_past = row.gate.is_past(then.median, by);
    let beyond_noise = probability.is_some_and(is_rare);
    let (verdict, more_runs) = if side.runs < needed {
        let more = needed - side.runs;
        (Verdict::TooFew, (more <= MOST_RUNS).then_some(more))
    } else if !is_past {
        (Verdict::Pass, None)
    } else if is_worse && beyond_noise {
        (Verdict::Regression, None)
    } else if is_worse {
        (Verdict::Unclear, more_runs(&then_values, &now_values))
    } else if beyond_noise {
        (Verdict::Improved, None)
    } else {
        (Verdict::Pass, None)
    };
    let why = why(&row, verdict, more_runs, needed);
    Row {
        verdict,
        more_runs,
        why,
        ..row
    }
}

fn why(row: &Row, verdict: Verdict, more_runs: Option<usize>, needed: usize) -> String {
    let (Some(then), Some(now)) = (&row.baseline, &row.now) else {
        return String::new();
    };
    let moved = change(row);
    let past = format!("past {}", limit(row.measure, &row.gate));
    let chance = row
        .probability
        .map_or(0.0, |probability| probability * 100.0);
    match verdict {
        Verdict::Regression => format!(
            "{moved} on the median, {past}; chance comes to as much in {chance:.1} of 100 checks"
        ),
        Verdict::Improved => {
            format!("{moved} on the median, beyond noise; `--update` holds the program to it")
        }
        Verdict::Unclear => {
            let more = match more_runs {
                Some(more) => format!("about {more} more runs could tell"),
                None => "more runs would hardly tell: take the baseline again with more runs \
                         (`--update`), or widen the gate"
                    .to_owned(),
            };
            format!(
                "{moved} on the median, {past}, but chance comes to as much in {chance:.1} of 100 \
                 checks, and 1 is the limit; {more}"
            )
        }
        Verdict::TooFew => format!(
            "{} against a baseline of {}: no difference, however large, is beyond noise with \
             fewer than {needed}{}",
            now.runs,
            then.runs,
            match then.runs {
                0..4 => "; take the baseline again with 5 or more (`--update`)",
                _ => "",
            }
        ),
        Verdict::Pass | Verdict::Missing | Verdict::Skipped => String::new(),
    }
}

/// How many more runs would be beyond noise, if they fall as those did that there are.
fn more_runs(baseline: &[f64], now: &[f64]) -> Option<usize> {
    let would_tell =
        |times: &usize| probability_of_greater(baseline, &now.repeat(*times)).is_some_and(is_rare);
    let most = 1 + MOST_RUNS / now.len().max(1);
    // Where the most would not, no less would: that is the usual case, and soon told.
    let times = would_tell(&most).then(|| (2..=most).find(would_tell))??;
    Some((times - 1) * now.len())
}

fn finite(values: &[f64]) -> Vec<f64> {
    let values = values.iter().copied();
    values.filter(|value| value.is_finite()).collect()
}

fn values(measure: Measure, trials: &[Trial]) -> Vec<f64> {
    let values = trials.iter().filter_map(|trial| trial.get(measure));
    finite(&values.collect::<Vec<f64>>())
}

fn grade(measure: Measure, trials: &[Trial]) -> Grade {
    let values = trials.iter().filter_map(|trial| trial.values.get(&measure));
    values
        .map(|value| value.grade)
        .max()
        .unwrap_or(Grade::Exact)
}

fn side(values: &[f64], grade: Grade) -> Option<Side> {
    let values = finite(values);
    let Spread { median, min, max } = Spread::of(&values)?;
    let runs = values.len();
    Some(Side {
        median,
        min,
        max,
        runs,
        grade,
    })
}
