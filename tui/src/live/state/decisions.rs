//! What was decided, the latest.

use std::collections::VecDeque;
use std::sync::Arc;

use malloc_stats::{Metric, Snapshot};
use plimsoll_events::{BudgetChange, Evict, Load, Reclaim, Refuse};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// The latest decisions, at most [`MOST`](Decisions::MOST).
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    pub(crate) kept: VecDeque<Arc<Decision>>,
    /// How many there were.
    pub count: u64,
}

/// Something that was decided, or done.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The number of its event.
    pub seq: u64,
    /// When, microseconds by the stream's clock.
    pub at_us: u64,
    /// What.
    pub what: What,
}

/// What was decided. Snapshots within are lean: [`Around`] has what matters of them.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A model came into a tier, or failed to; memory before and after.
    Load(Box<Load>, Around, Around),
    /// A model left a tier; memory before and after.
    Evict(Box<Evict>, Around, Around),
    /// A lease was refused.
    Refuse(Box<Refuse>),
    /// A budget changed.
    Budget(Box<BudgetChange>),
    /// Memory was asked back from the allocator.
    Reclaim(Box<Reclaim>),
}

impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("at_us", &self.at_us)?;
        let kind = self.what.kind();
        map.serialize_entry("kind", kind)?;
        match &self.what {
            What::Load(load, before, after) => {
                map.serialize_entry(kind, load)?;
                map.serialize_entry("around", &[before, after])?;
            }
            What::Evict(evict, before, after) => {
                map.serialize_entry(kind, evict)?;
                map.serialize_entry("around", &[before, after])?;
            }
            What::Refuse(refuse) => map.serialize_entry(kind, refuse)?,
            What::Budget(change) => map.serialize_entry(kind, change)?,
            What::Reclaim(done) => map.serialize_entry(kind, done)?,
        }
        map.end()
    }
}

/// Memory around a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Around {
    /// All that is resident.
    pub rss: Metric,
    /// The anonymous part.
    pub anon: Metric,
    /// Mapped files.
    pub file: Metric,
    /// What is charged to the cgroup.
    pub cgroup: Metric,
    /// In blocks that are in use.
    pub in_use: Metric,
    /// Resident because of the allocator.
    pub heap_rss: Metric,
    /// Free in the allocator, and resident.
    pub cached_resident: Metric,
}

impl Around {
    /// What matters of a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Around {
        let allocator = snapshot.allocator.as_ref();
        let of_heap = |read: fn(&malloc_stats::AllocatorReading) -> Metric| {
            allocator.map_or(Metric::Unavailable, read)
        };
        Around {
            rss: snapshot.process.rss,
            anon: snapshot.process.anon,
            file: snapshot.process.file,
            cgroup: snapshot.cgroup_current,
            in_use: of_heap(|heap| heap.in_use),
            heap_rss: of_heap(|heap| heap.heap_rss),
            cached_resident: of_heap(|heap| heap.cached_resident),
        }
    }
}

impl What {
    /// Its kind, as the stream names it: `load`, `evict`, `refuse`, `budget`, `reclaim`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            What::Load(..) => "load",
            What::Evict(..) => "evict",
            What::Refuse(_) => "refuse",
            What::Budget(_) => "budget",
            What::Reclaim(_) => "reclaim",
        }
    }
}

impl Decisions {
    /// More than this are counted and not kept.
    pub const MOST: usize = 1024;

    /// Those that are kept, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Decision>> + ExactSizeIterator {
        self.kept.iter()
    }

    pub(super) fn push(&mut self, seq: u64, at_us: u64, mut what: What) {
        what.bound();
        if self.kept.len() == Decisions::MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Decision { seq, at_us, what }));
        self.count += 1;
    }
}
