//! What a CUDA device holds of a model.

use std::sync::Arc;

use candle_core::Tensor;
use candle_core::quantized::QTensor;
use malloc_stats::Metric;
use plimsoll_events::DeviceFreed;

use super::Inner;
use super::counted::{Counted, Left};
use super::layout::{Layout, MadeOf};
use super::tensors::Block;
use crate::device::{DeviceWeights, Held, Unloaded};
use crate::driver::copy_to_host;
use crate::error::Error;
use crate::model::{Model, TensorInfo};
use crate::storage::WeightBytes;

/// Weights on a CUDA device.
#[derive(Debug)]
pub(super) struct CudaWeights {
    pub(super) inner: Arc<Inner>,
    pub(super) model: Model,
    pub(super) layout: Layout,
    /// One to an area. Emptied only while they are let go of.
    pub(super) blocks: Vec<Box<dyn Block>>,
    pub(super) counted: Counted,
    /// What of its memory was kept for it.
    pub(super) recycled_bytes: u64,
}

impl CudaWeights {
    fn refused(&self, tensor: &TensorInfo, reason: String) -> Error {
        Error::NotATensor {
            model: self.model.name().to_owned(),
            tensor: tensor.name.to_string(),
            dtype: tensor.dtype.to_string(),
            reason,
        }
    }

    /// Lets go of all blocks. Those that tensors are still over are returned.
    fn let_go(&mut self) -> Vec<Left> {
        // Freeing is in the order of the stream, but not on any thread: the library that frees may
        // want the context to be the thread's.
        let _bound = self.inner.context.bind();
        let areas = self.layout.areas.iter().zip(self.blocks.drain(..));
        areas
            .map(|(area, block)| Left {
                life: block.life(),
                bytes: area.charge,
                is_outside: matches!(area.made_of, MadeOf::Quantised(_)),
            })
            .filter(|left| !left.is_gone())
            .collect()
    }

    /// Returns what was kept of it for loads to come, too.
    fn freed(&mut self) -> (DeviceFreed, Vec<Left>, u64) {
        let inner = Arc::clone(&self.inner);
        let look = || {
            let free = inner.context.memory().ok().map(|(free, _)| free);
            let pool = inner.pool.figures().ok().map(|pool| pool.used);
            (Metric::from(free), Metric::from(pool))
        };
        let (free_before, pool_before) = look();
        let held = self.let_go();
        let in_pool = |left: &Left| if left.is_outside { 0 } else { left.bytes };
        let held_in_pool: u64 = held.iter().map(in_pool).sum();
        let loose = self.layout.charge() - self.layout.outside() - held_in_pool;
        let kept = inner.kept().freed(loose);
        // Only once its users are done is anything free, and only then can it be given back. Where a
        // load waits for all of it, the driver has that follow them by itself.
        let is_all_kept = kept == self.layout.charge();
        let given = match is_all_kept && kept > 0 {
            true => inner.hold_on(),
            false => inner
                .hold_on()
                .and_then(|()| inner.consumer.finish())
                .and_then(|()| inner.trim()),
        };
        if let Err(error) = given {
            tracing::warn!(
                device = %inner.name,
                model = %self.model.name().escape_debug(),
                %error,
                "memory was freed, but the driver cannot say that it is"
            );
        }
        let (free_after, pool_after) = look();
        let freed = DeviceFreed {
            free_before,
            free_after,
            pool_before,
            pool_after,
        };
        (freed, held, kept)
    }
}

impl DeviceWeights for CudaWeights {
    fn tensor(&self, index: usize) -> Result<Tensor, Error> {
        let tensor = &self.model.tensors()[index];
        if tensor.dtype.candle().is_none() {
            let reason = match tensor.dtype.quantised() {
                Some(_) => "it is quantised: ask for it with `quantised`".to_owned(),
                None => format!("candle has no type {}", tensor.dtype),
            };
            return Err(self.refused(tensor, reason));
        }
        let home = self.layout.homes[index];
        let first = home.at as usize * 8 / tensor.dtype.bitsize();
        self.blocks[home.area]
            .tensor(first, tensor)
            .map_err(|reason| self.refused(tensor, reason))
    }

    fn quantised(&self, index: usize) -> Result<Option<Arc<QTensor>>, Error> {
        let tensor = &self.model.tensors()[index];
        self.blocks[self.layout.homes[index].area]
            .quantised(tensor)
            .map_err(|reason| self.refused(tensor, reason))
    }

    fn recycled_bytes(&self) -> u64 {
        self.recycled_bytes
    }

    fn bytes(&self, index: usize) -> Result<WeightBytes<'_>, Error> {
        let tensor = &self.model.tensors()[index];
        let home = self.layout.homes[index];
        let mut bytes = vec![0; tensor.bytes as usize];
        let from = self.blocks[home.area].address() + home.at;
        let stream = &self.inner.reads;
        let copied = stream.follow(&self.inner.consumer).and_then(|()| {
            // SAFETY: the tensor lies in the block, and weights are not written to. What of them a
            // program writes to nevertheless, it does in the order of its stream.
            unsafe { copy_to_host(&mut bytes, from, stream) }
        });
        copied.map_err(|error| Error::Device {
            device: self.inner.name.clone(),
            model: self.model.name().to_owned(),
            error: Box::new(error),
        })?;
        Ok(WeightBytes::fetched(bytes))
    }

    fn unload(mut self: Box<Self>) -> Unloaded {
        let (freed, held, recycled_bytes) = self.freed();
        let held = self.counted.leave(held);
        Unloaded {
            recycled_bytes,
            returned_bytes: Some(self.counted.bytes - recycled_bytes),
            device: Some(freed),
            held: held.map(|held| Box::new(held) as Box<dyn Held>),
            ..Unloaded::default()
        }
    }
}

impl Drop for CudaWeights {
    fn drop(&mut self) {
        if !self.blocks.is_empty() {
            let (_, held, _) = self.freed();
            self.counted.leave(held);
        }
    }
}
