//! What is evicted, dropped, moved or brought by request.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use malloc_stats::Metric;
use plimsoll_events::EvictReason;

use super::{Cache, Seat, Wanted};
use crate::books::{Cleared, RAM, Wait};
use crate::budget::Budget;
use crate::device::Tier;
use crate::error::Error;
use crate::model::Model;
use crate::residency::Phase;

/// What [`Cache::make_room`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeRoom {
    /// Bytes that were evicted for it.
    pub freed_bytes: u64,
    /// Bytes that are free now, by the budget and, where it says so exactly, by the device.
    pub free_bytes: u64,
}

/// A model on its way into the cache, without a lease.
#[must_use = "it goes on when this is dropped, but nobody hears how it ended"]
pub struct Prefetch {
    state: Bringing,
}

enum Bringing {
    Thread(JoinHandle<Result<(), Error>>),
    /// Where no thread can be had, whoever waits does it; else whoever leases it.
    Here(Box<dyn FnOnce() -> Result<(), Error> + Send>),
}

impl fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefetch").finish_non_exhaustive()
    }
}

impl Prefetch {
    /// Waits until it is there.
    ///
    /// # Errors
    /// As [`Cache::try_lease`].
    pub fn wait(self) -> Result<(), Error> {
        match self.state {
            Bringing::Thread(thread) => match thread.join() {
                Ok(result) => result,
                // The panic of an observer or a sink goes on here.
                Err(panic) => std::panic::resume_unwind(panic),
            },
            Bringing::Here(bring) => bring(),
        }
    }
}

fn no_device() -> Error {
    Error::NoDevice { model: None }
}

impl Cache {
    /// A model and what is made of it, in every tier.
    fn seats(&self, model: &Model) -> Vec<Seat> {
        let entry = self.shared.entry(model);
        let all = self.shared.with_made(&entry);
        let seats = all
            .iter()
            .flat_map(|one| (0..one.slots.len()).map(|tier| Seat::new(one, tier)));
        seats.collect()
    }

    /// Evicts a model from every tier where no lease holds it, with its parts and what patches have
    /// made of it. Returns whether it is gone from all.
    #[must_use = "a model that is leased stays"]
    pub fn evict(&self, model: &Model) -> bool {
        let seats = self.seats(model);
        let cleared = self.shared.gate.evict_idle(&seats, &EvictReason::Dropped);
        cleared.leased.is_empty()
    }

    /// Drops a model: evicts it now or, where it is leased, when the last of those leases ends. A
    /// new lease of it meanwhile gets fresh bytes from its files, which count besides. Returns
    /// whether it is gone already.
    pub fn drop_model(&self, model: &Model) -> bool {
        let entry = self.shared.entry(model);
        self.shared.drop_entry(&entry)
    }

    /// Evicts every model that no lease holds, from every tier, and says which stay.
    pub fn clear(&self) -> Cleared {
        let mut seats = Vec::new();
        {
            let books = self.shared.gate.books();
            for (entry, phases) in books.somewhere() {
                let there = phases.iter().enumerate();
                let there = there.filter(|(_, phase)| **phase != Phase::Absent);
                seats.extend(there.map(|(tier, _)| Seat::new(entry, tier)));
            }
        }
        self.shared.gate.evict_idle(&seats, &EvictReason::Cleared)
    }

