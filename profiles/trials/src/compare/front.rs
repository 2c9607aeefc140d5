//! Which profiles are worth having at all: those that no other one beats.

use super::difference::Difference;

/// The runs of a profile in the two measures that are traded for each other.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a> {
    /// Bytes.
    pub memory: &'a [f64],
    /// Seconds.
    pub time: &'a [f64],
}

/// How one differs from another in both.
#[derive(Debug, Clone)]
struct Against {
    memory: Difference,
    time: Difference,
}

impl Against {
    fn of(one: &Runs<'_>, other: &Runs<'_>) -> Against {
        Against {
            memory: Difference::between(other.memory, one.memory).0,
            time: Difference::between(other.time, one.time).0,
        }
    }

    fn reversed(self) -> Against {
        Against {
            memory: self.memory.reversed(),
            time: self.time.reversed(),
        }
    }

    /// No worse in both, and better beyond noise in one. With too few runs it never is.
    fn dominates(&self) -> bool {
        let both = [&self.memory, &self.time];
        both.iter().all(|one| one.is_no_worse()) && both.contains(&&Difference::Better)
    }
}

/// Which of them no other dominates (the Pareto front), in their order. One dominates another that
/// is no worse in both measures, and better beyond noise in one.
#[must_use]
pub fn front(profiles: &[Runs<'_>]) -> Vec<usize> {
    let mut is_beaten = vec![false; profiles.len()];
    // Each pair once, as the test takes its time with many runs.
    for (at, one) in profiles.iter().enumerate() {
        for (other_at, other) in profiles.iter().enumerate().skip(at + 1) {
            let against = Against::of(one, other);
            is_beaten[other_at] |= against.dominates();
            is_beaten[at] |= against.reversed().dominates();
        }
    }
    (0..profiles.len()).filter(|at| !is_beaten[*at]).collect()
}
