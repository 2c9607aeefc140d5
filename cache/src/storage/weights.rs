//! The weights of one model in host memory: bytes, and candle tensors over them.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, DType, Device, StorageRef, Tensor, WithDType};
use plimsoll_profiles::window::Orphan;
use safetensors::Dtype;

use super::Storage;
use super::anonymous::Region;
use super::heap::Blocks;
use super::recycler::Recycler;
use crate::device::{DeviceWeights, Held, Unloaded};
use crate::error::{Error, LoadError};
use crate::model::{Model, TensorInfo};
use crate::observe::LoadObserver;

/// Counts tensors that had to be copied.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Whether it was said that there are any.
    said: AtomicBool,
    tensors: AtomicU64,
    bytes: AtomicU64,
}

impl Copies {
    /// Tensors and bytes since the last call.
    pub(crate) fn take(&self) -> (u64, u64) {
        let tensors = self.tensors.swap(0, Ordering::Relaxed);
        (tensors, self.bytes.swap(0, Ordering::Relaxed))
    }
}

#[derive(Debug)]
enum Memory {
    Heap(Blocks),
    Anonymous(Region),
}

/// A model's weights in host memory.
#[derive(Debug)]
pub(crate) struct HostWeights {
    model: Model,
    /// Declared before `memory`, so that tensors go first.
    views: Box<[View]>,
    memory: Memory,
    copies: Arc<Copies>,
}

/// Who sees the bytes of a tensor: readers of plain memory, or one candle tensor.
///
/// There is never a second tensor over the same bytes: clones share this one's lock, which is what
/// makes candle's in-place operations and readers safe beside each other. And there is none while
/// somebody reads plain memory, which has no lock.
#[derive(Debug, Default)]
struct View {
    /// How many read plain memory; or [`ADOPTED`] beside it, once nobody may begin to.
    readers: AtomicU32,
    /// The tensor over the adopted block; `None` where it cannot be adopted.
    tensor: OnceLock<Option<Tensor>>,
}

const ADOPTED: u32 = 1 << 31;

impl View {
    /// Begins to read plain memory, unless it is adopted.
    fn read(&self) -> Option<Reading<'_>> {
        let mut readers = self.readers.load(Ordering::Relaxed);
        while readers & ADOPTED == 0 {
            // Acquire and, in `Reading`, Release: reads end before a tensor over them begins.
            match self.readers.compare_exchange_weak(
                readers,
                readers + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Reading(&self.readers)),
                Err(seen) => readers = seen,
            }
        }
        None
    }

    /// Keeps readers of plain memory away, unless there are some.
    fn adopt(&self) -> bool {
        let taken = self
            .readers
            .compare_exchange(0, ADOPTED, Ordering::Acquire, Ordering::Acquire);
        matches!(taken, Ok(_) | Err(ADOPTED))
    }
}

/// Somebody reads plain memory.
#[derive(Debug)]
struct Reading<'a>(&'a AtomicU32);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl HostWeights {
    /// Loads a model.
    pub(crate) fn load(
        storage: Storage,
        model: &Model,
        recycler: &Arc<Recycler>,
        copies: &Arc<Copies>,
        observer: &dyn LoadObserver,
    ) -> Result<HostWeights, LoadError> {
        let memory = match storage {
            Storage::Heap => Memory::Heap(Blocks::load(model, observer)?),
            Storage::Anonymous => Memory::Anonymous(Region::load(model, recycler, observer)?),
        };
        Ok(HostWeights::new(model, memory, copies))
    }

    /// Weights in a region that was filled.
    pub(crate) fn over(model: &Model, region: Region, copies: &Arc<Copies>) -> HostWeights {
        HostWeights::new(model, Memory::Anonymous(region), copies)
    }

    fn new(model: &Model, memory: Memory, copies: &Arc<Copies>) -> HostWeights {
        HostWeights {
            model: model.clone(),
            views: model.tensors().iter().map(|_| View::default()).collect(),
            memory,
            copies: Arc::clone(copies),
        }
    }

