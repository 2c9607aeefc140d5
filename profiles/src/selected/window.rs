//! The window: one reserved range of addresses in which every region of weights lies.
//!
//! Because all of them lie in one range, the global allocator tells an adopted block from its own
//! by one subtraction and one comparison, and finds its span by index. The reservation is
//! `PROT_NONE` and `MAP_NORESERVE`: it costs microseconds, no commit charge and no memory. Under
//! `ulimit -v` it halves until it fits, or is refused with the reason, and weights are copied when
//! they become tensors.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::blocks::{GATE, GIVEN_BACK, GRANULE, ORPHANED, Slot};

const SMALLEST: usize = 1 << 30;
const DEFAULT_SMALLEST: usize = 64 << 30;
const LARGEST: usize = 1 << 40;
const MAX_SPANS: usize = 1 << 16;

/// Why there is no window, or no room in it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// The address space could not be reserved, not even the smallest size tried.
    #[error(
        "cannot reserve {tried} bytes of address space for weights: {reason}; raise `ulimit -v`"
    )]
    Reserve {
        /// The smallest size tried, bytes.
        tried: usize,
        /// The system's answer.
        reason: String,
    },
    /// No run of free addresses is long enough.
    #[error("the window of {window} bytes has no {asked} contiguous bytes left")]
    Full {
        /// Bytes asked for.
        asked: usize,
        /// Bytes of the whole window.
        window: usize,
    },
    /// The pages of the system are not a divisor of the window's granule.
    #[error("pages of {page} bytes are not supported by the window")]
    PageSize {
        /// The page size, bytes.
        page: usize,
    },
}

/// The reserved range. There is one for the process, made when it is first asked for.
#[derive(Debug)]
pub struct Window {
    base: usize,
    len: usize,
    granules: usize,
    slots: usize,
    space: Mutex<Space>,
}

#[derive(Debug)]
struct Space {
    /// Where the next search begins, in granules: next fit keeps addresses from being reused at
    /// once, so that a stray pointer meets `PROT_NONE` rather than another model.
    cursor: usize,
    free_slots: Vec<u32>,
    used_slots: u32,
}

/// Maps anonymous memory that is never given back: a table of the window.
fn table(bytes: usize) -> rustix::io::Result<usize> {
    // SAFETY: a fresh mapping, not fixed.
    unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }
    .map(|at| at as usize)
}

impl Window {
    /// The window of this process, reserved on the first call.
    ///
    /// # Errors
    /// [`WindowError::Reserve`] where the address space is limited. The answer is kept.
    pub fn global() -> Result<&'static Window, WindowError> {
        static WINDOW: OnceLock<Result<Window, WindowError>> = OnceLock::new();
        WINDOW
            .get_or_init(|| Window::reserve(wanted_len()))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn reserve(wanted: usize) -> Result<Window, WindowError> {
        let page = rustix::param::page_size();
        if !GRANULE.is_multiple_of(page) {
            return Err(WindowError::PageSize { page });
        }
        let mut len = wanted;
        let reserved = loop {
            // SAFETY: a fresh mapping, not fixed. The extra granule allows aligning the start.
            let at = unsafe {
                mmap_anonymous(
                    std::ptr::null_mut(),
                    len + GRANULE,
                    ProtFlags::empty(),
                    MapFlags::PRIVATE | MapFlags::NORESERVE,
                )
            };
            match at {
                Ok(at) => break at as usize,
                Err(_) if len > SMALLEST => len /= 2,
                Err(error) => return Err(refused(len, error)),
            }
        };
        let base = reserved.next_multiple_of(GRANULE);
        let count = len / GRANULE;
        let granules =
            table(count * size_of::<AtomicU32>()).map_err(|error| refused(len, error))?;
        let slots = table(MAX_SPANS * size_of::<Slot>()).map_err(|error| refused(len, error))?;
        GATE.publish(base, len, granules as *mut AtomicU32, slots as *mut Slot);
        Ok(Window {
            base,
            len,
            granules,
            slots,
            space: Mutex::new(Space {
                cursor: 0,
                free_slots: Vec::new(),
                used_slots: 0,
            }),
        })
    }

