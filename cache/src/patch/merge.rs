//! New weights of old ones and changes.
//!
//! W′ = round(W + Σ s·(alpha / rank)·B·A), for every change of the tensor at once: one rounding, to the
//! base's type, ties to even. Products and sums are in double precision, which widens F16, BF16 and F32
//! without loss, so that the result is that of a reference in double precision: it differs from the
//! exact value by half a unit in the last place and at most (ranks + changes + 2) · 2⁻⁵³ of the sum
//! of the absolute values of what is added. Single precision would be about twice as fast, and would
//! round twice.
//!
//! Work goes tile by tile, with at most 6 MiB besides base, factors and result.

use candle_core::{Device, Tensor};

use super::element::{self, narrow, widen};
use super::factors::{Factors, Kind, Matrix, columns};
use super::merge_error::MergeError;
use super::places::is_same;
use crate::model::Dtype;

/// Columns of a tile.
const TILE_COLUMNS: usize = 512;
/// Elements of a tile: 512 KiB widened.
const TILE: usize = 1 << 16;
/// Rows of a tile, however narrow it is.
const MOST_ROWS: usize = 1024;
/// Of long sums, so much at once.
const DEPTH: usize = 128;

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

/// A change that is made.
struct Live<'a> {
    kind: &'a Kind<'a>,
    /// Strength and scale in one.
    by: f64,
}

/// What there is to do, once it is seen to fit.
struct Plan<'a> {
    rows: usize,
    columns: usize,
    shape: Vec<usize>,
    live: Vec<Live<'a>>,
}

/// Merges all changes of one tensor into a copy of it. Without any that is not 0, bit for bit the
/// base.
///
/// # Errors
/// [`MergeError`] if a strength is not finite, the base is of a type that cannot be merged with, shapes
/// or bytes do not fit, or there is no memory.
pub fn merged(base: Base<'_>, terms: &[Term<'_>]) -> Result<Merged, MergeError> {
    let plan = Plan::of(base, terms)?;
    let wanted = plan.bytes(base);
    let mut bytes = Vec::new();
    let memory = |_| MergeError::Memory { bytes: wanted };
    bytes.try_reserve_exact(wanted as usize).map_err(memory)?;
    bytes.resize(wanted as usize, 0);
    let non_finite = plan.run(base, &mut bytes)?;
    Ok(Merged {
        shape: plan.shape,
        bytes,
        non_finite,
    })
}

/// The same into memory that somebody has, of exactly the bytes that [`merged_shape`] takes. Gives
/// [`Merged::non_finite`].
///
/// # Errors
/// As [`merged`], and if `into` is of another size. It may be written to in part then.
pub fn merge_into(base: Base<'_>, terms: &[Term<'_>], into: &mut [u8]) -> Result<u64, MergeError> {
    let plan = Plan::of(base, terms)?;
    let needed = plan.bytes(base);
    if into.len() as u64 != needed {
        return Err(MergeError::Bytes {
            dtype: base.dtype,
            shape: plan.shape.into(),
            bytes: into.len(),
            needed,
        });
    }
    plan.run(base, into)
}

/// The shape that a tensor has after a merge: rows of all terms are appended in their order.
///
/// # Errors
/// As [`merged`], but for memory.
pub fn merged_shape(base: Base<'_>, terms: &[Term<'_>]) -> Result<Vec<usize>, MergeError> {
    Plan::of(base, terms).map(|plan| plan.shape)
}

