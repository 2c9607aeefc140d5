//! What has to hold after every operation, and at the end.

use std::time::{Duration, Instant};

use plimsoll_cache::Tier;
use plimsoll_cache::device::Device;

use crate::support::contents;
use crate::waiting::Waiting;
use crate::world::{CHANGED, Done, PAGE, World};

impl World {
    /// What holds at every moment.
    pub fn check(&mut self) {
        self.serve();
        let picture = self.cache.residency();
        for tier in 0..2 {
            let seen = &picture.tiers[tier];
            let places = picture.models.iter().flat_map(|model| &model.places);
            let there = places.filter(|place| place.tier == seen.tier);
            let resident: u64 = there.map(|place| place.charged_bytes).sum();
            assert_eq!(
                seen.used_bytes,
                resident + seen.held_bytes + seen.staging_bytes,
                "{}: what counts is what is there",
                self.at
            );
            // A load on another thread is told of once those who waited for it can go on.
            let patience = Instant::now() + Duration::from_secs(20);
            let told = || self.books.0.lock().unwrap().bytes[tier];
            while told() != resident as i64 {
                assert!(Instant::now() < patience, "{}: what was told", self.at);
                std::thread::yield_now();
            }
            let beyond = seen.used_bytes + seen.working_bytes > self.budgets[tier];
            self.done.beyond_budget += u64::from(beyond);
            assert!(
                !beyond || seen.used_bytes == seen.pinned_bytes,
                "{}: beyond the budget by what could go: {seen:?}",
                self.at
            );
            let working: u64 = self.leases.iter().map(|live| live.working[tier]).sum();
            assert_eq!(
                seen.working_bytes,
                working,
                "{}: what is declared: {picture:?}, {} wait: {:?}",
                self.at,
                self.waiting.len(),
                self.waiting.iter().map(|one| &one.asks).collect::<Vec<_>>()
            );
        }
        let exist = 64 * PAGE - self.device.memory().free.bytes().unwrap();
        assert_eq!(
            picture.tiers[1].used_bytes, exist,
            "{}: what counts is what exists",
            self.at
        );
        for (index, live) in self.leases.iter().enumerate() {
            let seat = live.seats[index % live.seats.len()];
            let items = (0..live.lease.models().count()).map(|at| live.lease.at(at).unwrap());
            for item in items.filter(|item| item.is_merged().is_some()) {
                let bytes = item.bytes(CHANGED).unwrap();
                assert!(*bytes == self.changed[..], "{}: other changes", self.at);
            }
            let Some(model) = self.models.get(seat.model) else {
                continue;
            };
            let weights = live.lease.get_on(model, self.tier(seat.tier)).unwrap();
            let bytes = weights.bytes(&weights.tensors()[0].name).unwrap();
            assert!(*bytes == contents(model)[0][..], "{}: other bytes", self.at);
        }
    }

    /// Lets waiting leases go on as far as they can; the first of them may not wait for what is
    /// there.
    fn serve(&mut self) {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let mut at = 0;
            while at < self.waiting.len() {
                let Some(result) = self.waiting[at].poll() else {
                    at += 1;
                    continue;
                };
                let waited = self.waiting.remove(at);
                match result {
                    Ok(lease) => {
                        self.done.served_waiting += 1;
                        self.note(&waited.asks, lease);
                    }
                    Err(error) => self.expect_faults_only(&Err::<(), _>(error)),
                }
            }
            let picture = self.cache.residency();
            let mut places = picture.models.iter().flat_map(|model| &model.places);
            // Who is out of the queue and not there yet has what it was granted.
            let moving = places.any(|place| place.phase != "resident")
                || picture.tiers[0].staging_bytes > 0
                || picture.waiting != self.waiting.len() as u64;
            let stuck = |first: &Waiting| self.feasible(&first.asks);
            let late = Instant::now() > patience;
            if !moving && !self.waiting.first().is_some_and(stuck) {
                return;
            }
            assert!(
                !late,
                "{}: a lease waits that could be served: {:?}\n{:?}\n{picture:?}",
                self.at,
                self.waiting.iter().map(|one| &one.asks).collect::<Vec<_>>(),
                self.cache,
            );
            std::thread::yield_now();
        }
    }

    /// Lets go of everything: every byte is given back.
    pub fn end(mut self) -> Done {
        self.waiting.clear();
        self.leases.clear();
        self.tensors.clear();
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let cleared = self.cache.clear();
            let used = [Tier::RAM, self.device.tier()]
                .map(|tier| self.cache.usage_of(tier).unwrap().used_bytes);
            if used == [0, 0] {
                break;
            }
            // Loads that were given up go on for a moment.
            assert!(
                Instant::now() < patience,
                "{}: {cleared:?} {used:?}",
                self.at
            );
            std::thread::yield_now();
        }
        assert_eq!(self.device.memory().free.bytes(), Some(64 * PAGE));
        self.done
    }
}
