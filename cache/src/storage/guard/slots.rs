//! The guarded ranges, in memory that a signal handler may read at any moment: it is never freed,
//! and it is all atomics.
//!
//! A handler counts itself in at a slot *before* it reads the range, and an owner who clears a slot
//! looks at that count *after* clearing the range's end. Both in the one order that `SeqCst` makes:
//! so either the handler sees the cleared end, or the owner sees the handler and waits. A slot that
//! was read is thus never that of another range by the time it is used, however often it changes
//! owners.

use std::ops::Range;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::atomic::{Ordering, fence};

use rustix::fs::fstat;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Nothing is poisoned.
const SOUND: u64 = u64::MAX;

/// Bytes of a page. Kept here, since to ask for it may allocate.
static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// One guarded range, or none.
#[derive(Debug)]
pub(super) struct Slot {
    /// Zero while nothing is guarded; written last, and cleared first.
    end: AtomicUsize,
    start: AtomicUsize,
    /// Handlers that look at it.
    handlers: AtomicU32,
    descriptor: AtomicI32,
    /// Where in the file the range begins.
    offset: AtomicU64,
    /// Where in the range zeros begin, or [`SOUND`].
    poisoned: AtomicU64,
    /// Whether it has an owner.
    taken: AtomicBool,
}

/// Slots are never freed, so that the handler may walk them at any moment.
#[derive(Debug)]
struct Block {
    slots: [Slot; 128],
    next: AtomicPtr<Block>,
}

static FIRST: Block = Block::new();

impl Block {
    const fn new() -> Block {
        Block {
            slots: [const { Slot::new() }; 128],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn next(&self) -> Option<&'static Block> {
        // SAFETY: null, or a block that was leaked in `next_or_new`.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    fn next_or_new(&self) -> &'static Block {
        if let Some(next) = self.next() {
            return next;
        }
        let new = Box::into_raw(Box::new(Block::new()));
        let linked =
            self.next
                .compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        match linked {
            // SAFETY: made above, and from here on never freed.
            Ok(_) => unsafe { &*new },
            Err(other) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: another thread's, linked in the same way.
                unsafe { &*other }
            }
        }
    }
}

/// Must come before anything else: what the handler needs to know.
pub(super) fn begin(page: usize) {
    PAGE.store(page, Ordering::Relaxed);
}

/// A slot that nobody has. It guards nothing yet.
pub(super) fn take() -> &'static Slot {
    let mut block = &FIRST;
    loop {
        if let Some(slot) = block.slots.iter().find(|slot| slot.take()) {
            return slot;
        }
        block = block.next_or_new();
    }
}

/// Maps zeros where a guarded range misses the page at an address. Returns whether it did.
///
/// Safe in a signal handler: it does not lock, allocate, or panic.
pub(super) fn fill(address: usize) -> bool {
    let mut block = Some(&FIRST);
    while let Some(here) = block {
        for slot in &here.slots {
            if slot.around(address).is_some() && slot.fill(address) {
                return true;
            }
        }
        block = here.next();
    }
    false
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            end: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            handlers: AtomicU32::new(0),
            descriptor: AtomicI32::new(-1),
            offset: AtomicU64::new(0),
            poisoned: AtomicU64::new(SOUND),
            taken: AtomicBool::new(false),
        }
    }

    fn take(&self) -> bool {
        // One that a handler looks at for a moment will do the next time; one where a fork has left
        // a handler behind never will.
        !self.taken.load(Ordering::Relaxed)
            && !self.is_in_use()
            && !self.taken.swap(true, Ordering::Acquire)
    }

    /// Guards a range of whole pages. The descriptor has to stay open until nobody uses the slot.
    pub(super) fn guard(&self, start: usize, end: usize, descriptor: RawFd, offset: u64) {
        self.start.store(start, Ordering::Relaxed);
        self.descriptor.store(descriptor, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.poisoned.store(SOUND, Ordering::Relaxed);
        self.end.store(end, Ordering::SeqCst);
    }

    /// Guards nothing any more; handlers may still be under way.
    pub(super) fn clear(&self) {
        self.end.store(0, Ordering::SeqCst);
    }

    /// Whether a handler is under way.
    pub(super) fn is_in_use(&self) -> bool {
        self.handlers.load(Ordering::SeqCst) > 0
    }

    /// Somebody else may have it.
    pub(super) fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }

    pub(super) fn poisoned(&self) -> Option<u64> {
        // The caller has read the range by now, and those reads are not to come after this.
        fence(Ordering::SeqCst);
        let poisoned = self.poisoned.load(Ordering::SeqCst);
        (poisoned != SOUND).then_some(poisoned)
    }

    /// The range, where an address lies in it.
    fn around(&self, address: usize) -> Option<Range<usize>> {
        let end = self.end.load(Ordering::SeqCst);
        let range = self.start.load(Ordering::Relaxed)..end;
        range.contains(&address).then_some(range)
    }

    fn fill(&self, address: usize) -> bool {
        self.handlers.fetch_add(1, Ordering::SeqCst);
        // Again: from here on it cannot become another range, nor be unmapped.
        let range = self.around(address);
        let filled = range.is_some_and(|range| self.map_zeros(&range, address));
        self.handlers.fetch_sub(1, Ordering::SeqCst);
        filled
    }

    /// Several threads may be here at once. Each maps what it finds missing, and zeros over zeros
    /// change nothing.
    fn map_zeros(&self, range: &Range<usize>, address: usize) -> bool {
        let page = PAGE.load(Ordering::Relaxed);
        let offset = self.offset.load(Ordering::Relaxed);
        let faulting = address & !(page - 1);
        let in_file = offset.wrapping_add((faulting - range.start) as u64);
        // SAFETY: the owner keeps it open until this handler is done.
        let file = unsafe { BorrowedFd::borrow_raw(self.descriptor.load(Ordering::Relaxed)) };
        let size = fstat(file).map(|stat| u64::try_from(stat.st_size).unwrap_or(0));
        let (from, end) = match size {
            // All that is missing at once: one signal for each page would cost a thousand times as
            // much. The page that holds the end of the file is still there.
            Ok(size) if size <= in_file => {
                let present = size.wrapping_add(page as u64 - 1) & !(page as u64 - 1);
                let present = present.saturating_sub(offset) as usize;
                (range.start + present, range.end)
            }
            // It is there and could not be read; or it has come back since, which is no better.
            _ => (faulting, faulting + page),
        };
        // Before anybody can read the zeros.
        let poisoned = (from - range.start) as u64;
        self.poisoned.fetch_min(poisoned, Ordering::SeqCst);
        // SAFETY: the range is guarded, so that it is a mapping whose owner wants this, and it stays
        // one until this handler is done.
        let mapped = unsafe {
            mmap_anonymous(
                from as *mut _,
                end - from,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        };
        mapped.is_ok()
    }
}
