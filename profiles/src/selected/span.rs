//! Spans of the window: ranges of its addresses with an owner, who hands blocks of them out as
//! vectors and may let go of them before those are gone.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::blocks::{GIVEN_BACK, ORPHANED};
use super::window::{Range, Window, unmap};

/// A range of addresses of the window, owned. Its owner maps memory there and may hand blocks of it
/// out as vectors; dropping the span unmaps what is there, or leaves that to the last of its blocks.
///
/// Children of `fork` do not inherit the memory: to read it there is a fault.
#[derive(Debug)]
pub struct Span {
    window: &'static Window,
    range: Range,
}

impl Span {
    pub(super) fn new(window: &'static Window, range: Range) -> Span {
        Span { window, range }
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        NonNull::new(self.range.base as *mut u8).unwrap_or(NonNull::dangling())
    }

    /// Length in bytes, a multiple of the page size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.range.len
    }

    /// How many adopted blocks of this span are alive.
    #[must_use]
    pub fn adopted(&self) -> u64 {
        let blocks = self
            .window
            .slot(self.range.slot)
            .blocks
            .load(Ordering::Acquire);
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
    pub unsafe fn adopt<T: 'static>(&self, offset: usize, len: usize) -> Option<Vec<T>> {
        const { assert!(!std::mem::needs_drop::<T>()) };
        let bytes = len.checked_mul(size_of::<T>())?;
        if offset.checked_add(bytes)? > self.range.len || !super::selected_is_installed() {
            return None;
        }
        let at = (self.range.base + offset) as *mut T;
        if !at.is_aligned() {
            return None;
        }
        if bytes == 0 {
            // An empty vector is never freed, so it must not be counted.
            return Some(Vec::new());
        }
        let slot = self.window.slot(self.range.slot);
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
        let slot = self.window.slot(self.range.slot);
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
        let slot = self.window.slot(self.range.slot);
        let before = slot.blocks.fetch_or(ORPHANED, Ordering::AcqRel);
        if before == 0 {
            slot.blocks.store(ORPHANED | GIVEN_BACK, Ordering::Release);
        }
        // Else blocks are alive, or the last one is giving the pages back at this moment: the
        // memory goes back without us, and the addresses are collected later.
        let unmapped = (before == 0 || before & GIVEN_BACK != 0) && unmap(self.range);
        self.window.take_back(self.range, unmapped);
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
        let slot = self.span.window.slot(self.span.range.slot);
        slot.blocks.load(Ordering::Acquire) & GIVEN_BACK != 0
    }
}
