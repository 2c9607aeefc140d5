//! Devices: whatever memory weights can be held in.
//!
//! | device | what it is |
//! |---|---|
//! | [`Host`] | RAM, the tier that every cache has |
//! | [`Cuda`] | an NVIDIA GPU's memory |
//! | [`Simulated`] | host memory that behaves like a device's: its own budget, bandwidth, faults |
//!
//! A device knows how to bring a model into its memory and how to let it go; what is brought in
//! when, and what goes for it, is the cache's to decide. All devices pass the same tests.

pub mod cuda;
mod fault;
mod host;
mod simulated;
mod staging;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use candle_core::Tensor;
use candle_core::quantized::QTensor;
use malloc_stats::Metric;
use plimsoll_events::{DeviceFigures, DeviceFreed};

pub use cuda::Cuda;
pub use fault::{Fault, FaultSyntax, Injection};
pub use host::Host;
pub use simulated::{Link, Occupied, Simulated, SimulatedSyntax};
pub(crate) use staging::{Piece, stream};

use crate::driver::PageLocker;
use crate::error::{Error, LoadError};
use crate::model::{Dtype, Model};
use crate::observe::LoadObserver;
use crate::storage::WeightBytes;

/// A tier: RAM, or the memory of one device. Every device is made with one of its own, unique in
/// this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tier(u32);

impl Tier {
    /// The tier that every cache has.
    pub const RAM: Tier = Tier(0);

