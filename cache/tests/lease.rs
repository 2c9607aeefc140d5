//! Leases: what they guarantee, whatever else happens.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::{Error, LoadError, LoadObserver, Model, Storage};
use plimsoll_events::{Event, EvictReason, Kind, Sink, Stream};
use support::{Folder, MIB, cache, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

#[test]
fn a_lease_loads_what_is_missing_and_pins_it() {
    for storage in [Storage::Heap, Storage::Anonymous] {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
        let (cache, _) = cache(|builder| builder.ram(8 * MIB).storage(storage));
        let lease = cache.lease([&a]).unwrap();
        verify(&lease, &a);
        assert!(!cache.evict(&a), "a leased model stays");
        let refused = cache.try_lease([&b]).unwrap_err();
        assert!(matches!(refused, Error::NoRoom { .. }), "{refused}");
        drop(lease);
        let lease = cache.lease([&b]).unwrap();
        verify(&lease, &b);
        assert_eq!(cache.usage().resident_models, 1);
    }
}

#[test]
fn a_lease_is_all_or_nothing() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 4 * MIB));
    let (cache, _) = cache(|builder| builder.ram(9 * MIB));
    let held = cache.lease([&a]).unwrap();
    let before = cache.usage();
    assert!(matches!(
        cache.try_lease([&b, &c]),
        Err(Error::NoRoom { .. })
    ));
    assert_eq!(
        cache.usage(),
        before,
        "nothing of the refused lease was kept"
    );
    drop(held);
    let both = cache.lease([&b, &c]).unwrap();
    verify(&both, &b);
    verify(&both, &c);
}

#[test]
fn a_lease_beyond_the_budget_is_refused_with_the_numbers_and_evicts_nothing() {
    let folder = Folder::new();
    let (small, large) = (folder.model("small", MIB), folder.model("large", 20 * MIB));
    let (cache, kept) = cache(|builder| builder.ram(8 * MIB));
    drop(cache.lease([&small]).unwrap());
    let error = cache.lease([&large]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("large") && text.contains("20.") && text.contains("8"),
        "{text}"
    );
    assert_eq!(cache.usage().resident_models, 1);
    assert!(
        kept.kinds()
            .iter()
            .any(|kind| matches!(kind, Kind::Refuse(_)))
    );
}

#[test]
fn a_model_named_twice_is_charged_and_pinned_once() {
    let folder = Folder::new();
    let path = folder.file("a", 5 * MIB);
    let (one, again) = (Model::open(&path).unwrap(), Model::open(&path).unwrap());
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let lease = cache.lease([&one, &again, &one]).unwrap();
    assert_eq!(lease.models().count(), 1);
    verify(&lease, &again);
}

#[test]
fn the_least_recently_leased_goes_first() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 4 * MIB));
    let (cache, kept) = cache(|builder| builder.ram(9 * MIB));
    drop(cache.lease([&a]).unwrap());
    drop(cache.lease([&b]).unwrap());
    drop(cache.lease([&a]).unwrap());
    drop(cache.lease([&c]).unwrap());
    let evicted: Vec<String> = kept
        .kinds()
        .into_iter()
        .filter_map(|kind| match kind {
            Kind::Evict(evict) => Some(evict.model),
            _ => None,
        })
        .collect();
    assert_eq!(evicted, ["b"]);
}

#[test]
fn an_eviction_for_room_tells_what_it_considered() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 4 * MIB));
    let (cache, kept) = cache(|builder| builder.ram(9 * MIB));
    drop(cache.lease([&a]).unwrap());
    let _held = cache.lease([&b]).unwrap();
    drop(cache.lease([&c]).unwrap());
    let kinds = kept.kinds();
    let evict = kinds.iter().find_map(|kind| match kind {
        Kind::Evict(evict) => Some(evict),
        _ => None,
    });
    let evict = evict.unwrap();
    assert_eq!(evict.model, "a");
    assert_eq!(evict.considered.len(), 2);
    let EvictReason::Room { wanted_for, .. } = &evict.reason else {
        panic!("{:?}", evict.reason);
    };
    assert_eq!(wanted_for[..], ["c"]);
    assert_eq!(
        evict.freed_bytes,
        evict.recycled_bytes + evict.held_bytes + evict.returned.bytes().unwrap(),
        "every freed byte went somewhere"
    );
    let load = kinds.iter().rev().find_map(|kind| match kind {
        Kind::Load(load) => Some(load),
        _ => None,
    });
    assert!(load.unwrap().recycled_bytes > 0, "c lies in pages of a");
}

