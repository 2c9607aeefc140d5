//! What a lease gives of a model.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;
use candle_core::quantized::QTensor;

use super::Lease;
use super::held::{Base, Held, Item, Patches};
use crate::beside::Beside;
use crate::cache::{Residency, Streaming};
use crate::device::{DeviceWeights, Tier};
use crate::error::Error;
use crate::model::{Model, TensorInfo};
use crate::patch::Unmatched;
use crate::storage::WeightBytes;

/// The weights of one model, for as long as the lease is borrowed.
#[derive(Clone, Copy)]
pub struct Leased<'a> {
    pub(super) model: &'a Model,
    /// Of what is held whole.
    pub(super) weights: Option<&'a dyn DeviceWeights>,
    pub(super) held: Option<&'a Held>,
    pub(super) item: Option<&'a Item>,
    pub(super) lease: &'a Lease,
}

impl fmt::Debug for Leased<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leased").field(&self.model().name()).finish()
    }
}

/// Where a tensor is.
enum Place<'a> {
    /// In weights that are held, at this position of their table.
    Held(&'a dyn DeviceWeights, usize),
    /// In what is there in part, at this position of the whole.
    Streamed(&'a Streaming, usize),
}

impl<'a> Leased<'a> {
    /// The model.
    #[must_use]
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Where it was granted.
    #[must_use]
    pub fn tier(&self) -> Tier {
        let tier = self.held.map(|held| held.seat.tier);
        let tier = self.item.map(|item| item.tier).or(tier);
        self.lease.shared.tier_at(tier.unwrap_or_default())
    }

    /// Its tensors' names, types and shapes, as they are in the files.
    #[must_use]
    pub fn tensors(&self) -> &'a [TensorInfo] {
        self.model.tensors()
    }

    /// A tensor's name, type and shape, as [`tensor`](Self::tensor) gives it: where patches append
    /// rows, with those.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn info(&self, name: &str) -> Result<&'a TensorInfo, Error> {
        let merged = self.merged().and_then(|held| held.model().tensor(name));
        let info = merged.or_else(|| self.model.tensor(name));
        info.map(|(_, info)| info)
            .ok_or_else(|| self.no_tensor(name))
    }

    fn no_tensor(&self, name: &str) -> Error {
        Error::NoTensor {
            model: self.model.name().to_owned(),
            tensor: name.to_owned(),
        }
    }

    /// The tensors that patches have changed, where those are merged.
    fn merged(&self) -> Option<&'a Held> {
        match self.item?.patches.as_ref()? {
            Patches::Merged(_, at) => Some(&self.lease.held[*at]),
            Patches::Beside(..) => None,
        }
    }

    fn place(&self, name: &str) -> Result<Place<'a>, Error> {
        let Some(item) = self.item else {
            let (at, _) = self
                .model
                .tensor(name)
                .ok_or_else(|| self.no_tensor(name))?;
            let weights = self.weights.ok_or_else(|| self.no_tensor(name))?;
            return Ok(Place::Held(weights, at));
        };
        let rest = item.rest.map(|at| &self.lease.held[at]);
        for held in self.merged().into_iter().chain(rest) {
            if let Some((at, _)) = held.model().tensor(name) {
                return Ok(Place::Held(held.weights()?, at));
            }
        }
        if let Base::Partly(streaming) = &item.base {
            let (at, _) = self
                .model
                .tensor(name)
                .ok_or_else(|| self.no_tensor(name))?;
            return Ok(Place::Streamed(streaming, at));
        }
        let held = self.held.ok_or_else(|| self.no_tensor(name))?;
        let found = held.model().tensor(name);
        let (at, _) = found.ok_or_else(|| self.no_tensor(name))?;
        Ok(Place::Held(held.weights()?, at))
    }

    /// A tensor on the device where the model was granted. In RAM, under `anonymous` and `mapped`
    /// storage, it is a view of the resident weights, without a copy; every call gives the same one.
    /// Do not write to it: other leases see it.
    ///
    /// Of a model that is leased in part it may have to come there first, through memory that has
    /// room for few: drop it before asking for many others. What a device cannot hold for its
    /// element type is a tensor in RAM.
    ///
    /// Copied instead, and counted, where the memory cannot be adopted: under `heap` storage, where
    /// [`Selected`](plimsoll_profiles::Selected) is not the program's global allocator, under a
    /// limit of address space, and while the same tensor's [`bytes`](Self::bytes) are borrowed.
    ///
    /// # Errors
    /// [`Error::NoTensor`], [`Error::NotATensor`] for an element type that candle has not,
    /// [`Error::Corrupt`] where a device finds that something wrote to it. Of a model that is leased
    /// in part also what bringing it there gives, and [`Error::PoolHeld`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        match self.place(name)? {
            Place::Held(weights, at) => weights.tensor(at),
            Place::Streamed(streaming, at) => streaming.with(at, |weights, at| weights.tensor(at)),
        }
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
        let quantised = match self.place(name)? {
            Place::Held(weights, at) => weights.quantised(at)?,
            Place::Streamed(streaming, at) => {
                streaming.with(at, |weights, at| weights.quantised(at))?
            }
        };
        match quantised {
            Some(quantised) => Ok(quantised),
            None => Err(Error::NotATensor {
                model: self.model.name().to_owned(),
                tensor: name.to_owned(),
                dtype: self.info(name)?.dtype.to_string(),
                reason: "its device has no quantised tensors".to_owned(),
            }),
        }
    }

    /// The bytes of a tensor as they are in the file, or as patches have made them. Copied where the
    /// model is leased in part.
    ///
    /// # Errors
    /// [`Error::NoTensor`], [`Error::Corrupt`].
    pub fn bytes(&self, name: &str) -> Result<WeightBytes<'a>, Error> {
        match self.place(name)? {
            Place::Held(weights, at) => weights.bytes(at),
            Place::Streamed(streaming, at) => streaming.with(at, |weights, at| {
                let bytes = weights.bytes(at)?;
                Ok(WeightBytes::fetched(bytes.to_vec()))
            }),
        }
    }

    /// What is to be added to a tensor, where patches are not merged: in the order in which they were
    /// named. Empty where no patch changes it, or they are merged.
    ///
    /// # Errors
    /// [`Error::NoTensor`], and as [`tensor`](Self::tensor).
    pub fn beside(&self, name: &str) -> Result<Vec<Beside>, Error> {
        let (target, _) = self
            .model
            .tensor(name)
            .ok_or_else(|| self.no_tensor(name))?;
        let mut all = Vec::new();
        if let Some(Patches::Beside(patched, places)) =
            self.item.and_then(|item| item.patches.as_ref())
        {
            for (patch, place) in patched.patches.iter().zip(places) {
                let weights = self.lease.held[*place].weights()?;
                for (edit, scale) in patch.edits(target) {
                    all.push(Beside::new(patch, edit, scale, weights)?);
                }
            }
        }
        Ok(all)
    }

    /// Whether patches are merged: `None` where there are none.
    #[must_use]
    pub fn is_merged(&self) -> Option<bool> {
        let patches = self.item?.patches.as_ref()?;
        Some(matches!(patches, Patches::Merged(..)))
    }

    /// Bytes that patches take on its device: those of the tensors that they have changed, or of
    /// their own that lie beside.
    #[must_use]
    pub fn patched_bytes(&self) -> u64 {
        let held = |at: &usize| self.lease.held[*at].model().bytes();
        match self.item.and_then(|item| item.patches.as_ref()) {
            None => 0,
            Some(Patches::Merged(_, at)) => held(at),
            Some(Patches::Beside(_, places)) => {
                // A patch that is named twice is there once.
                let firsts = places.iter().enumerate();
                let firsts = firsts.filter(|(at, place)| !places[..*at].contains(place));
                firsts.map(|(_, place)| held(place)).sum()
            }
        }
    }

    /// The parts of patches that fit nothing of this model, by the names of the patches, the first
    /// thousand of each. Empty unless it was asked for [`lenient`](crate::Wanted::lenient).
    pub fn unmatched(&self) -> impl Iterator<Item = (&'a str, &'a [Unmatched])> {
        let patches = self.item.and_then(|item| item.patches.as_ref());
        let patches = patches.into_iter().flat_map(|one| &one.patched().patches);
        patches
            .filter(|one| !one.unmatched.is_empty())
            .map(|one| (one.fitted.patch.model().name(), &one.unmatched[..]))
    }

    /// What of it is on its device now, and what streaming the rest has cost.
    #[must_use]
    pub fn residency(&self) -> Residency {
        match self.item.map(|item| &item.base) {
            Some(Base::Partly(streaming)) => streaming.residency(),
            Some(Base::There(_)) | None => Residency::whole(
                self.model.bytes(),
                self.held.map_or(0, |held| held.model().bytes()),
                self.held.map_or(0, |held| held.seat.charge()),
            ),
        }
    }

    /// Brings back what others have taken the room of, as far as there is room: what nobody cares for
    /// goes for it, nothing else. Returns the bytes that came; 0 of a model that is held whole.
    ///
    /// # Errors
    /// What loading them gives, other than for want of memory.
    pub fn grow(&self) -> Result<u64, Error> {
        match self.item.map(|item| &item.base) {
            Some(Base::Partly(streaming)) => streaming.grow(),
            Some(Base::There(_)) | None => Ok(0),
        }
    }

    /// What it is called in events and errors: the model's name, with its patches.
    #[must_use]
    pub fn name(&self) -> Cow<'a, str> {
        match self.item.and_then(|item| item.patches.as_ref()) {
            Some(patches) => Cow::Owned(patches.patched().name.clone()),
            None => Cow::Borrowed(self.model.name()),
        }
    }
}
