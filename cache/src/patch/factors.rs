//! The matrices of one change, and where they come from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;

use super::element::{self, widen};
use super::error::{Broken, Fault, PatchError};
use super::merge_error::MergeError;
use super::{Alpha, Change, Patch};
use crate::model::{Dtype, TensorInfo};

/// The matrices of one change with their bytes, ready to merge.
///
/// Bytes are read from the file by [`read`](Self::read), or given by whoever has them.
#[derive(Debug, Clone)]
pub struct Factors<'a> {
    pub(super) kind: Kind<'a>,
    /// The shape of what is changed; of rows, that of the rows.
    pub(super) shape: Box<[usize]>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind<'a> {
    LowRank {
        down: Matrix<'a>,
        up: Matrix<'a>,
        mid: Option<Matrix<'a>>,
        /// Alpha over rank: finite.
        scale: f64,
    },
    Difference(Matrix<'a>),
    Rows(Vec<Matrix<'a>>),
}

/// Numbers in rows. Invariant: `bytes` has `rows` × `columns` of them.
#[derive(Debug, Clone)]
pub(super) struct Matrix<'a> {
    dtype: Dtype,
    pub(super) rows: usize,
    pub(super) columns: usize,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Matrix<'a> {
    /// The second dimension and all after it are one here.
    fn new(tensor: &TensorInfo, bytes: Cow<'a, [u8]>) -> Matrix<'a> {
        let rows = tensor.shape.first().copied().unwrap_or(1);
        Matrix {
            dtype: tensor.dtype,
            rows,
            columns: columns(&tensor.shape),
            bytes,
        }
    }

    /// Rows as a matrix of one row, if there is only that.
    fn of_rows(tensor: &TensorInfo, bytes: Cow<'a, [u8]>) -> Matrix<'a> {
        let mut matrix = Matrix::new(tensor, bytes);
        if tensor.shape.len() == 1 {
            (matrix.rows, matrix.columns) = (1, matrix.rows);
        }
        matrix
    }

    /// Widens a part of a row.
    pub(super) fn row(&self, row: usize, from: usize, into: &mut [f64]) {
        let width = element::width(self.dtype).unwrap_or(1);
        let from = (row * self.columns + from) * width;
        widen(self.dtype, &self.bytes[from..], into);
    }
}

/// Elements of a row.
pub(super) fn columns(shape: &[usize]) -> usize {
    // There is no row of so many, but there may be no row at all.
    shape.iter().skip(1).copied().fold(1, usize::saturating_mul)
}

/// What is wrong, and with which tensor.
struct Flaw(usize, Fault);

impl Factors<'static> {
    /// Reads the matrices of a change of this patch from its file.
    ///
    /// # Errors
    /// [`PatchError`] if the file is gone or another than was opened, if reading fails, or if alpha is
    /// not finite.
    ///
    /// # Panics
    /// With a change of another patch.
    pub fn read(patch: &Patch, change: &Change) -> Result<Factors<'static>, PatchError> {
        let mut read = HashMap::new();
        for at in change.tensors() {
            read.insert(at, bytes(patch, at)?);
        }
        let factors = assemble(patch, change, |at| {
            Cow::Owned(read.remove(&at).unwrap_or_default())
        });
        factors.map_err(|Flaw(at, fault)| PatchError::Broken {
            path: patch.model().path().into(),
            first: vec![Broken {
                key: patch.info(at).name.clone(),
                fault,
            }],
            count: 1,
        })
    }
}

