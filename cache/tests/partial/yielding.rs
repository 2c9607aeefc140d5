//! Parts give way, in their order, and come back; nobody waits for ever, and no byte is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Builder, Cache, Cpu, Error, Lease, Model, Partial};
use plimsoll_events::{EvictReason, Kind};

use super::files::folder;
use super::models::{compute, in_file_order, layers};
use super::support::{Kept, MIB, cache, until};
use super::watch::{Watch, on_device};

struct World {
    model: Model,
    other: Model,
    gpu: Arc<Simulated>,
    cache: Cache,
    kept: Arc<Kept>,
    _folder: tempfile::TempDir,
}

impl World {
    /// A model of about 2 MiB that has room for most of it, and another of 0.7 MiB.
    fn new(set: impl FnOnce(Builder) -> Builder) -> World {
        let folder = folder();
        let (model, other) = (layers(&folder, "m", 24, 144), layers(&folder, "o", 8, 144));
        let gpu = Arc::new(Simulated::new(64 * MIB));
        let budget = gpu.charge(&model) * 9 / 10;
        let (cache, kept) = cache(|builder| {
            let builder = builder.ram(64 * MIB).device(Arc::clone(&gpu), budget);
            set(builder)
        });
        // Its copy in RAM is there from the start.
        drop(cache.lease([other.on(Cpu)]).unwrap());
        World {
            model,
            other,
            gpu,
            cache,
            kept,
            _folder: folder,
        }
    }

    fn lease(&self) -> Lease {
        let wanted = self.model.on(&*self.gpu).partial(Partial::default());
        self.cache.lease([wanted]).unwrap()
    }

    /// What counts on the device by what events have told of loads and evictions.
    fn told(&self, lease: &Lease) -> u64 {
        let pool = lease.get(&self.model).unwrap().residency().pool_bytes;
        self.kept
            .kinds()
            .iter()
            .fold(pool, |used, kind| match kind {
                Kind::Load(load) if load.tier == "simulated" && load.error.is_none() => {
                    used + load.charged_bytes
                }
                Kind::Evict(evict) if evict.tier == "simulated" => {
                    assert_eq!(evict.held_bytes, 0);
                    used - evict.freed_bytes
                }
                _ => used,
            })
    }

    fn used(&self) -> u64 {
        self.cache.usage_of(&*self.gpu).unwrap().used_bytes
    }

    fn loads_in_ram(&self) -> usize {
        let loads = self.kept.loads();
        loads.iter().filter(|load| load.contains("in ram")).count()
    }

    /// The numbers of the parts that were evicted, in the order in which they were.
    fn parts_evicted(&self) -> Vec<u32> {
        let evictions = self.kept.evictions().into_iter();
        let names = evictions.filter(|evict| evict.part_of.is_some());
        let number = |name: &str| name.rsplit(' ').next()?.strip_suffix(']')?.parse().ok();
        names.map(|evict| number(&evict.model).unwrap()).collect()
    }
}

