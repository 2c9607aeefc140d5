//! What was done, why, with which numbers, and what the system got back.

use malloc_stats::{Metric, Snapshot};
use serde::{Deserialize, Serialize};

/// A model came into a tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The model's name.
    pub model: String,
    /// The tier: `ram`, or a device.
    pub tier: String,
    /// Bytes of weights.
    pub bytes: u64,
    /// What its memory counts against the budget: weights, alignment and rounding to pages.
    pub charged_bytes: u64,
    /// How long it took, microseconds, snapshots not counted.
    pub took_us: u64,
    /// Bytes that came to lie in pages which an eviction left behind.
    pub recycled_bytes: u64,
    /// Recycled bytes that this load did not use and gave back to the system before it ended.
    pub gave_back: Metric,
    /// What the two snapshots cost, microseconds.
    pub snapshots_us: u64,
    /// Memory before.
    pub before: Snapshot,
    /// Memory after.
    pub after: Snapshot,
    /// Why it failed, where it did. Its memory is given back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Why a model was evicted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum EvictReason {
    /// Room was needed.
    Room {
        /// For which models.
        wanted_for: Vec<String>,
        /// Bytes asked.
        asked_bytes: u64,
        /// Bytes that the budget had free.
        free_bytes: u64,
    },
    /// It was asked for by name.
    Dropped,
    /// The cache was cleared, or ended.
    Cleared,
}

/// A model that was considered for eviction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub model: String,
    /// What evicting it would free, bytes.
    pub bytes: u64,
    /// The policy's score; the lowest goes first. Absent where it was no candidate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<Skipped>,
}

/// Why a model could not be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Skipped {
    /// Leases hold it.
    Leased {
        /// How many.
        leases: u32,
    },
    /// It is asked for by the same lease.
    Wanted,
    /// Enough room was found without it.
    NotNeeded,
}

/// A model left a tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evict {
    /// The model's name.
    pub model: String,
    /// The tier it left.
    pub tier: String,
    /// Why.
    #[serde(flatten)]
    pub reason: EvictReason,
    /// Bytes of weights.
    pub bytes: u64,
    /// Bytes that its memory counted against the budget.
    pub freed_bytes: u64,
    /// The part whose pages wait to become the next model's.
    pub recycled_bytes: u64,
    /// The part that somebody still holds as tensors. It stays counted until they are dropped.
    pub held_bytes: u64,
    /// Bytes that the system really got back: exact for our own regions and while nothing else
    /// was loading, estimated otherwise.
    pub returned: Metric,
    /// How long it took, microseconds, snapshots not counted.
    pub took_us: u64,
    /// What the two snapshots cost, microseconds.
    pub snapshots_us: u64,
    /// The models that were in the tier, with their scores and why each was skipped: all victims
    /// and, of the others, those that would have gone next.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub considered: Vec<Candidate>,
    /// How many more were considered and are not listed.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub considered_besides: u64,
    /// Memory before.
    pub before: Snapshot,
    /// Memory after.
    pub after: Snapshot,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a lease was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefuseReason {
    /// It exceeds the whole budget and can never be met.
    ExceedsBudget,
    /// Everything that could make room is leased.
    Leased,
    /// It waited as long as it was allowed to.
    Timeout,
}

/// A lease was refused; nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refuse {
    /// The models it asked for.
    pub models: Vec<String>,
    /// The tier.
    pub tier: String,
    /// Why.
    pub reason: RefuseReason,
    /// Bytes that all its models need together.
    pub asked_bytes: u64,
    /// The tier's budget, bytes.
    pub budget_bytes: u64,
    /// Bytes that leases and held tensors pin.
    pub pinned_bytes: u64,
}
