//! A made-up process with a heap, for the tests of what draws heaps.

use std::sync::Arc;

use malloc_stats::heap::{
    Address, Alike, Arena, Chunks, Coverage, Heap, Hint, InForce, Mmapped, Pin, Shares, SizeClass,
    Stretch, Torn, Totals, Trim,
};
use malloc_stats::inspect::{Detected, Inspection};
use malloc_stats::{Mallinfo, Metric};

use super::MIB;
use crate::live::State;
use crate::live::state::Dated;

/// What the pictures tell apart: sixteen pages, as in a large heap.
const GRANULE: u64 = 64 << 10;

fn exact(mib: u64) -> Metric {
    Metric::Exact(mib * MIB)
}

/// A coverage in runs of `(granules, in use, free and resident)`, the shares in bytes of a granule;
/// the rest was given back.
pub(in crate::live::view) fn coverage(start: u64, runs: &[(u64, u64, u64)]) -> Coverage {
    let runs = runs.iter().map(|(count, in_use, free_resident)| Alike {
        count: *count,
        shares: Shares {
            in_use: *in_use,
            free_resident: *free_resident,
            free_released: GRANULE - in_use - free_resident,
        },
    });
    let stretch = Stretch {
        start,
        runs: runs.collect(),
    };
    Coverage::from_stretches(GRANULE, &[stretch], 1 << 20).unwrap()
}

/// An arena of so many MiB in use, free and resident, and given back.
pub(in crate::live::view) fn arena(
    index: usize,
    in_use: u64,
    resident: u64,
    released: u64,
) -> Arena {
    let start = 0x7f2a_0000_0000 + index as u64 * 0x1_0000_0000;
    let granules = |mib: u64| mib * MIB / GRANULE;
    Arena {
        index,
        system_mem: (in_use + resident + released) * MIB,
        attached_threads: index as u64,
        in_use: exact(in_use),
        free: exact(resident + released),
        rss: exact(in_use + resident),
        free_resident: exact(resident),
        releasable: Metric::Estimated(resident * MIB / 2),
        segments: 1,
        coverage: coverage(
            start,
            &[
                (granules(in_use) / 2, GRANULE, 0),
                (granules(resident) / 2, 0, GRANULE),
                (granules(in_use) / 2, GRANULE / 2, GRANULE / 2),
                (granules(released), 0, 0),
                (1, 32, 0),
            ],
        ),
        ..Arena::default()
    }
}

pub(in crate::live::view) fn heap() -> Heap {
    let mut locked = arena(2, 96, 8, 16);
    locked.locked = true;
    let worst = arena(1, 900, 2048, 1200);
    let end = worst.coverage.span().unwrap().end;
    Heap {
        totals: Totals {
            mallinfo: Mallinfo {
                hblks: 2,
                hblkhd: 64 * MIB,
                ..Mallinfo::default()
            },
            in_use: exact(7300),
            held: exact(11_000),
            free_virtual: exact(3700),
            cached_resident: exact(2156),
            returned_virtual: exact(1544),
            heap_rss: exact(9456),
            swapped: Metric::Exact(0),
        },
        settings: Some(InForce {
            mmap_threshold: 32 * MIB,
            trim_threshold: 64 * MIB,
            dynamic: true,
            mmap_max: 65_536,
            tcache_count: 7,
            tcache_max: 1032,
            ..InForce::default()
        }),
        arenas: vec![arena(0, 6240, 100, 328), worst, locked],
        mmapped: Mmapped {
            chunks: 2,
            bytes: 64 * MIB,
            found_chunks: 2,
            found_bytes: 64 * MIB,
            resident: exact(64),
        },
        trim: Trim {
            free_resident: exact(2156),
            releasable: Metric::Estimated(1900 * MIB),
            secondary_tops: exact(200),
            tcache: exact(12),
        },
        pins: vec![Pin {
            arena: 1,
            address: Address(end - GRANULE + 16),
            size: 32,
            below_free: 3248 * MIB,
            below_free_resident: exact(2048),
            hint: Some(Hint::Python("str".into())),
            ..Pin::default()
        }],
        histogram: vec![
            SizeClass {
                from: 32,
                in_use: Chunks {
                    count: 1000,
                    bytes: 40_000,
                },
                free: Chunks::default(),
            },
            SizeClass {
                from: MIB,
                in_use: Chunks {
                    count: 5120,
                    bytes: 7300 * MIB,
                },
                free: Chunks {
                    count: 1024,
                    bytes: 3700 * MIB,
                },
            },
        ],
        torn: Torn {
            segments: 5,
            ..Torn::default()
        },
        ..Heap::default()
    }
}

/// A state with one look, of this heap.
pub(in crate::live::view) fn state(at_us: u64, heap: Heap) -> State {
    let inspection = Inspection {
        cost_us: 191_000,
        allocator: Detected {
            name: "glibc".into(),
            version: Some("2.36".into()),
            walkable: true,
            ..Detected::default()
        },
        heap: Some(heap),
        ..Inspection::default()
    };
    let mut state = State::default();
    state.at_us = at_us;
    let value = Arc::new(inspection);
    state.look = Some(Dated { at_us, value });
    state
}
