//! What weights take of a device, counted while it exists.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::Inner;
use crate::device::Held;

/// What a device's weights take.
#[derive(Default)]
pub(super) struct Tally {
    /// All of it, what only tensors hold included; bytes.
    pub(super) bytes: u64,
    /// The part outside the pool.
    pub(super) outside: u64,
    /// Memory of unloaded weights that tensors hold; part of both.
    left: Vec<Left>,
}

impl Tally {
    /// Forgets what has gone.
    pub(super) fn reap(&mut self) {
        self.left.retain(|left| {
            // It may go at any moment: asked once.
            let is_gone = left.is_gone();
            if is_gone {
                self.bytes -= left.bytes;
                self.outside -= left.outside();
            }
            !is_gone
        });
    }
}

/// Memory that tensors may still be over.
#[derive(Clone)]
pub(super) struct Left {
    /// It lives as long as the memory.
    pub(super) life: Weak<dyn Any + Send + Sync>,
    pub(super) bytes: u64,
    pub(super) is_outside: bool,
}

impl Left {
    pub(super) fn is_gone(&self) -> bool {
        self.life.strong_count() == 0
    }

    fn outside(&self) -> u64 {
        if self.is_outside { self.bytes } else { 0 }
    }
}

/// What weights count, until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    inner: Arc<Inner>,
    pub(super) bytes: u64,
    outside: u64,
}

impl Counted {
    /// Counts so many bytes, the part of them outside the pool among them.
    ///
    /// # Errors
    /// The bytes that the device may still hold, where they are fewer.
    pub(super) fn new(inner: &Arc<Inner>, bytes: u64, outside: u64) -> Result<Counted, u64> {
        let mut tally = inner.tally();
        let left = inner.within.saturating_sub(tally.bytes);
        if bytes > left {
            return Err(left);
        }
        tally.bytes += bytes;
        tally.outside += outside;
        Ok(Counted {
            inner: Arc::clone(inner),
            bytes,
            outside,
        })
    }

    /// Leaves what tensors hold to be counted until they are gone.
    pub(super) fn leave(&mut self, left: Vec<Left>) -> Option<StillHeld> {
        let bytes = left.iter().map(|left| left.bytes).sum();
        self.bytes -= bytes;
        self.outside -= left.iter().map(Left::outside).sum::<u64>();
        self.inner.tally().left.extend(left.iter().cloned());
        (!left.is_empty()).then_some(StillHeld { left, bytes })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut tally = self.inner.tally();
        tally.bytes -= self.bytes;
        tally.outside -= self.outside;
    }
}

/// Memory of unloaded weights that tensors hold.
pub(super) struct StillHeld {
    left: Vec<Left>,
    bytes: u64,
}

impl Held for StillHeld {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_gone(&self) -> bool {
        self.left.iter().all(Left::is_gone)
    }
}
