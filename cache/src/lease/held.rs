//! What a lease holds, and how that makes up what was asked for.

use std::sync::{Arc, OnceLock};

use crate::cache::{Patched, Seat, Streaming};
use crate::device::DeviceWeights;
use crate::error::Error;
use crate::model::Model;

/// A model that a lease holds.
pub(crate) struct Held {
    pub(crate) seat: Seat,
    /// Fetched when first asked for: most of a lease's life is being held.
    pub(super) weights: OnceLock<Arc<Box<dyn DeviceWeights>>>,
}

impl Held {
    pub(crate) fn new(seat: Seat) -> Held {
        Held {
            seat,
            weights: OnceLock::new(),
        }
    }

    pub(super) fn model(&self) -> &Model {
        &self.seat.entry.model.model
    }

    pub(super) fn weights(&self) -> Result<&dyn DeviceWeights, Error> {
        if let Some(weights) = self.weights.get() {
            return Ok(&***weights);
        }
        let weights = self.seat.entry.model.weights(self.seat.tier);
        let weights = weights.ok_or_else(|| Error::NotLeased {
            model: self.model().name().to_owned(),
        })?;
        Ok(&***self.weights.get_or_init(|| weights))
    }
}

/// A model as it was asked for: of parts that are elsewhere, or changed by patches.
pub(crate) struct Item {
    pub(crate) model: Model,
    pub(crate) tier: usize,
    pub(crate) base: Base,
    /// What its device cannot hold, by its place among what is held.
    pub(crate) rest: Option<usize>,
    pub(crate) patches: Option<Patches>,
}

/// Where a model's own weights are.
pub(crate) enum Base {
    /// At this place among what is held.
    There(usize),
    Partly(Streaming),
}

/// Patches, and where among what is held they are.
pub(crate) enum Patches {
    Merged(Arc<Patched>, usize),
    /// One for each patch.
    Beside(Arc<Patched>, Vec<usize>),
}

impl Patches {
    pub(super) fn patched(&self) -> &Arc<Patched> {
        match self {
            Patches::Merged(patched, _) | Patches::Beside(patched, _) => patched,
        }
    }
}

impl Item {
    /// Whether another one gives the same.
    pub(crate) fn is_same(&self, other: &Item) -> bool {
        let (Base::There(a), Base::There(b)) = (&self.base, &other.base) else {
            return false;
        };
        let patched = |item: &Item| {
            let patches = item.patches.as_ref()?;
            let is_merged = matches!(patches, Patches::Merged(..));
            Some((Arc::as_ptr(patches.patched()), is_merged))
        };
        a == b && patched(self) == patched(other)
    }
}
