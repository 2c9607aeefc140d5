//! The leases of a run: what is asked for, what it waits for, and when it lets go.

use std::time::{Duration, Instant};

use plimsoll_cache::device::Device;
use plimsoll_cache::{Error, Lease, Model, Tier};
use plimsoll_events::TierPicture;

use super::drive::Running;
use super::workload::On;
use crate::output::complain;

/// How long a lease is waited for where transfers are made to stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most of RAM that a cache takes to stage a transfer.
const MOST_STAGED: u64 = 8 << 20;

/// Whether a transfer of so many bytes to a device could be staged in RAM beside what is pinned
/// there, or never will.
fn can_stage(ram: &TierPicture, bytes: u64) -> bool {
    let staged = bytes.min(MOST_STAGED).min(ram.budget_bytes / 2);
    staged <= ram.budget_bytes.saturating_sub(ram.pinned_bytes)
}

/// What a lease of a part takes at least, about, bytes: a pool for two of the largest tensors, and what
/// is used first. The rest makes way.
fn least_of(model: &Model) -> u64 {
    const FIRST: u64 = 8 << 20;
    let largest = model.tensors().iter().map(|tensor| tensor.bytes).max();
    largest.unwrap_or(0).saturating_mul(2).saturating_add(FIRST)
}

impl Running<'_> {
    /// Releases leases in the order of their times, waiting for each: those due until `limit`, or
    /// all.
    pub(super) fn release_until(&mut self, limit: Option<Instant>) {
        self.held
            .sort_by_key(|(until, _)| std::cmp::Reverse(*until));
        while let Some((until, _)) = self.held.last() {
            if limit.is_some_and(|limit| *until > limit) {
                return;
            }
            self.sleep_until(*until);
            self.held.pop();
            self.grow();
        }
    }

    /// Brings back what others have taken the room of.
    fn grow(&self) {
        if !self.plan.terms.is_partial() {
            return;
        }
        for (_, lease) in &self.held {
            for at in 0..lease.models().count() {
                // What could not be brought is told as an event.
                if let Err(error) = lease.at(at).and_then(|leased| leased.grow()) {
                    tracing::warn!(%error, "a lease could not grow");
                }
            }
        }
    }

    /// The tier that a step asks for.
    pub(super) fn tier(&self, on: On) -> Tier {
        match (on, self.plan.tiers.device()) {
            (On::Device, Some(device)) => device.tier(),
            (On::Device, None) | (On::Cpu, _) => Tier::RAM,
        }
    }

    /// Leases models, once what this run itself holds is no longer in the way. A refusal is an
    /// event, and the run goes on.
    pub(super) fn lease(&mut self, models: &[usize], tier: Tier) -> Option<Lease> {
        self.make_way(models, tier);
        let plan = self.plan;
        let tiers = &self.plan.tiers;
        // It is the lease's, and so comes with one of its models.
        let working = std::iter::once(tiers.working).chain(std::iter::repeat(0));
        let models = models.iter().zip(working);
        let wanted = models.map(|(model, working)| {
            let wanted = plan.models[*model].on(tier).working_memory(working);
            plan.terms.ask(*model, wanted)
        });
        let leased = match tiers.simulated() {
            Some(device) if tiers.sticks() && tier != Tier::RAM => {
                let leased = self.cache.lease_timeout(wanted, PATIENCE);
                if let Err(Error::Timeout { .. }) = leased {
                    device.unstick();
                }
                leased
            }
            _ => self.cache.try_lease(wanted),
        };
        leased.inspect_err(|error| self.not_given(error)).ok()
    }

    /// Tells why a lease was not given, where no event does: it was asked for wrongly, and will be
    /// again.
    fn not_given(&mut self, error: &Error) {
        tracing::debug!(%error, "the lease was not given");
        let is_told = matches!(
            error,
            Error::ExceedsBudget { .. }
                | Error::NoRoom { .. }
                | Error::Timeout { .. }
                | Error::Deadlock { .. }
                | Error::Load(_)
        );
        // An event has the numbers, and not what a lease of a part could have.
        let has_offer = matches!(
            error,
            Error::ExceedsBudget {
                partial: Some(_),
                ..
            }
        );
        if (!is_told || has_offer) && self.complained.insert(error.to_string()) {
            complain(&error.to_string());
            self.is_poisoned |= !is_told;
        }
    }

    /// Waits for releases until models fit beside what is still held. Asking the cache instead
    /// would count a refusal for each answer.
    fn make_way(&mut self, models: &[usize], tier: Tier) {
        while !self.held.is_empty() && !self.fits(models, tier) {
            let next = self.held.iter().map(|(until, _)| *until).min();
            self.release_until(next);
        }
    }

    /// Whether models fit beside what is still held, or never will.
    fn fits(&self, models: &[usize], tier: Tier) -> bool {
        let tiers = self.cache.residency().tiers;
        let device = self.plan.tiers.device().filter(|_| tier != Tier::RAM);
        // RAM comes first, and there is at most one device.
        let Some(there) = tiers.get(usize::from(device.is_some())) else {
            return true;
        };
        let charge = |at: usize| {
            let model = &self.plan.models[at];
            let whole = match device {
                Some(device) => device.charge(model),
                None => self.plan.storage.charge(model),
            };
            let terms = &self.plan.terms;
            let there = match terms.is_partial() {
                true => whole.min(least_of(model)),
                false => whole,
            };
            there.saturating_add(terms.patched_bytes(&self.plan.models, at))
        };
        let is_held = |model: &Model| {
            let mut held = self.held.iter();
            held.any(|(_, lease)| lease.get_on(model, tier).is_ok())
        };
        let beyond = |working: u64| working.saturating_sub(there.reserve_bytes);
        let working = self.plan.tiers.working;
        let (mut all, mut new) = (0_u64, 0_u64);
        for at in models {
            all = all.saturating_add(charge(*at));
            if !is_held(&self.plan.models[*at]) {
                new = new.saturating_add(charge(*at));
            }
        }
        if all.saturating_add(beyond(working)) > there.budget_bytes {
            return true;
        }
        let taken = there
            .pinned_bytes
            .saturating_add(beyond(there.working_bytes.saturating_add(working)));
        let fits = new <= there.budget_bytes.saturating_sub(taken);
        fits && (device.is_none() || tiers.first().is_none_or(|ram| can_stage(ram, new)))
    }
}
