//! A partial lease at work: what it gives out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plimsoll_events::Kind;

use super::pool::Pool;
use super::{Division, Residency};
use crate::books::{Holder, Reserved};
use crate::cache::{Gate, Seat, known};
use crate::device::DeviceWeights;
use crate::error::Error;

/// How long somebody who asks waits for tensors that fill the pool to be dropped: the same thread
/// may hold them.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What a partial lease is given.
pub(crate) struct Kept {
    pub(crate) division: Arc<Division>,
    pub(crate) tier: usize,
    /// In each tier, for the pool and for what fills it.
    pub(crate) reserved: Reserved,
    /// What reading from files is staged through, bytes.
    pub(crate) staging: u64,
    /// The most that parts may count, with those that must be there.
    pub(crate) most: u64,
    pub(crate) is_firm: bool,
    /// Who leases it.
    pub(crate) holder: Option<Arc<Holder>>,
}

/// A model of which a part is there.
pub(crate) struct Streaming {
    pub(super) core: Arc<Core>,
}

pub(super) struct Core {
    pub(super) gate: Arc<Gate>,
    pub(super) kept: Kept,
    /// The parts on the device. The first is pinned by the lease.
    pub(super) seats: Box<[Seat]>,
    /// How many of them it may have.
    pub(super) wanted: usize,
    /// The whole model there, which another lease may have brought.
    pub(super) whole: Seat,
    pub(super) firm: Mutex<Firm>,
    state: Mutex<State>,
    pub(super) changed: Condvar,
    /// What the device was told to keep pages for, and no load has taken yet: changed by whoever
    /// moves something.
    pub(super) announced: AtomicU64,
    pub(super) streamed_bytes: AtomicU64,
    pub(super) transfers: AtomicU64,
    waited_ns: AtomicU64,
    out_of_order: AtomicU64,
    said: AtomicBool,
}

/// Parts that stay until the lease ends, pinned.
#[derive(Default)]
pub(super) struct Firm {
    pub(super) seats: Vec<Seat>,
    /// Whose pins those are, as far as can be seen.
    pub(super) holder: Option<Arc<Holder>>,
    /// The lease is over: nothing stays any more.
    pub(super) has_ended: bool,
}

/// Never held while anything is loaded, dropped or told.
pub(super) struct State {
    pub(super) pool: Pool,
    /// Fetches that failed, until they are asked for again.
    pub(super) failed: BTreeMap<usize, Error>,
    /// A thread fetches ahead.
    pub(super) is_running: bool,
    /// Something is on its way into the pool or out of it: one at a time.
    pub(super) is_moving: bool,
    /// The unit that somebody waits for and held tensors have no room for, and since when.
    pub(super) stalled: Option<(usize, Instant)>,
    pub(super) has_ended: bool,
    /// It has ended while something moved: whoever moves it gives back.
    pub(super) is_left: bool,
}

impl Streaming {
    /// Takes over what a lease was given. `seats` are the parts.
    pub(crate) fn new(gate: &Arc<Gate>, whole: Seat, seats: Box<[Seat]>, kept: Kept) -> Streaming {
        let device = &gate.io.devices[kept.tier];
        let units = kept.division.units.iter();
        let charges = units.map(|unit| device.charge(&unit.model)).collect();
        let pool = Pool::new(kept.reserved.pools[kept.tier], charges);
        let firm = Firm {
            seats: Vec::new(),
            holder: kept.holder.clone(),
            has_ended: false,
        };
        let mut counted = 0_u64;
        let wanted = seats.iter().take_while(|seat| {
            counted = counted.saturating_add(seat.charge());
            counted <= kept.most
        });
        let core = Core {
            gate: Arc::clone(gate),
            wanted: wanted.count().max(1),
            seats,
            whole,
            firm: Mutex::new(firm),
            state: Mutex::new(State {
                pool,
                failed: BTreeMap::new(),
                is_running: false,
                is_moving: false,
                stalled: None,
                has_ended: false,
                is_left: false,
            }),
            kept,
            changed: Condvar::new(),
            announced: AtomicU64::new(0),
            streamed_bytes: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            out_of_order: AtomicU64::new(0),
            said: AtomicBool::new(false),
        };
        core.prefer();
        Streaming {
            core: Arc::new(core),
        }
    }

