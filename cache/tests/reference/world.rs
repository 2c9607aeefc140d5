//! A cache, everything that is held of it, and what is done to it.

use std::ops::AddAssign;
use std::sync::Arc;

use candle_core::Tensor;
use plimsoll_cache::device::{Device, Fault, Simulated};
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Error, Lease, LoadError, Model, Snapshots, Storage, Tier, Wanted};
use plimsoll_events::Stream;

use crate::events::{Books, index};
use crate::model::{Seat, Situation};
use crate::patches;
use crate::random::Random;
use crate::support::Folder;
use crate::waiting::Waiting;

pub const PAGE: u64 = 4096;
const MODELS: usize = 8;
/// The model that there is a patch for, and what is merged of both: a model to the books.
pub const BASE: usize = MODELS - 1;
pub const MERGED: usize = MODELS;
pub const ALL: usize = MODELS + 1;
/// What the patch changes.
pub const CHANGED: &str = "t001";
const MOST_WAITING: usize = 3;

/// A model that is asked for: in which tiers, with how much working memory.
#[derive(Debug, Clone)]
pub struct Ask {
    model: usize,
    is_patched: bool,
    pub tiers: Vec<usize>,
    working: u64,
}

pub struct Live {
    pub lease: Lease,
    pub seats: Vec<Seat>,
    pub working: [u64; 2],
}

/// A tensor that may outlive its lease.
pub struct Kept {
    _tensor: Tensor,
    seat: Seat,
    /// How often its model had been evicted from there when it was taken.
    evictions: u64,
}

/// What happened, so that a run in which nothing did is no success.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    pub granted: u64,
    pub refused: u64,
    pub failed: u64,
    pub fell_back: u64,
    pub served_waiting: u64,
    pub dropped_leased: u64,
    pub beyond_budget: u64,
    pub patched: u64,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Done) {
        self.granted += other.granted;
        self.refused += other.refused;
        self.failed += other.failed;
        self.fell_back += other.fell_back;
        self.served_waiting += other.served_waiting;
        self.dropped_leased += other.dropped_leased;
        self.beyond_budget += other.beyond_budget;
        self.patched += other.patched;
    }
}

pub struct World {
    pub at: String,
    pub cache: Cache,
    pub device: Arc<Simulated>,
    pub models: Vec<Model>,
    patch: Patch,
    /// What the patch makes of the tensor that it changes.
    pub changed: Vec<u8>,
    pub charges: Vec<u64>,
    pub generations: Vec<u64>,
    pub leases: Vec<Live>,
    pub tensors: Vec<Kept>,
    pub waiting: Vec<Waiting>,
    pub budgets: [u64; 2],
    pub faults: usize,
    failures: Vec<Arc<LoadError>>,
    pub books: Arc<Books>,
    pub done: Done,
}

impl World {
    pub fn new(folder: &Folder, seed: u64) -> World {
        let mut random = Random::new(seed ^ 0xbeef);
        let models: Vec<Model> = (0..MODELS as u64)
            .map(|index| {
                let name = format!("m{index}");
                let path = folder.path().join(format!("{name}.safetensors"));
                if !path.exists() {
                    match index as usize {
                        BASE => patches::base(&path, &name),
                        _ => drop(folder.file(&name, (1 + index) * PAGE - 1234)),
                    }
                }
                Model::open(path).unwrap()
            })
            .collect();
        let patch = patches::patch(folder);
        let device = Arc::new(Simulated::new(64 * PAGE));
        let budgets = [12, 10].map(|pages| (pages + random.below(12) as u64) * PAGE);
        let books = Arc::new(Books::default());
        let cache = Cache::builder()
            .ram(budgets[0])
            .device(Arc::clone(&device), budgets[1])
            .keep_ram_copy(random.chance(50))
            .snapshots(Snapshots::Bracket)
            .deadlock_after(None)
            .stream(Stream::new(Arc::clone(&books)))
            .build()
            .unwrap();
        World {
            at: String::new(),
            charges: models
                .iter()
                .map(|model| Storage::Anonymous.charge(model))
                .chain([PAGE])
                .collect(),
            changed: patches::changed(&models[BASE], &patch),
            patch,
            cache,
            device,
            generations: vec![0; ALL],
            models,
            leases: Vec::new(),
            tensors: Vec::new(),
            waiting: Vec::new(),
            budgets,
            faults: 0,
            failures: Vec::new(),
            books,
            done: Done::default(),
        }
    }

    pub fn tier(&self, index: usize) -> Tier {
        if index == 0 {
            Tier::RAM
        } else {
            self.device.tier()
        }
    }

