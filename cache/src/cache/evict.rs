//! Dropping a model, outside the lock, between two snapshots.

use std::sync::Arc;
use std::time::Instant;

use malloc_stats::size::Size;
use malloc_stats::{Diff, Metric};
use plimsoll_events::{Candidate, Evict, EvictReason, Kind};
use plimsoll_profiles::window::Orphan;

use super::Cleared;
use super::entry::Entry;
use super::ledger::Ledger;
use super::shared::Shared;
use crate::residency::{Input, Phase};
use crate::storage::Unloaded;

impl Shared {
    /// Evicts those of the entries that are resident and not leased.
    pub(super) fn evict_unleased(&self, entries: &[Arc<Entry>], reason: &EvictReason) -> Cleared {
        let mut cleared = Cleared::default();
        for entry in entries {
            let leaving = {
                let mut ledger = self.ledger();
                while ledger.phase(entry) == Phase::Evicting {
                    // By another thread. When this returns its memory is to be gone.
                    ledger = self.sleep(ledger, None);
                }
                match ledger.phase(entry) {
                    Phase::Resident if entry.pins.close() => {
                        Leaving::begin(self, &mut ledger, Arc::clone(entry))
                    }
                    Phase::Resident => {
                        cleared
                            .leased
                            .push((entry.name().to_owned(), entry.pins.count()));
                        continue;
                    }
                    Phase::Loading { claims } => {
                        cleared
                            .leased
                            .push((entry.name().to_owned(), u64::from(claims)));
                        continue;
                    }
                    Phase::Absent | Phase::Evicting => continue,
                }
            };
            self.evict(leaving, reason, &[], 0);
            cleared.evicted.push(entry.name().to_owned());
        }
        cleared
    }

    /// Drops a model that is on its way out, and tells of it before anyone can load it again.
    pub(super) fn evict(
        &self,
        mut leaving: Leaving<'_>,
        reason: &EvictReason,
        considered: &[Candidate],
        considered_besides: u64,
    ) {
        let activity = self.begin();
        let depth = self.brackets.depth(leaving.entry.charge);
        let before = self.brackets.take(depth);
        let started = Instant::now();
        let unloaded = leaving.unload();
        if let Err(error) = self.reclaim.run() {
            tracing::warn!(%error, action = %self.reclaim, "reclaim failed");
        }
        let took = started.elapsed();
        let after = self.brackets.take(depth);
        let fell = before
            .process
            .rss
            .bytes()
            .zip(after.process.rss.bytes())
            .map(|(before, after)| before.saturating_sub(after));
        let returned = match (unloaded.returned_bytes, &leaving.held, fell) {
            (Some(bytes), ..) => Metric::Exact(bytes),
            (None, Some(_), _) => Metric::Exact(0),
            (None, None, None) => Metric::Unavailable,
            (None, None, Some(fell)) if activity.was_alone() => Metric::Exact(fell),
            (None, None, Some(fell)) => Metric::Estimated(fell),
        };
        drop(activity);
        let entry = &leaving.entry;
        let held_bytes = leaving.held.as_ref().map_or(0, |held| held.bytes() as u64);
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!(
                model = %entry.name().escape_debug(),
                freed = %Size(entry.charge),
                %returned,
                held = %Size(held_bytes),
                ?took,
                ?reason,
                "evict\n{}",
                Diff::between(&before, &after)
            );
        }
        self.tell_hits();
        self.stream.emit(Kind::Evict(Box::new(Evict {
            model: entry.name().to_owned(),
            tier: "ram".to_owned(),
            reason: reason.clone(),
            bytes: entry.model.bytes(),
            freed_bytes: entry.charge,
            recycled_bytes: unloaded.recycled_bytes,
            held_bytes,
            returned,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            snapshots_us: before.cost_us + after.cost_us,
            considered: considered.to_vec(),
            considered_besides,
            before,
            after,
        })));
    }
}

/// A model on its way out: its door is shut and its phase says so. However its eviction ends, even
/// by a panic of a sink, its memory goes and it is absent afterwards.
pub(super) struct Leaving<'a> {
    shared: &'a Shared,
    entry: Arc<Entry>,
    /// What tensors still hold of it.
    held: Option<Orphan>,
}

impl<'a> Leaving<'a> {
    /// Begins the eviction of a resident model whose door was shut under this same lock.
    pub(super) fn begin(shared: &'a Shared, ledger: &mut Ledger, entry: Arc<Entry>) -> Leaving<'a> {
        let stepped = ledger.step(&entry, Input::Evict);
        debug_assert!(stepped.is_ok());
        Leaving {
            shared,
            entry,
            held: None,
        }
    }

    /// Drops the weights, if they are still there.
    fn unload(&mut self) -> Unloaded {
        let mut unloaded = match self.entry.take_weights().map(Arc::try_unwrap) {
            Some(Ok(weights)) => weights.unload(),
            // Leases let go of the weights before they leave, so this is the last one.
            Some(Err(_)) | None => return Unloaded::default(),
        };
        self.held = unloaded.held.take();
        unloaded
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.unload();
        let mut ledger = self.shared.ledger();
        let stepped = ledger.step(&self.entry, Input::Evicted);
        debug_assert!(stepped.is_ok());
        if let Some(held) = self.held.take() {
            ledger.hold(held);
        }
        drop(ledger);
        self.shared.notify();
    }
}
