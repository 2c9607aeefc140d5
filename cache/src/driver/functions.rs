//! The driver's functions, looked up by name in its library. What is written here is the interface
//! of `cuda.h`, in the versions of CUDA 11.2, the first that has memory pools.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;

use super::DriverError;

/// `CUresult`.
pub(super) type Code = c_uint;
/// `CUdevice`: the driver's handle of a device.
pub(super) type RawDevice = c_int;
/// `CUdeviceptr`: an address in a device's memory.
pub(super) type Address = u64;
/// `CUcontext`, `CUstream`, `CUevent`, `CUmemoryPool`: handles, opaque.
pub(super) type Handle = *mut c_void;

/// `CUmemPoolProps`.
#[repr(C)]
pub(super) struct PoolProps {
    pub(super) alloc_type: c_uint,
    pub(super) handle_types: c_uint,
    pub(super) location_type: c_uint,
    pub(super) location_id: c_int,
    pub(super) security_attributes: *mut c_void,
    pub(super) max_size: usize,
    pub(super) reserved: [u8; 56],
}

/// A library that was opened and is never closed: the driver does not bear it.
#[derive(Clone, Copy)]
struct Library(*mut c_void);

impl Library {
    fn open(path: &Path) -> Result<Library, DriverError> {
        let absent = |reason: String| DriverError::Absent { reason };
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|error| absent(error.to_string()))?;
        // SAFETY: opening a library runs its initialisers; this is the driver's, which whoever
        // installed it trusts, or one that the caller names.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            // SAFETY: `dlerror` gives a string of this thread, or null.
            let said = unsafe { libc::dlerror() };
            let reason = if said.is_null() {
                format!("{} cannot be opened", path.display())
            } else {
                // SAFETY: not null, and it ends with a zero byte.
                unsafe { CStr::from_ptr(said) }
                    .to_string_lossy()
                    .into_owned()
            };
            return Err(absent(reason));
        }
        Ok(Library(library))
    }

    fn symbol(self, name: &'static CStr) -> Option<*mut c_void> {
        // SAFETY: the library is never closed, and the name ends with a zero byte.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
}

macro_rules! functions {
    ($($(#[$note:meta])* $name:ident = $symbol:literal ($($argument:ident: $type:ty),* $(,)?);)*) => {
        /// The driver's functions.
        pub(super) struct Functions {
            words: Words,
            $($name: unsafe extern "C" fn($($type),*) -> Code,)*
        }

        impl Functions {
            /// Opens the library and looks every function up.
            ///
            /// # Errors
            /// There is none, or it lacks one.
            pub(super) fn open(path: &Path) -> Result<Functions, DriverError> {
                let library = Library::open(path)?;
                let version = version(library);
                Ok(Functions {
                    words: Words::of(library),
                    $($name: {
                        let symbol = library.symbol($symbol).ok_or_else(|| DriverError::TooOld {
                            version,
                            lacks: $symbol.to_string_lossy().into_owned(),
                        })?;
                        // SAFETY: the function of this name has this type (`cuda.h`).
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($type),*) -> Code,
                            >(symbol)
                        }
                    },)*
                })
            }

            $(
                $(#[$note])*
                ///
                /// # Safety
                /// As `cuda.h` says of the function.
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), DriverError> {
                    // SAFETY: the caller's promise.
                    let code = unsafe { (self.$name)($($argument),*) };
                    self.check($symbol, code)
                }
            )*
        }
    };
}

