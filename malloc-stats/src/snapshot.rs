//! What memory is doing at one moment.

use serde::{Deserialize, Serialize};

use crate::allocator::Settings;
use crate::gpu::Vram;
use crate::limits::{Host, Limits, Pressure};
use crate::metric::Metric;
use crate::process::Process;
use crate::reading::AllocatorReading;

/// How much a snapshot looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// The process and its cgroup: tens of microseconds, to be taken before and after an action.
    #[default]
    Bracket,
    /// Everything: milliseconds, and more where the allocator has many free chunks.
    Full,
}

/// What memory is doing at one moment. Taken by a [`Reader`](crate::Reader).
///
/// In JSON, what is absent is left out: brackets are recorded by the thousand.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// How much it looked at.
    pub depth: Depth,
    /// When it was begun: microseconds of `CLOCK_MONOTONIC`, so comparable between the processes
    /// of one boot.
    pub at_us: u64,
    /// What taking it cost, in microseconds.
    pub cost_us: u64,
    /// The resident memory and page faults of the process.
    pub process: Process,
    /// What the kernel charges to the process's own cgroup: `memory.current`, or
    /// `memory.usage_in_bytes` of version 1. It is compared with the limit, and counts page cache.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub cgroup_current: Metric,
    /// The latest reading of the allocator; `None` before the first full snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator: Option<AllocatorReading>,
    /// How old that reading is, in microseconds; 0 when it was read in this snapshot.
    #[serde(skip_serializing_if = "is_zero")]
    pub allocator_age_us: u64,
    /// The settings of the allocator in force; of full snapshots.
    #[serde(skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// The limits the process lives under; of full snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The memory of the host; of full snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Time lost waiting for memory; of full snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// The memory of each GPU; of full snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vram: Vec<Vram>,
    /// Why there is no `vram` in a full snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram_absent: Option<String>,
}

impl Snapshot {
    /// When its allocator was read, on the clock of [`at_us`](Self::at_us).
    #[must_use]
    pub fn allocator_read_at_us(&self) -> Option<u64> {
        self.allocator
            .is_some()
            .then(|| self.at_us.saturating_sub(self.allocator_age_us))
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
