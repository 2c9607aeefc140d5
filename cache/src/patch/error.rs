//! Why a patch cannot be used. Names that come from files are printed escaped.

use std::fmt;
use std::path::Path;

use thiserror::Error;

use super::Component;
use super::keys::Unsupported;
use super::unmatched::Unmatched;
use crate::model::{Dtype, OpenError, escape, escape_path};

/// How many of several are named.
pub(super) const MOST_NAMED: usize = 8;

/// Why a file cannot be used as a patch.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The file cannot be opened, or is no longer what was opened.
    #[error(transparent)]
    Open(#[from] OpenError),

    /// Nothing in it changes another model.
    #[error(
        "{}: none of its {tensors} tensors is part of a patch, as `{}` is not; name a LoRA or an embedding, and lease a whole model by itself",
        escape_path(path),
        escape(first)
    )]
    NotAPatch {
        /// The file.
        path: Box<Path>,
        /// How many tensors it has.
        tensors: usize,
        /// The first of them.
        first: Box<str>,
    },

    /// A kind of patch that is known, and not applied.
    #[error(
        "{}: is {} ({keys} of its tensors, the first `{}`), which is not applied; merge it into its base with the program it was made with, and load the result",
        escape_path(path), kind.name(), escape(first)
    )]
    Unsupported {
        /// The file.
        path: Box<Path>,
        /// Which kind.
        kind: Unsupported,
        /// How many of its tensors say so.
        keys: usize,
        /// The first of these.
        first: Box<str>,
    },

    /// Parts of it contradict themselves.
    #[error(
        "{}: {count} of its parts are broken: {}; download it again, or have it made anew",
        escape_path(path),
        Listed(first, *count)
    )]
    Broken {
        /// The file.
        path: Box<Path>,
        /// The first of them.
        first: Vec<Broken>,
        /// How many there are.
        count: usize,
    },

    /// The bytes of a tensor could not be read.
    #[error(
        "{}: cannot read tensor `{}` ({bytes} bytes at {offset}): {source}; restore the file, or open the patch again",
        escape_path(path),
        escape(tensor)
    )]
    Read {
        /// The file.
        path: Box<Path>,
        /// The tensor.
        tensor: Box<str>,
        /// How many bytes it has.
        bytes: u64,
        /// Where they begin.
        offset: u64,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// There is no memory for its matrices.
    #[error(
        "{}: no memory for tensor `{}` of {bytes} bytes; free some, or raise the process's limit",
        escape_path(path),
        escape(tensor)
    )]
    Memory {
        /// The file.
        path: Box<Path>,
        /// The tensor.
        tensor: Box<str>,
        /// How many bytes it has.
        bytes: u64,
    },
}

/// A part that cannot be used, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// One of its tensors.
    pub key: Box<str>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", escape(&self.key), self.fault)
    }
}

/// What can be wrong with a part of a patch.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// Low-rank factors come in pairs.
    #[error("has no {missing}")]
    Half {
        /// Which of the two is not there.
        missing: &'static str,
    },

    /// Two tensors would be the same factor of the same module.
    #[error("is there twice, also as `{}`", escape(other))]
    Twice {
        /// The other one.
        other: Box<str>,
    },

    /// The factors cannot be multiplied.
    #[error(
        "has ranks that disagree: {down:?} takes the input to rank {}, {up:?} takes rank {} to the output",
        dimension(down, 0),
        dimension(up, 1)
    )]
    Ranks {
        /// The shape of the factor that takes the input.
        down: Box<[usize]>,
        /// The shape of the factor that gives the output.
        up: Box<[usize]>,
    },

    /// The core of Tucker's form does not lie between the factors.
    #[error("has shape {mid:?} between factors of rank {rank}, and needs [{rank}, {rank}, …]")]
    Core {
        /// Its shape.
        mid: Box<[usize]>,
        /// The rank of the factors.
        rank: usize,
    },

    /// A factor is no matrix.
    #[error("has shape {shape:?}, and needs {needed}")]
    Shape {
        /// Its shape.
        shape: Box<[usize]>,
        /// What it should have.
        needed: &'static str,
    },

    /// Factors of rank 0 change nothing.
    #[error("has rank 0, shape {shape:?}")]
    ZeroRank {
        /// The shape of the factor that takes the input.
        shape: Box<[usize]>,
    },

    /// What they change would be larger than any memory.
    #[error("would change a tensor of {rows} × {columns} elements, more than memory can hold")]
    Overflow {
        /// Rows of the product.
        rows: usize,
        /// Its columns.
        columns: usize,
    },

    /// Its elements are no numbers that can be added.
    #[error("has elements of type {dtype}, and needs F16, BF16, F32 or F64")]
    Dtype {
        /// What they are.
        dtype: Dtype,
    },

    /// The value of its alpha is no number.
    #[error("has the alpha {value}, which is not finite")]
    Alpha {
        /// The value.
        value: f64,
    },

    /// Metadata, or the configuration beside the file, gives an alpha that is no number.
    #[error(
        "has the alpha {} by its metadata, which is no finite number",
        escape(said)
    )]
    SaidAlpha {
        /// The text.
        said: Box<str>,
    },
}

