//! What can go wrong, with paths, numbers, and a way out.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use malloc_stats::size::Size;

use crate::books::Fault;
use crate::driver::DriverError;
use crate::model::OpenError;
use crate::patch::{FitError, PatchError};

/// An error of the cache. Cheap to clone, since all who wait for one load get its error.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lease can never be met: it needs more than a whole budget.
    #[error(
        "{} needs {} of {tier} and the budget is {}; raise the budget, lease fewer models at once, \
         or name another device with `or_on`{}",
        names(models), Size(*asked), Size(*budget),
        partial.map_or_else(String::new, |offer| offer.to_string())
    )]
    ExceedsBudget {
        /// The models asked for.
        models: Vec<String>,
        /// The tier that is too small.
        tier: String,
        /// Bytes they need there together, declared working memory included.
        asked: u64,
        /// Its budget, bytes.
        budget: u64,
        /// What a partial lease could have, where that would do.
        partial: Option<PartialOffer>,
    },
    /// There is no room at this moment, because leases and held tensors pin what could make it.
    #[error(
        "no room for {} in {tier}: {} asked, {} of {} free, {} pinned by leases or held tensors; \
         release some, or wait with `lease`",
        names(models), Size(*asked), Size(*free), Size(*budget), Size(*pinned)
    )]
    NoRoom {
        /// The models asked for.
        models: Vec<String>,
        /// The tier that is full.
        tier: String,
        /// Bytes they need there together.
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
        "waited {waited:?} for {} of {tier} for {}; {} of {} are pinned by leases, loads or held \
         tensors",
        Size(*asked), names(models), Size(*pinned), Size(*budget)
    )]
    Timeout {
        /// The models asked for.
        models: Vec<String>,
        /// The tier that was waited for.
        tier: String,
        /// Bytes they need there together.
        asked: u64,
        /// The budget, bytes.
        budget: u64,
        /// Bytes that leases, loads and held tensors pin.
        pinned: u64,
        /// How long it waited.
        waited: Duration,
    },
    /// The wait could not end: every lease there is was taken by a thread that waits here itself.
    #[error(
        "{} needs {} of {tier} and waits for leases of threads that wait themselves ({} of {} are \
         pinned); lease everything at once, release before you lease, or tell of a lease that was \
         given to another thread with `Lease::hand_over`",
        names(models), Size(*asked), Size(*pinned), Size(*budget)
    )]
    Deadlock {
        /// The models asked for.
        models: Vec<String>,
        /// The tier that was waited for.
        tier: String,
        /// Bytes they need there together.
        asked: u64,
        /// The budget, bytes.
        budget: u64,
        /// Bytes that leases pin.
        pinned: u64,
    },
    /// The cache has no such device.
    #[error("this cache was built without the device{}", wanted(model.as_deref()))]
    NoDevice {
        /// The model that was wanted on it, if that was what was asked.
        model: Option<String>,
    },
    /// An automatic budget finds nothing to follow.
    #[error("the budget of {tier} cannot follow the machine: {reason}; give a number of bytes")]
    Unfollowed {
        /// The tier.
        tier: String,
        /// Why.
        reason: String,
    },
    /// The lease asks for no model at all.
    #[error("the lease names no model")]
    NoModel,
    /// A device found that weights are not what was written to it.
    #[error(
        "tensor `{}` of `{}` on {device} has checksum {found:016x}, and {expected:016x} was \
         written; something wrote to leased weights",
        tensor.escape_debug(), model.escape_debug()
    )]
    Corrupt {
        /// The device.
        device: String,
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// XXH3-64 of what was written.
        expected: u64,
        /// XXH3-64 of what is there.
        found: u64,
    },
    /// A mapped file is no longer what was mapped: what was read of the weights may be wrong.
    #[error(
        "the weights of `{}` cannot be trusted: {} {what}; open the model again",
        model.escape_debug(), path.display().to_string().escape_debug()
    )]
    Poisoned {
        /// The model.
        model: String,
        /// The file.
        path: PathBuf,
        /// What became of it.
        what: String,
    },
    /// A model could not be loaded.
    #[error(transparent)]
    Load(Arc<LoadError>),
    /// A patch does not fit the model that it is asked for with.
    #[error(transparent)]
    Fit(Arc<FitError>),
    /// A patch cannot be used.
    #[error(transparent)]
    Patch(Arc<PatchError>),
    /// The strength of a patch is no number, or is none once it is multiplied by what the patch says.
    #[error(
        "the strength {strength} of patch `{}` is not finite, or not with the patch's own scale; give \
         a number such as 0.8",
        patch.escape_debug()
    )]
    Strength {
        /// The patch.
        patch: String,
        /// What was asked for.
        strength: f64,
    },
    /// Patches were asked for merged, and the weights that they change are not plain numbers.
    #[error(
        "tensor `{}` of `{}` is of type {dtype}, which cannot be merged with; ask for the patch \
         beside it (`beside`), or for a model that is not quantised",
        tensor.escape_debug(), model.escape_debug()
    )]
    BesideOnly {
        /// The model.
        model: String,
        /// A tensor that a patch changes.
        tensor: String,
        /// Its element type.
        dtype: String,
    },
    /// A partial lease may take fewer bytes than what must be there and the pool take.
    #[error(
        "a partial lease of `{}` may take {}, and needs {} for what must be there and {} to stream \
         the rest through; allow it {}, or name fewer tensors that must be there",
        model.escape_debug(), Size(*asked), Size(*required), Size(*pool),
        Size(required.saturating_add(*pool))
    )]
    PartialTooSmall {
        /// The model.
        model: String,
        /// What it may take, bytes.
        asked: u64,
        /// What must be there takes, bytes.
        required: u64,
        /// The pool, bytes.
        pool: u64,
    },
    /// A pool has no room for the largest tensor that streams through it.
    #[error(
        "a pool of {} has no room for the largest tensors of `{}` that stream, {}; give it that, \
         better twice as much, or name those among what must be there",
        Size(*asked), model.escape_debug(), Size(*least)
    )]
    PoolTooSmall {
        /// The model.
        model: String,
        /// What was asked for, bytes.
        asked: u64,
        /// What it needs, bytes.
        least: u64,
    },
    /// Tensors that somebody holds fill the pool through which a model streams.
    #[error(
        "no room in the pool of `{}` for {}: {} of {} are tensors that the program still holds; drop \
         them before asking for more, or lease it with a larger pool",
        model.escape_debug(), Size(*asked), Size(*held), Size(*pool)
    )]
    PoolHeld {
        /// The model.
        model: String,
        /// What was asked for takes, bytes.
        asked: u64,
        /// The pool, bytes.
        pool: u64,
        /// What tensors hold of it, bytes.
        held: u64,
    },
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
    /// The device's driver refused.
    #[error("{device} cannot give `{}`: {error}", model.escape_debug())]
    Device {
        /// The device.
        device: String,
        /// The model.
        model: String,
        /// The driver's answer.
        error: Box<DriverError>,
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

/// What a partial lease of a model could have, about, in a budget that is too small for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialOffer {
    /// Bytes of the model that would be there.
    pub resident: u64,
    /// Bytes that would stream.
    pub streamed: u64,
    /// The pool through which they would, bytes.
    pub pool: u64,
}

