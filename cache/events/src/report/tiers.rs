//! Tiers, and what came into them and left them.

use serde::{Deserialize, Serialize};

use super::fold::add;
use super::{RAM, Report};
use crate::decision::{BudgetChange, Evict, Load, Origin};
use crate::event::{Opened, Picture};

/// No cache has more tiers; an edited recording may.
const MOST_TIERS: usize = 64;

/// What happened in one tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TierReport {
    /// Its name: `ram`, or the device's.
    pub tier: String,
    /// Whether it only pretends to be a device.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub simulated: bool,
    /// The budget, bytes, the last one where it follows the machine; absent where nothing told it.
    pub budget_bytes: Option<u64>,
    /// The smallest budget, bytes; absent where it does not follow the machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget_low_bytes: Option<u64>,
    /// The largest budget, bytes; absent where it does not follow the machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget_high_bytes: Option<u64>,
    /// What bounds the last budget, in words; absent where it does not follow the machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget_bound: Option<String>,
    /// The most that resident models counted there at once, bytes; absent where the beginning of
    /// the stream was not heard.
    pub resident_peak_bytes: Option<u64>,
    /// Models loaded.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Models that left.
    pub evictions: u64,
    /// Bytes of weights loaded.
    pub bytes_loaded: u64,
    /// Seconds spent loading, failures included.
    pub load_seconds: f64,
    /// Seconds spent unloading.
    pub unload_seconds: f64,
    /// What models count that are resident now.
    #[serde(skip)]
    resident_bytes: u64,
}

/// A model's way into a tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TransferReport {
    /// The model.
    pub model: String,
    /// The tier it came into.
    pub tier: String,
    /// Where its bytes came from.
    pub from: Origin,
    /// How often it came, failures not counted.
    pub count: u64,
    /// Bytes of its weights: what comes each time, of a model that comes in parts the last part.
    pub bytes: u64,
    #[serde(skip)]
    total: u64,
    /// Seconds of all times together.
    pub seconds: f64,
    /// Gigabytes (1e9) a second over all times; absent where they took no time that was measured.
    pub gb_per_second: Option<f64>,
}

/// A model's way out of a tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UnloadReport {
    /// The model.
    pub model: String,
    /// The tier it left.
    pub tier: String,
    /// How often.
    pub count: u64,
    /// Seconds of all times together.
    pub seconds: f64,
}

/// A model, a tier, and whether it came from the copy in RAM.
pub(super) type Way = (String, String, bool);

impl Report {
    /// A tier by its name; `None` beyond any number that makes sense.
    fn tier(&mut self, name: &str) -> Option<&mut TierReport> {
        let found = self.tiers.iter().position(|tier| tier.tier == name);
        let at = match found {
            Some(at) => at,
            None if self.tiers.len() >= MOST_TIERS => return None,
            None => {
                let at = if name == RAM { 0 } else { self.tiers.len() };
                let tier = TierReport {
                    tier: name.to_owned(),
                    resident_peak_bytes: self.whole.then_some(0),
                    ..TierReport::default()
                };
                self.tiers.insert(at, tier);
                at
            }
        };
        self.tiers.get_mut(at)
    }

    pub(super) fn open_tiers(&mut self, opened: &Opened) {
        for tier in &mut self.tiers {
            tier.resident_bytes = 0;
        }
        if let Some(budget) = opened.budget_bytes
            && let Some(ram) = self.tier(RAM)
        {
            ram.budget_bytes = Some(budget);
        }
        for device in &opened.devices {
            if let Some(tier) = self.tier(&device.tier) {
                tier.budget_bytes = Some(device.budget_bytes);
                tier.simulated = device.simulated;
            }
        }
    }

    /// Whoever did not hear the stream begin learns from a picture which tiers there are.
    pub(super) fn see_tiers(&mut self, picture: &Picture) {
        for seen in &picture.tiers {
            if let Some(tier) = self.tier(&seen.tier) {
                tier.simulated = seen.simulated;
                tier.budget_bytes = (seen.budget_bytes < u64::MAX).then_some(seen.budget_bytes);
            }
        }
    }

    pub(super) fn budget(&mut self, change: &BudgetChange) {
        let now = change.budget_bytes;
        let Some(tier) = self.tier(&change.tier) else {
            return;
        };
        let low = tier.budget_low_bytes.map_or(now, |low| low.min(now));
        let high = tier.budget_high_bytes.map_or(now, |high| high.max(now));
        tier.budget_bytes = Some(now);
        tier.budget_low_bytes = Some(low);
        tier.budget_high_bytes = Some(high);
        tier.budget_bound = Some(change.bound.clone());
        if change.tier == RAM {
            self.budget_bytes = Some(now);
            self.budget_low_bytes = Some(low);
            self.budget_high_bytes = Some(high);
        }
    }

    pub(super) fn came(&mut self, load: &Load) {
        let seconds = load.took_us as f64 / 1e6;
        if let Some(tier) = self.tier(&load.tier) {
            tier.load_seconds += seconds;
            if load.error.is_some() {
                tier.failed_loads += 1;
            } else {
                tier.loads += 1;
                add(&mut tier.bytes_loaded, load.bytes);
                add(&mut tier.resident_bytes, load.charged_bytes);
                let now = tier.resident_bytes;
                tier.resident_peak_bytes = tier.resident_peak_bytes.map(|peak| peak.max(now));
            }
        }
        if load.error.is_some() {
            return;
        }
        let from_ram = load.from == Origin::Ram;
        let name = load.part_of.as_ref().unwrap_or(&load.model);
        let way = (name.clone(), load.tier.clone(), from_ram);
        let transfers = &mut self.transfers;
        let at = *self.index.transfers.entry(way).or_insert_with(|| {
            transfers.push(TransferReport {
                model: name.clone(),
                tier: load.tier.clone(),
                from: load.from,
                ..TransferReport::default()
            });
            transfers.len() - 1
        });
        let transfer = &mut transfers[at];
        transfer.count += 1;
        transfer.bytes = load.bytes;
        transfer.seconds += seconds;
        add(&mut transfer.total, load.bytes);
        let bytes = transfer.total as f64;
        transfer.gb_per_second = (transfer.seconds > 0.0).then(|| bytes / transfer.seconds / 1e9);
    }

    pub(super) fn left(&mut self, evict: &Evict) {
        let seconds = evict.took_us as f64 / 1e6;
        if let Some(tier) = self.tier(&evict.tier) {
            tier.evictions += 1;
            tier.unload_seconds += seconds;
            tier.resident_bytes = tier.resident_bytes.saturating_sub(evict.freed_bytes);
        }
        let name = evict.part_of.as_ref().unwrap_or(&evict.model);
        let place = (name.clone(), evict.tier.clone());
        let unloads = &mut self.unloads;
        let at = *self.index.unloads.entry(place).or_insert_with(|| {
            unloads.push(UnloadReport {
                model: name.clone(),
                tier: evict.tier.clone(),
                ..UnloadReport::default()
            });
            unloads.len() - 1
        });
        unloads[at].count += 1;
        unloads[at].seconds += seconds;
    }
}
