//! What a cache does by itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::{Budget, Cache, Cpu, LoadObserver, Model, Storage};
use plimsoll_events::{BudgetChange, Event, EvictReason, Kind, Sink, Stream};
use plimsoll_profiles::Reclaim;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use support::{Folder, Kept, MIB, cache, until, verify_on};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

#[test]
fn what_nobody_leases_for_long_goes_and_what_is_leased_stays() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 2 * MIB));
    let device = Simulated::new(12 * MIB);
    let tier = device.tier();
    let (cache, kept) = cache(|builder| {
        let builder = builder.ram(12 * MIB).device(device, 12 * MIB);
        let builder = builder.keep_ram_copy(false);
        builder.keep_alive(Duration::from_millis(60))
    });
    let held = cache.lease([a.on(Cpu), b.on(tier)]).unwrap();
    drop(cache.lease([c.on(Cpu), c.on(tier)]).unwrap());
    until("c goes from both", || kept.evictions().len() == 2);
    // As long again, and nothing that is leased goes.
    std::thread::sleep(Duration::from_millis(200));
    let evicted = kept.evictions();
    let idle = EvictReason::Idle { keep_alive_ms: 60 };
    assert!(
        evicted
            .iter()
            .all(|evict| evict.model == "c" && evict.reason == idle)
    );
    assert_eq!(evicted.len(), 2);
    verify_on(&held, &b, tier);
    drop(held);
    until("the others go", || kept.evictions().len() == 4);
    assert_eq!(
        cache.usage().used_bytes + cache.usage_of(tier).unwrap().used_bytes,
        0
    );
}

/// Leaves a living block between every two tensors, as programs do.
#[derive(Default)]
struct Interleaves(Mutex<Vec<Vec<u8>>>);

impl LoadObserver for Interleaves {
    fn after_tensor(&self, _: &Model, _: &TensorInfo) {
        self.0.lock().unwrap().push(vec![1; 256]);
    }
}

/// Who reclaims.
#[derive(Default)]
struct Reclaims(Mutex<Vec<(plimsoll_events::Reclaim, ThreadId)>>);

impl Sink for Reclaims {
    fn event(&self, event: &Event) {
        if let Kind::Reclaim(reclaim) = &event.kind {
            let told = ((**reclaim).clone(), std::thread::current().id());
            self.0.lock().unwrap().push(told);
        }
    }
}

