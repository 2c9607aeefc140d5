//! A model in a few numbers.

use std::fmt;

use super::dtype::Dtype;
use super::tensor::TensorInfo;

/// What a model is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Tensors and bytes of each element type, most bytes first.
    pub dtypes: Vec<DtypeShare>,
    /// How many tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bytes of the largest tensor: what a loader must at least stage.
    pub largest: u64,
    /// The largest power of two that divides the file offset of every tensor with bytes, and so
    /// the alignment they all share in a mapping; 8 for most public models. `None` if no tensor
    /// has bytes.
    pub alignment: Option<u64>,
    /// Tensors that cannot be used in place, because their offset is not a multiple of their
    /// element's alignment.
    pub misaligned: usize,
    /// Tensors that lie in a shard but are not named by the index, and are therefore not part of
    /// the model.
    pub unmapped: usize,
}

/// How much of a model is of one element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtypeShare {
    /// The element type.
    pub dtype: Dtype,
    /// How many tensors are of it.
    pub tensors: usize,
    /// How many bytes they take.
    pub bytes: u64,
}

impl Summary {
    pub(super) fn of(tensors: &[TensorInfo], unmapped: usize) -> Self {
        let mut dtypes: Vec<DtypeShare> = Vec::new();
        for tensor in tensors {
            let at = dtypes.iter().position(|share| share.dtype == tensor.dtype);
            let at = at.unwrap_or_else(|| {
                dtypes.push(DtypeShare {
                    dtype: tensor.dtype,
                    tensors: 0,
                    bytes: 0,
                });
                dtypes.len() - 1
            });
            dtypes[at].tensors += 1;
            if tensor.tied_to.is_none() {
                dtypes[at].bytes = dtypes[at].bytes.saturating_add(tensor.bytes);
            }
        }
        dtypes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.dtype.cmp(&b.dtype)));
        let with_bytes = || tensors.iter().filter(|tensor| tensor.bytes > 0);
        Self {
            dtypes,
            tensors: tensors.len(),
            bytes: total_bytes(tensors),
            largest: tensors.iter().map(|tensor| tensor.bytes).max().unwrap_or(0),
            alignment: with_bytes().map(TensorInfo::alignment).min(),
            misaligned: with_bytes().filter(|tensor| !tensor.is_aligned()).count(),
            unmapped,
        }
    }

    /// The element types as a short text: `F16`, or `F16 97% F32 3%` in shares of bytes.
    pub fn dtype_mix(&self) -> impl fmt::Display + '_ {
        DtypeMix(self)
    }
}

/// The bytes of all tensors. Sparse files can claim more than 64 bits hold: then it saturates.
pub(super) fn total_bytes(tensors: &[TensorInfo]) -> u64 {
    tensors
        .iter()
        .filter(|tensor| tensor.tied_to.is_none())
        .fold(0, |sum: u64, tensor| sum.saturating_add(tensor.bytes))
}

struct DtypeMix<'a>(&'a Summary);

impl fmt::Display for DtypeMix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.dtypes[..] {
            return write!(f, "{}", only.dtype);
        }
        for (position, share) in self.0.dtypes.iter().enumerate() {
            let space = if position == 0 { "" } else { " " };
            let percent = 100.0 * share.bytes as f64 / (self.0.bytes.max(1)) as f64;
            // A share too small to round up is still there.
            match percent {
                p if p > 0.0 && p < 1.0 => write!(f, "{space}{} <1%", share.dtype)?,
                p if p > 99.0 && p < 100.0 => write!(f, "{space}{} >99%", share.dtype)?,
                p => write!(f, "{space}{} {p:.0}%", share.dtype)?,
            }
        }
        Ok(())
    }
}
