//! Comparisons, recommendations and searches, on runs as they were measured.
#![allow(clippy::unwrap_used)]

use malloc_stats::{Grade, Setting, SettingGrade};
use plimsoll_trials::Measure;
use plimsoll_trials::compare::{Advice, CompareError, Comparison, Difference, Options};
use plimsoll_trials::search::{GRIDS, Search, grid};
use plimsoll_trials::trial::Trial;

const MIB: f64 = 1_048_576.0;

/// Runs whose values lie within 2 % of these: retained and peak in MiB, faults, seconds.
fn runs(count: usize, [retained, peak, faults, cpu]: [f64; 4]) -> Vec<Trial> {
    let wobble = [0.0, -0.01, 0.01, -0.004, 0.006, 0.002];
    (0..count)
        .map(|at| {
            let by = 1.0 + wobble[at % wobble.len()];
            let mut trial = Trial::default();
            trial.set(Measure::Retained, retained * MIB * by, Grade::Estimated);
            trial.set(Measure::Peak, peak * MIB * by, Grade::Exact);
            trial.set(Measure::Faults, faults * by, Grade::Exact);
            trial.set(Measure::Cpu, cpu * by, Grade::Exact);
            trial.miss(Measure::Waste, "nobody looked into the heap");
            trial
        })
        .collect()
}

/// One allocation a tensor, churned: the figures of docs/performance.md.
fn measured(count: usize) -> Vec<(String, Vec<Trial>)> {
    [
        ("glibc-default", [982.0, 1409.6, 1_896_910.0, 8.66]),
        ("glibc-mmap-1m", [54.3, 1246.9, 4_543_596.0, 10.21]),
        ("glibc-mmap-128k", [7.2, 1237.9, 4_706_120.0, 11.41]),
        ("glibc-trim", [12.5, 1389.8, 1_791_708.0, 8.68]),
        ("jemalloc-default", [129.4, 1353.7, 4_023_361.0, 9.30]),
        ("jemalloc-decay-0", [2.8, 1239.6, 4_727_431.0, 12.14]),
    ]
    .map(|(name, numbers)| (name.to_owned(), runs(count, numbers)))
    .to_vec()
}

fn compared(profiles: Vec<(String, Vec<Trial>)>, options: &Options) -> Comparison {
    Comparison::new("the trace", 5, profiles, options).unwrap()
}

#[test]
fn the_front_is_named_and_the_best_within_the_price_is_taken() {
    let found = compared(measured(5), &Options::default());
    assert_eq!(found.memory, Measure::Retained);
    // The first is beaten by a trim, which costs nothing beyond noise.
    let front = ["glibc-mmap-128k", "glibc-trim", "jemalloc-decay-0"];
    assert_eq!(found.front, front);
    let advice = &found.recommendation;
    assert_eq!(advice.advice, Advice::Take);
    assert_eq!(advice.name.as_deref(), Some("glibc-trim"));
    let trade = advice.trade.as_ref().unwrap();
    assert!((trade.saved_bytes / MIB - 969.5).abs() < 0.1);
    assert_eq!(trade.time, Difference::WithinNoise);
    assert_eq!(
        advice.sentences,
        [
            "take `glibc-trim`: it saves 969.5 MiB of retained: 12.5 MiB instead of 982.0 MiB \
             under `glibc-default` (0.01 x)",
            "it costs no cpu beyond noise (8.68 s instead of 8.66 s), with 105202 fewer page faults",
            "the other choice: `jemalloc-decay-0` saves 9.7 MiB more of retained but costs 40 % \
             more cpu",
        ]
    );
}

#[test]
fn a_higher_price_takes_what_saves_more_and_equals_go_by_their_peak() {
    let options = Options {
        price: 0.5,
        ..Options::default()
    };
    let found = compared(measured(5), &options);
    assert_eq!(
        found.recommendation.name.as_deref(),
        Some("jemalloc-decay-0")
    );
    let other = found.recommendation.runner_up.unwrap();
    assert_eq!(other.name, "glibc-trim", "the fastest of the front");
    assert_eq!(other.trade.memory, Difference::Worse);

    let mut equals = measured(5);
    equals.push(("low-peak".into(), runs(5, [2.8, 600.0, 4.7e6, 12.1])));
    let found = compared(equals, &options);
    assert_eq!(found.recommendation.name.as_deref(), Some("low-peak"));
}