impl<'a> Factors<'a> {
    /// Takes the matrices of a change of this patch from bytes that somebody has: `bytes` gives those
    /// of a tensor by its index in the patch, and is asked once for each of
    /// [`Change::tensors`].
    ///
    /// # Errors
    /// [`MergeError`] if the bytes are not those of the tensor's shape, or alpha is not finite.
    ///
    /// # Panics
    /// With a change of another patch.
    pub fn of(
        patch: &Patch,
        change: &Change,
        mut bytes: impl FnMut(usize) -> &'a [u8],
    ) -> Result<Factors<'a>, MergeError> {
        let mut given = HashMap::new();
        for at in change.tensors() {
            let (tensor, bytes) = (patch.info(at), bytes(at));
            if bytes.len() as u64 != tensor.bytes {
                return Err(MergeError::Bytes {
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    bytes: bytes.len(),
                    needed: tensor.bytes,
                });
            }
            given.insert(at, bytes);
        }
        let factors = assemble(patch, change, |at| {
            Cow::Borrowed(given.get(&at).copied().unwrap_or_default())
        });
        factors.map_err(|Flaw(_, fault)| MergeError::Fault(fault))
    }

    /// The bytes of its matrices.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let matrices: &mut dyn Iterator<Item = &Matrix<'_>> = match &self.kind {
            Kind::LowRank { down, up, mid, .. } => &mut [down, up].into_iter().chain(mid),
            Kind::Difference(matrix) => &mut std::iter::once(matrix),
            Kind::Rows(matrices) => &mut matrices.iter(),
        };
        matrices.map(|matrix| matrix.bytes.len() as u64).sum()
    }

    /// How a low-rank change is scaled before any strength: alpha over rank. Other changes are not: 1.
    #[must_use]
    pub fn scale(&self) -> f64 {
        match self.kind {
            Kind::LowRank { scale, .. } => scale,
            Kind::Difference(_) | Kind::Rows(_) => 1.0,
        }
    }
}

fn assemble<'a>(
    patch: &Patch,
    change: &Change,
    mut bytes: impl FnMut(usize) -> Cow<'a, [u8]>,
) -> Result<Factors<'a>, Flaw> {
    let info = |at: usize| patch.info(at);
    match change {
        Change::LowRank {
            down,
            up,
            mid,
            scale,
        } => {
            let alpha = match scale.alpha {
                Alpha::Unsaid => None,
                Alpha::Said(alpha) => Some((alpha, *down)),
                Alpha::Tensor(at) => Some((number(info(at), &bytes(at)), at)),
            };
            let factor = scale.factor(alpha.map(|(alpha, _)| alpha));
            if let Some((value, at)) = alpha.filter(|_| !factor.is_finite()) {
                return Err(Flaw(at, Fault::Alpha { value }));
            }
            let (of_down, of_up) = (&info(*down).shape, &info(*up).shape);
            let spatial = mid.map_or(&of_down[2..], |mid| &info(mid).shape[2..]);
            Ok(Factors {
                shape: [&[of_up[0], of_down[1]], spatial].concat().into(),
                kind: Kind::LowRank {
                    down: Matrix::new(info(*down), bytes(*down)),
                    up: Matrix::new(info(*up), bytes(*up)),
                    mid: mid.map(|mid| Matrix::new(info(mid), bytes(mid))),
                    scale: factor,
                },
            })
        }
        Change::Difference { from } => Ok(Factors {
            shape: info(*from).shape.clone(),
            kind: Kind::Difference(Matrix::new(info(*from), bytes(*from))),
        }),
        Change::Rows { from, rows } => {
            let all = from.iter().map(|&at| Matrix::of_rows(info(at), bytes(at)));
            let all: Vec<_> = all.collect();
            let width = all.first().map_or(0, |matrix| matrix.columns);
            Ok(Factors {
                shape: [*rows, width].into(),
                kind: Kind::Rows(all),
            })
        }
    }
}

/// The one number of a tensor.
pub(super) fn number(tensor: &TensorInfo, bytes: &[u8]) -> f64 {
    match (tensor.dtype, bytes) {
        (Dtype::I64, &[a, b, c, d, e, f, g, h]) => {
            i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64
        }
        (Dtype::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).into(),
        (dtype, bytes) => {
            let mut one = [f64::NAN];
            widen(dtype, bytes, &mut one);
            one[0]
        }
    }
}

/// Reads a tensor from the patch file.
pub(super) fn bytes(patch: &Patch, at: usize) -> Result<Vec<u8>, PatchError> {
    let tensor = patch.info(at);
    let index = tensor.file as usize;
    let file = patch.model().reopen_file(index)?;
    let path = || patch.model().files()[index].path.clone();
    let memory = || PatchError::Memory {
        path: path(),
        tensor: tensor.name.clone(),
        bytes: tensor.bytes,
    };
    let wanted = usize::try_from(tensor.bytes).map_err(|_| memory())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(wanted).map_err(|_| memory())?;
    bytes.resize(wanted, 0);
    let read = file.read_exact_at(&mut bytes, tensor.offset);
    read.map_err(|source| PatchError::Read {
        path: path(),
        tensor: tensor.name.clone(),
        bytes: tensor.bytes,
        offset: tensor.offset,
        source,
    })?;
    Ok(bytes)
}
