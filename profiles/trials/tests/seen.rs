//! Trials of what was seen: each number of an outcome and of a report, with its grade.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use malloc_stats::{Allocator, Grade, Metric, Setting, SettingGrade, Settings};
use plimsoll_events::{CycleReport, Report};
use plimsoll_trials::outcome::{Cycle, HeapSeen};
use plimsoll_trials::trial::{Trial, Value};
use plimsoll_trials::{Measure, Outcome};

/// A number and its grade.
fn of(trial: &Trial, measure: Measure) -> (f64, Grade) {
    let Value { value, grade } = trial.values[&measure];
    (value, grade)
}

fn why(trial: &Trial, measure: Measure) -> &str {
    assert_eq!(trial.get(measure), None);
    &trial.absent[&measure]
}

fn cycles(pairs: &[(u64, u64)]) -> Vec<Cycle> {
    let cycle = |(rss, in_use): &(u64, u64)| Cycle {
        rss: Metric::Exact(*rss),
        in_use: Metric::Exact(*in_use),
    };
    pairs.iter().map(cycle).collect()
}

/// A program that marks everything.
fn marked() -> Outcome {
    Outcome {
        peak_rss: Metric::Exact(900),
        mean_rss: Metric::Estimated(500),
        last_rss: Metric::Exact(700),
        last_seen_before_end_seconds: 0.01,
        baseline_rss: Metric::Exact(100),
        baseline_marked: true,
        cycles: cycles(&[(300, 50), (310, 60), (320, 70), (330, 80), (340, 90)]),
        dropped_rss: Metric::Exact(250),
        marks_seconds: 0.5,
        minor_faults: 1234,
        user_seconds: 1.5,
        system_seconds: 0.25,
        wall_seconds: 3.0,
        heap: Some(HeapSeen {
            in_use: Metric::Exact(40),
            heap_rss: Metric::Exact(140),
            releasable: Metric::Exact(70),
            ..HeapSeen::default()
        }),
        ..Outcome::default()
    }
}

#[test]
fn with_its_marks_everything_is_above_the_baseline() {
    use Measure::*;
    let trial = Trial::from(&marked());
    assert_eq!(of(&trial, Peak), (800.0, Grade::Exact));
    assert_eq!(of(&trial, Mean), (400.0, Grade::Estimated));
    assert_eq!(of(&trial, Retained), (150.0, Grade::Exact));
    assert_eq!(of(&trial, Waste), (100.0, Grade::Exact));
    assert_eq!(of(&trial, TrimGap), (70.0, Grade::Exact));
    assert_eq!(of(&trial, Structural), (30.0, Grade::Exact));
    assert_eq!(of(&trial, Leak), (10.0, Grade::Estimated));
    assert_eq!(of(&trial, Growth), (10.0, Grade::Estimated));
    assert_eq!(of(&trial, Faults), (1234.0, Grade::Exact));
    assert_eq!(of(&trial, Cpu), (1.75, Grade::Exact));
    assert_eq!(
        of(&trial, Wall),
        (2.5, Grade::Estimated),
        "without the marks"
    );
    assert!(why(&trial, Excess).contains("only the program itself"));
    assert!(!trial.refused && trial.notes.is_empty());
}

#[test]
fn without_marks_what_is_at_rest_is_estimated_and_it_is_said() {
    use Measure::*;
    let trial = Trial::from(&Outcome {
        baseline_marked: false,
        cycles: Vec::new(),
        dropped_rss: Metric::Unavailable,
        marks_seconds: 0.0,
        ..marked()
    });
    assert_eq!(of(&trial, Peak), (900.0, Grade::Exact));
    assert_eq!(of(&trial, Retained), (700.0, Grade::Estimated));
    assert_eq!(of(&trial, Waste), (100.0, Grade::Estimated));
    assert_eq!(of(&trial, Structural), (30.0, Grade::Estimated));
    assert_eq!(of(&trial, Wall), (3.0, Grade::Exact));
    assert!(why(&trial, Leak).contains("marks no cycles"));
    assert!(why(&trial, Growth).contains("marks no cycles"));
    assert!(trial.notes.iter().any(|note| note.contains("`dropped`")));
}

