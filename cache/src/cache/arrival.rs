//! How much of what is reserved in RAM is not there yet: a budget that follows the machine must not
//! take it for memory that the machine has given.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Model, TensorInfo};
use crate::observe::{LoadObserver, Transferred};

/// A load into RAM, as it arrives.
pub(super) struct Arrival<'a> {
    observer: &'a dyn LoadObserver,
    /// Bytes of all loads that have not arrived.
    missing: &'a AtomicU64,
    charge: u64,
    read: AtomicU64,
    recycled: AtomicU64,
    /// This load's part of `missing`.
    own: AtomicU64,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(
        observer: &'a dyn LoadObserver,
        missing: &'a AtomicU64,
        charge: u64,
    ) -> Arrival<'a> {
        missing.fetch_add(charge, Ordering::Relaxed);
        Arrival {
            observer,
            missing,
            charge,
            read: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            own: AtomicU64::new(charge),
        }
    }

    fn arrived(&self) {
        let read = self.read.load(Ordering::Relaxed);
        let there = read.max(self.recycled.load(Ordering::Relaxed));
        let left = self.charge.saturating_sub(there);
        let before = self.own.fetch_min(left, Ordering::Relaxed);
        let fell = before.saturating_sub(left);
        self.missing.fetch_sub(fell, Ordering::Relaxed);
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        let left = self.own.load(Ordering::Relaxed);
        self.missing.fetch_sub(left, Ordering::Relaxed);
    }
}

impl LoadObserver for Arrival<'_> {
    fn before_tensor(&self, model: &Model, tensor: &TensorInfo) {
        self.observer.before_tensor(model, tensor);
    }

    fn after_tensor(&self, model: &Model, tensor: &TensorInfo) {
        self.observer.after_tensor(model, tensor);
    }

    fn recycled(&self, bytes: u64) {
        self.recycled.store(bytes, Ordering::Relaxed);
        self.arrived();
        self.observer.recycled(bytes);
    }

    fn before_read(&self, path: &Path, offset: u64, bytes: u64) -> std::io::Result<()> {
        self.observer.before_read(path, offset, bytes)
    }

    fn transferred(&self, transferred: &Transferred<'_>) {
        self.observer.transferred(transferred);
    }

    fn bytes_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        self.arrived();
        self.observer.bytes_read(bytes);
    }
}
