//! Leases: the only way to weights.
//!
//! | file | what |
//! |---|---|
//! | `held` | what a lease holds, and how that makes up what was asked for |
//! | `leased` | what it gives of a model |

mod held;
mod leased;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use plimsoll_events::Kind;

pub(crate) use held::{Base, Held, Item, Patches};
pub use leased::Leased;

use crate::books::{Holder, Io as _, Reserved, Wait};
use crate::cache::{Ended, Entry, Known, Shared, Streaming};
use crate::device::Tier;
use crate::error::Error;
use crate::model::Model;

/// Holds models where they were granted. While it lives none of them can be evicted; dropping it
/// lets go of all.
///
/// Tensors may outlive it: they keep their memory alive and counted until they are dropped.
pub struct Lease {
    /// What is held, where that is more than the models in `held` as they are.
    items: Vec<Item>,
    /// Declared before the books hear of it: weights are let go of before the pins.
    held: Vec<Held>,
    /// What it keeps besides models.
    reserved: Reserved,
    /// The thread that asked, until another one is seen with it.
    holder: Option<Arc<Holder>>,
    handed_over: AtomicBool,
    shared: Arc<Shared>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.models().map(Model::name))
            .finish()
    }
}

impl Lease {
    /// `items` may be empty: then it gives what is held as it is.
    pub(crate) fn new(
        shared: Arc<Shared>,
        held: Vec<Held>,
        items: Vec<Item>,
        reserved: Reserved,
        holder: Option<Arc<Holder>>,
    ) -> Lease {
        Lease {
            items,
            held,
            reserved,
            holder,
            handed_over: AtomicBool::new(false),
            shared,
        }
    }

    /// Brings what else it can have of models that it holds in part: on this thread, or where it is
    /// limited in time on another, as far as it comes by then.
    pub(crate) fn settle_in(&self, wait: Wait) -> Result<(), Error> {
        if !self.is_partial() {
            return Ok(());
        }
        let all: Vec<_> = self.streaming().map(Streaming::settle_in).collect();
        let settle = move || all.into_iter().try_for_each(|settle| settle());
        let Some(deadline) = wait.deadline() else {
            return settle();
        };
        let (done, ended) = sync_channel(1);
        self.shared.gate.io.spawn(Box::new(move || {
            // Nobody may listen any more.
            let _ = done.send(settle());
        }));
        let left = deadline.saturating_duration_since(Instant::now());
        // What has come by then has come, and the rest streams.
        ended.recv_timeout(left).unwrap_or(Ok(()))
    }

    fn streaming(&self) -> impl Iterator<Item = &Streaming> {
        self.items.iter().filter_map(|item| match &item.base {
            Base::Partly(streaming) => Some(streaming),
            Base::There(_) => None,
        })
    }

    /// Whether it holds any model in part.
    pub(crate) fn is_partial(&self) -> bool {
        self.streaming().next().is_some()
    }

    fn count(&self) -> usize {
        match self.items.len() {
            0 => self.held.len(),
            items => items,
        }
    }

