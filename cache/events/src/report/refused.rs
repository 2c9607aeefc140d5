//! Leases that were refused.

use serde::{Deserialize, Serialize};

use super::Report;
use crate::decision::{Refuse, RefuseReason};

/// More kinds of refusal than this are counted, and not kept.
const MOST_REFUSALS: usize = 100;

/// Leases of the same models that were refused in the same tier for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalReport {
    /// The models that were asked for.
    pub models: Vec<String>,
    /// The tier that was short.
    pub tier: String,
    /// Why.
    pub reason: RefuseReason,
    /// Bytes that they need there together, the last time.
    pub asked_bytes: u64,
    /// The tier's budget, bytes, the last time.
    pub budget_bytes: u64,
    /// Bytes that leases and held tensors pinned, the last time.
    pub pinned_bytes: u64,
    /// How often.
    pub count: u64,
}

impl Report {
    pub(super) fn refuse(&mut self, refuse: &Refuse) {
        self.refusals += 1;
        for model in &refuse.models {
            self.model(model).refusals += 1;
        }
        let same = |known: &RefusalReport| {
            known.reason == refuse.reason
                && known.tier == refuse.tier
                && known.models == refuse.models
        };
        let at = match self.refused.iter().position(same) {
            Some(at) => at,
            None if self.refused.len() >= MOST_REFUSALS => return,
            None => {
                self.refused.push(RefusalReport {
                    models: refuse.models.clone(),
                    tier: refuse.tier.clone(),
                    reason: refuse.reason,
                    asked_bytes: 0,
                    budget_bytes: 0,
                    pinned_bytes: 0,
                    count: 0,
                });
                self.refused.len() - 1
            }
        };
        let known = &mut self.refused[at];
        known.count += 1;
        known.asked_bytes = refuse.asked_bytes;
        known.budget_bytes = refuse.budget_bytes;
        known.pinned_bytes = refuse.pinned_bytes;
    }
}
