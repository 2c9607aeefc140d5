//! The global allocator that a program selects at start-up.
//!
//! [`Selected`] decides once, before the first block exists, between glibc's malloc and jemalloc,
//! by reading [`ALLOCATOR_VARIABLE`] without allocating. The choice never changes afterwards: a
//! block freed by an allocator that did not make it is the end of a process.
//!
//! The same dispatcher *adopts* memory that came from neither: a `Vec<T>` over a region of the
//! [`window`](crate::window), recognised by its address when it is dropped. That makes tensors of a
//! library that insists on owning vectors zero-copy.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;
//! # fn main() {
//! assert!(plimsoll_profiles::selected_is_installed());
//! # }
//! ```

pub(crate) mod blocks;
mod span;
pub mod window;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};

use malloc_stats::AllocatorKind;
use tikv_jemallocator::Jemalloc;

use self::blocks::GATE;

/// The environment variable that chooses the allocator: `glibc` (or unset) or `jemalloc`.
pub const ALLOCATOR_VARIABLE: &str = "PLIMSOLL_ALLOCATOR";

const UNDECIDED: u8 = 0;
const LIBC: u8 = 1;
const JEMALLOC: u8 = 2;

static CHOICE: AtomicU8 = AtomicU8::new(UNDECIDED);

/// The dispatcher between glibc's malloc and jemalloc, to be installed with `#[global_allocator]`.
///
/// It costs a load and a predictable branch per call. Where it is not installed, everything else in
/// Plimsoll still works, but weights are copied when they become tensors.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selected;

/// Reads the environment and fixes the choice. Two threads that race here read the same
/// environment and store the same value.
#[cold]
fn decide() -> u8 {
    // SAFETY: `getenv` neither allocates nor keeps the pointer, and the name is NUL-terminated.
    // The first allocation of a process happens before `main`, so no thread changes the
    // environment meanwhile.
    let value = unsafe { libc::getenv(c"PLIMSOLL_ALLOCATOR".as_ptr()) };
    let choice = if value.is_null() {
        LIBC
    } else {
        // SAFETY: `getenv` returns a NUL-terminated string; `strcmp` only reads it.
        let wants_jemalloc = unsafe { libc::strcmp(value, c"jemalloc".as_ptr()) } == 0;
        if wants_jemalloc { JEMALLOC } else { LIBC }
    };
    CHOICE.store(choice, Ordering::Relaxed);
    choice
}

#[inline(always)]
fn serves_jemalloc() -> bool {
    let choice = CHOICE.load(Ordering::Relaxed);
    let choice = if choice == UNDECIDED {
        decide()
    } else {
        choice
    };
    choice == JEMALLOC
}

/// Which allocator serves this program's Rust heap, as far as this crate installed it.
#[must_use]
pub fn serving() -> AllocatorKind {
    if selected_is_installed() && serves_jemalloc() {
        AllocatorKind::Jemalloc
    } else {
        AllocatorKind::Libc
    }
}

/// Whether [`Selected`] is the global allocator of this program. Adoption is sound only then.
///
/// A global allocator that wraps [`Selected`] has to pass every call on to it: one that serves some
/// blocks itself would be taken for it here, and would be handed adopted blocks to free.
///
/// A canary block is allocated through the global allocator; the dispatcher, if it is installed,
/// has decided by the time the block exists.
#[must_use]
pub fn selected_is_installed() -> bool {
    let canary = std::hint::black_box(Box::new(0_u8));
    let seen = CHOICE.load(Ordering::Relaxed) != UNDECIDED;
    drop(canary);
    seen
}

// SAFETY: every block goes back to the allocator that made it, since the choice is made before the
// first block and never changes. Blocks of the window came from neither and are recognised by
// address, which no allocator can hand out while the window is reserved.
unsafe impl GlobalAlloc for Selected {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if serves_jemalloc() {
            // SAFETY: the caller's contract is passed on unchanged.
            unsafe { Jemalloc.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if serves_jemalloc() {
            // SAFETY: the caller's contract is passed on unchanged.
            unsafe { Jemalloc.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if GATE.holds(block) {
            blocks::release(block);
        } else if serves_jemalloc() {
            // SAFETY: the block is not of the window, so the chosen allocator made it.
            unsafe { Jemalloc.dealloc(block, layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if GATE.holds(block) {
            // SAFETY: the caller's contract covers `block`, `layout` and `new_size`.
            unsafe { self.realloc_adopted(block, layout, new_size) }
        } else if serves_jemalloc() {
            // SAFETY: the block is not of the window, so the chosen allocator made it.
            unsafe { Jemalloc.realloc(block, layout, new_size) }
        } else {
            // SAFETY: as above.
            unsafe { System.realloc(block, layout, new_size) }
        }
    }
}

impl Selected {
    /// Shrinking keeps the block where it is; growing moves it to the real allocator.
    ///
    /// # Safety
    /// As [`GlobalAlloc::realloc`], for a block of the window.
    #[cold]
    unsafe fn realloc_adopted(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: `new_size` is not zero and, by the caller's contract, does not overflow when
        // rounded up to the alignment.
        let grown =
            unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !grown.is_null() {
            // SAFETY: both blocks are at least `layout.size()` long and distinct.
            unsafe { std::ptr::copy_nonoverlapping(block, grown, layout.size()) };
            blocks::release(block);
        }
        grown
    }
}