    /// Gives a tensor of the whole model to `read`, wherever it is: weights, and its position there.
    ///
    /// # Errors
    /// What `read` gives, what fetching it gives, [`Error::PoolHeld`].
    pub(crate) fn with<T>(
        &self,
        tensor: usize,
        read: impl Fn(&dyn DeviceWeights, usize) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.core.with(tensor, &read)
    }

    /// What is where now, and what streaming has cost.
    pub(crate) fn residency(&self) -> Residency {
        self.core.residency()
    }

    /// Whether what it gives out is still what was loaded. Parts are never mapped, so only the whole
    /// can have changed, where it is in RAM for another lease.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.core.check()
    }

    /// The whole model's entry.
    pub(crate) fn entry(&self) -> &Arc<crate::cache::Entry> {
        &self.core.whole.entry
    }

    /// What it pins is no longer the pins of the thread that asked for it.
    pub(crate) fn hand_over(&self) {
        self.core.firm().hand_over();
    }
}

impl Firm {
    fn hand_over(&mut self) {
        if let Some(holder) = self.holder.take() {
            holder.let_go(self.seats.len());
        }
    }

    /// All of them, to be left.
    pub(super) fn take(&mut self) -> Vec<Seat> {
        self.hand_over();
        self.has_ended = true;
        std::mem::take(&mut self.seats)
    }
}

impl Core {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn firm(&self) -> MutexGuard<'_, Firm> {
        self.firm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a unit is on the device without the pool.
    pub(super) fn is_resident(&self, unit: usize) -> bool {
        let part = self.kept.division.units[unit].part;
        self.seats[part].slot().pins.is_open() || self.whole.slot().pins.is_open()
    }

    fn with<T>(
        self: &Arc<Self>,
        tensor: usize,
        read: &impl Fn(&dyn DeviceWeights, usize) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let division = &self.kept.division;
        let name = &*division.model.tensors()[tensor].name;
        let Some(unit) = division.unit_of(tensor) else {
            // The lease pins it: its door may be shut for all who come later.
            return self.read(&self.seats[0], name, read);
        };
        let part = &self.seats[division.units[unit].part];
        for seat in [part, &self.whole] {
            // Where somebody waits for its room, it is fetched instead.
            if !seat.slot().pins.enter() {
                continue;
            }
            let pin = Pin(&self.gate, seat);
            let result = self.read(seat, name, read);
            drop(pin);
            if !division.is_again(tensor) {
                let mut state = self.state();
                if state.pool.pass(unit) {
                    self.ensure_running(&mut state);
                    self.changed.notify_all();
                }
            }
            return result;
        }
        let fetched = self.fetch(unit, division.is_again(tensor))?;
        let weights = fetched.weights()?;
        let position = division.units[unit].model.tensor(name);
        let (position, _) = position.ok_or_else(|| self.no_tensor(name))?;
        read(weights, position)
    }

    fn no_tensor(&self, name: &str) -> Error {
        Error::NoTensor {
            model: self.kept.division.model.name().to_owned(),
            tensor: name.to_owned(),
        }
    }

    /// Reads a tensor of what is pinned.
    fn read<T>(
        &self,
        seat: &Seat,
        name: &str,
        read: &impl Fn(&dyn DeviceWeights, usize) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let known = &seat.entry.model;
        let weights = known.weights(seat.tier).ok_or_else(|| Error::NotLeased {
            model: known.model.name().to_owned(),
        })?;
        let (position, _) = known
            .model
            .tensor(name)
            .ok_or_else(|| self.no_tensor(name))?;
        let result = read(&**weights, position)?;
        weights.check()?;
        Ok(result)
    }

