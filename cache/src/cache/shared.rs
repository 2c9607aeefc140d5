//! What all handles of a cache and all its leases share.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use malloc_stats::size::Size;
use plimsoll_events::{EvictReason, Kind, Refuse, RefuseReason};

use super::budgets::Budgets;
use super::items::Item;
use super::keeper::Keeper;
use super::known::{Known, Registry};
use super::partial::KnownDivisions;
use super::patched::KnownPatches;
use super::ticks::Ticking;
use super::wanted::Wanted;
use super::{Entry, Gate, Seat};
use crate::books::{Denied, Fault, Holder, Io, Pending, RAM, Reserved, Wait};
use crate::device::Tier;
use crate::error::{Error, LoadError};
use crate::lease::{Held, Lease};
use crate::model::Model;

pub(crate) struct Shared {
    /// Tells caches apart, for the place in a model that remembers its entry.
    id: u64,
    /// Declared before the gate: their threads end before what they look after.
    _keeper: Keeper,
    pub(super) ticking: Ticking,
    pub(crate) gate: Arc<Gate>,
    pub(super) registry: Registry,
    /// RAM first.
    tiers: Vec<Tier>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) patches: KnownPatches,
    pub(super) divisions: KnownDivisions,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("devices", &self.gate.io.devices)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// What this thread holds of each cache.
    static HOLDERS: RefCell<Vec<(u64, Arc<Holder>)>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    pub(super) fn new(
        keeper: Keeper,
        ticking: Ticking,
        gate: Arc<Gate>,
        tiers: Vec<Tier>,
        budgets: Arc<Budgets>,
    ) -> Shared {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            _keeper: keeper,
            ticking,
            gate,
            registry: Registry::default(),
            tiers,
            budgets,
            patches: KnownPatches::default(),
            divisions: KnownDivisions::default(),
        }
    }

    /// What this thread holds of this cache.
    fn holder(&self) -> Arc<Holder> {
        HOLDERS.with_borrow_mut(|holders| {
            if let Some((_, holder)) = holders.iter().find(|(id, _)| *id == self.id) {
                return Arc::clone(holder);
            }
            // Those of other caches that no lease counts in any more.
            holders.retain(|(_, holder)| Arc::strong_count(holder) > 1);
            let holder = Arc::new(Holder::default());
            holders.push((self.id, Arc::clone(&holder)));
            holder
        })
    }

    /// The position of a tier in this cache.
    pub(crate) fn tier(&self, tier: Tier) -> Option<usize> {
        self.tiers.iter().position(|known| *known == tier)
    }

    /// The tier at a position.
    pub(crate) fn tier_at(&self, position: usize) -> Tier {
        self.tiers[position]
    }

    /// The entry of a model: remembered in the model, else looked up by what its files are.
    pub(crate) fn entry(&self, model: &Model) -> Arc<Entry> {
        if let Some(entry) = model.remembered_by(self.id, |entry: &Entry| !entry.is_retired()) {
            return entry;
        }
        let devices = &self.gate.io.devices;
        let base = model.base().map(|base| self.entry(base));
        let make = || {
            let charges = devices.iter().map(|device| device.charge(model));
            let known = Known::new(model.clone(), base, devices.len());
            self.gate.books().register(known, charges)
        };
        let forget = |entry: &Arc<Entry>| self.gate.books().forget(entry);
        let entry = self.registry.entry(model, make, forget);
        model.remember(self.id, &entry);
        entry
    }

    /// The way of every lease: pins what is resident without a lock; else is admitted.
    pub(crate) fn lease<'a, W: Into<Wanted<'a>>>(
        self: &Arc<Self>,
        wanted: impl IntoIterator<Item = W>,
        wait: Wait,
    ) -> Result<Lease, Error> {
        let wanted: Vec<Wanted<'a>> = wanted.into_iter().map(Into::into).collect();
        match self.hit(&wanted) {
            Some(lease) => Ok(lease),
            None => self.admit(&wanted, wait),
        }
    }

    /// A lease on what is resident in the first tiers of choice, without a lock; `None` where any
    /// of it is not, or where more is asked for than pins.
    pub(super) fn hit(self: &Arc<Self>, wanted: &[Wanted<'_>]) -> Option<Lease> {
        if wanted.is_empty() || !wanted.iter().all(Wanted::is_plain) {
            return None;
        }
        let mut held: Vec<Held> = Vec::with_capacity(wanted.len());
        for one in wanted {
            let entry = self.entry(one.model);
            let tier = self.tier(one.terms.first);
            let seat = tier.map(|tier| Seat { entry, tier });
            match seat {
                Some(seat) if held.iter().any(|had| had.seat == seat) => {}
                Some(seat) if seat.slot().pins.enter() => held.push(Held::new(seat)),
                _ => {
                    self.gate
                        .leave(held.iter().map(|had| &had.seat), &Reserved::default());
                    return None;
                }
            }
        }
        if held.iter().any(|one| self.checked(&one.seat).is_err()) {
            self.gate
                .leave(held.iter().map(|had| &had.seat), &Reserved::default());
            return None;
        }
        let now_ns = self.gate.io.now_ns();
        for one in &held {
            one.seat.slot().leased(now_ns, true);
        }
        let holder = self.holder();
        holder.holds(held.len());
        let (items, reserved) = (Vec::new(), Reserved::default());
        Some(Lease::new(
            Arc::clone(self),
            held,
            items,
            reserved,
            Some(holder),
        ))
    }

    /// Admits a lease: waits for room, loads what is missing.
    fn admit(self: &Arc<Self>, wanted: &[Wanted<'_>], wait: Wait) -> Result<Lease, Error> {
        let mut items = self.items(wanted)?;
        let holder = self.holder();
        self.prepare(&items)?;
        let asks = self.asks(&items);
        let mut pending = Pending::new(&self.gate, asks, Some(Arc::clone(&holder)));
        loop {
            // What can do with less does not wait for more.
            let in_a_hurry = matches!(wait, Wait::Never) || items.iter().any(Item::is_trying);
            match self.gate.lease_if(&mut pending, wait, in_a_hurry) {
                Ok(grant) => {
                    let lease = self.hand_out(&items, grant, Some(holder));
                    drop(pending);
                    lease.settle_in(wait)?;
                    return Ok(lease);
                }
                Err(denied) => self.after(denied, &mut items, wait)?,
            }
            self.prepare(&items)?;
            pending.ask_again(self.asks(&items));
        }
    }

    /// Whether a resident model that is pinned is still what was loaded.
    fn checked(&self, seat: &Seat) -> Result<(), Error> {
        // Nothing but mapped files changes by itself.
        if self.gate.io.devices[seat.tier].page_cache_bytes() == 0 {
            return Ok(());
        }
        match seat.entry.model.weights(seat.tier) {
            Some(weights) => weights.check(),
            None => Ok(()),
        }
    }

    /// Drops a model that is resident and no longer what was loaded.
    fn drop_if_poisoned(&self, entry: &Arc<Entry>) -> Result<(), Error> {
        for tier in 0..self.tiers.len() {
            let seat = Seat::new(entry, tier);
            let is_mapped = self.gate.io.devices[tier].page_cache_bytes() > 0;
            if !is_mapped || !seat.slot().pins.enter_draining() {
                continue;
            }
            let checked = self.checked(&seat);
            self.gate
                .leave(std::iter::once(&seat), &Reserved::default());
            if let Err(error) = checked {
                self.drop_poisoned(&seat.entry, &error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What comes before every attempt at a lease: budgets that follow are measured, and files that
    /// will have to be read are looked at, since a dead file is not to cost a good model; so are
    /// files that are mapped, and what of them is resident.
    pub(super) fn prepare(&self, items: &[Item]) -> Result<(), Error> {
        self.budgets.before_lease(&self.gate);
        self.gate.look_at_page_cache();
        for item in items {
            // Parts come from the whole.
            self.drop_if_poisoned(&self.entry(&item.model))?;
            for (model, _) in item.models(|_| false) {
                let entry = self.entry(model);
                self.drop_if_poisoned(&entry)?;
                let there = |tier: &usize| entry.slots[*tier].pins.is_open();
                // What is made of a model is not brought from a copy of its own.
                let is_in_ram = model.base().is_none() && there(&RAM);
                if item.tiers.iter().any(there) || is_in_ram {
                    continue;
                }
                if let Err(error) = model.changed() {
                    let error = Error::from(LoadError::from(error));
                    self.gate
                        .io
                        .tell_stale(&Seat::new(&entry, item.tiers[0]), &error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Drops a model: it goes with the last of its leases, and the next to ask gets fresh bytes.
    /// Returns whether it is gone already.
    pub(super) fn drop_entry(&self, entry: &Arc<Entry>) -> bool {
        let model = &entry.model.model;
        self.patches.forget(model);
        self.divisions.forget(model);
        let mut is_gone = true;
        for entry in std::iter::once(entry).chain(&self.made_of(entry)) {
            self.registry.remove(entry);
            is_gone &= self.gate.drop_entry(entry, &EvictReason::Dropped);
        }
        is_gone
    }

    /// What is made of a model: parts of it, and tensors that patches have changed.
    pub(super) fn made_of(&self, entry: &Arc<Entry>) -> Vec<Arc<Entry>> {
        let books = self.gate.books();
        let of_it = |made: &&Arc<Entry>| {
            let base = made.model.base.as_ref();
            // It may have been met while the entry that its model had then was dropped. What was
            // dropped itself waits for its leases alone.
            !made.is_retired() && base.is_some_and(|base| base.model.is_of(&entry.model.model))
        };
        books.entries().filter(of_it).cloned().collect()
    }

    /// A model and what is made of it.
    pub(super) fn with_made(&self, entry: &Arc<Entry>) -> Vec<Arc<Entry>> {
        let mut all = vec![Arc::clone(entry)];
        all.extend(self.made_of(entry));
        all
    }

    /// Drops a model whose files have changed while they were mapped, and says so.
    pub(crate) fn drop_poisoned(&self, entry: &Arc<Entry>, error: &Error) {
        // Of several leases of it, the first says so.
        let is_news = !entry.is_retired();
        self.drop_entry(entry);
        if is_news {
            let text = error.to_string();
            tracing::warn!("{text}");
            self.gate.io.stream.emit(Kind::Note { text });
        }
    }

    /// Tells of something.
    pub(crate) fn tell(&self, kind: Kind) {
        self.gate.io.stream.emit(kind);
    }

    /// What follows a lease that was not given: another attempt, or the error.
    pub(super) fn after(
        &self,
        denied: Denied<Error>,
        items: &mut [Item],
        wait: Wait,
    ) -> Result<(), Error> {
        let (reason, tier, asked) = match denied {
            // Asked for again, they have other entries.
            Denied::Retired => return Ok(()),
            Denied::Exceeds { .. } | Denied::NoRoom { .. } if items.iter().any(Item::is_trying) => {
                return self.try_next(items);
            }
            Denied::Load(error)
                if error.wants_room().is_some() && items.iter().any(Item::is_trying) =>
            {
                return self.try_next(items);
            }
            Denied::Load(error) => {
                if error.wants_room().is_some() && self.fall_back(&error, items)? {
                    return Ok(());
                }
                return Err(error);
            }
            Denied::Exceeds { tier, asked } => (RefuseReason::ExceedsBudget, tier, asked),
            Denied::NoRoom { tier, asked } => (RefuseReason::Leased, tier, asked),
            Denied::Timeout { tier, asked } => (RefuseReason::Timeout, tier, asked),
            Denied::Deadlock { tier, asked } => (RefuseReason::Deadlock, tier, asked),
        };
        let (budget, pinned, free) = {
            let books = self.gate.books();
            let account = &books.accounts[tier];
            (account.budget, account.pinned(), account.room())
        };
        let mut models: Vec<String> = Vec::new();
        for item in items.iter() {
            if !models.iter().any(|name| name == item.name()) {
                models.push(item.name().to_owned());
            }
        }
        let position = tier;
        let tier = self.gate.io.tier_name(tier).to_owned();
        tracing::debug!(
            ?models,
            ?reason,
            asked = %Size(asked),
            budget = %Size(budget),
            "refused"
        );
        self.gate.io.tell_hits();
        self.gate.io.stream.emit(Kind::Refuse(Box::new(Refuse {
            models: models.clone(),
            tier: tier.clone(),
            reason,
            asked_bytes: asked,
            budget_bytes: budget,
            pinned_bytes: pinned,
        })));
        Err(match reason {
            RefuseReason::ExceedsBudget => Error::ExceedsBudget {
                models,
                tier,
                asked,
                budget,
                partial: self.partial_offer(items, position, budget),
            },
            RefuseReason::Leased => Error::NoRoom {
                models,
                tier,
                asked,
                free,
                budget,
                pinned,
            },
            RefuseReason::Timeout => Error::Timeout {
                models,
                tier,
                asked,
                budget,
                pinned,
                waited: wait.waited(),
            },
            RefuseReason::Deadlock => Error::Deadlock {
                models,
                tier,
                asked,
                budget,
                pinned,
            },
        })
    }

    /// Where the memory of a device has failed, leaves it to the next tier of choice. Returns
    /// whether there is one.
    fn fall_back(&self, error: &Error, items: &mut [Item]) -> Result<bool, Error> {
        let Error::Load(error) = error else {
            return Ok(false);
        };
        let LoadError::OutOfMemory { device, model, .. } = &**error else {
            return Ok(false);
        };
        let mut fell = false;
        for item in items {
            let mut models = item.models(|_| false).into_iter();
            let is_of_it = models.any(|(one, _)| one.name() == model);
            let mut tiers = item.tiers.iter().copied();
            let failed = tiers.find(|tier| self.gate.io.tier_name(*tier) == device);
            if let Some(failed) = failed.filter(|_| is_of_it && item.tiers.len() > 1) {
                self.leave_out(item, failed)?;
                fell = true;
            }
        }
        Ok(fell)
    }
}
