//! What a measurement saw.

use serde::{Deserialize, Serialize};

use super::Measure;
use crate::metric::Metric;

/// The memory of the process at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CycleMemory {
    /// Resident anonymous memory: `RssAnon` of `/proc/self/status`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub rss: Metric,
    /// In blocks handed out and not freed, as the allocator counts.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub in_use: Metric,
}

/// What a closure did to the memory of a process of its own, over cycles.
///
/// The fields have grades. The methods give plain numbers to assert on, and what is not known is
/// never less than a bound there: `u64::MAX`, or a NaN, with which every comparison is false. So an
/// assertion on something that cannot be known fails, and the text of this says why.
///
/// Prints as one paragraph: the numbers, and what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Fragmentation {
    /// Who served, such as `glibc 2.36`.
    pub allocator: String,
    /// How often the closure was called before the baseline.
    pub warm_up: usize,
    /// Before the first call.
    pub start: CycleMemory,
    /// After the warm-up, and after the allocator gave back what it could.
    pub baseline: CycleMemory,
    /// After each call.
    pub cycles: Vec<CycleMemory>,
    /// The most that was resident during the cycles: the baseline and how far `VmHWM` rose above
    /// what was resident then, so with the pages of files that were mapped meanwhile.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub peak: Metric,
    /// Resident anonymous memory after the last cycle and one more probe.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub after_purge: Metric,
    /// Of that, what lies unused at the ends of arenas other than the main one, at least; glibc's
    /// `malloc_trim` never gives those back. Unavailable for other allocators.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub arena_ends: Metric,
    /// What made the allocator give memory back: `malloc_trim(0)` or the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged_by: Option<String>,
    /// Why something is unavailable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Kept memory below this says nothing; see [`assert_returns_memory`](super::assert_returns_memory).
const LEAST_KEPT: u64 = 1 << 20;

/// A leak of less than this each cycle may be a cache that fills.
const LEAST_LEAK: u64 = 4096;

/// Slopes are taken of this many points at most: the pairs of more would take seconds.
const MOST_POINTS: usize = 512;

impl Fragmentation {
    /// Measures `closure` over so many cycles, after one call to warm up.
    ///
    /// # Panics
    ///
    /// Where it could not be measured (see the [module](super)), and with no cycles at all.
    #[track_caller]
    pub fn over<R>(cycles: usize, closure: impl FnMut() -> R) -> Self {
        Self::measure().cycles(cycles).over(closure)
    }

    /// To say more before it is measured.
    pub fn measure() -> Measure {
        Measure::default()
    }

    /// What was resident after the last cycle beyond the baseline, in bytes: held back by the
    /// allocator, pinned, or leaked.
    #[must_use]
    pub fn retained(&self) -> u64 {
        known(self.last().rss.minus_saturating(self.baseline.rss))
    }

    /// What of it stays when the allocator gives back what it can, in bytes: pinned by blocks in
    /// use, leaked, at the [end of an arena](Self::arena_ends), or not the allocator's.
    #[must_use]
    pub fn structural(&self) -> u64 {
        known(self.after_purge.minus_saturating(self.baseline.rss))
    }

    /// What the probe after the last cycle made the allocator give back, in bytes.
    #[must_use]
    pub fn trim_gap(&self) -> u64 {
        known(self.last().rss.minus_saturating(self.after_purge))
    }

    /// How many bytes the closure took at its peak, beyond the baseline.
    #[must_use]
    pub fn took(&self) -> Metric {
        self.peak.minus_saturating(self.baseline.rss)
    }

    /// By how many bytes the memory in use grows each cycle: the median of the slopes between all
    /// pairs of moments (Theil–Sen), the baseline among them, without the first quarter.
    #[must_use]
    pub fn leak_per_cycle(&self) -> f64 {
        slope(
            std::iter::once(&self.baseline)
                .chain(&self.cycles)
                .map(|memory| memory.in_use),
        )
    }

    /// By how many bytes resident memory grows each cycle; the same of the moments after each
    /// cycle, so of at least two.
    #[must_use]
    pub fn growth_per_cycle(&self) -> f64 {
        slope(self.cycles.iter().map(|memory| memory.rss))
    }

