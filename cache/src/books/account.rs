//! The bytes of one tier.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::Entry;
use super::plan::Reserved;

/// Memory of an evicted model that somebody still holds.
pub(crate) trait Remains: Send {
    fn bytes(&self) -> u64;
    fn is_gone(&self) -> bool;
}

struct Held {
    remains: Box<dyn Remains>,
    bytes: u64,
    /// For whom it was evicted, and when.
    ticket: Option<u64>,
    since_ns: u64,
}

/// How long a lease waits for held memory to go before it evicts more in its place, nanoseconds.
const HOPE_NS: u64 = 200_000_000;

/// What counts in a tier, and how much may.
pub(crate) struct Account<M> {
    pub(crate) tier: usize,
    /// The bytes that may count. A smaller one than what counts is repaired as leases end.
    pub(crate) budget: u64,
    /// The most that the budget could ever be: beyond it a lease is refused at once.
    pub(crate) ceiling: u64,
    /// What the budget leaves to everything else, so that declared working memory needs no room of
    /// the budget up to that.
    pub(crate) reserve: u64,
    /// Bytes that exist or are reserved: loading, resident, evicting, held, staging.
    pub(super) used: u64,
    pub(super) staging: u64,
    pub(super) working: u64,
    pub(super) leaving: usize,
    held: Vec<Held>,
    held_bytes: u64,
    pub(super) resident: BTreeMap<usize, Arc<Entry<M>>>,
}

impl<M> Account<M> {
    pub(crate) fn new(tier: usize, budget: u64, ceiling: u64, reserve: u64) -> Account<M> {
        Account {
            tier,
            budget,
            ceiling,
            reserve,
            used: 0,
            staging: 0,
            working: 0,
            leaving: 0,
            held: Vec::new(),
            held_bytes: 0,
            resident: BTreeMap::new(),
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub(crate) fn staging_bytes(&self) -> u64 {
        self.staging
    }

    pub(crate) fn working_bytes(&self) -> u64 {
        self.working
    }

    /// Every model that is there.
    pub(crate) fn resident(&self) -> impl ExactSizeIterator<Item = &Arc<Entry<M>>> {
        self.resident.values()
    }

    /// What counts against the budget: bytes, and working memory beyond the reserve.
    pub(crate) fn committed(&self) -> u64 {
        self.used
            .saturating_add(self.working.saturating_sub(self.reserve))
    }

    /// Bytes free in the budget.
    pub(crate) fn room(&self) -> u64 {
        self.budget.saturating_sub(self.committed())
    }

    /// By how much `more` working memory adds to what is committed.
    pub(super) fn working_needs(&self, more: u64) -> u64 {
        let over = |working: u64| working.saturating_sub(self.reserve);
        over(self.working.saturating_add(more)) - over(self.working)
    }

    /// Bytes that cannot be freed now: all but what is resident and not leased.
    pub(crate) fn pinned(&self) -> u64 {
        let free = |entry: &&Arc<Entry<M>>| entry.slots[self.tier].pins.count() == 0;
        let evictable = self.resident.values().filter(free);
        let evictable: u64 = evictable.map(|entry| entry.slots[self.tier].charge).sum();
        self.used.saturating_sub(evictable)
    }

    /// Counts what a lease keeps besides models.
    pub(super) fn reserve_besides(&mut self, reserved: &Reserved) {
        let pool = reserved.pools[self.tier];
        self.working = self.working.saturating_add(reserved.working[self.tier]);
        self.staging += pool;
        self.used += pool;
    }

    /// Stops counting it.
    pub(super) fn end_besides(&mut self, reserved: &Reserved) {
        // A lease that was a hit has reserved nothing, in no tier.
        let bytes = |of: &[u64]| of.get(self.tier).copied().unwrap_or(0);
        let pool = bytes(&reserved.pools);
        self.working -= bytes(&reserved.working);
        self.staging -= pool;
        self.used -= pool;
    }

    /// Keeps counting the bytes of an evicted model that somebody holds.
    pub(super) fn hold(&mut self, remains: Box<dyn Remains>, ticket: Option<u64>, now_ns: u64) {
        let bytes = remains.bytes();
        self.used += bytes;
        self.held_bytes += bytes;
        self.held.push(Held {
            remains,
            bytes,
            ticket,
            since_ns: now_ns,
        });
    }

    /// Stops counting what is no longer held. Returns whether any was.
    pub(super) fn reap(&mut self) -> bool {
        let mut gone = 0;
        self.held.retain(|held| {
            let is_gone = held.remains.is_gone();
            if is_gone {
                gone += held.bytes;
            }
            !is_gone
        });
        self.used -= gone;
        self.held_bytes -= gone;
        gone > 0
    }

    pub(crate) fn any_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// What was evicted for a lease not long ago and is still held: likely to go soon, so that
    /// evicting more in its place would be in vain. With the time until which to hope.
    pub(super) fn hoped(&self, ticket: u64, now_ns: u64) -> (u64, u64) {
        let recent = self.held.iter().filter(|held| {
            held.ticket == Some(ticket) && now_ns < held.since_ns.saturating_add(HOPE_NS)
        });
        recent.fold((0, u64::MAX), |(bytes, until), held| {
            (
                bytes + held.bytes,
                until.min(held.since_ns.saturating_add(HOPE_NS)),
            )
        })
    }
}
