//! Why weights cannot be merged.

use thiserror::Error;

use super::Fault;
use crate::model::Dtype;

/// Why weights cannot be merged.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A strength is no number.
    #[error("the strength {strength} is not finite; give a number such as 0.8")]
    Strength {
        /// What was asked for.
        strength: f64,
    },

    /// Strength, alpha and rank together leave the range of numbers.
    #[error(
        "strength {strength} times the patch's own scale {scale} is beyond any number; give a smaller strength"
    )]
    Scale {
        /// What was asked for.
        strength: f64,
        /// Alpha over rank.
        scale: f64,
    },

    /// Only plain floating-point weights can be changed.
    #[error("weights of type {dtype} cannot be merged with; take the patch beside them instead")]
    Base {
        /// Their type.
        dtype: Dtype,
    },

    /// The bytes of the base or of a factor are not those of its shape.
    #[error("a tensor of {dtype} {shape:?} has {bytes} bytes instead of {needed}")]
    Bytes {
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Box<[usize]>,
        /// What was given.
        bytes: usize,
        /// What it takes.
        needed: u64,
    },

    /// The change has another shape than what it is to change.
    #[error(
        "a change of shape {change:?} does not fit a tensor of shape {base:?}; fit the patch to this model first"
    )]
    Shape {
        /// Of the change.
        change: Box<[usize]>,
        /// Of the base.
        base: Box<[usize]>,
    },

    /// A part of the patch is broken.
    #[error("a part of the patch {0}; have it made anew")]
    Fault(#[from] Fault),

    /// There is no memory for the result, or to work in.
    #[error(
        "no memory for {bytes} bytes to merge a tensor; take the patch beside the weights, or free some"
    )]
    Memory {
        /// How many bytes.
        bytes: u64,
    },

    /// No memory holds such a tensor.
    #[error("a tensor of {dtype} {shape:?} is larger than any memory; see what made its shape")]
    Size {
        /// Its type.
        dtype: Dtype,
        /// Its shape.
        shape: Box<[usize]>,
    },

    /// A stretch does not begin and end where elements do.
    #[error(
        "{bytes} bytes from byte {start} on are no whole elements of {width} bytes; cut between elements"
    )]
    Cut {
        /// Where it begins in the result.
        start: u64,
        /// How long it is.
        bytes: u64,
        /// Bytes of an element.
        width: usize,
    },

    /// A stretch ends behind the result.
    #[error(
        "{bytes} bytes from byte {start} on reach beyond the merged tensor, which has {end}; ask for what lies within"
    )]
    Beyond {
        /// Where it begins in the result.
        start: u64,
        /// How long it is.
        bytes: u64,
        /// Bytes of the result.
        end: u64,
    },
}
