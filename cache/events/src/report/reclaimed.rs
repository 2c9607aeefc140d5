//! Memory that was asked back from the allocator.

use malloc_stats::Metric;
use serde::{Deserialize, Serialize};

use crate::decision::Reclaim;

/// What reclaims came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ReclaimReport {
    /// How many.
    pub count: u64,
    /// Seconds that they took.
    pub seconds: f64,
    /// Bytes by which resident memory fell, of all together. They are in no other number.
    pub gained: Metric,
    /// How many were looked at again after a while.
    pub settled: u64,
    /// What was left then of the gains of those, bytes; negative where the heap had grown beyond
    /// what it was. Absent where none was looked at again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub net_bytes: Option<i64>,
}

impl ReclaimReport {
    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.settled == 0
    }

    pub(super) fn fold(&mut self, reclaim: &Reclaim) {
        if let Some(settled) = reclaim.settled {
            self.settled += 1;
            let net = self.net_bytes.unwrap_or(0);
            self.net_bytes = Some(net.saturating_add(settled.net_bytes));
            return;
        }
        self.gained = if self.count == 0 {
            reclaim.gain
        } else {
            self.gained.plus(reclaim.gain)
        };
        self.count += 1;
        self.seconds += reclaim.took_us as f64 / 1e6;
    }
}