#[test]
fn the_last_cycle_tells_what_is_retained_where_no_mark_does() {
    let outcome = Outcome {
        dropped_rss: Metric::Unavailable,
        last_seen_before_end_seconds: 60.0,
        ..marked()
    };
    let trial = Trial::from(&outcome);
    assert_eq!(of(&trial, Measure::Retained), (240.0, Grade::Exact));
    assert!(trial.notes.is_empty());
}

#[test]
fn what_was_seen_long_before_the_end_is_not_what_was_retained() {
    let outcome = Outcome {
        cycles: Vec::new(),
        dropped_rss: Metric::Unavailable,
        last_seen_before_end_seconds: 2.5,
        ..marked()
    };
    let trial = Trial::from(&outcome);
    assert_eq!(
        why(&trial, Measure::Retained),
        "it was last seen 2.50 s before its end"
    );
}

#[test]
fn the_difference_of_bounds_is_no_bound() {
    let of_several = |baseline_rss| {
        let trial = Trial::from(&Outcome {
            peak_rss: Metric::Upper(900),
            baseline_rss,
            ..marked()
        });
        of(&trial, Measure::Peak)
    };
    assert_eq!(of_several(Metric::Exact(100)), (800.0, Grade::Upper));
    assert_eq!(of_several(Metric::Upper(100)), (800.0, Grade::Estimated));
    // It may fall below where it began.
    assert_eq!(of_several(Metric::Exact(1000)), (-100.0, Grade::Upper));
}

#[test]
fn what_ended_too_soon_has_reasons_and_no_zeros() {
    use Measure::*;
    let trial = Trial::from(&Outcome::default());
    for measure in [Peak, Mean, Retained] {
        assert!(why(&trial, measure).contains("ended too soon"));
    }
    for measure in [Waste, TrimGap, Structural] {
        assert!(why(&trial, measure).contains("could not be looked into"));
    }
    for measure in [Faults, Cpu, Wall] {
        assert_eq!(of(&trial, measure), (0.0, Grade::Exact));
    }
    let no_baseline = Outcome {
        baseline_rss: Metric::Unavailable,
        ..marked()
    };
    assert!(why(&Trial::from(&no_baseline), Peak).contains("`baseline`"));
}

#[test]
fn a_heap_of_which_less_is_resident_than_in_use_wastes_nothing() {
    use Measure::*;
    // Blocks that were never touched are in use, and not resident.
    let heap = HeapSeen {
        in_use: Metric::Upper(500),
        heap_rss: Metric::Exact(140),
        releasable: Metric::Exact(70),
        ..HeapSeen::default()
    };
    let trial = Trial::from(&Outcome {
        heap: Some(heap),
        ..marked()
    });
    assert_eq!(of(&trial, Waste), (0.0, Grade::Estimated));
    assert_eq!(of(&trial, Structural), (0.0, Grade::Estimated));
}

#[test]
fn a_cycle_that_could_not_be_read_leaves_no_slope_of_that() {
    use Measure::*;
    let mut outcome = marked();
    outcome.cycles[2].in_use = Metric::Unavailable;
    let trial = Trial::from(&outcome);
    assert!(why(&trial, Leak).contains("each of its marks"));
    assert_eq!(of(&trial, Growth), (10.0, Grade::Estimated));
    outcome.cycles.truncate(3);
    outcome.cycles[2].in_use = Metric::Exact(70);
    assert!(why(&Trial::from(&outcome), Leak).contains("fewer than 4"));
}

