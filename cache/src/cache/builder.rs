//! Settings of a new cache.

use std::fmt;
use std::sync::Arc;

use malloc_stats::{Allocator, Reader};
use plimsoll_events::Stream;
use plimsoll_profiles::Reclaim;

use super::{Cache, Shared};
use crate::bracket::{Brackets, Snapshots};
use crate::observe::{LoadObserver, Unobserved};
use crate::policy::{Lru, Policy};
use crate::storage::Storage;

/// Builds a [`Cache`].
pub struct Builder {
    pub(super) budget: u64,
    pub(super) storage: Storage,
    pub(super) snapshots: Snapshots,
    pub(super) reclaim: Reclaim,
    pub(super) policy: Box<dyn Policy>,
    pub(super) observer: Arc<dyn LoadObserver>,
    pub(super) stream: Stream,
    allocator: Allocator,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            budget: u64::MAX,
            storage: Storage::default(),
            snapshots: Snapshots::default(),
            reclaim: Reclaim::default(),
            policy: Box::new(Lru),
            observer: Arc::new(Unobserved),
            stream: Stream::silent(),
            allocator: Allocator {
                kind: plimsoll_profiles::serving(),
                ..Allocator::default()
            },
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("budget", &self.budget)
            .field("storage", &self.storage)
            .field("policy", &self.policy.name())
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The most bytes of RAM that weights may take. Without it there is no limit.
    #[must_use]
    pub fn ram(mut self, bytes: u64) -> Builder {
        self.budget = bytes;
        self
    }

    /// How weights are stored.
    #[must_use]
    pub fn storage(mut self, storage: Storage) -> Builder {
        self.storage = storage;
        self
    }

    /// How deep the snapshots around loads and unloads look.
    #[must_use]
    pub fn snapshots(mut self, snapshots: Snapshots) -> Builder {
        self.snapshots = snapshots;
        self
    }

    /// What to do after an unload, usually the profile's.
    #[must_use]
    pub fn reclaim(mut self, reclaim: Reclaim) -> Builder {
        self.reclaim = reclaim;
        self
    }

    /// What to evict first.
    #[must_use]
    pub fn policy(mut self, policy: impl Policy + 'static) -> Builder {
        self.policy = Box::new(policy);
        self
    }

    /// Who watches loads from inside.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn LoadObserver>) -> Builder {
        self.observer = observer;
        self
    }

    /// Where events go.
    #[must_use]
    pub fn stream(mut self, stream: Stream) -> Builder {
        self.stream = stream;
        self
    }

    /// The allocator that serves, with its settings, where
    /// [`in_force`](plimsoll_profiles::in_force) has found them out.
    #[must_use]
    pub fn allocator(mut self, allocator: Allocator) -> Builder {
        self.allocator = allocator;
        self
    }

    /// Makes the cache. It reserves address space when the first model is loaded, and no memory.
    ///
    /// # Errors
    /// Where this process's memory cannot be read at all (no `/proc`).
    pub fn build(self) -> Result<Cache, malloc_stats::Error> {
        let reader = Reader::new(self.allocator.clone())?;
        if self.snapshots == Snapshots::Auto {
            // Measures what a full snapshot costs, and gives brackets a reading to carry, before
            // the first load could pay for it.
            let _ = reader.full();
        }
        let brackets = Brackets::new(reader, self.snapshots);
        Ok(Cache {
            shared: Arc::new(Shared::new(self, brackets)),
        })
    }
}
