//! The resident weights of one model: bytes, and candle tensors over them.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, DType, Device, StorageRef, Tensor, WithDType};
use plimsoll_profiles::window::Orphan;
use safetensors::Dtype;

use super::Storage;
use super::anonymous::Region;
use super::heap::Blocks;
use super::recycler::Recycler;
use crate::error::{Error, LoadError};
use crate::model::{Model, TensorInfo};
use crate::observe::LoadObserver;

/// Counts tensors that had to be copied.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Whether it was said that there are any.
    said: AtomicBool,
    pub(crate) tensors: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

#[derive(Debug)]
enum Memory {
    Heap(Blocks),
    Anonymous(Region),
}

/// A model's weights in RAM.
#[derive(Debug)]
pub(crate) struct Weights {
    model: Model,
    /// One tensor over each adopted block, made when it is first asked for; `None` where the block
    /// cannot be adopted. There is never a second over the same bytes: clones share this one's
    /// lock, which is what makes candle's in-place operations and [`Weights::bytes`] safe beside
    /// each other. Declared before `memory`, so that these go first.
    tensors: Box<[OnceLock<Option<Tensor>>]>,
    memory: Memory,
    copies: Arc<Copies>,
}

/// What became of the memory at unload.
#[derive(Debug, Default)]
pub(crate) struct Unloaded {
    /// Bytes kept for a load under way.
    pub(crate) recycled_bytes: u64,
    /// Bytes given back to the system, where that is known exactly.
    pub(crate) returned_bytes: Option<u64>,
    /// Memory that tensors still hold.
    pub(crate) held: Option<Orphan>,
}

impl Weights {
    /// Loads a model.
    pub(crate) fn load(
        storage: Storage,
        model: &Model,
        recycler: &Arc<Recycler>,
        copies: &Arc<Copies>,
        observer: &dyn LoadObserver,
    ) -> Result<Weights, LoadError> {
        let memory = match storage {
            Storage::Heap => Memory::Heap(Blocks::load(model, observer)?),
            Storage::Anonymous => Memory::Anonymous(Region::load(model, recycler, observer)?),
        };
        Ok(Weights {
            model: model.clone(),
            tensors: model.tensors().iter().map(|_| OnceLock::new()).collect(),
            memory,
            copies: Arc::clone(copies),
        })
    }

    /// Bytes that were loaded into pages which an eviction had left.
    pub(crate) fn recycled_bytes(&self) -> u64 {
        match &self.memory {
            Memory::Heap(_) => 0,
            Memory::Anonymous(region) => region.recycled_bytes(),
        }
    }

    /// Drops the weights and says what became of their memory.
    pub(crate) fn unload(self) -> Unloaded {
        drop(self.tensors);
        match self.memory {
            Memory::Heap(blocks) => {
                drop(blocks);
                Unloaded::default()
            }
            Memory::Anonymous(region) => {
                let released = region.release();
                Unloaded {
                    recycled_bytes: released.recycled_bytes,
                    returned_bytes: released.held.is_none().then_some(released.returned_bytes),
                    held: released.held,
                }
            }
        }
    }

    fn find(&self, name: &str) -> Result<(usize, &TensorInfo), Error> {
        self.model.tensor(name).ok_or_else(|| Error::NoTensor {
            model: self.model.name().to_owned(),
            tensor: name.to_owned(),
        })
    }

