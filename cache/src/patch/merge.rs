//! New weights of old ones and changes.
//!
//! W′ = round(W + Σ s·(alpha / rank)·B·A), for every change of the tensor at once: one rounding, to the
//! base's type, ties to even. Products and sums are in double precision, which widens F16, BF16 and F32
//! without loss, so that the result is that of a reference in double precision: it differs from the
//! exact value by half a unit in the last place and at most (ranks + changes + 4) · 2⁻⁵³ of the sum
//! of the absolute values of what is added; the rank of a change with a core counts twice. Single
//! precision would be at most twice as fast, and would round twice.
//!
//! Weights are made stretch by stretch, each by itself. How they are cut, and what registers the
//! processor has, change no bit of them: every element is the same sum in the same order. Work on a
//! stretch goes tile by tile, with at most 6 MiB besides the factors and the stretch.

mod product;
mod steps;
mod stretch;

use super::element::{self, narrow};
use super::factors::{Factors, Kind, Matrix, columns};
use super::merge_error::MergeError;
use super::places::is_same;
use crate::model::Dtype;
use steps::Step;
use stretch::Stretch;

/// Numbers that are appended at once.
const PIECE: usize = 512;

/// The weights that are changed: they are read only.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// F16, BF16 or F32.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its numbers, little-endian.
    pub bytes: &'a [u8],
}

/// A change and how strongly it is made.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    /// The change.
    pub factors: &'a Factors<'a>,
    /// 1 is as it was trained; any finite number. 0 leaves the change out, rows included.
    pub strength: f64,
}

/// Weights after a merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Their dimensions.
    pub shape: Vec<usize>,
    /// Their numbers, little-endian, of the base's type.
    pub bytes: Vec<u8>,
    /// How many numbers are infinite or none that were finite before: the change is too large for the
    /// type, or has such numbers itself.
    pub non_finite: u64,
}

/// All changes of one tensor, seen to fit, ready to be made stretch by stretch, by several threads at
/// once if need be.
pub struct Merge<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Of the base: as many as it has columns, or all of them if its rows mean nothing.
    columns: usize,
    base_bytes: usize,
    bytes: usize,
    steps: Vec<Step<'a>>,
    /// Rows behind the base, and by what they are multiplied.
    appended: Vec<(&'a Matrix<'a>, f64)>,
}

/// Merges all changes of one tensor into a copy of it. Without any that is not 0, bit for bit the
/// base.
///
/// # Errors
/// [`MergeError`] if a strength is not finite, the base is of a type that cannot be merged with, shapes
/// or bytes do not fit, or there is no memory.
pub fn merged(base: Base<'_>, terms: &[Term<'_>]) -> Result<Merged, MergeError> {
    let merge = Merge::new(base.dtype, base.shape, terms)?;
    if base.bytes.len() != merge.base_bytes {
        return Err(MergeError::Bytes {
            dtype: base.dtype,
            shape: base.shape.into(),
            bytes: base.bytes.len(),
            needed: merge.base_bytes(),
        });
    }
    let mut bytes = Vec::new();
    let memory = |_| MergeError::Memory {
        bytes: merge.bytes(),
    };
    bytes.try_reserve_exact(merge.bytes).map_err(memory)?;
    bytes.extend(base.bytes);
    bytes.resize(merge.bytes, 0);
    let non_finite = merge.run(0, &mut bytes)?;
    Ok(Merged {
        shape: merge.shape,
        bytes,
        non_finite,
    })
}

