//! What a lease asks for.

use crate::device::Tier;
use crate::model::Model;

/// A model that a lease asks for, and where: `unet.on(gpu).or_on(Cpu)`.
#[derive(Debug, Clone)]
#[must_use = "it asks for nothing until it is leased"]
pub struct Wanted<'a> {
    pub(super) model: &'a Model,
    pub(super) first: Tier,
    pub(super) others: Vec<Tier>,
    pub(super) working: u64,
}

impl Model {
    /// Asks for this model on a device: `Cpu`, a [`Tier`], or a reference to a device.
    pub fn on(&self, device: impl Into<Tier>) -> Wanted<'_> {
        Wanted {
            model: self,
            first: device.into(),
            others: Vec::new(),
            working: 0,
        }
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
        if tier != self.first && !self.others.contains(&tier) {
            self.others.push(tier);
        }
        self
    }

    /// Memory that the program itself will need for it there, bytes: activations, intermediate
    /// results. It is admitted with the weights and given back when the lease ends. The cache
    /// allocates nothing for it; up to the budget's reserve it takes no room from weights.
    pub fn working_memory(mut self, bytes: u64) -> Self {
        self.working = self.working.saturating_add(bytes);
        self
    }
}
