//! What makes a device's memory into tensors.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};

use candle_core::Tensor;
use candle_core::quantized::QTensor;

use crate::driver::RawStream;
use crate::model::{Dtype, TensorInfo};

/// A tensor library on a CUDA device: candle's own, with the feature `cuda`.
///
/// The cache takes memory and fills it; a library makes tensors of it, and frees it when the last of
/// them has gone.
///
/// # Safety
/// The driver is given what this answers. [`stream`](Self::stream) is a stream of the device's primary
/// context for as long as this lives, and what [`take`](Self::take) and
/// [`make_quantised`](Self::make_quantised) give keeps the promises of [`Block`].
pub unsafe trait Tensors: fmt::Debug + Send + Sync {
    /// The stream on which its tensors are used and freed.
    fn stream(&self) -> RawStream;

    /// Whether elements of this type can be tensors of it.
    fn has(&self, dtype: Dtype) -> bool;

    /// Takes memory over that holds so many elements of this type, one after the other.
    ///
    /// # Errors
    /// The library's words. The memory is the caller's again.
    ///
    /// # Safety
    /// `address` is memory of at least that size, taken from a pool on this device and used by
    /// nobody else, now or later.
    unsafe fn take(&self, address: u64, elements: Elements) -> Result<Box<dyn Block>, String>;

    /// Makes memory of its own for a quantised tensor; `None` where it has no such tensors. What it
    /// does for that is done in the order of its stream.
    ///
    /// # Errors
    /// The library's words.
    fn make_quantised(&self, tensor: &TensorInfo) -> Option<Result<Box<dyn Block>, String>> {
        let _ = tensor;
        None
    }

    /// Itself, for whoever knows which library it is.
    fn as_any(&self) -> &dyn Any;

    /// What a quantised tensor takes of it, bytes.
    fn quantised_bytes(&self, tensor: &TensorInfo) -> Option<u64> {
        let _ = tensor;
        None
    }
}

/// What memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elements {
    /// Their type.
    pub dtype: Dtype,
    /// How many.
    pub count: usize,
    /// What they take; of types below a byte, fewer than there are elements.
    pub bytes: usize,
}

/// Memory that a tensor library owns. When it is dropped, and no tensor over it is left, the memory
/// is freed in the order of the library's stream.
///
/// # Safety
/// [`address`](Self::address) is memory of the device for all the bytes of what it was made for, as
/// long as this lives; [`life`](Self::life) does not end before the memory is freed; and that is done
/// once, on the library's stream, after all that its tensors were used for there.
pub unsafe trait Block: fmt::Debug + Send + Sync {
    /// Where it is.
    fn address(&self) -> u64;

    /// A tensor over the elements from `first` on.
    ///
    /// # Errors
    /// The library's words.
    fn tensor(&self, first: usize, tensor: &TensorInfo) -> Result<Tensor, String>;

    /// The quantised tensor that it is.
    fn quantised(&self, tensor: &TensorInfo) -> Result<Option<Arc<QTensor>>, String> {
        let _ = tensor;
        Ok(None)
    }

    /// Something that lives exactly as long as the memory does.
    fn life(&self) -> Weak<dyn Any + Send + Sync>;
}
