//! A cache with a device, everything that is leased of it, and what has to hold of that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Lease, Leased, LoadObserver, Model, Snapshots, Storage, Tier, Wanted};
use safetensors::Dtype;

use super::besides::added;
use super::definitions::{Base, Lora, half_ulp, rounded_once};
use super::files::decode;

/// How patches are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Merged,
    Beside,
    ByRoom,
}

/// A base, and patches at strengths.
#[derive(Debug, Clone)]
pub struct Asked {
    pub base: usize,
    pub with: Vec<(usize, f64)>,
    pub way: Way,
}

/// Models, and what can be had with each.
pub struct Fixtures {
    pub bases: Vec<Base>,
    /// By base.
    pub loras: Vec<Vec<Arc<Lora>>>,
}

impl Fixtures {
    pub fn with(&self, asked: &Asked) -> Vec<(&Lora, f64)> {
        let loras = &self.loras[asked.base];
        let with = asked.with.iter();
        with.map(|(lora, strength)| (&*loras[*lora], *strength))
            .collect()
    }

    pub fn wanted(&self, asked: &Asked, tier: Tier) -> Wanted<'_> {
        let mut wanted = self.bases[asked.base].model.on(tier);
        for (lora, strength) in self.with(asked) {
            wanted = wanted.with(&lora.patch, strength);
        }
        match asked.way {
            Way::Merged => wanted.merged(),
            Way::Beside => wanted.beside(),
            Way::ByRoom => wanted,
        }
    }
}

/// A lease, and what it has to give.
pub struct Live {
    pub lease: Lease,
    pub tier: Tier,
    pub items: Vec<Item>,
}

/// One of its models.
pub struct Item {
    /// What each tensor of the model has to be, by its name.
    pub tensors: Vec<(String, Vec<u8>)>,
    /// What it pins, with what that counts.
    pub pins: BTreeMap<Pin, u64>,
}

/// A name and bytes: patches are called the same whichever of their tensors a model takes.
type Pin = (String, u64);

/// Has reads fail.
#[derive(Default)]
pub struct Failing {
    /// How many reads from now the one is that fails; 0 for none.
    pub after: AtomicU64,
}

impl LoadObserver for Failing {
    fn before_read(&self, _: &Path, _: u64, _: u64) -> std::io::Result<()> {
        let counted = self
            .after
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |after| {
                after.checked_sub(1)
            });
        match counted {
            Ok(1) => Err(std::io::Error::other("injected")),
            _ => Ok(()),
        }
    }
}

pub struct World<'a> {
    pub fixtures: &'a Fixtures,
    pub storage: Storage,
    pub cache: Cache,
    pub gpu: Arc<Simulated>,
    pub failing: Arc<Failing>,
    pub live: Vec<Live>,
    /// For messages.
    pub at: String,
    memory: u64,
}

/// Whole pages for tensors that each begin on a cache line.
fn pages(bytes: impl Iterator<Item = u64>) -> u64 {
    let end = bytes.fold(0_u64, |end, bytes| end.next_multiple_of(64) + bytes);
    end.next_multiple_of(4096).max(4096)
}

