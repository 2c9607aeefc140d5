//! The envelope and the kinds of event.

use std::collections::BTreeMap;
use std::sync::Arc;

use malloc_stats::{Allocator, Snapshot};
use serde::{Deserialize, Serialize};

use crate::decision::{Evict, Load, Refuse};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`VERSION`](crate::VERSION) of the writer.
    pub v: u32,
    /// Position in the stream, from 0. A gap means that events were dropped.
    pub seq: u64,
    /// Microseconds since the stream began, by a clock that does not jump.
    pub at_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: Kind,
}

/// The kinds of event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The stream begins: who writes it, under which settings.
    Opened(Box<Opened>),
    /// Memory at a moment.
    Sample(Box<Sample>),
    /// A model came into a tier.
    Load(Box<Load>),
    /// A model left a tier.
    Evict(Box<Evict>),
    /// A lease was refused.
    Refuse(Box<Refuse>),
    /// Counts that the fast path gathered since the last tally.
    Tally(Tally),
    /// Something worth a sentence: a budget above a limit, an adoption that was not possible.
    Note {
        /// The sentence.
        text: String,
    },
    /// The stream ends in order. A recording without it was cut off.
    Closed(Closed),
    /// A kind that this reader does not know.
    #[serde(other)]
    Unknown,
}

/// How the stream begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Wall-clock time, milliseconds since 1970.
    pub unix_ms: u64,
    /// The process.
    pub pid: u32,
    /// The program and its version.
    pub program: String,
    /// The profile's name.
    pub profile: String,
    /// The allocator that serves, in words: its name, its version, where it came from.
    pub allocator_name: String,
    /// Its descriptor, with the settings in force.
    pub allocator: Option<Allocator>,
    /// Where weights in RAM are kept: `heap`, `anonymous`.
    pub storage: String,
    /// The RAM budget, bytes; absent where there is no cache.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget_bytes: Option<u64>,
    /// What the run was asked for, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub options: BTreeMap<String, String>,
    /// The models in play.
    pub models: Vec<ModelSeen>,
}

/// A model, as the stream names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSeen {
    /// Its name. It comes from a file name: escape control characters before printing it.
    pub name: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// How many tensors it has.
    pub tensors: u64,
}

/// When a sample was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Before the first load.
    Baseline,
    /// After step `n` of a workload, from 1.
    Step(u64),
    /// With everything dropped.
    Dropped,
    /// With everything dropped, after the time to settle.
    Settled,
    /// On a clock.
    Tick,
}

/// What the program itself counts as memory in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Weights resident in RAM, bytes, evicted ones included while somebody holds them.
    pub live_bytes: u64,
    /// The part of `live_bytes` that was evicted and is still held.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub held_bytes: u64,
    /// Bytes of the churn's blocks that are alive.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub churn_bytes: u64,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// Memory at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The moment.
    pub point: Point,
    /// What the program counts.
    #[serde(flatten)]
    pub memory: Memory,
    /// What the system and the allocator count.
    pub snapshot: Snapshot,
}

/// What the fast path counted since the last tally.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Leases of resident models, by model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub hits: BTreeMap<String, u64>,
    /// Tensors that were copied because their memory could not be adopted.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub copied_tensors: u64,
    /// Bytes of those copies.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub copied_bytes: u64,
    /// Bytes of recycled pages that went back to the system because the lease they were kept for
    /// did not come to its load.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub gave_back_bytes: u64,
}

impl Tally {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty() && self.copied_tensors == 0 && self.gave_back_bytes == 0
    }
}

/// How the stream ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Hash over all weights read, hexadecimal, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checksum: Option<String>,
    /// The same for each model, over its tensors in the order of their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub model_checksums: BTreeMap<String, String>,
    /// Whether the run was interrupted by a signal.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub interrupted: bool,
}

/// Takes events as they happen. A sink must not block for long: it runs on the thread that loads.
pub trait Sink: Send + Sync {
    /// Takes an event.
    fn event(&self, event: &Event);
}

impl<S: Sink + ?Sized> Sink for Arc<S> {
    fn event(&self, event: &Event) {
        (**self).event(event);
    }
}
