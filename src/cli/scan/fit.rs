//! What is free here, and what fits into it.

use malloc_stats::{Grade, Limits, Metric, Vram, gpu};
use serde::Serialize;

/// What is free here.
#[derive(Debug, Serialize)]
pub(super) struct Room {
    /// Of RAM, within the limits of this process.
    pub(super) ram: Metric,
    /// What bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ram_bound: Option<String>,
    pub(super) vram: Vec<Vram>,
    /// Why nothing is known of VRAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vram_unavailable: Option<String>,
}

impl Room {
    pub(super) fn here() -> Self {
        let tightest = Limits::of_self().tightest();
        let (vram, vram_unavailable) = match gpu::read() {
            Ok(vram) => (vram, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        Self {
            ram: tightest
                .as_ref()
                .map_or(Metric::Unavailable, |tightest| tightest.headroom),
            ram_bound: tightest.map(|tightest| tightest.bound.to_string()),
            vram,
            vram_unavailable,
        }
    }

    /// The GPU with the most free memory: a model that fits nowhere else fits there.
    pub(super) fn roomiest(&self) -> Metric {
        let free = self.vram.iter().map(|vram| vram.free);
        free.max_by_key(|free| free.bytes()).unwrap_or_default()
    }
}

/// Whether something fits, as far as can be told. `fits` is absent where that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Fit {
    #[serde(skip_serializing_if = "Option::is_none")]
    fits: Option<bool>,
    grade: Grade,
}

impl Fit {
    pub(super) fn of(bytes: u64, free: Metric) -> Self {
        let fits = free.bytes().map(|free| bytes <= free);
        let grade = match (free.grade(), fits) {
            // What exceeds even an upper bound does not fit, and nothing is estimated about that.
            (Grade::Upper, Some(false)) => Grade::Exact,
            (grade, _) => grade,
        };
        Self { fits, grade }
    }

    pub(super) fn text(self) -> &'static str {
        match (self.fits, self.grade) {
            (None, _) => "n/a",
            (Some(true), Grade::Upper) => "maybe",
            (Some(true), Grade::Estimated) => "~yes",
            (Some(false), Grade::Estimated) => "~no",
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
        }
    }
}
