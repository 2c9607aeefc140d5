//! What is known of a model: what leases reach without the lock.

use std::fmt;
use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::pins::Pins;

/// A model, as far as the books care.
pub(crate) trait Named {
    fn name(&self) -> &str;

    /// What it is called where parts of a model are not told apart.
    fn told_name(&self) -> &str {
        self.name()
    }

    /// Whether it is made of another model, so that no copy of it is kept in RAM for devices.
    fn is_made(&self) -> bool {
        false
    }

    /// The model that it is a part of, whose copy in RAM has its bytes too.
    fn whole(&self) -> Option<&Arc<Entry<Self>>>
    where
        Self: Sized,
    {
        None
    }

    /// Memory in RAM that a load of it takes besides, while it lasts: bytes.
    fn scratch(&self) -> u64 {
        0
    }

    /// Where it stands among parts of a whole, from 0 to 1: of those that leases can do without,
    /// the last goes first.
    fn position(&self) -> f64 {
        0.0
    }
}

/// A model that is known, in every tier.
pub(crate) struct Entry<M> {
    /// Its position in the books.
    pub(super) key: usize,
    pub(crate) model: M,
    pub(crate) slots: Box<[Slot]>,
    /// It was dropped: whoever leases the model next gets another entry.
    retired: AtomicBool,
}

/// A model in a tier.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) pins: Pins,
    /// What it counts against the budget while it is there.
    pub(crate) charge: u64,
    pub(crate) last_leased_ns: AtomicU64,
    pub(crate) leases: AtomicU64,
    /// Leases that found it there and that no event has told yet.
    pub(crate) untold_hits: AtomicU64,
    /// What loading it from its files took the last time, nanoseconds.
    pub(crate) from_file_ns: AtomicU64,
    /// What loading it from the copy in RAM took the last time, nanoseconds.
    pub(crate) from_ram_ns: AtomicU64,
    /// What coming back would have to read from the disk, bytes, by the last look at mapped files.
    pub(crate) reload: Reload,
    /// Leases that would rather have it there and go on without it.
    yielding: AtomicU64,
}

/// Bytes that somebody may have counted.
#[derive(Debug)]
pub(crate) struct Reload(AtomicU64);

/// Stands for what nobody has counted.
const UNKNOWN: u64 = u64::MAX;

impl Default for Reload {
    fn default() -> Reload {
        Reload(AtomicU64::new(UNKNOWN))
    }
}

impl Reload {
    pub(crate) fn set(&self, bytes: Option<u64>) {
        // A single number, in no order with anything else.
        self.0.store(bytes.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> Option<u64> {
        let bytes = self.0.load(Ordering::Relaxed);
        (bytes != UNKNOWN).then_some(bytes)
    }
}

impl<M> Entry<M> {
    pub(super) fn new(key: usize, model: M, charges: impl IntoIterator<Item = u64>) -> Entry<M> {
        Entry {
            key,
            model,
            slots: charges
                .into_iter()
                .map(|charge| Slot {
                    charge,
                    ..Slot::default()
                })
                .collect(),
            retired: AtomicBool::new(false),
        }
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

impl<M: Named> fmt::Debug for Entry<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.model.name()).finish()
    }
}

impl Slot {
    /// A lease would rather have it there.
    pub(crate) fn prefer(&self) {
        // A single count, in no order with anything else: it guards nothing.
        self.yielding.fetch_add(1, Ordering::Relaxed);
    }

    /// A lease no longer cares.
    pub(crate) fn forgo(&self) {
        self.yielding.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many leases would rather have it there.
    pub(crate) fn preferred(&self) -> u64 {
        self.yielding.load(Ordering::Relaxed)
    }

    /// Notes that it was of use until this time.
    pub(crate) fn used(&self, now_ns: u64) {
        self.last_leased_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Notes that a lease was given at this time.
    pub(crate) fn leased(&self, now_ns: u64, hit: bool) {
        self.used(now_ns);
        self.leases.fetch_add(1, Ordering::Relaxed);
        if hit {
            self.untold_hits.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A model in one tier.
pub(crate) struct Seat<M> {
    pub(crate) entry: Arc<Entry<M>>,
    pub(crate) tier: usize,
}

impl<M> Seat<M> {
    pub(crate) fn new(entry: &Arc<Entry<M>>, tier: usize) -> Seat<M> {
        Seat {
            entry: Arc::clone(entry),
            tier,
        }
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.entry.slots[self.tier]
    }

    pub(crate) fn charge(&self) -> u64 {
        self.slot().charge
    }

    /// Whether no lease would miss it. One that was dropped goes all the same.
    pub(super) fn is_idle(&self) -> bool {
        self.slot().preferred() == 0 || self.entry.is_retired()
    }
}

impl<M> Clone for Seat<M> {
    fn clone(&self) -> Self {
        Seat::new(&self.entry, self.tier)
    }
}

impl<M> PartialEq for Seat<M> {
    fn eq(&self, other: &Self) -> bool {
        self.tier == other.tier && Arc::ptr_eq(&self.entry, &other.entry)
    }
}

impl<M: Named> fmt::Debug for Seat<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in tier {}", self.entry.model.name(), self.tier)
    }
}
