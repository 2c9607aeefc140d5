//! Least recently used.

use super::{Policy, Resident};

/// Evicts what was leased longest ago. It knows nothing of sizes and reload costs, and cyclic
/// workloads larger than the budget never hit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lru;

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn score(&self, resident: &Resident<'_>) -> f64 {
        resident.last_leased_ns as f64
    }
}
