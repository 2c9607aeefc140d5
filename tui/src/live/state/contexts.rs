//! What a process has of a device besides what its cache counts: its context, kernels, scratch.
//!
//! NVML is read every few seconds, and a cache tells what it has each second. The difference of the
//! two means nothing while models move, but hardly changes itself: so it is taken where both were
//! told at one moment, and kept.

use std::collections::BTreeMap;

use malloc_stats::{Grade, Metric, Vram};
use plimsoll_events::{DeviceFigures, TierPicture};

use super::vitals::{Dated, Vitals};

/// A reading of NVML that is not older was of the moment of a picture, microseconds.
const TOGETHER: u64 = 250_000;

/// The newest difference by tier, with the time of it.
#[derive(Debug, Clone, Default)]
pub struct Contexts(BTreeMap<String, Dated<Metric>>);

impl Contexts {
    /// That of a tier, once it was known.
    #[must_use]
    pub fn get(&self, tier: &str) -> Option<&Dated<Metric>> {
        self.0.get(tier)
    }

    /// Takes over what a picture tells.
    pub(super) fn picture(&mut self, tiers: &[TierPicture], vitals: &Vitals, at_us: u64) {
        self.0
            .retain(|name, _| tiers.iter().any(|tier| tier.tier == *name));
        if at_us.saturating_sub(vitals.vram.at_us) > TOGETHER {
            return;
        }
        for tier in tiers {
            let seen = vitals.vram.value.iter().find(|gpu| is_of(gpu, tier));
            let (Some(gpu), Some(figures)) = (seen, &tier.device) else {
                continue;
            };
            let value = beside(gpu, figures);
            if !value.is_unavailable() {
                self.0.insert(tier.tier.clone(), Dated { at_us, value });
            }
        }
    }
}

/// What NVML counts for the process, less what its cache has.
#[must_use]
pub fn beside(gpu: &Vram, figures: &DeviceFigures) -> Metric {
    let own = figures.pool_reserved.plus(figures.outside);
    gpu.process.minus_saturating(own).at_best(Grade::Estimated)
}

/// Whether NVML's GPU is a tier's device: they have the PCI bus in common.
#[must_use]
pub fn is_of(gpu: &Vram, tier: &TierPicture) -> bool {
    let figures = tier.device.as_deref();
    figures.is_some_and(|figures| {
        !gpu.pci_bus.is_empty() && figures.pci_bus.eq_ignore_ascii_case(&gpu.pci_bus)
    })
}
