//! Is a difference between two profiles more than noise?

use serde::{Deserialize, Serialize};

use crate::statistics::tails;

/// With fewer runs on a side the ranks of no two samples are improbable enough.
pub const LEAST_RUNS: usize = 5;
/// A difference is one where chance gives such ranks, or more extreme ones, no oftener than this.
/// Five runs each that do not overlap at all come to 0.0079.
pub const PROBABILITY: f64 = 0.01;
/// The rule in a line, for people.
pub const RULE: &str = "better and worse: the ranks of the runs differ with p <= 0.01 (two-sided \
     exact Mann-Whitney test, at least 5 runs of each: none of five may overlap); of a hundred \
     comparisons one differs by chance";

/// How a profile differs from another in one measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Less, by [`RULE`].
    Better,
    /// More.
    Worse,
    /// No difference that could be told from noise.
    WithinNoise,
    /// Fewer than [`LEAST_RUNS`] of either.
    TooFew,
    /// There is nothing to compare with, and why.
    Absent(String),
}

impl Difference {
    /// How `other` differs from `reference`, and how probable such ranks are by chance.
    #[must_use]
    pub fn between(reference: &[f64], other: &[f64]) -> (Difference, Option<f64>) {
        if reference.len() < LEAST_RUNS || other.len() < LEAST_RUNS {
            return (Difference::TooFew, None);
        }
        let Some(tails) = tails(reference, other) else {
            return (Difference::TooFew, None);
        };
        let probability = tails.either();
        let difference = if probability > PROBABILITY {
            Difference::WithinNoise
        } else if tails.less < tails.greater {
            Difference::Better
        } else {
            Difference::Worse
        };
        (difference, Some(probability))
    }

    /// The same, seen from the other side.
    pub(crate) fn reversed(self) -> Difference {
        match self {
            Difference::Better => Difference::Worse,
            Difference::Worse => Difference::Better,
            other => other,
        }
    }

    /// Neither worse nor unknown.
    pub(crate) fn is_no_worse(&self) -> bool {
        matches!(self, Difference::Better | Difference::WithinNoise)
    }
}

/// The ratio of two medians; `None` where that says nothing: of nothing, of what is below nothing
/// (memory may fall below its baseline), or beyond all numbers.
pub(crate) fn ratio(reference: f64, other: f64) -> Option<f64> {
    (reference > 0.0 && other >= 0.0)
        .then(|| other / reference)
        .filter(|ratio| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_that_do_not_overlap_differ_and_one_crossing_is_noise() {
        let five = [1.0, 2.0, 3.0, 4.0, 5.0];
        let above = [6.0, 7.0, 8.0, 9.0, 10.0];
        let crossing = [4.5, 7.0, 8.0, 9.0, 10.0];
        assert_eq!(Difference::between(&five, &above).0, Difference::Worse);
        assert_eq!(Difference::between(&above, &five).0, Difference::Better);
        let (difference, p) = Difference::between(&five, &crossing);
        assert_eq!(difference, Difference::WithinNoise);
        assert!(p.is_some_and(|p| p > PROBABILITY));
        let touching = [5.0, 7.0, 8.0, 9.0, 10.0];
        assert_eq!(
            Difference::between(&five, &touching).0,
            Difference::WithinNoise
        );
        assert_eq!(
            Difference::between(&five[..4], &above),
            (Difference::TooFew, None)
        );
    }

    #[test]
    fn nothing_has_no_ratio() {
        assert_eq!(ratio(0.0, 5.0), None);
        assert_eq!(ratio(5.0, 0.0), Some(0.0));
        assert_eq!(ratio(5.0, -1.0), None);
        assert_eq!(ratio(1e-300, 1e300), None);
    }
}
