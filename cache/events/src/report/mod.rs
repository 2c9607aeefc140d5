//! The report: a fold over the stream.
//!
//! | file | what |
//! |---|---|
//! | `fold` | how each kind of event counts |
//! | `tiers` | tiers, and what came into them and left them |
//! | `refused` | leases that were refused |
//! | `streams` | models that were leased in part |
//! | `reclaimed` | memory that was asked back from the allocator |

mod fold;
mod reclaimed;
mod refused;
mod streams;
mod tiers;

use std::collections::{BTreeMap, HashMap};

use malloc_stats::{Allocator, Metric};
use serde::{Deserialize, Serialize};

use crate::event::ModelSeen;

pub use reclaimed::ReclaimReport;
pub use refused::RefusalReport;
pub use streams::StreamReport;
pub use tiers::{TierReport, TransferReport, UnloadReport};

/// The version of the report's JSON form.
pub const SCHEMA: u32 = 2;

/// The tier that is RAM.
const RAM: &str = "ram";

/// What a run came to. The JSON form of this is what `run --json` and `replay --json` print.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether the stream ended in order. If not, what follows is up to its last event.
    pub complete: bool,
    /// The program that wrote the stream.
    pub program: String,
    /// The profile's name.
    pub profile: String,
    /// The allocator that served, in words.
    pub allocator: String,
    /// The descriptor behind it, with the settings in force.
    pub settings: Option<Allocator>,
    /// Where weights were kept in RAM.
    pub storage: String,
    /// What the run was asked for.
    pub options: BTreeMap<String, String>,
    /// The RAM budget, the last one where it follows the machine; absent where there was no cache.
    pub budget_bytes: Option<u64>,
    /// The smallest RAM budget; absent where it does not follow the machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget_low_bytes: Option<u64>,
    /// The largest RAM budget; absent where it does not follow the machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget_high_bytes: Option<u64>,
    /// Resident memory before the first load.
    pub baseline_rss_bytes: Option<u64>,
    /// The most that was live at the end of a load or step, the churn's blocks included.
    pub live_peak_bytes: u64,
    /// The most that was resident (VmHWM).
    pub rss_peak_bytes: Option<u64>,
    /// The worst of resident − baseline − live after a step.
    pub excess_bytes: Option<i64>,
    /// Resident − baseline with everything dropped, after the time to settle.
    pub retained_bytes: Option<i64>,
    /// Resident because of the allocator and in no block in use, with everything dropped.
    #[serde(skip_serializing_if = "Metric::is_unavailable", default)]
    pub waste: Metric,
    /// What is left of that once the allocator was asked to give everything back that it can: held
    /// by fragmentation.
    #[serde(skip_serializing_if = "Metric::is_unavailable", default)]
    pub structural: Metric,
    /// Memory at the end of each cycle, with everything dropped.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub cycles: Vec<CycleReport>,
    /// Bytes of RAM that evictions freed, by the cache's own count.
    pub freed_bytes: u64,
    /// Bytes of RAM that the system got back from evictions, and from what loads left over. What
    /// reclaims gained is apart from it, in `reclaims`.
    pub returned_bytes: u64,
    /// Whether every part of `returned_bytes` is exact.
    pub returned_exact: bool,
    /// Bytes that were loaded into pages of RAM which evictions left behind.
    pub recycled_bytes: u64,
    /// Models loaded, once for each tier.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Leases of resident models.
    pub hits: u64,
    /// Models evicted, dropped or cleared, once for each tier.
    pub evictions: u64,
    /// Evictions to make room for another.
    pub evictions_for_room: u64,
    /// Evictions by reason, as the stream names them: `room`, `idle`, `pressure` and so on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub evictions_by_reason: BTreeMap<String, u64>,
    /// Leases refused.
    pub refusals: u64,
    /// Bytes of weights loaded, once for each tier.
    pub bytes_loaded: u64,
    /// Bytes copied into tensors because their memory could not be adopted.
    pub copied_bytes: u64,
    /// Page faults without I/O since the baseline.
    pub minor_faults: u64,
    /// Seconds spent loading.
    pub load_seconds: f64,
    /// Seconds from the first event to the last.
    pub wall_seconds: f64,
    /// Seconds that snapshots around loads and unloads took.
    pub snapshot_seconds: f64,
    /// Hash over all weights read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checksum: Option<String>,
    /// Hash of each model's weights.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub model_checksums: BTreeMap<String, String>,
    /// Each tier, RAM first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tiers: Vec<TierReport>,
    /// Each model, with what happened to it.
    pub models: Vec<ModelReport>,
    /// What came from where into which tier, one for each model, tier and origin.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub transfers: Vec<TransferReport>,
    /// What left which tier, one for each model and tier.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unloads: Vec<UnloadReport>,
    /// Bytes that patches brought, once for each tier: tensors that they changed, or their own.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub patched_bytes: u64,
    /// Models that were leased in part, one for each tier.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub streams: Vec<StreamReport>,
    /// Leases that were refused, each kind once with how often it came.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub refused: Vec<RefusalReport>,
    /// Freed memory that was asked back from the allocator.
    #[serde(skip_serializing_if = "ReclaimReport::is_empty", default)]
    pub reclaims: ReclaimReport,
    /// Resident above the baseline, and live, after each step.
    pub steps: Vec<StepReport>,
    /// What went wrong with loads, each error once with how often it came.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<ErrorReport>,
    /// Sentences worth reading.
    pub notes: Vec<String>,
    /// Events that are missing from the stream, after the first one that was heard.
    pub missing_events: u64,
    #[serde(skip)]
    index: Index,
    /// The number of the event that comes next, once one was heard.
    #[serde(skip)]
    next_seq: Option<u64>,
    /// Whether the stream was heard from its first event on.
    #[serde(skip)]
    whole: bool,
    #[serde(skip)]
    baseline_faults: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where things are in the lists of a report.
