//! The page of an outcome, of a plain one and of nonsense.

use malloc_stats::{Process, Setting};
use plimsoll_trials::outcome::{Cycle, Ended, Member};
use proptest::prelude::*;

use super::*;

fn resident(bytes: u64) -> Process {
    Process {
        rss: Metric::Exact(bytes),
        anon: Metric::Exact(bytes),
        file: Metric::Exact(0),
        shmem: Metric::Exact(0),
        ..Process::default()
    }
}

#[test]
fn kinds_are_those_of_the_peak_that_was_read() {
    let page = |at_peak| {
        let outcome = Outcome {
            peak_rss: Metric::Estimated(9 << 20),
            at_peak,
            ..Outcome::default()
        };
        text(&Paint::plain(), &outcome)
    };
    let read = page(resident(8 << 20));
    assert!(
        read.contains("of 8.0 MiB, the most that was read"),
        "{read}"
    );
    let other = page(Process::default());
    assert!(!other.contains("anonymous"), "{other}");
    let same = page(resident(9 << 20));
    assert!(!same.contains("the most that was read"), "{same}");
}

#[test]
fn what_is_not_in_force_is_said_aloud() {
    let mut outcome = Outcome {
        not_in_force: vec!["worker: musl serves".to_owned()],
        ..Outcome::default()
    };
    let (value, grade) = ("1".to_owned(), SettingGrade::Refused);
    outcome
        .settings
        .insert("mmap_threshold", Setting { value, grade });
    let page = text(&Paint::plain(), &outcome);
    assert!(page.contains("mmap_threshold = 1  NOT in force"), "{page}");
    assert!(page.contains("NOT in force: worker: musl serves"), "{page}");
}

proptest! {
    #[test]
    fn any_names_and_numbers_make_a_page(
        name in any::<String>(),
        numbers in prop::collection::vec(any::<u64>(), 12),
        floats in prop::collection::vec(any::<f64>(), 8),
        curve in prop::collection::vec((any::<f64>(), any::<u64>()), 0..40),
        width in 60_usize..200,
        unicode in any::<bool>(),
    ) {
        let metric = |at: usize| Metric::Upper(numbers[at]);
        let member = Member {
            name: name.clone(),
            peak_rss: metric(0),
            minor_faults: numbers[1],
            ..Member::default()
        };
        let heap = HeapSeen { heap_rss: metric(2), at_seconds: floats[0], ..HeapSeen::default() };
        let cycle = Cycle { rss: metric(3), in_use: Metric::Unavailable };
        let outcome = Outcome {
            command: vec![name.clone(), name.clone()],
            profile: name.clone(),
            allocator: name.clone(),
            ended: Ended { how: name.clone(), ..Ended::default() },
            not_in_force: vec![name.clone()],
            notes: vec![name.clone()],
            processes: vec![member.clone(), member],
            processes_seen: numbers[4],
            peak_rss: metric(5),
            at_peak: resident(numbers[6]),
            last_seen_before_end_seconds: floats[1],
            marks_seconds: floats[2],
            wall_seconds: floats[3],
            user_seconds: floats[4],
            sampling_seconds: floats[5],
            cycles: vec![cycle],
            heap: Some(heap),
            worst_waste: Some(heap),
            nearest_limit: Some((name.clone(), metric(7))),
            curve,
            ..Outcome::default()
        };
        let paint = Paint { colour: false, unicode, width };
        let page = text(&paint, &outcome);
        prop_assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{:?}", page);
    }
}
