//! What a client of a [publication](crate::publish) may ask for, and what it is answered.
//!
//! A request is one JSON object a line, written to the socket; the answer is a line beside the
//! stream ([`Kind::Answer`](crate::Kind::Answer)) to that client alone. What was done is in the
//! stream for everybody, as the events it always makes: evictions, reclaims, budgets. They come
//! before the answer.

use malloc_stats::Metric;
use serde::{Deserialize, Serialize};

/// The longest line of a request, bytes: whoever writes a longer one is hung up on.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// A request, with the number that its answer repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Chosen by who asks.
    pub id: u64,
    /// What is asked for.
    #[serde(flatten)]
    pub request: Request,
}

/// What may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Ask freed memory back from the allocator.
    Trim,
    /// Evict a model from a tier, or from all, where no lease holds it.
    Evict {
        /// The model's name.
        model: String,
        /// The tier; all where none is named.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        tier: Option<String>,
    },
    /// Evict a model, or have it go at the end of the leases that hold it.
    Drop {
        /// The model's name.
        model: String,
    },
    /// Give a tier another budget.
    Budget {
        /// The tier.
        tier: String,
        /// The budget, bytes; absent for one that follows the machine.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bytes: Option<u64>,
    },
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The number of the request.
    pub id: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// By how much resident memory fell, where that is what was asked for.
    #[serde(skip_serializing_if = "Metric::is_unavailable", default)]
    pub gain: Metric,
    /// What was done, in a sentence.
    pub said: String,
    /// Whether it was refused; `said` has the reason.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub refused: bool,
}

impl Answer {
    /// What was done.
    #[must_use]
    pub fn done(said: impl Into<String>) -> Answer {
        Answer {
            said: said.into(),
            ..Answer::default()
        }
    }

    /// Why nothing was done.
    #[must_use]
    pub fn refused(why: impl Into<String>) -> Answer {
        Answer {
            said: why.into(),
            refused: true,
            ..Answer::default()
        }
    }
}
