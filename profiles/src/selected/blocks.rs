//! What the dispatcher needs to know of adopted blocks: one comparison tells whether an address is
//! of the window, and a table tells which span it lies in. Nothing here allocates or locks, because
//! it runs inside the global allocator.

use rustix::mm::{Advice, madvise};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The unit of address space that spans are made of: 2 MiB, one huge page.
pub(crate) const GRANULE: usize = 2 << 20;

/// Set in [`Slot::blocks`] when the owner of the span has let go of it.
pub(crate) const ORPHANED: u64 = 1 << 63;

/// Set in [`Slot::blocks`] once the pages of an orphaned span went back to the system.
pub(crate) const GIVEN_BACK: u64 = 1 << 62;

/// One span of the window. On a cache line of its own: threads that drop tensors of different
/// models must not meet here.
#[repr(align(64))]
pub(crate) struct Slot {
    /// Adopted blocks alive in this span, and [`ORPHANED`].
    pub(crate) blocks: AtomicU64,
    /// Address of the span.
    pub(crate) base: AtomicUsize,
    /// Length of the span, bytes, a multiple of the page size.
    pub(crate) len: AtomicUsize,
}

/// The window as the dispatcher sees it. Empty until the window is reserved.
#[repr(align(64))]
pub(crate) struct Gate {
    base: AtomicUsize,
    len: AtomicUsize,
    /// For each granule the slot of the span that covers it, plus one; zero for none.
    granules: AtomicPtr<AtomicU32>,
    slots: AtomicPtr<Slot>,
}

pub(crate) static GATE: Gate = Gate::closed();

impl Gate {
    /// A gate that holds no address. A thread that frees a block while the window is published may
    /// see its length beside this base, and blocks of programs at fixed addresses lie low: so the
    /// base is one from which no user address is near, not zero.
    const fn closed() -> Gate {
        Gate {
            base: AtomicUsize::new(1 << (usize::BITS - 1)),
            len: AtomicUsize::new(0),
            granules: AtomicPtr::new(null_mut()),
            slots: AtomicPtr::new(null_mut()),
        }
    }

    /// Whether an address is of the window. Relaxed loads suffice: whoever holds a block of the
    /// window got it, directly or not, from the thread that published the gate.
    #[inline(always)]
    pub(crate) fn holds(&self, block: *mut u8) -> bool {
        (block as usize).wrapping_sub(self.base.load(Ordering::Relaxed))
            < self.len.load(Ordering::Relaxed)
    }

    /// The window's addresses: base and length.
    pub(crate) fn range(&self) -> (usize, usize) {
        let len = self.len.load(Ordering::Acquire);
        (self.base.load(Ordering::Relaxed), len)
    }

    /// Opens the gate. Called once, with tables that live as long as the process.
    pub(crate) fn publish(
        &self,
        base: usize,
        len: usize,
        granules: *mut AtomicU32,
        slots: *mut Slot,
    ) {
        self.granules.store(granules, Ordering::Relaxed);
        self.slots.store(slots, Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
        self.len.store(len, Ordering::Release);
    }

    /// The slot of the span that holds an address of the window.
    fn slot_of(&self, block: *mut u8) -> &'static Slot {
        let granule = (block as usize - self.base.load(Ordering::Relaxed)) / GRANULE;
        let granules = self.granules.load(Ordering::Relaxed);
        // SAFETY: the address is of the window, so the granule is within the table, which lives as
        // long as the process.
        let slot = unsafe { &*granules.add(granule) }.load(Ordering::Relaxed);
        debug_assert_ne!(slot, 0, "a block of the window lies in no span");
        // SAFETY: the granule's span has a live block, so its entry names a slot of the table.
        unsafe { &*self.slots.load(Ordering::Relaxed).add(slot as usize - 1) }
    }
}

/// Counts an adopted block down. The last block of an orphaned span gives its pages back at once;
/// the addresses follow when the orphan is dropped, or at the next span after that.
#[cold]
pub(crate) fn release(block: *mut u8) {
    let slot = GATE.slot_of(block);
    let base = slot.base.load(Ordering::Relaxed);
    let len = slot.len.load(Ordering::Relaxed);
    // AcqRel: whoever sees the count at zero also sees all that was done with the block.
    let before = slot.blocks.fetch_sub(1, Ordering::AcqRel);
    debug_assert_ne!(before & !ORPHANED, 0, "a block was freed twice");
    if before == ORPHANED | 1 {
        // SAFETY: nobody holds a block of this span, its owner has let go of it, and until
        // `GIVEN_BACK` is set below nobody reuses the range. A raw system call: no allocation, and
        // errno is left alone. Should it fail, the pages go when the addresses are reclaimed.
        let _ = unsafe { madvise(base as *mut _, len, Advice::LinuxDontNeed) };
        slot.blocks.store(ORPHANED | GIVEN_BACK, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_of_a_window_that_is_half_published() {
        let gate = Gate::closed();
        gate.len.store(1 << 40, Ordering::Relaxed);
        for address in [0_usize, 16, 0x40_0000, 1 << 30, 1 << 39, 1 << 47, 1 << 56] {
            assert!(!gate.holds(address as *mut u8));
        }
    }
}
