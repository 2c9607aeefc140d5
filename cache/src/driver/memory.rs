//! Host memory that devices read by themselves: its pages are locked.

use std::ffi::c_void;
use std::fmt;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::functions::Address;
use super::{Context, DriverError, Stream};

/// `CU_MEMHOSTREGISTER_PORTABLE`: locked for every device's context.
const FOR_ALL: u32 = 1;

/// A mapping whose pages are locked, exactly as many as were asked for: the driver's own
/// allocations round up.
pub(crate) struct Locked {
    /// Whose registration it is; `None` where it was refused and the pages are plain.
    context: Option<Arc<Context>>,
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is its own.
unsafe impl Send for Locked {}
// SAFETY: `&Locked` gives no access but by address, and slices of it are the owner's to share.
unsafe impl Sync for Locked {}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked")
            .field("len", &self.len)
            .field("is_locked", &self.is_locked())
            .finish_non_exhaustive()
    }
}

impl Locked {
    /// Maps so many bytes, whole pages of zeros, not locked yet.
    ///
    /// # Errors
    /// The system's words.
    pub(crate) fn map(len: usize) -> Result<Locked, String> {
        // SAFETY: a fresh mapping, not fixed.
        let mapped = unsafe {
            mmap_anonymous(
                null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let at = mapped.map_err(|errno| errno.to_string())?;
        Ok(Locked {
            context: None,
            at: NonNull::new(at.cast()).unwrap_or(NonNull::dangling()),
            len,
        })
    }

    /// Locks its pages, and lets devices read them.
    ///
    /// # Errors
    /// The driver's. It is plain memory then.
    pub(crate) fn lock(&mut self, context: &Arc<Context>) -> Result<(), DriverError> {
        let _bound = context.bind()?;
        // SAFETY: its own mapping, which is not locked yet; `drop` unlocks it before it goes.
        unsafe {
            context
                .functions()
                .register(self.at.as_ptr().cast(), self.len, FOR_ALL)
        }?;
        self.context = Some(Arc::clone(context));
        Ok(())
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.context.is_some()
    }

    /// Its address.
    pub(crate) fn at(&self) -> usize {
        self.at.as_ptr() as usize
    }

    /// Its length, bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(context) = &self.context {
            let at = self.at.as_ptr().cast();
            let unlocked = context.bind().and_then(|_bound| {
                // SAFETY: registered by `lock`, and nobody uses it any more.
                unsafe { context.functions().unregister(at) }
            });
            if unlocked.is_err() {
                // The driver still takes these addresses for locked memory, so nothing else may come
                // to lie there. They go with the process.
                return;
            }
        }
        // SAFETY: its own mapping, which nobody uses any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// Copies to the device, once the stream comes to it.
///
/// # Errors
/// The driver's.
///
/// # Safety
/// `from..from + bytes` must stay as it is until the stream has done it, and `to..to + bytes` be
/// memory of the stream's device that nobody else uses meanwhile.
pub(crate) unsafe fn copy_to_device(
    to: Address,
    from: usize,
    bytes: usize,
    stream: &Stream,
) -> Result<(), DriverError> {
    let context = stream.context();
    let _bound = context.bind()?;
    // SAFETY: the caller's promise.
    unsafe {
        context
            .functions()
            .copy_to_device(to, from as *const c_void, bytes, stream.handle())
    }
}

/// Copies from the device, and waits for it.
///
/// # Errors
/// The driver's.
///
/// # Safety
/// `from..from + into.len()` must be memory of the stream's device that nobody writes to meanwhile.
pub(crate) unsafe fn copy_to_host(
    into: &mut [u8],
    from: Address,
    stream: &Stream,
) -> Result<(), DriverError> {
    let context = stream.context();
    let _bound = context.bind()?;
    // SAFETY: the caller's promise; `into` is not read before the copy is done.
    unsafe {
        context.functions().copy_to_host(
            into.as_mut_ptr().cast(),
            from,
            into.len(),
            stream.handle(),
        )
    }?;
    // Where this fails, the copy will not be done any more: the context is lost.
    stream.finish()
}