impl<'a> Plan<'a> {
    fn of(base: Base<'_>, terms: &[Term<'a>]) -> Result<Plan<'a>, MergeError> {
        let width = match base.dtype {
            Dtype::F16 | Dtype::BF16 | Dtype::F32 => element::width(base.dtype),
            _ => None,
        };
        let Some(width) = width else {
            return Err(MergeError::Base { dtype: base.dtype });
        };
        let size = |shape: &[usize]| {
            let size = shape
                .iter()
                .try_fold(width, |size, &next| size.checked_mul(next));
            size.filter(|size| *size <= isize::MAX as usize)
        };
        if size(base.shape) != Some(base.bytes.len()) {
            return Err(MergeError::Bytes {
                dtype: base.dtype,
                shape: base.shape.into(),
                bytes: base.bytes.len(),
                needed: size(base.shape).map_or(u64::MAX, |size| size as u64),
            });
        }
        let mut shape = base.shape.to_vec();
        let mut live = Vec::new();
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
                base: base.shape.into(),
            };
            let is_rows = matches!(factors.kind, Kind::Rows(_));
            let fits = match (is_rows, base.shape) {
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
            if is_rows {
                shape[0] = shape[0].checked_add(factors.shape[0]).ok_or_else(misfit)?;
                size(&shape).ok_or_else(misfit)?;
            }
            live.push(Live {
                kind: &factors.kind,
                by,
            });
        }
        Ok(Plan {
            rows: base.shape.first().copied().unwrap_or(1),
            columns: columns(base.shape),
            shape,
            live,
        })
    }

    fn bytes(&self, base: Base<'_>) -> u64 {
        let width = element::width(base.dtype).unwrap_or(0);
        (self.shape.iter().product::<usize>() * width) as u64
    }

    fn run(&self, base: Base<'_>, into: &mut [u8]) -> Result<u64, MergeError> {
        let (old, appended) = into.split_at_mut(base.bytes.len());
        let appended = self.append(base.dtype, appended);
        let is_rows = |live: &Live<'_>| matches!(live.kind, Kind::Rows(_));
        if self.live.iter().all(is_rows) {
            old.copy_from_slice(base.bytes);
            return Ok(appended);
        }
        Ok(appended + self.change(base, old)?)
    }

    /// Writes rows behind those that there are.
    fn append(&self, dtype: Dtype, mut into: &mut [u8]) -> u64 {
        let width = element::width(dtype).unwrap_or(1);
        let mut numbers = vec![0.0; TILE_COLUMNS];
        let mut non_finite = 0;
        for Live { kind, by } in &self.live {
            let Kind::Rows(matrices) = kind else {
                continue;
            };
            for matrix in matrices {
                for (row, from, wide) in pieces(matrix) {
                    let numbers = &mut numbers[..wide];
                    matrix.row(row, from, numbers);
                    numbers.iter_mut().for_each(|number| *number *= by);
                    let (piece, rest) = into.split_at_mut(wide * width);
                    non_finite += narrow(dtype, numbers, piece);
                    into = rest;
                }
            }
        }
        non_finite
    }

    /// Changes tile after tile.
    fn change(&self, base: Base<'_>, into: &mut [u8]) -> Result<u64, MergeError> {
        let width = element::width(base.dtype).unwrap_or(1);
        let wide = self.columns.clamp(1, TILE_COLUMNS);
        let high = (TILE / wide).clamp(1, MOST_ROWS);
        let mut numbers = Vec::new();
        let mut non_finite = 0;
        for column in (0..self.columns).step_by(wide) {
            for row in (0..self.rows).step_by(high) {
                let tile = Tile {
                    row,
                    rows: high.min(self.rows - row),
                    column,
                    columns: wide.min(self.columns - column),
                };
                let place = |at: usize| {
                    let start = ((row + at) * self.columns + column) * width;
                    start..start + tile.columns * width
                };
                numbers.clear();
                numbers.resize(tile.rows * tile.columns, 0.0);
                for (at, numbers) in numbers.chunks_mut(tile.columns).enumerate() {
                    widen(base.dtype, &base.bytes[place(at)], numbers);
                }
                let before = numbers.iter().filter(|number| !number.is_finite()).count();
                for live in &self.live {
                    tile.add(live, &mut numbers)?;
                }
                let mut after = 0;
                for (at, numbers) in numbers.chunks(tile.columns).enumerate() {
                    after += narrow(base.dtype, numbers, &mut into[place(at)]);
                }
                non_finite += after.saturating_sub(before as u64);
            }
        }
        Ok(non_finite)
    }
}

