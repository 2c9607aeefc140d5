//! NVIDIA's driver, found when it is asked for: a program that never does needs none.
//!
//! candle links the driver's library, so that what is built with the feature `cuda` does not start
//! where there is none. The calls here are looked up at run time instead: by them the cache moves
//! weights on a copy stream of its own, from page-locked memory, into a memory pool of its own,
//! none of which candle has; and storage `pinned` and the words of errors do not need the feature.
//! They use the device's primary context, which is candle's too.

mod context;
mod error;
mod functions;
mod memory;
mod pool;
mod stream;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use error::DriverError;

pub(crate) use context::Context;
pub use memory::PageLocker;
pub(crate) use memory::{Lock, Locked, copy_to_device, copy_to_host, keep_to_this_process};
pub(crate) use pool::{Pool, free};
pub use stream::RawStream;
pub(crate) use stream::{Event, Stream};

use functions::Functions;

/// NVIDIA's driver.
#[derive(Clone)]
pub struct Driver {
    functions: Arc<Functions>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// The driver of this machine, opened and initialised at the first call.
    ///
    /// # Errors
    /// There is none, it is too old, or it cannot be initialised.
    pub fn installed() -> Result<Driver, DriverError> {
        static INSTALLED: OnceLock<Result<Driver, DriverError>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| Driver::open(Path::new("libcuda.so.1")))
            .clone()
    }

    /// The driver whose library this is, a path or a name that the loader finds.
    ///
    /// # Errors
    /// As [`installed`](Self::installed).
    pub fn open(library: &Path) -> Result<Driver, DriverError> {
        let functions = Functions::open(library)?;
        // SAFETY: flags must be 0.
        unsafe { functions.init(0) }?;
        Ok(Driver {
            functions: Arc::new(functions),
        })
    }

    /// How many devices it shows to this process.
    ///
    /// # Errors
    /// The driver's.
    pub fn devices(&self) -> Result<u32, DriverError> {
        let mut count = 0;
        // SAFETY: it writes one number.
        unsafe { self.functions.device_count(&raw mut count) }?;
        Ok(u32::try_from(count).unwrap_or(0))
    }
}
