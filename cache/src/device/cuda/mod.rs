//! A CUDA device.
//!
//! Weights lie in a memory pool of the cache's own, each in an allocation, but for small ones, which
//! share. They come over a copy stream of its own, through
//! page-locked lanes or straight out of page-locked RAM; a load returns once they are there, so that
//! whatever uses them needs to wait for nothing. Unloading frees them in the order of the stream that
//! used them, waits for it, gives the pool's memory back to the driver and notes what the driver says
//! before and after.
//!
//! The driver is asked directly ([`driver`](crate::driver)); what makes tensors is candle's CUDA
//! device, with the feature `cuda`, or another library ([`Tensors`]).

mod allocation;
#[cfg(feature = "cuda")]
mod candle;
mod counted;
mod kept;
mod lanes;
mod layout;
mod tensors;
mod transfer;
mod weights;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use malloc_stats::Metric;
use plimsoll_events::DeviceFigures;

pub use tensors::{Block, Elements, Tensors};

use super::{Device, DeviceMemory, DeviceWeights, Load, Source, Tier};
use crate::driver::{Context, Driver, DriverError, PageLocker, Pool, Stream};
use crate::error::LoadError;
use crate::model::{Dtype, Model};
use crate::storage::{WeightBytes, open_sources};
use counted::{Counted, Tally};
use kept::Kept;
use lanes::Lanes;
use layout::Layout;
use transfer::{From, Transfer};
use weights::CudaWeights;

/// A CUDA device.
pub struct Cuda {
    tier: Tier,
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    context: Arc<Context>,
    library: Arc<dyn Tensors>,
    /// The tensor library's stream: in its order tensors are used and freed.
    consumer: Stream,
    /// Weights come over it.
    copies: Arc<Stream>,
    /// Bytes of weights are read back over it.
    reads: Stream,
    pool: Pool,
    lanes: Lanes,
    kept: Mutex<Kept>,
    /// It holds no more than so many bytes.
    within: u64,
    tally: Mutex<Tally>,
    /// What the largest block that can be had is less than, when one was last refused.
    largest_block: Mutex<Metric>,
}

impl Inner {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.reap();
        tally
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("context", &self.context)
            .field("library", &self.library)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cuda").field(&self.inner).finish()
    }
}

impl Cuda {
    /// The device of this number, with another tensor library than candle's.
    ///
    /// # Errors
    /// There is no such device, another process has it for itself, it has no memory pools, or the
    /// driver's answer.
    ///
    /// # Safety
    /// The library is one of this device: its stream is of the device's primary context.
    pub unsafe fn with(
        driver: &Driver,
        ordinal: u32,
        library: Arc<dyn Tensors>,
    ) -> Result<Cuda, DriverError> {
        let context = Arc::new(Context::of(driver, ordinal)?);
        // SAFETY: the caller's promise; the library lives as long as the device.
        let consumer = unsafe { Stream::of(&context, library.stream()) };
        let copies = Arc::new(Stream::new(&context)?);
        Ok(Cuda {
            tier: Tier::unique(),
            inner: Arc::new(Inner {
                name: format!("cuda:{ordinal}"),
                consumer,
                reads: Stream::new(&context)?,
                pool: Pool::new(&context)?,
                lanes: Lanes::new(&context, &copies),
                copies,
                kept: Mutex::default(),
                within: u64::MAX,
                tally: Mutex::default(),
                largest_block: Mutex::new(Metric::Unavailable),
                context,
                library,
            }),
        })
    }

    /// The same, to hold no more than so many bytes: a device that others use too.
    #[must_use]
    pub fn within(mut self, bytes: u64) -> Cuda {
        // Nothing was loaded yet, so nobody else has it.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.within = bytes;
        }
        self
    }

    /// The device's name as the driver gives it, such as `NVIDIA H200`.
    #[must_use]
    pub fn model_name(&self) -> &str {
        self.inner.context.name()
    }
}

impl Inner {
    /// What is free for weights, and what there is.
    fn memory(&self) -> Result<(u64, u64), DriverError> {
        let (free, total) = self.context.memory()?;
        // What the pool has and does not use is its own to hand out; what it keeps for a load is that
        // load's.
        let pool = self.pool.figures()?;
        let loose = pool.reserved.saturating_sub(pool.used);
        let kept = self.kept().bytes();
        let free = free.saturating_add(loose).saturating_sub(kept);
        let left = self.within.saturating_sub(self.tally().bytes);
        Ok((free.min(left.saturating_sub(kept)), total.min(self.within)))
    }

