//! Many threads, many small models, little room: nobody starves, nothing is loaded in vain, and the
//! books balance.
//!
//! `PLIMSOLL_STRESS_LEASES` says how many leases there are in all, where the default is not enough.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Cpu, Error, Lease, Model, Snapshots, Storage};
use plimsoll_events::{Event, Kind, Sink, Stream};
use support::{Folder, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const THREADS: usize = 16;
const MODELS: usize = 20;
const FIT: u64 = 5;
const LARGEST: u64 = 100 << 10;

/// No lease waits so long while others are given.
const HUNG: Duration = Duration::from_secs(120);

fn leases() -> usize {
    let given = std::env::var("PLIMSOLL_STRESS_LEASES").ok();
    given.map_or(10_000, |number| number.parse().expect("a number of leases"))
}

/// Looks at every event whether it can follow those before it.
#[derive(Default)]
struct Audit {
    there: Mutex<HashSet<(String, String)>>,
    wrong: Mutex<Vec<String>>,
    loads: AtomicU64,
    evictions: AtomicU64,
}

impl Audit {
    fn expect(&self, right: bool, what: &str, place: &(String, String)) {
        if !right {
            self.wrong
                .lock()
                .unwrap()
                .push(format!("{what}: {place:?}"));
        }
    }
}

impl Sink for Audit {
    fn event(&self, event: &Event) {
        match &event.kind {
            Kind::Load(load) if load.error.is_none() => {
                let place = (load.model.clone(), load.tier.clone());
                let is_new = self.there.lock().unwrap().insert(place.clone());
                self.expect(is_new, "loaded twice", &place);
                self.loads.fetch_add(1, Ordering::Relaxed);
            }
            Kind::Evict(evict) => {
                let place = (evict.model.clone(), evict.tier.clone());
                let was_there = self.there.lock().unwrap().remove(&place);
                self.expect(was_there, "evicted and not loaded", &place);
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

struct Scene {
    cache: Cache,
    device: Arc<Simulated>,
    models: Vec<Model>,
    budget: u64,
    given: AtomicU64,
    longest_us: AtomicU64,
}

impl Scene {
    /// A lease like those of a server: mostly of one model, some of two, here and there.
    fn lease(&self, mut dice: impl FnMut(usize) -> usize) -> Option<(Lease, Vec<&Model>)> {
        let one = &self.models[dice(MODELS)];
        let other = &self.models[dice(MODELS)];
        let gpu = &*self.device;
        let (leased, of) = match dice(8) {
            0 | 1 => (self.cache.lease([one]), vec![one]),
            2 => (self.cache.lease([one, other]), vec![one, other]),
            3 => (self.cache.lease([one.on(gpu)]), vec![one]),
            4 => (
                self.cache.lease([one.on(gpu), other.on(gpu)]),
                vec![one, other],
            ),
            5 => (self.cache.lease([one.on(gpu).or_on(Cpu)]), vec![one]),
            6 => (
                self.cache.lease([one.on(gpu).or_on(Cpu), other.on(Cpu)]),
                vec![one, other],
            ),
            _ => match self.cache.try_lease([one]) {
                Err(Error::NoRoom { .. }) => return None,
                leased => (leased, vec![one]),
            },
        };
        Some((leased.unwrap(), of))
    }

    fn work(&self, thread: usize, leases: usize) {
        let mut state = thread as u64 + 1;
        let mut dice = move |sides: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % sides
        };
        // Two of the threads keep a tensor now and then until they have the next lease.
        let mut kept: Option<Tensor> = None;
        for _ in 0..leases {
            let asked = Instant::now();
            let leased = self.lease(&mut dice);
            let waited = u64::try_from(asked.elapsed().as_micros()).unwrap();
            self.longest_us.fetch_max(waited, Ordering::Relaxed);
            self.given.fetch_add(1, Ordering::Relaxed);
            let Some((lease, models)) = leased else {
                continue;
            };
            for model in &models {
                verify(&lease, model);
            }
            for tier in [Cpu.into(), self.device.tier()] {
                let usage = self.cache.usage_of(tier).unwrap();
                assert!(usage.used_bytes <= self.budget, "{usage:?}");
                assert!(usage.pinned_bytes <= usage.used_bytes, "{usage:?}");
            }
            let keeps = thread < 2 && dice(20) == 0;
            kept = keeps.then(|| lease.get(models[0]).unwrap().tensor("t000").unwrap());
        }
        drop(kept);
    }
}

/// Ends the process where no lease is given for long: a test that hangs says nothing.
fn watch(scene: &Scene, over: &AtomicBool) {
    let mut last = (0, Instant::now());
    while !over.load(Ordering::Relaxed) {
        std::thread::park_timeout(Duration::from_millis(200));
        let given = scene.given.load(Ordering::Relaxed);
        if given != last.0 {
            last = (given, Instant::now());
        } else if last.1.elapsed() > HUNG {
            eprintln!("hung after {given} leases: {:#?}", scene.cache.residency());
            std::process::abort();
        }
    }
}

fn stress(storage: Storage, keep_ram_copy: bool) {
    let folder = Folder::new();
    let models: Vec<Model> = (0..MODELS as u64)
        .map(|number| folder.model(&format!("m{number}"), LARGEST - number * 4_900))
        .collect();
    let device = Arc::new(Simulated::new(2 * FIT * LARGEST));
    let budget = FIT * device.charge(&models[0]);
    let audit = Arc::new(Audit::default());
    let cache = Cache::builder()
        .ram(budget)
        .device(Arc::clone(&device), budget)
        .storage(storage)
        .keep_ram_copy(keep_ram_copy)
        .snapshots(Snapshots::Bracket)
        .stream(Stream::new(Arc::clone(&audit)))
        .build()
        .unwrap();
    let scene = Scene {
        cache,
        device,
        models,
        budget,
        given: AtomicU64::new(0),
        longest_us: AtomicU64::new(0),
    };
    let started = Instant::now();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&scene, &over));
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let scene = &scene;
                scope.spawn(move || scene.work(thread, leases() / 4 / THREADS))
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        ended.into_iter().for_each(|worker| worker.unwrap());
    });
    eprintln!(
        "{} leases in {:?} ({storage}, copies kept: {keep_ram_copy}): {} loads, {} evictions, the \
         longest wait {:?}",
        scene.given.load(Ordering::Relaxed),
        started.elapsed(),
        audit.loads.load(Ordering::Relaxed),
        audit.evictions.load(Ordering::Relaxed),
        Duration::from_micros(scene.longest_us.load(Ordering::Relaxed)),
    );
    assert_eq!(scene.cache.clear().leased, []);
    for tier in [Cpu.into(), scene.device.tier()] {
        let usage = scene.cache.usage_of(tier).unwrap();
        assert_eq!((usage.used_bytes, usage.recyclable_bytes), (0, 0));
    }
    let memory = scene.device.memory();
    assert_eq!(memory.free, memory.total);
    assert_eq!(audit.wrong.lock().unwrap()[..], [] as [String; 0]);
    assert!(audit.there.lock().unwrap().is_empty());
}

#[test]
fn many_threads_share_little_room_for_a_long_time() {
    for storage in [Storage::Anonymous, Storage::Heap] {
        for keep_ram_copy in [true, false] {
            stress(storage, keep_ram_copy);
        }
    }
}
