//! The cache: budgets, the models in them, and leases on them.
//!
//! | file | what |
//! |---|---|
//! | `wanted` | what a lease asks for |
//! | `items`, `shapes` | which models, or parts of them, that takes |
//! | `patched` | models with patches |
//! | `partial` | models of which a part is there |
//! | `shared` | a lease's way: a hit without a lock, or admission |
//! | `future` | the same for tasks |
//! | `known` | the models that are known, by what their files are |
//! | `hands` | loads and unloads, each between two snapshots |
//! | `arrival`, `budgets` | budgets that follow the machine |
//! | `keeper` | what goes on in the background |
//! | `care` | what is evicted, dropped, moved or brought by request |
//! | `picture` | where everything is |
//! | `telling`, `ticks` | who hears of it: as it happens, and on a clock |
//! | `requests` | what a live screen asks for |

mod arrival;
mod budgets;
mod builder;
mod care;
mod future;
mod hands;
mod items;
mod keeper;
pub(crate) mod known;
mod page_cache;
mod partial;
mod patched;
mod picture;
mod requests;
mod shapes;
mod shared;
mod telling;
mod ticks;
mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::books::Cleared;
pub use builder::Builder;
pub use care::{MadeRoom, Prefetch};
pub use future::LeaseFuture;
pub use partial::{Partial, Residency};
pub use picture::Usage;
pub use wanted::Wanted;

pub(crate) use shared::Shared;

use crate::books::{self, Wait};
use crate::error::Error;
use crate::lease::Lease;
use hands::Hands;
pub(crate) use known::Known;
pub(crate) use partial::{Ended, Streaming};
pub(crate) use patched::{Beside, Patched};

pub(crate) type Gate = books::Gate<Hands>;
pub(crate) type Entry = books::Entry<Known>;
pub(crate) type Seat = books::Seat<Known>;

/// A cache of model weights. Clones are handles on the same cache.
///
/// A child of `fork` has none of the weights: to read them there is a fault, or gives zeros where no
/// window of addresses could be had. It can drop what it inherited, and make a cache of its own.
#[derive(Debug, Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

impl Cache {
    /// Settings for a new cache.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Leases models: loads what is missing and pins all of them in one step, until the lease is
    /// dropped. Waits for room, first come first served in each tier, as long as it takes.
    ///
    /// Each is asked for on a device, `unet.on(gpu).or_on(Cpu)`; a plain `&unet` is on the CPU.
    /// A model that is wanted on a device comes there from its copy in RAM, through RAM, or, where
    /// there is no room for that, straight from its files.
    ///
    /// Lease everything at once that you need at once. A thread that waits while itself holding
    /// leases on what would make room is refused after a while, see [`Error::Deadlock`].
    ///
    /// # Errors
    /// [`Error::ExceedsBudget`] where it can never be met, [`Error::Load`] where a model cannot be
    /// loaded, [`Error::Deadlock`]. Nothing stays reserved or pinned.
    pub fn lease<'a, W: Into<Wanted<'a>>>(
        &self,
        wanted: impl IntoIterator<Item = W>,
    ) -> Result<Lease, Error> {
        self.shared.lease(wanted, Wait::Forever)
    }

    /// As [`Cache::lease`], but refuses where it would have to wait for other leases to end.
    ///
    /// # Errors
    /// [`Error::NoRoom`] besides.
    pub fn try_lease<'a, W: Into<Wanted<'a>>>(
        &self,
        wanted: impl IntoIterator<Item = W>,
    ) -> Result<Lease, Error> {
        self.shared.lease(wanted, Wait::Never)
    }

    /// As [`Cache::lease`], but waits at most so long: for room, and for loads too, which are done
    /// on another thread and go on when this gives up.
    ///
    /// # Errors
    /// [`Error::Timeout`] besides.
    pub fn lease_timeout<'a, W: Into<Wanted<'a>>>(
        &self,
        wanted: impl IntoIterator<Item = W>,
        timeout: Duration,
    ) -> Result<Lease, Error> {
        let started = Instant::now();
        self.shared.lease(wanted, Wait::Until { started, timeout })
    }

    /// As [`Cache::lease`], for tasks of any runtime: loads, and the evictions for them, are done on
    /// other threads, and the task is woken. What is resident is leased by this call itself. Dropping
    /// the future gives up, at any moment, and keeps nothing.
    ///
    /// Polling looks at the model's files, and measures budgets that follow. A task that waits while
    /// itself holding leases on what would make room is not found out: give it a time limit.
    pub fn lease_async<'a, W: Into<Wanted<'a>>>(
        &self,
        wanted: impl IntoIterator<Item = W>,
    ) -> LeaseFuture {
        let wanted: Vec<Wanted<'a>> = wanted.into_iter().map(Into::into).collect();
        LeaseFuture::new(Arc::clone(&self.shared), &wanted)
    }
}
