//! A lease's way in: granted, granted once something was evicted, later, or never.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_events::EvictReason;

use super::choice::{Aim, Choice};
use super::claims::{Claim, Granted, Task};
use super::entry::{Entry, Named, Seat};
use super::plan::{Plan, Sourcing, preferred_way, ways};
use super::{Books, Io, LEAST_STAGING, RAM, Rules};
use crate::policy::Policy;
use crate::residency::{Input, Phase};

/// A model that a lease asks for.
pub(crate) struct Ask<M> {
    pub(crate) entry: Arc<Entry<M>>,
    /// Where it may be granted, the preferred tier first; at least one.
    pub(crate) tiers: Vec<usize>,
    /// Working memory that comes with it, in the tier that is granted.
    pub(crate) working: u64,
    /// Memory there that the lease fills and empties as it likes, for as long as it lives: bytes
    /// that count.
    pub(crate) pool: u64,
    /// The same in RAM, where another tier is granted: what fills the pool is read through it.
    pub(crate) staging: u64,
    /// Whether it is not worth what leases would rather have there.
    pub(crate) spares: bool,
    /// The ask, by its position before this one, in whose tier this is granted too, whatever the
    /// tiers here say.
    pub(crate) follows: Option<usize>,
}

impl<M> Ask<M> {
    /// Asks for a model in one of these tiers and for nothing besides.
    pub(crate) fn new(entry: Arc<Entry<M>>, tiers: Vec<usize>) -> Ask<M> {
        Ask {
            entry,
            tiers,
            working: 0,
            pool: 0,
            staging: 0,
            spares: false,
            follows: None,
        }
    }

    /// Its pool in each tier, where this one is granted.
    pub(super) fn pools(&self, granted: usize) -> [(usize, u64); 2] {
        let staging = if granted == RAM { 0 } else { self.staging };
        [(granted, self.pool), (RAM, staging)]
    }
}

/// How long a lease may wait for room.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Never,
    Forever,
    Until { started: Instant, timeout: Duration },
}

impl Wait {
    /// How long it has been.
    pub(crate) fn waited(self) -> Duration {
        match self {
            Wait::Until { started, .. } => started.elapsed(),
            Wait::Never | Wait::Forever => Duration::ZERO,
        }
    }

    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Wait::Until { started, timeout } => started.checked_add(timeout),
            Wait::Never | Wait::Forever => None,
        }
    }
}

/// Why a lease was not given.
#[derive(Debug)]
pub(crate) enum Denied<E> {
    /// It exceeds the budget of a tier.
    Exceeds { tier: usize, asked: u64 },
    /// There is no room without waiting.
    NoRoom { tier: usize, asked: u64 },
    /// It waited as long as it was allowed to.
    Timeout { tier: usize, asked: u64 },
    /// Everyone who could make room waits for room.
    Deadlock { tier: usize, asked: u64 },
    /// A load failed.
    Load(E),
    /// A model was dropped since it was looked up.
    Retired,
}

/// A request, as long as it waits.
pub(super) struct Admission<M> {
    pub(super) asks: Vec<Ask<M>>,
    pub(super) ticket: u64,
    pub(super) since_ns: u64,
    /// Since when it could not be met though it was first.
    pub(super) first_since_ns: Option<u64>,
    /// What others were asked to stay away from for it.
    pub(super) draining: Vec<Seat<M>>,
}

/// What a look at the books found.
pub(super) enum Look<I: Io> {
    Granted(Granted<I>),
    /// These have to go first; their doors are shut. With what is expected to be loaded in each
    /// tier.
    Evict {
        leaving: Vec<(Seat<I::Model>, EvictReason, Choice)>,
        expected: Vec<u64>,
    },
    /// Something it wants, or needs the room of, is on its way out: to be waited for by everyone.
    Settle,
    /// Later; at this time even if nothing happens.
    Wait {
        look_again_ns: Option<u64>,
    },
    Denied(Denied<I::Error>),
}

impl<M> Admission<M> {
    pub(super) fn new(asks: Vec<Ask<M>>, ticket: u64, now_ns: u64) -> Admission<M> {
        Admission {
            asks,
            ticket,
            since_ns: now_ns,
            first_since_ns: None,
            draining: Vec::new(),
        }
    }
}

