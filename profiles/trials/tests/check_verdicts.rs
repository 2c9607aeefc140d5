//! The rule: what fails, what is noise, and what has no verdict; against a model of it in words.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use malloc_stats::Grade;
use plimsoll_trials::baseline::{Subject, SubjectKind, Tuning};
use plimsoll_trials::check::{Overall, SIGNIFICANT, Verdict, runs_needed};
use plimsoll_trials::statistics::least_probability;
use plimsoll_trials::{Baseline, Checked, Gates, Machine, Measure, Trial};
use proptest::prelude::*;

const MIB: f64 = 1_048_576.0;

fn trials(measure: Measure, values: &[f64]) -> Vec<Trial> {
    let trial = |value: &f64| {
        let mut trial = Trial::default();
        trial.set(measure, *value, Grade::Exact);
        trial
    };
    values.iter().map(trial).collect()
}

fn baseline(trials: &[Trial]) -> Baseline {
    let subject = Subject {
        kind: SubjectKind::Run,
        arguments: vec!["--churn".to_owned()],
    };
    let machine = Machine::here("glibc 2.36");
    Baseline::of(subject, Tuning::default(), machine, Vec::new(), trials, 0).unwrap()
}

fn only(gate: &str) -> Gates {
    Gates::only(&[gate.parse().unwrap()]).unwrap()
}

fn check(gate: &str, then: &[f64], now: &[f64]) -> Checked {
    let measure = Measure::named(gate.split_once('=').unwrap().0).unwrap();
    let baseline = baseline(&trials(measure, then));
    Checked::judge(&baseline, &trials(measure, now), &only(gate))
}

fn verdict(gate: &str, then: &[f64], now: &[f64]) -> Verdict {
    let checked = check(gate, then, now);
    assert_eq!(checked.rows.len(), 1);
    checked.rows[0].verdict
}

#[test]
fn a_regression_is_past_both_floors_and_beyond_noise() {
    let then = [100.0, 101.0, 102.0, 103.0, 104.0].map(|mib| mib * MIB);
    let by = |factor: f64, plus: f64| then.map(|bytes| bytes * factor + plus);
    let gate = "retained=10%,4MiB";
    assert_eq!(
        verdict(gate, &then, &by(1.0, 12.0 * MIB)),
        Verdict::Regression
    );
    assert_eq!(verdict(gate, &then, &by(1.0, 9.0 * MIB)), Verdict::Pass);
    assert_eq!(verdict(gate, &then, &by(0.8, 0.0)), Verdict::Improved);
    assert_eq!(
        verdict("retained=1%,16MiB", &then, &by(1.0, 12.0 * MIB)),
        Verdict::Pass
    );
    // Past the floors on the median, with runs that lie among the baseline's.
    let noisy = [90.0, 95.0, 130.0, 140.0, 150.0].map(|mib| mib * MIB);
    let checked = check(gate, &then, &noisy);
    assert_eq!(checked.rows[0].verdict, Verdict::Unclear);
    assert_eq!(checked.verdict, Overall::NoVerdict);
    assert_eq!(checked.verdict.exit_code(), 2);
    assert!(checked.rows[0].why.contains("1 is the limit"));
}

#[test]
fn what_grows_from_nothing_or_from_below_is_judged_by_its_absolute_floor() {
    assert_eq!(
        verdict("leak=0%,1KiB", &[0.0; 5], &[1025.0; 5]),
        Verdict::Regression
    );
    assert_eq!(
        verdict("leak=0%,1KiB", &[0.0; 5], &[1024.0; 5]),
        Verdict::Pass
    );
    let checked = check("leak=0%,1KiB", &[0.0; 5], &[2048.0; 5]);
    assert_eq!(checked.rows[0].relative, None);
    let shrinking = [-4096.0; 5];
    assert_eq!(
        verdict("growth=10%,1KiB", &shrinking, &[0.0; 5]),
        Verdict::Regression
    );
    assert_eq!(
        verdict("growth=200%,1KiB", &shrinking, &[0.0; 5]),
        Verdict::Pass
    );
}

