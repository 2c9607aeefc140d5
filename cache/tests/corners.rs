//! What leases leave behind, however they end: no place in the queue, no load, no expectation.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use candle_core::{CpuStorage, InplaceOp1, Layout};
use plimsoll_cache::device::{Device, DeviceMemory, DeviceWeights, Fault, Load, Simulated};
use plimsoll_cache::{Cache, Error, Lease, LeaseFuture, LoadError, LoadObserver, Model, Tier};
use support::{Folder, MIB, cache, content, until, verify, verify_on};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const SOON: Duration = Duration::from_secs(5);

fn end(mut future: Pin<&mut LeaseFuture>) -> Result<Lease, Error> {
    let mut context = Context::from_waker(Waker::noop());
    let begun = Instant::now();
    loop {
        if let Poll::Ready(ended) = future.as_mut().poll(&mut context) {
            return ended;
        }
        assert!(begun.elapsed() < SOON, "it never ended");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_task_whose_lease_has_ended_is_in_nobodys_way() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 2 * MIB));
    let large = folder.model("large", 16 * MIB);
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    // As in `select!`, where what has ended is dropped at the end of the scope.
    let mut refused = pin!(cache.lease_async([&large]));
    assert!(matches!(
        end(refused.as_mut()),
        Err(Error::ExceedsBudget { .. })
    ));
    assert_eq!(cache.residency().waiting, 0);
    verify(&cache.lease_timeout([&a], SOON).unwrap(), &a);
    let mut granted = pin!(cache.lease_async([&b]));
    verify(&end(granted.as_mut()).unwrap(), &b);
    assert!(end(granted.as_mut()).is_err(), "polled after its end");
    assert!(end(refused.as_mut()).is_err(), "polled after its end");
    assert_eq!(cache.clear().leased, []);
}

/// A device that looks at the cache whenever it is told something, and adds up what it expects.
#[derive(Debug)]
struct Ledger {
    device: Simulated,
    cache: OnceLock<Cache>,
    expected: AtomicI64,
    least: AtomicI64,
}

impl Ledger {
    fn new(bytes: u64) -> Arc<Ledger> {
        Arc::new(Ledger {
            device: Simulated::new(bytes),
            cache: OnceLock::new(),
            expected: AtomicI64::new(0),
            least: AtomicI64::new(0),
        })
    }

    fn add(&self, bytes: i64) {
        let now = self.expected.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.least.fetch_min(now, Ordering::SeqCst);
        if let Some(cache) = self.cache.get() {
            let _ = cache.usage();
        }
    }

    fn is_even(&self) {
        let expected = self.expected.load(Ordering::SeqCst);
        let least = self.least.load(Ordering::SeqCst);
        assert_eq!(
            (expected, least),
            (0, 0),
            "expected for ever, or too often taken"
        );
    }
}

impl Device for Ledger {
    fn tier(&self) -> Tier {
        self.device.tier()
    }
    fn name(&self) -> &str {
        self.device.name()
    }
    fn memory(&self) -> DeviceMemory {
        self.device.memory()
    }
    fn charge(&self, model: &Model) -> u64 {
        self.device.charge(model)
    }
    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError> {
        self.add(-(self.charge(load.model) as i64));
        self.device.load(load)
    }
    fn expect(&self, bytes: u64) {
        self.add(bytes as i64);
    }
    fn unexpect(&self, bytes: u64) {
        self.add(-(bytes as i64));
    }
}

#[test]
fn a_device_is_never_called_under_the_lock() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 2 * MIB));
    let device = Ledger::new(64 * MIB);
    let (cache, _) = cache(|builder| builder.device(Arc::clone(&device), 3 * MIB));
    device.cache.set(cache.clone()).unwrap();
    let tier = device.tier();
    let leases = std::thread::spawn(move || {
        for model in [&a, &b, &a] {
            verify_on(&cache.lease([model.on(tier)]).unwrap(), model, tier);
        }
    });
    until("a device that asks is answered", || leases.is_finished());
    leases.join().unwrap();
    device.is_even();
}

