//! What a lease asks for.

use super::partial::Partial;
use crate::device::Tier;
use crate::model::Model;
use crate::patch::{Patch, Strictness};

/// A model that a lease asks for, and where: `unet.on(gpu).or_on(Cpu)`; changed by patches:
/// `unet.on(gpu).with(&lora, 0.8)`; as much of it as there is room for: `unet.on(gpu).partial(…)`.
#[derive(Debug, Clone)]
#[must_use = "it asks for nothing until it is leased"]
pub struct Wanted<'a> {
    pub(super) model: &'a Model,
    pub(super) terms: Terms,
}

/// How it is wanted.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) first: Tier,
    pub(super) others: Vec<Tier>,
    pub(super) working: u64,
    pub(super) patches: Vec<(Patch, f64)>,
    pub(super) way: Way,
    pub(super) strictness: Strictness,
    pub(super) partial: Option<Partial>,
}

impl Terms {
    pub(super) fn without_working_memory(&self) -> Terms {
        Terms {
            working: 0,
            ..self.clone()
        }
    }
}

/// How patches come to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Way {
    /// Merged where there is room for that without waiting, else beside.
    #[default]
    ByRoom,
    Merged,
    Beside,
}

impl Model {
    /// Asks for this model on a device: `Cpu`, a [`Tier`], or a reference to a device.
    pub fn on(&self, device: impl Into<Tier>) -> Wanted<'_> {
        let terms = Terms {
            first: device.into(),
            others: Vec::new(),
            working: 0,
            patches: Vec::new(),
            way: Way::default(),
            strictness: Strictness::default(),
            partial: None,
        };
        Wanted { model: self, terms }
    }
}

impl<'a> From<&'a Model> for Wanted<'a> {
    /// On the CPU.
    fn from(model: &'a Model) -> Wanted<'a> {
        model.on(Tier::RAM)
    }
}

impl Wanted<'_> {
    /// Where else it may be granted: at once, where there is no room at this moment on any of the
    /// devices named before, or where their memory fails. The lease says which it was.
    pub fn or_on(mut self, device: impl Into<Tier>) -> Self {
        let tier = device.into();
        if tier != self.terms.first && !self.terms.others.contains(&tier) {
            self.terms.others.push(tier);
        }
        self
    }

    /// Memory that the program itself will need for it there, bytes: activations, intermediate
    /// results. It is admitted with the weights and given back when the lease ends. The cache
    /// allocates nothing for it; up to the budget's reserve it takes no room from weights.
    pub fn working_memory(mut self, bytes: u64) -> Self {
        self.terms.working = self.terms.working.saturating_add(bytes);
        self
    }

    /// Has a patch change it, for this lease: 1 is as the patch was trained, 0 leaves it out, and
    /// less than 0 takes its change away. Several add up, in the order in which they are named; so
    /// does one that is named twice. The model's own weights are never written to: the lease gives
    /// other tensors for the names that patches change, on the device where the model is granted,
    /// and shares all others. They are admitted with the rest, shared by leases of the same model
    /// with the same patches at the same strengths, and evicted as models are.
    ///
    /// On each device of choice in turn, they are merged where there is room for that without waiting,
    /// else the patch's factors are leased beside the weights; see [`merged`](Self::merged), [`beside`](Self::beside) and
    /// [`Leased::beside`](crate::Leased::beside).
    pub fn with(mut self, patch: &Patch, strength: f64) -> Self {
        self.terms.patches.push((patch.clone(), strength));
        self
    }

    /// Merges patches, whatever room that takes: `W + s·(alpha / rank)·B·A`, rounded once to the type
    /// of the weights. The fastest to compute with.
    pub fn merged(mut self) -> Self {
        self.terms.way = Way::Merged;
        self
    }

    /// Leaves patches beside the weights: [`Leased::tensor`](crate::Leased::tensor) gives the model's
    /// own, and [`Leased::beside`](crate::Leased::beside) what is to be added. It takes the patch's
    /// bytes alone, and is the only way for quantised weights.
    pub fn beside(mut self) -> Self {
        self.terms.way = Way::Beside;
        self
    }

    /// Takes of patches what fits the model, and lists the rest in
    /// [`Leased::unmatched`](crate::Leased::unmatched), instead of refusing. That nothing fits is
    /// still refused.
    pub fn lenient(mut self) -> Self {
        self.terms.strictness = Strictness::Lenient;
        self
    }

    /// Makes do with a part of it there, and streams the rest as it is asked for.
    pub fn partial(mut self, partial: Partial) -> Self {
        self.terms.partial = Some(partial);
        self
    }

    /// Whether it asks for no more than a model as it is.
    pub(super) fn is_plain(&self) -> bool {
        self.terms.working == 0 && self.terms.patches.is_empty() && self.terms.partial.is_none()
    }
}
