//! What holds whatever is in memory: little work, little memory, and numbers that can be true.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use malloc_stats::Metric;
use malloc_stats::heap::{
    AddressSpace, ChunksSeen, Coverage, Heap, HeapError, Options, Shares, chunks, walk,
};

use crate::space::{Forged, PAGE};

/// The most that a walk may hold.
pub const MOST_MEMORY: u64 = 64 << 20;

/// Walks, and panics where the walk did too much or found what cannot be.
pub fn walked(space: &Forged, options: &Options) -> Result<Vec<Heap>, HeapError> {
    let walked = within_calls(space, options, || walk(space, options));
    for heap in walked.iter().flatten() {
        can_be(space, heap);
    }
    walked
}

/// The chunks of a stretch; panics as [`walked`] does.
pub fn seen(
    space: &Forged,
    options: &Options,
    arena: usize,
    range: Range<u64>,
    most: usize,
) -> Result<ChunksSeen, HeapError> {
    let ask = || chunks(space, options, arena, range.clone(), most);
    let seen = within_calls(space, options, ask);
    if let Ok(seen) = &seen {
        assert!(seen.chunks.len() <= most);
        assert!(seen.beyond == 0 || seen.chunks.len() == most);
        assert!(seen.chunks.is_sorted_by_key(|chunk| chunk.address));
        for chunk in &seen.chunks {
            let end = chunk.address + chunk.size;
            assert!(chunk.address < range.end && range.start < end, "{chunk:x?}");
            assert!(chunk.resident <= chunk.size, "{chunk:x?}");
        }
    }
    seen
}

fn within_calls<T>(space: &Forged, options: &Options, of: impl FnOnce() -> T) -> T {
    let tally = space.tally();
    let calls = || tally.reads.load(Relaxed) + tally.residency_calls.load(Relaxed);
    let before = calls();
    let result = of();
    let made = calls() - before;
    let tries = u64::from(options.retries) + 1;
    // A page holds 128 headers at most, which lists may lead to one by one.
    let held = space.resident_pages() + space.mappings().len() as u64;
    let allowed = tries * (20_000 + 256 * held);
    assert!(
        made <= allowed,
        "{made} calls for {} pages, where {allowed} would do",
        space.resident_pages()
    );
    result
}

fn can_be(space: &Forged, heap: &Heap) {
    // Heaps may have grown since the mappings were listed, so virtual sizes have no closer bound.
    let addresses = 1 << 47;
    let resident = space.resident_pages() * PAGE;
    let at_most = |what: &str, found: Metric, most: u64| {
        let found = found.bytes().unwrap_or(0);
        assert!(found <= most, "{what} is {found:#x}, of {most:#x}");
    };
    at_most("cached_resident", heap.totals.cached_resident, resident);
    at_most("heap_rss", heap.totals.heap_rss, resident);
    at_most("swapped", heap.totals.swapped, resident);
    at_most("free_resident", heap.trim.free_resident, resident);
    at_most("releasable", heap.trim.releasable, resident);
    at_most("secondary_tops", heap.trim.secondary_tops, resident);
    at_most("tcache", heap.trim.tcache, addresses);
    at_most("free_virtual", heap.totals.free_virtual, addresses);
    at_most("mmapped", heap.mmapped.resident, resident);
    let listed: u64 = space.mappings().iter().map(|mapping| mapping.len()).sum();
    assert!(heap.mmapped.found_bytes <= listed);
    assert!(heap.trim.releasable.bytes() <= heap.trim.free_resident.bytes());
    let mut histogram: u64 = 0;
    for class in &heap.histogram {
        histogram += class.in_use.bytes + class.free.bytes;
    }
    assert!(
        histogram <= addresses,
        "chunks of {histogram:#x} bytes in {addresses:#x}"
    );
    for arena in &heap.arenas {
        at_most("arena's rss", arena.rss, resident);
        at_most("arena's free", arena.free, addresses);
        at_most("arena's releasable", arena.releasable, resident);
        drawn(&arena.coverage);
    }
    // What was read is somebody else's, and still JSON that can be read back.
    let text = serde_json::to_string(heap).unwrap();
    let _: Heap = serde_json::from_str(&text).unwrap();
}

/// A picture holds to what it promises, however it is drawn.
fn drawn(coverage: &Coverage) {
    let sum = |coverage: &Coverage| {
        let cells = coverage.cells(1);
        cells
            .first()
            .map_or_else(Shares::default, |cell| cell.shares)
    };
    let span = coverage.span().unwrap_or(0..0);
    let middle = span.start + (span.end - span.start) / 2;
    for cells in [1, 7, 80 * 24] {
        assert!(coverage.cells(cells).len() <= cells);
        for part in [span.start..middle, middle..span.end, middle..u64::MAX] {
            let drawn = coverage.cells_in(part.clone(), cells);
            let meets = |cell: &Range<u64>| cell.start < part.end && part.start < cell.end;
            assert!(drawn.len() <= cells && drawn.iter().all(|cell| meets(&cell.range)));
        }
        let coarse = coverage.coarser(cells);
        assert!(coarse.granules() <= cells);
        if coarse.granule() <= 1 << 31 {
            assert_eq!(sum(&coarse), sum(coverage));
        }
        if !coarse.is_empty() {
            let stretches = coarse.stretches();
            let again = Coverage::from_stretches(coarse.granule(), &stretches, cells);
            assert_eq!(again.as_ref(), Ok(&coarse));
        }
    }
}
