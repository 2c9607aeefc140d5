//! Observers and sinks are the program's own code, and may panic: no lease may wait for ever
//! afterwards, and no byte may stay reserved or pinned.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::{Cache, LoadObserver, Model, Storage};
use plimsoll_events::{Event, Kind, Sink, Stream};
use support::{Folder, MIB, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const SOON: Duration = Duration::from_secs(5);

/// Panics when a model of this name is loaded.
struct PanicsAt(&'static str, AtomicBool);

impl LoadObserver for PanicsAt {
    fn before_tensor(&self, model: &Model, _: &TensorInfo) {
        if model.name() == self.0 && self.1.swap(false, Ordering::SeqCst) {
            panic!("the observer panics");
        }
    }
}

fn panics_at(name: &'static str) -> Arc<PanicsAt> {
    Arc::new(PanicsAt(name, AtomicBool::new(true)))
}

fn leasing_panics(cache: &Cache, models: &[&Model]) {
    let leased = catch_unwind(AssertUnwindSafe(|| cache.lease(models.iter().copied())));
    assert!(leased.is_err());
}

/// Whether nothing is pinned or counted, and every model can be leased.
fn is_whole(cache: &Cache, models: &[&Model]) {
    assert_eq!(cache.clear().leased, []);
    let usage = cache.usage();
    assert_eq!((usage.used_bytes, usage.recyclable_bytes), (0, 0));
    let lease = cache.lease_timeout(models.iter().copied(), SOON).unwrap();
    for model in models {
        verify(&lease, model);
    }
}

#[test]
fn a_panic_in_one_load_lets_go_of_the_other_models_of_the_lease() {
    for storage in [Storage::Heap, Storage::Anonymous] {
        let folder = Folder::new();
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, MIB));
        let cache = Cache::builder()
            .ram(8 * MIB)
            .storage(storage)
            .observer(panics_at("b"))
            .build()
            .unwrap();
        drop(cache.lease([&a]).unwrap());
        leasing_panics(&cache, &[&a, &b, &c]);
        is_whole(&cache, &[&a, &b, &c]);
    }
}

/// Holds the load of `slow` until it is told to go on; panics at `bad`.
struct Slow {
    begun: Barrier,
    go_on: Barrier,
}

impl LoadObserver for Slow {
    fn before_tensor(&self, model: &Model, tensor: &TensorInfo) {
        if &*tensor.name != "t000" {
            return;
        }
        match model.name() {
            "slow" => {
                self.begun.wait();
                self.go_on.wait();
            }
            "bad" => panic!("the observer panics"),
            _ => {}
        }
    }
}

#[test]
fn a_lease_that_fails_does_not_wait_for_loads_of_others_nor_pins_them() {
    let folder = Folder::new();
    let [slow, bad] = ["slow", "bad"].map(|name| folder.model(name, MIB));
    let observer = Arc::new(Slow {
        begun: Barrier::new(2),
        go_on: Barrier::new(2),
    });
    let cache = Cache::builder()
        .ram(8 * MIB)
        .observer(Arc::clone(&observer) as Arc<dyn LoadObserver>)
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| drop(cache.lease([&slow]).unwrap()));
        observer.begun.wait();
        leasing_panics(&cache, &[&bad, &slow]);
        observer.go_on.wait();
        loader.join().unwrap();
    });
    assert_eq!(cache.clear().leased, []);
    assert_eq!(cache.usage().used_bytes, 0);
}

/// Panics once, at an event of a kind.
struct BadSink(fn(&Kind) -> bool, AtomicBool);

impl Sink for BadSink {
    fn event(&self, event: &Event) {
        if (self.0)(&event.kind) && self.1.swap(false, Ordering::SeqCst) {
            panic!("the sink panics");
        }
    }
}

fn with_bad_sink(panics_at: fn(&Kind) -> bool) -> Cache {
    let sink = Arc::new(BadSink(panics_at, AtomicBool::new(true)));
    Cache::builder()
        .ram(5 * MIB)
        .stream(Stream::new(sink))
        .build()
        .unwrap()
}

#[test]
fn a_sink_that_panics_at_an_eviction_leaves_no_victim_half_evicted() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 2 * MIB));
    let large = folder.model("large", 4 * MIB);
    let cache = with_bad_sink(|kind| matches!(kind, Kind::Evict(_)));
    drop(cache.lease([&a, &b]).unwrap());
    leasing_panics(&cache, &[&large]);
    is_whole(&cache, &[&a, &b]);
    is_whole(&cache, &[&large]);
}

#[test]
fn a_sink_that_panics_at_a_load_leaves_no_pin_behind() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 2 * MIB));
    let cache = with_bad_sink(|kind| matches!(kind, Kind::Load(_)));
    leasing_panics(&cache, &[&a, &b]);
    is_whole(&cache, &[&a, &b]);
}
