//! A memory pool of the cache's own: what it has handed out is known to the byte, whoever holds it.

use std::fmt;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use super::functions::{Address, Handle, PoolProps};
use super::{Context, DriverError, Stream};

/// `CU_MEM_ALLOCATION_TYPE_PINNED` and `CU_MEM_LOCATION_TYPE_DEVICE`: memory that stays on a device.
const ON_A_DEVICE: u32 = 1;

/// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`.
const RELEASE_THRESHOLD: u32 = 4;

/// `CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT` and `CU_MEMPOOL_ATTR_USED_MEM_CURRENT`.
const RESERVED: u32 = 5;
const USED: u32 = 7;

/// A pool on one device. What is freed goes back to the device as soon as the driver looks (its
/// release threshold is 0), or when the pool is trimmed, where it is to [hold on](Pool::hold_on).
pub(crate) struct Pool {
    context: Arc<Context>,
    handle: Handle,
    holds_on: Mutex<bool>,
}

// SAFETY: the driver's calls may come from any thread; handles are not bound to one.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// What a pool has, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PoolFigures {
    /// Handed out.
    pub(crate) used: u64,
    /// Of the device, handed out or not.
    pub(crate) reserved: u64,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Pool, DriverError> {
        let _bound = context.bind()?;
        let props = PoolProps {
            alloc_type: ON_A_DEVICE,
            handle_types: 0,
            location_type: ON_A_DEVICE,
            location_id: context.ordinal(),
            security_attributes: null_mut(),
            max_size: 0,
            reserved: [0; 56],
        };
        let mut handle = null_mut();
        // SAFETY: it reads the properties and writes one handle; `drop` ends it.
        unsafe {
            context
                .functions()
                .create_pool(&raw mut handle, &raw const props)
        }?;
        Ok(Pool {
            context: Arc::clone(context),
            handle,
            holds_on: Mutex::new(false),
        })
    }

    /// Takes memory, to be used from the stream's work on. Nobody frees it but [`free`].
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn allocate(&self, bytes: u64, stream: &Stream) -> Result<Address, DriverError> {
        let _bound = self.context.bind()?;
        let mut address = 0;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: it writes one address; the stream is of the same context.
        unsafe {
            self.context
                .functions()
                .allocate(&raw mut address, bytes, self.handle, stream.handle())
        }?;
        Ok(address)
    }

    /// What it has.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn figures(&self) -> Result<PoolFigures, DriverError> {
        let _bound = self.context.bind()?;
        let ask = |attribute| {
            let mut value = 0_u64;
            // SAFETY: these attributes are numbers of 64 bits.
            unsafe {
                self.context.functions().pool_attribute(
                    self.handle,
                    attribute,
                    (&raw mut value).cast(),
                )
            }?;
            Ok(value)
        };
        Ok(PoolFigures {
            used: ask(USED)?,
            reserved: ask(RESERVED)?,
        })
    }

    /// Gives the device back what nobody uses, as long as the pool has more than `keep` bytes.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn trim(&self, keep: u64) -> Result<(), DriverError> {
        let _bound = self.context.bind()?;
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        // SAFETY: a pool of this context.
        unsafe { self.context.functions().trim_pool(self.handle, keep) }
    }

    /// Whether it holds on to what nobody uses until it is trimmed, or gives it back as soon as the
    /// driver looks.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn hold_on(&self, holds: bool) -> Result<(), DriverError> {
        // Held over the call, so that what is noted is what the driver was told last.
        let mut holds_on = self.holds_on.lock().unwrap_or_else(PoisonError::into_inner);
        if *holds_on == holds {
            return Ok(());
        }
        let _bound = self.context.bind()?;
        let mut threshold: u64 = if holds { u64::MAX } else { 0 };
        // SAFETY: this attribute is a number of 64 bits.
        unsafe {
            self.context.functions().set_pool_attribute(
                self.handle,
                RELEASE_THRESHOLD,
                (&raw mut threshold).cast(),
            )
        }?;
        *holds_on = holds;
        Ok(())
    }
}

/// Gives memory back, once the stream has done what it was given so far.
///
/// # Errors
/// The driver's.
///
/// # Safety
/// It came from [`Pool::allocate`] on the same device, is freed once, and what uses it is done by
/// then.
pub(crate) unsafe fn free(address: Address, stream: &Stream) -> Result<(), DriverError> {
    let context = stream.context();
    let _bound = context.bind()?;
    // SAFETY: the caller's promise.
    unsafe { context.functions().free(address, stream.handle()) }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Ok(_bound) = self.context.bind() {
            // SAFETY: its own. The driver keeps it until the last of its memory is freed.
            let _ = unsafe { self.context.functions().destroy_pool(self.handle) };
        }
    }
}
