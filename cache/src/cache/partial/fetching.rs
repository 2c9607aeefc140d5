//! What comes into the pool, and what goes for it: by a thread of its own, ahead of whoever asks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use plimsoll_events::{EvictReason, Origin};

use super::InRam;
use super::pool::{Fetched, Room};
use super::streaming::{Core, State};
use crate::books::{Fault as _, RAM, Remains};
use crate::cache::hands::StillHeld;
use crate::cache::known;
use crate::device::{DeviceWeights, Load, Source};
use crate::error::{Error, LoadError};
use crate::observe::Transferred;

/// Whoever drops a tensor tells nobody, so it is looked for this often while somebody waits, and at
/// first; then less and less.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LOOK_AGAIN_AT_LAST: Duration = Duration::from_millis(16);

/// What came of a step.
enum Step {
    Done,
    /// Nothing can be done until something changes.
    Wait,
    /// Held tensors are in the way, whose end nobody tells.
    Look {
        /// Whether somebody waits for it.
        is_wanted: bool,
    },
}

impl Core {
    /// Has a thread fetch ahead. Returns whether one does.
    pub(super) fn ensure_running(self: &Arc<Self>, state: &mut State) -> bool {
        if !state.is_running && !state.has_ended {
            let core = Arc::clone(self);
            let thread = std::thread::Builder::new().name("plimsoll-stream".into());
            state.is_running = thread.spawn(move || core.run()).is_ok();
        }
        state.is_running
    }

    fn run(&self) {
        let _running = Running(self);
        let mut state = self.state();
        let mut pause = LOOK_AGAIN;
        while !state.has_ended {
            if state.is_moving {
                state = self.sleep(state, None);
                continue;
            }
            let (after, step) = self.step(state);
            state = match step {
                _ if after.has_ended => after,
                Step::Done => {
                    pause = LOOK_AGAIN;
                    after
                }
                Step::Wait => self.sleep(after, None),
                Step::Look { is_wanted } => {
                    if is_wanted {
                        pause = LOOK_AGAIN;
                    }
                    let limit = pause;
                    pause = (pause * 2).min(LOOK_AGAIN_AT_LAST);
                    self.sleep(after, Some(limit))
                }
            };
        }
        drop(state);
    }

