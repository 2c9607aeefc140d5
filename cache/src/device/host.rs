//! RAM as a device.

use std::fmt;
use std::sync::atomic::Ordering;

use malloc_stats::limits::Host as HostMemory;

use super::{Device, DeviceMemory, DeviceWeights, Load, Tier};
use crate::driver::PageLocker;
use crate::error::LoadError;
use crate::model::Model;
use crate::storage::{HostWeights, Mapping, Means, Storage};

/// RAM: weights under the storage of choice, read straight into place.
pub struct Host {
    tier: Tier,
    means: Means,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("storage", &self.means.storage)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// RAM as a device of its own, for weights of about `bytes` in all.
    #[must_use]
    pub fn new(storage: Storage, bytes: u64) -> Host {
        Host {
            tier: Tier::unique(),
            means: Means::new(storage, Mapping::default(), bytes),
        }
    }

    /// How files are mapped, under storage `mapped`.
    #[must_use]
    pub fn with_mapping(mut self, mapping: Mapping) -> Host {
        self.means.mapping = mapping;
        self
    }

    /// Uses transparent huge pages under storage `anonymous`; see
    /// [`Builder::huge_pages`](crate::Builder::huge_pages). Before the first load.
    #[must_use]
    pub fn with_huge_pages(mut self) -> Host {
        self.means.use_huge_pages();
        self
    }

    /// Locks pages by this under storage `pinned`, at most so many bytes, or as many as the machine
    /// bears; see [`Builder::pinned_at_most`](crate::Builder::pinned_at_most). Before the first load.
    #[must_use]
    pub fn with_page_locker(mut self, locker: Option<PageLocker>, at_most: Option<u64>) -> Host {
        self.means.lock_by(locker, at_most);
        self
    }

    /// RAM as the tier that every cache has.
    pub(crate) fn ram(storage: Storage, bytes: u64) -> Host {
        Host {
            tier: Tier::RAM,
            means: Means::new(storage, Mapping::default(), bytes),
        }
    }

    /// How weights are stored in it.
    pub(crate) fn storage(&self) -> Storage {
        self.means.storage
    }

    /// Tensors that were copied since the last call because their memory could not be adopted, and
    /// their bytes.
    pub(crate) fn take_copies(&self) -> (u64, u64) {
        self.means.copies.take()
    }
}

impl Device for Host {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn name(&self) -> &str {
        if self.tier == Tier::RAM { "ram" } else { "cpu" }
    }

    fn memory(&self) -> DeviceMemory {
        let host = HostMemory::read().unwrap_or_default();
        DeviceMemory {
            total: host.total,
            free: host.available,
        }
    }

    fn charge(&self, model: &Model) -> u64 {
        self.means.storage.charge(model)
    }

    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError> {
        // From the files even where another tier of host memory has them: that copies as much.
        let weights = HostWeights::load(&self.means, load.model, load.observer)?;
        Ok(Box::new(weights))
    }

    fn expect(&self, bytes: u64) {
        match self.means.storage {
            Storage::Anonymous => self.means.recycler.expect(bytes as usize),
            Storage::Pinned => self.means.locked.expect(bytes as usize),
            Storage::Heap | Storage::Mapped => {}
        }
    }

    fn unexpect(&self, bytes: u64) {
        match self.means.storage {
            Storage::Anonymous => self.means.recycler.unexpect(bytes as usize),
            Storage::Pinned => self.means.locked.unexpect(bytes as usize),
            Storage::Heap | Storage::Mapped => {}
        }
    }

    fn take_given(&self) -> u64 {
        self.means.recycler.take_given() + self.means.locked.take_given()
    }

    fn kept_bytes(&self) -> u64 {
        (self.means.recycler.warm_bytes() + self.means.locked.idle_bytes()) as u64
    }

    fn page_locked_bytes(&self) -> u64 {
        self.means.locked.locked_bytes()
    }

    fn page_cache_bytes(&self) -> u64 {
        self.means.mapped_bytes.load(Ordering::Relaxed)
    }
}
