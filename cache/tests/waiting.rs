//! Who waits for what, and for how long.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::{Cache, Cpu, Error, Lease, LoadObserver, Model, Tier};
use plimsoll_events::{Event, Kind, Sink, Stream};
use support::{Folder, MIB, cache, until, verify, verify_on};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const LONG: Duration = Duration::from_secs(10);

fn waiting(cache: &Cache) -> u64 {
    cache.residency().waiting
}

#[test]
fn a_model_that_is_leased_without_a_pause_starves_nobody() {
    let folder = Folder::new();
    let (hot, other) = (folder.model("hot", 5 * MIB), folder.model("other", 5 * MIB));
    let (cache, _) = cache(|builder| builder.ram(8 * MIB).deadlock_after(None));
    let served = AtomicBool::new(false);
    let again = AtomicUsize::new(0);
    drop(cache.lease([&hot]).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (cache, hot, served, again) = (&cache, &hot, &served, &again);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(2 * thread));
                while !served.load(Ordering::SeqCst) {
                    let outer = cache.lease_timeout([hot], LONG).unwrap();
                    std::thread::sleep(Duration::from_millis(6));
                    // Who holds it already can have it again, whoever waits for its room.
                    let inner = cache.lease_timeout([hot], LONG).unwrap();
                    drop((outer, inner));
                    again.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        until("the leases overlap", || again.load(Ordering::SeqCst) > 3);
        let lease = cache.lease_timeout([&other], LONG);
        served.store(true, Ordering::SeqCst);
        let lease = lease.unwrap();
        verify(&lease, &other);
    });
    verify(&cache.lease([&hot]).unwrap(), &hot);
}

#[test]
fn threads_that_wait_for_each_other_are_told_apart_from_those_that_wait() {
    let folder = Folder::new();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| folder.model(name, 5 * MIB));
    let (cache, kept) = cache(|builder| {
        let soon = Some(Duration::from_millis(100));
        builder.ram(11 * MIB).deadlock_after(soon)
    });
    let barrier = Barrier::new(2);
    let refused = Mutex::new(Vec::new());
    let holds_and_wants = |holds: &Model, wants: &Model| {
        let held = cache.lease([holds]).unwrap();
        barrier.wait();
        match cache.lease_timeout([wants], LONG) {
            Ok(lease) => verify(&lease, wants),
            Err(error) => refused.lock().unwrap().push(error),
        }
        drop(held);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| holds_and_wants(&a, &c));
        scope.spawn(|| holds_and_wants(&b, &d));
    });
    let refused = refused.into_inner().unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(matches!(&refused[0], Error::Deadlock { tier, .. } if tier == "ram"));
    assert!(refused[0].to_string().contains("hand_over"));
    let told = kept.kinds();
    let told = told.iter().filter(|kind| matches!(kind, Kind::Refuse(_)));
    assert_eq!(told.count(), 1);
    assert_eq!(cache.usage().pinned_bytes, 0);
}

#[test]
fn a_thread_that_waits_for_itself_is_told_unless_its_lease_was_handed_over() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let (cache, _) = cache(|builder| {
        let soon = Some(Duration::from_millis(50));
        builder.ram(8 * MIB).deadlock_after(soon)
    });
    let held = cache.lease([&a]).unwrap();
    let error = cache.lease_timeout([&b], LONG).unwrap_err();
    assert!(matches!(error, Error::Deadlock { .. }), "{error}");
    held.hand_over();
    let (give, take) = std::sync::mpsc::channel::<Lease>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let lease = take.recv().unwrap();
            // Longer than a wait that cannot end would go on.
            std::thread::sleep(Duration::from_millis(300));
            drop(lease);
        });
        give.send(held).unwrap();
        verify(&cache.lease_timeout([&b], LONG).unwrap(), &b);
    });
}

