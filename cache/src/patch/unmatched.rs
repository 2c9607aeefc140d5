//! Parts of a patch that fit nothing.

use std::fmt;

use crate::model::escape;

/// A part of a patch that a model has no place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// One of its tensors in the patch file.
    pub key: Box<str>,
    /// Why it fits nothing.
    pub why: Why,
    /// What it would have needed; safe to print.
    pub needed: String,
}

/// Why a part fits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The name is none of a patch.
    NotOfAPatch,
    /// The model has no such tensor. Projections that the model keeps fused (Flux' `qkv`) and the
    /// patch apart are among these.
    NoTarget,
    /// Several tensors of the model would be meant.
    Several,
    /// The tensor has another shape.
    Shape {
        /// The tensor of the model.
        target: Box<str>,
        /// Its shape.
        has: Box<[usize]>,
    },
    /// The model keeps that weight transposed, as GPT-2's `Conv1D` does.
    Transposed {
        /// The tensor of the model.
        target: Box<str>,
    },
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unmatched { key, why, needed } = self;
        write!(f, "`{}` ", escape(key))?;
        match why {
            Why::NotOfAPatch => f.write_str("is no part of a patch")?,
            Why::NoTarget => f.write_str("has no target")?,
            Why::Several => f.write_str("has several possible targets")?,
            Why::Shape { target, has } => {
                write!(f, "does not fit `{}` of shape {has:?}", escape(target))?;
            }
            Why::Transposed { target } => {
                write!(
                    f,
                    "does not fit `{}`, which is kept transposed",
                    escape(target)
                )?;
            }
        }
        write!(f, ", and needs {needed}")
    }
}
