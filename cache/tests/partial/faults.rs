//! Devices and observers that fail while a model streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_cache::device::{Device, Fault, Injection, Simulated};
use plimsoll_cache::observe::Transferred;
use plimsoll_cache::{Cache, Error, LoadError, LoadObserver, Model, Partial};
use plimsoll_events::{Event, Kind, Sink, Stream};

use super::files::folder;
use super::models::{compute, in_file_order, layers};
use super::support::{Folder, MIB, until, verify};
use super::watch::{Watch, on_device};

fn world() -> (tempfile::TempDir, Model, Arc<Simulated>, Cache) {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let budget = gpu.charge(&model) / 2;
    let builder = Cache::builder().ram(64 * MIB);
    let cache = builder.device(Arc::clone(&gpu), budget).build().unwrap();
    (folder, model, gpu, cache)
}

fn try_all(lease: &plimsoll_cache::Lease, model: &Model) -> Vec<Error> {
    let leased = lease.get(model).unwrap();
    let tensors = model.tensors().iter();
    let results = tensors.map(|tensor| leased.tensor(&tensor.name).map(drop));
    results.filter_map(Result::err).collect()
}

#[test]
fn transfers_that_fail_are_typed_errors_and_the_next_try_goes_well() {
    for fault in [Fault::Transfer, Fault::OutOfMemory] {
        let (_folder, model, gpu, cache) = world();
        let watch = Watch::new(&cache, &gpu);
        let lease = cache
            .lease([model.on(&*gpu).partial(Partial::default())])
            .unwrap();
        let order = in_file_order(&model);
        let wanted = compute(&lease, &model, &order);
        for every in [1, 3, 7] {
            for _ in 0..(40 / every) {
                gpu.inject(fault);
                let errors = try_all(&lease, &model);
                let typed = |error: &Error| match error {
                    Error::Load(load) => matches!(
                        **load,
                        LoadError::Transfer { .. } | LoadError::OutOfMemory { .. }
                    ),
                    _ => false,
                };
                assert!(errors.iter().all(typed), "{errors:?}");
            }
        }
        // What is left of what was injected.
        while !try_all(&lease, &model).is_empty() {}
        for _ in 0..5 {
            assert!(try_all(&lease, &model).is_empty());
        }
        assert_eq!(compute(&lease, &model, &order), wanted, "{fault}");
        drop(lease);
        watch.end();
        cache.clear();
        assert_eq!(on_device(&gpu), 0);
    }
}

#[test]
fn a_fetch_ahead_that_failed_is_tried_again_when_it_is_asked_for() {
    let (_folder, model, gpu, cache) = world();
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let order = in_file_order(&model);
    let wanted = compute(&lease, &model, &order);
    let leased = lease.get(&model).unwrap();
    // Everything in the pool goes, and what comes next is fetched before anybody asks.
    for round in 0..10 {
        let before = leased.residency().transfers;
        gpu.inject(Fault::Transfer);
        let names = order.iter().filter(|name| name.ends_with("weight"));
        let errors = names.map(|name| leased.tensor(name).map(drop));
        let errors = errors.filter(Result::is_err).count();
        // It fails for who waits for it at that moment, and for nobody else.
        assert!(errors <= 1, "{errors} in round {round}");
        assert!(leased.residency().transfers > before);
    }
    assert_eq!(compute(&lease, &model, &order), wanted);
}

#[test]
fn all_who_wait_for_a_fetch_that_fails_hear_of_it() {
    let (_folder, model, gpu, cache) = world();
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let leased = lease.get(&model).unwrap();
    compute(&lease, &model, &in_file_order(&model));
    gpu.inject_every(Injection {
        fault: Fault::Transfer,
        every: 1,
    });
    for layer in [13, 15, 17, 19] {
        let name = format!("l0{layer}.weight");
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| match leased.tensor(&name) {
                    // It was in the pool.
                    Ok(_) => {}
                    Err(Error::Load(error)) => {
                        assert!(matches!(*error, LoadError::Transfer { .. }), "{error}");
                    }
                    Err(error) => panic!("{error}"),
                });
            }
        });
        assert!(began.elapsed() < Duration::from_millis(1500));
    }
}