#[test]
fn a_wait_in_one_tier_holds_up_no_other_and_no_hit() {
    let folder = Folder::new();
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| folder.model(name, 7 * MIB));
    for keep in [true, false] {
        let device = Simulated::new(32 * MIB);
        let tier = device.tier();
        let (cache, _) = cache(|builder| {
            let builder = builder.ram(8 * MIB).device(device, 15 * MIB);
            builder.keep_ram_copy(keep)
        });
        let held = cache.lease([&a]).unwrap();
        std::thread::scope(|scope| {
            let for_ram = scope.spawn(|| verify(&cache.lease([&b]).unwrap(), &b));
            until("one waits for RAM", || waiting(&cache) == 1);
            verify(&cache.try_lease([&a]).unwrap(), &a);
            let first = cache.try_lease([c.on(tier)]).unwrap();
            verify_on(&first, &c, tier);
            let second = cache.lease([d.on(tier)]).unwrap();
            let for_device = scope.spawn(|| {
                verify_on(&cache.lease([e.on(tier)]).unwrap(), &e, tier);
            });
            until("another for the device", || waiting(&cache) == 2);
            verify_on(&cache.try_lease([d.on(tier)]).unwrap(), &d, tier);
            drop(held);
            for_ram.join().unwrap();
            assert!(!for_device.is_finished());
            drop((first, second));
            for_device.join().unwrap();
        });
    }
}

/// Keeps whoever evicts until it is let go on.
struct Evicting {
    begun: Barrier,
    end: Barrier,
}

impl Sink for Evicting {
    fn event(&self, event: &Event) {
        if matches!(event.kind, Kind::Evict(_)) {
            self.begun.wait();
            self.end.wait();
        }
    }
}

#[test]
fn try_lease_waits_for_what_another_thread_is_evicting() {
    let folder = Folder::new();
    let a = folder.model("a", 2 * MIB);
    let sink = Arc::new(Evicting {
        begun: Barrier::new(2),
        end: Barrier::new(2),
    });
    let (cache, _) = cache(|builder| {
        let stream = Stream::new(Arc::clone(&sink) as Arc<dyn Sink>);
        builder.ram(3 * MIB).stream(stream)
    });
    drop(cache.lease([&a]).unwrap());
    std::thread::scope(|scope| {
        let evicts = scope.spawn(|| cache.evict(&a));
        sink.begun.wait();
        let leases = scope.spawn(|| verify(&cache.try_lease([&a]).unwrap(), &a));
        until("it waits", || waiting(&cache) == 1);
        sink.end.wait();
        assert!(evicts.join().unwrap());
        leases.join().unwrap();
    });
}

#[test]
fn two_caches_lease_the_same_model_each_for_itself() {
    let folder = Folder::new();
    let models = ["a", "b", "c"].map(|name| folder.model(name, 2 * MIB));
    let caches = [3 * MIB, 5 * MIB].map(|ram| cache(|builder| builder.ram(ram)).0);
    std::thread::scope(|scope| {
        for (number, cache) in caches.iter().enumerate().cycle().take(4) {
            let models = &models;
            scope.spawn(move || {
                for step in 0..60 {
                    let model = &models[(step * (number + 1)) % 3];
                    let lease = cache.lease([model]).unwrap();
                    verify(&lease, model);
                    if step % 7 == number {
                        let _ = cache.drop_model(model);
                    }
                }
            });
        }
    });
    let lease = caches[0].lease([&models[0]]).unwrap();
    assert!(caches[1].drop_model(&models[0]), "it is leased elsewhere");
    verify(&lease, &models[0]);
    for cache in &caches {
        cache.clear();
        assert!(cache.known_models() < 70);
    }
    assert_eq!(caches[1].usage().used_bytes, 0);
    assert!(caches[0].usage().used_bytes > 0);
}

/// Keeps the first load until it is let go on.
struct First {
    loads: AtomicUsize,
    begun: Barrier,
    end: Barrier,
}

impl LoadObserver for First {
    fn before_tensor(&self, model: &Model, tensor: &TensorInfo) {
        let is_first = model.tensors()[0].name == tensor.name;
        if is_first && self.loads.fetch_add(1, Ordering::SeqCst) == 0 {
            self.begun.wait();
            self.end.wait();
        }
    }
}

