//! Panics of whoever holds a lease, watches a load, or hears of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_cache::device::Device;
use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::{Cpu, Error, LoadError, LoadObserver, Model};
use plimsoll_events::{Event, Kind, Sink, Stream};

use crate::support::{Folder, verify};
use crate::{KIB, ROUNDS, SOON, Way, balances, is_whole, lease, on_device, says, settle};

#[test]
fn the_holder_of_a_lease_panics() {
    for way in Way::ALL {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 100 * KIB));
        let (cache, device, _) = on_device(way, |builder| builder);
        for _ in 0..ROUNDS {
            let panicked = std::thread::scope(|scope| {
                let holder = scope.spawn(|| {
                    let lease = cache.lease([a.on(&*device), b.on(Cpu)]).unwrap();
                    verify(&lease, &a);
                    let _tensor = lease.get(&b).unwrap().tensor("t000").unwrap();
                    panic!("the holder panics");
                });
                holder.join()
            });
            assert!(panicked.is_err());
            balances(&cache);
            is_whole(&cache, Some(&device), &[&a, &b]);
            cache.clear();
        }
    }
}

/// Panics at the next call of a kind.
#[derive(Default)]
struct Panics {
    before_tensor: AtomicU64,
    bytes_read: AtomicU64,
}

fn countdown(left: &AtomicU64) {
    let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    assert_ne!(before, Ok(1), "the observer panics");
}

impl LoadObserver for Panics {
    fn before_tensor(&self, _: &Model, _: &TensorInfo) {
        countdown(&self.before_tensor);
    }

    fn bytes_read(&self, _: u64) {
        countdown(&self.bytes_read);
    }
}

#[test]
fn an_observer_panics_while_a_device_is_loaded() {
    for way in Way::ALL {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 100 * KIB));
        let observer = Arc::new(Panics::default());
        let watches = Arc::clone(&observer) as Arc<dyn LoadObserver>;
        let (cache, device, _) = on_device(way, |builder| builder.observer(watches));
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                observer.before_tensor.store(1, Ordering::SeqCst);
            } else {
                // On the thread that reads for the one that transfers, where there is one.
                observer.bytes_read.store(1, Ordering::SeqCst);
            }
            if round % 3 == 0 {
                // The load is done by another thread.
                let error = cache
                    .lease_timeout([a.on(&*device), b.on(Cpu)], SOON)
                    .unwrap_err();
                let Error::Load(load) = &error else {
                    panic!("{error}");
                };
                assert!(matches!(**load, LoadError::Abandoned { .. }), "{error}");
                assert!(
                    error.to_string().contains("abandoned by a panic"),
                    "{error}"
                );
                settle(&cache);
            } else {
                let leased = catch_unwind(AssertUnwindSafe(|| {
                    drop(cache.lease([a.on(&*device), b.on(Cpu)]));
                }));
                assert!(leased.is_err());
            }
            balances(&cache);
            is_whole(&cache, Some(&device), &[&a, &b]);
            cache.clear();
        }
    }
}

/// Panics at the next event of a kind that is of the device, when told to.
struct BadSink {
    of: fn(&Kind) -> bool,
    armed: AtomicU64,
}

impl Sink for BadSink {
    fn event(&self, event: &Event) {
        if (self.of)(&event.kind) && self.armed.swap(0, Ordering::SeqCst) > 0 {
            panic!("the sink panics");
        }
    }
}

fn is_load(kind: &Kind) -> bool {
    matches!(kind, Kind::Load(load) if load.tier == "simulated")
}

fn is_evict(kind: &Kind) -> bool {
    matches!(kind, Kind::Evict(evict) if evict.tier == "simulated")
}

#[test]
fn a_sink_panics_at_what_happens_on_a_device() {
    for way in Way::ALL {
        for of in [is_load as fn(&Kind) -> bool, is_evict] {
            let folder = Folder::new();
            let models = ["a", "b", "c"].map(|name| folder.model(name, 400 * KIB));
            let [a, b, c] = &models;
            let sink = Arc::new(BadSink {
                of,
                armed: AtomicU64::new(0),
            });
            let stream = Stream::new(Arc::clone(&sink));
            let (cache, device, _) = on_device(way, |builder| builder.stream(stream));
            for _ in 0..ROUNDS {
                for one in [a, b] {
                    lease(&cache, one.on(&*device), one).unwrap();
                }
                sink.armed.store(1, Ordering::SeqCst);
                // One of the others has to go for it.
                let leased = catch_unwind(AssertUnwindSafe(|| {
                    drop(cache.lease([c.on(&*device)]));
                }));
                assert!(leased.is_err());
                balances(&cache);
                is_whole(&cache, Some(&device), &[c]);
                cache.clear();
            }
        }
    }
}

#[test]
fn a_sink_panics_while_a_budget_has_no_room() {
    let folder = Folder::new();
    let large = folder.model("large", 2000 * KIB);
    let sink = Arc::new(BadSink {
        of: |kind| matches!(kind, Kind::Refuse(_)),
        armed: AtomicU64::new(0),
    });
    let stream = Stream::new(Arc::clone(&sink));
    let (cache, device, _) = on_device(Way::Copy, |builder| builder.stream(stream));
    for _ in 0..ROUNDS {
        sink.armed.store(1, Ordering::SeqCst);
        let refused = catch_unwind(AssertUnwindSafe(|| drop(cache.lease([large.on(&*device)]))));
        assert!(refused.is_err());
        let error = cache.lease([large.on(&*device)]).unwrap_err();
        says(&error, &["`large`", "simulated", "1.0 MiB"]);
        assert_eq!(device.memory().free, device.memory().total);
        is_whole(&cache, None, &[&large]);
        cache.clear();
    }
}