#[test]
fn a_second_lease_comes_and_goes_500_times() {
    let world = World::new(|builder| builder);
    let World {
        model,
        other,
        gpu,
        cache,
        ..
    } = &world;
    let order = in_file_order(model);
    let watch = Watch::new(cache, gpu);
    let lease = world.lease();
    let wanted = compute(&lease, model, &order);
    let resident = || lease.get(model).unwrap().residency().charged_bytes;
    let before = resident();
    let ram = (world.loads_in_ram(), cache.usage().used_bytes);
    let pool = lease.get(model).unwrap().residency().pool_bytes;
    let mut told_of = 0;
    for round in 0..500 {
        let second = cache.try_lease([other.on(&**gpu)]).unwrap();
        let used = resident() + pool + gpu.charge(other);
        assert_eq!(world.used(), used, "round {round}");
        assert!(resident() < before);
        if round % 50 == 0 {
            assert_eq!(world.told(&lease), used);
            assert_eq!(compute(&lease, model, &order), wanted);
            let evicted = world.parts_evicted();
            assert!(evicted.len() > told_of);
            let last = &evicted[told_of..];
            assert!(last.is_sorted_by(|a, b| a > b), "the tail first: {last:?}");
        }
        drop(second);
        assert!(!cache.evict(model), "a partial lease holds it");
        assert!(cache.evict(other));
        // Its copy in RAM is not what this is about.
        drop(cache.lease([other.on(Cpu)]).unwrap());
        assert_eq!(world.used(), resident() + pool);
        let came = lease.grow(model).unwrap();
        assert!(came > 0);
        assert_eq!((resident(), world.used()), (before, before + pool));
        if round % 50 == 0 {
            assert_eq!(world.told(&lease), before + pool);
        }
        told_of = world
            .kept
            .evictions()
            .iter()
            .filter(|one| one.part_of.is_some())
            .count();
    }
    // Of the model that shrank nothing ever came back to the host.
    let loads = world.kept.loads();
    let of_it = |load: &&String| load.starts_with("m") && load.contains("in ram");
    assert_eq!(loads.iter().filter(of_it).count(), 1);
    assert_eq!(cache.usage().used_bytes, ram.1);
    assert_eq!(compute(&lease, model, &order), wanted);
    drop(lease);
    watch.end();
    cache.clear();
    assert_eq!((world.used(), on_device(gpu)), (0, 0));
}

#[test]
fn what_nobody_cares_for_goes_before_any_part() {
    let world = World::new(|builder| builder);
    let World {
        model,
        other,
        gpu,
        cache,
        ..
    } = &world;
    let partial = || {
        model
            .on(&**gpu)
            .partial(Partial::default().up_to(gpu.charge(model) / 2))
    };
    let lease = cache.lease([partial()]).unwrap();
    let before = lease.get(model).unwrap().residency().charged_bytes;
    let idle = layers(&world._folder, "idle", 5, 144);
    drop(cache.lease([idle.on(&**gpu)]).unwrap());
    let second = cache.try_lease([other.on(&**gpu)]).unwrap();
    let evicted = world.kept.evictions();
    assert_eq!(evicted[0].model, "idle");
    assert!(
        evicted.iter().all(|one| one.part_of.is_none()),
        "{evicted:?}"
    );
    assert_eq!(lease.get(model).unwrap().residency().charged_bytes, before);
    drop(second);
}

#[test]
fn a_second_lease_comes_and_goes_while_a_consumer_streams() {
    let world = World::new(|builder| builder);
    let World {
        model,
        other,
        gpu,
        cache,
        ..
    } = &world;
    let order = in_file_order(model);
    let watch = Watch::new(cache, gpu);
    let lease = world.lease();
    let wanted = compute(&lease, model, &order);
    let is_done = AtomicBool::new(false);
    let passes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    assert_eq!(compute(&lease, model, &order), wanted);
                    passes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for round in 0..60 {
            let second = match round % 3 {
                0 => cache.lease([other.on(&**gpu)]).unwrap(),
                1 => runtime
                    .block_on(cache.lease_async([other.on(&**gpu)]))
                    .unwrap(),
                _ => {
                    let timeout = Duration::from_secs(20);
                    cache.lease_timeout([other.on(&**gpu)], timeout).unwrap()
                }
            };
            drop(second);
            // Held or not at this moment.
            let _ = cache.evict(other);
            lease.grow(model).unwrap();
        }
        until("a pass", || passes.load(Ordering::Relaxed) > 1);
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(compute(&lease, model, &order), wanted);
    drop(lease);
    watch.end();
    cache.clear();
    assert_eq!((world.used(), on_device(gpu)), (0, 0));
    assert_eq!(cache.usage().used_bytes, 0);
}

