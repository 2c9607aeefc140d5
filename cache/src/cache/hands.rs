//! What decisions lead to: loads and unloads, each between two snapshots, and told of.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use malloc_stats::size::Size;
use malloc_stats::{Depth, Diff, Metric};
use plimsoll_events::{
    Evict, EvictReason, Kind, Load as Loaded, Origin, PageCacheLeft, Stream, Tally,
};

use super::arrival::Arrival;
use super::keeper::Owed;
use super::known::Known;
use super::page_cache::NextLook;
use super::partial::InRam;
use super::telling::{About, Told};
use super::{Gate, Seat};
use crate::books::{Choice, Io, RAM, Remains, Route, Task};
use crate::bracket::Brackets;
use crate::device::{Device, DeviceWeights, Held, Host, Load, Source, Unloaded};
use crate::error::{Error, LoadError};
use crate::observe::LoadObserver;

/// Devices, and all that watches them.
pub(crate) struct Hands {
    /// RAM first.
    pub(super) devices: Vec<Arc<dyn Device>>,
    pub(super) ram: Arc<Host>,
    pub(super) observer: Arc<dyn LoadObserver>,
    pub(super) stream: Stream,
    pub(super) brackets: Brackets,
    pub(super) about: About,
    /// What unloads owe the system, for the reclaimer.
    pub(super) owed: Owed,
    /// Bytes of RAM that are reserved and have not arrived.
    pub(super) arriving: AtomicU64,
    /// When what is resident of mapped weights is looked at again.
    pub(super) next_look: NextLook,
    pub(super) gate: OnceLock<Weak<Gate>>,
    /// Loads and unloads under way, and how many there ever were: what tells whether resident
    /// memory changed by one's own doing alone.
    busy: AtomicUsize,
    begun: AtomicU64,
    started: Instant,
}

