//! What is leased of a model itself: all of it, what its devices can hold, or a part.

use std::sync::Arc;

use super::items::Item;
use super::partial::{Division, Partial};
use super::shared::Shared;
use crate::books::LEAST_STAGING;
use crate::error::{Error, PartialOffer};
use crate::model::{Model, TensorInfo};

/// What is read from files on its way to a pool goes through at most so much of RAM.
const STAGING: u64 = 8 << 20;

/// What a tensor's last page may take besides it, bytes.
const PAGE: u64 = 4096;

/// What is leased of the model itself.
pub(super) enum Shape {
    Whole,
    /// What its devices can hold.
    Most(Model),
    Partial(Streamed),
}

/// How a partial lease streams.
pub(super) struct Streamed {
    pub(super) division: Arc<Division>,
    pub(super) pool: u64,
    pub(super) staging: u64,
    pub(super) most: u64,
}

impl Shared {
    /// Whether a device that is asked for cannot hold all of a model.
    pub(super) fn lacks(&self, tiers: &[usize], model: &Model) -> bool {
        let mut tensors = model.tensors().iter();
        tensors.any(|tensor| {
            let mut devices = tiers.iter().map(|tier| &self.gate.io.devices[*tier]);
            devices.any(|device| !device.holds(tensor.dtype))
        })
    }

    /// Finds what is leased of the model itself.
    pub(super) fn shape(&self, item: &mut Item) -> Result<(), Error> {
        let tensors = item.model.tensors();
        let mut kept_out: Vec<usize> = Vec::new();
        (item.shape, item.rest) = (Shape::Whole, None);
        if self.lacks(&item.tiers, &item.model) {
            let mut devices = item.tiers.iter().map(|tier| &self.gate.io.devices[*tier]);
            let holds = |index: usize| {
                devices
                    .clone()
                    .all(|device| device.holds(tensors[index].dtype))
            };
            let (most, rest): (Vec<usize>, Vec<usize>) =
                (0..tensors.len()).partition(|index| holds(*index));
            let device =
                devices.find(|device| rest.iter().any(|at| !device.holds(tensors[*at].dtype)));
            let on = device.map_or("", |device| device.name());
            self.say_rest(&item.model, &rest, on);
            let name = |label: &str| format!("{} [{label}]", item.model.name());
            item.rest = Some(item.model.part(name("in RAM"), &rest, 0.0));
            item.shape = Shape::Most(item.model.part(name("on the device"), &most, 0.0));
            kept_out = rest;
        }
        let Some(partial) = item.partial.clone() else {
            return Ok(());
        };
        if !item.is_beside()
            && let Some(merged) = item.patched.as_ref().and_then(|one| one.merged.as_ref())
        {
            // What is merged is there; the model's own is not asked for, unless it is tied to
            // another.
            let tied = |index: usize| {
                let is_home = |tensor: &TensorInfo| tensor.tied_to == Some(index as u32);
                tensors[index].tied_to.is_some() || tensors.iter().any(is_home)
            };
            let changed = merged.tensors().iter();
            let changed = changed.filter_map(|tensor| item.model.tensor(&tensor.name));
            kept_out.extend(
                changed
                    .map(|(index, _)| index)
                    .filter(|index| !tied(*index)),
            );
            kept_out.sort_unstable();
            kept_out.dedup();
        }
        let division = self.divisions.of(&item.model, &partial, &kept_out)?;
        item.shape = Shape::Partial(self.streamed(item, &partial, division)?);
        Ok(())
    }

    /// Says once for each model what of it stays in RAM.
    fn say_rest(&self, model: &Model, rest: &[usize], device: &str) {
        if !self.entry(model).model.stays_in_part() {
            return;
        }
        let tensors = model.tensors();
        let bytes = rest.iter().map(|index| tensors[*index].bytes);
        let bytes: u64 = bytes.fold(0, u64::saturating_add);
        let dtype = rest
            .first()
            .map_or(String::new(), |at| tensors[*at].dtype.to_string());
        let text = format!(
            "{} tensors of `{}` ({}) stay in RAM: {device} cannot hold their type ({dtype})",
            rest.len(),
            model.name().escape_debug(),
            malloc_stats::Size(bytes),
        );
        tracing::warn!("{text}");
        self.gate
            .io
            .stream
            .emit(plimsoll_events::Kind::Note { text });
    }

    fn streamed(
        &self,
        item: &Item,
        partial: &Partial,
        division: Arc<Division>,
    ) -> Result<Streamed, Error> {
        let model = || item.model.name().to_owned();
        let mut pools = (0, 0);
        let (mut required, mut patched) = (0, 0);
        for tier in &item.tiers {
            let device = &self.gate.io.devices[*tier];
            let (usual, least) = division.pool(device.as_ref());
            pools = (pools.0.max(usual), pools.1.max(least));
            let besides = item.patches().into_iter().map(|model| device.charge(model));
            let besides = besides.fold(0, u64::saturating_add);
            patched = patched.max(besides);
            required = required.max(device.charge(&division.parts[0]));
        }
        let required = required.saturating_add(patched);
        let (usual, least) = pools;
        let most = partial.most.unwrap_or(u64::MAX);
        let pool = partial.pool.unwrap_or_else(|| {
            let books = self.gate.books();
            let budgets = item.tiers.iter().map(|tier| books.accounts[*tier].ceiling);
            let left = budgets.fold(most, u64::min).saturating_sub(required);
            usual.min(left).max(least)
        });
        if pool < least {
            return Err(Error::PoolTooSmall {
                model: model(),
                asked: pool,
                least,
            });
        }
        // Where all of it must be there, nothing streams.
        let pool = if least == 0 { 0 } else { pool };
        let needed = u64::saturating_add(required, pool);
        if most < needed {
            return Err(Error::PartialTooSmall {
                model: model(),
                asked: most,
                required,
                pool,
            });
        }
        let staging = STAGING.min(self.gate.rules.staging).min(pool);
        Ok(Streamed {
            division,
            pool,
            staging: if pool == 0 {
                0
            } else {
                staging.max(LEAST_STAGING)
            },
            most: most.saturating_sub(pool).saturating_sub(patched),
        })
    }

    /// What a partial lease could have of a model that a tier is too small for.
    pub(super) fn partial_offer(
        &self,
        items: &[Item],
        tier: usize,
        budget: u64,
    ) -> Option<PartialOffer> {
        let [item] = items else { return None };
        if item.partial.is_some() || !item.tiers.contains(&tier) {
            return None;
        }
        let device = &self.gate.io.devices[tier];
        let models = item.models(|_| false).into_iter().skip(1);
        let besides = models.map(|(model, _)| device.charge(model));
        let left = budget.checked_sub(besides.fold(0, u64::saturating_add))?;
        // By sizes alone: a model is not cut for a sentence.
        let sizes = item.model.tensors().iter().map(|tensor| tensor.bytes);
        let largest = sizes.max()?.saturating_add(PAGE);
        let pool = largest.saturating_mul(2).min(left / 2).max(largest);
        let resident = left.checked_sub(pool).filter(|bytes| *bytes > largest)?;
        let resident = resident.min(item.model.bytes());
        Some(PartialOffer {
            resident,
            streamed: item.model.bytes() - resident,
            pool,
        })
    }
}