    pub fn act(&mut self, random: &mut Random) {
        let model = random.below(MODELS);
        match random.below(100) {
            0..34 => self.lease(random),
            34..58 if !self.leases.is_empty() => {
                let index = random.below(self.leases.len());
                drop(self.leases.swap_remove(index));
            }
            58..64 if !self.leases.is_empty() => self.keep_a_tensor(random),
            64..70 if !self.tensors.is_empty() => {
                let index = random.below(self.tensors.len());
                drop(self.tensors.swap_remove(index));
            }
            70..72 => {
                let is_gone = self.cache.drop_model(&self.models[model]);
                self.done.dropped_leased += u64::from(!is_gone);
                self.generations[model] += 1;
                self.generations[MERGED] += u64::from(model == BASE);
            }
            72..76 => {
                let is_gone = self.cache.evict(&self.models[model]);
                let is_of_it = |seat: Seat| {
                    seat == self.seat(model, seat.tier)
                        || (model == BASE && seat == self.seat(MERGED, seat.tier))
                };
                let leased = self.leased().any(is_of_it);
                assert!(is_gone != leased || !self.waiting.is_empty(), "{}", self.at);
            }
            76..78 => {
                self.cache.clear();
            }
            78..81 => {
                let _ = self.cache.offload(&self.models[model]);
            }
            81..85 => {
                let tier = self.tier(random.below(2));
                let fetched = self.cache.prefetch(self.models[model].on(tier)).wait();
                self.expect_faults_only(&fetched);
            }
            // A lease that falls back when memory fails asks for less from then on.
            85..87 if self.waiting.iter().all(Waiting::is_simple) => {
                let faults = [Fault::Transfer, Fault::OutOfMemory];
                self.device.inject(faults[random.below(2)]);
                self.faults += 1;
            }
            87..91 => {
                let tier = random.below(2);
                self.budgets[tier] = (4 + random.below(22) as u64) * PAGE;
                self.cache
                    .set_budget(self.tier(tier), self.budgets[tier])
                    .unwrap();
            }
            91..96 if self.waiting.len() < MOST_WAITING => {
                let mut asks = self.asks(random);
                if self.faults > 0 {
                    asks.iter_mut().for_each(|ask| ask.tiers.truncate(1));
                }
                let future = self.cache.lease_async(self.wanted(&asks));
                self.waiting.push(Waiting::new(asks, future));
            }
            96..98 if !self.waiting.is_empty() => {
                let index = random.below(self.waiting.len());
                drop(self.waiting.remove(index));
            }
            98..100 => {
                let tier = random.below(2);
                let bytes = random.below(16) as u64 * PAGE;
                let made = self.cache.make_room(self.tier(tier), bytes);
                if let Ok(made) = made {
                    assert!(made.free_bytes >= bytes, "{}: {made:?}", self.at);
                }
            }
            _ => {}
        }
    }

    fn seat(&self, model: usize, tier: usize) -> Seat {
        Seat {
            model,
            generation: self.generations[model],
            tier,
        }
    }

    /// Where that of which something is merged is, as it was then.
    fn seat_of_base(&self, merged: Seat) -> Seat {
        Seat {
            model: BASE,
            ..merged
        }
    }

    /// Whether leases or tensors of a dropped model live on.
    fn twins(&self) -> bool {
        let kept = self.tensors.iter().map(|kept| kept.seat);
        let mut all = self.leased().chain(kept);
        all.any(|seat| seat.generation != self.generations[seat.model])
    }

    fn leased(&self) -> impl Iterator<Item = Seat> {
        self.leases
            .iter()
            .flat_map(|live| live.seats.iter().copied())
    }

    fn asks(&self, random: &mut Random) -> Vec<Ask> {
        let count = 1 + random.below(3);
        let asks = (0..count).map(|_| {
            let first = random.below(2);
            let is_patched = random.chance(15);
            Ask {
                model: if is_patched {
                    BASE
                } else {
                    random.below(MODELS)
                },
                is_patched,
                tiers: if random.chance(20) {
                    vec![first, 1 - first]
                } else {
                    vec![first]
                },
                working: if random.chance(15) {
                    (1 + random.below(3) as u64) * PAGE
                } else {
                    0
                },
            }
        });
        let mut asks: Vec<Ask> = asks.collect();
        let mut models: Vec<usize> = asks.iter().map(|ask| ask.model).collect();
        models.sort_unstable();
        models.dedup();
        if models.len() < asks.len() {
            // Which of two was granted where could not be told.
            asks.iter_mut().for_each(|ask| ask.tiers.truncate(1));
        }
        asks
    }

