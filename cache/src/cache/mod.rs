//! The cache: a byte budget in RAM, the models in it, and leases on them.
//!
//! | file | what |
//! |---|---|
//! | `entry` | one model: what leases reach without the lock |
//! | `ledger` | what the lock guards: phases, bytes, the queue |
//! | `admit` | a lease's way in: reserve all, or wait, or be refused |
//! | `load` | reading a model, outside the lock |
//! | `evict` | dropping one, outside the lock |

mod admit;
mod builder;
mod entry;
mod evict;
mod ledger;
mod load;
mod loading;
mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use builder::Builder;
pub(crate) use entry::Entry;
pub(crate) use shared::Shared;

use crate::error::Error;
use crate::lease::Lease;
use crate::model::Model;
use admit::Wait;
use plimsoll_events::EvictReason;

/// A cache of model weights. Clones are handles on the same cache.
///
/// A child of `fork` has none of the weights: to read them there is a fault, or gives zeros where no
/// window of addresses could be had. It can drop what it inherited, and make a cache of its own.
#[derive(Debug, Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

/// Where a cache's bytes are at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The budget, bytes.
    pub budget_bytes: u64,
    /// Bytes that count: reserved, resident, on their way out, and held after eviction.
    pub used_bytes: u64,
    /// The part that was evicted while tensors still held it.
    pub held_bytes: u64,
    /// The part that cannot be freed at this moment.
    pub pinned_bytes: u64,
    /// Pages that wait for a load under way to use them. Not in `used_bytes`: the load that they
    /// wait for has reserved them.
    pub recyclable_bytes: u64,
    /// Models resident.
    pub resident_models: usize,
}

/// What a [`Cache::clear`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Models evicted.
    pub evicted: Vec<String>,
    /// Models that leases hold, with how many: they stay.
    pub leased: Vec<(String, u64)>,
}

impl Cache {
    /// Settings for a new cache.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Leases models: loads what is missing and pins all of them in one step, until the lease is
    /// dropped. Waits for room, first come first served, as long as it takes.
    ///
    /// A thread that waits while itself holding leases on what would make room waits for ever: use
    /// [`Cache::lease_timeout`] there, or lease everything at once.
    ///
    /// # Errors
    /// [`Error::ExceedsBudget`] where it can never be met, [`Error::Load`] where a model cannot be
    /// loaded. Nothing stays reserved or pinned.
    pub fn lease<'a>(&self, models: impl IntoIterator<Item = &'a Model>) -> Result<Lease, Error> {
        self.shared.lease(models, Wait::Forever)
    }

    /// As [`Cache::lease`], but refuses where it would have to wait for other leases.
    ///
    /// # Errors
    /// [`Error::NoRoom`] besides.
    pub fn try_lease<'a>(
        &self,
        models: impl IntoIterator<Item = &'a Model>,
    ) -> Result<Lease, Error> {
        self.shared.lease(models, Wait::Never)
    }

    /// As [`Cache::lease`], but waits for room at most so long. (A load that has begun is finished.)
    ///
    /// # Errors
    /// [`Error::Timeout`] besides.
    pub fn lease_timeout<'a>(
        &self,
        models: impl IntoIterator<Item = &'a Model>,
        timeout: Duration,
    ) -> Result<Lease, Error> {
        let started = Instant::now();
        self.shared.lease(models, Wait::Until { started, timeout })
    }

    /// Evicts a model, if no lease holds it. Returns whether it is gone.
    #[must_use = "a model that is leased stays"]
    pub fn evict(&self, model: &Model) -> bool {
        let entry = self.shared.entry(model);
        self.shared
            .evict_unleased(&[entry], &EvictReason::Dropped)
            .leased
            .is_empty()
    }

    /// Evicts every model that no lease holds, and says which stay.
    pub fn clear(&self) -> Cleared {
        let entries = self.shared.ledger().entries.clone();
        self.shared.evict_unleased(&entries, &EvictReason::Cleared)
    }

    /// Where the bytes are, in one consistent picture.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.usage()
    }

    /// Sends what the fast path has counted since the last time as an event.
    pub fn tell_hits(&self) {
        self.shared.tell_hits();
    }
}
