//! What is gathered, against a simple model of it: any readings at any times.
#![allow(clippy::unwrap_used)]

use malloc_stats::heap::Heap;
use malloc_stats::{Setting, SettingGrade, Settings};
use plimsoll_trials::{Measure, Trial};
use proptest::prelude::*;

use super::*;
use crate::exec::programs::Judgement;

fn gathering(begun: Instant) -> Gathering {
    Gathering::new(begun, vec!["it".to_owned()], "glibc-default".to_owned())
}

fn resident(rss: Metric) -> Process {
    Process {
        rss,
        anon: rss,
        ..Process::default()
    }
}

fn finish(gathering: Gathering, lasted: Duration) -> Outcome {
    gathering.finish(Ended::default(), Used::default(), lasted)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_mean_is_weighted_by_time_and_the_last_reading_is_dated() {
    let begun = Instant::now();
    let mut seen = gathering(begun);
    // 100 for a second, then in a second up to 300, where it stays for eight.
    for (at, rss) in [(0, 100), (1, 100), (2, 300), (10, 300)] {
        seen.sample(begun + SECOND * at, resident(Metric::Exact(rss)));
    }
    let outcome = finish(seen, SECOND * 12);
    assert_eq!(outcome.mean_rss, Metric::Estimated(270));
    assert_eq!(
        outcome.peak_rss,
        Metric::Estimated(300),
        "as far as was seen"
    );
    assert_eq!(outcome.baseline_rss, Metric::Exact(100));
    assert_eq!(outcome.last_rss, Metric::Exact(300));
    assert_eq!(outcome.samples, 4);
    assert!((outcome.last_seen_before_end_seconds - 2.0).abs() < 1e-9);
}

#[test]
fn one_reading_is_its_own_mean_and_none_is_none() {
    let begun = Instant::now();
    let mut seen = gathering(begun);
    seen.sample(begun, resident(Metric::Exact(7)));
    let outcome = finish(seen, SECOND);
    assert_eq!(outcome.mean_rss, Metric::Estimated(7));
    let mut seen = gathering(begun);
    seen.sample(begun, Process::default());
    let outcome = finish(seen, SECOND);
    assert!(outcome.mean_rss.is_unavailable() && outcome.peak_rss.is_unavailable());
    assert_eq!(outcome.samples, 0);
}

fn member(pid: u32, peak: Metric) -> Member {
    Member {
        pid,
        peak_rss: peak,
        ..Member::default()
    }
}

#[test]
fn a_peak_that_no_reading_met_is_that_of_the_process_that_had_it() {
    let begun = Instant::now();
    let with = |members: Vec<Member>| {
        let mut seen = gathering(begun);
        seen.sample(begun, resident(Metric::Upper(500)));
        let count = members.len() as u64;
        seen.members(members, count, 0);
        finish(seen, SECOND).peak_rss
    };
    let alone = vec![member(1, Metric::Estimated(900))];
    assert_eq!(with(alone), Metric::Estimated(900));
    let two = vec![member(1, Metric::Exact(900)), member(2, Metric::Exact(10))];
    assert_eq!(with(two), Metric::Estimated(900));
    // Peaks at other times make no sum.
    let two = vec![member(1, Metric::Exact(400)), member(2, Metric::Exact(400))];
    assert_eq!(with(two), Metric::Estimated(500));
    assert_eq!(
        with(vec![member(1, Metric::Unavailable)]),
        Metric::Estimated(500)
    );
}

#[test]
fn the_peak_that_the_kernel_tells_at_the_end_counts_unless_it_may_be_ours() {
    let begun = Instant::now();
    let peak = |of: u64| {
        let mut seen = gathering(begun);
        let own = seen.own_peak;
        seen.sample(begun, resident(Metric::Exact(1)));
        let used = Used {
            peak_rss: own + of - 1,
            ..Used::default()
        };
        let outcome = seen.finish(Ended::default(), used, SECOND);
        (outcome.peak_rss, own)
    };
    assert_eq!(peak(0).0, Metric::Estimated(1));
    assert_eq!(peak(1).0, Metric::Estimated(1));
    let (found, own) = peak(3);
    assert_eq!(found, Metric::Estimated(own + 2));
}

fn inspection(pid: u32, heap_rss: u64, in_use: u64) -> Inspection {
    let mut heap = Heap::default();
    heap.totals.heap_rss = Metric::Exact(heap_rss);
    heap.totals.in_use = Metric::Exact(in_use);
    heap.trim.releasable = Metric::Upper(heap_rss - in_use);
    Inspection {
        pid,
        heap: Some(heap),
        ..Inspection::default()
    }
}

#[test]
fn the_heap_at_a_mark_stays_and_the_worst_waste_is_of_all_looks() {
    let begun = Instant::now();
    let mut seen = gathering(begun);
    seen.look(begun + SECOND, &inspection(1, 1000, 100), true);
    seen.look(begun + SECOND * 2, &inspection(1, 800, 700), true);
    seen.look(begun + SECOND * 3, &inspection(1, 900, 850), false);
    seen.look(begun + SECOND * 4, &Inspection::default(), true);
    assert!(seen.has_looked());
    let outcome = finish(seen, SECOND * 5);
    assert_eq!(outcome.looks, 4);
    assert_eq!(outcome.heap.unwrap().heap_rss, Metric::Exact(800));
    let worst = outcome.worst_waste.unwrap();
    assert_eq!(
        (worst.heap_rss, worst.at_seconds),
        (Metric::Exact(1000), 1.0)
    );
}

#[test]
fn a_mark_at_which_nothing_could_be_read_is_no_baseline() {
    let begun = Instant::now();
    let mut seen = gathering(begun);
    seen.sample(begun, resident(Metric::Exact(5)));
    seen.baseline(Metric::Unavailable);
    let outcome = finish(seen, SECOND);
    assert_eq!(outcome.baseline_rss, Metric::Exact(5));
    assert!(!outcome.baseline_marked);
}

#[test]
fn whether_the_profile_was_in_force_is_told_of_what_held_the_memory() {
    let begun = Instant::now();
    let trial = |helper: u64| {
        let mut seen = gathering(begun);
        seen.sample(begun, resident(Metric::Exact(1000)));
        let tried = |name: &str, most, grade| {
            let mut settings = Settings::default();
            let value = name.to_owned();
            settings.insert("allocator", Setting { value, grade });
            let refused = match grade {
                SettingGrade::Refused => vec!["musl serves".to_owned()],
                _ => Vec::new(),
            };
            let judgement = Judgement {
                name: name.to_owned(),
                allocator: Some(name.to_owned()),
                settings,
                refused,
            };
            Tried { most, judgement }
        };
        seen.programs(vec![
            tried("busybox", helper, SettingGrade::Refused),
            tried("glibc", 990, SettingGrade::Verified),
        ]);
        let outcome = finish(seen, SECOND);
        (Trial::from(&outcome), outcome.notes)
    };
    let (small, notes) = trial(49);
    assert!(!small.refused);
    assert_eq!(small.allocator, "glibc");
    let note = "not in force in busybox, which never held more than 49 B: musl serves";
    assert_eq!(notes, [note]);
    let (large, notes) = trial(50);
    assert!(large.refused && notes.is_empty());
}

fn metric() -> impl Strategy<Value = Metric> {
    let bytes = prop_oneof![
        Just(0),
        Just(u64::MAX),
        any::<u64>(),
        (0_u64..1 << 30).boxed()
    ];
    (bytes, 0_u8..4).prop_map(|(bytes, grade)| match grade {
        0 => Metric::Exact(bytes),
        1 => Metric::Upper(bytes),
        2 => Metric::Estimated(bytes),
        _ => Metric::Unavailable,
    })
}

proptest! {
    #[test]
    fn any_readings_at_any_times(
        readings in prop::collection::vec((0_u64..100_000_000, metric()), 0..3000),
        ended in 0_u64..100_000_000,
    ) {
        let begun = Instant::now();
        // Clocks that jump: readings come in any order, and some before it began.
        let origin = begun.checked_sub(Duration::from_secs(50)).unwrap_or(begun);
        let mut seen = gathering(begun);
        for (at, rss) in &readings {
            seen.sample(origin + Duration::from_micros(*at), resident(*rss));
            prop_assert!(seen.outcome.curve.len() <= MOST_POINTS);
        }
        let outcome = finish(seen, Duration::from_micros(ended));
        let known: Vec<u64> = readings.iter().filter_map(|(_, rss)| rss.bytes()).collect();
        prop_assert_eq!(outcome.samples, known.len() as u64);
        prop_assert_eq!(outcome.peak_rss.bytes(), known.iter().copied().max());
        prop_assert_eq!(outcome.last_rss.bytes(), known.last().copied());
        prop_assert_eq!(outcome.baseline_rss.bytes(), known.first().copied());
        let highest = outcome.curve.iter().map(|(_, rss)| *rss).max();
        prop_assert_eq!(highest, outcome.peak_rss.bytes());
        prop_assert!(outcome.curve.iter().all(|(at, _)| at.is_finite() && *at >= 0.0));
        prop_assert_eq!(outcome.mean_rss.is_unavailable(), known.is_empty());
        if let (Some(mean), Some(least)) = (outcome.mean_rss.bytes(), known.iter().copied().min()) {
            // To the precision of a float.
            let room = |bytes: u64| bytes / (1 << 40) + 1;
            prop_assert!(mean >= least - least.min(room(least)));
            prop_assert!(mean <= outcome.peak_rss.bytes().unwrap().saturating_add(room(mean)));
        }
        prop_assert!(outcome.last_seen_before_end_seconds >= 0.0);
        let json = serde_json::to_string(&outcome).unwrap();
        let back: Outcome = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(Trial::from(&back).get(Measure::Peak), Trial::from(&outcome).get(Measure::Peak));
    }

    #[test]
    fn points_of_the_curve_stand_for_equal_parts(count in 1_u32..20_000) {
        let begun = Instant::now();
        let mut seen = gathering(begun);
        for at in 0..count {
            seen.sample(begun + SECOND * at, resident(Metric::Exact(u64::from(at))));
        }
        let curve = finish(seen, SECOND).curve;
        prop_assert!(curve.len() <= MOST_POINTS && curve.len() >= (count as usize).min(MOST_POINTS / 2));
        prop_assert_eq!(curve.last().map(|(_, rss)| *rss), Some(u64::from(count - 1)));
        // Those of a rising line are the last of their parts; the last part may not be whole.
        let parts: Vec<u64> = curve.windows(2).map(|two| two[1].1 - two[0].1).collect();
        if let Some((last, whole)) = parts.split_last() {
            prop_assert!(whole.windows(2).all(|two| two[0] == two[1]), "{:?}", parts);
            prop_assert!(whole.first().is_none_or(|part| last <= part));
        }
    }
}