    fn bring(
        self: &Arc<Self>,
        load: &Load<'_>,
        layout: Layout,
        charge: u64,
        outside: u64,
    ) -> Result<CudaWeights, LoadError> {
        let model = load.model;
        let counted = Counted::new(self, charge, outside)
            .map_err(|_| self.out_of_memory(model, charge, None))?;
        let memory = self.allocate(model, &layout)?;
        if outside > 0 {
            // The library cleared its memory in the order of its own stream.
            let after = self.copies.follow(&self.consumer);
            after.map_err(|error| self.refused(model, error))?;
        }
        let transfer = Transfer {
            device: &self.name,
            model,
            layout: &layout,
            addresses: &memory.addresses(),
            stream: &self.copies,
            observer: load.observer,
        };
        match load.source {
            Source::Files { staging } => {
                let sources = open_sources(model)?;
                for tensor in model.tensors() {
                    load.observer.before_tensor(model, tensor);
                    load.observer.after_tensor(model, tensor);
                }
                transfer.staged(&self.lanes, &From::Sources(&sources), staging)?;
                sources.still_the_same(model)?;
            }
            Source::Ram(weights) => {
                let bytes: Vec<WeightBytes<'_>> = (0..model.tensors().len())
                    .map(|index| weights.bytes(index))
                    .collect::<Result<_, _>>()
                    .map_err(|error| LoadError::Copy {
                        model: model.name().to_owned(),
                        reason: error.to_string(),
                    })?;
                match weights.page_locked() {
                    Some(granule) => transfer.direct(&bytes, granule)?,
                    None => transfer.staged(&self.lanes, &From::Ram(&bytes), u64::MAX)?,
                }
            }
        }
        let blocks = memory.into_blocks(model, &layout)?;
        Ok(CudaWeights {
            inner: Arc::clone(self),
            model: model.clone(),
            layout,
            blocks,
            counted,
            recycled_bytes: 0,
        })
    }

    fn out_of_memory(&self, model: &Model, asked: u64, reason: Option<String>) -> LoadError {
        let (free, total) = self.memory().unwrap_or_default();
        LoadError::OutOfMemory {
            device: self.name.clone(),
            model: model.name().to_owned(),
            asked,
            free,
            total,
            reason,
            injected: false,
        }
    }

    fn refused(&self, model: &Model, error: DriverError) -> LoadError {
        LoadError::Device {
            device: self.name.clone(),
            model: model.name().to_owned(),
            error: Box::new(error),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the driver take back what is not used, unless some of that is kept.
    fn hold_on(&self) -> Result<(), DriverError> {
        let kept = self.kept().bytes();
        self.pool.hold_on(kept > 0)
    }

    /// Gives the device back what is not used and kept for no load.
    fn trim(&self) -> Result<(), DriverError> {
        self.hold_on()?;
        let kept = self.kept().bytes();
        if kept == 0 {
            return self.pool.trim(0);
        }
        let used = self.pool.figures()?.used;
        self.pool.trim(used.saturating_add(kept))
    }

    /// Trims where something is to be given back, once its users are done.
    fn trim_if(&self, is_due: bool) {
        if is_due && let Err(error) = self.consumer.finish().and_then(|()| self.trim()) {
            tracing::warn!(device = %self.name, %error, "memory was not given back");
        }
    }
}

impl Device for Cuda {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn name(&self) -> &str {
        &self.inner.name
    }

    fn memory(&self) -> DeviceMemory {
        let memory = self.inner.memory().ok();
        DeviceMemory {
            total: memory.map(|(_, total)| total).into(),
            free: memory.map(|(free, _)| free).into(),
        }
    }

    fn charge(&self, model: &Model) -> u64 {
        Layout::new(model, &*self.inner.library).charge()
    }

    fn holds(&self, dtype: Dtype) -> bool {
        self.inner.library.has(dtype)
    }

    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError> {
        let inner = &self.inner;
        let layout = Layout::new(load.model, &*inner.library);
        let (charge, outside) = (layout.charge(), layout.outside());
        let (recycled, is_due) = inner.kept().take(charge, charge - outside);
        inner.trim_if(is_due);
        let brought = inner.bring(load, layout, charge, outside);
        if brought.is_err() {
            inner.kept().failed(recycled);
            inner.trim_if(recycled > 0);
        }
        let mut weights = brought?;
        // Nothing may be kept any more.
        if let Err(error) = inner.hold_on() {
            tracing::warn!(device = %inner.name, %error, "what is freed stays in the pool for now");
        }
        weights.recycled_bytes = recycled;
        Ok(Box::new(weights))
    }

    fn staging(&self) -> u64 {
        self.inner.lanes.bytes()
    }

    fn expect(&self, bytes: u64) {
        self.inner.kept().expect(bytes);
    }

    fn unexpect(&self, bytes: u64) {
        let is_due = self.inner.kept().unexpect(bytes);
        self.inner.trim_if(is_due);
    }

    fn take_given(&self) -> u64 {
        self.inner.kept().take_given()
    }

    fn kept_bytes(&self) -> u64 {
        self.inner.kept().bytes()
    }

    fn page_locker(&self) -> Option<PageLocker> {
        Some(PageLocker::of(&self.inner.context))
    }

    fn figures(&self) -> Option<DeviceFigures> {
        let inner = &self.inner;
        let memory = inner.context.memory().ok();
        let pool = inner.pool.figures().ok();
        let largest_block = inner
            .largest_block
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(DeviceFigures {
            name: inner.context.name().to_owned(),
            pci_bus: inner.context.pci_bus().to_owned(),
            total: memory.map(|(_, total)| total).into(),
            free: memory.map(|(free, _)| free).into(),
            pool_used: pool.map(|pool| pool.used).into(),
            pool_reserved: pool.map(|pool| pool.reserved).into(),
            outside: Metric::Exact(inner.tally().outside),
            staging: Metric::Exact(inner.lanes.locked_bytes()),
            largest_block: *largest_block,
        })
    }
}