impl fmt::Display for PartialOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "; with `partial`, about {} of it would be there, and {} stream through a pool of {}",
            Size(self.resident),
            Size(self.streamed),
            Size(self.pool)
        )
    }
}

/// Why a cache cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// This process's memory cannot be read.
    #[error(transparent)]
    Stats(#[from] malloc_stats::Error),
    /// An automatic budget finds nothing to follow.
    #[error("the budget of {tier} cannot follow the machine: {reason}; give a number of bytes")]
    Unfollowed {
        /// The tier.
        tier: String,
        /// Why.
        reason: String,
    },
    /// A device was given twice.
    #[error("the device {device} was given twice")]
    Twice {
        /// Its name.
        device: String,
    },
    /// Two devices have one name, so that events and errors could not tell them apart.
    #[error("two devices are named {device}; give each a name of its own")]
    SameName {
        /// The name.
        device: String,
    },
    /// There are too many devices.
    #[error("{devices} devices were given; the most is {most}")]
    TooMany {
        /// How many were given.
        devices: usize,
        /// How many there may be.
        most: usize,
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
    /// The device has no memory for it, though its budget had room.
    #[error(
        "{device} has no memory for `{}`: {} asked, {} free of {}{}{}",
        model.escape_debug(), Size(*asked), Size(*free), Size(*total),
        if *injected { " (injected)" } else { "" },
        reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"))
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// The model.
        model: String,
        /// Bytes asked for.
        asked: u64,
        /// Bytes that the device has free.
        free: u64,
        /// All it has.
        total: u64,
        /// The driver's words, where it was the driver that refused.
        reason: Option<String>,
        /// Whether the fault was asked for.
        injected: bool,
    },
    /// The device's driver refused.
    #[error("{device} cannot take `{}`: {error}", model.escape_debug())]
    Device {
        /// The device.
        device: String,
        /// The model.
        model: String,
        /// The driver's answer.
        error: Box<DriverError>,
    },
    /// A transfer to the device failed.
    #[error(
        "cannot transfer tensor `{}` of `{}` to {device} at byte {offset}: {reason}",
        tensor.escape_debug(), model.escape_debug()
    )]
    Transfer {
        /// The device.
        device: String,
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// Where in it.
        offset: u64,
        /// The device's answer.
        reason: String,
    },
    /// The copy in RAM, from which the device was to be loaded, cannot be read.
    #[error("cannot read the copy of `{}` in RAM: {reason}", model.escape_debug())]
    Copy {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// Patches cannot be merged into a tensor.
    #[error(
        "cannot make tensor `{}` of `{}`: {reason}",
        tensor.escape_debug(), model.escape_debug()
    )]
    Merge {
        /// The model with its patches.
        model: String,
        /// The tensor.
        tensor: String,
        /// Why, and a way out.
        reason: String,
    },
    /// The thread that loaded panicked.
    #[error("the load of `{}` was abandoned by a panic", model.escape_debug())]
    Abandoned {
        /// The model.
        model: String,
    },
}

impl Fault for Error {
    fn wants_room(&self) -> Option<u64> {
        let Error::Load(error) = self else {
            return None;
        };
        match **error {
            LoadError::OutOfMemory { asked, .. } => Some(asked),
            _ => None,
        }
    }

    fn abandoned(model: &str) -> Error {
        let model = model.to_owned();
        LoadError::Abandoned { model }.into()
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Error {
        Error::Load(Arc::new(error))
    }
}

impl From<FitError> for Error {
    fn from(error: FitError) -> Error {
        Error::Fit(Arc::new(error))
    }
}

impl From<PatchError> for Error {
    fn from(error: PatchError) -> Error {
        Error::Patch(Arc::new(error))
    }
}

fn wanted(model: Option<&str>) -> String {
    model.map_or_else(String::new, |model| {
        format!(" that `{}` is wanted on", model.escape_debug())
    })
}

fn names(models: &[String]) -> String {
    if models.is_empty() {
        return "the program itself".to_owned();
    }
    models
        .iter()
        .map(|model| format!("`{}`", model.escape_debug()))
        .collect::<Vec<_>>()
        .join(" + ")
}
