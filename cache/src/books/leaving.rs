//! A model's way out.

use std::sync::Arc;

use plimsoll_events::EvictReason;

use super::account::Remains;
use super::choice::{Aim, Choice};
use super::entry::{Named, Seat};
use super::gate::Gate;
use super::{Books, Io};
use crate::residency::{Input, Phase};

/// What a [`clear`](crate::Cache::clear) did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Models evicted, once for each tier that they were in.
    pub evicted: Vec<String>,
    /// Models that leases hold, with how many, once for each tier: they stay.
    pub leased: Vec<(String, u64)>,
}

/// A model on its way out: its door is shut and its phase says so. However its eviction ends, even
/// by a panic, its memory goes and it is absent afterwards.
pub(crate) struct Leaving<I: Io> {
    gate: Arc<Gate<I>>,
    seat: Seat<I::Model>,
    /// For which waiting lease.
    ticket: Option<u64>,
    /// What somebody still holds of it.
    remains: Option<Box<dyn Remains>>,
}

impl<I: Io> Leaving<I> {
    /// Begins the eviction of a resident model whose door was shut under this same lock.
    pub(super) fn begin(
        gate: &Arc<Gate<I>>,
        books: &mut Books<I>,
        seat: Seat<I::Model>,
        ticket: Option<u64>,
    ) -> Leaving<I> {
        let stepped = books.step(&seat, Input::Evict);
        debug_assert!(stepped.is_ok());
        Leaving {
            gate: Arc::clone(gate),
            seat,
            ticket,
            remains: None,
        }
    }

    /// Drops its weights and tells of it.
    pub(super) fn evict(mut self, reason: &EvictReason, choice: &Choice) {
        self.gate
            .io
            .evict(&self.seat, reason, choice, &mut self.remains);
    }
}

impl<I: Io> Drop for Leaving<I> {
    fn drop(&mut self) {
        self.gate.io.discard(&self.seat, &mut self.remains);
        let now_ns = self.gate.io.now_ns();
        let mut books = self.gate.books();
        let stepped = books.step(&self.seat, Input::Evicted);
        debug_assert!(stepped.is_ok());
        if let Some(remains) = self.remains.take() {
            books.accounts[self.seat.tier].hold(remains, self.ticket, now_ns);
        }
        self.gate.changed(books);
    }
}

impl<I: Io> Gate<I> {
    /// Evicts those of the models that are there and not leased.
    pub(crate) fn evict_idle(
        self: &Arc<Self>,
        seats: &[Seat<I::Model>],
        reason: &EvictReason,
    ) -> Cleared {
        let mut cleared = Cleared::default();
        let _waiting = self.waiting();
        for seat in seats {
            let name = || seat.entry.model.name().to_owned();
            let leaving = {
                let mut books = self.books();
                while books.phase(seat) == Phase::Evicting {
                    // By another thread. When this returns its memory is to be gone.
                    books = self.sleep(books, None);
                }
                match books.phase(seat) {
                    Phase::Resident if seat.is_idle() && seat.slot().pins.close() => {
                        Leaving::begin(self, &mut books, seat.clone(), None)
                    }
                    Phase::Resident => {
                        let slot = seat.slot();
                        let leases = slot.pins.count() + slot.preferred();
                        cleared.leased.push((name(), leases));
                        continue;
                    }
                    Phase::Loading { claims } => {
                        cleared.leased.push((name(), u64::from(claims)));
                        continue;
                    }
                    Phase::Absent | Phase::Evicting => continue,
                }
            };
            leaving.evict(reason, &Choice::default());
            cleared.evicted.push(name());
        }
        cleared
    }

    /// Evicts a model from every tier: now where it is not leased, else when the last lease of it
    /// ends. Its entry is of no more use. Returns whether it is gone.
    pub(crate) fn drop_entry(
        self: &Arc<Self>,
        entry: &Arc<super::Entry<I::Model>>,
        reason: &EvictReason,
    ) -> bool {
        let tiers = {
            let mut books = self.books();
            entry.retire();
            // Under the lock, so that no load ends between the two.
            for tier in 0..books.accounts.len() {
                if books.phase_of(entry, tier) == Phase::Resident {
                    entry.slots[tier].pins.doom();
                }
            }
            books.forget_dropped(entry);
            books.accounts.len()
        };
        let seats: Vec<Seat<I::Model>> = (0..tiers).map(|tier| Seat::new(entry, tier)).collect();
        self.evict_idle(&seats, reason).leased.is_empty()
    }

    /// Frees at least so many bytes of a tier, as far as what is not leased makes them up. Returns
    /// how many.
    pub(crate) fn free(self: &Arc<Self>, tier: usize, bytes: u64, reason: &EvictReason) -> u64 {
        let (leaving, choice) = {
            let mut books = self.books();
            let aim = Aim::AsFarAsPossible(bytes);
            let chosen = books.choose_victims(tier, aim, &[], false, self.policy.as_ref());
            let (victims, choice) = chosen.unwrap_or_default();
            let leaving: Vec<Leaving<I>> = victims
                .into_iter()
                .map(|seat| Leaving::begin(self, &mut books, seat, None))
                .collect();
            (leaving, choice)
        };
        let mut freed = 0;
        for one in leaving {
            freed += one.seat.charge();
            one.evict(reason, &choice);
        }
        freed
    }

    /// Sets the budget of a tier. To be followed by [`wake_tasks`](Self::wake_tasks) and, for what
    /// no longer fits, [`repair`](Self::repair).
    pub(crate) fn set_budget(&self, tier: usize, budget: u64, ceiling: u64) {
        let mut books = self.books();
        let account = &mut books.accounts[tier];
        account.budget = budget;
        account.ceiling = ceiling;
        // Leases that end before that come there too.
        self.note_beyond(true);
    }

    /// Evicts what is beyond a budget and not leased. While leases keep something beyond it, each
    /// that ends comes here again.
    pub(crate) fn repair(self: &Arc<Self>) {
        // Before the look: a lease that ends after it finds this set.
        self.note_beyond(true);
        for tier in 0..self.tiers() {
            // What is freed may still be held: then more has to go.
            while let Some((over, reason)) = self.over(tier)
                && self.free(tier, over, &reason) > 0
            {}
        }
        let books = self.books();
        let mut accounts = books.accounts.iter();
        self.note_beyond(accounts.any(|account| account.committed() > account.budget));
    }

    /// By how much a tier is beyond its budget, if it is.
    fn over(&self, tier: usize) -> Option<(u64, EvictReason)> {
        let mut books = self.books();
        books.reap();
        let account = &books.accounts[tier];
        let over = account.committed().saturating_sub(account.budget);
        let reason = EvictReason::Pressure {
            budget_bytes: account.budget,
            used_bytes: account.used(),
        };
        (over > 0).then_some((over, reason))
    }
}