    /// Fails as [`assert_returns_memory`](super::assert_returns_memory) does.
    ///
    /// # Panics
    ///
    /// Where memory is kept, or that cannot be known.
    #[track_caller]
    pub fn assert_returned(&self) {
        let leak = self.leak_per_cycle();
        // Where the allocator's numbers cannot be had, a NaN, what is resident decides alone.
        let leaks = leak > self.most_leaked();
        assert!(
            !leaks && self.retained() <= self.most_kept(),
            "memory is not given back. {self}"
        );
    }

    /// How much may be kept.
    pub(super) fn most_kept(&self) -> u64 {
        LEAST_KEPT.max(self.took().bytes().unwrap_or(0) / 20)
    }

    /// How much may be leaked each cycle.
    pub(super) fn most_leaked(&self) -> f64 {
        LEAST_LEAK.max(self.took().bytes().unwrap_or(0) / 1000) as f64
    }

    pub(super) fn last(&self) -> CycleMemory {
        self.cycles.last().copied().unwrap_or_default()
    }
}

fn known(metric: Metric) -> u64 {
    metric.bytes().unwrap_or(u64::MAX)
}

/// Theil–Sen over the later three quarters; a NaN with fewer than two points, or where one of them
/// is unavailable.
fn slope(metrics: impl Iterator<Item = Metric>) -> f64 {
    let Some(values) = metrics.map(Metric::bytes).collect::<Option<Vec<u64>>>() else {
        return f64::NAN;
    };
    let steady = values.get(values.len() / 4..).unwrap_or_default();
    let step = steady.len().div_ceil(MOST_POINTS).max(1);
    let points: Vec<(usize, u64)> = steady.iter().copied().enumerate().step_by(step).collect();
    let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
    for (at, (from, before)) in points.iter().enumerate() {
        for (to, after) in points.iter().skip(at + 1) {
            let rise = i128::from(*after) - i128::from(*before);
            slopes.push(rise as f64 / (to - from) as f64);
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let middle = slopes.len() / 2;
    match (slopes.get(middle.wrapping_sub(1)), slopes.get(middle)) {
        (Some(below), Some(above)) if slopes.len() % 2 == 0 => f64::midpoint(*below, *above),
        (_, Some(median)) => *median,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> f64 {
        slope(values.into_iter().map(Metric::Exact))
    }

    #[test]
    fn too_few_points_have_no_slope_and_absent_ones_none_either() {
        assert!(of([]).is_nan());
        assert!(of([7]).is_nan());
        assert_eq!(of([7, 9]), 2.0);
        let gap = [Metric::Exact(1), Metric::Unavailable, Metric::Exact(3)];
        assert!(slope(gap.into_iter()).is_nan());
    }

    #[test]
    fn what_is_not_known_passes_no_assertion() {
        let nothing = Fragmentation::default();
        assert_eq!(nothing.retained(), u64::MAX);
        assert_eq!(nothing.structural(), u64::MAX);
        assert_eq!(nothing.trim_gap(), u64::MAX);
        assert!(nothing.leak_per_cycle().is_nan());
        assert_eq!(nothing.took(), Metric::Unavailable);
    }

    proptest! {
        #[test]
        fn a_steady_growth_is_found_whatever_the_first_quarter_and_a_few_outliers_do(
            count in 8_u64..2000,
            growth in 0_u64..1 << 20,
            first in proptest::collection::vec(0_u64..1 << 40, 500),
            outlier in 0_u64..1 << 50,
        ) {
            let mut values: Vec<u64> = (0..count).map(|at| (1 << 30) + at * growth).collect();
            let skipped = values.len() / 4;
            for (value, other) in values.iter_mut().take(skipped).zip(&first) {
                *value = *other;
            }
            let last = values.len() - 1;
            prop_assert_eq!(of(values.clone()), growth as f64);
            if count >= 16 {
                values[last] = outlier;
                let found = of(values);
                prop_assert!((found - growth as f64).abs() < 1.0, "{found} for {growth}");
            }
        }
    }
}