#[test]
fn a_model_that_is_dropped_while_it_loads_is_for_those_who_waited_alone() {
    let folder = Folder::new();
    let a = folder.model("a", 2 * MIB);
    for with_device in [false, true] {
        let first = Arc::new(First {
            loads: AtomicUsize::new(0),
            begun: Barrier::new(2),
            end: Barrier::new(2),
        });
        let device = Simulated::new(32 * MIB);
        let tier = if with_device {
            device.tier()
        } else {
            Tier::RAM
        };
        let (cache, kept) = cache(|builder| {
            let observer = Arc::clone(&first) as Arc<dyn LoadObserver>;
            let builder = builder.ram(8 * MIB).device(device, 8 * MIB);
            builder.observer(observer).keep_ram_copy(false)
        });
        std::thread::scope(|scope| {
            let old = scope.spawn(|| cache.lease([a.on(tier)]).unwrap());
            first.begun.wait();
            let joined = scope.spawn(|| cache.lease([a.on(tier)]).unwrap());
            until("another joins", || {
                let models = cache.residency().models;
                models[0].places.iter().any(|place| place.leases == 2)
            });
            assert!(!cache.drop_model(&a));
            let new = cache.lease([a.on(tier)]).unwrap();
            verify_on(&new, &a, tier);
            first.end.wait();
            let (old, joined) = (old.join().unwrap(), joined.join().unwrap());
            verify_on(&old, &a, tier);
            verify_on(&joined, &a, tier);
            let both = cache.usage_of(tier).unwrap().used_bytes;
            drop(old);
            assert_eq!(cache.usage_of(tier).unwrap().used_bytes, both);
            drop(joined);
            assert_eq!(cache.usage_of(tier).unwrap().used_bytes, both / 2);
            verify_on(&new, &a, tier);
        });
        assert_eq!(kept.loads().len(), 2);
        assert_eq!(cache.usage_of(tier).unwrap().resident_models, 1);
    }
}

#[test]
fn models_that_nobody_can_ask_for_are_forgotten() {
    let folder = Folder::new();
    let (cache, _) = cache(|builder| builder.ram(MIB));
    let path = folder.file("a", 10_000);
    for round in 0..10_000_u32 {
        let name = folder.path().join(format!("m{round}.safetensors"));
        std::fs::copy(&path, &name).unwrap();
        let model = Model::open(&name).unwrap();
        drop(cache.lease([&model]).unwrap());
        if round % 2 == 0 {
            let _ = cache.drop_model(&model);
        }
        std::fs::remove_file(name).unwrap();
        // What fits the budget is resident, and twice as many may be looked through.
        assert!(
            cache.known_models() < 500,
            "{} after {round}",
            cache.known_models()
        );
    }
    cache.clear();
    assert_eq!(cache.usage().used_bytes, 0);
    let (a, b) = (folder.model("b", 5000), folder.model("c", 5000));
    verify(&cache.lease([&a, &b]).unwrap(), &b);
}

#[test]
fn a_lease_of_the_cpu_and_a_device_waits_for_both() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 5 * MIB));
    let device = Simulated::new(8 * MIB);
    let tier = device.tier();
    let (cache, _) = cache(|builder| {
        let builder = builder.ram(8 * MIB).device(device, 8 * MIB);
        builder.keep_ram_copy(false)
    });
    let in_ram = cache.lease([a.on(Cpu)]).unwrap();
    let on_device = cache.lease([b.on(tier)]).unwrap();
    std::thread::scope(|scope| {
        let both = scope.spawn(|| {
            let lease = cache.lease([c.on(tier), b.on(Cpu)]).unwrap();
            verify_on(&lease, &c, tier);
            verify_on(&lease, &b, Tier::RAM);
        });
        until("it waits", || waiting(&cache) == 1);
        let before = cache.usage().used_bytes;
        drop(on_device);
        until("it waits for RAM", || waiting(&cache) == 1);
        assert_eq!(
            cache.usage().used_bytes,
            before,
            "nothing is taken in parts"
        );
        assert!(!both.is_finished());
        drop(in_ram);
        both.join().unwrap();
    });
}
