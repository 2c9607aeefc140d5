//! The weights of one model in host memory: bytes, and candle tensors over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use malloc_stats::Size;
use plimsoll_profiles::window::Orphan;

use super::anonymous::{NotLocked, Region};
use super::heap::Blocks;
use super::mapped::{Mapped, NotMapped};
use super::quantised;
use super::recycler::Recycler;
use super::view::{Adopted, Kind, Seen, View, WeightBytes};
use super::{LockedPages, Mapping, Storage};
use crate::device::{DeviceWeights, Held, PageCached, Unloaded};
use crate::driver::PageLocker;
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
    fn add(&self, tensors: u64, bytes: u64) {
        self.tensors.fetch_add(tensors, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tensors and bytes since the last call.
    pub(crate) fn take(&self) -> (u64, u64) {
        let tensors = self.tensors.swap(0, Ordering::Relaxed);
        (tensors, self.bytes.swap(0, Ordering::Relaxed))
    }
}

/// How weights are kept in a tier of host memory, and what they share there.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) storage: Storage,
    pub(crate) mapping: Mapping,
    pub(crate) recycler: Arc<Recycler>,
    /// Under storage `pinned`.
    pub(crate) locked: Arc<LockedPages>,
    pub(crate) copies: Arc<Copies>,
    /// Bytes of mapped files, resident or not.
    pub(crate) mapped_bytes: Arc<AtomicU64>,
    /// Whether it was said that some models are not kept as was asked for.
    unfit_said: AtomicBool,
}

impl Means {
    /// For weights of about `bytes` in all.
    pub(crate) fn new(storage: Storage, mapping: Mapping, bytes: u64) -> Means {
        Means {
            storage,
            mapping,
            recycler: Arc::new(Recycler::new(bytes)),
            locked: Arc::new(LockedPages::new(None, None)),
            copies: Arc::default(),
            mapped_bytes: Arc::default(),
            unfit_said: AtomicBool::new(false),
        }
    }

    /// Locks pages by this under `pinned`, at most so many bytes, or as many as the machine bears.
    /// Before the first load.
    pub(crate) fn lock_by(&mut self, locker: Option<PageLocker>, most: Option<u64>) {
        self.locked = Arc::new(LockedPages::new(locker, most));
    }

    /// Says once that a model is not kept as was asked for.
    fn say_unfit(&self, what: &str, reason: &str) {
        if !self.unfit_said.swap(true, Ordering::Relaxed) {
            tracing::warn!("{what}, but kept in `anonymous` storage: {reason}; others may be too");
        }
    }

    /// Uses huge pages under `anonymous`, where the kernel gives any. Before the first load.
    pub(crate) fn use_huge_pages(&mut self) {
        match self.recycler.to_huge() {
            Ok(recycler) => self.recycler = Arc::new(recycler),
            Err(reason) => tracing::warn!("no huge pages: {reason}; weights lie in small ones"),
        }
    }
}

#[derive(Debug)]
pub(super) enum Memory {
    Heap(Blocks),
    Anonymous(Region),
    Mapped(Mapped),
}

impl Memory {
    /// The bytes of a tensor, for whoever may see them.
    pub(super) fn bytes(&self, index: usize) -> &[u8] {
        match self {
            Memory::Heap(blocks) => blocks.bytes(index),
            Memory::Anonymous(region) => region.bytes(index),
            Memory::Mapped(mapped) => mapped.bytes(index),
        }
    }

    /// Whether a tensor may be adopted, if anything can.
    pub(super) fn is_adoptable(&self) -> bool {
        !matches!(self, Memory::Heap(_))
    }

    /// # Safety
    /// As [`Region::adopt`].
    pub(super) unsafe fn adopt<T: 'static>(&self, index: usize) -> Option<Vec<T>> {
        match self {
            Memory::Heap(_) => None,
            // SAFETY: the caller's promise.
            Memory::Anonymous(region) => unsafe { region.adopt(index) },
            // SAFETY: as above.
            Memory::Mapped(mapped) => unsafe { mapped.adopt(index) },
        }
    }
}

