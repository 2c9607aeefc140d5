//! The cache with a CUDA device: budgets, what is held, what is verified.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use malloc_stats::Metric;
use plimsoll_cache::device::{Cuda, Device, Load, Source};
use plimsoll_cache::observe::Unobserved;
use plimsoll_cache::{Budget, Cache};
use plimsoll_events::{Kind, Received};

use crate::driver::{Count, ReadBack, Simulated};
use crate::support::{Folder, MIB, until};

#[test]
fn an_eviction_records_what_the_driver_said_before_and_after() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = Arc::new(driver.device(64 * MIB).unwrap());
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&device), 64 * MIB)
        .build()
        .unwrap();
    let events = cache.subscribe(1024);
    let model = folder.model("m", 6 * MIB);
    let charge = device.charge(&model);
    drop(cache.lease([model.on(&device)]).unwrap());
    cache.clear();
    let freed = std::iter::from_fn(|| events.try_recv().ok())
        .find_map(|received| match received {
            Received::Event(event) => match &event.kind {
                Kind::Evict(evict) if evict.tier == "cuda:0" => evict.device,
                _ => None,
            },
            _ => None,
        })
        .unwrap();
    assert_eq!(freed.pool_before, Metric::Exact(charge));
    assert_eq!(freed.pool_after, Metric::Exact(0));
    let back = freed.free_after.minus_saturating(freed.free_before);
    assert!(back.bytes().unwrap() >= charge, "{freed:?}");
}

#[test]
fn memory_that_a_tensor_holds_after_its_lease_is_seen_in_the_pool_and_counted() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let library = Arc::new(ReadBack::of(&driver));
    // SAFETY: the stream that all share is always there.
    let device = unsafe { Cuda::with(&driver.driver().unwrap(), 0, Arc::clone(&library) as _) };
    let device = Arc::new(device.unwrap());
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&device), 64 * MIB)
        .build()
        .unwrap();
    let model = folder.model("m", 6 * MIB);
    let charge = device.charge(&model);
    library.holds_on.store(true, Ordering::Relaxed);
    drop(cache.lease([model.on(&device)]).unwrap());
    cache.clear();
    let held = cache.usage_of(&*device).unwrap().held_bytes;
    assert_eq!(held, charge);
    assert_eq!(device.figures().unwrap().pool_used, Metric::Exact(charge));
    // Dropped on a thread that has no context of its own.
    let blocks = std::mem::take(&mut *library.held.lock().unwrap());
    std::thread::spawn(move || drop(blocks)).join().unwrap();
    assert_eq!(cache.usage_of(&*device).unwrap().held_bytes, 0);
}

#[test]
fn an_automatic_budget_follows_what_the_driver_says_is_free() {
    let driver = Simulated::new();
    let device = Arc::new(driver.device(u64::MAX).unwrap());
    let budget = |cache: &Cache| cache.usage_of(&*device).unwrap().budget_bytes;
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&device), Budget::auto().reserve(100 * MIB))
        .build()
        .unwrap();
    let free = driver.count(Count::FreeBytes);
    assert_eq!(budget(&cache), free - 100 * MIB);
    driver.elsewhere(500 * MIB);
    until("the budget is lowered", || {
        budget(&cache) == free - 600 * MIB
    });
}

#[test]
fn a_device_that_says_it_has_no_memory_has_something_evicted_and_is_tried_again() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = Arc::new(driver.device(u64::MAX).unwrap());
    let cache = Cache::builder()
        .ram(256 * MIB)
        .device(Arc::clone(&device), 128 * MIB)
        .build()
        .unwrap();
    let (first, second) = (
        folder.model("first", 20 * MIB),
        folder.model("second", 20 * MIB),
    );
    drop(cache.lease([first.on(&device)]).unwrap());
    // Another process takes all but a few MiB between the plan and the load.
    driver.elsewhere(driver.count(Count::FreeBytes) - 8 * MIB);
    let lease = cache.lease([second.on(&device)]).unwrap();
    let tensor = &second.tensors()[0];
    let bytes = lease.get(&second).unwrap().bytes(&tensor.name).unwrap();
    let file = std::fs::read(second.path()).unwrap();
    assert!(*bytes == file[tensor.offset as usize..][..tensor.bytes as usize]);
    assert!(!cache.residency().models.iter().any(|model| {
        model.model.contains("first") && model.places.iter().any(|place| place.tier == "cuda:0")
    }));
}