#[test]
fn a_setting_that_is_not_in_force_refuses_the_trial() {
    let mut settings = Settings::default();
    let (value, grade) = ("1".to_owned(), SettingGrade::Refused);
    settings.insert("mmap_threshold", Setting { value, grade });
    let by_setting = Outcome {
        settings,
        ..marked()
    };
    assert!(Trial::from(&by_setting).refused);
    let by_program = Outcome {
        not_in_force: vec!["worker: musl serves".to_owned()],
        ..marked()
    };
    let trial = Trial::from(&by_program);
    assert!(trial.refused);
    assert_eq!(trial.notes, ["worker: musl serves"]);
}

/// A run with everything known.
fn report() -> Report {
    let mut report = Report::new();
    report.profile = "glibc-trim".to_owned();
    report.allocator = "glibc 2.36".to_owned();
    report.baseline_rss_bytes = Some(1000);
    report.rss_peak_bytes = Some(9000);
    report.excess_bytes = Some(-5);
    report.retained_bytes = Some(300);
    report.waste = Metric::Exact(200);
    report.structural = Metric::Upper(50);
    let cycle = |at: u64| CycleReport {
        rss_bytes: 5000 + 7 * at,
        in_use: Metric::Exact(100 + 3 * at),
        live_bytes: 2 * at,
    };
    report.cycles = (0..8_u64).map(cycle).collect();
    report.minor_faults = 77;
    report.wall_seconds = 4.5;
    report
}

#[test]
fn a_run_knows_what_it_holds_on_purpose() {
    use Measure::*;
    let trial = Trial::of_run(&report(), Duration::from_millis(2500));
    assert_eq!(of(&trial, Peak), (8000.0, Grade::Estimated));
    assert_eq!(of(&trial, Retained), (300.0, Grade::Exact));
    assert_eq!(of(&trial, Excess), (-5.0, Grade::Exact));
    assert_eq!(of(&trial, Waste), (200.0, Grade::Exact));
    assert_eq!(of(&trial, TrimGap), (150.0, Grade::Estimated));
    assert_eq!(of(&trial, Structural), (50.0, Grade::Upper));
    assert_eq!(
        of(&trial, Leak),
        (1.0, Grade::Exact),
        "without what is live"
    );
    assert_eq!(of(&trial, Growth), (7.0, Grade::Exact));
    assert_eq!(of(&trial, Faults), (77.0, Grade::Exact));
    assert_eq!(of(&trial, Cpu), (2.5, Grade::Exact));
    assert_eq!(of(&trial, Wall), (4.5, Grade::Exact));
    assert!(why(&trial, Mean).contains("step by step"));
    assert_eq!(
        (trial.profile.as_str(), trial.refused),
        ("glibc-trim", false)
    );
}

#[test]
fn a_run_that_could_not_be_read_has_reasons_and_no_zeros() {
    use Measure::*;
    let trial = Trial::of_run(&Report::default(), Duration::ZERO);
    for measure in [Peak, Retained, Excess] {
        assert!(why(&trial, measure).contains("memory of the process"));
    }
    for measure in [Waste, TrimGap, Structural] {
        assert!(why(&trial, measure).contains("allocator could not be read"));
    }
    for measure in [Leak, Growth] {
        assert!(why(&trial, measure).contains("--cycles"));
    }
    let mut uncounted = report();
    uncounted.cycles[5].in_use = Metric::Unavailable;
    let trial = Trial::of_run(&uncounted, Duration::ZERO);
    assert!(why(&trial, Leak).contains("after each cycle"));
    assert_eq!(of(&trial, Growth).0, 7.0);
    let mut bounded = report();
    bounded.cycles[5].in_use = Metric::Upper(115);
    let trial = Trial::of_run(&bounded, Duration::ZERO);
    assert_eq!(of(&trial, Leak), (1.0, Grade::Estimated));
}

#[test]
fn a_run_whose_setting_was_refused_is_refused() {
    let mut settings = Settings::default();
    let (value, grade) = ("1".to_owned(), SettingGrade::Refused);
    settings.insert("mmap_threshold", Setting { value, grade });
    let mut report = report();
    report.settings = Some(Allocator {
        settings,
        ..Allocator::default()
    });
    assert!(Trial::of_run(&report, Duration::ZERO).refused);
}
