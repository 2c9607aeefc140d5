//! RAM as a device.

use std::fmt;
use std::sync::Arc;

use malloc_stats::limits::Host as HostMemory;

use super::{Device, DeviceMemory, DeviceWeights, Load, Tier};
use crate::error::LoadError;
use crate::model::Model;
use crate::storage::{Copies, HostWeights, Recycler, Storage};

/// RAM: weights under the storage of choice, read straight into place.
pub struct Host {
    tier: Tier,
    storage: Storage,
    recycler: Arc<Recycler>,
    copies: Arc<Copies>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// RAM as a device of its own, for weights of about `bytes` in all.
    #[must_use]
    pub fn new(storage: Storage, bytes: u64) -> Host {
        Host::in_tier(Tier::unique(), storage, bytes)
    }

    /// RAM as the tier that every cache has.
    pub(crate) fn ram(storage: Storage, bytes: u64) -> Host {
        Host::in_tier(Tier::RAM, storage, bytes)
    }

    fn in_tier(tier: Tier, storage: Storage, bytes: u64) -> Host {
        Host {
            tier,
            storage,
            recycler: Arc::new(Recycler::new(bytes)),
            copies: Arc::default(),
        }
    }

    /// How weights are stored in it.
    pub(crate) fn storage(&self) -> Storage {
        self.storage
    }

    /// Tensors that were copied since the last call because their memory could not be adopted, and
    /// their bytes.
    pub(crate) fn take_copies(&self) -> (u64, u64) {
        self.copies.take()
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
        self.storage.charge(model)
    }

    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError> {
        // From the files even where another tier of host memory has them: that copies as much.
        let weights = HostWeights::load(
            self.storage,
            load.model,
            &self.recycler,
            &self.copies,
            load.observer,
        )?;
        Ok(Box::new(weights))
    }

    fn expect(&self, bytes: u64) {
        if self.storage == Storage::Anonymous {
            self.recycler.expect(bytes as usize);
        }
    }

    fn unexpect(&self, bytes: u64) {
        if self.storage == Storage::Anonymous {
            self.recycler.unexpect(bytes as usize);
        }
    }

    fn take_given(&self) -> u64 {
        self.recycler.take_given()
    }

    fn kept_bytes(&self) -> u64 {
        self.recycler.warm_bytes() as u64
    }
}
