//! What is counted while the chunks of a stretch of memory go by, in order of address.

use std::ops::Range;

use super::chunks::{ChunkState, Recording};
use super::coverage::Extent;
use super::memory::Memory;
use super::report::{Chunks, SizeClass};

/// `sizeof (struct malloc_chunk)`: what a trim leaves at the head of a free chunk.
const CHUNK_STRUCT: u64 = 48;
/// `MINSIZE`: what a trim leaves of the main top, and a byte.
const MINSIZE: u64 = 32;

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    InUse,
    Free,
    /// Free, in a fastbin.
    Fast,
}

/// Chunks by size: one class for each power of two.
#[derive(Debug, Clone)]
pub(super) struct Histogram([(Chunks, Chunks); 64]);

impl Default for Histogram {
    fn default() -> Self {
        Self([(Chunks::default(), Chunks::default()); 64])
    }
}

impl Histogram {
    pub(super) fn add(&mut self, size: u64, is_free: bool) {
        let class = 63 - size.max(1).leading_zeros() as usize;
        let (in_use, free) = &mut self.0[class];
        let chunks = if is_free { free } else { in_use };
        chunks.count += 1;
        chunks.bytes = chunks.bytes.saturating_add(size);
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            for (mine, theirs) in [(&mut mine.0, theirs.0), (&mut mine.1, theirs.1)] {
                mine.count += theirs.count;
                mine.bytes = mine.bytes.saturating_add(theirs.bytes);
            }
        }
    }

    pub(super) fn classes(&self) -> Vec<SizeClass> {
        let classes = self.0.iter().enumerate();
        classes
            .filter(|(_, (in_use, free))| in_use.count + free.count > 0)
            .map(|(power, (in_use, free))| SizeClass {
                from: 1 << power,
                in_use: *in_use,
                free: *free,
            })
            .collect()
    }
}

/// Chunks in use side by side, and the free memory right below them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LiveRun {
    pub(super) end: u64,
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    /// The last of them.
    pub(super) last: u64,
    pub(super) last_size: u64,
    pub(super) below: u64,
    pub(super) below_resident: u64,
}

/// Free chunks side by side, which a trim would join.
#[derive(Debug, Clone, Copy)]
struct FreeRun {
    start: u64,
    end: u64,
    resident: u64,
}

/// A free chunk whose size by its own header is not that in the header behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disagreement {
    pub(super) chunk: u64,
    pub(super) front: u64,
    pub(super) behind: u64,
    /// A chunk some way before it, from where the headers led to it.
    pub(super) from: u64,
}

/// The sums over a stretch of memory.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) in_use: Chunks,
    /// Without the top and fastbins.
    pub(super) free: Chunks,
    pub(super) fast: Chunks,
    pub(super) top: Option<(u64, u64)>,
    pub(super) top_resident: u64,
    /// Free chunks right below the top, and what of them is resident.
    pub(super) above: (u64, u64),
    pub(super) free_resident: u64,
    pub(super) releasable: u64,
    pub(super) histogram: Histogram,
    pub(super) extent: Extent,
    /// The last chunks in use.
    pub(super) live: Option<LiveRun>,
    /// Chunks that may be thread caches.
    pub(super) caches: Vec<u64>,
    /// Chunks whose two records of their size disagree.
    pub(super) disagreed: Vec<Disagreement>,
    /// Bytes that could not be followed.
    pub(super) lost: u64,
    /// Chunks one by one, where they were asked for.
    pub(super) recording: Option<Recording>,
    run: Option<FreeRun>,
}

impl Tally {
    pub(super) fn new(extent: Extent, recording: Option<Recording>) -> Self {
        Self {
            in_use: Chunks::default(),
            free: Chunks::default(),
            fast: Chunks::default(),
            top: None,
            top_resident: 0,
            above: (0, 0),
            free_resident: 0,
            releasable: 0,
            histogram: Histogram::default(),
            extent,
            live: None,
            caches: Vec::new(),
            disagreed: Vec::new(),
            lost: 0,
            recording,
            run: None,
        }
    }

