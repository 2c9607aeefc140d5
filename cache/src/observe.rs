//! Watching a load from inside.

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

    /// So many bytes have come from the file.
    fn bytes_read(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl LoadObserver for Unobserved {}
