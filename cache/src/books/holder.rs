//! Who holds leases: what tells a wait that can end from one that cannot.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// The pins that a thread has taken and, as far as can be seen, still holds.
#[derive(Debug, Default)]
pub(crate) struct Holder(AtomicUsize);

impl Holder {
    pub(crate) fn holds(&self, pins: usize) {
        self.0.fetch_add(pins, Ordering::Relaxed);
    }

    pub(crate) fn let_go(&self, pins: usize) {
        self.0.fetch_sub(pins, Ordering::Relaxed);
    }

    pub(crate) fn pins(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