    /// Frees memory of a tier for the program's own use: evicts what is not leased until so many
    /// bytes are free, by the budget and by the device's own word where that is exact.
    ///
    /// # Errors
    /// [`Error::NoRoom`] where that is not possible, with what is free now; what could be evicted
    /// was. [`Error::NoDevice`].
    pub fn make_room(&self, tier: impl Into<Tier>, bytes: u64) -> Result<MadeRoom, Error> {
        let tier = self.shared.tier(tier.into()).ok_or_else(no_device)?;
        let gate = &self.shared.gate;
        let free = || {
            let room = {
                let mut books = gate.books();
                books.reap();
                books.accounts[tier].room()
            };
            // What a pool of the device's keeps is nothing that the program could take.
            let device = &gate.io.devices[tier];
            let figures = device.figures();
            match figures.map_or_else(|| device.memory().free, |figures| figures.free) {
                Metric::Exact(free) => room.min(free),
                _ => room,
            }
        };
        let reason = EvictReason::Requested { asked_bytes: bytes };
        let mut freed_bytes = 0;
        // What is evicted may still be held by tensors: then more has to go.
        while let Some(missing) = bytes.checked_sub(free()).filter(|missing| *missing > 0) {
            match gate.free(tier, missing, &reason) {
                0 => break,
                freed => freed_bytes += freed,
            }
        }
        let free_bytes = free();
        if free_bytes >= bytes {
            return Ok(MadeRoom {
                freed_bytes,
                free_bytes,
            });
        }
        let books = gate.books();
        let account = &books.accounts[tier];
        Err(Error::NoRoom {
            models: Vec::new(),
            tier: gate.io.tier_name(tier).to_owned(),
            asked: bytes,
            free: free_bytes,
            budget: account.budget,
            pinned: account.pinned(),
        })
    }

    /// Gives a tier another budget. What no longer fits and is not leased is evicted; what is leased
    /// counts beyond it until those leases end. A budget that is automatic from the start of the
    /// cache is followed most closely: one that becomes so later is measured before leases, and in
    /// the background where another budget or `keep_alive` keeps a thread for that.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or [`Error::Unfollowed`] for an automatic budget that finds nothing to
    /// follow; then the old one stays.
    pub fn set_budget(
        &self,
        tier: impl Into<Tier>,
        budget: impl Into<Budget>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let tier = shared.tier(tier.into()).ok_or_else(no_device)?;
        let set = shared.budgets.set(&shared.gate, tier, budget.into());
        set.map_err(|reason| Error::Unfollowed {
            tier: shared.gate.io.tier_name(tier).to_owned(),
            reason,
        })
    }

    /// Takes a model off every device and keeps it in RAM, where it is brought first if it is not
    /// there: from its files, since nothing is ever copied back. Returns whether it is gone from all
    /// devices; where a lease holds it, it stays.
    ///
    /// # Errors
    /// As [`Cache::try_lease`] on the CPU; then it stays on its devices.
    pub fn offload(&self, model: &Model) -> Result<bool, Error> {
        let in_ram = self.shared.lease([model.on(Tier::RAM)], Wait::Never)?;
        let seats = self.seats(model);
        let devices: Vec<Seat> = seats.into_iter().filter(|seat| seat.tier != RAM).collect();
        let cleared = self
            .shared
            .gate
            .evict_idle(&devices, &EvictReason::Offloaded);
        drop(in_ram);
        Ok(cleared.leased.is_empty())
    }

    /// Brings a model where it is wanted, in the background and without a lease. It evicts what is
    /// not leased, as a lease would, never what is, and does not wait for room. Working memory that
    /// is declared plays no part: nothing is leased.
    pub fn prefetch<'a>(&self, wanted: impl Into<Wanted<'a>>) -> Prefetch {
        let wanted: Wanted<'a> = wanted.into();
        let shared = Arc::clone(&self.shared);
        let model = wanted.model.clone();
        let terms = wanted.terms.without_working_memory();
        let bring = move || {
            let terms = terms.clone();
            let wanted = Wanted {
                model: &model,
                terms,
            };
            shared.lease([wanted], Wait::Never).map(drop)
        };
        let bring = Arc::new(bring);
        let there = Arc::clone(&bring);
        let thread = std::thread::Builder::new()
            .name("plimsoll-load".into())
            .spawn(move || there());
        Prefetch {
            state: match thread {
                Ok(thread) => Bringing::Thread(thread),
                Err(_) => Bringing::Here(Box::new(move || bring())),
            },
        }
    }
}
