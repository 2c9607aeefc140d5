//! The door between leases and eviction, without a lock.

use crate::sync::atomic::{AtomicU64, Ordering};

/// A count of leases with a door: no lease can enter once it is closed, and it can be closed only
/// while none is inside. This is the whole of the protocol between leases and eviction.
#[derive(Debug, Default)]
pub(crate) struct Pins(AtomicU64);

/// Leases may enter.
const OPEN: u64 = 1 << 63;
/// Somebody waits for those inside to leave: who is in no hurry does not enter.
const DRAINING: u64 = 1 << 62;
/// Nobody may enter any more, and the last to leave evicts.
const DOOMED: u64 = 1 << 61;
const INSIDE: u64 = DOOMED - 1;

/// What it means that somebody left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Others are still inside.
    Others,
    /// Nobody is.
    Empty,
    /// Nobody is, and whoever left last has to evict.
    Doomed,
}

impl Pins {
    /// Enters, if the door is open and nobody waits for it to be empty.
    pub(crate) fn enter(&self) -> bool {
        self.enter_while(OPEN | DRAINING)
    }

    /// Enters, if the door is open.
    pub(crate) fn enter_draining(&self) -> bool {
        self.enter_while(OPEN)
    }

    fn enter_while(&self, looked_at: u64) -> bool {
        let mut pins = self.0.load(Ordering::Relaxed);
        while pins & looked_at == OPEN {
            // Acquire: what the loader wrote before opening is seen.
            match self
                .0
                .compare_exchange_weak(pins, pins + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => pins = seen,
            }
        }
        false
    }

    /// Leaves.
    pub(crate) fn leave(&self) -> Left {
        // SeqCst: pairs with a waiter, which announces itself and then looks at the count, while
        // this changes the count and then looks for waiters. One of the two sees the other.
        let before = self.0.fetch_sub(1, Ordering::SeqCst);
        debug_assert_ne!(before & INSIDE, 0, "left more often than entered");
        if before & INSIDE > 1 {
            Left::Others
        } else if before & DOOMED != 0 {
            Left::Doomed
        } else {
            Left::Empty
        }
    }

    /// Opens the door with so many already inside.
    pub(crate) fn open(&self, inside: u32) {
        self.0.store(OPEN | u64::from(inside), Ordering::Release);
    }

    /// Closes the door, if nobody is inside.
    pub(crate) fn close(&self) -> bool {
        let mut pins = self.0.load(Ordering::Relaxed);
        while pins & INSIDE == 0 && pins & (OPEN | DOOMED) != 0 {
            match self
                .0
                .compare_exchange_weak(pins, 0, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => pins = seen,
            }
        }
        false
    }

    /// Lets nobody in any more. The last of those who are inside evicts.
    pub(crate) fn doom(&self) {
        let mut pins = self.0.load(Ordering::Relaxed);
        while let Err(seen) = self.0.compare_exchange_weak(
            pins,
            (pins & INSIDE) | DOOMED,
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            pins = seen;
        }
    }

    /// Asks those who can wait to stay outside, or lets them in again. A door that was closed
    /// meanwhile stays as it is.
    pub(crate) fn drain(&self, draining: bool) {
        let mut pins = self.0.load(Ordering::Relaxed);
        while pins & OPEN != 0 {
            let wanted = if draining {
                pins | DRAINING
            } else {
                pins & !DRAINING
            };
            match self
                .0
                .compare_exchange_weak(pins, wanted, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(seen) => pins = seen,
            }
        }
    }

    /// Whether somebody waits for it to be empty.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.load(Ordering::Relaxed) & DRAINING != 0
    }

    /// Whether the door is open, at this moment.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OPEN != 0
    }

    /// How many are inside.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst) & INSIDE
    }
}
