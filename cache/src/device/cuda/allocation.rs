//! Memory for a model that comes in, until it belongs to its weights.

use std::collections::VecDeque;
use std::sync::PoisonError;

use malloc_stats::Metric;

use super::Inner;
use super::layout::{Layout, MadeOf};
use super::tensors::{Block, Elements};
use crate::driver::{self, DriverError};
use crate::error::LoadError;
use crate::model::Model;

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

    /// Finds the largest block that can be had by trying, to a sixteenth.
    fn try_largest(&self, below: u64) -> Metric {
        let (mut can, mut cannot) = (0, below);
        while cannot - can > (below / 16).max(2 << 20) {
            let middle = can + (cannot - can) / 2;
            match self.pool.allocate(middle, &self.copies) {
                Ok(address) => {
                    // SAFETY: just taken, and nobody uses it.
                    let freed = unsafe { driver::free(address, &self.copies) };
                    if freed.and_then(|()| self.copies.finish()).is_err() {
                        return Metric::Unavailable;
                    }
                    can = middle;
                }
                Err(error) if error.is_out_of_memory() => cannot = middle,
                Err(_) => return Metric::Unavailable,
            }
        }
        let _ = self.trim();
        Metric::Estimated(can)
    }

    /// Takes memory for every area. What is taken when one is refused is given back.
    pub(super) fn allocate(&self, model: &Model, layout: &Layout) -> Result<Memory<'_>, LoadError> {
        let mut memory = Memory {
            inner: self,
            areas: VecDeque::with_capacity(layout.areas.len()),
        };
        for area in &layout.areas {
            let taken = match area.made_of {
                MadeOf::Quantised(tensor) => {
                    let tensor = &model.tensors()[tensor as usize];
                    let made = self.library.make_quantised(tensor);
                    let made = made.unwrap_or_else(|| Err("it has none such".to_owned()));
                    made.map(Taken::Made).map_err(|reason| {
                        if reason.contains("OUT_OF_MEMORY") {
                            return self.out_of_memory(model, layout.charge(), Some(reason));
                        }
                        self.refused(model, DriverError::Library { reason })
                    })
                }
                MadeOf::Elements(_) | MadeOf::Tensor(_) => {
                    self.take(area.charge).map(Taken::Plain).map_err(|error| {
                        if error.is_out_of_memory() {
                            let (free, _) = self.memory().unwrap_or_default();
                            let largest = self.try_largest(area.charge.min(free));
                            *self
                                .largest_block
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner) = largest;
                            return self.out_of_memory(
                                model,
                                layout.charge(),
                                Some(error.to_string()),
                            );
                        }
                        self.refused(model, error)
                    })
                }
            };
            memory.areas.push_back(taken?);
        }
        Ok(memory)
    }
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
