//! A load under way, for those who join it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a load ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome<E> {
    /// The model is there; a claim has become a pin.
    Loaded,
    /// It failed, for all who waited for it.
    Failed(E),
    /// The lease it was for failed elsewhere before it began. Whoever joined has to ask again.
    Withdrawn,
}

/// A load under way. Its outcome is set once, under the lock, before waiters are woken.
#[derive(Debug)]
pub(crate) struct Loading<E> {
    begun: AtomicBool,
    outcome: OnceLock<Outcome<E>>,
}

impl<E> Default for Loading<E> {
    fn default() -> Self {
        Loading {
            begun: AtomicBool::new(false),
            outcome: OnceLock::new(),
        }
    }
}

impl<E> Loading<E> {
    /// Notes that its memory is taken from now on.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome<E>> {
        self.outcome.get()
    }

    pub(crate) fn finish(&self, outcome: Outcome<E>) {
        // The first word counts: a load that failed is not abandoned as well.
        let _ = self.outcome.set(outcome);
    }
}