/// The rows of a matrix in pieces: the row, where they begin, how long they are.
fn pieces(matrix: &Matrix<'_>) -> impl Iterator<Item = (usize, usize, usize)> {
    let columns = matrix.columns;
    (0..matrix.rows).flat_map(move |row| {
        let starts = (0..columns).step_by(TILE_COLUMNS);
        starts.map(move |from| (row, from, TILE_COLUMNS.min(columns - from)))
    })
}

/// A part of the weights.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}

impl Tile {
    fn add(self, live: &Live<'_>, numbers: &mut [f64]) -> Result<(), MergeError> {
        match live.kind {
            Kind::LowRank { down, up, mid, .. } => {
                for from in (0..up.columns).step_by(DEPTH) {
                    let depth = DEPTH.min(up.columns - from);
                    let first = match mid {
                        None => self.of_down(down, from, depth),
                        Some(mid) => self.of_core(mid, down, from, depth),
                    };
                    let mut second = vec![0.0; self.rows * depth];
                    for (at, numbers) in second.chunks_mut(depth).enumerate() {
                        up.row(self.row + at, from, numbers);
                    }
                    let product = self.product(second, first, depth);
                    let product = product.map_err(|error| MergeError::Product {
                        reason: error.to_string(),
                    })?;
                    for (number, product) in numbers.iter_mut().zip(product) {
                        *number += live.by * product;
                    }
                }
            }
            Kind::Difference(matrix) => {
                let mut change = vec![0.0; self.columns];
                for (at, numbers) in numbers.chunks_mut(self.columns).enumerate() {
                    matrix.row(self.row + at, self.column, &mut change);
                    for (number, change) in numbers.iter_mut().zip(&change) {
                        *number += live.by * change;
                    }
                }
            }
            Kind::Rows(_) => {}
        }
        Ok(())
    }

    /// Rows of the factor that takes the input.
    fn of_down(self, down: &Matrix<'_>, from: usize, depth: usize) -> Vec<f64> {
        let mut numbers = vec![0.0; depth * self.columns];
        for (at, numbers) in numbers.chunks_mut(self.columns).enumerate() {
            down.row(from + at, self.column, numbers);
        }
        numbers
    }

    /// Rows of a core times that factor: Σ mid[p, q, k] · down[q, i] at column (i, k), as
    /// `lycoris/functional/general.py` has it (`rebuild_tucker`).
    fn of_core(self, mid: &Matrix<'_>, down: &Matrix<'_>, from: usize, depth: usize) -> Vec<f64> {
        let rank = down.rows;
        let points = mid.columns / rank;
        let inputs = self.column / points..(self.column + self.columns).div_ceil(points);
        let mut numbers = vec![0.0; depth * self.columns];
        let mut core = vec![0.0; points];
        let mut input = vec![0.0; inputs.len()];
        for q in 0..rank {
            down.row(q, inputs.start, &mut input);
            for (p, numbers) in numbers.chunks_mut(self.columns).enumerate() {
                mid.row(from + p, q * points, &mut core);
                for (at, number) in numbers.iter_mut().enumerate() {
                    let column = self.column + at;
                    *number += core[column % points] * input[column / points - inputs.start];
                }
            }
        }
        numbers
    }

    fn product(
        self,
        second: Vec<f64>,
        first: Vec<f64>,
        depth: usize,
    ) -> candle_core::Result<Vec<f64>> {
        let second = Tensor::from_vec(second, (self.rows, depth), &Device::Cpu)?;
        let first = Tensor::from_vec(first, (depth, self.columns), &Device::Cpu)?;
        second.matmul(&first)?.flatten_all()?.to_vec1()
    }
}
