//! What the driver and the machine take without a cache, asked through candle's own binding of the
//! driver, so that nothing here shares code with what it is compared with.

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, result, sys};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::Failure;

/// What one thread copies at a time, and half of its staging.
const HALF: usize = 4 << 20;

/// The most threads that fill staging, as the cache has.
const MOST: usize = 8;

/// Memory whose pages are there, locked for the driver where it takes them.
struct Memory {
    at: NonNull<u8>,
    len: usize,
    /// `None` where it is locked.
    refused: Option<DriverError>,
}

// SAFETY: the memory is its own.
unsafe impl Send for Memory {}
// SAFETY: whoever writes through `at` has it to itself, as said there.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(len: usize) -> Result<Memory, Failure> {
        // SAFETY: a fresh mapping, not fixed.
        let mapped = unsafe {
            mmap_anonymous(
                null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )
        };
        let at = NonNull::new(mapped?.cast::<u8>()).ok_or("no memory")?;
        // SAFETY: its own mapping, unlocked in `drop`; the context is this thread's.
        let locked = unsafe { sys::cuMemHostRegister_v2(at.as_ptr().cast(), len, 0) }.result();
        Ok(Memory {
            at,
            len,
            refused: locked.err(),
        })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, initialised, and written to by nobody once it is shared.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: its own mapping, locked by `new`, which nobody uses any more. The thread that made
        // it drops it, so that its context is the thread's.
        unsafe {
            if self.refused.is_none() {
                let _ = sys::cuMemHostUnregister(self.at.as_ptr().cast()).result();
            }
            let _ = munmap(self.at.as_ptr().cast(), self.len);
        }
    }
}

/// The bare driver. It is used by the thread that made it.
pub struct Bare {
    context: Arc<CudaContext>,
    stream: sys::CUstream,
    /// As many bytes as the models have.
    memory: Memory,
    /// Two halves for each thread.
    lanes: Vec<Memory>,
}

/// What a bare copy took, seconds.
pub struct Copied {
    /// To allocate as much on the device.
    pub allocating: f64,
    pub copying: f64,
}

impl Bare {
    /// On candle's device, with page-locked memory of so many bytes.
    ///
    /// # Errors
    /// The driver's, or the system's of the memory.
    pub fn new(candle: &Device, bytes: u64) -> Result<Bare, Failure> {
        let context = Arc::clone(candle.as_cuda_device()?.cuda_stream().context());
        context.bind_to_thread()?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = (0..threads.min(MOST)).map(|_| Memory::new(2 * HALF));
        Ok(Bare {
            lanes: lanes.collect::<Result<_, _>>()?,
            memory: Memory::new(usize::try_from(bytes)?)?,
            stream: result::stream::create(result::stream::StreamKind::NonBlocking)?,
            context,
        })
    }

    /// Why its memory is not locked, where the driver did not lock it.
    pub fn refused(&self) -> Option<String> {
        let all = self.lanes.iter().chain([&self.memory]);
        let refused = all.filter_map(|memory| memory.refused.as_ref()).next();
        refused.map(|error| format!("cuMemHostRegister: {error:?}"))
    }

    /// Copies all of its memory to the device, in one call.
    ///
    /// # Errors
    /// The driver's.
    pub fn copy(&self) -> Result<Copied, Failure> {
        self.context.bind_to_thread()?;
        let began = Instant::now();
        // SAFETY: freed below.
        let there = unsafe { result::malloc_sync(self.memory.len) }?;
        let allocating = began.elapsed().as_secs_f64();
        let began = Instant::now();
        // SAFETY: as many bytes are there, nobody else's, and the memory stays as it is.
        let copied = unsafe {
            result::memcpy_htod_async(there, self.memory.bytes(), self.stream)
                .and_then(|()| result::stream::synchronize(self.stream))
        };
        let copying = began.elapsed().as_secs_f64();
        // SAFETY: just taken, and nothing is on its way to it.
        unsafe { result::free_sync(there) }?;
        copied?;
        Ok(Copied {
            allocating,
            copying,
        })
    }

    /// Takes allocations of these sizes and frees them: seconds of the frees.
    ///
    /// # Errors
    /// The driver's. What was taken is freed.
    pub fn frees(&self, sizes: &[u64]) -> Result<f64, Failure> {
        self.context.bind_to_thread()?;
        let mut taken = Vec::with_capacity(sizes.len());
        let mut outcome = Ok(());
        for size in sizes {
            // SAFETY: freed below.
            match unsafe { result::malloc_sync(*size as usize) } {
                Ok(address) => taken.push(address),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let began = Instant::now();
        for address in taken {
            // SAFETY: taken above, and nobody used it.
            outcome = outcome.and(unsafe { result::free_sync(address) });
        }
        let took = began.elapsed().as_secs_f64();
        outcome?;
        Ok(took)
    }

    /// Copies all of its memory through page-locked staging, by as many threads as there are cores,
    /// at most eight, and no further: seconds.
    pub fn stage(&self) -> f64 {
        let next = AtomicUsize::new(0);
        let from = self.memory.bytes();
        let began = Instant::now();
        std::thread::scope(|scope| {
            for lane in &self.lanes {
                let next = &next;
                scope.spawn(move || {
                    let mut half = 0;
                    loop {
                        let at = next.fetch_add(HALF, Ordering::Relaxed);
                        let Some(from) = from.get(at..) else {
                            break;
                        };
                        let from = &from[..from.len().min(HALF)];
                        // SAFETY: this thread alone has the lane, of two halves, and nobody reads it.
                        unsafe {
                            let to = lane.at.as_ptr().add(half * HALF);
                            std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len());
                        }
                        half = 1 - half;
                    }
                });
            }
        });
        began.elapsed().as_secs_f64()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // The memory goes after this, on the same thread.
        let _ = self.context.bind_to_thread();
        // SAFETY: its own stream, which has done what it was given.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}
