//! One vocabulary for every allocator.

use serde::{Deserialize, Serialize};

use crate::glibc::{self, Mallinfo};
use crate::heap_residency::{self, HeapResidency};
use crate::jemalloc::{self, JemallocStats};
use crate::metric::{Grade, Metric};
use crate::provider::Provider;
use crate::{Allocator, AllocatorKind};

/// What the allocator that serves says of its heap, in the same words whichever it is.
///
/// All in bytes. *Virtual* numbers count address space: their pages may be resident or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AllocatorReading {
    /// Who serves, such as `glibc 2.36` or `jemalloc (preloaded, /usr/lib/libjemalloc.so.2)`.
    pub name: String,
    /// In blocks handed out and not freed. glibc: `uordblks + hblkhd`, with chunk headers and what
    /// thread caches hold. jemalloc: `stats.allocated`, rounded up to size classes.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub in_use: Metric,
    /// Held from the system; virtual. glibc: `arena + hblkhd`. jemalloc: active + dirty + muzzy +
    /// metadata.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub held: Metric,
    /// Free inside the allocator; virtual, so it survives a perfect trim and is no measure of
    /// waste. glibc: `fordblks`. jemalloc: (active − allocated) + dirty + muzzy.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub free_virtual: Metric,
    /// Lost inside blocks and pages that are in use. glibc: unavailable, its headers are in
    /// `in_use`. jemalloc: active − allocated.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub internal_waste: Metric,
    /// Free and still resident: what a trim or purge can give back at most. glibc: resident pages
    /// of its heaps less `uordblks`, so too low where blocks in use were never touched. jemalloc:
    /// dirty pages (muzzy ones may be resident as well).
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub cached_resident: Metric,
    /// Given back to the system, with the address space kept. glibc: `free_virtual −
    /// cached_resident`. jemalloc: retained.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub returned_virtual: Metric,
    /// The allocator's own records. glibc: unavailable. jemalloc: `stats.metadata`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub metadata: Metric,
    /// The top of the *main* arena: `keepcost` of glibc. Tops of other arenas are in none of its
    /// numbers.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub top_main: Metric,
    /// Resident because of this allocator. glibc: resident pages of `[heap]` and of the heaps of
    /// other arenas, plus `hblkhd` as if mmapped chunks were all touched; an upper bound.
    /// jemalloc: `stats.resident`, an upper bound too.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub heap_rss: Metric,
    /// glibc's raw numbers. Where jemalloc serves Rust's heap, these are what C libraries hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glibc: Option<Mallinfo>,
    /// jemalloc's raw numbers, where it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jemalloc: Option<JemallocStats>,
    /// Why something is unavailable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Memory that is resident because of the allocator, and in no block that is in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waste {
    /// `max(0, 1 − in_use / heap_rss)`: between 0 and 1.
    pub fraction: f64,
    /// `max(0, heap_rss − in_use)`, graded like `heap_rss` and `in_use` together.
    pub bytes: Metric,
}

impl AllocatorReading {
    /// `max(0, 1 − in_use / heap_rss)`, with the bytes: the same formula for every allocator.
    /// `None` where either is unavailable, or nothing is resident. More in use than resident means
    /// untouched pages, not negative waste.
    #[must_use]
    pub fn waste(&self) -> Option<Waste> {
        let (in_use, heap_rss) = (self.in_use.bytes()?, self.heap_rss.bytes()?);
        if heap_rss == 0 {
            return None;
        }
        Some(Waste {
            fraction: (1.0 - in_use as f64 / heap_rss as f64).max(0.0),
            bytes: self.heap_rss.minus_saturating(self.in_use),
        })
    }

    /// Reads the allocator that serves.
    pub(crate) fn read(allocator: &Allocator) -> Self {
        let mut reading = Self {
            name: name_of(allocator.kind),
            glibc: glibc::mallinfo(),
            ..Self::default()
        };
        if reading.glibc.is_none() {
            reading
                .notes
                .extend(glibc::why_unavailable().map(str::to_owned));
        }
        match allocator.kind {
            AllocatorKind::Libc => {
                if let Some(mallinfo) = reading.glibc {
                    reading.fill_from_glibc(&mallinfo, heap_residency::read(mallinfo.arena));
                }
            }
            AllocatorKind::Jemalloc => match jemalloc::stats() {
                Ok(stats) => reading.fill_from_jemalloc(&stats),
                Err(reason) => reading.notes.push(reason),
            },
        }
        reading
    }

    fn fill_from_glibc(&mut self, raw: &Mallinfo, heaps: Result<HeapResidency, String>) {
        self.in_use = Metric::Exact(raw.uordblks.saturating_add(raw.hblkhd));
        self.held = Metric::Exact(raw.arena.saturating_add(raw.hblkhd));
        self.free_virtual = Metric::Exact(raw.fordblks);
        self.top_main = Metric::Exact(raw.keepcost);
        match heaps {
            Ok(heaps) => {
                self.heap_rss = Metric::Upper(heaps.resident.saturating_add(raw.hblkhd));
                let cached = heaps
                    .resident
                    .saturating_sub(raw.uordblks)
                    .min(raw.fordblks);
                self.cached_resident = Metric::Estimated(cached);
                self.returned_virtual = self.free_virtual.minus_saturating(self.cached_resident);
            }
            Err(reason) => self.notes.push(reason),
        }
    }

    fn fill_from_jemalloc(&mut self, raw: &JemallocStats) {
        // Arenas are summed one after the other, so differences can come out below zero.
        let slack = raw.active.saturating_sub(raw.allocated);
        let unused = raw.dirty.saturating_add(raw.muzzy);
        self.in_use = Metric::Exact(raw.allocated);
        self.held = Metric::Exact(
            raw.active
                .saturating_add(unused)
                .saturating_add(raw.metadata),
        );
        self.free_virtual = Metric::Exact(slack.saturating_add(unused));
        self.internal_waste = Metric::Exact(slack);
        self.cached_resident = Metric::graded(raw.dirty, Grade::Estimated);
        self.returned_virtual = Metric::Exact(raw.retained);
        self.metadata = Metric::Exact(raw.metadata);
        self.heap_rss = Metric::Upper(raw.resident);
        self.jemalloc = Some(*raw);
    }
}

/// Who serves, in words.
pub(crate) fn name_of(kind: AllocatorKind) -> String {
    match kind {
        AllocatorKind::Libc => Provider::of_malloc().to_string(),
        AllocatorKind::Jemalloc => "jemalloc (linked into the program)".to_owned(),
    }
}