impl Hands {
    pub(super) fn new(
        ram: Arc<Host>,
        devices: Vec<Arc<dyn Device>>,
        observer: Arc<dyn LoadObserver>,
        stream: Stream,
        brackets: Brackets,
        about: About,
    ) -> Hands {
        Hands {
            devices,
            ram,
            observer,
            stream,
            brackets,
            about,
            owed: Owed::default(),
            arriving: AtomicU64::new(0),
            next_look: NextLook::default(),
            gate: OnceLock::new(),
            busy: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// The name of a tier.
    pub(super) fn tier_name(&self, tier: usize) -> &str {
        self.devices[tier].name()
    }

    /// Marks a load or unload under way.
    fn begin(&self) -> Activity<'_> {
        let alone = self.busy.fetch_add(1, Ordering::SeqCst) == 0;
        Activity {
            hands: self,
            alone,
            begun: self.begun.fetch_add(1, Ordering::SeqCst) + 1,
        }
    }

    /// Sends what the fast path has counted since the last time as an event.
    pub(super) fn tell_hits(&self) {
        let (copied_tensors, copied_bytes) = self.ram.take_copies();
        let given = self.devices.iter().map(|device| device.take_given());
        let mut tally = Tally {
            hits: BTreeMap::new(),
            copied_tensors,
            copied_bytes,
            gave_back_bytes: given.sum(),
        };
        let mut hit = |entry: &super::Entry, tier: usize| {
            let hits = entry.slots[tier].untold_hits.swap(0, Ordering::Relaxed);
            if hits > 0 {
                *tally
                    .hits
                    .entry(entry.model.told_name().to_owned())
                    .or_insert(0) += hits;
            }
        };
        if let Some(gate) = self.gate.get().and_then(Weak::upgrade) {
            let books = gate.books();
            for account in &books.accounts {
                account
                    .resident()
                    .for_each(|entry| hit(entry, account.tier));
            }
        }
        if !tally.is_empty() {
            self.stream.emit(Kind::Tally(tally));
        }
    }

    /// The hits of a model that is about to go.
    fn tell_hits_of(&self, seat: &Seat) {
        let hits = seat.slot().untold_hits.swap(0, Ordering::Relaxed);
        if hits > 0 {
            let name = seat.entry.model.told_name().to_owned();
            self.stream.emit(Kind::Tally(Tally {
                hits: BTreeMap::from([(name, hits)]),
                ..Tally::default()
            }));
        }
    }

    /// Tells of a load that was not even begun: a model's files are not what they were.
    pub(super) fn tell_stale(&self, seat: &Seat, error: &Error) {
        let now = self.brackets.take(Depth::Bracket);
        self.tell_load(Box::new(Loaded {
            model: seat.entry.model.model.name().to_owned(),
            part_of: seat.entry.model.part_of(),
            is_patch: seat.entry.model.is_patch(),
            tier: self.tier_name(seat.tier).to_owned(),
            from: Origin::File,
            bytes: seat.entry.model.model.bytes(),
            charged_bytes: seat.charge(),
            took_us: 0,
            recycled_bytes: 0,
            gave_back: Metric::Exact(0),
            snapshots_us: now.cost_us,
            before: now.clone(),
            after: now,
            error: Some(error.to_string()),
            degraded: None,
        }));
    }

    fn tell_load(&self, load: Box<Loaded>) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!(
                model = %load.model.escape_debug(),
                tier = %load.tier,
                bytes = %Size(load.bytes),
                took_us = load.took_us,
                recycled = %Size(load.recycled_bytes),
                failed = load.error.is_some(),
                "load\n{}",
                Diff::between(&load.before, &load.after)
            );
        }
        self.tell_hits();
        self.stream.emit(Kind::Load(load));
    }

    /// Loads a model, and says where from.
    fn bring(
        &self,
        task: &Task<Self>,
        from: &mut Origin,
    ) -> Result<Box<dyn DeviceWeights>, LoadError> {
        let known = &task.seat.entry.model;
        let device = &self.devices[task.seat.tier];
        let arrival;
        let observer: &dyn LoadObserver = if task.seat.tier == RAM {
            arrival = Arrival::new(self.observer.as_ref(), &self.arriving, task.seat.charge());
            &arrival
        } else {
            self.observer.as_ref()
        };
        let copy;
        let part;
        let source = match task.route {
            Route::Stream { staging } => Source::Files { staging },
            Route::File => Source::Files { staging: 0 },
            Route::Whole => {
                part = known
                    .base
                    .as_ref()
                    .and_then(|base| InRam::pinned(base, &known.model));
                let gone = || {
                    device.unexpect(task.seat.charge());
                    LoadError::Copy {
                        model: known.model.name().to_owned(),
                        reason: "it is gone".to_owned(),
                    }
                };
                Source::Ram(part.as_ref().ok_or_else(gone)?)
            }
            Route::Ram => {
                copy = known.weights(RAM).ok_or_else(|| {
                    device.unexpect(task.seat.charge());
                    LoadError::Copy {
                        model: known.model.name().to_owned(),
                        reason: "it is gone".to_owned(),
                    }
                })?;
                Source::Ram(&**copy)
            }
        };
        if let Source::Ram(_) = source {
            *from = Origin::Ram;
        }
        let weights = device.load(&Load {
            model: &known.model,
            source,
            observer,
        })?;
        // What was mapped may have changed while it was copied.
        if let Source::Ram(copy) = source
            && let Err(error) = copy.check()
        {
            return Err(LoadError::Copy {
                model: known.model.name().to_owned(),
                reason: error.to_string(),
            });
        }
        Ok(weights)
    }

    fn unload(&self, seat: &Seat, remains: &mut Option<Box<dyn Remains>>) -> Unloaded {
        let taken = seat.entry.model.take_weights(seat.tier);
        seat.slot().reload.set(None);
        let mut unloaded = match taken.map(Arc::try_unwrap) {
            Some(Ok(weights)) => weights.unload(),
            // Leases let go of the weights before they leave, so this is the last one.
            Some(Err(_)) | None => return Unloaded::default(),
        };
        if let Some(held) = unloaded.held.take() {
            *remains = Some(Box::new(StillHeld(held)));
        }
        unloaded
    }
}

/// What tensors hold, to the books.
pub(super) struct StillHeld(pub(super) Box<dyn Held>);

impl Remains for StillHeld {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

impl Io for Hands {
    type Model = Known;
    type Error = Error;
    type Told = Told;

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn load(&self, task: &Task<Self>) -> (Result<(), Error>, Told) {
        let seat = &task.seat;
        let model = &seat.entry.model.model;
        let activity = self.begin();
        let depth = self.brackets.depth(seat.charge());
        let before = self.brackets.take(depth);
        let started = Instant::now();
        let mut from = Origin::File;
        let result = self.bring(task, &mut from);
        let took = started.elapsed();
        let after = self.brackets.take(depth);
        drop(activity);
        let recycled_bytes = result
            .as_ref()
            .map_or(0, |weights| weights.recycled_bytes());
        let degraded = result
            .as_ref()
            .ok()
            .and_then(|weights| weights.degraded())
            .map(str::to_owned);
        let gave_back = self.devices[seat.tier].take_given();
        let error = match result {
            Ok(weights) => {
                self.brackets.loaded(model.bytes(), took);
                let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                let cost = match task.route {
                    Route::Ram => &seat.slot().from_ram_ns,
                    // A part has no copy of its own in RAM by which its cost would be told.
                    Route::Whole | Route::File | Route::Stream { .. } => &seat.slot().from_file_ns,
                };
                cost.store(nanoseconds, Ordering::Relaxed);
                seat.entry.model.set_weights(seat.tier, weights);
                None
            }
            Err(error) => Some(Error::from(error)),
        };
        let load = Box::new(Loaded {
            model: model.name().to_owned(),
            part_of: seat.entry.model.part_of(),
            is_patch: seat.entry.model.is_patch(),
            tier: self.tier_name(seat.tier).to_owned(),
            from,
            bytes: model.bytes(),
            charged_bytes: seat.charge(),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            recycled_bytes,
            gave_back: Metric::Exact(gave_back),
            snapshots_us: before.cost_us + after.cost_us,
            before,
            after,
            error: error.as_ref().map(ToString::to_string),
            degraded,
        });
        let told = Told {
            seen: self
                .is_news(&seat.entry.model)
                .then(|| seat.entry.model.whole().clone()),
            load,
        };
        (error.map_or(Ok(()), Err), told)
    }

