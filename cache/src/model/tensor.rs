//! One tensor of a model: what it is, and where its bytes lie.

use super::dtype::Dtype;

/// A named tensor and where it lies in its file.
///
/// Invariant, kept by the parsers: `bytes` is exactly what `shape` × `dtype` takes, and
/// `offset + bytes` lies within the file as it was when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, as the file gives it: any text at all, so print it through
    /// [`escape`](super::escape()).
    pub name: Box<str>,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, slowest first; empty for a scalar. A dimension may be 0.
    pub shape: Box<[usize]>,
    /// Which of the model's files holds it: an index into [`Model::files`](super::Model::files).
    pub file: u32,
    /// Where its bytes begin, counted from the start of the file.
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
    /// The tensor before it in [`Model::tensors`](super::Model::tensors) that lies in the very same
    /// bytes: both are one in memory, and count once.
    pub tied_to: Option<u32>,
}

impl TensorInfo {
    /// The largest power of two that divides [`offset`](Self::offset): the alignment its bytes have
    /// in a mapping of the file, up to the page size.
    pub fn alignment(&self) -> u64 {
        // A tensor is never at offset 0, where the header's length is.
        1 << self.offset.trailing_zeros().min(63)
    }

    /// Whether its bytes can be used in place, at the alignment its element type needs. A tensor
    /// without bytes always can.
    pub fn is_aligned(&self) -> bool {
        self.bytes == 0 || self.alignment() >= self.dtype.alignment()
    }

    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &dimension| {
            product.saturating_mul(dimension as u64)
        })
    }
}

/// How many bytes `shape` elements of `dtype`, a type of numbers, take.
///
/// # Errors
/// [`SizeFault`] where the product leaves 64 bits or does not end at a whole byte. The order of the
/// checks is that of safetensors 0.8 (`Metadata::validate`), so that both refuse the same files.
pub(super) fn packed_bytes(dtype: Dtype, shape: &[usize]) -> Result<u64, SizeFault> {
    let bits = shape
        .iter()
        .try_fold(1_usize, |product, &dimension| {
            product.checked_mul(dimension)
        })
        .and_then(|elements| elements.checked_mul(dtype.bitsize()))
        .ok_or(SizeFault::Overflow)?;
    if bits % 8 != 0 {
        return Err(SizeFault::PartOfByte { bits: bits as u64 });
    }
    Ok(bits as u64 / 8)
}

/// Why a shape and an element type have no size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeFault {
    /// The number of bits does not fit into 64 bits.
    Overflow,
    /// The number of bits is no multiple of 8.
    PartOfByte {
        /// How many bits.
        bits: u64,
    },
}