    /// Bytes of address space reserved.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Takes a span of addresses, rounded up to whole pages. It is `PROT_NONE` until its owner maps
    /// memory there.
    ///
    /// # Errors
    /// [`WindowError::Full`] when no run of addresses is long enough.
    pub fn span(&'static self, bytes: usize) -> Result<Span, WindowError> {
        let full = || WindowError::Full {
            asked: bytes,
            window: self.len,
        };
        let page = rustix::param::page_size();
        let len = bytes
            .max(1)
            .checked_next_multiple_of(page)
            .ok_or_else(full)?;
        let count = len.div_ceil(GRANULE);
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.find(space.cursor, count).ok_or_else(full)?;
        let slot = match space.free_slots.pop() {
            Some(slot) => slot,
            None if (space.used_slots as usize) < MAX_SPANS => {
                space.used_slots += 1;
                space.used_slots - 1
            }
            None => return Err(full()),
        };
        space.cursor = first + count;
        let base = self.base + first * GRANULE;
        let entry = self.slot(slot);
        entry.base.store(base, Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        entry.blocks.store(0, Ordering::Release);
        for granule in first..first + count {
            self.granule(granule).store(slot + 1, Ordering::Release);
        }
        Ok(Span {
            window: self,
            slot,
            base,
            len,
        })
    }

    /// The first run of `count` free granules at or after `from`, wrapping around once.
    fn find(&self, from: usize, count: usize) -> Option<usize> {
        let total = self.len / GRANULE;
        let search = |mut at: usize, end: usize| {
            let mut start = at;
            while at < end {
                match self.granule(at).load(Ordering::Acquire) {
                    0 => at += 1,
                    slot => {
                        let slot = self.slot(slot - 1);
                        let past = slot.base.load(Ordering::Relaxed)
                            + slot.len.load(Ordering::Relaxed)
                            - self.base;
                        at = past.div_ceil(GRANULE).max(at + 1);
                        start = at;
                    }
                }
                if at - start >= count {
                    return Some(start);
                }
            }
            None
        };
        let from = from.min(total);
        search(from, total).or_else(|| search(0, (from + count).min(total)))
    }

    fn granule(&self, index: usize) -> &AtomicU32 {
        debug_assert!(index < self.len / GRANULE);
        // SAFETY: the table holds an entry for each granule and lives as long as the process.
        unsafe { &*(self.granules as *const AtomicU32).add(index) }
    }

    fn slot(&self, index: u32) -> &'static Slot {
        debug_assert!((index as usize) < MAX_SPANS);
        // SAFETY: the table holds `MAX_SPANS` entries, zeroed (valid for atomics), and lives as
        // long as the process.
        unsafe { &*(self.slots as *const Slot).add(index as usize) }
    }
}

/// Four times the machine's memory, within reason: room for every region there can be, and for
/// address space that is not reused at once.
fn wanted_len() -> usize {
    let info = rustix::system::sysinfo();
    let unit = info.mem_unit.max(1) as usize;
    (info.totalram as usize)
        .saturating_mul(unit)
        .saturating_mul(4)
        .clamp(DEFAULT_SMALLEST, LARGEST)
        .next_power_of_two()
}

fn refused(tried: usize, error: rustix::io::Errno) -> WindowError {
    WindowError::Reserve {
        tried,
        reason: error.to_string(),
    }
}

/// A range of addresses of the window, owned. Its owner maps memory there and may hand blocks of it
/// out as vectors; dropping the span unmaps what is there.
///
/// # Panics
/// Dropping a span of which blocks are alive would leave them dangling. The span is leaked instead,
/// memory and all: use [`Span::orphan`] to let go of one whose blocks may still be held.
#[derive(Debug)]
pub struct Span {
    window: &'static Window,
    slot: u32,
    base: usize,
    len: usize,
}

