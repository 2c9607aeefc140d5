//! Random leases with patches, taken, nested, dropped in any order, with evictions between and
//! failures midway: the base never changes, and what counts is what is there.
//!
//! `PLIMSOLL_TEST_CYCLES` is how many cycles there are in all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plimsoll_cache::device::Fault;
use plimsoll_cache::{Error, Lease, Model, Storage, Tier};
use safetensors::Dtype;
use tempfile::TempDir;

use super::definitions::{Base, Lora};
use super::files::folder;
use super::support::Folder;
use super::tasks::block_on;
use super::trainers::{of_diffusion, of_language, of_words};
use super::world::{Asked, Fixtures, Way, World};

const STORAGES: [Storage; 3] = [Storage::Heap, Storage::Anonymous, Storage::Mapped];
const STRENGTHS: [f64; 7] = [1.0, 0.8, -0.5, 0.0, 0.3, 1.0 / 3.0, -1.0];

/// A small seeded generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn fixtures(folder: &TempDir) -> Fixtures {
    let mut fixtures = Fixtures {
        bases: Vec::new(),
        loras: Vec::new(),
    };
    let of_unet: Vec<Arc<Lora>> = of_diffusion(folder).into_iter().map(Arc::new).collect();
    let mut of_clip = of_unet.clone();
    of_clip.extend(of_words(folder).into_iter().map(Arc::new));
    let of_llama: Vec<Arc<Lora>> = of_language(folder).into_iter().map(Arc::new).collect();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for (base, loras) in [
            (Base::unet(folder, dtype), &of_unet),
            (Base::clip(folder, dtype), &of_clip),
            (Base::llama(folder, dtype), &of_llama),
        ] {
            fixtures.bases.push(base);
            fixtures.loras.push(loras.clone());
        }
    }
    fixtures
}

/// What happened, so that a run in which nothing did is no success.
#[derive(Debug, Default)]
struct Done {
    merged: u64,
    beside: u64,
    plain: u64,
    refused: u64,
    failed: u64,
    given_up: u64,
    dropped_leased: u64,
}

fn asked(random: &mut Random, fixtures: &Fixtures) -> Vec<Asked> {
    let one = |random: &mut Random| {
        let base = random.below(fixtures.bases.len());
        let patches = fixtures.loras[base].len();
        let with = (0..random.below(4))
            .map(|_| {
                (
                    random.below(patches),
                    STRENGTHS[random.below(STRENGTHS.len())],
                )
            })
            .collect();
        let way = [Way::Merged, Way::Beside, Way::ByRoom][random.below(3)];
        Asked { base, with, way }
    };
    let mut all = vec![one(random)];
    if random.chance(25) {
        // The same model once more, or another.
        let mut other = one(random);
        if random.chance(50) {
            (other.base, other.with) = (all[0].base, all[0].with.clone());
            other.with.truncate(1);
        }
        if other.base == all[0].base {
            other.way = all[0].way;
        }
        all.push(other);
    }
    all
}

struct Run<'a> {
    world: World<'a>,
    random: Random,
    done: Done,
    filler: &'a Model,
}