#[test]
fn bytes_are_right_through_recycled_pages() {
    let folder = Folder::new();
    let models: Vec<Model> = (0..5_u64)
        .map(|index| folder.model(&format!("m{index}"), (1 + index) * MIB + index * 4321))
        .collect();
    let (cache, _) = cache(|builder| builder.ram(9 * MIB));
    for step in 0..60_usize {
        let model = &models[step * 7 % 5];
        let lease = cache.lease([model]).unwrap();
        verify(&lease, model);
        assert!(cache.usage().used_bytes <= 9 * MIB);
        assert_eq!(
            cache.usage().recyclable_bytes,
            0,
            "nothing is kept for nobody"
        );
    }
}

#[test]
fn a_load_that_fails_gives_everything_back_and_the_next_lease_works() {
    for storage in [Storage::Heap, Storage::Anonymous] {
        let folder = Folder::new();
        let (good, path) = (folder.model("good", 2 * MIB), folder.file("bad", 3 * MIB));
        let bad = Model::open(&path).unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MIB)
            .unwrap();
        let (cache, _) = cache(|builder| builder.ram(8 * MIB).storage(storage));
        let error = cache.lease([&good, &bad]).unwrap_err();
        assert!(error.to_string().contains("bad.safetensors"), "{error}");
        let usage = cache.usage();
        assert_eq!(usage.pinned_bytes, 0);
        assert!(cache.evict(&good));
        assert_eq!(cache.usage().used_bytes, 0);
        verify(&cache.lease([&good]).unwrap(), &good);
    }
}

#[test]
fn a_file_replaced_since_it_was_opened_is_an_error_and_not_mixed_weights() {
    let folder = Folder::new();
    let model = folder.model("a", MIB);
    std::fs::remove_file(model.path()).unwrap();
    let again = folder.model("a", MIB);
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let error = cache.lease([&model]).unwrap_err();
    assert!(
        matches!(&error, Error::Load(load) if matches!(**load, LoadError::Open(_))),
        "{error}"
    );
    verify(&cache.lease([&again]).unwrap(), &again);
}

/// Panics at the first tensor, once.
struct Panics(AtomicUsize);

impl LoadObserver for Panics {
    fn before_tensor(&self, _: &Model, _: &TensorInfo) {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("the observer panics");
        }
    }
}

#[test]
fn a_panic_inside_a_load_leaves_the_cache_whole() {
    let folder = Folder::new();
    let model = folder.model("a", 2 * MIB);
    let observer = Arc::new(Panics(AtomicUsize::new(0)));
    let (cache, _) = cache(|builder| builder.ram(4 * MIB).observer(observer));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = cache.lease([&model]);
    }));
    assert!(panicked.is_err());
    assert_eq!(cache.usage().used_bytes, 0);
    verify(&cache.lease([&model]).unwrap(), &model);
}

#[test]
fn concurrent_leases_of_an_absent_model_share_one_load() {
    let folder = Folder::new();
    let model = folder.model("a", 20 * MIB);
    let (cache, kept) = cache(|builder| builder.ram(32 * MIB));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| verify(&cache.lease([&model]).unwrap(), &model));
        }
    });
    let loads = kept
        .kinds()
        .iter()
        .filter(|kind| matches!(kind, Kind::Load(_)))
        .count();
    assert_eq!(loads, 1);
    cache.tell_hits();
    let hits: u64 = kept
        .kinds()
        .iter()
        .filter_map(|kind| match kind {
            Kind::Tally(tally) => tally.hits.get("a").copied(),
            _ => None,
        })
        .sum();
    assert_eq!(hits, 7);
}