    fn wanted(&self, asks: &[Ask]) -> Vec<Wanted<'_>> {
        asks.iter()
            .map(|ask| {
                let mut wanted = self.models[ask.model]
                    .on(self.tier(ask.tiers[0]))
                    .working_memory(ask.working);
                if ask.is_patched {
                    wanted = wanted.with(&self.patch, 1.0).merged();
                }
                let others = &ask.tiers[1..];
                others
                    .iter()
                    .fold(wanted, |wanted, tier| wanted.or_on(self.tier(*tier)))
            })
            .collect()
    }

    /// Whether a request could be met now, by what the reference knows.
    pub fn feasible(&self, asks: &[Ask]) -> bool {
        let picture = self.cache.residency();
        let mut resident = Vec::new();
        for model in picture.models.iter().filter(|model| !model.dropped) {
            let index = index(&model.model);
            for place in &model.places {
                if place.phase == "resident" {
                    resident.push(self.seat(index, usize::from(place.tier != "ram")));
                }
            }
        }
        let mut fixed: Vec<Seat> = self.leased().collect();
        // What was evicted counts as held, and no longer as a model.
        {
            let books = self.books.0.lock().unwrap();
            let there = self
                .tensors
                .iter()
                .filter(|kept| kept.evictions == books.evictions[kept.seat.tier][kept.seat.model]);
            fixed.extend(there.map(|kept| kept.seat));
        }
        let mut working = [0, 0];
        for live in &self.leases {
            working[0] += live.working[0];
            working[1] += live.working[1];
        }
        let held = [0, 1].map(|tier| picture.tiers[tier].held_bytes);
        let situation = Situation {
            charges: &self.charges,
            budgets: self.budgets,
            held,
            working,
            fixed: &fixed,
            resident: &resident,
        };
        let ways = asks.iter().map(|ask| ask.tiers.len()).product::<usize>();
        (0..ways).any(|way| {
            let mut rest = way;
            let wanted: Vec<(Seat, u64)> = asks
                .iter()
                .flat_map(|ask| {
                    let tier = ask.tiers[rest % ask.tiers.len()];
                    rest /= ask.tiers.len();
                    let merged = ask.is_patched.then(|| (self.seat(MERGED, tier), 0));
                    [(self.seat(ask.model, tier), ask.working)]
                        .into_iter()
                        .chain(merged)
                })
                .collect();
            situation.fits(&wanted)
        })
    }

    fn lease(&mut self, random: &mut Random) {
        let asks = self.asks(random);
        // Others come first, or it cannot be told which of two of one name went.
        let excused = !self.waiting.is_empty() || self.twins();
        let feasible = !excused && self.feasible(&asks);
        let result = self.cache.try_lease(self.wanted(&asks));
        match result {
            Ok(lease) => {
                assert!(feasible || excused, "{}: {asks:?} was given", self.at);
                self.note(&asks, lease);
            }
            Err(error @ (Error::NoRoom { .. } | Error::ExceedsBudget { .. })) => {
                assert!(
                    !feasible || self.faults > 0,
                    "{}: {asks:?} was refused: {error}\n{:?}",
                    self.at,
                    self.cache.residency()
                );
                self.done.refused += 1;
            }
            Err(error) => self.expect_faults_only(&Err::<(), _>(error)),
        }
    }

    pub fn note(&mut self, asks: &[Ask], lease: Lease) {
        let mut seats: Vec<Seat> = Vec::new();
        let mut items: Vec<(Seat, bool)> = Vec::new();
        let mut working = [0, 0];
        for ask in asks {
            let model = &self.models[ask.model];
            let there = ask
                .tiers
                .iter()
                .position(|tier| lease.get_on(model, self.tier(*tier)).is_ok());
            let there = there.unwrap_or_else(|| panic!("{}: not leased", self.at));
            self.done.fell_back += u64::from(there > 0);
            let seat = self.seat(ask.model, ask.tiers[there]);
            working[seat.tier] += ask.working;
            let merged = ask.is_patched.then(|| self.seat(MERGED, seat.tier));
            for seat in [seat].into_iter().chain(merged) {
                if !seats.contains(&seat) {
                    seats.push(seat);
                }
            }
            if !items.contains(&(seat, ask.is_patched)) {
                items.push((seat, ask.is_patched));
            }
            self.done.patched += u64::from(ask.is_patched);
        }
        assert_eq!(lease.models().count(), items.len(), "{}", self.at);
        self.done.granted += 1;
        self.leases.push(Live {
            lease,
            seats,
            working,
        });
    }

    /// A lease may fail for a fault that was asked for, and for nothing else.
    pub fn expect_faults_only<T>(&mut self, result: &Result<T, Error>) {
        if let Err(Error::Load(error)) = result {
            // All who wait for one load get its error.
            if self.failures.iter().any(|known| Arc::ptr_eq(known, error)) {
                return;
            }
            self.failures.push(Arc::clone(error));
            assert!(self.faults > 0, "{}: {error}", self.at);
            let text = error.to_string();
            assert!(
                text.contains("simulated") && text.contains("injected"),
                "{text}"
            );
            self.faults -= 1;
            self.done.failed += 1;
        }
    }

    fn keep_a_tensor(&mut self, random: &mut Random) {
        let live = &self.leases[random.below(self.leases.len())];
        let mut seat = live.seats[random.below(live.seats.len())];
        if seat.model == MERGED {
            seat = self.seat_of_base(seat);
        }
        let model = &self.models[seat.model];
        let weights = live.lease.get_on(model, self.tier(seat.tier)).unwrap();
        let name = &weights.tensors()[0].name;
        let evictions = self.books.0.lock().unwrap().evictions[seat.tier][seat.model];
        self.tensors.push(Kept {
            _tensor: weights.tensor(name).unwrap(),
            seat,
            evictions,
        });
    }
}
