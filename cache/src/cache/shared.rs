//! What all handles of a cache and all its leases share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use plimsoll_events::{Kind, Stream, Tally};
use plimsoll_profiles::Reclaim;

use super::Usage;
use super::admit::Wait;
use super::builder::Builder;
use super::entry::{Entry, Identity};
use super::ledger::Ledger;
use crate::bracket::Brackets;
use crate::error::Error;
use crate::lease::{Held, Lease};
use crate::model::Model;
use crate::observe::LoadObserver;
use crate::policy::Policy;
use crate::residency::Phase;
use crate::storage::{Copies, Recycler, Storage};

/// Held memory is let go by whoever drops a tensor, inside the allocator, where nobody can be
/// notified. Who waits while some is held looks again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub(crate) struct Shared {
    /// Tells caches apart, for the place in a model that remembers its entry.
    id: u64,
    pub(super) budget: u64,
    pub(super) storage: Storage,
    pub(super) reclaim: Reclaim,
    pub(super) policy: Box<dyn Policy>,
    pub(super) observer: Arc<dyn LoadObserver>,
    pub(super) stream: Stream,
    pub(super) brackets: Brackets,
    pub(super) recycler: Arc<Recycler>,
    pub(super) copies: Arc<Copies>,
    /// Loads and unloads under way, and how many there ever were: what tells whether resident
    /// memory changed by one's own doing alone.
    busy: AtomicUsize,
    begun: AtomicU64,
    started: Instant,
    ledger: Mutex<Ledger>,
    changed: Condvar,
    waiters: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("storage", &self.storage)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(builder: Builder, brackets: Brackets) -> Shared {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            recycler: Arc::new(Recycler::new(builder.budget)),
            budget: builder.budget,
            storage: builder.storage,
            reclaim: builder.reclaim,
            policy: builder.policy,
            observer: builder.observer,
            stream: builder.stream,
            brackets,
            copies: Arc::default(),
            busy: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            started: Instant::now(),
            ledger: Mutex::default(),
            changed: Condvar::new(),
            waiters: AtomicUsize::new(0),
        }
    }

    /// Nanoseconds by the cache's clock.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a model: remembered in the model, else looked up by what its files are.
    pub(crate) fn entry(&self, model: &Model) -> Arc<Entry> {
        let remembered = model.remembered_by(self.id);
        if let Some(Ok(entry)) = remembered.map(|entry| entry.downcast::<Entry>()) {
            return entry;
        }
        let charge = self.storage.charge(model);
        let entry = self.ledger().register(Identity::of(model), |index| {
            Entry::new(index, model.clone(), charge)
        });
        let weak: Weak<Entry> = Arc::downgrade(&entry);
        model.remember(self.id, weak);
        entry
    }

    /// The way of every lease: pins what is resident without a lock; else is admitted.
    pub(crate) fn lease<'a>(
        self: &Arc<Self>,
        models: impl IntoIterator<Item = &'a Model>,
        wait: Wait,
    ) -> Result<Lease, Error> {
        let models = models.into_iter();
        let mut entries: Vec<Arc<Entry>> = Vec::with_capacity(models.size_hint().0.max(1));
        for model in models {
            let entry = self.entry(model);
            if !entries.iter().any(|other| other.index == entry.index) {
                entries.push(entry);
            }
        }
        let mut inside = 0;
        while inside < entries.len() && entries[inside].pins.enter() {
            inside += 1;
        }
        if inside == entries.len() {
            let now = self.now_ns();
            for entry in &entries {
                entry.leased(now, true);
            }
            return Ok(self.hand_out(entries));
        }
        for entry in &entries[..inside] {
            self.leave(entry);
        }
        self.admit(entries, wait)
    }

    pub(super) fn hand_out(self: &Arc<Self>, entries: Vec<Arc<Entry>>) -> Lease {
        Lease::new(
            Arc::clone(self),
            entries.into_iter().map(Held::new).collect(),
        )
    }

    /// Takes a pin back, and wakes those who wait for room.
    pub(crate) fn leave(&self, entry: &Entry) {
        if entry.pins.leave() && self.waiters.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// Wakes whoever waits. The lock is taken so that none is between its look and its sleep.
    pub(super) fn wake(&self) {
        drop(self.ledger());
        self.changed.notify_all();
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Announces a waiter, for as long as the result lives. To be called before the last look at
    /// whatever is waited for.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        Waiting(&self.waiters)
    }

    /// Sleeps until something changed, or until a deadline.
    pub(super) fn sleep<'a>(
        &self,
        ledger: MutexGuard<'a, Ledger>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, Ledger> {
        let look_again = ledger.any_held().then_some(LOOK_AGAIN);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = match (look_again, left) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match limit {
            Some(limit) => {
                self.changed
                    .wait_timeout(ledger, limit)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self
                .changed
                .wait(ledger)
                .unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Marks a load or unload under way.
    pub(super) fn begin(&self) -> Activity<'_> {
        let alone = self.busy.fetch_add(1, Ordering::SeqCst) == 0;
        Activity {
            shared: self,
            alone,
            begun: self.begun.fetch_add(1, Ordering::SeqCst) + 1,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let mut ledger = self.ledger();
        ledger.reap();
        Usage {
            budget_bytes: self.budget,
            used_bytes: ledger.used(),
            held_bytes: ledger.held_bytes(),
            pinned_bytes: ledger.pinned_bytes(),
            recyclable_bytes: self.recycler.warm_bytes() as u64,
            resident_models: ledger
                .entries
                .iter()
                .filter(|entry| ledger.phase(entry) == Phase::Resident)
                .count(),
        }
    }

    pub(super) fn tell_hits(&self) {
        let mut tally = Tally {
            hits: BTreeMap::new(),
            copied_tensors: self.copies.tensors.swap(0, Ordering::Relaxed),
            copied_bytes: self.copies.bytes.swap(0, Ordering::Relaxed),
            gave_back_bytes: self.recycler.take_given(),
        };
        for entry in &self.ledger().entries {
            let hits = entry.untold_hits.swap(0, Ordering::Relaxed);
            if hits > 0 {
                *tally.hits.entry(entry.name().to_owned()).or_default() += hits;
            }
        }
        if !tally.is_empty() {
            self.stream.emit(Kind::Tally(tally));
        }
    }
}

/// A waiter, announced.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A load or unload under way.
pub(super) struct Activity<'a> {
    shared: &'a Shared,
    alone: bool,
    begun: u64,
}

impl Activity<'_> {
    /// Whether nothing else was loading or unloading since this began.
    pub(super) fn was_alone(&self) -> bool {
        self.alone && self.shared.begun.load(Ordering::SeqCst) == self.begun
    }
}

impl Drop for Activity<'_> {
    fn drop(&mut self) {
        self.shared.busy.fetch_sub(1, Ordering::SeqCst);
    }
}
