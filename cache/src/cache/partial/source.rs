//! A part of a model, read from the copy of the whole in RAM.

use std::sync::Arc;

use candle_core::Tensor;

use crate::books::RAM;
use crate::cache::known;
use crate::cache::{Entry, Gate, Seat};
use crate::device::{DeviceWeights, Unloaded};
use crate::error::Error;
use crate::model::Model;
use crate::storage::WeightBytes;

/// The weights of a whole model in RAM, as those of a part of it.
pub(crate) struct InRam<'a> {
    model: String,
    /// `None` only while it is let go of.
    weights: Option<known::Shared>,
    /// Where each tensor of the part is in the whole.
    positions: Vec<usize>,
    /// What keeps it there.
    pin: Option<(&'a Arc<Gate>, Seat)>,
}

impl std::fmt::Debug for InRam<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InRam").finish_non_exhaustive()
    }
}

impl<'a> InRam<'a> {
    /// A part of what RAM has, pinned while it is read; `None` where RAM does not have it, or it is
    /// on its way.
    pub(crate) fn of(gate: &'a Arc<Gate>, whole: &Arc<Entry>, part: &Model) -> Option<InRam<'a>> {
        let seat = Seat::new(whole, RAM);
        if !seat.slot().pins.enter() {
            return None;
        }
        let Some(mut in_ram) = InRam::pinned(whole, part) else {
            gate.leave(std::iter::once(&seat), &Default::default());
            return None;
        };
        in_ram.pin = Some((gate, seat));
        Some(in_ram)
    }

    /// The same of what the caller has pinned.
    pub(crate) fn pinned(whole: &Arc<Entry>, part: &Model) -> Option<InRam<'static>> {
        let weights = whole.model.weights(RAM)?;
        let mut positions = Vec::with_capacity(part.tensors().len());
        for tensor in part.tensors() {
            let (position, _) = whole.model.model.tensor(&tensor.name)?;
            positions.push(position);
        }
        Some(InRam {
            model: whole.model.model.name().to_owned(),
            weights: Some(weights),
            positions,
            pin: None,
        })
    }

    fn there(&self) -> Result<&known::Shared, Error> {
        self.weights.as_ref().ok_or_else(|| Error::NotLeased {
            model: self.model.clone(),
        })
    }
}

impl Drop for InRam<'_> {
    fn drop(&mut self) {
        // Whoever evicts has to be the last to hold the weights.
        drop(self.weights.take());
        if let Some((gate, seat)) = self.pin.take() {
            gate.leave(std::iter::once(&seat), &Default::default());
        }
    }
}

impl DeviceWeights for InRam<'_> {
    fn tensor(&self, index: usize) -> Result<Tensor, Error> {
        self.there()?.tensor(self.positions[index])
    }

    fn bytes(&self, index: usize) -> Result<WeightBytes<'_>, Error> {
        self.there()?.bytes(self.positions[index])
    }

    fn check(&self) -> Result<(), Error> {
        self.there()?.check()
    }

    fn page_locked(&self) -> Option<usize> {
        self.there().ok()?.page_locked()
    }

    fn unload(self: Box<Self>) -> Unloaded {
        Unloaded::default()
    }
}
