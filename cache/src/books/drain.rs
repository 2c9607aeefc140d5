//! Against starvation: models that would have to go for the first in the queue, and that are leased
//! without a pause by others, are drained for it.

use super::admission::Admission;
use super::plan::{Plan, Sourcing, preferred_way};
use super::{Books, Io, Rules, Seat};
use crate::policy::Policy;

/// The least time for which a lease of a resident model stays away from one that is drained.
const PATIENCE_NS: u64 = 20_000_000;

impl<I: Io> Books<I> {
    /// Until when a request whose models are all there stays away from those that are drained for
    /// another. Never longer than that one has waited: whoever asks may hold what it waits for.
    pub(super) fn patience(
        &self,
        plan: &Plan<I::Model>,
        admission: &Admission<I::Model>,
        now_ns: u64,
    ) -> Option<u64> {
        let since = *self.draining_since.values().min()?;
        let is_drained = |seat: &Seat<I::Model>| seat.slot().pins.is_draining();
        if !plan.seats.iter().any(is_drained) {
            return None;
        }
        let patience = PATIENCE_NS.max(admission.since_ns.saturating_sub(since));
        let until = admission.since_ns.saturating_add(patience);
        (now_ns < until).then_some(until)
    }

    /// Drains models for a request that is first and could not be met for a while. Returns when to
    /// look again.
    pub(super) fn drain(
        &mut self,
        admission: &mut Admission<I::Model>,
        rules: &Rules,
        policy: &dyn Policy,
        now_ns: u64,
    ) -> Option<u64> {
        let way = preferred_way(&admission.asks);
        let plan = self.plan(&admission.asks, &way, Sourcing::Files, rules);
        if !self.is_first(admission.ticket, plan.tiers(self)) {
            return None;
        }
        let first_since = *admission.first_since_ns.get_or_insert(now_ns);
        let at = first_since.saturating_add(rules.drain_after_ns);
        if now_ns < at {
            return (rules.drain_after_ns < u64::MAX).then_some(at);
        }
        for tier in 0..self.accounts.len() {
            let (hoped, _) = self.accounts[tier].hoped(admission.ticket, now_ns);
            let missing = self.missing(&plan, tier).saturating_sub(hoped);
            // What was drained may be evicted by now, and still held: then others have to go.
            if missing > 0 && !self.will_free(tier, missing, &plan.seats) {
                let drained = self.drain_for(tier, missing, &plan.seats, policy);
                admission.draining.extend(drained);
            }
        }
        if !admission.draining.is_empty() {
            let since = self.draining_since.entry(admission.ticket);
            since.or_insert(now_ns);
        }
        None
    }

    /// Gives up a place in the queue, and lets leases to what was drained for it again.
    pub(super) fn give_up(&mut self, admission: &mut Admission<I::Model>) {
        self.dequeue(admission.ticket);
        if !admission.draining.is_empty() {
            for seat in admission.draining.drain(..) {
                seat.slot().pins.drain(false);
            }
            self.draining_since.remove(&admission.ticket);
        }
    }
}
