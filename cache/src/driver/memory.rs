//! Host memory that devices read by themselves: its pages are locked.

use std::ffi::c_void;
use std::fmt;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::functions::Address;
use super::{Context, DriverError, Stream};

/// `CU_MEMHOSTREGISTER_PORTABLE`: locked for every device's context.
const FOR_ALL: u32 = 1;

/// What can lock pages for a device.
#[derive(Debug, Clone)]
pub struct PageLocker(Arc<Context>);

impl PageLocker {
    pub(crate) fn of(context: &Arc<Context>) -> PageLocker {
        PageLocker(Arc::clone(context))
    }

    /// Locks pages, exactly these: the driver's own allocations round up.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// They are mapped, whole, not locked yet, and stay mapped until the lock has [ended](Lock::end).
    pub(crate) unsafe fn lock(&self, at: usize, len: usize) -> Result<Lock, DriverError> {
        let context = Arc::clone(&self.0);
        let bound = context.bind()?;
        // SAFETY: the caller's promise.
        unsafe {
            context
                .functions()
                .register(at as *mut c_void, len, FOR_ALL)
        }?;
        drop(bound);
        Ok(Lock { context, at, len })
    }
}

/// Pages that are locked, and known to the driver as that.
pub(crate) struct Lock {
    context: Arc<Context>,
    at: usize,
    len: usize,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lock").field(&self.len).finish()
    }
}

impl Lock {
    /// How many bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.len
    }

    /// Unlocks them.
    ///
    /// # Errors
    /// The driver's. It still takes these addresses for locked memory then, so nothing else may come
    /// to lie there: leave them mapped.
    pub(crate) fn end(self) -> Result<(), DriverError> {
        let _bound = self.context.bind()?;
        // SAFETY: registered when this was made.
        unsafe { self.context.functions().unregister(self.at as *mut c_void) }
    }
}

/// Keeps memory that is to be locked out of forked children, for which the kernel would copy every
/// locked page at once, and out of core dumps. Where advice is not taken, all still works.
///
/// # Safety
/// It is private anonymous memory of the caller's.
pub(crate) unsafe fn keep_to_this_process(at: usize, len: usize) {
    for advice in [Advice::LinuxWipeOnFork, Advice::LinuxDontDump] {
        // SAFETY: the caller's promise; what is there stays.
        let _ = unsafe { madvise(at as *mut _, len, advice) };
    }
}

/// A mapping of its own, whose pages are locked where that can be had.
pub(crate) struct Locked {
    /// `None` where it was refused and the pages are plain.
    lock: Option<Lock>,
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
        // SAFETY: just mapped.
        unsafe { keep_to_this_process(at as usize, len) };
        Ok(Locked {
            lock: None,
            at: NonNull::new(at.cast()).unwrap_or(NonNull::dangling()),
            len,
        })
    }

    /// Locks its pages.
    ///
    /// # Errors
    /// The driver's. It is plain memory then.
    pub(crate) fn lock(&mut self, locker: &PageLocker) -> Result<(), DriverError> {
        // SAFETY: its own mapping, which is not locked yet; `drop` unlocks it before it goes.
        self.lock = Some(unsafe { locker.lock(self.at(), self.len) }?);
        Ok(())
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.lock.is_some()
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
        if self.lock.take().is_some_and(|lock| lock.end().is_err()) {
            return;
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