#[test]
fn what_a_device_was_told_to_expect_comes_or_is_taken_back() {
    let folder = Folder::new();
    let models = [0, 1, 2, 3].map(|index| folder.model(&format!("m{index}"), 2 * MIB));
    let device = Ledger::new(64 * MIB);
    let tier = device.tier();
    let (cache, _) = cache(|builder| builder.device(Arc::clone(&device), 5 * MIB));
    let [a, b, c, d] = &models;
    drop(cache.lease([a.on(tier), b.on(tier)]).unwrap());
    for fault in [Fault::OutOfMemory, Fault::Transfer] {
        device.device.inject(fault);
        let _ = cache.lease([c.on(tier), d.on(tier)]);
        device.is_even();
        // With nothing to evict.
        cache.clear();
        device.device.inject(fault);
        assert!(cache.lease([c.on(tier), d.on(tier)]).is_err());
        device.is_even();
        drop(cache.lease([a.on(tier), b.on(tier)]).unwrap());
        let _ = cache.lease_timeout([c.on(tier)], Duration::ZERO);
        until("its load is over", || cache.clear().leased.is_empty());
        drop(cache.lease([a.on(tier), b.on(tier)]).unwrap());
        let held = cache.lease([a.on(tier)]).unwrap();
        {
            let mut gives_up = pin!(cache.lease_async([c.on(tier), d.on(tier)]));
            let mut context = Context::from_waker(Waker::noop());
            assert!(gives_up.as_mut().poll(&mut context).is_pending());
        }
        drop(held);
        device.is_even();
    }
}

#[test]
fn a_lease_that_ends_gives_its_working_memory_back_before_anything_is_evicted_for_it() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 4 * MIB));
    let (cache, kept) = cache(|builder| builder.ram(20 * MIB));
    drop(cache.lease([&b]).unwrap());
    let other = cache.lease([&b]).unwrap();
    let lease = cache
        .lease([a.on(Tier::RAM).working_memory(8 * MIB)])
        .unwrap();
    cache.set_budget(Tier::RAM, 10 * MIB).unwrap();
    drop(lease);
    assert_eq!(kept.evictions(), [], "what is left fits");
    drop(other);
}

/// Writes over a tensor.
struct Overwrite;

impl InplaceOp1 for Overwrite {
    fn name(&self) -> &'static str {
        "overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        if let CpuStorage::U8(values) = storage {
            values.fill(0xee);
        }
        Ok(())
    }
}

#[test]
fn a_copy_that_is_being_made_is_not_written_to() {
    let folder = Folder::new();
    let path = folder.path().join("wide.safetensors");
    let data = content("wide", 0, 64 << 20);
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![data.len()], &data);
    safetensors::serialize_to_file([("t000", view.unwrap())], None, &path).unwrap();
    for _ in 0..8 {
        let model = Model::open(&path).unwrap();
        let (cache, _) = cache(|builder| builder.ram(128 * MIB));
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        let reading = weights.bytes("t000").unwrap();
        let begun = Barrier::new(2);
        std::thread::scope(|scope| {
            let copies = scope.spawn(|| {
                begun.wait();
                weights.tensor("t000").unwrap()
            });
            begun.wait();
            // Long enough to have begun, and to be in the middle of it.
            std::thread::sleep(Duration::from_millis(2));
            drop(reading);
            let other = weights.tensor("t000").unwrap();
            other.inplace_op1(&Overwrite).unwrap();
            let copy = copies.join().unwrap();
            let (storage, _) = copy.storage_and_layout();
            let candle_core::Storage::Cpu(CpuStorage::U8(values)) = &*storage else {
                panic!("it is of bytes");
            };
            // One tensor with the other, if it came late.
            let written = values.iter().all(|value| *value == 0xee);
            assert!(*values == data || written, "a mixture of old and new");
        });
    }
}

