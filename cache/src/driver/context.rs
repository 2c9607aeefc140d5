//! A device, and its primary context.

use std::ffi::{c_char, c_int, c_uint};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::null_mut;

use super::functions::{Functions, Handle, RawDevice};
use super::{Driver, DriverError};

/// `CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED`.
const MEMORY_POOLS: c_uint = 115;

/// A device's primary context, which everything that uses the device in this process shares.
pub(crate) struct Context {
    driver: Driver,
    device: RawDevice,
    handle: Handle,
    ordinal: u32,
    name: String,
    pci_bus: String,
}

// SAFETY: the driver's calls may come from any thread; handles are not bound to one.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("ordinal", &self.ordinal)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A context that is this thread's until this is dropped, when the thread has again what it had.
pub(crate) struct Bound<'a> {
    functions: &'a Functions,
    /// It ends on the thread on which it began.
    here: PhantomData<*const ()>,
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let mut popped = null_mut();
        // SAFETY: it writes one handle. The context was pushed when this was made.
        let _ = unsafe { self.functions.pop_context(&raw mut popped) };
    }
}

impl Context {
    /// The primary context of a device.
    ///
    /// # Errors
    /// There is no such device, it has no memory pools, or the driver's answer: another process may
    /// have it for itself.
    pub(crate) fn of(driver: &Driver, ordinal: u32) -> Result<Context, DriverError> {
        let functions = &driver.functions;
        let devices = driver.devices()?;
        if ordinal >= devices {
            return Err(DriverError::NoDevice { ordinal, devices });
        }
        let mut device = 0;
        // SAFETY: it writes one handle.
        unsafe { functions.device(&raw mut device, ordinal.cast_signed()) }?;
        let name = text(|at, len| {
            // SAFETY: it writes at most `len` bytes, the last a zero.
            unsafe { functions.device_name(at, len, device) }
        })?;
        // SAFETY: as above.
        let pci_bus = text(|at, len| unsafe { functions.device_pci_bus(at, len, device) });
        let mut pools = 0;
        // SAFETY: it writes one number.
        unsafe { functions.device_attribute(&raw mut pools, MEMORY_POOLS, device) }?;
        if pools == 0 {
            let lacks = "memory pools";
            return Err(DriverError::Unable {
                ordinal,
                name,
                lacks,
            });
        }
        let mut handle = null_mut();
        // SAFETY: it writes one handle; `drop` releases it.
        unsafe { functions.retain_context(&raw mut handle, device) }?;
        Ok(Context {
            driver: driver.clone(),
            device,
            handle,
            ordinal,
            name,
            // Only to be recognised by: a device that does not tell is one that is not.
            pci_bus: pci_bus.unwrap_or_default().to_ascii_lowercase(),
        })
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.driver.functions
    }

    /// Its number, as `CUmemLocation` has it.
    pub(super) fn ordinal(&self) -> i32 {
        self.ordinal.cast_signed()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pci_bus(&self) -> &str {
        &self.pci_bus
    }

    /// Makes this the context of this thread for a while.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn bind(&self) -> Result<Bound<'_>, DriverError> {
        // SAFETY: the context is retained for as long as `self` lives, which `Bound` borrows.
        unsafe { self.functions().push_context(self.handle) }?;
        Ok(Bound {
            functions: self.functions(),
            here: PhantomData,
        })
    }

    /// What is free and what there is, bytes.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn memory(&self) -> Result<(u64, u64), DriverError> {
        let _bound = self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two numbers.
        unsafe { self.functions().memory_info(&raw mut free, &raw mut total) }?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained when it was made, and nobody uses it through `self` any more.
        let _ = unsafe { self.functions().release_context(self.device) };
    }
}

/// A text that the driver writes.
fn text(
    write: impl FnOnce(*mut c_char, c_int) -> Result<(), DriverError>,
) -> Result<String, DriverError> {
    let mut bytes = [0_u8; 256];
    write(bytes.as_mut_ptr().cast(), 256)?;
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
    Ok(text.chars().filter(|c| !c.is_control()).collect())
}
