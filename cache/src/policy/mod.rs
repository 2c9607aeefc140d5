//! Choosing what to evict.

mod lru;

pub use lru::Lru;

/// A resident model, as a policy sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resident<'a> {
    /// The model's name.
    pub name: &'a str,
    /// What evicting it frees, bytes.
    pub bytes: u64,
    /// When it was last leased, nanoseconds by the cache's clock.
    pub last_leased_ns: u64,
    /// How often it was leased since it was first known.
    pub leases: u64,
    /// What bringing it back took the last time, nanoseconds: from RAM where it is there too, else
    /// from its files. 0 where that was never done.
    pub reload_ns: u64,
    /// Where it is mapped: bytes that coming back would have to read from the disk, as they were
    /// when that was last looked at, a second ago or more. `None` where nobody has looked, and for
    /// all that is not mapped.
    pub reload_bytes: Option<u64>,
    /// Whether it is in another tier as well.
    pub elsewhere: bool,
}

/// Orders resident models by what their eviction would cost.
///
/// A policy MUST be a pure function of what it is given: the cache calls it under its lock, and
/// records its scores with each decision. It MUST NOT block. It need not know which models are
/// leased; those are never candidates.
pub trait Policy: Send + Sync {
    /// Its name, for reports.
    fn name(&self) -> &'static str;

    /// The worth of keeping a model. The lowest goes first; NaN counts as the lowest.
    fn score(&self, resident: &Resident<'_>) -> f64;
}

/// Chooses victims until `needed` bytes are free: lowest score first, then without those that turn
/// out unnecessary, so that a small model does not go in vain beside a large one that has to.
///
/// Returns indices into `candidates`, or `None` where all of them together do not suffice.
#[must_use]
pub fn choose(candidates: &[(f64, u64)], needed: u64) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let rank = |index: &usize| {
        let score = candidates[*index].0;
        if score.is_nan() {
            f64::NEG_INFINITY
        } else {
            score
        }
    };
    order.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let mut freed = 0_u64;
    let mut chosen = Vec::new();
    for index in order {
        if freed >= needed {
            break;
        }
        freed += candidates[index].1;
        chosen.push(index);
    }
    if freed < needed {
        return None;
    }
    for at in (0..chosen.len()).rev() {
        let bytes = candidates[chosen[at]].1;
        if freed - bytes >= needed {
            freed -= bytes;
            chosen.remove(at);
        }
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_victim_is_spared_when_a_large_one_has_to_go_anyway() {
        assert_eq!(choose(&[(1.0, 10), (2.0, 200)], 100), Some(vec![1]));
    }

    proptest! {
        #[test]
        fn victims_suffice_and_each_is_needed(
            candidates in proptest::collection::vec((any::<f64>(), 1_u64..1000), 0..20),
            needed in 0_u64..5000,
        ) {
            let all: u64 = candidates.iter().map(|candidate| candidate.1).sum();
            match choose(&candidates, needed) {
                None => prop_assert!(all < needed),
                Some(chosen) => {
                    let freed: u64 = chosen.iter().map(|index| candidates[*index].1).sum();
                    prop_assert!(freed >= needed);
                    for index in chosen {
                        prop_assert!(freed - candidates[index].1 < needed);
                    }
                }
            }
        }
    }
}
