//! The books: which model is in which phase in which tier, how many bytes count, and who waits.
//!
//! Nothing here reads a file, moves a byte or looks at a clock. Decisions are made under one short
//! lock by [`Books`]; what they lead to is done outside of it, by whoever implements [`Io`].
//!
//! | file | what |
//! |---|---|
//! | `pins` | the door between leases and eviction, without the lock |
//! | `entry` | a model in every tier: what leases reach without the lock |
//! | `account` | the bytes of one tier |
//! | `admission` | a lease's way in: granted, after evictions, later, or never |
//! | `plan` | what a lease needs, tier by tier |
//! | `choice` | which models make room |
//! | `drain` | nobody starves |
//! | `loading`, `claims`, `job` | loads under way, what an admitted lease holds of them, and their order |
//! | `holder` | who holds leases, to tell a wait that cannot end |
//! | `pending` | a lease on its way, for threads that sleep and tasks that are polled |
//! | `leaving` | a model's way out |
//! | `gate` | the lock, and the waiting |

mod account;
mod admission;
mod choice;
mod claims;
mod drain;
mod entry;
mod gate;
mod holder;
mod job;
mod leaving;
mod loading;
mod pending;
mod pins;
mod plan;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(crate) use account::{Account, Remains};
pub(crate) use admission::{Ask, Denied, Wait};
pub(crate) use choice::Choice;
pub(crate) use claims::{Route, Task};
pub(crate) use entry::{Entry, Named, Reload, Seat, Slot};
pub(crate) use gate::Gate;
pub(crate) use holder::Holder;
pub use leaving::Cleared;
pub(crate) use loading::Loading;
pub(crate) use pending::{Grant, Pending, Step};
pub(crate) use plan::Reserved;

use crate::residency::{Impossible, Input, Phase};
use plimsoll_events::EvictReason;

/// The tier that is RAM.
pub(crate) const RAM: usize = 0;

/// An error of a load, as far as the books care.
pub(crate) trait Fault: Clone + Send + Sync + 'static {
    /// How many bytes the tier's memory refused, if that was what failed: worth another try once
    /// something was evicted.
    fn wants_room(&self) -> Option<u64>;

    /// The error of all who waited for a load that a panic ended.
    fn abandoned(model: &str) -> Self;
}

/// What the books' decisions lead to.
pub(crate) trait Io: Sized + Send + Sync + 'static {
    type Model: Named + Send + Sync + 'static;
    type Error: Fault;
    /// What there is to tell of a load.
    type Told;

    /// Nanoseconds by a clock that does not jump.
    fn now_ns(&self) -> u64;

    /// Loads a model into a tier. `Ok` means that its weights can be had by whoever is inside.
    fn load(&self, task: &Task<Self>) -> (Result<(), Self::Error>, Self::Told);

    /// Tells of a load, once those who waited for it can go on.
    fn tell(&self, told: Self::Told);

    /// Drops a model's weights in a tier and tells of it, before anyone can load it again. What
    /// somebody still holds of them goes to `remains`.
    fn evict(
        &self,
        seat: &Seat<Self::Model>,
        reason: &EvictReason,
        choice: &Choice,
        remains: &mut Option<Box<dyn Remains>>,
    );

    /// Drops the weights, if they are still there: all that is left to do after a panic.
    fn discard(&self, seat: &Seat<Self::Model>, remains: &mut Option<Box<dyn Remains>>);

    /// Evictions that follow are for loads of so many bytes: their pages may be kept.
    fn expect(&self, tier: usize, bytes: u64);

    /// Those loads will not come.
    fn unexpect(&self, tier: usize, bytes: u64);

    /// Runs work on a thread of its own, or here where none can be had.
    fn spawn(&self, work: Box<dyn FnOnce() + Send>);
}

/// The rules that decisions follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Whether a model that a device holds stays in RAM too.
    pub(crate) keep_ram_copy: bool,
    /// The most that staging buffers of one lease take in RAM.
    pub(crate) staging: u64,
    /// How long the first in the queue waits before models are drained for it, nanoseconds.
    pub(crate) drain_after_ns: u64,
    /// How long a wait that cannot end goes on before it is refused; `None`: for ever.
    pub(crate) deadlock_after_ns: Option<u64>,
}

/// The least that a transfer can be staged through.
pub(crate) const LEAST_STAGING: u64 = 128 << 10;

