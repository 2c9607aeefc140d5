//! The trial of a foreign program, from what was seen of it from outside.

use malloc_stats::{Grade, Metric, SettingGrade};

use crate::measure::Measure;
use crate::outcome::Outcome;
use crate::statistics::slope;
use crate::trial::Trial;

const NO_CYCLES: &str =
    "the program marks no cycles, or fewer than 4 (connect to $PLIMSOLL_MARKS, send `cycle`)";
const NO_HEAP: &str = "its heap could not be looked into";
const NOT_EACH: &str = "it could not be read at each of its marks `cycle`";
const NO_BASELINE: &str = "its memory could not be read at its mark `baseline`";
const NEVER_READ: &str = "its memory was never read: it ended too soon";
const UNMARKED: &str = "retained, waste: of the last time that it was looked at, as it marks neither \
                        `dropped` nor `cycle` (connect to $PLIMSOLL_MARKS, send `dropped`)";

/// A program that was seen last so many seconds before its end may have held anything at its end.
const LONG_BEFORE_THE_END: f64 = 1.0;

impl From<&Outcome> for Trial {
    fn from(outcome: &Outcome) -> Trial {
        let mut trial = Trial {
            profile: outcome.profile.clone(),
            allocator: outcome.allocator.clone(),
            settings: outcome.settings.clone(),
            refused: refused(outcome),
            notes: outcome.not_in_force.clone(),
            ..Trial::default()
        };
        // Without its word where it begins to work, everything is counted.
        let baseline = if outcome.baseline_marked {
            outcome.baseline_rss
        } else {
            Metric::Exact(0)
        };
        above(&mut trial, Measure::Peak, outcome.peak_rss, baseline);
        above(&mut trial, Measure::Mean, outcome.mean_rss, baseline);
        above(&mut trial, Measure::Retained, at_rest(outcome), baseline);
        if is_long_before_the_end(outcome) {
            let before = crate::number::seconds(outcome.last_seen_before_end_seconds);
            trial.miss(
                Measure::Retained,
                format!("it was last seen {before} before its end"),
            );
        }
        trial.miss(
            Measure::Excess,
            "only the program itself knows what it holds on purpose",
        );
        heap(&mut trial, outcome);
        slopes(&mut trial, outcome);
        if !marks_rest(outcome) {
            trial.notes.push(UNMARKED.to_owned());
        }
        trial.set(Measure::Faults, outcome.minor_faults as f64, Grade::Exact);
        let cpu = outcome.user_seconds + outcome.system_seconds;
        trial.set(Measure::Cpu, cpu, Grade::Exact);
        let wall = outcome.wall_seconds - outcome.marks_seconds;
        // While one process waits at a mark, others may go on.
        let grade = match outcome.marks_seconds > 0.0 {
            true => Grade::Estimated,
            false => Grade::Exact,
        };
        trial.set(Measure::Wall, wall.max(0.0), grade);
        trial
    }
}

/// Whether anything that the profile asks for is known not to be in force.
fn refused(outcome: &Outcome) -> bool {
    let mut settings = outcome.settings.iter();
    settings.any(|(_, setting)| setting.grade == SettingGrade::Refused)
        || !outcome.not_in_force.is_empty()
}

/// Whether it says when it has dropped what it held.
fn marks_rest(outcome: &Outcome) -> bool {
    !outcome.dropped_rss.is_unavailable() || !outcome.cycles.is_empty()
}

fn is_long_before_the_end(outcome: &Outcome) -> bool {
    !marks_rest(outcome) && outcome.last_seen_before_end_seconds > LONG_BEFORE_THE_END
}

/// What was resident with everything dropped; else when it was last seen, perhaps on its way out.
fn at_rest(outcome: &Outcome) -> Metric {
    let last_cycle = outcome.cycles.last().map(|cycle| cycle.rss);
    let marked = [outcome.dropped_rss, last_cycle.unwrap_or_default()];
    let marked = marked.into_iter().find(|rss| !rss.is_unavailable());
    marked.unwrap_or(outcome.last_rss.at_best(Grade::Estimated))
}

fn above(trial: &mut Trial, measure: Measure, rss: Metric, baseline: Metric) {
    match (rss.bytes(), baseline.bytes()) {
        (Some(rss_bytes), Some(baseline_bytes)) => {
            // As of a difference: an upper bound less an upper bound is none.
            let grade = rss.minus_saturating(baseline).grade();
            trial.set(measure, rss_bytes as f64 - baseline_bytes as f64, grade);
        }
        (Some(_), None) => trial.miss(measure, NO_BASELINE),
        (None, _) => trial.miss(measure, NEVER_READ),
    }
}

fn heap(trial: &mut Trial, outcome: &Outcome) {
    let seen = outcome.heap.as_ref();
    // Whatever it held at that moment, it held on purpose, or not.
    let best = match marks_rest(outcome) {
        true => Grade::Exact,
        false => Grade::Estimated,
    };
    let waste = seen.map_or(Metric::Unavailable, |seen| {
        seen.heap_rss.minus_saturating(seen.in_use).at_best(best)
    });
    let gap = seen.map_or(Metric::Unavailable, |seen| seen.releasable.at_best(best));
    let structural = waste.minus_saturating(gap);
    for (measure, metric) in [
        (Measure::Waste, waste),
        (Measure::TrimGap, gap),
        (Measure::Structural, structural),
    ] {
        match metric.bytes() {
            Some(bytes) => trial.set(measure, bytes as f64, metric.grade()),
            None => trial.miss(measure, NO_HEAP),
        }
    }
}

fn slopes(trial: &mut Trial, outcome: &Outcome) {
    let cycles = outcome.cycles.iter();
    let in_use = cycles.clone().map(|cycle| cycle.in_use.bytes());
    let resident = cycles.map(|cycle| cycle.rss.bytes());
    set_slope(trial, Measure::Leak, in_use);
    set_slope(trial, Measure::Growth, resident);
}

fn set_slope(trial: &mut Trial, measure: Measure, each: impl Iterator<Item = Option<u64>>) {
    let values: Option<Vec<f64>> = each.map(|bytes| bytes.map(|bytes| bytes as f64)).collect();
    match values.as_deref().map(slope) {
        Some(Some(slope)) => trial.set(measure, slope, Grade::Estimated),
        Some(None) => trial.miss(measure, NO_CYCLES),
        None => trial.miss(measure, NOT_EACH),
    }
}