    /// A tier for a device that is being made.
    #[must_use]
    pub fn unique() -> Tier {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // Only uniqueness is asked for, no order with anything else.
        Tier(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The CPU, whose memory is RAM: `model.on(Cpu)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu;

impl From<Cpu> for Tier {
    fn from(_: Cpu) -> Tier {
        Tier::RAM
    }
}

impl<D: Device + ?Sized> From<&D> for Tier {
    fn from(device: &D) -> Tier {
        device.tier()
    }
}

/// What a device says of its memory, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it.
    pub total: Metric,
    /// What nobody uses.
    pub free: Metric,
}

/// How a model is to come into a device's memory.
pub struct Load<'a> {
    /// The model.
    pub model: &'a Model,
    /// Where its bytes are.
    pub source: Source<'a>,
    /// Who watches. To be told of every byte read from a file.
    pub observer: &'a dyn LoadObserver,
}

impl fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("model", &self.model.name())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Where the bytes of a load come from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// The model's files. What cannot be read straight into place goes through a staging buffer of
    /// at most so many bytes, which are reserved in RAM.
    Files {
        /// The bound, bytes; at least 128 KiB where the device asked for staging.
        staging: u64,
    },
    /// The copy in RAM, which stays for as long as the load takes.
    Ram(&'a dyn DeviceWeights),
}

/// Memory that holds weights.
///
/// Methods are called from any thread, several at once, never under the cache's lock. `charge` must
/// not look at the cache. Whatever fails gives back all it took.
pub trait Device: fmt::Debug + Send + Sync + 'static {
    /// Its tier, the same for as long as it lives.
    fn tier(&self) -> Tier;

    /// Its name in events and errors: `ram`, `simulated`.
    fn name(&self) -> &str;

    /// Whether it only pretends to be a device.
    fn is_simulated(&self) -> bool {
        false
    }

    /// What it says of its memory.
    fn memory(&self) -> DeviceMemory;

    /// What a model will count against the budget: all that its weights take there, alignment and
    /// rounding included.
    fn charge(&self, model: &Model) -> u64;

    /// Whether it can hold elements of this type. What it cannot stays in RAM, and is given out from
    /// there.
    fn holds(&self, dtype: Dtype) -> bool {
        let _ = dtype;
        true
    }

    /// Brings a model in.
    ///
    /// # Errors
    /// [`LoadError::OutOfMemory`] where it has no memory for it: then something is evicted and the
    /// load tried once more.
    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError>;

    /// How much of RAM a load from files can make good use of on its way, bytes. No load is given
    /// more than the most that a device of its cache asks for.
    fn staging(&self) -> u64 {
        8 << 20
    }

    /// Loads of so many bytes will come: what is unloaded meanwhile may be kept for them. Each load
    /// that comes takes its part, successful or not.
    fn expect(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Loads of so many bytes will not come after all.
    fn unexpect(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Bytes that were kept for loads which did not come, and went back to the system since the
    /// last call.
    fn take_given(&self) -> u64 {
        0
    }

    /// Bytes that are kept for loads under way.
    fn kept_bytes(&self) -> u64 {
        0
    }

    /// Bytes of its weights that are page-locked, or wait to be used so.
    fn page_locked_bytes(&self) -> u64 {
        0
    }

    /// What locks pages of RAM for it, where its driver can: for storage
    /// [`pinned`](crate::Storage::Pinned).
    fn page_locker(&self) -> Option<PageLocker> {
        None
    }

    /// What its driver says of its memory, where it has one.
    fn figures(&self) -> Option<DeviceFigures> {
        None
    }

    /// Bytes of its weights that are page cache, which the machine can take back and does not count
    /// as used, whether they are resident or not.
    fn page_cache_bytes(&self) -> u64 {
        0
    }
}

impl<D: Device + ?Sized> Device for Arc<D> {
    fn tier(&self) -> Tier {
        (**self).tier()
    }

    fn name(&self) -> &str {
        (**self).name()
    }

    fn is_simulated(&self) -> bool {
        (**self).is_simulated()
    }

    fn memory(&self) -> DeviceMemory {
        (**self).memory()
    }

    fn charge(&self, model: &Model) -> u64 {
        (**self).charge(model)
    }

    fn holds(&self, dtype: Dtype) -> bool {
        (**self).holds(dtype)
    }

    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError> {
        (**self).load(load)
    }

    fn staging(&self) -> u64 {
        (**self).staging()
    }

    fn expect(&self, bytes: u64) {
        (**self).expect(bytes);
    }

    fn unexpect(&self, bytes: u64) {
        (**self).unexpect(bytes);
    }

    fn take_given(&self) -> u64 {
        (**self).take_given()
    }

    fn kept_bytes(&self) -> u64 {
        (**self).kept_bytes()
    }

    fn page_locked_bytes(&self) -> u64 {
        (**self).page_locked_bytes()
    }

    fn page_locker(&self) -> Option<PageLocker> {
        (**self).page_locker()
    }

    fn figures(&self) -> Option<DeviceFigures> {
        (**self).figures()
    }

    fn page_cache_bytes(&self) -> u64 {
        (**self).page_cache_bytes()
    }
}

/// A model's weights in the memory of a device. Dropping them frees that memory, except for what
/// tensors still hold.
pub trait DeviceWeights: fmt::Debug + Send + Sync {
    /// The tensor at this position of the model's table, as a candle tensor on this device. It may
    /// share memory with others that are given out for the same position.
    ///
    /// # Errors
    /// [`Error::NotATensor`] for an element type that candle has not, [`Error::Corrupt`] where the
    /// device finds that the bytes are not what was written.
    fn tensor(&self, index: usize) -> Result<Tensor, Error>;

    /// The tensor at this position as a quantised one on this device, `None` where the device has
    /// none.
    ///
    /// # Errors
    /// [`Error::NotATensor`] for an element type that is not quantised in candle,
    /// [`Error::Corrupt`] as of [`tensor`](Self::tensor).
    fn quantised(&self, index: usize) -> Result<Option<Arc<QTensor>>, Error> {
        let _ = index;
        Ok(None)
    }

    /// The bytes of that tensor as they are in the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    fn bytes(&self, index: usize) -> Result<WeightBytes<'_>, Error>;

    /// Whether the bytes are still those that were loaded, as far as that can be told: mapped files
    /// can be changed by others.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// What tells how much of it is page cache, where it is mapped files.
    fn page_cache(&self) -> Option<Arc<dyn PageCached>> {
        None
    }

    /// Where its bytes lie in page-locked memory, which devices read by themselves: the bytes that
    /// were locked at once, which begin at multiples of as many. No copy may reach from one to the
    /// next. `None` where they are not locked.
    fn page_locked(&self) -> Option<usize> {
        None
    }

    /// Why it is not kept as was asked for, where it is not.
    fn degraded(&self) -> Option<&str> {
        None
    }

    /// Bytes that came to lie in memory which an unload had left.
    fn recycled_bytes(&self) -> u64 {
        0
    }

    /// Frees the memory and says what became of it.
    fn unload(self: Box<Self>) -> Unloaded;
}

/// Looks at the mapped files of weights, whatever has become of those meanwhile.
pub trait PageCached: Send + Sync {
    /// What is there now. It takes a system call a file, which walks the file's pages.
    fn look(&self) -> PageCacheSeen;
}

/// Mapped files, which the machine counts as page cache and can take back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageCacheSeen {
    /// Bytes that are mapped.
    pub mapped_bytes: u64,
    /// Those of them that are resident, an upper bound: what the page cache holds of the files.
    pub resident: Metric,
    /// Whether they are dropped from the page cache at unload.
    pub is_dropped: bool,
}

impl PageCacheSeen {
    /// What would have to be read from the disk if the weights were unloaded and came back.
    #[must_use]
    pub fn reload(self) -> Metric {
        let mapped = Metric::Exact(self.mapped_bytes);
        if self.is_dropped {
            mapped
        } else {
            mapped.minus_saturating(self.resident)
        }
    }
}

/// What became of weights' memory.
#[derive(Default)]
pub struct Unloaded {
    /// Bytes kept for a load under way.
    pub recycled_bytes: u64,
    /// Bytes given back, where that is known exactly.
    pub returned_bytes: Option<u64>,
    /// What of it was page cache.
    pub page_cache: Option<PageCacheSeen>,
    /// What the page cache still holds of it.
    pub page_cache_after: Option<Metric>,
    /// What the device's driver said before and after, where it has one.
    pub device: Option<DeviceFreed>,
    /// What tensors still hold.
    pub held: Option<Box<dyn Held>>,
}

impl fmt::Debug for Unloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unloaded")
            .field("recycled_bytes", &self.recycled_bytes)
            .field("returned_bytes", &self.returned_bytes)
            .field("held_bytes", &self.held.as_ref().map(|held| held.bytes()))
            .finish()
    }
}

/// Memory of unloaded weights that tensors still hold.
pub trait Held: Send + Sync {
    /// How many bytes.
    fn bytes(&self) -> u64;

    /// Whether the last of them has gone.
    fn is_gone(&self) -> bool;
}
