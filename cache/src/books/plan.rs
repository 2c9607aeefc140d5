//! What a lease needs, tier by tier, when each of its models is granted in a tier of choice.

use std::sync::Arc;

use super::admission::Ask;
use super::claims::Route;
use super::entry::{Entry, Named, Seat};
use super::{Books, Io, LEAST_STAGING, RAM, Rules};
use crate::residency::Phase;

/// A way to meet a request.
pub(super) struct Plan<M> {
    /// What the lease will hold, each once, in the order in which it was asked for.
    pub(super) seats: Vec<Seat<M>>,
    /// What has to be loaded, RAM first, since devices are loaded from there.
    pub(super) loads: Vec<(Seat<M>, Route)>,
    /// Copies in RAM that are needed until the devices have them.
    pub(super) sources: Vec<Seat<M>>,
    /// New bytes in each tier.
    pub(super) bytes: Vec<u64>,
    /// What the lease keeps besides.
    pub(super) reserved: Reserved,
    /// The seat of each ask, by its position.
    pub(super) asked: Vec<usize>,
    /// Staging in RAM.
    pub(super) staging: u64,
    /// Whether some of it is on its way out at this moment.
    pub(super) unsettled: bool,
}

/// What a lease keeps in each tier besides models, for as long as it lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// Declared working memory, which the program allocates itself.
    pub(crate) working: Vec<u64>,
    /// What the lease fills and empties as it likes.
    pub(crate) pools: Vec<u64>,
}

impl Reserved {
    fn nothing(tiers: usize) -> Reserved {
        Reserved {
            working: vec![0; tiers],
            pools: vec![0; tiers],
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        let mut all = self.working.iter().chain(&self.pools);
        all.all(|bytes| *bytes == 0)
    }
}

/// Where devices are to be loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sourcing {
    /// From RAM, where models are brought first.
    Copies,
    /// From RAM, where they are there.
    Ram,
    /// From files: what is in RAM may go.
    Files,
}

impl Sourcing {
    pub(super) const ALL: [Sourcing; 3] = [Sourcing::Copies, Sourcing::Ram, Sourcing::Files];
}

/// Tiers of choice are tried in order of preference, the first model's first. More combinations
/// than this nobody means.
const MOST_WAYS: usize = 64;

/// The way that is preferred.
pub(super) fn preferred_way<M>(asks: &[Ask<M>]) -> Vec<usize> {
    let leader = |ask: &Ask<M>| {
        ask.follows
            .map_or(ask.tiers[0], |leader| asks[leader].tiers[0])
    };
    asks.iter().map(leader).collect()
}

/// Every way to meet a request, as tiers by model, the preferred one first.
pub(super) fn ways<M>(asks: &[Ask<M>]) -> Vec<Vec<usize>> {
    let mut at = vec![0_usize; asks.len()];
    let mut ways = Vec::new();
    loop {
        let tier = |index: usize| {
            let leader = asks[index].follows.unwrap_or(index);
            asks[leader].tiers[at[leader]]
        };
        ways.push((0..asks.len()).map(tier).collect());
        // The last model gives way first.
        let next = (0..asks.len()).rev().find(|index| {
            let ask = &asks[*index];
            ask.follows.is_none() && at[*index] + 1 < ask.tiers.len()
        });
        match next {
            Some(index) if ways.len() < MOST_WAYS => {
                at[index] += 1;
                at[index + 1..].fill(0);
            }
            _ => return ways,
        }
    }
}

impl<I: Io> Books<I> {
    /// Plans a way.
    pub(super) fn plan(
        &self,
        asks: &[Ask<I::Model>],
        way: &[usize],
        sourcing: Sourcing,
        rules: &Rules,
    ) -> Plan<I::Model> {
        let mut plan = Plan {
            seats: Vec::with_capacity(asks.len()),
            loads: Vec::new(),
            sources: Vec::new(),
            bytes: vec![0; self.accounts.len()],
            reserved: Reserved::nothing(self.accounts.len()),
            asked: Vec::with_capacity(asks.len()),
            staging: 0,
            unsettled: false,
        };
        for (ask, tier) in asks.iter().zip(way) {
            let seat = Seat::new(&ask.entry, *tier);
            let working = &mut plan.reserved.working[*tier];
            *working = working.saturating_add(ask.working);
            for (tier, bytes) in ask.pools(*tier) {
                let pool = &mut plan.reserved.pools[tier];
                *pool = pool.saturating_add(bytes);
                plan.bytes[tier] = plan.bytes[tier].saturating_add(bytes);
            }
            let known = plan.seats.iter().position(|known| *known == seat);
            plan.asked.push(known.unwrap_or(plan.seats.len()));
            if known.is_none() {
                plan.seats.push(seat);
            }
        }
        for seat in plan.seats.clone() {
            match self.phase(&seat) {
                Phase::Evicting => plan.unsettled = true,
                Phase::Absent => self.plan_load(&mut plan, seat, sourcing, rules),
                Phase::Resident | Phase::Loading { .. } => {}
            }
        }
        plan.loads.sort_by_key(|(seat, _)| seat.tier);
        self.plan_staging(&mut plan, rules);
        plan
    }