#[test]
fn who_waits_gets_another_model_drained_where_the_first_is_still_held() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 4 * MIB));
    let (cache, _) = cache(|builder| builder.ram(9 * MIB));
    let of_a = cache.lease([&a]).unwrap();
    let tensor = of_a.get(&a).unwrap().tensor("t002").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for offset in [0, 3] {
            let (cache, b, stop) = (&cache, &b, &stop);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(offset));
                while !stop.load(Ordering::SeqCst) {
                    let lease = cache.lease([b]);
                    std::thread::sleep(Duration::from_millis(6));
                    drop(lease);
                }
            });
        }
        let waits = scope.spawn(|| cache.lease_timeout([&c], SOON).map(drop));
        until("it waits", || cache.residency().waiting > 0);
        std::thread::sleep(Duration::from_millis(50));
        // It is drained, evicted, and still counts.
        drop(of_a);
        let served = waits.join().unwrap();
        stop.store(true, Ordering::SeqCst);
        served.unwrap();
    });
    drop(tensor);
}

#[test]
fn room_that_tensors_have_given_back_is_not_made_again() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 4 * MIB));
    let (cache, kept) = cache(|builder| builder.ram(9 * MIB));
    let of_a = cache.lease([&a]).unwrap();
    let tensor = of_a.get(&a).unwrap().tensor("t002").unwrap();
    drop(of_a);
    assert!(cache.evict(&a));
    drop(cache.lease([&b]).unwrap());
    drop(tensor);
    let made = cache.make_room(Tier::RAM, 4 * MIB).unwrap();
    assert_eq!(made.freed_bytes, 0);
    assert_eq!(kept.evictions().len(), 1);
}

/// Keeps reads of one model until it is unlocked.
#[derive(Default)]
struct Held(Mutex<()>);

impl LoadObserver for Held {
    fn before_read(&self, path: &Path, _: u64, _: u64) -> std::io::Result<()> {
        if path.ends_with("a.safetensors") {
            drop(self.0.lock());
        }
        Ok(())
    }
}

#[test]
fn what_nobody_waits_for_any_more_is_not_even_begun() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 2 * MIB));
    for on_device in [false, true] {
        let held = Arc::new(Held::default());
        let device = Simulated::new(64 * MIB);
        let on = if on_device { device.tier() } else { Tier::RAM };
        let (cache, kept) = cache(|builder| {
            let builder = builder.ram(32 * MIB).device(device, 32 * MIB);
            builder.observer(Arc::clone(&held) as Arc<dyn LoadObserver>)
        });
        let reading = held.0.lock().unwrap();
        let soon = Duration::from_millis(100);
        let gave_up = cache.lease_timeout([a.on(on), b.on(on)], soon);
        assert!(matches!(gave_up, Err(Error::Timeout { .. })));
        drop(reading);
        until("nothing moves", || cache.clear().leased.is_empty());
        until("nothing counts", || cache.usage().used_bytes == 0);
        assert_eq!(kept.loads(), ["a in ram from File"]);
    }
}

#[test]
fn room_is_made_beyond_what_tensors_still_hold() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, MIB));
    let (cache, _) = cache(|builder| builder.ram(3 * MIB));
    let lease = cache.lease([&a]).unwrap();
    let weights = lease.get(&a).unwrap();
    let tensor = weights.tensor(&weights.tensors()[0].name).unwrap();
    drop(lease);
    drop(cache.lease([&b]).unwrap());
    // The least recently leased goes first, in vain.
    let made = cache.make_room(plimsoll_cache::Cpu, 3 * MIB / 2).unwrap();
    assert!(made.free_bytes >= 3 * MIB / 2, "{made:?}");
    assert_eq!(cache.usage().resident_models, 0);
    drop(tensor);
}