impl<I: Io> Books<I> {
    /// Looks whether a request can be met now.
    pub(super) fn look(
        &mut self,
        admission: &mut Admission<I::Model>,
        rules: &Rules,
        policy: &dyn Policy,
        now_ns: u64,
        in_a_hurry: bool,
    ) -> Look<I> {
        let known = |ask: &Ask<I::Model>| self.record(&ask.entry).is_some();
        if !admission
            .asks
            .iter()
            .all(|ask| known(ask) && !ask.entry.is_retired())
        {
            return Look::Denied(Denied::Retired);
        }
        if let Some((tier, asked)) = self.exceeds(&admission.asks) {
            return Look::Denied(Denied::Exceeds { tier, asked });
        }
        self.reap();
        let mut look_again_ns: Option<u64> = None;
        let mut again = |at: u64| {
            look_again_ns = Some(look_again_ns.map_or(at, |before| before.min(at)));
        };
        let mut tiers = 0;
        let mut settle = false;
        for way in ways(&admission.asks) {
            for sourcing in Sourcing::ALL {
                let plan = self.plan(&admission.asks, &way, sourcing, rules);
                if plan.unsettled {
                    settle = true;
                    break;
                }
                let needs = plan.tiers(self);
                tiers |= needs;
                if needs == 0 && plan.staging == 0 {
                    match self.patience(&plan, admission, now_ns) {
                        Some(until) if !in_a_hurry => again(until),
                        _ => return Look::Granted(self.take(plan)),
                    }
                } else if self.is_first(admission.ticket, needs) {
                    match self.make_room(&plan, admission, policy, now_ns, in_a_hurry) {
                        Room::Enough => return Look::Granted(self.take(plan)),
                        Room::After(leaving) => {
                            return Look::Evict {
                                leaving,
                                expected: plan.bytes,
                            };
                        }
                        Room::Leaving => settle = true,
                        Room::Hoped(until) => again(until),
                        Room::None => {}
                    }
                }
                if plan.loads.iter().all(|(seat, _)| seat.tier == RAM) {
                    // No device is loaded: nothing to choose.
                    break;
                }
            }
            if settle {
                return Look::Settle;
            }
        }
        self.note_tiers(admission.ticket, tiers);
        if let Some(at) = self.drain(admission, rules, policy, now_ns) {
            again(at);
        }
        Look::Wait { look_again_ns }
    }

    /// Takes note of where a waiter needs room, so that others can pass it elsewhere.
    fn note_tiers(&mut self, ticket: u64, tiers: u64) {
        let waiter = self.queue.iter_mut().find(|one| one.ticket == ticket);
        if let Some(waiter) = waiter {
            waiter.tiers = tiers;
        }
    }

    /// The tier whose budget can never hold the request, with the bytes; `None` if there is a way.
    fn exceeds(&self, asks: &[Ask<I::Model>]) -> Option<(usize, u64)> {
        let mut first = None;
        for way in ways(asks) {
            let mut seats: Vec<Seat<I::Model>> = Vec::new();
            let mut asked = vec![0_u64; self.accounts.len()];
            let mut working = vec![0_u64; self.accounts.len()];
            let mut pools = vec![0_u64; self.accounts.len()];
            for (ask, tier) in asks.iter().zip(&way) {
                let seat = Seat::new(&ask.entry, *tier);
                working[*tier] = working[*tier].saturating_add(ask.working);
                for (tier, bytes) in ask.pools(*tier) {
                    pools[tier] = pools[tier].saturating_add(bytes);
                }
                if !seats.contains(&seat) {
                    // Files can claim sizes whose sum overflows: that exceeds any budget.
                    asked[*tier] = asked[*tier].saturating_add(seat.charge());
                    seats.push(seat);
                }
            }
            let absent = |seat: &&Seat<I::Model>| self.phase(seat) == Phase::Absent;
            let staged = seats.iter().filter(absent).filter(|seat| {
                let in_ram = Seat::new(&seat.entry, RAM);
                seat.tier != RAM && self.phase(&in_ram) == Phase::Absent && !seats.contains(&in_ram)
            });
            let staging = staged.map(|seat| seat.charge().min(LEAST_STAGING)).max();
            let loads = seats.iter().filter(absent);
            let scratch = loads
                .map(|seat| seat.entry.model.scratch())
                .max()
                .unwrap_or(0);
            let beyond = (0..self.accounts.len()).find_map(|tier| {
                let account = &self.accounts[tier];
                let staging = staging.filter(|_| tier == RAM).unwrap_or(0);
                let staging = match tier {
                    RAM => staging.saturating_add(scratch),
                    _ => staging,
                };
                let mut new = seats.iter().filter(absent).map(|seat| seat.tier);
                let besides = staging.max(working[tier]).max(pools[tier]);
                if besides == 0 && !new.any(|one| one == tier) {
                    // What is there already may be leased, whatever became of the budget.
                    return None;
                }
                let all = asked[tier]
                    .saturating_add(pools[tier])
                    .saturating_add(staging)
                    .saturating_add(working[tier].saturating_sub(account.reserve));
                // A sum that saturates fits no memory, whatever the budget.
                (all > account.ceiling || all == u64::MAX).then_some((tier, all))
            });
            match beyond {
                None => return None,
                Some(beyond) => first = first.or(Some(beyond)),
            }
        }
        first
    }