fn dimension(shape: &[usize], at: usize) -> usize {
    shape.get(at).copied().unwrap_or(0)
}

/// Why a patch does not fit a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FitError {
    /// Nothing of it fits.
    #[error(
        "{}: changes nothing of {base}: {count} of its parts match no tensor there{}{}; it is a {patch}: lease it with a model of that family",
        escape_path(path), elsewhere(*others), Colon(first, *count)
    )]
    Nothing {
        /// The patch.
        path: Box<Path>,
        /// What it is.
        patch: String,
        /// The model, and what it is; safe to print.
        base: String,
        /// The first parts that match nothing.
        first: Vec<Unmatched>,
        /// How many there are.
        count: usize,
        /// How many parts are for other components.
        others: usize,
    },

    /// Some of it does not fit.
    #[error(
        "{}: {count} of its parts do not fit {base}, {fits} do: {}; take the patch for this model, or ask for what fits (lenient)",
        escape_path(path),
        Listed(first, *count)
    )]
    Unmatched {
        /// The patch.
        path: Box<Path>,
        /// The model, and what it is; safe to print.
        base: String,
        /// The first of them.
        first: Vec<Unmatched>,
        /// How many there are.
        count: usize,
        /// How many parts fit.
        fits: usize,
    },

    /// Two parts change the same tensor in the same way.
    #[error(
        "{}: `{}` and `{}` both change `{}`, so it is not known which is meant; remove one of them",
        escape_path(path),
        escape(first),
        escape(second),
        escape(target)
    )]
    Twice {
        /// The patch.
        path: Box<Path>,
        /// The tensor of the model.
        target: Box<str>,
        /// A key.
        first: Box<str>,
        /// Another.
        second: Box<str>,
    },

    /// With its rows a tensor would be larger than any memory.
    #[error(
        "tensor `{}` of {base} would take {bytes} bytes with the rows of its patches; use fewer of them",
        escape(tensor)
    )]
    Large {
        /// The model; safe to print.
        base: String,
        /// The tensor.
        tensor: Box<str>,
        /// What it would take.
        bytes: u64,
    },

    /// The patch is for several text encoders, and the model may be any of them.
    #[error(
        "{}: its parts for {first} fit {base} as well as those for {second}; say which by `Patch::only`",
        escape_path(path)
    )]
    WhichComponent {
        /// The patch.
        path: Box<Path>,
        /// The model, and what it is; safe to print.
        base: String,
        /// A component.
        first: Component,
        /// Another that fits as well.
        second: Component,
    },
}

fn elsewhere(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" ({others} are for other components)"),
    }
}

/// The first of several, and how many more there are.
struct Listed<'a, T>(&'a [T], usize);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{item}")?;
        }
        match self.1.saturating_sub(self.0.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// The same after a colon, or nothing.
struct Colon<'a, T>(&'a [T], usize);

impl<T: fmt::Display> fmt::Display for Colon<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            some => write!(f, ": {}", Listed(some, self.1)),
        }
    }
}