/// A model's weights in host memory.
#[derive(Debug)]
pub(crate) struct HostWeights {
    model: Model,
    /// Declared before `memory`, so that tensors go first.
    views: Box<[View]>,
    memory: Memory,
    copies: Arc<Copies>,
    /// Why they are not kept as was asked for.
    degraded: Option<String>,
}

impl HostWeights {
    /// Loads a model.
    pub(crate) fn load(
        means: &Means,
        model: &Model,
        observer: &dyn LoadObserver,
    ) -> Result<HostWeights, LoadError> {
        let region = || Region::load(model, &means.recycler, observer).map(Memory::Anonymous);
        let copies = &means.copies;
        let mut storage = means.storage;
        let mut why = "as asked for".to_owned();
        let mut degraded = None;
        let memory = match storage {
            Storage::Heap => Memory::Heap(Blocks::load(model, observer)?),
            Storage::Anonymous => region()?,
            Storage::Pinned => match Region::load_locked(model, &means.locked, observer) {
                Ok(region) => Memory::Anonymous(region),
                Err(NotLocked::Failed(error)) => return Err(error),
                Err(NotLocked::Refused(reason)) => {
                    means.say_unfit("not page-locked", &reason);
                    degraded = Some(format!("not page-locked: {reason}"));
                    (storage, why) = (Storage::Anonymous, reason);
                    region()?
                }
            },
            Storage::Mapped if model.base().is_some() => {
                let what = "it is computed, or a part of a model";
                (storage, why) = (Storage::Anonymous, what.to_owned());
                region()?
            }
            Storage::Mapped => match Mapped::load(model, means, observer) {
                Ok(mapped) => {
                    let (tensors, bytes) = mapped.copied();
                    copies.add(tensors, bytes);
                    if tensors > 0 {
                        why = format!(
                            "as asked for; {tensors} tensors ({}) are copied, as their elements \
                             are not aligned in the file",
                            Size(bytes)
                        );
                    }
                    Memory::Mapped(mapped)
                }
                Err(NotMapped::Failed(error)) => return Err(error),
                Err(NotMapped::Unfit(reason)) => {
                    means.say_unfit("not mapped", &reason);
                    degraded = Some(format!("not mapped: {reason}"));
                    (storage, why) = (Storage::Anonymous, reason);
                    region()?
                }
            },
        };
        tracing::info!(model = %model.name().escape_debug(), %storage, %why, "storage");
        let weights = HostWeights::new(model, memory, copies);
        Ok(HostWeights {
            degraded,
            ..weights
        })
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
            degraded: None,
        }
    }

    /// The tensor in whose bytes this one lies: itself, unless it is tied.
    fn home(&self, index: usize) -> usize {
        let tied = self.model.tensors()[index].tied_to;
        tied.map_or(index, |tied| tied as usize)
    }

    fn refused(&self, tensor: &TensorInfo, reason: String) -> Error {
        Error::NotATensor {
            model: self.model.name().to_owned(),
            tensor: tensor.name.to_string(),
            dtype: tensor.dtype.to_string(),
            reason,
        }
    }

    /// The type that a candle tensor of it has.
    fn candle_type(&self, tensor: &TensorInfo) -> Result<DType, Error> {
        tensor.dtype.candle().ok_or_else(|| {
            let reason = match tensor.dtype.quantised() {
                Some(_) => "it is quantised: ask for it with `quantised`".to_owned(),
                None => format!("candle has no type {}", tensor.dtype),
            };
            self.refused(tensor, reason)
        })
    }

    /// Counts a copy that was made of a tensor.
    fn copied(&self, tensor: &TensorInfo) {
        self.copies.add(1, tensor.bytes);
        if !self.copies.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                model = %self.model.name().escape_debug(),
                tensor = %tensor.name.escape_debug(),
                "tensors are copied, since their memory cannot be adopted: under `heap` storage, \
                 without plimsoll_profiles::Selected as global allocator, without address space, \
                 while their bytes are being read, or while they are adopted as another kind"
            );
        }
    }

    /// What is over the bytes of a tensor, or else those bytes.
    fn seen(&self, index: usize, kind: Kind) -> Seen<'_> {
        let tensor = &self.model.tensors()[index];
        self.views[index].seen(&self.memory, index, tensor, kind)
    }
}

