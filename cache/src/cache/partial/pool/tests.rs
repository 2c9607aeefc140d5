//! The pool against a simple model: a consumer that goes round, or asks for anything.

use std::sync::Arc;

use candle_core::Tensor;
use proptest::prelude::*;

use super::*;
use crate::device::{DeviceWeights, Unloaded};
use crate::error::Error;
use crate::storage::WeightBytes;

/// Weights of nothing: the pool does not look into them.
#[derive(Debug)]
struct Nothing;

impl DeviceWeights for Nothing {
    fn tensor(&self, _: usize) -> Result<Tensor, Error> {
        Err(Error::NoModel)
    }

    fn bytes(&self, _: usize) -> Result<WeightBytes<'_>, Error> {
        Err(Error::NoModel)
    }

    fn unload(self: Box<Self>) -> Unloaded {
        Unloaded::default()
    }
}

/// What somebody holds of a unit that is gone.
struct Kept(Arc<()>, u64);

impl Remains for Kept {
    fn bytes(&self) -> u64 {
        self.1
    }

    fn is_gone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

struct World {
    pool: Pool,
    charges: Vec<u64>,
    resident: Vec<bool>,
    /// Tensors that somebody holds, by the unit that they are of.
    holds: Vec<(usize, Arc<()>)>,
    /// Of units that are gone.
    remain: Vec<(Arc<()>, u64)>,
    fetches: Vec<usize>,
}

impl World {
    fn new(charges: Vec<u64>, resident: Vec<bool>, bytes: u64) -> World {
        World {
            pool: Pool::new(bytes, charges.clone().into()),
            charges,
            resident,
            holds: Vec::new(),
            remain: Vec::new(),
            fetches: Vec::new(),
        }
    }

    fn there(&self) -> Vec<usize> {
        self.pool.there.iter().map(|one| one.unit).collect()
    }

    /// What there is, by units and by what tensors hold.
    fn check(&self) {
        let there = self.pool.there.iter().map(|one| self.charges[one.unit]);
        let held = self
            .remain
            .iter()
            .filter(|(one, _)| Arc::strong_count(one) > 1);
        let held: u64 = held.map(|(_, bytes)| bytes).sum();
        let used = there.sum::<u64>() + held;
        assert!(used <= self.pool.used && self.pool.used <= self.pool.bytes);
        let mut units = self.there();
        units.sort_unstable();
        units.dedup();
        assert_eq!(units.len(), self.pool.there.len(), "a unit is there twice");
    }

    /// Everything that can be done without anybody asking. Returns whether it came to rest.
    fn settle(&mut self) -> bool {
        for _ in 0..1000 {
            let Some(unit) = self.pool.next(|unit| self.resident[unit]) else {
                return true;
            };
            match self.pool.make_room(unit) {
                Room::None => return true,
                Room::Taken => {
                    self.check();
                    self.fetches.push(unit);
                    let weights: Box<dyn DeviceWeights> = Box::new(Nothing);
                    self.pool.fetched(unit, Some(Arc::new(weights)));
                }
                Room::After(leaving) => {
                    for one in leaving {
                        assert_eq!(one.users, 0);
                        let hold = self.holds.iter().position(|(unit, _)| *unit == one.unit);
                        let remains = hold.map(|at| {
                            let (unit, hold) = self.holds.swap_remove(at);
                            let bytes = self.charges[unit];
                            self.remain.push((Arc::clone(&hold), bytes));
                            let kept: Box<dyn Remains> = Box::new(Kept(hold, bytes));
                            kept
                        });
                        self.pool.gone(one.unit, remains);
                    }
                }
            }
            self.check();
        }
        false
    }
}

fn units() -> impl Strategy<Value = (Vec<u64>, Vec<bool>)> {
    prop::collection::vec((1_u64..20, prop::bool::weighted(0.3)), 1..12)
        .prop_map(|units| units.into_iter().unzip())
}

proptest! {
    #[test]
    fn what_is_asked_for_comes_and_no_more_than_there_is_room_for(
        (charges, resident) in units(),
        more in 0_u64..60,
        asks in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<bool>()), 0..60),
    ) {
        let least = charges.iter().copied().max().unwrap_or(0);
        let count = charges.len();
        let mut world = World::new(charges, resident, least + more);
        for (unit, holds, drops) in asks {
            let unit = unit.index(count);
            if world.resident[unit] {
                world.pool.pass(unit);
                prop_assert!(world.settle());
                continue;
            }
            if drops {
                // Whoever held something has dropped it.
                world.holds.clear();
                world.remain.clear();
            }
            world.pool.ask(unit, false, |unit| world.resident[unit]);
            prop_assert!(world.settle());
            let held: u64 = world.remain.iter().map(|(_, bytes)| bytes).sum();
            let taken = world.pool.take(unit);
            if held + world.charges[unit] <= world.pool.bytes {
                prop_assert!(taken.is_some(), "unit {unit} of {:?}", world.there());
            }
            if taken.is_none() {
                world.pool.give_up(unit);
                continue;
            }
            drop(taken);
            // While it is looked at it stays.
            prop_assert!(world.settle());
            prop_assert!(world.there().contains(&unit));
            if holds && !world.holds.iter().any(|(one, _)| *one == unit) {
                world.holds.push((unit, Arc::new(())));
            }
            world.pool.put_back(unit);
            prop_assert!(world.settle());
        }
    }

    #[test]
    fn who_goes_round_finds_the_next_there_where_two_fit(
        (charges, resident) in units(),
        more in 0_u64..60,
    ) {
        let largest = charges.iter().copied().max().unwrap_or(0);
        let missing: Vec<usize> = (0..charges.len()).filter(|unit| !resident[*unit]).collect();
        let mut world = World::new(charges, resident, 2 * largest + more);
        prop_assert!(world.settle());
        for round in 0..4 {
            for unit in 0..world.charges.len() {
                if world.resident[unit] {
                    world.pool.pass(unit);
                    prop_assert!(world.settle());
                    continue;
                }
                prop_assert!(world.there().contains(&unit), "round {round}: {unit}");
                let expected = world.pool.ask(unit, false, |unit| world.resident[unit]);
                prop_assert!(expected);
                drop(world.pool.take(unit));
                prop_assert!(world.settle());
                world.pool.put_back(unit);
                prop_assert!(world.settle());
            }
        }
        // What all fits is fetched once; else nothing more than once a round, and what was just
        // used: it is needed last.
        let bytes: u64 = missing.iter().map(|unit| world.charges[*unit]).sum();
        let most = if bytes <= world.pool.bytes { 1 } else { 5 };
        for unit in missing {
            let times = world.fetches.iter().filter(|one| **one == unit).count();
            prop_assert!(times <= most, "{unit} was fetched {times} times");
        }
    }
}