impl<'a> Merge<'a> {
    /// Sees that all of them fit a tensor. They are made in their order, and rows are appended in it.
    ///
    /// # Errors
    /// [`MergeError`] if a strength is not finite, the tensor is of a type that cannot be merged with,
    /// or shapes do not fit.
    pub fn new(dtype: Dtype, shape: &[usize], terms: &[Term<'a>]) -> Result<Merge<'a>, MergeError> {
        let width = match dtype {
            Dtype::F16 | Dtype::BF16 | Dtype::F32 => element::width(dtype),
            _ => None,
        };
        let width = width.ok_or(MergeError::Base { dtype })?;
        let size = |shape: &[usize]| {
            let size = match shape.contains(&0) {
                true => Some(0),
                false => shape
                    .iter()
                    .try_fold(width, |size, &next| size.checked_mul(next)),
            };
            let size = size.filter(|size| *size <= isize::MAX as usize);
            size.ok_or_else(|| MergeError::Size {
                dtype,
                shape: shape.into(),
            })
        };
        let base_bytes = size(shape)?;
        let mut merge = Merge {
            dtype,
            shape: shape.to_vec(),
            columns: columns(shape),
            base_bytes,
            bytes: base_bytes,
            steps: Vec::new(),
            appended: Vec::new(),
        };
        for Term { factors, strength } in terms {
            let (strength, scale) = (*strength, factors.scale());
            if !strength.is_finite() {
                return Err(MergeError::Strength { strength });
            }
            let by = strength * scale;
            if !by.is_finite() {
                return Err(MergeError::Scale { strength, scale });
            }
            let misfit = || MergeError::Shape {
                change: factors.shape.clone(),
                base: shape.into(),
            };
            let is_rows = matches!(factors.kind, Kind::Rows(_));
            let fits = match (is_rows, shape) {
                (true, [_, width]) => factors.shape[1] == *width,
                (true, _) => false,
                (false, shape) => is_same(&factors.shape, shape),
            };
            if !fits {
                return Err(misfit());
            }
            if by == 0.0 {
                continue;
            }
            if let Kind::Rows(matrices) = &factors.kind {
                let rows = merge.shape[0].checked_add(factors.shape[0]);
                merge.shape[0] = rows.ok_or_else(misfit)?;
                merge.bytes = size(&merge.shape)?;
                let matrices = matrices.iter().map(|matrix| (matrix, by));
                merge.appended.extend(matrices);
            }
            merge.steps.extend(steps::steps(&factors.kind, by));
        }
        if merge.steps.iter().all(|step| step.depth() == 0) {
            merge.columns = base_bytes / width;
        }
        Ok(merge)
    }

    /// The dimensions of the result: those of the base with all rows that are appended.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Bytes of the result.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Bytes of the base. So much of the result is its numbers, changed; all behind is rows that are
    /// appended.
    #[must_use]
    pub fn base_bytes(&self) -> u64 {
        self.base_bytes as u64
    }

    /// Whether the result is the base, bit for bit: there are no changes, or all strengths are 0.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.steps.is_empty() && self.appended.is_empty()
    }

    /// Makes a stretch of the result, which begins so many bytes into it. `stretch` holds the base's
    /// bytes, as far as it has any there, and then the result's. Gives how many numbers became
    /// infinite, or none, that were finite ([`Merged::non_finite`]).
    ///
    /// Every call prepares the factors anew, which takes as long as a few dozen rows: a few MiB at once
    /// are better than less.
    ///
    /// # Errors
    /// [`MergeError`] if it begins or ends within an element or ends behind the result: then it is as
    /// it was; or if there is no memory for a few MiB: then a part of it may be changed.
    pub fn run(&self, start: u64, stretch: &mut [u8]) -> Result<u64, MergeError> {
        let width = element::width(self.dtype).unwrap_or(1);
        let bytes = stretch.len() as u64;
        if !start.is_multiple_of(width as u64) || !stretch.len().is_multiple_of(width) {
            return Err(MergeError::Cut {
                start,
                bytes,
                width,
            });
        }
        if start
            .checked_add(bytes)
            .is_none_or(|end| end > self.bytes())
        {
            return Err(MergeError::Beyond {
                start,
                bytes,
                end: self.bytes(),
            });
        }
        let start = start as usize;
        let old = self.base_bytes.saturating_sub(start).min(stretch.len());
        let (old, appended) = stretch.split_at_mut(old);
        let skipped = start.saturating_sub(self.base_bytes) / width;
        let stretch = Stretch {
            dtype: self.dtype,
            columns: self.columns,
            from: start / width,
            bytes: old,
        };
        Ok(stretch.change(&self.steps)? + self.append(skipped, appended))
    }

    /// Writes appended rows, but for so many elements of them.
    fn append(&self, mut skipped: usize, mut into: &mut [u8]) -> u64 {
        let width = element::width(self.dtype).unwrap_or(1);
        let mut numbers = [0.0; PIECE];
        let mut non_finite = 0;
        for (matrix, by) in &self.appended {
            let elements = matrix.rows * matrix.columns;
            let mut from = skipped.min(elements);
            skipped -= from;
            while from < elements && !into.is_empty() {
                let count = PIECE.min(elements - from).min(into.len() / width);
                let numbers = &mut numbers[..count];
                matrix.row(0, from, numbers);
                numbers.iter_mut().for_each(|number| *number *= by);
                let (piece, rest) = into.split_at_mut(count * width);
                non_finite += narrow(self.dtype, numbers, piece);
                (into, from) = (rest, from + count);
            }
        }
        non_finite
    }
}
