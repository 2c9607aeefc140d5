//! Dropping a model, outside the lock, between two snapshots.

use std::sync::Arc;
use std::time::Instant;

use malloc_stats::size::Size;
use malloc_stats::{Diff, Metric};
use plimsoll_events::{Candidate, Evict, EvictReason, Kind};

use super::Cleared;
use super::entry::Entry;
use super::shared::Shared;
use crate::residency::{Input, Phase};
use crate::storage::Unloaded;

impl Shared {
    /// Evicts those of the entries that are resident and not leased.
    pub(super) fn evict_unleased(&self, entries: &[Arc<Entry>], reason: &EvictReason) -> Cleared {
        let mut cleared = Cleared::default();
        for entry in entries {
            {
                let mut ledger = self.ledger();
                match ledger.phase(entry) {
                    Phase::Resident if entry.pins.close() => {
                        let stepped = ledger.step(entry, Input::Evict);
                        debug_assert!(stepped.is_ok());
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
            }
            self.evict(entry, reason, &[]);
            cleared.evicted.push(entry.name().to_owned());
        }
        cleared
    }

    /// Drops a model that is on its way out: its door is shut and its phase says so.
    pub(super) fn evict(&self, entry: &Arc<Entry>, reason: &EvictReason, considered: &[Candidate]) {
        let activity = self.begin();
        let depth = self.brackets.depth(entry.charge);
        let before = self.brackets.take(depth);
        let started = Instant::now();
        let unloaded = match entry.take_weights().map(Arc::try_unwrap) {
            Some(Ok(weights)) => weights.unload(),
            // Leases let go of the weights before they leave, so this is the last one.
            Some(Err(_)) | None => Unloaded::default(),
        };
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
        let returned = match (unloaded.returned_bytes, &unloaded.held, fell) {
            (Some(bytes), ..) => Metric::Exact(bytes),
            (None, Some(_), _) => Metric::Exact(0),
            (None, None, None) => Metric::Unavailable,
            (None, None, Some(fell)) if activity.was_alone() => Metric::Exact(fell),
            (None, None, Some(fell)) => Metric::Estimated(fell),
        };
        drop(activity);
        let held_bytes = unloaded.held.as_ref().map_or(0, |held| held.bytes() as u64);
        {
            let mut ledger = self.ledger();
            let stepped = ledger.step(entry, Input::Evicted);
            debug_assert!(stepped.is_ok());
            if let Some(held) = unloaded.held {
                ledger.hold(held);
            }
        }
        self.notify();
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
            freed_bytes: entry.charge,
            recycled_bytes: unloaded.recycled_bytes,
            held_bytes,
            returned,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            snapshots_us: before.cost_us + after.cost_us,
            considered: considered.to_vec(),
            before,
            after,
        })));
    }
}
