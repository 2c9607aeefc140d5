//! What was done, why, with which numbers, and what the system got back.

use malloc_stats::{Metric, Snapshot};
use serde::{Deserialize, Serialize};

use crate::figures::DeviceFreed;

/// A model came into a tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The model's name.
    pub model: String,
    /// The model that it is a part of, where it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part_of: Option<String>,
    /// Whether it is what a patch changes, or the patch itself.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_patch: bool,
    /// The tier: `ram`, or a device.
    pub tier: String,
    /// Where its bytes came from.
    #[serde(default)]
    pub from: Origin,
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
    /// Why it is not kept as was asked for: not mapped, or not page-locked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub degraded: Option<String>,
}

/// Where the bytes of a load came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Its files, straight into the tier's memory or through a staging buffer.
    #[default]
    File,
    /// The copy in RAM.
    Ram,
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
    /// It was asked for by name: at once, or at the last release where it was leased.
    Dropped,
    /// The cache was cleared, or ended.
    Cleared,
    /// Nobody leased it for as long as models are kept alive.
    Idle {
        /// That time, milliseconds.
        keep_alive_ms: u64,
    },
    /// The budget shrank below what was there.
    Pressure {
        /// The budget now, bytes.
        budget_bytes: u64,
        /// What counted against it, bytes.
        used_bytes: u64,
    },
    /// The program asked for room.
    Requested {
        /// Bytes asked.
        asked_bytes: u64,
    },
    /// The device said that it had no memory, though the budget had.
    DeviceFull {
        /// Bytes that it refused.
        asked_bytes: u64,
    },
    /// It is to stay in RAM only.
    Offloaded,
    /// A device has it, and copies in RAM are not kept.
    NotKept,
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
    /// Of a model that is mapped, bytes that coming back would have to read from the disk, when that
    /// was last looked at: what the page cache lacks, or all of it where an unload drops its pages.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reload_bytes: Option<u64>,
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
    /// The model that it is a part of, where it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part_of: Option<String>,
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
    /// What of it was page cache, where it was mapped files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page_cache: Option<PageCacheLeft>,
    /// What the device's driver said before and after, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<DeviceFreed>,
    /// Memory before.
    pub before: Snapshot,
    /// Memory after.
    pub after: Snapshot,
}

impl Evict {
    /// What should have gone back to the system, bytes: what nobody holds, and no load waits for.
    /// Nothing of mapped files, which it could take back all along.
    #[must_use]
    pub fn due_bytes(&self) -> u64 {
        if self.page_cache.is_some() {
            return 0;
        }
        let loose = self.freed_bytes.saturating_sub(self.held_bytes);
        loose.saturating_sub(self.recycled_bytes)
    }
}

/// Page cache of mapped files, before and after they were unmapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCacheLeft {
    /// Bytes that were mapped.
    pub mapped_bytes: u64,
    /// What of the files the page cache held, whoever had read it.
    pub resident: Metric,
    /// What it holds afterwards: what is missing is read from the disk when the model comes back.
    /// Absent while tensors still hold the mapping.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left: Option<Metric>,
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
    /// Every lease that could make room is held by a thread that waits for room itself.
    Deadlock,
}

/// A budget that follows the machine has changed, or a live screen has set one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetChange {
    /// The tier.
    pub tier: String,
    /// The budget before, bytes; absent for the first one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub was_bytes: Option<u64>,
    /// The budget now, bytes: counted + unused + reclaimable + working − reserve.
    pub budget_bytes: u64,
    /// What the cache itself has there, bytes.
    pub counted_bytes: u64,
    /// Declared working memory that seems to be in use: what everything else has grown by since
    /// none was declared. The reserve is for it.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub working_bytes: u64,
    /// What nobody uses below the tightest bound.
    pub unused: Metric,
    /// Page cache below the same bound that the kernel could drop; it is no free memory.
    #[serde(skip_serializing_if = "Metric::is_unavailable", default)]
    pub reclaimable: Metric,
    /// What is left to everything else, bytes.
    pub reserve_bytes: u64,
    /// The tightest bound, in words.
    pub bound: String,
    /// What made the cache look: `start`, `pressure`, `poll`, `lease`; or `request`, for one that was
    /// set, of which nothing is unused or reclaimable.
    pub cause: String,
}

/// Freed memory that had not gone back was asked back from the allocator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reclaim {
    /// What was done: `trim`, `purge`.
    pub action: String,
    /// Bytes freed by unloads since the last time that had not come back.
    pub missing_bytes: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// By how much resident memory fell.
    pub gain: Metric,
    /// For the second record of the same action, so long after it: what was left of the gain, with
    /// what the cache itself loaded and dropped since taken out. Absent in the first record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub settled: Option<Settled>,
}

/// What became of a gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Seconds since the action.
    pub after_s: u64,
    /// Bytes that are still not resident; negative where the heap grew beyond what it was.
    pub net_bytes: i64,
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

/// A lease of a model of which a part was on its device has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// The model's name.
    pub model: String,
    /// The tier.
    pub tier: String,
    /// Bytes of the model.
    pub bytes: u64,
    /// Bytes of it that were there at the end.
    pub resident_bytes: u64,
    /// The pool through which the rest came, bytes.
    pub pool_bytes: u64,
    /// Bytes that came through it.
    pub streamed_bytes: u64,
    /// Times that something came.
    pub transfers: u64,
    /// How long those who asked waited for it, microseconds: what fetching ahead has not hidden.
    pub waited_us: u64,
    /// Times that something was asked for which was not next.
    pub out_of_order: u64,
}
