//! What is known at a moment: a fold over the stream.
//!
//! | file | what |
//! |---|---|
//! | `fold` | how each kind of event counts |
//! | `bounds` | what is kept of long lists and texts |
//! | [`series`] | curves, in bounded memory: the older, the coarser |
//! | [`decisions`] | what was decided, the latest |
//! | [`models`] | the models, where they are, and what happened to them |
//! | [`vitals`] | memory, limits, the allocator: the newest of each, with its age |
//! | `contexts` | what a process has of a device besides what its cache counts |
//! | `findings` | what follows from it, in sentences |
//!
//! A state is of bounded size whatever the stream holds, and cheap to clone: a frozen screen has
//! one of its own.

mod bounds;
mod contexts;
pub mod decisions;
mod findings;
mod fold;
pub mod models;
pub mod series;
pub mod vitals;

use std::collections::VecDeque;
use std::sync::Arc;

use malloc_stats::heap::ChunksSeen;
use malloc_stats::inspect::{Inspection, Verdict};
use plimsoll_events::{Opened, TierPicture};
use serde::Serialize;

pub use contexts::Contexts;
pub(super) use contexts::{beside, is_of};
pub use decisions::{Around, Decision, Decisions, What};
pub use findings::CACHE_LINTS;
pub use models::{Models, Moved, Row};
pub use series::{Column, Reading, Series};
pub use vitals::{Dated, Vitals};

/// Everything the screen shows.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The number of the last event.
    pub seq: u64,
    /// The time of the last event, microseconds by the stream's clock. It never goes back.
    pub at_us: u64,
    /// How the stream began.
    pub opened: Option<Arc<Opened>>,
    /// Memory, limits and the allocator, the newest of each.
    pub vitals: Vitals,
    /// The newest look into the process.
    pub look: Option<Dated<Arc<Inspection>>>,
    /// Chunks that were asked for last, or why there are none.
    pub chunks: Option<Result<Arc<ChunksSeen>, String>>,
    /// Every tier, RAM first; empty for what is no cache.
    pub tiers: Vec<TierPicture>,
    /// What the process has of each tier's device besides.
    pub contexts: Contexts,
    /// Leases that wait, and when that was told.
    pub waiting: Option<Dated<u64>>,
    /// The models.
    pub models: Models,
    /// The name of the policy that chooses what to evict; empty where that was not told.
    pub policy: String,
    /// What was decided.
    pub decisions: Decisions,
    /// Curves of memory.
    pub series: Series,
    /// What follows, the gravest first, as of the last time that was [concluded](State::conclude).
    pub findings: Vec<Verdict>,
    /// Sums over the whole stream.
    pub sums: Sums,
    /// Sentences worth reading, the newest last, with their times.
    pub notes: VecDeque<Dated<String>>,
    /// How it ended, where it did.
    pub ended: Option<Ended>,
    /// Looks for growth, a few minutes back.
    growth: VecDeque<findings::Remembered>,
    /// The first number that was heard, once one was.
    first_seq: Option<u64>,
}

/// Sums over the whole stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Events heard.
    pub events: u64,
    /// Events that are missing: dropped, because the reader was too slow.
    pub missing: u64,
    /// Loads that came about.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Evictions.
    pub evictions: u64,
    /// Leases refused.
    pub refusals: u64,
    /// Leases of what was resident.
    pub hits: u64,
    /// Bytes of RAM freed by evictions, by the cache's own count.
    pub freed_bytes: u64,
    /// Bytes of RAM that the system got back from them.
    pub returned_bytes: u64,
}

/// How a source ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// In a sentence: the exit code, a kill for want of memory, the end of the file.
    pub why: String,
    /// Whether it ended as it should.
    pub in_order: bool,
}