    /// What to say of a request that is refused: the tier that is short for its preferred way, and
    /// what it needs there in all.
    pub(super) fn shortage(&self, asks: &[Ask<I::Model>], rules: &Rules) -> (usize, u64) {
        let way = preferred_way(asks);
        let plan = self.plan(asks, &way, Sourcing::Files, rules);
        let tiers = 0..self.accounts.len();
        let tier = tiers
            .max_by_key(|tier| self.missing(&plan, *tier))
            .unwrap_or(RAM);
        let seats = plan.seats.iter().filter(|seat| seat.tier == tier);
        let bytes = seats.fold(0_u64, |sum, seat| sum.saturating_add(seat.charge()));
        let staging = if tier == RAM { plan.staging } else { 0 };
        let besides = [
            plan.reserved.working[tier],
            plan.reserved.pools[tier],
            staging,
        ];
        let all = besides.into_iter().fold(bytes, u64::saturating_add);
        (tier, all)
    }

    fn make_room(
        &mut self,
        plan: &Plan<I::Model>,
        admission: &Admission<I::Model>,
        policy: &dyn Policy,
        now_ns: u64,
        in_a_hurry: bool,
    ) -> Room<I::Model> {
        let spares = admission.asks.iter().any(|ask| ask.spares);
        let mut wanted = plan.seats.clone();
        wanted.extend(plan.sources.iter().cloned());
        let mut short = Vec::new();
        for tier in 0..self.accounts.len() {
            let missing = self.missing(plan, tier);
            if missing == 0 {
                continue;
            }
            let (hoped, until) = if in_a_hurry {
                (0, 0)
            } else {
                self.accounts[tier].hoped(admission.ticket, now_ns)
            };
            if missing <= hoped {
                return Room::Hoped(until);
            }
            if !self.could_free(tier, missing - hoped, &wanted, spares) {
                return if self.accounts[tier].leaving > 0 {
                    Room::Leaving
                } else {
                    Room::None
                };
            }
            short.push((tier, missing - hoped));
        }
        if short.is_empty() {
            return Room::Enough;
        }
        let mut leaving: Vec<(Seat<I::Model>, EvictReason, Choice)> = Vec::new();
        for (tier, missing) in short {
            let free = self.accounts[tier].room();
            let Some((victims, choice)) =
                self.choose_victims(tier, Aim::AtLeast(missing), &wanted, spares, policy)
            else {
                // A lease has slipped in since the look. What was shut in other tiers opens again.
                for (seat, ..) in &leaving {
                    seat.slot().pins.open(0);
                }
                return Room::None;
            };
            let reason = EvictReason::Room {
                wanted_for: names(&admission.asks),
                asked_bytes: plan.bytes[tier],
                free_bytes: free,
            };
            let victims = victims.into_iter();
            leaving.extend(victims.map(|seat| (seat, reason.clone(), choice.clone())));
        }
        Room::After(leaving)
    }

    /// Claims everything that a plan needs, in one step under the lock.
    fn take(&mut self, plan: Plan<I::Model>) -> Granted<I> {
        let mut tasks: Vec<Task<I>> = Vec::with_capacity(plan.loads.len());
        for (seat, route) in plan.loads {
            debug_assert_eq!(self.phase(&seat), Phase::Absent);
            let stepped = self.step(&seat, Input::Begin);
            debug_assert!(stepped.is_ok());
            let loading = self.begin_load(&seat);
            tasks.push(Task {
                seat,
                route,
                loading,
            });
        }
        let held = plan.seats.iter();
        let held = held.map(|seat| self.claim(seat, &tasks)).collect();
        let sources = plan.sources.iter();
        let sources = sources.map(|seat| self.claim(seat, &tasks)).collect();
        self.accounts[RAM].staging += plan.staging;
        self.accounts[RAM].used += plan.staging;
        for account in &mut self.accounts {
            account.reserve_besides(&plan.reserved);
        }
        self.stalled_since = None;
        Granted {
            held,
            sources,
            tasks,
            staging: plan.staging,
            reserved: plan.reserved,
            asked: plan.asked,
        }
    }

    /// Claims a model that is there, or being loaded, maybe by one of its `own` tasks.
    fn claim(&mut self, seat: &Seat<I::Model>, own: &[Task<I>]) -> Claim<I> {
        let before = self.phase(seat);
        let stepped = self.step(seat, Input::Claim);
        debug_assert!(stepped.is_ok(), "a model on its way out was claimed");
        let loading = match before {
            Phase::Resident => {
                // Doors are shut only under this lock, and this one's model is resident.
                let entered = seat.slot().pins.enter_draining();
                debug_assert!(entered);
                None
            }
            Phase::Loading { .. } | Phase::Absent | Phase::Evicting => self.load_of(seat),
        };
        let is_own = loading.as_ref().is_some_and(|loading| {
            let mut own = own.iter();
            own.any(|task| Arc::ptr_eq(&task.loading, loading))
        });
        Claim {
            seat: seat.clone(),
            loading,
            is_own,
        }
    }
}

enum Room<M> {
    Enough,
    /// Once these are gone.
    After(Vec<(Seat<M>, EvictReason, Choice)>),
    /// What was evicted for it is still held, but not for long, it is hoped.
    Hoped(u64),
    /// Others are evicting.
    Leaving,
    None,
}

fn names<M: Named>(asks: &[Ask<M>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(asks.len());
    for ask in asks {
        let name = ask.entry.model.told_name();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}