impl<'a> World<'a> {
    pub fn new(fixtures: &'a Fixtures, storage: Storage, ram: u64, there: u64) -> World<'a> {
        let gpu = Arc::new(Simulated::new(there));
        let failing = Arc::new(Failing::default());
        let cache = Cache::builder()
            .ram(ram)
            .storage(storage)
            .device(Arc::clone(&gpu), there)
            .snapshots(Snapshots::Bracket)
            .observer(Arc::<Failing>::clone(&failing))
            .build()
            .unwrap();
        World {
            fixtures,
            storage,
            cache,
            gpu,
            failing,
            live: Vec::new(),
            at: String::new(),
            memory: there,
        }
    }

    pub fn tiers(&self) -> [Tier; 2] {
        [Tier::RAM, self.gpu.tier()]
    }

    /// What something that is made counts in a tier.
    fn charge(&self, tier: Tier, bytes: impl Iterator<Item = u64>) -> u64 {
        match (tier == Tier::RAM, self.storage) {
            (true, Storage::Heap) => bytes.sum(),
            _ => pages(bytes),
        }
    }

    /// Takes a lease in, and looks closely at all that it gives.
    pub fn note(&mut self, asked: &[Asked], lease: Lease, tier: Tier) {
        let mut items: Vec<Item> = Vec::new();
        let mut place = 0;
        let mut known: Vec<String> = Vec::new();
        for one in asked {
            let acts: Vec<_> = one.with.iter().filter(|(_, by)| *by != 0.0).collect();
            let key = format!("{} {acts:?}", one.base);
            if known.contains(&key) {
                continue;
            }
            known.push(key);
            let leased = lease.at(place).unwrap();
            place += 1;
            items.push(self.item(one, &leased, tier));
        }
        assert_eq!(lease.models().count(), items.len(), "{}", self.at);
        self.live.push(Live { lease, tier, items });
    }

    fn item(&self, asked: &Asked, leased: &Leased<'_>, tier: Tier) -> Item {
        let base = &self.fixtures.bases[asked.base];
        let mut with = self.fixtures.with(asked);
        with.retain(|(_, strength)| *strength != 0.0);
        assert_eq!(leased.tier(), tier, "{}", self.at);
        assert_eq!(leased.model().name(), base.model.name());
        let is_merged = leased.is_merged();
        match (with.is_empty(), asked.way) {
            (true, _) => assert_eq!(is_merged, None),
            (false, Way::Merged) => assert_eq!(is_merged, Some(true)),
            (false, Way::Beside) => assert_eq!(is_merged, Some(false)),
            (false, Way::ByRoom) => assert!(is_merged.is_some()),
        }
        assert_eq!(leased.unmatched().count(), 0);
        let mut tensors = Vec::new();
        let mut pins = BTreeMap::new();
        let device: &dyn Device = self.gpu.as_ref();
        let whole = match tier == Tier::RAM {
            true => self.storage.charge(&base.model),
            false => device.charge(&base.model),
        };
        pins.insert((base.model.name().to_owned(), base.model.bytes()), whole);
        let mut made = Vec::new();
        for tensor in &base.tensors {
            let is_changed = with
                .iter()
                .any(|(lora, _)| lora.of(&tensor.name).next().is_some());
            let (bytes, shape) = match is_changed && is_merged == Some(true) {
                true => base.merged(&tensor.name, &with),
                false => (tensor.bytes.clone(), tensor.shape.clone()),
            };
            let (exact, roundings) = base.exact(&tensor.name, &with);
            if is_changed && is_merged == Some(true) {
                made.push(bytes.len() as u64);
                let found = decode(base.dtype, &bytes);
                rounded_once(base.dtype, &found, &exact, roundings);
            }
            if is_merged == Some(false) {
                let added = added(leased, &tensor.name, &tensor.numbers);
                assert_eq!(added.len(), exact.len(), "{}", tensor.name);
                for (found, (exact, size)) in added.iter().zip(&exact) {
                    let bound = size * 1e-14 + half_ulp(Dtype::F32, *exact) * 1e-6;
                    assert!(
                        (found - exact).abs() <= bound,
                        "{}: {}",
                        self.at,
                        tensor.name
                    );
                }
            }
            let as_tensor = leased.tensor(&tensor.name).unwrap();
            assert_eq!(as_tensor.dims(), shape);
            assert_eq!(&*leased.info(&tensor.name).unwrap().shape, shape);
            tensors.push((tensor.name.clone(), bytes));
        }
        match is_merged {
            None => assert_eq!(leased.patched_bytes(), 0),
            Some(true) => {
                assert_eq!(leased.patched_bytes(), made.iter().sum::<u64>());
                let sum = made.iter().sum();
                let charge = self.charge(tier, made.into_iter());
                pins.insert((leased.name().into_owned(), sum), charge);
            }
            Some(false) => {
                let mut all = 0;
                for (lora, _) in &with {
                    let (name, bytes) = factors(lora, &base.model);
                    let sum: u64 = bytes.iter().sum();
                    let charge = self.charge(tier, bytes.into_iter());
                    if pins.insert((name, sum), charge).is_none() {
                        all += sum;
                    }
                }
                assert_eq!(leased.patched_bytes(), all, "{}", self.at);
            }
        }
        let item = Item { tensors, pins };
        verify(&item, leased, &self.at);
        item
    }

    /// How many models leases hold, each for each lease.
    pub fn pins(&self) -> u64 {
        let of = |live: &Live| {
            let all: BTreeSet<&Pin> = live
                .items
                .iter()
                .flat_map(|item| item.pins.keys())
                .collect();
            all.len() as u64
        };
        self.live.iter().map(of).sum()
    }

    /// What has to hold at every moment.
    pub fn check(&self) {
        for live in &self.live {
            for (place, item) in live.items.iter().enumerate() {
                verify(item, &live.lease.at(place).unwrap(), &self.at);
            }
            live.lease.check().unwrap();
        }
        // What a lease evicted that was given up goes on its way by another thread.
        let mut picture = self.cache.residency();
        super::support::until("nothing moves", || {
            picture = self.cache.residency();
            let mut places = picture.models.iter().flat_map(|model| &model.places);
            let staging = picture.tiers.iter().map(|tier| tier.staging_bytes);
            places.all(|place| place.phase == "resident") && staging.sum::<u64>() == 0
        });
        assert_eq!(picture.waiting, 0, "{}", self.at);
        for (tier, seen) in self.tiers().into_iter().zip(&picture.tiers) {
            let mut charges: BTreeMap<Pin, u64> = BTreeMap::new();
            let mut leases: BTreeMap<Pin, u64> = BTreeMap::new();
            for live in self.live.iter().filter(|live| live.tier == tier) {
                let mut pinned: Vec<&Pin> = Vec::new();
                for (pin, charge) in live.items.iter().flat_map(|item| &item.pins) {
                    charges.insert(pin.clone(), *charge);
                    if !pinned.contains(&pin) {
                        pinned.push(pin);
                        *leases.entry(pin.clone()).or_insert(0) += 1;
                    }
                }
            }
            let (mut found, mut sum) = (BTreeMap::new(), 0);
            for model in &picture.models {
                let mut places = model.places.iter();
                let Some(place) = places.find(|place| place.tier == seen.tier) else {
                    continue;
                };
                assert_eq!(place.phase, "resident", "{}", self.at);
                sum += place.charged_bytes;
                let pin = (model.model.clone(), model.bytes);
                if let Some(charge) = charges.get(&pin) {
                    assert_eq!(place.charged_bytes, *charge, "{}: {pin:?}", self.at);
                }
                if place.leases > 0 {
                    *found.entry(pin).or_insert(0) += place.leases;
                }
            }
            assert_eq!(
                found, leases,
                "{}: what is pinned in {}",
                self.at, seen.tier
            );
            assert_eq!(seen.staging_bytes, 0, "{}", self.at);
            assert_eq!(seen.used_bytes, sum + seen.held_bytes, "{}", self.at);
            assert!(seen.used_bytes <= seen.budget_bytes, "{}", self.at);
            assert_eq!(seen.held_bytes, 0, "{}", self.at);
        }
        let there = self.memory - self.gpu.memory().free.bytes().unwrap();
        assert_eq!(picture.tiers[1].used_bytes, there, "{}", self.at);
    }

    /// Lets go of everything: every byte comes back.
    pub fn end(mut self) {
        self.live.clear();
        self.check();
        self.cache.clear();
        for tier in self.tiers() {
            assert_eq!(
                self.cache.usage_of(tier).unwrap().used_bytes,
                0,
                "{}",
                self.at
            );
        }
        assert_eq!(self.gpu.memory().free.bytes(), Some(self.memory));
    }
}

/// The tensors of a patch that change a model, as they count: by the name, and their bytes.
fn factors(lora: &Lora, base: &Model) -> (String, Vec<u64>) {
    let patch = &lora.patch;
    let fit = patch
        .fit(base, plimsoll_cache::patch::Strictness::Strict)
        .unwrap();
    let mut taken: Vec<usize> = fit
        .edits
        .iter()
        .flat_map(|edit| edit.change.tensors())
        .collect();
    taken.sort_unstable();
    taken.dedup();
    let tensors = patch.model().tensors();
    (
        patch.model().name().to_owned(),
        taken.into_iter().map(|at| tensors[at].bytes).collect(),
    )
}

/// Every tensor, as bytes.
#[track_caller]
fn verify(item: &Item, leased: &Leased<'_>, at: &str) {
    for (name, bytes) in &item.tensors {
        assert!(*leased.bytes(name).unwrap() == bytes[..], "{at}: {name}");
    }
}
