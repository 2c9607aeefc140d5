//! Who sees the bytes of a tensor in host memory.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::quantized::QTensor;
use candle_core::{CpuStorage, Device, StorageRef, Tensor, WithDType};

use super::quantised;
use super::weights::Memory;
use crate::model::{Dtype, TensorInfo};

/// Who sees the bytes of a tensor: readers of plain memory, or one candle tensor.
///
/// There is never a second tensor over the same bytes: clones share this one's lock, which is what
/// makes candle's in-place operations and readers safe beside each other. And there is none while
/// somebody reads plain memory, which has no lock. A quantised tensor has no lock either and needs
/// none: it owns its blocks, and candle has nothing that writes to those of one that exists. Nor is
/// it ever over the bytes of a tensor that can be written to; whoever asks for the other kind of
/// what is there gets a copy.
#[derive(Debug, Default)]
pub(super) struct View {
    /// How many read plain memory; or [`ADOPTED`] beside it, once nobody may begin to.
    readers: AtomicU32,
    /// What is over the adopted block; `None` where it cannot be adopted.
    adopted: OnceLock<Option<Adopted>>,
}

/// The one owner of the bytes of a tensor.
#[derive(Debug)]
pub(super) enum Adopted {
    Tensor(Tensor),
    Quantised(Arc<QTensor>),
}

/// What somebody asks for, who may become that owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tensor,
    Quantised,
}

impl Kind {
    /// What a tensor becomes where only its bytes are asked for.
    pub(super) fn of(tensor: &TensorInfo) -> Kind {
        match tensor.dtype.block() {
            None => Kind::Tensor,
            Some(_) => Kind::Quantised,
        }
    }
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
    fn keep_readers_away(&self) -> bool {
        let taken = self
            .readers
            .compare_exchange(0, ADOPTED, Ordering::Acquire, Ordering::Acquire);
        matches!(taken, Ok(_) | Err(ADOPTED))
    }

    /// Its bytes, unless it is adopted. Nobody may begin to write to them while they are borrowed.
    pub(super) fn plain<'a>(&'a self, memory: &'a Memory, index: usize) -> Option<Seen<'a>> {
        let reading = self.read()?;
        Some(Seen::Plain(memory.bytes(index), Some(reading)))
    }

    /// The one owner of this memory, if there can be one. It becomes of this kind if it is none
    /// yet.
    fn adopted(
        &self,
        memory: &Memory,
        index: usize,
        tensor: &TensorInfo,
        kind: Kind,
    ) -> Option<&Adopted> {
        if !memory.is_adoptable() || !self.keep_readers_away() {
            return None;
        }
        // Two threads may come here at once, and only one may make a vector over these bytes.
        let adopted = self.adopted.get_or_init(|| match kind {
            Kind::Tensor => adopt(memory, index, tensor).map(Adopted::Tensor),
            Kind::Quantised => quantised::adopt(memory, index, tensor).map(Adopted::Quantised),
        });
        adopted.as_ref()
    }

    /// What is over its bytes, or else those bytes.
    pub(super) fn seen<'a>(
        &'a self,
        memory: &'a Memory,
        index: usize,
        tensor: &TensorInfo,
        kind: Kind,
    ) -> Seen<'a> {
        let adopted = || self.adopted(memory, index, tensor, kind);
        adopted()
            .map(Seen::Adopted)
            .or_else(|| self.plain(memory, index))
            // It was adopted since; or it cannot be, and never will be.
            .or_else(|| adopted().map(Seen::Adopted))
            .unwrap_or_else(|| Seen::Plain(memory.bytes(index), None))
    }
}

/// Somebody reads plain memory.
#[derive(Debug)]
pub(super) struct Reading<'a>(&'a AtomicU32);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Where the bytes of a tensor are found.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    Adopted(&'a Adopted),
    Plain(&'a [u8], Option<Reading<'a>>),
}

impl<'a> Seen<'a> {
    pub(super) fn bytes(self) -> WeightBytes<'a> {
        WeightBytes(match self {
            Seen::Adopted(Adopted::Tensor(tensor)) => Source::Tensor(tensor.storage_and_layout().0),
            Seen::Adopted(Adopted::Quantised(tensor)) => {
                Source::Memory(quantised::bytes(tensor), None)
            }
            Seen::Plain(bytes, reading) => Source::Memory(bytes, reading),
        })
    }
}

fn adopt(memory: &Memory, index: usize, tensor: &TensorInfo) -> Option<Tensor> {
    match tensor.dtype {
        Dtype::U8 => over::<u8>(memory, index, tensor),
        Dtype::U32 => over::<u32>(memory, index, tensor),
        Dtype::I16 => over::<i16>(memory, index, tensor),
        Dtype::I32 => over::<i32>(memory, index, tensor),
        Dtype::I64 => over::<i64>(memory, index, tensor),
        Dtype::BF16 => over::<half::bf16>(memory, index, tensor),
        Dtype::F16 => over::<half::f16>(memory, index, tensor),
        Dtype::F32 => over::<f32>(memory, index, tensor),
        Dtype::F64 => over::<f64>(memory, index, tensor),
        Dtype::F8_E4M3 => over::<float8::F8E4M3>(memory, index, tensor),
        _ => None,
    }
}

fn over<T: WithDType>(memory: &Memory, index: usize, tensor: &TensorInfo) -> Option<Tensor> {
    // SAFETY: called once for each tensor, under its cell's initialisation; from here on its bytes
    // are read through the resulting tensor alone.
    let vector = unsafe { memory.adopt::<T>(index) }?;
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
