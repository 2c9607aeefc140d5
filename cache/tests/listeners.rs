//! Budgets and leases whose listeners take long, or panic.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use plimsoll_cache::device::Simulated;
use plimsoll_cache::{Budget, Cache, Tier};
use plimsoll_events::{Event, Kind, Sink, Stream};
use support::{Folder, Kept, MIB, cache, until};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// Waits at the first eviction.
struct Waits {
    begun: Barrier,
    go_on: Barrier,
    first: AtomicBool,
    kept: Kept,
}

impl Sink for Waits {
    fn event(&self, event: &Event) {
        self.kept.event(event);
        if matches!(event.kind, Kind::Evict(_)) && self.first.swap(false, Ordering::SeqCst) {
            self.begun.wait();
            self.go_on.wait();
        }
    }
}

#[test]
fn a_budget_that_was_set_is_not_overwritten_by_a_measurement_from_before() {
    let folder = Folder::new();
    let a = folder.model("a", 20 * MIB);
    let one = Arc::new(Simulated::new(256 * MIB).named("one"));
    let two = Arc::new(Simulated::new(256 * MIB).named("two"));
    let waits = Arc::new(Waits {
        begun: Barrier::new(2),
        go_on: Barrier::new(2),
        first: AtomicBool::new(true),
        kept: Kept::default(),
    });
    let cache = Cache::builder()
        .device(Arc::clone(&one), Budget::auto().reserve(32 * MIB))
        .device(Arc::clone(&two), Budget::auto().reserve(32 * MIB))
        .stream(Stream::new(Arc::clone(&waits)))
        .keep_ram_copy(false)
        .build()
        .unwrap();
    drop(cache.lease([a.on(&one)]).unwrap());
    let others = [two.occupy(128 * MIB), one.occupy(235 * MIB)];
    waits.begun.wait();
    cache.set_budget(&two, 3 * MIB).unwrap();
    waits.go_on.wait();
    drop(others);
    // The measurement that follows is over.
    let raised = || cache.usage_of(&one).unwrap().budget_bytes == 224 * MIB;
    until("the other budget is raised", raised);
    assert_eq!(cache.usage_of(&two).unwrap().budget_bytes, 3 * MIB);
}

/// Panics at the first eviction.
struct Panics(AtomicBool, Kept);

impl Sink for Panics {
    fn event(&self, event: &Event) {
        self.1.event(event);
        if matches!(event.kind, Kind::Evict(_)) && self.0.swap(false, Ordering::SeqCst) {
            panic!("the sink panics");
        }
    }
}

#[test]
fn a_lease_that_ends_in_a_panic_lets_go_of_all_it_held() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, MIB));
    let sink = Arc::new(Panics(AtomicBool::new(true), Kept::default()));
    let cache = Cache::builder()
        .ram(8 * MIB)
        .stream(Stream::new(sink))
        .build()
        .unwrap();
    let wanted = [
        a.on(Tier::RAM).working_memory(MIB),
        (&b).into(),
        (&c).into(),
    ];
    let lease = cache.lease(wanted).unwrap();
    assert!(!cache.drop_model(&a) && !cache.drop_model(&b));
    let ended = catch_unwind(AssertUnwindSafe(|| drop(lease)));
    assert!(ended.is_err());
    let usage = cache.usage();
    assert_eq!((usage.pinned_bytes, usage.working_bytes), (0, 0));
    assert_eq!(usage.resident_models, 1, "those that were dropped are gone");
    assert_eq!(cache.clear().leased, []);
}

#[test]
fn a_sink_that_panics_does_not_end_what_goes_on_in_the_background() {
    let folder = Folder::new();
    let a = folder.model("a", MIB);
    let sink = Arc::new(Panics(AtomicBool::new(true), Kept::default()));
    let cache = Cache::builder()
        .ram(8 * MIB)
        .keep_alive(Duration::from_millis(20))
        .stream(Stream::new(Arc::clone(&sink)))
        .build()
        .unwrap();
    for evictions in 1..=2 {
        drop(cache.lease([&a]).unwrap());
        until("it is idle", || sink.1.evictions().len() == evictions);
    }
}

#[test]
fn a_budget_that_follows_again_is_watched_again() {
    let device = Arc::new(Simulated::new(256 * MIB));
    let (cache, _) =
        cache(|builder| builder.device(Arc::clone(&device), Budget::auto().reserve(0)));
    let budget = || cache.usage_of(&device).unwrap().budget_bytes;
    cache.set_budget(&device, MIB).unwrap();
    // The keeper has nothing to look at any more, and goes to sleep for long.
    std::thread::sleep(Duration::from_millis(700));
    cache
        .set_budget(&device, Budget::auto().reserve(0))
        .unwrap();
    assert_eq!(budget(), 256 * MIB);
    let _occupied = device.occupy(128 * MIB).unwrap();
    until("it follows", || budget() == 128 * MIB);
}
