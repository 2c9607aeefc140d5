//! Bytes with a grade: how far a number may be trusted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::size::Size;

/// How far a number may be trusted; from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// What its source counts, neither rounded nor guessed.
    Exact,
    /// The true value is this or less.
    Upper,
    /// Near the true value, on either side.
    Estimated,
    /// Not known; which is not zero.
    Unavailable,
}

/// A number of bytes with its [`Grade`].
///
/// In serde `{"bytes":4096,"grade":"exact"}`, and `{"grade":"unavailable"}`. Prints as a
/// [`Size`] with a mark: `83.0 MiB`, `≤ 83.0 MiB`, `~83.0 MiB`, `n/a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "Graded", try_from = "Graded")]
pub enum Metric {
    /// What its source counts, in bytes.
    Exact(u64),
    /// At most this many bytes.
    Upper(u64),
    /// About this many bytes.
    Estimated(u64),
    /// Not known; which is not zero.
    #[default]
    Unavailable,
}

impl Metric {
    /// This many bytes with this grade; the bytes are dropped when it is `Unavailable`.
    #[must_use]
    pub const fn graded(bytes: u64, grade: Grade) -> Self {
        match grade {
            Grade::Exact => Self::Exact(bytes),
            Grade::Upper => Self::Upper(bytes),
            Grade::Estimated => Self::Estimated(bytes),
            Grade::Unavailable => Self::Unavailable,
        }
    }

    /// The bytes, where there are any.
    #[must_use]
    pub const fn bytes(self) -> Option<u64> {
        match self {
            Self::Exact(bytes) | Self::Upper(bytes) | Self::Estimated(bytes) => Some(bytes),
            Self::Unavailable => None,
        }
    }

    /// How far they may be trusted.
    #[must_use]
    pub const fn grade(self) -> Grade {
        match self {
            Self::Exact(_) => Grade::Exact,
            Self::Upper(_) => Grade::Upper,
            Self::Estimated(_) => Grade::Estimated,
            Self::Unavailable => Grade::Unavailable,
        }
    }

    /// Whether there is no number. By reference, as serde's `skip_serializing_if` wants it.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// The same bytes, trusted no further than `grade`.
    #[must_use]
    pub fn at_best(self, grade: Grade) -> Self {
        match self.bytes() {
            Some(bytes) => Self::graded(bytes, self.grade().max(grade)),
            None => Self::Unavailable,
        }
    }

    /// The sum, with the worse of the two grades; ends at `u64::MAX`.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    /// The difference, or 0 where `other` is greater, with the worse of the two grades; except
    /// that subtracting an upper bound leaves a *lower* bound, which is graded `Estimated`.
    #[must_use]
    pub fn minus_saturating(self, other: Self) -> Self {
        let difference = self.combine(other, u64::saturating_sub);
        if other.grade() == Grade::Upper {
            difference.at_best(Grade::Estimated)
        } else {
            difference
        }
    }

    /// How far it went from `before` to here, in bytes. `None` where either is unavailable, or
    /// where the distance does not fit.
    #[must_use]
    pub fn since(self, before: Self) -> Option<i64> {
        let difference = i128::from(self.bytes()?) - i128::from(before.bytes()?);
        i64::try_from(difference).ok()
    }

    fn combine(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        match (self.bytes(), other.bytes()) {
            (Some(a), Some(b)) => Self::graded(with(a, b), self.grade().max(other.grade())),
            _ => Self::Unavailable,
        }
    }
}

/// A number that is exact where it is there at all.
impl From<Option<u64>> for Metric {
    fn from(bytes: Option<u64>) -> Self {
        bytes.map_or(Self::Unavailable, Self::Exact)
    }
}

impl Grade {
    /// The mark set before a number of this grade.
    #[must_use]
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Exact | Self::Unavailable => "",
            Self::Upper => "≤ ",
            Self::Estimated => "~",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes() {
            Some(bytes) => f.pad(&format!("{}{}", self.grade().mark(), Size(bytes))),
            None => f.pad("n/a"),
        }
    }
}

/// The form of a metric in JSON.
#[derive(Serialize, Deserialize)]
struct Graded {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    grade: Grade,
}

impl From<Metric> for Graded {
    fn from(metric: Metric) -> Self {
        Self {
            bytes: metric.bytes(),
            grade: metric.grade(),
        }
    }
}

impl TryFrom<Graded> for Metric {
    type Error = &'static str;

    fn try_from(graded: Graded) -> Result<Self, Self::Error> {
        match (graded.bytes, graded.grade) {
            (None, Grade::Unavailable) => Ok(Self::Unavailable),
            (Some(_), Grade::Unavailable) => Err("an unavailable metric has no bytes"),
            (None, _) => Err("a metric that is available needs its bytes"),
            (Some(bytes), grade) => Ok(Self::graded(bytes, grade)),
        }
    }
}