    /// A unit in the pool, once it is there.
    fn fetch(self: &Arc<Self>, unit: usize, is_again: bool) -> Result<InUse<'_>, Error> {
        let is_next = {
            let mut state = self.state();
            // What was tried before anybody asked may go well now.
            state.failed.remove(&unit);
            let is_resident = |unit: usize| self.is_resident(unit);
            state.pool.ask(unit, is_again, is_resident)
        };
        let asking = Asking { core: self, unit };
        if !is_next {
            self.note_order();
        }
        let asked = Instant::now();
        let mut has_waited = false;
        let mut state = self.state();
        let fetched = loop {
            if let Some(weights) = state.pool.take(unit) {
                break Ok(InUse {
                    core: self,
                    unit,
                    weights: Some(weights),
                });
            }
            if let Some(error) = state.failed.get(&unit) {
                break Err(error.clone());
            }
            let is_news = state.pool.want(unit) || !has_waited;
            has_waited = true;
            if let Some((stalled, since)) = state.stalled
                && stalled == unit
                && since.elapsed() > PATIENCE
            {
                state.stalled = None;
                break Err(self.held(&state, unit));
            }
            if self.ensure_running(&mut state) {
                // Once: others who wait would wake this one again.
                if is_news {
                    self.changed.notify_all();
                }
                state = self.sleep(state, Some(PATIENCE / 4));
            } else {
                // Without another thread, by this one.
                state = self.go_on(state);
            }
        };
        drop(state);
        drop(asking);
        if has_waited {
            let waited = asked.elapsed();
            let nanoseconds = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
            self.waited_ns.fetch_add(nanoseconds, Ordering::Relaxed);
        }
        fetched
    }

    fn held(&self, state: &State, unit: usize) -> Error {
        let model = &self.kept.division.units[unit].model;
        Error::PoolHeld {
            model: self.kept.division.model.name().to_owned(),
            asked: self.gate.io.devices[self.kept.tier].charge(model),
            pool: state.pool.bytes(),
            held: state.pool.held_bytes(),
        }
    }

    /// Says once that tensors are not asked for in their order.
    fn note_order(&self) {
        self.out_of_order.fetch_add(1, Ordering::Relaxed);
        if !self.said.swap(true, Ordering::Relaxed) {
            let text = format!(
                "tensors of `{}` are not asked for in the order that was given, so they are not \
                 fetched ahead: the same weights, later",
                self.kept.division.model.name().escape_debug()
            );
            tracing::warn!("{text}");
            self.gate.io.stream.emit(Kind::Note { text });
        }
    }

    pub(super) fn sleep<'a>(
        &self,
        state: MutexGuard<'a, State>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match limit {
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.changed.wait_timeout(state, limit);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        for seat in [self.whole.clone(), self.in_ram()] {
            if !seat.slot().pins.enter_draining() {
                continue;
            }
            let _pin = Pin(&self.gate, &seat);
            let weights = seat.entry.model.weights(seat.tier);
            weights.map_or(Ok(()), |weights| weights.check())?;
        }
        Ok(())
    }

    pub(super) fn residency(&self) -> Residency {
        let mut residency = Residency {
            bytes: self.kept.division.model.bytes(),
            pool_bytes: self.kept.reserved.pools[self.kept.tier],
            streamed_bytes: self.streamed_bytes.load(Ordering::Relaxed),
            transfers: self.transfers.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed)),
            out_of_order: self.out_of_order.load(Ordering::Relaxed),
            ..Residency::default()
        };
        let is_whole = self.whole.slot().pins.is_open();
        for (at, seat) in self.seats.iter().enumerate() {
            let is_there = at == 0 || seat.slot().pins.is_open();
            if is_there {
                residency.charged_bytes += seat.charge();
            }
            if is_there || is_whole {
                residency.resident_bytes += seat.entry.model.model.bytes();
            }
        }
        residency
    }
}

/// Somebody who waits for a unit. However that ends, nothing is kept for them.
struct Asking<'a> {
    core: &'a Core,
    unit: usize,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.core.state().pool.give_up(self.unit);
        self.core.changed.notify_all();
    }
}

/// A unit that is looked at: it stays in the pool.
struct InUse<'a> {
    core: &'a Core,
    unit: usize,
    /// `None` only while it is let go of.
    weights: Option<known::Shared>,
}

impl InUse<'_> {
    fn weights(&self) -> Result<&dyn DeviceWeights, Error> {
        let weights = self.weights.as_ref().map(|weights| &***weights);
        weights.ok_or_else(|| Error::NotLeased {
            model: self.core.kept.division.model.name().to_owned(),
        })
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        // Whoever empties the pool has to be the last to hold the weights.
        drop(self.weights.take());
        self.core.state().pool.put_back(self.unit);
        self.core.changed.notify_all();
    }
}

/// A pin, for as long as something is read.
struct Pin<'a>(&'a Arc<Gate>, &'a Seat);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.leave(std::iter::once(self.1), &Reserved::default());
    }
}
