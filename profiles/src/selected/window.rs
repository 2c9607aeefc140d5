//! The window: one reserved range of addresses in which every region of weights lies.
//!
//! Because all of them lie in one range, the global allocator tells an adopted block from its own
//! by one subtraction and one comparison, and finds its span by index. The reservation is
//! `PROT_NONE` and `MAP_NORESERVE`: it costs microseconds, no commit charge and no memory. Under
//! `ulimit -v` it halves until it fits, or is refused with the reason, and weights are copied when
//! they become tensors.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::process::{Resource, getrlimit};

use super::blocks::{GATE, GIVEN_BACK, GRANULE, Slot};
pub use super::span::{Orphan, Span};

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
    /// Spans that nobody owns any more and whose addresses are not free yet.
    abandoned: Vec<Range>,
}

/// A span's addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) slot: u32,
    pub(super) base: usize,
    pub(super) len: usize,
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
        // Where address space is limited, half of the limit is for everything else.
        let limit = getrlimit(Resource::As).current;
        let half = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit / 2).unwrap_or(usize::MAX)
        });
        let mut len = wanted;
        while len > half && len > 1 {
            len /= 2;
        }
        if len < SMALLEST {
            return Err(refused(SMALLEST, Errno::NOMEM));
        }
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
        let granules_len = len / GRANULE * size_of::<AtomicU32>();
        // One table after the other. The first is aligned for the second, since windows are powers
        // of two, of a gigabyte at least.
        let tables = table(granules_len + MAX_SPANS * size_of::<Slot>()).map_err(|error| {
            // SAFETY: the mapping made above, which nobody knows yet.
            let _ = unsafe { munmap(reserved as *mut _, len + GRANULE) };
            refused(len, error)
        })?;
        let (granules, slots) = (tables, tables + granules_len);
        GATE.publish(base, len, granules as *mut AtomicU32, slots as *mut Slot);
        // SAFETY: registers a function that makes one system call. Should there be no memory for
        // that, a child can reach what it inherited of the weights, and nothing is worse.
        unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) };
        Ok(Window {
            base,
            len,
            granules,
            slots,
            space: Mutex::new(Space {
                cursor: 0,
                free_slots: Vec::new(),
                used_slots: 0,
                abandoned: Vec::new(),
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
        let mut space = self.space();
        self.collect(&mut space);
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
        Ok(Span::new(self, Range { slot, base, len }))
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the addresses of abandoned spans whose last block is gone.
    fn collect(&self, space: &mut Space) {
        for range in std::mem::take(&mut space.abandoned) {
            let gone = self.slot(range.slot).blocks.load(Ordering::Acquire) & GIVEN_BACK != 0;
            if gone && unmap(range) {
                self.free(space, range);
            } else {
                space.abandoned.push(range);
            }
        }
    }

    /// Takes back the addresses of a span that was dropped: now if they have no memory any more,
    /// else when they are collected.
    pub(super) fn take_back(&self, range: Range, without_memory: bool) {
        let mut space = self.space();
        if without_memory {
            self.free(&mut space, range);
        } else {
            space.abandoned.push(range);
        }
    }

    /// Makes the addresses of a range without memory free to be taken again.
    fn free(&self, space: &mut Space, range: Range) {
        let first = (range.base - self.base) / GRANULE;
        for granule in first..first + range.len.div_ceil(GRANULE) {
            self.granule(granule).store(0, Ordering::Release);
        }
        space.free_slots.push(range.slot);
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

    pub(super) fn slot(&self, index: u32) -> &'static Slot {
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

fn refused(tried: usize, error: Errno) -> WindowError {
    WindowError::Reserve {
        tried,
        reason: error.to_string(),
    }
}

/// Frees the memory of a range and merges it with the reservation, by mapping over it.
pub(super) fn unmap(range: Range) -> bool {
    // SAFETY: called for ranges that no span owns and of which no block is alive.
    let unmapped = unsafe {
        mmap_anonymous(
            range.base as *mut _,
            range.len,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
        )
    };
    if unmapped.is_err() {
        // At the limit of mappings: the memory goes, the addresses stay mapped for another try.
        // SAFETY: as above.
        let _ = unsafe { madvise(range.base as *mut _, range.len, Advice::LinuxDontNeed) };
    }
    unmapped.is_ok()
}

/// In a child of `fork` the window is empty, and reserved: what lay in it is the parent's. Parts that
/// the child did not inherit would else be gaps in which its allocator maps blocks of its own, which
/// then pass for adopted ones.
extern "C" fn close_in_child() {
    let (base, len) = GATE.range();
    // SAFETY: the addresses are the window's, and the child has one thread, which is in `fork`.
    let _ = unsafe {
        mmap_anonymous(
            base as *mut _,
            len,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
        )
    };
}
