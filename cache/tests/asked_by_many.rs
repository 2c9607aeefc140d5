//! Many screens ask, while models are leased and evicted by many threads, and publications come and
//! go: nothing hangs, and whatever was asked is answered or hung up on.
//!
//! `PLIMSOLL_STRESS_ASKED` says how many requests each screen makes.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Model};
use plimsoll_events::{Ask, Follow, Heard, Kind, PublishError, Request, connect};
use support::{Folder, MIB};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// No answer takes so long, unless something hangs.
const HUNG: Duration = Duration::from_secs(120);

const MODELS: usize = 8;
const LEASERS: u64 = 4;
const SCREENS: u64 = 6;

fn requests() -> u64 {
    let given = std::env::var("PLIMSOLL_STRESS_ASKED").ok();
    given.map_or(400, |number| number.parse().unwrap())
}

/// Numbers that look like chance, and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }

    fn request(&mut self) -> Request {
        let model = format!("m{}", self.below(MODELS as u64 + 1));
        let tier = ["ram", "simulated", "nowhere"][self.below(3) as usize].to_owned();
        match self.below(8) {
            0 => Request::Trim,
            1 => Request::Drop { model },
            2 => Request::Budget {
                tier,
                bytes: Some(MIB + self.below(3 * MIB)),
            },
            3 => Request::Evict {
                model,
                tier: Some(tier),
            },
            _ => Request::Evict { model, tier: None },
        }
    }
}

#[derive(Default)]
struct Sums {
    answered: AtomicU64,
    hung_up_on: AtomicU64,
}

/// Asks so often, and counts what came of it.
fn screen(path: &Path, seed: u64, sums: &Sums) {
    let mut chance = Chance(seed);
    let mut follow: Option<Follow> = None;
    let begun = Instant::now();
    for id in 0..requests() {
        let ask = Ask {
            id,
            request: chance.request(),
        };
        loop {
            assert!(begun.elapsed() < 4 * HUNG, "there is no publication");
            let there = match &mut follow {
                Some(there) => there,
                None => match connect(path) {
                    Ok(there) => follow.insert(there),
                    Err(PublishError::Nobody { .. }) => {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                },
            };
            if there.ask(&ask).is_ok() {
                break;
            }
            follow = None;
        }
        let is_answered = follow
            .as_mut()
            .is_some_and(|follow| is_answered(follow, id));
        if is_answered {
            sums.answered.fetch_add(1, Ordering::Relaxed);
        } else {
            sums.hung_up_on.fetch_add(1, Ordering::Relaxed);
            follow = None;
        }
        // Some come and go.
        if chance.below(16) == 0 {
            follow = None;
        }
    }
}

/// Whether the answer comes; not, where the publisher hangs up.
#[track_caller]
fn is_answered(follow: &mut Follow, id: u64) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < HUNG {
        match follow.next_within(HUNG).unwrap() {
            Heard::Event(event) => match event.kind {
                Kind::Answer(answer) if answer.id == id => return true,
                Kind::Answer(answer) => panic!("{answer:?} where {id} was asked"),
                _ => {}
            },
            Heard::Nothing => break,
            Heard::Closed => return false,
        }
    }
    panic!("request {id} is neither answered nor hung up on")
}

#[test]
fn whatever_is_asked_is_answered_or_hung_up_on() {
    let folder = Folder::new();
    let models: Vec<Model> = (0..MODELS)
        .map(|number| folder.model(&format!("m{number}"), MIB / 4))
        .collect();
    let path: PathBuf = folder.path().join("live.sock");
    let device = Simulated::new(4 * MIB);
    let gpu = device.tier();
    let builder = Cache::builder().ram(2 * MIB).device(device, 2 * MIB);
    let cache = builder.build().unwrap();
    let (sums, over) = (Sums::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        for seed in 0..LEASERS {
            let (cache, models, over) = (&cache, &models, &over);
            scope.spawn(move || {
                let mut chance = Chance(seed);
                while !over.load(Ordering::Relaxed) {
                    let model = &models[chance.below(MODELS as u64) as usize];
                    // That it does not fit just now is no matter.
                    let _ = match chance.below(2) {
                        0 => cache.try_lease([model]),
                        _ => cache.try_lease([model.on(gpu)]),
                    };
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let publication = cache.publish(Some(path.clone())).unwrap();
                thread::sleep(Duration::from_millis(30));
                drop(publication);
            }
        });
        let (path, sums) = (&path, &sums);
        let screens: Vec<_> = (0..SCREENS)
            .map(|seed| scope.spawn(move || screen(path, seed + 100, sums)))
            .collect();
        let done: Vec<_> = screens
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Ordering::Relaxed);
        assert!(done.iter().all(Result::is_ok));
    });
    let answered = sums.answered.load(Ordering::Relaxed);
    let hung_up_on = sums.hung_up_on.load(Ordering::Relaxed);
    assert_eq!(answered + hung_up_on, SCREENS * requests());
    assert!(answered > 0, "all of {hung_up_on} were hung up on");
    // What was there before is there after.
    let left = cache.lease([&models[0]]);
    assert!(left.is_ok(), "{left:?}");
}

#[test]
fn nobody_waits_for_a_cache_that_ends_while_it_is_asked() {
    for round in 0..requests() / 10 {
        let folder = Folder::new();
        let model = folder.model("m0", MIB / 4);
        let path = folder.path().join("live.sock");
        let cache = Cache::builder().ram(MIB).build().unwrap();
        let publication = cache.publish(Some(path.clone())).unwrap();
        drop(cache.lease([&model]).unwrap());
        let mut follow = connect(&path).unwrap();
        let mut chance = Chance(round);
        thread::scope(|scope| {
            scope.spawn(|| {
                for id in 0..8 {
                    let request = chance.request();
                    let asked = follow.ask(&Ask { id, request }).is_ok();
                    if !asked || !is_answered(&mut follow, id) {
                        // Its stream has ended; and that is told to whoever asks again.
                        assert!(
                            follow
                                .ask(&Ask {
                                    id,
                                    request: Request::Trim
                                })
                                .is_err()
                        );
                        return;
                    }
                }
            });
            thread::sleep(Duration::from_micros(round * 37 % 3000));
            drop(cache);
        });
        drop(publication);
    }
}