    /// The models it holds, in the order in which they were asked for, each once for each device and
    /// each set of patches.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        (0..self.count()).map(|at| match self.items.get(at) {
            Some(item) => &item.model,
            None => self.held[at].model(),
        })
    }

    /// One of its models, on the device where it was granted; where that are several, on the one
    /// that was asked for first.
    ///
    /// # Errors
    /// [`Error::NotLeased`] where the lease does not hold it.
    pub fn get(&self, model: &Model) -> Result<Leased<'_>, Error> {
        self.find(model, None)
    }

    /// One of its models on this device.
    ///
    /// # Errors
    /// [`Error::NotLeased`] where the lease does not hold it there.
    pub fn get_on(&self, model: &Model, device: impl Into<Tier>) -> Result<Leased<'_>, Error> {
        self.find(model, Some(device.into()))
    }

    /// One of its models by its place in [`models`](Self::models): what tells the same model with
    /// different patches apart.
    ///
    /// # Errors
    /// [`Error::NotLeased`] where it holds fewer.
    pub fn at(&self, place: usize) -> Result<Leased<'_>, Error> {
        if place >= self.count() {
            return Err(Error::NotLeased {
                model: format!("number {place}"),
            });
        }
        let item = self.items.get(place);
        let held = match item.map(|item| &item.base) {
            None => Some(&self.held[place]),
            Some(Base::There(at)) => Some(&self.held[*at]),
            Some(Base::Partly(_)) => None,
        };
        Ok(Leased {
            model: item.map_or_else(|| self.held[place].model(), |item| &item.model),
            weights: held.map(Held::weights).transpose()?,
            held,
            item,
            lease: self,
        })
    }

    fn find(&self, model: &Model, device: Option<Tier>) -> Result<Leased<'_>, Error> {
        let is_there =
            |tier: usize| device.is_none_or(|device| self.shared.tier_at(tier) == device);
        let found = match self.items.is_empty() {
            true => self
                .held
                .iter()
                .position(|held| is_there(held.seat.tier) && held.seat.entry.model.is_of(model)),
            false => self
                .items
                .iter()
                .position(|item| is_there(item.tier) && Known::is_same(&item.model, model)),
        };
        let not_leased = || Error::NotLeased {
            model: model.name().to_owned(),
        };
        self.at(found.ok_or_else(not_leased)?)
    }

    /// Brings back what it holds of a model in part and others have taken the room of, as far as
    /// there is room: what nobody cares for goes for it, nothing else. Returns the bytes that came. Of
    /// several that it holds of one model, the first; see [`Leased::grow`].
    ///
    /// # Errors
    /// [`Error::NotLeased`]; what loading them gives, other than for want of memory.
    pub fn grow(&self, model: &Model) -> Result<u64, Error> {
        self.get(model)?.grow()
    }

    /// Whether the weights it has given out are still what was loaded, as far as that can be told.
    /// Only mapped files ([`Storage::Mapped`](crate::Storage::Mapped)) can change under a lease:
    /// whoever computes with them should ask this afterwards, and throw the result away where it
    /// fails. It is asked at release too: then the model is dropped, so that the next lease of it
    /// begins with its files as they are.
    ///
    /// # Errors
    /// [`Error::Poisoned`], with what became of the first file that is not.
    pub fn check(&self) -> Result<(), Error> {
        let mut given_out = self.held.iter().filter_map(|held| held.weights.get());
        given_out.try_for_each(|weights| weights.check())?;
        self.streaming().try_for_each(Streaming::check)
    }

    /// The models that are no longer what was loaded, each with why.
    fn poisoned(&self) -> Vec<(Arc<Entry>, Error)> {
        let checked = self.held.iter().filter_map(|held| {
            let error = held.weights.get()?.check().err()?;
            Some((Arc::clone(&held.seat.entry), error))
        });
        let streamed = self.streaming().filter_map(|streaming| {
            let error = streaming.check().err()?;
            Some((Arc::clone(streaming.entry()), error))
        });
        checked.chain(streamed).collect()
    }

    /// Says that another thread than the one that asked for it will release it. Without this, a
    /// lease that was silently given to another thread counts as one that cannot be released while
    /// the thread that asked for it waits for another lease: see
    /// [`Builder::deadlock_after`](crate::Builder::deadlock_after).
    pub fn hand_over(&self) {
        if let Some(holder) = &self.holder
            && !self.handed_over.swap(true, Ordering::Relaxed)
        {
            holder.let_go(self.held.len());
            self.streaming().for_each(Streaming::hand_over);
        }
    }

    /// The same lease, of a task rather than of this thread.
    pub(crate) fn of_nobody(mut self) -> Lease {
        self.hand_over();
        self.holder = None;
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.hand_over();
        let poisoned = self.poisoned();
        let ended: Vec<Ended> = self.streaming().map(Streaming::end).collect();
        for held in &mut self.held {
            // Whoever evicts has to be the last to hold the weights.
            drop(held.weights.take());
        }
        let firm = ended.iter().flat_map(|one| &one.firm);
        let seats = self.held.iter().map(|held| &held.seat).chain(firm);
        self.shared.gate.leave(seats, &self.reserved);
        // Whoever hears of it may panic, and all is let go of by now.
        for (entry, error) in poisoned {
            self.shared.drop_poisoned(&entry, &error);
        }
        for one in ended {
            let told = Kind::Streamed(Box::new(one.told));
            self.shared.tell(told);
        }
    }
}