#[test]
fn an_unclear_gate_says_how_many_runs_could_tell_and_those_do() {
    let then = [100.0, 101.0, 102.0, 103.0, 112.0];
    let now = [102.5, 114.0, 116.0, 117.0, 118.0];
    let first = check("faults=10%,5", &then, &now);
    assert!(first.unclear(), "{first:?}");
    let more = first.more_runs().unwrap();
    let again = [&now[..], &now.repeat(more.div_ceil(5))].concat();
    let second = check("faults=10%,5", &then, &again);
    assert_eq!(second.verdict, Overall::Regression, "{second:?}");
    assert!(!second.unclear());

    // Half above and half below stays so.
    let now = [50.0, 60.0, 115.0, 120.0, 130.0];
    let hopeless = check("faults=10%,5", &[70.0, 80.0, 90.0, 125.0, 128.0], &now);
    assert_eq!(hopeless.rows[0].verdict, Verdict::Unclear);
    assert!(!hopeless.unclear() && hopeless.rows[0].why.contains("--update"));
}

#[test]
fn where_nothing_could_be_shown_nothing_passes() {
    assert_eq!([1, 2, 3, 4, 5, 13].map(runs_needed), [99, 13, 7, 5, 4, 2]);
    assert_eq!(runs_needed(0), runs_needed(1));
    let checked = check("peak=3%,16MiB", &[MIB; 5], &[MIB; 3]);
    assert_eq!(checked.rows[0].verdict, Verdict::TooFew);
    assert_eq!(checked.verdict, Overall::NoVerdict);
    assert!(checked.rows[0].why.contains("fewer than 4"));
    assert_eq!(checked.more_runs(), Some(1));
    let checked = check("peak=3%,16MiB", &[MIB], &[MIB; 5]);
    assert!(checked.rows[0].why.contains("fewer than 99"));
    assert!(!checked.unclear(), "nobody waits for 94 runs");
    // And with just as many as it says, it is shown.
    for then in 1..12 {
        let now = vec![3.0 * MIB; runs_needed(then)];
        let then = vec![MIB; then];
        assert_eq!(verdict("peak=3%,1MiB", &then, &now), Verdict::Regression);
    }
}

#[test]
fn a_number_that_is_gone_is_no_pass() {
    let then = baseline(&trials(Measure::Peak, &[MIB; 5]));
    let mut now = trials(Measure::Faults, &[7.0; 5]);
    for trial in &mut now {
        trial.miss(Measure::Peak, "nobody\nlooked");
    }
    let checked = Checked::judge(&then, &now, &Gates::default());
    let of = |measure| checked.rows.iter().find(|row| row.measure == measure);
    let peak = of(Measure::Peak).unwrap();
    assert_eq!(peak.verdict, Verdict::Missing);
    assert!(
        peak.why.contains("none of 5 runs (nobody\\nlooked)"),
        "{}",
        peak.why
    );
    assert_eq!(of(Measure::Leak).unwrap().verdict, Verdict::Skipped);
    assert_eq!(checked.verdict, Overall::NoVerdict);

    // What only the runs have is skipped, unless it was asked for.
    let faults = |gates: &Gates| Checked::judge(&then, &now, gates).rows[0].verdict;
    assert_eq!(faults(&only("faults=1%,1")), Verdict::Missing);
    assert_eq!(faults(&only("leak=0%,1KiB")), Verdict::Missing);

    // A check in which nothing was looked at is no pass either.
    let defaults = Checked::judge(&baseline(&now), &now, &Gates::default());
    assert_eq!(defaults.verdict, Overall::NoVerdict);
    assert_eq!(defaults.reasons.len(), 1);
    let none = Checked::judge(&then, &now, &Gates::only(&[]).unwrap());
    assert_eq!(none.verdict, Overall::NoVerdict);
    let no_runs = Checked::judge(&then, &[], &only("peak=3%,16MiB"));
    assert_eq!(no_runs.rows[0].verdict, Verdict::Missing);
}

