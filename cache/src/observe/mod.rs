//! Watching a load from inside.

mod trace;

use std::path::Path;
use std::time::{Duration, Instant};

pub use trace::{Overlap, Span, Trace};

use crate::model::{Model, TensorInfo};

/// Is told what a load does while it does it: for progress bars, and for whoever wants to do what
/// real loaders do between tensors. The calls come from the thread that loads, `bytes_read` from
/// any of its readers.
pub trait LoadObserver: Send + Sync {
    /// A tensor's memory is about to be made. Under `heap` storage this comes right before its
    /// allocation; under `anonymous`, where a model has one region, before the first byte is read.
    fn before_tensor(&self, model: &Model, tensor: &TensorInfo) {
        let _ = (model, tensor);
    }

    /// The same tensor is in place (`heap`), or its place is known (`anonymous`).
    fn after_tensor(&self, model: &Model, tensor: &TensorInfo) {
        let _ = (model, tensor);
    }

    /// So many bytes of the model's memory are pages which an eviction left behind.
    fn recycled(&self, bytes: u64) {
        let _ = bytes;
    }

    /// So many bytes are about to be read from a file, from this offset on. An error is taken for
    /// the system's answer to that read: a way to see what a program makes of failing disks.
    ///
    /// # Errors
    /// Whatever reading is to fail with.
    fn before_read(&self, path: &Path, offset: u64, bytes: u64) -> std::io::Result<()> {
        let _ = (path, offset, bytes);
        Ok(())
    }

    /// So many bytes have come from the file.
    fn bytes_read(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Tensors of a model that is leased in part have come to its device. Called by the thread that
    /// brought them.
    fn transferred(&self, transferred: &Transferred<'_>) {
        let _ = transferred;
    }
}

/// Tensors that have come to a device together.
#[derive(Debug, Clone, Copy)]
pub struct Transferred<'a> {
    /// The model that they are of.
    pub model: &'a Model,
    /// The first of them.
    pub first: &'a TensorInfo,
    /// How many there are.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The name of the device.
    pub device: &'a str,
    /// Whether they came from the copy in RAM, and not from a file.
    pub from_ram: bool,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl LoadObserver for Unobserved {}