#[test]
fn a_firm_lease_keeps_what_it_has_and_others_wait_or_are_refused() {
    let world = World::new(|builder| builder.deadlock_after(Some(Duration::from_millis(200))));
    let World {
        model,
        other,
        gpu,
        cache,
        ..
    } = &world;
    // Its parts are there already, from a lease that gives way.
    drop(world.lease());
    let wanted = model.on(&**gpu).partial(Partial::default().firm());
    let lease = cache.lease([wanted]).unwrap();
    let resident = || lease.get(model).unwrap().residency().charged_bytes;
    let before = resident();
    assert!(before > gpu.charge(model) / 2);
    let refused = cache.try_lease([other.on(&**gpu)]).unwrap_err();
    assert!(matches!(refused, Error::NoRoom { .. }), "{refused}");
    let timeout = Duration::from_millis(50);
    let refused = cache
        .lease_timeout([other.on(&**gpu)], timeout)
        .unwrap_err();
    assert!(matches!(refused, Error::Timeout { .. }), "{refused}");
    // It waits for nobody but itself.
    let refused = cache.lease([other.on(&**gpu)]).unwrap_err();
    assert!(matches!(refused, Error::Deadlock { .. }), "{refused}");
    assert_eq!(resident(), before);
    lease.hand_over();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| drop(cache.lease([other.on(&**gpu)]).unwrap()));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waits.is_finished());
        drop(lease);
        waits.join().unwrap();
    });
    cache.clear();
    assert_eq!((world.used(), on_device(gpu)), (0, 0));
}

#[test]
fn idle_times_and_clear_leave_what_a_partial_lease_would_rather_have() {
    let world = World::new(|builder| builder.keep_alive(Duration::from_millis(400)));
    let World {
        model,
        other,
        gpu,
        cache,
        ..
    } = &world;
    let lease = world.lease();
    let before = lease.get(model).unwrap().residency();
    until("the other goes", || {
        world.kept.evictions().iter().any(|one| one.model == "o")
    });
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(
        lease.get(model).unwrap().residency().charged_bytes,
        before.charged_bytes
    );
    assert!(
        cache.usage().used_bytes >= model.bytes(),
        "the copy that streams"
    );
    let cleared = cache.clear();
    assert_eq!(cleared.evicted, [""; 0]);
    let parts = cleared
        .leased
        .iter()
        .filter(|(name, _)| name.starts_with("m ["));
    assert!(parts.count() > 2, "{cleared:?}");
    assert!(
        cleared
            .leased
            .iter()
            .any(|(name, leases)| name == "m" && *leases == 1)
    );
    assert_eq!(
        lease.get(model).unwrap().residency().charged_bytes,
        before.charged_bytes
    );
    drop(lease);
    // They were of use until now.
    let there = world.used();
    assert!(there >= before.charged_bytes, "{there}");
    until("all of it goes", || world.used() == 0);
    let idle = |one: &&plimsoll_events::Evict| matches!(one.reason, EvictReason::Idle { .. });
    assert!(world.kept.evictions().iter().filter(idle).count() > 2);
    drop(cache.lease([other.on(&**gpu)]).unwrap());
}

#[test]
fn the_copy_in_ram_gives_way_too_and_comes_back() {
    let world = World::new(|builder| builder.ram(3 * MIB));
    let World {
        model, gpu, cache, ..
    } = &world;
    let order = in_file_order(model);
    let lease = world.lease();
    let wanted = compute(&lease, model, &order);
    assert!(cache.usage().used_bytes >= model.bytes());
    let large = layers(&world._folder, "large", 24, 144);
    let second = cache.try_lease([large.on(Cpu)]).unwrap();
    assert!(
        world
            .kept
            .evictions()
            .iter()
            .any(|one| one.model == "m" && one.tier == "ram")
    );
    assert_eq!(compute(&lease, model, &order), wanted, "from the file");
    drop(second);
    lease.grow(model).unwrap();
    assert_eq!(compute(&lease, model, &order), wanted);
    let copies = world.kept.loads();
    let copies = copies.iter().filter(|load| *load == "m in ram from File");
    assert_eq!(copies.count(), 2);
    drop(lease);
    cache.clear();
    assert_eq!(on_device(gpu), 0);
}
