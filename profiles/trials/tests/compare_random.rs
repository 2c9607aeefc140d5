//! Comparisons of any numbers: the front against its definition, and nothing that is not finite.
#![allow(clippy::unwrap_used)]

use malloc_stats::Grade;
use plimsoll_trials::Measure;
use plimsoll_trials::compare::{Advice, Comparison, LEAST_RUNS, Options, Runs, front};
use plimsoll_trials::trial::Trial;
use proptest::collection::vec;
use proptest::prelude::*;

/// Five against five differ, by the rule, where all of one side lie below all of the other.
fn all_below(a: &[f64], b: &[f64]) -> bool {
    a.iter().all(|a| b.iter().all(|b| a < b))
}

fn beats(a: &(Vec<f64>, Vec<f64>), b: &(Vec<f64>, Vec<f64>)) -> bool {
    let no_worse = !all_below(&b.0, &a.0) && !all_below(&b.1, &a.1);
    no_worse && (all_below(&a.0, &b.0) || all_below(&a.1, &b.1))
}

/// Five values close enough to each other that some profiles overlap and some do not.
fn five() -> impl Strategy<Value = Vec<f64>> {
    (0_i32..6, vec(0_i32..4, 5)).prop_map(|(base, steps)| {
        let at = |step: i32| f64::from(2 * base + step);
        steps.into_iter().map(at).collect()
    })
}

fn any_finite() -> impl Strategy<Value = f64> {
    let extremes = [0.0, -0.0, 1e300, f64::MAX, f64::MIN, 5e-324, 1.0, 1e9];
    prop_oneof![
        prop::sample::select(extremes.to_vec()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        (0_u32..5000).prop_map(f64::from),
    ]
}

fn trial() -> impl Strategy<Value = Trial> {
    let grades = [Grade::Exact, Grade::Upper, Grade::Estimated];
    let value = prop::option::weighted(0.9, (any_finite(), prop::sample::select(grades.to_vec())));
    (vec(value, Measure::ALL.len()), prop::bool::weighted(0.05)).prop_map(|(values, refused)| {
        let mut trial = Trial {
            refused,
            ..Trial::default()
        };
        for (measure, value) in Measure::ALL.into_iter().zip(values) {
            match value {
                Some((value, grade)) => trial.set(measure, value, grade),
                None => trial.miss(measure, "not this time"),
            }
        }
        trial
    })
}

proptest! {
    #[test]
    fn the_front_is_whom_nobody_beats(profiles in vec((five(), five()), 0..9)) {
        let runs: Vec<Runs<'_>> = profiles
            .iter()
            .map(|(memory, time)| Runs { memory, time })
            .collect();
        let expected: Vec<usize> = (0..profiles.len())
            .filter(|at| !profiles.iter().any(|other| beats(other, &profiles[*at])))
            .collect();
        prop_assert_eq!(front(&runs), expected);
        // Of five runs each, somebody is always left.
        prop_assert_eq!(front(&runs).is_empty(), profiles.is_empty());
    }

    #[test]
    fn everything_is_finite_and_whoever_is_taken_keeps_the_rule(
        profiles in vec((".*", vec(trial(), 0..8)), 1..6),
        price in 0.0..2.0,
        memory in prop::sample::select(vec![None, Some(Measure::Peak), Some(Measure::Waste)]),
    ) {
        let options = Options { memory, price, time: Measure::Wall };
        let found = Comparison::new("any", 7, profiles, &options).unwrap();
        for one in &found.profiles {
            for summary in one.measures.values() {
                let numbers = [summary.median, summary.min, summary.max, summary.half_range()];
                prop_assert!(numbers.iter().all(|number| number.is_finite()));
                prop_assert!(summary.ratio.is_none_or(|ratio| ratio.is_finite() && ratio >= 0.0));
                prop_assert!((summary.min..=summary.max).contains(&summary.median));
                prop_assert!(summary.probability.is_none_or(|p| (0.0..=1.0).contains(&p)));
            }
        }
        let advice = &found.recommendation;
        prop_assert!(!advice.sentences.is_empty());
        prop_assert_eq!(advice.advice == Advice::Take, advice.profile.is_some());
        if let (Some(taken), Some(trade)) = (found.recommended(), &advice.trade) {
            prop_assert!(taken.on_front && taken.left_out.is_none());
            prop_assert!(taken.runs >= LEAST_RUNS as u64);
            prop_assert!(trade.saved_bytes > 0.0 && trade.cost_seconds.is_finite());
        }
        // What is not finite would be written as null, and not be read again.
        let text = serde_json::to_string(&found).unwrap();
        let back: Comparison = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.front, found.front);
    }
}
