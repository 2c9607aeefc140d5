//! What is kept of lists and texts that come from a stream: a thousand decisions and thousands of
//! models are kept, and each line may have megabytes.

use plimsoll_events::{Candidate, EvictReason};

use super::decisions::What;

/// Bytes of one text.
pub(super) const LONGEST: usize = 1024;
/// Candidates of one eviction.
const MOST_CANDIDATES: usize = 512;
/// Models that one lease asked for.
const MOST_MODELS: usize = 64;

/// As much of a text as is kept.
pub(super) fn cut(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    format!("{}..", &text[..text.floor_char_boundary(LONGEST)])
}

fn shorten(text: &mut String) {
    if text.len() > LONGEST {
        *text = cut(text);
    }
}

fn shorten_all(texts: &mut Vec<String>) {
    texts.truncate(MOST_MODELS);
    texts.shrink_to_fit();
    texts.iter_mut().for_each(shorten);
}

impl What {
    /// Keeps no more of it than that.
    pub(super) fn bound(&mut self) {
        match self {
            What::Load(load, ..) => {
                shorten(&mut load.model);
                shorten(&mut load.tier);
                load.error.iter_mut().for_each(shorten);
            }
            What::Evict(evict, ..) => {
                shorten(&mut evict.model);
                shorten(&mut evict.tier);
                if let EvictReason::Room { wanted_for, .. } = &mut evict.reason {
                    shorten_all(wanted_for);
                }
                let besides = evict.considered.len().saturating_sub(MOST_CANDIDATES);
                evict.considered_besides = evict.considered_besides.saturating_add(besides as u64);
                evict.considered.truncate(MOST_CANDIDATES);
                evict.considered.shrink_to_fit();
                let models = evict.considered.iter_mut();
                models.for_each(|Candidate { model, .. }| shorten(model));
            }
            What::Refuse(refuse) => {
                shorten_all(&mut refuse.models);
                shorten(&mut refuse.tier);
            }
            What::Budget(change) => {
                shorten(&mut change.tier);
                shorten(&mut change.bound);
                shorten(&mut change.cause);
            }
            What::Reclaim(done) => shorten(&mut done.action),
        }
    }
}