functions! {
    /// Initialises the driver in this process.
    init = c"cuInit"(flags: c_uint);
    /// How many devices there are.
    device_count = c"cuDeviceGetCount"(count: *mut c_int);
    /// The handle of a device.
    device = c"cuDeviceGet"(device: *mut RawDevice, ordinal: c_int);
    /// A device's name.
    device_name = c"cuDeviceGetName"(name: *mut c_char, len: c_int, device: RawDevice);
    /// Where a device is on the PCI bus.
    device_pci_bus = c"cuDeviceGetPCIBusId"(id: *mut c_char, len: c_int, device: RawDevice);
    /// What a device can do.
    device_attribute = c"cuDeviceGetAttribute"(
        value: *mut c_int, attribute: c_uint, device: RawDevice,
    );
    /// Takes part in a device's primary context, which candle uses too.
    retain_context = c"cuDevicePrimaryCtxRetain"(context: *mut Handle, device: RawDevice);
    /// Takes no part in it any more.
    release_context = c"cuDevicePrimaryCtxRelease_v2"(device: RawDevice);
    /// Makes a context this thread's.
    push_context = c"cuCtxPushCurrent_v2"(context: Handle);
    /// Gives this thread the context back that it had.
    pop_context = c"cuCtxPopCurrent_v2"(context: *mut Handle);
    /// What of the device's memory is free.
    memory_info = c"cuMemGetInfo_v2"(free: *mut usize, total: *mut usize);
    /// Makes a stream.
    create_stream = c"cuStreamCreate"(stream: *mut Handle, flags: c_uint);
    /// Ends a stream, once it has done its work.
    destroy_stream = c"cuStreamDestroy_v2"(stream: Handle);
    /// Waits for all that a stream was given.
    synchronize_stream = c"cuStreamSynchronize"(stream: Handle);
    /// Has a stream wait for an event.
    wait_event = c"cuStreamWaitEvent"(stream: Handle, event: Handle, flags: c_uint);
    /// Makes an event.
    create_event = c"cuEventCreate"(event: *mut Handle, flags: c_uint);
    /// Ends an event.
    destroy_event = c"cuEventDestroy_v2"(event: Handle);
    /// Has an event come after all that a stream was given so far.
    record_event = c"cuEventRecord"(event: Handle, stream: Handle);
    /// Waits for an event.
    synchronize_event = c"cuEventSynchronize"(event: Handle);
    /// Makes a memory pool.
    create_pool = c"cuMemPoolCreate"(pool: *mut Handle, props: *const PoolProps);
    /// Ends a memory pool.
    destroy_pool = c"cuMemPoolDestroy"(pool: Handle);
    /// Has a pool give the device back what it keeps free.
    trim_pool = c"cuMemPoolTrimTo"(pool: Handle, keep: usize);
    /// Asks a pool.
    pool_attribute = c"cuMemPoolGetAttribute"(pool: Handle, attribute: c_uint, value: *mut c_void);
    /// Has a pool behave.
    set_pool_attribute = c"cuMemPoolSetAttribute"(
        pool: Handle, attribute: c_uint, value: *mut c_void,
    );
    /// Takes memory out of a pool.
    allocate = c"cuMemAllocFromPoolAsync"(
        address: *mut Address, bytes: usize, pool: Handle, stream: Handle,
    );
    /// Gives memory back.
    free = c"cuMemFreeAsync"(address: Address, stream: Handle);
    /// Copies to the device.
    copy_to_device = c"cuMemcpyHtoDAsync_v2"(
        to: Address, from: *const c_void, bytes: usize, stream: Handle,
    );
    /// Copies from the device.
    copy_to_host = c"cuMemcpyDtoHAsync_v2"(
        to: *mut c_void, from: Address, bytes: usize, stream: Handle,
    );
    /// Locks pages of host memory, and lets devices read them.
    register = c"cuMemHostRegister_v2"(at: *mut c_void, bytes: usize, flags: c_uint);
    /// Lets go of them.
    unregister = c"cuMemHostUnregister"(at: *mut c_void);
}

/// The CUDA version that a driver is for: 1000 times the major and 10 times the minor number.
fn version(library: Library) -> Option<u32> {
    let symbol = library.symbol(c"cuDriverGetVersion")?;
    // SAFETY: the function of this name has this type (`cuda.h`).
    let function = unsafe {
        std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_int) -> Code>(symbol)
    };
    let mut version = 0;
    // SAFETY: it writes one number, and may be called before the driver is initialised.
    let code = unsafe { function(&raw mut version) };
    (code == 0).then(|| u32::try_from(version).ok()).flatten()
}

/// What the driver calls an error, and says of it.
type Say = unsafe extern "C" fn(Code, *mut *const c_char) -> Code;

struct Words {
    name: Option<Say>,
    text: Option<Say>,
}

impl Words {
    fn of(library: Library) -> Words {
        // SAFETY: the functions of these names have this type (`cuda.h`).
        let say = |symbol| unsafe { std::mem::transmute::<*mut c_void, Say>(symbol) };
        Words {
            name: library.symbol(c"cuGetErrorName").map(say),
            text: library.symbol(c"cuGetErrorString").map(say),
        }
    }
}

fn said(say: Option<Say>, code: Code) -> Option<String> {
    let mut text = std::ptr::null();
    // SAFETY: it writes one pointer, to a string that lives for ever, or null.
    let known = unsafe { say?(code, &raw mut text) } == 0 && !text.is_null();
    if !known {
        return None;
    }
    // SAFETY: not null, and it ends with a zero byte.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

impl Functions {
    fn check(&self, call: &'static CStr, code: Code) -> Result<(), DriverError> {
        if code == 0 {
            return Ok(());
        }
        Err(DriverError::Call {
            call: call.to_string_lossy().into_owned(),
            code,
            name: said(self.words.name, code).unwrap_or_else(|| format!("error {code}")),
            text: said(self.words.text, code)
                .unwrap_or_else(|| "the driver has no words for it".to_owned()),
        })
    }
}