#[test]
fn loads_and_unloads_leave_nothing_behind_however_many() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = Arc::new(driver.device(64 * MIB).unwrap());
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&device), 9 * MIB)
        .build()
        .unwrap();
    let models = [5 * MIB, 6 * MIB + 1, MIB].map(|bytes| folder.model(&format!("m{bytes}"), bytes));
    let mut after_first = None;
    for turn in 0..40 {
        for model in &models {
            drop(cache.lease([model.on(&device)]).unwrap());
        }
        let now = (driver.left(), cache.usage_of(&*device).unwrap().used_bytes);
        let now = format!("{now:?}");
        if turn == 1 {
            after_first = Some(now);
        } else if turn > 1 {
            assert_eq!(Some(&now), after_first.as_ref(), "turn {turn}");
        }
    }
    cache.clear();
    drop(cache);
    drop(device);
    assert!(driver.left().is_empty(), "{:?}", driver.left());
}

#[test]
fn memory_is_kept_for_a_load_that_is_expected_and_given_back_where_none_comes() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = driver.device(64 * MIB).unwrap();
    let (one, two) = (folder.model("one", 8 * MIB), folder.model("two", 6 * MIB));
    let load = |model| {
        let load = Load {
            model,
            source: Source::Files { staging: MIB },
            observer: &Unobserved,
        };
        device.load(&load).unwrap()
    };
    let reserved = || device.figures().unwrap().pool_reserved.bytes().unwrap();
    let there = driver.count(Count::FreeBytes);
    let weights = load(&one);
    device.expect(device.charge(&two));
    let unloaded = weights.unload();
    assert_eq!(unloaded.recycled_bytes, device.charge(&two));
    // As far as whole pages of the device go.
    let kept = device.charge(&two).next_multiple_of(2 * MIB);
    assert_eq!(reserved(), kept);
    assert_eq!(driver.count(Count::FreeBytes), there - kept);
    // What is kept is that load's.
    let free = 64 * MIB - device.charge(&two);
    assert_eq!(device.memory().free.bytes(), Some(free));
    let weights = load(&two);
    assert_eq!((reserved(), device.kept_bytes()), (kept, 0));
    device.expect(device.charge(&one));
    drop(weights);
    assert_eq!(reserved(), kept);
    device.unexpect(u64::MAX);
    assert_eq!((reserved(), driver.count(Count::FreeBytes)), (0, there));
}

#[test]
fn memory_that_was_freed_and_is_still_in_use_is_waited_for_before_anything_else_goes() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let library = Arc::new(ReadBack::of(&driver));
    library.holds_on.store(true, Ordering::Relaxed);
    // SAFETY: the stream that all share is always there.
    let device = unsafe { Cuda::with(&driver.driver().unwrap(), 0, Arc::clone(&library) as _) };
    let device = device.unwrap();
    let (first, second) = (
        folder.model("first", 20 * MIB),
        folder.model("second", 20 * MIB),
    );
    let load = |model| {
        device.load(&Load {
            model,
            source: Source::Files { staging: MIB },
            observer: &Unobserved,
        })
    };
    load(&first).unwrap().unload();
    driver.elsewhere(driver.count(Count::FreeBytes) - 8 * MIB);
    assert!(load(&second).is_err());
    // The last tensor goes: its memory is freed when the stream comes to it, and nobody waits.
    library.held.lock().unwrap().clear();
    load(&second).unwrap();
}