    /// Does what the thread would do, or waits for it to be done.
    pub(super) fn go_on<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.is_moving {
            return self.sleep(state, None);
        }
        let (state, step) = self.step(state);
        match step {
            Step::Done => state,
            Step::Wait | Step::Look { .. } => self.sleep(state, Some(LOOK_AGAIN)),
        }
    }

    /// Fetches a unit, or makes room for one. Only while nothing is moving.
    fn step<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, Step) {
        let is_out = |unit: usize| self.is_resident(unit) || state.failed.contains_key(&unit);
        let Some(unit) = state.pool.next(is_out) else {
            state.stalled = None;
            return (state, Step::Wait);
        };
        let room = state.pool.make_room(unit);
        if matches!(room, Room::None) {
            let is_wanted = state.pool.is_wanted(unit);
            let is_held = state.pool.held_bytes() > 0;
            let since = state.stalled.filter(|(stalled, _)| *stalled == unit);
            let since = since.map_or_else(Instant::now, |(_, since)| since);
            state.stalled = (is_wanted && is_held).then_some((unit, since));
            let step = if is_held {
                Step::Look { is_wanted }
            } else {
                Step::Wait
            };
            return (state, step);
        }
        state.stalled = None;
        state.is_moving = true;
        // A unit that comes takes its part; so will those that come in place of what goes.
        let leaving = match &room {
            Room::After(leaving) => leaving.iter().map(|one| state.pool.charge(one.unit)).sum(),
            Room::Taken | Room::None => state.pool.charge(unit),
        };
        let expected = state.pool.free().saturating_add(leaving);
        drop(state);
        self.announce(expected);
        match room {
            Room::None => {}
            Room::After(leaving) => self.let_go(leaving),
            Room::Taken => {
                // Whatever becomes of it, also by a panic, its room is given back.
                let mut coming = Coming {
                    core: self,
                    unit,
                    fetched: Err(Error::from(LoadError::Abandoned {
                        model: self.kept.division.model.name().to_owned(),
                    })),
                };
                coming.fetched = self.load(unit);
            }
        }
        (self.state(), Step::Done)
    }

    /// Has the device keep pages for so many bytes that will come: what is free in the pool.
    pub(super) fn announce(&self, bytes: u64) {
        let device = &self.gate.io.devices[self.kept.tier];
        let announced = self.announced.swap(bytes, Ordering::Relaxed);
        if bytes > announced {
            device.expect(bytes - announced);
        } else if bytes < announced {
            device.unexpect(announced - bytes);
        }
    }

    /// Has the device load a unit, which takes its part of what was announced.
    fn load_from(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, Error> {
        let device = &self.gate.io.devices[self.kept.tier];
        let announced = self.announced.load(Ordering::Relaxed);
        let charge = device.charge(load.model);
        let left = announced.saturating_sub(charge);
        self.announced.store(left, Ordering::Relaxed);
        Ok(device.load(load)?)
    }

    fn let_go(&self, leaving: Vec<Fetched>) {
        let mut going = Going {
            core: self,
            left: leaving,
            gone: Vec::new(),
        };
        going.run();
    }

    fn load(&self, unit: usize) -> Result<known::Shared, Error> {
        let io = &self.gate.io;
        let model = &self.kept.division.units[unit].model;
        let began = Instant::now();
        let entry = &self.whole.entry;
        let in_ram = (self.kept.tier != RAM)
            .then(|| InRam::of(&self.gate, entry, model))
            .flatten();
        let (source, from) = match &in_ram {
            Some(in_ram) => (Source::Ram(in_ram), Origin::Ram),
            None => {
                let staging = self.kept.staging;
                (Source::Files { staging }, Origin::File)
            }
        };
        let load = Load {
            model,
            source,
            observer: io.observer.as_ref(),
        };
        let weights = self.load_from(&load).or_else(|error| {
            // The budget has room for it, but the device has not: as for any other load, something
            // goes.
            let asked_bytes = error.wants_room().ok_or_else(|| error.clone())?;
            let reason = EvictReason::DeviceFull { asked_bytes };
            match self.gate.free(self.kept.tier, asked_bytes, &reason) {
                0 => Err(error),
                _ => {
                    self.announce(self.announced.load(Ordering::Relaxed) + asked_bytes);
                    self.load_from(&load)
                }
            }
        })?;
        let weights: known::Shared = Arc::new(weights);
        if let Source::Ram(in_ram) = source {
            // What was mapped may have changed while it was copied.
            in_ram.check()?;
        }
        self.streamed_bytes
            .fetch_add(model.bytes(), Ordering::Relaxed);
        self.transfers.fetch_add(1, Ordering::Relaxed);
        if let Some(first) = model.tensors().first() {
            io.observer.transferred(&Transferred {
                model: &self.kept.division.model,
                first,
                tensors: model.tensors().len(),
                bytes: model.bytes(),
                device: io.tier_name(self.kept.tier),
                from_ram: from == Origin::Ram,
                began,
                took: began.elapsed(),
            });
        }
        Ok(weights)
    }

    /// What moved has come to its end.
    fn moved(&self, mut state: MutexGuard<'_, State>) {
        state.is_moving = false;
        let is_left = state.is_left;
        self.changed.notify_all();
        drop(state);
        if is_left {
            self.give_back();
        }
    }
}

/// A thread that fetches ahead: where a panic ends it, whoever asks next begins another.
struct Running<'a>(&'a Core);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().is_running = false;
        self.0.changed.notify_all();
    }
}

/// A unit on its way into the pool.
struct Coming<'a> {
    core: &'a Core,
    unit: usize,
    fetched: Result<known::Shared, Error>,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let nothing = Err(Error::NoModel);
        let fetched = std::mem::replace(&mut self.fetched, nothing);
        let mut state = self.core.state();
        match fetched {
            Ok(weights) => state.pool.fetched(self.unit, Some(weights)),
            Err(error) => {
                state.pool.fetched(self.unit, None);
                // All who wait for it hear of it.
                state.pool.give_up(self.unit);
                state.failed.insert(self.unit, error);
            }
        }
        self.core.moved(state);
    }
}

/// Units on their way out of the pool.
struct Going<'a> {
    core: &'a Core,
    left: Vec<Fetched>,
    gone: Vec<(usize, Option<Box<dyn Remains>>)>,
}

impl Going<'_> {
    fn run(&mut self) {
        while let Some(one) = self.left.pop() {
            // Also where a panic ends it, it has gone.
            self.gone.push((one.unit, None));
            let remains = remains_of(one.weights);
            if let Some(last) = self.gone.last_mut() {
                last.1 = remains;
            }
        }
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let left = self.left.drain(..).map(|one| (one.unit, None));
        self.gone.extend(left);
        let mut state = self.core.state();
        for (unit, remains) in self.gone.drain(..) {
            state.pool.gone(unit, remains);
        }
        self.core.moved(state);
    }
}

/// Lets go of weights, but for what tensors hold.
pub(super) fn remains_of(weights: known::Shared) -> Option<Box<dyn Remains>> {
    let weights = Arc::try_unwrap(weights).ok()?;
    let held = weights.unload().held?;
    Some(Box::new(StillHeld(held)))
}