#[test]
fn a_profile_that_was_not_in_force_has_no_verdict_but_a_regression_counts() {
    let then = baseline(&trials(Measure::Peak, &[100.0 * MIB; 5]));
    let refused = |values: &[f64]| {
        let mut now = trials(Measure::Peak, values);
        now[1].refused = true;
        now[1].profile = "jemalloc\u{1b}".into();
        Checked::judge(&then, &now, &Gates::default())
    };
    let checked = refused(&[100.0 * MIB; 5]);
    assert_eq!(checked.verdict, Overall::NoVerdict);
    assert!(
        checked.reasons[0].contains("in 1 of 5 runs"),
        "{:?}",
        checked.reasons
    );
    assert!(!checked.reasons[0].contains('\u{1b}'));
    assert_eq!(refused(&[200.0 * MIB; 5]).verdict, Overall::Regression);
    assert_eq!(refused(&[200.0 * MIB; 5]).verdict.exit_code(), 1);

    let mut mixed = trials(Measure::Peak, &[100.0 * MIB; 5]);
    mixed[0].allocator = "glibc 2.36".into();
    mixed[1].allocator = "jemalloc 5.3".into();
    let checked = Checked::judge(&then, &mixed, &Gates::default());
    assert_eq!(checked.verdict, Overall::NoVerdict);
}

#[test]
fn runs_without_the_number_and_other_grades_are_noted() {
    let then = baseline(&trials(Measure::Peak, &[100.0 * MIB; 5]));
    let mut now = trials(Measure::Peak, &[100.0 * MIB; 5]);
    now[4].miss(Measure::Peak, "it ended too soon");
    now[0].set(Measure::Peak, 100.0 * MIB, Grade::Upper);
    let checked = Checked::judge(&then, &now, &only("peak=3%,16MiB"));
    assert_eq!(checked.verdict, Overall::Pass, "{checked:?}");
    let notes = checked.notes.join("\n");
    assert!(
        notes.contains("4 of 5 runs have it (it ended too soon)"),
        "{notes}"
    );
    assert!(notes.contains("the baseline is exact, the runs are an upper bound"));
}

#[test]
fn many_runs_are_judged_as_few_are() {
    let then: Vec<f64> = (0..40).map(|at| (1000.0 + f64::from(at)) * MIB).collect();
    let now: Vec<f64> = then.iter().map(|bytes| bytes + 60.0 * MIB).collect();
    assert_eq!(verdict("peak=3%,16MiB", &then, &now), Verdict::Regression);
    assert_eq!(verdict("peak=3%,16MiB", &then, &then), Verdict::Pass);
    let worst = vec![f64::from(1 << 20) * MIB; 4];
    assert_eq!(verdict("peak=3%,16MiB", &then, &worst), Verdict::Regression);
}

#[test]
fn its_json_has_names_that_stay() {
    let checked = check("peak=3%,1MiB", &[MIB; 5], &[4.0 * MIB; 5]);
    let json = serde_json::to_value(&checked).unwrap();
    assert_eq!(json["verdict"], "regression");
    assert_eq!(json["rows"][0]["measure"], "peak");
    assert_eq!(json["rows"][0]["gate"], "3%,1MiB");
    assert_eq!(json["rows"][0]["baseline"]["median"], MIB);
    assert_eq!(json["rows"][0]["verdict"], "regression");
    assert_eq!(json["rows"][0]["relative"], 3.0);
}

/// Uniform in (0, 1): SplitMix64.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON / 4.0
}

/// About 512 MiB, spread as a lognormal variable by 14 % (Box–Muller).
fn noisy(state: &mut u64) -> f64 {
    let (radius, angle) = (uniform(state), uniform(state));
    let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
    (512.0 * MIB * (0.14 * normal).exp()).round()
}