    pub(super) fn chunk(&mut self, range: Range<u64>, sort: Sort, memory: &mut Memory<'_>) {
        let size = range.end - range.start;
        self.histogram.add(size, sort != Sort::InUse);
        if let Some(recording) = &mut self.recording {
            let state = match sort {
                Sort::InUse => ChunkState::InUse,
                Sort::Free | Sort::Fast => ChunkState::Free,
            };
            recording.add(range.clone(), state, memory);
        }
        let chunks = match sort {
            Sort::InUse => &mut self.in_use,
            Sort::Free => &mut self.free,
            Sort::Fast => &mut self.fast,
        };
        chunks.count += 1;
        chunks.bytes += size;
        if sort == Sort::InUse {
            self.add_live(range);
            return;
        }
        let resident = self.extent.add_free(range.clone(), memory);
        self.free_resident += resident;
        match &mut self.run {
            Some(run) if run.end == range.start => {
                run.end = range.end;
                run.resident += resident;
            }
            _ => {
                self.close_run(memory);
                self.run = Some(FreeRun {
                    start: range.start,
                    end: range.end,
                    resident,
                });
            }
        }
    }

    fn add_live(&mut self, range: Range<u64>) {
        self.extent.add_in_use(range.clone());
        let size = range.end - range.start;
        match &mut self.live {
            Some(live) if live.end == range.start => {
                live.end = range.end;
                live.chunks += 1;
                live.bytes += size;
                live.last = range.start;
                live.last_size = size;
            }
            _ => {
                let below = self.run.filter(|run| run.end == range.start);
                self.live = Some(LiveRun {
                    end: range.end,
                    chunks: 1,
                    bytes: size,
                    last: range.start,
                    last_size: size,
                    below: below.map_or(0, |run| run.end - run.start),
                    below_resident: below.map_or(0, |run| run.resident),
                });
            }
        }
    }

    /// A header that only marks an end: no chunk, but part of what malloc counts as in use.
    pub(super) fn fence(&mut self, range: Range<u64>) {
        self.extent.add_in_use(range);
    }

    /// The top: the main arena's is given back down to what it must keep, if it lies right below
    /// the brk; others never.
    pub(super) fn top(
        &mut self,
        range: Range<u64>,
        shrinks_by: Option<u64>,
        memory: &mut Memory<'_>,
    ) {
        self.top = Some((range.start, range.end - range.start));
        if let Some(recording) = &mut self.recording {
            recording.add(range.clone(), ChunkState::Top, memory);
        }
        self.top_resident = self.extent.add_free(range.clone(), memory);
        self.free_resident += self.top_resident;
        // A trim joins fastbin chunks with the top first.
        let joined = self.run.take_if(|run| run.end == range.start);
        let start = joined.map_or(range.start, |run| run.start);
        self.above = joined.map_or((0, 0), |run| (run.end - run.start, run.resident));
        if let Some(step) = shrinks_by {
            let spare = (range.end - start).saturating_sub(MINSIZE + 1);
            let released = spare / step * step;
            self.releasable += memory.resident(range.end - released..range.end);
        }
        self.close_run(memory);
    }

    /// After the last chunk.
    pub(super) fn finish(&mut self, memory: &mut Memory<'_>) {
        self.close_run(memory);
    }

    /// A run of free memory has ended: a trim gives back the whole pages in it, but for its head.
    fn close_run(&mut self, memory: &mut Memory<'_>) {
        if let Some(run) = self.run.take() {
            let page = memory.page();
            let start = (run.start + CHUNK_STRUCT).next_multiple_of(page);
            let end = run.end / page * page;
            if start < end {
                self.releasable += memory.resident(start..end);
            }
        }
    }
}