#[test]
fn a_slow_transfer_is_no_held_pool() {
    let (_folder, model, gpu, cache) = world();
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let leased = lease.get(&model).unwrap();
    compute(&lease, &model, &in_file_order(&model));
    gpu.inject(Fault::Stuck);
    std::thread::scope(|scope| {
        let consumers: Vec<_> = ["l018.weight", "l020.weight"]
            .into_iter()
            .map(|name| scope.spawn(move || leased.tensor(name).map(drop)))
            .collect();
        until("it is stuck", || gpu.stuck() == 1);
        // Longer than tensors are waited for to be dropped.
        std::thread::sleep(Duration::from_millis(2600));
        assert!(consumers.iter().any(|one| !one.is_finished()));
        gpu.unstick();
        for consumer in consumers {
            consumer.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_lease_ends_while_a_transfer_is_stuck_and_the_pool_comes_back_with_it() {
    let (_folder, model, gpu, cache) = world();
    let pool = {
        let lease = cache
            .lease([model.on(&*gpu).partial(Partial::default())])
            .unwrap();
        compute(&lease, &model, &in_file_order(&model));
        let leased = lease.get(&model).unwrap();
        let mut before = u64::MAX;
        until("nothing is fetched", || {
            std::thread::sleep(Duration::from_millis(20));
            let now = leased.residency().transfers;
            std::mem::replace(&mut before, now) == now
        });
        gpu.inject(Fault::Stuck);
        // It is in the pool, and the next is fetched now.
        let names = in_file_order(&model);
        let first = names.iter().find(|name| {
            leased.tensor(name).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            gpu.stuck() == 1
        });
        assert!(first.is_some());
        lease.get(&model).unwrap().residency().pool_bytes
    };
    let usage = cache.usage_of(&*gpu).unwrap();
    assert!(usage.staging_bytes >= pool, "{usage:?}");
    gpu.unstick();
    until("the pool comes back", || {
        cache.usage_of(&*gpu).unwrap().staging_bytes == 0
    });
    cache.clear();
    assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
    until("the device has it back", || on_device(&gpu) == 0);
    assert_eq!(cache.usage().used_bytes, 0);
}

#[derive(Default)]
struct Panicking(AtomicU64);

impl LoadObserver for Panicking {
    fn transferred(&self, _: &Transferred<'_>) {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(count % 3 != 1, "an observer's own");
    }
}

#[test]
fn an_observer_that_panics_ends_a_fetch_and_nothing_else() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let builder = Cache::builder().ram(64 * MIB);
    let cache = builder
        .device(Arc::clone(&gpu), gpu.charge(&model) / 2)
        .observer(Arc::new(Panicking::default()))
        .build()
        .unwrap();
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    for _ in 0..5 {
        for error in try_all(&lease, &model) {
            let Error::Load(error) = error else {
                panic!("{error}");
            };
            assert!(matches!(*error, LoadError::Abandoned { .. }), "{error}");
        }
    }
    drop(lease);
    cache.clear();
    assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
    assert_eq!(on_device(&gpu), 0);
}

/// Panics when a partial lease ends, and when an order is not kept.
struct Loud;

impl Sink for Loud {
    fn event(&self, event: &Event) {
        let is_ours = matches!(event.kind, Kind::Streamed(_) | Kind::Note { .. });
        assert!(!is_ours, "a sink's own");
    }
}

#[test]
fn a_sink_that_panics_leaves_nothing_behind() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let builder = Cache::builder().ram(64 * MIB);
    let cache = builder
        .device(Arc::clone(&gpu), gpu.charge(&model) / 2)
        .stream(Stream::new(Arc::new(Loud)))
        .build()
        .unwrap();
    for partial in [Partial::default(), Partial::default().firm()] {
        let ended = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let lease = cache.lease([model.on(&*gpu).partial(partial)]).unwrap();
                let leased = lease.get(&model).unwrap();
                let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    for layer in [23, 14, 21, 13] {
                        leased.tensor(&format!("l0{layer}.weight")).unwrap();
                    }
                }));
                assert!(asked.is_err(), "the note");
                compute(&lease, &model, &in_file_order(&model));
            });
            thread.join()
        });
        assert!(ended.is_err(), "the end");
        cache.clear();
        let usage = cache.usage_of(&*gpu).unwrap();
        assert_eq!((usage.used_bytes, usage.pinned_bytes), (0, 0), "{usage:?}");
        assert_eq!(on_device(&gpu), 0);
        assert_eq!(cache.usage().used_bytes, 0);
    }
}

#[test]
fn a_limit_of_time_holds_also_for_what_is_brought_besides() {
    let folder = Folder::new();
    let model = folder.model("m", 40 * MIB);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let cache = Cache::builder()
        .ram(200 * MIB)
        .keep_ram_copy(false)
        .device(Arc::clone(&gpu), 30 * MIB)
        .build()
        .unwrap();
    // What must be there comes, and the next part stands still.
    gpu.inject(Fault::Slow);
    gpu.inject(Fault::Stuck);
    let limit = Duration::from_millis(300);
    let wanted = model.on(&*gpu).partial(Partial::default());
    let lease = cache.lease_timeout([wanted], limit).unwrap();
    assert_eq!(gpu.stuck(), 1);
    let few = lease.get(&model).unwrap().residency().resident_bytes;
    assert!(few < 20 * MIB, "{few}");
    gpu.unstick();
    verify(&lease, &model);
    until("the rest comes", || {
        lease.get(&model).unwrap().residency().resident_bytes > 20 * MIB
    });
    drop(lease);
    until("all of it goes", || {
        cache.clear();
        cache.usage_of(&*gpu).unwrap().used_bytes == 0
    });
}
