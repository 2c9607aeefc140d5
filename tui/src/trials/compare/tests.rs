//! The page, on runs as they were measured and on nonsense.

use malloc_stats::{Setting, SettingGrade};
use plimsoll_trials::compare::Options;
use plimsoll_trials::search::grid;
use plimsoll_trials::trial::Trial;
use proptest::prelude::*;

use super::*;

/// Runs within 2 % of these: peak, retained and excess in MiB, faults, seconds.
fn runs(count: usize, [retained, excess, peak, faults, cpu]: [f64; 5]) -> Vec<Trial> {
    const MIB: f64 = 1_048_576.0;
    let wobble = [1.0, 0.99, 1.01, 0.996, 1.006];
    wobble[..count]
        .iter()
        .map(|by| {
            let mut trial = Trial::default();
            trial.set(Measure::Peak, peak * MIB * by, Grade::Upper);
            trial.set(Measure::Retained, retained * MIB * by, Grade::Exact);
            trial.set(Measure::Excess, excess * MIB * by, Grade::Estimated);
            trial.set(Measure::Faults, faults * by, Grade::Exact);
            trial.set(Measure::Cpu, cpu * by, Grade::Exact);
            trial.set(Measure::Wall, cpu * by * by * 1.02, Grade::Exact);
            for measure in [Measure::Waste, Measure::TrimGap, Measure::Structural] {
                trial.miss(
                    measure,
                    "nobody looked into the heap: run with --snapshots full",
                );
            }
            trial
        })
        .collect()
}

/// One allocation a tensor, churned: the figures of docs/performance.md.
fn measured(count: usize) -> Vec<(String, Vec<Trial>)> {
    let mut profiles = [
        ("glibc-default", [982.0, 295.0, 1409.6, 1_896_910.0, 8.66]),
        ("glibc-mmap-1m", [54.3, 11.7, 1246.9, 4_543_596.0, 10.21]),
        ("glibc-mmap-128k", [7.2, 2.2, 1237.9, 4_706_120.0, 11.41]),
        ("glibc-trim", [10.5, 356.5, 1389.8, 1_891_708.0, 8.69]),
        (
            "jemalloc-default",
            [129.4, 115.7, 1353.7, 4_023_361.0, 8.80],
        ),
        ("jemalloc-decay-0", [2.8, 3.3, 1239.6, 4_727_431.0, 9.94]),
        ("jemalloc-purge", [3.1, 47.7, 1259.7, 4_113_275.0, 8.96]),
    ]
    .map(|(name, numbers)| (name.to_owned(), runs(count, numbers)))
    .to_vec();
    for trial in &mut profiles[6].1 {
        let (value, grade) = ("purge".to_owned(), SettingGrade::Refused);
        trial.settings.insert("reclaim", Setting { value, grade });
        trial.refused = true;
        let note = "libjemalloc.so.2 could not be preloaded: wrong ELF class";
        trial.notes.push(note.to_owned());
    }
    profiles
}

fn compared(profiles: Vec<(String, Vec<Trial>)>) -> Comparison {
    let what = "plimsoll run --synthetic six --ram 1200MiB --storage heap --churn";
    Comparison::new(what, 5, profiles, &Options::default()).unwrap()
}

#[test]
fn the_page_of_a_trace_under_seven_profiles() {
    let page = text(&Paint::plain(), &compared(measured(5)));
    assert!(page.lines().all(|line| line.width() <= 100), "{page}");
    insta::assert_snapshot!("trace", page);
}

#[test]
fn too_few_runs_are_said_to_be_and_nothing_is_toned() {
    let page = text(&Paint::plain(), &compared(measured(4)));
    assert!(page.contains("? 0.01 x") && page.contains("?: too few runs"));
    let coloured = Paint {
        colour: true,
        unicode: true,
        ..Paint::plain()
    };
    let one_round = compared(vec![("a".into(), runs(1, [1.0; 5]))]);
    let page = text(&coloured, &one_round);
    assert!(page.contains("no verdict") && !page.contains('±'), "{page}");
}

#[test]
fn what_differs_is_toned_and_noise_is_marked() {
    let coloured = Paint {
        colour: true,
        unicode: true,
        ..Paint::plain()
    };
    let page = text(&coloured, &compared(measured(5)));
    assert!(
        page.contains("\x1b[32m0.01 x\x1b[0m"),
        "less memory is good"
    );
    assert!(
        page.contains("\x1b[31m2.40 x\x1b[0m"),
        "more faults are bad"
    );
    assert!(page.contains("\x1b[2m≈ 1.00 x\x1b[0m"), "noise is faint");
    assert!(page.contains("≤1.38 GiB\x1b[2m ±1.0%"), "{page}");
}

#[test]
fn a_narrow_terminal_gets_more_tables() {
    let narrow = Paint {
        width: 60,
        ..Paint::plain()
    };
    let page = text(&narrow, &compared(measured(5)));
    assert!(page.contains("memory, continued"));
    assert!(page.lines().all(|line| line.width() <= 60), "{page}");
}

#[test]
fn a_search_ends_with_its_winner() {
    let knob = grid("top_pad").unwrap();
    let mut profiles = vec![measured(5)[0].clone()];
    for value in knob.values {
        profiles.push((knob.counts.text(*value), measured(5)[3].1.clone()));
    }
    let found = Search::new(knob, compared(profiles)).unwrap();
    let page = search(&Paint::plain(), &found);
    let last = page.rsplit_once("\nsearch: ").unwrap().1;
    assert!(last.starts_with("top_pad = 0 B, among 5 values from 0 B to 64 MiB"));
}

proptest! {
    #[test]
    fn any_numbers_and_names_make_a_page(
        profiles in prop::collection::vec(
            (".*", prop::collection::vec(prop::collection::vec(any::<f64>(), 12), 0..7)),
            1..5,
        ),
        note in ".*",
        width in 60_usize..200,
        unicode in any::<bool>(),
    ) {
        let trials = |values: Vec<Vec<f64>>| -> Vec<Trial> {
            let trial = |values: Vec<f64>| {
                let mut trial = Trial { notes: vec![note.clone()], ..Trial::default() };
                for (measure, value) in Measure::ALL.into_iter().zip(values) {
                    trial.set(measure, value, Grade::Estimated);
                }
                trial
            };
            values.into_iter().map(trial).collect()
        };
        let profiles = profiles.into_iter().map(|(name, values)| (name, trials(values)));
        let found = Comparison::new(&*note, 7, profiles.collect(), &Options::default()).unwrap();
        let paint = Paint { width, unicode, colour: false };
        let page = text(&paint, &found);
        prop_assert!(!page.contains(|c: char| c.is_control() && c != '\n'));
        prop_assert!(!page.contains("NaN") && !page.contains("inf"), "{}", page);
    }
}
