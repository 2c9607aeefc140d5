//! Where everything is.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slotted;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plimsoll_events::{Memory, ModelPicture, PageCache, Picture, PlacePicture, TierPicture};

use super::{Cache, Entry, Gate};
use crate::books::{Io, RAM, Slot};
use crate::device::Tier;
use crate::model::ModelId;
use crate::residency::Phase;

/// Where a tier's bytes are at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The budget, bytes.
    pub budget_bytes: u64,
    /// Bytes that count: reserved, resident, on their way out, held after eviction, staging.
    pub used_bytes: u64,
    /// The part that was evicted while tensors still held it.
    pub held_bytes: u64,
    /// The part that cannot be freed at this moment.
    pub pinned_bytes: u64,
    /// The part that is staging buffers of loads under way, and pools of partial leases.
    pub staging_bytes: u64,
    /// Working memory that leases have declared. Not in `used_bytes`.
    pub working_bytes: u64,
    /// Pages that wait for a load under way to use them. Not in `used_bytes`: the load that they
    /// wait for has reserved them.
    pub recyclable_bytes: u64,
    /// Models resident.
    pub resident_models: usize,
}

impl Cache {
    /// Where the bytes of RAM are, in one consistent picture.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage_of(Tier::RAM).unwrap_or_default()
    }

    /// Where the bytes of a tier are; `None` where this cache has no such device.
    #[must_use]
    pub fn usage_of(&self, tier: impl Into<Tier>) -> Option<Usage> {
        let tier = self.shared.tier(tier.into())?;
        let gate = &self.shared.gate;
        let recyclable_bytes = gate.io.devices[tier].kept_bytes();
        let mut books = gate.books();
        books.reap();
        let account = &books.accounts[tier];
        Some(Usage {
            budget_bytes: account.budget,
            used_bytes: account.used(),
            held_bytes: account.held_bytes(),
            pinned_bytes: account.pinned(),
            staging_bytes: account.staging_bytes(),
            working_bytes: account.working_bytes(),
            recyclable_bytes,
            resident_models: account.resident().len(),
        })
    }

    /// Which models are where, in every tier, in one consistent picture. What of mapped ones is
    /// resident is looked at once a second at most.
    #[must_use]
    pub fn residency(&self) -> Picture {
        self.shared.gate.look_at_page_cache();
        self.shared.gate.picture()
    }

    /// How many models this cache knows: those that somebody has a handle of, or that are in some
    /// tier, and some that it has not forgotten yet.
    #[must_use]
    pub fn known_models(&self) -> usize {
        self.shared.gate.books().known()
    }

    /// What counts as memory in use on this host: weights that have arrived in RAM and on devices
    /// that only pretend to be some, evicted ones included while somebody holds them.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.shared.gate.memory()
    }

    /// Sends what the fast path has counted since the last time as an event.
    pub fn tell_hits(&self) {
        self.shared.gate.io.tell_hits();
    }
}

