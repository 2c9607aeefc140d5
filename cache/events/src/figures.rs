//! What a device's driver says of its memory.

use malloc_stats::Metric;
use serde::{Deserialize, Serialize};

/// The memory of a device that has a driver, bytes. What nobody can tell is unavailable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceFigures {
    /// The device's name as its driver gives it, such as `NVIDIA H200`.
    pub name: String,
    /// Where it is on the PCI bus, `0000:65:00.0`, by which NVML knows it too; empty where the
    /// driver does not tell.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pci_bus: String,
    /// All its memory.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub total: Metric,
    /// What nobody uses, whichever process.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub free: Metric,
    /// What the cache's own pool has handed out: weights, those included that a caller holds after
    /// their lease.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub pool_used: Metric,
    /// What that pool has of the device, handed out or not.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub pool_reserved: Metric,
    /// Weights that lie outside the pool, in memory that the tensor library allocates itself.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub outside: Metric,
    /// RAM, page-locked, through which weights pass on their way.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub staging: Metric,
    /// The largest block that could still be had, as far as that is known: less than what was refused
    /// last. It is not tried, as trying would take the memory from others.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub largest_block: Metric,
}

/// What a driver said before weights left its device and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceFreed {
    /// What was free before, whichever process used the rest.
    pub free_before: Metric,
    /// What was free after.
    pub free_after: Metric,
    /// What the cache's pool had handed out before.
    pub pool_before: Metric,
    /// What it had handed out after.
    pub pool_after: Metric,
}