    /// The bytes of a tensor that nobody can write to: it is not adopted.
    fn plain(&self, index: usize) -> &[u8] {
        match &self.memory {
            Memory::Heap(blocks) => blocks.bytes(index),
            Memory::Anonymous(region) => region.bytes(index),
        }
    }

    fn copy(&self, index: usize, tensor: &TensorInfo) -> Result<Tensor, Error> {
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
                 without plimsoll_profiles::Selected as global allocator, without address space, \
                 or while their bytes are being read"
            );
        }
        self.copies.bytes.fetch_add(tensor.bytes, Ordering::Relaxed);
        Ok(copy)
    }

    /// The one tensor over this memory, if there can be one.
    fn adopted(&self, region: &Region, index: usize, tensor: &TensorInfo) -> Option<&Tensor> {
        let view = &self.views[index];
        if !view.adopt() {
            return None;
        }
        // Two threads may come here at once, and only one may make a vector over these bytes.
        view.tensor
            .get_or_init(|| adopt(region, index, tensor))
            .as_ref()
    }
}

impl DeviceWeights for HostWeights {
    /// A candle tensor on the CPU: over this memory where it can be adopted, else a copy.
    fn tensor(&self, index: usize) -> Result<Tensor, Error> {
        let tensor = &self.model.tensors()[index];
        let mut reading = None;
        if let Memory::Anonymous(region) = &self.memory {
            let mut adopted = self.adopted(region, index, tensor);
            if adopted.is_none() {
                // While it is copied nobody may begin to write to it.
                reading = self.views[index].read();
                if reading.is_none() {
                    // It was adopted since; or it cannot be, and never will be.
                    adopted = self.adopted(region, index, tensor);
                }
            }
            if let Some(adopted) = adopted {
                return Ok(adopted.clone());
            }
        }
        let copy = self.copy(index, tensor);
        drop(reading);
        copy
    }

    fn bytes(&self, index: usize) -> Result<WeightBytes<'_>, Error> {
        let view = &self.views[index];
        if let Some(reading) = view.read() {
            return Ok(WeightBytes(Source::Memory(
                self.plain(index),
                Some(reading),
            )));
        }
        // An in-place operation may have taken the tensor's vector away, whose new owner writes to
        // this memory without any lock. So once it is adopted it is read through the tensor alone.
        let Memory::Anonymous(region) = &self.memory else {
            return Ok(WeightBytes(Source::Memory(self.plain(index), None)));
        };
        let tensor = &self.model.tensors()[index];
        Ok(WeightBytes(match self.adopted(region, index, tensor) {
            Some(tensor) => Source::Tensor(tensor.storage_and_layout().0),
            // It could not be adopted, and never will be.
            None => Source::Memory(self.plain(index), None),
        }))
    }

    fn recycled_bytes(&self) -> u64 {
        match &self.memory {
            Memory::Heap(_) => 0,
            Memory::Anonymous(region) => region.recycled_bytes(),
        }
    }

    fn unload(self: Box<Self>) -> Unloaded {
        drop(self.views);
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
                    held: released
                        .held
                        .map(|orphan| Box::new(orphan) as Box<dyn Held>),
                }
            }
        }
    }
}

impl Held for Orphan {
    fn bytes(&self) -> u64 {
        Orphan::bytes(self) as u64
    }

    fn is_gone(&self) -> bool {
        Orphan::is_gone(self)
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
    /// With what keeps tensors away, where one could come to be over these bytes.
    Memory(
        &'a [u8],
        #[expect(dead_code, reason = "held, not read")] Option<Reading<'a>>,
    ),
    Tensor(StorageRef<'a>),
    /// Fetched from where it cannot be borrowed.
    Fetched(Vec<u8>),
}

impl WeightBytes<'_> {
    /// Bytes that were fetched from a device.
    #[must_use]
    pub fn fetched(bytes: Vec<u8>) -> WeightBytes<'static> {
        WeightBytes(Source::Fetched(bytes))
    }
}

impl Deref for WeightBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let storage = match &self.0 {
            Source::Memory(bytes, _) => return bytes,
            Source::Fetched(bytes) => return bytes,
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