    fn plan_load(
        &self,
        plan: &mut Plan<I::Model>,
        seat: Seat<I::Model>,
        sourcing: Sourcing,
        rules: &Rules,
    ) {
        plan.bytes[seat.tier] = plan.bytes[seat.tier].saturating_add(seat.charge());
        if seat.tier == RAM {
            plan.loads.push((seat, Route::File));
            return;
        }
        if sourcing != Sourcing::Files
            && let Some(whole) = seat.entry.model.whole()
            && self.phase_of(whole, RAM) == Phase::Resident
            // A dropped one lets nobody in any more.
            && !whole.is_retired()
        {
            let whole = Seat::new(whole, RAM);
            if !plan.sources.contains(&whole) {
                plan.sources.push(whole);
            }
            plan.loads.push((seat, Route::Whole));
            return;
        }
        let in_ram = Seat::new(&seat.entry, RAM);
        let there = match self.phase(&in_ram) {
            // What it is made of is in RAM, or in files.
            _ if seat.entry.model.is_made() && !plan.seats.contains(&in_ram) => false,
            _ if sourcing == Sourcing::Files && !plan.seats.contains(&in_ram) => false,
            Phase::Resident | Phase::Loading { .. } => true,
            // It may be what another model of the same lease is leased in.
            Phase::Absent if plan.seats.contains(&in_ram) => true,
            Phase::Absent
                if sourcing == Sourcing::Copies
                    && rules.keep_ram_copy
                    && in_ram.charge() <= self.accounts[RAM].budget =>
            {
                plan.bytes[RAM] = plan.bytes[RAM].saturating_add(in_ram.charge());
                plan.loads.push((in_ram.clone(), Route::File));
                true
            }
            Phase::Absent | Phase::Evicting => false,
        };
        if there {
            plan.sources.push(in_ram);
            plan.loads.push((seat, Route::Ram));
        } else {
            plan.loads.push((seat, Route::Stream { staging: 0 }));
        }
    }

    /// Gives transfers their staging: less where RAM has less, since a small buffer now is better
    /// than a large one that has to be waited for. Half of what there is at most, so that one
    /// transfer that is stuck does not hold up all.
    fn plan_staging(&self, plan: &mut Plan<I::Model>, rules: &Rules) {
        let account = &self.accounts[RAM];
        let wanted = plan.seats.iter().chain(&plan.sources);
        let wanted: Vec<&Seat<I::Model>> = wanted.filter(|seat| seat.tier == RAM).collect();
        let stays = |entry: &Arc<Entry<I::Model>>| {
            let is_wanted = wanted.iter().any(|seat| Arc::ptr_eq(&seat.entry, entry));
            is_wanted || entry.slots[RAM].pins.count() > 0
        };
        let could_go = account.resident().filter(|entry| !stays(entry));
        let could_go: u64 = could_go.map(|entry| entry.slots[RAM].charge).sum();
        let taken = account
            .committed()
            .saturating_sub(could_go)
            .saturating_add(plan.bytes[RAM])
            .saturating_add(account.working_needs(plan.reserved.working[RAM]));
        let room = account.budget.saturating_sub(taken);
        let most = (room / 2).max(LEAST_STAGING).min(rules.staging);
        for (seat, route) in &mut plan.loads {
            let mut besides = seat.entry.model.scratch();
            if let Route::Stream { staging } = route {
                *staging = most.min(seat.charge());
                besides = besides.saturating_add(*staging);
            }
            plan.staging = plan.staging.max(besides);
        }
    }

    /// What a plan needs in a tier beyond what is free there.
    pub(super) fn missing(&self, plan: &Plan<I::Model>, tier: usize) -> u64 {
        let account = &self.accounts[tier];
        let staging = if tier == RAM { plan.staging } else { 0 };
        let needs = plan.bytes[tier]
            .saturating_add(staging)
            .saturating_add(account.working_needs(plan.reserved.working[tier]));
        if needs == 0 {
            return 0;
        }
        // Measured from what is committed, which may already be beyond a budget that shrank.
        match account.committed().checked_add(needs) {
            Some(all) => all.saturating_sub(account.budget),
            // Files can claim sizes whose sum overflows: that exceeds any budget.
            None => u64::MAX,
        }
    }
}

impl<M> Plan<M> {
    /// The tiers in which it needs room, a bit for each; staging needs too little to queue for.
    pub(super) fn tiers<I: Io<Model = M>>(&self, books: &Books<I>) -> u64 {
        let needs = |tier: &usize| {
            self.bytes[*tier] > 0
                || books.accounts[*tier].working_needs(self.reserved.working[*tier]) > 0
        };
        (0..self.bytes.len())
            .filter(needs)
            .fold(0, |tiers, tier| tiers | 1 << tier)
    }
}
