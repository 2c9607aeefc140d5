//! A simulated driver, built and opened by whoever needs one: see `library.rs`.

use std::any::Any;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use candle_core::{Device as Candle, Tensor};
use plimsoll_cache::device::Cuda;
use plimsoll_cache::device::cuda::{Block, Elements, Tensors};
use plimsoll_cache::driver::{Driver, DriverError, RawStream};
use plimsoll_cache::model::{Dtype, TensorInfo};

/// Where the library is, built once in this process.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        // Tests of other packages include this file too.
        let mut sources = ["tests", "cache/tests"]
            .map(|tests| package.join(tests))
            .into_iter();
        let source = sources.find_map(|tests| {
            let source = tests.join("cuda/driver/library.rs");
            source.exists().then_some(source)
        });
        let path = folder.join(format!("libsimulated-{}.so", std::process::id()));
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = Command::new(rustc)
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "cdylib",
                "-C",
                "opt-level=2",
                "-C",
                "strip=symbols",
            ])
            .arg("-o")
            .arg(&path)
            .arg(source.unwrap())
            .output()
            .unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        path
    })
}

/// A simulated driver of its own, with its screws and counts.
#[derive(Clone)]
pub struct Simulated {
    library: Arc<Library>,
}

struct Library {
    path: PathBuf,
    handle: usize,
}

/// What a simulated driver counts.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Count {
    Violations = 0,
    Calls = 1,
    Contexts = 2,
    Streams = 3,
    Events = 4,
    Pools = 5,
    Allocations = 6,
    RegisteredBytes = 7,
    FreeBytes = 8,
    Handles = 9,
}

impl Simulated {
    pub fn new() -> Simulated {
        // A copy of the library is another library to the loader, with a state of its own.
        static NUMBER: Mutex<u64> = Mutex::new(0);
        let number = {
            let mut number = NUMBER.lock().unwrap();
            *number += 1;
            *number
        };
        let path = built().with_extension(format!("{number}.so"));
        std::fs::copy(built(), &path).unwrap();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a library of this test's, whose initialisers are Rust's.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null());
        Simulated {
            library: Arc::new(Library {
                path,
                handle: handle as usize,
            }),
        }
    }

    /// The one that this program is linked to, where that is simulated: `scripts/check-cuda`.
    #[cfg(feature = "cuda")]
    pub fn linked() -> Option<Simulated> {
        let handle = libc::RTLD_DEFAULT;
        // SAFETY: looks a name up in what is loaded.
        let found = unsafe { libc::dlsym(handle, c"simulated_count".as_ptr()) };
        (!found.is_null()).then(|| Simulated {
            library: Arc::new(Library {
                path: PathBuf::new(),
                handle: handle as usize,
            }),
        })
    }

    /// Has it forget all that calls have made, and all counts.
    #[cfg(feature = "cuda")]
    pub fn restart(&self) {
        // SAFETY: the function of this name has this type.
        let function: extern "C" fn() =
            unsafe { std::mem::transmute(self.symbol("simulated_restart")) };
        function();
    }

    pub fn driver(&self) -> Result<Driver, DriverError> {
        Driver::open(&self.library.path)
    }

    /// Its device, of `bytes` at most.
    pub fn device(&self, bytes: u64) -> Result<Cuda, DriverError> {
        let library = Arc::new(ReadBack::of(self));
        // SAFETY: the stream that all share is always there.
        let device = unsafe { Cuda::with(&self.driver()?, 0, library) }?;
        Ok(device.within(bytes))
    }

    fn symbol(&self, name: &str) -> *mut c_void {
        symbol(self.library.handle, name)
    }

    pub fn count(&self, what: Count) -> u64 {
        count(self.library.handle, what)
    }

    /// Has the call of this number fail, counted from 1 and from now on; 0 lets all be.
    pub fn fail(&self, call: u64, code: u32, is_lost: bool) {
        // SAFETY: as above.
        let function: extern "C" fn(u64, c_uint, bool) =
            unsafe { std::mem::transmute(self.symbol("simulated_fail")) };
        function(call, code, is_lost);
    }

    /// Has every call of a function fail; 0 lets it be.
    pub fn refuse(&self, name: &str, code: u32) {
        let name = CString::new(name).unwrap();
        // SAFETY: as above.
        let function: extern "C" fn(*const c_char, c_uint) =
            unsafe { std::mem::transmute(self.symbol("simulated_refuse")) };
        function(name.as_ptr(), code);
    }

    pub fn elsewhere(&self, bytes: u64) {
        // SAFETY: as above.
        let function: extern "C" fn(u64) =
            unsafe { std::mem::transmute(self.symbol("simulated_elsewhere")) };
        function(bytes);
    }

    pub fn without_pools(&self) {
        // SAFETY: as above.
        let function: extern "C" fn(bool) =
            unsafe { std::mem::transmute(self.symbol("simulated_no_pools")) };
        function(true);
    }

    /// The name of a call since they were last counted from 1.
    pub fn call(&self, number: u64) -> String {
        // SAFETY: as above.
        let function: extern "C" fn(u64, *mut c_char, c_int) =
            unsafe { std::mem::transmute(self.symbol("simulated_call")) };
        let mut name = [0_u8; 64];
        function(number, name.as_mut_ptr().cast(), 64);
        let end = name.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8_lossy(&name[..end]).into_owned()
    }

    /// All that is still there of what calls have made.
    pub fn left(&self) -> Vec<(Count, u64)> {
        let kinds = [
            Count::Contexts,
            Count::Streams,
            Count::Events,
            Count::Pools,
            Count::Allocations,
            Count::RegisteredBytes,
            Count::Handles,
        ];
        let counts = kinds.map(|kind| (kind, self.count(kind)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

fn symbol(library: usize, name: &str) -> *mut c_void {
    let name = CString::new(name).unwrap();
    // SAFETY: the library stays open.
    let symbol = unsafe { libc::dlsym(library as *mut c_void, name.as_ptr()) };
    assert!(!symbol.is_null(), "{name:?}");
    symbol
}

fn count(library: usize, what: Count) -> u64 {
    // SAFETY: the function of this name has this type.
    let function: extern "C" fn(c_uint) -> u64 =
        unsafe { std::mem::transmute(symbol(library, "simulated_count")) };
    function(what as u32)
}

impl Drop for Library {
    fn drop(&mut self) {
        // The library stays open: a driver does not bear to be closed.
        let _ = std::fs::remove_file(&self.path);
        if !std::thread::panicking() {
            let counted = count(self.handle, Count::Violations);
            assert_eq!(counted, 0, "the driver was misused");
        }
    }
}

/// A tensor library whose tensors are candle's on the CPU, copies of what the device holds at the
/// moment when they are asked for.
pub struct ReadBack {
    driver: Simulated,
    /// Blocks that somebody holds on to, as tensors over them would.
    pub held: Mutex<Vec<Arc<Memory>>>,
    pub holds_on: AtomicBool,
    pub refuses: AtomicBool,
}

impl std::fmt::Debug for ReadBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadBack").finish_non_exhaustive()
    }
}

pub struct Memory {
    driver: Simulated,
    address: u64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the function of this name has this type.
        let function: extern "C" fn(u64) =
            unsafe { std::mem::transmute(self.driver.symbol("simulated_free")) };
        function(self.address);
    }
}

