//! What patches add to weights that they are not merged into.

use candle_core::{Result, Tensor};

use crate::device::DeviceWeights;
use crate::error::Error;
use crate::patch::{Change, Edit};

/// What a patch adds to a tensor, on the device where the model was granted: `scale` times it.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The patch.
    pub patch: String,
    /// Its strength, times alpha over rank where it is of low rank.
    pub scale: f64,
    /// What is added.
    pub addition: Addition,
}

/// What is added to a tensor. The element types are those of the patch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Addition {
    /// A product of small matrices: up · down, or with a core between them.
    LowRank {
        /// `[rank, in…]`: a linear layer, or a convolution of the layer's own stride and padding.
        down: Tensor,
        /// `[out, rank]`, or a convolution of one point.
        up: Tensor,
        /// `[rank, rank, height, width]`: then this is the convolution, and `down` is of one point.
        core: Option<Tensor>,
    },
    /// A tensor of the same shape.
    Difference(Tensor),
    /// Rows behind those that there are, in this order.
    Rows(Vec<Tensor>),
}

/// How a convolution is made, as in the layer that is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Zeros around the input.
    pub padding: usize,
    /// Steps between outputs.
    pub stride: usize,
    /// Steps between inputs of one output.
    pub dilation: usize,
}

impl Default for Convolution {
    fn default() -> Convolution {
        Convolution {
            padding: 0,
            stride: 1,
            dilation: 1,
        }
    }
}

impl Beside {
    pub(crate) fn new(
        patch: &crate::cache::Beside,
        edit: &Edit,
        scale: f64,
        weights: &dyn DeviceWeights,
    ) -> std::result::Result<Beside, Error> {
        let name = patch.fitted.patch.model().name();
        let tensor = |at: usize| {
            let position = patch.position(at).ok_or_else(|| Error::NoTensor {
                model: name.to_owned(),
                tensor: format!("number {at}"),
            })?;
            weights.tensor(position)
        };
        let addition = match &edit.change {
            Change::LowRank { down, up, mid, .. } => Addition::LowRank {
                down: tensor(*down)?,
                up: tensor(*up)?,
                core: mid.map(tensor).transpose()?,
            },
            Change::Difference { from } => Addition::Difference(tensor(*from)?),
            Change::Rows { from, .. } => {
                let rows = from.iter().map(|at| tensor(*at));
                Addition::Rows(rows.collect::<std::result::Result<_, _>>()?)
            }
        };
        Ok(Beside {
            patch: name.to_owned(),
            scale,
            addition,
        })
    }

    /// What a linear layer of these weights gives besides, for the input `[…, in]`: to be added to
    /// its output. In the input's element type. Rows, which are of embeddings, give an error.
    ///
    /// # Errors
    /// candle's, where shapes do not fit.
    pub fn linear(&self, input: &Tensor) -> Result<Tensor> {
        let dtype = input.dtype();
        let product = match &self.addition {
            Addition::LowRank { down, up, core } => {
                let down = down.flatten_from(1)?.to_dtype(dtype)?;
                let up = up.flatten_from(1)?.to_dtype(dtype)?;
                let mut inner = input.broadcast_matmul(&down.t()?)?;
                if let Some(core) = core {
                    let core = core.flatten_from(1)?.to_dtype(dtype)?;
                    inner = inner.broadcast_matmul(&core.t()?)?;
                }
                inner.broadcast_matmul(&up.t()?)?
            }
            Addition::Difference(tensor) => {
                let tensor = tensor.flatten_from(1)?.to_dtype(dtype)?;
                input.broadcast_matmul(&tensor.t()?)?
            }
            Addition::Rows(_) => {
                candle_core::bail!("rows are added to an embedding, not to a layer")
            }
        };
        product * self.scale
    }

    /// What a two-dimensional convolution of these weights gives besides, for the input
    /// `[batch, in, height, width]`: to be added to its output.
    ///
    /// # Errors
    /// candle's, where shapes do not fit.
    pub fn conv2d(&self, input: &Tensor, how: Convolution) -> Result<Tensor> {
        let dtype = input.dtype();
        let whole = |input: &Tensor, weights: &Tensor| {
            // A linear layer stands for a convolution of one point.
            let weights = match *weights.dims() {
                [rows, columns] => weights.reshape((rows, columns, 1, 1))?,
                _ => weights.clone(),
            };
            let weights = weights.to_dtype(dtype)?;
            input.conv2d(&weights, how.padding, how.stride, how.dilation, 1)
        };
        let point = |input: &Tensor, weights: &Tensor| {
            let (rows, columns) = weights.flatten_from(1)?.dims2()?;
            let weights = weights.reshape((rows, columns, 1, 1))?.to_dtype(dtype)?;
            input.conv2d(&weights, 0, 1, 1, 1)
        };
        let product = match &self.addition {
            Addition::LowRank {
                down,
                up,
                core: None,
            } => point(&whole(input, down)?, up)?,
            Addition::LowRank {
                down,
                up,
                core: Some(core),
            } => point(&whole(&point(input, down)?, core)?, up)?,
            Addition::Difference(tensor) => whole(input, tensor)?,
            Addition::Rows(_) => {
                candle_core::bail!("rows are added to an embedding, not to a layer")
            }
        };
        product * self.scale
    }
}
