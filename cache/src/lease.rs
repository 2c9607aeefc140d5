//! A lease: the only way to weights.

use std::fmt;
use std::sync::{Arc, OnceLock};

use candle_core::Tensor;

use crate::cache::{Entry, Shared};
use crate::error::Error;
use crate::model::{Model, TensorInfo};
use crate::storage::{WeightBytes, Weights};

/// Holds models in RAM. While it lives none of them can be evicted; dropping it lets go of all.
///
/// Tensors may outlive it: they keep their memory alive and counted until they are dropped.
pub struct Lease {
    /// Declared first: weights are let go of before the pins.
    held: Vec<Held>,
    shared: Arc<Shared>,
}

/// A model that a lease holds.
pub(crate) struct Held {
    entry: Arc<Entry>,
    /// Fetched when first asked for: most of a lease's life is being held.
    weights: OnceLock<Arc<Weights>>,
}

impl Held {
    pub(crate) fn new(entry: Arc<Entry>) -> Held {
        Held {
            entry,
            weights: OnceLock::new(),
        }
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
    pub(crate) fn new(shared: Arc<Shared>, held: Vec<Held>) -> Lease {
        Lease { held, shared }
    }

    /// The models it holds, in the order in which they were asked for, each once.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.held.iter().map(|held| &held.entry.model)
    }

    /// One of its models.
    ///
    /// # Errors
    /// [`Error::NotLeased`] where the lease does not hold it.
    pub fn get(&self, model: &Model) -> Result<Leased<'_>, Error> {
        let entry = self.shared.entry(model);
        let not_leased = || Error::NotLeased {
            model: model.name().to_owned(),
        };
        let held = self
            .held
            .iter()
            .find(|held| Arc::ptr_eq(&held.entry, &entry))
            .ok_or_else(not_leased)?;
        if let Some(weights) = held.weights.get() {
            return Ok(Leased { weights, held });
        }
        let weights = entry.weights().ok_or_else(not_leased)?;
        Ok(Leased {
            weights: held.weights.get_or_init(|| weights),
            held,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for held in &mut self.held {
            // Whoever evicts has to be the last to hold the weights.
            drop(held.weights.take());
            self.shared.leave(&held.entry);
        }
    }
}

/// The weights of one model, for as long as the lease is borrowed.
#[derive(Clone, Copy)]
pub struct Leased<'a> {
    weights: &'a Weights,
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
        &self.held.entry.model
    }

    /// Its tensors' names, types and shapes.
    #[must_use]
    pub fn tensors(&self) -> &'a [TensorInfo] {
        self.model().tensors()
    }

    /// A tensor on the CPU. Under `anonymous` storage it is a view of the resident weights, without
    /// a copy; every call gives the same one. Do not write to it: other leases see it.
    ///
    /// Copied instead, and counted, where the memory cannot be adopted: under `heap` storage, where
    /// [`Selected`](plimsoll_profiles::Selected) is not the program's global allocator, and under
    /// a limit of address space.
    ///
    /// # Errors
    /// [`Error::NoTensor`], or [`Error::NotATensor`] for an element type that candle has not.
    pub fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        self.weights.tensor(name)
    }

    /// The bytes of a tensor as they are in the file.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn bytes(&self, name: &str) -> Result<WeightBytes<'a>, Error> {
        self.weights.bytes(name)
    }
}