/// What the one lock guards.
pub(crate) struct Books<I: Io> {
    records: Vec<Option<Record<I>>>,
    vacant: Vec<usize>,
    pub(crate) accounts: Vec<Account<I::Model>>,
    /// Leases that wait, first come first served in each tier.
    queue: VecDeque<Waiter>,
    next_ticket: u64,
    /// Loads and evictions under way.
    moving: usize,
    /// Since when models are drained, by the ticket of the first in the queue for whom: one in each
    /// tier at most.
    draining_since: BTreeMap<u64, u64>,
    stalled_since: Option<u64>,
    /// Of tasks that wait, by ticket: one each, however often it is polled.
    wakers: BTreeMap<u64, std::task::Waker>,
    /// When a thread that sleeps for tasks will wake them.
    alarm: Option<std::time::Instant>,
}

struct Record<I: Io> {
    entry: Arc<Entry<I::Model>>,
    places: Box<[Place<I>]>,
}

struct Place<I: Io> {
    phase: Phase,
    loading: Option<Arc<Loading<I::Error>>>,
}

struct Waiter {
    ticket: u64,
    /// Bit for each tier in which it needs room; all of them until it has looked.
    tiers: u64,
    /// Whose thread waits; `None` for tasks, which may hold leases that nobody sees.
    holder: Option<Arc<Holder>>,
}

impl<I: Io> Books<I> {
    pub(crate) fn new(accounts: Vec<Account<I::Model>>) -> Books<I> {
        Books {
            records: Vec::new(),
            vacant: Vec::new(),
            accounts,
            queue: VecDeque::new(),
            next_ticket: 0,
            moving: 0,
            draining_since: BTreeMap::new(),
            stalled_since: None,
            wakers: BTreeMap::new(),
            alarm: None,
        }
    }

