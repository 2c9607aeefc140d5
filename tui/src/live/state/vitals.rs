//! Memory, limits and the allocator: the newest of each, with its age.

use malloc_stats::heap::Heap;
use malloc_stats::inspect::Inspection;
use malloc_stats::limits::{Host, Limits, Pressure};
use malloc_stats::{AllocatorReading, Metric, Process, Settings, Snapshot, Vram};
use plimsoll_events::Memory;
use serde::Serialize;

/// What the allocator says of itself is preferred to a walk for so long, microseconds: its numbers
/// are those that a recording has too.
const FROM_WITHIN: u64 = 10_000_000;

/// Something, and when it was so, microseconds by the stream's clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Dated<T> {
    /// When.
    pub at_us: u64,
    /// What.
    pub value: T,
}

/// The newest of everything that is sampled. A part that no sample had is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Vitals {
    /// When the process's memory was read last; absent where it never was.
    pub at_us: Option<u64>,
    /// The memory of the process.
    pub process: Process,
    /// Threads; absent where nobody looked.
    pub threads: Option<u64>,
    /// What the program itself counts; absent where it does not tell.
    pub memory: Option<Dated<Memory>>,
    /// What is charged to its cgroup.
    pub cgroup_current: Metric,
    /// What the allocator says of its heap, from within or by a walk.
    pub allocator: Option<Dated<AllocatorReading>>,
    /// The allocator's settings in force.
    pub settings: Settings,
    /// What bounds its memory.
    pub limits: Option<Dated<Limits>>,
    /// The memory of the host.
    pub host: Option<Dated<Host>>,
    /// Time lost waiting for memory.
    pub pressure: Option<Dated<Pressure>>,
    /// GPUs.
    pub vram: Dated<Vec<Vram>>,
    /// Why there are none.
    pub vram_absent: Option<String>,
}

impl Vitals {
    /// Takes over what a sample has.
    pub(super) fn read(&mut self, at_us: u64, snapshot: &Snapshot, memory: Option<&Memory>) {
        if snapshot.process.rss.is_unavailable() && snapshot.limits.is_none() {
            // A line of nothing: an edited recording, a process that went meanwhile.
            return;
        }
        self.at_us = Some(at_us);
        self.process = snapshot.process;
        self.cgroup_current = snapshot.cgroup_current;
        let dated = |value| Dated { at_us, value };
        if let Some(memory) = memory {
            self.memory = Some(Dated {
                at_us,
                value: *memory,
            });
        }
        // A cheap snapshot repeats what a full one read a while ago.
        let read_at = at_us.saturating_sub(snapshot.allocator_age_us);
        let known = self.allocator.as_ref().map(|known| known.at_us);
        if let Some(heap) = &snapshot.allocator
            && known.is_none_or(|known| known <= read_at)
        {
            self.allocator = Some(Dated {
                at_us: read_at,
                value: heap.clone(),
            });
            if !snapshot.settings.is_empty() {
                self.settings = snapshot.settings.clone();
            }
        }
        if let Some(limits) = &snapshot.limits {
            self.limits = Some(Dated {
                at_us,
                value: limits.clone(),
            });
        }
        if let Some(host) = snapshot.host {
            self.host = Some(Dated { at_us, value: host });
        }
        if let Some(pressure) = snapshot.pressure {
            self.pressure = Some(Dated {
                at_us,
                value: pressure,
            });
        }
        if !snapshot.vram.is_empty() {
            self.vram = dated(snapshot.vram.clone());
        }
        if snapshot.vram_absent.is_some() {
            self.vram_absent.clone_from(&snapshot.vram_absent);
        }
    }

    /// Takes over what a look has.
    pub(super) fn look(&mut self, at_us: u64, inspection: &Inspection) {
        let snapshot = Snapshot {
            process: inspection.process.memory,
            cgroup_current: inspection
                .limits
                .cgroups
                .first()
                .map_or(Metric::Unavailable, |cgroup| cgroup.current),
            limits: Some(inspection.limits.clone()),
            host: inspection.host,
            pressure: inspection.pressure,
            vram: inspection.vram.clone(),
            vram_absent: inspection.vram_absent.clone(),
            ..Snapshot::default()
        };
        self.read(at_us, &snapshot, None);
        self.threads = Some(inspection.process.threads);
        let told = self.allocator.as_ref().map(|told| told.at_us);
        let is_told = told.is_some_and(|told| at_us.saturating_sub(told) < FROM_WITHIN);
        if let Some(heap) = inspection.heap.as_ref().filter(|_| !is_told) {
            self.allocator = Some(Dated {
                at_us,
                value: reading(&inspection.allocator.name, heap),
            });
        }
    }

    /// What is resident, and how long ago that was read.
    #[must_use]
    pub fn age_us(&self, now_us: u64) -> Option<u64> {
        Some(now_us.saturating_sub(self.at_us?))
    }
}

/// A walk in the words of a reading from within.
fn reading(name: &str, heap: &Heap) -> AllocatorReading {
    let totals = &heap.totals;
    AllocatorReading {
        name: name.to_owned(),
        in_use: totals.in_use,
        held: totals.held,
        free_virtual: totals.free_virtual,
        cached_resident: totals.cached_resident,
        returned_virtual: totals.returned_virtual,
        top_main: Metric::Exact(totals.mallinfo.keepcost),
        heap_rss: totals.heap_rss,
        glibc: Some(totals.mallinfo),
        ..AllocatorReading::default()
    }
}