impl Span {
    /// The first address.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        NonNull::new(self.base as *mut u8).unwrap_or(NonNull::dangling())
    }

    /// Length in bytes, a multiple of the page size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// How many adopted blocks of this span are alive.
    #[must_use]
    pub fn adopted(&self) -> u64 {
        let blocks = self.window.slot(self.slot).blocks.load(Ordering::Acquire);
        blocks & !(ORPHANED | GIVEN_BACK)
    }

    /// A vector of `len` elements over this span's memory at `offset` bytes. No copy is made; the
    /// block counts as alive until the vector, or whatever it was turned into, is dropped.
    ///
    /// Capacity equals length, so growing copies into the ordinary heap. Returns `None` where
    /// [`selected_is_installed`](crate::selected_is_installed) is false: freeing such a vector
    /// would then crash.
    ///
    /// # Safety
    /// `offset..offset + len * size_of::<T>()` must lie in the span, be mapped readable and
    /// writable until the last block is gone, hold valid values of `T` (for number types: any
    /// initialised bytes), and belong to no other vector or reference while this one lives.
    #[must_use]
    pub unsafe fn adopt<T: Copy + 'static>(&self, offset: usize, len: usize) -> Option<Vec<T>> {
        let bytes = len.checked_mul(size_of::<T>())?;
        if offset.checked_add(bytes)? > self.len || !super::selected_is_installed() {
            return None;
        }
        let at = (self.base + offset) as *mut T;
        if !at.is_aligned() {
            return None;
        }
        if bytes == 0 {
            // An empty vector is never freed, so it must not be counted.
            return Some(Vec::new());
        }
        let slot = self.window.slot(self.slot);
        slot.blocks.fetch_add(1, Ordering::Relaxed);
        // SAFETY: aligned and in range, as checked; initialised and unaliased, as the caller
        // promises. Dropping it reaches `Selected::dealloc`, which knows the window.
        Some(unsafe { Vec::from_raw_parts(at, len, len) })
    }

    /// Lets go of the span. With no block alive it comes straight back, still mapped; else the
    /// memory lives until the last block is dropped, and goes back to the system at that moment.
    ///
    /// # Errors
    /// Not a failure: `Err` holds the orphan to be reclaimed later.
    pub fn orphan(self) -> Result<Span, Orphan> {
        let slot = self.window.slot(self.slot);
        let before = slot.blocks.fetch_or(ORPHANED, Ordering::AcqRel);
        if before == 0 {
            slot.blocks.store(0, Ordering::Release);
            Ok(self)
        } else {
            Err(Orphan { span: self })
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let slot = self.window.slot(self.slot);
        let before = slot.blocks.fetch_or(ORPHANED, Ordering::AcqRel);
        if before != 0 && before & GIVEN_BACK == 0 {
            // Blocks are alive, or the last one is giving the pages back at this moment. The memory
            // goes back without us; only the addresses stay taken.
            return;
        }
        // SAFETY: the range is this span's own and no block of it is alive. Mapping over it frees
        // its pages and merges it with the reservation.
        let unmapped = unsafe {
            mmap_anonymous(
                self.base as *mut _,
                self.len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        if unmapped.is_err() {
            // The addresses still hold a mapping: keep them out of use.
            return;
        }
        let first = (self.base - self.window.base) / GRANULE;
        let mut space = self
            .window
            .space
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for granule in first..first + self.len.div_ceil(GRANULE) {
            self.window.granule(granule).store(0, Ordering::Release);
        }
        space.free_slots.push(self.slot);
    }
}

/// A span whose owner has let go of it while blocks of it were alive.
#[derive(Debug)]
pub struct Orphan {
    span: Span,
}

impl Orphan {
    /// How many blocks still hold it.
    #[must_use]
    pub fn adopted(&self) -> u64 {
        self.span.adopted()
    }

    /// Bytes of address space, all of which count as memory while a block is alive.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.span.bytes()
    }

    /// Whether the last block is gone and the memory is back with the system. After that, dropping
    /// the orphan frees its addresses.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let slot = self.span.window.slot(self.span.slot);
        slot.blocks.load(Ordering::Acquire) & GIVEN_BACK != 0
    }
}
