//! Memory for a model that comes in, until it belongs to its weights.

use std::collections::VecDeque;
use std::sync::PoisonError;

use malloc_stats::Metric;

use super::Inner;
use super::layout::{Layout, MadeOf};
use super::tensors::{Block, Elements};
use crate::driver::{self, DriverError};
use crate::error::LoadError;
use crate::model::{Model, TensorInfo};

impl Inner {
    /// Takes memory of the pool. Where there is none, what was freed and is still in use is waited
    /// for, and then it is tried again.
    fn take(&self, bytes: u64) -> Result<u64, DriverError> {
        let refused = match self.pool.allocate(bytes, &self.copies) {
            Err(error) if error.is_out_of_memory() => error,
            done => return done,
        };
        match self.consumer.finish().and_then(|()| self.copies.finish()) {
            Ok(()) => self.pool.allocate(bytes, &self.copies),
            Err(_) => Err(refused),
        }
    }

    /// Makes memory for a quantised tensor, in the same manner.
    fn make(&self, tensor: &TensorInfo) -> Result<Box<dyn Block>, String> {
        let make = || {
            let made = self.library.make_quantised(tensor);
            made.unwrap_or_else(|| Err("it has none such".to_owned()))
        };
        let refused = match make() {
            Err(refused) if is_out_of_memory(&refused) => refused,
            done => return done,
        };
        match self.consumer.finish().and_then(|()| self.trim()) {
            Ok(()) => make(),
            Err(_) => Err(refused),
        }
    }

    fn full(&self, model: &Model, layout: &Layout, area: u64, reason: String) -> LoadError {
        // To try what could be had would take it from others meanwhile. A block of this size could
        // not.
        let (free, _) = self.memory().unwrap_or_default();
        let mut largest = self
            .largest_block
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *largest = Metric::Upper(free.min(area));
        drop(largest);
        self.out_of_memory(model, layout.charge(), Some(reason))
    }

    /// Takes memory for every area. What is taken when one is refused is given back.
    pub(super) fn allocate(&self, model: &Model, layout: &Layout) -> Result<Memory<'_>, LoadError> {
        let mut memory = Memory {
            inner: self,
            areas: VecDeque::with_capacity(layout.areas.len()),
        };
        for area in &layout.areas {
            let taken = match area.made_of {
                MadeOf::Quantised(tensor) => self
                    .make(&model.tensors()[tensor as usize])
                    .map(Taken::Made)
                    .map_err(|reason| match is_out_of_memory(&reason) {
                        true => self.full(model, layout, area.charge, reason),
                        false => self.refused(model, DriverError::Library { reason }),
                    }),
                MadeOf::Elements(_) | MadeOf::Tensor(_) => self
                    .take(area.charge)
                    .map(Taken::Plain)
                    .map_err(|error| match error.is_out_of_memory() {
                        true => self.full(model, layout, area.charge, error.to_string()),
                        false => self.refused(model, error),
                    }),
            };
            memory.areas.push_back(taken?);
        }
        Ok(memory)
    }
}

/// Whether a library's words, which have the driver's, say that memory is what lacked.
fn is_out_of_memory(reason: &str) -> bool {
    reason.contains("CUDA_ERROR_OUT_OF_MEMORY")
}

/// Memory of areas, on its way to belong to weights; given back where it does not come to that.
pub(super) struct Memory<'a> {
    inner: &'a Inner,
    areas: VecDeque<Taken>,
}

enum Taken {
    Plain(u64),
    Made(Box<dyn Block>),
}

impl Memory<'_> {
    pub(super) fn addresses(&self) -> Vec<u64> {
        let address = |taken: &Taken| match taken {
            Taken::Plain(address) => *address,
            Taken::Made(block) => block.address(),
        };
        self.areas.iter().map(address).collect()
    }

    /// Hands all of it over to the tensor library.
    pub(super) fn into_blocks(
        mut self,
        model: &Model,
        layout: &Layout,
    ) -> Result<Vec<Box<dyn Block>>, LoadError> {
        let mut blocks = Vec::with_capacity(layout.areas.len());
        for area in &layout.areas {
            let taken = match self.areas.pop_front() {
                Some(Taken::Made(block)) => {
                    blocks.push(block);
                    continue;
                }
                Some(Taken::Plain(address)) => address,
                None => break,
            };
            let bytes = area.len as usize;
            let elements = match area.made_of {
                MadeOf::Elements(dtype) => Elements {
                    dtype,
                    count: bytes * 8 / dtype.bitsize(),
                    bytes,
                },
                MadeOf::Tensor(index) | MadeOf::Quantised(index) => {
                    let tensor = &model.tensors()[index as usize];
                    Elements {
                        dtype: tensor.dtype,
                        count: tensor.elements() as usize,
                        bytes,
                    }
                }
            };
            // SAFETY: taken from the pool for this area, which has so many, and `self` has let go
            // of it.
            let block = unsafe { self.inner.library.take(taken, elements) };
            blocks.push(block.map_err(|reason| {
                self.areas.push_front(Taken::Plain(taken));
                self.inner.refused(model, DriverError::Library { reason })
            })?);
        }
        Ok(blocks)
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if self.areas.is_empty() {
            return;
        }
        for taken in self.areas.drain(..) {
            if let Taken::Plain(address) = taken {
                // SAFETY: taken from the pool, never handed over; transfers to it have ended.
                let _ = unsafe { driver::free(address, &self.inner.copies) };
            }
        }
        let freed = self.inner.copies.finish();
        let _ = freed.and_then(|()| self.inner.trim());
    }
}