#[test]
fn what_costs_too_much_is_not_taken_and_said_to() {
    let profiles = measured(5);
    let keep = [0, 1, 5].map(|at: usize| profiles[at].clone()).to_vec();
    let found = compared(keep.clone(), &Options::default());
    assert_eq!(found.recommendation.advice, Advice::Keep);
    assert_eq!(
        found.recommendation.sentences,
        [
            "keep `glibc-default`: what saves retained costs more cpu than it may",
            "the other choice: `glibc-mmap-1m` saves 927.7 MiB more of retained but costs 18 % \
             more cpu, beyond the price of 10 %"
        ]
    );
    let same = vec![keep[0].clone(), ("again".to_owned(), keep[0].1.clone())];
    let found = compared(same, &Options::default());
    assert_eq!(found.recommendation.advice, Advice::Keep);
    assert_eq!(found.front, ["glibc-default", "again"]);
    let again = &found.profiles[1].measures[&Measure::Peak];
    assert_eq!(again.difference, Some(Difference::WithinNoise));
    assert_eq!(again.ratio, Some(1.0));
}

#[test]
fn four_runs_are_too_few_for_a_verdict_however_large_the_difference() {
    let found = compared(measured(4), &Options::default());
    assert_eq!(found.recommendation.advice, Advice::NoVerdict);
    assert_eq!(found.front.len(), found.profiles.len(), "nobody is beaten");
    let trim = &found.profiles[3].measures[&Measure::Retained];
    assert_eq!(trim.difference, Some(Difference::TooFew));
    assert_eq!(trim.grade, Grade::Estimated);
    assert!(found.recommendation.sentences[0].contains("-n 5"));
}

#[test]
fn a_profile_that_was_not_in_force_is_shown_and_takes_no_part() {
    let mut profiles = measured(5);
    for trial in &mut profiles[3].1[..2] {
        let (value, grade) = ("65536".to_owned(), SettingGrade::Refused);
        trial
            .settings
            .insert("mmap_threshold", Setting { value, grade });
        trial.refused = true;
    }
    let found = compared(profiles.clone(), &Options::default());
    assert!(!found.front.contains(&"glibc-trim".to_owned()));
    assert_ne!(found.recommendation.name.as_deref(), Some("glibc-trim"));
    let shown = &found.profiles[3];
    assert_eq!(
        shown.left_out.as_deref(),
        Some("`mmap_threshold = 65536` was not in force in 2 of 5 runs")
    );
    assert!(shown.median(Measure::Retained).is_some());

    profiles.swap(0, 3);
    let found = compared(profiles, &Options::default());
    assert_eq!(found.recommendation.advice, Advice::NoVerdict);
    assert!(found.recommendation.sentences[0].contains("was not in force"));
}

#[test]
fn memory_is_the_peak_where_some_run_has_nothing_retained() {
    let mut profiles = measured(5);
    profiles[2].1[4].miss(Measure::Retained, "it was killed");
    let found = compared(profiles.clone(), &Options::default());
    assert_eq!(found.memory, Measure::Peak);
    assert!(found.profiles.iter().all(|one| one.left_out.is_none()));
    let partial = &found.profiles[2];
    assert_eq!(partial.measures[&Measure::Retained].n, 4);
    assert_eq!(partial.absent[&Measure::Retained], "it was killed");

    for trial in &mut profiles[2].1 {
        trial.miss(Measure::Retained, "it was killed");
    }
    let asked = Options {
        memory: Some(Measure::Retained),
        ..Options::default()
    };
    let found = compared(profiles, &asked);
    assert_eq!(
        found.profiles[2].left_out.as_deref(),
        Some("its runs have no retained: it was killed")
    );
}

#[test]
fn a_median_of_nothing_has_no_ratio_and_an_absent_one_says_why() {
    let mut profiles = vec![
        ("none".to_owned(), runs(5, [0.0, 100.0, 10.0, 1.0])),
        ("some".to_owned(), runs(5, [5.0, 100.0, 10.0, 1.0])),
    ];
    for trial in &mut profiles[1].1 {
        trial.set(Measure::Wall, 1.0, Grade::Exact);
    }
    let found = compared(profiles, &Options::default());
    let retained = &found.profiles[1].measures[&Measure::Retained];
    assert_eq!(retained.ratio, None);
    assert_eq!(retained.difference, Some(Difference::Worse));
    let wall = found.profiles[1].measures[&Measure::Wall]
        .difference
        .as_ref();
    assert!(matches!(wall, Some(Difference::Absent(why)) if why.contains("`none`")));
}

