//! A lease: the only way to weights.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use candle_core::quantized::QTensor;

use crate::books::Holder;
use crate::cache::{Entry, Seat, Shared};
use crate::device::{DeviceWeights, Tier};
use crate::error::Error;
use crate::model::{Model, TensorInfo};
use crate::storage::WeightBytes;

/// Holds models where they were granted. While it lives none of them can be evicted; dropping it
/// lets go of all.
///
/// Tensors may outlive it: they keep their memory alive and counted until they are dropped.
pub struct Lease {
    /// Declared first: weights are let go of before the pins.
    held: Vec<Held>,
    /// Declared working memory by tier; empty where there is none.
    working: Vec<u64>,
    /// The thread that asked, until another one is seen with it.
    holder: Option<Arc<Holder>>,
    handed_over: AtomicBool,
    shared: Arc<Shared>,
}

/// A model that a lease holds.
pub(crate) struct Held {
    pub(crate) seat: Seat,
    /// Fetched when first asked for: most of a lease's life is being held.
    weights: OnceLock<Arc<Box<dyn DeviceWeights>>>,
}

impl Held {
    pub(crate) fn new(seat: Seat) -> Held {
        Held {
            seat,
            weights: OnceLock::new(),
        }
    }

    fn model(&self) -> &Model {
        &self.seat.entry.model.model
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.models().map(Model::name))
            .finish()
    }
}

impl Lease {
    pub(crate) fn new(
        shared: Arc<Shared>,
        held: Vec<Held>,
        working: Vec<u64>,
        holder: Option<Arc<Holder>>,
    ) -> Lease {
        Lease {
            held,
            working,
            holder,
            handed_over: AtomicBool::new(false),
            shared,
        }
    }

    /// The models it holds, in the order in which they were asked for, each once for each device.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.held.iter().map(Held::model)
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

    fn find(&self, model: &Model, device: Option<Tier>) -> Result<Leased<'_>, Error> {
        let held = self.held.iter().find(|held| {
            let there = device.is_none_or(|tier| self.shared.tier_at(held.seat.tier) == tier);
            there && held.seat.entry.model.is_of(model)
        });
        let not_leased = || Error::NotLeased {
            model: model.name().to_owned(),
        };
        let held = held.ok_or_else(not_leased)?;
        let weights = match held.weights.get() {
            Some(weights) => weights,
            None => {
                let weights = held.seat.entry.model.weights(held.seat.tier);
                let weights = weights.ok_or_else(not_leased)?;
                held.weights.get_or_init(|| weights)
            }
        };
        Ok(Leased {
            weights: &***weights,
            tier: self.shared.tier_at(held.seat.tier),
            held,
        })
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
        given_out.try_for_each(|weights| weights.check())
    }

    /// The models that are no longer what was loaded, each with why.
    fn poisoned(&self) -> Vec<(Arc<Entry>, Error)> {
        let checked = self.held.iter().filter_map(|held| {
            let error = held.weights.get()?.check().err()?;
            Some((Arc::clone(&held.seat.entry), error))
        });
        checked.collect()
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
        for held in &mut self.held {
            // Whoever evicts has to be the last to hold the weights.
            drop(held.weights.take());
        }
        let seats = self.held.iter().map(|held| &held.seat);
        self.shared.gate.leave(seats, &self.working);
        // Whoever hears of it may panic, and all is let go of by now.
        for (entry, error) in poisoned {
            self.shared.drop_poisoned(&entry, &error);
        }
    }
}

/// The weights of one model, for as long as the lease is borrowed.
#[derive(Clone, Copy)]
pub struct Leased<'a> {
    weights: &'a dyn DeviceWeights,
    tier: Tier,
    held: &'a Held,
}

impl fmt::Debug for Leased<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leased").field(&self.model().name()).finish()
    }
}

impl<'a> Leased<'a> {
    /// The model.
    #[must_use]
    pub fn model(&self) -> &'a Model {
        self.held.model()
    }

    /// Where it was granted.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Its tensors' names, types and shapes.
    #[must_use]
    pub fn tensors(&self) -> &'a [TensorInfo] {
        self.model().tensors()
    }

    fn position(&self, name: &str) -> Result<usize, Error> {
        let found = self.model().tensor(name);
        found
            .map(|(index, _)| index)
            .ok_or_else(|| Error::NoTensor {
                model: self.model().name().to_owned(),
                tensor: name.to_owned(),
            })
    }

    /// A tensor on the device where the model was granted. In RAM, under `anonymous` and `mapped`
    /// storage, it is a view of the resident weights, without a copy; every call gives the same one.
    /// Do not write to it: other leases see it.
    ///
    /// Copied instead, and counted, where the memory cannot be adopted: under `heap` storage, where
    /// [`Selected`](plimsoll_profiles::Selected) is not the program's global allocator, under a
    /// limit of address space, and while the same tensor's [`bytes`](Self::bytes) are borrowed.
    ///
    /// # Errors
    /// [`Error::NoTensor`], [`Error::NotATensor`] for an element type that candle has not,
    /// [`Error::Corrupt`] where a device finds that something wrote to it.
    pub fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        self.weights.tensor(self.position(name)?)
    }

    /// A tensor of GGUF blocks, or of F32, F16 or BF16 numbers, as a quantised one on the device
    /// where the model was granted: what candle's own reader of GGUF gives, and `QMatMul` takes.
    ///
    /// In RAM it is a view of the resident weights or a copy, as [`tensor`](Self::tensor) is; a
    /// copy also where the same tensor was asked for as a plain one before, or this one is of
    /// another shape than the tensor it shares its bytes with. It keeps the memory alive as a
    /// tensor does. candle may repack the blocks of a tensor that it multiplies by, in memory of
    /// its own that goes with the tensor and is counted nowhere.
    ///
    /// # Errors
    /// [`Error::NoTensor`], [`Error::NotATensor`] for other element types, scalars, and devices
    /// without quantised tensors, [`Error::Corrupt`].
    pub fn quantised(&self, name: &str) -> Result<Arc<QTensor>, Error> {
        let index = self.position(name)?;
        let quantised = self.weights.quantised(index)?;
        quantised.ok_or_else(|| Error::NotATensor {
            model: self.model().name().to_owned(),
            tensor: name.to_owned(),
            dtype: self.tensors()[index].dtype.to_string(),
            reason: "its device has no quantised tensors".to_owned(),
        })
    }

    /// The bytes of a tensor as they are in the file.
    ///
    /// # Errors
    /// [`Error::NoTensor`], [`Error::Corrupt`].
    pub fn bytes(&self, name: &str) -> Result<WeightBytes<'a>, Error> {
        self.weights.bytes(self.position(name)?)
    }
}