#[test]
fn memory_that_does_not_come_back_is_asked_back_on_another_thread() {
    let folder = Folder::new();
    let path = folder.path().join("many.safetensors");
    let data = vec![7_u8; 8 << 10];
    let views = (0..3000).map(|n| {
        let view = TensorView::new(Dtype::U8, vec![data.len()], &data).unwrap();
        (format!("t{n:04}"), view)
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let many = Model::open(path).unwrap();
    let reclaims = Arc::new(Reclaims::default());
    let interleaves = Arc::new(Interleaves::default());
    let cache = Cache::builder()
        .ram(64 * MIB)
        .storage(Storage::Heap)
        .reclaim(Reclaim::Trim)
        .observer(Arc::clone(&interleaves) as Arc<dyn LoadObserver>)
        .stream(Stream::new(Arc::clone(&reclaims)))
        .build()
        .unwrap();
    drop(cache.lease([&many]).unwrap());
    assert!(cache.evict(&many));
    until("it is asked back", || {
        !reclaims.0.lock().unwrap().is_empty()
    });
    let reclaims = reclaims.0.lock().unwrap();
    let (reclaim, thread) = &reclaims[0];
    assert_ne!(*thread, std::thread::current().id());
    assert_eq!(reclaim.action, "trim");
    assert!(reclaim.missing_bytes > MIB && reclaim.missing_bytes <= many.bytes());
    assert!(reclaim.settled.is_none(), "that is seen a minute later");
    assert_eq!(interleaves.0.lock().unwrap().len(), 3000);
}

fn budgets(kept: &Kept) -> Vec<BudgetChange> {
    let kinds = kept.kinds().into_iter();
    kinds
        .filter_map(|kind| match kind {
            Kind::Budget(change) => Some(*change),
            _ => None,
        })
        .collect()
}

#[test]
fn a_budget_follows_what_a_device_has_and_leased_models_stay() {
    const RESERVE: u64 = 32 * MIB;
    const TOTAL: u64 = 256 * MIB;
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 20 * MIB), folder.model("b", 20 * MIB));
    let device = Arc::new(Simulated::new(TOTAL));
    let tier = device.tier();
    let there = Arc::clone(&device);
    let (cache, kept) = cache(|builder| {
        builder
            .device(there, Budget::auto().reserve(RESERVE))
            .keep_ram_copy(false)
    });
    let usage = || cache.usage_of(tier).unwrap();
    assert_eq!(usage().budget_bytes, TOTAL - RESERVE);
    let held = cache.lease([a.on(tier)]).unwrap();
    drop(cache.lease([b.on(tier)]).unwrap());
    let charge = device.charge(&a);
    // Others take memory: what is not leased goes.
    let some = device.occupy(TOTAL - 2 * charge - 16 * MIB).unwrap();
    until("b goes", || kept.evictions().len() == 1);
    let evicted = kept.evictions();
    assert_eq!((evicted.len(), &evicted[0].model[..]), (1, "b"));
    let EvictReason::Pressure {
        budget_bytes,
        used_bytes,
    } = evicted[0].reason
    else {
        panic!("{:?}", evicted[0].reason);
    };
    assert!(budget_bytes < used_bytes);
    // More than could ever be freed: what is leased stays, and the budget is overdrawn.
    let more = device.occupy(30 * MIB).unwrap();
    until("the budget is overdrawn", || {
        usage().budget_bytes < usage().used_bytes
    });
    verify_on(&held, &a, tier);
    assert!(cache.try_lease([b.on(tier)]).is_err());
    // That is repaired as the lease ends.
    drop(held);
    until("a goes", || kept.evictions().len() == 2);
    assert!(matches!(
        kept.evictions()[1].reason,
        EvictReason::Pressure { .. }
    ));
    // What is given back is taken up again, after a while.
    drop((some, more));
    until("the budget is raised", || {
        usage().budget_bytes == TOTAL - RESERVE
    });
    verify_on(&cache.lease([a.on(tier), b.on(tier)]).unwrap(), &b, tier);
    let changes = budgets(&kept);
    assert_eq!(changes[0].cause, "start");
    assert_eq!(changes[0].was_bytes, None);
    for (before, after) in changes.iter().zip(&changes[1..]) {
        assert_eq!(after.was_bytes, Some(before.budget_bytes));
        assert_eq!(
            (&after.tier[..], after.reserve_bytes),
            ("simulated", RESERVE)
        );
    }
    let raised = changes.last().unwrap();
    assert!(raised.was_bytes < Some(raised.budget_bytes));
}

/// Reads of files go on when this is unlocked.
#[derive(Default)]
struct Held(Mutex<()>);

impl LoadObserver for Held {
    fn before_read(&self, _: &Path, _: u64, _: u64) -> std::io::Result<()> {
        drop(self.0.lock());
        Ok(())
    }
}

#[test]
fn bytes_on_their_way_to_a_device_are_not_taken_for_memory_it_has() {
    const TOTAL: u64 = 128 * MIB;
    let folder = Folder::new();
    let a = folder.model("a", 80 * MIB);
    let device = Simulated::new(TOTAL);
    let tier = device.tier();
    let held = Arc::new(Held::default());
    let (cache, kept) = cache(|builder| {
        let builder = builder.device(device, Budget::auto().reserve(0));
        builder.observer(Arc::clone(&held) as Arc<dyn LoadObserver>)
    });
    let reading = held.0.lock().unwrap();
    std::thread::scope(|scope| {
        let lease = scope.spawn(|| cache.lease([a.on(tier)]).unwrap());
        until("its bytes are reserved", || {
            cache.usage_of(tier).unwrap().used_bytes > 0
        });
        // Longer than a budget takes to be raised.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let usage = cache.usage_of(tier).unwrap();
            if usage.budget_bytes > TOTAL {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(reading);
        verify_on(&lease.join().unwrap(), &a, tier);
    });
    for change in budgets(&kept) {
        assert!(change.budget_bytes <= TOTAL, "{change:?}");
    }
}
