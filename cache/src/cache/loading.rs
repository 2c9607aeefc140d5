//! A load under way, for those who join it.

use std::sync::OnceLock;

use crate::error::Error;

/// How a load ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The model is there; a claim has become a pin.
    Loaded,
    /// It failed, for all who waited for it.
    Failed(Error),
    /// The lease it was for failed elsewhere before it began. Whoever joined has to ask again.
    Withdrawn,
}

/// A load under way. Its outcome is set once, before the ledger's waiters are woken.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    outcome: OnceLock<Outcome>,
}

impl Loading {
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    pub(crate) fn finish(&self, outcome: Outcome) {
        // The first word counts: a load that failed is not abandoned as well.
        let _ = self.outcome.set(outcome);
    }
}