    /// The bytes of a tensor, in the file's order and encoding.
    pub(crate) fn bytes(&self, name: &str) -> Result<WeightBytes<'_>, Error> {
        let (index, tensor) = self.find(name)?;
        // Where a tensor can exist over these bytes it has to, so that its lock keeps writers out.
        // Then they are reached through it alone: an in-place operation may have taken its vector
        // away, whose new owner writes to this memory without any lock.
        Ok(WeightBytes(match self.adopted(index, tensor) {
            Some(tensor) => Source::Tensor(tensor.storage_and_layout().0),
            None => Source::Memory(self.plain(index)),
        }))
    }

    /// The bytes of a tensor that is not adopted.
    fn plain(&self, index: usize) -> &[u8] {
        match &self.memory {
            Memory::Heap(blocks) => blocks.bytes(index),
            Memory::Anonymous(region) => region.bytes(index),
        }
    }

    /// A candle tensor on the CPU: over this memory where it can be adopted, else a copy.
    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        let (index, tensor) = self.find(name)?;
        if let Some(adopted) = self.adopted(index, tensor) {
            return Ok(adopted.clone());
        }
        let refused = |reason: String| Error::NotATensor {
            model: self.model.name().to_owned(),
            tensor: tensor.name.to_string(),
            dtype: format!("{:?}", tensor.dtype),
            reason,
        };
        let dtype = DType::try_from(tensor.dtype).map_err(|error| refused(error.to_string()))?;
        let copy = Tensor::from_raw_buffer(self.plain(index), dtype, &tensor.shape, &Device::Cpu)
            .map_err(|error| refused(error.to_string()))?;
        self.copies.tensors.fetch_add(1, Ordering::Relaxed);
        if !self.copies.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                model = %self.model.name().escape_debug(),
                tensor = %tensor.name.escape_debug(),
                "tensors are copied, since their memory cannot be adopted: under `heap` storage, \
                 without plimsoll_profiles::Selected as global allocator, or without address space"
            );
        }
        self.copies.bytes.fetch_add(tensor.bytes, Ordering::Relaxed);
        Ok(copy)
    }

    /// The one tensor over this memory, if there can be one.
    fn adopted(&self, index: usize, tensor: &TensorInfo) -> Option<&Tensor> {
        let Memory::Anonymous(region) = &self.memory else {
            return None;
        };
        // Two threads may come here at once, and only one may make a vector over these bytes.
        self.tensors[index]
            .get_or_init(|| adopt(region, index, tensor))
            .as_ref()
    }
}

fn adopt(region: &Region, index: usize, tensor: &TensorInfo) -> Option<Tensor> {
    match tensor.dtype {
        Dtype::U8 => over::<u8>(region, index, tensor),
        Dtype::U32 => over::<u32>(region, index, tensor),
        Dtype::I16 => over::<i16>(region, index, tensor),
        Dtype::I32 => over::<i32>(region, index, tensor),
        Dtype::I64 => over::<i64>(region, index, tensor),
        Dtype::BF16 => over::<half::bf16>(region, index, tensor),
        Dtype::F16 => over::<half::f16>(region, index, tensor),
        Dtype::F32 => over::<f32>(region, index, tensor),
        Dtype::F64 => over::<f64>(region, index, tensor),
        Dtype::F8_E4M3 => over::<float8::F8E4M3>(region, index, tensor),
        _ => None,
    }
}

fn over<T: WithDType>(region: &Region, index: usize, tensor: &TensorInfo) -> Option<Tensor> {
    // SAFETY: called once for each tensor, under its cell's initialisation; from here on its bytes
    // are read through the resulting tensor alone.
    let vector = unsafe { region.adopt::<T>(index) }?;
    Tensor::from_vec(vector, &tensor.shape[..], &Device::Cpu).ok()
}

/// The bytes of a tensor, borrowed from a lease. While this lives, candle's in-place operations on
/// the same tensor wait: do not run one on the thread that holds it.
#[derive(Debug)]
pub struct WeightBytes<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Memory(&'a [u8]),
    Tensor(StorageRef<'a>),
}

impl Deref for WeightBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let storage = match &self.0 {
            Source::Memory(bytes) => return bytes,
            Source::Tensor(storage) => storage,
        };
        let candle_core::Storage::Cpu(storage) = &**storage else {
            return &[];
        };
        match storage {
            CpuStorage::U8(values) => values,
            CpuStorage::U32(values) => bytes_of(values),
            CpuStorage::I16(values) => bytes_of(values),
            CpuStorage::I32(values) => bytes_of(values),
            CpuStorage::I64(values) => bytes_of(values),
            CpuStorage::BF16(values) => bytes_of(values),
            CpuStorage::F16(values) => bytes_of(values),
            CpuStorage::F32(values) => bytes_of(values),
            CpuStorage::F64(values) => bytes_of(values),
            CpuStorage::F8E4M3(values) => bytes_of(values),
            CpuStorage::F6E2M3(bytes)
            | CpuStorage::F6E3M2(bytes)
            | CpuStorage::F4(bytes)
            | CpuStorage::F8E8M0(bytes) => bytes,
        }
    }
}

fn bytes_of<T: WithDType>(values: &[T]) -> &[u8] {
    // SAFETY: numbers have no padding, so all of their bytes are initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