impl Gate {
    pub(super) fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        {
            let mut books = self.books();
            books.reap();
            for account in &books.accounts {
                let tier = account.tier;
                if tier != RAM && !self.io.devices[tier].is_simulated() {
                    continue;
                }
                let arriving = if tier == RAM {
                    self.io.arriving.load(Ordering::Relaxed)
                } else {
                    0
                };
                let there = account.used().saturating_sub(books.awaited(tier));
                let there = there.saturating_sub(arriving);
                memory.live_bytes = memory.live_bytes.saturating_add(there);
                memory.held_bytes = memory.held_bytes.saturating_add(account.held_bytes());
            }
        }
        memory.churn_bytes = self.io.about.besides.as_ref().map_or(0, |bytes| bytes());
        memory
    }

    pub(super) fn picture(&self) -> Picture {
        let now_ns = self.io.now_ns();
        // Drivers take their time, so they are asked before the books are open.
        let mut figures: Vec<_> = self
            .io
            .devices
            .iter()
            .map(|device| device.figures().map(Box::new))
            .collect();
        let locked = self
            .io
            .devices
            .iter()
            .map(|device| device.page_locked_bytes());
        let locked: Vec<u64> = locked.collect();
        let mut books = self.books();
        books.reap();
        let tiers = books.accounts.iter().map(|account| TierPicture {
            tier: self.io.tier_name(account.tier).to_owned(),
            simulated: self.io.devices[account.tier].is_simulated(),
            budget_bytes: account.budget,
            used_bytes: account.used(),
            pinned_bytes: account.pinned(),
            held_bytes: account.held_bytes(),
            staging_bytes: account.staging_bytes(),
            working_bytes: account.working_bytes(),
            reserve_bytes: account.reserve,
            resident_models: account.resident().len() as u64,
            page_cache: account
                .resident()
                .filter_map(|entry| page_cache(entry, account.tier))
                .reduce(PageCache::plus),
            page_locked_bytes: locked[account.tier],
            device: figures[account.tier].take(),
        });
        let pictured = |entry: &Arc<Entry>, phases: &[Phase]| ModelPicture {
            model: entry.model.told_name().to_owned(),
            bytes: entry.model.whole().bytes(),
            places: phases
                .iter()
                .enumerate()
                .filter_map(|(tier, phase)| {
                    let slot = &entry.slots[tier];
                    let is_resident = *phase == Phase::Resident;
                    let (phase, leases) = match phase {
                        Phase::Absent => return None,
                        Phase::Loading { claims } => ("loading", u64::from(*claims)),
                        Phase::Resident => ("resident", slot.pins.count() + slot.preferred()),
                        Phase::Evicting => ("evicting", 0),
                    };
                    Some(PlacePicture {
                        tier: self.io.tier_name(tier).to_owned(),
                        phase: phase.to_owned(),
                        charged_bytes: slot.charge,
                        leases,
                        idle_ms: idle_ms(slot, now_ns).filter(|_| is_resident && leases == 0),
                        score: is_resident
                            .then(|| books.score(entry, tier, self.policy.as_ref()))
                            .filter(|score| score.is_finite()),
                        reload_us: Some(books.reload_ns(entry, tier))
                            .filter(|ns| *ns > 0)
                            .map(|ns| ns.div_ceil(1000)),
                        page_cache: page_cache(entry, tier),
                        part_bytes: entry
                            .model
                            .model
                            .is_part()
                            .then(|| entry.model.model.bytes()),
                    })
                })
                .collect(),
            dropped: entry.is_retired(),
        };
        // Parts of a model show as one, which is there in part.
        let mut models: Vec<ModelPicture> = Vec::new();
        let mut in_parts: HashMap<ModelId, usize> = HashMap::new();
        for (entry, phases) in books.somewhere() {
            let one = pictured(entry, &phases);
            if !entry.model.model.is_part() {
                models.push(one);
                continue;
            }
            match in_parts.entry(entry.model.whole().id()) {
                Slotted::Occupied(at) => models[*at.get()].add(one),
                Slotted::Vacant(at) => {
                    at.insert(models.len());
                    models.push(one);
                }
            }
        }
        Picture {
            policy: self.policy.name().to_owned(),
            tiers: tiers.collect(),
            models,
            waiting: books.waiting() as u64,
        }
    }
}

/// What of a model is mapped files, by the last look.
fn page_cache(entry: &Entry, tier: usize) -> Option<PageCache> {
    let seen = entry.model.page_cache_seen().filter(|_| tier == RAM)?;
    Some(PageCache {
        mapped_bytes: seen.mapped_bytes,
        resident: seen.resident,
        reload: seen.reload(),
    })
}

/// How long nobody has leased a model, where anybody ever did.
fn idle_ms(slot: &Slot, now_ns: u64) -> Option<u64> {
    let last_ns = slot.last_leased_ns.load(Ordering::Relaxed);
    (last_ns > 0).then(|| now_ns.saturating_sub(last_ns) / 1_000_000)
}

/// The tier that is RAM comes first.
const _: () = assert!(RAM == 0);