    fn tell(&self, told: Told) {
        if let Some(model) = told.seen {
            self.stream.emit(Kind::Model(Box::new(model.seen())));
        }
        self.tell_load(told.load);
    }

    fn evict(
        &self,
        seat: &Seat,
        reason: &EvictReason,
        choice: &Choice,
        remains: &mut Option<Box<dyn Remains>>,
    ) {
        let activity = self.begin();
        let depth = self.brackets.depth(seat.charge());
        let before = self.brackets.take(depth);
        let started = Instant::now();
        let unloaded = self.unload(seat, remains);
        let took = started.elapsed();
        let after = self.brackets.take(depth);
        let fell = before
            .process
            .rss
            .bytes()
            .zip(after.process.rss.bytes())
            .map(|(before, after)| before.saturating_sub(after));
        let returned = match (unloaded.returned_bytes, &remains, fell) {
            (Some(bytes), ..) => Metric::Exact(bytes),
            (None, Some(_), _) => Metric::Exact(0),
            (None, None, None) => Metric::Unavailable,
            (None, None, Some(fell)) if activity.was_alone() => Metric::Exact(fell),
            (None, None, Some(fell)) => Metric::Estimated(fell),
        };
        drop(activity);
        let model = &seat.entry.model.model;
        let held_bytes = remains.as_ref().map_or(0, |held| held.bytes());
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!(
                model = %model.name().escape_debug(),
                tier = %self.tier_name(seat.tier),
                freed = %Size(seat.charge()),
                %returned,
                held = %Size(held_bytes),
                ?took,
                ?reason,
                "evict\n{}",
                Diff::between(&before, &after)
            );
        }
        // Page cache is nothing that an allocator could give back.
        if seat.tier == RAM && held_bytes == 0 && unloaded.page_cache.is_none() {
            let back = unloaded.recycled_bytes + returned.bytes().unwrap_or(0);
            self.owed.unloaded(seat.charge(), back);
        }
        self.tell_hits_of(seat);
        self.stream.emit(Kind::Evict(Box::new(Evict {
            model: model.name().to_owned(),
            part_of: seat.entry.model.part_of(),
            tier: self.tier_name(seat.tier).to_owned(),
            reason: reason.clone(),
            bytes: model.bytes(),
            freed_bytes: seat.charge(),
            recycled_bytes: unloaded.recycled_bytes,
            held_bytes,
            returned,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            snapshots_us: before.cost_us + after.cost_us,
            considered: choice.considered.clone(),
            considered_besides: choice.besides,
            page_cache: unloaded.page_cache.map(|seen| PageCacheLeft {
                mapped_bytes: seen.mapped_bytes,
                resident: seen.resident,
                left: unloaded.page_cache_after,
            }),
            device: unloaded.device,
            before,
            after,
        })));
    }

    fn discard(&self, seat: &Seat, remains: &mut Option<Box<dyn Remains>>) {
        self.unload(seat, remains);
    }

    fn expect(&self, tier: usize, bytes: u64) {
        self.devices[tier].expect(bytes);
    }

    fn unexpect(&self, tier: usize, bytes: u64) {
        self.devices[tier].unexpect(bytes);
    }

    fn spawn(&self, work: Box<dyn FnOnce() + Send>) {
        let work = Arc::new(Mutex::new(Some(work)));
        let take = |work: &Mutex<Option<Box<dyn FnOnce() + Send>>>| {
            work.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let there = Arc::clone(&work);
        let spawned = std::thread::Builder::new()
            .name("plimsoll-load".into())
            .spawn(move || take(&there).map(|work| work()));
        if spawned.is_err()
            && let Some(work) = take(&work)
        {
            work();
        }
    }
}

/// A load or unload under way.
struct Activity<'a> {
    hands: &'a Hands,
    alone: bool,
    begun: u64,
}

impl Activity<'_> {
    /// Whether nothing else was loading or unloading since this began.
    fn was_alone(&self) -> bool {
        self.alone && self.hands.begun.load(Ordering::SeqCst) == self.begun
    }
}

impl Drop for Activity<'_> {
    fn drop(&mut self) {
        self.hands.busy.fetch_sub(1, Ordering::SeqCst);
    }
}