impl DeviceWeights for HostWeights {
    /// A candle tensor on the CPU: over this memory where it can be adopted, else a copy.
    fn tensor(&self, index: usize) -> Result<Tensor, Error> {
        let tensor = &self.model.tensors()[index];
        let dtype = self.candle_type(tensor)?;
        let refused = |error: candle_core::Error| self.refused(tensor, error.to_string());
        let home = self.home(index);
        let seen = self.seen(home, Kind::Tensor);
        if let Seen::Adopted(Adopted::Tensor(adopted)) = seen
            && adopted.dtype() == dtype
        {
            return match home == index {
                true => Ok(adopted.clone()),
                false => adopted.reshape(&tensor.shape[..]).map_err(refused),
            };
        }
        let bytes = seen.bytes();
        let copy = Tensor::from_raw_buffer(&bytes, dtype, &tensor.shape, &Device::Cpu);
        let copy = copy.map_err(refused)?;
        self.copied(tensor);
        Ok(copy)
    }

    /// A quantised tensor on the CPU: over this memory where it can be adopted, else a copy.
    fn quantised(&self, index: usize) -> Result<Option<Arc<QTensor>>, Error> {
        let tensor = &self.model.tensors()[index];
        let refused = |reason: String| self.refused(tensor, reason);
        let dtype = quantised::quantised_type(tensor).map_err(refused)?;
        let seen = self.seen(self.home(index), Kind::Quantised);
        if let Seen::Adopted(Adopted::Quantised(adopted)) = seen
            && adopted.dtype() == dtype
            && adopted.shape().dims() == &*tensor.shape
        {
            return Ok(Some(Arc::clone(adopted)));
        }
        let copy = quantised::copy(&seen.bytes(), tensor).map_err(refused)?;
        self.copied(tensor);
        Ok(Some(copy))
    }

    fn bytes(&self, index: usize) -> Result<WeightBytes<'_>, Error> {
        let index = self.home(index);
        // Once it is adopted it is read through its owner alone: an in-place operation may have
        // taken a tensor's vector away, whose new owner writes to this memory without any lock.
        if let Some(plain) = self.views[index].plain(&self.memory, index) {
            return Ok(plain.bytes());
        }
        let kind = Kind::of(&self.model.tensors()[index]);
        Ok(self.seen(index, kind).bytes())
    }

    fn page_locked(&self) -> Option<usize> {
        match &self.memory {
            Memory::Anonymous(region) => region.locked(),
            Memory::Heap(_) | Memory::Mapped(_) => None,
        }
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    fn recycled_bytes(&self) -> u64 {
        match &self.memory {
            Memory::Heap(_) | Memory::Mapped(_) => 0,
            Memory::Anonymous(region) => region.recycled_bytes(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match &self.memory {
            Memory::Mapped(mapped) => mapped.check(self.model.name()),
            Memory::Heap(_) | Memory::Anonymous(_) => Ok(()),
        }
    }

    fn page_cache(&self) -> Option<Arc<dyn PageCached>> {
        match &self.memory {
            Memory::Mapped(mapped) => Some(Arc::new(mapped.page_cache())),
            Memory::Heap(_) | Memory::Anonymous(_) => None,
        }
    }

    fn unload(self: Box<Self>) -> Unloaded {
        drop(self.views);
        match self.memory {
            Memory::Mapped(mapped) => {
                let released = mapped.release();
                Unloaded {
                    page_cache: Some(released.before),
                    page_cache_after: released.after,
                    held: released.held.map(|held| Box::new(held) as Box<dyn Held>),
                    ..Unloaded::default()
                }
            }
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
                        .map(|remains| Box::new(remains) as Box<dyn Held>),
                    ..Unloaded::default()
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
