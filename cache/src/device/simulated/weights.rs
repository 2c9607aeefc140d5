//! What a simulated device holds, verified whenever it is read.

use std::sync::Arc;

use candle_core::Tensor;
use candle_core::quantized::QTensor;
use xxhash_rust::xxh3::xxh3_64;

use super::Occupied;
use crate::device::{DeviceWeights, Held, Unloaded};
use crate::error::Error;
use crate::model::Model;
use crate::storage::{HostWeights, WeightBytes};

/// Weights on a simulated device.
#[derive(Debug)]
pub(super) struct SimulatedWeights {
    pub(super) device: String,
    pub(super) model: Model,
    /// `None` only while they are let go of.
    pub(super) weights: Option<Box<HostWeights>>,
    /// XXH3-64 of each tensor as it was written.
    pub(super) sums: Box<[u64]>,
    pub(super) memory: Occupied,
}

impl DeviceWeights for SimulatedWeights {
    fn tensor(&self, index: usize) -> Result<Tensor, Error> {
        drop(self.bytes(index)?);
        self.there()?.tensor(index)
    }

    fn quantised(&self, index: usize) -> Result<Option<Arc<QTensor>>, Error> {
        drop(self.bytes(index)?);
        self.there()?.quantised(index)
    }

    fn bytes(&self, index: usize) -> Result<WeightBytes<'_>, Error> {
        let bytes = self.there()?.bytes(index)?;
        let found = xxh3_64(&bytes);
        if found == self.sums[index] {
            return Ok(bytes);
        }
        Err(Error::Corrupt {
            device: self.device.clone(),
            model: self.model.name().to_owned(),
            tensor: self.model.tensors()[index].name.to_string(),
            expected: self.sums[index],
            found,
        })
    }

    fn recycled_bytes(&self) -> u64 {
        let weights = self.weights.as_ref();
        weights.map_or(0, |weights| weights.recycled_bytes())
    }

    fn unload(mut self: Box<Self>) -> Unloaded {
        self.let_go()
    }
}

impl SimulatedWeights {
    fn there(&self) -> Result<&HostWeights, Error> {
        self.weights.as_deref().ok_or_else(|| Error::NotLeased {
            model: self.model.name().to_owned(),
        })
    }

    /// Lets go of the weights. The device has back what no tensor holds as `memory` is dropped.
    fn let_go(&mut self) -> Unloaded {
        let Some(weights) = self.weights.take() else {
            return Unloaded::default();
        };
        let unloaded = weights.unload();
        let Some(held) = unloaded.held else {
            return Unloaded {
                returned_bytes: Some(self.memory.bytes.saturating_sub(unloaded.recycled_bytes)),
                ..unloaded
            };
        };
        // Tensors hold a part of it, and the device has it back when they go.
        let held: Arc<dyn Held> = Arc::from(held);
        let bytes = held.bytes().min(self.memory.bytes);
        self.memory.bytes -= bytes;
        self.memory.inner.state().held.push(Arc::clone(&held));
        Unloaded {
            held: Some(Box::new(StillHeld(held))),
            returned_bytes: Some(self.memory.bytes),
            recycled_bytes: 0,
            ..Unloaded::default()
        }
    }
}

impl Drop for SimulatedWeights {
    fn drop(&mut self) {
        self.let_go();
    }
}

struct StillHeld(Arc<dyn Held>);

impl Held for StillHeld {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}
