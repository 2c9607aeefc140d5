//! What can go wrong, with paths, numbers, and a way out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use malloc_stats::size::Size;

use crate::model::OpenError;

/// An error of the cache. Cheap to clone, since all who wait for one load get its error.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lease can never be met: its models need more than the whole budget.
    #[error(
        "{} needs {} of RAM and the budget is {}; raise the budget, or lease fewer models at once",
        names(models), Size(*asked), Size(*budget)
    )]
    ExceedsBudget {
        /// The models asked for.
        models: Vec<String>,
        /// Bytes they need together.
        asked: u64,
        /// The budget, bytes.
        budget: u64,
    },
    /// There is no room at this moment, because leases and held tensors pin what could make it.
    #[error(
        "no room for {}: {} asked, {} of {} free, {} pinned by leases or held tensors; release \
         some, or wait with `lease`",
        names(models), Size(*asked), Size(*free), Size(*budget), Size(*pinned)
    )]
    NoRoom {
        /// The models asked for.
        models: Vec<String>,
        /// Bytes that are missing for them.
        asked: u64,
        /// Bytes free in the budget.
        free: u64,
        /// The budget, bytes.
        budget: u64,
        /// Bytes that leases and held tensors pin.
        pinned: u64,
    },
    /// The lease was not met in the time it was given.
    #[error(
        "waited {waited:?} for {} of RAM for {}; {} of {} are pinned by leases or held tensors",
        Size(*asked), names(models), Size(*pinned), Size(*budget)
    )]
    Timeout {
        /// The models asked for.
        models: Vec<String>,
        /// Bytes that are missing for them.
        asked: u64,
        /// The budget, bytes.
        budget: u64,
        /// Bytes that leases and held tensors pin.
        pinned: u64,
        /// How long it waited.
        waited: Duration,
    },
    /// A model could not be loaded.
    #[error(transparent)]
    Load(Arc<LoadError>),
    /// The lease does not hold this model.
    #[error("the lease holds no model `{}`", model.escape_debug())]
    NotLeased {
        /// The model.
        model: String,
    },
    /// The model has no such tensor.
    #[error("model `{}` has no tensor `{}`", model.escape_debug(), tensor.escape_debug())]
    NoTensor {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
    },
    /// The tensor's element type has no candle tensor on the CPU; its bytes can be read.
    #[error(
        "tensor `{}` of `{}` ({dtype}) cannot be a candle tensor: {reason}; its bytes can be read",
        tensor.escape_debug(), model.escape_debug()
    )]
    NotATensor {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: String,
        /// candle's answer.
        reason: String,
    },
}

/// Why a load failed. Its memory was given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file is gone, changed, or no longer readable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A read failed.
    #[error("cannot read {} at byte {offset}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where, bytes from its start.
        offset: u64,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file ended early: it was cut since it was opened.
    #[error(
        "{} ends at byte {offset}, {missing} bytes early; was it cut while in use?", path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ended.
        offset: u64,
        /// Bytes that are missing.
        missing: u64,
    },
    /// The memory could not be had.
    #[error(
        "no memory for `{}`: {} asked: {reason}; lower the budget or raise the limit",
        model.escape_debug(), Size(*bytes)
    )]
    Memory {
        /// The model.
        model: String,
        /// Bytes asked for.
        bytes: u64,
        /// The system's answer.
        reason: String,
    },
    /// The thread that loaded panicked.
    #[error("the load of `{}` was abandoned by a panic", model.escape_debug())]
    Abandoned {
        /// The model.
        model: String,
    },
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Error {
        Error::Load(Arc::new(error))
    }
}

fn names(models: &[String]) -> String {
    models
        .iter()
        .map(|model| format!("`{}`", model.escape_debug()))
        .collect::<Vec<_>>()
        .join(" + ")
}
