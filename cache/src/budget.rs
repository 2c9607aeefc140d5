//! Budgets: how many bytes a tier may hold, fixed or following the machine.

use malloc_stats::size::Size;

/// What a device's budget leaves to everything else, where nothing is said: 3 GiB.
pub const DEVICE_RESERVE: u64 = 3 << 30;

/// The least that an automatic budget of RAM leaves to everything else.
const LEAST_RAM_RESERVE: u64 = 256 << 20;

/// How many bytes a tier may hold.
///
/// The *reserve* is what is left to everything else: the program's heap, its activations, other
/// processes. Working memory that leases declare is covered by it first. Do not subtract it from
/// the bytes yourself as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub(crate) limit: Limit,
    pub(crate) reserve: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Fixed(u64),
    Auto,
}

impl Budget {
    /// So many bytes, and no reserve unless one is set.
    #[must_use]
    pub const fn fixed(bytes: u64) -> Budget {
        Budget {
            limit: Limit::Fixed(bytes),
            reserve: None,
        }
    }

    /// As many bytes as there are memory addresses.
    #[must_use]
    pub const fn unlimited() -> Budget {
        Budget::fixed(u64::MAX)
    }

    /// What the machine has: bytes that the cache itself counts, plus what nobody uses below the
    /// tightest limit, plus page cache that the kernel could drop there, less the reserve. For RAM
    /// the limits are those of the cgroup, its ancestors and the host; for a device what its driver
    /// says is free. The budget follows as they change, and what no longer fits is evicted.
    ///
    /// The reserve is 3 GiB on a device, and in RAM 256 MiB or 10 % of the limit, if that is more.
    #[must_use]
    pub const fn auto() -> Budget {
        Budget {
            limit: Limit::Auto,
            reserve: None,
        }
    }

    /// Leaves so many bytes to everything else.
    #[must_use]
    pub const fn reserve(mut self, bytes: u64) -> Budget {
        self.reserve = Some(bytes);
        self
    }
}

impl From<u64> for Budget {
    fn from(bytes: u64) -> Budget {
        Budget::fixed(bytes)
    }
}

impl From<Size> for Budget {
    fn from(size: Size) -> Budget {
        Budget::fixed(size.0)
    }
}

/// What an automatic budget of RAM leaves, where nothing is said, of a limit of so many bytes.
pub(crate) fn ram_reserve(limit: u64) -> u64 {
    LEAST_RAM_RESERVE.max(limit / 10)
}

/// A budget is lowered by no less than this share of it, or [`SMALLEST_STEP`].
const LOWER: u64 = 100;
/// A budget is raised by no less than this share of it, or [`SMALLEST_RAISE`].
const RAISE: u64 = 20;
const SMALLEST_STEP: u64 = 4 << 20;
const SMALLEST_RAISE: u64 = 64 << 20;
/// How long there has to be more before a budget is raised.
const RAISE_AFTER_NS: u64 = 1_000_000_000;
/// How long there has to be more, if less more than that, but no trifle: what a moment took off a
/// budget is not to be lost for good.
const RAISE_ANYWAY_AFTER_NS: u64 = 10_000_000_000;

/// Follows what is measured, with hysteresis: lowered at once, raised when there has been more for
/// a while, and left alone for trifles. Pure: the same measurements give the same budgets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Follower {
    budget: Option<u64>,
    /// Since when there was much more, and the least of it.
    much: Option<(u64, u64)>,
    /// The same for any more that is no trifle.
    some: Option<(u64, u64)>,
}

/// Notes that there is more at this time, and says what a budget is raised to once it was so for
/// long enough.
fn raise(more: &mut Option<(u64, u64)>, measured: u64, now_ns: u64, after_ns: u64) -> Option<u64> {
    let (since, least) = more.get_or_insert((now_ns, measured));
    *least = measured.min(*least);
    (now_ns.saturating_sub(*since) >= after_ns).then_some(*least)
}

impl Follower {
    /// Takes a measurement, and says what the budget is to be from now on, if it is to change.
    pub(crate) fn next(&mut self, measured: u64, now_ns: u64) -> Option<u64> {
        let Some(budget) = self.budget else {
            self.budget = Some(measured);
            return Some(measured);
        };
        let trifle = (budget / LOWER).max(SMALLEST_STEP);
        let is_less =
            measured < budget.saturating_sub(trifle) || (measured < budget && measured == 0);
        let is_much = measured > budget.saturating_add((budget / RAISE).max(SMALLEST_RAISE));
        let is_some = measured > budget.saturating_add(trifle);
        let mut next = is_less.then_some(measured);
        if is_much {
            next = raise(&mut self.much, measured, now_ns, RAISE_AFTER_NS);
        } else {
            self.much = None;
        }
        if is_some {
            let some = raise(&mut self.some, measured, now_ns, RAISE_ANYWAY_AFTER_NS);
            next = next.or(some);
        } else {
            self.some = None;
        }
        if next.is_some() {
            *self = Follower {
                budget: next,
                ..Follower::default()
            };
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const GIB: u64 = 1 << 30;

    #[test]
    fn a_budget_falls_at_once_and_rises_after_a_while() {
        let mut follower = Follower::default();
        assert_eq!(follower.next(8 * GIB, 0), Some(8 * GIB));
        assert_eq!(follower.next(8 * GIB - (1 << 20), 1), None, "a trifle");
        assert_eq!(follower.next(6 * GIB, 2), Some(6 * GIB));
        assert_eq!(follower.next(9 * GIB, 3), None, "it may not last");
        assert_eq!(follower.next(7 * GIB, 3 + SECOND / 2), None);
        assert_eq!(
            follower.next(8 * GIB, 3 + SECOND),
            Some(7 * GIB),
            "the least of it"
        );
    }

    #[test]
    fn a_budget_that_was_raised_for_a_moment_only_does_not_swing() {
        let mut follower = Follower::default();
        follower.next(4 * GIB, 0);
        for second in 0..20 {
            let there = if second % 2 == 0 { 5 * GIB } else { 4 * GIB };
            assert_eq!(follower.next(there, second * SECOND / 2), None);
        }
    }

    #[test]
    fn what_a_moment_took_off_a_small_budget_comes_back() {
        let mut follower = Follower::default();
        let whole = GIB / 4;
        assert_eq!(follower.next(whole, 0), Some(whole));
        let less = whole - (50 << 20);
        assert_eq!(follower.next(less, SECOND), Some(less));
        for second in 2..12 {
            assert_eq!(follower.next(whole, second * SECOND), None);
        }
        assert_eq!(follower.next(whole, 12 * SECOND), Some(whole));
    }

    proptest! {
        #[test]
        fn what_is_given_was_measured_and_never_more_than_a_second_ago(
            measured in proptest::collection::vec((0_u64..64, 0_u64..3), 1..60)
        ) {
            let mut follower = Follower::default();
            let mut now = 0;
            let mut recent = Vec::new();
            for (quarters, thirds) in measured {
                now += thirds * SECOND / 3;
                let bytes = quarters * GIB / 4;
                recent.push(bytes);
                if let Some(budget) = follower.next(bytes, now) {
                    prop_assert!(recent.contains(&budget));
                    prop_assert!(budget <= bytes, "never above what there is");
                }
            }
        }
    }
}
