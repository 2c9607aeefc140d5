//! One model in the cache: what leases reach without the cache's lock.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::{FileIdentity, Model};
use crate::storage::Weights;

/// A count of leases with a door: no lease can enter once it is closed, and it can be closed only
/// while none is inside. This is the whole of the protocol between leases and eviction.
#[derive(Debug, Default)]
pub(crate) struct Pins(AtomicU64);

const OPEN: u64 = 1 << 63;

impl Pins {
    /// Enters, if the door is open.
    pub(crate) fn enter(&self) -> bool {
        let mut pins = self.0.load(Ordering::Relaxed);
        while pins & OPEN != 0 {
            // Acquire: what the loader wrote before opening is seen.
            match self
                .0
                .compare_exchange_weak(pins, pins + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => pins = seen,
            }
        }
        false
    }

    /// Leaves. Returns whether nobody is left.
    pub(crate) fn leave(&self) -> bool {
        // SeqCst: pairs with a waiter, which announces itself and then looks at the count, while
        // this changes the count and then looks for waiters. One of the two sees the other.
        let before = self.0.fetch_sub(1, Ordering::SeqCst);
        debug_assert_ne!(before & !OPEN, 0, "left more often than entered");
        before & !OPEN == 1
    }

    /// Opens the door with so many already inside.
    pub(crate) fn open(&self, inside: u32) {
        self.0.store(OPEN | u64::from(inside), Ordering::Release);
    }

    /// Closes the door, if nobody is inside.
    pub(crate) fn close(&self) -> bool {
        self.0
            .compare_exchange(OPEN, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether the door is open, at this moment.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OPEN != 0
    }

    /// How many are inside.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst) & !OPEN
    }
}

/// What makes two handles the same model: the same files, unchanged, and the same tensors of them.
/// (Two indexes over the same shards may name different ones.)
#[derive(Debug, Clone)]
pub(crate) struct Identity(Model);

impl Identity {
    pub(crate) fn of(model: &Model) -> Identity {
        Identity(model.clone())
    }

    fn files(&self) -> impl Iterator<Item = &FileIdentity> {
        self.0.files().iter().map(|file| &file.identity)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.files().eq(other.files()) && self.0.tensors() == other.0.tensors()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.files().for_each(|file| file.hash(state));
        self.0.tensors().len().hash(state);
    }
}

/// A model that the cache knows.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Position in the ledger.
    pub(crate) index: usize,
    pub(crate) model: Model,
    /// What it counts against the budget while it is there.
    pub(crate) charge: u64,
    pub(crate) pins: Pins,
    /// Written only while the door is closed and nobody is inside.
    weights: RwLock<Option<Arc<Weights>>>,
    pub(crate) last_leased_ns: AtomicU64,
    pub(crate) leases: AtomicU64,
    /// Leases of the resident model that no event has told yet.
    pub(crate) untold_hits: AtomicU64,
    pub(crate) reload_ns: AtomicU64,
}

impl Entry {
    pub(crate) fn new(index: usize, model: Model, charge: u64) -> Entry {
        Entry {
            index,
            model,
            charge,
            pins: Pins::default(),
            weights: RwLock::new(None),
            last_leased_ns: AtomicU64::new(0),
            leases: AtomicU64::new(0),
            untold_hits: AtomicU64::new(0),
            reload_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.model.name()
    }

    /// Notes that a lease was given at this time.
    pub(crate) fn leased(&self, now_ns: u64, hit: bool) {
        self.last_leased_ns.store(now_ns, Ordering::Relaxed);
        self.leases.fetch_add(1, Ordering::Relaxed);
        if hit {
            self.untold_hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The weights, for whoever is inside.
    pub(crate) fn weights(&self) -> Option<Arc<Weights>> {
        self.weights
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_weights(&self, weights: Weights) {
        *self.weights.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(weights));
    }

    pub(crate) fn take_weights(&self) -> Option<Arc<Weights>> {
        self.weights
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_inside_when_the_door_closes() {
        let pins = Pins::default();
        assert!(!pins.enter(), "closed at first");
        pins.open(1);
        assert!(pins.enter());
        assert!(!pins.close(), "two are inside");
        assert!(!pins.leave());
        assert!(pins.leave());
        assert!(pins.close());
        assert!(!pins.enter());
    }

    #[test]
    fn a_lease_and_an_eviction_never_both_succeed() {
        let pins = Pins::default();
        let inside = AtomicU64::new(0);
        let rounds = 20_000;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        if pins.enter() {
                            inside.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            pins.leave();
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..rounds {
                    pins.open(0);
                    while !pins.close() {
                        std::hint::spin_loop();
                    }
                    assert_eq!(inside.load(Ordering::SeqCst), 0);
                }
            });
        });
    }
}
