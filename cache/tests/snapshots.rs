//! The snapshots around loads and unloads.

#![allow(clippy::unwrap_used)]

mod support;

use malloc_stats::{Depth, Snapshot};
use plimsoll_cache::Snapshots;
use plimsoll_events::Kind;
use support::{Folder, MIB, cache};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// The snapshots of a few loads and unloads, in order.
fn taken(mode: Snapshots) -> Vec<Snapshot> {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, MIB));
    let (cache, kept) = cache(|builder| builder.ram(3 * MIB / 2).snapshots(mode));
    for model in [&a, &b, &a] {
        drop(cache.lease([model]).unwrap());
    }
    let pairs = kept.kinds().into_iter().filter_map(|kind| match kind {
        Kind::Load(load) => Some([load.before, load.after]),
        Kind::Evict(evict) => Some([evict.before, evict.after]),
        _ => None,
    });
    let taken: Vec<Snapshot> = pairs.flatten().collect();
    assert_eq!(taken.len(), 2 * (3 + 2), "each load and unload has two");
    taken
}

#[test]
fn every_load_and_unload_is_bracketed_at_the_depth_that_was_asked_for() {
    let full = taken(Snapshots::Full);
    assert!(full.iter().all(|snapshot| snapshot.depth == Depth::Full));
    assert!(full.iter().all(|snapshot| snapshot.limits.is_some()));
    let bracket = taken(Snapshots::Bracket);
    assert!(
        bracket
            .iter()
            .all(|snapshot| snapshot.depth == Depth::Bracket)
    );
    for snapshots in [full, bracket] {
        assert!(snapshots.iter().all(|s| s.process.rss.bytes().is_some()));
    }
}

#[test]
fn where_a_full_snapshot_would_cost_too_much_the_latest_reading_is_carried_with_its_age() {
    // A full snapshot takes longer than a hundredth of the time in which a MiB is read.
    let taken = taken(Snapshots::Auto);
    assert!(
        taken
            .iter()
            .any(|snapshot| snapshot.depth == Depth::Bracket)
    );
    for snapshot in taken
        .iter()
        .filter(|snapshot| snapshot.depth == Depth::Bracket)
    {
        assert!(snapshot.allocator.is_some() && snapshot.allocator_age_us > 0);
    }
}