impl ReadBack {
    pub fn of(driver: &Simulated) -> ReadBack {
        ReadBack {
            driver: driver.clone(),
            held: Mutex::default(),
            holds_on: false.into(),
            refuses: false.into(),
        }
    }
}

// SAFETY: the stream lives as long as this, and blocks free what they were given once, in its order.
unsafe impl Tensors for ReadBack {
    fn stream(&self) -> RawStream {
        RawStream(0)
    }

    fn has(&self, dtype: Dtype) -> bool {
        dtype.candle().is_some()
    }

    unsafe fn take(&self, address: u64, _: Elements) -> Result<Box<dyn Block>, String> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err("it would not".to_owned());
        }
        let memory = Arc::new(Memory {
            driver: self.driver.clone(),
            address,
        });
        if self.holds_on.load(Ordering::Relaxed) {
            self.held.lock().unwrap().push(Arc::clone(&memory));
        }
        Ok(Box::new(OnDevice(memory)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct OnDevice(Arc<Memory>);

impl std::fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnDevice").finish_non_exhaustive()
    }
}

// SAFETY: the address is that of the memory that this owns, and `life` is a part of what owns it.
unsafe impl Block for OnDevice {
    fn address(&self) -> u64 {
        self.0.address
    }

    fn tensor(&self, first: usize, tensor: &TensorInfo) -> Result<Tensor, String> {
        let mut bytes = vec![0_u8; tensor.bytes as usize];
        // SAFETY: the function of this name has this type.
        let function: extern "C" fn(u64, *mut c_void, usize) =
            unsafe { std::mem::transmute(self.0.driver.symbol("simulated_read")) };
        let at = self.0.address + (first * tensor.dtype.bitsize() / 8) as u64;
        function(at, bytes.as_mut_ptr().cast(), bytes.len());
        let dtype = tensor.dtype.candle().unwrap();
        Tensor::from_raw_buffer(&bytes, dtype, &tensor.shape, &Candle::Cpu)
            .map_err(|error| error.to_string())
    }

    fn life(&self) -> Weak<dyn Any + Send + Sync> {
        let life: Weak<Memory> = Arc::downgrade(&self.0);
        life
    }
}
