//! Reading a model, outside the lock, between two snapshots.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use malloc_stats::size::Size;
use malloc_stats::{Depth, Diff, Metric};
use plimsoll_events::{Kind, Load};

use super::entry::Entry;
use super::loading::{Loading, Outcome};
use super::shared::Shared;
use crate::error::{Error, LoadError};
use crate::residency::{Input, Phase};
use crate::storage::{Storage, Weights};

impl Shared {
    /// Loads a model whose bytes are reserved. On success its door is open, with all who claimed it
    /// inside; on failure its bytes are given back and all of them get the error.
    pub(super) fn load(&self, entry: &Arc<Entry>, loading: &Arc<Loading>) -> Result<(), Error> {
        let ended = Ended {
            shared: self,
            entry,
            loading,
        };
        let activity = self.begin();
        let depth = self.brackets.depth(entry.charge);
        let before = self.brackets.take(depth);
        let started = Instant::now();
        let result = Weights::load(
            self.storage,
            &entry.model,
            &self.recycler,
            &self.copies,
            self.observer.as_ref(),
        );
        let took = started.elapsed();
        let after = self.brackets.take(depth);
        drop(activity);
        let recycled_bytes = result.as_ref().map_or(0, Weights::recycled_bytes);
        let gave_back = self.recycler.take_given();
        let outcome = match result {
            Ok(weights) => {
                self.brackets.loaded(entry.model.bytes(), took);
                let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                entry.reload_ns.store(nanoseconds, Ordering::Relaxed);
                entry.set_weights(weights);
                Outcome::Loaded
            }
            Err(error) => Outcome::Failed(error.into()),
        };
        let error = match &outcome {
            Outcome::Failed(error) => Some(error.clone()),
            _ => None,
        };
        ended.finish(outcome);
        self.tell_load(Load {
            model: entry.name().to_owned(),
            tier: "ram".to_owned(),
            bytes: entry.model.bytes(),
            charged_bytes: entry.charge,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            recycled_bytes,
            gave_back: Metric::Exact(gave_back),
            snapshots_us: before.cost_us + after.cost_us,
            before,
            after,
            error: error.as_ref().map(ToString::to_string),
        });
        match error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Looks whether the files of models that will have to be loaded are still what they were,
    /// before anything is evicted for them: a dead file is not to cost a good model at each lease.
    pub(super) fn refuse_stale(&self, entries: &[Arc<Entry>]) -> Result<(), Error> {
        for entry in entries.iter().filter(|entry| !entry.pins.is_open()) {
            let Err(error) = entry.model.changed() else {
                continue;
            };
            let error = Error::from(LoadError::from(error));
            let now = self.brackets.take(Depth::Bracket);
            self.tell_load(Load {
                model: entry.name().to_owned(),
                tier: "ram".to_owned(),
                bytes: entry.model.bytes(),
                charged_bytes: entry.charge,
                took_us: 0,
                recycled_bytes: 0,
                gave_back: Metric::Exact(0),
                snapshots_us: now.cost_us,
                before: now.clone(),
                after: now,
                error: Some(error.to_string()),
            });
            return Err(error);
        }
        Ok(())
    }

    fn tell_load(&self, load: Load) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!(
                model = %load.model.escape_debug(),
                bytes = %Size(load.bytes),
                took_us = load.took_us,
                recycled = %Size(load.recycled_bytes),
                failed = load.error.is_some(),
                "load\n{}",
                Diff::between(&load.before, &load.after)
            );
        }
        self.tell_hits();
        self.stream.emit(Kind::Load(Box::new(load)));
    }

    /// Gives back the reservation of a load that will not begin.
    pub(super) fn withdraw(&self, entry: &Arc<Entry>, loading: &Arc<Loading>) {
        if self.storage == Storage::Anonymous {
            self.recycler.unexpect(entry.charge as usize);
        }
        Ended {
            shared: self,
            entry,
            loading,
        }
        .finish(Outcome::Withdrawn);
    }
}

/// Sees to it that a load ends, even by a panic: nobody waits for ever, and no byte stays reserved.
struct Ended<'a> {
    shared: &'a Shared,
    entry: &'a Arc<Entry>,
    loading: &'a Arc<Loading>,
}

impl Ended<'_> {
    fn finish(self, outcome: Outcome) {
        self.settle(outcome);
        std::mem::forget(self);
    }

    fn settle(&self, outcome: Outcome) {
        let mut ledger = self.shared.ledger();
        let input = match outcome {
            Outcome::Loaded => Input::Loaded,
            Outcome::Failed(_) | Outcome::Withdrawn => Input::Failed,
        };
        if let (Phase::Loading { claims }, Outcome::Loaded) = (ledger.phase(self.entry), &outcome) {
            self.entry.pins.open(claims);
        }
        let stepped = ledger.step(self.entry, input);
        debug_assert!(stepped.is_ok());
        ledger.end_load(self.entry);
        self.loading.finish(outcome);
        drop(ledger);
        self.shared.notify();
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let model = self.entry.name().to_owned();
        self.settle(Outcome::Failed(LoadError::Abandoned { model }.into()));
    }
}
