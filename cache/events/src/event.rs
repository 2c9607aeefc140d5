//! The envelope and the kinds of event.

use std::collections::BTreeMap;
use std::sync::Arc;

use malloc_stats::{Allocator, Metric, Snapshot};
use serde::{Deserialize, Serialize};

use crate::decision::{BudgetChange, Evict, Load, Reclaim, Refuse, Streamed};
use crate::figures::DeviceFigures;
use crate::look::Look;
use crate::request::Answer;

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
    /// A model that [`Opened`] did not name, before its first load is told.
    Model(Box<ModelSeen>),
    /// Memory at a moment.
    Sample(Box<Sample>),
    /// A model came into a tier.
    Load(Box<Load>),
    /// A model left a tier.
    Evict(Box<Evict>),
    /// A lease was refused.
    Refuse(Box<Refuse>),
    /// A lease of a part of a model has ended.
    Streamed(Box<Streamed>),
    /// A budget that follows the machine has changed.
    Budget(Box<BudgetChange>),
    /// Freed memory was asked back from the allocator.
    Reclaim(Box<Reclaim>),
    /// Which models are where, at a moment.
    Picture(Box<Picture>),
    /// Counts that the fast path gathered since the last tally.
    Tally(Tally),
    /// Memory of the process on a clock, seen from outside by whoever watches it.
    #[serde(with = "pulse")]
    Pulse(Box<Snapshot>),
    /// The process, looked into from outside by whoever watches it.
    Look(Box<Look>),
    /// What came of a request. Beside the stream, for the client alone that made it.
    Answer(Box<Answer>),
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

/// A pulse has its snapshot under a name: beside the envelope both would have a time.
mod pulse {
    use malloc_stats::Snapshot;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Pulse<S> {
        snapshot: S,
    }

    pub(super) fn serialize<S: Serializer>(
        snapshot: &Snapshot,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Pulse { snapshot }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Box<Snapshot>, D::Error> {
        Pulse::deserialize(deserializer).map(|pulse: Pulse<_>| pulse.snapshot)
    }
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
    /// The tiers besides RAM.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub devices: Vec<DeviceSeen>,
    /// What the run was asked for, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub options: BTreeMap<String, String>,
    /// The models in play.
    pub models: Vec<ModelSeen>,
}

/// A device, as the stream names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSeen {
    /// The tier's name.
    pub tier: String,
    /// Its budget, bytes.
    pub budget_bytes: u64,
    /// Whether it only pretends to be a device.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub simulated: bool,
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
    /// Its tensors in groups, in the order of its files: at most 64. Empty where that was not told.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub groups: Vec<GroupSeen>,
}

/// Tensors of a model whose names begin alike, such as all of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSeen {
    /// How their names begin. It comes from a file: escape control characters before printing it.
    pub name: String,
    /// Their types, such as `BF16`, or `BF16 F32` where there are several.
    pub dtypes: String,
    /// How many they are.
    pub tensors: u64,
    /// Their bytes.
    pub bytes: u64,
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
    /// After that, once the allocator was asked to give everything back that it can: what a trim
    /// or purge would have gained.
    Purged,
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

/// Which models are where, in one consistent picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// The name of the policy that chooses what to evict; empty where that was not told.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub policy: String,
    /// Every tier, RAM first.
    pub tiers: Vec<TierPicture>,
    /// Every model that is in some tier, or on its way.
    pub models: Vec<ModelPicture>,
    /// Leases that wait.
    pub waiting: u64,
}

/// Where the bytes of a tier are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPicture {
    /// Its name: `ram`, or the device's.
    pub tier: String,
    /// Whether it only pretends to be a device.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub simulated: bool,
    /// The budget, bytes; `u64::MAX` where there is none.
    pub budget_bytes: u64,
    /// Bytes that count: reserved, resident, on their way out, held after eviction, staging.
    pub used_bytes: u64,
    /// The part that leases, loads, evictions under way and held tensors keep from being freed.
    pub pinned_bytes: u64,
    /// The part that was evicted while tensors still held it.
    pub held_bytes: u64,
    /// Staging buffers of loads under way.
    pub staging_bytes: u64,
    /// Working memory that leases have declared. Not in `used_bytes`.
    pub working_bytes: u64,
    /// What the budget leaves to everything else, and covers declared working memory with.
    pub reserve_bytes: u64,
    /// Models resident.
    pub resident_models: u64,
    /// What of its models is mapped files, which the machine can take back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page_cache: Option<PageCache>,
    /// Memory that is page-locked for its models, or waits to be used so by a load.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub page_locked_bytes: u64,
    /// What the device's driver says of its memory, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<Box<DeviceFigures>>,
}

/// Mapped files, as they were seen when they were last looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCache {
    /// Bytes that are mapped, which count against the budget whether they are resident or not.
    pub mapped_bytes: u64,
    /// What the page cache holds of the files, whoever had read it: memory that can be taken back.
    pub resident: Metric,
    /// What would have to be read from the disk if the models were evicted and came back.
    pub reload: Metric,
}

impl PageCache {
    /// With another.
    #[must_use]
    pub fn plus(self, other: PageCache) -> PageCache {
        PageCache {
            mapped_bytes: self.mapped_bytes.saturating_add(other.mapped_bytes),
            resident: self.resident.plus(other.resident),
            reload: self.reload.plus(other.reload),
        }
    }
}

/// Where a model is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelPicture {
    /// Its name.
    pub model: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// The tiers where it is, or on its way in or out.
    pub places: Vec<PlacePicture>,
    /// Dropped, and there only until the leases that hold it end.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dropped: bool,
}

/// A model in a tier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlacePicture {
    /// The tier.
    pub tier: String,
    /// `loading`, `resident` or `evicting`.
    pub phase: String,
    /// What it counts there, bytes.
    pub charged_bytes: u64,
    /// Leases that hold it there, or wait for its load.
    pub leases: u64,
    /// Milliseconds since it was last leased there; absent where that is not known, or it is leased.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub idle_ms: Option<u64>,
    /// What the policy holds it to be worth; the lowest goes first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// What bringing it back would take, microseconds, by the last time: from RAM where it is there
    /// too, else from its files. Absent where that was never done. Of a model that is mapped it is
    /// the mapping alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reload_us: Option<u64>,
    /// What of it is mapped files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub page_cache: Option<PageCache>,
    /// Bytes of its tensors that are there, where it is there in parts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part_bytes: Option<u64>,
}

impl ModelPicture {
    /// Adds another part of the same model.
    pub fn add(&mut self, part: ModelPicture) {
        self.dropped |= part.dropped;
        for place in part.places {
            let known = self.places.iter_mut().find(|one| one.tier == place.tier);
            match known {
                Some(known) => known.add(&place),
                None => self.places.push(place),
            }
        }
    }
}

impl PlacePicture {
    /// Adds another part of the same model in the same tier.
    fn add(&mut self, part: &PlacePicture) {
        let sum = |one: Option<u64>, other: Option<u64>| {
            let both = one.zip(other).map(|(one, other)| one.saturating_add(other));
            both.or(one).or(other)
        };
        if part.phase != "resident" {
            self.phase.clone_from(&part.phase);
        }
        self.charged_bytes = self.charged_bytes.saturating_add(part.charged_bytes);
        self.leases = self.leases.max(part.leases);
        self.idle_ms = self.idle_ms.min(part.idle_ms).filter(|_| self.leases == 0);
        self.score = None;
        self.reload_us = sum(self.reload_us, part.reload_us);
        self.part_bytes = sum(self.part_bytes, part.part_bytes);
    }
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