#[derive(Debug, Clone, Default, PartialEq)]
struct Index {
    models: HashMap<String, usize>,
    transfers: HashMap<tiers::Way, usize>,
    unloads: HashMap<(String, String), usize>,
}

/// An error of loads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The model.
    pub model: String,
    /// The error, in words.
    pub error: String,
    /// How often it came.
    pub count: u64,
}

/// What happened to one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The model.
    #[serde(flatten)]
    pub model: ModelSeen,
    /// How often it was loaded, into any tier.
    pub loads: u64,
    /// Leases that found it resident where they asked for it.
    pub hits: u64,
    /// How often it was evicted, from any tier.
    pub evictions: u64,
    /// How often its load failed.
    pub failed_loads: u64,
    /// How often a lease with it was refused.
    pub refusals: u64,
    /// Seconds spent loading it.
    pub load_seconds: f64,
}

/// Memory after a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Weights and churn that were live in memory of this host.
    pub live_bytes: u64,
}

/// Memory with everything dropped, at the end of a cycle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleReport {
    /// Resident memory.
    pub rss_bytes: u64,
    /// In use by the allocator's count.
    #[serde(skip_serializing_if = "Metric::is_unavailable", default)]
    pub in_use: Metric,
    /// The part of that which the program knows of: blocks of the churn that stay.
    pub live_bytes: u64,
}

impl Report {
    /// A report of nothing yet.
    #[must_use]
    pub fn new() -> Report {
        Report {
            schema: SCHEMA,
            returned_exact: true,
            ..Report::default()
        }
    }

    /// What snapshots cost, as a share of the time spent loading.
    #[must_use]
    pub fn snapshot_share(&self) -> Option<f64> {
        (self.loads > 0 && self.load_seconds > 0.0)
            .then(|| self.snapshot_seconds / self.load_seconds)
    }
}
