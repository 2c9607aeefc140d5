//! Events made by hand, and a source that tells them.

use std::time::Duration;

use malloc_stats::limits::{Cgroup, Limit, Limits};
use malloc_stats::{AllocatorReading, Metric, Process, Snapshot};
use plimsoll_events::{
    Candidate, Event, Evict, EvictReason, Kind, Load, Memory, Opened, Origin, Point, Sample,
    Skipped, VERSION,
};
use plimsoll_tui::live::source::{About, Control, Heard, Source, SourceError};
use plimsoll_tui::live::state::Ended;

pub const MIB: u64 = 1 << 20;

pub fn event(seq: u64, at_us: u64, kind: Kind) -> Event {
    Event {
        v: VERSION,
        seq,
        at_us,
        kind,
    }
}

pub fn snapshot(rss: u64, in_use: u64) -> Snapshot {
    Snapshot {
        process: Process {
            rss: Metric::Exact(rss),
            anon: Metric::Exact(rss),
            ..Process::default()
        },
        cgroup_current: Metric::Exact(rss),
        allocator: Some(AllocatorReading {
            name: "glibc 2.36".to_owned(),
            in_use: Metric::Exact(in_use),
            heap_rss: Metric::Upper(rss),
            cached_resident: Metric::Estimated(rss.saturating_sub(in_use)),
            ..AllocatorReading::default()
        }),
        limits: Some(Limits {
            cgroups: vec![Cgroup {
                path: "/serve".to_owned(),
                max: Limit::Bytes(4096 * MIB),
                high: Limit::Unlimited,
                memsw_max: Limit::Unlimited,
                current: Metric::Exact(rss),
                ..Cgroup::default()
            }],
            host_total: Metric::Exact(65_536 * MIB),
            host_available: Metric::Estimated(32_768 * MIB),
            ..Limits::default()
        }),
        ..Snapshot::default()
    }
}

pub fn sample(rss: u64, live: u64) -> Kind {
    Kind::Sample(Box::new(Sample {
        point: Point::Tick,
        memory: Memory {
            live_bytes: live,
            ..Memory::default()
        },
        snapshot: snapshot(rss, live),
    }))
}

pub fn load(model: &str, bytes: u64, rss: u64) -> Kind {
    Kind::Load(Box::new(Load {
        model: model.to_owned(),
        part_of: None,
        is_patch: false,
        tier: "ram".to_owned(),
        from: Origin::File,
        bytes,
        charged_bytes: bytes,
        took_us: 1000,
        recycled_bytes: 0,
        gave_back: Metric::Exact(0),
        snapshots_us: 10,
        before: snapshot(rss.saturating_sub(bytes), 0),
        after: snapshot(rss, bytes),
        error: None,
        degraded: None,
    }))
}

pub fn evict(model: &str, freed: u64, returned: u64, rss: u64) -> Kind {
    Kind::Evict(Box::new(Evict {
        model: model.to_owned(),
        part_of: None,
        tier: "ram".to_owned(),
        reason: EvictReason::Room {
            wanted_for: vec!["next".to_owned()],
            asked_bytes: freed,
            free_bytes: 0,
        },
        bytes: freed,
        freed_bytes: freed,
        recycled_bytes: 0,
        held_bytes: 0,
        returned: Metric::Exact(returned),
        page_cache: None,
        device: None,
        took_us: 500,
        snapshots_us: 10,
        considered: vec![
            Candidate {
                model: model.to_owned(),
                bytes: freed,
                score: Some(0.5),
                skipped: None,
                reload_bytes: None,
            },
            Candidate {
                model: "other".to_owned(),
                bytes: 1,
                score: None,
                skipped: Some(Skipped::Leased { leases: 2 }),
                reload_bytes: Some(freed),
            },
        ],
        considered_besides: 0,
        before: snapshot(rss + freed, freed),
        after: snapshot(rss, 0),
    }))
}

pub fn opened() -> Kind {
    Kind::Opened(Box::new(Opened {
        unix_ms: 1_700_000_000_000,
        pid: 1,
        program: "serve".to_owned(),
        allocator_name: "glibc 2.36".to_owned(),
        storage: "heap".to_owned(),
        budget_bytes: Some(1000 * MIB),
        ..Opened::default()
    }))
}

/// Tells events in batches, and ends.
pub struct Told {
    pub batches: Vec<Vec<Event>>,
}

impl Source for Told {
    fn about(&self) -> About {
        About {
            name: "told".to_owned(),
            ..About::default()
        }
    }

    fn hear(&mut self, _: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        match self.batches.is_empty() {
            false => {
                into.extend(self.batches.remove(0));
                Ok(Heard::Events)
            }
            true => Ok(Heard::Ended(Ended {
                why: "told everything".to_owned(),
                in_order: true,
            })),
        }
    }

    fn control(&mut self, _: Control) {}
}