#[test]
fn nonsense_is_refused_with_a_way_out() {
    let with = |options: &Options| Comparison::new("x", 5, measured(5), options).unwrap_err();
    let base = Options::default();
    let memory = Some(Measure::Cpu);
    let error = with(&Options { memory, ..base }).to_string();
    assert!(error.starts_with("`cpu` is no amount of memory; take one of peak, mean, retained"));
    let time = Measure::Peak;
    assert_eq!(
        with(&Options { time, ..base }),
        CompareError::NotTime(Measure::Peak)
    );
    for price in [f64::NAN, f64::INFINITY, -0.1] {
        assert!(matches!(
            with(&Options { price, ..base }),
            CompareError::Price(_)
        ));
    }
    let nothing = Comparison::new("x", 5, Vec::new(), &base);
    assert_eq!(nothing.unwrap_err(), CompareError::Nothing);
    let no_run = compared(vec![("a".into(), Vec::new())], &base);
    assert_eq!(no_run.recommendation.advice, Advice::NoVerdict);
}

#[test]
fn json_gives_back_what_was_written() {
    let found = compared(measured(5), &Options::default());
    let text = serde_json::to_string(&found).unwrap();
    let back: Comparison = serde_json::from_str(&text).unwrap();
    assert_eq!(
        back.recommendation.sentences,
        found.recommendation.sentences
    );
    assert_eq!(back.front, found.front);
    let (was, is) = (&found.profiles[3], &back.profiles[3]);
    for (measure, summary) in &was.measures {
        // Reading may be off by the last binary digit.
        let (was, is) = (summary, &is.measures[measure]);
        assert!((was.median / is.median - 1.0).abs() < 1e-15);
        assert_eq!(
            (was.n, was.grade, &was.difference),
            (is.n, is.grade, &is.difference)
        );
    }
    assert_eq!(was.absent, is.absent);
    assert!(text.contains("\"difference\":\"better\"") && text.contains("p <= 0.01"));
}

#[test]
fn a_search_takes_the_value_that_the_recommendation_takes() {
    let knob = grid("mmap_threshold").unwrap();
    assert_eq!((knob.values[0], knob.values[9]), (64 << 10, 32 << 20));
    let mut profiles = vec![("glibc-trim".to_owned(), runs(5, [400.0, 900.0, 1e6, 5.0]))];
    for (at, value) in knob.values.iter().enumerate() {
        let (bytes, cpu) = (40.0 * (at + 1) as f64, 7.0 - 0.4 * at as f64);
        profiles.push((knob.counts.text(*value), runs(5, [bytes, 900.0, 1e6, cpu])));
    }
    let found = compared(profiles, &Options::default());
    let search = Search::new(knob, found.clone()).unwrap();
    // 5.4 s is 8 % more than 5.0 s; 5.8 s is 16 % more.
    assert_eq!(search.winner, Some(1 << 20));
    assert_eq!(search.points.len(), 10);
    assert_eq!(
        search.points[4].memory.as_ref().unwrap().median,
        200.0 * MIB
    );
    assert!(search.why.starts_with(
        "mmap_threshold = 1 MiB, among 10 values from 64 KiB to 32 MiB, 5 rounds each of the trace: \
         take `1 MiB`: it saves 200.0 MiB"
    ));
    assert!(search.why.contains("retained 200.0 MiB (400.0 MiB)"));

    let fewer = Search::new(grid("top_pad").unwrap(), found).unwrap_err();
    assert_eq!(
        fewer.to_string(),
        "a search of 5 values compares 6 profiles, the one it starts from first, not 11"
    );
}

#[test]
fn a_knob_without_a_grid_is_told_which_have_one() {
    let error = grid("mmap_treshold").unwrap_err().to_string();
    assert!(error.contains("did you mean `mmap_threshold`?"), "{error}");
    let error = grid("tcache\x1b[2J").unwrap_err().to_string();
    assert!(
        error.contains("dirty_decay_ms") && !error.contains('\x1b'),
        "{error}"
    );
    for grid in GRIDS {
        assert!(grid.values.is_sorted(), "{}", grid.knob);
    }
}
