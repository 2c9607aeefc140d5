//! What of mapped weights is resident, looked at now and then: for pictures, and for decisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Entry, Gate};
use crate::books::{Io, RAM};
use crate::storage::Storage;

/// Looks are so far apart at least, and so many times what the last one took.
const APART: Duration = Duration::from_secs(1);
const SHARE: u64 = 20;

/// When the next look is due, by the cache's clock.
#[derive(Debug, Default)]
pub(super) struct NextLook(AtomicU64);

impl NextLook {
    /// Whether a look is due now, which is then this caller's to do.
    fn is_due(&self, now_ns: u64) -> bool {
        let due = self.0.load(Ordering::Relaxed);
        let next = now_ns.saturating_add(APART.as_nanos() as u64);
        // One of several does it; what it sees is guarded by a lock of its own.
        due <= now_ns
            && self
                .0
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn took(&self, from_ns: u64, now_ns: u64) {
        let pause = now_ns.saturating_sub(from_ns).saturating_mul(SHARE);
        let next = now_ns.saturating_add(pause);
        self.0.fetch_max(next, Ordering::Relaxed);
    }
}

impl Gate {
    /// Looks how much of each mapped model is resident, unless somebody has done so just now.
    pub(super) fn look_at_page_cache(&self) {
        let begun_ns = self.io.now_ns();
        if self.io.ram.storage() != Storage::Mapped || !self.io.next_look.is_due(begun_ns) {
            return;
        }
        let resident: Vec<Arc<Entry>> = {
            let books = self.books();
            books.accounts[RAM].resident().cloned().collect()
        };
        for entry in resident {
            entry.model.look_at_page_cache(&entry.slots[RAM].reload);
        }
        self.io.next_look.took(begun_ns, self.io.now_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_a_second_apart_and_twenty_times_what_one_took() {
        let second = APART.as_nanos() as u64;
        let next = NextLook::default();
        assert!(next.is_due(5));
        assert!(!next.is_due(5 + second - 1));
        assert!(next.is_due(5 + second));
        next.took(5 + second, 5 + 2 * second);
        assert!(!next.is_due(5 + 21 * second));
        assert!(next.is_due(5 + 22 * second));
    }
}