/// Both sides from one source, judged by the gate that forgives least. The rule promises 1 in 100
/// without floors, and ranks of five against five come to 2 in 252. Found: 83 of 10 000 fail (64 to
/// 99 with other seeds). Of 391 that are unclear and could become clear with five more runs, 48
/// fail then.
#[test]
fn clean_checks_fail_as_seldom_as_the_rule_promises() {
    const CHECKS: usize = 10_000;
    let state = &mut 1;
    let gates = only("peak=3%,16MiB");
    let mut then = baseline(&trials(Measure::Peak, &[MIB]));
    let (mut failed, mut unclear, mut failed_again) = (0, 0, 0);
    for _ in 0..CHECKS {
        let mut five = || (0..5).map(|_| noisy(state)).collect::<Vec<f64>>();
        then.measures.get_mut(&Measure::Peak).unwrap().values = five();
        let mut now = five();
        let first = Checked::judge(&then, &trials(Measure::Peak, &now), &gates);
        failed += usize::from(first.verdict == Overall::Regression);
        if first.unclear() {
            unclear += 1;
            now.extend(five());
            let second = Checked::judge(&then, &trials(Measure::Peak, &now), &gates);
            failed_again += usize::from(second.verdict == Overall::Regression);
        }
    }
    println!("of {CHECKS}: {failed} failed, {unclear} unclear, {failed_again} failed then");
    let promised = (SIGNIFICANT * CHECKS as f64) as usize;
    assert!(failed <= promised, "{failed}");
    assert!(failed + failed_again <= 2 * promised, "{failed_again}");
    // The simulation is noisy enough to mean something.
    assert!(failed > 0 && unclear > 0);
}

/// The rule in other words, for runs that do not overlap and gates in whole numbers.
fn model(then: f64, now: f64, percent: f64, floor: f64) -> Verdict {
    let allowed = f64::max(percent / 100.0 * then.abs(), floor);
    if now - then > allowed {
        Verdict::Regression
    } else if then - now > allowed {
        Verdict::Improved
    } else {
        Verdict::Pass
    }
}

proptest! {
    #[test]
    fn runs_like_the_baseline_never_fail(
        values in prop::collection::vec(-1e12..1e12_f64, 5..14),
        shuffled in any::<prop::sample::Index>(),
    ) {
        let mut now = values.clone();
        now.rotate_left(shuffled.index(values.len()));
        let checked = check("growth=0%,1B", &values, &now);
        // Rounded to a thousandth of a byte when it was kept, which is below the floor.
        prop_assert_eq!(checked.verdict, Overall::Pass, "{:?}", checked);
    }

    #[test]
    fn what_is_shifted_past_the_floors_and_all_runs_fails(
        values in prop::collection::vec(1e6..1e12_f64, 5..14),
        percent in 0..50_u32,
        floor in 1..1_u64 << 40,
    ) {
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let shift = (most - least) + most * f64::from(percent) / 100.0 + floor as f64 + 2.0;
        let now: Vec<f64> = values.iter().map(|value| value + shift).collect();
        let gate = format!("retained={percent}%,{floor}B");
        prop_assert_eq!(verdict(&gate, &values, &now), Verdict::Regression);
        prop_assert_eq!(verdict(&gate, &now, &values) == Verdict::Regression, false);
    }

    #[test]
    fn runs_that_do_not_vary_are_judged_by_their_floors(
        then in -1_000_000..1_000_000_i64,
        by in -2_000_000..2_000_000_i64,
        percent in 0..100_u32,
        floor in 1..500_000_u64,
        counts in (5..9_usize, 5..9_usize),
    ) {
        prop_assume!(least_probability(counts.0, counts.1) <= SIGNIFICANT);
        let (then, now) = (then as f64, (then + by) as f64);
        let gate = format!("retained={percent}%,{floor}B");
        let found = verdict(&gate, &vec![then; counts.0], &vec![now; counts.1]);
        prop_assert_eq!(found, model(then, now, f64::from(percent), floor as f64));
    }

    #[test]
    fn no_numbers_are_too_wild(
        then in prop::collection::vec(-9e14..9e14_f64, 1..12),
        now in prop::collection::vec(any::<f64>(), 0..12),
        gates in prop::sample::select(vec!["retained=0%,1B", "retained=1000%,15EiB"]),
    ) {
        let kept = trials(Measure::Retained, &then);
        let mut now: Vec<Trial> = trials(Measure::Retained, &now);
        if let Some(first) = now.first_mut() {
            // Fields are open: not all values come through `set`.
            let value = plimsoll_trials::Value { value: f64::NAN, grade: Grade::Exact };
            first.values = BTreeMap::from([(Measure::Retained, value)]);
        }
        let checked = Checked::judge(&baseline(&kept), &now, &only(gates));
        prop_assert!(serde_json::to_string(&checked).is_ok());
        prop_assert!(!checked.headline().is_empty());
    }
}