impl Run<'_> {
    fn cycle(&mut self) {
        let tier = self.world.tiers()[self.random.below(2)];
        let asked = asked(&mut self.random, self.world.fixtures);
        self.world.at = format!("{} {asked:?}", self.world.at);
        let fails = self.random.chance(12);
        if fails {
            match self.random.below(3) {
                0 => self.world.gpu.inject(Fault::Transfer),
                1 => self.world.gpu.inject(Fault::OutOfMemory),
                _ => {
                    let after = 1 + self.random.below(8) as u64;
                    self.world.failing.after.store(after, Ordering::Relaxed);
                }
            }
        }
        let result = self.lease(&asked, tier);
        self.world.failing.after.store(0, Ordering::Relaxed);
        match result {
            None => self.done.given_up += 1,
            Some(Ok(lease)) => {
                for place in 0..lease.models().count() {
                    match lease.at(place).unwrap().is_merged() {
                        None => self.done.plain += 1,
                        Some(true) => self.done.merged += 1,
                        Some(false) => self.done.beside += 1,
                    }
                }
                self.world.note(&asked, lease, tier);
            }
            Some(Err(error)) => self.refused(&error),
        }
        self.disturb(tier);
        self.settle();
        self.world.check();
        // Some are kept for several cycles, and they go in any order.
        while self.world.live.len() > 5 || (self.random.chance(45) && !self.world.live.is_empty()) {
            let at = self.random.below(self.world.live.len());
            drop(self.world.live.swap_remove(at));
            self.world.check();
        }
    }

    /// In one of the ways to ask; `None` where it was given up.
    fn lease(&mut self, asked: &[Asked], tier: Tier) -> Option<Result<Lease, Error>> {
        let how = self.random.below(10);
        if how == 9 {
            // Nobody else lets go of anything: it must not wait for this thread.
            self.world.live.clear();
        }
        let World {
            fixtures, cache, ..
        } = &self.world;
        let wanted = asked.iter().map(|one| fixtures.wanted(one, tier));
        let short = Duration::from_millis(2);
        match how {
            0..3 => Some(cache.try_lease(wanted)),
            3..6 => Some(cache.lease_timeout(wanted, short)),
            6..9 => block_on(cache.lease_async(wanted), short),
            _ => Some(cache.lease(wanted)),
        }
    }

    fn refused(&mut self, error: &Error) {
        let text = error.to_string();
        match error {
            Error::NoRoom { .. } | Error::ExceedsBudget { .. } => self.done.refused += 1,
            Error::Timeout { .. } => self.done.given_up += 1,
            Error::Load(_) => {
                assert!(text.contains("injected"), "{}: {text}", self.world.at);
                self.done.failed += 1;
            }
            _ => panic!("{}: {text}", self.world.at),
        }
    }

    fn disturb(&mut self, tier: Tier) {
        let base = self.random.below(self.world.fixtures.bases.len());
        let model = &self.world.fixtures.bases[base].model;
        match self.random.below(12) {
            0 => {
                let _ = self.world.cache.evict(model);
            }
            1 => {
                self.world.cache.clear();
            }
            2 => {
                let is_gone = self.world.cache.drop_model(model);
                self.done.dropped_leased += u64::from(!is_gone);
            }
            3 | 4 => {
                // It takes most of the room for a moment.
                if let Err(error) = self.world.cache.try_lease([self.filler.on(tier)]) {
                    self.refused(&error);
                }
            }
            5 => {
                let loras = &self.world.fixtures.loras[base];
                let lora = self.random.below(loras.len());
                self.world.cache.drop_model(loras[lora].patch.model());
            }
            6 => {
                let _ = self.world.cache.offload(model);
            }
            _ => {}
        }
    }

    /// What was given up goes on for a moment.
    fn settle(&self) {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let picture = self.world.cache.residency();
            let places = || picture.models.iter().flat_map(|model| &model.places);
            let leases: u64 = places().map(|place| place.leases).sum();
            let moves = places().any(|place| place.phase != "resident")
                || picture.tiers[0].staging_bytes > 0
                || picture.waiting > 0
                // A load has what it copies from pinned.
                || leases > self.world.pins();
            if !moves {
                return;
            }
            assert!(Instant::now() < patience, "{}: {picture:?}", self.world.at);
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_thousand_cycles_leave_the_base_as_it_is_and_every_byte_counted() {
    let cycles = std::env::var("PLIMSOLL_TEST_CYCLES");
    let cycles: u64 = cycles.map_or(1_020, |text| text.parse().unwrap());
    let folder = folder();
    let fixtures = fixtures(&folder);
    let fillers = Folder::new();
    let mut done = Done::default();
    for (seed, storage) in STORAGES.into_iter().enumerate() {
        // Under heap storage models count less.
        let ram = if storage == Storage::Heap {
            36 << 10
        } else {
            60 << 10
        };
        let filler = fillers.model(&storage.to_string(), 20 << 10);
        let mut run = Run {
            world: World::new(&fixtures, storage, ram, 48 << 10),
            random: Random(seed as u64 + 1),
            done,
            filler: &filler,
        };
        for cycle in 0..cycles.div_ceil(STORAGES.len() as u64) {
            run.world.at = format!("{storage}, cycle {cycle}");
            run.cycle();
        }
        done = run.done;
        run.world.end();
    }
    eprintln!("{done:?}");
    // How many were given up is for the scheduler to say.
    let often = [done.merged, done.beside, done.plain];
    assert!(
        often.into_iter().all(|count| count > cycles / 50),
        "{done:?}"
    );
    let rare = [
        done.refused,
        done.failed,
        done.given_up,
        done.dropped_leased,
    ];
    assert!(rare.into_iter().all(|count| count > 0), "{done:?}");
}