#[test]
fn a_lease_waits_for_room_and_gives_up_in_time() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let held = cache.lease([&a]).unwrap();
    let error = cache
        .lease_timeout([&b], Duration::from_millis(30))
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| verify(&cache.lease([&b]).unwrap(), &b));
        std::thread::sleep(Duration::from_millis(20));
        drop(held);
        waiting.join().unwrap();
    });
}

#[test]
fn leases_that_wait_are_served_in_order() {
    let folder = Folder::new();
    let models: Vec<Model> = (0..4)
        .map(|n| folder.model(&format!("m{n}"), 5 * MIB))
        .collect();
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let held = cache.lease([&models[0]]).unwrap();
    let served = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (number, model) in models.iter().enumerate().skip(1) {
            let (cache, served) = (&cache, &served);
            scope.spawn(move || {
                let lease = cache.lease([model]).unwrap();
                served.lock().unwrap().push(number);
                drop(lease);
            });
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(held);
    });
    assert_eq!(served.into_inner().unwrap(), [1, 2, 3]);
}

#[test]
fn clear_says_what_it_could_not_drop() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", MIB), folder.model("b", MIB));
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let _held = cache.lease([&a]).unwrap();
    drop(cache.lease([&b]).unwrap());
    let cleared = cache.clear();
    assert_eq!(cleared.evicted, ["b"]);
    assert_eq!(cleared.leased, [("a".to_owned(), 1)]);
}

/// Is in no hurry when it is told of an eviction.
struct SlowSink(std::sync::Barrier);

impl Sink for SlowSink {
    fn event(&self, event: &Event) {
        if matches!(event.kind, Kind::Evict(_)) {
            self.0.wait();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn evict_returns_when_the_model_is_gone_whoever_evicts_it() {
    let folder = Folder::new();
    let model = folder.model("a", MIB);
    let sink = Arc::new(SlowSink(std::sync::Barrier::new(2)));
    let stream = Stream::new(Arc::clone(&sink) as Arc<dyn Sink>);
    let (cache, _) = cache(|builder| builder.ram(2 * MIB).stream(stream));
    drop(cache.lease([&model]).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(cache.evict(&model)));
        sink.0.wait();
        assert!(cache.evict(&model));
        assert_eq!(cache.usage().used_bytes, 0);
    });
}

#[test]
fn the_books_balance_under_many_threads() {
    for storage in [Storage::Heap, Storage::Anonymous] {
        let folder = Folder::new();
        let models: Vec<Model> = (0..12_u64)
            .map(|n| folder.model(&format!("m{n}"), MIB / 4 + n * 50_000))
            .collect();
        let budget = 3 * MIB;
        let (cache, kept) = cache(|builder| builder.ram(budget).storage(storage));
        std::thread::scope(|scope| {
            for thread in 0..8_usize {
                let (cache, models) = (&cache, &models);
                scope.spawn(move || {
                    for step in 0..150_usize {
                        let pick = (thread * 31 + step * 17) % models.len();
                        let other = (pick + 1 + step % 3) % models.len();
                        let wanted = [&models[pick], &models[other]];
                        let wanted = if step % 4 == 0 {
                            &wanted[..]
                        } else {
                            &wanted[..1]
                        };
                        let lease = cache.lease(wanted.iter().copied()).unwrap();
                        for model in wanted {
                            verify(&lease, model);
                        }
                        assert!(cache.usage().used_bytes <= budget);
                    }
                });
            }
        });
        assert!(cache.clear().leased.is_empty());
        assert_eq!(cache.usage().used_bytes, 0);
        let mut resident = std::collections::HashSet::new();
        for kind in kept.kinds() {
            match kind {
                Kind::Load(load) => assert!(resident.insert(load.model), "loaded twice at once"),
                Kind::Evict(evict) => assert!(resident.remove(&evict.model)),
                _ => {}
            }
        }
        assert!(resident.is_empty());
    }
}