    /// Makes an entry for a model that is not known yet, with what it counts in each tier.
    pub(crate) fn register(
        &mut self,
        model: I::Model,
        charges: impl IntoIterator<Item = u64>,
    ) -> Arc<Entry<I::Model>> {
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.records.push(None);
            self.records.len() - 1
        });
        let entry = Arc::new(Entry::new(key, model, charges));
        let places = self.accounts.iter().map(|_| Place {
            phase: Phase::Absent,
            loading: None,
        });
        self.records[key] = Some(Record {
            entry: Arc::clone(&entry),
            places: places.collect(),
        });
        entry
    }

    /// Forgets an entry that is in no tier. Returns whether it was forgotten.
    pub(crate) fn forget(&mut self, entry: &Entry<I::Model>) -> bool {
        let absent = self.record(entry).is_some_and(|record| {
            let mut places = record.places.iter();
            places.all(|place| place.phase == Phase::Absent)
        });
        if absent {
            entry.retire();
            self.records[entry.key] = None;
            self.vacant.push(entry.key);
        }
        absent
    }

    /// Forgets an entry that was dropped, once it is in no tier: nobody can ask for it any more.
    fn forget_dropped(&mut self, entry: &Entry<I::Model>) {
        if entry.is_retired() {
            self.forget(entry);
        }
    }

    fn record(&self, entry: &Entry<I::Model>) -> Option<&Record<I>> {
        let record = self.records.get(entry.key)?.as_ref()?;
        std::ptr::eq(Arc::as_ptr(&record.entry), entry).then_some(record)
    }

    fn place_mut(&mut self, seat: &Seat<I::Model>) -> Option<&mut Place<I>> {
        let record = self.records.get_mut(seat.entry.key)?.as_mut()?;
        Arc::ptr_eq(&record.entry, &seat.entry).then(|| &mut record.places[seat.tier])
    }

    /// Bytes that are reserved in a tier for loads that have not begun.
    pub(crate) fn awaited(&self, tier: usize) -> u64 {
        let records = self.records.iter().flatten();
        let awaited = records.filter(|record| {
            let loading = record.places[tier].loading.as_ref();
            loading.is_some_and(|loading| !loading.has_begun())
        });
        awaited.map(|record| record.entry.slots[tier].charge).sum()
    }

    /// How many models are known.
    pub(crate) fn known(&self) -> usize {
        self.records.len() - self.vacant.len()
    }

    pub(crate) fn phase(&self, seat: &Seat<I::Model>) -> Phase {
        self.phase_of(&seat.entry, seat.tier)
    }

    pub(crate) fn phase_of(&self, entry: &Entry<I::Model>, tier: usize) -> Phase {
        self.record(entry)
            .map_or(Phase::Absent, |record| record.places[tier].phase)
    }

    /// Every model that is known.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry<I::Model>>> {
        self.records.iter().flatten().map(|record| &record.entry)
    }

    /// Every model that is somewhere, or on its way, with its phases.
    pub(crate) fn somewhere(&self) -> impl Iterator<Item = (&Arc<Entry<I::Model>>, Vec<Phase>)> {
        self.records.iter().flatten().filter_map(|record| {
            let phases: Vec<Phase> = record.places.iter().map(|place| place.phase).collect();
            let is_somewhere = phases.iter().any(|phase| *phase != Phase::Absent);
            is_somewhere.then_some((&record.entry, phases))
        })
    }

    /// Moves a model to its next phase, and the bytes with it.
    pub(crate) fn step(
        &mut self,
        seat: &Seat<I::Model>,
        input: Input,
    ) -> Result<Phase, Impossible> {
        let before = self.phase(seat);
        let after = before.after(input)?;
        let Some(place) = self.place_mut(seat) else {
            return Err(Impossible {
                phase: before,
                input,
            });
        };
        place.phase = after;
        let account = &mut self.accounts[seat.tier];
        match (before, after) {
            (Phase::Absent, Phase::Loading { .. }) => {
                account.used += seat.charge();
                self.moving += 1;
            }
            (Phase::Loading { .. }, Phase::Resident) => {
                account
                    .resident
                    .insert(seat.entry.key, Arc::clone(&seat.entry));
                self.moving -= 1;
            }
            (Phase::Resident, Phase::Evicting) => {
                account.resident.remove(&seat.entry.key);
                account.leaving += 1;
                self.moving += 1;
            }
            (Phase::Loading { .. }, Phase::Absent) => {
                account.used -= seat.charge();
                self.moving -= 1;
            }
            (Phase::Evicting, Phase::Absent) => {
                account.used -= seat.charge();
                account.leaving -= 1;
                self.moving -= 1;
            }
            _ => {}
        }
        if after == Phase::Absent {
            self.forget_dropped(&seat.entry);
        }
        Ok(after)
    }

    fn load_of(&self, seat: &Seat<I::Model>) -> Option<Arc<Loading<I::Error>>> {
        self.record(&seat.entry)?.places[seat.tier].loading.clone()
    }

    fn begin_load(&mut self, seat: &Seat<I::Model>) -> Arc<Loading<I::Error>> {
        let loading = Arc::new(Loading::default());
        if let Some(place) = self.place_mut(seat) {
            place.loading = Some(Arc::clone(&loading));
        }
        loading
    }

    fn end_load(&mut self, seat: &Seat<I::Model>) {
        if let Some(place) = self.place_mut(seat) {
            place.loading = None;
        }
    }

    /// Stops counting what is no longer held. Returns whether any was.
    pub(crate) fn reap(&mut self) -> bool {
        let reaped = self.accounts.iter_mut().map(Account::reap);
        reaped.fold(false, |any, one| any | one)
    }

    fn enqueue(&mut self, holder: Option<Arc<Holder>>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.requeue(ticket, holder);
        ticket
    }

    /// Puts a waiter where its ticket belongs.
    fn requeue(&mut self, ticket: u64, holder: Option<Arc<Holder>>) {
        let at = self.queue.partition_point(|one| one.ticket < ticket);
        let waiter = Waiter {
            ticket,
            tiers: u64::MAX,
            holder,
        };
        self.queue.insert(at, waiter);
    }

    fn dequeue(&mut self, ticket: u64) {
        self.queue.retain(|waiter| waiter.ticket != ticket);
        self.stalled_since = None;
    }

    /// Whether nobody who came earlier needs room in these tiers.
    fn is_first(&self, ticket: u64, tiers: u64) -> bool {
        let earlier = self.queue.iter().take_while(|one| one.ticket != ticket);
        earlier.fold(0, |all, one| all | one.tiers) & tiers == 0
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether a wait that cannot end is to be ended by refusing this lease: the last to come of
    /// those whose threads hold leases, since its refusal may free something; else the first.
    fn gives_way(&self, ticket: u64) -> bool {
        let holds = |waiter: &&Waiter| {
            let holder = waiter.holder.as_ref();
            holder.is_some_and(|holder| holder.pins() > 0)
        };
        let last = self.queue.iter().rev().find(holds);
        last.or(self.queue.front())
            .is_some_and(|waiter| waiter.ticket == ticket)
    }

    /// Since when nobody can go on: everything that leases pin is pinned by threads that wait here
    /// themselves, and nothing is moving. With how many pins there are.
    fn stalled(&mut self, now_ns: u64) -> Option<(u64, usize)> {
        let pins: usize = self
            .accounts
            .iter()
            .flat_map(|account| account.resident.iter().map(move |one| (account, one)))
            .map(|(account, (_, entry))| entry.slots[account.tier].pins.count() as usize)
            .sum();
        let by_waiting: Option<usize> = self
            .queue
            .iter()
            .map(|waiter| waiter.holder.as_ref().map(|holder| holder.pins()))
            .sum();
        let any_held = self.accounts.iter().any(Account::any_held);
        if self.moving > 0 || any_held || by_waiting != Some(pins) {
            self.stalled_since = None;
            return None;
        }
        Some((*self.stalled_since.get_or_insert(now_ns), pins))
    }
}
